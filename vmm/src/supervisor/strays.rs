//! What a daemon has started and what has left it: found by a mark in the environment.
//!
//! A process can leave its daemon's group by setsid(2), and its parent by a double fork. What it
//! inherits, and what all that it starts inherit, is the environment.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use nix::sys::signal::Signal;

use super::pidfd::PidFd;

/// The variable that marks a daemon and whatever it starts.
pub const VARIABLE: &str = "OUTBOARD_DAEMON";

/// The value of [`VARIABLE`] for one daemon, which no other ever has.
#[derive(Debug)]
pub(super) struct Mark {
    value: String,
    /// When this process began.
    vmm: Option<u64>,
}

impl Mark {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        // Numbers of processes come again, and a container has its own.
        let vmm = std::process::id();
        Self {
            value: format!("{vmm}.{}.{count}", now.as_nanos()),
            vmm: begun(vmm),
        }
    }

    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// Whether the process has it in its environment. One that has ended has none, and that of another
    /// user's process cannot be read. One that is older than this one is not looked at: to read an environment
    /// may wait for its process.
    fn is_borne_by(&self, pid: i32) -> bool {
        if begun(pid) < self.vmm {
            return false;
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| {
            let value = variable.strip_prefix(VARIABLE.as_bytes());
            value.and_then(|value| value.strip_prefix(b"=")) == Some(self.value.as_bytes())
        })
    }
}

/// When a process began, in ticks since the machine did (`proc_pid_stat(5)`, field 22); `None` of one that is gone.
fn begun(pid: impl Display) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name, which may have any character.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// The processes that bear a mark and have been told to end.
#[derive(Debug)]
pub(super) struct Strays<'a> {
    mark: &'a Mark,
    told: BTreeMap<i32, PidFd>,
}

impl<'a> Strays<'a> {
    pub(super) fn of(mark: &'a Mark) -> Self {
        let told = BTreeMap::new();
        Self { mark, told }
    }

    /// Asks those to end that have not been asked. Whether there are any, asked or not.
    pub(super) fn ask(&mut self) -> bool {
        self.look(Signal::SIGTERM);
        !self.told.is_empty()
    }

    /// Kills them. Whether there are any.
    pub(super) fn kill(&mut self) -> bool {
        self.look(Signal::SIGKILL);
        for process in self.told.values() {
            // Ended, it needs none.
            let _ = process.signal(Signal::SIGKILL);
        }
        !self.told.is_empty()
    }

    /// Forgets those that have ended, finds those that are new and sends them `signal`.
    fn look(&mut self, signal: Signal) {
        self.told.retain(|_, process| !process.has_ended());
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if self.told.contains_key(&pid) || !self.mark.is_borne_by(pid) {
                continue;
            }
            let Ok(process) = PidFd::open(pid) else {
                continue;
            };
            // Looked at again: the number may have become another's before it was opened.
            if self.mark.is_borne_by(pid) {
                let _ = process.signal(signal);
                self.told.insert(pid, process);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn sleeping(mark: &Mark) -> Child {
        let mut sleep = Command::new("sleep");
        sleep.arg("60").env(VARIABLE, mark.value());
        sleep.stdout(Stdio::null()).stderr(Stdio::null());
        sleep.spawn().unwrap()
    }

    #[test]
    fn those_that_bear_the_mark_are_ended_and_no_other() {
        let (ours, other) = (Mark::new(), Mark::new());
        let (mut astray, mut stranger) = (sleeping(&ours), sleeping(&other));
        let mut strays = Strays::of(&ours);
        // A child has its environment once it has executed its program, which spawning waits for.
        assert!(strays.ask());
        let end = Instant::now() + Duration::from_secs(20);
        // Not reaped: what has ended is no stray all the same.
        while strays.ask() {
            assert!(Instant::now() < end, "it does not end");
        }
        assert!(!strays.kill());
        assert!(!astray.wait().unwrap().success());
        assert_eq!(stranger.try_wait().unwrap(), None);
        assert!(Strays::of(&other).kill());
        stranger.wait().unwrap();
    }
}
