//! A tap that does not exist, at the VMM: an error, unless somebody asks for it to be made.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::Path;
use std::process::Command;

use outboard_tests::api::vmm;
use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, command, has_kvm, payload};
use outboard_tests::refusal::{FAILED, home, refused, run};
use outboard_tests::tap::Tap;
use outboard_tests::traces::Home;
use serde_json::json;

/// What whoever misspelt a name has to be told.
fn told(name: &str, queues: &str) -> [String; 4] {
    [
        format!("Tap '{name}' does not exist"),
        "net0".into(),
        format!("ip tuntap add dev {name} mode tap{queues} user"),
        "create=on".into(),
    ]
}

fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Whether taps can be made here; says so loudly where they cannot.
fn has_taps(name: &str) -> bool {
    has_kvm() && Tap::up(name).is_some()
}

#[test]
fn a_misspelt_name_is_an_error_and_makes_no_tap() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let (one, two) = (told("ob-typo", ""), told("ob-typo", " multi_queue"));
    let [one, two] = [&one, &two].map(|told| told.each_ref().map(String::as_str));
    for (net, told) in [
        ("tap=ob-typo", &one),
        ("tap=ob-typo,create=off", &one),
        ("tap=ob-typo,queues=2", &two),
    ] {
        refused(&home, run(&["--net", net]), FAILED, told);
        assert!(!exists("ob-typo"), "{net} made it");
    }
    let text = "kernel = 'kernel'\nserial = 'off'\n[[net]]\ntap = 'ob-typo'\n";
    fs::write(home.path().join("vm.toml"), text).unwrap();
    let mut file = Command::new(daemon("outboard"));
    file.args(["run", "vm.toml"]);
    refused(&home, file, FAILED, &one);
    assert!(!exists("ob-typo"), "the file made it");
}

#[test]
fn a_tap_that_is_asked_for_is_there_while_the_vm_is() {
    if !has_taps("ob-made") {
        return;
    }
    let home = Home::new();
    let flags = ["--net", "tap=ob-made,create=on"];
    let text = "[[net]]\ntap = 'ob-made'\ncreate = true\n";
    fs::write(home.path().join("vm.toml"), text).unwrap();
    for args in [&flags[..], &["vm.toml"]] {
        let mut vm = command("jobs=hello,spin");
        vm.args(args);
        home.adopt(&mut vm);
        let mut guest = Guest::start(vm);
        guest.expect("hello");
        assert!(exists("ob-made"), "{args:?}");
        drop(guest);
        home.assert_left_clean();
        assert!(!exists("ob-made"), "{args:?}: left behind");
    }
}

/// Clients of Cloud Hypervisor's API expect the tap to be made; ours say what they want.
#[test]
fn the_api_makes_a_tap_as_its_clients_expect() {
    if !has_taps("ob-api-2") {
        return;
    }
    let home = Home::new();
    let vmm = vmm(&home);
    let created = vmm.put(
        "vm.create",
        &json!({
            "payload": { "kernel": payload(), "cmdline": "jobs=spin" },
            "memory": { "size": 64 << 20 },
            "console": { "mode": "Off" },
        }),
    );
    assert_eq!(created.0, 204, "{created:?}");
    vmm.does("vm.boot");
    let (status, why) = vmm.put(
        "outboard.add-device",
        &json!({ "net": { "tap": "ob-api-2" } }),
    );
    assert_eq!(status, 500, "{why}");
    for part in ["Tap 'ob-api-2' does not exist", "create=on"] {
        assert!(why.to_string().contains(part), "{why}");
    }
    assert!(!exists("ob-api-2"), "it is made without being asked for");
    let (status, added) = vmm.put("vm.add-net", &json!({ "tap": "ob-api-2" }));
    assert_eq!(status, 200, "{added}");
    assert!(exists("ob-api-2"));
    vmm.does("vmm.shutdown");
    assert!(vmm.end().success());
    home.assert_left_clean();
    assert!(!exists("ob-api-2"), "left behind");
}
