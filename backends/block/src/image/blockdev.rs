//! Questions and orders for a block device of the host (`linux/fs.h`).
#![allow(unsafe_code)] // ioctl(2) has no safe form.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::Blocks;
use super::file::Geometry;

/// The ioctls, wrapped in a module of their own because the macros make them public.
mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), libc::c_int);
    nix::ioctl_read_bad!(blkioopt, nix::request_code_none!(0x12, 121), libc::c_uint);
    nix::ioctl_read_bad!(blkpbszget, nix::request_code_none!(0x12, 123), libc::c_uint);
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// Asks the device for its sizes.
pub(super) fn geometry(file: &File) -> io::Result<Geometry> {
    let fd = file.as_raw_fd();
    let (mut size, mut logical, mut physical, mut optimal) = (0u64, 0, 0, 0);
    // SAFETY: each call writes one integer of the type its ioctl is documented to write, to a
    // live local; `fd` is open for the length of the call.
    unsafe {
        ioctl::blkgetsize64(fd, &raw mut size)?;
        ioctl::blksszget(fd, &raw mut logical)?;
        ioctl::blkpbszget(fd, &raw mut physical)?;
        ioctl::blkioopt(fd, &raw mut optimal)?;
    }
    Ok(Geometry {
        size,
        blocks: Blocks {
            logical: u32::try_from(logical).unwrap_or(512).max(512),
            physical,
            optimal,
            discard: physical,
        },
        device: true,
    })
}

/// Tells the device that `len` bytes from `offset` hold nothing of worth. Blocks until done.
pub(super) fn discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two u64, start and length, from the pointer, which is to a live
    // temporary of that shape.
    unsafe { ioctl::blkdiscard(file.as_raw_fd(), &[offset, len])? };
    Ok(())
}
