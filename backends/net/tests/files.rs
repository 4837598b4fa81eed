//! `outboard-net switch` where the host lets it open no more files.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use outboard_device::driver::{Daemon, Driver, Options};

const LIMIT: Duration = Duration::from_secs(20);

/// Sets the soft limit of a process.
fn may_open(pid: u32, files: usize) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args([format!("--pid={pid}"), format!("--nofile={files}:")]);
    assert!(prlimit.status().unwrap().success());
}

/// The soft and the hard limit of a process.
fn limits(pid: u32) -> (String, String) {
    let all = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = all.lines().find(|line| line.starts_with("Max open files"));
    let mut words = files.unwrap().split_whitespace().skip(3).map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn a_guest_that_finds_no_room_waits_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let port = |name: &str| format!("--port={name}={}", path(name).display());
    let mut command = Command::new("prlimit");
    command.args(["--nofile=100:400", env!("CARGO_BIN_EXE_outboard-net")]);
    command.args(["switch".to_owned(), port("a"), port("b")]);
    let mut switch = Daemon::start(Path::new("prlimit"), command).unwrap();
    let end = Instant::now() + LIMIT;
    let wait = |switch: &mut Daemon, what: &str| {
        while !switch.words().contains(what) {
            assert!(
                Instant::now() < end && switch.is_alive(),
                "no '{what}': {}",
                switch.words()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait(&mut switch, &format!("{}", path("b").display()));
    let connect = |name: &str| UnixStream::connect(path(name)).unwrap();
    let mut first = Driver::new(connect("a"), &Options::default()).unwrap();
    let pid = switch.id();
    assert_eq!(
        limits(pid).0,
        limits(pid).1,
        "it takes all that it may have"
    );

    // More are open; and poll takes no more than may be.
    may_open(pid, 5);
    let second = connect("b");
    wait(&mut switch, "no frontend can be taken");
    assert!(first.connection().status().is_ok(), "{}", switch.words());
    may_open(pid, 400);
    Driver::new(second, &Options::default()).unwrap();
    assert!(switch.is_alive());
}
