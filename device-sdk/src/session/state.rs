//! What a connection has agreed on, and the groups that run because of it.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent};

use super::channel::Channel;
use super::transfer::Transfer;
use super::{Refused, STATUS_FEATURES_OK, STATUS_NEEDS_RESET};
use crate::counters::Counters;
use crate::device::Device;
use crate::memory::Memory;
use crate::queue::RingAddresses;
use crate::worker::{Breakage, Change, ChangeError, Running};

/// `VIRTIO_RING_F_INDIRECT_DESC` (virtio 1.2, section 6).
pub(super) const INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_RING_F_EVENT_IDX`.
pub(super) const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`, which a device may insist on (virtio 1.2, section 6.2): without it headers
/// and layouts are those of before virtio 1.0.
pub(super) const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_RING_PACKED`.
const RING_PACKED: u64 = 1 << 34;
/// Not a virtio feature: the frontend and this side speak the vhost-user extensions.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
/// The engine's bits; all others are the device's.
const ENGINE: u64 = INDIRECT_DESC | EVENT_IDX | RING_PACKED | VERSION_1 | PROTOCOL_FEATURES;

/// What the frontend has said of one ring.
#[derive(Debug, Default)]
pub(super) struct Vring {
    pub(super) size: Option<u16>,
    pub(super) addresses: Option<RingAddresses>,
    /// As `SET_VRING_BASE` has it, if it was said.
    pub(super) base: Option<u32>,
    pub(super) kick: Option<File>,
    pub(super) call: Option<File>,
    pub(super) enabled: bool,
    /// Its group's worker has it.
    pub(super) running: bool,
}

/// Queues that share a worker.
pub(super) struct Group {
    pub(super) queues: Range<u16>,
    pub(super) running: Option<Running>,
}

/// One connection's state. All of it lives on the session thread.
pub(super) struct State<'d, D: Device> {
    pub(super) device: &'d mut D,
    pub(super) memory: Arc<Memory>,
    pub(super) protocol: u64,
    pub(super) channel: Arc<Channel>,
    pub(super) breakage: Arc<Breakage>,
    pub(super) acked: u64,
    /// The last features were refused: `FEATURES_OK` does not stand.
    pub(super) refused: bool,
    pub(super) status: u8,
    pub(super) vrings: Vec<Vring>,
    pub(super) groups: Vec<Group>,
    /// A worker was started since the device was made, or reset.
    pub(super) started: bool,
    /// The device's state, on its way.
    pub(super) transfer: Option<Transfer>,
    /// Where the groups' queues are counted.
    pub(super) counters: Option<Counters>,
}

impl<'d, D: Device> State<'d, D> {
    pub(super) fn new(device: &'d mut D, counters: Option<Counters>) -> Self {
        let mut groups = Vec::new();
        let mut first = 0u16;
        for count in device.queue_groups() {
            let end = first.saturating_add(count);
            groups.push(Group {
                queues: first..end,
                running: None,
            });
            first = end;
        }
        let channel = Arc::new(Channel::default());
        let breakage = Arc::new(Breakage::new(usize::from(first)));
        device.attach(channel.events(&breakage));
        Self {
            device,
            memory: Arc::default(),
            protocol: 0,
            channel,
            breakage,
            acked: 0,
            refused: false,
            status: 0,
            vrings: (0..first).map(|_| Vring::default()).collect(),
            groups,
            started: false,
            transfer: None,
            counters,
        }
    }

    pub(super) fn features(&self) -> u64 {
        (self.device.features() & !ENGINE) | ENGINE
    }

    pub(super) fn queues(&self) -> u64 {
        self.vrings.len() as u64
    }

    pub(super) fn vring(&mut self, index: u32) -> Result<&mut Vring, Refused> {
        self.vrings
            .get_mut(index as usize)
            .ok_or(Refused::NoSuchQueue(index))
    }

    /// The running group of this queue, and the queue's place in it.
    pub(super) fn place(&self, index: u32) -> Option<(&Running, usize)> {
        let group = self.group_of(index)?;
        let group = self.groups.get(group)?;
        let slot = (index as usize).checked_sub(usize::from(group.queues.start))?;
        Some((group.running.as_ref()?, slot))
    }

    pub(super) fn group_of(&self, index: u32) -> Option<usize> {
        let index = u16::try_from(index).ok()?;
        self.groups.iter().position(|g| g.queues.contains(&index))
    }

    /// Hands a change to the worker that has this ring; nothing to do when none has.
    fn change(&self, index: u32, change: impl FnOnce(usize) -> Change) -> Result<(), Refused> {
        let running = self.vrings.get(index as usize).is_some_and(|v| v.running);
        if running && let Some((group, slot)) = self.place(index) {
            group.change(change(slot))?;
        }
        Ok(())
    }

    pub(super) fn set_features(&mut self, acked: u64) -> Result<(), Refused> {
        let unknown = acked & !self.features();
        if unknown != 0 {
            self.refused = true;
            return Err(Refused::Features(unknown));
        }
        if acked & VERSION_1 == 0 {
            self.refused = true;
            return Err(Refused::Legacy);
        }
        if self.groups.iter().any(|group| group.running.is_some()) {
            if acked == self.acked {
                return Ok(());
            }
            return Err(Refused::Running("the features"));
        }
        self.acked = acked;
        self.refused = true;
        self.device.set_features(acked & !ENGINE)?;
        self.refused = false;
        if acked & PROTOCOL_FEATURES == 0 {
            // Such a frontend has no message to enable a ring with.
            for vring in &mut self.vrings {
                vring.enabled = true;
            }
        }
        Ok(())
    }

    pub(super) fn status(&self) -> u8 {
        let mut status = self.status;
        if self.refused {
            status &= !STATUS_FEATURES_OK;
        }
        if self.breakage.is_broken() {
            status |= STATUS_NEEDS_RESET;
        }
        status
    }

    pub(super) fn set_status(&mut self, status: u8) {
        if status == 0 {
            self.reset();
        }
        self.status = status;
    }

    /// New memory, for the rings that run and those to come.
    pub(super) fn set_memory(&mut self, memory: Memory) -> Result<(), Refused> {
        self.memory = Arc::new(memory);
        for group in &self.groups {
            if let Some(running) = &group.running {
                running.change(Change::Memory(Arc::clone(&self.memory)))?;
            }
        }
        (0..self.vrings.len() as u32).try_for_each(|index| self.try_start(index))
    }

    pub(super) fn set_size(&mut self, index: u32, size: u32) -> Result<(), Refused> {
        let most = self.device.max_queue_size();
        let packed = self.is_packed();
        let vring = self.vring(index)?;
        if vring.running {
            return Err(Refused::Running("the ring's size"));
        }
        let size = u16::try_from(size)
            .ok()
            .filter(|size| (packed || size.is_power_of_two()) && *size > 0 && *size <= most)
            .ok_or(Refused::Size { size, most })?;
        vring.size = Some(size);
        self.try_start(index)
    }

    pub(super) fn set_addresses(
        &mut self,
        index: u32,
        addresses: RingAddresses,
    ) -> Result<(), Refused> {
        self.vring(index)?.addresses = Some(addresses);
        self.change(index, |slot| Change::Addresses { slot, addresses })?;
        self.try_start(index)
    }

    pub(super) fn is_packed(&self) -> bool {
        self.acked & RING_PACKED != 0
    }

    pub(super) fn set_base(&mut self, index: u32, base: u32) -> Result<(), Refused> {
        let packed = self.is_packed();
        let vring = self.vring(index)?;
        if vring.running {
            return Err(Refused::Running("the ring's base"));
        }
        if !packed && u16::try_from(base).is_err() {
            return Err(Refused::Base(base));
        }
        vring.base = Some(base);
        Ok(())
    }

    pub(super) fn set_kick(&mut self, index: u32, kick: File) -> Result<(), Refused> {
        waitable(&kick).map_err(ChangeError::Kick)?;
        let copy = kick.try_clone()?;
        self.vring(index)?.kick = Some(kick);
        self.change(index, |slot| Change::Kick { slot, kick: copy })?;
        self.try_start(index)
    }

    pub(super) fn set_call(&mut self, index: u32, call: Option<File>) -> Result<(), Refused> {
        let copy = call.as_ref().map(File::try_clone).transpose()?;
        self.vring(index)?.call = call;
        self.change(index, |slot| Change::Call { slot, call: copy })
    }

    pub(super) fn set_error(&mut self, index: u32, error: Option<File>) -> Result<(), Refused> {
        self.vring(index)?;
        self.breakage.listen(index as usize, error);
        Ok(())
    }

    pub(super) fn set_enabled(&mut self, index: u32, enabled: bool) -> Result<(), Refused> {
        self.vring(index)?.enabled = enabled;
        self.change(index, |slot| Change::Enable { slot, enabled })?;
        self.try_start(index)
    }

    /// Disables every ring.
    pub(super) fn disable(&mut self) -> Result<(), Refused> {
        (0..self.vrings.len() as u32).try_for_each(|index| self.set_enabled(index, false))
    }
}

/// Whether the descriptor is of a kind that can be waited on: a regular file is not.
fn waitable(fd: &File) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    Ok(epoll.add(fd, EpollEvent::empty())?)
}

impl Vring {
    /// Whether enough is known to start it.
    pub(super) fn is_known(&self) -> bool {
        self.size.is_some() && self.addresses.is_some() && self.kick.is_some()
    }
}

impl<D: Device> Drop for State<'_, D> {
    /// The connection is over: leave the device as a new one.
    fn drop(&mut self) {
        self.channel.close();
        self.reset();
    }
}
