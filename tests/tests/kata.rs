//! What Kata Containers asks of Cloud Hypervisor: the bodies of its client in Go and of the one in Rust as
//! they write them, every field of them, within the times that they wait.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::api::{Vmm, cloud_hypervisor};
use outboard_tests::guest::{disk, has_kvm, payload};
use outboard_tests::tap::Tap;
use outboard_tests::traces::Home;
use outboard_tests::wire::Wire;
use serde_json::{Value, json};

/// The headers of the client in Go.
const GO: &str = "Host: localhost\r\nUser-Agent: OpenAPI-Generator/1.0.0/go\r\n\
                  Accept: application/json\r\nAccept-Encoding: gzip\r\n\
                  Content-Type: application/json\r\n";

/// Ten times as long as they wait, for a test's machine may be busy: for `vm.create` and `vm.boot` together
/// (10 s), for a device (5 s), for the process to be gone (3 s), for anything else (1 s).
const BOOT: Duration = Duration::from_secs(100);
const HOTPLUG: Duration = Duration::from_secs(50);
const END: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);

fn within<T>(time: Duration, what: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = what();
    assert!(begin.elapsed() < time, "{:?}", begin.elapsed());
    done
}

/// A VMM as Kata starts it, and where it answers.
fn launched(home: &Home) -> (Vmm, PathBuf) {
    let socket = home.path().join("clh-api.sock");
    let mut command = cloud_hypervisor(home);
    command.arg("--api-socket").arg(&socket);
    command.args(["-v", "--seccomp", "false"]);
    let vmm = Vmm::start(command, &socket);
    (vmm, socket)
}

fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !done() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many times the guest has found a disk that came to work.
fn worked(serial: &Path) -> usize {
    let said = std::fs::read_to_string(serial).unwrap_or_default();
    said.matches(" works\n").count()
}

fn state(wire: &mut Wire) -> Value {
    let (status, info) = within(ANSWER, || wire.ask("GET", "vm.info", None));
    assert_eq!(status, 200);
    info["state"].clone()
}

/// Plugs a disk in, has the guest use it, and takes it out again; twice.
fn plug(wire: &mut Wire, disk: &str, serial: &Path) {
    for round in 1..=2 {
        // While one of the same image lets go of it, it is in use.
        let mut answer = (0, Value::Null);
        until(|| {
            answer = within(HOTPLUG, || wire.ask("PUT", "vm.add-disk", Some(disk)));
            answer.0 != 500
        });
        let (status, added) = answer;
        assert_eq!(status, 200, "{added}");
        // They make a path of it, which is the slot: bus and function must be 0.
        let place = added["bdf"].as_str().unwrap();
        assert!(place.starts_with("0000:00:") && place.ends_with(".0") && place.len() == 12);
        until(|| worked(serial) == round);
        let id = json!({ "id": added["id"] }).to_string();
        let removed = within(HOTPLUG, || wire.ask("PUT", "vm.remove-device", Some(&id)));
        assert_eq!(removed, (204, Value::Null));
    }
}

/// A tap's descriptors for one card.
fn queues(tap: Option<&Tap>) -> Vec<OwnedFd> {
    tap.iter().map(|tap| tap.queue()).collect()
}

/// The body of `vm.create` that the client in Go writes: each field that has a default, also where it has
/// that. `serial` is a file here, for the test to read.
fn in_go(image: &Path, serial: &Path) -> Value {
    json!({
        "console": { "iommu": false, "mode": "Off" },
        "cpus": {
            "boot_vcpus": 2, "kvm_hyperv": false, "max_vcpus": 2, "nested": true,
            "topology": {
                "cores_per_die": 2, "dies_per_package": 1, "packages": 1, "threads_per_core": 1
            }
        },
        "disks": [{
            "backing_files": false, "direct": false, "image_type": "Raw", "iommu": false,
            "num_queues": 1, "path": image, "queue_size": 128, "readonly": false, "sparse": true,
            "vhost_user": false
        }],
        "iommu": false,
        "landlock_enable": false,
        "memory": {
            "hotplug_method": "Acpi", "hugepages": false, "mergeable": false, "prefault": false,
            "shared": true, "size": 64 << 20, "thp": true
        },
        "payload": { "cmdline": "jobs=plug cycles=3", "kernel": payload() },
        "platform": { "sev_snp": false, "tdx": false },
        "pvpanic": false,
        "rng": { "iommu": false, "src": "/dev/urandom" },
        "serial": { "file": serial, "iommu": false, "mode": "File" },
        "watchdog": false
    })
}

#[test]
fn what_no_vm_can_have_is_refused_by_name() {
    let home = Home::new();
    let (vmm, socket) = launched(&home);
    let mut wire = Wire::to(&socket, GO);
    let vm = in_go(Path::new("/a.img"), Path::new("/serial"));
    for (place, value, names) in [
        (
            "/vsock",
            json!({ "cid": 3, "iommu": false, "socket": "/run/clh.sock" }),
            "vsock",
        ),
        (
            "/platform/num_pci_segments",
            json!(2),
            "platform.num_pci_segments",
        ),
        (
            "/memory/hotplug_size",
            json!(1 << 30),
            "memory.hotplug_size",
        ),
        ("/cpus/max_vcpus", json!(4), "max_vcpus"),
        ("/cpus/topology/cores_per_die", json!(4), "topology"),
    ] {
        let mut other = vm.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        other.pointer_mut(parent).unwrap()[key] = value;
        let (status, why) = wire.ask("PUT", "vm.create", Some(&other.to_string()));
        assert_eq!(status, 400, "{why}");
        assert!(why[0].as_str().unwrap().contains(names), "{why}");
    }
    drop(wire);
    kill(Pid::from_raw(vmm.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(vmm.end().code(), Some(143));
    home.assert_left_clean();
}

#[test]
fn the_client_in_go_has_its_vm() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let (vmm, socket) = launched(&home);
    let serial = home.path().join("ttyS0");
    let (image, more) = (
        disk(home.path(), "a.img", 64),
        disk(home.path(), "b.img", 16),
    );
    let mut wire = Wire::to(&socket, GO);
    let (status, pong) = within(ANSWER, || wire.ask("GET", "vmm.ping", None));
    assert_eq!((status, pong["version"].is_string()), (200, true));

    let vm = in_go(&image, &serial);
    let tap = Tap::up("ob-kata-0");
    within(BOOT, || {
        let created = wire.ask("PUT", "vm.create", Some(&vm.to_string()));
        assert_eq!(created, (204, Value::Null));
        assert_eq!(state(&mut wire), "Created");
        if let Some(tap) = &tap {
            let card = json!({
                "iommu": false, "ip": "192.168.249.1", "mac": "02:00:00:00:00:02",
                "mask": "255.255.255.0", "num_queues": 2, "offload_csum": true,
                "offload_tso": true, "offload_ufo": true, "queue_size": 256,
                "vhost_mode": "Client", "vhost_user": false
            });
            let mut wire = Wire::to(&socket, GO);
            let card = card.to_string();
            let added = wire.pass("PUT", "vm.add-net", Some(&card), &queues(Some(tap)));
            assert_eq!(added, (204, Value::Null));
        }
        assert_eq!(wire.ask("PUT", "vm.boot", None), (204, Value::Null));
        assert_eq!(state(&mut wire), "Running");
    });
    let hot = json!({
        "backing_files": false, "direct": false, "image_type": "Raw", "iommu": false,
        "num_queues": 2, "path": more, "queue_size": 1024, "readonly": false, "sparse": true,
        "vhost_user": false
    });
    plug(&mut wire, &hot.to_string(), &serial);
    for (what, after) in [("vm.pause", "Paused"), ("vm.resume", "Running")] {
        let done = within(ANSWER, || wire.ask("PUT", what, None));
        assert_eq!(done, (204, Value::Null), "{what}");
        assert_eq!(state(&mut wire), after);
    }
    within(END, || {
        assert_eq!(wire.ask("PUT", "vmm.shutdown", None), (204, Value::Null));
        assert_eq!(vmm.end().code(), Some(0));
    });
    home.assert_left_clean();
}

/// The client in Rust writes what it has nothing to say of as `null`, and its own numbers of descriptors.
#[test]
fn the_client_in_rust_has_its_vm() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let (vmm, socket) = launched(&home);
    let serial = home.path().join("ttyS0");
    let (image, more) = (
        disk(home.path(), "a.img", 64),
        disk(home.path(), "b.img", 16),
    );
    let mut wire = Wire::to(&socket, "Host: localhost\r\nAccept: */*\r\n");
    assert_eq!(within(ANSWER, || wire.ask("GET", "vmm.ping", None)).0, 200);

    let drive = |path: &Path, sparse: bool, image_type: &str| {
        json!({
            "path": path, "readonly": false, "direct": false, "iommu": false, "num_queues": 1,
            "queue_size": 128, "vhost_user": false, "vhost_socket": null,
            "rate_limiter_config": null, "id": null, "disable_io_uring": false, "pci_segment": 0,
            "sparse": sparse, "image_type": image_type
        })
    };
    let vm = json!({
        "cpus": {
            "boot_vcpus": 1, "max_vcpus": 1,
            "topology": {
                "threads_per_core": 1, "cores_per_die": 1, "dies_per_package": 1, "packages": 1
            },
            "kvm_hyperv": false, "max_phys_bits": 46, "features": { "amx": false }
        },
        "memory": {
            "size": 64 << 20, "mergeable": false, "hotplug_method": "Acpi", "shared": true,
            "hugepages": false, "prefault": false
        },
        "payload": {
            "firmware": null, "kernel": payload(), "cmdline": "jobs=plug cycles=3",
            "initramfs": null, "mrconfigid": null, "host_data": null
        },
        "disks": [drive(&image, true, "Unknown")],
        "rng": { "src": "/dev/urandom", "iommu": false },
        "fs": [],
        "serial": { "file": serial, "mode": "File", "iommu": false },
        "console": { "file": null, "mode": "Off", "iommu": false },
        "devices": [],
        "iommu": false,
        "watchdog": false,
        "platform": {
            "num_pci_segments": 1, "iommu_segments": null, "serial_number": null, "uuid": null,
            "oem_strings": null, "tdx": false
        }
    });
    let vm = serde_json::to_string_pretty(&vm).unwrap();
    let tap = Tap::up("ob-kata-1");
    within(BOOT, || {
        assert_eq!(wire.ask("PUT", "vm.create", Some(&vm)), (204, Value::Null));
        if let Some(tap) = &tap {
            let card = |fds: Value| {
                json!({
                    "ip": "192.168.249.1", "mask": "255.255.255.0", "mac": "02:00:00:00:00:02",
                    "iommu": false, "num_queues": 2, "queue_size": 256, "vhost_user": false,
                    "vhost_mode": "Client", "fds": fds
                })
                .to_string()
            };
            let mut add = |body: &str| {
                let fds = queues(Some(tap));
                wire.pass("PUT", "vm.add-net", Some(body), &fds)
            };
            let (status, why) = add(&card(json!([23, 24])));
            assert_eq!(status, 400);
            assert!(why.to_string().contains("fds is [23, 24]"), "{why}");
            assert_eq!(add(&card(json!([23]))), (204, Value::Null));
        }
        assert_eq!(wire.ask("PUT", "vm.boot", None), (204, Value::Null));
    });
    assert_eq!(state(&mut wire), "Running");
    plug(&mut wire, &drive(&more, false, "Raw").to_string(), &serial);
    within(END, || {
        assert_eq!(wire.ask("PUT", "vmm.shutdown", None), (204, Value::Null));
        assert_eq!(vmm.end().code(), Some(0));
    });
    home.assert_left_clean();
}
