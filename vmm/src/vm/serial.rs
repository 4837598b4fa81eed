//! ttyS0: the serial port that is built in ([`port`]), and the console behind it: a daemon, and a stream of bytes.

mod port;
mod transcript;

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::VmError;
use super::events::{Event, Events};
use super::terminal::Terminal;
use crate::config::{Port, VmConfig, console_args};
use crate::frontend::ConnectError;
use crate::supervisor::{Command, Process, Supervisor, locate};
pub(super) use port::Port as SerialPort;
pub(super) use transcript::Transcript;

/// The exit status by which `outboard-console` says that a person typed Ctrl-A x.
pub(super) const QUIT: i32 = 10;
/// What messages call it.
const ID: &str = "ttyS0";
const PROGRAM: &str = "outboard-console";
/// How long it may take to open its people's side.
const START: Duration = Duration::from_secs(10);
/// How often its opening asks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// One that gives up is about to exit; its last words are worth this wait.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A console on its way to its people.
pub(super) struct Opening {
    process: Process,
    /// The daemon writes a byte when they can be reached, and closes it when it ends.
    ready: UnixStream,
    terminal: Option<Terminal>,
}

/// Spawns the console of ttyS0 and returns our end of its bytes; `None` for `--serial off`.
pub(super) fn spawn(
    config: &VmConfig,
    supervisor: &Arc<Supervisor>,
    terminal: &Terminal,
) -> Result<Option<(UnixStream, Opening)>, VmError> {
    if config.serial == Port::Off {
        return Ok(None);
    }
    let (ours, theirs) = UnixStream::pair().map_err(host)?;
    let (ready, told) = UnixStream::pair().map_err(host)?;
    ready.set_read_timeout(Some(LOOK)).map_err(host)?;
    let program = locate(PROGRAM).map_err(|missing| ConnectError::Spawn {
        id: ID.into(),
        source: missing.into(),
    })?;
    let other = config.console.clone().unwrap_or(Port::Off);
    let args = console_args(&config.serial, ID, &other, "console0", &config.runtime_dir);
    let command = Command::new(ID, program)
        .args(args)
        .arg("--sweep")
        .arg(config.runtime_dir.display().to_string())
        .arg("--bytes-fd")
        .fd(theirs)
        .arg("--ready-fd")
        .fd(told)
        .terminal(config.serial == Port::Tty);
    let process = supervisor.spawn(command)?;
    let opening = Opening {
        process,
        ready,
        terminal: (config.serial == Port::Tty).then(|| terminal.clone()),
    };
    Ok(Some((ours, opening)))
}

fn host(source: std::io::Error) -> VmError {
    VmError::Host {
        what: "Making a stream for ttyS0",
        source,
    }
}

impl Opening {
    /// Waits until people can be reached. From then on the console's end does not end the VM,
    /// unless a person asked for that. Its process. Gives up when `cancelled` says so.
    pub(super) fn wait(
        mut self,
        cancelled: &dyn Fn() -> bool,
        events: &Events,
    ) -> Result<Process, VmError> {
        let end = Instant::now() + START;
        loop {
            match self.ready.read(&mut [0]) {
                Ok(1..) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return Err(self.ended().into()),
            }
            if cancelled() {
                return Err(ConnectError::Cancelled { id: ID.into() }.into());
            }
            if Instant::now() >= end {
                return Err(self.silent().into());
            }
        }
        watch(self.process.clone(), events.clone(), self.terminal).map_err(host)?;
        Ok(self.process)
    }

    fn ended(&self) -> ConnectError {
        match self.process.wait(LAST_WORDS) {
            Some(status) => ConnectError::Ended {
                id: ID.into(),
                program: PROGRAM.into(),
                how: status.to_string(),
                words: self.process.last_words().to_string(),
            },
            None => self.silent(),
        }
    }

    fn silent(&self) -> ConnectError {
        ConnectError::Silent {
            id: ID.into(),
            seconds: START.as_secs(),
            words: self.process.last_words().to_string(),
        }
    }
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
                _ => {
                    let words = process.last_words().to_string();
                    tracing::warn!(
                        "The console of ttyS0 ended ({status}); the VM goes on without it{words}"
                    );
                }
            }
        })
        .map(drop)
}
