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
#[cfg(test)]
mod cost;
mod error;
mod foresight;
mod lease;
mod notify;
mod remote;
mod split;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tracing::warn;

pub use chain::ChainError;
pub(crate) use control::RingStart;
pub use error::QueueError;
pub(crate) use remote::Remote;
pub use split::{MAX_SIZE, RingAddresses, RingError};
pub(crate) use stream::SharedGroup;
pub use stream::{RequestStream, StreamRequest};

use crate::memory::{Memory, Window};
use crate::request::{Chain, Request};
use chain::Walk;
use foresight::Foresight;
use lease::Leases;
use notify::Notify;
use split::SplitRing;

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

/// One virtqueue, as its worker sees it. Lives on the worker's thread.
#[derive(Debug)]
pub struct Queue {
    index: u16,
    /// Tells this queue's requests from those of any other in the process.
    origin: u32,
    ring: Option<SplitRing>,
    start: Option<RingStart>,
    enabled: bool,
    phase: Phase,
    /// The worker wants to be called for kicks.
    kicks: bool,
    /// Next chain to take, as a free-running available index.
    next: u16,
    /// Available index up to which chains are known to be there.
    filled: u16,
    /// Available index at the last look: only news beyond it call the worker.
    looked: u16,
    /// Next used entry to write, free-running.
    used: u16,
    /// Answers that came while the ring's memory was away: head and bytes written.
    unpublished: Vec<(u16, u32)>,
    /// Requests taken and given back, oldest first.
    returned: VecDeque<Request>,
    leases: Leases,
    window: Window,
    foresight: Foresight,
    notify: Notify,
    /// The ring is in another half of the process, behind the plugin ABI; there is none here.
    remote: Option<Box<Remote>>,
    /// Emptied chains, for reuse.
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
            remote: None,
            pool: Vec::new(),
        }
    }

    /// Index of the queue within the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Ring size in entries: the most requests that can be in flight. 0 while not set up.
    pub fn size(&self) -> u16 {
        match &self.remote {
            None => self.ring.as_ref().map_or(0, SplitRing::size),
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
        let Some(ring) = &self.ring else {
            return self.pop_remote();
        };
        if !self.enabled || self.phase == Phase::Draining {
            return Ok(None);
        }
        if let Some(request) = self.returned.pop_front() {
            return Ok(Some(request));
        }
        if self.next == self.filled {
            let index = ring.avail_index();
            self.looked = index;
            // A driver offers a descriptor again only once it has it back, so that no more than a
            // ring of them is out; a hostile one could otherwise have a device hold any number.
            let offered = usize::from(index.wrapping_sub(self.next));
            if offered.saturating_add(self.leases.requests()) > usize::from(ring.size()) {
                self.phase = Phase::Broken;
                return Err(QueueError::AvailableIndex {
                    queue: self.index,
                    index,
                    next: self.next,
                });
            }
            self.filled = index;
            if index == self.next {
                return Ok(None);
            }
            for ahead in 0..index.wrapping_sub(self.next).min(AHEAD) {
                self.foresee(ring, self.next.wrapping_add(ahead));
            }
        }
        if self.filled.wrapping_sub(self.next) > AHEAD {
            self.foresee(ring, self.next.wrapping_add(AHEAD));
        }
        let head = ring.avail_head(self.next);
        let mut chain = self.pool.pop().unwrap_or_default();
        let walked = Walk {
            memory: self.leases.memory(),
            window: &mut self.window,
            indirect: self.start.is_some_and(|start| start.indirect),
            limit: ring.size().max(chain::MAX_DESCRIPTORS),
        }
        .run(ring.table(), head, &mut chain.segments);
        chain.readable = walked.map_err(|source| {
            self.phase = Phase::Broken;
            QueueError::Chain {
                queue: self.index,
                head,
                source,
            }
        })?;
        self.foresight.note(head, &chain.segments);
        let position = self.next;
        self.next = position.wrapping_add(1);
        self.leases.take();
        chain.head = head;
        chain.position = position;
        chain.queue = self.index;
        chain.generation = self.leases.generation();
        chain.origin = self.origin;
        Ok(Some(Request { chain }))
    }

    /// Asks for what the chain at this position needs.
    #[inline]
    fn foresee(&self, ring: &SplitRing, position: u16) {
        let head = ring.avail_head(position);
        ring.table().prefetch(head);
        self.foresight.ask(head);
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
        for (Request { mut chain }, written) in done {
            if chain.origin != self.origin {
                foreign = true;
                continue;
            }
            if let Some(ring) = &self.ring {
                ring.write_used(self.used, chain.head, written);
                self.used = self.used.wrapping_add(1);
            } else {
                self.unpublished.push((chain.head, written));
            }
            self.leases.release(chain.generation);
            if chain.segments.capacity() <= POOLED_SEGMENTS {
                chain.segments.clear();
                self.pool.push(chain);
            }
        }
        self.publish(old);
        if foreign {
            return Err(QueueError::Foreign { queue: self.index });
        }
        Ok(())
    }

    /// Shows the driver the used entries from `old` on.
    #[inline]
    fn publish(&mut self, old: u16) {
        if self.used != old
            && let Some(ring) = &self.ring
        {
            ring.publish(self.used);
            self.notify.published(ring, old, self.used);
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
        let age = |r: &Request| self.next.wrapping_sub(r.chain.position);
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
