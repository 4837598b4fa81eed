//! The command line of `outboard-net`.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use outboard_device::daemon::{self, Endpoint, LogArgs};

use crate::cable::Cable;
use crate::card::Card;
use crate::link::Link;
use crate::mac::Mac;
use crate::pairs::Pairs;
use crate::stream::{Stream, StreamError};
use crate::subnet::Subnet;
use crate::switch::cli::SwitchArgs;
use crate::tap::{IfAbsent, Tap, TapError};

/// Serves a network card on a tap or a stream socket to a virtual machine, over vhost-user.
#[derive(Debug, Parser)]
#[command(
    name = "outboard-net",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example, with any vhost-user frontend:\n  \
        sudo ip tuntap add dev tap0 mode tap user $USER\n  \
        sudo ip link set tap0 up\n  \
        outboard-net --socket /tmp/net.sock --tap tap0 --mac 52:54:00:12:34:56\n\n\
        A cable between two of them:\n  \
        outboard-net --socket /tmp/a.sock --stream-listen /tmp/cable.sock\n  \
        outboard-net --socket /tmp/b.sock --stream /tmp/cable.sock"
)]
pub struct Cli {
    /// Something else than a card.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// Where the frontend comes from.
    #[command(flatten)]
    pub endpoint: Endpoint,

    /// Which cable.
    #[command(flatten)]
    pub cable: CableArgs,

    /// Make the tap, where permitted, if it does not exist, and bring it up. It ends with the daemon.
    #[arg(long, conflicts_with_all = ["tap_fd", "ip", "stream", "stream_fd", "stream_listen"])]
    pub create: bool,

    /// Pairs of queues, each with a thread; more than one only on a tap by its name.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["tap_fd", "ip", "stream", "stream_fd", "stream_listen"],
        value_parser = daemon::number(1..=16u16))]
    pub queues: u16,

    /// The card's address; without one the guest makes its own up.
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,

    /// Longest packet of the network, as advice to the guest.
    #[arg(long, value_name = "BYTES", value_parser = daemon::number(68..=u16::MAX))]
    pub mtu: Option<u16>,

    /// How much to say.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What the daemon can be besides a card.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Joins virtual machines by a learning switch.
    Switch(SwitchArgs),
}

/// The cable: exactly one.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct CableArgs {
    /// Name of the tap. One that does not exist is an error, unless `--create` is given.
    #[arg(long = "tap", value_name = "NAME")]
    pub tap_name: Option<String>,

    /// Inherited file descriptor attached to a tap (`IFF_TAP`, `IFF_NO_PI`, `IFF_VNET_HDR`). Given
    /// again, each is a queue of that tap, and a pair of the card's.
    #[arg(long, value_name = "N")]
    pub tap_fd: Vec<RawFd>,

    /// Make a tap, named vmtap0 or with the next free number, with this address on the host's side.
    /// It ends with the daemon.
    #[arg(long, value_name = "ADDRESS/BITS")]
    pub ip: Option<Subnet>,

    /// Connect to this Unix stream socket, each frame behind its length: passt, QEMU's stream
    /// netdev, or another card. When nobody is there the guest's link is down until somebody is.
    #[arg(long, value_name = "PATH")]
    pub stream: Option<PathBuf>,

    /// The same on an inherited, connected stream. Its end is the link's.
    #[arg(long, value_name = "N")]
    pub stream_fd: Option<RawFd>,

    /// The same, listening on this path for one peer at a time.
    #[arg(long, value_name = "PATH")]
    pub stream_listen: Option<PathBuf>,
}

/// Why a cable cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CableError {
    /// It is a tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// It is a stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Its queues do not do as they are told.
    #[error("Cannot detach a queue of the tap")]
    Queues(#[source] io::Error),
}

impl CableArgs {
    /// Takes the cable with `queues` queues, which will report to `link`.
    fn open(&self, queues: u16, absent: IfAbsent, link: &Arc<Link>) -> Result<Pairs, CableError> {
        let link = Arc::clone(link);
        if let (Some(name), true) = (&self.tap_name, queues > 1) {
            let taps = Tap::open_queues(name, queues, absent)?;
            return Pairs::new(taps.into_iter().map(Cable::Tap).collect())
                .map_err(CableError::Queues);
        }
        if !self.tap_fd.is_empty() {
            let taps = Tap::inherit_queues(&self.tap_fd)?;
            return Pairs::new(taps.into_iter().map(Cable::Tap).collect())
                .map_err(CableError::Queues);
        }
        let cable = if let Some(subnet) = self.ip {
            Cable::Tap(Tap::make(subnet)?)
        } else if let Some(path) = &self.stream {
            Cable::Stream(Stream::connect(path, link)?)
        } else if let Some(fd) = self.stream_fd {
            Cable::Stream(Stream::inherit(fd, link)?)
        } else if let Some(path) = &self.stream_listen {
            Cable::Stream(Stream::listen(path, link)?)
        } else {
            // clap sees to it that there is one of them.
            let name = self.tap_name.as_deref().unwrap_or_default();
            Cable::Tap(Tap::open(name, absent)?)
        };
        Pairs::new(vec![cable]).map_err(CableError::Queues)
    }
}

impl Cli {
    /// Takes the cable and makes the card.
    pub fn card(&self) -> Result<Card, CableError> {
        let link = Arc::new(Link::new());
        let absent = if self.create {
            IfAbsent::Create
        } else {
            IfAbsent::Refuse
        };
        let pairs = self.cable.open(self.queues, absent, &link)?;
        Ok(Card::new(pairs, link, self.mac, self.mtu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exactly_one_cable_is_named() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["x", "--fd", "3"][..], args].concat());
        assert!(parse(&["--tap", "a"]).is_ok());
        assert!(parse(&["--tap-fd", "5"]).is_ok());
        assert!(parse(&["--tap-fd", "5", "--tap-fd", "6"]).is_ok());
        assert!(parse(&["--ip", "10.0.0.1/24"]).is_ok());
        assert!(parse(&["--ip", "10.0.0.1/24", "--tap-fd", "6"]).is_err());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--tap", "a", "--tap-fd", "5"]).is_err());
        assert!(parse(&["--stream", "/s"]).is_ok());
        assert!(parse(&["--stream-fd", "5"]).is_ok());
        assert!(parse(&["--stream-listen", "/s"]).is_ok());
        assert!(parse(&["--stream-listen", "/s", "--stream", "/t"]).is_err());
        assert!(parse(&["--tap", "a", "--create"]).is_ok());
        assert!(parse(&["--stream", "/s", "--create"]).is_err());
        assert!(parse(&["--tap", "a", "--mac", "01:00:00:00:00:00"]).is_err());
        assert!(parse(&["--tap", "a", "--mtu", "67"]).is_err());
        assert!(parse(&["--tap", "a", "--queues", "2"]).is_ok());
        assert!(parse(&["--tap", "a", "--queues", "0"]).is_err());
        assert!(parse(&["--stream", "/s", "--queues", "2"]).is_err());
    }
}
