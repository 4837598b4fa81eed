//! What a device tells the transport, received without a lock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::device::TransportEvents;

/// ISR status: a queue has used buffers.
pub(super) const ISR_QUEUE: u8 = 1;
/// ISR status: the configuration changed.
pub(super) const ISR_CONFIG: u8 = 2;

/// The meeting point of the device's thread and the vCPUs: flags, and the eventfd of the
/// config-change interrupt. No locks, so neither side can hold up the other.
#[derive(Debug)]
pub(super) struct Events {
    call: Arc<EventFd>,
    isr: AtomicU8,
    /// The driver wants to hear of changes.
    listening: AtomicBool,
    /// Something changed since the driver last was interrupted for it.
    unheard: AtomicBool,
    needs_reset: AtomicBool,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            call: Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?),
            isr: AtomicU8::new(0),
            listening: AtomicBool::new(false),
            unheard: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
        })
    }

    /// The eventfd of the config-change interrupt.
    pub(super) fn call(&self) -> &Arc<EventFd> {
        &self.call
    }

    /// Reads the ISR status and clears it.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    pub(super) fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// `DRIVER_OK`: from now on the driver is interrupted, first for what came before.
    pub(super) fn listen(&self) {
        self.listening.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// The driver asked for a reset and wants to hear nothing more.
    pub(super) fn ignore(&self) {
        self.listening.store(false, Ordering::SeqCst);
    }

    /// A reset ended: nothing that happened before it counts.
    pub(super) fn forget(&self) {
        self.unheard.store(false, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
        self.isr.store(0, Ordering::SeqCst);
        // Empty most of the time; that is no error.
        let _ = self.call.read();
    }

    /// Interrupts the driver if it listens and has not heard yet. Whoever comes second of
    /// `listen` and a change sees the other's flag, so that no change is lost.
    fn ring(&self) {
        if self.listening.load(Ordering::SeqCst) && self.unheard.swap(false, Ordering::SeqCst) {
            self.isr.fetch_or(ISR_CONFIG, Ordering::SeqCst);
            // Fails only when it is signalled 2^64 times already.
            let _ = self.call.write(1);
        }
    }
}

impl TransportEvents for Events {
    fn config_changed(&self) {
        self.unheard.store(true, Ordering::SeqCst);
        self.ring();
    }

    fn needs_reset(&self) {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.config_changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_before_driver_ok_is_heard_at_driver_ok_once() {
        let events = Events::new().unwrap();
        events.config_changed();
        assert!(events.call().read().is_err());
        events.listen();
        assert_eq!(events.call().read().unwrap(), 1);
        events.listen();
        assert!(events.call().read().is_err());
        assert_eq!((events.take_isr(), events.take_isr()), (ISR_CONFIG, 0));
    }

    #[test]
    fn a_reset_forgets() {
        let events = Events::new().unwrap();
        events.listen();
        events.needs_reset();
        assert!(events.is_reset_needed());
        events.ignore();
        events.config_changed();
        events.forget();
        assert!(!events.is_reset_needed());
        events.listen();
        assert!(events.call().read().is_err());
        assert_eq!(events.take_isr(), 0);
    }
}
