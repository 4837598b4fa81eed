//! The `main` of a device daemon: where the frontend comes from, logging, signals, errors.
//!
//! ```no_run
//! use clap::Parser;
//! use outboard_device::{Device, daemon};
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     endpoint: daemon::Endpoint,
//!     #[command(flatten)]
//!     log: daemon::LogArgs,
//! }
//!
//! fn main_with(device: impl Device) -> std::process::ExitCode {
//!     let cli = Cli::parse();
//!     daemon::init_logging(&cli.log);
//!     daemon::exit(daemon::serve(&cli.endpoint, device))
//! }
//! ```

#![allow(unsafe_code)] // Takes ownership of an inherited descriptor.

use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockType, getsockname, getsockopt, sockopt};
use nix::sys::socket::{SockaddrLike, UnixAddr};
use tracing::{debug, info, warn};
use tracing_subscriber::EnvFilter;

use crate::device::Device;
use crate::device::chain;
use crate::ratelimit::RateLimit;
use crate::sandbox;
use crate::session::{self, SessionError};
use crate::signals::{Signals, Stop};

/// Where the daemon meets its frontend: exactly one of the two.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Endpoint {
    /// Listen on this Unix socket and serve one frontend at a time, until ended by a signal.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Serve the connected stream inherited as this file descriptor; end when it ends.
    #[arg(long, value_name = "N")]
    pub fd: Option<RawFd>,
}

/// How much the daemon says on stderr.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LogArgs {
    /// off, error, warn, info, debug, trace, or a filter like `outboard_device=debug`
    /// \[default: `$RUST_LOG`, else info\].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Why a daemon ended other than by request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// `--fd` or `--socket` cannot be used.
    #[error("{what}; {remedy}")]
    Endpoint {
        /// What was wrong with which endpoint.
        what: String,
        /// What the user can do.
        remedy: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something the daemon itself needs failed.
    #[error("cannot {what}")]
    Setup {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection on the inherited stream ended badly.
    #[error("the frontend's connection ended")]
    Session(#[from] SessionError),
}

/// Sends logs to stderr. Call once, first.
pub fn init_logging(args: &LogArgs) {
    let wish = args
        .log_level
        .clone()
        .or_else(|| std::env::var("RUST_LOG").ok());
    let wish = wish.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(wish);
    let unusable = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call, as in tests, keeps the first one's way.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if let Some(reason) = unusable {
        warn!("log level {wish:?} is not usable ({reason}); logging at info");
    }
}

/// Serves the device until its frontend is gone (`--fd`), or until SIGTERM or SIGINT. Blocks;
/// call it from `main`, before any other thread is started, so that all threads leave those
/// signals to this one. Returns `Ok` after a signal or the end of the inherited stream: the
/// daemon's work is done and it exits with 0.
///
/// The device is [reset](Device::reset) after each frontend. A second signal while the first is
/// being obeyed ends the process at once.
pub fn serve<D: Device>(endpoint: &Endpoint, mut device: D) -> Result<(), ServeError> {
    let setup = |what| move |source| ServeError::Setup { what, source };
    let signals = Signals::block().map_err(setup("block signals"))?;
    // Confined after the endpoint is open and before the first thread starts.
    let begin = || {
        sandbox::confine().map_err(setup("give up privileges"))?;
        signals.wait_in_thread().map_err(setup("wait for signals"))
    };
    if let Some(path) = &endpoint.socket {
        let socket = Socket::listen(path)?;
        let stop = begin()?;
        info!(socket = %path.display(), "listening");
        serve_socket(&socket, &mut device, &stop)
    } else {
        let stream = inherited(endpoint.fd.unwrap_or(-1))?;
        serve_stream(&stream, &mut device, &*begin()?)
    }
}

fn serve_stream<D: Device>(
    stream: &UnixStream,
    device: &mut D,
    stop: &Stop,
) -> Result<(), ServeError> {
    stop.watch(stream).map_err(|source| ServeError::Setup {
        what: "watch the frontend's stream",
        source,
    })?;
    let served = session::serve(device, stream);
    stop.unwatch();
    match served {
        // Whatever the cut has interrupted is no news.
        Err(error) if stop.requested() => {
            debug!(%error, "stopped");
            Ok(())
        }
        served => Ok(served?),
    }
}

fn serve_socket<D: Device>(socket: &Socket, device: &mut D, stop: &Stop) -> Result<(), ServeError> {
    loop {
        let accepted = socket.accept(stop).map_err(|source| ServeError::Setup {
            what: "accept a frontend",
            source,
        })?;
        let Some(stream) = accepted else {
            return Ok(());
        };
        debug!("a frontend has connected");
        match serve_stream(&stream, device, stop) {
            Ok(()) => debug!("the frontend has gone"),
            Err(error) => {
                static LIMIT: RateLimit = RateLimit::new();
                if let Some(unseen) = LIMIT.pass() {
                    warn!("{}{unseen}", chain(&error));
                }
            }
        }
    }
}

/// The stream that `--fd` names.
fn inherited(fd: RawFd) -> Result<UnixStream, ServeError> {
    let refuse = |source| ServeError::Endpoint {
        what: format!("--fd {fd} is not a connected Unix stream"),
        remedy: "pass one end of a socketpair, or use --socket PATH",
        source,
    };
    if fd < 0 {
        return Err(refuse(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    // SAFETY: only borrowed to be asked what it is; a number that is no descriptor gives EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let unix = getsockname::<UnixAddr>(fd).is_ok_and(|a| a.family() == Some(AddressFamily::Unix));
    let stream = getsockopt(&borrowed, sockopt::SockType).map_err(|e| refuse(e.into()))?;
    if !unix || stream != SockType::Stream {
        return Err(refuse(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|e| refuse(e.into()))?;
    // SAFETY: the descriptor is open (just asked) and was passed to this process to own.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // The other end has flags of its own.
    stream.set_nonblocking(false).map_err(refuse)?;
    Ok(stream)
}

/// A listening socket, removed from the file system when this value goes.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to remove only what was made here.
    identity: Option<(u64, u64)>,
}

impl Socket {
    /// Listens at `path`. A socket there that nobody listens on any more is replaced.
    fn listen(path: &Path) -> Result<Self, ServeError> {
        let refuse = |remedy| {
            move |source| ServeError::Endpoint {
                what: format!("cannot listen on {}", path.display()),
                remedy,
                source,
            }
        };
        let other = "choose another path, or end what is there first";
        match UnixStream::connect(path) {
            Ok(_) => {
                let in_use = io::Error::from(io::ErrorKind::AddrInUse);
                return Err(refuse(other)(in_use));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                let meta = fs::symlink_metadata(path).map_err(refuse(other))?;
                if !meta.file_type().is_socket() {
                    let exists = io::Error::from(io::ErrorKind::AlreadyExists);
                    return Err(refuse(other)(exists));
                }
                fs::remove_file(path).map_err(refuse(other))?;
            }
        }
        let listener = UnixListener::bind(path)
            .map_err(refuse("check that the directory exists and is writable"))?;
        Ok(Self {
            listener,
            identity: identity(path),
            path: path.to_owned(),
        })
    }

    /// The next frontend; `None` when asked to stop.
    fn accept(&self, stop: &Stop) -> io::Result<Option<UnixStream>> {
        loop {
            let mut fds = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if stop.requested() {
                return Ok(None);
            }
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                // The frontend gave up between poll and accept.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Prints an error with its causes on stderr, one chain, each cause once:
/// `error: cannot open disk.img: Permission denied (os error 13)`.
pub fn report(error: &(dyn Error + 'static)) {
    eprintln!("error: {}", chain(error));
}

/// The exit code of `main`: 0, or [`report`] and 1.
pub fn exit<E: Error + 'static>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let live = Socket::listen(&path).unwrap();
        let error = Socket::listen(&path).err().unwrap();
        assert!(error.to_string().contains("choose another path"), "{error}");
        drop(live);
        // As after SIGKILL: the file stays, nobody listens.
        drop(UnixListener::bind(dir.path().join("t")).unwrap());
        let replaced = Socket::listen(&dir.path().join("t")).unwrap();
        assert!(UnixStream::connect(&replaced.path).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(Socket::listen(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn only_the_own_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = Socket::listen(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        let socket = Socket::listen(&path).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_wish_to_stop_ends_the_wait_for_a_frontend() {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::listen(&dir.path().join("s")).unwrap();
        let stop = Stop::new().unwrap();
        let _frontend = UnixStream::connect(&socket.path).unwrap();
        assert!(socket.accept(&stop).unwrap().is_some());
        stop.request();
        assert!(socket.accept(&stop).unwrap().is_none());
    }

    #[test]
    fn a_wish_to_stop_cuts_the_stream() {
        let stop = Stop::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        stop.watch(&ours).unwrap();
        assert!(!stop.request());
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        assert!(theirs.write(&[0]).is_err());
        assert!(stop.request());
    }

    #[test]
    fn only_a_unix_stream_is_inherited() {
        let file = tempfile::tempfile().unwrap();
        let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for fd in [
            -1,
            9999,
            file.as_raw_fd(),
            datagram.as_raw_fd(),
            tcp.as_raw_fd(),
        ] {
            assert!(inherited(fd).is_err(), "{fd}");
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let fd = OwnedFd::from(ours);
        let stream = inherited(std::os::fd::IntoRawFd::into_raw_fd(fd)).unwrap();
        (&theirs).write_all(b"x").unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 1);
    }
}
