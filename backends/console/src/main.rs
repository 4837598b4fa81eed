//! `outboard-console`: a virtio console, or a serial port's bytes, in a process of its own.

use std::process::ExitCode;

use clap::Parser;
use outboard_console::cli::Cli;
use outboard_console::serve;
use outboard_device::daemon;

fn main() -> ExitCode {
    let cli = Cli::parse();
    daemon::init_logging(&cli.log);
    serve::run(cli).unwrap_or_else(|error| {
        daemon::report(&error);
        ExitCode::FAILURE
    })
}
