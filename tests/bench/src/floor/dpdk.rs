//! DPDK's two ends of a vhost-user socket: what a switch in one process between two guests may aim at.
//!
//! One process sends the same frame from its own memory by `net_vhost`, the other takes it out of its
//! `virtio_user` ring and drops it: one copy for each frame, as in a switch, and nobody to decide where it goes.

// Between fork and exec the child asks to die with this process: only an unsafe hook can.
#![allow(unsafe_code)]

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::affinity::Cpus;
use crate::case::{Case, Format};
use crate::clock::ProcessClock;
use crate::error::{Error, Result};
use crate::figures::{Counts, Figures};
use crate::run::Conditions;

const PROGRAM: &str = "dpdk-testpmd";
/// How long it may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether there is one to be run.
pub fn installed() -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {PROGRAM} && command -v stdbuf")])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// Measures frames a second. Its command line, and the figures.
pub(super) fn run(case: &Case, how: &Conditions, stop: &AtomicBool) -> Result<(String, Figures)> {
    let folder = tempfile::Builder::new()
        .prefix("outboard-bench-")
        .tempdir()
        .map_err(Error::system("make a folder for a socket"))?;
    let socket = folder.path().join("vhost.sock");
    let packed = match case.ring {
        Format::Packed => ",packed_vq=1",
        Format::Split => "",
    };
    let (path, size) = (socket.display(), case.size.0);
    let sender = format!("net_vhost0,iface={path}");
    let sending = format!("--forward-mode=txonly --txpkts={size}");
    let sender = Testpmd::start("vhost", &sender, &sending, &how.affinity.backend)?;
    let started = Instant::now();
    while !socket.exists() {
        patient(started, stop, || sender.failed("does not listen"))?;
        thread::sleep(Duration::from_millis(10));
    }
    let receiver = format!("net_virtio_user0,path={path}{packed}");
    let receiving = "--forward-mode=rxonly";
    let mut receiver = Testpmd::start("virtio", &receiver, receiving, &how.affinity.driver)?;
    while receiver.received(stop)? == 0 {
        patient(started, stop, || receiver.failed("receives nothing"))?;
    }
    thread::sleep(how.warmup);
    let (before, from) = (receiver.snapshot(&sender, stop)?, Instant::now());
    thread::sleep(how.time);
    let (after, time) = (receiver.snapshot(&sender, stop)?, from.elapsed());
    let requests = after.received.saturating_sub(before.received);
    let counts = Counts {
        time,
        requests,
        bytes: requests * size,
        driver: after.receiver.saturating_sub(before.receiver),
        backend: Some(after.sender.saturating_sub(before.sender)),
        ..Counts::default()
    };
    let none = Histogram::new(1).map_err(|_| Error::Unfit("no histogram can be made".into()))?;
    Ok((sender.line.clone(), Figures::new(&counts, &none)))
}

fn patient(since: Instant, stop: &AtomicBool, otherwise: impl Fn() -> Error) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    if since.elapsed() > PATIENCE {
        return Err(otherwise());
    }
    Ok(())
}

struct Snapshot {
    received: u64,
    receiver: Duration,
    sender: Duration,
}

/// A `testpmd` that is asked by its standard input; killed when dropped.
#[derive(Debug)]
struct Testpmd {
    child: Child,
    lines: Receiver<String>,
    line: String,
}

impl Testpmd {
    fn start(name: &str, device: &str, mode: &str, cpus: &Cpus) -> Result<Self> {
        let cpus = cpus.to_string().replace('+', ",");
        let cpus = if cpus == "any" { "0,1".into() } else { cpus };
        let line = format!(
            "{PROGRAM} --lcores 0@({cpus}),1@({cpus}) --no-pci --no-huge -m 256 --no-telemetry \
             --file-prefix outboard-bench-{name} --vdev {device} -- -i --auto-start {mode} \
             --total-num-mbufs=16384"
        );
        let mut command = Command::new("stdbuf");
        command.arg("-oL").args(line.split(' '));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // SAFETY: the hook makes one system call, which is async-signal-safe, and touches no memory.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                },
            );
        }
        let mut child = command
            .spawn()
            .map_err(Error::system("start dpdk-testpmd"))?;
        let (send, lines) = channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(io::Result::ok) {
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { child, lines, line })
    }

    /// The packets it has had by now.
    fn received(&mut self, stop: &AtomicBool) -> Result<u64> {
        let asked = self.child.stdin.as_mut().map(|to| {
            to.write_all(b"show port stats 0\n")
                .and_then(|()| to.flush())
        });
        if !matches!(asked, Some(Ok(()))) {
            return Err(self.failed("has ended"));
        }
        let since = Instant::now();
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    if let Some((_, rest)) = line.split_once("RX-packets:") {
                        let number = rest.split_whitespace().next();
                        return number
                            .and_then(|number| number.parse().ok())
                            .ok_or_else(|| self.failed("tells no number of packets"));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    patient(since, stop, || self.failed("does not answer"))?;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.failed("has ended")),
            }
        }
    }

    fn snapshot(&mut self, sender: &Self, stop: &AtomicBool) -> Result<Snapshot> {
        Ok(Snapshot {
            received: self.received(stop)?,
            receiver: self.cpu(),
            sender: sender.cpu(),
        })
    }

    fn cpu(&self) -> Duration {
        let clock = ProcessClock::of(self.child.id());
        clock.and_then(ProcessClock::now).unwrap_or_default()
    }

    fn failed(&self, what: &str) -> Error {
        Error::Unfit(format!("{what}: {}", self.line))
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it keeps for processes that would share its memory; there are none.
        let name = self
            .line
            .split(' ')
            .skip_while(|word| *word != "--file-prefix");
        if let Some(name) = name.into_iter().nth(1) {
            let _ = std::fs::remove_dir_all(Path::new("/var/run/dpdk").join(name));
        }
    }
}
