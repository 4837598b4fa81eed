//! The VMM's frontend with a real daemon: `outboard-block`, spawned, connected to, killed, stopped.
//!
//! The daemons are those that `cargo build` left beside this test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use outboard::config::{DeviceConfig, Host, OnExit, VirtioId};
use outboard::frontend::{ConnectError, Deadlines, Device, Lost, Owner, Spec};
use outboard::memory::RamRegion;
use outboard::supervisor::{Grace, Supervisor};
use outboard::transport::{QueueStart, Start, TransportEvents, VirtioDevice};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);
const SECTORS: u64 = 2048;

#[derive(Default)]
struct Ear {
    needs_reset: Mutex<usize>,
    lost: Mutex<Vec<Lost>>,
}

impl TransportEvents for Ear {
    fn config_changed(&self) {}

    fn needs_reset(&self) {
        *self.needs_reset.lock().unwrap() += 1;
    }
}

impl Owner for Ear {
    fn device_lost(&self, lost: &Lost) {
        self.lost.lock().unwrap().push(lost.clone());
    }

    fn device_cut_off(&self, lost: &Lost) {
        self.device_lost(lost);
    }
}

struct Bench {
    dir: tempfile::TempDir,
    supervisor: Arc<Supervisor>,
    ear: Arc<Ear>,
}

fn daemon() -> String {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(std::path::Path::parent).unwrap();
    let daemon = folder.join("outboard-block");
    assert!(
        daemon.exists(),
        "{} is missing; run: cargo build -p outboard-block",
        daemon.display()
    );
    daemon.display().to_string()
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = File::create(dir.path().join("disk.img")).unwrap();
        image.set_len(SECTORS * 512).unwrap();
        Self {
            dir,
            supervisor: Arc::new(Supervisor::start().unwrap()),
            ear: Arc::default(),
        }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn process(&self, queues: u16) -> Host {
        let mut args = vec!["--path".to_owned(), self.image().display().to_string()];
        args.extend(["--queues".to_owned(), queues.to_string()]);
        Host::Process {
            program: daemon(),
            args,
        }
    }

    fn connect(&self, host: Host) -> Result<Arc<Device>, ConnectError> {
        let file = File::from(memfd_create("ram", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(1 << 20).unwrap();
        let region = RamRegion {
            guest_addr: 0,
            size: 1 << 20,
            host_addr: 0,
            fd: Arc::new(file),
            offset: 0,
        };
        let config = DeviceConfig {
            id: "disk0".into(),
            virtio_id: VirtioId::BLOCK,
            slot: 4,
            host,
            queues: None,
            queue_size: None,
            tag: None,
            on_exit: OnExit::Degrade,
        };
        let deadlines = Deadlines {
            reset: Duration::from_secs(1),
            ..Deadlines::default()
        };
        let spec = Spec {
            config,
            terminal: false,
            deadlines,
        };
        let device = Device::begin(
            spec,
            &[region],
            &self.supervisor,
            Arc::clone(&self.ear) as _,
        )?
        .wait()?;
        device.attach(Arc::clone(&self.ear) as _);
        Ok(device)
    }

    /// The daemon that the supervisor spawned for this test's image.
    fn pid(&self) -> i32 {
        let image = self.image().display().to_string();
        let is_ours = |pid: &i32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("outboard-block") && line.contains(&image)
        };
        let pids = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.into_iter().find(is_ours).expect("a daemon")
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    fn needs_reset(&self) -> usize {
        *self.ear.needs_reset.lock().unwrap()
    }
}

fn capacity(device: &Device) -> u64 {
    let mut bytes = [0; 8];
    device.read_config(0, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Starts queues whose rings are all zero: nothing to do for the device.
fn start(device: &Device, queues: u16) {
    let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    let queue = |index| {
        let base = 0x1000 + 0x4000 * u64::from(index);
        QueueStart {
            index,
            size: 64,
            desc: base,
            avail: base + 0x1000,
            used: base + 0x2000,
            kick: eventfd(),
            call: eventfd(),
        }
    };
    device.start(Start {
        features: 1 << 32,
        queues: (0..queues).map(queue).collect(),
    });
}

#[track_caller]
fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn reset(device: &Device) {
    device.reset();
    until("reset", || device.is_reset());
}

#[test]
fn a_spawned_daemon_serves_boot_after_boot() {
    let bench = Bench::new();
    let device = bench.connect(bench.process(4)).unwrap();
    let identity = device.identity();
    assert_eq!((identity.device_id, identity.queues), (2, 4));
    assert_eq!(capacity(&device), SECTORS);
    let pid = bench.pid();
    for _ in 0..3 {
        start(&device, 4);
        device.write_config(32, &[0]);
        assert_eq!(capacity(&device), SECTORS);
        reset(&device);
    }
    assert_eq!((bench.needs_reset(), bench.pid()), (0, pid));
    drop(device);
    assert!(
        bench
            .supervisor
            .stop(Grace {
                eof: LONG,
                term: LONG
            })
            .is_empty()
    );
}

#[test]
fn a_killed_daemon_costs_its_device() {
    let bench = Bench::new();
    let device = bench.connect(bench.process(1)).unwrap();
    start(&device, 1);
    bench.signal(nix::sys::signal::SIGKILL);
    until("lost", || !bench.ear.lost.lock().unwrap().is_empty());
    let lost = bench.ear.lost.lock().unwrap()[0].clone();
    assert!(
        lost.reason.contains("signal: 9") && !lost.stop,
        "{}",
        lost.reason
    );
    assert_eq!(capacity(&device), SECTORS);
    reset(&device);
    let before = bench.needs_reset();
    start(&device, 1);
    until("needs reset again", || bench.needs_reset() > before);
}

#[test]
fn a_frozen_daemon_is_dead_before_its_reset_is_done() {
    let bench = Bench::new();
    let device = bench.connect(bench.process(1)).unwrap();
    start(&device, 1);
    let pid = bench.pid();
    bench.signal(nix::sys::signal::SIGSTOP);
    device.reset();
    until("reset", || {
        let reset = device.is_reset();
        let alive = std::fs::exists(format!("/proc/{pid}")).unwrap();
        assert!(
            !reset || !alive,
            "the daemon could still write to guest memory"
        );
        reset
    });
}

#[test]
fn a_daemon_that_cannot_open_its_image_says_so() {
    let bench = Bench::new();
    let args = ["--path", "/no/such/disk.img"].map(String::from).to_vec();
    let error = bench
        .connect(Host::Process {
            program: daemon(),
            args,
        })
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("disk0") && error.contains("/no/such/disk.img"),
        "{error}"
    );
}

/// A daemon started by hand.
struct ByHand(Child);

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_daemon_started_by_hand_serves_one_vm_after_another() {
    let bench = Bench::new();
    let socket = bench.dir.path().join("socket");
    let mut command = Command::new(daemon());
    command
        .arg("--socket")
        .arg(&socket)
        .arg("--path")
        .arg(bench.image())
        .stderr(Stdio::null());
    let _daemon = ByHand(command.spawn().unwrap());
    for _ in 0..2 {
        let device = bench
            .connect(Host::Socket {
                path: socket.clone(),
            })
            .unwrap();
        start(&device, 1);
        assert_eq!(capacity(&device), SECTORS);
        reset(&device);
    }
    assert_eq!(bench.needs_reset(), 0);
}
