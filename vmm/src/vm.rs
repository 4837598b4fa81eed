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
//! | `empty.rs` | a VMM that begins without a VM |
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
//! | `told.rs` | how a VM is described, and what has come of it |

mod devices;
mod empty;
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
mod told;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use empty::serve;
pub use end::End;
pub use error::VmError;
pub use info::{
    ConsoleInfo, DaemonInfo, DeviceInfo, Info, KvmInfo, MapInfo, PluginInfo, QueueInfo,
    RegistersInfo,
};
pub use request::{Control, Plugged, Refusal};
pub use told::{Counters, Told};

use crate::api::{Place, SOCKET, Server};
use crate::config::{Description, LogConfig, VmConfig};
use crate::logs::{self, Logs};
use crate::monitor;
use crate::plugin;
use events::{Event, Events};
use fault_loop::FaultLoop;
use machine::Machine;
use plug::{Successor, answer};
use request::{Reply, Request};
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
    let life = Life {
        door: &Door::Own,
        booted: None,
    };
    let over = Process::begin()?.one(config, life)?;
    Ok(over.end.unwrap_or(End::Destroyed))
}

/// What a process has for its VMs, one after the other.
struct Process {
    inbox: Receiver<Event>,
    events: Events,
    signals: Signals,
    terminal: Terminal,
}

/// Where a VM answers.
enum Door {
    /// At a socket in its folder, for as long as it lives; then its process ends.
    Own,
    /// At one of its VMM's, which goes on: a link in its folder leads there.
    Elsewhere(Option<PathBuf>),
}

/// What a VM's life is to somebody else.
struct Life<'a> {
    door: &'a Door,
    /// Who waits for the guest to run, and hears why it does not.
    booted: Option<Reply<()>>,
}

/// A VM is over.
struct Over {
    /// By itself, in this way; `None` where somebody asked for it, or it has never run.
    end: Option<End>,
    /// What they asked for, which is to be answered.
    asked: Option<Request>,
    /// What it was in the end.
    description: Description,
}

impl Process {
    fn begin() -> Result<Self, VmError> {
        limits::raise_open_files();
        signals::survive_large_files();
        let (events, inbox) = events::pair();
        Ok(Self {
            signals: Signals::catch(&events)?,
            terminal: Terminal::remember(),
            inbox,
            events,
        })
    }

    fn control(&self) -> Control {
        Control::new(self.events.clone())
    }

    fn next(&self) -> Event {
        // Not closed while `events` is there.
        self.inbox.recv().unwrap_or(Event::Quit)
    }

    /// One VM, from its assembly to its end. Where somebody waits for its boot, a VM that cannot is
    /// their business and no error.
    fn one(&mut self, config: &VmConfig, life: Life) -> Result<Over, VmError> {
        let Life { door, mut booted } = life;
        let over = self.lived(config, door, &mut booted);
        match (over, booted) {
            (Err(error), Some(reply)) => {
                answer(reply, Err(Refusal::Failed(Box::new(error))));
                Ok(Over {
                    end: None,
                    asked: None,
                    description: (*config.description).clone(),
                })
            }
            (over, _) => over,
        }
    }

    fn lived(
        &mut self,
        config: &VmConfig,
        door: &Door,
        booted: &mut Option<Reply<()>>,
    ) -> Result<Over, VmError> {
        self.events.calm();
        if booted.is_some() {
            monitor::event("vm", "booting", &[]);
        }
        let folder = RuntimeDir::make(config)?;
        let logs = open_logs(config)?;
        let plugins = plugin::settle(config)?;
        let config = &VmConfig {
            devices: plugins.devices,
            plugins: plugins.plugins,
            ..config.clone()
        };
        let api = folder
            .path()
            .and_then(|folder| door.open(folder, &self.events));
        let signals = &self.signals;
        let cancelled = || signals.came();
        let machine = Machine::assemble(
            config,
            &plugins.registers,
            &self.events,
            &self.terminal,
            &logs,
            &cancelled,
        );
        let machine = match machine {
            Ok(machine) => machine,
            Err(error) => {
                let Some(signal) = self.deadly_signal() else {
                    return Err(error);
                };
                return Ok(Over {
                    end: Some(End::Signal(signal)),
                    asked: None,
                    description: (*config.description).clone(),
                });
            }
        };
        let mut vm = Vm {
            config,
            description: (*config.description).clone(),
            machine,
            state: State::Created,
            inbox: &self.inbox,
            events: self.events.clone(),
            successors: Vec::new(),
        };
        let end = vm.live(booted);
        vm.state = State::Stopped;
        vm.successors.clear();
        let Vm {
            machine,
            description,
            ..
        } = vm;
        if matches!(door, Door::Own) {
            // Nobody asks a VM that is over; and its daemons, once they end, find no socket of its
            // left.
            self.inbox = channel().1;
        }
        let (end, asked) = match end {
            Ok(Last::Ended(end)) => (Ok(Some(end)), None),
            Ok(Last::Asked(request)) => (Ok(None), Some(request)),
            Err(error) => (Err(error), None),
        };
        let asked = match door {
            Door::Own => {
                if let Some(
                    Request::Shutdown(reply) | Request::Delete(reply) | Request::End(reply),
                ) = asked
                {
                    answer(reply, Ok(()));
                }
                None
            }
            Door::Elsewhere(_) => asked,
        };
        drop(api);
        machine.take_apart();
        self.forget();
        monitor::event("vm", "shutdown", &[]);
        Ok(Over {
            end: end?,
            asked,
            description,
        })
    }

    /// A signal that has ended the VM before it began.
    fn deadly_signal(&self) -> Option<i32> {
        self.inbox.try_iter().find_map(|event| match event {
            Event::Signal(signal) if signal != libc::SIGPWR => Some(signal),
            _ => None,
        })
    }

    /// Drops what the VM that has ended has left in the inbox; others' requests stay.
    fn forget(&self) {
        let left: Vec<_> = self.inbox.try_iter().collect();
        let kept = left
            .into_iter()
            .filter(|event| matches!(event, Event::Asked(_) | Event::Signal(_)));
        for event in kept {
            self.events.post(event);
        }
    }
}

impl Door {
    /// Opens the VM to requests in its folder. One that cannot be asked there runs all the same.
    fn open(&self, folder: &Path, events: &Events) -> Option<Opened> {
        let path = folder.join(SOCKET);
        let opened = match self {
            Self::Own => {
                let place = Place::Path(path.clone());
                Server::listen(place, Control::new(events.clone())).map(Opened::Server)
            }
            Self::Elsewhere(None) => return None,
            Self::Elsewhere(Some(socket)) => {
                symlink(socket, &path).map(|()| Opened::Link(path.clone()))
            }
        };
        match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                tracing::warn!("The VM cannot be managed: {}: {error}", path.display());
                None
            }
        }
    }
}

/// What answers in a VM's folder. Dropped, it is gone from there.
enum Opened {
    #[allow(dead_code)] // held
    Server(Server),
    Link(PathBuf),
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Self::Link(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
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
    /// As described, with what has been added and without what has been removed since.
    description: Description,
    machine: Machine,
    state: State,
    inbox: &'a Receiver<Event>,
    events: Events,
    /// Devices that wait for another of their name to be gone.
    successors: Vec<Successor>,
}

/// How a VM's life ends.
enum Last {
    Ended(End),
    /// Somebody asks for it: to be answered.
    Asked(Request),
}

impl Vm<'_> {
    /// From the first instruction to the end. `booted` is answered at the first instruction.
    fn live(&mut self, booted: &mut Option<Reply<()>>) -> Result<Last, VmError> {
        self.machine.boot()?;
        self.machine.resume();
        self.state = State::Running;
        monitor::event("vm", "booted", &[]);
        if let Some(reply) = booted.take() {
            answer(reply, Ok(()));
        }
        let mut faults = FaultLoop::new(Instant::now());
        loop {
            let Some(event) = self.next() else {
                continue;
            };
            match event {
                Event::PowerOff => return Ok(Last::Ended(End::PowerOff)),
                Event::Reset if self.config.no_reboot => return Ok(Last::Ended(End::Reset)),
                Event::TripleFault if self.config.no_reboot => {
                    return Ok(Last::Ended(End::TripleFault));
                }
                Event::TripleFault if faults.is_closed_by_fault_at(Instant::now()) => {
                    return Ok(Last::Ended(End::FaultLoop));
                }
                Event::Reset | Event::TripleFault => self.reboot()?,
                Event::Fault(fault) => return Ok(Last::Ended(End::Fault(fault))),
                Event::DeviceLost(lost) => return Ok(Last::Ended(End::DeviceLost(lost))),
                Event::Quit => return Ok(Last::Ended(End::Quit)),
                Event::Signal(libc::SIGPWR) => self.machine.press_power_button(),
                Event::Signal(signal) => return Ok(Last::Ended(End::Signal(signal))),
                Event::Ejected => self.machine.take_ejected(),
                Event::Arrived(arrival) => self.arrived(*arrival),
                Event::Gone(slot) => self.gone(slot),
                Event::Asked(request) if request.ends_the_vm() => {
                    return Ok(Last::Asked(request));
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

    fn asked(&mut self, request: Request) -> Result<(), VmError> {
        match request {
            Request::Info(reply) => {
                let info = self.machine.info(self.config, self.state);
                answer(reply, Ok(info));
            }
            Request::Tell(reply) => {
                let told = self.tell();
                answer(reply, Ok(told));
            }
            Request::Counters(reply) => answer(reply, Ok(self.counters())),
            Request::Create(_, reply) => answer(reply, Err(Refusal::Created)),
            Request::Boot(reply) => answer(reply, Err(Refusal::Booted)),
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
            // They end the VM, which is not ours to do here.
            Request::Shutdown(_) | Request::Delete(_) | Request::End(_) => {}
        }
        Ok(())
    }

    /// Stops vCPUs, then rings.
    fn pause(&mut self) -> Result<(), Refusal> {
        if self.state != State::Running {
            return Err(Refusal::NotRunning(self.state.word()));
        }
        monitor::event("vm", "pausing", &[]);
        if let Err(error) = self.machine.pause() {
            self.machine.resume();
            return Err(Refusal::Failed(Box::new(error.into())));
        }
        let late = self.machine.devices().pause();
        if late.is_empty() {
            self.state = State::Paused;
            monitor::event("vm", "paused", &[]);
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
        monitor::event("vm", "resuming", &[]);
        self.machine.devices().resume();
        self.machine.resume_late();
        self.state = State::Running;
        monitor::event("vm", "resumed", &[]);
        Ok(())
    }

    /// The machine resets: same process, same daemons, the kernel loaded anew.
    /// One that is suspended stays so.
    fn reboot(&mut self) -> Result<(), VmError> {
        monitor::event("vm", "rebooting", &[]);
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
        monitor::event("vm", "rebooted", &[]);
        Ok(())
    }
}
