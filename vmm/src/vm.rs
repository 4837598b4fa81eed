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
//! | `fault_loop.rs` | a guest that triple-faults for ever |
//! | `limits.rs` | what the host lets the process have |
//! | `machine.rs` | the parts, put together, reset and taken apart |
//! | `devices.rs` | virtio devices: frontends, and their PCI functions |
//! | `plug.rs` | devices that come and go while the VM runs |
//! | `request.rs` | what may be asked of a VM from outside |
//! | `info.rs` | what a VM tells of itself |
//! | `runtime_dir.rs` | the VM's own folder |
//! | `serial.rs` | the console behind ttyS0 |
//! | `signals.rs` | signals, as events |
//! | `terminal.rs` | the terminal, as it was |

mod devices;
mod end;
mod error;
mod events;
mod fault_loop;
mod info;
mod limits;
mod machine;
mod plug;
mod request;
mod runtime_dir;
mod serial;
mod signals;
mod terminal;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use end::End;
pub use error::VmError;
pub use info::{
    ConsoleInfo, DaemonInfo, DeviceInfo, Info, KvmInfo, MapInfo, PluginInfo, QueueInfo,
    RegistersInfo,
};
pub use request::{Control, Plugged, Refusal};

use crate::api::{SOCKET, Server};
use crate::config::{LogConfig, VmConfig};
use crate::logs::{self, Logs};
use crate::plugin;
use events::{Event, Events};
use fault_loop::FaultLoop;
use machine::Machine;
use plug::{Successor, answer};
use request::Request;
use runtime_dir::RuntimeDir;
use signals::Signals;
use terminal::Terminal;

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
/// returns, within 10 seconds of the end even if a daemon hangs; its [logs] stay.
///
/// SIGINT, SIGTERM, SIGHUP and SIGPWR are the VM's meanwhile. Call it once in a process, before other
/// threads start: those would take the signals.
///
/// # Errors
/// The VM could not start, or the host failed it while it ran.
pub fn run(config: &VmConfig) -> Result<End, VmError> {
    limits::raise_open_files();
    signals::survive_large_files();
    let (events, inbox) = events::pair();
    let signals = Signals::catch(&events)?;
    let terminal = Terminal::remember();
    let folder = RuntimeDir::make(config)?;
    let logs = open_logs(config)?;
    let plugins = plugin::settle(config)?;
    let config = &VmConfig {
        devices: plugins.devices,
        plugins: plugins.plugins,
        ..config.clone()
    };
    let api = folder.path().and_then(|folder| listen(folder, &events));
    let cancelled = || signals.came();
    let machine = Machine::assemble(
        config,
        &plugins.registers,
        &events,
        &terminal,
        &logs,
        &cancelled,
    );
    let machine = match machine {
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
        config,
        machine,
        state: State::Created,
        inbox,
        events,
        successors: Vec::new(),
    };
    let end = vm.live();
    vm.state = State::Stopped;
    // Nobody asks a VM that is over; and its daemons, once they end, find no socket of its left.
    vm.refuse();
    drop(api);
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

/// Opens the VM to requests. One that cannot be asked runs all the same.
fn listen(folder: &Path, events: &Events) -> Option<Server> {
    let path = folder.join(SOCKET);
    match Server::listen(&path, Control::new(events.clone())) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!("The VM cannot be managed: {}: {error}", path.display());
            None
        }
    }
}

impl State {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A VM and the one thread that decides over it.
struct Vm<'a> {
    config: &'a VmConfig,
    machine: Machine,
    state: State,
    inbox: Receiver<Event>,
    events: Events,
    /// Devices that wait for another of their name to be gone.
    successors: Vec<Successor>,
}

impl Vm<'_> {
    /// From the first instruction to the end.
    fn live(&mut self) -> Result<End, VmError> {
        self.machine.boot()?;
        self.machine.resume();
        self.state = State::Running;
        let mut faults = FaultLoop::new(Instant::now());
        loop {
            let Some(event) = self.next() else {
                continue;
            };
            match event {
                Event::PowerOff => return Ok(End::PowerOff),
                Event::Reset if self.config.no_reboot => return Ok(End::Reset),
                Event::TripleFault if self.config.no_reboot => return Ok(End::TripleFault),
                Event::TripleFault if faults.is_closed_by_fault_at(Instant::now()) => {
                    return Ok(End::FaultLoop);
                }
                Event::Reset | Event::TripleFault => self.reboot()?,
                Event::Fault(fault) => return Ok(End::Fault(fault)),
                Event::DeviceLost(lost) => return Ok(End::DeviceLost(lost)),
                Event::Quit => return Ok(End::Quit),
                Event::Signal(libc::SIGPWR) => self.machine.press_power_button(),
                Event::Signal(signal) => return Ok(End::Signal(signal)),
                Event::Ejected => self.machine.take_ejected(),
                Event::Arrived(arrival) => self.arrived(*arrival),
                Event::Gone(slot) => self.gone(slot),
                Event::Asked(Request::Destroy(reply)) => {
                    answer(reply, Ok(()));
                    return Ok(End::Destroyed);
                }
                Event::Asked(request) => self.asked(request)?,
            }
        }
    }

    /// The next event; `None` when somebody has waited long enough for something else.
    fn next(&mut self) -> Option<Event> {
        let event = match self.give_up() {
            // Not closed while `events` is there.
            None => self.inbox.recv().ok(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.inbox.recv_timeout(left).ok()
            }
        }?;
        // As often as a guest likes; what comes of it is told there.
        if !matches!(event, Event::Ejected) {
            tracing::info!(event = event.word(), state = self.state.word(), "VM event");
        }
        Some(event)
    }

    /// Refuses whatever is asked from now on.
    fn refuse(&mut self) {
        self.successors.clear();
        drop(std::mem::replace(&mut self.inbox, channel().1));
    }

    fn asked(&mut self, request: Request) -> Result<(), VmError> {
        match request {
            Request::Info(reply) => {
                let info = self.machine.info(self.config, self.state);
                answer(reply, Ok(info));
            }
            Request::Pause(reply) => {
                let done = self.pause();
                answer(reply, done);
            }
            Request::Resume(reply) => {
                let done = self.resume();
                answer(reply, done);
            }
            Request::PressPowerButton(reply) => {
                self.machine.press_power_button();
                answer(reply, Ok(()));
            }
            Request::Reboot(reply) => {
                // Answered first: its failure ends the VM.
                answer(reply, Ok(()));
                self.reboot()?;
            }
            Request::Add(device, reply) => self.add(*device, reply),
            Request::Remove(id, reply) => {
                let done = self.remove(&id);
                answer(reply, done);
            }
            // Ends the VM, which is not ours to do here.
            Request::Destroy(_) => {}
        }
        Ok(())
    }

    /// Stops vCPUs, then rings.
    fn pause(&mut self) -> Result<(), Refusal> {
        if self.state != State::Running {
            return Err(Refusal::NotRunning(self.state.word()));
        }
        if let Err(error) = self.machine.pause() {
            self.machine.resume();
            return Err(Refusal::Failed(Box::new(error.into())));
        }
        let late = self.machine.devices().pause();
        if late.is_empty() {
            self.state = State::Paused;
            return Ok(());
        }
        // Undone in the order in which it was asked, by those who have yet to do it too.
        self.machine.devices().resume();
        self.machine.resume_late();
        Err(Refusal::Late(late.join(", ")))
    }

    /// Lets rings, then vCPUs go on.
    fn resume(&mut self) -> Result<(), Refusal> {
        if self.state != State::Paused {
            return Err(Refusal::NotPaused(self.state.word()));
        }
        self.machine.devices().resume();
        self.machine.resume_late();
        self.state = State::Running;
        Ok(())
    }

    /// The machine resets: same process, same daemons, the kernel loaded anew.
    /// One that is suspended stays so.
    fn reboot(&mut self) -> Result<(), VmError> {
        let suspended = self.state == State::Paused;
        self.machine.pause()?;
        self.state = State::Paused;
        self.machine.reset()?;
        // Whoever used them is no more.
        for slot in self.machine.devices().leaving() {
            self.machine.devices().take_out(slot);
        }
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
        if !suspended {
            self.machine.resume();
            self.state = State::Running;
        }
        Ok(())
    }
}
