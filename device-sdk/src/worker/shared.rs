//! One thread for the queue groups of several devices, whose worker sees all of their queues at once:
//! what it takes from one guest's ring it can write into another's.
//!
//! Each device has a session of its own, as ever. A group whose device starts it with
//! [`Worker::Shared`](crate::Worker::Shared) gets no thread: its queues are posted to the shared one,
//! which takes them in between two calls of the worker, obeys their session there, and gives them up
//! when it says stop.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;
use std::hint;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::epoll::EpollTimeout;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::error;

use super::polled::{Waiter, heed, look};
use super::spin::Spin;
use super::{Breakage, Failure, Seat, Stopped};
use crate::device::{DeviceError, Progress, Ready, chain};
use crate::queue::Queue;

/// The sessions are heard every so many calls, and before each sleep.
const CALLS_PER_HARVEST: u32 = 16;

/// While polling, the clock is read every so many rounds.
const ROUNDS_PER_TIME: u32 = 16;

/// Serves the groups of several devices. Every call comes from the shared thread.
pub trait SharedWorker: Send {
    /// There may be something to do on any queue. As [`QueueWorker::run`], but no request may be
    /// held when it returns: each is completed or given back, so that a group can go between two calls.
    /// An error is one group's, see [`Groups::fail`]. A panic fails every group, and those to come.
    ///
    /// [`QueueWorker::run`]: crate::QueueWorker::run
    fn run(&mut self, groups: &mut Groups<'_>) -> Progress;

    /// The group at this place has gone. Another may come.
    fn left(&mut self, place: usize) {
        let _ = place;
    }
}

/// The groups that are there now, each at its place.
#[derive(Debug)]
pub struct Groups<'a>(&'a mut [Option<Member>]);

impl Groups<'_> {
    /// How many places there are.
    pub fn places(&self) -> usize {
        self.0.len()
    }

    /// The queues of the group at `place`, in order; none while it is not there, or has failed.
    #[inline]
    pub fn queues(&mut self, place: usize) -> &mut [Queue] {
        match self.0.get_mut(place) {
            Some(Some(member)) if !member.failed => &mut member.seat.queues,
            _ => &mut [],
        }
    }

    /// The group at `place` is served no more until its device is reset, for this reason; its driver
    /// sees `DEVICE_NEEDS_RESET`. The others go on.
    pub fn fail(&mut self, place: usize, error: &DeviceError) {
        if let Some(Some(member)) = self.0.get_mut(place) {
            member.failed = true;
            member.breakage.mark(error);
        }
    }
}

/// A group on the shared thread.
struct Member {
    seat: Seat,
    breakage: Arc<Breakage>,
    failed: bool,
    gone: SyncSender<Stopped>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("queues", &self.seat.queues.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// What is posted to the thread. The bell is rung after it.
enum Letter {
    Join(usize, Box<Member>),
    End,
}

/// The thread, seen from devices. It begins with the first group, and ends with the last of these
/// handles and of the [places](Self::place).
#[derive(Clone, Debug)]
pub struct SharedThread(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    letters: Sender<Letter>,
    bell: Arc<EventFd>,
    thread: Mutex<Thread>,
}

enum Thread {
    /// Not needed yet.
    Idle(Box<Loop>),
    Started(JoinHandle<()>),
    /// It could not be started.
    Failed,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle(_) => "Idle",
            Self::Started(_) => "Started",
            Self::Failed => "Failed",
        })
    }
}

impl SharedThread {
    /// A thread called `name` with so many places for groups, which `worker` serves.
    ///
    /// # Errors
    /// The kernel has no descriptors left.
    pub fn new(
        name: impl Into<String>,
        places: usize,
        worker: impl SharedWorker + 'static,
    ) -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (letters, post) = channel();
        let thread = Loop {
            worker: Some(Box::new(worker)),
            members: (0..places).map(|_| None).collect(),
            post,
            waiter: Waiter::new(&bell)?,
            spin: Spin::default(),
        };
        Ok(Self(Arc::new(Inner {
            name: name.into(),
            letters,
            bell: Arc::new(bell),
            thread: Mutex::new(Thread::Idle(Box::new(thread))),
        })))
    }

    /// A place for one group at a time, below the number of places there are.
    pub fn place(&self, index: usize) -> Place {
        Place {
            thread: self.clone(),
            index,
        }
    }
}

impl Inner {
    /// Starts the thread, if nobody has.
    fn begin(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        *thread = match mem::replace(&mut *thread, Thread::Failed) {
            Thread::Idle(serving) => Thread::Started(
                thread::Builder::new()
                    .name(self.name.clone())
                    .spawn(move || serving.serve())?,
            ),
            other => other,
        };
        match &*thread {
            Thread::Failed => Err(io::Error::other("the shared thread did not start")),
            _ => Ok(()),
        }
    }

    fn post(&self, letter: Letter) {
        // Nobody is there to read it only when the thread has ended, which it does after `End`.
        if self.letters.send(letter).is_ok() {
            let _ = self.bell.write(1);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.post(Letter::End);
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Thread::Started(thread) = mem::replace(thread, Thread::Failed) {
            let _ = thread.join();
        }
    }
}

/// Where a group sits on a shared thread: the worker of a device's group.
#[derive(Clone, Debug)]
pub struct Place {
    thread: SharedThread,
    index: usize,
}

impl Place {
    /// What is rung for the session of a group here.
    pub(super) fn bell(&self) -> Arc<EventFd> {
        Arc::clone(&self.thread.0.bell)
    }

    /// Posts the group to the thread. What is left of it comes back when its session has said stop.
    pub(super) fn join(
        &self,
        seat: Seat,
        breakage: Arc<Breakage>,
    ) -> io::Result<Receiver<Stopped>> {
        self.thread.0.begin()?;
        let (gone, left) = sync_channel(1);
        let member = Member {
            seat,
            breakage,
            failed: false,
            gone,
        };
        self.thread
            .0
            .post(Letter::Join(self.index, Box::new(member)));
        Ok(left)
    }
}

/// The thread's own.
struct Loop {
    /// `None` once it has panicked.
    worker: Option<Box<dyn SharedWorker>>,
    members: Vec<Option<Member>>,
    post: Receiver<Letter>,
    waiter: Waiter,
    spin: Spin,
}

impl Loop {
    fn serve(mut self) {
        let mut calls = 0u32;
        loop {
            // Nothing is said without the bell.
            if mem::take(&mut self.waiter.rang) && !self.obey() {
                return;
            }
            let progress = self.call();
            calls = calls.wrapping_add(1);
            if calls.is_multiple_of(CALLS_PER_HARVEST) {
                let mut ready = Ready::default();
                self.waiter.harvest(EpollTimeout::ZERO, &mut ready);
            }
            if progress != Progress::Worked && !self.look() && !self.poll() {
                self.sleep();
            }
        }
    }

    /// Takes in those that come, does what the sessions want, and lets those go that are to stop.
    /// False: the end.
    fn obey(&mut self) -> bool {
        let mut end = false;
        // Each heeds the bell anew, before it looks: what is said later rings again.
        for place in 0..self.members.len() {
            self.heed(place);
        }
        while let Ok(letter) = self.post.try_recv() {
            match letter {
                Letter::Join(place, member) => {
                    // Whoever was there must have stopped: one session at a time has the place.
                    if let Some(vacant @ None) = self.members.get_mut(place) {
                        *vacant = Some(*member);
                        self.heed(place);
                    } else {
                        let taken = format!("there is no room at place {place}");
                        member.breakage.mark(&DeviceError::other(taken));
                    }
                }
                Letter::End => end = true,
            }
        }
        !end
    }

    fn heed(&mut self, place: usize) {
        let Some(slot @ Some(_)) = self.members.get_mut(place) else {
            return;
        };
        let mut ready = Ready::default();
        let stop = slot
            .as_mut()
            .is_some_and(|member| heed(&mut member.seat, &mut self.waiter, &mut ready));
        if !stop {
            return;
        }
        let Some(mut member) = slot.take() else {
            return;
        };
        self.waiter.forget(&member.seat.kicks);
        let bases = member.seat.queues.iter_mut().map(Queue::stop).collect();
        // Before the session goes on: what comes to this place next is somebody else.
        self.guarded(|worker, _| worker.left(place));
        let _ = member.gone.send(Stopped {
            worker: None,
            bases,
        });
    }

    fn call(&mut self) -> Progress {
        self.guarded(|worker, groups| worker.run(groups))
            .unwrap_or(Progress::Idle)
    }

    /// Calls the worker. After a panic there is none any more, and no group is served.
    fn guarded<T>(
        &mut self,
        call: impl FnOnce(&mut dyn SharedWorker, &mut Groups<'_>) -> T,
    ) -> Option<T> {
        let mut groups = Groups(&mut self.members);
        let worker = self.worker.as_mut();
        let called = catch_unwind(AssertUnwindSafe(|| {
            worker.map(|worker| call(&mut **worker, &mut groups))
        }));
        let failure = match called {
            Ok(Some(result)) => return Some(result),
            Ok(None) => DeviceError::other("the worker of all groups panicked before"),
            Err(payload) => {
                let broken = self.worker.take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                let Failure::Panic(text) = Failure::panicked(&*payload) else {
                    return None;
                };
                let failure =
                    DeviceError::other(format!("the worker of all groups panicked: {text}"));
                error!("{}", chain(&failure));
                failure
            }
        };
        for place in 0..self.members.len() {
            Groups(&mut self.members).fail(place, &failure);
        }
        None
    }

    /// Whether a queue has chains that nobody has seen yet.
    fn look(&mut self) -> bool {
        let mut news = false;
        for member in self.serving() {
            news |= !look(&mut member.seat.queues).is_empty();
        }
        news
    }

    fn serving(&mut self) -> impl Iterator<Item = &mut Member> {
        let members = self.members.iter_mut().flatten();
        members.filter(|member| !member.failed)
    }

    /// Polls the rings for the learned time. True: there is work.
    fn poll(&mut self) -> bool {
        let budget = self.spin.budget();
        if budget.is_zero() {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < budget {
            for _ in 0..ROUNDS_PER_TIME {
                if self.look() {
                    self.spin.paid();
                    return true;
                }
                hint::spin_loop();
            }
        }
        self.spin.in_vain();
        false
    }

    /// Asks for kicks, looks once more, and sleeps until something happens.
    fn sleep(&mut self) {
        let mut news = false;
        for queue in self.serving().flat_map(|member| &mut member.seat.queues) {
            news |= queue.arm();
        }
        // The bell's edge may have been seen already; it does not come twice.
        if !news && !self.waiter.rang {
            let start = Instant::now();
            let mut ready = Ready::default();
            self.waiter.harvest(EpollTimeout::NONE, &mut ready);
            if !ready.is_empty() {
                self.spin.slept(start.elapsed());
            }
        }
        for queue in self.serving().flat_map(|member| &mut member.seat.queues) {
            queue.disarm();
        }
    }
}

impl Drop for Loop {
    /// Nobody is left waiting.
    fn drop(&mut self) {
        for mut member in self.members.drain(..).flatten() {
            let bases = member.seat.queues.iter_mut().map(Queue::stop).collect();
            let _ = member.gone.send(Stopped {
                worker: None,
                bases,
            });
        }
    }
}
