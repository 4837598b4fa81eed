//! What libvirt's driver for Cloud Hypervisor does with a VM, from its start to its end: the same command
//! line, requests and JSON, and what it reads of the answers, of /proc, of the terminals and of the events.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::api::{Vmm, cloud_hypervisor, inherit};
use outboard_tests::guest::{disk, has_kvm, payload};
use outboard_tests::tap::Tap;
use outboard_tests::traces::Home;
use outboard_tests::wire::Wire;
use serde_json::{Value, json};

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// Ten times as long as the driver waits for the answer to a card, for a test's machine may be busy.
const CARD: Duration = Duration::from_secs(5);

/// The reader of the event monitor's FIFO.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<String>>);

impl Events {
    /// Opens it, which the VMM waits for, and reads it until the VMM ends.
    fn of(fifo: &Path) -> Self {
        let events = Self::default();
        let (to, fifo) = (events.clone(), fifo.to_owned());
        std::thread::spawn(move || {
            let mut fifo = File::open(fifo).unwrap();
            let mut piece = [0; 4096];
            while let Ok(got @ 1..) = fifo.read(&mut piece) {
                let text = std::str::from_utf8(&piece[..got]).unwrap();
                to.0.lock().unwrap().push_str(text);
            }
        });
        events
    }

    /// `source:event` of all so far.
    fn seen(&self) -> Vec<String> {
        let text = self.0.lock().unwrap().clone();
        let all = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let name = |event: Value| {
            let word = |key: &str| event[key].as_str().unwrap().to_owned();
            format!("{}:{}", word("source"), word("event"))
        };
        all.map_while(Result::ok).map(name).collect()
    }

    fn wait_for(&self, event: &str) {
        until(|| self.seen().iter().any(|seen| seen == event));
    }
}

fn until(done: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The numbers of the vCPUs, from the names of the threads.
fn vcpus(pid: i32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let names = tasks.map(|task| fs::read_to_string(task.path().join("comm")).unwrap_or_default());
    let numbers = names.filter_map(|name| name.trim().strip_prefix("vcpu")?.parse().ok());
    numbers.collect()
}

#[test]
fn libvirt_starts_a_vm_and_ends_it() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let image = disk(home.path(), "disk.img", 64);
    let (socket, fifo) = (home.path().join("web-socket"), home.path().join("web-fifo"));
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let listener = UnixListener::bind(&socket).unwrap();
    let number = listener.as_raw_fd();
    let mut command = cloud_hypervisor(&home);
    command.arg("--api-socket").arg(format!("fd={number}"));
    command
        .arg("--event-monitor")
        .arg(format!("path={}", fifo.display()));
    inherit(&mut command, number);
    let events = Events::of(&fifo);
    let vmm = Vmm::start(command, &socket);
    drop(listener);

    // One connection for all that it asks, as curl keeps it.
    let headers = "Host: localhost\r\nAccept: application/json\r\n";
    let mut wire = Wire::to(&socket, headers);
    let kernel = payload().display().to_string();
    let vm = json!({
        "console": { "mode": "Pty" },
        "serial": { "mode": "Pty" },
        "cpus": { "boot_vcpus": 2, "max_vcpus": 2 },
        "memory": { "size": 64 << 20 },
        "payload": { "kernel": kernel, "cmdline": "jobs=console,plug cycles=1" },
        "disks": [{ "path": image }],
    });
    let mut does = |what: &str, body: &str| {
        assert_eq!(
            wire.ask("PUT", what, Some(body)),
            (204, Value::Null),
            "{what}"
        );
    };
    does("vm.create", &vm.to_string());
    // An address of the guest's, which it sends beside the tap.
    let card = json!({
        "id": "net_0", "ip": "192.168.77.5", "mask": "255.255.255.0",
        "mac": "02:00:00:00:00:02", "num_queues": 2,
    });
    let tap = Tap::up("ob-libvirt");
    if let Some(tap) = &tap {
        let headers = "Host: localhost\r\nContent-Type: application/json\r\n";
        let begin = Instant::now();
        let card = card.to_string();
        let added =
            Wire::to(&socket, headers).pass("PUT", "vm.add-net", Some(&card), &[tap.queue()]);
        assert_eq!(added, (204, Value::Null));
        assert!(begin.elapsed() < CARD, "{:?}", begin.elapsed());
    }
    does("vm.boot", "");
    assert_eq!(vcpus(vmm.pid()), BTreeSet::from([0, 1]));

    let (status, info) = Wire::to(&socket, headers).ask("GET", "vm.info", None);
    assert_eq!((status, &info["state"]), (200, &json!("Running")));
    assert_eq!(
        info["config"]["net"].as_array().unwrap().len(),
        usize::from(tap.is_some())
    );
    let terminal = |which: &str| {
        let path = info["config"][which]["file"].as_str().unwrap().to_owned();
        let open = File::options().read(true).write(true).open(&path);
        open.unwrap_or_else(|error| panic!("{which} {path}: {error}"))
    };
    let (mut console, mut serial) = (terminal("console"), terminal("serial"));
    hears(&mut console, "ready");
    console.write_all(b"hello\n").unwrap();
    hears(&mut console, "echo: hello");
    // What the guest has said before anybody looked.
    hears(&mut serial, "ok console");

    does("vm.pause", "");
    does("vm.resume", "");
    does("vm.reboot", "");
    events.wait_for("vm:rebooted");
    hears(&mut console, "ready");
    does("vm.shutdown", "");
    events.wait_for("vm:shutdown");
    let seen = events.seen();
    let wanted = [
        "vmm:starting",
        "vm:booting",
        "vm:booted",
        "vm:pausing",
        "vm:paused",
        "vm:resuming",
        "vm:resumed",
        "vm:rebooting",
        "vm:rebooted",
        "vm:shutdown",
    ];
    assert_eq!(seen, wanted);
    assert_eq!(
        home.processes().len(),
        1,
        "the VMM, and no daemon of the VM"
    );

    // Then it leaves the VMM alone: whoever ends that does it by a signal.
    kill(Pid::from_raw(vmm.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(vmm.end().code(), Some(143));
    assert!(socket.exists(), "it was libvirt's to remove");
    home.assert_left_clean();
}

/// Reads until this has come.
fn hears(terminal: &mut File, wanted: &str) {
    let mut heard = Vec::new();
    let end = Instant::now() + LONG;
    while !String::from_utf8_lossy(&heard).contains(wanted) {
        assert!(Instant::now() < end, "{}", String::from_utf8_lossy(&heard));
        let mut piece = [0; 64];
        let got = terminal.read(&mut piece).unwrap();
        heard.extend_from_slice(&piece[..got]);
    }
}
