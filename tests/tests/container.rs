//! In a container: a root folder that cannot be written, no /sys, no /dev/net/tun, a network without
//! anything. VMs run; what does not work says what is missing.
//!
//! The container is made of namespaces by unshare(1); where those are not allowed the tests say so and
//! pass.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::process::{Command, Output, Stdio};

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{disk, has_kvm, payload};
use outboard_tests::traces::Home;

/// Shuts everything off and checks that it is, then becomes the command. Only the folder it starts in can
/// be written.
const SHUT: &str = r#"
set -e
mount --bind . "$PWD"
cd "$PWD"
mount -t tmpfs -o ro none /sys
[ ! -d /dev/net ] || mount -t tmpfs none /dev/net
mount -o remount,bind,ro /
if (: >/in-the-way) 2>/dev/null || [ -e /sys/class ] || [ -e /dev/net/tun ]; then
    echo "this is no container" >&2
    exit 99
fi
exec "$@"
"#;

fn in_container(home: &Home) -> Command {
    for program in ["outboard-block", "outboard-net", "outboard-console"] {
        daemon(program);
    }
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--net", "--ipc", "sh", "-c", SHUT, "sh"]);
    home.adopt(&mut command);
    command.env("TMPDIR", home.path()).stdin(Stdio::null());
    command
}

/// Whether such a container can be made here; says so loudly where it cannot.
fn has_containers(home: &Home) -> bool {
    let tried = in_container(home).arg("true").output().unwrap();
    if !tried.status.success() {
        println!(
            "SKIPPED, nothing was tested: no container can be made here: {}",
            String::from_utf8_lossy(&tried.stderr).trim()
        );
    }
    tried.status.success()
}

fn home() -> Home {
    let home = Home::new();
    fs::copy(payload(), home.path().join("kernel")).unwrap();
    disk(home.path(), "disk.img", 64);
    home
}

fn run(home: &Home, args: &[&str]) -> (Option<i32>, String) {
    let mut run = in_container(home);
    run.arg(daemon("outboard"));
    run.args(["run", "--kernel", "kernel", "--memory", "64M"]);
    run.args(["--serial", "file=serial"]).args(args);
    let Output { status, stderr, .. } = run.output().unwrap();
    home.assert_left_clean();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_vm_runs_with_all_that_needs_no_network() {
    let home = home();
    if !has_kvm() || !has_containers(&home) {
        return;
    }
    let args = [
        "--console=file=console",
        "--cmdline",
        "jobs=block requests=64",
    ];
    let (code, said) = run(&home, &[&args[..], &["--disk", "path=disk.img"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let serial = fs::read_to_string(home.path().join("serial")).unwrap();
    assert!(
        serial.contains("ok block") && serial.ends_with("end\n"),
        "{serial}"
    );
    assert!(!serial.contains("FAIL"), "{serial}");
    assert!(home.path().join("state/outboard/vm/disk0.log").exists());
}

#[test]
fn a_tap_is_missing_and_is_said_to_be() {
    let home = home();
    if !has_kvm() || !has_containers(&home) {
        return;
    }
    for (net, parts) in [
        ("tap=tap0", ["Tap 'tap0' does not exist", "net0"]),
        ("tap=tap0,create=on", ["/dev/net/tun", "net0"]),
    ] {
        let (code, said) = run(&home, &["--net", net]);
        assert_eq!(code, Some(1), "{said}");
        for part in parts {
            assert!(said.contains(part), "{said}");
        }
    }
}

#[test]
fn folders_that_cannot_be_made_are_named_with_the_remedy() {
    let home = home();
    if !has_kvm() || !has_containers(&home) {
        return;
    }
    let bare = |args: &[&str]| {
        let mut run = in_container(&home);
        run.arg(daemon("outboard"));
        run.args(["run", "--kernel", "kernel", "--memory", "64M"]);
        run.args(["--cmdline", "jobs=hello"]).args(args);
        run.env_remove("XDG_RUNTIME_DIR");
        run.env("XDG_STATE_HOME", "/no/such/folder");
        let Output { status, stderr, .. } = run.output().unwrap();
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    };
    // Logs are a convenience: the VM runs.
    let (code, said) = bare(&["--serial", "file=serial"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("/no/such/folder") && said.contains("--log-dir"),
        "{said}"
    );
    // A socket that nobody named has to be somewhere: /run/outboard of root's.
    let (code, said) = bare(&["--serial", "socket", "--log-dir", "off"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("/run/outboard/vm") && said.contains("XDG_RUNTIME_DIR"),
        "{said}"
    );
}

#[test]
fn doctor_says_what_is_missing() {
    let home = home();
    if !has_kvm() || !has_containers(&home) {
        return;
    }
    let mut doctor = in_container(&home);
    let Output { status, stdout, .. } = doctor
        .arg(daemon("outboard"))
        .arg("doctor")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stdout);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(
        said.contains("WARN") && said.contains("/dev/net/tun"),
        "{said}"
    );
}
