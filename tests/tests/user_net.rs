//! `--net user`: passt comes and goes with the VM. Where there is no passt, or no KVM, the tests
//! say so and pass.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::{self, BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::guest::{children, has_kvm};
use outboard_tests::kernel::pvh;
use tempfile::NamedTempFile;

/// cli; hlt; and again.
const HALT: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];

fn can_run() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_passt = std::env::split_paths(&path).any(|folder| folder.join("passt").exists());
    if !has_passt {
        let _ = writeln!(io::stdout(), "SKIPPED, passt is not installed");
    }
    has_passt && has_kvm()
}

/// A VM that does nothing, with a card on `net`.
fn outboard(kernel: &Path, net: &str) -> Command {
    let mut command = Command::new(daemon("outboard"));
    command
        .args(["run", "--serial", "off", "--log-dir", "off"])
        .args(["--net", net, "--kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn kernel() -> NamedTempFile {
    let mut kernel = NamedTempFile::new().unwrap();
    kernel.write_all(&pvh(HALT)).unwrap();
    kernel
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn until(what: &str, vm: &mut Child, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(vm.try_wait().unwrap().is_none(), "{what}: the VM ended");
        assert!(Instant::now() < end, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn passt_comes_and_goes_with_the_vm() {
    if !can_run() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (kernel, port) = (kernel(), free_port());
        let net = format!("user,forward={port}:22");
        let mut vm = outboard(kernel.path(), &net).spawn().unwrap();
        let pid = vm.id().cast_signed();
        let mut passt = None;
        until("passt", &mut vm, || {
            passt = children(pid)
                .into_iter()
                .find(|child| command_line(*child).contains("--foreground"));
            passt.is_some()
        });
        until("its port", &mut vm, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        kill(Pid::from_raw(pid), signal).unwrap();
        vm.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while command_line(passt.unwrap()).contains("--foreground") {
            assert!(Instant::now() < end, "passt outlives the VM ({signal})");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A VM whose passt is killed once the VM runs, and where its folder is.
fn without_passt(net: &str) -> (Child, tempfile::TempDir) {
    let (kernel, base) = (kernel(), tempfile::tempdir().unwrap());
    let mut command = outboard(kernel.path(), net);
    command
        .args(["--name", "lone"])
        .env("XDG_RUNTIME_DIR", base.path());
    let mut vm = command.spawn().unwrap();
    // Before, passt is on trial, and its end is the start's.
    until("running", &mut vm, || info(base.path()).contains("running"));
    let children = children(vm.id().cast_signed());
    let mut passt = children.into_iter();
    let passt = passt.find(|child| command_line(*child).contains("--foreground"));
    kill(Pid::from_raw(passt.unwrap()), Signal::SIGKILL).unwrap();
    (vm, base)
}

/// What the VM says of itself.
fn info(base: &Path) -> String {
    let mut command = Command::new(daemon("outboard"));
    command.args(["info", "lone"]).env("XDG_RUNTIME_DIR", base);
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

#[test]
fn passts_end_is_told_and_the_vm_goes_on() {
    if !can_run() {
        return;
    }
    let (mut vm, base) = without_passt("user");
    let (said, lines) = std::sync::mpsc::channel();
    let stderr = io::BufReader::new(vm.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let line = lines.recv_timeout(Duration::from_secs(20)).unwrap();
    for part in ["net0", "link is down", "passt ended", "SIGKILL"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let told = info(base.path());
    assert!(told.contains("net, cut off"), "{told}");
    assert!(vm.try_wait().unwrap().is_none());
    kill(Pid::from_raw(vm.id().cast_signed()), Signal::SIGTERM).unwrap();
    vm.wait().unwrap();
    // passt has not ended twice.
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("passt ended"))
            .count(),
        0
    );
}

#[test]
fn passts_end_is_the_vms_where_that_is_wished() {
    if !can_run() {
        return;
    }
    let (vm, _base) = without_passt("user,on-exit=stop");
    let output = vm.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for part in ["net0", "passt ended", "SIGKILL"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn what_passt_finds_wrong_is_shown() {
    if !can_run() {
        return;
    }
    let (kernel, port) = (kernel(), free_port());
    let net = format!("user,forward={port}:22+{port}:23");
    let Output { status, stderr, .. } = outboard(kernel.path(), &net).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{said}");
    for part in ["net0", "passt ended", &format!("{port}:23")] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // What it says every time explains nothing.
    assert!(
        !said.contains("syslog") && !said.contains("as root"),
        "{said}"
    );
}

/// passt would go on with IPv6 alone.
#[test]
fn a_port_whose_ipv4_half_is_taken_is_refused() {
    if !can_run() {
        return;
    }
    let kernel = kernel();
    for taken in ["127.0.0.1:0", "0.0.0.0:0"] {
        let taken = TcpListener::bind(taken).unwrap();
        let port = taken.local_addr().unwrap().port();
        let net = format!("user,forward={port}:22");
        let Output { status, stderr, .. } = outboard(kernel.path(), &net).output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{said}");
        for part in ["net0", &format!("TCP port {port}"), "ss -tlnp", "in use"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

#[test]
fn a_missing_passt_is_named_with_its_package() {
    if !has_kvm() {
        return;
    }
    let (kernel, nowhere) = (kernel(), tempfile::tempdir().unwrap());
    let output = outboard(kernel.path(), "user")
        .env("PATH", nowhere.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("install the package passt"), "{said}");
}
