//! Cloud Hypervisor's API: its documented requests, and devices that come and go in its words.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::api::{Vmm, cloud_hypervisor};
use outboard_tests::guest::{disk, has_kvm, payload};
use outboard_tests::tap::Tap;
use outboard_tests::traces::Home;
use serde_json::{Value, json};

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// The requests of docs/api.md of Cloud Hypervisor (CC-BY-4.0), as they are printed there, but for the
/// paths of kernel and image and that of the socket, which are this machine's.
const DOCUMENTED: [(&str, &str); 5] = [
    (
        "create",
        r#"curl --unix-socket /tmp/cloud-hypervisor.sock -i \
     -X PUT 'http://localhost/api/v1/vm.create'  \
     -H 'Accept: application/json'               \
     -H 'Content-Type: application/json'         \
     -d '{
         "cpus":{"boot_vcpus": 4, "max_vcpus": 4},
         "payload":{"kernel":"/opt/clh/kernel/vmlinux-virtio-fs-virtio-iommu", "cmdline":"console=ttyS0 console=hvc0 root=/dev/vda1 rw"},
         "disks":[{"path":"/opt/clh/images/focal-server-cloudimg-amd64.raw"}],
         "rng":{"src":"/dev/urandom"},
         "net":[{"ip":"192.168.10.10", "mask":"255.255.255.0", "mac":"12:34:56:78:90:01"}]
         }'"#,
    ),
    (
        "boot",
        "curl --unix-socket /tmp/cloud-hypervisor.sock -i -X PUT 'http://localhost/api/v1/vm.boot'",
    ),
    (
        "info",
        r"curl --unix-socket /tmp/cloud-hypervisor.sock -i \
     -X GET 'http://localhost/api/v1/vm.info' \
     -H 'Accept: application/json'",
    ),
    (
        "reboot",
        "curl --unix-socket /tmp/cloud-hypervisor.sock -i -X PUT 'http://localhost/api/v1/vm.reboot'",
    ),
    (
        "shutdown",
        "curl --unix-socket /tmp/cloud-hypervisor.sock -i -X PUT 'http://localhost/api/v1/vm.shutdown'",
    ),
];

/// Runs a documented request; its status and body.
fn documented(home: &Home, which: &str) -> (u16, String) {
    let (_, text) = DOCUMENTED.iter().find(|(name, _)| *name == which).unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let text = text
        .replace("/tmp/cloud-hypervisor.sock", &path("api.sock"))
        .replace(
            "/opt/clh/kernel/vmlinux-virtio-fs-virtio-iommu",
            &payload().display().to_string(),
        )
        .replace(
            "/opt/clh/images/focal-server-cloudimg-amd64.raw",
            &path("disk.raw"),
        );
    let output = Command::new("bash").args(["-c", &text]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer = String::from_utf8(output.stdout).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
fn the_documented_requests_do_what_is_documented() {
    // Whether taps can be made here.
    if !has_kvm() || Tap::up("ob-api-0").is_none() {
        return;
    }
    let home = Home::new();
    disk(home.path(), "disk.raw", 64);
    let events = home.path().join("events");
    let made = Command::new("mkfifo").arg(&events).status().unwrap();
    assert!(made.success());
    let reader = {
        let events = events.clone();
        std::thread::spawn(move || {
            let mut text = String::new();
            File::open(events)
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            text
        })
    };
    let socket = home.path().join("api.sock");
    let mut command = cloud_hypervisor(&home);
    command.arg("--api-socket").arg(&socket);
    command.arg(format!("--event-monitor=path={}", events.display()));
    let vmm = Vmm::start(command, &socket);
    assert_eq!(vmm.ask("GET", "vmm.ping").1["pid"], vmm.pid());

    assert_eq!(documented(&home, "create"), (204, String::new()));
    assert_eq!(documented(&home, "boot"), (204, String::new()));
    let told = |vmm: &Vmm| {
        let (status, body) = documented(&home, "info");
        assert_eq!(status, 200);
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(told, vmm.ask("GET", "vm.info").1);
        told
    };
    let info = told(&vmm);
    assert_eq!(info["state"], "Running");
    assert_eq!(info["memory_actual_size"], 512 << 20);
    assert_eq!(info["config"]["cpus"]["boot_vcpus"], 4);
    assert_eq!(info["config"]["net"][0]["mac"], "12:34:56:78:90:01");
    let tree = &info["device_tree"];
    assert_eq!(tree["_virtio-pci-disk0"]["pci_bdf"], "0000:00:08.0");
    assert_eq!(tree["net0"]["parent"], "_virtio-pci-net0");
    let address = Command::new("ip")
        .args(["-4", "-o", "addr"])
        .output()
        .unwrap();
    let address = String::from_utf8(address.stdout).unwrap();
    assert!(
        address
            .lines()
            .any(|line| line.contains("vmtap") && line.contains("192.168.10.10/24")),
        "{address}"
    );
    let (status, counters) = vmm.ask("GET", "vm.counters");
    assert_eq!(status, 200);
    for device in ["disk0", "net0"] {
        assert!(counters[device].is_object(), "{counters}");
    }
    for vcpu in 0..4 {
        assert!(counters[format!("vcpu{vcpu}")].is_object(), "{counters}");
        assert!(threads(vmm.pid()).contains(&format!("vcpu{vcpu}")));
    }

    assert_eq!(documented(&home, "reboot"), (204, String::new()));
    assert_eq!(told(&vmm)["state"], "Running");
    vmm.does("vm.pause");
    assert_eq!(told(&vmm)["state"], "Paused");
    vmm.does("vm.resume");
    // Twice: what is shut down can be booted again.
    for _ in 0..2 {
        assert_eq!(documented(&home, "shutdown"), (204, String::new()));
        let info = told(&vmm);
        assert_eq!(
            (&info["state"], info.get("device_tree")),
            (&json!("Created"), None)
        );
        assert_eq!(vmm.ask("PUT", "vm.pause").0, 405);
        assert_eq!(documented(&home, "boot"), (204, String::new()));
    }
    vmm.does("vm.delete");
    assert_eq!(vmm.ask("GET", "vm.info").0, 404);
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));

    assert_told(&reader.join().unwrap());
    home.assert_left_clean();
}

/// The event stream of what the documented requests do.
fn assert_told(text: &str) {
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let names: Vec<_> = stream
        .map(|event| {
            let event = event.unwrap();
            assert!(event["timestamp"]["secs"].is_u64() && event["timestamp"]["nanos"].is_u64());
            assert!(event.get("properties").is_some());
            format!(
                "{}:{}",
                event["source"].as_str().unwrap(),
                event["event"].as_str().unwrap()
            )
        })
        .collect();
    let round = ["vm:booting", "vm:booted"];
    let wanted = [
        &["vmm:starting"][..],
        &round,
        &["vm:rebooting", "vm:rebooted"],
        &["vm:pausing", "vm:paused", "vm:resuming", "vm:resumed"],
        &["vm:shutdown"],
        &round,
        &["vm:shutdown"],
        &round,
        &["vm:shutdown", "vm:deleted", "vmm:shutdown"],
    ]
    .concat();
    assert_eq!(names, wanted);
}

/// A disk's daemon that answers nothing cannot be paused; the end of the VM cuts the wait for it short.
#[test]
fn a_pause_that_is_undone_is_told() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let (socket, events) = (home.path().join("api.sock"), home.path().join("events"));
    let mut command = cloud_hypervisor(&home);
    command.arg("--api-socket").arg(&socket);
    command.arg(format!("--event-monitor=path={}", events.display()));
    let vmm = Vmm::start(command, &socket);
    let log = home.path().join("ttyS0");
    let created = vmm.put(
        "vm.create",
        &json!({
            "payload": { "kernel": payload(), "cmdline": "jobs=stuck" },
            "memory": { "size": 64 << 20 },
            "serial": { "mode": "File", "file": log },
            "disks": [{ "path": disk(home.path(), "a.img", 64) }],
        }),
    );
    assert_eq!(created, (204, Value::Null));
    vmm.does("vm.boot");
    until(|| said(&log).contains("stop the daemon now"));
    let devices = vmm.ask("GET", "outboard.info").1["devices"].clone();
    let mut devices = devices.as_array().unwrap().iter();
    let disk = devices.find(|device| device["kind"] == "block").unwrap();
    let pid = Pid::from_raw(i32::try_from(disk["pid"].as_i64().unwrap()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::scope(|scope| {
        let pause = scope.spawn(|| vmm.ask("PUT", "vm.pause"));
        until(|| said(&events).contains("\"pausing\""));
        vmm.does("vm.shutdown");
        let (status, why) = pause.join().unwrap();
        assert_eq!(status, 500, "{why}");
    });
    let told = said(&events);
    let at = |event: &str| told.find(&format!("\"{event}\"")).unwrap();
    assert!(at("pausing") < at("resumed") && at("resumed") < at("shutdown"));
    assert!(!told.contains("\"paused\""), "{told}");
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));
}

/// Names of a process's threads.
fn threads(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .map(|task| fs::read_to_string(task.path().join("comm")).unwrap_or_default())
        .map(|name| name.trim().to_owned())
        .collect()
}

#[test]
fn devices_come_and_go_in_cloud_hypervisors_words() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let vmm = Vmm::called_cloud_hypervisor(&home);
    let image = |name| disk(home.path(), name, 64);
    let (first, more, log) = (image("a.img"), image("b.img"), home.path().join("ttyS0"));
    let created = vmm.put(
        "vm.create",
        &json!({
            "payload": { "kernel": payload(), "cmdline": "jobs=plug cycles=1" },
            "memory": { "size": 64 << 20 },
            "serial": { "mode": "File", "file": log },
            "console": { "mode": "Pty" },
        }),
    );
    assert_eq!(created, (204, Value::Null));
    assert_eq!(
        vmm.put("vm.create", &json!({ "payload": { "kernel": "/k" } }))
            .0,
        409
    );
    // Cold, then hot.
    let cold = json!({ "path": first, "id": "_disk0", "num_queues": 1, "iommu": false });
    assert_eq!(vmm.put("vm.add-disk", &cold), (204, Value::Null));
    vmm.does("vm.boot");
    assert_eq!(vmm.ask("PUT", "vm.boot").0, 409);
    until(|| said(&log).contains("ready for devices"));
    let pty = &vmm.ask("GET", "vm.info").1["config"]["console"]["file"];
    assert!(
        Path::new(pty.as_str().unwrap()).starts_with("/dev/pts"),
        "{pty}"
    );
    let consoles = &vmm.ask("GET", "outboard.info").1["consoles"];
    let told = json!([{ "port": "console0", "path": pty, "pty": true }]);
    assert_eq!(*consoles, told);

    let hot = json!({ "path": more, "id": "more" });
    for (body, status, part) in [
        (json!({ "path": more, "id": "_disk0" }), 409, "_disk0"),
        (
            json!({ "path": more, "rate_limiter_config": {} }),
            400,
            "rate_limiter_config",
        ),
        (json!({ "path": more, "fancy": 1 }), 400, "fancy"),
        (json!({ "path": "/none.img" }), 500, "none.img"),
    ] {
        let (answered, why) = vmm.put("vm.add-disk", &body);
        assert_eq!(answered, status, "{why}");
        assert!(why.to_string().contains(part), "{why}");
    }
    let answer = json!({ "id": "more", "bdf": "0000:00:09.0" });
    assert_eq!(vmm.put("vm.add-disk", &hot), (200, answer));
    until(|| said(&log).contains("slot 9 works"));
    let disks = |vmm: &Vmm| vmm.ask("GET", "vm.info").1["config"]["disks"].clone();
    assert_eq!(disks(&vmm)[1]["id"], "more");
    let metrics = metrics(home.path());
    assert!(
        metrics.contains("outboard_device_connected{device=\"more\""),
        "{metrics}"
    );
    assert!(metrics.contains("outboard_vm_state{vm=\"vmm-"), "{metrics}");

    assert_eq!(vmm.put("vm.remove-device", &json!({ "id": "none" })).0, 404);
    // The guest powers off when it has let go of it, and the VMM goes with it.
    assert_eq!(
        vmm.put("vm.remove-device", &json!({ "id": "more" })),
        (204, Value::Null)
    );
    assert_eq!(vmm.end().code(), Some(0));
    assert!(said(&log).contains("ok plug"));
    home.assert_left_clean();
}

/// A guest may eject what nobody has asked it to. It is out of the VM for good then, and the VM boots again.
#[test]
fn a_disk_that_the_guest_ejects_by_itself_is_gone() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let vmm = Vmm::called_cloud_hypervisor(&home);
    let log = home.path().join("ttyS0");
    let created = vmm.put(
        "vm.create",
        &json!({
            "payload": { "kernel": payload(), "cmdline": "jobs=let-go,spin" },
            "memory": { "size": 64 << 20 },
            "serial": { "mode": "File", "file": log },
            "disks": [{ "path": disk(home.path(), "a.img", 64) }],
        }),
    );
    assert_eq!(created, (204, Value::Null));
    vmm.does("vm.boot");
    let disks = || vmm.ask("GET", "vm.info").1["config"]["disks"].clone();
    let count = || disks().as_array().map_or(0, Vec::len);
    until(|| said(&log).contains("let go") && count() == 0);
    let other = json!({ "path": disk(home.path(), "b.img", 64) });
    let (status, answer) = vmm.put("vm.add-disk", &other);
    assert_eq!((status, &answer["id"]), (200, &json!("disk0")), "{answer}");
    assert_eq!(count(), 1);
    vmm.does("vm.shutdown");
    vmm.does("vm.boot");
    vmm.does("vmm.shutdown");
    assert_eq!(vmm.end().code(), Some(0));
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn until(done: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn metrics(home: &Path) -> String {
    let output = Command::new("curl")
        .args(["-s", "--unix-socket"])
        .arg(home.join("api.sock"))
        .arg("http://localhost/metrics")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
