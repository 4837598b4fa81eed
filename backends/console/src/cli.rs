//! The command line of `outboard-console`.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Parser};
use outboard_device::daemon::{Endpoint, LogArgs};

const EXAMPLES: &str = "\
Examples:
  A virtio console on this terminal, for any vhost-user frontend:
    outboard-console --socket /tmp/console.sock --tty
  One that people attach to:
    outboard-console --socket /tmp/console.sock --attach /tmp/people.sock
  And one of those people (Ctrl-A x leaves):
    outboard-console --connect /tmp/people.sock

Exit codes:
  0   the guest's side ended
  1   an error
  2   the command line is wrong
  10  a person asked to quit (Ctrl-A x)";

/// Serves a virtio console, or the bytes of a serial port, to people.
#[derive(Debug, Parser)]
#[command(name = "outboard-console", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What the console is called in messages
    #[arg(long, value_name = "TEXT", default_value = "console")]
    pub name: String,
    /// The guest's side.
    #[command(flatten)]
    pub guest: GuestArgs,
    /// The people's side.
    #[command(flatten)]
    pub people: PeopleArgs,
    /// Write a byte to this inherited descriptor once the people's side is open
    #[arg(long, value_name = "N", hide = true)]
    pub ready_fd: Option<RawFd>,
    /// With --attach: the socket's folder is removed with it, when nothing else is in it
    #[arg(long, requires = "attach", hide = true)]
    pub own_folder: bool,
    /// When everything ends: if the VM whose folder this is was killed, remove what it has left
    #[arg(long, value_name = "DIR", hide = true)]
    pub sweep: Option<PathBuf>,
    /// With --tty: Ctrl-A c shows the console that listens here (see --attach)
    #[arg(long, value_name = "PATH")]
    pub switch_to: Option<PathBuf>,
    /// How much to say.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The guest's side: exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct GuestArgs {
    /// A virtio console: listen on this Unix socket and serve one vhost-user frontend at a time
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// A virtio console: serve the connected vhost-user stream inherited as this descriptor
    #[arg(long, value_name = "N")]
    pub fd: Option<RawFd>,
    /// Plain bytes, of a serial port: the connected stream inherited as this descriptor
    #[arg(long, value_name = "N")]
    pub bytes_fd: Option<RawFd>,
    /// Plain bytes of a console that another process serves with --attach
    #[arg(long, value_name = "PATH", conflicts_with_all = ["pty", "attach", "file", "off", "switch_to"])]
    pub connect: Option<PathBuf>,
}

impl GuestArgs {
    /// The vhost-user endpoint, if the guest's side is a virtio console.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let (socket, fd) = (self.socket.clone(), self.fd);
        (socket.is_some() || fd.is_some()).then_some(Endpoint { socket, fd })
    }
}

/// The people's side: this terminal unless another is named.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct PeopleArgs {
    /// This terminal, in raw mode (or standard input and output, when they are none); the default
    #[arg(long)]
    pub tty: bool,
    /// A pseudo-terminal, whose name is printed
    #[arg(long)]
    pub pty: bool,
    /// A Unix socket that people attach to and leave; what was printed before is shown first
    #[arg(long, value_name = "PATH")]
    pub attach: Option<PathBuf>,
    /// A file that output is appended to
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Nobody
    #[arg(long)]
    pub off: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_one_place() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["outboard-console"], args].concat());
        assert!(parse(&["--fd", "3", "--tty"]).is_ok());
        assert!(parse(&["--bytes-fd", "3"]).is_ok());
        assert!(parse(&["--connect", "/s"]).is_ok());
        assert!(parse(&["--tty"]).is_err());
        assert!(parse(&["--fd", "3", "--socket", "/s"]).is_err());
        assert!(parse(&["--fd", "3", "--tty", "--pty"]).is_err());
        assert!(parse(&["--connect", "/s", "--pty"]).is_err());
    }
}
