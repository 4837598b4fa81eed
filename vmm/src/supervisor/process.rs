//! A handle on one daemon.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::strays::{Mark, Strays};
use super::words::{LastWords, Words};
use crate::logs::Log;

/// How long what an ended daemon has left may take to end too, once it has been asked.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// How long it is looked for after the first of it has been killed.
const KILLING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(50);

/// A spawned daemon. Clones name the same one; dropping them leaves it running, its
/// [`Supervisor`](super::Supervisor) stops it.
#[derive(Debug, Clone)]
pub struct Process(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: String,
    pid: Pid,
    own_group: bool,
    mark: Mark,
    exit: Mutex<Option<ExitStatus>>,
    exited: Condvar,
    at_end: Mutex<AtEnd>,
    words: Mutex<Words>,
}

/// What is to be done at its end.
#[derive(Default)]
struct AtEnd(Option<Box<dyn FnOnce() + Send>>);

impl fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AtEnd").field(&self.0.is_some()).finish()
    }
}

impl Process {
    pub(super) fn new(id: &str, pid: Pid, own_group: bool, mark: Mark, log: Option<Log>) -> Self {
        Self(Arc::new(Inner {
            id: id.into(),
            pid,
            own_group,
            mark,
            exit: Mutex::new(None),
            exited: Condvar::new(),
            at_end: Mutex::default(),
            words: Mutex::new(Words::new(id, log)),
        }))
    }

    /// The device's id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The process id; meaningless once it has [exited](Self::exited).
    pub fn pid(&self) -> i32 {
        self.0.pid.as_raw()
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.exit()
    }

    /// Waits for its end for at most `time`.
    pub fn wait(&self, time: Duration) -> Option<ExitStatus> {
        let (exit, _) = self
            .0
            .exited
            .wait_timeout_while(self.exit(), time, |exit| exit.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *exit
    }

    /// Does `work` when it has ended, on the supervisor's thread, which must not block; or now, if it
    /// has. The last such wish counts.
    pub fn at_end(&self, work: impl FnOnce() + Send + 'static) {
        // Held, so that the end comes before or after.
        let exit = self.exit();
        if exit.is_none() {
            self.at_end_wish().0 = Some(Box::new(work));
            return;
        }
        drop(exit);
        work();
    }

    fn at_end_wish(&self) -> MutexGuard<'_, AtEnd> {
        self.0.at_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to it, and to its children when it has a group of its own. Does nothing
    /// once it has exited, so it never hits a process that took over the number.
    pub fn signal(&self, signal: libc::c_int) {
        let exit = self.exit();
        if exit.is_some() {
            return;
        }
        let Ok(signal) = Signal::try_from(signal) else {
            return;
        };
        let sent = if self.0.own_group {
            killpg(self.0.pid, signal)
        } else {
            kill(self.0.pid, signal)
        };
        match sent {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                tracing::warn!(device = self.id(), %signal, %error, "The daemon cannot be signalled");
            }
        }
    }

    /// The last lines of its standard error; complete once it has exited.
    pub fn last_words(&self) -> LastWords {
        self.words().last()
    }

    /// Where its console is, if it has said so.
    pub fn place(&self) -> Option<PathBuf> {
        self.words().place().map(Path::to_owned)
    }

    pub(super) fn words(&self) -> MutexGuard<'_, Words> {
        self.0.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reaps a process that has ended, under the lock that [`signal`](Self::signal) takes, and ends
    /// what it has left: a daemon has ended when all of it has. Blocks for [`LEFT_BEHIND`] and
    /// [`KILLING`] at most.
    pub(super) fn reap(&self, reap: impl FnOnce() -> Option<ExitStatus>) -> bool {
        let mut exit = self.exit();
        if exit.is_none() {
            // Not reaped yet, it keeps the number from others, whatever is left.
            if self.0.own_group {
                let _ = killpg(self.0.pid, Signal::SIGTERM);
            }
            *exit = reap();
            if exit.is_some() {
                self.end_left();
            }
        }
        self.0.exited.notify_all();
        let ended = exit.is_some();
        drop(exit);
        if ended && let Some(work) = self.at_end_wish().0.take() {
            work();
        }
        ended
    }

    /// Waits for a group that has been asked to end, and ends what has left it. As long as one of the
    /// group lives nobody else is given its number.
    fn end_left(&self) {
        let begin = Instant::now();
        let mut lives = self.0.own_group;
        let mut group = |signal| {
            // Empty, it is nobody's, and its number may be another's by the next look.
            lives = lives && killpg(self.0.pid, signal).is_ok();
            lives
        };
        let mut strays = Strays::of(&self.0.mark);
        let mut look = LOOK;
        while group(None) | strays.ask() {
            if begin.elapsed() >= LEFT_BEHIND {
                return self.kill_left(group, strays);
            }
            std::thread::sleep(look);
            look = look.saturating_mul(2).min(LOOK_MAX);
        }
    }

    /// The same by force, until nobody is left: who is killed may have started another before.
    fn kill_left(&self, mut group: impl FnMut(Option<Signal>) -> bool, mut strays: Strays<'_>) {
        tracing::warn!(
            device = self.id(),
            "The daemon has ended and left processes that do not; killed"
        );
        group(Some(Signal::SIGKILL));
        let begin = Instant::now();
        while strays.kill() {
            if begin.elapsed() >= KILLING {
                tracing::error!(
                    device = self.id(),
                    "What the daemon has left outlives SIGKILL"
                );
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn exit(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.0.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
