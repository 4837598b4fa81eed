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

mod capabilities;
mod files;
mod main;
mod number;
mod sandbox;
mod signals;
mod socket;
pub mod socket_path;
mod sweep;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, getsockname, getsockopt, sockopt};
use nix::sys::socket::{SockaddrLike, UnixAddr};
use tracing::{debug, info, warn};
use tracing_subscriber::EnvFilter;

use crate::counters::Counters;
use crate::device::{Device, Refresher, chain};
use crate::limits;
use crate::ratelimit::RateLimit;
use crate::session::{self, SessionError};
pub use main::main;
pub use number::number;
pub use sandbox::Reach;
use signals::{Signals, Stop};
pub use socket::Socket;
pub use sweep::sweep;

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
    /// off, error, warn, info, debug, trace, or a filter like `outboard_device=debug`; else what
    /// `RUST_LOG` says, else info.
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
    /// The thread of one of several devices is gone.
    #[error(
        "the device at {} has panicked; all end with it: start the daemon again, and report what it said",
        .0.display()
    )]
    Panicked(PathBuf),
    /// The connection on the inherited stream ended badly.
    #[error("the frontend's connection ended")]
    Session(#[from] SessionError),
}

/// In the environment of a daemon whose lines somebody else stamps with the time: a VMM that relays
/// them, say.
pub const UNTIMED_LOG: &str = "OUTBOARD_UNTIMED_LOG";

/// In the environment of a daemon that is to count what its queues do: the number of an inherited
/// descriptor, a [`Page`](crate::counters::Page) of whoever has started it. For `--fd` only.
pub const COUNTERS: &str = "OUTBOARD_COUNTERS";

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
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // Of a standard error that takes nothing it could only complain there.
        .log_internal_errors(false);
    let _ = match std::env::var_os(UNTIMED_LOG) {
        Some(_) => format.without_time().try_init(),
        None => format.try_init(),
    };
    if let Some(reason) = unusable {
        warn!("log level {wish:?} is not usable ({reason}); logging at info");
    }
}

/// Keeps the signals that [`serve`] obeys for it: for a daemon whose device starts threads as it is made.
/// Call it from `main`, before that.
pub fn hold_signals() -> Result<(), ServeError> {
    let held = Signals::block().map(drop);
    held.map_err(|source| ServeError::Setup {
        what: "block signals",
        source,
    })
}

/// Serves the device until its frontend is gone (`--fd`), or until SIGTERM or SIGINT. Blocks;
/// call it from `main`, before any other thread is started, so that all threads leave those
/// signals to this one. Returns `Ok` after a signal or the end of the inherited stream: the
/// daemon's work is done and it exits with 0.
///
/// SIGUSR1 has the device [look](Device::refresher) at what lies outside again.
///
/// The device is [reset](Device::reset) after each frontend. Another signal, a second or more after
/// the first, ends the process at once where that is still being obeyed.
pub fn serve<D: Device>(endpoint: &Endpoint, device: D) -> Result<(), ServeError> {
    serve_with(endpoint, device, Reach::default())
}

/// The same for a device that has to reach more than others.
///
/// # Errors
/// As for [`serve`].
pub fn serve_with<D: Device>(
    endpoint: &Endpoint,
    mut device: D,
    reach: Reach,
) -> Result<(), ServeError> {
    let signals = Signals::block().map_err(setup("block signals"))?;
    // Confined after the endpoint is open and before the first thread starts.
    let refresher = device.refresher();
    let begin = move || {
        sandbox::confine(reach).map_err(setup("give up privileges"))?;
        let waiting = signals.wait_in_thread(refresher);
        waiting.map_err(setup("wait for signals"))
    };
    if let Some(path) = &endpoint.socket {
        let socket = Socket::listen(path)?;
        let stop = begin()?;
        info!(socket = %path.display(), "listening");
        serve_socket(&socket, &mut device, &stop)
    } else {
        let stream = inherited(endpoint.fd.unwrap_or(-1))?;
        let counters = std::env::var(COUNTERS).ok();
        let counters = counters.map(|number| page(&number)).transpose()?;
        serve_stream(&stream, &mut device, &*begin()?, counters)
    }
}

/// Serves several devices, each at a socket of its own with a thread for its frontends, which come and go
/// without the others noticing; until SIGTERM or SIGINT. For devices with something in common, which
/// is what `refresh` is of: SIGUSR1 calls it, and no device's own.
///
/// # Errors
/// As for [`serve`]; all end when one does, be it by a panic.
pub fn serve_each<D: Device>(
    devices: Vec<(PathBuf, D)>,
    refresh: Option<Refresher>,
) -> Result<(), ServeError> {
    let signals = Signals::block().map_err(setup("block signals"))?;
    limits::raise_open_files();
    let mut ports = Vec::new();
    for (path, device) in devices {
        ports.push((Socket::listen(&path)?, path, device));
    }
    sandbox::confine(Reach::default()).map_err(setup("give up privileges"))?;
    let stop = signals
        .wait_in_thread(refresh)
        .map_err(setup("wait for signals"))?;
    serve_ports(ports, &stop)
}

/// Asks all to end when one thread does, however it does.
struct Last<'a>(&'a Stop);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

fn serve_ports<D: Device>(ports: Vec<(Socket, PathBuf, D)>, stop: &Stop) -> Result<(), ServeError> {
    thread::scope(|scope| {
        let mut serving = Vec::new();
        let mut failed = None;
        for (socket, path, mut device) in ports {
            let thread = thread::Builder::new().name(format!("port-{}", serving.len()));
            let name = path.clone();
            let started = thread.spawn_scoped(scope, move || {
                // The others have no reason to stay.
                let _last = Last(stop);
                info!(socket = %path.display(), "listening");
                serve_socket(&socket, &mut device, stop)
            });
            match started.map_err(setup("start a thread")) {
                Ok(thread) => serving.push((name, thread)),
                Err(error) => {
                    stop.request();
                    failed.get_or_insert(error);
                }
            }
        }
        for (name, thread) in serving {
            let served = thread.join();
            if let Err(error) = served.unwrap_or(Err(ServeError::Panicked(name))) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

/// Takes from this process, for good, what no daemon needs once its files are open: other programs,
/// processes, networks and files, root's capabilities, and the kernel's levers. [`serve`] does it; for a
/// daemon that serves something other than a device, or does so in a thread of its own: files and
/// capabilities stay with the threads that there are already. May be called again.
///
/// # Errors
/// The kernel refuses.
pub fn confine() -> io::Result<()> {
    sandbox::confine(Reach::default())
}

/// Says, before the daemon is confined, that it will remove the file at `path`: root gives up the power
/// over other users' folders only where it has no such file in one.
pub fn will_remove(path: &Path) {
    capabilities::will_remove(path);
}

fn setup(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Setup { what, source }
}

fn serve_stream<D: Device>(
    stream: &UnixStream,
    device: &mut D,
    stop: &Stop,
    counters: Option<Counters>,
) -> Result<(), ServeError> {
    let watched = stop.watch(stream).map_err(|source| ServeError::Setup {
        what: "watch the frontend's stream",
        source,
    })?;
    let served = session::serve_counted(device, stream, counters);
    drop(watched);
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
        match serve_stream(&stream, device, stop, None) {
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

/// The page that [`COUNTERS`] names.
fn page(number: &str) -> Result<Counters, ServeError> {
    let refuse = |source| ServeError::Endpoint {
        what: format!("{COUNTERS}={number} is no page to count on"),
        remedy: "pass a memfd of outboard_device::counters::Page, or leave it out",
        source,
    };
    let fd = number.parse::<RawFd>().ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(|| refuse(io::ErrorKind::InvalidInput.into()))?;
    // SAFETY: only borrowed to be asked what it is; a number that is no descriptor gives EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_GET_SEALS).map_err(|e| refuse(e.into()))?;
    // SAFETY: the descriptor is open (just asked) and was passed to this process to own.
    Counters::map(unsafe { OwnedFd::from_raw_fd(fd) }).map_err(refuse)
}

/// Prints an error with its causes on stderr, one chain, each cause once:
/// `error: cannot open disk.img: Permission denied (os error 13)`.
pub fn report(error: &(dyn Error + 'static)) {
    // Where nobody listens, the exit code still tells.
    let _ = writeln!(io::stderr(), "error: {}", chain(error));
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
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::device::{DeviceError, Worker};

    /// Panics when it is asked for its features.
    struct Fragile;

    impl Device for Fragile {
        fn device_id(&self) -> u32 {
            1
        }
        fn features(&self) -> u64 {
            panic!("as this test wishes")
        }
        fn queue_groups(&self) -> Vec<u16> {
            vec![1]
        }
        fn start(&mut self, _: usize) -> Result<Worker, DeviceError> {
            Err(DeviceError::Other("never started".into()))
        }
    }

    #[test]
    fn a_panic_at_one_socket_ends_them_all_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let port = |name: &str| {
            let path = dir.path().join(name);
            (Socket::listen(&path).unwrap(), path, Fragile)
        };
        let ports = vec![port("a"), port("b")];
        let stop = Stop::new().unwrap();
        let served = thread::scope(|scope| {
            let served = scope.spawn(|| serve_ports(ports, &stop));
            let mut stream = UnixStream::connect(dir.path().join("b")).unwrap();
            // GET_FEATURES of version 1, without a payload.
            let message = [1u32, 1, 0].map(u32::to_le_bytes).concat();
            stream.write_all(&message).unwrap();
            let waited = Instant::now();
            while !served.is_finished() && waited.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(5));
            }
            let ended = served.is_finished();
            stop.request();
            (ended, served.join().unwrap())
        });
        let (ended, Err(ServeError::Panicked(path))) = served else {
            panic!("{served:?}")
        };
        assert!(ended && path.ends_with("b"));
    }

    #[test]
    fn only_a_page_is_counted_on() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let stream = stream.as_raw_fd().to_string();
        for number in ["", "-1", "x", "9999", &stream] {
            let text = page(number).unwrap_err().to_string();
            assert!(text.contains(&format!("{COUNTERS}={number} ")), "{text}");
        }
        let page = crate::counters::Page::new().unwrap();
        let number = page.share().unwrap().into_raw_fd().to_string();
        self::page(&number).unwrap();
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
        let stream = inherited(fd.into_raw_fd()).unwrap();
        (&theirs).write_all(b"x").unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 1);
    }
}
