//! The program measures what it serves itself, and says so when it cannot.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // a test fails by panicking

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_bench::record::{self, Record};

/// The program, with a folder of its own for what it leaves.
fn bench(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboard-bench"));
    command.env("TMPDIR", folder).current_dir(folder);
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What `arguments` measure, a tenth of a second each.
fn measured(arguments: &str) -> Vec<Record> {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path())
        .args(arguments.split_whitespace())
        .args([
            "--seconds",
            "0.1",
            "--warmup",
            "0.05",
            "--json",
            "results.jsonl",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let file = folder.path().join("results.jsonl");
    let records: Vec<Record> = record::read(&file).unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    for record in &records {
        assert!(table.contains(&record.case.to_string()), "{table}");
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "something is left behind"
    );
    records
}

#[test]
fn every_kind_of_ring_carries_requests() {
    let records = measured(
        "null --depth 1,32 --wait poll,sleep --event-idx on,off --indirect on,off --queues 1,3",
    );
    assert_eq!(records.len(), 32);
    let mut idle = 0;
    for Record { case, figures, .. } in &records {
        let Some(latency) = figures.latency else {
            // On a busy machine one side may not have run in a tenth of a second.
            idle += 1;
            continue;
        };
        assert!(figures.requests > 0 && figures.rate > 0.0, "{case}");
        assert!(
            latency.p50 <= latency.p99 && latency.p99 <= latency.max,
            "{case}"
        );
        assert!(figures.backend_cpu.unwrap() > 0.0, "{case}");
        assert!(figures.kicks <= 1.01, "{case}: {figures:?}");
        // A driver that polls wants no calls. The first completion after a start calls in any case.
        if case.wait == outboard_bench::case::Wait::Poll {
            let requests = figures.requests as f64;
            assert!(
                figures.calls * requests < 1.5 + requests / 10.0,
                "{case}: {figures:?}"
            );
        }
    }
    assert!(idle <= 4, "{idle} cases without a request");
}

#[test]
fn a_given_rate_is_kept() {
    let records = measured("null --depth 8 --wait sleep,poll --rate 2000");
    for Record { case, figures, .. } in &records {
        // Fewer only where the machine stops us. Those due in the warm-up may be done in the measured time.
        let due = 2000.0 * (figures.seconds + 0.1);
        assert!(
            figures.requests > 0 && (figures.requests as f64) < due,
            "{case}: {figures:?}"
        );
    }
}

#[test]
fn a_backend_is_measured_at_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("null.sock");
    let mut backend = bench(folder.path())
        .args(["serve-null", "--queues", "2", "--socket"])
        .arg(&socket)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !socket.exists() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    let records = measured(&format!(
        "null --depth 4 --queues 2 --socket {}",
        socket.display()
    ));
    assert!(records[0].figures.requests > 0);
    assert_eq!(records[0].subject, "null.sock");
    kill(Pid::from_raw(backend.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(backend.wait().unwrap().success());
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("block", "--socket"),
        ("block --socket /nowhere/disk.sock", "/nowhere/disk.sock"),
        (
            "null --queues 2 --spawn 'outboard-bench serve-null --socket {socket}'",
            "the device has 1",
        ),
        ("null --size 100", "whole sectors"),
        ("null --affinity driver=1000", "affinity"),
        ("rng --spawn 'false {socket}'", "has ended"),
    ];
    for (arguments, wanted) in cases {
        let output = bench(folder.path())
            .args(shlex::split(arguments).unwrap())
            .output()
            .unwrap();
        let words = words(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {words}");
        assert!(
            words.contains("error: ") && words.contains(wanted),
            "{arguments}: {words}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let child = bench(folder.path())
        .args(["null", "--depth", "1", "--wait", "sleep", "--seconds", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Until its backend listens, and a little longer.
    let end = Instant::now() + Duration::from_secs(10);
    let listens = || {
        fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .any(|dir| dir.path().join("backend.sock").exists())
    };
    while !listens() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(100));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("interrupted"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
