//! How many of the card's queue pairs are in use, of those it has.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cable::Cable;

/// The cables of all pairs, the first of which is always in use. A tap spreads frames over the
/// queues that are attached, so those the driver does not serve must not be.
#[derive(Debug)]
pub struct Pairs {
    cables: Vec<Arc<Cable>>,
    active: Mutex<u16>,
}

impl Pairs {
    /// Pairs on these cables, all attached; leaves the first in use.
    ///
    /// # Errors
    /// What the system says to detaching a queue.
    pub fn new(cables: Vec<Cable>) -> io::Result<Self> {
        let pairs = Self {
            active: Mutex::new(u16::try_from(cables.len()).unwrap_or(u16::MAX)),
            cables: cables.into_iter().map(Arc::new).collect(),
        };
        pairs.set_active(1)?;
        Ok(pairs)
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        u16::try_from(self.cables.len()).unwrap_or(u16::MAX)
    }

    /// The cable of pair `n`.
    pub fn cable(&self, n: usize) -> Option<&Arc<Cable>> {
        self.cables.get(n)
    }

    /// Uses the first `wanted` pairs, at least one, and no others. From any thread.
    ///
    /// # Errors
    /// There are fewer, or the system refuses; what was changed by then stays.
    pub fn set_active(&self, wanted: u16) -> io::Result<()> {
        if wanted == 0 || wanted > self.count() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        while *active != wanted {
            let attach = *active < wanted;
            let last = if attach {
                *active
            } else {
                active.saturating_sub(1)
            };
            if let Some(cable) = self.cable(usize::from(last)) {
                cable.set_attached(attach)?;
            }
            *active = if attach {
                active.saturating_add(1)
            } else {
                last
            };
        }
        Ok(())
    }
}
