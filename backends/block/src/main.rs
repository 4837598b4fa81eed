//! `outboard-block`: a virtio block device in a process of its own.

use std::process::ExitCode;

use clap::Parser;
use outboard_block::cli::Cli;
use outboard_device::daemon;

fn main() -> ExitCode {
    let cli = Cli::parse();
    daemon::init_logging(&cli.log);
    match cli.disk() {
        Ok(disk) => daemon::exit(daemon::serve(&cli.endpoint, disk)),
        Err(error) => {
            daemon::report(&*error);
            ExitCode::FAILURE
        }
    }
}
