//! A worker that has the thread to itself, and comes by when it is called for.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::EpollTimeout;

use super::polled::{Waiter, heed, look};
use super::{Failure, Seat};
use crate::device::{DeviceError, Ready};
use crate::queue::Queue;

/// A worker that sleeps by itself: on the group's descriptor, and on what else it likes. For devices
/// with an event loop of their own.
pub trait ThreadWorker: Send {
    /// Serves until [`Group::attend`] says stop; completes or gives back what it holds, and returns.
    fn serve(&mut self, group: &mut Group<'_>) -> Result<(), DeviceError>;
}

/// A group of queues and the session's wishes, on the group's own thread.
pub struct Group<'a> {
    seat: &'a mut Seat,
    waiter: Waiter,
    armed: bool,
    stopping: bool,
}

/// What [`Group::attend`] found.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Queues that may have new buffers.
    pub ready: Ready,
    /// The queues are to stop; no more requests are popped.
    pub stop: bool,
}

impl Group<'_> {
    /// Every queue of the group, in order.
    pub fn queues(&mut self) -> &mut [Queue] {
        &mut self.seat.queues
    }

    /// Readable when [`attend`](Self::attend) is to be called. Not to be read.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.waiter.as_fd()
    }

    /// Whether `attend` has said stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Carries out what the session wants and says which queues have news. When none has, the driver
    /// has been asked for a kick, and the descriptor becomes readable with it.
    pub fn attend(&mut self) -> Attention {
        let mut ready = Ready::default();
        // What has rung until now is answered below.
        self.waiter.harvest(EpollTimeout::ZERO, &mut ready);
        ready = Ready::default();
        if std::mem::take(&mut self.armed) {
            self.seat.queues.iter_mut().for_each(Queue::disarm);
        }
        if !self.stopping && heed(self.seat, &mut self.waiter, &mut ready) {
            self.stopping = true;
            self.seat.queues.iter_mut().for_each(Queue::begin_drain);
        }
        if !self.stopping && ready.is_empty() {
            ready = look(&mut self.seat.queues);
            if ready.is_empty() {
                self.armed = true;
                for (slot, queue) in self.seat.queues.iter_mut().enumerate() {
                    if queue.arm() {
                        ready.set_queue(slot);
                    }
                }
            }
        }
        Attention {
            ready,
            stop: self.stopping,
        }
    }
}

/// Serves until the worker has ended. An error is the worker's.
pub(super) fn serve(worker: &mut dyn ThreadWorker, seat: &mut Seat) -> Result<(), Failure> {
    let waiter = Waiter::new(&seat.bell).map_err(|e| DeviceError::io("set up epoll", e))?;
    let mut group = Group {
        seat,
        waiter,
        armed: false,
        stopping: false,
    };
    worker.serve(&mut group)?;
    // A worker that ends before it is told to has no use for more requests.
    while !group.attend().stop {
        group
            .waiter
            .harvest(EpollTimeout::NONE, &mut Ready::default());
    }
    Ok(())
}
