//! Where ttyS0 and the virtio console go, as a person at a terminal sees it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid};
use outboard_tests::daemons::daemon;
use outboard_tests::guest::{command, disk, has_kvm};
use outboard_tests::screen::Screen;
use outboard_tests::traces::Home;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// A VM of the bare-metal guest in a folder of its own.
fn vm(home: &Home, cmdline: &str, args: &[&str]) -> Command {
    let mut vm = command(cmdline);
    vm.args(args);
    home.adopt(&mut vm);
    vm
}

/// The same with the disk that some jobs want.
fn vm_with_disk(home: &Home, cmdline: &str, args: &[&str]) -> Command {
    disk(home.path(), "disk.img", 64);
    let mut vm = vm(home, cmdline, args);
    vm.args(["--disk", "path=disk.img"]);
    vm
}

#[test]
fn ctrl_a_c_switches_between_the_two_consoles() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let mut person = Screen::run(&vm_with_disk(
        &home,
        "jobs=hello,console,exits requests=2",
        &["--console", "socket"],
    ));
    person.expect("Ctrl-A c switches");
    person.expect("hello from the guest\n");
    person.press(b"\x01c");
    person.expect("ready\n");
    // The line goes to the virtio console; what ttyS0 prints meanwhile is kept back.
    person.press(b"to and fro\n");
    person.expect("echo: to and fro\n");
    assert!(!person.shown().contains("ok console"), "{}", person.shown());
    person.press(b"\x01c");
    person.expect("ok console\n");
    person.expect("waiting\n");
    // And this to ttyS0: the guest waits for two bytes.
    person.press(b"g");
    std::thread::sleep(Duration::from_millis(200));
    person.press(b"e");
    let shown = person.ends(0);
    assert!(shown.contains("ok exits\nend\n"), "{shown}");
    assert_eq!(shown.matches("hello from the guest").count(), 1, "{shown}");
    assert_eq!(shown.matches("Ctrl-A x quits").count(), 1, "{shown}");
    home.assert_left_clean();
}

#[test]
fn the_vmms_words_do_not_go_astray_on_a_raw_terminal() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let mut person = Screen::run(&vm(&home, "jobs=hello,spin", &["--console", "socket"]));
    person.expect("hello");
    person.expect("outboard: console0 is at ");
    person.press(b"\x01x");
    let shown = person.ends(0);
    assert!(shown.contains("console0.sock\r\n"), "{shown:?}");
    home.assert_left_clean();
}

#[test]
fn an_error_at_start_leaves_the_terminal_as_it_was() {
    if !has_kvm() {
        return;
    }
    for (args, told) in [
        (
            &["--disk", "path=no-such.img"][..],
            "Cannot open disk image",
        ),
        (&["--console", "file=no/such/folder"], "no/such/folder"),
        (&["--initrd", "no-such-initrd"], "no-such-initrd"),
    ] {
        let home = Home::new();
        let shown = Screen::run(&vm(&home, "jobs=spin", args)).ends(1);
        assert_eq!(shown.matches(told).count(), 1, "{shown}");
        home.assert_left_clean();
    }
}

#[test]
fn ctrl_c_at_an_ordinary_terminal_ends_the_vm_and_hits_no_daemon() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let log = home.path().join("log");
    let mut person = Screen::run(&vm_with_disk(
        &home,
        "jobs=hello,spin",
        &["--serial", "file=log", "--log-level", "info"],
    ));
    person.until("the guest speaks", || said(&log).contains("hello"));
    assert!(person.is_as_before(), "nobody asked for a raw terminal");
    let processes = home.processes();
    let group = |name: &str| {
        let of = |(pid, found): &(i32, String)| found.starts_with(name).then_some(*pid);
        let pid = processes.iter().find_map(of).expect("it runs");
        getpgid(Some(Pid::from_raw(pid))).unwrap()
    };
    let (vmm, block, console) = (
        processes
            .iter()
            .find(|(_, name)| name == "outboard")
            .map(|(pid, _)| getpgid(Some(Pid::from_raw(*pid))).unwrap())
            .expect("the VMM runs"),
        group("outboard-block"),
        group("outboard-consol"),
    );
    assert!(vmm != block && vmm != console, "{processes:?}");
    person.press(b"\x03");
    let shown = person.ends(130);
    assert!(!shown.contains("lost"), "{shown}");
    home.assert_left_clean();
}

#[test]
fn a_virtio_console_can_have_the_terminal() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let args = ["--serial", "off", "--console", "tty"];
    let mut person = Screen::run(&vm(&home, "jobs=console", &args));
    person.expect("ready\n");
    person.press(b"hi\n");
    assert!(person.ends(0).contains("echo: hi\n"));
    home.assert_left_clean();

    // Its daemon killed, the VMM puts the terminal back while the VM goes on.
    let home = Home::new();
    let mut person = Screen::run(&vm(&home, "jobs=console", &args));
    person.expect("ready\n");
    assert!(!person.is_as_before());
    let daemons = home.processes();
    let (pid, _) = daemons
        .iter()
        .find(|(_, name)| name.starts_with("outboard-consol"))
        .expect("the console's daemon");
    kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    person.until("the terminal comes back", || person.is_as_before());
    person.press(b"\x03");
    person.ends(130);
    home.assert_left_clean();
}

/// Waits for a notice of where a console is, and returns the place.
fn told_place(words: &mut impl Read) -> PathBuf {
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        let mut byte = [0];
        words.read_exact(&mut byte).expect("a place is told");
        said.extend(byte);
    }
    let said = String::from_utf8(said).unwrap();
    let place = said.trim().strip_prefix("outboard: ttyS0 is at ");
    place.expect(&said).into()
}

/// Talks to a guest that waits for two bytes.
fn converse(person: &mut (impl Read + Write)) {
    expect(person, "waiting");
    person.write_all(b"g").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    person.write_all(b"e").unwrap();
    expect(person, "ok exits");
}

fn expect(from: &mut impl Read, wanted: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let mut bytes = [0; 256];
        let got = from.read(&mut bytes).unwrap();
        assert_ne!(got, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend(&bytes[..got]);
    }
}

fn said(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn ttys0_on_a_pty_or_a_socket() {
    if !has_kvm() {
        return;
    }
    for port in ["pty", "socket", "socket=here.sock"] {
        let home = Home::new();
        let mut vm = vm_with_disk(&home, "jobs=exits requests=2", &["--serial", port]);
        let mut vm = vm
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let place = home.path().join(told_place(vm.stderr.as_mut().unwrap()));
        if port == "pty" {
            assert_sent_to(&home, &place);
            let pty = std::fs::File::options().read(true).write(true).open(&place);
            converse(&mut pty.unwrap());
        } else {
            let mut person = UnixStream::connect(&place).unwrap();
            person.set_read_timeout(Some(LONG)).unwrap();
            converse(&mut person);
        }
        assert_eq!(vm.wait().unwrap().code(), Some(0), "{port}");
        assert!(!place.exists(), "{} is left behind", place.display());
        home.assert_left_clean();
    }
}

/// Whoever asks for the console by the VM's name is told where it is.
fn assert_sent_to(home: &Home, pty: &Path) {
    let mut console = Command::new(daemon("outboard"));
    console.args(["console", "vm"]);
    home.adopt(&mut console);
    let refused = console.stdin(Stdio::null()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    let pty = pty.display();
    let wanted = format!(
        "outboard: ttyS0 of the VM 'vm' is on the pseudo-terminal {pty}; open that with screen or \
         the like\n"
    );
    assert_eq!(said, wanted);
}

#[test]
fn a_person_who_looks_at_a_vms_console_is_told_that_to_leave_does_not_end_it() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let mut vm = vm(
        &home,
        "jobs=hello,spin",
        &["--name", "web", "--serial", "socket"],
    );
    let mut vm = vm
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    told_place(vm.stderr.as_mut().unwrap());
    let mut console = Command::new(daemon("outboard"));
    console.args(["console", "web"]);
    home.adopt(&mut console);
    let mut person = Screen::run(&console);
    person
        .expect("[ttyS0 of web; Ctrl-A x leaves, and the VM goes on, Ctrl-A Ctrl-A sends Ctrl-A]");
    person.expect("hello from the guest");
    person.press(b"\x01x");
    let shown = person.ends(0);
    assert!(!shown.contains("quits"), "{shown}");
    assert_eq!(vm.try_wait().unwrap(), None, "the VM goes on");
    kill(Pid::from_raw(vm.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(vm.wait().unwrap().code(), Some(143));
    home.assert_left_clean();
}

#[test]
fn ttys0_in_a_file_or_nowhere() {
    if !has_kvm() {
        return;
    }
    for (port, logged) in [("file=log", "hello from the guest\nend\n"), ("off", "")] {
        let home = Home::new();
        let output = vm(&home, "jobs=hello", &["--serial", port])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}"
        );
        let log = said(&home.path().join("log"));
        assert_eq!(log, logged);
        home.assert_left_clean();
    }
}

#[test]
fn nothing_is_left_of_a_named_socket_when_the_vmm_is_killed() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let mut vm = vm(&home, "jobs=spin", &["--serial", "socket", "--console"]);
    let mut vm = vm
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = home.path().join("run/outboard/vm");
    let end = Instant::now() + LONG;
    while !["ttyS0.sock", "console0.sock"].map(|name| folder.join(name).exists())[..]
        .iter()
        .all(|there| *there)
    {
        assert!(Instant::now() < end, "the sockets do not appear");
        std::thread::sleep(Duration::from_millis(5));
    }
    vm.kill().unwrap();
    vm.wait().unwrap();
    home.assert_left_clean();
}
