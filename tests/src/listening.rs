//! A daemon that listens on a socket of its own, as an endpoint of the conformance kit.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outboard_device::driver::Daemon;
use outboard_device::driver::connection::DEFAULT_LIMIT;
use outboard_device::testing::{Endpoint, Expected, Failure, Outcome};

use crate::daemons::daemon;

/// The name of the socket in the daemon's folder.
pub const SOCKET: &str = "vhost-user.sock";

/// One daemon that serves every connection of a test, one after another.
#[derive(Debug)]
pub struct Listening {
    daemon: Daemon,
    socket: PathBuf,
    expected: Expected,
    /// The socket, and what else the daemon was given; removed at the end.
    _dir: tempfile::TempDir,
}

impl Listening {
    /// Starts the daemon of `package` with `--socket` and `args`.
    ///
    /// `dir` is kept until the daemon has ended.
    ///
    /// # Panics
    /// When it cannot be started: the test that needs it cannot go on.
    pub fn start(
        package: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        dir: tempfile::TempDir,
        expected: Expected,
    ) -> Self {
        let mut all: Vec<OsString> = vec!["--socket".into(), dir.path().join(SOCKET).into()];
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        Self::with_socket(package, all, dir, expected)
    }

    /// Starts the daemon of `package` with `args` alone, which say that it listens on [`SOCKET`] in `dir`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn with_socket(
        package: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        dir: tempfile::TempDir,
        expected: Expected,
    ) -> Self {
        Self::program(&daemon(package), args, dir, expected)
    }

    /// Starts this program, which listens on [`SOCKET`] in `dir`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[allow(clippy::expect_used)] // As said: a test fails by panicking.
    pub fn program(
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        dir: tempfile::TempDir,
        expected: Expected,
    ) -> Self {
        let daemon = Daemon::listen(program, args).expect("the daemon can be started");
        Self {
            daemon,
            socket: dir.path().join(SOCKET),
            expected,
            _dir: dir,
        }
    }

    fn died(&self) -> Failure {
        Failure::new(format!(
            "the daemon ended; its last words: {}",
            self.daemon.words()
        ))
    }
}

impl Endpoint for Listening {
    fn connect(&mut self) -> Outcome<UnixStream> {
        let end = Instant::now() + DEFAULT_LIMIT;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(_) if !self.daemon.is_alive() => return Err(self.died()),
                Err(error) if Instant::now() >= end => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn expected(&self) -> Expected {
        self.expected.clone()
    }

    fn check_alive(&mut self) -> Outcome {
        if self.daemon.is_alive() {
            Ok(())
        } else {
            Err(self.died())
        }
    }
}
