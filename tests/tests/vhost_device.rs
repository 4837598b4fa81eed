//! rust-vmm's `vhost-device-sound`, as it is published, under every host: the conformance kit, and a tune.
#![allow(clippy::unwrap_used)] // Tests fail by panicking, their helpers too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use outboard_device::driver::connection::{DEFAULT_LIMIT, F_RING_PACKED};
use outboard_device::driver::{Driver, Options, QueueOptions, Segment};
use outboard_device::testing::{Endpoint, Expected, Probe};
use outboard_tests::hosts::{self, InProcess};
use outboard_tests::listening::{Listening, SOCKET};
use outboard_tests::plugins;

/// The queues and requests of a sound card (virtio 1.3, section 5.14).
const CONTROL: u16 = 0;
const TX: u16 = 2;
const RX: u16 = 3;
const PCM_INFO: u32 = 0x100;
const PCM_SET_PARAMS: u32 = 0x101;
const PCM_PREPARE: u32 = 0x102;
const PCM_RELEASE: u32 = 0x103;
const PCM_START: u32 = 0x104;
const PCM_STOP: u32 = 0x105;
const OK: u32 = 0x8000;
const BAD_MESSAGE: u32 = 0x8001;

/// Where it is built: none of the workspace, for it has versions of its own.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| plugins::locked_in("tests/rust-vmm"));

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at * 4..][..4].try_into().unwrap();
    u32::from_le_bytes(bytes)
}

/// Both streams are told of: one out, one in.
fn two_streams(written: u32, data: &[u8]) -> Result<(), String> {
    let status = word(data, 0);
    let directions = (data[4 + 24], data[4 + 32 + 24]);
    if (written, status, directions) == (68, OK, (0, 1)) {
        return Ok(());
    }
    Err(format!(
        "{written} bytes written, status {status:#x}, directions {directions:?}"
    ))
}

fn expected() -> Expected {
    Expected {
        features: F_RING_PACKED,
        config_len: 16,
        queues: 4,
        max_queue_size: 64,
        running: vec![CONTROL],
        probe: Probe {
            queue: CONTROL,
            readable: words(&[PCM_INFO, 0, 2, 32]),
            writable: 68,
            check: two_streams,
        },
    }
}

fn daemon(threads: &str) -> Listening {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join(SOCKET).display().to_string();
    let args = ["--socket", &socket, "--threads", threads];
    let program = BUILT.join("outboard-vhost-device-sound");
    Listening::program(&program, args, dir, expected())
}

fn library() -> PathBuf {
    BUILT.join("liboutboard_vhost_device_sound.so")
}

fn hosted(threads: &str) -> Listening {
    hosts::hosted(&library(), &format!("threads={threads}"), expected())
}

fn in_process(threads: &str) -> InProcess {
    InProcess {
        library: library(),
        device: "sound",
        options: BTreeMap::from([("threads".into(), threads.into())]),
        expected: expected(),
    }
}

/// Sends a request and returns what was written.
fn ask(driver: &mut Driver, queue: u16, request: &[u8], room: u32) -> Vec<u8> {
    let window = driver.allocate(1 << 16, 64).unwrap();
    window.write(0, request);
    let answer = window.addr() + (1 << 15);
    let chain = [
        Segment::readable(window.addr(), request.len() as u32),
        Segment::writable(answer, room),
    ];
    let queue = driver.queue(queue).unwrap();
    queue.submit(&chain, 0).unwrap();
    let used = queue.wait(DEFAULT_LIMIT).unwrap();
    window.to_vec(1 << 15, used.written as usize)
}

/// Asks the card what it is, plays a second to it, and listens in vain: what it is sent to record into
/// goes back, for nothing is ever recorded.
fn play(endpoint: &mut dyn Endpoint) {
    let mut driver = Driver::new(endpoint.connect().unwrap(), &Options::default()).unwrap();
    let size = QueueOptions {
        size: 64,
        ..QueueOptions::default()
    };
    for queue in 0..4 {
        driver.start_queue(queue, &size).unwrap();
    }
    let mut config = [0xff; 16];
    driver.read_config(0, &mut config).unwrap();
    assert_eq!(config.to_vec(), words(&[0, 2, 1, 0]));

    let info = ask(&mut driver, CONTROL, &words(&[PCM_INFO, 0, 2, 32]), 68);
    two_streams(68, &info).unwrap();
    let status =
        |driver: &mut Driver, request: &[u32]| word(&ask(driver, CONTROL, &words(request), 4), 0);
    // Two channels of 16 bits at 44100 Hz.
    let params = u32::from_le_bytes([2, 5, 6, 0]);
    let set = [PCM_SET_PARAMS, 0, 1 << 16, 1 << 14, 0, params];
    assert_eq!(status(&mut driver, &set), OK);
    assert_eq!(status(&mut driver, &[PCM_PREPARE, 9]), BAD_MESSAGE);
    assert_eq!(status(&mut driver, &[PCM_PREPARE, 0]), OK);
    assert_eq!(status(&mut driver, &[PCM_START, 0]), OK);
    for period in 0..11_u32 {
        let tune = (0..1 << 12).map(|n: u32| n.wrapping_mul(period));
        let transfer: Vec<u32> = std::iter::once(0).chain(tune).collect();
        let status = ask(&mut driver, TX, &words(&transfer), 8);
        // The card's latency is what it was sent, less the header, which this release counts twice.
        assert_eq!(status, words(&[OK, (1 << 14) - 4]));
    }

    let room = driver.allocate(1 << 14, 64).unwrap();
    for _ in 0..3 {
        // To the second stream.
        room.write(0, &words(&[1]));
        let chain = [
            Segment::readable(room.addr(), 4),
            Segment::writable(room.addr() + 64, 1024),
        ];
        driver.queue(RX).unwrap().submit(&chain, 0).unwrap();
    }
    assert_eq!(driver.stop_queue(RX).unwrap(), 0);
    assert_eq!(status(&mut driver, &[PCM_STOP, 0]), OK);
    assert_eq!(status(&mut driver, &[PCM_RELEASE, 0]), OK);
}

#[test]
fn it_plays_under_every_host() {
    for threads in ["off", "on"] {
        play(&mut daemon(threads));
        play(&mut hosted(threads));
        play(&mut in_process(threads));
    }
}

mod as_a_daemon {
    use super::*;
    outboard_device::conformance!(daemon("on"));
}

mod in_a_process {
    use super::*;
    outboard_device::conformance!(hosted("on"));
}

mod in_the_vmm {
    use super::*;
    outboard_device::conformance!(in_process("off"));
}
