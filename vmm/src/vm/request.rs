//! What may be asked of a VM from outside, and the handle to ask with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::events::{Event, Events};
use super::info::Info;
use super::plug::answer;
use super::told::{self, Counters, Told};
use crate::config::{Description, NewDevice};
use crate::frontend::ConnectError;

/// As many requests may be without their answer, those of clients that have left among them; others
/// wait to be asked.
const ASKED_MAX: usize = 128;

/// How long the daemon of a pseudo-terminal is waited for to say where it is: it has, as a rule.
const PLACE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// Where the answer goes. Nobody may be waiting for it any more.
#[derive(Debug)]
pub(super) struct Reply<T> {
    to: oneshot::Sender<Result<T, Refusal>>,
    /// Makes room for another request when this one is done with, whoever has left meanwhile.
    _room: OwnedSemaphorePermit,
}

impl<T> Reply<T> {
    /// Answers whoever still waits for it.
    pub(super) fn send(self, result: Result<T, Refusal>) {
        let _ = self.to.send(result);
    }

    fn is_abandoned(&self) -> bool {
        self.to.is_closed()
    }
}

/// One thing asked of a VM.
pub(super) enum Request {
    Info(Reply<Info>),
    Tell(Reply<Told>),
    Create(Box<Description>, Reply<()>),
    Boot(Reply<()>),
    Pause(Reply<()>),
    Resume(Reply<()>),
    PressPowerButton(Reply<()>),
    Reboot(Reply<()>),
    /// Ends the VM; it can be booted again where the VMM goes on.
    Shutdown(Reply<()>),
    /// The same, and forgets it.
    Delete(Reply<()>),
    /// The same, and ends the VMM.
    End(Reply<()>),
    Add(Box<NewDevice>, Reply<Option<Plugged>>),
    Remove(String, Reply<()>),
}

impl Request {
    /// Somebody is done with the VM that runs.
    pub(super) fn ends_the_vm(&self) -> bool {
        matches!(self, Self::Shutdown(_) | Self::Delete(_) | Self::End(_))
    }

    /// Nobody waits for its answer.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Info(reply) => reply.is_abandoned(),
            Self::Tell(reply) => reply.is_abandoned(),
            Self::Add(_, reply) => reply.is_abandoned(),
            Self::Create(_, reply)
            | Self::Boot(reply)
            | Self::Pause(reply)
            | Self::Resume(reply)
            | Self::PressPowerButton(reply)
            | Self::Reboot(reply)
            | Self::Shutdown(reply)
            | Self::Delete(reply)
            | Self::End(reply)
            | Self::Remove(_, reply) => reply.is_abandoned(),
        }
    }

    /// Answers with a refusal, whatever it was.
    pub(super) fn refuse(self, why: Refusal) {
        match self {
            Self::Info(reply) => answer(reply, Err(why)),
            Self::Tell(reply) => answer(reply, Err(why)),
            Self::Add(_, reply) => answer(reply, Err(why)),
            Self::Create(_, reply)
            | Self::Boot(reply)
            | Self::Pause(reply)
            | Self::Resume(reply)
            | Self::PressPowerButton(reply)
            | Self::Reboot(reply)
            | Self::Shutdown(reply)
            | Self::Delete(reply)
            | Self::End(reply)
            | Self::Remove(_, reply) => answer(reply, Err(why)),
        }
    }
}

/// A device that was plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PciDeviceInfo)]
pub struct Plugged {
    /// Its name.
    pub id: String,
    /// Its PCI address, `0000:00:09.0`.
    pub bdf: String,
}

/// Why a VM does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody has described one.
    #[error("There is no VM; create one first")]
    NotCreated,
    /// It is only described.
    #[error("The VM is not booted; boot it first")]
    NotBooted,
    /// There is one already.
    #[error("There is a VM already; delete it first")]
    Created,
    /// It has been booted.
    #[error("The VM is booted already")]
    Booted,
    /// Another device has the name.
    #[error("The VM has a device called '{0}' already; choose another id")]
    Taken(String),
    /// It is paused already, or not yet running.
    #[error("The VM is {0}; only a running one can be suspended")]
    NotRunning(&'static str),
    /// It runs.
    #[error("The VM is {0}; only a paused one can be resumed")]
    NotPaused(&'static str),
    /// No device has this name.
    #[error("The VM has no device '{id}'; it has {known}")]
    NoDevice {
        /// The name asked for.
        id: String,
        /// Those there are.
        known: String,
    },
    /// The device's description makes no sense, or does not fit this VM.
    #[error("{0}")]
    Description(String),
    /// A device of this name is on its way in or out.
    #[error("Device '{id}' is still being {what}; try again when it is done")]
    Busy {
        /// The device.
        id: String,
        /// `plugged in` or `taken out`.
        what: &'static str,
    },
    /// The device's backend did not come up.
    #[error(transparent)]
    Connect(Box<ConnectError>),
    /// Devices did not stop in time, and everything goes on.
    #[error(
        "The VM runs on, for the requests of {0} did not end in time; try again when there is less to do"
    )]
    Late(String),
    /// The VM could not carry it out.
    #[error("The VM could not do it")]
    Failed(#[source] Box<super::VmError>),
    /// The VM is over.
    #[error("The VM has ended")]
    Over,
}

/// A handle to ask a VM with. Clones ask the same one; once it is over, every answer is
/// [`Refusal::Over`]. Answers come from the VM's owner, one after the other. Whoever drops the future
/// has left: what the owner has not begun by then, it does not do, unless it is the VM's end.
#[derive(Debug, Clone)]
pub struct Control {
    events: Events,
    room: Arc<Semaphore>,
}

impl Control {
    pub(super) fn new(events: Events) -> Self {
        let room = Arc::new(Semaphore::new(ASKED_MAX));
        Self { events, room }
    }

    /// Of a VM that is over.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self::new(super::events::pair().0)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        // Never closed.
        let room = self.room.clone().acquire_owned().await;
        let room = room.map_err(|_| Refusal::Over)?;
        let (to, answer) = oneshot::channel();
        let reply = Reply { to, _room: room };
        self.events.post(Event::Asked(request(reply)));
        answer.await.unwrap_or(Err(Refusal::Over))
    }

    /// What the VM is and has at this moment.
    pub async fn info(&self) -> Result<Info, Refusal> {
        self.ask(Request::Info).await
    }

    /// How the VM is described, and what has come of it. A pseudo-terminal whose place is not known
    /// yet is waited for, half a second at most.
    pub async fn tell(&self) -> Result<Told, Refusal> {
        let end = Instant::now() + PLACE;
        loop {
            let told = self.ask(Request::Tell).await?;
            if !told.waits_for_a_pty() || Instant::now() >= end {
                return Ok(told);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What KVM counts of the VM's vCPUs, and its devices of their queues.
    pub async fn counters(&self) -> Result<Counters, Refusal> {
        Ok(told::counters(self.info().await?))
    }

    /// Describes the VM that is to be booted.
    pub async fn create(&self, vm: Description) -> Result<(), Refusal> {
        self.ask(|reply| Request::Create(Box::new(vm), reply)).await
    }

    /// Boots the VM that is described. Answers when its guest runs.
    pub async fn boot(&self) -> Result<(), Refusal> {
        self.ask(Request::Boot).await
    }

    /// Stops vCPUs and rings where they are.
    pub async fn pause(&self) -> Result<(), Refusal> {
        self.ask(Request::Pause).await
    }

    /// Lets them go on.
    pub async fn resume(&self) -> Result<(), Refusal> {
        self.ask(Request::Resume).await
    }

    /// Presses the power button, which the guest may heed or not.
    pub async fn press_power_button(&self) -> Result<(), Refusal> {
        self.ask(Request::PressPowerButton).await
    }

    /// Resets the machine, as its reset button would.
    pub async fn reboot(&self) -> Result<(), Refusal> {
        self.ask(Request::Reboot).await
    }

    /// Ends the VM at once, whatever its guest is doing. An empty VMM's can be booted again; any
    /// other's process ends.
    pub async fn shutdown(&self) -> Result<(), Refusal> {
        self.ask(Request::Shutdown).await
    }

    /// The same, and an empty VMM forgets it.
    pub async fn delete(&self) -> Result<(), Refusal> {
        self.ask(Request::Delete).await
    }

    /// The same, and the process ends.
    pub async fn end(&self) -> Result<(), Refusal> {
        self.ask(Request::End).await
    }

    /// Plugs a device in. Answers once its backend is there and the guest has been told; the guest
    /// takes its own time to find it. `None` where the VM is not booted: it will have the device
    /// then.
    pub async fn add(&self, device: NewDevice) -> Result<Option<Plugged>, Refusal> {
        self.ask(|reply| Request::Add(Box::new(device), reply))
            .await
    }

    /// Asks the guest to let go of a device, which is taken out when it has. The answer does not
    /// wait for that.
    pub async fn remove(&self, id: &str) -> Result<(), Refusal> {
        self.ask(|reply| Request::Remove(id.to_owned(), reply))
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::vm::events;

    /// Asks, and leaves before there is an answer.
    fn ask_and_leave<T>(asked: impl Future<Output = T>) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(asked).poll(&mut context).is_pending());
    }

    #[test]
    fn those_who_leave_do_not_fill_the_queue() {
        let (events, inbox) = events::pair();
        let control = Control::new(events.clone());
        for _ in 0..10_000 {
            ask_and_leave(control.info());
        }
        let mut queued = 0;
        inbox.keep(&events, |_| {
            queued += 1;
            false
        });
        assert_eq!(queued, ASKED_MAX);
        // Done with, they have made room.
        assert_eq!(control.room.available_permits(), ASKED_MAX);
    }

    #[test]
    fn what_nobody_waits_for_is_not_done_unless_it_is_the_end() {
        let (events, inbox) = events::pair();
        let control = Control::new(events.clone());
        ask_and_leave(control.pause());
        ask_and_leave(control.remove("disk0"));
        ask_and_leave(control.end());
        let mut waits = Box::pin(control.resume());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        let next = || inbox.next(Some(Instant::now()));
        assert!(matches!(next(), Some(Event::Asked(Request::End(_)))));
        assert!(matches!(next(), Some(Event::Asked(Request::Resume(_)))));
        assert!(next().is_none());
    }
}
