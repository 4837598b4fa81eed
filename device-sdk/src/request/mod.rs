//! One descriptor chain as a device sees it: guest memory as volatile segments.
//!
//! A [`Request`] is handed out by [`Queue::pop`](crate::Queue::pop) and must come back exactly
//! once, by [`Queue::complete`](crate::Queue::complete) or
//! [`Queue::give_back`](crate::Queue::give_back); both take it by value. Its memory stays mapped
//! until then, also when the frontend replaces the memory table meanwhile, so the addresses may
//! be handed to the kernel (`io_uring`, `readv`).
//!
//! The guest can change the bytes at any time: read a header once, into a value of your own,
//! and check that value.
#![allow(unsafe_code)] // Guest memory is reached through raw pointers; only this SDK makes them.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod cursor;

use std::fmt;

use libc::{c_void, iovec};
use vm_memory::VolatileSlice;

use cursor::Span;
pub use cursor::{Reader, ShortRequest, Writer};

/// A piece of guest memory, contiguous in this process. Same layout as `struct iovec`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Segment(iovec);

// SAFETY: a segment is an address and a length; what may be done with it, and for how long, is
// decided by the `Request` it belongs to.
unsafe impl Send for Segment {}
// SAFETY: as above; a shared segment only allows volatile access.
unsafe impl Sync for Segment {}

impl Segment {
    /// # Safety
    /// `len` bytes at `addr` must be mapped, readable and writable, for as long as the request
    /// that will hold the segment lives.
    pub(crate) unsafe fn new(addr: *mut u8, len: usize) -> Self {
        Self(iovec {
            iov_base: addr.cast::<c_void>(),
            iov_len: len,
        })
    }

    /// Host address of the first byte. Valid until the request is completed or given back.
    pub fn addr(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// Length in bytes, never 0.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Always false for a segment of a request; here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segment as the kernel's scatter-gather element.
    pub fn iovec(&self) -> iovec {
        self.0
    }

    /// The part from `skip` on, of at most `limit` bytes.
    fn part(&self, skip: usize, limit: usize) -> Self {
        let skip = skip.min(self.len());
        Self(iovec {
            iov_base: self.addr().wrapping_add(skip).cast(),
            iov_len: self.len().saturating_sub(skip).min(limit),
        })
    }

    fn volatile(&self) -> VolatileSlice<'_> {
        // SAFETY: the segment's memory is mapped while the request lives (contract of `new`), and
        // the borrow of `self` ends before that.
        unsafe { VolatileSlice::new(self.addr(), self.len()) }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}+{:#x}", self.addr(), self.len())
    }
}

/// One descriptor chain, taken from a queue and not yet answered.
///
/// `Send`, so that it may be worked on elsewhere, but only the queue that made it can take it
/// back.
#[must_use = "a request must be completed or given back, or the guest waits for ever"]
pub struct Request {
    /// Boxed so that a request moves at the cost of a pointer; the queue keeps the boxes for reuse.
    pub(crate) chain: Box<Chain>,
}

/// What the engine keeps of a chain in flight.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Device-readable segments first, then the writable ones.
    pub(crate) segments: Vec<Segment>,
    /// How many of `segments` are device-readable.
    pub(crate) readable: usize,
    /// How many buffers the guest made it of.
    pub(crate) buffers: u16,
    /// Index of the chain's first descriptor, or a packed ring's buffer id: its name when it is used.
    pub(crate) head: u16,
    /// Where the chain stood in the ring.
    pub(crate) position: u16,
    /// How many positions it takes: one in a split ring, one a descriptor in a packed one.
    pub(crate) span: u16,
    /// Index of the queue it came from.
    pub(crate) queue: u16,
    /// The engine's name for the memory table that `segments` points into.
    pub(crate) generation: u32,
    /// Identity of the `Queue` it came from.
    pub(crate) origin: u32,
    /// The host's name for it, where the queue is a plugin's.
    pub(crate) token: u64,
}

impl Chain {
    /// A chain with nothing in it, of a queue by its index and its identity.
    pub(crate) fn of(queue: u16, origin: u32) -> Self {
        Self {
            queue,
            origin,
            ..Self::default()
        }
    }
}

impl Request {
    /// Index of the chain's first descriptor, or of a packed ring the buffer's id: unique among the
    /// requests in flight on one queue of a well-behaved guest. Below the queue size.
    pub fn head(&self) -> u16 {
        self.chain.head
    }

    /// Index, within the device, of the queue the request came from.
    pub fn queue(&self) -> u16 {
        self.chain.queue
    }

    /// The segments the device may read, in order.
    pub fn readable(&self) -> &[Segment] {
        let chain = &self.chain;
        chain.segments.get(..chain.readable).unwrap_or_default()
    }

    /// The segments the device may write, in order.
    pub fn writable(&self) -> &[Segment] {
        let chain = &self.chain;
        chain.segments.get(chain.readable..).unwrap_or_default()
    }

    /// All segments: those of [`readable`](Self::readable), then those of
    /// [`writable`](Self::writable).
    pub fn segments(&self) -> &[Segment] {
        &self.chain.segments
    }

    /// How many buffers the guest made it of: those of no bytes, which have no segment, included. Taking
    /// it cost as much. Through a plugin's table those of no bytes are not counted.
    pub fn buffers(&self) -> u16 {
        self.chain.buffers
    }

    /// A cursor at the start of the readable bytes.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(Span::new(self.readable()))
    }

    /// A cursor at the start of the writable bytes.
    pub fn writer(&self) -> Writer<'_> {
        Writer::new(Span::new(self.writable()))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("queue", &self.queue())
            .field("head", &self.head())
            .field("readable", &self.readable())
            .field("writable", &self.writable())
            .finish_non_exhaustive()
    }
}
