//! Receive buffers taken from the guest and not used yet.
//!
//! How long a frame is shows only when it has been read, so there must be buffers for the longest
//! one beforehand. Those a frame does not need stay here for the next one. A frame that is longer
//! than the buffers at hand goes on in memory of ours, the *spill*, until more buffers come.
#![allow(unsafe_code)] // Frames are read straight into guest memory.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::io;

use libc::iovec;
use outboard_device::Request;

use crate::tap::{HEADER_LEN, Tap};

/// Longest frame a cable gives, with its virtio header: on a tap a segmented IP packet of 64 KiB,
/// tags and an Ethernet header; on a stream what its framing allows.
const MAX_FRAME: usize = 70 * 1024;

/// Room that is held at first: a full frame of an ordinary network.
const FIRST_TARGET: usize = 2048;

/// Most pieces of memory of one buffer. A driver's have one to nineteen.
const MAX_BUFFER_PIECES: usize = 256;

/// Pieces held after which no more buffers are taken; with one more buffer and the spill still
/// fewer than readv(2) allows.
const ENOUGH_PIECES: usize = 512;

/// Where in the header the count of buffers lies (virtio 1.2, section 5.1.6).
const NUM_BUFFERS_AT: usize = 10;

/// A list element for readv(2).
#[repr(transparent)]
struct Piece(iovec);

// SAFETY: an address and a length; `Posted` owns what it points to.
unsafe impl Send for Piece {}

/// A buffer and how much it holds.
#[derive(Debug)]
struct Buffer {
    request: Request,
    room: usize,
}

/// Receive buffers at hand, in the order the guest gave them.
pub struct Posted {
    buffers: VecDeque<Buffer>,
    /// Room in all `buffers`, in bytes.
    room: usize,
    /// Pieces of all `buffers`.
    pieces: usize,
    /// Room to hold before reading: the longest frame seen so far.
    target: usize,
    /// A frame may lie in several buffers.
    mergeable: bool,
    spill: Box<[u8]>,
    /// A frame that fills all the buffers there were when it came, and then the spill.
    waiting: Option<Waiting>,
    list: Vec<Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Length of the frame with its header.
    len: usize,
    /// How much of it lies in the spill.
    spilled: usize,
    /// How many buffers are full of its beginning.
    filled: usize,
}

/// What an attempt to receive came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame is in the buffers; [`Posted::take`] it.
    Frame {
        /// Its length with its header.
        len: usize,
    },
    /// A frame waits for more buffers.
    Waiting,
    /// A frame did not fit into what the guest allows, and is lost.
    Dropped,
    /// The guest has asked not to get such a frame.
    Unwanted,
    /// What came was no frame, and has touched no buffer.
    Runt,
}

impl std::fmt::Debug for Posted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Posted")
            .field("buffers", &self.buffers.len())
            .field("room", &self.room)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl Posted {
    /// No buffers yet. `mergeable`: the driver took `VIRTIO_NET_F_MRG_RXBUF`.
    pub fn new(mergeable: bool) -> Self {
        Self {
            buffers: VecDeque::new(),
            room: 0,
            pieces: 0,
            target: FIRST_TARGET,
            mergeable,
            spill: vec![0; MAX_FRAME].into_boxed_slice(),
            waiting: None,
            list: Vec::new(),
        }
    }

    /// How many buffers are held.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether no buffer is held.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Whether another buffer would be of use now.
    pub fn wants_more(&self) -> bool {
        if !self.mergeable {
            return self.buffers.is_empty();
        }
        let target = self.waiting.map_or(self.target, |frame| frame.len);
        self.room < target && self.pieces < ENOUGH_PIECES
    }

    /// Adds a buffer; hands one back that cannot hold a header, or has too many pieces.
    pub fn push(&mut self, request: Request) -> Result<(), Request> {
        let (room, pieces) = (request.writer().len(), request.writable().len());
        if room < HEADER_LEN || pieces > MAX_BUFFER_PIECES {
            return Err(request);
        }
        self.room = self.room.saturating_add(room);
        self.pieces = self.pieces.saturating_add(pieces);
        self.buffers.push_back(Buffer { request, room });
        Ok(())
    }

    /// Reads a frame from the tap. Only while none is waiting.
    pub fn receive(&mut self, tap: &Tap) -> io::Result<Received> {
        self.list.clear();
        for buffer in &self.buffers {
            self.list
                .extend(buffer.request.writer().iovecs().map(Piece));
        }
        let spill = iovec {
            iov_base: self.spill.as_mut_ptr().cast(),
            iov_len: self.spill.len(),
        };
        self.list.push(Piece(spill));
        // SAFETY: `Piece` has the layout of an iovec, and the slice is that of `list`.
        let pieces = unsafe {
            std::slice::from_raw_parts(self.list.as_ptr().cast::<iovec>(), self.list.len())
        };
        // SAFETY: all pieces but the last are guest memory of requests held in `buffers`, mapped
        // until those are given up; the last is `spill`, ours alone, with no reference to it now.
        let len = unsafe { tap.receive(pieces)? };
        self.target = self.target.max(len);
        Ok(self.sort(len))
    }

    /// Receives `frame`, which is in memory of ours, behind an empty header. Only while none is
    /// waiting.
    pub fn fill(&mut self, frame: &[u8]) -> Received {
        let len = frame.len().saturating_add(HEADER_LEN);
        let (mut now, mut then): (&[u8], &[u8]) = (&[0; HEADER_LEN], frame);
        for buffer in &self.buffers {
            let mut writer = buffer.request.writer();
            while !now.is_empty() && !writer.is_empty() {
                let written = writer.write(now);
                now = now.get(written..).unwrap_or_default();
                if now.is_empty() {
                    now = std::mem::take(&mut then);
                }
            }
        }
        // Without buffers there is nothing to complete: the header is in the first, or nowhere.
        if let Some(spill) = self.spill.get_mut(..now.len()) {
            spill.copy_from_slice(now);
        }
        self.target = self.target.max(len);
        self.sort(len)
    }

    /// Where a frame of `len` bytes came to lie.
    fn sort(&mut self, len: usize) -> Received {
        let spilled = len.saturating_sub(self.room);
        if len < HEADER_LEN {
            return Received::Dropped;
        }
        if spilled == 0 {
            return Received::Frame { len };
        }
        if !self.mergeable {
            return Received::Dropped;
        }
        self.waiting = Some(Waiting {
            len,
            spilled,
            filled: self.buffers.len(),
        });
        Received::Waiting
    }

    /// Moves the rest of a waiting frame into buffers that have come since. `None` when no frame
    /// waits. A ring of `ring_size` entries has given all it has when so many are held: what does
    /// not fit then never will.
    pub fn retry(&mut self, ring_size: usize) -> Option<Received> {
        let Waiting {
            len,
            spilled,
            filled,
        } = self.waiting?;
        if self.room < len {
            if self.buffers.len() < ring_size && self.pieces < ENOUGH_PIECES {
                return Some(Received::Waiting);
            }
            self.waiting = None;
            return Some(Received::Dropped);
        }
        let mut rest = self.spill.get(..spilled).unwrap_or_default();
        for buffer in self.buffers.iter().skip(filled) {
            let written = buffer.request.writer().write(rest);
            rest = rest.get(written..).unwrap_or_default();
        }
        self.waiting = None;
        Some(Received::Frame { len })
    }

    /// Copies what the frame that has just been received begins with, behind its header. The guest
    /// may have changed it by now, which is its own affair. What is beyond the frame's end is
    /// anything.
    pub fn head<'a>(&self, head: &'a mut [u8]) -> &'a [u8] {
        let (mut skip, mut done) = (HEADER_LEN, 0usize);
        for buffer in &self.buffers {
            let mut there = buffer.request.writer();
            let here = skip.min(there.len());
            skip = skip.saturating_sub(here);
            if there.skip(here).is_ok() {
                let rest = head.get_mut(done..).unwrap_or_default();
                done = done.saturating_add(there.read_back(rest));
            }
            if done == head.len() {
                return head;
            }
        }
        let rest = head.get_mut(done..).unwrap_or_default();
        let spilled = self.spill.get(skip..).unwrap_or_default();
        for (to, from) in rest.iter_mut().zip(spilled) {
            *to = *from;
        }
        head
    }

    /// Gives up the frame that has just been received: its buffers are for the next one.
    pub fn forget(&mut self) {
        self.waiting = None;
    }

    /// Completes the header of the frame of `len` bytes that has been received, and moves its
    /// buffers, each with the bytes it holds, to `done`.
    pub fn take(&mut self, len: usize, done: &mut Vec<(Request, u32)>) {
        let first = done.len();
        let mut left = len;
        while left > 0 {
            let Some(Buffer { request, room }) = self.buffers.pop_front() else {
                break;
            };
            self.room = self.room.saturating_sub(room);
            self.pieces = self.pieces.saturating_sub(request.writable().len());
            let part = left.min(room);
            left = left.saturating_sub(part);
            done.push((request, part as u32));
        }
        let count = done.len().saturating_sub(first) as u16;
        if let Some((request, _)) = done.get(first) {
            let mut header = request.writer();
            // `push` has seen that the header fits.
            if header.skip(NUM_BUFFERS_AT).is_ok() {
                header.write(&count.to_le_bytes());
            }
        }
    }

    /// Gives the last buffer up unused.
    pub fn pop_back(&mut self) -> Option<Request> {
        self.waiting = None;
        let Buffer { request, room } = self.buffers.pop_back()?;
        self.room = self.room.saturating_sub(room);
        self.pieces = self.pieces.saturating_sub(request.writable().len());
        Some(request)
    }
}
