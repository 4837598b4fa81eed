//! The card's cable: what is at the other end of it.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use outboard_device::Request;

use crate::link::Link;
use crate::offload;
use crate::posted::{Posted, Received};
use crate::stream::Stream;
use crate::tap::Tap;

/// Where frames go and come from; used by one worker at a time.
#[derive(Debug)]
pub enum Cable {
    /// An interface of the host.
    Tap(Tap),
    /// A stream socket.
    Stream(Stream),
}

impl Cable {
    /// The features of what guest and host leave to each other over this cable.
    pub fn offered(&self) -> u64 {
        match self {
            Self::Tap(tap) => offload::offered(tap.able()),
            Self::Stream(_) => 0,
        }
    }

    /// The driver took these features.
    pub fn set_offload(&self, acked: u64) -> io::Result<()> {
        match self {
            Self::Tap(tap) => tap.set_offload(offload::flags(acked)),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Lets it take part in spreading frames over several, or not; it must be otherwise now.
    pub fn set_attached(&self, attached: bool) -> io::Result<()> {
        match self {
            Self::Tap(tap) => tap.set_attached(attached),
            Self::Stream(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        match self {
            Self::Tap(tap) => tap.name(),
            Self::Stream(stream) => stream.name(),
        }
    }

    /// Its descriptor has become ready.
    pub fn wake(&self) {
        if let Self::Stream(stream) = self {
            stream.wake();
        }
    }

    /// Receives one frame into `posted`. `WouldBlock`: none now.
    pub fn receive(&self, posted: &mut Posted) -> io::Result<Received> {
        match self {
            Self::Tap(tap) => posted.receive(tap),
            Self::Stream(stream) => stream.receive(posted),
        }
    }

    /// Sends a request's frame. `WouldBlock`: when the cable has room again; any other error: never.
    pub fn send(&self, request: &Request) -> io::Result<()> {
        match self {
            Self::Tap(tap) => tap.send(request),
            Self::Stream(stream) => stream.send(request),
        }
    }

    /// A batch of frames has been sent.
    pub fn flush(&self) {
        if let Self::Stream(stream) = self {
            stream.flush();
        }
    }

    /// The cable failed with this error of the system; true when it is gone for good.
    pub fn gone(&self, error: &io::Error, link: &Link) -> bool {
        let gone = matches!(self, Self::Tap(tap) if tap.is_first())
            && error.raw_os_error() == Some(libc::EBADFD);
        if gone {
            link.lost(self.name());
        }
        gone
    }
}

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Stream(stream) => stream.as_fd(),
        }
    }
}
