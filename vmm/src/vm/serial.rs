//! The console behind ttyS0: a daemon, and a stream of bytes.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::VmError;
use super::events::{Event, Events};
use super::terminal::Terminal;
use crate::config::{Port, VmConfig, console_args};
use crate::supervisor::{Command, Process, Supervisor, locate};

/// The exit status by which `outboard-console` says that a person typed Ctrl-A x.
pub(super) const QUIT: i32 = 10;

/// Spawns the console of ttyS0 and returns our end of its bytes; `None` for `--serial off`.
///
/// Its end does not end the VM, unless a person asked for that.
pub(super) fn spawn(
    config: &VmConfig,
    supervisor: &Arc<Supervisor>,
    events: &Events,
    terminal: &Terminal,
) -> Result<Option<UnixStream>, VmError> {
    if config.serial == Port::Off {
        return Ok(None);
    }
    let host = |source| VmError::Host {
        what: "Making a stream for ttyS0",
        source,
    };
    let (ours, theirs) = UnixStream::pair().map_err(host)?;
    let program = locate("outboard-console").map_err(crate::supervisor::Error::from)?;
    let other = config.console.clone().unwrap_or(Port::Off);
    let args = console_args(
        &config.serial,
        "ttyS0",
        &other,
        "console0",
        &config.runtime_dir,
    );
    let command = Command::new("ttyS0", program)
        .args(args)
        .arg("--bytes-fd")
        .fd(theirs)
        .terminal(config.serial == Port::Tty);
    let process = supervisor.spawn(command)?;
    let owned = (config.serial == Port::Tty).then(|| terminal.clone());
    watch(process, events.clone(), owned).map_err(host)?;
    Ok(Some(ours))
}

/// Waits for the console's end on a thread of its own, which ends with it.
fn watch(process: Process, events: Events, terminal: Option<Terminal>) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("ttyS0-watch".into())
        .spawn(move || {
            let status = loop {
                if let Some(status) = process.wait(Duration::from_hours(1)) {
                    break status;
                }
            };
            if let Some(terminal) = terminal {
                terminal.restore();
            }
            match status.code() {
                Some(QUIT) => events.post(Event::Quit),
                Some(0) => tracing::debug!("The console of ttyS0 has ended"),
                _ => tracing::warn!(
                    "The console of ttyS0 ended ({status}); the VM goes on without it: {}",
                    process.last_words()
                ),
            }
        })
        .map(drop)
}
