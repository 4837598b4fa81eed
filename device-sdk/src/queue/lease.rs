//! Which memory tables are still pointed into.
//!
//! A request names the table its segments point into by generation; the queue counts requests
//! per generation, so that a request costs no atomic operation and a table the frontend has
//! replaced is unmapped with the last request that used it.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::mem;
use std::sync::Arc;

use tracing::warn;

use crate::memory::Memory;

#[derive(Debug, Default)]
struct Lease {
    generation: u32,
    memory: Arc<Memory>,
    requests: usize,
}

/// The tables of one queue: the current one, and older ones that requests still use.
#[derive(Debug, Default)]
pub(super) struct Leases {
    current: Lease,
    old: Vec<Lease>,
}

impl Leases {
    pub(super) fn memory(&self) -> &Memory {
        &self.current.memory
    }

    pub(super) fn generation(&self) -> u32 {
        self.current.generation
    }

    /// Requests handed out and not yet back.
    pub(super) fn requests(&self) -> usize {
        self.old.iter().fold(self.current.requests, |sum, l| {
            sum.saturating_add(l.requests)
        })
    }

    /// Requests will point into `memory` from now on.
    pub(super) fn replace(&mut self, memory: Arc<Memory>) {
        let next = Lease {
            generation: self.current.generation.wrapping_add(1),
            memory,
            requests: 0,
        };
        let last = mem::replace(&mut self.current, next);
        if last.requests != 0 {
            self.old.push(last);
        }
    }

    /// One more request of the current generation.
    #[inline]
    pub(super) fn take(&mut self) {
        self.current.requests = self.current.requests.saturating_add(1);
    }

    /// A request of this generation is back.
    #[inline]
    pub(super) fn release(&mut self, generation: u32) {
        if generation == self.current.generation {
            self.current.requests = self.current.requests.saturating_sub(1);
        } else {
            self.release_old(generation);
        }
    }

    #[cold]
    fn release_old(&mut self, generation: u32) {
        self.old.retain_mut(|lease| {
            if lease.generation == generation {
                lease.requests = lease.requests.saturating_sub(1);
            }
            lease.requests != 0
        });
    }
}

impl Drop for Leases {
    /// A request that never came back may still be in the kernel's hands, so its memory stays
    /// mapped for the rest of the process's life.
    fn drop(&mut self) {
        let requests = self.requests();
        if requests == 0 {
            return;
        }
        warn!(
            requests,
            "requests were never completed; their memory stays mapped"
        );
        for lease in self.old.drain(..).chain([mem::take(&mut self.current)]) {
            if lease.requests != 0 {
                mem::forget(lease.memory);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lives_as_long_as_its_last_request() {
        let first = Arc::new(Memory::default());
        let watch = Arc::downgrade(&first);
        let mut leases = Leases::default();
        leases.replace(first);
        let generation = leases.generation();
        leases.take();
        leases.take();
        leases.replace(Arc::default());
        leases.take();
        leases.release(generation);
        assert!(watch.upgrade().is_some());
        assert_eq!(leases.requests(), 2);
        leases.release(generation);
        assert!(watch.upgrade().is_none());
        leases.release(leases.generation());
        assert_eq!(leases.requests(), 0);
    }

    #[test]
    fn an_unused_table_goes_at_once() {
        let first = Arc::new(Memory::default());
        let watch = Arc::downgrade(&first);
        let mut leases = Leases::default();
        leases.replace(first);
        leases.replace(Arc::default());
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn a_lost_request_keeps_its_memory_mapped() {
        let first = Arc::new(Memory::default());
        let watch = Arc::downgrade(&first);
        let mut leases = Leases::default();
        leases.replace(first);
        leases.take();
        drop(leases);
        assert!(watch.upgrade().is_some());
    }
}
