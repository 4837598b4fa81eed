//! The whole command with kernels of a few bytes: life, death and exit codes.
//!
//! Where `/dev/kvm` cannot be used these tests say so on standard error and pass.

#![allow(clippy::unwrap_used)] // a test's own helpers may panic

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::guest::has_kvm;
use outboard_tests::kernel::pvh;
use outboard_tests::plugins;
use tempfile::NamedTempFile;

/// mov dx, 0x604; mov ax, 0x3400; out dx, ax: ACPI S5. Then halts.
const POWER_OFF: &[u8] = &[
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, 0xeb, 0xfd,
];
/// lidt of an empty table, then ud2.
const TRIPLE_FAULT: &[u8] = &[0x0f, 0x01, 0x1d, 0x00, 0x00, 0x30, 0x00, 0x0f, 0x0b];
/// mov al, 0xfe; out 0x64, al: the keyboard controller's reset line. Then halts.
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
/// mov eax, 0xd0000000; jmp eax: an address with no memory behind it.
const NOWHERE: &[u8] = &[0xb8, 0x00, 0x00, 0x00, 0xd0, 0xff, 0xe0];
/// cli; hlt; and again.
const HALT: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];

/// inc of a word that no loading touches; go on below `count`, power off at it.
fn boots_until(count: u8, again: &[u8]) -> Vec<u8> {
    let mut code = vec![0xff, 0x05, 0x00, 0x00, 0x20, 0x00]; // inc dword [0x200000]
    code.extend([0x83, 0x3d, 0x00, 0x00, 0x20, 0x00, count]); // cmp dword [0x200000], count
    code.extend([0x75, POWER_OFF.len() as u8]); // jne over the power-off
    code.extend(POWER_OFF);
    code.extend(again);
    code
}

/// A file with the kernel that runs `code`.
fn kernel(code: &[u8]) -> NamedTempFile {
    let mut kernel = NamedTempFile::new().unwrap();
    kernel.write_all(&pvh(code)).unwrap();
    kernel
}

/// A name that no other VM has: two of one name at a time are told of.
fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("exit-codes-{}-{number}", std::process::id())
}

fn outboard(kernel: &Path, more: &[&str]) -> Child {
    Command::new(daemon("outboard"))
        .args(["run", "--serial", "off", "--log-dir", "off", "--name"])
        .arg(name())
        .arg("--kernel")
        .arg(kernel)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a kernel to its end and returns the exit code and what was said.
fn run(code: &[u8], more: &[&str]) -> (Option<i32>, String) {
    let kernel = kernel(code);
    let Output { status, stderr, .. } = outboard(kernel.path(), more).wait_with_output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn power_off_ends_with_0_and_says_nothing() {
    if !has_kvm() {
        return;
    }
    for cpus in ["1", "2"] {
        assert_eq!(run(POWER_OFF, &["--cpus", cpus]), (Some(0), String::new()));
    }
}

#[test]
fn memory_from_32_mib_to_beyond_the_hole() {
    if !has_kvm() {
        return;
    }
    for memory in ["32M", "3G", "5G", "2G,prefault=off"] {
        assert_eq!(run(POWER_OFF, &["--memory", memory]).0, Some(0), "{memory}");
    }
}

#[test]
fn a_reset_boots_again_in_the_same_process() {
    if !has_kvm() {
        return;
    }
    assert_eq!(run(&boots_until(4, RESET), &["--cpus", "2"]).0, Some(0));
    assert_eq!(run(RESET, &["--no-reboot"]).0, Some(0));
}

#[test]
fn a_triple_fault_is_a_reset_or_exit_5() {
    if !has_kvm() {
        return;
    }
    assert_eq!(run(&boots_until(3, TRIPLE_FAULT), &[]).0, Some(0));
    let (code, said) = run(TRIPLE_FAULT, &["--no-reboot"]);
    assert_eq!(code, Some(5));
    assert!(said.contains("triple-faulted"), "{said}");
}

#[test]
fn triple_faults_without_end_are_ended_with_5() {
    if !has_kvm() {
        return;
    }
    let begin = Instant::now();
    let (code, said) = run(TRIPLE_FAULT, &[]);
    assert_eq!(code, Some(5), "{said}");
    assert!(begin.elapsed() < Duration::from_mins(1), "it took too long");
    for part in [
        "outboard: The guest triple-faulted right after",
        "on vCPU 0",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn an_internal_error_ends_with_4_and_a_report() {
    if !has_kvm() {
        return;
    }
    let (code, said) = run(NOWHERE, &[]);
    assert_eq!(code, Some(4), "{said}");
    for part in [
        "suberror 1",
        "RIP 00000000d0000000",
        "RAX 00000000d0000000",
        "CR3",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

#[test]
fn signals_end_the_vm_with_their_code() {
    if !has_kvm() {
        return;
    }
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let kernel = kernel(HALT);
        let mut vm = outboard(kernel.path(), &["--cpus", "2"]);
        wait_for_thread(vm.id(), "vcpu1");
        std::thread::sleep(Duration::from_millis(50));
        kill(Pid::from_raw(vm.id().cast_signed()), signal).unwrap();
        assert_eq!(vm.wait().unwrap().code(), Some(code));
    }
}

/// As a shell starts what is to run in the background.
#[test]
fn a_signal_that_was_ignored_stays_so() {
    if !has_kvm() {
        return;
    }
    let kernel = kernel(HALT);
    let mut vm = Command::new("sh");
    vm.args(["-c", "trap '' INT; exec \"$0\" \"$@\""])
        .arg(daemon("outboard"))
        .args(["run", "--serial", "off", "--log-dir", "off", "--name"])
        .arg(name())
        .arg("--kernel")
        .arg(kernel.path())
        .stdin(Stdio::null());
    let mut vm = vm.spawn().unwrap();
    wait_for_thread(vm.id(), "vcpu0");
    let pid = Pid::from_raw(vm.id().cast_signed());
    kill(pid, Signal::SIGINT).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(vm.try_wait().unwrap(), None, "SIGINT is ignored");
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(vm.wait().unwrap().code(), Some(143));
}

/// A limit of file sizes (`ulimit -f`) holds for memory too, which is a file.
#[test]
fn memory_beyond_the_limit_of_file_sizes_is_an_error_not_a_signal() {
    if !has_kvm() {
        return;
    }
    let kernel = kernel(HALT);
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(daemon("outboard"))
        .args(["run", "--serial", "off", "--log-dir", "off", "--name"])
        .arg(name())
        .arg("--kernel")
        .arg(kernel.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ulimit -f"), "{said}");
}

#[test]
fn a_signal_ends_the_wait_for_a_backend() {
    if !has_kvm() {
        return;
    }
    let kernel = kernel(HALT);
    let vm = outboard(kernel.path(), &["--disk", "socket=/nobody/listens/here"]);
    wait_for_thread(vm.id(), "disk0-ctl");
    kill(Pid::from_raw(vm.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = vm.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
}

#[test]
fn a_signal_ends_the_wait_for_a_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let source = "tests/plugins/faulty.c";
    let plugin = plugins::c("cc", source, folder.path(), &["-DHANGS"]);
    let kernel = kernel(HALT);
    let device = format!("plugin={}", plugin.display());
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let vm = outboard(kernel.path(), &["--device", &device]);
        wait_for_child(vm.id());
        // Cancelled or not, it ends thus: that it is cancelled is seen where processes are asked.
        kill(Pid::from_raw(vm.id().cast_signed()), signal).unwrap();
        let output = vm.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn what_cannot_start_says_why_and_ends_with_1() {
    let nothing = NamedTempFile::new().unwrap();
    let output = outboard(nothing.path(), &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("outboard: "), "{said}");
    if !has_kvm() {
        return;
    }
    let (code, said) = run(HALT, &["--cpu", "host,-smpa"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("did you mean smap"), "{said}");
}

/// Waits for the process that asks a plugin.
fn wait_for_child(pid: u32) {
    let end = Instant::now() + Duration::from_secs(20);
    let children = format!("/proc/{pid}/task/{pid}/children");
    while std::fs::read_to_string(&children).is_ok_and(|all| all.is_empty()) {
        assert!(Instant::now() < end, "no child");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_thread(pid: u32, name: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    let found = || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        tasks.into_iter().any(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
    };
    while !found() {
        assert!(Instant::now() < end, "no thread {name}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
