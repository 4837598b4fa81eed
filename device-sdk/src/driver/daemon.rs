//! A vhost-user daemon run as a child, as a VMM runs it.

// Between fork and exec one flag must be cleared on the inherited stream: only an unsafe hook can.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::error::{DriverError, Result};

/// A daemon in a child process; dropping it kills the process.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    words: File,
}

impl Daemon {
    /// Runs `program args...` with its own end of a new stream inherited as `--fd N`; the other end
    /// is returned. When that is closed, the daemon is expected to end.
    pub fn spawn(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<(Self, UnixStream)> {
        let failed = |source| spawn_error(program, source);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        let inherited = theirs.as_raw_fd();
        let mut command = Command::new(program);
        command.arg("--fd").arg(inherited.to_string()).args(args);
        // SAFETY: the hook makes one system call, which is async-signal-safe, and touches no memory.
        unsafe {
            command.pre_exec(move || match libc::fcntl(inherited, libc::F_SETFD, 0) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let daemon = Self::start(program, command)?;
        Ok((daemon, ours))
    }

    /// Runs `program args...` as it is: give it `--socket PATH` to listen on.
    pub fn listen(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args);
        Self::start(program, command)
    }

    /// Runs a command of the caller's making; `program` names it in errors. Its standard input and
    /// output lead nowhere, and its standard error is kept.
    pub fn start(program: &Path, mut command: Command) -> Result<Self> {
        let failed = |source| spawn_error(program, source);
        let words = memfd_create(c"words", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(e.into()))?;
        let words = File::from(words);
        let stderr = words.try_clone().map_err(failed)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let child = command.spawn().map_err(failed)?;
        Ok(Self { child, words })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself, for at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the process at once.
    pub fn kill(&mut self) {
        // Both fail only when it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What the process has written to its standard error.
    pub fn words(&self) -> String {
        // The child writes through the same file offset: read a copy that has its own.
        let mut bytes = Vec::new();
        let path = format!("/proc/self/fd/{}", self.words.as_raw_fd());
        if let Ok(mut file) = File::open(path) {
            let read = file
                .seek(SeekFrom::Start(0))
                .and_then(|_| file.read_to_end(&mut bytes));
            if read.is_err() {
                bytes.extend_from_slice(b"(its words could not be read)");
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn_error(program: &Path, source: io::Error) -> DriverError {
    DriverError::Spawn {
        program: program.display().to_string(),
        source,
    }
}
