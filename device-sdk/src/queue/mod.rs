//! The ring engine: one [`Queue`] per virtqueue, and the streams of the simple level.
//!
//! A ring's addresses are translated once, when it starts; each chain is copied out of guest
//! memory descriptor by descriptor, checked, and handed out as a [`Request`]; answers are
//! published a batch at a time. There is one place where a chain is taken ([`Queue::pop`]) and
//! two where it comes back ([`Queue::complete`], [`Queue::give_back`]).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod chain;
#[cfg(test)]
mod compare;
mod control;
mod descriptor;
mod error;
mod foresight;
mod lease;
mod notify;
mod packed;
#[cfg(test)]
mod packed_tests;
mod remote;
mod ring;
mod split;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tracing::warn;

pub use chain::ChainError;
pub use control::RingStart;
pub use error::QueueError;
pub(crate) use remote::Remote;
pub use ring::{MAX_SIZE, RingAddresses, RingError};
pub(crate) use stream::SharedGroup;
pub use stream::{RequestStream, StreamRequest};

use crate::counters::{Batch, Row, Tally};
use crate::memory::{Memory, Window};
use crate::request::{Chain, Request};
use chain::{Walk, Walked};
use foresight::Foresight;
use lease::Leases;
use notify::Notify;
use ring::Ring;

/// Segment lists kept for reuse are no longer than this, so that one long chain does not cost
/// its memory for ever.
const POOLED_SEGMENTS: usize = 64;

/// How many chains ahead memory is asked for what a chain needs: fetching it takes about as long as
/// serving so many.
const AHEAD: u16 = 4;

/// What a queue still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The worker is stopping: no more chains are taken.
    Draining,
    /// The guest broke the ring's rules: it stands still until it is started anew.
    Broken,
}

/// An answer that is not in the ring yet.
#[derive(Clone, Copy, Debug)]
struct Answer {
    id: u16,
    written: u32,
    span: u16,
}

/// One virtqueue, as its worker sees it. Lives on the worker's thread.
#[derive(Debug)]
pub struct Queue {
    index: u16,
    /// Tells this queue's requests from those of any other in the process.
    origin: u32,
    ring: Option<Ring>,
    start: Option<RingStart>,
    enabled: bool,
    phase: Phase,
    /// The worker wants to be called for kicks.
    kicks: bool,
    /// Position of the next chain to take.
    next: u16,
    /// Up to where chains are known to be there.
    filled: u16,
    /// Up to where they were at the last look: only news beyond it call the worker.
    looked: u16,
    /// Position of the next answer to write.
    used: u16,
    /// Answers that came while the ring's memory was away.
    unpublished: Vec<Answer>,
    /// Requests taken and given back, oldest first.
    returned: VecDeque<Request>,
    leases: Leases,
    window: Window,
    foresight: Foresight,
    notify: Notify,
    /// Where what happens here is counted.
    tally: Option<Tally>,
    /// The ring is in another half of the process, behind the plugin ABI; there is none here.
    remote: Option<Box<Remote>>,
    /// Emptied chains of this queue, for reuse.
    #[allow(clippy::vec_box)] // They move between here and requests as pointers.
    pool: Vec<Box<Chain>>,
}

impl Queue {
    /// A queue that is not set up.
    pub(crate) fn new(index: u16, memory: Arc<Memory>) -> Self {
        static ORIGINS: AtomicU32 = AtomicU32::new(0);
        let mut leases = Leases::default();
        leases.replace(memory);
        Self {
            index,
            origin: ORIGINS.fetch_add(1, Ordering::Relaxed),
            ring: None,
            start: None,
            enabled: false,
            phase: Phase::Serving,
            kicks: true,
            next: 0,
            filled: 0,
            looked: 0,
            used: 0,
            unpublished: Vec::new(),
            returned: VecDeque::new(),
            leases,
            window: Window::default(),
            foresight: Foresight::default(),
            notify: Notify::default(),
            tally: None,
            remote: None,
            pool: Vec::new(),
        }
    }

    /// The same, counted on this row from now on.
    #[must_use]
    pub(crate) fn counted(mut self, row: Option<Row>) -> Self {
        self.tally = row.map(Tally::new);
        self
    }

    /// Index of the queue within the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Ring size in entries: the most requests that can be in flight. 0 while not set up.
    pub fn size(&self) -> u16 {
        match &self.remote {
            None => self.ring.as_ref().map_or(0, Ring::size),
            Some(remote) => remote.size(),
        }
    }

    /// Whether the driver has set the queue up and enabled it. Nothing is popped from one that
    /// is not; requests already in flight may still be completed.
    pub fn enabled(&self) -> bool {
        match &self.remote {
            None => self.enabled && self.ring.is_some() && self.phase != Phase::Broken,
            Some(remote) => remote.size() != 0,
        }
    }

    /// Requests popped and neither completed nor given back.
    pub fn in_flight(&self) -> usize {
        match &self.remote {
            None => self.leases.requests().saturating_sub(self.returned.len()),
            Some(remote) => remote.in_hand(),
        }
    }

    /// Takes the next chain the driver has made available; `None` when there is none now (a kick
    /// will announce the next). After an error the queue stays broken until it is started anew.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Request>, QueueError> {
        if self.phase == Phase::Broken {
            return Err(QueueError::Broken { queue: self.index });
        }
        if self.ring.is_none() {
            return self.pop_remote();
        }
        if !self.enabled || self.phase == Phase::Draining {
            return Ok(None);
        }
        if let Some(request) = self.returned.pop_front() {
            return Ok(Some(request));
        }
        if self.next == self.filled && !self.refill()? {
            return Ok(None);
        }
        let Some(ring) = &self.ring else {
            return Ok(None);
        };
        self.foresee(ring, AHEAD);
        let chain = self.pool.pop();
        let mut chain = chain.unwrap_or_else(|| Box::new(Chain::of(self.index, self.origin)));
        let indirect = self.start.is_some_and(|start| start.indirect);
        let limit = ring.size().max(chain::MAX_DESCRIPTORS);
        let memory = (self.leases.memory(), &mut self.window);
        let walk = Walk::new(memory, indirect, limit, &mut chain.segments);
        let position = self.next;
        let (head, walked) = match ring {
            Ring::Split(ring) => {
                let head = ring.avail_head(position);
                (head, walk.split(ring.table(), head))
            }
            Ring::Packed(ring) => {
                let count = ring.count();
                let room = ring.room(self.used, position);
                (position, walk.packed(ring.table(), count, position, room))
            }
        };
        let walked = walked.map_err(|source| {
            self.phase = Phase::Broken;
            QueueError::Chain {
                queue: self.index,
                head,
                source,
            }
        })?;
        let count = ring.count();
        let Walked { id, span, .. } = walked;
        let after = count.advance(position, span);
        if span > 1 {
            // A packed chain's slots are there with its first one, whatever their flags say.
            for known in [&mut self.filled, &mut self.looked] {
                if count.distance(position, *known) < span {
                    *known = after;
                }
            }
        }
        self.next = after;
        self.foresight.note(id, &chain.segments, walked.readable);
        self.leases.take();
        chain.readable = walked.readable;
        chain.buffers = walked.buffers;
        chain.head = id;
        chain.span = span;
        chain.position = position;
        chain.generation = self.leases.generation();
        if let Some(tally) = &mut self.tally {
            tally.taken(position);
        }
        Ok(Some(Request { chain }))
    }

    /// Looks for chains beyond those known. False when there are none.
    #[inline]
    fn refill(&mut self) -> Result<bool, QueueError> {
        let Some(ring) = &self.ring else {
            return Ok(false);
        };
        let position = ring.available(self.used, self.next);
        self.looked = position;
        let offered = ring.count().distance(self.next, position);
        if let Ring::Split(ring) = ring {
            // A driver offers a descriptor again only once it has it back, so that no more than a
            // ring of them is out; a hostile one could otherwise have a device hold any number.
            if usize::from(offered).saturating_add(self.leases.requests())
                > usize::from(ring.size())
            {
                self.phase = Phase::Broken;
                return Err(QueueError::AvailableIndex {
                    queue: self.index,
                    index: position,
                    next: self.next,
                });
            }
        }
        self.filled = position;
        for ahead in 0..AHEAD {
            self.foresee(ring, ahead);
        }
        Ok(offered > 0)
    }

    /// Asks for what the chain `ahead` of the next one needs, if it is there. A packed ring's descriptors
    /// lie behind each other, which the processor sees by itself.
    #[inline]
    fn foresee(&self, ring: &Ring, ahead: u16) {
        if let Ring::Split(ring) = ring
            && self.filled.wrapping_sub(self.next) > ahead
        {
            let head = ring.avail_head(self.next.wrapping_add(ahead));
            ring.table().prefetch(head);
            self.foresight.ask(head);
        }
    }

    /// Answers requests, each with the number of bytes written to it (which says nothing about
    /// success: that is in the device class's own status). The whole batch becomes visible to the
    /// driver at once, with one write of the used index and at most one interrupt.
    ///
    /// Fails only on a request of another queue, a bug in the device; the rest of the batch is
    /// published all the same.
    pub fn complete(
        &mut self,
        done: impl IntoIterator<Item = (Request, u32)>,
    ) -> Result<(), QueueError> {
        if self.remote.is_some() {
            return self.complete_remote(done);
        }
        let old = self.used;
        let mut foreign = false;
        let mut batch = Batch::default();
        for (Request { mut chain }, written) in done {
            if chain.origin != self.origin {
                foreign = true;
                continue;
            }
            if let Some(ring) = &mut self.ring {
                ring.write_used(self.used, chain.head, written);
                self.used = ring.count().advance(self.used, chain.span);
            } else {
                self.unpublished.push(Answer {
                    id: chain.head,
                    written,
                    span: chain.span,
                });
            }
            if let Some(tally) = &mut self.tally {
                let readable = chain.segments.iter().take(chain.readable);
                let bytes = readable.fold(0, |sum: usize, part| sum.wrapping_add(part.len()));
                batch.requests = batch.requests.wrapping_add(1);
                batch.to_device = batch.to_device.wrapping_add(bytes as u64);
                batch.to_guest = batch.to_guest.wrapping_add(written.into());
                tally.done(chain.position);
            }
            self.leases.release(chain.generation);
            if chain.segments.capacity() <= POOLED_SEGMENTS {
                chain.segments.clear();
                self.pool.push(chain);
            }
        }
        self.publish(old);
        if let Some(tally) = &self.tally {
            tally.row().answered(&batch);
        }
        if foreign {
            return Err(QueueError::Foreign { queue: self.index });
        }
        Ok(())
    }

    /// Shows the driver the answers from `old` on.
    #[inline]
    fn publish(&mut self, old: u16) {
        if self.used != old
            && let Some(ring) = &mut self.ring
        {
            ring.publish(self.used);
            if self.notify.published(ring, old, self.used)
                && let Some(tally) = &self.tally
            {
                tally.row().interrupted();
            }
        }
    }

    /// Returns a request nobody has acted on. It is popped again next, or left to whoever serves
    /// the queue after this worker has stopped.
    pub fn give_back(&mut self, request: Request) {
        if request.chain.origin != self.origin {
            warn!(
                queue = self.index,
                "a request of another queue was given back here"
            );
            return;
        }
        if let Some(remote) = &mut self.remote {
            return remote.give_back(request.chain.token);
        }
        // Oldest first, however they come back.
        let count = self.count();
        let age = |r: &Request| count.distance(r.chain.position, self.next);
        let at = self.returned.partition_point(|r| age(r) > age(&request));
        self.returned.insert(at, request);
    }

    /// Whether a driver's kick should call the worker. On by default; a worker that has what it
    /// needs from this queue (enough receive buffers) may turn kicks off to spare wake-ups.
    pub fn set_kicks(&mut self, wanted: bool) {
        self.kicks = wanted;
        if let Some(remote) = &self.remote {
            remote.set_kicks(wanted);
        }
    }
}
