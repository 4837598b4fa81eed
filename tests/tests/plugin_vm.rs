//! Plugins in a VM on this machine's KVM: in both hosts, as virtio devices and as registers.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, command, has_kvm};
use outboard_tests::kernel::pvh;
use outboard_tests::plugins;

const HOSTS: [&str; 2] = ["process", "vmm"];
/// mov dx, 0x604; mov ax, 0x3400; out dx, ax: ACPI S5. Then halts.
const POWER_OFF: &[u8] = &[
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, 0xeb, 0xfd,
];

fn faulty(dir: &Path) -> PathBuf {
    plugins::c("cc", "tests/plugins/faulty.c", dir, &[])
}

/// The payload, with a device of a plugin; its daemon can be found.
fn with_plugin(job: &str, keys: &str) -> Command {
    daemon("outboard-plugin-host");
    let mut command = command(job);
    command.args(["--device", &format!("plugin={keys}")]);
    command
}

#[test]
fn a_disk_of_a_plugin_moves_data_under_each_host() {
    if !has_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let library = plugins::c("cc", "plugins/ramdisk/ramdisk.c", dir.path(), &[]);
    for host in HOSTS {
        let keys = format!("{},size=1M,addr=8,host={host}", library.display());
        let mut guest = Guest::start(with_plugin("jobs=block,hello,reboot", &keys));
        guest.expect("hello from the guest");
        // And again after a reboot of the machine.
        guest.expect("hello from the guest");
        let process = !guest.daemons("outboard-plugin-host").is_empty();
        assert_eq!(process, host == "process");
        drop(guest);
        let ended = Guest::start(with_plugin("jobs=block", &keys)).end();
        ended.passed(&["block"]);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.words);
    }
}

/// The console in C: the guest says a line, hears it, and says it again.
#[test]
fn a_console_of_a_plugin_echoes_under_each_host() {
    if !has_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let library = plugins::c("cc", "plugins/c-echo/echo.c", dir.path(), &[]);
    for host in HOSTS {
        let keys = format!("{},addr=1,host={host}", library.display());
        let guest = Guest::start(with_plugin("jobs=console", &keys));
        guest.end().passed(&["console"]);
    }
}

/// A worker that crashes, or does not return: its device asks for a reset, and the VM goes on and powers
/// off.
#[test]
fn a_fault_costs_its_device_and_the_vm_powers_off() {
    if !has_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let library = faulty(dir.path());
    for (host, fault, words) in [
        ("process", "segv", "signal: 11"),
        ("process", "twice", "completes a request it does not hold"),
        (
            "process",
            "hang",
            "has not returned from a call of a worker's",
        ),
        ("vmm", "error", "the wheels came off"),
        ("vmm", "twice", "completes a request it does not hold"),
        ("vmm", "hang", "has not returned from a call of a worker's"),
    ] {
        let keys = format!(
            "{},device=disk,fault={fault},addr=8,host={host}",
            library.display()
        );
        let ended = Guest::start(with_plugin("jobs=broken,hello", &keys)).end();
        ended.passed(&["broken"]);
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{host} {fault}: {}",
            ended.words
        );
        assert!(
            ended.words.contains(words),
            "{host} {fault}: {}",
            ended.words
        );
    }
}

#[test]
fn power_off_does_not_wait_for_a_call_that_never_returns() {
    if !has_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let library = faulty(dir.path());
    for host in HOSTS {
        let keys = format!(
            "{},device=disk,fault=hang,addr=8,host={host}",
            library.display()
        );
        // The device is given a request and left alone.
        let mut guest = Guest::start(with_plugin("jobs=leave,hello", &keys));
        guest.expect("hello from the guest");
        let begin = Instant::now();
        assert_eq!(guest.end().status.code(), Some(0));
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{host}: {:?}",
            begin.elapsed()
        );
    }
}

/// Runs a kernel of a few bytes with these arguments: the exit code, and what was said.
fn run(code: &[u8], more: &[&str]) -> (Option<i32>, String) {
    let mut kernel = tempfile::NamedTempFile::new().unwrap();
    kernel.write_all(&pvh(code)).unwrap();
    // A folder of its own for each, so that none is told of another.
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(daemon("outboard"))
        .env("XDG_RUNTIME_DIR", folder.path())
        .args(["run", "--serial", "off", "--log-dir", "off", "--kernel"])
        .arg(kernel.path())
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_serial_port_of_a_plugin_prints() {
    if !has_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, library) = (
        dir.path().join("log"),
        plugins::rust("outboard-plugin-serial", "outboard_serial"),
    );
    let mut code = vec![0x66, 0xba, 0xf8, 0x02]; // mov dx, 0x2f8
    for byte in b"over the second port\n" {
        code.extend([0xb0, *byte, 0xee]); // mov al, byte; out dx, al
    }
    code.extend(POWER_OFF);
    let device = format!("plugin={},path={}", library.display(), log.display());
    assert_eq!(run(&code, &["--device", &device]), (Some(0), String::new()));
    assert_eq!(fs::read_to_string(&log).unwrap(), "over the second port\n");

    let process = run(&code, &["--device", &format!("{device},host=process")]);
    assert_eq!(process.0, Some(1));
    assert!(
        process.1.contains("'serial' is a device of registers"),
        "{}",
        process.1
    );
    for (option, words) in [
        ("base=0x3f8", "overlap a device at 0x3f8"),
        ("irq=4", "the interrupt line 4 is ttyS0's"),
        ("irq=8", "the interrupt line 8 is the machine's"),
        ("irq=99", "has the interrupt line 99"),
        ("base=0x1fffc", "no range of Ports"),
        (
            "speed=9600",
            "it has no option 'speed'; it has path, fd, copy-fd, base, irq",
        ),
    ] {
        let (code, said) = run(&code, &["--device", &format!("{device},{option}")]);
        assert_eq!(code, Some(1), "{option}");
        assert!(said.contains(words), "{option}: {said}");
    }
    let alone = format!("plugin={}", library.display());
    assert_eq!(run(&code, &["--device", &alone]), (Some(0), String::new()));
    let twice = format!("{alone},base=0x2e8");
    let (code, said) = run(&code, &["--device", &alone, "--device", &twice]);
    assert_eq!(code, Some(1));
    assert!(said.contains("the interrupt line 3 is serial0's"), "{said}");
}

/// The card of registers and its driver: data, lengths, interrupts, and what is asked of it wrongly. The
/// driver finds a fault in each of its twins.
#[test]
fn a_card_of_registers_moves_frames() {
    if !has_kvm() {
        return;
    }
    let library = plugins::rust("outboard-plugin-nic-regs", "outboard_nic_regs");
    let drive = |library: &Path| {
        let keys = library.display().to_string();
        Guest::start(with_plugin("jobs=nic requests=64", &keys)).end()
    };
    drive(&library).passed(&["nic"]);
    let dir = tempfile::tempdir().unwrap();
    for (from, to, found) in [
        ("*b\"NIC1\"", "*b\"NIC2\"", "there is no card"),
        (
            "board.set(self.cause & self.mask != 0)",
            "board.set(false)",
            "no interrupt comes",
        ),
        (
            "self.cause &= !value,",
            "{ self.cause &= !value; self.happened(0); self.board.as_ref().unwrap().pulse(); }",
            "there is not one interrupt for each frame",
        ),
        (
            "&mut frame) {",
            "frame.split_last_mut().unwrap().1) {",
            "a frame came back changed",
        ),
        (
            "self.take_length = len;",
            "self.take_length = len + 1;",
            "a frame came back changed",
        ),
        (
            "!self.takes ||",
            "",
            "a frame came where there was no room for it",
        ),
        (
            "self.send_length > FRAME_MAX",
            "false",
            "the card sends what is no frame",
        ),
    ] {
        let ended = drive(&plugins::twin("nic-regs", from, to, dir.path()));
        let line = format!("FAIL nic: {found}");
        assert!(ended.lines.contains(&line), "{to}: {:?}", ended.lines);
    }
}

/// Registers that copy from guest memory: from where it is, and from where it is not.
#[test]
fn an_address_outside_the_guest_costs_the_device_only() {
    if !has_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let device = format!("plugin={},device=registers", faulty(dir.path()).display());
    // mov dword [0x200000], 0x12345678; mov dx, 0x510; mov eax, address; out dx, eax; in eax, dx;
    // cmp eax, value; jne halt; power off; halt.
    let program = |address: u32, value: u32| {
        let mut code = vec![0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0x78, 0x56, 0x34, 0x12];
        code.extend([0x66, 0xba, 0x10, 0x05, 0xb8]);
        code.extend(address.to_le_bytes());
        code.extend([0xef, 0xed, 0x3d]);
        code.extend(value.to_le_bytes());
        code.extend([0x75, POWER_OFF.len() as u8]);
        code.extend(POWER_OFF);
        code.extend([0xcd, 0x03]);
        code
    };
    let (code, said) = run(&program(0x20_0000, 0x1234_5678), &["--device", &device]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    // The registers read as ones from then on.
    let (code, said) = run(&program(0xe000_0000, u32::MAX), &["--device", &device]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("an address outside its memory"), "{said}");
}

#[test]
fn a_plugin_that_does_not_load_is_known_before_the_guest_starts() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["-DCRASHES"][..], &["-DMAJOR=2"], &["-DREFUSES"]] {
        let library = plugins::c("cc", "tests/plugins/faulty.c", dir.path(), flags);
        let device = format!("plugin={}", library.display());
        let (code, said) = run(POWER_OFF, &["--device", &device]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.starts_with("outboard: Device '"), "{said}");
    }
}
