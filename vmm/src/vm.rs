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
//! | `process.rs` | what a process has for its VMs, and the life of one |
//! | `door.rs` | where a VM is asked |
//! | `empty.rs` | a VMM that begins without a VM |
//! | `fault_loop.rs` | a guest that triple-faults for ever |
//! | `machine.rs` | the parts, put together, reset and taken apart |
//! | `devices.rs` | virtio devices: frontends, and their PCI functions |
//! | `plug.rs` | devices that come and go while the VM runs |
//! | `request.rs` | what may be asked of a VM from outside |
//! | `info.rs` | what a VM tells of itself |
//! | `runtime_dir.rs` | the VM's own folder |
//! | `serial.rs` | ttyS0, and the console behind it |
//! | `signals.rs` | signals, as events |
//! | `terminal.rs` | the terminal, as it was |
//! | `told.rs` | how a VM is described, and what has come of it |

mod devices;
mod door;
mod empty;
mod end;
mod error;
mod events;
mod fault_loop;
mod info;
mod machine;
mod plug;
mod process;
mod request;
mod runtime_dir;
mod serial;
mod signals;
mod terminal;
mod told;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use empty::serve;
pub use end::End;
pub use error::VmError;
pub use info::{
    ConsoleInfo, DaemonInfo, DeviceInfo, Info, KvmInfo, MapInfo, PluginInfo, QueueCounts,
    QueueInfo, RegistersInfo,
};
pub use request::{Control, Plugged, Refusal};
pub use told::{Counters, Told};

use crate::config::{Description, VmConfig};
use crate::monitor;
use door::Door;
use events::{Event, Events, Inbox};
use fault_loop::FaultLoop;
use machine::Machine;
use plug::{Successor, answer};
use process::{Life, Process};
use request::{Reply, Request};

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
/// returns, within 10 seconds of the end even if a daemon hangs; its [logs](crate::logs) stay.
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
    inbox: &'a Inbox,
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
        let until = self.give_up();
        let event = self.inbox.next(until)?;
        // As often as a guest likes, or whoever watches; what comes of it is told there.
        if !matches!(event, Event::Ejected | Event::Asked(Request::Info(_))) {
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
            monitor::event("vm", "resumed", &[]);
            return Err(Refusal::Failed(Box::new(error.into())));
        }
        let late = self.machine.devices().pause();
        if late.is_empty() {
            self.state = State::Paused;
            monitor::event("vm", "paused", &[]);
            return Ok(());
        }
        self.machine.devices().undo_pause();
        self.machine.resume_late();
        monitor::event("vm", "resumed", &[]);
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
        let goes_on = |event: &Event| !event.is_answered_by_reset();
        self.inbox.keep(&self.events, goes_on);
        self.machine.boot()?;
        if !suspended {
            self.machine.resume();
            self.state = State::Running;
        }
        monitor::event("vm", "rebooted", &[]);
        Ok(())
    }
}
