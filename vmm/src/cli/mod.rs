//! The command line: one file per verb.

mod doctor;
mod image;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use outboard::stderr::Stderr;
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  Boot a kernel with a disk and a network card, its first serial port on this terminal:
    outboard run --kernel vmlinuz --initrd initrd.img --memory 1G \\
        --cmdline 'console=ttyS0 root=/dev/vda rw' \\
        --disk path=root.img --net tap=tap0
  See whether this machine is ready:
    outboard doctor

Exit codes:
  0  the guest powered off (or reset under --no-reboot), or Ctrl-A x
  1  the VM could not start, or the host failed it
  2  the command line is wrong
  3  a device ended and its on-exit is stop
  4  KVM reported an internal error or an exit nobody handles
  5  the guest triple-faulted under --no-reboot
  130, 143  ended by Ctrl-C or SIGTERM";

/// A KVM virtual machine monitor whose every device runs outside it.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// How much to say on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Warn)]
    log_level: LogLevel,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Launch a VM and stay with it until it ends
    Run(Box<run::Run>),
    /// Say whether this machine can run VMs, and what to do where it cannot
    Doctor(doctor::Doctor),
    /// Take a kernel and its initrd out of a disk image
    Image(image::Image),
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.log_level);
    match cli.verb {
        Verb::Run(run) => run.execute(),
        Verb::Doctor(doctor) => doctor.execute(),
        Verb::Image(image) => image.execute(),
    }
}

/// `RUST_LOG`, when set, decides instead of the flag.
fn start_logging(level: LogLevel) {
    let word = level
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(word));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr::default)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}

/// Prints an error and its causes, each once.
fn complain(error: &dyn std::error::Error) {
    eprint!("outboard: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
}
