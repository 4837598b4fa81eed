//! Whether the card has a link, known to the workers that find out and to the device that tells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use outboard_device::DeviceEvents;
use tracing::warn;

/// The state of the card's link.
#[derive(Debug)]
pub struct Link {
    up: AtomicBool,
    events: Mutex<Option<DeviceEvents>>,
}

impl Link {
    /// A link that is up.
    pub fn new() -> Self {
        Self {
            up: AtomicBool::new(true),
            events: Mutex::new(None),
        }
    }

    /// Where to announce changes from now on.
    pub fn attach(&self, events: DeviceEvents) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    /// Whether there is a link.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// The tap called `name` is gone for good: the guest sees its cable pulled. From any thread.
    pub fn lost(&self, name: &str) {
        if self.set(false) {
            warn!("Tap '{name}' has been removed: the guest's link is down until a restart");
        }
    }

    /// The cable has been plugged in or pulled. Returns whether that is a change, and the guest
    /// hears of it. From any thread.
    pub fn set(&self, up: bool) -> bool {
        let changed = self.up.swap(up, Ordering::Relaxed) != up;
        if changed {
            self.announce();
        }
        changed
    }

    /// Something in configuration space has changed. From any thread.
    pub fn announce(&self) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = &*events {
            events.config_changed();
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_loss_is_announced_once() {
        let link = Link::new();
        let told = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&told);
        link.attach(DeviceEvents::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(link.is_up());
        link.lost("t");
        link.lost("t");
        assert!(!link.is_up());
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(link.set(true) && !link.set(true) && link.is_up());
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }
}
