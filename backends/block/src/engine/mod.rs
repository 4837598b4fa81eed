//! The engine of one queue: carries plans out on the image, by the quickest way that is open.
//!
//! What needs no waiting is done at once (`inline`). The rest goes to the kernel through an
//! `io_uring` (`uring`); or, where there is none, and for what has no asynchronous form, to a pool
//! of threads that the disk's queues share (`pool`).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod in_memory;
mod inline;
mod pool;
mod uring;

use std::io;
use std::sync::Arc;

use clap::ValueEnum;
use outboard_device::Watch;
use tracing::warn;

use crate::image::Image;
use crate::log;
use crate::op::Op;
use crate::plan::{HostIo, Next};
use crate::request::Status;
use inline::Inline;
pub use pool::Pool;
use pool::Share;
use uring::Uring;

/// Most ops in flight: a full ring of the guest's.
pub const MAX_IN_FLIGHT: usize = 1024;

/// How operations that wait are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// By `io_uring` where it may be used, else by threads.
    #[default]
    Auto,
    /// By `io_uring`.
    Uring,
    /// By threads.
    Threads,
}

impl Kind {
    /// Decides for one of the two ways, by trying; says so when it is the slower one.
    ///
    /// # Errors
    /// [`Kind::Uring`] cannot be had.
    pub fn decided(self) -> io::Result<Self> {
        match (self, uring::probe()) {
            (Self::Threads, _) => Ok(Self::Threads),
            (_, Ok(())) => Ok(Self::Uring),
            (Self::Uring, Err(error)) => Err(error),
            (Self::Auto, Err(error)) => {
                warn!(
                    "io_uring cannot be used here ({error}): a pool of threads does the I/O, which \
                     costs more CPU time. `sysctl kernel.io_uring_disabled=0`, or a container's \
                     seccomp profile that allows it, makes it quick"
                );
                Ok(Self::Threads)
            }
        }
    }
}

/// Ops in flight on an image. Dropping it waits for them: until then the kernel writes to guest
/// memory.
#[derive(Debug)]
pub struct Engine {
    image: Arc<Image>,
    inline: Inline,
    uring: Option<Uring>,
    threads: Share,
}

impl Engine {
    /// An engine over `image`, of a [decided](Kind::decided) kind.
    ///
    /// # Errors
    /// The system has no ring or no event descriptor left to give.
    pub fn new(image: Arc<Image>, kind: Kind, pool: &Arc<Pool>) -> io::Result<Self> {
        let uring = match kind {
            Kind::Uring => Some(Uring::new(Arc::clone(&image))?),
            Kind::Auto | Kind::Threads => None,
        };
        Ok(Self {
            inline: Inline::of(&image),
            image,
            uring,
            threads: Share::new(Arc::clone(pool))?,
        })
    }

    /// Ops begun and not handed back yet.
    pub fn in_flight(&self) -> usize {
        let uring = self.uring.as_ref().map_or(0, Uring::in_flight);
        uring.saturating_add(self.threads.in_flight())
    }

    /// Whether another op may begin.
    pub fn has_room(&self) -> bool {
        self.in_flight() < MAX_IN_FLIGHT
    }

    /// Whether the kernel has refused operations for now: nothing announces when it takes them.
    pub fn is_behind(&self) -> bool {
        self.uring.as_ref().is_some_and(Uring::is_behind)
    }

    /// Signalled when operations end.
    pub fn event_fds(&self) -> Vec<Watch<'_>> {
        let uring = self.uring.as_ref().map(Watch::readable);
        uring
            .into_iter()
            .chain([Watch::readable(&self.threads)])
            .collect()
    }

    /// Begins an op. It comes back from [`finished`](Self::finished), or at once when it took no
    /// waiting.
    pub fn begin(&mut self, mut op: Op) -> Option<(Op, Status)> {
        let mut next = op.plan.next();
        loop {
            let io = match next {
                Next::Done(status) => return Some((op, status)),
                Next::Io(io) => io,
            };
            op.gather(io);
            let Some(result) = self.inline.run(&self.image, &op, io) else {
                return self.start(op, io);
            };
            next = self.advance(&mut op, result);
        }
    }

    /// Hands queued operations to the kernel.
    pub fn submit(&mut self) {
        if let Some(uring) = &mut self.uring {
            uring.submit();
        }
    }

    /// The next op that has ended, with its outcome. No system call, unless an op goes on.
    pub fn finished(&mut self) -> Option<(Op, Status)> {
        loop {
            let ended = self.uring.as_mut().and_then(Uring::finished);
            let (mut op, result) = ended.or_else(|| self.threads.finished())?;
            match self.advance(&mut op, result) {
                Next::Io(io) => {
                    op.gather(io);
                    if let Some(ended) = self.start(op, io) {
                        return Some(ended);
                    }
                }
                Next::Done(status) => return Some((op, status)),
            }
        }
    }

    /// Tells the plan how an operation ended, and the log when that was the last straw.
    fn advance(&self, op: &mut Op, result: io::Result<u32>) -> Next {
        let cause = result.as_ref().err().map(ToString::to_string);
        let next = op.plan.advance(result);
        if next == Next::Done(Status::IoError) {
            log::host_error(&self.image, &op.plan, cause.as_deref());
        }
        next
    }

    /// Starts `io`, for which `op` has gathered. The op comes back when nobody takes it.
    fn start(&mut self, op: Op, io: HostIo) -> Option<(Op, Status)> {
        match &mut self.uring {
            Some(uring) if uring.takes(&op, io) => {
                uring.start(op, io).err().map(|op| (op, Status::IoError))
            }
            _ => {
                self.threads.start(op, io);
                None
            }
        }
    }
}
