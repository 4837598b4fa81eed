//! A hypervisor's wiring without a hypervisor, which checks how it is used.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::{Wiring, WiringError, lock};
use crate::kvm::MsiMessage;

/// Keeps what KVM would keep. Eventfds are read when a test asks what was [`delivered`](Self::delivered).
#[derive(Default)]
pub(crate) struct FakeWiring {
    shared: Arc<Mutex<Shared>>,
    next: AtomicU32,
    /// From now on every call fails.
    pub(crate) broken: AtomicBool,
}

#[derive(Default)]
struct Shared {
    /// The message of each vector that is allocated.
    vectors: BTreeMap<u32, Option<MsiMessage>>,
    /// By the caller's descriptor: our duplicate and its vector.
    connections: BTreeMap<RawFd, (EventFd, u32)>,
    doorbells: BTreeMap<u64, EventFd>,
    delivered: Vec<MsiMessage>,
    batches: usize,
}

impl Shared {
    /// Raises an interrupt for the signals of one connection.
    fn deliver(&mut self, fd: RawFd) {
        let Some((event, vector)) = self.connections.get(&fd) else {
            return;
        };
        if event.read().is_ok() {
            let message = self.vectors.get(vector).copied().flatten();
            self.delivered
                .push(message.expect("connected to a vector with a message"));
        }
    }
}

/// Undoes one thing when dropped.
pub(crate) struct Undo {
    id: u64,
    shared: Arc<Mutex<Shared>>,
    revert: fn(&mut Shared, u64),
}

impl Drop for Undo {
    fn drop(&mut self) {
        (self.revert)(&mut lock(&self.shared), self.id);
    }
}

impl FakeWiring {
    /// The messages raised since the last call.
    pub(crate) fn delivered(&self) -> Vec<MsiMessage> {
        let mut shared = lock(&self.shared);
        let connected: Vec<_> = shared.connections.keys().copied().collect();
        for fd in connected {
            shared.deliver(fd);
        }
        std::mem::take(&mut shared.delivered)
    }

    /// A guest write as the hypervisor sees it first: whether a doorbell took it.
    pub(crate) fn ring(&self, address: u64) -> bool {
        let shared = lock(&self.shared);
        shared
            .doorbells
            .get(&address)
            .is_some_and(|kick| kick.write(1).is_ok())
    }

    /// Where doorbells are.
    pub(crate) fn doorbells(&self) -> Vec<u64> {
        lock(&self.shared).doorbells.keys().copied().collect()
    }

    /// How many vectors are allocated and how many connections there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let shared = lock(&self.shared);
        (shared.vectors.len(), shared.connections.len())
    }

    /// How many batches of messages were programmed since the last call.
    pub(crate) fn batches(&self) -> usize {
        std::mem::take(&mut lock(&self.shared).batches)
    }

    fn check(&self) -> Result<(), WiringError> {
        if self.broken.load(Ordering::SeqCst) {
            Err("broken on purpose".into())
        } else {
            Ok(())
        }
    }

    fn undo(&self, id: u64, revert: fn(&mut Shared, u64)) -> Undo {
        Undo {
            id,
            shared: self.shared.clone(),
            revert,
        }
    }
}

impl Wiring for FakeWiring {
    type Vector = Undo;
    type Connection = Undo;
    type Doorbell = Undo;

    fn vector(&self) -> Result<Undo, WiringError> {
        self.check()?;
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        lock(&self.shared).vectors.insert(id, None);
        Ok(self.undo(id.into(), |shared, id| {
            let id = id as u32;
            assert!(
                shared.connections.values().all(|(_, vector)| *vector != id),
                "still connected"
            );
            shared.vectors.remove(&id).expect("freed once");
        }))
    }

    fn program(&self, batch: &[(&Undo, MsiMessage)]) -> Result<(), WiringError> {
        self.check()?;
        if batch.iter().any(|(_, message)| message.address >> 32 != 0) {
            return Err("an address that no local APIC has".into());
        }
        let mut shared = lock(&self.shared);
        shared.batches += 1;
        for (vector, message) in batch {
            *shared
                .vectors
                .get_mut(&(vector.id as u32))
                .expect("allocated") = Some(*message);
        }
        Ok(())
    }

    fn connect(&self, call: &EventFd, vector: &Undo) -> Result<Undo, WiringError> {
        self.check()?;
        let fd = call.as_raw_fd();
        let mut shared = lock(&self.shared);
        assert!(
            shared.vectors[&(vector.id as u32)].is_some(),
            "connected before it has a message"
        );
        if shared.connections.contains_key(&fd) {
            return Err("connected already".into());
        }
        shared
            .connections
            .insert(fd, (call.try_clone()?, vector.id as u32));
        Ok(self.undo(u64::from(fd.unsigned_abs()), |shared, fd| {
            shared.deliver(fd as RawFd);
            shared
                .connections
                .remove(&(fd as RawFd))
                .expect("disconnected once");
        }))
    }

    fn doorbell(&self, kick: &EventFd, address: u64) -> Result<Undo, WiringError> {
        self.check()?;
        let mut shared = lock(&self.shared);
        if shared.doorbells.contains_key(&address) {
            return Err("the address is taken".into());
        }
        shared.doorbells.insert(address, kick.try_clone()?);
        Ok(self.undo(address, |shared, address| {
            shared.doorbells.remove(&address).expect("removed once");
        }))
    }
}
