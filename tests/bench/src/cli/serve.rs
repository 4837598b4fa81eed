//! The devices that the bench serves itself.

use outboard_device::daemon::{self, Endpoint, LogArgs, ServeError};

use crate::null;

/// `serve-null`.
#[derive(Debug, clap::Args)]
pub(super) struct Null {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Number of queues, each with a thread of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: u16,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn null(args: &Null) -> Result<(), ServeError> {
    daemon::init_logging(&args.log);
    daemon::serve(&args.endpoint, null::Null::new(args.queues))
}
