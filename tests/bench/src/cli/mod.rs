//! The command line.

mod compare;
mod engine;
mod hosts;
mod measure;
mod primitives;
mod report;
mod rest;
mod serve;
mod show;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outboard_device::daemon;

use crate::case::Path;
use crate::error::Error;

/// Measures a virtio path end to end: any vhost-user backend, driven as a guest would, without a VM.
#[derive(Debug, Parser)]
#[command(
    name = "outboard-bench",
    version,
    after_help = "Examples:\n  \
        outboard-bench null\n  \
        outboard-bench block --file /dev/shm/disk.img \\\n      \
        --spawn 'outboard-block --socket {socket} --path {file}'\n  \
        outboard-bench block --socket /tmp/disk.sock \\\n      \
        --op read,write --size 4k,128k --depth 1,32\n  \
        outboard-bench compare ours.toml theirs.toml --rounds 7 \\\n      \
        --file /dev/shm/disk.img"
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
    /// A block device. It is written to where --op says so, and by --verify.
    Block(measure::BlockArgs),
    /// A network card: frames sent, received, or sent and received again.
    Net(measure::Args),
    /// A switch: frames from one port to another, both driven by one thread.
    ///
    /// With neither --socket nor --spawn, of `outboard-net switch`.
    Switch(measure::Args),
    /// A console: bytes printed on port 0.
    Console(measure::Args),
    /// An entropy source: bytes asked for.
    Rng(measure::Args),
    /// Serves a block device that answers without doing anything, for `null`.
    ServeNull(serve::Null),
    /// Serves a device that interrupts the bare-metal guest and times its handler, for `primitives`.
    ServeInterrupts(serve::Interrupts),
    /// Serves a disk in memory that does wrong one write in so many, for `block --verify` to find.
    ServeFaulty(serve::Faulty),
    /// Measures what everything is made of: a wake-up, a copy, an exit, a kick and an interrupt.
    Primitives(primitives::Args),
    /// Measures one device in each host, by turns: in the VMM, in a process of its own, as a daemon.
    Hosts(hosts::Args),
    /// Measures a VM that does nothing: how long it and each daemon take to start, what memory and what CPU
    /// time they have.
    Rest(rest::Args),
    /// Runs the ring engine alone, in one thread: for counters of instructions, and a profiler.
    Engine(engine::Args),
    /// Measures several backends by turns, with what the machine itself can do.
    Compare(compare::Args),
    /// Shows results again: the medians, as `compare` does.
    Table(report::Table),
    /// Writes results as a page with plots, which needs no network.
    Report(report::Report),
    /// Makes the tables of documents anew out of the results they name.
    Docs(report::Docs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Null(args) => measure::run(Path::Null, &args),
        Verb::Block(args) => measure::block(&args),
        Verb::Net(args) => measure::run(Path::Net, &args),
        Verb::Switch(args) => measure::run(Path::Switch, &args),
        Verb::Console(args) => measure::run(Path::Console, &args),
        Verb::Rng(args) => measure::run(Path::Rng, &args),
        Verb::Rest(args) => rest::run(&args),
        Verb::Primitives(args) => primitives::run(&args),
        Verb::Hosts(args) => hosts::run(&args),
        Verb::Engine(args) => engine::run(&args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Table(args) => report::table(&args),
        Verb::Report(args) => report::page(&args),
        Verb::Docs(args) => report::docs(&args),
        Verb::ServeNull(args) => return daemon::exit(serve::null(&args)),
        Verb::ServeInterrupts(args) => return daemon::exit(serve::interrupts(&args)),
        Verb::ServeFaulty(args) => return daemon::exit(serve::faulty(&args)),
    };
    match (done, show::lost()) {
        (Ok(()), Some(error)) => daemon::exit(Err(Error::Unshown(error))),
        (done, _) => daemon::exit(done),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
