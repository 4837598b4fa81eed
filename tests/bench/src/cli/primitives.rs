//! `primitives`.

use outboard_device::daemon;

use super::measure::{TimeArgs, stop_flag};
use super::show::{conditions, say};
use crate::affinity::Cpus;
use crate::bytes::Bytes;
use crate::error::Result;
use crate::figures::Latency;
use crate::floor::{copy, eventfd};
use crate::guest;
use crate::hosts;
use crate::interrupts;
use crate::table::{Table, short};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    time: TimeArgs,
    /// How often the guest does each thing
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = daemon::number(1..=1_000_000u64))]
    requests: u64,
    /// Leave the guest out
    #[arg(long)]
    no_guest: bool,
}

/// What the guest's names mean.
const NAMES: [(&str, &str); 7] = [
    ("nothing", "guest: reading the clock, part of all below"),
    ("pio-out", "guest: exit by a port written"),
    ("pio-in", "guest: exit by a port read"),
    ("mmio-read", "guest: exit by a register read"),
    ("ioeventfd", "guest: kick by ioeventfd"),
    ("copy-4k", "guest: memory copy 4k"),
    ("request", "guest: request, halted until its interrupt"),
];

/// What the guest does when it is interrupted.
const INTERRUPTED: [(&str, &str); 2] = [
    ("halted", "guest: irqfd to handler, halted"),
    ("ring-3", "guest: irqfd to handler, at work in ring 3"),
];

pub(super) fn run(args: &Args) -> Result<()> {
    let how = args.time.conditions();
    let stop = stop_flag()?;
    say(&conditions(&how));
    let mut table = Table::new(1, ["primitive", "mean us", "p50", "p99"]);
    let mut add = |name: &str, latency: Option<Latency>| {
        if let Some(latency) = latency {
            table.row([
                name.to_owned(),
                short(latency.mean),
                short(latency.p50),
                short(latency.p99),
            ]);
        }
    };
    add("eventfd round trip", eventfd::run(&how, &stop)?.latency);
    for size in [64, 4096, 65536] {
        let size = Bytes(size);
        let copy = copy::run(size, &how, &stop)?;
        add(&format!("memory copy {size}"), copy.latency);
    }
    // Where it may run, the guest's threads are the kernel's to place.
    Cpus::default().hold_this_thread()?;
    let why = if args.no_guest {
        Some("--no-guest".to_owned())
    } else {
        hosts::missing()
    };
    if why.is_none() {
        for interrupts in interrupts::run(args.requests, &stop)? {
            let (how, latency) = (interrupts.how, interrupts.latency);
            let name = INTERRUPTED.iter().find(|(name, _)| *name == how);
            add(name.map_or(&how, |(_, meaning)| meaning), Some(latency));
        }
        for cost in guest::costs(args.requests, &stop)? {
            let name = NAMES.iter().find(|(name, _)| *name == cost.name);
            let name = name.map_or(cost.name.as_str(), |(_, meaning)| meaning);
            table.row([
                name.to_owned(),
                short(cost.nanos / 1e3),
                "-".into(),
                "-".into(),
            ]);
        }
    }
    table.lines().iter().for_each(|line| say(line));
    if let Some(why) = why {
        say(&format!(
            "Not measured: exits, kicks and interrupts of a guest ({why})."
        ));
    }
    Ok(())
}
