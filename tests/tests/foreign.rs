//! Somebody else's daemon, started by the VMM: found, reached, heard and ended.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::guest::{Guest, command, disk, has_kvm, word};
use outboard_tests::traces::Home;

/// Of the image, in blocks of 4 KiB.
const BLOCKS: u64 = 256;
/// The slot where the guest looks for its disk.
const DISK: &str = "vhost-user,id=block,name=foreign,addr=8";

fn has_storage_daemon() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).any(|folder| folder.join("qemu-storage-daemon").exists());
    if !found {
        let _ = writeln!(
            io::stdout(),
            "SKIPPED, qemu-storage-daemon is not installed"
        );
    }
    found && has_kvm()
}

/// A qemu-storage-daemon on disk.img that listens where `address` says.
fn storage_daemon(address: &str) -> String {
    format!(
        "qemu-storage-daemon --blockdev driver=file,node-name=d,filename=disk.img \
         --export type=vhost-user-blk,id=e,node-name=d,writable=on,{address}"
    )
}

/// The device as `--device` has it: a comma within a value is written twice.
fn device(spawn: &str) -> String {
    format!("{DISK},spawn={}", spawn.replace(',', ",,"))
}

/// A guest with one device, which `spawn` serves.
fn vm(home: &Home, cmdline: &str, spawn: &str) -> Command {
    let mut command = command(cmdline);
    command.args(["--device", &device(spawn)]);
    home.adopt(&mut command);
    command
}

fn home() -> Home {
    let home = Home::new();
    disk(home.path(), "disk.img", BLOCKS);
    home
}

/// The image holds what the guest wrote.
fn written(image: &Path) {
    let bytes = fs::read(image).unwrap();
    assert_eq!(bytes.len() as u64, BLOCKS * 4096);
    for (block, data) in (0_u64..).zip(bytes.chunks_exact(4096)) {
        for (place, found) in (0_u64..).zip(data.chunks_exact(8)) {
            let found = u64::from_le_bytes(found.try_into().unwrap());
            assert_eq!(found, word(block, place, 1), "block {block}, word {place}");
        }
    }
}

fn serves_the_guest(spawn: &str) {
    let home = home();
    Guest::start(vm(&home, "jobs=block requests=256", spawn))
        .end()
        .passed(&["block"]);
    written(&home.path().join("disk.img"));
    home.assert_left_clean();
}

#[test]
fn a_storage_daemon_inherits_its_socket() {
    if has_storage_daemon() {
        serves_the_guest(&storage_daemon("addr.type=fd,addr.str={fd}"));
    }
}

#[test]
fn a_storage_daemon_listens_where_it_is_told() {
    if has_storage_daemon() {
        serves_the_guest(&storage_daemon("addr.type=unix,addr.path={socket}"));
    }
}

#[test]
fn our_own_daemon_is_as_good_as_anybodys() {
    if has_kvm() {
        serves_the_guest("outboard-block --socket {socket} --path 'disk.img'");
    }
}

#[test]
fn the_daemon_goes_with_the_vmm() {
    if !has_storage_daemon() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let home = home();
        let spawn = storage_daemon("addr.type=fd,addr.str={fd}");
        let mut guest = Guest::start(vm(&home, "jobs=block,hello,spin", &spawn));
        guest.expect("hello");
        assert_eq!(guest.daemons("qemu-storage").len(), 1);
        kill(Pid::from_raw(guest.pid()), signal).unwrap();
        guest.end();
        home.assert_left_clean();
    }
}

/// A wrapper whose child leaves its group, its session and its parent, and hears no SIGTERM.
#[test]
fn what_has_left_the_daemon_goes_with_it() {
    if !has_kvm() {
        return;
    }
    let deaf = "trap \"\" TERM; while :; do sleep 1; done";
    let wrapper = "(setsid sh -c \"$1\" &); exec \"$2\" --socket \"$0\" --path disk.img";
    let block = daemon("outboard-block");
    let spawn = format!("sh -c '{wrapper}' {{socket}} '{deaf}' {}", block.display());
    let home = home();
    let mut guest = Guest::start(vm(&home, "jobs=block,hello,spin requests=64", &spawn));
    guest.expect("hello");
    let astray = || {
        let there = home.processes().into_iter();
        there.filter(|(_, name)| name == "sh").count()
    };
    assert_eq!(astray(), 1, "{:?}", home.processes());
    // With the device, while the VM goes on; then with the VM.
    kill(Pid::from_raw(guest.pid()), Signal::SIGTERM).unwrap();
    guest.end();
    home.assert_left_clean();
}

#[test]
fn on_exit_is_heard() {
    if !has_kvm() {
        return;
    }
    let spawn = "outboard-block --socket {socket} --path disk.img";
    for (job, more, code) in [
        ("needs-reset", ",on-exit=degrade", 0),
        ("spin", ",on-exit=stop", 3),
    ] {
        let home = home();
        let mut command = command(&format!("jobs=hello,{job}"));
        command.args(["--device", &(device(spawn) + more)]);
        home.adopt(&mut command);
        let mut guest = Guest::start(command);
        guest.expect(if code == 0 {
            "kill the daemon"
        } else {
            "hello"
        });
        let daemon = guest.daemons("outboard-block")[0];
        kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
        let ended = guest.end();
        assert_eq!(ended.status.code(), Some(code), "{}", ended.words);
        for part in ["foreign", "SIGKILL"] {
            assert!(ended.words.contains(part), "{part} in {}", ended.words);
        }
        home.assert_left_clean();
    }
}

/// The VM does not start, and says each of `parts`.
fn refused(spawn: &str, parts: &[&str]) {
    let home = home();
    let mut vm = vm(&home, "jobs=hello", spawn);
    let output = vm.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "no instruction ran");
    for part in ["'foreign'"].iter().chain(parts) {
        assert!(said.contains(part), "no '{part}' in: {said}");
    }
    home.assert_left_clean();
}

#[test]
fn a_daemon_that_fails_has_the_last_word() {
    if !has_kvm() {
        return;
    }
    for place in ["{fd}", "{socket}"] {
        let spawn = format!("sh -c 'echo no such share >&2; exit 7' sh {place}");
        refused(
            &spawn,
            &["sh ended before", "exit status: 7", "no such share"],
        );
        let spawn = format!("no-such-daemon --at={place}");
        refused(&spawn, &["'no-such-daemon' is not found", "in PATH"]);
    }
}

#[test]
fn a_daemon_that_never_answers_is_ended() {
    if !has_kvm() {
        return;
    }
    for (place, parts) in [
        (
            "{socket}",
            &[
                "sh was started",
                "foreign.sock within 10 s",
                "No such file",
                "thinking",
            ],
        ),
        (
            "{fd}",
            &[
                "does not answer within 10 s",
                "its last",
                "words",
                "thinking",
            ],
        ),
    ] {
        // Its child goes as well.
        let script = "echo thinking >&2; sleep 1000; :";
        refused(&format!("sh -c '{script}' sh {place}"), parts);
    }
}

#[test]
fn a_dry_run_says_the_same_again() {
    let home = Home::new();
    let run = |args: &[&str]| {
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "--dry-run"]).args(args);
        home.adopt(&mut run);
        let output = run.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let spawn = storage_daemon("addr.type=unix,addr.path='{socket}'");
    let first = run(&["--kernel", "/k", "--device", &device(&spawn)]);
    assert!(first.contains(&spawn), "{first}");
    fs::write(home.path().join("vm.toml"), &first).unwrap();
    // A VM in a file has the file's name.
    assert_eq!(run(&["vm.toml"]), format!("name = \"vm\"\n{first}"));
}
