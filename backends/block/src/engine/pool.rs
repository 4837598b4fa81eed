//! Threads that wait, where no ring does: for what has no asynchronous form (the discard of a block
//! device), for formats, for copies, and for everything where there is no `io_uring`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::warn;

use crate::bounce::Bounce;
use crate::image::Image;
use crate::op::Op;
use crate::plan::HostIo;

/// Most threads of one disk: as many operations as a disk may have to do at once to be busy.
const MAX_THREADS: usize = 16;

/// An op, and how its operation ended, in bytes done.
type Ended = (Op, io::Result<u32>);

/// The threads of one disk. They begin when there is work for them and have ended when this value
/// is gone.
#[derive(Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    image: Arc<Image>,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// How the image is to be settled, when it is: once, however often the guest resets the disk.
    settle: Option<Settle>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    closed: bool,
}

/// What writes an image's tables.
type Settle = fn(&Image) -> io::Result<()>;

#[derive(Debug)]
struct Job {
    op: Op,
    io: HostIo,
    home: Home,
}

/// Where an op goes back to.
#[derive(Clone, Debug)]
struct Home {
    ended: Sender<Ended>,
    wake: Arc<EventFd>,
}

impl Home {
    fn take(&self, op: Op, result: io::Result<u32>) {
        // Neither can fail while the share lives, and it waits for its ops.
        let _ = self.ended.send((op, result));
        let _ = self.wake.write(1);
    }
}

impl Pool {
    /// A pool without threads yet, over `image`.
    pub fn new(image: Arc<Image>) -> Self {
        Self(Arc::new(Shared {
            image,
            state: Mutex::default(),
            work: Condvar::new(),
        }))
    }

    /// Has a thread write what is only in memory of the image's tables, for nobody drives the disk
    /// any more. Does not wait for it: a slow disk may take longer than a frontend gives a reset.
    /// Operations on the image that begin meanwhile wait until it is done, and so does the pool's
    /// end.
    pub fn settle(&self) {
        if self.0.image.has_tables() {
            self.settle_by(Image::settle);
        }
    }

    fn settle_by(&self, settle: Settle) {
        let mut state = self.0.lock();
        state.settle = Some(settle);
        if self.0.staff(&mut state).is_err() {
            state.settle = None;
            drop(state);
            return self.0.settle(settle);
        }
        drop(state);
        self.0.work.notify_one();
    }

    fn add(&self, job: Job) {
        let mut state = self.0.lock();
        state.jobs.push_back(job);
        if let Err(error) = self.0.staff(&mut state) {
            let job = state.jobs.pop_back();
            drop(state);
            if let Some(Job { op, home, .. }) = job {
                home.take(op, Err(error));
            }
            return;
        }
        drop(state);
        self.0.work.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.0.work.notify_all();
        for thread in threads {
            // It catches the panics of what it runs.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that there are threads for what is to be done, as far as there may be.
    ///
    /// # Errors
    /// There is none, and the system has none to give.
    fn staff(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let waiting = state
            .jobs
            .len()
            .saturating_add(usize::from(state.settle.is_some()));
        if state.idle >= waiting || state.threads.len() >= MAX_THREADS {
            return Ok(());
        }
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("blocking".into());
        match thread.spawn(move || shared.serve()) {
            Ok(thread) => state.threads.push(thread),
            // The others will come to it.
            Err(_) if !state.threads.is_empty() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A thread's life.
    fn serve(&self) {
        let mut bounce = Bounce::default();
        let mut state = self.lock();
        loop {
            if let Some(settle) = state.settle.take() {
                drop(state);
                self.settle(settle);
                state = self.lock();
            } else if let Some(Job { op, io, home }) = state.jobs.pop_front() {
                drop(state);
                let result = self.guarded(|image| image.perform(&op, io, &mut bounce));
                home.take(op, result);
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.idle = state.idle.saturating_add(1);
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle = state.idle.saturating_sub(1);
            }
        }
    }

    fn settle(&self, settle: Settle) {
        if let Err(error) = self.guarded(settle) {
            let path = self.image.path().display();
            warn!("Cannot write the tables of disk image '{path}': {error}");
        }
    }

    /// Runs a format's code on the image. After a panic of it the image is given up.
    fn guarded<T>(&self, call: impl FnOnce(&Image) -> io::Result<T>) -> io::Result<T> {
        catch_unwind(AssertUnwindSafe(|| call(&self.image))).unwrap_or_else(|_| {
            self.image.give_up();
            Err(io::Error::other("the format's code has panicked"))
        })
    }
}

/// One queue's share in a pool. Dropping it waits for its ops.
#[derive(Debug)]
pub(super) struct Share {
    pool: Arc<Pool>,
    home: Home,
    ended: Receiver<Ended>,
    in_flight: usize,
}

impl Share {
    pub(super) fn new(pool: Arc<Pool>) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (sender, ended) = channel();
        let home = Home {
            ended: sender,
            wake: Arc::new(wake),
        };
        Ok(Self {
            pool,
            home,
            ended,
            in_flight: 0,
        })
    }

    /// Ops begun and not yet taken back.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Has a thread run `io` for `op`.
    pub(super) fn start(&mut self, op: Op, io: HostIo) {
        self.in_flight = self.in_flight.saturating_add(1);
        let home = self.home.clone();
        self.pool.add(Job { op, io, home });
    }

    /// An op whose operation has ended.
    pub(super) fn finished(&mut self) -> Option<Ended> {
        if self.in_flight == 0 {
            return None;
        }
        let ended = self.ended.try_recv().ok()?;
        self.in_flight = self.in_flight.saturating_sub(1);
        Some(ended)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        while self.in_flight > 0 && self.ended.recv().is_ok() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }
}

impl AsFd for Share {
    /// Becomes readable with each end. It is not reset: the worker watches for edges.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.home.wake.as_fd()
    }
}

#[cfg(test)]
mod tests;
