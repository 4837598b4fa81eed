//! The supervisor against small shell scripts.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::*;

/// Longer than anything here takes; reached only by a failing test.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

fn sh(script: &str) -> Command {
    Command::new("disk0", "/bin/sh").arg("-c").arg(script)
}

#[test]
fn a_daemon_that_fails_leaves_its_last_words() {
    let supervisor = Supervisor::start().unwrap();
    let process = supervisor
        .spawn(sh("echo starting; echo 'error: no such disk' >&2; exit 3"))
        .unwrap();
    let status = process.wait(LONG).unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(
        process.last_words().lines,
        ["starting", "error: no such disk"]
    );
    process.signal(libc::SIGKILL);
}

#[test]
fn what_a_daemon_has_left_behind_ends_with_it() {
    let supervisor = Supervisor::start().unwrap();
    for trap in ["", "trap '' TERM;"] {
        let script =
            format!("sh -c \"{trap} echo up; while :; do sleep 1; done\" & read x; echo $!");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (number, script) = (theirs.as_raw_fd(), script);
        // Until the one left behind is up.
        let wait = format!("exec 0<&{number}; {script}");
        let command = Command::new("disk0", "/bin/bash")
            .arg("-c")
            .arg(wait)
            .fd(theirs);
        let process = supervisor.spawn(command).unwrap();
        while !process.last_words().lines.contains(&"up".to_owned()) {
            std::thread::sleep(SHORT);
        }
        (&ours).write_all(b"go\n").unwrap();
        process.wait(LONG).unwrap();
        let group = nix::unistd::Pid::from_raw(process.pid());
        let left = || nix::sys::signal::killpg(group, None).is_ok();
        let begin = Instant::now();
        // Whoever takes it over reaps it when it likes.
        while left() && !is_dead(process.last_words().lines.last().unwrap()) {
            assert!(begin.elapsed() < LONG, "{:?}", process.last_words());
            std::thread::sleep(SHORT);
        }
    }
}

/// A daemon that ends when `go` is written to it. What it starts leaves its group, its session and
/// its parent, hears no SIGTERM, and says its number.
fn daemonizing(id: &str) -> (Command, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let deaf = "trap '' TERM; echo $$; while :; do sleep 1; done";
    let script = format!("exec 0<&$0; (setsid sh -c \"{deaf}\" &); read x");
    let script = script.replace("$$", "\\$\\$");
    let bash = Command::new(id, "/bin/bash").arg("-c").arg(script);
    (bash.fd(theirs), ours)
}

#[test]
fn what_has_left_a_daemon_ends_with_it_too() {
    let supervisor = Supervisor::start().unwrap();
    let ((first, go), (second, _stay)) = (daemonizing("disk0"), daemonizing("disk1"));
    let daemons = [first, second].map(|command| supervisor.spawn(command).unwrap());
    let begin = Instant::now();
    let [mine, others] = daemons.each_ref().map(|daemon| {
        loop {
            if let Some(pid) = daemon.last_words().lines.first() {
                break pid.clone();
            }
            assert!(begin.elapsed() < LONG, "it starts nothing");
            std::thread::sleep(SHORT);
        }
    });
    let group = |pid: &str| {
        let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
        nix::unistd::getpgid(Some(pid)).unwrap().as_raw()
    };
    assert_ne!(group(&mine), daemons[0].pid(), "it has left the group");
    (&go).write_all(b"go\n").unwrap();
    daemons[0].wait(LONG).unwrap();
    assert!(
        is_dead(&mine),
        "the daemon's end is that of all it has started"
    );
    assert!(!is_dead(&others), "and of nothing else");
    drop(supervisor);
    assert!(is_dead(&others));
}

/// Ended, reaped or not.
fn is_dead(pid: &str) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_err()
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    let supervisor = Supervisor::start().unwrap();
    let error = supervisor
        .spawn(Command::new("disk0", "/no/such/daemon"))
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/daemon"), "{error}");
    supervisor.spawn(sh("exit 0")).unwrap().wait(LONG).unwrap();
}

#[test]
fn the_child_inherits_its_stream_and_nothing_else() {
    let supervisor = Supervisor::start().unwrap();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    // A descriptor that some library forgot to mark.
    let leaked = std::fs::File::open("/dev/null").unwrap();
    let inherit = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
    nix::fcntl::fcntl(&leaked, inherit).unwrap();
    let number = theirs.as_raw_fd();
    let process = supervisor
        .spawn(sh("exec ls /proc/self/fd").fd(theirs))
        .unwrap();
    process.wait(LONG).unwrap();
    let words = process.last_words().lines;
    let mut held: Vec<i32> = words.iter().map(|line| line.parse().unwrap()).collect();
    held.sort_unstable();
    // `ls` itself opens the folder it lists, as 3.
    assert_eq!(held, [0, 1, 2, 3, number]);
}

#[test]
fn a_daemon_sees_the_end_of_its_stream_and_ends() {
    let supervisor = Supervisor::start().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let command = Command::new("disk0", "/bin/bash")
        .arg("-c")
        .arg("cat <&$0 >/dev/null; exit 7")
        .fd(theirs);
    let process = supervisor.spawn(command).unwrap();
    (&ours).write_all(b"hello").unwrap();
    assert_eq!(process.wait(SHORT), None);
    drop(ours);
    assert!(
        supervisor
            .stop(Grace {
                eof: LONG,
                term: LONG
            })
            .is_empty()
    );
    assert_eq!(process.exited().unwrap().code(), Some(7));
}

#[test]
fn stop_asks_first_and_kills_last() {
    let supervisor = Supervisor::start().unwrap();
    let deaf = "trap '' TERM; echo ready >&2; while :; do sleep 1; done";
    let polite = supervisor.spawn(sh("exec sleep 1000")).unwrap();
    let stubborn = supervisor
        .spawn(Command::new("net0", "/bin/sh").arg("-c").arg(deaf))
        .unwrap();
    let frozen = supervisor
        .spawn(Command::new("net1", "/bin/sleep").arg("1000"))
        .unwrap();
    frozen.signal(libc::SIGSTOP);
    while stubborn.last_words().lines.is_empty() {
        std::thread::sleep(SHORT);
    }
    let mut killed = supervisor.stop(Grace {
        eof: SHORT,
        term: Duration::from_millis(500),
    });
    killed.sort();
    assert_eq!(killed, ["net0", "net1"]);
    assert_eq!(polite.exited().unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(stubborn.exited().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(frozen.exited().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_daemon_hears_signals_that_the_vmm_blocks() {
    use nix::sys::signal::{SIGINT, SIGTERM, SigSet};
    let blocked = SigSet::from_iter([SIGINT, SIGTERM]);
    blocked.thread_block().unwrap();
    let supervisor = Supervisor::start().unwrap();
    blocked.thread_unblock().unwrap();
    for signal in [SIGINT, SIGTERM] {
        let process = supervisor.spawn(sh("exec sleep 1000")).unwrap();
        process.signal(signal as i32);
        assert_eq!(process.wait(LONG).unwrap().signal(), Some(signal as i32));
    }
}

#[test]
fn a_daemon_has_no_input_and_a_group_of_its_own() {
    let supervisor = Supervisor::start().unwrap();
    let script = "read line && echo input; [ $(ps -o pgid= -p $$) = $$ ] && echo group; exit 0";
    let process = supervisor.spawn(sh(script)).unwrap();
    process.wait(LONG).unwrap();
    assert_eq!(process.last_words().lines, ["group"]);
}
