//! `outboard-block`: a virtio block device in a process of its own.

use std::process::ExitCode;

use clap::Parser;
use outboard_block::cli::Cli;
use outboard_block::image::mapped;
use outboard_device::daemon::{self, Reach};

/// Disks are read and written through rings.
const REACH: Reach = Reach {
    io_uring: true,
    files: false,
    net: false,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    daemon::init_logging(&cli.log);
    if let Err(error) = mapped::arm() {
        tracing::warn!("Images in memory are not mapped, which costs speed: {error}");
    }
    match cli.disk() {
        Ok(disk) => daemon::exit(daemon::serve_with(&cli.endpoint, disk, REACH)),
        Err(error) => {
            daemon::report(&*error);
            ExitCode::FAILURE
        }
    }
}
