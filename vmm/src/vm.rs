//! A VM: assembled, run by one owner, and taken apart with nothing left behind.
//!
//! [`run`] is the owner. Everything that happens to a VM (the guest powers off, resets or faults, a
//! device asks to end the VM, a signal comes) reaches it as an `Event` on one
//! channel, and it alone changes the VM's [`State`].
//!
//! | file | idea |
//! |---|---|
//! | `events.rs` | what happens to a VM |
//! | `end.rs` | how it ended, and the exit code |
//! | `error.rs` | why it could not start or go on |
//! | `limits.rs` | what the host lets the process have |
//! | `machine.rs` | the parts, put together, reset and taken apart |
//! | `devices.rs` | virtio devices: frontends, and their PCI functions |
//! | `runtime_dir.rs` | the VM's own folder |
//! | `serial.rs` | the console behind ttyS0 |
//! | `signals.rs` | signals, as events |
//! | `terminal.rs` | the terminal, as it was |

mod devices;
mod end;
mod error;
mod events;
mod limits;
mod machine;
mod runtime_dir;
mod serial;
mod signals;
mod terminal;

use std::sync::mpsc::Receiver;

pub use end::End;
pub use error::VmError;

use crate::config::{LogConfig, VmConfig};
use crate::logs::{self, Logs};
use events::{Event, Events};
use machine::Machine;
use runtime_dir::RuntimeDir;
use signals::Signals;
use terminal::Terminal;

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Assembled and loaded; no vCPU has run.
    Created,
    /// vCPUs run.
    Running,
    /// vCPUs are parked and can go on.
    Paused,
    /// Over; vCPUs will not run again.
    Stopped,
}

/// Runs the VM to its end, on this thread. All its processes, threads and files are gone when this
/// returns, within 10 seconds of the end even if a daemon hangs; its [logs](crate::logs) stay.
///
/// SIGINT, SIGTERM, SIGHUP and SIGPWR are the VM's meanwhile. Call it once in a process, before other
/// threads start: those would take the signals.
///
/// # Errors
/// The VM could not start, or the host failed it while it ran.
pub fn run(config: &VmConfig) -> Result<End, VmError> {
    limits::raise_open_files();
    let (events, inbox) = events::pair();
    let signals = Signals::catch(&events)?;
    let terminal = Terminal::remember();
    let _folder = RuntimeDir::make(config)?;
    let logs = open_logs(config)?;
    let machine = match Machine::assemble(config, &events, &terminal, &logs, &|| signals.came()) {
        Ok(machine) => machine,
        Err(error) => {
            let signal = inbox.try_iter().find_map(|event| match event {
                Event::Signal(signal) if signal != libc::SIGPWR => Some(signal),
                _ => None,
            });
            return signal.map(End::Signal).ok_or(error);
        }
    };
    let mut vm = Vm {
        machine,
        state: State::Created,
        no_reboot: config.no_reboot,
        inbox,
        events,
    };
    let end = vm.live();
    vm.state = State::Stopped;
    vm.machine.take_apart();
    end
}

/// A folder of their own choice that cannot be had is an error to people, the usual one is not.
fn open_logs(config: &VmConfig) -> Result<Logs, VmError> {
    let Some(LogConfig { folder, asked }) = &config.logs else {
        return Ok(Logs::default());
    };
    match Logs::open(folder) {
        Ok(logs) => {
            logs::note(&format!(
                "-- VM '{}' begins, outboard {}, process {}",
                config.name,
                env!("CARGO_PKG_VERSION"),
                std::process::id()
            ));
            Ok(logs)
        }
        Err(source) if *asked => Err(VmError::Logs {
            path: folder.clone(),
            source,
        }),
        Err(error) => {
            tracing::warn!(
                "No logs are kept, for {} cannot be used ({error}); choose a folder with --log-dir \
                 DIR, or --log-dir off",
                folder.display()
            );
            Ok(Logs::default())
        }
    }
}

/// A VM and the one thread that decides over it.
struct Vm {
    machine: Machine,
    state: State,
    no_reboot: bool,
    inbox: Receiver<Event>,
    events: Events,
}

impl Vm {
    /// From the first instruction to the end.
    fn live(&mut self) -> Result<End, VmError> {
        self.machine.boot()?;
        self.resume();
        loop {
            // Not closed while `events` is there.
            let Ok(event) = self.inbox.recv() else {
                return Ok(End::PowerOff);
            };
            tracing::info!(?event, state = ?self.state, "VM event");
            match event {
                Event::PowerOff => return Ok(End::PowerOff),
                Event::Reset if self.no_reboot => return Ok(End::Reset),
                Event::TripleFault if self.no_reboot => return Ok(End::TripleFault),
                Event::Reset | Event::TripleFault => self.reboot()?,
                Event::Fault(fault) => return Ok(End::Fault(fault)),
                Event::DeviceLost(lost) => return Ok(End::DeviceLost(lost)),
                Event::Quit => return Ok(End::Quit),
                Event::Signal(libc::SIGPWR) => self.machine.press_power_button(),
                Event::Signal(signal) => return Ok(End::Signal(signal)),
            }
        }
    }

    fn resume(&mut self) {
        self.machine.resume();
        self.state = State::Running;
    }

    /// The machine resets: same process, same daemons, the kernel loaded anew.
    fn reboot(&mut self) -> Result<(), VmError> {
        self.machine.pause()?;
        self.state = State::Paused;
        self.machine.reset()?;
        // What the guest asked for before its vCPUs stopped, the reset has answered.
        let asked: Vec<_> = self
            .inbox
            .try_iter()
            .filter(|event| !event.is_answered_by_reset())
            .collect();
        for event in asked {
            self.events.post(event);
        }
        self.machine.boot()?;
        self.resume();
        Ok(())
    }
}
