//! `rest`.

use std::path::PathBuf;
use std::time::Duration;

use outboard_device::daemon;

use super::measure::stop_flag;
use super::show::{machine, say};
use crate::error::{Error, Result};
use crate::hosts;
use crate::machine::Machine;
use crate::record::Log;
use crate::rest::{self, Seen, What};

/// How long.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds to look at the resting VM
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = daemon::number(1..=3600u64))]
    seconds: u64,
    /// How often each start is measured
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = daemon::number(1..=1000u32))]
    rounds: u32,
    /// Keep all of it in this file, a line of JSON each, behind what is there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The daemons that can be started by themselves, and with what.
const DAEMONS: [(&str, &[&str]); 3] = [
    ("outboard-block", &["--path", "{folder}/disk"]),
    ("outboard-net", &["--stream-listen", "{folder}/cable"]),
    ("outboard-console", &["--off"]),
];

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(why) = hosts::missing() {
        return Err(Error::Unfit(format!("no guest can rest here ({why})")));
    }
    let stop = stop_flag()?;
    say(&machine());
    let mut log = args.json.as_deref().map(Log::append).transpose()?;
    let mut all = Vec::new();
    let mut keep = |what| {
        let seen = Seen {
            machine: Machine::here(),
            what,
        };
        let logged = log.as_mut().map_or(Ok(()), |log| log.write(&seen));
        all.push(seen);
        logged
    };
    let start = |name: String, time: Duration| What::Start {
        name,
        seconds: time.as_secs_f64(),
    };
    for (name, arguments) in DAEMONS {
        for _ in 0..args.rounds {
            let time = rest::daemon(name, arguments)?;
            keep(start(format!("{name} listens"), time))?;
        }
    }
    for round in 1..=args.rounds {
        // The last one is looked at for a while.
        let seconds = if round == args.rounds {
            args.seconds
        } else {
            0
        };
        let (time, processes) = rest::vm(Duration::from_secs(seconds), &stop)?;
        keep(start(
            "outboard: the guest's first byte on ttyS0".into(),
            time,
        ))?;
        if seconds > 0 {
            processes
                .into_iter()
                .map(What::Process)
                .try_for_each(&mut keep)?;
        }
    }
    let [starts, processes] = rest::tables(&all);
    starts.lines().iter().for_each(|line| say(line));
    say("");
    processes.lines().iter().for_each(|line| say(line));
    say("Guest memory is left out. A guest of 64 MiB, halted, with a disk, a card and ttyS0.");
    Ok(())
}
