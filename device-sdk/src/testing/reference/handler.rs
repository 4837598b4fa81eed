//! What the reference device does at each vhost-user message.

use std::fs::File;
use std::io::{Read, Write};

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures as Protocol,
    VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags,
    VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::session::{Device, Vring};
use super::{CONFIG, Fault, QUEUES, SIZE};
use crate::driver::connection::{
    F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1,
};

/// What it saves.
const STATE: &[u8] = b"as it was";

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        if self.fault == Fault::RefusesReset {
            return Err(Error::InvalidParam);
        }
        if self.fault != Fault::IgnoresReset {
            self.features = 0;
            self.vrings = (0..QUEUES).map(|_| Vring::new(self.fault)).collect();
        }
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        let less = if self.fault == Fault::OffersLess {
            F_INDIRECT_DESC
        } else {
            0
        };
        let rings = F_EVENT_IDX | F_INDIRECT_DESC | F_RING_PACKED;
        Ok((F_VERSION_1 | F_PROTOCOL_FEATURES | rings) & !less)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 && self.fault != Fault::TakesAnyFeature {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let keeps = match self.fault {
            Fault::KeepsFirstMemory => self.memory.is_some(),
            Fault::KeepsAllMemory => regions.len() < self.regions.len(),
            _ => false,
        };
        if keeps {
            return Ok(None);
        }
        let mapped = regions.iter().zip(files).map(|(region, file)| {
            let file = FileOffset::new(file, region.mmap_offset);
            (
                GuestAddress(region.guest_phys_addr),
                region.memory_size as usize,
                Some(file),
            )
        });
        let memory = GuestMemoryMmap::from_ranges_with_files(mapped);
        self.memory = Some(memory.map_err(|_| Error::InvalidParam)?);
        let regions = regions.iter();
        self.regions = regions
            .map(|r| (r.user_addr, r.memory_size, r.guest_phys_addr))
            .collect();
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let vring = self.vring(index)?;
        if num == 0 || num > u32::from(SIZE) || !num.is_power_of_two() {
            return Err(Error::InvalidParam);
        }
        if !vring.kept {
            vring.ring.size = num as u16;
        }
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let [descriptor, used, available] =
            [descriptor, used, available].map(|user| self.guest_address(user));
        let keeps = self.fault == Fault::KeepsFirstRing;
        let vring = self.vring(index)?;
        if vring.kept {
            return Ok(());
        }
        vring.kept = keeps;
        vring.ring.descriptors = descriptor?;
        vring.ring.used = used?;
        vring.ring.available = available?;
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let at_zero = self.fault == Fault::StartsAtZero;
        self.vring(index)?.ring.next = if at_zero { 0 } else { base as u16 };
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let fault = self.fault;
        let packed = self.features & F_RING_PACKED != 0;
        let vring = self.vring(index)?;
        // Taken but not completed: only the faults say so.
        let base = match fault {
            Fault::StopsAtZero => 0,
            Fault::TakesOneMore if vring.running => vring.ring.next.wrapping_add(1),
            _ => vring.ring.next,
        };
        vring.running = false;
        vring.kick = None;
        if fault == Fault::StopsAll {
            for vring in &mut self.vrings {
                vring.running = false;
                vring.kick = None;
            }
        }
        // A packed ring's two positions are the same: nothing is in flight.
        let used = if packed { u32::from(base) << 16 } else { 0 };
        Ok(VhostUserVringState::new(index, u32::from(base) | used))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.vring(index.into())?.kick = fd;
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let keeps = self.fault == Fault::KeepsFirstCall;
        let vring = self.vring(index.into())?;
        if !keeps || vring.call.is_none() {
            vring.call = fd;
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.vring(index.into())?.error = fd;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<Protocol> {
        Ok(Protocol::MQ
            | Protocol::CONFIG
            | Protocol::REPLY_ACK
            | Protocol::RESET_DEVICE
            | Protocol::DEVICE_STATE)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let keeps = self.fault == Fault::IgnoresDisable;
        let vring = self.vring(index)?;
        vring.enabled = enable || keeps;
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let offset = if self.fault == Fault::ConfigIgnoresOffset {
            0
        } else {
            offset as usize
        };
        let beyond = if self.fault == Fault::ConfigLeaks {
            0xff
        } else {
            0
        };
        let byte = |at: usize| CONFIG.get(at).copied().unwrap_or(beyond);
        Ok((offset..offset + size as usize).map(byte).collect())
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Ok(())
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidParam)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidParam)
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidParam)
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidParam)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(Error::InvalidParam)
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        Err(Error::InvalidParam)
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(Error::InvalidParam)
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        mut file: File,
    ) -> Result<Option<File>> {
        let runs = self.vrings.iter().any(|vring| vring.kick.is_some());
        if runs && self.fault != Fault::TellsTooEarly {
            return Err(Error::InvalidParam);
        }
        match direction {
            // So few bytes always have room.
            VhostTransferStateDirection::SAVE => file.write_all(STATE).unwrap(),
            VhostTransferStateDirection::LOAD => {
                self.state = Some(std::thread::spawn(move || {
                    let mut state = Vec::new();
                    file.read_to_end(&mut state).unwrap();
                    state
                }));
            }
        }
        Ok(None)
    }

    fn check_device_state(&mut self) -> Result<()> {
        let Some(reading) = self.state.take() else {
            return Ok(());
        };
        let state = reading.join().unwrap();
        let own = state == STATE && self.fault != Fault::RefusesOwnState;
        assert!(
            own || self.fault != Fault::PanicsOnState,
            "no state of its own"
        );
        own.then_some(()).ok_or(Error::InvalidParam)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidParam)
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidParam)
    }
}
