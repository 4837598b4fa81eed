//! Walks a descriptor chain the guest wrote and turns it into segments.
//!
//! Each descriptor is copied out once and only the copy is judged. Loops end by counting: a chain
//! has no more descriptors than the ring, or [`MAX_DESCRIPTORS`] when an indirect table allows it.
#![allow(unsafe_code)] // Makes segments of what it has translated.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::split::{DESC_INDIRECT, DESC_LEN, DESC_NEXT, DESC_WRITE, Table};
use crate::memory::{Memory, Window};
use crate::request::Segment;

/// Longest chain accepted on a ring that is shorter than this; what the kernel takes in one
/// `readv` (`IOV_MAX`). Bounds what one descriptor of the guest's costs the host.
pub(super) const MAX_DESCRIPTORS: u16 = 1024;

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A head or `next` points behind the table.
    #[error("descriptor index {0} is behind the end of its table")]
    Index(u16),
    /// More descriptors than allowed: a loop, most likely.
    #[error("the chain has a loop or more than {0} descriptors")]
    TooLong(u16),
    /// The buffer is not all guest memory.
    #[error("the {len} bytes at guest address {addr:#x} are not guest memory")]
    Address {
        /// Guest physical address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A readable descriptor behind a writable one.
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// An indirect table inside another, chained on, empty, not in whole descriptors, or not
    /// negotiated.
    #[error("the indirect table at guest address {addr:#x} with {len} bytes is not allowed")]
    Indirect {
        /// Guest physical address of the table.
        addr: u64,
        /// Its length in bytes.
        len: u32,
    },
}

/// What a walk needs to know of its queue.
pub(super) struct Walk<'a> {
    pub(super) memory: &'a Memory,
    pub(super) window: &'a mut Window,
    /// Whether `RING_INDIRECT_DESC` was negotiated.
    pub(super) indirect: bool,
    /// Most descriptors allowed.
    pub(super) limit: u16,
}

impl Walk<'_> {
    /// Appends the chain's segments, readable ones first, and returns how many are readable.
    /// `segments` must be empty; after an error its content means nothing.
    #[inline]
    pub(super) fn run(
        &mut self,
        mut table: Table,
        head: u16,
        segments: &mut Vec<Segment>,
    ) -> Result<usize, ChainError> {
        let mut index = head;
        let mut inside = false;
        let mut writing = false;
        let mut readable = 0;
        let mut left = self.limit;
        loop {
            let desc = table.get(index).ok_or(ChainError::Index(index))?;
            if desc.flags & DESC_INDIRECT != 0 {
                if inside || desc.flags & DESC_NEXT != 0 {
                    return Err(ChainError::Indirect {
                        addr: desc.addr,
                        len: desc.len,
                    });
                }
                table = self.indirect_table(desc.addr, desc.len)?;
                inside = true;
                index = 0;
                continue;
            }
            left = left.checked_sub(1).ok_or(ChainError::TooLong(self.limit))?;
            if desc.flags & DESC_WRITE != 0 {
                if !writing {
                    writing = true;
                    readable = segments.len();
                }
            } else if writing {
                return Err(ChainError::Order);
            }
            // A buffer of no bytes has no segment (and its address says nothing).
            if desc.len != 0 {
                let push = |host, len| {
                    // SAFETY: `parts` gives only ranges mapped by `memory`, and the queue keeps
                    // that table for as long as the request lives.
                    segments.push(unsafe { Segment::new(host, len) });
                };
                if !self.memory.parts(self.window, desc.addr, desc.len, push) {
                    return Err(ChainError::Address {
                        addr: desc.addr,
                        len: desc.len,
                    });
                }
            }
            if desc.flags & DESC_NEXT == 0 {
                return Ok(if writing { readable } else { segments.len() });
            }
            index = desc.next;
        }
    }

    fn indirect_table(&mut self, addr: u64, len: u32) -> Result<Table, ChainError> {
        let refused = ChainError::Indirect { addr, len };
        let entries = len / DESC_LEN;
        if !self.indirect || len == 0 || !len.is_multiple_of(DESC_LEN) {
            return Err(refused);
        }
        // Drivers allocate the table in one piece, which never straddles two regions.
        let host = match self.window.translate(addr, u64::from(len)) {
            Some(host) => host,
            None => self
                .memory
                .guest(addr, u64::from(len))
                .ok_or(ChainError::Address { addr, len })?,
        };
        // SAFETY: translated just now, and `memory` outlives the walk.
        Ok(unsafe { Table::new(host, entries) })
    }
}
