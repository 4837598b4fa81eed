//! A ring of the adapter's own, from the driver's side: requests go in, answers come out.
//!
//! It is a split ring without event index (virtio 1.2, section 2.7). A request of one buffer is a descriptor;
//! another is an indirect table, so that a place in the ring is all that any request needs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outboard_device::{DeviceError, Request, Segment};
use vhost_user_backend::VringT;
use vm_memory::{
    Bytes, GuestMemoryAtomic, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress,
};

use crate::memory::MemoryBitmap;
use crate::room::{Block, Room};

/// How many bytes of requests may be in flight on one queue.
pub const ROOM: u64 = 64 << 20;

const PAGE: u64 = 4096;
const DESCRIPTOR: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Bytes copied at a time.
const CHUNK: usize = 4096;

/// The ring of one queue.
pub(crate) struct Shadow<B: MemoryBitmap> {
    region: Arc<GuestRegionMmap<B>>,
    size: u16,
    /// Where its parts are, from the beginning of the region.
    table: u64,
    avail: u64,
    used: u64,
    room: Room,
    /// Position of the next request.
    next: u16,
    /// Position of the next answer.
    answered: u16,
    /// By descriptor.
    held: Vec<Option<Held>>,
    free: Vec<u16>,
}

/// A request that the backend has.
struct Held {
    request: Request,
    position: u16,
    block: Block,
}

/// What became of a request.
pub(crate) enum Staged {
    Done,
    /// There is no room for it now.
    Full(Request),
}

/// How many bytes of a region a ring of this size needs, with its room.
pub(crate) fn footprint(size: u16) -> u64 {
    rings(size).saturating_add(ROOM)
}

/// The same without the room: whole pages.
fn rings(size: u16) -> u64 {
    let parts = u64::from(size).saturating_mul(DESCRIPTOR.saturating_add(2).saturating_add(8));
    parts.saturating_add(64).next_multiple_of(PAGE)
}

impl<B: MemoryBitmap> Shadow<B> {
    /// A ring of this size, a power of two, `at` so many bytes into a region that is all zeroes there.
    pub(crate) fn new(region: Arc<GuestRegionMmap<B>>, at: u64, size: u16) -> Self {
        let avail = at.saturating_add(u64::from(size).saturating_mul(DESCRIPTOR));
        let ring = u64::from(size).saturating_mul(2).saturating_add(6);
        let used = avail.saturating_add(ring).next_multiple_of(8);
        let start = at.saturating_add(rings(size));
        Self {
            region,
            size,
            table: at,
            avail,
            used,
            room: Room::new(start, start.saturating_add(ROOM)),
            next: 0,
            answered: 0,
            held: (0..size).map(|_| None).collect(),
            free: (0..size).rev().collect(),
        }
    }

    /// Tells the backend's vring where it is.
    pub(crate) fn describe<V>(&self, vring: &V) -> Result<(), DeviceError>
    where
        V: VringT<GuestMemoryAtomic<GuestMemoryMmap<B>>>,
    {
        let [table, avail, used] = [self.table, self.avail, self.used].map(|at| self.address(at));
        vring.set_queue_size(self.size);
        vring.set_queue_event_idx(false);
        vring
            .set_queue_info(table, avail, used)
            .map_err(DeviceError::other)
    }

    /// How many requests the backend has.
    pub(crate) fn in_flight(&self) -> usize {
        self.held.len().saturating_sub(self.free.len())
    }

    /// Copies a request in. It becomes available by [`publish`](Self::publish).
    pub(crate) fn stage(&mut self, request: Request) -> Result<Staged, DeviceError> {
        let (len, align) = measure(&request);
        if len > ROOM {
            return Err(DeviceError::other(format!(
                "a request takes {len} bytes; a device of vhost-user-backend has room for {ROOM}"
            )));
        }
        let Some(&head) = self.free.last() else {
            return Ok(Staged::Full(request));
        };
        let Some(block) = self.room.take(len, align) else {
            return Ok(Staged::Full(request));
        };
        self.copy_in(&request, head, block)?;
        let slot = u64::from(self.next & self.size.wrapping_sub(1));
        let entry = self
            .avail
            .wrapping_add(4)
            .wrapping_add(slot.wrapping_mul(2));
        self.write(&head.to_le_bytes(), entry)?;
        if let Some(place) = self.held.get_mut(usize::from(head)) {
            *place = Some(Held {
                request,
                position: self.next,
                block,
            });
        }
        self.free.pop();
        self.next = self.next.wrapping_add(1);
        Ok(Staged::Done)
    }

    /// Makes what was staged available.
    pub(crate) fn publish(&self) -> Result<(), DeviceError> {
        let index = MemoryRegionAddress(self.avail.wrapping_add(2));
        let stored = (self.region).store(self.next.to_le(), index, Ordering::Release);
        stored.map_err(DeviceError::other)
    }

    /// The next answer: a request, and how many bytes the backend says it wrote.
    pub(crate) fn answer(&mut self) -> Result<Option<(Request, u32)>, DeviceError> {
        let index = MemoryRegionAddress(self.used.wrapping_add(2));
        let index: u16 = (self.region)
            .load(index, Ordering::Acquire)
            .map_err(DeviceError::other)?;
        if u16::from_le(index) == self.answered {
            return Ok(None);
        }
        let slot = u64::from(self.answered & self.size.wrapping_sub(1));
        let entry = self.used.wrapping_add(4).wrapping_add(slot.wrapping_mul(8));
        let id = self.read_u32(entry)?;
        let written = self.read_u32(entry.wrapping_add(4))?;
        self.answered = self.answered.wrapping_add(1);
        let Some(held) = self.held.get_mut(id as usize).and_then(Option::take) else {
            return Err(DeviceError::other(format!(
                "the backend answers request {id}, which it does not have"
            )));
        };
        let copied = self.copy_out(&held);
        let (request, room) = (self.release(id as u16, held), copied?);
        // Several backends count what they have read, too.
        Ok(Some((request, written.min(room))))
    }

    /// Takes back what the backend has not taken: a vring's `next_avail` says how far it came.
    pub(crate) fn untaken(&mut self, next_avail: u16) -> Vec<Request> {
        let untaken = |position: u16| position.wrapping_sub(next_avail) < 1 << 15;
        self.reclaim(|held| untaken(held.position))
    }

    /// Takes back everything: an answer that is still to come does not count.
    pub(crate) fn abandon(&mut self) -> Vec<Request> {
        self.reclaim(|_| true)
    }

    fn reclaim(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Request> {
        let mut back = Vec::new();
        for head in 0..self.size {
            let place = self.held.get_mut(usize::from(head));
            if let Some(held) = place.and_then(|place| place.take_if(|held| which(held))) {
                back.push(self.release(head, held));
            }
        }
        back
    }

    fn release(&mut self, head: u16, taken: Held) -> Request {
        self.room.give_back(taken.block);
        self.free.push(head);
        taken.request
    }

    fn copy_in(&self, request: &Request, head: u16, block: Block) -> Result<(), DeviceError> {
        let own = self
            .table
            .wrapping_add(u64::from(head).wrapping_mul(DESCRIPTOR));
        let mut readable = request.reader();
        // Also what may be written: a backend need not write all of it, and other requests were here before.
        let mut writable = request.writer();
        let count = request.segments().len();
        let mut layout = Layout::new(count);
        for (n, segment) in request.segments().iter().enumerate() {
            let at = block.at.wrapping_add(layout.place(segment));
            let mut flags = if n < request.readable().len() {
                self.copy_in_segment(segment.len(), at, |chunk| readable.read(chunk))?;
                0
            } else {
                self.copy_in_segment(segment.len(), at, |chunk| writable.read_back(chunk))?;
                WRITE
            };
            let following = n.wrapping_add(1);
            let (entry, next) = if count == 1 {
                (own, 0)
            } else if following == count {
                (block.at.wrapping_add(DESCRIPTOR.wrapping_mul(n as u64)), 0)
            } else {
                flags |= NEXT;
                let entry = block.at.wrapping_add(DESCRIPTOR.wrapping_mul(n as u64));
                (entry, following as u16)
            };
            self.write_descriptor(entry, at, segment.len() as u32, flags, next)?;
        }
        match count {
            1 => Ok(()),
            // Buffers of no bytes, of which the engine tells nothing.
            0 => self.write_descriptor(own, block.at, 0, 0, 0),
            _ => {
                let len = DESCRIPTOR.wrapping_mul(count as u64) as u32;
                self.write_descriptor(own, block.at, len, INDIRECT, 0)
            }
        }
    }

    fn copy_in_segment(
        &self,
        mut len: usize,
        mut at: u64,
        mut read: impl FnMut(&mut [u8]) -> usize,
    ) -> Result<(), DeviceError> {
        let mut buffer = [0; CHUNK];
        while len > 0 {
            let chunk = buffer.get_mut(..len.min(CHUNK)).unwrap_or_default();
            read(chunk);
            self.write(chunk, at)?;
            at = at.wrapping_add(chunk.len() as u64);
            len = len.saturating_sub(chunk.len());
        }
        Ok(())
    }

    /// All that may be written, not only as much as the backend says it wrote: a status at the end of a
    /// transfer that came out short lies behind that. How much it is.
    fn copy_out(&self, held: &Held) -> Result<u32, DeviceError> {
        let request = &held.request;
        let mut writer = request.writer();
        let room = u32::try_from(writer.len()).unwrap_or(u32::MAX);
        let mut layout = Layout::new(request.segments().len());
        let mut buffer = [0; CHUNK];
        for (n, segment) in request.segments().iter().enumerate() {
            let mut at = held.block.at.wrapping_add(layout.place(segment));
            if n < request.readable().len() {
                continue;
            }
            let mut len = segment.len();
            while len > 0 {
                let chunk = buffer.get_mut(..len.min(CHUNK)).unwrap_or_default();
                self.read(chunk, at)?;
                writer.write(chunk);
                at = at.wrapping_add(chunk.len() as u64);
                len = len.saturating_sub(chunk.len());
            }
        }
        Ok(room)
    }

    fn write_descriptor(
        &self,
        entry: u64,
        at: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) -> Result<(), DeviceError> {
        self.write(&self.address(at).to_le_bytes(), entry)?;
        self.write(&len.to_le_bytes(), entry.wrapping_add(8))?;
        self.write(&flags.to_le_bytes(), entry.wrapping_add(12))?;
        self.write(&next.to_le_bytes(), entry.wrapping_add(14))
    }

    fn address(&self, at: u64) -> u64 {
        self.region.start_addr().0.wrapping_add(at)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), DeviceError> {
        let written = self.region.write_slice(bytes, MemoryRegionAddress(at));
        written.map_err(DeviceError::other)
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), DeviceError> {
        let read = self.region.read_slice(bytes, MemoryRegionAddress(at));
        read.map_err(DeviceError::other)
    }

    fn read_u32(&self, at: u64) -> Result<u32, DeviceError> {
        let mut bytes = [0; 4];
        self.read(&mut bytes, at)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

/// Where a request's segments lie in its block: behind the indirect table, if there is one, each aligned.
struct Layout {
    end: u64,
    align: u64,
}

impl Layout {
    fn new(segments: usize) -> Self {
        let table = if segments > 1 { segments as u64 } else { 0 };
        Self {
            end: table.saturating_mul(DESCRIPTOR),
            align: DESCRIPTOR,
        }
    }

    fn place(&mut self, segment: &Segment) -> u64 {
        let len = segment.len() as u64;
        let align = if len < PAGE { DESCRIPTOR } else { PAGE };
        let at = self.end.checked_next_multiple_of(align).unwrap_or(u64::MAX);
        self.end = at.saturating_add(len);
        self.align = self.align.max(align);
        at
    }
}

/// The length of the block that a request needs, and its alignment.
fn measure(request: &Request) -> (u64, u64) {
    let mut layout = Layout::new(request.segments().len());
    for segment in request.segments() {
        layout.place(segment);
    }
    (layout.end, layout.align)
}
