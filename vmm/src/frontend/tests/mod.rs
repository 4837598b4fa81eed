//! The frontend against a fake backend, well-behaved and not.

mod config;
mod daemons;
mod handshake;
mod loss;
mod pause;
mod rings;

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;
use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::fake::{Answer, Fake, message};
use super::*;
use crate::config::{Behind, DeviceConfig, Host, OnExit};
use crate::memory::RamRegion;
use crate::supervisor::Supervisor;
use crate::transport::{QueueStart, Start, TransportEvents, VirtioDevice};

const FEATURES: u64 = 1 << 32 | 1 << 9;
/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(20);
/// For deadlines that a test reaches.
const SHORT: Duration = Duration::from_millis(300);

/// What the VM and the transport heard.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Ear {
    fn hear(&self, what: &str) {
        self.0.lock().unwrap().push(what.into());
    }

    fn count(&self, what: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|heard| *heard == what)
            .count()
    }
}

impl TransportEvents for Ear {
    fn config_changed(&self) {
        self.hear("config changed");
    }

    fn needs_reset(&self) {
        self.hear("needs reset");
    }
}

impl Owner for Ear {
    fn device_lost(&self, lost: &Lost) {
        self.hear(if lost.stop { "stop" } else { "degrade" });
    }

    fn device_cut_off(&self, lost: &Lost) {
        self.hear(&lost.reason);
    }
}

/// A device in front of a fake.
struct Bench {
    device: Arc<Device>,
    fake: Fake,
    ear: Arc<Ear>,
    _dir: tempfile::TempDir,
}

fn config(host: Host) -> DeviceConfig {
    DeviceConfig {
        id: "disk0".into(),
        virtio_id: crate::config::VirtioId::BLOCK,
        slot: 4,
        host,
        queues: None,
        queue_size: None,
        tag: None,
        on_exit: OnExit::Degrade,
    }
}

fn spec(host: Host) -> Spec {
    let deadlines = Deadlines {
        start: LONG,
        call: LONG,
        reset: LONG,
    };
    Spec {
        config: config(host),
        terminal: false,
        deadlines,
    }
}

fn memory() -> Vec<RamRegion> {
    let file = File::from(memfd_create("ram", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(1 << 20).unwrap();
    vec![RamRegion {
        guest_addr: 0,
        size: 1 << 20,
        host_addr: 0,
        fd: Arc::new(file),
        offset: 0,
    }]
}

fn connect(spec: Spec, ear: &Arc<Ear>) -> Result<Arc<Device>, ConnectError> {
    let supervisor = Arc::new(Supervisor::start().unwrap());
    Device::begin(spec, &memory(), &supervisor, Arc::clone(ear) as _)?.wait()
}

fn bench_with(fake: Fake, change: impl FnOnce(&mut Spec)) -> Result<Bench, ConnectError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    fake.listen(&path);
    let ear = Arc::<Ear>::default();
    let mut spec = spec(Host::Socket { path });
    change(&mut spec);
    let device = connect(spec, &ear)?;
    device.attach(Arc::clone(&ear) as _);
    Ok(Bench {
        device,
        fake,
        ear,
        _dir: dir,
    })
}

fn bench(fake: Fake) -> Bench {
    bench_with(fake, |_| ()).unwrap()
}

fn queue(index: u16) -> QueueStart {
    let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    QueueStart {
        index,
        size: 8,
        desc: 0x1000,
        avail: 0x2000,
        used: 0x3000,
        kick: eventfd(),
        call: eventfd(),
    }
}

fn start(queues: &[u16]) -> Start {
    Start {
        features: FEATURES,
        queues: queues.iter().copied().map(queue).collect(),
    }
}

#[track_caller]
fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Bench {
    fn read(&self, offset: u32) -> u8 {
        let mut byte = [0xee];
        self.device.read_config(offset, &mut byte);
        byte[0]
    }

    fn has_seen(&self, code: FrontendReq) -> bool {
        self.fake.get().seen.iter().any(|seen| seen.code == code)
    }

    #[track_caller]
    fn reset(&self) {
        self.device.reset();
        until("reset", || self.device.is_reset());
    }

    /// Whatever happened, the VM goes on: this is what the driver sees of a device that is lost.
    #[track_caller]
    fn is_degraded(&self) {
        until("needs reset", || self.ear.count("needs reset") >= 1);
        until("the owner knows", || self.ear.count("degrade") == 1);
        assert_eq!(self.read(5), 5, "config reads keep answering");
        self.reset();
        let before = self.ear.count("needs reset");
        self.device.start(start(&[0]));
        until("needs reset again", || {
            self.ear.count("needs reset") > before
        });
        self.device.write_config(0, &[1]);
        assert_eq!(self.read(0), 0);
        self.device.stop_queue(0);
        until("stopped", || self.device.is_queue_stopped(0));
        self.reset();
        assert_eq!(self.ear.count("degrade"), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes in place of any answer, at any point of a device's life.
    #[test]
    fn no_answer_is_harmful(code in 1..44_u32, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bench = bench_with(Fake::new(), |spec| {
            let short = Duration::from_millis(20);
            spec.deadlines = Deadlines { start: LONG, call: short, reset: short };
        }).unwrap();
        bench.fake.get().script.insert(code, Answer::Bytes(bytes));
        bench.device.start(start(&[0, 1]));
        bench.device.write_config(0, &[1]);
        bench.device.stop_queue(1);
        bench.device.start_queue(queue(1));
        bench.read(0);
        bench.reset();
        bench.device.start(start(&[0]));
        // That has no deadline of its own.
        let waits = [bench.device.pause(), bench.device.resume()];
        bench.reset();
        for wait in waits {
            let _ = wait.recv();
        }
    }
}
