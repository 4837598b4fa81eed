//! The threads that serve queue groups.
//!
//! A group that runs has one thread. It owns the group's queues and the device's worker; the
//! session speaks to it by [`Change`]s, which are applied between two calls of the worker and
//! acknowledged after that, so that when the session answers the frontend the old memory, ring
//! address or descriptor is out of use. A worker that fails or panics stops serving; its thread
//! stays to answer the session, and the device is marked broken until the next reset. Groups of several
//! devices may [share](shared) a thread.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub(crate) mod asynchronous;
mod breakage;
mod polled;
mod service;
mod shared;
mod spin;
mod threaded;
mod turn;

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::error;

use crate::counters::Counters;
use crate::device::{DeviceError, Worker};
use crate::memory::Memory;
use crate::queue::{Queue, RingAddresses, RingError, RingStart};
use crate::ratelimit::RateLimit;

pub(crate) use breakage::Breakage;
pub use shared::{Groups, Place, SharedThread, SharedWorker};
pub use threaded::{Attention, Group, ThreadWorker};

/// What the session asks of a running group. `slot` is a queue's position in the group.
pub(crate) enum Change {
    /// Guest memory is now described by this table.
    Memory(Arc<Memory>),
    /// A ring is set up, with its kick and call descriptors.
    Start {
        slot: usize,
        start: RingStart,
        enabled: bool,
        kick: File,
        call: Option<File>,
    },
    /// The parts of a ring have moved.
    Addresses {
        slot: usize,
        addresses: RingAddresses,
    },
    /// Chains may, or may no longer, be taken from a ring.
    Enable { slot: usize, enabled: bool },
    /// The driver is to be interrupted through another descriptor, or none.
    Call { slot: usize, call: Option<File> },
    /// The driver kicks through another descriptor.
    Kick { slot: usize, kick: File },
}

/// A change that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("cannot wait on the kick descriptor")]
    Kick(#[source] io::Error),
    #[error("the group's thread has ended")]
    Gone,
}

enum Command {
    Change(Change, SyncSender<Result<(), ChangeError>>),
    Stop,
}

/// Why a worker no longer serves.
pub(crate) enum Failure {
    Error(DeviceError),
    Panic(String),
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self::Error(error)
    }
}

impl Failure {
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panic(text.unwrap_or("no message").to_owned())
    }
}

/// What the thread owns besides the worker.
struct Seat {
    queues: Vec<Queue>,
    kicks: Vec<Option<File>>,
    commands: Receiver<Command>,
    pending: Pending,
    /// Signalled after each command.
    bell: OwnedFd,
    /// The session has said stop, and says nothing more.
    stopped: Cell<bool>,
}

/// Whether there may be commands: cheaper to ask between two batches than the channel itself, which
/// takes a full barrier to say no.
#[derive(Clone, Debug, Default)]
struct Pending(Arc<AtomicBool>);

impl Pending {
    /// After a command was sent.
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Before the commands are received: one sent later sets it again.
    #[inline]
    fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Acquire)
    }
}

/// A group's thread, seen from the session.
pub(crate) struct Running {
    end: Option<End>,
    commands: Sender<Command>,
    pending: Pending,
    bell: Arc<EventFd>,
}

/// Where what is left of a group comes from.
enum End {
    Thread(JoinHandle<Stopped>),
    Shared(Place, Receiver<Stopped>),
}

/// What is left of a group that has stopped.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// The worker, unless it panicked.
    pub(crate) worker: Option<Worker>,
    /// For each queue of the group, where to go on.
    pub(crate) bases: Vec<u32>,
}

impl Running {
    /// Starts the thread of a group whose queues, numbered from `first` on in the device, are not
    /// set up yet: [`Change::Start`] does that. What they do is counted, where there is a page for it.
    pub(crate) fn spawn(
        name: String,
        worker: Worker,
        queues: std::ops::Range<u16>,
        memory: &Arc<Memory>,
        breakage: Arc<Breakage>,
        counters: Option<&Counters>,
    ) -> io::Result<Self> {
        let row = |index| counters.and_then(|counters| counters.row(index));
        let queues: Vec<_> = queues
            .map(|index| Queue::new(index, Arc::clone(memory)).counted(row(index)))
            .collect();
        let bell = match &worker {
            Worker::Shared(place) => place.bell(),
            _ => Arc::new(EventFd::from_flags(
                EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
            )?),
        };
        let (commands, receiver) = channel();
        let pending = Pending::default();
        let seat = Seat {
            kicks: queues.iter().map(|_| None).collect(),
            queues,
            commands: receiver,
            pending: pending.clone(),
            bell: bell.as_fd().try_clone_to_owned()?,
            stopped: Cell::new(false),
        };
        let end = if let Worker::Shared(place) = worker {
            let left = place.join(seat, breakage)?;
            End::Shared(place, left)
        } else {
            let thread = thread::Builder::new().name(name);
            End::Thread(thread.spawn(move || serve(worker, seat, &breakage))?)
        };
        Ok(Self {
            end: Some(end),
            commands,
            pending,
            bell,
        })
    }

    /// Has the change made and waits until it is.
    pub(crate) fn change(&self, change: Change) -> Result<(), ChangeError> {
        let (ack, done) = sync_channel(1);
        self.send(Command::Change(change, ack))?;
        done.recv().unwrap_or(Err(ChangeError::Gone))
    }

    /// Stops taking chains, waits until nothing is in flight, and ends the thread.
    pub(crate) fn stop(mut self) -> Stopped {
        self.join()
    }

    fn send(&self, command: Command) -> Result<(), ChangeError> {
        self.commands.send(command).map_err(|_| ChangeError::Gone)?;
        self.pending.set();
        self.bell.write(1).map(drop).map_err(|_| ChangeError::Gone)
    }

    fn join(&mut self) -> Stopped {
        let _ = self.send(Command::Stop);
        let stopped = match self.end.take() {
            Some(End::Thread(thread)) => thread.join().ok(),
            Some(End::Shared(place, left)) => left.recv().ok().map(|stopped| Stopped {
                worker: Some(Worker::Shared(place)),
                ..stopped
            }),
            None => None,
        };
        // The thread catches what its worker does; should it end by a panic of its own, the
        // group is without worker and without bases, as after a panic of the worker.
        stopped.unwrap_or(Stopped {
            worker: None,
            bases: Vec::new(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.end.is_some() {
            self.join();
        }
    }
}

/// The thread.
fn serve(mut worker: Worker, mut seat: Seat, breakage: &Breakage) -> Stopped {
    let served = catch_unwind(AssertUnwindSafe(|| match &mut worker {
        Worker::Queues(worker) => polled::serve(&mut **worker, &mut seat),
        Worker::Async(device) => asynchronous::serve(&mut **device, &mut seat),
        Worker::Thread(worker) => threaded::serve(&mut **worker, &mut seat),
        // It has joined its thread.
        Worker::Shared(_) => Ok(()),
    }));
    let failure = match served {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(payload) => Some(Failure::panicked(&*payload)),
    };
    let mut worker = Some(worker);
    if let Some(failure) = failure {
        match failure {
            Failure::Error(error) => breakage.mark(&error),
            Failure::Panic(text) => {
                // Its state cannot be trusted, not even to be dropped quietly.
                let broken = worker.take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                breakage.mark(&DeviceError::other(format!("the worker panicked: {text}")));
            }
        }
        seat.serve_broken();
    }
    Stopped {
        worker,
        bases: seat.queues.iter_mut().map(Queue::stop).collect(),
    }
}

impl Seat {
    /// Answers the session, and nothing else, until it is told to stop, if it has not been.
    fn serve_broken(&mut self) {
        while !self.stopped.get()
            && let Ok(Command::Change(change, ack)) = self.commands.recv()
        {
            let result = apply(&mut self.queues, change).map(drop);
            let _ = ack.send(result.map_err(ChangeError::from));
        }
    }
}

/// Makes the change as far as it concerns the queues. A new kick descriptor is handed back with
/// its slot, for the caller to wait on.
fn apply(queues: &mut [Queue], change: Change) -> Result<Option<(usize, File)>, RingError> {
    match change {
        Change::Memory(memory) => {
            for queue in queues {
                if let Err(error) = queue.set_memory(Arc::clone(&memory)) {
                    // The frontend may send the ring's new addresses next.
                    static LIMIT: RateLimit = RateLimit::new();
                    if let Some(unseen) = LIMIT.pass() {
                        let queue = queue.index();
                        error!(queue, %error, "new memory lacks the ring: it stands still{unseen}");
                    }
                }
            }
        }
        Change::Start {
            slot,
            start,
            enabled,
            kick,
            call,
        } => {
            if let Some(queue) = queues.get_mut(slot) {
                queue.start(start)?;
                queue.set_call(call);
                queue.set_enabled(enabled);
            }
            return Ok(Some((slot, kick)));
        }
        Change::Addresses { slot, addresses } => {
            if let Some(queue) = queues.get_mut(slot) {
                queue.set_addresses(addresses)?;
            }
        }
        Change::Enable { slot, enabled } => {
            if let Some(queue) = queues.get_mut(slot) {
                queue.set_enabled(enabled);
            }
        }
        Change::Call { slot, call } => {
            if let Some(queue) = queues.get_mut(slot) {
                queue.set_call(call);
            }
        }
        Change::Kick { slot, kick } => return Ok(Some((slot, kick))),
    }
    Ok(None)
}
