//! ttyS0 on a terminal: its settings before and after every way in which a VM can end.
//!
//! Where `/dev/kvm` cannot be used these tests say so on standard error and pass.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::kernel::pvh;
use tempfile::NamedTempFile;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

/// mov dx, 0x3f8; mov al, '!'; out dx, al.
const LIVES: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'!', 0xee];
/// hlt; and again.
const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];
/// Waits for a byte from ttyS0: mov dx, 0x3fd; in al, dx; test al, 1; jz back.
const WAIT: &[u8] = &[0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb];
/// mov dx, 0x604; mov ax, 0x3400; out dx, ax: ACPI S5; then halts.
const POWER_OFF: &[u8] = &[
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, 0xeb, 0xfd,
];
/// mov eax, 0xd0000000; jmp eax: no memory to take an instruction from.
const NOWHERE: &[u8] = &[0xb8, 0x00, 0x00, 0x00, 0xd0, 0xff, 0xe0];

/// A VM that has a terminal to itself.
struct Session {
    vmm: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    terminal: OwnedFd,
    before: Termios,
    _kernel: NamedTempFile,
}

impl Session {
    /// Starts `code` and waits until it has written to ttyS0; `None` where there is no KVM.
    fn start(code: &[u8]) -> Option<Self> {
        let session = Self::begin(code, &[])?;
        session.until("the guest speaks", || session.shows("!"));
        Some(session)
    }

    /// Begins to start it, with `more` flags.
    fn begin(code: &[u8], more: &[&str]) -> Option<Self> {
        if let Err(why) = File::options().read(true).write(true).open("/dev/kvm") {
            eprintln!("SKIPPED, nothing was tested: /dev/kvm: {why}");
            return None;
        }
        daemon("outboard-console");
        let mut kernel = NamedTempFile::new().unwrap();
        kernel.write_all(&pvh(&[LIVES, code].concat())).unwrap();
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        // A session of its own, whose terminal this is. It replaces itself by the command.
        let vmm = Command::new("setsid")
            .arg("--ctty")
            .arg(daemon("outboard"))
            .args(["run", "--memory", "32M", "--serial", "tty"])
            .args(["--log-dir", "off", "--kernel"])
            .arg(kernel.path())
            .args(more)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let mut screen = File::from(pty.master.try_clone().unwrap());
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let seen = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                seen.lock().unwrap().extend(&bytes[..count]);
            }
        });
        Some(Self {
            vmm,
            keyboard: pty.master.into(),
            shown,
            terminal: pty.slave,
            before,
            _kernel: kernel,
        })
    }

    fn shows(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).contains(text)
    }

    fn settings(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    fn until(&self, what: &str, mut met: impl FnMut() -> bool) {
        let end = Instant::now() + LONG;
        while !met() {
            let shown = self.shown.lock().unwrap().clone();
            assert!(
                Instant::now() < end,
                "{what}: {}",
                String::from_utf8_lossy(&shown)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.vmm.id().cast_signed()), signal).unwrap();
    }

    /// The console's daemon: the one child of the VMM.
    fn console(&self) -> Pid {
        let mut found = None;
        self.until("the console's daemon", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.vmm.id())).unwrap();
            let children = tasks
                .flatten()
                .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
            found = children
                .flat_map(|pids| {
                    pids.split_whitespace()
                        .map(|pid| pid.parse().unwrap())
                        .collect::<Vec<i32>>()
                })
                .next();
            found.is_some()
        });
        Pid::from_raw(found.unwrap())
    }

    /// Waits for the end and for the terminal's settings to be what they were.
    fn ends(&mut self, code: Option<i32>) {
        assert_eq!(self.vmm.wait().unwrap().code(), code);
        self.until("the terminal's settings come back", || {
            self.settings() == self.before
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

#[test]
fn the_terminal_is_raw_and_the_way_out_is_told_once() {
    let Some(mut vm) = Session::start(HALT) else {
        return;
    };
    assert_ne!(vm.settings(), vm.before);
    vm.until("the way out is told", || vm.shows("Ctrl-A x"));
    let shown = String::from_utf8_lossy(&vm.shown.lock().unwrap()).into_owned();
    assert_eq!(shown.matches("Ctrl-A x").count(), 1, "{shown}");
    vm.keyboard.write_all(b"\x01x").unwrap();
    vm.ends(Some(0));
}

#[test]
fn the_way_out_is_open_while_the_vm_waits_for_a_device() {
    let nobody = ["--net", "socket=/nobody/listens/here"];
    let Some(mut vm) = Session::begin(HALT, &nobody) else {
        return;
    };
    vm.until("the way out is told", || vm.shows("Ctrl-A x"));
    vm.until("the wait is told", || {
        vm.shows("Waiting for device 'net0', 10 s at most: somebody is to listen at /nobody/")
    });
    let begin = Instant::now();
    vm.keyboard.write_all(b"\x01x").unwrap();
    vm.ends(Some(0));
    let waited = begin.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    assert!(!vm.shows("no backend answers"));
}

#[test]
fn restored_after_poweroff() {
    let Some(mut vm) = Session::start(&[WAIT, POWER_OFF].concat()) else {
        return;
    };
    vm.keyboard.write_all(b"\r").unwrap();
    vm.ends(Some(0));
}

#[test]
fn restored_after_an_error() {
    let Some(mut vm) = Session::start(&[WAIT, NOWHERE].concat()) else {
        return;
    };
    vm.keyboard.write_all(b"\r").unwrap();
    vm.ends(Some(4));
    vm.until("the report is shown", || vm.shows("suberror"));
}

#[test]
fn restored_after_sigterm() {
    let Some(mut vm) = Session::start(HALT) else {
        return;
    };
    vm.signal(Signal::SIGTERM);
    vm.ends(Some(143));
}

#[test]
fn restored_after_the_vmm_is_killed() {
    let Some(mut vm) = Session::start(HALT) else {
        return;
    };
    vm.signal(Signal::SIGKILL);
    vm.ends(None);
}

#[test]
fn restored_after_the_console_is_killed() {
    let Some(mut vm) = Session::start(HALT) else {
        return;
    };
    kill(vm.console(), Signal::SIGKILL).unwrap();
    // At once, so that Ctrl-C works again while the VM goes on.
    vm.until("the terminal's settings come back", || {
        vm.settings() == vm.before
    });
    assert_eq!(vm.vmm.try_wait().unwrap(), None, "the VM goes on");
    vm.keyboard.write_all(b"\x03").unwrap();
    vm.ends(Some(130));
}
