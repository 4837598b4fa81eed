//! What the tests of taps share: the host's side of one.
#![allow(unsafe_code)] // A packet socket is bound by an address nix has no constructor for.
#![allow(dead_code)] // Each test uses its part.
#![allow(clippy::unwrap_used)] // Tests fail by panicking, their helpers too.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The kind of our frames: for experiments on one's own network.
pub(crate) const ETHERTYPE: u16 = 0x88b5;

pub(crate) fn can_make_taps() -> Result<(), String> {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|e| format!("/dev/net/tun: {e}"))?;
    if !nix::unistd::geteuid().is_root() {
        return Err("not root".into());
    }
    Command::new("ip")
        .arg("link")
        .output()
        .map_err(|e| format!("ip: {e}"))?;
    Ok(())
}

pub(crate) fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A tap that is up, on which the host says nothing of its own accord; removed on drop.
pub(crate) struct Tap(pub(crate) String);

impl Tap {
    /// `None`, with a word on stdout, where taps cannot be made. `flags` are those of `ip tuntap add`.
    pub(crate) fn up(name: String, flags: &[&str]) -> Option<Self> {
        if let Err(reason) = can_make_taps() {
            // Not through the harness, which keeps the words of tests that pass to itself.
            let _ = writeln!(io::stdout(), "SKIPPED, no tap can be made here: {reason}");
            return None;
        }
        ip(&[&["tuntap", "add", "dev", &name, "mode", "tap"], flags].concat());
        let tap = Self(name);
        // Else the host's own neighbour discovery mixes with our frames.
        let quiet = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.0);
        let _ = std::fs::write(quiet, "1");
        ip(&["link", "set", &tap.0, "mtu", "9000", "up"]);
        Some(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

/// A frame of `len` bytes whose content depends on `seed`.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], len: usize, seed: u8) -> Vec<u8> {
    let mut frame = [&to[..], &from, &ETHERTYPE.to_be_bytes()].concat();
    frame.extend((frame.len()..len).map(|i| (i % 241) as u8 ^ seed));
    frame
}

/// The host's network, seen from the tap's interface.
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Sends and receives frames of the kind `ethertype`.
    pub(crate) fn on(interface: &str, ethertype: u16) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let protocol = ethertype.to_be();
        // SAFETY: a plain system call.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                i32::from(protocol),
            )
        };
        nix::errno::Errno::result(fd)?;
        // SAFETY: just opened, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a live local of the length given.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        nix::errno::Errno::result(bound)?;
        let time = nix::sys::time::TimeVal::new(LIMIT.as_secs().cast_signed(), 0);
        nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::ReceiveTimeout, &time)?;
        Ok(Self(fd))
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(nix::unistd::write(&self.0, frame), Ok(frame.len()));
    }

    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 70_000];
        let len = nix::unistd::read(&self.0, &mut frame).unwrap();
        frame.truncate(len);
        frame
    }
}
