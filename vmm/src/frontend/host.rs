//! How a device's stream comes to be.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use outboard_device::counters::Page;
use outboard_device::daemon::COUNTERS;

use super::ports;
use crate::config::{Behind, FD, Handed};
use crate::supervisor::{Command, Error, NotFound, Process, Supervisor, locate};

/// Spawns a daemon of ours with one end of a stream; the other is ours. `wires`: what else it
/// inherits, besides the page on which it counts.
pub(super) fn spawn(
    supervisor: &Supervisor,
    id: &str,
    program: &str,
    args: &[String],
    wires: Vec<Wire>,
    terminal: bool,
) -> Result<(UnixStream, Process, Page), Error> {
    let program = locate(program)?;
    let (ours, theirs) = UnixStream::pair().map_err(Error::Supervisor)?;
    let page = Page::new().map_err(Error::Supervisor)?;
    let mut command = Command::new(id, program)
        .args(args)
        .arg("--fd")
        .fd(theirs)
        .fd_in(COUNTERS, page.share().map_err(Error::Supervisor)?)
        .terminal(terminal);
    for wire in wires {
        command = command.arg(wire.flag).fd(wire.end);
    }
    Ok((ours, supervisor.spawn(command)?, page))
}

/// What a daemon inherits besides its stream: the end of the stream to what stands behind it, or
/// what somebody has handed to the VMM.
pub(super) struct Wire {
    flag: String,
    end: OwnedFd,
}

/// The descriptors that somebody has handed to the VMM, once more each.
pub(super) fn given(flag: &str, fds: &[Handed]) -> io::Result<Vec<Wire>> {
    let wire = |fd: &Handed| {
        Ok(Wire {
            flag: flag.to_owned(),
            end: fd.duplicate()?,
        })
    };
    fds.iter().map(wire).collect()
}

/// Spawns what stands behind the daemon of the device `id`. It ends by itself when the daemon does:
/// at the end of the wire.
pub(super) fn spawn_behind(
    supervisor: &Supervisor,
    id: &str,
    behind: &Behind,
) -> Result<(Wire, Process), Error> {
    let program = locate(&behind.program).map_err(|missing| match missing {
        NotFound::Nowhere { .. } => Error::Package {
            program: behind.program.clone(),
            package: behind.package.clone(),
        },
        no_program @ NotFound::NoProgram { .. } => no_program.into(),
    })?;
    behind.listens.iter().try_for_each(ports::check)?;
    let (near, far) = UnixStream::pair().map_err(Error::Supervisor)?;
    let command = Command::new(format!("{id}: {}", behind.program), program)
        .args(&behind.args)
        .arg(&behind.fd)
        .fd(far);
    let wire = Wire {
        flag: behind.wire.clone(),
        end: near.into(),
    };
    Ok((wire, supervisor.spawn(command)?))
}

/// Spawns somebody's daemon with a listening socket for each `{fd}` in `args`, and connects to it.
/// The socket's path is gone at once, so this is the only connection there will be: it waits in the
/// socket's queue until the daemon takes it, and ends with the daemon.
pub(super) fn spawn_listening(
    supervisor: &Supervisor,
    id: &str,
    program: &str,
    args: &[String],
) -> Result<(UnixStream, Process), Error> {
    let program = locate(program)?;
    let (stream, listener) = meeting_point().map_err(Error::Supervisor)?;
    let command = Command::new(id, program)
        .args(args)
        .fd_in_place_of(FD, listener);
    Ok((stream, supervisor.spawn(command)?))
}

/// A listening socket without a path, and a connection in its queue.
fn meeting_point() -> io::Result<(UnixStream, UnixListener)> {
    // For its owner only, as an abstract address would not be.
    let folder = tempfile::Builder::new().prefix("outboard-").tempdir()?;
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path)?;
    Ok((UnixStream::connect(&path)?, listener))
}

/// Spawns somebody's daemon whose `args` say where it is to listen.
pub(super) fn spawn_at(
    supervisor: &Supervisor,
    id: &str,
    program: &str,
    args: &[String],
) -> Result<Process, Error> {
    supervisor.spawn(Command::new(id, locate(program)?).args(args))
}

/// Connects to where somebody's daemon listens, without waiting: a listener whose queue is full is
/// an error like any other.
pub(super) fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(socket.into())
}
