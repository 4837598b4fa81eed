//! `engine`.

use outboard_device::daemon;

use crate::case::{Format, Switch};
use crate::engine::{self, Plan};
use crate::error::Result;

/// What to run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Layout of the ring
    #[arg(long, value_name = "FORMAT", default_value = "split")]
    ring: Format,
    /// Indirect descriptors
    #[arg(
        long,
        value_name = "on|off",
        default_value = "off",
        hide_possible_values = true
    )]
    indirect: Switch,
    /// Notifications by `EVENT_IDX`
    #[arg(
        long,
        value_name = "on|off",
        default_value = "on",
        hide_possible_values = true
    )]
    event_idx: Switch,
    /// Count what the queue does, as daemons of a VM do
    #[arg(
        long,
        value_name = "on|off",
        default_value = "off",
        hide_possible_values = true
    )]
    counted: Switch,
    /// Do work that nobody needs, for a guard to see
    #[arg(
        long,
        value_name = "on|off",
        default_value = "off",
        hide_possible_values = true
    )]
    wasteful: Switch,
    /// Requests made available together and answered together
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = daemon::number(1..=128u16))]
    batch: u16,
    /// How many times
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let &Args {
        ring,
        indirect,
        event_idx,
        counted,
        wasteful,
        batch,
        rounds,
    } = args;
    let time = engine::run(&Plan {
        ring,
        indirect,
        event_idx,
        counted,
        wasteful,
        batch,
        rounds,
    })?;
    let each = time.as_nanos() as f64 / (f64::from(rounds) * f64::from(batch));
    super::show::say(&format!("{each:.1} ns a request"));
    Ok(())
}
