//! The messages the `vhost` crate parses for us, one method each.
//!
//! A method that refuses returns [`Error::ReqHandlerError`]: the crate acknowledges with a
//! non-zero value if the frontend asked for that, and the connection goes on. Any other error
//! ends the connection; that is the answer where the protocol has no way to say no.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vhost::{VhostUserMemoryRegionBase, vhost_user};

use super::state::State;
use super::{Refused, warn_of};
use crate::device::Device;
use crate::memory::{Memory, Region, RegionLayout};
use crate::queue::RingAddresses;

/// Regions a table may have when they are sent one by one. A lot, but not without end.
const MAX_REGIONS: usize = 509;

/// What is implemented, and so what is offered.
const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::STATUS)
    .union(VhostUserProtocolFeatures::DEVICE_STATE);

fn layout(region: &VhostUserMemoryRegion) -> RegionLayout {
    RegionLayout {
        guest_addr: region.guest_phys_addr,
        user_addr: region.user_addr,
        size: region.memory_size,
        file_offset: region.mmap_offset,
    }
}

/// For requests of features that were not offered.
fn not_offered<T>(what: &'static str) -> Result<T> {
    Err(Error::InvalidOperation(what))
}

impl<D: Device> State<'_, D> {
    /// The part of a config access that lies inside the device's space.
    fn config_part(&self, offset: u32, len: usize) -> usize {
        (self.device.config_len().saturating_sub(offset) as usize).min(len)
    }
}

impl<D: Device> VhostUserBackendReqHandlerMut for State<'_, D> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    /// Deprecated; the specification recommends to ignore it or to disable the rings.
    fn reset_owner(&mut self) -> Result<()> {
        Ok(self.disable()?)
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        Ok(State::set_features(self, features)?)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mapped = regions.iter().zip(&files);
        let mapped: std::result::Result<Vec<_>, _> = mapped
            .map(|(region, file)| Region::map(layout(region), file).map(Arc::new))
            .collect();
        let memory = mapped.and_then(Memory::new).map_err(Refused::from)?;
        self.set_memory(memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        Ok(self.set_size(index, num)?)
    }

    /// The flags ask for dirty logging, which is not offered; the log address goes with them.
    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let addresses = RingAddresses {
            descriptors,
            available,
            used,
        };
        Ok(self.set_addresses(index, addresses)?)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        Ok(self.set_base(index, base)?)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.stop_ring(index).map_err(|_| Error::InvalidParam)?;
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let kick = fd.ok_or(Refused::NoKick)?;
        Ok(self.set_kick(u32::from(index), kick)?)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        Ok(self.set_call(u32::from(index), fd)?)
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        Ok(self.set_error(u32::from(index), fd)?)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !PROTOCOL.bits();
        if unknown != 0 {
            return Err(Refused::ProtocolFeatures(unknown).into());
        }
        self.protocol = features;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        Ok(self.set_enabled(index, enable)?)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        // The crate allows no more than 4 KiB.
        let mut data = vec![0; size as usize];
        let part = self.config_part(offset, data.len());
        if let Some(part @ [_, ..]) = data.get_mut(..part) {
            self.device.read_config(offset, part);
        }
        Ok(data)
    }

    fn set_config(&mut self, offset: u32, buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        let part = self.config_part(offset, buf.len());
        if let Some(part @ [_, ..]) = buf.get(..part) {
            self.device.write_config(offset, part);
        }
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        if self.memory.regions().len() >= MAX_REGIONS {
            return Err(Refused::TooManyRegions(MAX_REGIONS).into());
        }
        let memory = Region::map(layout(region), &fd).and_then(|region| self.memory.with(region));
        self.set_memory(memory.map_err(Refused::from)?)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.memory.without(layout(region)).map_err(Refused::from)?;
        Ok(self.set_memory(memory)?)
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        not_offered("GPU_SET_SOCKET")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        not_offered("GET_SHARED_OBJECT")
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        not_offered("GET_INFLIGHT_FD")
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        not_offered("SET_INFLIGHT_FD")
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        // There is one: stopped.
        _phase: VhostTransferStatePhase,
        fd: File,
    ) -> Result<Option<File>> {
        let begun = self.begin_transfer(direction, fd);
        // The crate answers, and does not say why.
        begun.inspect_err(|refused| warn_of(None, refused))?;
        Ok(None)
    }

    fn check_device_state(&mut self) -> Result<()> {
        let ended = self.end_transfer();
        ended.inspect_err(|refused| warn_of(None, refused))?;
        Ok(())
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered("GET_SHMEM_CONFIG")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        not_offered("SET_LOG_BASE")
    }
}

impl From<Refused> for vhost_user::Error {
    fn from(refused: Refused) -> Self {
        Error::ReqHandlerError(std::io::Error::other(refused))
    }
}
