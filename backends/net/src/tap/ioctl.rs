//! The ioctls of /dev/net/tun (`linux/if_tun.h`).
#![allow(unsafe_code)] // ioctl(2) has no safe form.

use std::ffi::c_int;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// What kind of interface a descriptor is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    /// `IFF_*` of `if_tun.h`.
    pub(super) flags: c_int,
}

/// Attaches `fd` to the interface `name`, and makes it when there is none. `name` has at most 15
/// bytes.
pub(super) fn attach(fd: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = named(name);
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(())
}

/// The interface `fd` is attached to.
pub(super) fn interface(fd: BorrowedFd<'_>) -> io::Result<Interface> {
    let mut request = empty();
    // SAFETY: TUNGETIFF writes one `ifreq`, which lives through the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().take_while(|c| **c != 0);
    let name = name.map(|c| char::from(c.cast_unsigned())).collect();
    // SAFETY: TUNGETIFF has set the flags; any value of the union is a valid integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(Interface {
        name,
        flags: c_int::from(flags.cast_unsigned()),
    })
}

/// Lets a queue of a multi-queue tap take part, or not; it must be otherwise now.
pub(super) fn set_attached(fd: BorrowedFd<'_>, attached: bool) -> io::Result<()> {
    let mut request = empty();
    let flags = if attached {
        libc::IFF_ATTACH_QUEUE
    } else {
        libc::IFF_DETACH_QUEUE
    };
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: TUNSETQUEUE reads one `ifreq`, which lives through the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) })?;
    Ok(())
}

/// Says what the reader of the tap can do without: `TUN_F_*`.
pub(super) fn set_offload(fd: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(flags),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Sets the length of the header before each frame.
pub(super) fn set_header_len(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = c_int::try_from(len).map_err(|_| Errno::EINVAL)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives through the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })?;
    Ok(())
}

/// Headers are little-endian whatever the host: virtio 1.0 and later has them so.
pub(super) fn set_little_endian(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: TUNSETVNETLE reads one int, which lives through the call.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETLE, &raw const on) })?;
    Ok(())
}

/// Gives the interface `name` this address and netmask.
pub(super) fn set_address(name: &str, address: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    let socket = any_socket()?;
    let mut request = named(name);
    for (what, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        request.ifr_ifru.ifru_addr = inet(value);
        // SAFETY: both read one `ifreq`, which lives through the call and holds an IPv4 address.
        Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw const request) })?;
    }
    Ok(())
}

/// Brings the interface `name` up.
pub(super) fn bring_up(name: &str) -> io::Result<()> {
    let socket = any_socket()?;
    let mut request = named(name);
    // SAFETY: SIOCGIFFLAGS writes the flags of one `ifreq`, which lives through the call.
    let told = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    Errno::result(told)?;
    // SAFETY: SIOCGIFFLAGS has set the flags; any value of the union is a valid integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as i16;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives through the call.
    let up = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(up)?;
    Ok(())
}

/// What interfaces are configured through.
fn any_socket() -> io::Result<OwnedFd> {
    let family = AddressFamily::Inet;
    Ok(socket(
        family,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

/// An IPv4 address as `ifreq` has it.
fn inet(address: Ipv4Addr) -> libc::sockaddr {
    let mut bytes = [0; 14];
    // `sockaddr_in` (ip(7)): the port, then the address, both in network order.
    for (to, from) in bytes.iter_mut().skip(2).zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: bytes,
    }
}

/// A request about the interface `name`.
fn named(name: &str) -> libc::ifreq {
    let mut request = empty();
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn empty() -> libc::ifreq {
    // SAFETY: an `ifreq` is integers, and a union of integers and addresses: zeroes are valid.
    unsafe { std::mem::zeroed() }
}
