//! `outboard-console` under a frontend that is not ours: the one of the `vhost` crate, on memory of
//! `vm-memory`, with rings written here as the standard has them (virtio 1.2, section 2.7).
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use outboard_tests::daemons::daemon;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

const LONG: Duration = Duration::from_secs(30);
const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const RX: usize = 0;
const TX: usize = 1;
const SIZE: u16 = 16;
const MEMORY: u64 = 1 << 20;
/// What this frontend calls the guest's address 0.
const USER: u64 = 0x1234_0000_0000;
const WRITE: u16 = 2;

/// A queue of 16 entries: descriptors, available and used ring in a page each, then 4 KiB of buffers.
struct Ring {
    base: u64,
    kick: EventFd,
    call: EventFd,
    added: u16,
    seen: u16,
}

struct Peer {
    frontend: Frontend,
    memory: GuestMemoryMmap,
    rings: Vec<Ring>,
}

impl Peer {
    /// Sets the console up, with the protocol's extensions or without.
    fn new(stream: UnixStream, extended: bool) -> Self {
        let file = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(MEMORY).unwrap();
        let handle = file.as_raw_fd();
        let range = (
            GuestAddress(0),
            MEMORY as usize,
            Some(FileOffset::new(file, 0)),
        );
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let mut frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        assert_eq!(offered & VERSION_1, VERSION_1);
        if extended {
            let protocol = frontend.get_protocol_features().unwrap();
            let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
            frontend.set_protocol_features(protocol & wanted).unwrap();
        }
        let extension = if extended { PROTOCOL_FEATURES } else { 0 };
        frontend.set_features(VERSION_1 | extension).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: handle,
        };
        frontend.set_mem_table(&[region]).unwrap();
        let mut peer = Self {
            frontend,
            memory,
            rings: Vec::new(),
        };
        for index in [RX, TX] {
            let ring = peer.start(index);
            peer.rings.push(ring);
            if extended {
                peer.frontend.set_vring_enable(index, true).unwrap();
            }
        }
        peer
    }

    fn start(&mut self, index: usize) -> Ring {
        let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
        let (kick, call) = (eventfd(), eventfd());
        let base = 0x1_0000 * (index as u64 + 1);
        let addresses = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: USER + base,
            avail_ring_addr: USER + base + 0x1000,
            used_ring_addr: USER + base + 0x2000,
            log_addr: None,
        };
        let frontend = &self.frontend;
        frontend.set_vring_num(index, SIZE).unwrap();
        frontend.set_vring_base(index, 0).unwrap();
        frontend.set_vring_addr(index, &addresses).unwrap();
        frontend.set_vring_call(index, &call).unwrap();
        frontend.set_vring_kick(index, &kick).unwrap();
        Ring {
            base,
            kick,
            call,
            added: 0,
            seen: 0,
        }
    }

    /// The buffer of the next chain: 256 bytes.
    fn buffer(&self, index: usize, chain: u16) -> u64 {
        self.rings[index].base + 0x3000 + 256 * u64::from(chain % SIZE)
    }

    fn add(&mut self, index: usize, len: u32, flags: u16) {
        let chain = self.rings[index].added;
        let addr = self.buffer(index, chain);
        let (ring, slot) = (&mut self.rings[index], u64::from(chain % SIZE));
        let put = |value: &[u8], at| self.memory.write_slice(value, GuestAddress(at)).unwrap();
        let words = [u64::from(len).to_le_bytes(), addr.to_le_bytes()];
        let at = ring.base + 16 * slot;
        put(&words[1], at);
        put(&words[0], at + 8);
        put(&flags.to_le_bytes(), at + 12);
        put(&(slot as u16).to_le_bytes(), ring.base + 0x1004 + 2 * slot);
        fence(Ordering::SeqCst);
        ring.added = chain.wrapping_add(1);
        put(&ring.added.to_le_bytes(), ring.base + 0x1002);
        ring.kick.write(1).unwrap();
    }

    /// Waits for the next chain, which must be the oldest one: how many bytes were written to it.
    fn done(&mut self, index: usize) -> u32 {
        let ring = &mut self.rings[index];
        let end = Instant::now() + LONG;
        let word = |at| {
            let mut bytes = [0; 4];
            let from = GuestAddress(ring.base + 0x2000 + at);
            self.memory.read_slice(&mut bytes, from).unwrap();
            u32::from_le_bytes(bytes)
        };
        while (word(0) >> 16) as u16 == ring.seen {
            assert!(Instant::now() < end, "queue {index} stands still");
            // Calls are counted only; one that never came shows in the end.
            std::thread::sleep(Duration::from_micros(200));
        }
        fence(Ordering::SeqCst);
        let slot = ring.seen % SIZE;
        assert_eq!(word(4 + 8 * u64::from(slot)), u32::from(slot));
        ring.seen = ring.seen.wrapping_add(1);
        word(8 + 8 * u64::from(slot))
    }

    fn print(&mut self, text: &[u8]) {
        for piece in text.chunks(200) {
            let addr = self.buffer(TX, self.rings[TX].added);
            self.memory.write_slice(piece, GuestAddress(addr)).unwrap();
            self.add(TX, piece.len() as u32, 0);
            assert_eq!(self.done(TX), 0);
        }
    }

    /// What was typed, `len` bytes of it.
    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut typed = Vec::new();
        while typed.len() < len {
            if self.rings[RX].added == self.rings[RX].seen {
                self.add(RX, 100, WRITE);
            }
            let from = self.buffer(RX, self.rings[RX].seen);
            let mut bytes = vec![0; self.done(RX) as usize];
            self.memory
                .read_slice(&mut bytes, GuestAddress(from))
                .unwrap();
            typed.extend(bytes);
        }
        typed
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(path: &std::path::Path) -> UnixStream {
    let end = Instant::now() + LONG;
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            stream.set_read_timeout(Some(LONG)).unwrap();
            return stream;
        }
        assert!(Instant::now() < end, "nobody listens at {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn bytes_cross_both_ways_under_a_frontend_of_somebody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let (guest, people) = (dir.path().join("guest"), dir.path().join("people"));
    let mut console = Command::new(daemon("outboard-console"));
    console
        .arg("--socket")
        .arg(&guest)
        .arg("--attach")
        .arg(&people);
    let _console = Killed(console.stderr(Stdio::null()).spawn().unwrap());
    let mut person = connect(&people);
    for (round, extended) in [true, false, true].into_iter().enumerate() {
        let mut peer = Peer::new(connect(&guest), extended);
        let text: Vec<u8> = (0..5000)
            .map(|i| b'a' + ((i * 7 + round) % 26) as u8)
            .collect();
        peer.print(&text);
        let mut shown = vec![0; text.len()];
        person.read_exact(&mut shown).unwrap();
        assert!(shown == text, "round {round}");
        for part in text.chunks(333) {
            person.write_all(part).unwrap();
            assert!(peer.read(part.len()) == part, "round {round}");
        }
        for ring in &peer.rings {
            assert_ne!(ring.call.read().unwrap(), 0, "nobody was called");
        }
    }
}
