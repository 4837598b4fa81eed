//! What a process has for its VMs, and the life of one, from its assembly to its end.

use outboard_device::limits;

use super::door::Door;
use super::end::End;
use super::error::VmError;
use super::events::{self, Event, Events, Inbox};
use super::machine::Machine;
use super::plug::answer;
use super::request::{Control, Refusal, Reply, Request};
use super::runtime_dir::RuntimeDir;
use super::signals::{self, Signals};
use super::terminal::Terminal;
use super::{Last, State, Vm};
use crate::config::{Description, LogConfig, VmConfig};
use crate::logs::{self, Logs};
use crate::{monitor, plugin};

/// What a process has for its VMs, one after the other.
pub(super) struct Process {
    inbox: Inbox,
    events: Events,
    signals: Signals,
    terminal: Terminal,
}

/// What a VM's life is to somebody else.
pub(super) struct Life<'a> {
    pub(super) door: &'a Door,
    /// Who waits for the guest to run, and hears why it does not.
    pub(super) booted: Option<Reply<()>>,
}

/// A VM is over.
pub(super) struct Over {
    /// By itself, in this way; `None` where somebody asked for it, or it has never run.
    pub(super) end: Option<End>,
    /// What they asked for, which is to be answered.
    pub(super) asked: Option<Request>,
    /// What it was in the end.
    pub(super) description: Description,
}

impl Process {
    pub(super) fn begin() -> Result<Self, VmError> {
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

    pub(super) fn control(&self) -> Control {
        Control::new(self.events.clone())
    }

    pub(super) fn next(&self) -> Event {
        // Not closed while `events` is there.
        self.inbox.next(None).unwrap_or(Event::Quit)
    }

    /// One VM, from its assembly to its end. Where somebody waits for its boot, a VM that cannot is
    /// their business and no error.
    pub(super) fn one(&mut self, config: &VmConfig, life: Life) -> Result<Over, VmError> {
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
        let signals = &self.signals;
        let cancelled = || signals.came();
        let plugins = match plugin::settle(config, &cancelled) {
            Ok(plugins) => plugins,
            Err(error) => return self.never_begun(config, error.into()),
        };
        let config = &VmConfig {
            devices: plugins.devices,
            plugins: plugins.plugins,
            ..config.clone()
        };
        let api = folder
            .path()
            .and_then(|folder| door.open(folder, &self.events));
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
            Err(error) => return self.never_begun(config, error),
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
            self.inbox = events::pair().1;
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

    /// A VM that could not be put together: for this reason, unless a signal had it given up.
    fn never_begun(&self, config: &VmConfig, error: VmError) -> Result<Over, VmError> {
        let signal = deadly_signal(&self.inbox, &self.events).ok_or(error)?;
        Ok(Over {
            end: Some(End::Signal(signal)),
            asked: None,
            description: (*config.description).clone(),
        })
    }

    /// Drops what the VM that has ended has left in the inbox; others' requests stay.
    fn forget(&self) {
        self.inbox.keep(&self.events, |event| {
            matches!(event, Event::Asked(_) | Event::Signal(_))
        });
    }
}

/// A signal that has ended the VM before it began. Others' requests stay in the inbox.
fn deadly_signal(inbox: &Inbox, events: &Events) -> Option<i32> {
    let mut deadly = None;
    inbox.keep(events, |event| match event {
        Event::Signal(signal) if *signal != libc::SIGPWR && deadly.is_none() => {
            deadly = Some(*signal);
            false
        }
        Event::Signal(_) | Event::Asked(_) => true,
        _ => false,
    });
    deadly
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_vm_that_does_not_begin_leaves_the_requests_that_came_meanwhile() {
        let (events, inbox) = events::pair();
        let control = Control::new(events.clone());
        let mut end = pin!(control.end());
        let mut context = Context::from_waker(Waker::noop());
        assert!(end.as_mut().poll(&mut context).is_pending());
        for event in [libc::SIGPWR, libc::SIGTERM, libc::SIGINT].map(Event::Signal) {
            events.post(event);
        }
        events.post(Event::PowerOff);
        assert_eq!(deadly_signal(&inbox, &events), Some(libc::SIGTERM));
        let next = || inbox.next(Some(Instant::now()));
        assert!(matches!(next(), Some(Event::Asked(Request::End(_)))));
        assert!(matches!(next(), Some(Event::Signal(libc::SIGPWR))));
        assert_eq!(deadly_signal(&inbox, &events), Some(libc::SIGINT));
        assert_eq!(deadly_signal(&inbox, &events), None);
    }
}
