//! The supervisor's thread: spawns on request, reads what daemons say, sees them end.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;

use super::process::Process;
use super::spawn::{Spawned, spawn};
use super::strays::Mark;
use super::{Error, Request};
use crate::logs::Logs;

/// Bytes read from one daemon before the others get their turn.
const READ_MAX: usize = 64 << 10;

struct Watched {
    process: Process,
    spawned: Spawned,
    /// Its standard error still has a writer.
    speaking: bool,
}

/// The state of the thread.
pub(super) struct Watch {
    wake: Arc<EventFd>,
    requests: Receiver<Request>,
    watched: Vec<Watched>,
    logs: Logs,
}

impl Watch {
    pub(super) fn new(wake: Arc<EventFd>, requests: Receiver<Request>, logs: Logs) -> Self {
        Self {
            wake,
            requests,
            watched: Vec::new(),
            logs,
        }
    }

    /// Returns when the [`Supervisor`](super::Supervisor) is dropped.
    pub(super) fn run(mut self) {
        loop {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "The supervisor cannot wait for its daemons; it ends");
                return;
            }
            let _ = self.wake.read();
            loop {
                match self.requests.try_recv() {
                    Ok(Request { command, reply }) => {
                        let result = self.spawn(&command);
                        // Our copies of what the child inherited go before anyone waits for
                        // the end of its stream.
                        drop(command);
                        let _ = reply.send(result);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            for watched in &mut self.watched {
                watched.listen();
            }
            self.watched.retain_mut(|watched| !watched.has_ended());
        }
    }

    fn spawn(&mut self, command: &super::Command) -> Result<Process, Error> {
        tracing::debug!(device = command.id, %command, "Spawning");
        let mark = Mark::new();
        let spawned = spawn(command, &mark)?;
        let pid = Pid::from_raw(spawned.child.id().cast_signed());
        let log = self.logs.log(&command.id);
        if let Some(log) = &log {
            log.line(&format!("-- {command}, process {pid}"));
        }
        let process = Process::new(&command.id, pid, !command.terminal, mark, log);
        self.watched.push(Watched {
            process: process.clone(),
            spawned,
            speaking: true,
        });
        Ok(process)
    }

    /// Sleeps until something happens.
    fn wait(&self) -> Result<(), Errno> {
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        for watched in &self.watched {
            fds.push(PollFd::new(
                watched.spawned.pidfd.as_fd(),
                PollFlags::POLLIN,
            ));
            if watched.speaking {
                fds.push(PollFd::new(
                    watched.spawned.stderr.as_fd(),
                    PollFlags::POLLIN,
                ));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Watched {
    /// Reads what is there.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        let mut total = 0;
        while self.speaking && total < READ_MAX {
            match self.spawned.stderr.read(&mut buffer) {
                Ok(0) => self.speaking = false,
                Ok(n) => {
                    total = total.saturating_add(n);
                    self.process
                        .words()
                        .push(buffer.get(..n).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.speaking = false,
            }
        }
    }

    /// Reaps the child if it has ended. Its last words are taken first, so that whoever learns of
    /// the end can show them.
    fn has_ended(&mut self) -> bool {
        if !self.spawned.pidfd.has_ended() {
            return false;
        }
        self.listen();
        self.process.words().finish();
        let child = &mut self.spawned.child;
        let ended = self.process.reap(|| child.try_wait().ok().flatten());
        if let Some(status) = self.process.exited() {
            self.process.words().note(&format!("-- ended: {status}"));
        }
        ended
    }
}
