//! The whole command and its daemons: who outlives whom, and what people are told.
//!
//! The guest says that it lives and halts; it never touches its devices. Where `/dev/kvm` cannot be used
//! these tests say so on standard error and pass.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGINT, SIGKILL, SIGSTOP, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::guest::has_kvm;
use outboard_tests::kernel::pvh;
use tempfile::TempDir;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);
/// What a person is promised, even when a daemon hangs.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Says `!` on ttyS0 and halts for ever:
/// mov dx, 0x3f8; mov al, '!'; out dx, al; cli; hlt; jmp $-1
const HALTED: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, 0xfa, 0xf4, 0xeb, 0xfd,
];

/// The command itself, with the daemons beside it.
fn outboard() -> PathBuf {
    daemon("outboard-block");
    daemon("outboard-console");
    daemon("outboard")
}

/// A VM with a disk, a console and a serial port, each in a process of its own.
struct Vm {
    child: Child,
    dir: TempDir,
}

impl Vm {
    /// Starts it and waits until its guest runs.
    fn start(disk_keys: &str) -> Self {
        let mut vm = Self::spawn(&outboard(), "disk.img", disk_keys);
        until("the guest runs", || {
            assert_eq!(vm.child.try_wait().unwrap(), None, "{}", vm.said());
            std::fs::read(vm.dir.path().join("serial")).is_ok_and(|bytes| bytes == b"!")
        });
        vm
    }

    fn spawn(outboard: &Path, image: &str, disk_keys: &str) -> Self {
        Self::spawn_with(outboard, image, disk_keys, true)
    }

    fn spawn_with(outboard: &Path, image: &str, disk_keys: &str, serial: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kernel"), pvh(HALTED)).unwrap();
        File::create(dir.path().join("disk.img"))
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let serial = if serial {
            format!("file={}", path("serial"))
        } else {
            "off".to_owned()
        };
        let child = Command::new(outboard)
            .args(["run", "--memory", "64M", "--kernel", &path("kernel")])
            .args(["--serial", &serial])
            .args([&format!("--console=file={}", path("console"))])
            .args(["--disk", &format!("path={}{disk_keys}", path(image))])
            .env("XDG_RUNTIME_DIR", dir.path().join("run"))
            .env("XDG_STATE_HOME", dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn signal(&self, signal: Signal) {
        kill(pid(self.child.id()), signal).unwrap();
    }

    /// The daemons of this VM, wherever they hang in the process tree: they name its folder.
    fn daemons(&self) -> Vec<(u32, String)> {
        let folder = self.dir.path().display().to_string();
        let of_ours = |pid: u32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            (line.contains("outboard-") && line.contains(&folder)).then_some((pid, line))
        };
        let entries = std::fs::read_dir("/proc").unwrap();
        entries
            .filter_map(|entry| of_ours(entry.ok()?.file_name().to_str()?.parse().ok()?))
            .collect()
    }

    fn disk_daemon(&self) -> Pid {
        let daemons = self.daemons();
        pid(daemons
            .iter()
            .find(|(_, line)| line.contains("outboard-block"))
            .expect("the disk's daemon")
            .0)
    }

    fn wait(&mut self, time: Duration) -> ExitStatus {
        let end = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "the VM does not end; it said: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> String {
        let mut text = String::new();
        File::open(self.dir.path().join("stderr"))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    /// Its owner answers, as it does once the guest runs.
    fn runs(&self) -> bool {
        let files = self.files();
        let socket = files.iter().find(|file| file.ends_with("api.sock"));
        let Some(mut vm) = socket.and_then(|path| UnixStream::connect(path).ok()) else {
            return false;
        };
        let ask = "GET /api/v1/vm.info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        vm.write_all(ask.as_bytes()).is_ok()
            && vm.read_to_string(&mut answer).is_ok()
            && answer.contains("Running")
    }

    /// Nothing is left of it: no daemon, no file of its own.
    fn leaves_nothing(&self) {
        until("the daemons are gone", || self.daemons().is_empty());
        let left = self.files();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Files of its own, sockets among them.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = walk(&self.dir.path().join("run"));
        files.retain(|path| !path.is_dir());
        files
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (daemon, _) in self.daemons() {
            let _ = kill(pid(daemon), SIGKILL);
        }
    }
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .flat_map(|path| [vec![path.clone()], walk(&path)].concat())
        .collect()
}

#[track_caller]
fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_device_is_a_process_with_one_stream() {
    if !has_kvm() {
        return;
    }
    let mut vm = Vm::start("");
    let daemons = vm.daemons();
    assert_eq!(daemons.len(), 3, "{daemons:?}");
    for (daemon, line) in daemons {
        let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
        assert!(
            status.contains(&format!("PPid:\t{}\n", vm.child.id())),
            "{status}"
        );
        // Neither KVM nor the terminal nor another device's stream: what it holds, it opened.
        let fds = std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
        let held: Vec<String> = fds
            .filter_map(|fd| {
                Some(
                    std::fs::read_link(fd.ok()?.path())
                        .ok()?
                        .display()
                        .to_string(),
                )
            })
            .collect();
        assert!(
            !held
                .iter()
                .any(|what| what.contains("kvm") || what.contains("/dev/pts")),
            "{line}: {held:?}"
        );
        assert_eq!(
            std::fs::read_link(format!("/proc/{daemon}/fd/0")).unwrap(),
            Path::new("/dev/null")
        );
    }
    vm.signal(SIGTERM);
    assert_eq!(vm.wait(END_WITHIN).code(), Some(143), "{}", vm.said());
    vm.leaves_nothing();
}

#[test]
fn ctrl_c_ends_everything() {
    if !has_kvm() {
        return;
    }
    let mut vm = Vm::start("");
    vm.signal(SIGINT);
    assert_eq!(vm.wait(END_WITHIN).code(), Some(130), "{}", vm.said());
    vm.leaves_nothing();
}

#[test]
fn daemons_do_not_outlive_a_vmm_that_is_killed() {
    if !has_kvm() {
        return;
    }
    let mut vm = Vm::start("");
    vm.signal(SIGKILL);
    vm.wait(END_WITHIN);
    until("the daemons are gone", || vm.daemons().is_empty());
}

/// Whoever has a console sweeps up, on whichever port it is.
#[test]
fn a_killed_vm_leaves_no_socket() {
    if !has_kvm() {
        return;
    }
    for serial in [true, false] {
        let mut vm = Vm::spawn_with(&outboard(), "disk.img", "", serial);
        let there = |vm: &Vm, name: &str| vm.files().iter().any(|file| file.ends_with(name));
        until("its guest runs", || vm.runs());
        vm.signal(SIGKILL);
        vm.wait(END_WITHIN);
        until("the daemons are gone", || vm.daemons().is_empty());
        assert!(!there(&vm, "api.sock"), "serial {serial}: {:?}", vm.files());
    }
}

/// The twin of every check here that nothing is left: this time something is.
#[test]
fn what_is_left_is_found() {
    if !has_kvm() {
        return;
    }
    let mut vm = Vm::start("");
    let folder = vm.dir.path().display().to_string();
    let mut left = Command::new("sh")
        .args(["-c", "sleep 60; exit", "outboard-left", &folder])
        .spawn()
        .unwrap();
    vm.signal(SIGTERM);
    vm.wait(END_WITHIN);
    until("only that is left", || vm.daemons().len() == 1);
    assert!(vm.daemons()[0].1.contains("outboard-left"));
    left.kill().unwrap();
    left.wait().unwrap();
    vm.leaves_nothing();
    std::fs::write(vm.dir.path().join("run/x.sock"), "").unwrap();
    assert_eq!(vm.files(), [vm.dir.path().join("run/x.sock")]);
}

#[test]
fn a_frozen_daemon_does_not_keep_the_vm_from_ending() {
    if !has_kvm() {
        return;
    }
    let mut vm = Vm::start("");
    kill(vm.disk_daemon(), SIGSTOP).unwrap();
    vm.signal(SIGTERM);
    assert_eq!(vm.wait(END_WITHIN).code(), Some(143), "{}", vm.said());
    vm.leaves_nothing();
}

#[test]
fn a_killed_daemon_degrades_or_stops_the_vm() {
    if !has_kvm() {
        return;
    }
    let mut vm = Vm::start("");
    kill(vm.disk_daemon(), SIGKILL).unwrap();
    until("the loss is told", || vm.said().contains("disk0"));
    assert_eq!(vm.child.try_wait().unwrap(), None, "{}", vm.said());
    vm.signal(SIGTERM);
    assert_eq!(vm.wait(END_WITHIN).code(), Some(143), "{}", vm.said());

    let mut vm = Vm::start(",on-exit=stop");
    kill(vm.disk_daemon(), SIGKILL).unwrap();
    assert_eq!(vm.wait(END_WITHIN).code(), Some(3), "{}", vm.said());
    assert!(
        vm.said().contains("disk0") && vm.said().contains("signal: 9"),
        "{}",
        vm.said()
    );
    vm.leaves_nothing();
}

#[test]
fn a_daemon_that_cannot_start_says_why_itself() {
    if !has_kvm() {
        return;
    }
    let mut vm = Vm::spawn(&outboard(), "no-such.img", "");
    assert_eq!(vm.wait(END_WITHIN).code(), Some(1));
    let said = vm.said();
    assert_eq!(
        said.matches("Cannot open disk image").count(),
        1,
        "told once: {said}"
    );
    assert!(
        said.contains("disk0") && said.contains("Cannot open disk image"),
        "{said}"
    );
    vm.leaves_nothing();
}

#[test]
fn a_missing_daemon_is_named_with_the_places_searched() {
    if !has_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("outboard");
    std::fs::copy(outboard(), &alone).unwrap();
    let mut vm = Vm::spawn(&alone, "disk.img", "");
    assert_eq!(vm.wait(END_WITHIN).code(), Some(1));
    let said = vm.said();
    for part in [
        "outboard-",
        &dir.path().display().to_string(),
        "libexec/outboard",
        "PATH",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    vm.leaves_nothing();
}
