//! An `io_uring` over one raw image, and the ops that are in it.
#![allow(unsafe_code)] // Queueing an operation hands the kernel raw addresses.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use outboard_device::ratelimit::RateLimit;
use tracing::error;

use super::MAX_IN_FLIGHT;
use crate::image::Image;
use crate::op::Op;
use crate::plan::HostIo;

/// Operations handed to the kernel in one go.
const SUBMIT_BATCH: u32 = 256;

/// Bytes of zeroes one write can carry.
const ZEROES_LEN: usize = 1 << 20;

/// Makes a ring of the size workers use and has it do nothing once: at start, to learn early that
/// there can be none.
pub(super) fn probe() -> io::Result<()> {
    let mut uring = new_ring()?;
    // SAFETY: it names no memory.
    let pushed = unsafe { uring.submission().push(&opcode::Nop::new().build()) };
    if pushed.is_ok() {
        uring.submit_and_wait(1)?;
    }
    Ok(())
}

/// What a ring is used for; it does nothing else, whatever is put into it. Opening files and sockets
/// by a ring would pass the daemon's filter of system calls.
const OPERATIONS: [u8; 7] = [
    opcode::Nop::CODE,
    opcode::Read::CODE,
    opcode::Readv::CODE,
    opcode::Write::CODE,
    opcode::Writev::CODE,
    opcode::Fallocate::CODE,
    opcode::Fsync::CODE,
];

fn new_ring() -> io::Result<IoUring> {
    // The completion queue has room for all that are in flight.
    let ring = IoUring::builder()
        .dontfork()
        .setup_cqsize(MAX_IN_FLIGHT as u32)
        .setup_r_disabled()
        .build(SUBMIT_BATCH)?;
    let mut only = OPERATIONS.map(Restriction::sqe_op);
    ring.submitter().register_restrictions(&mut only)?;
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}

/// Ops in the kernel's hands. Dropping it waits for them: until then the kernel writes to guest
/// memory.
pub(super) struct Uring {
    ring: IoUring,
    image: Arc<Image>,
    /// An op in flight is named to the kernel by its place here.
    slots: Vec<Option<Op>>,
    free: Vec<usize>,
    /// Queued for the kernel and not handed over yet.
    queued: usize,
    /// What the kernel reads when zeroes are written; a page of zeroes mapped many times.
    zeroes: Box<[u8]>,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Uring {
    /// An empty ring over `image`.
    pub(super) fn new(image: Arc<Image>) -> io::Result<Self> {
        Ok(Self {
            ring: new_ring()?,
            image,
            slots: Vec::new(),
            free: Vec::new(),
            queued: 0,
            zeroes: vec![0; ZEROES_LEN].into_boxed_slice(),
        })
    }

    /// Ops begun and not handed back yet.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Whether the kernel has refused operations for now: nothing announces when it takes them.
    pub(super) fn is_behind(&self) -> bool {
        self.queued > 0
    }

    /// Whether `io` has a form for the ring and can use the memory that `op` has gathered in place.
    pub(super) fn takes(&self, op: &Op, io: HostIo) -> bool {
        let in_place = self.image.raw().is_some_and(|raw| raw.in_place(op, io));
        in_place && !matches!(io, HostIo::Discard { .. })
    }

    /// Queues `io`, for which `op` has gathered. The op comes back when the kernel makes no room.
    pub(super) fn start(&mut self, op: Op, io: HostIo) -> Result<(), Op> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len().saturating_sub(1)
        });
        let entry = self.entry(&op, io).map(|e| e.user_data(slot as u64));
        if !entry.is_some_and(|entry| self.push(&entry)) {
            self.free.push(slot);
            return Err(op);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(op);
        }
        let handed_over = self.in_flight().saturating_sub(self.queued);
        if is_due(self.queued, handed_over) {
            self.submit();
        }
        Ok(())
    }

    /// Hands queued operations to the kernel.
    pub(super) fn submit(&mut self) {
        if self.queued == 0 {
            return;
        }
        match self.ring.submit() {
            Ok(count) => self.queued = self.queued.saturating_sub(count),
            // Short of memory, or of room for completions: they stay queued for the next call.
            Err(e) if is_passing(&e) => {}
            Err(e) => {
                static LIMIT: RateLimit = RateLimit::new();
                if let Some(unseen) = LIMIT.pass() {
                    error!("io_uring takes no operations: {e}{unseen}");
                }
            }
        }
    }

    /// The next op whose operation has ended. No system call.
    pub(super) fn finished(&mut self) -> Option<(Op, io::Result<u32>)> {
        loop {
            let entry = self.ring.completion().next()?;
            let slot = entry.user_data() as usize;
            let Some(op) = self.slots.get_mut(slot).and_then(Option::take) else {
                error!("io_uring completed an operation that was never begun ({slot})");
                continue;
            };
            self.free.push(slot);
            return Some((op, outcome(entry.result())));
        }
    }

    /// Queues an operation; false when the kernel makes no room.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        for _ in 0..2 {
            // SAFETY: the memory the entry names is guest memory of the op's request, the op's own
            // list of pieces (on the heap, untouched while the op is in its slot), or `zeroes`. All
            // live until the op leaves its slot, which is after the kernel has completed the entry:
            // `Drop` waits for that too. The image is open as long as `self`.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.queued = self.queued.saturating_add(1);
                return true;
            }
            self.submit();
        }
        false
    }

    /// The kernel's form of an operation; `None` for those it has none for.
    fn entry(&self, op: &Op, io: HostIo) -> Option<squeue::Entry> {
        // Not registered with the ring: the kernel takes a registered file back some time after the
        // process has ended, and its lock would keep the next daemon out until then.
        let image = types::Fd(self.image.raw()?.file_for(op, io).as_raw_fd());
        let pieces = op.pieces().as_ptr().cast::<libc::iovec>(); // `Segment` is an iovec
        let count = op.pieces().len() as u32;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let zero = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        Some(match (io, op.pieces()) {
            (HostIo::Read { offset, .. }, [one]) => {
                opcode::Read::new(image, one.addr(), length(one.len()))
                    .offset(offset)
                    .build()
            }
            (HostIo::Read { offset, .. }, _) => opcode::Readv::new(image, pieces, count)
                .offset(offset)
                .build(),
            (
                HostIo::Write {
                    offset, durable, ..
                },
                [one],
            ) => opcode::Write::new(image, one.addr(), length(one.len()))
                .offset(offset)
                .rw_flags(durability(durable))
                .build(),
            (
                HostIo::Write {
                    offset, durable, ..
                },
                _,
            ) => opcode::Writev::new(image, pieces, count)
                .offset(offset)
                .rw_flags(durability(durable))
                .build(),
            (HostIo::WriteZeroes { offset, len }, _) => {
                let len = self
                    .zeroes
                    .len()
                    .min(usize::try_from(len).unwrap_or(usize::MAX));
                opcode::Write::new(image, self.zeroes.as_ptr(), length(len))
                    .offset(offset)
                    .build()
            }
            (HostIo::Discard { .. }, _) => return None,
            (HostIo::Punch { offset, len }, _) => opcode::Fallocate::new(image, len)
                .offset(offset)
                .mode(punch)
                .build(),
            (HostIo::ZeroRange { offset, len }, _) => opcode::Fallocate::new(image, len)
                .offset(offset)
                .mode(zero)
                .build(),
            (HostIo::Sync, _) => opcode::Fsync::new(image)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        })
    }

    /// Waits until the kernel has completed something. For the end of a ring only.
    fn wait(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(e) if is_passing(&e) || e.raw_os_error() == Some(libc::EINTR) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Uring {
    /// Readable while completions wait to be taken.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.ring` and stays open as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            while self.finished().is_some() {}
            if self.in_flight() == 0 {
                break;
            }
            if let Err(e) = self.wait() {
                // Rather keep the ops for ever than free what the kernel still writes to.
                error!("io_uring does not end its operations: {e}");
                std::mem::forget(std::mem::take(&mut self.slots));
                std::mem::forget(std::mem::take(&mut self.zeroes));
                return;
            }
        }
    }
}

/// Whether so many queued operations are handed over without waiting for more. The kernel keeps what comes
/// in one call from the disk until it has all of it: so a disk with nothing to do gets the first one at
/// once, and others wait only until they are as many as it has.
fn is_due(queued: usize, handed_over: usize) -> bool {
    queued >= handed_over
}

/// A length for one entry. What is longer is done in part and goes on from there.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(1 << 30)
}

fn durability(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

/// The kernel's result as Rust has it.
fn outcome(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()))
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_something_to_do_while_more_is_queued() {
        let (mut queued, mut handed_over) = (0, 0);
        let mut calls = Vec::new();
        for _ in 0..32 {
            queued += 1;
            if is_due(queued, handed_over) {
                calls.push(queued);
                handed_over += queued;
                queued = 0;
            }
        }
        assert_eq!((calls, queued), (vec![1, 1, 2, 4, 8, 16], 0));
    }

    #[test]
    fn a_ring_opens_no_files() {
        let Ok(mut ring) = new_ring() else {
            // Not through the harness, which keeps the words of tests that pass to itself.
            let _ = io::Write::write_all(&mut io::stderr(), b"SKIPPED: no io_uring here\n");
            return;
        };
        let here = types::Fd(libc::AT_FDCWD);
        let open = opcode::OpenAt::new(here, c"/dev/null".as_ptr()).build();
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0).build();
        for (entry, result) in [
            (opcode::Nop::new().build(), 0),
            (open, -libc::EACCES),
            (socket, -libc::EACCES),
        ] {
            // SAFETY: the path is static; the others name no memory.
            unsafe { ring.submission().push(&entry) }.unwrap();
            ring.submit_and_wait(1).unwrap();
            assert_eq!(ring.completion().next().unwrap().result(), result);
        }
    }
}
