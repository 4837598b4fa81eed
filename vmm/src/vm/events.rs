//! What happens to a VM, on its way to the VM's owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::plug::Arrival;
use super::request::Request;
use crate::chipset::{ChipsetEvent, EventSink};
use crate::frontend::Lost;
use crate::kvm::{Fault, OnStop, Stop};

/// Something that happened to the VM.
pub(super) enum Event {
    /// The guest switched the machine off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// A vCPU can only be reset.
    TripleFault,
    /// A vCPU cannot go on.
    Fault(Box<Fault>),
    /// A device lost its backend and `on-exit=stop`.
    DeviceLost(Lost),
    /// A person asked for the end, by Ctrl-A x.
    Quit,
    /// A signal came.
    Signal(i32),
    /// The guest has let go of devices: see the chipset.
    Ejected,
    /// A device that is to be plugged in has come up, or has not.
    Arrived(Box<Arrival>),
    /// The device that was taken out of this slot is gone, with its threads and its daemon.
    Gone(u8),
    /// Somebody asks for something.
    Asked(Request),
}

impl Event {
    /// Somebody outside has decided that the VM is over.
    pub(super) fn ends_the_vm(&self) -> bool {
        match self {
            Self::Quit => true,
            Self::Asked(request) => request.ends_the_vm(),
            Self::Signal(signal) => *signal != libc::SIGPWR,
            _ => false,
        }
    }

    /// Whoever asked for it has left. The end of the VM is carried out all the same: that it is wanted,
    /// others have been told already.
    fn is_void(&self) -> bool {
        match self {
            Self::Asked(request) => !request.ends_the_vm() && request.is_abandoned(),
            _ => false,
        }
    }

    /// What to call it in a log.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::PowerOff => "power-off",
            Self::Reset => "reset",
            Self::TripleFault => "triple fault",
            Self::Fault(_) => "fault",
            Self::DeviceLost(_) => "device lost",
            Self::Quit => "quit",
            Self::Signal(_) => "signal",
            Self::Ejected => "device ejected",
            Self::Arrived(_) => "device arrived",
            Self::Gone(_) => "device gone",
            Self::Asked(_) => "request",
        }
    }

    /// The guest's wish for what a reset gives it anyway.
    pub(super) fn is_answered_by_reset(&self) -> bool {
        matches!(
            self,
            Self::PowerOff | Self::Reset | Self::TripleFault | Self::Ejected
        )
    }
}

/// Posts events. Clones post to the same owner; posting never blocks.
#[derive(Debug, Clone)]
pub(super) struct Events {
    sender: Sender<Event>,
    /// Somebody wants the VM to end.
    urgent: Arc<AtomicBool>,
}

/// Where the owner finds them, in the order in which they were posted. Requests of those who have left
/// are dropped here.
pub(super) struct Inbox(Receiver<Event>);

pub(super) fn pair() -> (Events, Inbox) {
    let (sender, inbox) = channel();
    let urgent = Arc::default();
    (Events { sender, urgent }, Inbox(inbox))
}

impl Inbox {
    /// Waits for the next one, `until` at the latest; `None` when that is over, or nobody is left to
    /// post any.
    pub(super) fn next(&self, until: Option<Instant>) -> Option<Event> {
        loop {
            let event = match until {
                None => self.0.recv().ok(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    self.0.recv_timeout(left).ok()
                }
            }?;
            if !event.is_void() {
                return Some(event);
            }
        }
    }

    /// Takes all that are there.
    pub(super) fn there(&self) -> Vec<Event> {
        self.0.try_iter().collect()
    }

    /// Drops those that are there, except for the `wanted`: these are posted again.
    pub(super) fn keep(&self, events: &Events, wanted: impl FnMut(&Event) -> bool) {
        for event in self.there().into_iter().filter(wanted) {
            events.post(event);
        }
    }
}

impl Events {
    /// Tells the owner. Nobody listens once the VM is over.
    pub(super) fn post(&self, event: Event) {
        if event.ends_the_vm() {
            self.urgent.store(true, Ordering::Relaxed);
        }
        let _ = self.sender.send(event);
    }

    /// A VM begins: what the one before has left is over.
    pub(super) fn calm(&self) {
        self.urgent.store(false, Ordering::Relaxed);
    }

    /// Whether the owner has better things to do than to wait for devices.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// For the chipset.
    pub(super) fn chipset_sink(&self) -> EventSink {
        let events = self.clone();
        Arc::new(move |event| {
            events.post(match event {
                ChipsetEvent::PowerOff => Event::PowerOff,
                ChipsetEvent::Reset => Event::Reset,
                ChipsetEvent::Ejected => Event::Ejected,
            });
        })
    }

    /// For the vCPUs.
    pub(super) fn vcpu_sink(&self) -> OnStop {
        let events = self.clone();
        Arc::new(move |_, stop| {
            events.post(match stop {
                Stop::PowerOff => Event::PowerOff,
                Stop::Reset => Event::Reset,
                Stop::TripleFault => Event::TripleFault,
                Stop::Fault(fault) => Event::Fault(fault),
            });
        })
    }
}
