//! What the next chains will need, asked of memory before it is needed.
//!
//! Each cache line that a request touches was written last by the driver's CPU, and to fetch one from
//! there takes longer than all the engine does with it: head, descriptors, header and status, one after
//! the other, are most of what a request costs. A driver as a rule puts the same buffers behind the same
//! head again. So where the chain of a head began and ended last time is remembered, and asked for
//! together with its descriptors. A guess that is wrong costs nothing: a prefetch has no effect but on time.
#![allow(unsafe_code)] // Prefetch instructions.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::request::Segment;

/// Heads that are remembered at most: of larger rings the first ones.
const MOST_HEADS: usize = 1024;

/// Where the chains of a ring began and ended, by head.
#[derive(Debug, Default)]
pub(super) struct Foresight(Vec<Ends>);

/// Addresses in this process, or 0.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// Of what the device reads first: a header, as a rule.
    first: usize,
    /// Of what it writes last: a status, as a rule.
    last: usize,
}

impl Foresight {
    /// Of a ring of so many heads nothing is known yet.
    pub(super) fn start(&mut self, size: u16) {
        self.0.clear();
        self.0
            .resize(usize::from(size).min(MOST_HEADS), Ends::default());
    }

    /// Asks for what the chain of `head` needed last time.
    #[inline]
    pub(super) fn ask(&self, head: u16) {
        if let Some(ends) = self.0.get(usize::from(head)) {
            to_read(ends.first);
            to_write(ends.last);
        }
    }

    /// Remembers a chain.
    #[inline]
    pub(super) fn note(&mut self, head: u16, segments: &[Segment]) {
        if let Some(ends) = self.0.get_mut(usize::from(head))
            && let (Some(first), Some(last)) = (segments.first(), segments.last())
        {
            ends.first = first.addr().addr();
            ends.last = last.addr().addr();
        }
    }
}

/// Asks for the line at this address, to be read. Any address may be named: none is touched.
#[inline]
pub(super) fn to_read(addr: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and raises no fault.
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) addr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = addr;
}

/// The same, to be written.
#[inline]
fn to_write(addr: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above; a processor that does not know it does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) addr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = addr;
}
