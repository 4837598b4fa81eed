//! Walks a descriptor chain the guest wrote and turns it into segments.
//!
//! Each descriptor is copied out once and only the copy is judged. Loops end by counting: a chain
//! has no more descriptors than the ring, or [`MAX_DESCRIPTORS`] when an indirect table allows it.
#![allow(unsafe_code)] // Makes segments of what it has translated.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::descriptor::{
    DESC_INDIRECT, DESC_LEN, DESC_NEXT, DESC_WRITE, Descriptor, Format, Table,
};
use super::ring::{Count, WRAP};
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
    /// A packed ring's buffer has an id that the ring is too short for. Virtio does not forbid it; devices
    /// may go by ids, and no driver in use gives such.
    #[error("buffer id {0} is not below the ring's size")]
    Id(u16),
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

impl ChainError {
    fn indirect(desc: &Descriptor) -> Self {
        Self::Indirect {
            addr: desc.addr,
            len: desc.len,
        }
    }
}

/// A chain being taken: what is needed to know of its queue, and how far it has come.
pub(super) struct Walk<'a> {
    memory: &'a Memory,
    window: &'a mut Window,
    /// Whether `RING_INDIRECT_DESC` was negotiated.
    indirect: bool,
    /// Most buffers allowed, and how many more.
    limit: u16,
    left: u16,
    segments: &'a mut Vec<Segment>,
    /// How many segments are readable, once a writable one has come.
    readable: Option<usize>,
}

/// What is known of a chain that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    /// How many segments are readable.
    pub(super) readable: usize,
    /// How many buffers it has, those of no bytes included.
    pub(super) buffers: u16,
    /// Its head, or the buffer's id, which stands in a packed chain's last descriptor.
    pub(super) id: u16,
    /// Positions of the ring that it takes.
    pub(super) span: u16,
}

impl<'a> Walk<'a> {
    /// A walk of at most `limit` buffers into `segments`, which must be empty: readable ones first. After
    /// an error its content means nothing.
    #[inline]
    pub(super) fn new(
        (memory, window): (&'a Memory, &'a mut Window),
        indirect: bool,
        limit: u16,
        segments: &'a mut Vec<Segment>,
    ) -> Self {
        Self {
            memory,
            window,
            indirect,
            limit,
            left: limit,
            segments,
            readable: None,
        }
    }

    /// Takes a split ring's chain: each descriptor says where the next one is.
    #[inline]
    pub(super) fn split(mut self, mut table: Table, head: u16) -> Result<Walked, ChainError> {
        let mut index = head;
        let mut inside = false;
        loop {
            let desc = table.get(index).ok_or(ChainError::Index(index))?;
            if desc.flags & DESC_INDIRECT != 0 {
                if inside {
                    return Err(ChainError::indirect(&desc));
                }
                table = self.indirect_table(&desc, Format::Split)?;
                inside = true;
                index = 0;
                continue;
            }
            self.add(&desc)?;
            if desc.flags & DESC_NEXT == 0 {
                return Ok(self.end(head, 1));
            }
            index = desc.next;
        }
    }

    /// Takes a packed ring's chain: its descriptors lie behind each other, from `head` on, in `room` slots
    /// at most.
    #[inline]
    pub(super) fn packed(
        mut self,
        table: Table,
        count: Count,
        head: u16,
        room: u16,
    ) -> Result<Walked, ChainError> {
        let mut position = head;
        let mut span = 0u16;
        loop {
            if span >= room {
                return Err(ChainError::TooLong(room));
            }
            let slot = position & !WRAP;
            let desc = table.get(slot).ok_or(ChainError::Index(slot))?;
            span = span.saturating_add(1);
            if desc.flags & DESC_INDIRECT != 0 {
                self.whole(&desc)?;
            } else {
                self.add(&desc)?;
            }
            if desc.flags & DESC_NEXT == 0 {
                if u32::from(desc.next) >= table.entries() {
                    return Err(ChainError::Id(desc.next));
                }
                return Ok(self.end(desc.next, span));
            }
            position = count.advance(position, 1);
        }
    }

    /// Takes all of a packed ring's indirect table. What is chained there is not asked (section 2.8.7).
    fn whole(&mut self, desc: &Descriptor) -> Result<(), ChainError> {
        let table = self.indirect_table(desc, Format::Packed)?;
        let entries = u16::try_from(table.entries()).unwrap_or(u16::MAX);
        if entries > self.left {
            return Err(ChainError::TooLong(self.limit));
        }
        for index in 0..entries {
            let inner = table.get(index).ok_or(ChainError::Index(index))?;
            if inner.flags & DESC_INDIRECT != 0 {
                return Err(ChainError::indirect(&inner));
            }
            self.add(&inner)?;
        }
        Ok(())
    }

    /// Takes one buffer.
    #[inline]
    fn add(&mut self, desc: &Descriptor) -> Result<(), ChainError> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(ChainError::TooLong(self.limit))?;
        if desc.flags & DESC_WRITE != 0 {
            self.readable.get_or_insert(self.segments.len());
        } else if self.readable.is_some() {
            return Err(ChainError::Order);
        }
        // A buffer of no bytes has no segment (and its address says nothing).
        if desc.len != 0 {
            let push = |host, len| {
                // SAFETY: `parts` gives only ranges mapped by `memory`, and the queue keeps
                // that table for as long as the request lives.
                self.segments.push(unsafe { Segment::new(host, len) });
            };
            if !self.memory.parts(self.window, desc.addr, desc.len, push) {
                return Err(ChainError::Address {
                    addr: desc.addr,
                    len: desc.len,
                });
            }
        }
        Ok(())
    }

    fn end(&self, id: u16, span: u16) -> Walked {
        Walked {
            readable: self.readable.unwrap_or(self.segments.len()),
            buffers: self.limit.saturating_sub(self.left),
            id,
            span,
        }
    }

    /// The table that a descriptor of the ring names.
    fn indirect_table(&mut self, desc: &Descriptor, format: Format) -> Result<Table, ChainError> {
        let Descriptor { addr, len, .. } = *desc;
        let entries = len / DESC_LEN;
        let whole = len != 0 && len.is_multiple_of(DESC_LEN);
        if !self.indirect || !whole || desc.flags & DESC_NEXT != 0 {
            return Err(ChainError::indirect(desc));
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
        Ok(unsafe { Table::new(host, entries, format) })
    }
}
