//! From the command line to a hub that runs.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use outboard_device::daemon::{self, Endpoint, ServeError};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Cli;
use crate::device::{Console, Events};
use crate::end::{Attach, Discard, EndError, File, Pty, Stdio, WayOut};
use crate::hub::{self, End, Outcome};
use crate::size::Size;

/// How long the kernel may take to close the files of a killed VMM, of which the stream whose end we
/// have seen may be the first and the folder's lock the last.
const DEATH: Duration = Duration::from_millis(300);

/// Exit code when a person asked to quit. The VMM ends the VM on it.
pub const QUIT: u8 = 10;

/// Why a console cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The people's end.
    #[error(transparent)]
    End(#[from] EndError),
    /// The vhost-user session.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// `--bytes-fd` or `--ready-fd`.
    #[error("the descriptor {0} of --bytes-fd or --ready-fd is not open")]
    Descriptor(RawFd),
    /// `--connect`.
    #[error("no console can be reached at {}; is its VM running?", path.display())]
    Connect {
        /// The path given.
        path: std::path::PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The loop itself.
    #[error("the console's loop cannot run")]
    Loop(#[from] io::Error),
}

/// Serves until the guest's side ends or a person quits.
///
/// # Errors
/// One of the two sides cannot be had.
pub fn run(cli: Cli) -> Result<ExitCode, Error> {
    let leaving = cli.guest.connect.is_some();
    let folder = cli.sweep.clone();
    let outcome = match cli.guest.endpoint() {
        None => {
            let guest = bytes(&cli)?;
            carry(
                &cli,
                guest,
                &Size::default(),
                &Events::default(),
                &Ending::Signals,
            )?
        }
        Some(endpoint) => serve(cli, &endpoint)?,
    };
    if let Outcome::Quit = outcome
        && !leaving
    {
        return Ok(ExitCode::from(QUIT));
    }
    if let Some(folder) = folder {
        daemon::sweep(&folder, DEATH);
    }
    Ok(ExitCode::SUCCESS)
}

/// The vhost-user session on this thread, the hub on another.
///
/// The session alone hears signals. It ends by one or with its frontend, and the hub with it; a
/// hub that ends first sends that signal.
fn serve(cli: Cli, endpoint: &Endpoint) -> Result<Outcome, Error> {
    // A hub that cannot open its people's side ends before the session hears signals.
    block_signals();
    let (size, events) = (Size::default(), Events::default());
    let (ours, theirs) = UnixStream::pair()?;
    let closer = ours.try_clone()?;
    let console = Console::new(theirs, size.clone(), events.clone());
    let (opened, is_open) = mpsc::channel();
    let hub = std::thread::Builder::new()
        .name("hub".into())
        .spawn(move || {
            let outcome = carry(&cli, ours, &size, &events, &Ending::Session(opened));
            if !matches!(outcome, Ok(Outcome::Closed)) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGTERM);
            }
            outcome
        })?;
    let ended = || Error::Loop(io::Error::other("its thread has ended"));
    if is_open.recv().is_err() {
        return hub.join().map_err(|_| ended())?;
    }
    let served = daemon::serve(endpoint, console);
    let _ = closer.shutdown(Shutdown::Both);
    let outcome = hub.join().map_err(|_| ended())?;
    served?;
    outcome
}

/// Leaves the signals that the session's thread waits for to it.
fn block_signals() {
    let ours = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    let _ = ours.thread_block();
}

/// The plain stream of `--bytes-fd` or `--connect`.
fn bytes(cli: &Cli) -> Result<UnixStream, Error> {
    if let Some(path) = &cli.guest.connect {
        let connected = UnixStream::connect(path);
        return connected.map_err(|source| Error::Connect {
            path: path.clone(),
            source,
        });
    }
    let fd = cli.guest.bytes_fd.unwrap_or(-1);
    inherit(fd).ok_or(Error::Descriptor(fd))
}

#[allow(unsafe_code)]
fn inherit(fd: RawFd) -> Option<UnixStream> {
    // SAFETY: F_GETFD only asks; a number that is not open is an error.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and whoever started us passed it for us to own.
    Some(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// What ends a hub besides its two sides.
enum Ending {
    /// SIGTERM, SIGINT or SIGHUP.
    Signals,
    /// Nothing: the session closes the guest's side. It is told when the people's side is open.
    Session(mpsc::Sender<()>),
}

impl Ending {
    /// From now on signals are heard, by who awaits what is returned. Call it before anything is
    /// opened that a signal must not leave behind.
    fn hear(&self) -> io::Result<impl Future<Output = io::Result<()>>> {
        let heard = match self {
            Self::Session(_) => None,
            Self::Signals => Some((
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            )),
        };
        Ok(async {
            let Some((mut terminate, mut interrupt, mut hangup)) = heard else {
                return std::future::pending().await;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            Ok(())
        })
    }

    /// The people's side is open.
    fn opened(&self, cli: &Cli) -> Result<(), Error> {
        if let Some(fd) = cli.ready_fd {
            let mut ready = inherit(fd).ok_or(Error::Descriptor(fd))?;
            // Whoever waited for it may have given up.
            let _ = ready.write_all(&[1]);
        }
        if let Self::Session(opened) = self {
            let _ = opened.send(());
        }
        Ok(())
    }
}

/// Opens the people's end and runs the hub on this thread.
fn carry(
    cli: &Cli,
    guest: UnixStream,
    size: &Size,
    events: &Events,
    ending: &Ending,
) -> Result<Outcome, Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let people = &cli.people;
        let stop = ending.hear()?;
        let opened = || ending.opened(cli);
        if let Some(path) = &people.attach {
            let attach = Attach::listen(path, cli.own_folder)?;
            note(&cli.name, path);
            return converse(guest, attach, opened, stop).await;
        }
        if let Some(path) = &people.file {
            return converse(guest, File::open(path)?, opened, stop).await;
        }
        if people.off {
            return converse(guest, Discard, opened, stop).await;
        }
        if people.pty {
            let (pty, name) = Pty::open()?;
            note(&cli.name, &name);
            return converse(guest, pty, opened, stop).await;
        }
        let events = events.clone();
        let resized = move || events.config_changed();
        // Before its threads are there.
        daemon::confine()?;
        let way_out = if cli.guest.connect.is_some() {
            WayOut::Leaves
        } else {
            WayOut::Ends
        };
        let other = cli.switch_to.as_deref();
        let stdio = Stdio::open(&cli.name, way_out, other, size.clone(), resized)?;
        converse(guest, stdio, opened, stop).await
    });
    runtime.shutdown_background();
    outcome
}

/// Says where people find the console. "note:" is what the VMM passes on to the person who started it;
/// where nobody listens, it is found all the same.
fn note(name: &str, place: &Path) {
    let _ = writeln!(io::stdout(), "note: {name} is at {}", place.display());
}

/// Runs the hub, and drops the end (restoring a terminal, removing a socket) before it returns.
async fn converse(
    guest: UnixStream,
    mut end: impl End,
    opened: impl FnOnce() -> Result<(), Error>,
    stop: impl Future<Output = io::Result<()>>,
) -> Result<Outcome, Error> {
    // The session does this for threads of its own.
    daemon::confine()?;
    opened()?;
    Ok(hub::run(guest, &mut end, stop).await?)
}
