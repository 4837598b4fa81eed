//! How a device's stream comes to be.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::supervisor::{Command, Error, Process, Supervisor, locate};

/// Spawns a daemon of ours with one end of a stream; the other is ours.
pub(super) fn spawn(
    supervisor: &Supervisor,
    id: &str,
    program: &str,
    args: &[String],
    terminal: bool,
) -> Result<(UnixStream, Process), Error> {
    let program = locate(program)?;
    let (ours, theirs) = UnixStream::pair().map_err(Error::Supervisor)?;
    let command = Command::new(id, program)
        .args(args)
        .arg("--fd")
        .fd(theirs)
        .terminal(terminal);
    Ok((ours, supervisor.spawn(command)?))
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
