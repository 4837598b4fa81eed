//! What a running VM does, as `outboard info`, `outboard top` and its API tell it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::grid::Grid;
use outboard_tests::guest::{Guest, children, command, disk, has_kvm};
use outboard_tests::screen::Screen;
use outboard_tests::traces::Home;
use serde_json::Value;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

fn verb(home: &Home, words: &[&str]) -> Command {
    let mut verb = Command::new(daemon("outboard"));
    verb.args(words).stdin(Stdio::null());
    home.adopt(&mut verb);
    verb
}

fn succeed(home: &Home, words: &[&str]) -> String {
    said(&verb(home, words).output().unwrap())
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(home: &Home, words: &[&str]) -> Value {
    let words = [words, &["--output", "json"]].concat();
    serde_json::from_str(succeed(home, &words).trim()).unwrap()
}

fn ask(home: &Home, path: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sf", "--unix-socket"])
        .arg(home.path().join("run/outboard/web/api.sock"))
        .arg(format!("http://localhost/{path}"));
    said(&curl.output().unwrap())
}

/// A VM called web with a disk.
fn vm(home: &Home, cmdline: &str) -> Guest {
    disk(home.path(), "disk.img", 64);
    let mut vm = command(cmdline);
    vm.args(["--name", "web", "--disk", "path=disk.img"]);
    home.adopt(&mut vm);
    Guest::start(vm)
}

/// Its guest uses its disk without end while it waits for another.
fn busy(home: &Home) -> Guest {
    let mut guest = vm(home, "jobs=plug cycles=1");
    guest.expect("ready for devices");
    guest
}

#[test]
fn a_busy_vm_shows_its_rings_its_exits_and_its_processes() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let guest = busy(&home);
    let info = succeed(&home, &["info", "web"]);
    for part in [
        "\nMemory map\n",
        "disk0: BAR 0\n",
        "  driver    running\n",
        "  queue 0   256 descriptors, interrupt ",
        " bytes to the device, ",
        "Exits to the VMM",
        "a device's port was read",
    ] {
        assert!(info.contains(part), "{part} is not in:\n{info}");
    }

    let sample = json(&home, &["top", "web", "--once"]);
    let queue = &sample["queues"][0];
    assert_eq!(queue["device"], "disk0", "{sample}");
    for what in [
        "requests",
        "bytes_to_device",
        "bytes_to_guest",
        "interrupts",
    ] {
        assert!(queue[what].as_f64().unwrap() > 0.0, "{what}: {sample}");
    }
    let pids = [0, 1].map(|process| sample["processes"][process]["pid"].as_i64().unwrap());
    assert_eq!(pids[0], i64::from(guest.pid()), "{sample}");
    let daemons = children(guest.pid());
    assert!(
        daemons.iter().any(|pid| i64::from(*pid) == pids[1]),
        "{sample}"
    );

    // Not a terminal: one sample without an escape code, and the end.
    let text = succeed(&home, &["top", "--interval", "0.2"]);
    for part in ["web: running", "\n  disk0 0 ", "\n  vmm ", "\n  ttyS0 "] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!text.contains('\x1b'), "{text:?}");

    // Nothing moves in a suspended one: then the device and its ring have counted the same.
    succeed(&home, &["suspend", "web"]);
    let info = json(&home, &["info", "web"]);
    assert_eq!(info["vcpus"][0]["state"], "paused", "{info}");
    let queue = &info["devices"][0]["queues"][0];
    let requests = queue["counts"]["requests"].as_u64().unwrap();
    assert_eq!(queue["used"], requests % 65536, "{queue}");
    let sample = json(&home, &["top", "web", "--once"]);
    assert_eq!(sample["queues"][0]["requests"], 0.0, "{sample}");
    succeed(&home, &["destroy", "web"]);
    guest.end();
    home.assert_left_clean();
}

/// What a device must have counted of `requests` one after the other, half of them writes of 4 KiB, half
/// reads, and a flush between.
fn judge(counters: &Value, requests: u64) -> Result<(), String> {
    let half = requests / 2;
    let count = |name: &str| counters["disk0"][format!("queue0_{name}")].as_u64();
    let wanted = [
        ("requests", requests + 1),
        ("bytes_to_device", (requests + 1) * 16 + half * 4096),
        ("bytes_to_guest", requests + 1 + half * 4096),
    ];
    for (name, wanted) in wanted {
        if count(name) != Some(wanted) {
            return Err(format!("{name} is not {wanted}: {counters}"));
        }
    }
    // Of those that polling has spared there are fewer.
    for name in ["kicks", "interrupts"] {
        if !count(name).is_some_and(|count| (1..=requests + 1).contains(&count)) {
            return Err(format!("{name} make no sense: {counters}"));
        }
    }
    Ok(())
}

/// As one does that is being suspended while its disk takes its time.
#[test]
fn one_that_does_not_answer_for_a_while_is_not_taken_for_ended() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let guest = busy(&home);
    let vmm = Pid::from_raw(guest.pid());
    let mut top = verb(
        &home,
        &["top", "web", "--interval", "0.1", "--output", "json"],
    );
    let mut top = top.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let mut states = lines.map(|line| {
        let sample: Value = serde_json::from_str(&line.unwrap()).unwrap();
        sample["state"].as_str().unwrap().to_owned()
    });
    assert!(states.any(|state| state == "running"));
    kill(vmm, Signal::SIGSTOP).unwrap();
    assert!(states.any(|state| state == "no answer"));
    // Nor for one that never was.
    assert_eq!(succeed(&home, &["top", "--once"]), "web: no answer\n");
    let sample = json(&home, &["top", "--once"]);
    assert_eq!(sample["name"], "web", "{sample}");
    assert_eq!(sample["state"], "no answer", "{sample}");
    kill(vmm, Signal::SIGCONT).unwrap();
    assert!(states.any(|state| state == "running"));
    succeed(&home, &["destroy", "web"]);
    states.for_each(drop);
    assert!(top.wait().unwrap().success());
    guest.end();
}

/// A VM of that name, to all who look, that says this when it is asked, or nothing.
fn pretend(home: &Home, name: &str, answer: Option<&'static str>) -> File {
    let folder = home.path().join("run/outboard").join(name);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .unwrap();
    let listener = UnixListener::bind(folder.join("api.sock")).unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if let Some(answer) = answer {
                let _ = stream.read(&mut [0; 4096]);
                let _ = write!(stream, "HTTP/1.1 {answer}");
            }
            held.push(stream);
        }
    });
    let lock = File::open(folder).unwrap();
    lock.lock().unwrap();
    lock
}

#[test]
fn one_that_has_not_answered_yet_is_shown_as_one_that_does_no_more() {
    let home = Home::new();
    let _silent = pretend(&home, "web", None);
    assert_eq!(
        succeed(&home, &["top", "web", "--once"]),
        "web: no answer\n"
    );
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error_at_once() {
    for (answer, word) in [
        ("200 OK\r\nContent-Length: 2\r\n\r\n{}", "version"),
        ("500 No\r\nContent-Length: 9\r\n\r\n[\"never\"]", "never"),
    ] {
        let home = Home::new();
        let _wrong = pretend(&home, "web", Some(answer));
        let top = verb(&home, &["top", "web"]).output().unwrap();
        let words = String::from_utf8_lossy(&top.stderr);
        assert_eq!(top.status.code(), Some(1), "{words}");
        assert!(words.contains(word), "{words}");
        // Nor is it one that is late.
        assert_eq!(succeed(&home, &["top", "--once"]), "No VM runs\n");
    }
}

#[test]
fn every_request_is_counted() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let mut guest = vm(&home, "jobs=exits requests=3000");
    guest.expect("waiting");
    guest.type_bytes(b"x");
    let counters = || serde_json::from_str::<Value>(&ask(&home, "api/v1/vm.counters")).unwrap();
    let end = Instant::now() + LONG;
    while let Err(why) = judge(&counters(), 3000) {
        assert!(Instant::now() < end, "{why}");
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that was forgotten would be seen.
    judge(&counters(), 3001).unwrap_err();
    judge(&counters(), 2999).unwrap_err();

    let metrics = ask(&home, "metrics");
    let queue = "device=\"disk0\",queue=\"0\"";
    // The first and one in 64 after it.
    let sampled = 3001_u64.div_ceil(64);
    for line in [
        format!("outboard_queue_requests_total{{{queue}}} 3001\n"),
        format!("outboard_queue_in_flight{{{queue}}} 0\n"),
        format!("outboard_queue_service_seconds_count{{{queue}}} {sampled}\n"),
        format!("outboard_queue_service_seconds_bucket{{{queue},le=\"+Inf\"}} {sampled}\n"),
        "outboard_device_connected{device=\"disk0\",kind=\"block\",host=\"process\"} 1\n".into(),
    ] {
        assert!(metrics.contains(&line), "{line}is not in:\n{metrics}");
    }
    let resident = "outboard_daemon_resident_bytes{device=\"disk0\"} ";
    assert!(metrics.contains(resident), "{metrics}");
    guest.type_bytes(b"x");
    guest.end().passed(&["exits"]);
    home.assert_left_clean();
}

/// A person at a terminal, and what they see of it.
struct Person(Screen, usize, usize);

impl Person {
    fn runs(home: &Home, words: &[&str]) -> Self {
        let screen = Screen::run(&verb(home, words));
        Self(screen, 24, 80)
    }

    fn sees(&self) -> Grid {
        Grid::after(self.1, self.2, &self.0.shown())
    }

    fn waits_for(&self, text: &str) {
        self.0.until(text, || self.sees().shows(text));
        assert!(!self.0.is_as_before(), "the view has the keyboard");
    }

    /// The terminal is as it was, and its first screen is back.
    fn leaves(self, code: i32) -> String {
        let Self(screen, rows, columns) = self;
        let shown = screen.ends(code);
        let grid = Grid::after(rows, columns, &shown);
        assert!(!grid.other && grid.cursor, "{shown:?}");
        shown
    }
}

#[test]
fn a_person_watches_and_leaves() {
    if !has_kvm() {
        return;
    }
    let home = Home::new();
    let guest = busy(&home);
    let watch = ["top", "web", "--interval", "0.2"];

    let mut person = Person::runs(&home, &watch);
    for text in ["web: running", "  disk0 0 ", "  port-read ", "  vmm "] {
        person.waits_for(text);
    }
    assert!(person.sees().other && !person.sees().cursor);
    assert!(person.sees().rows()[23].starts_with("q leaves"));
    // Arrows scroll: the first line leaves the screen, and comes back.
    person.0.press(b"\x1b[B");
    person
        .0
        .until("scrolled", || !person.sees().shows("web: running"));
    person.0.press(b"\x1b[A");
    person.waits_for("web: running");
    person.0.press(b"q");
    person.leaves(0);

    // All of them; the terminal becomes another size while it is looked at.
    let mut person = Person::runs(&home, &["top", "--interval", "0.2"]);
    person.waits_for("web: running");
    person.0.resize(10, 60);
    (person.1, person.2) = (10, 60);
    person.0.until("the last row is another", || {
        person.sees().rows()[9].starts_with("q leaves")
    });
    assert!(person.sees().shows("web: running"));
    person.0.press(b"\x03");
    person.leaves(0);

    // A signal.
    let person = Person::runs(&home, &watch);
    person.waits_for("web: running");
    // Its shell has the same words, and the VMM the same name.
    let mut processes = home.processes().into_iter();
    let top = processes.find_map(|(pid, name)| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (name == "outboard" && words.contains("\0top\0")).then_some(pid)
    });
    kill(Pid::from_raw(top.unwrap()), Signal::SIGTERM).unwrap();
    person.leaves(143);

    // The VM ends: by name that is the end, and is said.
    let person = Person::runs(&home, &watch);
    let all = Person::runs(&home, &["top", "--interval", "0.2"]);
    let mut reader = verb(&home, &["top", "web", "--output", "json"]);
    reader.stdout(Stdio::piped()).stderr(Stdio::piped());
    let reader = reader.spawn().unwrap();
    person.waits_for("web: running");
    all.waits_for("web: running");
    succeed(&home, &["destroy", "web"]);
    guest.end();
    assert!(person.leaves(0).contains("VM 'web' has ended\r\n"));
    let reader = reader.wait_with_output().unwrap();
    assert!(!said(&reader).contains('\x1b'));
    assert_eq!(reader.stderr, b"VM 'web' has ended\n");
    all.waits_for("No VM runs");
    drop(all);

    let unknown = verb(&home, &["top", "web"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    home.assert_left_clean();
}
