//! How far a queue's rings are.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use outboard_device::counters::Page;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::QueueCounts;
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
    /// What its device has counted; `None` of a device that is not ours, or of another process.
    pub counts: Option<QueueCounts>,
}

impl QueueInfo {
    pub(super) fn of(queue: &QueueSnapshot, ram: &GuestMemoryMmap, page: Option<&Page>) -> Self {
        let read = |at: u64| {
            let index = ram.load::<u16>(GuestAddress(at), Ordering::Relaxed);
            index.ok().map(u16::from_le)
        };
        // Used before available: while both move, what is used is never ahead.
        let used = queue.indices.and_then(|(_, used)| read(used));
        let available = queue.indices.and_then(|(available, _)| read(available));
        // Devices that count do not read the eventfd, which therefore keeps the sum.
        let counts = page
            .and_then(|page| page.read(queue.index))
            .map(|counters| {
                let kicks = queue.kick.as_deref().and_then(kicks);
                QueueCounts::new(&counters, kicks)
            });
        Self {
            index: queue.index,
            size: queue.size,
            enabled: queue.enabled,
            vector: queue.vector,
            available,
            used,
            counts,
        }
    }

    /// Chains that the driver has made available and the device has not used. `None` where that is
    /// not known, or more than the queue holds: then the guest has written something else.
    pub fn in_flight(&self) -> Option<u16> {
        let chains = self.available?.wrapping_sub(self.used?);
        (chains <= self.size).then_some(chains)
    }
}

/// How often an eventfd that nobody reads has been signalled (proc(5), `fdinfo`).
fn kicks(kick: &EventFd) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", kick.as_raw_fd())).ok()?;
    let count = info
        .lines()
        .find_map(|line| line.strip_prefix("eventfd-count:"))?;
    u64::from_str_radix(count.trim(), 16).ok()
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
            kick: None,
        }
    }

    #[test]
    fn indices_are_read_where_the_rings_have_them() {
        let ram = ram();
        ram.write_obj(0x0102_u16.to_le(), GuestAddress(0x102))
            .unwrap();
        ram.write_obj(0x0100_u16.to_le(), GuestAddress(0x202))
            .unwrap();
        let queue = QueueInfo::of(&snapshot(Some((0x102, 0x202))), &ram, None);
        assert_eq!((queue.available, queue.used), (Some(0x102), Some(0x100)));
        assert_eq!(queue.in_flight(), Some(2));
    }

    #[test]
    fn an_index_that_is_nowhere_or_makes_no_sense_is_not_told() {
        let ram = ram();
        let queue = QueueInfo::of(&snapshot(Some((0x1000, u64::MAX))), &ram, None);
        assert_eq!((queue.available, queue.used), (None, None));
        assert_eq!(QueueInfo::of(&snapshot(None), &ram, None).in_flight(), None);
        ram.write_obj(0x8000_u16.to_le(), GuestAddress(0x102))
            .unwrap();
        let queue = QueueInfo::of(&snapshot(Some((0x102, 0x202))), &ram, None);
        assert_eq!((queue.used, queue.in_flight()), (Some(0), None));
    }

    #[test]
    fn an_eventfd_that_nobody_reads_tells_how_often_it_was_signalled() {
        let kick = EventFd::new(0).unwrap();
        assert_eq!(kicks(&kick), Some(0));
        for _ in 0..20 {
            kick.write(1).unwrap();
        }
        assert_eq!(kicks(&kick), Some(20));
    }

    #[test]
    fn counts_are_those_of_the_page_if_there_is_one() {
        let page = Page::new().unwrap();
        let queue = QueueInfo::of(&snapshot(None), &ram(), Some(&page));
        assert_eq!(queue.counts.unwrap().requests, 0);
        assert_eq!(QueueInfo::of(&snapshot(None), &ram(), None).counts, None);
    }

    #[test]
    fn counts_may_wrap() {
        let mut queue = QueueInfo::of(&snapshot(None), &ram(), None);
        (queue.available, queue.used) = (Some(3), Some(0xfffe));
        assert_eq!(queue.in_flight(), Some(5));
    }
}
