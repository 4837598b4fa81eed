//! The VMM's frontend with a backend that is not ours: one written for `vhost-user-backend`.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use outboard::config::{DeviceConfig, Host, OnExit, VirtioId};
use outboard::frontend::{Deadlines, Device, Lost, Owner, Spec};
use outboard::memory::RamRegion;
use outboard::supervisor::Supervisor;
use outboard::transport::{QueueStart, Start, TransportEvents, VirtioDevice};
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

/// Interrupts for every kick; its config space is a word that the driver may write.
struct Peer {
    config: Vec<u8>,
    resets: usize,
    acked: u64,
}

impl VhostUserBackendMut for Peer {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        VERSION_1 | PROTOCOL_FEATURES
    }

    fn acked_features(&mut self, features: u64) {
        self.acked = features;
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&mut self) {
        self.resets += 1;
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let at = |n: u32| self.config.get(n as usize).copied().unwrap_or(0);
        (offset..offset + size).map(at).collect()
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.config[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn update_memory(&mut self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    fn handle_event(
        &mut self,
        queue: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        vrings[usize::from(queue)].signal_used_queue()
    }
}

#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl TransportEvents for Ear {
    fn config_changed(&self) {
        self.0.lock().unwrap().push("config changed".into());
    }

    fn needs_reset(&self) {
        self.0.lock().unwrap().push("needs reset".into());
    }
}

impl Owner for Ear {
    fn device_lost(&self, lost: &Lost) {
        self.0.lock().unwrap().push(lost.reason.clone());
    }

    fn device_cut_off(&self, lost: &Lost) {
        self.device_lost(lost);
    }
}

#[track_caller]
fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A queue, and our copies of its kick and call.
fn queue(index: u16) -> (QueueStart, EventFd, EventFd) {
    let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    let (kick, call) = (eventfd(), eventfd());
    let base = 0x1000 + 0x4000 * u64::from(index);
    let queue = QueueStart {
        index,
        size: 64,
        desc: base,
        avail: base + 0x1000,
        used: base + 0x2000,
        kick: kick.try_clone().unwrap(),
        call: call.try_clone().unwrap(),
    };
    (queue, kick, call)
}

#[test]
fn a_backend_that_is_not_ours_is_driven_boot_after_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let config = (0..60).collect();
    let peer = Arc::new(Mutex::new(Peer {
        config,
        resets: 0,
        acked: 0,
    }));
    let memory = Memory::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("peer".into(), Arc::clone(&peer), memory).unwrap();
    let mut listener = vhost::vhost_user::Listener::new(&path, true).unwrap();
    // Its worker has no way to end, so nobody waits for this thread.
    std::thread::spawn(move || {
        daemon.start(&mut listener).unwrap();
        let _ = daemon.wait();
    });

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
        host: Host::Socket { path },
        queues: None,
        queue_size: None,
        tag: None,
        on_exit: OnExit::Degrade,
    };
    let spec = Spec {
        config,
        terminal: false,
        deadlines: Deadlines {
            call: LONG,
            reset: LONG,
            ..Deadlines::default()
        },
    };
    let supervisor = Arc::new(Supervisor::start().unwrap());
    let ear = Arc::<Ear>::default();
    let device = Device::begin(spec, &[region], &supervisor, Arc::clone(&ear) as _)
        .unwrap()
        .wait()
        .unwrap();
    device.attach(Arc::clone(&ear) as _);
    assert_eq!(device.identity().queues, 2);
    let read = |offset| {
        let mut byte = [0];
        device.read_config(offset, &mut byte);
        byte[0]
    };
    assert_eq!(read(59), 59);

    for boot in 1..=3 {
        let (queue, kick, call) = queue(1);
        device.start(Start {
            features: VERSION_1,
            queues: vec![queue],
        });
        kick.write(1).unwrap();
        until("an interrupt", || call.read().is_ok());
        assert_eq!(peer.lock().unwrap().acked & VERSION_1, VERSION_1);
        device.write_config(32, &[boot]);
        assert_eq!(read(32), boot);
        device.reset();
        until("reset", || device.is_reset());
        assert_eq!(peer.lock().unwrap().resets, usize::from(boot));
        while call.read().is_ok() {}
        kick.write(1).unwrap();
    }
    assert_eq!(*ear.0.lock().unwrap(), Vec::<String>::new());
    drop(device);
}
