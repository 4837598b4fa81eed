//! A VM with the bare-metal guest in it: `outboard run` as a person runs it, ttyS0 by pipes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)] // a test fails by panicking

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemons::daemon;

/// Reached only by a failing test.
const LONG: Duration = Duration::from_mins(1);

/// The ELF image of the guest.
pub fn payload() -> PathBuf {
    env!("PAYLOAD").into()
}

/// Whether bare-metal tests can run here; says so loudly where they cannot.
pub fn has_kvm() -> bool {
    match std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => true,
        Err(error) => {
            println!("SKIPPED, nothing was tested: /dev/kvm: {error}");
            false
        }
    }
}

/// A running VM. Dropped, it is killed.
pub struct Guest {
    child: Child,
    typed: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    words: thread::JoinHandle<String>,
}

/// How a VM ended.
pub struct Ended {
    /// Of the VMM.
    pub status: ExitStatus,
    /// Every line of ttyS0.
    pub lines: Vec<String>,
    /// Standard error.
    pub words: String,
}

/// `outboard run` of the payload with a command line: add to it, then [`Guest::start`] it.
pub fn command(cmdline: &str) -> Command {
    command_with(cmdline, "64M")
}

/// The same with so much memory.
pub fn command_with(cmdline: &str, memory: &str) -> Command {
    for package in ["outboard-block", "outboard-net", "outboard-console"] {
        daemon(package);
    }
    let mut command = Command::new(daemon("outboard"));
    command.arg("run").arg("--kernel").arg(payload());
    command.args(["--memory", memory, "--log-dir", "off"]);
    command.args(["--cmdline", cmdline]);
    command
}

impl Guest {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("outboard starts");
        let printed = BufReader::new(child.stdout.take().unwrap());
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        let mut errors = child.stderr.take().unwrap();
        let words = thread::spawn(move || {
            let mut words = String::new();
            let _ = errors.read_to_string(&mut words);
            words
        });
        Self {
            typed: child.stdin.take(),
            child,
            lines,
            seen: Vec::new(),
            words,
        }
    }

    /// The VMM's process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Types on ttyS0.
    pub fn type_bytes(&mut self, bytes: &[u8]) {
        self.typed
            .as_mut()
            .unwrap()
            .write_all(bytes)
            .expect("ttyS0 takes input");
    }

    /// Waits until the guest prints a line that contains `wanted`, which it gives; a FAIL line ends the test.
    pub fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let (found, failed) = (line.contains(wanted), line.starts_with("FAIL"));
                    self.seen.push(line.clone());
                    assert!(!failed, "{:?}", self.seen);
                    if found {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no '{wanted}' within a minute: {:?}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("no '{wanted}' before the end: {:?}", self.seen)
                }
            }
        }
    }

    /// The VMM's daemons: children whose program has this name.
    pub fn daemons(&self, program: &str) -> Vec<i32> {
        children(self.pid())
            .into_iter()
            // The kernel keeps 15 bytes of it.
            .filter(|pid| name(*pid).starts_with(program.get(..15).unwrap_or(program)))
            .collect()
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + LONG;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("the VM does not end: {:?}", self.seen);
            }
            thread::sleep(Duration::from_millis(5));
        };
        self.typed = None;
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.seen.push(line);
        }
        let words = std::mem::replace(&mut self.words, thread::spawn(String::new));
        let (lines, words) = (std::mem::take(&mut self.seen), words.join().unwrap());
        Ended {
            status,
            lines,
            words,
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The guest powered off after all of these checks, and none failed.
    pub fn passed(&self, checks: &[&str]) {
        let told = format!("{:#?}\n{}", self.lines, self.words);
        assert!(
            !self.lines.iter().any(|line| line.starts_with("FAIL")),
            "{told}"
        );
        for check in checks {
            assert!(
                self.lines.iter().any(|line| *line == format!("ok {check}")),
                "no 'ok {check}' in {told}"
            );
        }
        assert_eq!(self.lines.last().map(String::as_str), Some("end"), "{told}");
        assert_eq!(self.status.code(), Some(0), "{told}");
    }
}

/// Process ids of a process's children.
pub fn children(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists =
        tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// A file of `blocks` times 4 KiB of zeroes.
pub fn disk(folder: &Path, name: &str, blocks: u64) -> PathBuf {
    let path = folder.join(name);
    std::fs::File::create(&path)
        .unwrap()
        .set_len(blocks * 4096)
        .unwrap();
    path
}

/// The word that the guest writes at `place` of `block` (tests/payload/block.rs).
pub fn word(block: u64, place: u64, seed: u64) -> u64 {
    (block << 32 | place).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed
}
