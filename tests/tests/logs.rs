//! What a VM and its daemons say is kept, is bounded, and is named in every error about a daemon.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::guest::{disk, has_kvm, payload};
use outboard_tests::traces::Home;

/// A folder with a kernel and a disk.
fn home() -> Home {
    for program in ["outboard-block", "outboard-console"] {
        daemon(program);
    }
    let home = Home::new();
    fs::copy(payload(), home.path().join("kernel")).unwrap();
    disk(home.path(), "disk.img", 64);
    home
}

/// `outboard run` in it, with a guest that says hello and ends.
fn run(home: &Home, args: &[&str]) -> Command {
    let mut run = Command::new(daemon("outboard"));
    run.args(["run", "--kernel", "kernel", "--cmdline", "jobs=hello"]);
    run.args(["--memory", "64M", "--serial", "file=serial"])
        .args(args);
    run.env_remove("RUST_LOG").stdin(Stdio::null());
    home.adopt(&mut run);
    run
}

fn output(home: &Home, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = run(home, args).output().unwrap();
    home.assert_left_clean();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Where logs are when nobody says otherwise.
fn usual(home: &Home, name: &str) -> PathBuf {
    home.path().join("state/outboard/vm").join(name)
}

fn read(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| format!("{}: {why}", path.display()))
}

#[test]
fn logs_outlive_the_vm_and_are_for_their_owner_only() {
    if !has_kvm() {
        return;
    }
    let home = home();
    for _ in 0..2 {
        let (code, said) = output(&home, &["--disk", "path=disk.img"]);
        assert_eq!((code, &*said), (Some(0), ""));
    }
    for (name, parts) in [
        (
            "vmm.log",
            ["-- VM 'vm' begins", "-- the VM ended: powered off"],
        ),
        (
            "disk0.log",
            ["outboard-block --path=disk.img", "exit status: 0"],
        ),
        (
            "ttyS0.log",
            ["outboard-console --name=ttyS0", "exit status: 0"],
        ),
    ] {
        let log = read(&usual(&home, name));
        for part in parts {
            // The second run goes on where the first has ended.
            assert_eq!(log.matches(part).count(), 2, "{name}: {part} in: {log}");
        }
        let mode = usual(&home, name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = usual(&home, "").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn an_error_about_a_daemon_names_its_log() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let (code, said) = output(&home, &["--disk", "path=no-such.img"]);
    let log = usual(&home, "disk0.log");
    assert_eq!(code, Some(1), "{said}");
    let named = format!("its log is {}", log.display());
    assert!(said.contains(&named), "{said}");
    assert!(read(&log).contains("no-such.img"));
    assert!(read(&usual(&home, "vmm.log")).contains("no-such.img"));

    // Without logs none is named, and none is there: the check above can fail.
    let home = self::home();
    let (code, said) = output(&home, &["--disk", "path=no-such.img", "--log-dir", "off"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("its log is"), "{said}");
    assert!(!home.path().join("state").exists());
}

#[test]
fn the_level_is_handed_on_to_daemons() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let disk = ["--disk", "path=disk.img"];
    output(&home, &disk);
    let quiet = read(&usual(&home, "disk0.log"));
    assert!(!quiet.contains(" DEBUG "), "{quiet}");
    let asked = [&disk[..], &["--log-level", "debug"]].concat();
    let mut run = run(&home, &asked);
    // The flag is stronger.
    let (_, said) = run
        .env("RUST_LOG", "error")
        .output()
        .map(|output| {
            (
                output.status,
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        })
        .unwrap();
    let log = read(&usual(&home, "disk0.log"));
    assert!(log.contains(" DEBUG "), "{log}");
    assert!(said.contains("DEBUG") && said.contains("disk0"), "{said}");
}

#[test]
fn a_daemon_that_never_stops_talking_fills_no_disk() {
    if !has_kvm() {
        return;
    }
    let home = home();
    fs::write(home.path().join("talk"), "#!/bin/sh\nexec yes gibberish\n").unwrap();
    let script = fs::Permissions::from_mode(0o755);
    fs::set_permissions(home.path().join("talk"), script).unwrap();
    let device = ["--device", "vhost-user,id=rng,spawn=./talk {fd}"];
    let mut vm = run(&home, &device).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    kill(Pid::from_raw(vm.id().cast_signed()), Signal::SIGTERM).unwrap();
    vm.wait().unwrap();
    home.assert_left_clean();
    let log = read(&usual(&home, "rng0.log"));
    assert!(log.contains("gibberish") && log.contains("were left out"));
    // Some hundred lines a second of the millions that it said.
    assert!(log.lines().count() < 2000, "{}", log.lines().count());
}

#[test]
fn a_folder_of_ones_own() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let (code, said) = output(&home, &["--log-dir", "logs", "--name", "mine"]);
    assert_eq!((code, &*said), (Some(0), ""));
    let log = read(&home.path().join("logs/mine/vmm.log"));
    assert!(log.contains("VM 'mine' begins"), "{log}");
    assert!(!home.path().join("state").exists());

    // One that cannot be had is an error, the usual one a warning.
    let (code, said) = output(&home, &["--log-dir", "disk.img"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("disk.img/vm; choose another"), "{said}");
    fs::write(home.path().join("state"), "in the way").unwrap();
    let (code, said) = output(&home, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("No logs are kept").count(), 1, "{said}");
}
