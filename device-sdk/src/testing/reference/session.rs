//! The reference device's vhost-user session.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use vhost::vhost_user::{BackendReqHandler, Error, Result};
use vm_memory::GuestMemoryMmap;

use super::ring::Ring;
use super::{Fault, QUEUES};
use crate::driver::connection::{F_EVENT_IDX, F_PROTOCOL_FEATURES};
use crate::driver::raw;

/// One queue of the device.
pub(super) struct Vring {
    pub(super) ring: Ring,
    pub(super) kick: Option<File>,
    pub(super) call: Option<File>,
    pub(super) error: Option<File>,
    pub(super) enabled: bool,
    /// Kicked since it was given its kick eventfd, and not stopped or broken since.
    pub(super) running: bool,
    pub(super) kept: bool,
}

impl Vring {
    pub(super) fn new(fault: Fault) -> Self {
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

/// The device of one connection.
pub(super) struct Device {
    pub(super) fault: Fault,
    pub(super) features: u64,
    pub(super) memory: Option<GuestMemoryMmap>,
    /// User address, size and guest address of each region.
    pub(super) regions: Vec<(u64, u64, u64)>,
    pub(super) vrings: Vec<Vring>,
    /// Reads the state of another.
    pub(super) state: Option<JoinHandle<Vec<u8>>>,
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
        state: None,
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
    pub(super) fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        let fault = self.fault;
        let vring = self.vrings.get_mut(index as usize);
        assert!(
            vring.is_some() || fault != Fault::PanicsOnQueue,
            "queue {index}"
        );
        vring.ok_or(Error::InvalidParam)
    }

    pub(super) fn guest_address(&self, user: u64) -> Result<u64> {
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
