//! `hosts`.

use std::path::PathBuf;

use outboard_device::daemon;

use super::measure::stop_flag;
use super::show::{bar, machine, say};
use crate::error::{Error, Result};
use crate::hosts::{self, Hosted};
use crate::record::Log;
use crate::summary;

/// Which device, how often.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The disk of this plugin, whose options follow after commas, instead of the device that does nothing;
    /// the guest reads it only
    #[arg(long, value_name = "PLUGIN[,KEYS]")]
    plugin: Option<String>,
    /// The same disk as a daemon: a command in which {socket} is where to listen
    #[arg(long, value_name = "COMMAND", requires = "plugin")]
    daemon: Option<String>,
    /// How often each host has its turn, a boot of the guest
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = daemon::number(1..=1000u32))]
    rounds: u32,
    /// Requests in each turn and each case
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = daemon::number(1..=1_000_000u64))]
    requests: u64,
    /// Keep every round in this file, a line of JSON each, behind what is there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures all of them in turn, and shows the medians.
pub(super) fn run(args: &Args) -> Result<()> {
    let hosted = match &args.plugin {
        Some(plugin) => hosts::disk(plugin, args.daemon.as_deref()),
        None => hosts::null()?,
    };
    if let Some(why) = hosts::missing() {
        return Err(Error::Unfit(format!(
            "a host is measured by a guest, and none can run here ({why})"
        )));
    }
    let stop = stop_flag()?;
    let mut log = args.json.as_deref().map(Log::append).transpose()?;
    say(&machine());
    let turns: Vec<(u32, &Hosted)> = turns(&hosted, args.rounds).collect();
    let bar = bar(turns.len() as u64);
    let mut records = Vec::new();
    // What was measured before one that fails is shown all the same.
    let done = turns.into_iter().try_for_each(|(round, who)| {
        bar.set_message(who.name);
        for record in hosts::turn(who, args.requests, round, &stop)? {
            log.as_mut().map_or(Ok(()), |log| log.write(&record))?;
            records.push(record);
        }
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    for line in summary::table(&summary::rows(&records)).known().lines() {
        say(&line);
    }
    done
}

/// Each in every round, in one order and then the other.
fn turns(hosted: &[Hosted], rounds: u32) -> impl Iterator<Item = (u32, &Hosted)> {
    (1..=rounds).flat_map(move |round| {
        let mut order: Vec<_> = hosted.iter().collect();
        if round % 2 == 0 {
            order.reverse();
        }
        order.into_iter().map(move |who| (round, who))
    })
}
