//! Daemons: found, spawned, watched and stopped.
//!
//! One thread, `supervisor`, lives as long as the VMM and does all of it. It has to: a child's
//! parent-death signal follows the *thread* that spawned it, so a daemon spawned from a thread
//! that ends would be told that the VMM is gone.
//!
//! What a daemon inherits is exactly what its [`Command`] names. It goes, whatever happens to the
//! VMM, by one of: end of file on its stream, the parent-death signal, or [`Supervisor::stop`]. What it
//! has started ends with it, wherever it went (`strays`), unless the VMM itself was killed by SIGKILL.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod command;
mod locate;
mod pidfd;
mod process;
mod spawn;
mod strays;
mod usage;
mod watch;
mod words;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::logs::Logs;
pub use command::Command;
pub use locate::{NotFound, locate};
pub use process::Process;
pub use strays::VARIABLE as DAEMON_VARIABLE;
pub use usage::Usage;
pub use words::LastWords;

/// Why a daemon could not be spawned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A daemon of ours is not installed.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// A program of somebody else's is not installed.
    #[error("Program '{program}' is not found; install the package {package}, or put it in PATH")]
    Package {
        /// The program's name.
        program: String,
        /// What to install.
        package: String,
    },
    /// A port that it is to listen on is not to be had.
    #[error("The host's {protocol} port {} cannot be listened on at {}; {remedy}", at.port(), at.ip())]
    Port {
        /// TCP or UDP.
        protocol: &'static str,
        /// The port, and the address of those it is to listen on.
        at: SocketAddr,
        /// What can be done.
        remedy: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused to start the program.
    #[error("Program {} cannot be started", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The supervisor itself cannot work.
    #[error("The supervisor of the device daemons cannot run")]
    Supervisor(#[source] io::Error),
}

/// How long each step of [`Supervisor::stop`] waits for daemons to end by themselves.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// After their streams have been closed, before SIGTERM.
    pub eof: Duration,
    /// After SIGTERM, before SIGKILL.
    pub term: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            eof: Duration::from_secs(2),
            term: Duration::from_secs(1),
        }
    }
}

/// After SIGKILL only a process stuck in the kernel is still there; it is given up.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// A request to the supervisor's thread.
struct Request {
    command: Command,
    reply: mpsc::Sender<Result<Process, Error>>,
}

/// The owner of every daemon of this VMM. Dropped, it stops them all.
pub struct Supervisor {
    requests: Option<mpsc::Sender<Request>>,
    wake: Arc<EventFd>,
    processes: Mutex<Vec<Process>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the thread. Call it once, before the first daemon.
    pub fn start() -> Result<Self, Error> {
        Self::keeping(Logs::default())
    }

    /// The same, and what daemons say is kept in `logs`, a log for each command's id.
    pub fn keeping(logs: Logs) -> Result<Self, Error> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = EventFd::from_flags(flags).map_err(|errno| Error::Supervisor(errno.into()))?;
        let wake = Arc::new(wake);
        let (requests, inbox) = mpsc::channel();
        let watch = watch::Watch::new(Arc::clone(&wake), inbox, logs);
        let thread = Builder::new()
            .name("supervisor".into())
            .spawn(move || watch.run())
            .map_err(Error::Supervisor)?;
        Ok(Self {
            requests: Some(requests),
            wake,
            processes: Mutex::default(),
            thread: Some(thread),
        })
    }

    /// Spawns a daemon; any thread may ask. Returns once the program has been executed, or could
    /// not be.
    pub fn spawn(&self, command: Command) -> Result<Process, Error> {
        let gone = || Error::Supervisor(io::Error::other("its thread has ended"));
        let (reply, answer) = mpsc::channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests
            .send(Request { command, reply })
            .map_err(|_| gone())?;
        self.wake
            .write(1)
            .map_err(|errno| Error::Supervisor(errno.into()))?;
        let process = answer.recv().map_err(|_| gone())??;
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.retain(|process| process.exited().is_none());
        processes.push(process.clone());
        Ok(process)
    }

    /// Every daemon that is there.
    pub fn processes(&self) -> Vec<Process> {
        let all = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let there = all.iter().filter(|process| process.exited().is_none());
        there.cloned().collect()
    }

    /// Ends every daemon, all at once: waits for those whose streams the caller has closed, then
    /// SIGTERM, then SIGKILL. Returns the ids of those that had to be killed. Idempotent.
    pub fn stop(&self, grace: Grace) -> Vec<String> {
        let mut left: Vec<Process> = {
            let mut processes = self
                .processes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            processes.drain(..).collect()
        };
        wait_for(&mut left, grace.eof);
        for process in &left {
            process.signal(libc::SIGTERM);
        }
        wait_for(&mut left, grace.term);
        for process in &left {
            tracing::warn!(
                device = process.id(),
                "The daemon does not end by itself; killed"
            );
            process.signal(libc::SIGKILL);
        }
        let killed = left.iter().map(|process| process.id().to_owned()).collect();
        wait_for(&mut left, AFTER_KILL);
        for process in &left {
            tracing::error!(
                device = process.id(),
                pid = process.pid(),
                "The daemon outlives SIGKILL"
            );
        }
        killed
    }
}

/// Waits until all have exited or the time is over; keeps those that have not.
fn wait_for(processes: &mut Vec<Process>, time: Duration) {
    let begin = Instant::now();
    processes.retain(|process| {
        let left = time.saturating_sub(begin.elapsed());
        process.wait(left).is_none()
    });
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop(Grace::default());
        self.requests = None;
        // The thread sees the closed channel when it wakes. A full counter wakes it as well.
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
