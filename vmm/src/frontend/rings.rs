//! Starting and stopping rings over a link.

use std::os::fd::AsRawFd;
use std::time::Duration;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK,
};

use super::class;
use super::error::CallError;
use super::link::{Link, call};
use crate::memory::RamRegion;
use crate::transport::{QueueStart, Start};

/// Backends are told "user addresses" that begin here: guest memory's real place in the VMM is
/// not their business, and vhost-user only wants the two tables to agree. Not 0, which some
/// backends take for "none".
const USER_BASE: u64 = 1 << 44;

/// Between two looks at a backend's status while it resets.
const STATUS_POLL: Duration = Duration::from_millis(2);

/// A ring that the driver has started.
pub(super) struct Ring {
    queue: QueueStart,
    /// Where it goes on, once the backend has stopped it.
    stopped_at: Option<u32>,
}

/// Guest memory, as backends are told of it.
#[derive(Debug)]
pub(super) struct MemoryTable(pub(super) Vec<RamRegion>);

impl MemoryTable {
    fn message(&self) -> Vec<VhostUserMemoryRegionInfo> {
        let info = |region: &RamRegion| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.guest_addr,
            memory_size: region.size,
            userspace_addr: region.guest_addr.saturating_add(USER_BASE),
            mmap_offset: region.offset,
            mmap_handle: region.fd.as_raw_fd(),
        };
        self.0.iter().map(info).collect()
    }

    /// The user address of `len` bytes at `addr`, if they lie in one region.
    fn user(&self, addr: u64, len: u64) -> Option<u64> {
        let end = addr.checked_add(len)?;
        let fits = |region: &RamRegion| {
            addr >= region.guest_addr
                && region
                    .guest_addr
                    .checked_add(region.size)
                    .is_some_and(|top| end <= top)
        };
        if !self.0.iter().any(fits) {
            return None;
        }
        addr.checked_add(USER_BASE)
    }
}

impl Link {
    /// Starts the driver's queues, from the beginning of their rings.
    pub(super) fn start(&mut self, memory: &MemoryTable, start: Start) -> Result<(), CallError> {
        let mut features = start.features & !class::RING_RESET;
        if self.has_protocol {
            features |= VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        }
        call("SET_FEATURES", self.frontend.set_features(features))?;
        let status =
            VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
        let tell_status = self.protocol.contains(VhostUserProtocolFeatures::STATUS);
        if tell_status {
            self.raw.set_status(status as u8)?;
            if u32::from(self.raw.status()?) & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
                return Err(CallError::Refused {
                    request: "SET_FEATURES",
                });
            }
        }
        call(
            "SET_MEM_TABLE",
            self.frontend.set_mem_table(&memory.message()),
        )?;
        let indices: Vec<u16> = start.queues.iter().map(|queue| queue.index).collect();
        for queue in start.queues {
            self.set_up(memory, queue, 0)?;
        }
        self.go(&indices)?;
        if tell_status {
            self.raw
                .set_status((status | VIRTIO_CONFIG_S_DRIVER_OK) as u8)?;
        }
        Ok(())
    }

    /// Starts one more queue.
    pub(super) fn start_queue(
        &mut self,
        memory: &MemoryTable,
        queue: QueueStart,
    ) -> Result<(), CallError> {
        let index = queue.index;
        self.set_up(memory, queue, 0)?;
        self.go(&[index])
    }

    /// Stops one queue. It is touched no more once this is `Ok`.
    pub(super) fn stop_queue(&mut self, index: u16) -> Result<(), CallError> {
        if self.is_running(index) {
            self.disable(index)?;
            call("GET_VRING_BASE", self.frontend.get_vring_base(index.into()))?;
        }
        self.rings.remove(&index);
        Ok(())
    }

    /// Stops every queue where it is. No ring is touched any more once this is `Ok`; what the
    /// backend had taken and not answered it has given back.
    pub(super) fn pause(&mut self) -> Result<(), CallError> {
        let running = self.running();
        for &index in &running {
            self.disable(index)?;
        }
        for index in running {
            let base = call("GET_VRING_BASE", self.frontend.get_vring_base(index.into()))?;
            if let Some(ring) = self.rings.get_mut(&index) {
                ring.stopped_at = Some(base);
            }
        }
        Ok(())
    }

    /// Lets every queue that [`pause`](Self::pause) has stopped go on from there.
    pub(super) fn resume(&mut self, memory: &MemoryTable) -> Result<(), CallError> {
        let paused: Vec<u16> = self.rings.keys().copied().collect();
        let paused: Vec<u16> = paused
            .into_iter()
            .filter(|index| !self.is_running(*index))
            .collect();
        for index in &paused {
            if let Some(Ring {
                queue,
                stopped_at: Some(base),
            }) = self.rings.remove(index)
            {
                self.set_up(memory, queue, base)?;
            }
        }
        self.go(&paused)
    }

    fn is_running(&self, index: u16) -> bool {
        self.rings
            .get(&index)
            .is_some_and(|ring| ring.stopped_at.is_none())
    }

    fn running(&self) -> Vec<u16> {
        let indices = self.rings.keys().copied();
        indices.filter(|index| self.is_running(*index)).collect()
    }

    /// Stops every queue and makes the backend forget the driver. No ring is touched any more once
    /// this is `Ok`. The watcher's deadline bounds it.
    pub(super) fn reset(&mut self) -> Result<(), CallError> {
        let running = self.running();
        for &index in &running {
            self.disable(index)?;
        }
        for &index in &running {
            // The base it answers is of no use: the driver starts from 0.
            call("GET_VRING_BASE", self.frontend.get_vring_base(index.into()))?;
        }
        self.rings.clear();
        if self
            .protocol
            .contains(VhostUserProtocolFeatures::RESET_DEVICE)
        {
            call("RESET_DEVICE", self.frontend.reset_device())?;
        }
        if self.protocol.contains(VhostUserProtocolFeatures::STATUS) {
            self.raw.set_status(0)?;
            while self.raw.status()? != 0 {
                std::thread::sleep(STATUS_POLL);
            }
        }
        Ok(())
    }

    /// Hands the backend a ring, to go on at `base`.
    fn set_up(
        &mut self,
        memory: &MemoryTable,
        queue: QueueStart,
        base: u32,
    ) -> Result<(), CallError> {
        let (index, size) = (usize::from(queue.index), u64::from(queue.size));
        let user = |addr, len| {
            memory
                .user(addr, len)
                .ok_or(CallError::Queue { index: queue.index })
        };
        // Split rings (virtio 1.2, section 2.7): 16 bytes a descriptor, 2 an available entry, 8 a
        // used one, and 6 around each of the latter two.
        let addresses = VringConfigData {
            queue_max_size: queue.size,
            queue_size: queue.size,
            flags: 0,
            desc_table_addr: user(queue.desc, size.saturating_mul(16))?,
            used_ring_addr: user(queue.used, size.saturating_mul(8).saturating_add(6))?,
            avail_ring_addr: user(queue.avail, size.saturating_mul(2).saturating_add(6))?,
            log_addr: None,
        };
        // Counted from the first message on: one that fails half-way is stopped as well.
        let entry = self.rings.entry(queue.index).insert_entry(Ring {
            queue,
            stopped_at: None,
        });
        let queue = &entry.get().queue;
        let frontend = &self.frontend;
        call("SET_VRING_NUM", frontend.set_vring_num(index, queue.size))?;
        call("SET_VRING_ADDR", frontend.set_vring_addr(index, &addresses))?;
        call(
            "SET_VRING_BASE",
            frontend.set_vring_base(index, base as u16),
        )?;
        call(
            "SET_VRING_CALL",
            frontend.set_vring_call(index, &queue.call),
        )?;
        // A backend that does not want it is none the worse.
        match call("SET_VRING_ERR", frontend.set_vring_err(index, &self.broken)) {
            Err(error) if error.is_fatal() => return Err(error),
            _ => {}
        }
        call(
            "SET_VRING_KICK",
            frontend.set_vring_kick(index, &queue.kick),
        )
    }

    fn enable(&mut self, index: u16, enable: bool) -> Result<(), CallError> {
        // Without protocol features a ring is enabled as it starts.
        if !self.has_protocol {
            return Ok(());
        }
        call(
            "SET_VRING_ENABLE",
            self.frontend.set_vring_enable(index.into(), enable),
        )
    }

    /// Enables queues, then kicks them. The driver does not wait for that with its first kick, and a
    /// backend that hears it before may pass over the ring (`vhost-user-backend` does).
    fn go(&mut self, indices: &[u16]) -> Result<(), CallError> {
        for index in indices {
            self.enable(*index, true)?;
        }
        if self.has_protocol && !self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            // Nothing was answered yet; once this is, what came before it has been done.
            call("GET_FEATURES", self.frontend.get_features())?;
        }
        for ring in indices.iter().filter_map(|index| self.rings.get(index)) {
            // It fails when the counter is full, and that is a kick.
            let _ = ring.queue.kick.write(1);
        }
        Ok(())
    }

    /// Before a ring is stopped. `GET_VRING_BASE` is what stops it: a backend that refuses this
    /// is none the worse.
    fn disable(&mut self, index: u16) -> Result<(), CallError> {
        match self.enable(index, false) {
            Err(error) if error.is_fatal() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn rings_lie_in_one_region() {
        let region = |guest_addr, size| RamRegion {
            guest_addr,
            size,
            host_addr: 0,
            fd: Arc::new(std::fs::File::open("/dev/null").unwrap()),
            offset: 0,
        };
        let table = MemoryTable(vec![region(0, 0x1000), region(0x1000, 0x1000)]);
        assert_eq!(table.user(0, 0x1000), Some(USER_BASE));
        assert_eq!(table.user(0x1800, 0x800), Some(USER_BASE + 0x1800));
        for (addr, len) in [
            (0xfff, 2),
            (0x1fff, 2),
            (0x2000, 1),
            (u64::MAX, 2),
            (0, u64::MAX),
        ] {
            assert_eq!(table.user(addr, len), None, "{addr:#x}+{len:#x}");
        }
    }
}
