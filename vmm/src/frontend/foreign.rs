//! Somebody else's daemon: reached where it listens, and started first where that is asked.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outboard_device::daemon::socket_path;

use super::actor::Actor;
use super::error::{CallError, ConnectError};
use super::host;
use super::link::Offer;
use crate::supervisor::Process;

/// Pauses between attempts to reach a socket: the first, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LONGEST: Duration = Duration::from_millis(500);

impl Actor {
    /// Starts a daemon that listens at `socket`, or inherits what listens, and connects to it.
    pub(super) fn spawn_foreign(
        &mut self,
        program: &str,
        args: &[String],
        socket: Option<&Path>,
    ) -> Result<Offer, ConnectError> {
        let id = self.id();
        let Some(path) = socket else {
            let spawned = host::spawn_listening(&self.supervisor, &id, program, args);
            let (stream, process) = spawned.map_err(|source| ConnectError::Spawn { id, source })?;
            return self.meet(stream, program, &process);
        };
        // From a VM that was killed. The folder is ours alone.
        let _ = std::fs::remove_file(path);
        let process = host::spawn_at(&self.supervisor, &id, program, args)
            .map_err(|source| ConnectError::Spawn { id, source })?;
        self.process = Some(process.clone());
        let offer = self.connect_to(path, Some((program, &process)));
        if offer.is_err() {
            process.signal(libc::SIGKILL);
        }
        offer
    }

    /// Tries the connect and the handshake until the deadline: a connect can succeed against a
    /// listener that is about to go. `daemon`, if we started it, must live meanwhile.
    pub(super) fn connect_to(
        &mut self,
        path: &Path,
        daemon: Option<(&str, &Process)>,
    ) -> Result<Offer, ConnectError> {
        if let (None, Some(why)) = (daemon, why_no_socket(path)) {
            let (id, path) = (self.id(), path.to_owned());
            return Err(ConnectError::NoSocket { id, path, why });
        }
        let (begin, time) = (Instant::now(), self.spec.deadlines.start);
        let mut pause = RETRY_FIRST;
        loop {
            let left = time.saturating_sub(begin.elapsed());
            let listens;
            let attempt: Result<Offer, Box<dyn std::error::Error + Send + Sync>> =
                match host::connect_to(path) {
                    Ok(stream) => {
                        listens = true;
                        self.handshake(stream, left).map_err(Into::into)
                    }
                    Err(error) => {
                        // Its queue of connections is full.
                        listens = error.kind() == ErrorKind::WouldBlock;
                        Err(error.into())
                    }
                };
            let source = match attempt {
                Ok(offer) => return Ok(offer),
                Err(source) => source,
            };
            tracing::debug!(device = self.spec.config.id, error = %source, "Not connected yet");
            let (expired, id) = (self.watch.expired(), self.id());
            self.watch.cut();
            // What answers nonsense is there, and will go on so.
            let source = match source.downcast::<CallError>() {
                Ok(cause) if !expired && cause.is_nonsense() => {
                    return Err(nonsense(id, path.to_owned(), *cause, daemon));
                }
                Ok(cause) => cause,
                Err(source) => source,
            };
            if self.inbox.pause(pause.min(left)) {
                return Err(ConnectError::Cancelled { id });
            }
            if let Some((program, process)) = daemon
                && let Some(status) = process.exited()
            {
                return Err(ConnectError::Ended {
                    id,
                    program: program.into(),
                    how: status.to_string(),
                    words: process.last_words().to_string(),
                });
            }
            if expired || begin.elapsed() >= time {
                let (seconds, path) = (time.as_secs(), path.to_owned());
                return Err(match daemon {
                    Some((program, process)) => ConnectError::NotListening {
                        id,
                        program: program.into(),
                        path,
                        seconds,
                        words: process.last_words().to_string(),
                        cause: source,
                    },
                    None if listens && (expired || source.is::<std::io::Error>()) => {
                        ConnectError::Busy { id, path, seconds }
                    }
                    None => ConnectError::Socket {
                        id,
                        path,
                        seconds,
                        source,
                    },
                });
            }
            pause = pause.saturating_mul(2).min(RETRY_LONGEST);
        }
    }
}

/// The end of attempts: one was answered, and not as a backend must.
fn nonsense(
    id: String,
    path: PathBuf,
    cause: CallError,
    daemon: Option<(&str, &Process)>,
) -> ConnectError {
    match daemon {
        Some((_, process)) => ConnectError::Handshake {
            id,
            cause,
            then: String::new(),
            words: process.last_words().to_string(),
        },
        None => ConnectError::Nonsense {
            id,
            path,
            source: cause,
        },
    }
}

/// Why no daemon that starts later could listen at `path`; nothing where one might.
fn why_no_socket(path: &Path) -> Option<String> {
    if let Err(too_long) = socket_path::check(path) {
        return Some(format!("cannot be a socket: {too_long}"));
    }
    let kind = path.metadata().ok()?.file_type();
    if kind.is_socket() {
        None
    } else if kind.is_dir() {
        Some("is a folder".into())
    } else {
        Some("is a file, and no socket".into())
    }
}
