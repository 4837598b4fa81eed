//! The loop of a [`QueueWorker`]: run, look, poll a little, arm, look once more, sleep.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::hint;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::turn::{Learned, Turn};
use super::{ChangeError, Command, Failure, Seat, apply};
use crate::device::{DeviceError, Progress, QueueWorker, Ready};
use crate::queue::Queue;

/// What an epoll event means: the bell, `EVENTS` + n for the worker's n-th descriptor, or the
/// slot of a queue whose kick it is.
const BELL: u64 = u64::MAX;
const EVENTS: u64 = 1 << 32;

/// As many as [`Ready`] has bits for.
const MOST_WATCHES: usize = 64;

/// A busy worker hears of its descriptors every so many calls: they cost a system call to ask.
const CALLS_PER_HARVEST: u32 = 16;

/// While polling, the clock is read every so many rounds: it takes longer than a look at a ring.
const ROUNDS_PER_TIME: u32 = 16;

/// While polling, descriptors are asked every so many rounds.
const ROUNDS_PER_HARVEST: u32 = 64;

/// While draining, look again after this many milliseconds whatever happens.
const DRAIN_WAIT_MS: u16 = 100;

/// Serves until the session says stop or the worker fails, and drains. An error is the worker's.
pub(super) fn serve(worker: &mut dyn QueueWorker, seat: &mut Seat) -> Result<(), Failure> {
    let mut waiter = Waiter::new(&seat.bell).map_err(|e| DeviceError::io("set up epoll", e))?;
    let watches = worker.event_fds();
    if watches.len() > MOST_WATCHES {
        let many = format!("a worker watches more than {MOST_WATCHES} descriptors");
        return Err(DeviceError::other(many).into());
    }
    for (n, watch) in watches.into_iter().enumerate() {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, watch.readable);
        flags.set(EpollFlags::EPOLLOUT, watch.writable);
        waiter
            .add(watch.fd, flags, EVENTS | n as u64)
            .map_err(|e| DeviceError::io("watch a descriptor of the worker", e))?;
    }
    let served = attend(worker, seat, &mut waiter);
    // A worker that failed may still have requests in the kernel's hands, and other queues.
    let drained = drain(worker, seat, &mut waiter);
    Ok(served.and(drained)?)
}

/// The loop.
fn attend(
    worker: &mut dyn QueueWorker,
    seat: &mut Seat,
    waiter: &mut Waiter,
) -> Result<(), DeviceError> {
    let mut learned = Learned::default();
    let mut ready = Ready::ALL;
    let mut calls = 0u32;
    while !heed(seat, waiter, &mut ready) {
        let progress = worker.run(&mut seat.queues, ready)?;
        ready = look(&mut seat.queues);
        calls = calls.wrapping_add(1);
        if progress == Progress::Worked || !ready.is_empty() {
            if calls.is_multiple_of(CALLS_PER_HARVEST) {
                waiter.harvest(EpollTimeout::ZERO, &mut ready);
            }
        } else {
            let held = seat.queues.iter().map(Queue::in_flight).sum();
            let turn = learned.turn(progress, held);
            if !poll(worker, seat, waiter, &mut learned, &turn, &mut ready)? {
                sleep(seat, waiter, &mut learned, &turn, &mut ready);
            }
        }
    }
    Ok(())
}

/// Carries out the session's commands. True: stop.
pub(super) fn heed(seat: &mut Seat, waiter: &mut Waiter, ready: &mut Ready) -> bool {
    // Before the commands: one that comes after this rings again.
    waiter.rang = false;
    if !seat.pending.take() {
        return false;
    }
    loop {
        let (change, ack) = match seat.commands.try_recv() {
            Ok(Command::Change(change, ack)) => (change, ack),
            Err(TryRecvError::Empty) => return false,
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                seat.stopped.set(true);
                return true;
            }
        };
        let result = match apply(&mut seat.queues, change) {
            Ok(None) => Ok(()),
            Ok(Some((slot, kick))) => waiter
                .replace_kick(&mut seat.kicks, slot, kick)
                .map_err(ChangeError::Kick),
            Err(error) => Err(error.into()),
        };
        // Whatever has changed, every queue deserves a fresh look.
        *ready = Ready::ALL;
        let _ = ack.send(result);
    }
}

/// Which queues have chains that nobody has seen yet.
#[inline]
pub(super) fn look(queues: &mut [Queue]) -> Ready {
    let mut ready = Ready::default();
    for (slot, queue) in queues.iter_mut().enumerate() {
        if queue.look() {
            ready.set_queue(slot);
        }
    }
    ready
}

/// Polls rings and worker for the learned time. True: there is work.
fn poll(
    worker: &mut dyn QueueWorker,
    seat: &mut Seat,
    waiter: &mut Waiter,
    learned: &mut Learned,
    turn: &Turn,
    ready: &mut Ready,
) -> Result<bool, DeviceError> {
    let budget = learned.budget(turn);
    if budget.is_zero() {
        return Ok(false);
    }
    let mut start = None;
    let mut rounds = 0u32;
    loop {
        *ready = look(&mut seat.queues);
        if !ready.is_empty() {
            learned.heard(turn);
            return Ok(true);
        }
        if worker.poll(&mut seat.queues)? == Progress::Worked {
            learned.ended(turn);
            return Ok(true);
        }
        rounds = rounds.wrapping_add(1);
        if waiter.events && rounds.is_multiple_of(ROUNDS_PER_HARVEST) {
            waiter.harvest(EpollTimeout::ZERO, ready);
            if !ready.is_empty() || waiter.rang {
                return Ok(true);
            }
        }
        if rounds.is_multiple_of(ROUNDS_PER_TIME) {
            let now = Instant::now();
            if now.duration_since(*start.get_or_insert(now)) >= budget {
                learned.in_vain(turn);
                return Ok(false);
            }
        }
        hint::spin_loop();
    }
}

/// Asks for kicks, looks once more, and sleeps until something happens.
fn sleep(
    seat: &mut Seat,
    waiter: &mut Waiter,
    learned: &mut Learned,
    turn: &Turn,
    ready: &mut Ready,
) {
    for (slot, queue) in seat.queues.iter_mut().enumerate() {
        if queue.arm() {
            ready.set_queue(slot);
        }
    }
    // The bell's edge may have been seen while polling; it does not come twice.
    if ready.is_empty() && !waiter.rang {
        let start = Instant::now();
        waiter.harvest(EpollTimeout::NONE, ready);
        if !waiter.rang {
            learned.slept(turn, start.elapsed(), *ready);
        }
    }
    for (slot, queue) in seat.queues.iter_mut().enumerate() {
        if queue.look() {
            ready.set_queue(slot);
        }
        queue.disarm();
    }
}

/// Lets the worker finish or give back what it holds.
fn drain(
    worker: &mut dyn QueueWorker,
    seat: &mut Seat,
    waiter: &mut Waiter,
) -> Result<(), DeviceError> {
    seat.queues.iter_mut().for_each(Queue::begin_drain);
    loop {
        match worker.drain(&mut seat.queues)? {
            Progress::Idle => return Ok(()),
            Progress::Worked => {}
            Progress::Waiting => {
                waiter.harvest(DRAIN_WAIT_MS.into(), &mut Ready::default());
            }
        }
    }
}

/// The thread's epoll. Everything is watched edge-triggered, so that eventfds need not be read.
pub(super) struct Waiter {
    epoll: Epoll,
    buffer: Vec<EpollEvent>,
    /// The worker has descriptors of its own.
    events: bool,
    /// The session has rung since its commands were last looked at.
    pub(super) rang: bool,
}

impl Waiter {
    pub(super) fn new(bell: &impl AsFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(bell, EpollEvent::new(flags, BELL))?;
        Ok(Self {
            epoll,
            buffer: vec![EpollEvent::empty(); 16],
            events: false,
            rang: false,
        })
    }

    fn add(&mut self, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
        self.events = true;
        Ok(self
            .epoll
            .add(fd, EpollEvent::new(flags | EpollFlags::EPOLLET, data))?)
    }

    /// Waits on this kick from now on, and no longer on the one before. (Closing a descriptor
    /// does not end the watch while the frontend holds the same eventfd.)
    fn replace_kick(&self, kicks: &mut [Option<File>], slot: usize, kick: File) -> io::Result<()> {
        let Some(place) = kicks.get_mut(slot) else {
            return Ok(());
        };
        if let Some(old) = place.take() {
            self.epoll.delete(&old)?;
        }
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&kick, EpollEvent::new(flags, slot as u64))?;
        *place = Some(kick);
        Ok(())
    }

    /// Waits on these kicks no longer. (The epoll outlives its queues where a thread is shared.)
    pub(super) fn forget(&self, kicks: &[Option<File>]) {
        for kick in kicks.iter().flatten() {
            let _ = self.epoll.delete(kick);
        }
    }

    /// Waits, at most so long, and notes what is ready.
    pub(super) fn harvest(&mut self, timeout: EpollTimeout, ready: &mut Ready) {
        // An error can only be EINTR: then nothing is ready, and the caller's loop comes back.
        let count = self.epoll.wait(&mut self.buffer, timeout).unwrap_or(0);
        for event in self.buffer.iter().take(count) {
            match event.data() {
                BELL => self.rang = true,
                data if data >= EVENTS => ready.set_event((data ^ EVENTS) as usize),
                slot => ready.set_queue(slot as usize),
            }
        }
    }
}

/// Readable when something that is watched has become ready.
impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
