//! The stream of events that Cloud Hypervisor's `--event-monitor` writes: for each a JSON object of
//! `timestamp` (since the VMM's start), `source`, `event` and `properties`, and an empty line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::Serialize;

use crate::inherited;

static MONITOR: OnceLock<Monitor> = OnceLock::new();

struct Monitor {
    start: Instant,
    file: Mutex<File>,
}

#[derive(Serialize)]
struct Event<'a> {
    timestamp: Duration,
    source: &'a str,
    #[serde(rename = "event")]
    what: &'a str,
    properties: Option<BTreeMap<&'a str, &'a str>>,
}

/// Begins to write events to `file`. Call it once, first.
///
/// # Errors
/// The file cannot be made non-blocking: a reader that reads nothing would hold the VM up.
pub fn start(file: File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let _ = MONITOR.set(Monitor {
        start: Instant::now(),
        file: Mutex::new(file),
    });
    Ok(())
}

/// The same, to the inherited descriptor `number`. Call it before anything else opens one.
///
/// # Errors
/// Nothing is open there, it has another use already, or it cannot be made non-blocking.
pub fn start_on(number: RawFd) -> io::Result<()> {
    start(File::from(inherited::take(number)?))
}

/// Tells of something that has happened, from any thread. Never blocks; one that the reader has no
/// room for is lost.
pub fn event(source: &str, what: &str, properties: &[(&str, &str)]) {
    let Some(monitor) = MONITOR.get() else {
        return;
    };
    let properties = properties.iter().copied().collect::<BTreeMap<_, _>>();
    let event = Event {
        timestamp: monitor.start.elapsed(),
        source,
        what,
        properties: (!properties.is_empty()).then_some(properties),
    };
    let Ok(mut text) = serde_json::to_string_pretty(&event) else {
        return;
    };
    text.push_str("\n\n");
    let mut file = monitor.file.lock().unwrap_or_else(PoisonError::into_inner);
    // In one piece: a pipe takes all of it or nothing (pipe(7), PIPE_BUF).
    if let Err(error) = file.write(text.as_bytes()) {
        tracing::debug!(%error, "an event is lost");
    }
}
