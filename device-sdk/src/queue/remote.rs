//! A queue whose ring is the host's: what a device sees when it runs as a plugin.
#![allow(unsafe_code)] // Calls the host's functions.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use super::{POOLED_SEGMENTS, Phase, Queue, QueueError};
use crate::abi::raw::{OutboardCompletion, OutboardQueues, OutboardRequest};
use crate::memory::Memory;
use crate::request::{Chain, Request, Segment};

/// Requests taken from the host at once.
const BATCH: usize = 32;

/// The host's end of one queue. Everything here happens within a call of the queue's worker.
pub(crate) struct Remote {
    table: OutboardQueues,
    slot: u32,
    /// Taken from the host and not popped yet, the next one last.
    taken: Vec<OutboardRequest>,
    in_hand: usize,
    done: Vec<OutboardCompletion>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.slot)
    }
}

impl Remote {
    pub(super) fn size(&self) -> u16 {
        // SAFETY: within a call of the worker, as the ABI wants it.
        let size =
            (self.table.ring_size).map_or(0, |f| unsafe { f(self.table.context, self.slot) });
        u16::try_from(size).unwrap_or(0)
    }

    pub(super) fn in_hand(&self) -> usize {
        self.in_hand
    }

    pub(super) fn set_kicks(&self, wanted: bool) {
        if let Some(f) = self.table.set_kicks {
            // SAFETY: as above.
            unsafe { f(self.table.context, self.slot, u32::from(wanted)) };
        }
    }

    fn next(&mut self) -> Result<Option<OutboardRequest>, ()> {
        if self.taken.is_empty() {
            let Some(take) = self.table.take else {
                return Err(());
            };
            self.taken.reserve(BATCH);
            let into = self.taken.as_mut_ptr();
            // SAFETY: as above, with room for a batch.
            let count = unsafe { take(self.table.context, self.slot, into, BATCH as u32) };
            let count = usize::try_from(count).map_err(|_| ())?.min(BATCH);
            // SAFETY: the host has written that many.
            unsafe { self.taken.set_len(count) };
            self.taken.reverse();
        }
        Ok(self.taken.pop())
    }

    pub(super) fn give_back(&mut self, token: u64) {
        self.in_hand = self.in_hand.saturating_sub(1);
        self.return_to_host(&[token]);
    }

    fn return_to_host(&self, tokens: &[u64]) {
        if let Some(f) = self.table.give_back {
            // SAFETY: as above. What the host has against it, it says by ending the worker.
            unsafe { f(self.table.context, tokens.as_ptr(), tokens.len()) };
        }
    }
}

impl Queue {
    /// Queue `slot` of the group whose queues the host has lent.
    pub(crate) fn remote(table: &OutboardQueues, slot: u32) -> Self {
        let index = table.first.wrapping_add(slot) as u16;
        let mut queue = Self::new(index, Arc::<Memory>::default());
        queue.remote = Some(Box::new(Remote {
            table: *table,
            slot,
            taken: Vec::new(),
            in_hand: 0,
            done: Vec::new(),
        }));
        queue
    }

    #[inline]
    pub(super) fn pop_remote(&mut self) -> Result<Option<Request>, QueueError> {
        let Some(remote) = &mut self.remote else {
            return Ok(None);
        };
        if self.phase == Phase::Draining {
            return Ok(None);
        }
        let broken = QueueError::Broken { queue: self.index };
        let Some(raw) = remote.next().map_err(|()| broken)? else {
            return Ok(None);
        };
        remote.in_hand = remote.in_hand.saturating_add(1);
        let chain = self.pool.pop();
        let mut chain = chain.unwrap_or_else(|| Box::new(Chain::of(self.index, self.origin)));
        let count = u64::from(raw.readable).saturating_add(u64::from(raw.writable)) as usize;
        // SAFETY: the host's segments, valid as long as the request is ours; each is memory that is
        // mapped as long.
        let segments = unsafe { std::slice::from_raw_parts(raw.segments, count) };
        chain.segments.extend(
            segments
                .iter()
                // SAFETY: as above.
                .map(|s| unsafe { Segment::new(s.base.cast(), s.len) }),
        );
        chain.readable = raw.readable as usize;
        chain.buffers = u16::try_from(count).unwrap_or(u16::MAX);
        chain.head = raw.head as u16;
        chain.token = raw.token;
        Ok(Some(Request { chain }))
    }

    pub(super) fn complete_remote(
        &mut self,
        done: impl IntoIterator<Item = (Request, u32)>,
    ) -> Result<(), QueueError> {
        let Some(remote) = &mut self.remote else {
            return Ok(());
        };
        let mut foreign = false;
        for (Request { mut chain }, written) in done {
            if chain.origin != self.origin {
                foreign = true;
                continue;
            }
            remote.done.push(OutboardCompletion {
                token: chain.token,
                written,
                reserved: 0,
            });
            if chain.segments.capacity() <= POOLED_SEGMENTS {
                chain.segments.clear();
                self.pool.push(chain);
            }
        }
        remote.in_hand = remote.in_hand.saturating_sub(remote.done.len());
        let status = match remote.table.complete {
            // SAFETY: within a call of the worker; an array.
            Some(f) => unsafe {
                f(
                    remote.table.context,
                    remote.done.as_ptr(),
                    remote.done.len(),
                )
            },
            None => -1,
        };
        remote.done.clear();
        if foreign {
            return Err(QueueError::Foreign { queue: self.index });
        }
        if status < 0 {
            return Err(QueueError::Broken { queue: self.index });
        }
        Ok(())
    }

    /// Returns what was taken from the host and not popped.
    pub(crate) fn return_untouched(&mut self) {
        if let Some(remote) = &mut self.remote
            && !remote.taken.is_empty()
        {
            let tokens: Vec<u64> = remote
                .taken
                .drain(..)
                .map(|request| request.token)
                .collect();
            remote.return_to_host(&tokens);
        }
    }
}
