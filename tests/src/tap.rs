//! A tap of this host's, and somebody on it who answers.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc
)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

/// IEEE 802's local experimental ethertype 1; nothing but the test speaks it.
const ETHERTYPE: u16 = 0x88b5;
/// `PACKET_OUTGOING` of `linux/if_packet.h`: our own frames, seen again.
const OUTGOING: u8 = 4;
/// Where a frame's payload begins.
const HEADER: usize = 14;

/// A persistent tap, up; removed on drop.
pub struct Tap(String);

impl Tap {
    /// Makes the tap. Where that is not allowed, says so loudly and gives `None`.
    pub fn up(name: &str) -> Option<Self> {
        Self::made(name, &[])
    }

    /// The same for a tap that may have several queues.
    pub fn up_for_queues(name: &str) -> Option<Self> {
        Self::made(name, &["multi_queue"])
    }

    fn made(name: &str, flags: &[&str]) -> Option<Self> {
        let ip = |args: &[&str]| Command::new("ip").args(args).output();
        // What a run that was killed has left.
        let _ = ip(&["link", "del", name]);
        match ip(&[&["tuntap", "add", "dev", name, "mode", "tap"], flags].concat()) {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                println!(
                    "SKIPPED, nothing was tested: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                return None;
            }
            Err(error) => {
                println!("SKIPPED, nothing was tested: ip: {error}");
                return None;
            }
        }
        let tap = Self(name.to_owned());
        let up = ip(&["link", "set", name, "up"]).expect("ip has just run");
        assert!(
            up.status.success(),
            "{}",
            String::from_utf8_lossy(&up.stderr)
        );
        Some(tap)
    }

    /// A descriptor attached to it, as whoever manages taps hands over.
    pub fn queue(&self) -> OwnedFd {
        let tun = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .expect("taps can be made");
        // SAFETY: all zeroes is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.0.bytes()) {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags as i16;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
        let set = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        tun.into()
    }

    /// Sends every frame of the test's ethertype back to its sender, until the tap goes. Listening when
    /// this returns.
    pub fn echo(&self) {
        let index = nix::net::if_::if_nametoindex(self.0.as_str()).expect("the tap exists");
        let protocol = ETHERTYPE.to_be();
        // SAFETY: socket takes three integers.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                i32::from(protocol),
            )
        };
        assert!(
            fd >= 0,
            "a packet socket: {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: the call has just made it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index.cast_signed();
        let len = size_of_val(&address) as u32;
        // SAFETY: the address is a whole sockaddr_ll.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
        std::thread::spawn(move || answer(&socket));
    }
}

fn answer(socket: &OwnedFd) {
    let mut frame = [0_u8; 2048];
    loop {
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&from) as u32;
        // SAFETY: both buffers are ours and as long as told.
        let got = unsafe {
            let (at, from) = (frame.as_mut_ptr().cast(), (&raw mut from).cast());
            libc::recvfrom(socket.as_raw_fd(), at, frame.len(), 0, from, &raw mut len)
        };
        let Ok(got) = usize::try_from(got) else {
            return;
        };
        if from.sll_pkttype == OUTGOING || got < HEADER {
            continue;
        }
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 1]);
        if nix::unistd::write(socket, &frame[..got]).is_err() {
            return;
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}
