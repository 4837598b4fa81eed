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

/// Bytes of a cache line.
const LINE: usize = 64;

/// Where the chains of a ring began and ended, by head.
#[derive(Debug, Default)]
pub(super) struct Foresight(Vec<Ends>);

/// What is read first, a header as a rule, and what is written last: a status, or a packet.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    read: Lines,
    write: Lines,
}

/// Addresses in this process, in the first line of a segment and in its second; in the first once more where
/// there is no second, which costs nothing. 0 for none.
#[derive(Clone, Copy, Debug, Default)]
struct Lines([usize; 2]);

impl Lines {
    #[inline]
    fn of(segment: Option<&Segment>) -> Self {
        segment.map_or(Self::default(), |segment| {
            let first = segment.addr().addr();
            let reach = segment.len().saturating_sub(1).min(LINE);
            Self([first, first.wrapping_add(reach)])
        })
    }
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
            for addr in ends.read.0 {
                to_read(addr);
            }
            for addr in ends.write.0 {
                to_write(addr);
            }
        }
    }

    /// Remembers a chain, of which the first `readable` segments are for the device to read.
    #[inline]
    pub(super) fn note(&mut self, head: u16, segments: &[Segment], readable: usize) {
        if let Some(ends) = self.0.get_mut(usize::from(head)) {
            let (first, last) = (segments.first(), segments.last());
            ends.read = Lines::of(first.filter(|_| readable > 0));
            ends.write = Lines::of(last.filter(|_| readable < segments.len()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_the_first_bytes() {
        let lines = |addr: usize, len| {
            // SAFETY: never touched.
            let segment = unsafe { Segment::new(std::ptr::without_provenance_mut(addr), len) };
            Lines::of(Some(&segment)).0.map(|addr| addr & !(LINE - 1))
        };
        assert_eq!(lines(0x1000, 64), [0x1000, 0x1000]);
        assert_eq!(lines(0x1000, 65), [0x1000, 0x1040]);
        assert_eq!(lines(0x103f, 1), [0x1000, 0x1000]);
        assert_eq!(lines(0x103f, 2), [0x1000, 0x1040]);
        assert_eq!(lines(0x1001, 1 << 32), [0x1000, 0x1040]);
        assert_eq!(Lines::of(None).0, [0, 0]);
    }
}
