//! The filter between the cable and the guest: the control queue changes its [rules](Rules), the
//! workers of the queue pairs look at them.
//!
//! It saves the guest work, no more: buffers that a frame was read into before it was found
//! unwanted hold its bytes until the next one comes.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod rules;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use rules::{Addresses, HEAD_LEN, MAX_ADDRESSES, Rules};

use crate::mac::Mac;

/// The card's filter.
#[derive(Debug, Default)]
pub struct Filter {
    rules: Mutex<Arc<Rules>>,
    /// Counts the changes of `rules`.
    generation: AtomicU32,
}

impl Filter {
    /// Changes the rules. Frames that come from now on are subject to the new ones.
    pub fn change<T>(&self, change: impl FnOnce(&mut Rules) -> T) -> T {
        let mut rules = self.lock();
        let result = change(Arc::make_mut(&mut rules));
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    /// The address that the driver has set.
    pub fn assigned(&self) -> Option<Mac> {
        self.lock().assigned()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Rules>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's sight of the filter. As long as nothing changes, looking costs one load.
#[derive(Debug)]
pub struct View {
    filter: Arc<Filter>,
    generation: u32,
    rules: Arc<Rules>,
}

impl View {
    /// Of this filter.
    pub fn new(filter: Arc<Filter>) -> Self {
        let generation = filter.generation.load(Ordering::Acquire);
        let rules = Arc::clone(&filter.lock());
        Self {
            filter,
            generation,
            rules,
        }
    }

    /// The rules as they are now.
    #[inline]
    pub fn rules(&mut self) -> &Rules {
        if self.filter.generation.load(Ordering::Acquire) != self.generation {
            self.renew();
        }
        &self.rules
    }

    #[cold]
    fn renew(&mut self) {
        // The generation of these rules or an older one: then they are looked at once more.
        self.generation = self.filter.generation.load(Ordering::Acquire);
        self.rules = Arc::clone(&self.filter.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_the_next_look() {
        let filter = Arc::new(Filter::default());
        let mut views = [(); 2].map(|()| View::new(Arc::clone(&filter)));
        for round in 0..3 {
            for view in &mut views {
                assert_eq!(view.rules().pass_all(), round % 2 == 0);
            }
            filter.change(|rules| rules.set_mode(0, round % 2 == 1));
        }
    }

    #[test]
    fn an_address_that_was_set_is_told() {
        let filter = Filter::default();
        let mac = "52:54:00:01:02:03".parse().unwrap();
        filter.change(|rules| rules.assign(mac));
        assert_eq!(filter.assigned(), Some(mac));
        filter.change(|rules| *rules = Rules::default());
        assert_eq!(filter.assigned(), None);
    }
}
