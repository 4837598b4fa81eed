//! The command line of `outboard-net switch`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use outboard_device::SharedThread;
use outboard_device::daemon::{self, LogArgs, ServeError};

use super::Report;
use super::forwarding::Forwarding;
use super::port::{Line, Port};
use crate::mac::Mac;

const EXAMPLES: &str = "\
Example, two VMs that see the third, and not each other:
  outboard-net switch --port a=/tmp/a.sock,isolated \\
      --port b=/tmp/b.sock,isolated --port c=/tmp/c.sock
  outboard run a.toml --net socket=/tmp/a.sock";

/// Joins virtual machines by a learning switch: each port is a vhost-user socket, and frames are copied
/// from guest to guest.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SwitchArgs {
    /// A port, and the Unix socket it listens on for one frontend at a time. `isolated`: it reaches only
    /// ports that are not. `mac`: the card's address, which no other port can take; without one the
    /// guest makes its own up. Given once for each port.
    #[arg(
        long = "port",
        required = true,
        value_name = "NAME=SOCKET[,isolated][,mac=MAC]"
    )]
    pub ports: Vec<PortArg>,

    /// Longest packet of the network, as advice to the guests.
    #[arg(long, value_name = "BYTES", value_parser = daemon::number(68..=u16::MAX))]
    pub mtu: Option<u16>,

    /// An address that is not heard for so long is forgotten.
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
        value_parser = daemon::number(1..=1_000_000u32))]
    pub ageing: u32,

    /// Append the counters to this file, a line of JSON for each port, at SIGUSR1 and at the end; the
    /// log has them in words.
    #[arg(long, value_name = "FILE")]
    pub counters: Option<PathBuf>,

    /// How much to say.
    #[command(flatten)]
    pub log: LogArgs,
}

/// One port of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortArg {
    name: String,
    socket: PathBuf,
    isolated: bool,
    mac: Option<Mac>,
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (name, socket) = parts
            .next()
            .and_then(|first| first.split_once('='))
            .filter(|(_, socket)| !socket.is_empty())
            .ok_or_else(|| format!("'{text}' names no socket; write NAME=SOCKET"))?;
        let usual = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(usual) {
            return Err(format!(
                "'{name}' is no name of a port; use letters, digits, '-', '_' and '.'"
            ));
        }
        let mut port = Self {
            name: name.to_owned(),
            socket: socket.into(),
            isolated: false,
            mac: None,
        };
        for part in parts {
            match part.split_once('=') {
                None if part == "isolated" => port.isolated = true,
                Some(("mac", mac)) => port.mac = Some(mac.parse().map_err(|e| format!("{e}"))?),
                _ => {
                    return Err(format!(
                        "'{part}' is nothing that a port can be; write isolated or mac=MAC"
                    ));
                }
            }
        }
        Ok(port)
    }
}

/// Why there is no switch.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Two ports are the same in something.
    #[error("two ports have the {what} '{value}'; give each its own")]
    Twice {
        /// In what.
        what: &'static str,
        /// Which.
        value: String,
    },
    /// The file of counters cannot be used.
    #[error("cannot open {0} for the counters; name a file that can be written")]
    Counters(PathBuf, #[source] io::Error),
    /// No thread for it.
    #[error("cannot make the switch's thread")]
    Thread(#[source] io::Error),
    /// Its sockets, or the frontends there.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl SwitchArgs {
    /// Serves until ended by a signal.
    ///
    /// # Errors
    /// The ports contradict each other, or the system refuses something.
    pub fn serve(&self) -> Result<(), SwitchError> {
        self.check()?;
        let file = self.counters.as_ref().map(|path| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(|error| SwitchError::Counters(path.clone(), error))
        });
        let file = file.transpose()?;
        let line = |port: &PortArg| Arc::new(Line::new(port.mac, port.isolated));
        let lines: Vec<_> = self.ports.iter().map(line).collect();
        let forwarding = Forwarding::new(lines.iter().cloned(), self.ageing);
        let thread =
            SharedThread::new("switch", lines.len(), forwarding).map_err(SwitchError::Thread)?;
        let counters =
            |(port, line): (&PortArg, &Arc<Line>)| (port.name.clone(), Arc::clone(&line.counters));
        let counters = self.ports.iter().zip(&lines).map(counters).collect();
        let report = Arc::new(Report::new(counters, file));
        let device = |(place, (port, line)): (usize, (&PortArg, Arc<Line>))| {
            let device = Port::new(line, thread.place(place), self.mtu);
            (port.socket.clone(), device)
        };
        let devices = self.ports.iter().zip(lines).enumerate().map(device);
        let told = Arc::clone(&report);
        daemon::serve_each(devices.collect(), Some(Box::new(move || told.tell())))?;
        report.tell();
        Ok(())
    }

    fn check(&self) -> Result<(), SwitchError> {
        unique("name", self.ports.iter().map(|port| port.name.clone()))?;
        let sockets = self.ports.iter().map(|port| port.socket.display());
        unique("socket", sockets.map(|socket| socket.to_string()))?;
        let addresses = self.ports.iter().filter_map(|port| port.mac);
        unique("address", addresses.map(|mac| mac.to_string()))
    }
}

fn unique(what: &'static str, values: impl Iterator<Item = String>) -> Result<(), SwitchError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if let Some(value) = seen.replace(value) {
            return Err(SwitchError::Twice { what, value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser;

    #[test]
    fn ports_are_read_and_nonsense_is_named() {
        let port: PortArg = "a=/s,isolated,mac=52:54:00:00:00:01".parse().unwrap();
        assert!(port.isolated && port.name == "a" && port.mac.is_some());
        let refused = |text: &str| text.parse::<PortArg>().unwrap_err();
        assert!(refused("a").contains("write NAME=SOCKET"));
        assert!(refused("a=").contains("write NAME=SOCKET"));
        assert!(refused("a b=/s").contains("'a b'"));
        assert!(refused("=/s").contains("no name"));
        assert!(refused("a=/s,isolate").contains("'isolate'"));
        assert!(refused("a=/s,mac=x").contains("'x'"));
    }

    #[test]
    fn two_ports_that_are_the_same_are_named() {
        for (two, what) in [
            (["a=/s", "a=/t"], "name 'a'"),
            (["a=/s", "b=/s"], "socket '/s'"),
            (
                ["a=/s,mac=52:54:00:00:00:01", "b=/t,mac=52:54:00:00:00:01"],
                "address '52:54:00:00:00:01'",
            ),
        ] {
            let args = ["x", "switch", "--port", two[0], "--port", two[1]];
            let cli = Cli::try_parse_from(args).unwrap();
            let Some(Verb::Switch(switch)) = cli.verb else {
                panic!("no switch");
            };
            let error = switch.serve().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(Cli::try_parse_from(["x", "switch"]).is_err());
    }
}
