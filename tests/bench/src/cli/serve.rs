//! The devices that the bench serves itself.

use outboard_device::daemon::{self, Endpoint, LogArgs, ServeError};

use crate::bytes::Bytes;
use crate::faulty::{self, Wrong};
use crate::interrupts::Bell;

/// `serve-null`.
#[derive(Debug, clap::Args)]
pub(super) struct Null {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Number of queues, each with a thread of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = daemon::number(1..=64u16))]
    queues: u16,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn null(args: &Null) -> Result<(), ServeError> {
    daemon::init_logging(&args.log);
    daemon::serve(&args.endpoint, outboard_bench_null::Null::new(args.queues))
}

/// `serve-interrupts`.
#[derive(Debug, clap::Args)]
pub(super) struct Interrupts {
    #[command(flatten)]
    endpoint: Endpoint,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn interrupts(args: &Interrupts) -> Result<(), ServeError> {
    daemon::init_logging(&args.log);
    daemon::serve(&args.endpoint, Bell)
}

/// `serve-faulty`.
#[derive(Debug, clap::Args)]
pub(super) struct Faulty {
    #[command(flatten)]
    endpoint: Endpoint,
    /// What it does wrong
    #[arg(long, value_name = "WHAT")]
    fault: Wrong,
    /// With one write in so many
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// The disk's size
    #[arg(long, value_name = "BYTES", default_value = "64M")]
    size: Bytes,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn faulty(args: &Faulty) -> Result<(), ServeError> {
    daemon::init_logging(&args.log);
    let device = faulty::Faulty::new(args.size.0, args.fault, args.every);
    daemon::serve(&args.endpoint, device)
}
