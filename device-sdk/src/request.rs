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

use std::fmt;

use libc::{c_void, iovec};
use vm_memory::{ByteValued, VolatileSlice};

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

/// The guest's chain is shorter than what its device class asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has {have} bytes where {need} are needed")]
pub struct ShortRequest {
    /// Bytes asked for.
    pub need: usize,
    /// Bytes that were left.
    pub have: usize,
}

/// One descriptor chain, taken from a queue and not yet answered.
///
/// `Send`, so that it may be worked on elsewhere, but only the queue that made it can take it
/// back.
#[must_use = "a request must be completed or given back, or the guest waits for ever"]
pub struct Request {
    /// Device-readable segments first, then the writable ones.
    pub(crate) segments: Vec<Segment>,
    /// How many of `segments` are device-readable.
    pub(crate) readable: usize,
    /// Index of the chain's first descriptor: its name in the used ring.
    pub(crate) head: u16,
    /// Where the chain stood in the available ring, as a free-running index.
    pub(crate) position: u16,
    /// Index of the queue it came from.
    pub(crate) queue: u16,
    /// The engine's name for the memory table that `segments` points into.
    pub(crate) generation: u32,
    /// Identity of the `Queue` it came from.
    pub(crate) origin: u32,
}

impl Request {
    /// Index of the chain's first descriptor, unique among the requests in flight on one queue
    /// of a well-behaved guest. Below the queue size.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Index, within the device, of the queue the request came from.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// The segments the device may read, in order.
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    /// The segments the device may write, in order.
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or_default()
    }

    /// A cursor at the start of the readable bytes.
    pub fn reader(&self) -> Reader<'_> {
        Reader(Span::new(self.readable()))
    }

    /// A cursor at the start of the writable bytes.
    pub fn writer(&self) -> Writer<'_> {
        Writer(Span::new(self.writable()))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("queue", &self.queue)
            .field("head", &self.head)
            .field("readable", &self.readable())
            .field("writable", &self.writable())
            .finish_non_exhaustive()
    }
}

/// A run of bytes over several segments: what both cursors are made of.
#[derive(Clone, Copy, Debug)]
struct Span<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that are behind the cursor.
    skip: usize,
    /// Bytes between the cursor and the end of the span.
    len: usize,
}

impl<'a> Span<'a> {
    fn new(segments: &'a [Segment]) -> Self {
        let len = segments
            .iter()
            .fold(0usize, |sum, s| sum.saturating_add(s.len()));
        Self {
            segments,
            skip: 0,
            len,
        }
    }

    /// The next piece that is contiguous, at most `limit` bytes; moves behind it.
    fn take(&mut self, limit: usize) -> Option<Segment> {
        let limit = limit.min(self.len);
        if limit == 0 {
            return None;
        }
        let (first, rest) = self.segments.split_first()?;
        let piece = first.part(self.skip, limit);
        self.len = self.len.saturating_sub(piece.len());
        self.skip = self.skip.saturating_add(piece.len());
        if self.skip >= first.len() {
            self.segments = rest;
            self.skip = 0;
        }
        Some(piece)
    }

    fn need(&self, need: usize) -> Result<(), ShortRequest> {
        if self.len < need {
            return Err(ShortRequest {
                need,
                have: self.len,
            });
        }
        Ok(())
    }

    fn skip(&mut self, mut count: usize) -> Result<(), ShortRequest> {
        self.need(count)?;
        while let Some(piece) = self.take(count) {
            count = count.saturating_sub(piece.len());
        }
        Ok(())
    }

    fn split_at(self, at: usize) -> Result<(Self, Self), ShortRequest> {
        let mut tail = self;
        tail.skip(at)?;
        Ok((Self { len: at, ..self }, tail))
    }

    fn pieces(mut self) -> impl Iterator<Item = Segment> + 'a {
        std::iter::from_fn(move || self.take(usize::MAX))
    }
}

macro_rules! cursor_methods {
    () => {
        /// Bytes left between the cursor and the end.
        pub fn len(&self) -> usize {
            self.0.len
        }

        /// Whether nothing is left.
        pub fn is_empty(&self) -> bool {
            self.0.len == 0
        }

        /// Moves the cursor over `count` bytes. Nothing moves when fewer are left.
        pub fn skip(&mut self, count: usize) -> Result<(), ShortRequest> {
            self.0.skip(count)
        }

        /// The next `at` bytes, and what follows them.
        pub fn split_at(self, at: usize) -> Result<(Self, Self), ShortRequest> {
            let (head, tail) = self.0.split_at(at)?;
            Ok((Self(head), Self(tail)))
        }

        /// What comes before the last `count` bytes, and those bytes (a status byte, say).
        pub fn split_last(self, count: usize) -> Result<(Self, Self), ShortRequest> {
            self.0.need(count)?;
            self.split_at(self.len().saturating_sub(count))
        }

        /// What is left, piece by piece; each piece lies contiguous in this process.
        pub fn segments(self) -> impl Iterator<Item = Segment> + 'a {
            self.0.pieces()
        }

        /// What is left, as the kernel's scatter-gather elements. They may be used until the
        /// request is completed or given back.
        pub fn iovecs(self) -> impl Iterator<Item = iovec> + 'a {
            self.0.pieces().map(|piece| piece.iovec())
        }
    };
}

/// A cursor over the bytes the guest lets the device read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(Span<'a>);

impl<'a> Reader<'a> {
    cursor_methods!();

    /// Copies as much as both sides hold; returns the number of bytes.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0usize;
        while let Some(rest) = buf.get_mut(done..) {
            let Some(piece) = self.0.take(rest.len()) else {
                break;
            };
            piece.volatile().copy_to(rest);
            done = done.saturating_add(piece.len());
        }
        done
    }

    /// Fills `buf`, or leaves the cursor where it is.
    pub fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ShortRequest> {
        self.0.need(buf.len())?;
        self.read(buf);
        Ok(())
    }

    /// Copies one fixed-layout value out of guest memory.
    pub fn read_obj<T: ByteValued + Default>(&mut self) -> Result<T, ShortRequest> {
        let mut value = T::default();
        self.read_exact(value.as_mut_slice())?;
        Ok(value)
    }
}

/// A cursor over the bytes the guest lets the device write.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a>(Span<'a>);

impl<'a> Writer<'a> {
    cursor_methods!();

    /// Copies as much as both sides hold; returns the number of bytes.
    pub fn write(&mut self, buf: &[u8]) -> usize {
        let mut done = 0usize;
        while let Some(rest) = buf.get(done..) {
            let Some(piece) = self.0.take(rest.len()) else {
                break;
            };
            piece.volatile().copy_from(rest);
            done = done.saturating_add(piece.len());
        }
        done
    }

    /// Writes all of `buf`, or nothing.
    pub fn write_all(&mut self, buf: &[u8]) -> Result<(), ShortRequest> {
        self.0.need(buf.len())?;
        self.write(buf);
        Ok(())
    }

    /// Writes one fixed-layout value, or nothing.
    pub fn write_obj<T: ByteValued>(&mut self, value: T) -> Result<(), ShortRequest> {
        self.write_all(value.as_slice())
    }
}
