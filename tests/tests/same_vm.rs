//! The same device or VM by another way: a daemon started by hand, a description from a file.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, command, disk, has_kvm, word};
use outboard_tests::traces::Home;

#[test]
fn a_daemon_started_by_hand_serves_a_device_of_any_kind() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    disk(home.path(), "disk.img", 64);
    let mut block = Command::new(daemon("outboard-block"));
    block.args(["--socket", "block.sock", "--path", "disk.img"]);
    home.adopt(&mut block);
    let mut block = block.stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !home.path().join("block.sock").exists() {
        assert!(Instant::now() < end, "the daemon does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Twice: the daemon is not the VM's and outlives it.
    for _ in 0..2 {
        let mut vm = command("jobs=block requests=64");
        vm.args(["--device", "vhost-user,id=block,socket=block.sock,addr=8"]);
        home.adopt(&mut vm);
        Guest::start(vm).end().passed(&["block"]);
        assert_eq!(block.try_wait().unwrap(), None, "the daemon goes on");
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(block.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(block.wait().unwrap().code(), Some(0));
    assert!(!home.path().join("block.sock").exists());
    home.assert_left_clean();
}

#[test]
fn what_a_dry_run_prints_is_the_same_vm() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    disk(home.path(), "disk.img", 64);
    let mut dry = command("jobs=block requests=64");
    dry.args(["--name", "twin", "--cpus", "2", "--serial", "file=log"])
        .args(["--disk", "path=disk.img,serial=abc"])
        .args(["--net", "tap=outboard-dry", "--console", "off", "--dry-run"]);
    home.adopt(&mut dry);
    let printed = dry.output().unwrap();
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");

    // Kept elsewhere, it still means the same, and prints the same.
    let other = home.path().join("elsewhere");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("vm.toml"), &printed.stdout).unwrap();
    let from_file = |more: &[&str]| {
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "elsewhere/vm.toml"]).args(more);
        home.adopt(&mut run);
        run.output().unwrap()
    };
    let again = from_file(&["--dry-run"]);
    assert_eq!(
        String::from_utf8_lossy(&again.stdout),
        String::from_utf8_lossy(&printed.stdout),
        "{again:?}"
    );

    // Without the card, which not everybody may have: it runs, and does what the flags asked.
    let text = String::from_utf8(printed.stdout).unwrap();
    let (before, card) = text.split_once("[[net]]").unwrap();
    let after = card.find("\n[").map_or("", |next| &card[next..]);
    fs::write(other.join("vm.toml"), format!("{before}{after}")).unwrap();
    let ran = from_file(&[]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    assert!(log.contains("ok block"), "{log}");
    let bytes = fs::read(home.path().join("disk.img")).unwrap();
    assert_eq!(bytes[..8], word(0, 0, 1).to_le_bytes());
    home.assert_left_clean();
}
