//! The process that is measured: started for the run, or found at its socket.

// Between fork and exec the child asks to die with this process: only an unsafe hook can.
#![allow(unsafe_code)]

use std::env;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use outboard_device::driver::Daemon;
use tempfile::TempDir;

use crate::affinity::Cpus;
use crate::clock::ProcessClock;
use crate::error::{Error, Result};

/// How long a backend may take to listen.
const START: Duration = Duration::from_secs(10);

/// Where the backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It listens on this socket.
    Socket(PathBuf),
    /// This command starts it; words in braces stand for what [`Places`] says.
    Spawn(String),
}

/// What stands for the words in braces of a command.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `{file}`: the image.
    pub file: Option<PathBuf>,
    /// `{tap}`: the tap's name.
    pub tap: Option<String>,
    /// `{queues}`: how many the case wants.
    pub queues: u16,
}

/// A backend that runs.
#[derive(Debug)]
pub struct Backend {
    /// Ended when dropped, before the folder of its socket.
    daemon: Option<Daemon>,
    _folder: Option<TempDir>,
    sockets: [PathBuf; 2],
    command: String,
    pid: Option<u32>,
}

impl Backend {
    /// Starts it, if it is to be started.
    pub fn start(target: &Target, places: &Places) -> Result<Self> {
        let line = match target {
            Target::Socket(socket) => {
                return Ok(Self {
                    daemon: None,
                    _folder: None,
                    sockets: [socket.clone(), socket.clone()],
                    command: socket.display().to_string(),
                    pid: None,
                });
            }
            Target::Spawn(line) => line,
        };
        let folder = tempfile::Builder::new()
            .prefix("outboard-bench-")
            .tempdir()
            .map_err(Error::system("make a folder for the backend's socket"))?;
        let sockets = ["backend.sock", "other.sock"].map(|name| folder.path().join(name));
        let words = places.words(line, &sockets)?;
        let (program, arguments) = words
            .split_first()
            .ok_or_else(|| Error::Unfit("the command of --spawn is empty".into()))?;
        let program = beside_us(program);
        let mut command = Command::new(&program);
        command.args(arguments);
        // SAFETY: the hook makes one system call, which is async-signal-safe, and touches no memory.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                },
            );
        }
        Ok(Self {
            daemon: Some(Daemon::start(&program, command)?),
            _folder: Some(folder),
            sockets,
            command: line.clone(),
            pid: None,
        })
    }

    /// The command, or the socket.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Connects, as soon as it listens.
    pub fn connect(&mut self) -> Result<UnixStream> {
        let [socket, _] = self.sockets.clone();
        self.connect_to(&socket)
    }

    /// Connects to a switch's other port.
    pub fn connect_other(&mut self) -> Result<UnixStream> {
        let [_, other] = self.sockets.clone();
        self.connect_to(&other)
    }

    fn connect_to(&mut self, socket: &Path) -> Result<UnixStream> {
        let end = Instant::now() + START;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(source) if self.daemon.is_none() => {
                    return Err(Error::file("connect to", socket)(source));
                }
                Err(_) => {}
            }
            if self
                .daemon
                .as_mut()
                .is_some_and(|daemon| !daemon.is_alive())
            {
                return Err(self.failed("has ended before it listened on its {socket}"));
            }
            if Instant::now() >= end {
                return Err(self.failed("does not listen on its {socket}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        // Of whoever has called listen(2): the backend, also behind a script that has started it.
        let peer = getsockopt(&stream, sockopt::PeerCredentials).ok();
        self.pid = peer
            .and_then(|peer| u32::try_from(peer.pid()).ok())
            .filter(|&pid| pid > 0);
        Ok(stream)
    }

    /// Keeps the process, as far as it is known, on these CPUs.
    pub fn hold(&self, cpus: &Cpus) -> Result<()> {
        self.pid.map_or(Ok(()), |pid| cpus.hold_process(pid))
    }

    /// The process's CPU clock, once connected, where its process can be told.
    pub fn clock(&self) -> Option<ProcessClock> {
        ProcessClock::of(self.pid?)
    }

    /// An error about the backend, with the last it has said.
    pub fn failed(&self, what: &str) -> Error {
        let said = self.daemon.as_ref().map(Daemon::words).unwrap_or_default();
        let lines: Vec<_> = said.trim_end().lines().collect();
        let last = lines.len().saturating_sub(8);
        let words = lines.get(last..).unwrap_or_default().join("\n  ");
        let words = if words.is_empty() {
            words
        } else {
            format!(":\n  {words}")
        };
        Error::Backend {
            command: self.command.clone(),
            what: what.to_owned(),
            words,
        }
    }
}

impl Places {
    /// The words of a command line, with what stands for those in braces.
    fn words(&self, line: &str, [socket, other]: &[PathBuf; 2]) -> Result<Vec<String>> {
        let unfit = |reason: &str| Error::Unfit(format!("the command {line:?} {reason}"));
        let words = shlex::split(line).ok_or_else(|| unfit("has an open quote"))?;
        if !line.contains("{socket}") {
            return Err(unfit(
                "does not say where to listen: write {socket} for the path",
            ));
        }
        if line.contains("{file}") && self.file.is_none() {
            return Err(unfit("wants a file: give one with --file"));
        }
        if line.contains("{tap}") && self.tap.is_none() {
            return Err(unfit("wants a tap: name one with --tap"));
        }
        let file = self.file.as_deref().unwrap_or(Path::new(""));
        let filled = |word: String| {
            word.replace("{socket}", &socket.to_string_lossy())
                .replace("{other}", &other.to_string_lossy())
                .replace("{file}", &file.to_string_lossy())
                .replace("{tap}", self.tap.as_deref().unwrap_or_default())
                .replace("{queues}", &self.queues.to_string())
        };
        Ok(words.into_iter().map(filled).collect())
    }
}

/// A program of that name beside this one, where there is one: what is measured is what was built with it.
pub(crate) fn beside_us(program: &str) -> PathBuf {
    let beside = env::current_exe()
        .ok()
        .and_then(|us| Some(us.parent()?.join(program)));
    match beside {
        Some(path) if !program.contains('/') && path.is_file() => path,
        _ => PathBuf::from(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_braces_are_filled_in() {
        let places = Places {
            file: Some("/tmp/a b".into()),
            tap: None,
            queues: 3,
        };
        let line = "daemon --path={file} 'num={queues},path={socket}'";
        let sockets = ["/run/s", "/run/t"].map(PathBuf::from);
        let words = places.words(line, &sockets).unwrap();
        assert_eq!(words, ["daemon", "--path=/tmp/a b", "num=3,path=/run/s"]);
        let words = places
            .words("switch {socket} --to={other}", &sockets)
            .unwrap();
        assert_eq!(words, ["switch", "/run/s", "--to=/run/t"]);
        for bad in ["daemon", "daemon '{socket}", ""] {
            assert!(places.words(bad, &sockets).is_err(), "{bad}");
        }
        let none = Places::default();
        assert!(none.words("daemon {socket} {file}", &sockets).is_err());
    }

    #[test]
    fn a_backend_that_ends_at_once_is_quoted() {
        let target = Target::Spawn("sh -c 'echo no such disk >&2; exit 3' {socket}".into());
        let mut backend = Backend::start(&target, &Places::default()).unwrap();
        let error = backend.connect().unwrap_err().to_string();
        assert!(
            error.contains("has ended before") && error.contains("no such disk"),
            "{error}"
        );
    }
}
