//! The mark of a device that cannot go on, shared by the session and the workers.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::error;

use crate::device::chain;
use crate::ratelimit::RateLimit;

/// Whether the device is broken, and who is told when it becomes so.
#[derive(Debug)]
pub(crate) struct Breakage {
    broken: AtomicBool,
    /// The error eventfds the frontend gave, by queue.
    listeners: Mutex<Vec<Option<File>>>,
}

impl Breakage {
    pub(crate) fn new(queues: usize) -> Self {
        Self {
            broken: AtomicBool::new(false),
            listeners: Mutex::new((0..queues).map(|_| None).collect()),
        }
    }

    /// The eventfd to be signalled for this queue, or none.
    pub(crate) fn listen(&self, queue: usize, listener: Option<File>) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = listeners.get_mut(queue) {
            *slot = listener;
            if self.is_broken() {
                signal(slot);
            }
        }
    }

    /// Forgets a breakage: the device has been reset.
    pub(crate) fn clear(&self) {
        self.broken.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Marks the device broken and signals every error eventfd. Once per breakage: the device must
    /// be reset before it can break again.
    pub(crate) fn mark(&self, cause: &(dyn Error + 'static)) {
        static LIMIT: RateLimit = RateLimit::new();
        if self.broken.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(unseen) = LIMIT.pass() {
            let cause = chain(cause);
            error!(cause, "the device is broken until it is reset{unseen}");
        }
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.iter_mut().for_each(signal);
    }
}

fn signal(listener: &mut Option<File>) {
    if let Some(listener) = listener {
        // A full counter is as loud as one more.
        let _ = listener.write(&1u64.to_ne_bytes());
    }
}
