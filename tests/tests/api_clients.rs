//! How Cloud Hypervisor's clients start it, and the descriptors that they hand over.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use outboard_tests::api::{Vmm, cloud_hypervisor, inherit};
use outboard_tests::daemons::daemon;
use outboard_tests::guest::{has_kvm, payload};
use outboard_tests::tap::Tap;
use outboard_tests::traces::Home;
use serde_json::{Value, json};

/// What libvirt does: the taps of a VM that is described come as descriptors, before it boots.
#[test]
fn the_descriptors_of_a_tap_become_the_guests_card() {
    if !has_kvm() {
        return;
    }
    let Some(tap) = Tap::up("ob-api-1") else {
        return;
    };
    let home = Home::new();
    let vmm = Vmm::called_cloud_hypervisor(&home);
    let log = home.path().join("ttyS0");
    let created = vmm.put(
        "vm.create",
        &json!({
            "payload": { "kernel": payload(), "cmdline": "jobs=net requests=32" },
            "memory": { "size": 64 << 20, "shared": true },
            "serial": { "mode": "File", "file": log },
            "console": { "mode": "Off" },
        }),
    );
    assert_eq!(created, (204, Value::Null));
    tap.echo();
    let net = json!({ "id": "net_0", "mac": "02:00:00:00:00:02", "num_queues": 2 });
    let added = vmm.pass("PUT", "vm.add-net", &net, &[tap.queue()]);
    assert_eq!(added, (204, Value::Null));
    vmm.does("vm.boot");
    assert_eq!(vmm.end().code(), Some(0));
    let said = fs::read_to_string(log).unwrap();
    assert!(said.contains("ok net"), "{said}");
    home.assert_left_clean();
}

#[test]
fn descriptors_that_nobody_takes_are_closed() {
    let home = Home::new();
    let vmm = Vmm::called_cloud_hypervisor(&home);
    let some = |count| (0..count).map(|_| OwnedFd::from(File::open("/proc/self/exe").unwrap()));
    let fds = |count| some(count).collect::<Vec<_>>();
    let net = json!({ "id": "x" });
    // There is no VM yet: refused, whatever it brings.
    let refused = |method, what, body: &Value, count, status, part: &str| {
        let (answered, why) = vmm.pass(method, what, body, &fds(count));
        assert_eq!(answered, status, "{why}");
        assert!(why.to_string().contains(part), "{why}");
        vmm.settles_at(0);
    };
    refused("PUT", "vm.add-net", &net, 1, 404, "no VM");
    let body = json!({ "payload": { "kernel": "/k" } });
    assert_eq!(vmm.put("vm.create", &body).0, 204);
    refused("PUT", "vm.add-net", &net, 33, 400, "More than 32");
    refused(
        "PUT",
        "vm.add-net",
        &json!({ "iommu": true }),
        2,
        400,
        "iommu",
    );
    refused(
        "PUT",
        "vm.add-net",
        &json!({ "num_queues": 4 }),
        3,
        400,
        "3 descriptors",
    );
    refused(
        "PUT",
        "vm.add-disk",
        &json!({ "path": "a" }),
        1,
        400,
        "takes none",
    );
    refused("PUT", "vm.boot", &Value::Null, 2, 400, "takes none");
    refused("GET", "vmm.ping", &Value::Null, 1, 400, "takes none");
    refused("PUT", "vm.nonsense", &Value::Null, 32, 404, "not known");
    // Those that are taken are held, and seen as a leak would be.
    assert_eq!(
        vmm.pass(
            "PUT",
            "vm.add-net",
            &json!({ "id": "x", "num_queues": 64 }),
            &fds(32)
        )
        .0,
        204
    );
    vmm.settles_at(32);
    assert_eq!(vmm.put("vm.remove-device", &net).0, 204);
    vmm.settles_at(0);
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));
    home.assert_left_clean();
}

/// The client is not at fault where the VMM may open no more files.
#[test]
fn descriptors_that_find_no_room_are_no_mistake_of_the_client() {
    let home = Home::new();
    let vmm = Vmm::called_cloud_hypervisor(&home);
    let pass = || {
        let one = OwnedFd::from(File::open("/proc/self/exe").unwrap());
        let (status, why) = vmm.pass("PUT", "vm.add-net", &json!({ "id": "x" }), &[one]);
        (status, why.to_string())
    };
    let mut answer = pass();
    assert!(answer.1.contains("no VM"), "{answer:?}");
    let end = Instant::now() + Duration::from_secs(20);
    // Until it has closed the last connection.
    while !answer.1.contains("ulimit -n") {
        assert!(Instant::now() < end, "{answer:?}");
        may_open_one_more(vmm.pid());
        answer = pass();
    }
    assert_eq!(answer.0, 500, "{answer:?}");
    vmm.settles_at(0);
}

/// Leaves a process room for one more descriptor.
fn may_open_one_more(pid: i32) {
    let open = |number: u32| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
    let limit = (0..).filter(|number| !open(*number)).nth(1).unwrap();
    let mut prlimit = Command::new("prlimit");
    prlimit.args([format!("--pid={pid}"), format!("--nofile={limit}:")]);
    assert!(prlimit.status().unwrap().success());
}

/// What libvirt does at the start: it asks for the version, and hands a listening socket over.
#[test]
fn it_is_started_as_cloud_hypervisor_is() {
    let home = Home::new();
    let version = cloud_hypervisor(&home).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let number = version.strip_prefix("cloud-hypervisor v").unwrap();
    assert!(
        number.split('.').next().unwrap().parse::<u32>().unwrap() > 30,
        "{version}"
    );

    let socket = home.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let (log, events) = (home.path().join("log"), home.path().join("events"));
    let mut command = cloud_hypervisor(&home);
    let number = listener.as_raw_fd();
    command.arg("--api-socket").arg(format!("fd={number}"));
    command
        .arg("--event-monitor")
        .arg(format!("path={}", events.display()));
    command.arg("--log-file").arg(&log).arg("-v");
    inherit(&mut command, number);
    let vmm = Vmm::start(command, &socket);
    drop(listener);
    let (status, pong) = vmm.ask("GET", "vmm.ping");
    assert_eq!(status, 200);
    assert!(pong["version"].is_string() && pong["build_version"].is_string());
    assert_eq!(vmm.ask("POST", "vmm.ping").0, 405);
    let (status, document) = vmm.ask("GET", "openapi.json");
    assert_eq!(
        (status, &document["paths"]["/vm.boot"]["put"].is_object()),
        (200, &true)
    );
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));
    assert!(socket.exists(), "it was not ours to remove");
    assert!(
        fs::read_to_string(&log).unwrap().contains("INFO"),
        "{}",
        fs::read_to_string(&log).unwrap()
    );
    assert!(
        fs::read_to_string(&events).unwrap().ends_with("}\n\n"),
        "{}",
        fs::read_to_string(&events).unwrap()
    );

    // What is no socket is refused, and so is a path where somebody listens.
    let refused = |words: &[&str]| {
        let output = cloud_hypervisor(&home).args(words).output().unwrap();
        assert_ne!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--api-socket", "fd=99"]).contains("fd=99"));
    let twice = UnixListener::bind(home.path().join("twice")).unwrap();
    let number = twice.as_raw_fd();
    let mut command = cloud_hypervisor(&home);
    command.args(["--api-socket", "--event-monitor"].map(|flag| format!("{flag}=fd={number}")));
    inherit(&mut command, number);
    let why = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(why.contains("given for something else already"), "{why}");
    assert!(refused(&[]).contains("--api-socket"));
    let other = home.path().join("other");
    let _taken = UnixListener::bind(&other).unwrap();
    assert!(refused(&["--api-socket", other.to_str().unwrap()]).contains("in use"));
    // What a killed one has left is in nobody's way.
    let stale: PathBuf = home.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let mut command = cloud_hypervisor(&home);
    let quiet = home.path().join("quiet");
    command.arg("--api-socket").arg(&stale);
    command.arg("--log-file").arg(&quiet);
    let vmm = Vmm::start(command, &stale);
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));
    assert!(!stale.exists());
    assert_eq!(fs::read_to_string(&quiet).unwrap(), "", "-v was not given");
}

/// What README says of it.
#[test]
fn an_empty_vmm_of_ours_has_its_vm_listed_under_its_own_name() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let socket = home.path().join("web.sock");
    let mut command = Command::new(daemon("outboard"));
    command.args(["vmm", "--name", "web", "--log-dir", "logs"]);
    command.arg("--api-socket").arg(&socket);
    home.adopt(&mut command);
    let vmm = Vmm::start(command, &socket);
    let listed = || {
        let mut list = Command::new(daemon("outboard"));
        list.arg("list");
        home.adopt(&mut list);
        let output = list.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().contains("web")
    };
    assert!(!listed(), "there is no VM yet");
    let created = vmm.put(
        "vm.create",
        &json!({
            "payload": { "kernel": payload(), "cmdline": "jobs=spin" },
            "memory": { "size": 64 << 20 },
            "serial": { "mode": "Off" },
            "console": { "mode": "Off" },
        }),
    );
    assert_eq!(created, (204, Value::Null));
    vmm.does("vm.boot");
    assert!(listed());
    vmm.does("vm.delete");
    assert!(!listed());
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));
    assert!(home.path().join("logs/web/vmm.log").exists());
    home.assert_left_clean();
}
