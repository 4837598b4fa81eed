//! What a process has for its VMs, and the life of one, from its assembly to its end.

use std::time::{Duration, Instant};

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

/// How long an event may be on its way.
const COMING: Duration = Duration::from_secs(1);

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
        // By Ctrl-A x, by a signal, or because somebody asks for it.
        let (signals, events) = (&self.signals, &self.events);
        let cancelled = || signals.came() || events.is_urgent();
        let plugins = match plugin::settle(config, &cancelled) {
            Ok(plugins) => plugins,
            Err(error) => return self.never_begun(config, door, error.into()),
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
            Err(error) => return self.never_begun(config, door, error),
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
        let over = end.map(|last| over(last, door, description));
        drop(api);
        machine.take_apart();
        self.forget();
        monitor::event("vm", "shutdown", &[]);
        over
    }

    /// A VM that could not be put together: for this reason, unless somebody had it given up.
    fn never_begun(&self, config: &VmConfig, door: &Door, error: VmError) -> Result<Over, VmError> {
        let last = early_end(&self.inbox, &self.events).ok_or(error)?;
        Ok(over(last, door, (*config.description).clone()))
    }

    /// Drops what the VM that has ended has left in the inbox; others' requests stay.
    fn forget(&self) {
        self.inbox.keep(&self.events, |event| {
            matches!(event, Event::Asked(_) | Event::Signal(_))
        });
    }
}

/// A VM is over in this way. Whoever asked a VM of its own process for that is answered.
fn over(last: Last, door: &Door, description: Description) -> Over {
    let (end, asked) = match last {
        Last::Ended(end) => (Some(end), None),
        Last::Asked(request) => (None, Some(request)),
    };
    let asked = match door {
        Door::Own => {
            if let Some(Request::Shutdown(reply) | Request::Delete(reply) | Request::End(reply)) =
                asked
            {
                answer(reply, Ok(()));
            }
            None
        }
        Door::Elsewhere(_) => asked,
    };
    Over {
        end,
        asked,
        description,
    }
}

/// What has ended the VM before it began. Other signals and requests stay in the inbox.
fn early_end(inbox: &Inbox, events: &Events) -> Option<Last> {
    let mut last = None;
    let mut there = inbox.there();
    // It is told that something comes before that has come, and others may be on their way too.
    let end = Instant::now().checked_add(COMING);
    while events.is_urgent() && !there.iter().any(Event::ends_the_vm) {
        let Some(event) = inbox.next(end) else { break };
        there.push(event);
    }
    for event in there {
        match event {
            event if last.is_some() || !event.ends_the_vm() => {
                if matches!(event, Event::Signal(_) | Event::Asked(_)) {
                    events.post(event);
                }
            }
            Event::Quit => last = Some(Last::Ended(End::Quit)),
            Event::Signal(signal) => last = Some(Last::Ended(End::Signal(signal))),
            Event::Asked(request) => last = Some(Last::Asked(request)),
            _ => {}
        }
    }
    last
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

    use super::*;

    #[test]
    fn a_vm_that_does_not_begin_leaves_the_requests_that_came_meanwhile() {
        let (events, inbox) = events::pair();
        let control = Control::new(events.clone());
        let mut end = pin!(control.end());
        let mut context = Context::from_waker(Waker::noop());
        assert!(end.as_mut().poll(&mut context).is_pending());
        for signal in [libc::SIGPWR, libc::SIGTERM] {
            events.post(Event::Signal(signal));
        }
        for event in [Event::Quit, Event::PowerOff] {
            events.post(event);
        }
        let early = || early_end(&inbox, &events);
        assert!(matches!(early(), Some(Last::Asked(Request::End(_)))));
        let next = || inbox.next(Some(Instant::now()));
        assert!(matches!(next(), Some(Event::Signal(libc::SIGPWR))));
        events.post(Event::Quit);
        let term = End::Signal(libc::SIGTERM);
        assert!(matches!(early(), Some(Last::Ended(end)) if end == term));
        events.post(Event::Quit);
        assert!(matches!(early(), Some(Last::Ended(End::Quit))));
        assert!(early().is_none());
    }

    #[test]
    fn what_ends_the_vm_is_waited_for_whatever_comes_before_it() {
        let (events, inbox) = events::pair();
        // It has been told that something comes.
        events.post(Event::Quit);
        inbox.there();
        for _ in 0..3 {
            events.post(Event::Ejected);
        }
        let coming = std::thread::spawn({
            let events = events.clone();
            move || {
                for event in [Event::Gone(1), Event::Signal(libc::SIGTERM)] {
                    std::thread::sleep(Duration::from_millis(20));
                    events.post(event);
                }
            }
        });
        let term = End::Signal(libc::SIGTERM);
        let early = early_end(&inbox, &events);
        assert!(matches!(early, Some(Last::Ended(end)) if end == term));
        coming.join().unwrap();
    }
}
