//! The daemon as a process: bytes on one side, each kind of people's end on the other.
#![allow(clippy::panic)] // Tests fail by panicking, their helpers too.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

/// A descriptor without CLOEXEC is inherited by whatever is spawned meanwhile: one at a time.
static SPAWNING: Mutex<()> = Mutex::new(());

const QUIT: i32 = 10;

struct Console {
    child: Child,
    guest: UnixStream,
    _turn: MutexGuard<'static, ()>,
}

impl Console {
    /// Spawns the daemon with its guest's side on `--bytes-fd`.
    fn spawn(args: &[&str], terminal: Option<&OwnedFd>) -> Self {
        let turn = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
        let (guest, theirs) = UnixStream::pair().unwrap();
        guest
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let daemon = env!("CARGO_BIN_EXE_outboard-console");
        let mut command = match terminal {
            // The terminal has to be the controlling one, or nobody is in its foreground.
            Some(_) => Command::new("setsid"),
            None => Command::new(daemon),
        };
        if let Some(slave) = terminal {
            command.args(["--ctty", daemon]);
            let slave = || Stdio::from(slave.try_clone().unwrap());
            command.stdin(slave()).stdout(slave()).stderr(slave());
        } else {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        }
        command
            .arg("--bytes-fd")
            .arg(theirs.as_raw_fd().to_string())
            .args(args);
        let child = command.spawn().unwrap();
        Self {
            child,
            guest,
            _turn: turn,
        }
    }

    fn end_of_guest(&self) {
        self.guest.shutdown(std::net::Shutdown::Both).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        self.code_ref()
    }

    fn code_ref(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn expect(from: &mut impl Read, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut bytes = [0; 512];
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let got = from
            .read(&mut bytes)
            .unwrap_or_else(|e| panic!("waiting for '{wanted}': {e}"));
        assert_ne!(
            got,
            0,
            "waiting for '{wanted}', got '{}'",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&bytes[..got]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        assert!(
            Instant::now() < deadline,
            "{} does not appear",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn attach(path: &Path) -> UnixStream {
    let person = UnixStream::connect(path).unwrap();
    person
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    person
}

/// Runs `drive` on a console on a terminal; the terminal's settings must be the same after.
fn on_terminal(code: Option<i32>, drive: impl FnOnce(&mut Console, &mut std::fs::File)) {
    let pair = openpty(None, None).unwrap();
    let before: Termios = tcgetattr(&pair.slave).unwrap();
    let mut console = Console::spawn(&["--tty", "--name", "ttyS0"], Some(&pair.slave));
    let mut person = std::fs::File::from(pair.master);
    expect(&mut person, "Ctrl-A x quits");
    assert_ne!(
        tcgetattr(&pair.slave).unwrap(),
        before,
        "raw mode was never entered"
    );
    console.guest.write_all(b"login: ").unwrap();
    expect(&mut person, "login: ");
    drive(&mut console, &mut person);
    assert_eq!(console.code(), code);
    assert_eq!(
        tcgetattr(&pair.slave).unwrap(),
        before,
        "the terminal is not as it was"
    );
}

#[test]
fn the_terminal_is_restored_when_the_guest_ends() {
    on_terminal(Some(0), |console, person| {
        person.write_all(b"root\r").unwrap();
        expect(&mut console.guest, "root\r");
        console.end_of_guest();
    });
}

#[test]
fn the_terminal_is_restored_when_a_person_quits() {
    on_terminal(Some(QUIT), |console, person| {
        person.write_all(b"a\x01\x01b").unwrap();
        expect(&mut console.guest, "a\x01b");
        person.write_all(b"\x01x").unwrap();
    });
}

#[test]
fn the_terminal_is_restored_on_sigterm() {
    on_terminal(Some(0), |console, _| {
        // setsid has become the daemon.
        let daemon = Pid::from_raw(console.child.id().cast_signed());
        kill(daemon, Signal::SIGTERM).unwrap();
    });
}

#[test]
fn the_terminal_switches_also_while_the_guest_prints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.sock");
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let pair = openpty(None, None).unwrap();
    let args = ["--tty", "--switch-to", path.to_str().unwrap()];
    let mut console = Console::spawn(&args, Some(&pair.slave));
    let mut person = std::fs::File::from(pair.master);
    expect(&mut person, "Ctrl-A x quits");
    let mut guest = console.guest.try_clone().unwrap();
    let printing = std::thread::spawn(move || while guest.write_all(&[b'.'; 4096]).is_ok() {});
    let mut keys = person.try_clone().unwrap();
    for _ in 0..10 {
        keys.write_all(b"\x01c").unwrap();
        expect(&mut person, "now the other console");
        let (mut there, _) = other.accept().unwrap();
        keys.write_all(b"typed").unwrap();
        expect(&mut there, "typed");
        keys.write_all(b"\x01c").unwrap();
        expect(&mut person, "now console");
    }
    keys.write_all(b"\x01x").unwrap();
    std::thread::spawn(move || while person.read(&mut [0; 4096]).is_ok() {});
    assert_eq!(console.code_ref(), Some(QUIT));
    console.end_of_guest();
    printing.join().unwrap();
}

#[test]
fn people_attach_see_what_was_and_one_types() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let mut console = Console::spawn(&["--attach", path.to_str().unwrap()], None);
    console.guest.write_all(b"printed to nobody\n").unwrap();
    wait_for(&path);
    let mut first = attach(&path);
    expect(&mut first, "printed to nobody");
    let mut second = attach(&path);
    expect(&mut second, "printed to nobody");
    console.guest.write_all(b"to all\n").unwrap();
    expect(&mut first, "to all");
    expect(&mut second, "to all");
    second.write_all(b"only reads").unwrap();
    first.write_all(b"types").unwrap();
    assert_eq!(expect(&mut console.guest, "types"), "types");
    drop(first);
    // Once the first has left, what the second types arrives.
    console
        .guest
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut byte = [0];
    let deadline = Instant::now() + Duration::from_secs(10);
    while console.guest.read(&mut byte).is_err() {
        assert!(Instant::now() < deadline, "the second never gets to type");
        second.write_all(b"x").unwrap();
    }
    console.end_of_guest();
    assert_eq!(console.code(), Some(0));
    assert!(!path.exists(), "the socket is left behind");
}

/// A client that has said all it had to say, such as one that reads a pipe, is still there to see. It
/// once lost what there was by chance: hence so many.
#[test]
fn who_types_no_more_still_sees_and_others_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let mut console = Console::spawn(&["--attach", path.to_str().unwrap()], None);
    console.guest.write_all(b"printed to nobody\n").unwrap();
    wait_for(&path);
    let mut silent: Vec<UnixStream> = (0..25)
        .map(|_| {
            let person = attach(&path);
            person.shutdown(Shutdown::Write).unwrap();
            person
        })
        .collect();
    for person in &mut silent {
        expect(person, "printed to nobody");
    }
    let mut typist = attach(&path);
    expect(&mut typist, "printed to nobody");
    console
        .guest
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    typist.write_all(b"typed").unwrap();
    assert_eq!(expect(&mut console.guest, "typed"), "typed");
    console.guest.write_all(b"to all\n").unwrap();
    for person in &mut silent {
        expect(person, "to all");
    }
    console.end_of_guest();
    assert_eq!(console.code(), Some(0));
}

/// A serial port prints byte by byte; who looks away for a moment misses nothing.
#[test]
fn people_attached_may_lag_behind_bytes_printed_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let mut console = Console::spawn(&["--attach", path.to_str().unwrap()], None);
    wait_for(&path);
    let mut person = attach(&path);
    console.guest.write_all(b"begin\n").unwrap();
    expect(&mut person, "begin");
    for _ in 0..5000 {
        console.guest.write_all(b".").unwrap();
        std::thread::sleep(Duration::from_micros(20));
    }
    console.guest.write_all(b"end\n").unwrap();
    assert_eq!(expect(&mut person, "end\n").len(), 5004);
    console.end_of_guest();
    assert_eq!(console.code(), Some(0));
}

#[test]
fn a_socket_that_is_served_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut console = Console::spawn(&["--attach", path.to_str().unwrap()], None);
    let mut words = console.child.stderr.take().unwrap();
    expect(&mut words, "is served by another process");
    assert_eq!(console.code(), Some(1));
    assert!(path.exists(), "somebody else's socket is gone");
}

#[test]
fn a_pty_is_named_and_carries_both_ways() {
    let mut console = Console::spawn(&["--pty", "--name", "console0"], None);
    let mut words = console.child.stdout.take().unwrap();
    let said = expect(&mut words, "\n");
    let name = said.trim().strip_prefix("note: console0 is at ").unwrap();
    console.guest.write_all(b"before anybody came\n").unwrap();
    let mut person = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    expect(&mut person, "before anybody came");
    person.write_all(b"typed").unwrap();
    assert_eq!(
        expect(&mut console.guest, "typed"),
        "typed",
        "output is echoed as input"
    );
    console.end_of_guest();
    assert_eq!(console.code(), Some(0));
}

#[test]
fn a_slow_reader_of_a_pty_sees_the_last_words() {
    let mut console = Console::spawn(&["--pty"], None);
    let mut words = console.child.stdout.take().unwrap();
    let said = expect(&mut words, "\n");
    let name = said.trim().strip_prefix("note: console is at ").unwrap();
    let mut person = std::fs::File::open(name).unwrap();
    console.guest.write_all(&[b'.'; 16000]).unwrap();
    console.guest.write_all(b"last words\n").unwrap();
    console.end_of_guest();
    std::thread::sleep(Duration::from_millis(50));
    expect(&mut person, "last words");
    assert_eq!(console.code(), Some(0));
}

#[test]
fn a_file_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, "first\n").unwrap();
    let mut console = Console::spawn(&["--file", path.to_str().unwrap()], None);
    console.guest.write_all(b"second\n").unwrap();
    console.end_of_guest();
    assert_eq!(console.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nsecond\n");
}

#[test]
fn a_serial_ports_console_is_confined() {
    let mut console = Console::spawn(&["--tty"], None);
    let mut shown = console.child.stdout.take().unwrap();
    console.guest.write_all(b"hello\n").unwrap();
    expect(&mut shown, "hello");
    let status = std::fs::read_to_string(format!("/proc/{}/status", console.child.id())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Every thread: those that serve the terminal as well.
    let threads = std::fs::read_dir(format!("/proc/{}/task", console.child.id())).unwrap();
    for thread in threads.flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
    assert!(
        status.contains("Seccomp:\t2") || !status.contains("Seccomp:"),
        "{status}"
    );
    console.end_of_guest();
    assert_eq!(console.code(), Some(0));
}

#[test]
fn a_hangup_ends_a_console_started_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let mut child = Command::new(env!("CARGO_BIN_EXE_outboard-console"))
        .arg("--socket")
        .arg(&path)
        .arg("--off")
        .spawn()
        .unwrap();
    wait_for(&path);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGHUP).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the daemon does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn in_a_pipe_every_byte_is_the_guests() {
    let mut console = Console::spawn(&["--tty"], None);
    let mut shown = console.child.stdout.take().unwrap();
    console.guest.write_all(b"hello\n").unwrap();
    assert_eq!(expect(&mut shown, "\n"), "hello\n");
    console.end_of_guest();
    assert_eq!(console.code(), Some(0));
}
