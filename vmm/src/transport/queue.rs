//! The registers of one queue, and the check of what a driver put there.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::device::QueueStart;
use super::snapshot::QueueSnapshot;

/// No interrupt (virtio 1.2, 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// Whether a range of guest-physical addresses (start, bytes) is all RAM.
pub type IsRam = Arc<dyn Fn(u64, u64) -> bool + Send + Sync>;

/// The check against a VM's memory.
pub fn in_ram(ram: &Arc<GuestMemoryMmap>) -> IsRam {
    let ram = ram.clone();
    Arc::new(move |address, bytes| {
        usize::try_from(bytes).is_ok_and(|bytes| ram.check_range(GuestAddress(address), bytes))
    })
}

/// The two eventfds of a queue that is enabled.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    pub(super) kick: Arc<EventFd>,
    pub(super) call: Arc<EventFd>,
}

impl Doors {
    fn new() -> io::Result<Self> {
        let event = || EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map(Arc::new);
        Ok(Self {
            kick: event()?,
            call: event()?,
        })
    }
}

/// What the driver set up for one queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) size: u16,
    pub(super) desc: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
    pub(super) vector: u16,
    /// There while the queue is enabled.
    pub(super) doors: Option<Doors>,
    /// Its reset was asked for and has not ended yet.
    pub(super) stopping: bool,
}

/// Why a queue cannot be enabled.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueError {
    #[error("{0} descriptors is not a power of two")]
    Size(u16),
    #[error("The queue's {bytes} bytes at {address:#x} are not aligned to {align}")]
    Alignment {
        address: u64,
        bytes: u64,
        align: u64,
    },
    #[error("The queue's {bytes} bytes at {address:#x} are not RAM")]
    NotRam { address: u64, bytes: u64 },
    #[error("No eventfd for a queue")]
    Eventfd(#[source] io::Error),
}

impl Queue {
    /// A queue as after a reset; the driver may make it smaller than `max`.
    pub(super) fn new(max: u16) -> Self {
        Self {
            size: max,
            desc: 0,
            avail: 0,
            used: 0,
            vector: NO_VECTOR,
            doors: None,
            stopping: false,
        }
    }

    /// Checks what the driver set up, and gives the queue its eventfds.
    pub(super) fn enable(&mut self, packed: bool, is_ram: &IsRam) -> Result<(), QueueError> {
        if !packed && !self.size.is_power_of_two() {
            return Err(QueueError::Size(self.size));
        }
        for (address, bytes, align) in self.areas(packed) {
            if !address.is_multiple_of(align) {
                return Err(QueueError::Alignment {
                    address,
                    bytes,
                    align,
                });
            }
            if !is_ram(address, bytes) {
                return Err(QueueError::NotRam { address, bytes });
            }
        }
        self.doors = Some(Doors::new().map_err(QueueError::Eventfd)?);
        Ok(())
    }

    pub(super) fn snapshot(&self, index: u16, packed: bool) -> QueueSnapshot {
        QueueSnapshot {
            index,
            size: self.size,
            enabled: self.doors.is_some(),
            vector: Some(self.vector).filter(|vector| *vector != NO_VECTOR),
            // Both rings have their index behind 16 bits of flags (virtio 1.2, 2.7.6 and 2.7.8).
            indices: (self.doors.is_some() && !packed)
                .then(|| (self.avail.saturating_add(2), self.used.saturating_add(2))),
            kick: self.doors.as_ref().map(|doors| Arc::clone(&doors.kick)),
        }
    }

    /// What the device is told of it; `None` when it is not enabled.
    pub(super) fn start(&self, index: u16) -> Option<io::Result<QueueStart>> {
        let doors = self.doors.as_ref()?;
        let start = |kick, call| QueueStart {
            index,
            size: self.size,
            desc: self.desc,
            avail: self.avail,
            used: self.used,
            kick,
            call,
        };
        Some(
            doors
                .kick
                .try_clone()
                .and_then(|kick| Ok(start(kick, doors.call.try_clone()?))),
        )
    }

    /// Address, bytes and alignment of its three areas (virtio 1.2, 2.7 and 2.8).
    fn areas(&self, packed: bool) -> [(u64, u64, u64); 3] {
        let size = u64::from(self.size);
        let table = size.saturating_mul(16);
        if packed {
            return [
                (self.desc, table, 16),
                (self.avail, 4, 4),
                (self.used, 4, 4),
            ];
        }
        let avail = size.saturating_mul(2).saturating_add(6);
        let used = size.saturating_mul(8).saturating_add(6);
        [
            (self.desc, table, 16),
            (self.avail, avail, 2),
            (self.used, used, 4),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> IsRam {
        Arc::new(|address, len| address.checked_add(len).is_some_and(|end| end <= 0x1_0000))
    }

    fn queue(size: u16, desc: u64, avail: u64, used: u64) -> Queue {
        Queue {
            size,
            desc,
            avail,
            used,
            ..Queue::new(256)
        }
    }

    #[test]
    fn a_sound_split_queue_is_enabled() {
        let mut queue = queue(256, 0x1000, 0x2000, 0x3000);
        queue.enable(false, &ram()).unwrap();
        let start = queue.start(3).unwrap().unwrap();
        assert_eq!((start.index, start.size, start.used), (3, 256, 0x3000));
    }

    #[test]
    fn unsound_queues_are_not() {
        for (size, desc, avail, used) in [
            (255, 0x1000, 0x2000, 0x3000),
            (0, 0x1000, 0x2000, 0x3000),
            (256, 0x1008, 0x2000, 0x3000),
            (256, 0x1000, 0x2001, 0x3000),
            (256, 0x1000, 0x2000, 0x3002),
            (256, 0xf010, 0x2000, 0x3000),
            (256, 0x1000, 0xfe00, 0x3000),
            (256, 0x1000, 0x2000, u64::MAX - 3),
        ] {
            let mut queue = queue(size, desc, avail, used);
            assert!(queue.enable(false, &ram()).is_err(), "{queue:x?}");
            assert!(queue.start(0).is_none());
        }
    }

    #[test]
    fn a_packed_queue_may_have_any_size() {
        queue(255, 0x1000, 0x2000, 0x2004)
            .enable(true, &ram())
            .unwrap();
        assert!(
            queue(255, 0x1000, 0x2002, 0x2004)
                .enable(true, &ram())
                .is_err()
        );
    }
}
