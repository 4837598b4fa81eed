//! The command line.

mod measure;
mod serve;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outboard_device::daemon;

use crate::case::Path;

/// Measures a virtio path end to end: any vhost-user backend, driven as a guest would, without a VM.
#[derive(Debug, Parser)]
#[command(
    name = "outboard-bench",
    version,
    after_help = "Examples:\n  \
        outboard-bench null\n  \
        outboard-bench block --file /dev/shm/disk.img --spawn 'outboard-block --socket {socket} --path {file}'\n  \
        outboard-bench block --socket /tmp/disk.sock --op read,write --size 4k,128k --depth 1,32"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The bare ring: block requests of four descriptors that nobody acts upon.
    ///
    /// With neither --socket nor --spawn, of `outboard-bench serve-null`.
    Null(measure::Args),
    /// A block device. It is written to where --op says so.
    Block(measure::Args),
    /// A network card: frames sent.
    Net(measure::Args),
    /// A console: bytes printed on port 0.
    Console(measure::Args),
    /// An entropy source: bytes asked for.
    Rng(measure::Args),
    /// Serves a block device that answers without doing anything, for `null`.
    ServeNull(serve::Null),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Null(args) => measure::run(Path::Null, &args),
        Verb::Block(args) => measure::run(Path::Block, &args),
        Verb::Net(args) => measure::run(Path::Net, &args),
        Verb::Console(args) => measure::run(Path::Console, &args),
        Verb::Rng(args) => measure::run(Path::Rng, &args),
        Verb::ServeNull(args) => return daemon::exit(serve::null(&args)),
    };
    daemon::exit(done)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
