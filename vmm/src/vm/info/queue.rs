//! How far a queue's rings are.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::transport::QueueSnapshot;

/// A queue at one moment.
///
/// The two indices are read from guest memory, where the guest and the backend have them: a guest
/// can write there whatever it likes. They are shown, and nothing depends on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    /// Its number.
    pub index: u16,
    /// Number of descriptors.
    pub size: u16,
    /// The driver uses it.
    pub enabled: bool,
    /// Its MSI-X vector, if it has one.
    pub vector: Option<u16>,
    /// How many chains the driver has made available since it enabled the queue, modulo 65536.
    /// `None` of a queue that is not enabled, and of a packed ring, which keeps no such count.
    pub available: Option<u16>,
    /// How many of them the device has used, modulo 65536.
    pub used: Option<u16>,
}

impl QueueInfo {
    pub(super) fn of(queue: &QueueSnapshot, ram: &GuestMemoryMmap) -> Self {
        let read = |at: u64| {
            let index = ram.load::<u16>(GuestAddress(at), Ordering::Relaxed);
            index.ok().map(u16::from_le)
        };
        // Used before available: while both move, what is used is never ahead.
        let used = queue.indices.and_then(|(_, used)| read(used));
        let available = queue.indices.and_then(|(available, _)| read(available));
        Self {
            index: queue.index,
            size: queue.size,
            enabled: queue.enabled,
            vector: queue.vector,
            available,
            used,
        }
    }

    /// Chains that the driver has made available and the device has not used. `None` where that is
    /// not known, or more than the queue holds: then the guest has written something else.
    pub fn in_flight(&self) -> Option<u16> {
        let chains = self.available?.wrapping_sub(self.used?);
        (chains <= self.size).then_some(chains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap()
    }

    fn snapshot(indices: Option<(u64, u64)>) -> QueueSnapshot {
        QueueSnapshot {
            index: 0,
            size: 256,
            enabled: indices.is_some(),
            vector: None,
            indices,
        }
    }

    #[test]
    fn indices_are_read_where_the_rings_have_them() {
        let ram = ram();
        ram.write_obj(0x0102_u16.to_le(), GuestAddress(0x102))
            .unwrap();
        ram.write_obj(0x0100_u16.to_le(), GuestAddress(0x202))
            .unwrap();
        let queue = QueueInfo::of(&snapshot(Some((0x102, 0x202))), &ram);
        assert_eq!((queue.available, queue.used), (Some(0x102), Some(0x100)));
        assert_eq!(queue.in_flight(), Some(2));
    }

    #[test]
    fn an_index_that_is_nowhere_or_makes_no_sense_is_not_told() {
        let ram = ram();
        let queue = QueueInfo::of(&snapshot(Some((0x1000, u64::MAX))), &ram);
        assert_eq!((queue.available, queue.used), (None, None));
        assert_eq!(QueueInfo::of(&snapshot(None), &ram).in_flight(), None);
        ram.write_obj(0x8000_u16.to_le(), GuestAddress(0x102))
            .unwrap();
        let queue = QueueInfo::of(&snapshot(Some((0x102, 0x202))), &ram);
        assert_eq!((queue.used, queue.in_flight()), (Some(0), None));
    }

    #[test]
    fn counts_may_wrap() {
        let mut queue = QueueInfo::of(&snapshot(None), &ram());
        (queue.available, queue.used) = (Some(3), Some(0xfffe));
        assert_eq!(queue.in_flight(), Some(5));
    }
}
