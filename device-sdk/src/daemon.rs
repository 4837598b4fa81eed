//! The `main` of a device daemon: where the frontend comes from, logging, signals, errors.
//!
//! ```no_run
//! use clap::Parser;
//! use outboard_device::{Device, daemon};
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     endpoint: daemon::Endpoint,
//!     #[command(flatten)]
//!     log: daemon::LogArgs,
//! }
//!
//! fn main_with(device: impl Device) -> std::process::ExitCode {
//!     let cli = Cli::parse();
//!     daemon::init_logging(&cli.log);
//!     daemon::exit(daemon::serve(&cli.endpoint, device))
//! }
//! ```

use std::error::Error;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::device::Device;

/// Where the daemon meets its frontend: exactly one of the two.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Endpoint {
    /// Listen on this Unix socket and serve one frontend at a time, until ended by a signal.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Serve the connected stream inherited as this file descriptor; end when it ends.
    #[arg(long, value_name = "N")]
    pub fd: Option<RawFd>,
}

/// How much the daemon says on stderr.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LogArgs {
    /// off, error, warn, info, debug, trace, or a filter like `outboard_device=debug`
    /// [default: $RUST_LOG, else info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Why a daemon ended other than by request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// `--fd` or `--socket` cannot be used.
    #[error("{what}; {remedy}")]
    Endpoint {
        /// What was wrong with which endpoint.
        what: String,
        /// What the user can do.
        remedy: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Sends logs to stderr. Call once, first.
pub fn init_logging(args: &LogArgs) {
    let _ = args;
}

/// Serves the device until its frontend is gone (`--fd`), or until SIGTERM or SIGINT. Blocks;
/// call it from `main`, before any other thread is started. Returns `Ok` after a signal or the
/// end of the inherited stream: the daemon's work is done and it exits with 0.
///
/// With `--socket` the device is [reset](Device::reset) between two frontends.
pub fn serve<D: Device>(endpoint: &Endpoint, device: D) -> Result<(), ServeError> {
    let _ = (endpoint, device);
    Ok(())
}

/// Prints an error with its causes on stderr, one chain, each cause once:
/// `error: cannot open disk.img: Permission denied (os error 13)`.
pub fn report(error: &(dyn Error + 'static)) {
    let mut line = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("{line}");
}

/// The exit code of `main`: 0, or [`report`] and 1.
pub fn exit<E: Error + 'static>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}
