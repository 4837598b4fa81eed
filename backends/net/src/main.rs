//! `outboard-net`: a virtio network card in a process of its own.

use std::process::ExitCode;

use clap::Parser;
use outboard_device::daemon;
use outboard_net::cli::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Verb::Switch(switch)) = &cli.verb {
        daemon::init_logging(&switch.log);
        return daemon::exit(switch.serve());
    }
    daemon::init_logging(&cli.log);
    match cli.card() {
        Ok(card) => daemon::exit(daemon::serve(&cli.endpoint, card)),
        Err(error) => {
            daemon::report(&error);
            ExitCode::FAILURE
        }
    }
}
