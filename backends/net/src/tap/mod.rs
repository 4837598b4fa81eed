//! A tap: the host's end of the guest's cable.
#![allow(unsafe_code)] // Frames go straight between the tap and guest memory.

mod error;
mod ioctl;
mod open;

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::iovec;
use outboard_device::Request;

pub use error::{Queues, TapError};
pub use open::IfAbsent;

use crate::offload;

/// The device taps are made with.
const TUN: &str = "/dev/net/tun";

/// Length of the header before each frame: `virtio_net_hdr_v1` (virtio 1.2, section 5.1.6).
pub const HEADER_LEN: usize = 12;

/// Most pieces of memory one frame may be in (`IOV_MAX`, readv(2)).
pub const MAX_PIECES: usize = 1024;

/// An open tap, in non-blocking mode, that passes frames behind virtio headers.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: String,
    able: u32,
    /// The interface's first queue of ours, which stays attached.
    first: bool,
}

impl Tap {
    /// Puts a tap that is attached in the mode we need.
    fn set_up(fd: OwnedFd, name: String) -> Result<Self, TapError> {
        let failed = |what, source| TapError::Failed {
            what,
            name: name.clone(),
            source,
        };
        ioctl::set_header_len(fd.as_fd(), HEADER_LEN)
            .map_err(|e| failed("set the header length of", e))?;
        ioctl::set_little_endian(fd.as_fd()).map_err(|e| failed("set the byte order of", e))?;
        let able = offload::CANDIDATES
            .into_iter()
            .find(|flags| ioctl::set_offload(fd.as_fd(), *flags).is_ok())
            .unwrap_or(0);
        // Until a driver has said what it can take.
        ioctl::set_offload(fd.as_fd(), 0).map_err(|e| failed("set the offloads of", e))?;
        Ok(Self {
            fd,
            name,
            able,
            first: true,
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The offloads this kernel's taps know: `TUN_F_*`.
    pub fn able(&self) -> u32 {
        self.able
    }

    /// Whether this is the interface's first queue of ours. The others are gone in the same way
    /// whether they are detached or the interface is deleted: only this one tells.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Lets this queue of several take part, or not; it must be otherwise now.
    pub fn set_attached(&self, attached: bool) -> io::Result<()> {
        ioctl::set_attached(self.as_fd(), attached)
    }

    /// Sets what the guest does without: `TUN_F_*`.
    pub fn set_offload(&self, flags: u32) -> io::Result<()> {
        ioctl::set_offload(self.as_fd(), flags)
    }

    /// Sends the readable bytes of a request, header first, as one frame.
    ///
    /// The header is the guest's; the kernel checks it, and refuses with `EINVAL`.
    pub fn send(&self, request: &Request) -> io::Result<()> {
        let segments = request.readable();
        if segments.len() > MAX_PIECES {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: a segment has the layout of an iovec, and names memory that stays mapped while
        // the request lives; the kernel only reads it.
        let sent = unsafe {
            libc::writev(
                self.fd.as_raw_fd(),
                segments.as_ptr().cast::<iovec>(),
                piece_count(segments.len()),
            )
        };
        nix::errno::Errno::result(sent)?;
        Ok(())
    }

    /// Receives one frame, header first, into `pieces`; returns its length, which is never more
    /// than there is room for (the rest of a longer frame is lost).
    ///
    /// # Safety
    /// Each of `pieces` must name memory that is mapped writable through the call and that no Rust
    /// reference points to.
    pub unsafe fn receive(&self, pieces: &[iovec]) -> io::Result<usize> {
        let count = piece_count(pieces.len());
        // SAFETY: the caller vouches for the memory; `pieces` lives through the call.
        let len = unsafe { libc::readv(self.fd.as_raw_fd(), pieces.as_ptr(), count) };
        let len = nix::errno::Errno::result(len)?;
        Ok(usize::try_from(len).unwrap_or(0))
    }
}

/// A count of pieces as the kernel takes it: no more than it allows.
fn piece_count(count: usize) -> c_int {
    c_int::try_from(count.min(MAX_PIECES)).unwrap_or(0)
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
