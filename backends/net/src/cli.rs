//! The command line of `outboard-net`.

use std::os::fd::RawFd;

use clap::Parser;
use outboard_device::daemon::{Endpoint, LogArgs};

use crate::card::Card;
use crate::mac::Mac;
use crate::tap::{Tap, TapError};

/// Serves a network card on a tap to a virtual machine, over vhost-user.
#[derive(Debug, Parser)]
#[command(
    name = "outboard-net",
    version,
    after_help = "Example, with any vhost-user frontend:\n  \
        sudo ip tuntap add dev tap0 mode tap user $USER && sudo ip link set tap0 up\n  \
        outboard-net --socket /tmp/net.sock --tap tap0 --mac 52:54:00:12:34:56"
)]
pub struct Cli {
    /// Where the frontend comes from.
    #[command(flatten)]
    pub endpoint: Endpoint,

    /// Which tap.
    #[command(flatten)]
    pub tap: TapArgs,

    /// The card's address; without one the guest makes its own up.
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,

    /// Longest packet of the network, as advice to the guest.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,

    /// How much to say.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The tap: exactly one of the two.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct TapArgs {
    /// Name of the tap. One that does not exist is made, where permitted, and ends with the daemon.
    #[arg(long = "tap", value_name = "NAME")]
    pub tap_name: Option<String>,

    /// Inherited file descriptor attached to a tap (`IFF_TAP`, `IFF_NO_PI`, `IFF_VNET_HDR`).
    #[arg(long, value_name = "N")]
    pub tap_fd: Option<RawFd>,
}

impl Cli {
    /// Takes the tap and makes the card.
    pub fn card(&self) -> Result<Card, TapError> {
        let tap = match (&self.tap.tap_name, self.tap.tap_fd) {
            (Some(name), _) => Tap::open(name)?,
            (None, Some(fd)) => Tap::inherit(fd)?,
            // clap sees to it that there is one of them.
            (None, None) => return Err(TapError::Name(String::new())),
        };
        Ok(Card::new(tap, self.mac, self.mtu))
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
    fn exactly_one_tap_is_named() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["x", "--fd", "3"][..], args].concat());
        assert!(parse(&["--tap", "a"]).is_ok());
        assert!(parse(&["--tap-fd", "5"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--tap", "a", "--tap-fd", "5"]).is_err());
        assert!(parse(&["--tap", "a", "--mac", "01:00:00:00:00:00"]).is_err());
        assert!(parse(&["--tap", "a", "--mtu", "67"]).is_err());
    }
}
