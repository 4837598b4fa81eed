//! `rest`.

use std::time::Duration;

use outboard_device::daemon;

use super::measure::stop_flag;
use super::show::{machine, say};
use crate::error::{Error, Result};
use crate::table::{Table, short};
use crate::{hosts, rest};

/// How long.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds to look at the resting VM
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = daemon::number(1..=3600u64))]
    seconds: u64,
    /// How often each start is measured
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = daemon::number(1..=1000u32))]
    rounds: u32,
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
    let mut starts = Table::new(1, ["from exec", "ms, median", "least", "most"]);
    for (name, arguments) in DAEMONS {
        let times = (0..args.rounds).map(|_| rest::daemon(name, arguments));
        starts.row(row(
            &format!("{name} listens"),
            times.collect::<Result<_>>()?,
        ));
    }
    let mut times = Vec::new();
    for _ in 1..args.rounds {
        times.push(rest::vm(Duration::ZERO, &stop)?.0);
    }
    let time = Duration::from_secs(args.seconds);
    let (started, processes) = rest::vm(time, &stop)?;
    times.push(started);
    starts.row(row("outboard: the guest's first byte on ttyS0", times));
    starts.lines().iter().for_each(|line| say(line));
    let mut table = Table::new(
        1,
        [
            "at rest",
            "resident KiB",
            "private KiB",
            "% of a CPU",
            "wake-ups/s",
        ],
    );
    for process in processes {
        table.row([
            process.name,
            (process.resident / 1024).to_string(),
            (process.private / 1024).to_string(),
            short(process.cpu.as_secs_f64() / time.as_secs_f64() * 100.0),
            short(process.wakes as f64 / time.as_secs_f64()),
        ]);
    }
    say("");
    table.lines().iter().for_each(|line| say(line));
    say("Guest memory is left out. A guest of 64 MiB, halted, with a disk, a card and ttyS0.");
    Ok(())
}

fn row(name: &str, mut times: Vec<Duration>) -> [String; 4] {
    times.sort();
    let ms = |at: Option<&Duration>| at.map_or("-".into(), |time| short(time.as_secs_f64() * 1e3));
    [
        name.to_owned(),
        ms(times.get(times.len() / 2)),
        ms(times.first()),
        ms(times.last()),
    ]
}
