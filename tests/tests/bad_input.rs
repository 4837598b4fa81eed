//! Wrong input of every kind: one message that names the thing and the remedy, the documented exit
//! code, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, command, disk, has_kvm, payload};
use outboard_tests::traces::Home;

/// Bad at start, and bad on the command line; see `outboard --help`.
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// A folder with a good kernel and a good disk.
fn home() -> Home {
    for program in ["outboard-block", "outboard-net", "outboard-console"] {
        daemon(program);
    }
    let home = Home::new();
    fs::copy(payload(), home.path().join("kernel")).unwrap();
    disk(home.path(), "disk.img", 16);
    home
}

/// Runs it without a terminal, to its end.
fn output(home: &Home, mut command: Command) -> Output {
    home.adopt(&mut command);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Asserts the exit code, each part of the message, that the first part stands there once, and
/// that nothing is left.
fn refused(home: &Home, command: Command, code: i32, parts: &[&str]) {
    let asked = format!("{command:?}");
    let output = output(home, command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{asked}: {said}");
    for part in parts {
        assert!(said.contains(part), "{asked}: no '{part}' in: {said}");
    }
    assert_eq!(said.matches(parts[0]).count(), 1, "told once: {said}");
    assert!(!said.contains("panicked"), "{said}");
    home.assert_left_clean();
}

/// `outboard run` with a good kernel.
fn run(args: &[&str]) -> Command {
    let mut run = Command::new(daemon("outboard"));
    run.args(["run", "--kernel", "kernel", "--serial", "off"]);
    run.args(["--memory", "64M"]).args(args);
    run
}

#[test]
fn kernels_that_are_none() {
    let home = home();
    let file = |name: &str, bytes: &[u8]| fs::write(home.path().join(name), bytes).unwrap();
    file("garbage", &[0x5a; 10_000]);
    file("nothing", b"");
    file("short", &fs::read(payload()).unwrap()[..300]);
    fs::create_dir(home.path().join("folder")).unwrap();
    for (kernel, part) in [
        ("no-such-kernel", "No such file"),
        ("garbage", "bzImage"),
        ("nothing", "is empty"),
        ("short", "truncated"),
        ("folder", "is a directory"),
    ] {
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "--kernel", kernel]);
        refused(&home, run, FAILED, &[kernel, part]);
    }
}

#[test]
fn command_lines_that_cannot_be_meant() {
    let home = home();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--disk", "path=disk.img,colour=red"],
            &["unknown field `colour`", "readonly"],
        ),
        (&["--disk", "readonly=on"], &["path=FILE", "disk0"]),
        (
            &["--disk", "path=disk.img,addr=32"],
            &["addr=32", "1 to 31"],
        ),
        (
            &["--disk", "path=a,addr=5", "--disk", "path=b,addr=5"],
            &["addr=5", "disk0", "disk1", "another slot"],
        ),
        (
            &["--disk", "path=a,id=x", "--net", "tap=t,id=x"],
            &["'x' names two devices"],
        ),
        (&["--net", "tap=t,mac=zz"], &["'zz'", "02:00:5e"]),
        (
            &["--device", "vhost-user,id=quark,socket=/s"],
            &["'quark' is no virtio device", "rng"],
        ),
        (&["--cpus", "300"], &["300", "1 to 254"]),
        (&["--cpu", "host,smap"], &["write +smap or -smap"]),
        (&["--console", "screen"], &["'screen'", "socket=PATH"]),
        (&["--name", "a/b"], &["'a/b'", "letters"]),
    ];
    for (args, parts) in cases {
        refused(&home, run(args), USAGE, parts);
    }
    for (size, part) in [
        ("1X", "is not a size"),
        ("1M", "at least 32M"),
        ("33M", "multiple of 2M"),
    ] {
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "--kernel", "kernel", "--memory", size]);
        refused(&home, run, USAGE, &[part]);
    }
    let mut both = Command::new(daemon("outboard"));
    both.args([
        "run",
        "--kernel",
        "kernel",
        "--serial",
        "tty",
        "--console",
        "tty",
    ]);
    refused(&home, both, USAGE, &["both want the terminal", "socket"]);
}

#[test]
fn description_files_name_the_key() {
    let home = home();
    for (text, parts) in [
        ("kernle = 'x'", &["unknown field `kernle`", "vm.toml"][..]),
        ("kernel = ", &["line 1", "vm.toml"]),
        (
            "kernel = 'k'\nmemory = { size = '1X' }",
            &["is not a size", "line 2"],
        ),
        ("memory = { size = '1G' }", &["--kernel FILE"]),
    ] {
        fs::write(home.path().join("vm.toml"), text).unwrap();
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "vm.toml"]);
        refused(&home, run, USAGE, parts);
    }
}

#[test]
fn things_that_devices_cannot_use() {
    if !has_kvm() {
        return;
    }
    let home = home();
    fs::create_dir(home.path().join("folder")).unwrap();
    File::create(home.path().join("empty.img")).unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--disk", "path=no-such.img"],
            &["no-such.img", "disk0", "truncate"],
        ),
        (
            &["--disk", "path=folder"],
            &["'folder' is a directory", "disk0"],
        ),
        (&["--disk", "path=empty.img"], &["is empty", "truncate"]),
        (
            &["--disk", "path=disk.img", "--disk", "path=disk.img"],
            // Whichever daemon comes second.
            &["in use", "Device 'disk", "disk.img"],
        ),
        (
            &["--net", "tap=lo"],
            &["Interface 'lo'", "net0", "ip tuntap add"],
        ),
        (
            &["--net", "tap=much-too-long-for-a-tap"],
            &["'much-too-long-for-a-tap'", "15 characters"],
        ),
        (
            &["--console", "file=no/such/log"],
            &["no/such/log", "console0", "folder"],
        ),
        (&["--console", "socket=disk.img"], &["disk.img", "console0"]),
        (
            &["--device", "vhost-user,id=fs,socket=nobody.sock"],
            &["nobody.sock", "fs0", "start its daemon first"],
        ),
    ];
    for (args, parts) in cases {
        refused(&home, run(args), FAILED, parts);
    }
    let mut serial = Command::new(daemon("outboard"));
    serial.args(["run", "--kernel", "kernel", "--serial", "file=no/such/log"]);
    refused(&home, serial, FAILED, &["no/such/log", "ttyS0", "folder"]);
}

#[test]
fn what_the_host_cannot_give() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    for (memory, parts) in [
        ("200T", &["ask for less with --memory"][..]),
        ("4T,prefault=on", &["prefault=on takes", "--memory"]),
        (
            "64M,hugepages=on",
            &["hugepages=on needs 32", "vm.nr_hugepages"],
        ),
    ] {
        if memory.contains("huge") && fs::read_to_string(free).is_ok_and(|n| n.trim() != "0") {
            continue;
        }
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "--kernel", "kernel", "--memory", memory]);
        refused(&home, run, FAILED, parts);
    }
}

#[test]
fn a_name_or_a_disk_that_a_running_vm_has() {
    if !has_kvm() {
        return;
    }
    let first = home();
    let mut running = command("jobs=hello,spin");
    running.args(["--console", "--disk", "path=disk.img"]);
    first.adopt(&mut running);
    let mut running = Guest::start(running);
    running.expect("hello");
    let second = |args: &[&str]| {
        let output = output(&first, run(args));
        assert_eq!(output.status.code(), Some(FAILED), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = second(&["--console"]);
    assert!(
        said.contains("'vm' runs already") && said.contains("--name"),
        "{said}"
    );
    let said = second(&["--name", "other", "--disk", "path=disk.img"]);
    assert!(said.contains("'disk.img' is in use"), "{said}");
    assert!(
        !running.daemons("outboard-block").is_empty(),
        "the first goes on"
    );
    drop(running);
    first.assert_left_clean();
}

#[test]
fn daemons_that_are_not_there_or_end_at_once() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(daemon("outboard"), bin.join("outboard")).unwrap();
    let run = |args: &[&str]| {
        let mut run = Command::new(bin.join("outboard"));
        run.args(["run", "--kernel", "kernel"]).args(args);
        run.env("PATH", "/usr/bin:/bin");
        run
    };
    let disk = ["--serial", "off", "--disk", "path=disk.img"];
    let places = ["bin, in ", "libexec/outboard", "PATH (/usr/bin:/bin)"];
    refused(
        &home,
        run(&disk),
        FAILED,
        &[&["'outboard-block'", "disk0"][..], &places].concat(),
    );
    refused(
        &home,
        run(&[]),
        FAILED,
        &[&["'outboard-console'", "ttyS0"][..], &places].concat(),
    );
    for program in ["outboard-block", "outboard-console"] {
        let path = bin.join(program);
        fs::write(&path, "#!/bin/sh\necho 'error: no time' >&2\nexit 3\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (args, device) in [(&disk[..], "disk0"), (&[], "ttyS0")] {
        refused(
            &home,
            run(args),
            FAILED,
            &["error: no time", device, "exit status: 3"],
        );
    }
}

/// In namespaces and as users of its own, where the test may have them.
#[test]
fn no_kvm_and_no_permission() {
    if !has_kvm() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED, nothing was tested: this needs root");
        return;
    }
    let home = home();
    let outboard = daemon("outboard");
    let script = r#"mount --bind /dev/null /dev/kvm && exec "$0" run --kernel kernel --serial off"#;
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["-m", "sh", "-c", script]).arg(&outboard);
    refused(
        &home,
        elsewhere,
        FAILED,
        &["/dev/kvm is not KVM's device", "outboard doctor"],
    );

    if fs::metadata("/dev/kvm").unwrap().permissions().mode() & 0o006 != 0 {
        println!("SKIPPED, nothing was tested: everybody may use /dev/kvm");
        return;
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&outboard)
        .args(["run", "--kernel", "kernel", "--serial", "off"]);
    refused(
        &home,
        nobody,
        FAILED,
        &["/dev/kvm may not be opened", "usermod"],
    );
}
