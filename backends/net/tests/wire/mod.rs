//! What the tests of streams share: a guest with a card, and the peer at the cable's other end.
#![allow(dead_code)] // Each test uses its part.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use outboard_device::driver::net::{Frame, Header, RX, Receive, TX, Transmit};
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The longest Ethernet frame Linux makes: an MTU of 65535 and a header.
pub(crate) const LONGEST: usize = 65535 + 14;

pub(crate) const GUEST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
pub(crate) const HOST: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];

/// `VIRTIO_NET_F_CTRL_RX`.
pub(crate) const F_CTRL_RX: u64 = 1 << 18;

/// A card whose queues run, and its guest.
pub(crate) struct Guest {
    pub(crate) driver: Driver,
    pub(crate) daemon: Daemon,
    pub(crate) receive: Receive,
    pub(crate) transmit: Transmit,
}

impl Guest {
    /// A driver of the simple kind, which leaves what it receives to the card.
    pub(crate) fn new(args: &[&str]) -> Self {
        Self::with(args, !F_CTRL_RX)
    }

    /// A driver that takes `features`, of those offered.
    pub(crate) fn with(args: &[&str], features: u64) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
        let more = ["--mac", "52:54:00:01:02:03", "--log-level", "debug"];
        let (daemon, stream) = Daemon::spawn(program, [args, &more].concat()).unwrap();
        let options = Options {
            features,
            ..Options::default()
        };
        let mut driver = match Driver::new(stream, &options) {
            Ok(driver) => driver,
            Err(error) => panic!("{error:?}; the daemon says: {}", daemon.words()),
        };
        for queue in [RX, TX] {
            driver.start_queue(queue, &QueueOptions::default()).unwrap();
        }
        let receive = Receive::new(&mut driver, RX, 64, 2048).unwrap();
        let transmit = Transmit::new(&mut driver, 8, LONGEST).unwrap();
        Self {
            driver,
            daemon,
            receive,
            transmit,
        }
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        let end = Instant::now() + LIMIT;
        while !self.try_send(frame) {
            assert!(Instant::now() < end, "nothing is sent");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// False when all buffers are under way.
    pub(crate) fn try_send(&mut self, frame: &[u8]) -> bool {
        let queue = self.driver.queue(TX).unwrap();
        self.transmit.reap(queue).unwrap();
        let sent = self.transmit.add(queue, Header::default(), frame).is_ok();
        queue.flush().unwrap();
        sent
    }

    pub(crate) fn next(&mut self) -> Frame {
        let queue = self.driver.queue(RX).unwrap();
        self.receive.wait(queue, LIMIT).unwrap()
    }

    pub(crate) fn expect_link(&mut self, up: bool) {
        let end = Instant::now() + LIMIT;
        let mut status = [u8::from(!up), 0];
        while status != [u8::from(up), 0] {
            assert!(
                Instant::now() < end,
                "up should be {up}: {}",
                self.daemon.words()
            );
            std::thread::sleep(Duration::from_millis(1));
            self.driver.read_config(6, &mut status).unwrap();
        }
    }
}

/// The other end of the cable.
pub(crate) struct Peer(pub(crate) UnixStream);

impl Peer {
    pub(crate) fn accept(listener: &UnixListener) -> Self {
        Self::new(listener.accept().unwrap().0)
    }

    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.0.write_all(&framed(frame)).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.0.read(&mut [0; 16]).unwrap_or(0), 0);
    }
}

pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

/// A frame of `len` bytes whose content depends on `seed`.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], len: usize, seed: u8) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5]].concat();
    frame.extend((frame.len()..len).map(|i| (i % 241) as u8 ^ seed));
    frame
}

/// A folder, a socket's path in it, and who listens there.
pub(crate) fn listener() -> (tempfile::TempDir, String, UnixListener) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cable");
    let listener = UnixListener::bind(&path).unwrap();
    (folder, path.display().to_string(), listener)
}
