//! The other end of a tap: somebody on the host who sends, or who sends back.

// A packet socket's address is a C struct, and so is what attaches to a tap; nix has no way to make one.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::{TimeVal, TimeValLike};

use crate::affinity::Cpus;
use crate::error::{Error, Result};

/// The type of the bench's frames (IEEE 802, local experimental).
pub const ETHERTYPE: u16 = 0x88b5;
/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// A tap, removed when dropped.
#[derive(Debug)]
pub struct Tap(String);

impl Tap {
    /// Makes the tap. A backend attaches to it by its name.
    pub fn up(name: &str) -> Result<Self> {
        let ip = |args: &[&str]| -> Result<()> {
            let output = Command::new("ip")
                .args(args)
                .output()
                .map_err(Error::system("run ip (package iproute2)"))?;
            let words = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                Ok(())
            } else {
                Err(Error::Unfit(format!("the tap {name}: {}", words.trim())))
            }
        };
        ip(&["tuntap", "add", "dev", name, "mode", "tap"])?;
        let tap = Self(name.to_owned());
        // Nobody but the bench is to speak on it.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        ip(&["link", "set", name, "mtu", "65521", "up"])?;
        Ok(tap)
    }

    /// The frames that the host has had from the backend, until now.
    pub fn received(&self) -> u64 {
        let path = format!("/sys/class/net/{}/statistics/rx_packets", self.0);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// The tap's own end: what is written there the host receives. Read and written a frame at a time.
    pub fn attach(&self) -> Result<File> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .map_err(Error::file("open", Path::new("/dev/net/tun")))?;
        // SAFETY: all zeroes is a valid ifreq.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(self.0.bytes()) {
            *place = byte.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        // SAFETY: the ioctl reads and writes one ifreq, which is ours.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        match done {
            0.. => Ok(file),
            _ => Err(Error::system("attach to the tap")(
                std::io::Error::last_os_error(),
            )),
        }
    }

    fn socket(&self) -> Result<OwnedFd> {
        let index =
            nix::net::if_::if_nametoindex(self.0.as_str()).map_err(Error::errno("find the tap"))?;
        let failed = |doing| Error::system(doing)(std::io::Error::last_os_error());
        let protocol = ETHERTYPE.to_be();
        // SAFETY: socket takes three integers.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol.into(),
            )
        };
        if fd < 0 {
            return Err(failed("open a packet socket (it needs CAP_NET_RAW)"));
        }
        // SAFETY: the call has just made it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the address is a whole sockaddr_ll, and as long as told.
        let bound = unsafe {
            libc::bind(
                fd,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        if bound != 0 {
            return Err(failed("bind a packet socket to the tap"));
        }
        // So that its thread hears of the end.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(50))
            .map_err(Error::errno("limit a packet socket"))?;
        Ok(socket)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

/// A thread at the other end, until dropped.
#[derive(Debug)]
pub struct Peer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Sends every frame of the bench's back.
    pub fn echo(tap: &Tap, cpus: &Cpus) -> Result<Self> {
        Self::start(tap, cpus, |socket, stop| {
            let mut frame = vec![0; 1 << 16];
            while !stop.load(Ordering::Relaxed) {
                if let Some(len) = receive(socket, &mut frame) {
                    let _ = nix::unistd::write(socket, frame.get(..len).unwrap_or_default());
                }
            }
        })
    }

    /// Sends the same frame as fast as the tap takes it.
    pub fn flood(tap: &Tap, cpus: &Cpus, frame: Vec<u8>) -> Result<Self> {
        Self::start(tap, cpus, move |socket, stop| {
            while !stop.load(Ordering::Relaxed) {
                if nix::unistd::write(socket, &frame).is_err() {
                    // The tap's queue is full.
                    thread::sleep(Duration::from_micros(20));
                }
            }
        })
    }

    fn start(
        tap: &Tap,
        cpus: &Cpus,
        work: impl FnOnce(&OwnedFd, &AtomicBool) + Send + 'static,
    ) -> Result<Self> {
        let socket = tap.socket()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, cpus) = (Arc::clone(&stop), cpus.clone());
        let thread = thread::Builder::new()
            .name("peer".into())
            .spawn(move || {
                // Where it cannot be held it runs anywhere.
                let _ = cpus.hold_this_thread();
                work(&socket, &stopped);
            })
            .map_err(Error::system("start a thread"))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

/// A frame from the other side; `None` after a while without one, and for one of our own seen again.
fn receive(socket: &OwnedFd, frame: &mut [u8]) -> Option<usize> {
    // SAFETY: all zeroes is a valid sockaddr_ll.
    let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut len = size_of_val(&from) as u32;
    // SAFETY: both buffers are ours and as long as told.
    let got = unsafe {
        let (at, from) = (frame.as_mut_ptr().cast(), (&raw mut from).cast());
        libc::recvfrom(socket.as_raw_fd(), at, frame.len(), 0, from, &raw mut len)
    };
    let got = usize::try_from(got).ok()?;
    (from.sll_pkttype != libc::PACKET_OUTGOING).then_some(got)
}
