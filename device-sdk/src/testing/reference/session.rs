//! The reference device's vhost-user session.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures as Protocol,
    VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags,
    VhostUserVringState,
};
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::ring::Ring;
use super::{CONFIG, Fault, QUEUES, SIZE};
use crate::driver::connection::{F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_VERSION_1};
use crate::driver::raw;

struct Vring {
    ring: Ring,
    kick: Option<File>,
    call: Option<File>,
    error: Option<File>,
    enabled: bool,
    /// Kicked since it was given its kick eventfd, and not stopped or broken since.
    running: bool,
    kept: bool,
}

impl Vring {
    fn new(fault: Fault) -> Self {
        let ring = Ring {
            size: 0,
            descriptors: 0,
            available: 0,
            used: 0,
            next: 0,
            fault,
            features: 0,
            answered: 0,
        };
        Self {
            ring,
            kick: None,
            call: None,
            error: None,
            enabled: false,
            running: false,
            kept: false,
        }
    }
}

struct Device {
    fault: Fault,
    features: u64,
    memory: Option<GuestMemoryMmap>,
    /// User address, size and guest address of each region.
    regions: Vec<(u64, u64, u64)>,
    vrings: Vec<Vring>,
}

/// Serves one connection until it ends.
pub(super) fn serve(stream: &UnixStream, fault: Fault) {
    let vrings = (0..QUEUES).map(|_| Vring::new(fault)).collect();
    let device = Device {
        fault,
        features: 0,
        memory: None,
        regions: Vec::new(),
        vrings,
    };
    let device = Arc::new(Mutex::new(device));
    let clone = stream.try_clone().unwrap();
    let mut session = BackendReqHandler::from_stream(clone, Arc::clone(&device));
    loop {
        wait(stream, &device);
        if readable(stream) && !message(stream, &mut session, fault) {
            // Whoever waits for the answer must see that none will come.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
        device.lock().unwrap().work();
    }
}

/// Waits for a message or a kick, and takes the kicks.
fn wait(stream: &UnixStream, device: &Mutex<Device>) {
    let kicks: Vec<(usize, File)> = {
        let device = device.lock().unwrap();
        let kicks = device.vrings.iter().enumerate();
        kicks
            .filter_map(|(i, v)| Some((i, v.kick.as_ref()?.try_clone().unwrap())))
            .collect()
    };
    let mut fds = vec![PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    fds.extend(
        kicks
            .iter()
            .map(|(_, kick)| PollFd::new(kick.as_fd(), PollFlags::POLLIN)),
    );
    poll(&mut fds, PollTimeout::NONE).unwrap();
    let kicked: Vec<bool> = fds[1..].iter().map(|fd| fd.any() == Some(true)).collect();
    for ((index, kick), kicked) in kicks.iter().zip(kicked) {
        if kicked && (&*kick).read(&mut [0; 8]).is_ok() {
            device.lock().unwrap().vrings[*index].running = true;
        }
    }
}

fn readable(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
}

/// Handles one message. False when the connection is over: any error ends it.
fn message(
    stream: &UnixStream,
    session: &mut BackendReqHandler<Mutex<Device>>,
    fault: Fault,
) -> bool {
    let mut header = [0; 12];
    let peeked = recv(stream.as_raw_fd(), &mut header, MsgFlags::MSG_PEEK);
    let request = u32::from_ne_bytes(header[..4].try_into().unwrap());
    if peeked == Ok(12) && request > 44 && fault != Fault::HangsUpOnUnknown {
        let Ok((header, _)) = raw::receive_request(stream) else {
            return false;
        };
        let flags = raw::VERSION | raw::REPLY;
        let reply = raw::Header {
            request: header.request,
            flags,
            size: 8,
        };
        return raw::send(stream, reply, &1u64.to_ne_bytes()).is_ok();
    }
    match session.handle_request() {
        Ok(()) => true,
        Err(Error::Disconnected | Error::InvalidParam) => false,
        Err(error) => {
            assert!(fault != Fault::DiesOnError, "{error}");
            false
        }
    }
}

impl Device {
    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        let fault = self.fault;
        let vring = self.vrings.get_mut(index as usize);
        assert!(
            vring.is_some() || fault != Fault::PanicsOnQueue,
            "queue {index}"
        );
        vring.ok_or(Error::InvalidParam)
    }

    fn guest_address(&self, user: u64) -> Result<u64> {
        let found = self
            .regions
            .iter()
            .find(|(at, size, _)| user >= *at && user - at < *size);
        assert!(
            found.is_some() || self.fault != Fault::PanicsOnRing,
            "{user:#x}"
        );
        let (at, _, guest) = found.ok_or(Error::InvalidParam)?;
        Ok(user - at + guest)
    }

    fn work(&mut self) {
        let Some(memory) = &self.memory else { return };
        for vring in &mut self.vrings {
            let described = vring.ring.used != 0;
            let runs = vring.running || self.fault == Fault::IgnoresStart && described;
            let from_start = self.features & F_PROTOCOL_FEATURES == 0;
            let enabled = vring.enabled
                || from_start && self.fault != Fault::WaitsForEnable
                || self.fault == Fault::IgnoresEnable
                || self.fault == Fault::IgnoresStart;
            let lame = self.fault == Fault::NeedsEventIdx && self.features & F_EVENT_IDX == 0;
            if !runs || !enabled || lame {
                continue;
            }
            vring.ring.features = self.features;
            if !vring.ring.is_valid(memory) {
                vring.running = false;
                continue;
            }
            loop {
                match vring.ring.serve(memory) {
                    Ok(Some(wanted)) => {
                        if let (true, Some(call)) = (wanted, &mut vring.call) {
                            call.write_all(&1u64.to_ne_bytes()).unwrap();
                        }
                        if self.fault == Fault::OneEachKick {
                            break;
                        }
                    }
                    Ok(None) => {
                        if !matches!(vring.ring.arm(memory), Ok(true)) {
                            break;
                        }
                    }
                    Err(_) => {
                        vring.running = false;
                        vring.kick = None;
                        if let Some(error) = &mut vring.error {
                            error.write_all(&1u64.to_ne_bytes()).unwrap();
                        }
                        break;
                    }
                }
            }
        }
    }
}

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
        Ok((F_VERSION_1 | F_PROTOCOL_FEATURES | F_EVENT_IDX | F_INDIRECT_DESC) & !less)
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
        Ok(VhostUserVringState::new(index, base.into()))
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
        Ok(Protocol::MQ | Protocol::CONFIG | Protocol::REPLY_ACK | Protocol::RESET_DEVICE)
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
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidParam)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidParam)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidParam)
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidParam)
    }
}
