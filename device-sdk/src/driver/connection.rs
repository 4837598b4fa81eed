//! The vhost-user frontend of the driver: requests on one connected stream, each with a deadline.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use vhost::vhost_user::message::{
    VhostTransferStateDirection as Direction, VhostTransferStatePhase as Phase,
    VhostUserConfigFlags,
};
use vhost::vhost_user::{Error as ProtocolError, Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

pub use super::negotiate::{
    F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1, Negotiated,
};

use super::deadline::Deadline;
use super::error::{DriverError, Result};
use super::memory::GuestMemory;
use super::notices::Notices;
use super::queue::Queue;
use super::raw;

/// How long a request may take unless the caller says otherwise. Only a stuck device takes seconds;
/// a loaded machine may.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(20);

/// The queues a device without MQ is believed to have at most.
pub(super) const MAX_QUEUES: u64 = 64;

/// One connection to a device. Dropping it closes it, which resets the device.
pub struct Connection {
    pub(super) frontend: Frontend,
    stream: UnixStream,
    deadline: Deadline,
    limit: Duration,
    pub(super) notices: Option<Notices>,
    pub(super) reply_ack: bool,
}

impl Connection {
    /// Speaks on a connected stream. `limit` bounds each request.
    pub fn new(stream: UnixStream, limit: Duration) -> Result<Self> {
        let socket = |source| DriverError::Socket {
            doing: "setting up the connection",
            source,
        };
        let deadline = Deadline::new(stream.try_clone().map_err(socket)?).map_err(socket)?;
        let frontend = Frontend::from_stream(stream.try_clone().map_err(socket)?, MAX_QUEUES);
        Ok(Self {
            frontend,
            stream,
            deadline,
            limit,
            notices: None,
            reply_ack: false,
        })
    }

    /// Connects to the socket a daemon listens on, retrying until it is there or `limit` is over.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let end = Instant::now() + limit;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self::new(stream, limit),
                Err(source) if Instant::now() >= end => {
                    return Err(DriverError::Socket {
                        doing: "connecting",
                        source,
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Bounds each later request.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// The stream, to send messages by hand.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Cuts the connection.
    pub fn close(&self) {
        // It fails only on a socket that is no longer connected.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// How often the device announced a change of its config space.
    pub fn config_changes(&self) -> u64 {
        self.notices.as_ref().map_or(0, Notices::config_changes)
    }

    /// `GET_FEATURES`.
    pub fn features(&mut self) -> Result<u64> {
        self.call("GET_FEATURES", |f| f.get_features())
    }

    /// `SET_FEATURES`.
    pub fn set_features(&mut self, features: u64) -> Result<()> {
        self.call("SET_FEATURES", |f| f.set_features(features))
    }

    /// `SET_MEM_TABLE`.
    pub fn set_memory(&mut self, memory: &GuestMemory) -> Result<()> {
        let table = memory.table();
        self.call("SET_MEM_TABLE", |f| f.set_mem_table(&table).map(drop))
    }

    /// `GET_MAX_MEM_SLOTS`: how many regions the device takes by [`add_region`](Self::add_region).
    pub fn max_regions(&mut self) -> Result<u64> {
        self.call("GET_MAX_MEM_SLOTS", VhostUserFrontend::get_max_mem_slots)
    }

    /// `ADD_MEM_REG`.
    pub fn add_region(&mut self, region: &VhostUserMemoryRegionInfo) -> Result<()> {
        self.call("ADD_MEM_REG", |f| f.add_mem_region(region).map(drop))
    }

    /// `REM_MEM_REG`.
    pub fn remove_region(&mut self, region: &VhostUserMemoryRegionInfo) -> Result<()> {
        self.call("REM_MEM_REG", |f| f.remove_mem_region(region))
    }

    /// Tells the device all about a queue but its kick eventfd: it is not started.
    pub fn describe_queue(&mut self, queue: &Queue, base: u32) -> Result<()> {
        let index = usize::from(queue.index());
        let ring = queue.ring();
        let layout = ring.layout();
        let start = ring.memory().user_addr();
        let config = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: start + layout.descriptors as u64,
            used_ring_addr: start + layout.used as u64,
            avail_ring_addr: start + layout.available as u64,
            log_addr: None,
        };
        self.call("SET_VRING_NUM", |f| f.set_vring_num(index, layout.size))?;
        self.set_base(queue.index(), base)?;
        self.call("SET_VRING_ADDR", |f| f.set_vring_addr(index, &config))?;
        self.call("SET_VRING_CALL", |f| {
            f.set_vring_call(index, queue.call_fd())
        })?;
        self.call("SET_VRING_ERR", |f| {
            f.set_vring_err(index, queue.error_fd())
        })
    }

    /// `SET_VRING_BASE`, by hand where the base does not fit the crate's 16 bits: a packed ring's.
    fn set_base(&mut self, index: u16, base: u32) -> Result<()> {
        const NAME: &str = "SET_VRING_BASE";
        if let Ok(base) = u16::try_from(base) {
            return self.call(NAME, |f| f.set_vring_base(index.into(), base));
        }
        let ack = if self.reply_ack { raw::NEED_REPLY } else { 0 };
        let header = raw::Header {
            request: raw::SET_VRING_BASE,
            flags: raw::VERSION | ack,
            size: 8,
        };
        let mut payload = u32::from(index).to_ne_bytes().to_vec();
        payload.extend_from_slice(&base.to_ne_bytes());
        if ack == 0 {
            let doing = NAME;
            return raw::send(&self.stream, header, &payload)
                .map_err(|source| DriverError::Socket { doing, source });
        }
        match self.exchange(NAME, header, &payload)? {
            0 => Ok(()),
            _ => Err(DriverError::Refused { request: NAME }),
        }
    }

    /// `SET_VRING_CALL`.
    pub fn set_call(&mut self, queue: &Queue) -> Result<()> {
        let index = usize::from(queue.index());
        self.call("SET_VRING_CALL", |f| {
            f.set_vring_call(index, queue.call_fd())
        })
    }

    /// `SET_VRING_KICK`: starts the queue, though not yet enabled.
    pub fn start_queue(&mut self, queue: &Queue) -> Result<()> {
        let index = usize::from(queue.index());
        self.call("SET_VRING_KICK", |f| {
            f.set_vring_kick(index, queue.kick_fd())
        })
    }

    /// `SET_VRING_ENABLE`.
    pub fn enable_queue(&mut self, index: u16, enabled: bool) -> Result<()> {
        self.call("SET_VRING_ENABLE", |f| {
            f.set_vring_enable(usize::from(index), enabled)
        })
    }

    /// `GET_VRING_BASE`: stops the queue; where the device would have gone on.
    pub fn stop_queue(&mut self, index: u16) -> Result<u32> {
        self.call("GET_VRING_BASE", |f| f.get_vring_base(usize::from(index)))
    }

    /// `RESET_DEVICE`.
    pub fn reset(&mut self) -> Result<()> {
        self.call("RESET_DEVICE", VhostUserFrontend::reset_device)
    }

    /// `GET_CONFIG`: `data.len()` bytes of config space at `offset`.
    pub fn read_config(&mut self, offset: u32, data: &mut [u8]) -> Result<()> {
        let len = data.len() as u32;
        let flags = VhostUserConfigFlags::empty();
        let zeroes = vec![0; data.len()];
        let (_, reply) = self.call("GET_CONFIG", |f| f.get_config(offset, len, flags, &zeroes))?;
        if reply.len() != data.len() {
            let reason = format!("{} bytes were asked for, {} came", data.len(), reply.len());
            return Err(DriverError::Reply {
                request: "GET_CONFIG",
                reason,
            });
        }
        data.copy_from_slice(&reply);
        Ok(())
    }

    /// `SET_CONFIG`.
    pub fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<()> {
        let flags = VhostUserConfigFlags::WRITABLE;
        self.call("SET_CONFIG", |f| f.set_config(offset, flags, data))
    }

    /// The device's state beside its features, configuration and rings, for another instance of it
    /// (`SET_DEVICE_STATE_FD`, `CHECK_DEVICE_STATE`). No queue runs.
    pub fn save(&mut self) -> Result<Vec<u8>> {
        let (ours, theirs) = pipe()?;
        self.transfer(Direction::SAVE, theirs)?;
        let mut state = Vec::new();
        // As long as the device sends; its end is closed when it has, or when it is gone.
        let read = self
            .deadline
            .bound(self.limit, || File::from(ours).read_to_end(&mut state));
        self.carried(read)?;
        self.check_state()?;
        Ok(state)
    }

    /// Has the device go on from another's state. No queue has run.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        let (theirs, ours) = pipe()?;
        self.transfer(Direction::LOAD, theirs)?;
        let mut ours = File::from(ours);
        let written = self
            .deadline
            .bound(self.limit, || ours.write_all(state).map(|()| state.len()));
        drop(ours);
        self.carried(written)?;
        self.check_state()
    }

    fn transfer(&mut self, direction: Direction, fd: OwnedFd) -> Result<()> {
        self.call("SET_DEVICE_STATE_FD", |f| {
            f.set_device_state_fd(direction, Phase::STOPPED, fd)
                .map(drop)
        })
    }

    fn check_state(&mut self) -> Result<()> {
        self.call("CHECK_DEVICE_STATE", |f| f.check_device_state())
    }

    fn carried<E>(&self, done: std::result::Result<io::Result<usize>, E>) -> Result<()> {
        match done {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(DriverError::Socket {
                doing: "carrying the device's state",
                source,
            }),
            Err(_) => Err(DriverError::Deadline {
                request: "SET_DEVICE_STATE_FD",
                limit: self.limit,
            }),
        }
    }

    /// `GET_STATUS`: the virtio device status (virtio 1.2, section 2.1).
    pub fn status(&mut self) -> Result<u8> {
        let header = raw::Header {
            request: raw::GET_STATUS,
            flags: raw::VERSION,
            size: 0,
        };
        let status = self.exchange("GET_STATUS", header, &[])?;
        u8::try_from(status).map_err(|_| DriverError::Reply {
            request: "GET_STATUS",
            reason: format!("{status:#x} is not a device status"),
        })
    }

    /// `SET_STATUS`. Needs `REPLY_ACK`, so that it is known to be done.
    pub fn set_status(&mut self, status: u8) -> Result<()> {
        let flags = raw::VERSION | raw::NEED_REPLY;
        let header = raw::Header {
            request: raw::SET_STATUS,
            flags,
            size: 8,
        };
        match self.exchange("SET_STATUS", header, &u64::from(status).to_ne_bytes())? {
            0 => Ok(()),
            _ => Err(DriverError::Refused {
                request: "SET_STATUS",
            }),
        }
    }

    /// Sends any message by hand and reads a 64-bit reply. `request` names it in errors.
    pub fn exchange(
        &mut self,
        request: &'static str,
        header: raw::Header,
        payload: &[u8],
    ) -> Result<u64> {
        let stream = &self.stream;
        let answer = self.deadline.bound(self.limit, || {
            raw::send(stream, header, payload)?;
            raw::receive_u64(stream, header.request)
        });
        match answer {
            Err(_) => Err(DriverError::Deadline {
                request,
                limit: self.limit,
            }),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(DriverError::Socket {
                doing: request,
                source,
            }),
        }
    }

    /// Sends a request by the crate, within the limit.
    pub(super) fn call<T>(
        &mut self,
        request: &'static str,
        call: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T> {
        let frontend = &mut self.frontend;
        match self.deadline.bound(self.limit, || call(frontend)) {
            Ok(Ok(value)) => Ok(value),
            Err(_) => Err(DriverError::Deadline {
                request,
                limit: self.limit,
            }),
            Ok(Err(vhost::Error::VhostUserProtocol(ProtocolError::BackendInternalError))) => {
                Err(DriverError::Refused { request })
            }
            Ok(Err(source)) => Err(DriverError::Request { request, source }),
        }
    }
}

/// A pipe: its end to read from, and that to write to.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).map_err(|errno| DriverError::Socket {
        doing: "making a pipe",
        source: errno.into(),
    })
}
