//! The VMM's own log lines: to standard error, and into the VM's folder once there is one.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::Log;
use crate::stderr::Stderr;

/// The target of what daemons say: it has files of its own, and is not for the VMM's.
pub(crate) const DAEMON: &str = "outboard::daemon";

/// Files keep at least this much.
const KEPT: LevelFilter = LevelFilter::INFO;

/// Where the VMM's lines are kept.
static OWN: Mutex<Option<Log>> = Mutex::new(None);

/// What the person asked for, for daemons too.
static ASKED: OnceLock<LevelFilter> = OnceLock::new();

/// Begins logging: to standard error what `level` says, or else `RUST_LOG`, or else warnings and
/// errors. Call it once, first.
pub fn start(level: Option<LevelFilter>) {
    let mut unusable = None;
    let shown = match level {
        Some(level) => {
            let _ = ASKED.set(level);
            EnvFilter::new(level.to_string())
        }
        None => match std::env::var("RUST_LOG").as_deref().map(EnvFilter::try_new) {
            Ok(Ok(filter)) => filter,
            Ok(Err(error)) => {
                unusable = Some(error);
                EnvFilter::new("warn")
            }
            Err(_) => EnvFilter::new("warn"),
        },
    };
    let most = shown.max_level_hint().unwrap_or(KEPT).max(KEPT);
    let kept = EnvFilter::new(format!("{most},{DAEMON}=off"));
    let to_stderr = fmt::layer()
        .with_writer(Stderr::default)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        // Of a standard error that takes nothing it could only complain there.
        .log_internal_errors(false)
        .with_filter(shown);
    let to_file = fmt::layer()
        .with_writer(|| Own)
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .with_filter(kept);
    tracing_subscriber::registry()
        .with(to_stderr)
        .with(to_file)
        .init();
    if let Some(error) = unusable {
        tracing::warn!("RUST_LOG is not usable ({error}); warnings and errors are shown");
    }
}

/// How much daemons are to say, as `RUST_LOG` has it: what people see, and what is kept. `None`
/// leaves them what they find in the environment.
pub(crate) fn daemon_filter() -> Option<String> {
    if ASKED.get().is_none() && std::env::var_os("RUST_LOG").is_some() {
        return None;
    }
    // Complaints are wanted for the daemon's last words.
    Some(LevelFilter::current().max(LevelFilter::WARN).to_string())
}

/// From now on the VMM's lines go to `log` as well.
pub(super) fn keep_in(log: Option<Log>) {
    *OWN.lock().unwrap_or_else(PoisonError::into_inner) = log;
}

fn own() -> Option<Log> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Keeps a line that people have read elsewhere, or need not read.
pub fn note(text: &str) {
    if let Some(log) = own() {
        text.lines().for_each(|line| log.line(line));
    }
}

struct Own;

impl Write for Own {
    /// Takes a whole line; where nothing is kept it is forgotten.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(log) = own() {
            log.raw(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
