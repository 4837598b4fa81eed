//! A request being carried out: which host operation is next, and what the last one's result
//! means. Knows nothing of how operations are run.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;
use std::io;

use outboard_device::{Request, Segment};

use crate::request::{Range, Status};

/// Most pieces of memory one read or write may name (`IOV_MAX`, readv(2)).
const MAX_PIECES: usize = 1024;

/// How often an operation the kernel wants repeated is repeated.
const MAX_ATTEMPTS: u8 = 32;

/// One operation on the image. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostIo {
    /// Read into the op's [`pieces`](Op::pieces).
    Read {
        /// Where to begin.
        offset: u64,
    },
    /// Write from the op's [`pieces`](Op::pieces).
    Write {
        /// Where to begin.
        offset: u64,
        /// The data must be durable when the write ends.
        durable: bool,
    },
    /// Write zeroes. May be done in part, as any write.
    WriteZeroes {
        /// Where to begin.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Make a range read as zeroes and give its space back.
    Punch {
        /// Where to begin.
        offset: u64,
        /// How long.
        len: u64,
    },
    /// Make a range read as zeroes and keep its space.
    ZeroRange {
        /// Where to begin.
        offset: u64,
        /// How long.
        len: u64,
    },
    /// Tell a block device that a range is of no worth.
    Discard {
        /// Where to begin.
        offset: u64,
        /// How long.
        len: u64,
    },
    /// Make data and size durable.
    Sync,
}

/// What comes after an operation's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another operation.
    Io(HostIo),
    /// The request is done.
    Done(Status),
}

/// What the guest asked for, and how far it has come.
#[derive(Debug)]
enum Task {
    Read {
        offset: u64,
        len: u64,
    },
    Write {
        offset: u64,
        len: u64,
        durable: bool,
    },
    Discard {
        ranges: Vec<Range>,
        block_device: bool,
        sync: bool,
    },
    Zero {
        ranges: Vec<Range>,
        sync: bool,
        filling: bool,
    },
    Sync,
}

/// A request in flight.
#[derive(Debug)]
pub struct Op {
    request: Request,
    task: Task,
    /// Bytes of a transfer, or of the range being filled with zeroes, that are done.
    done: u64,
    pieces: Vec<Segment>,
    attempts: u8,
}

impl Op {
    /// Reads `len` bytes at `offset` into the writable bytes before the status byte.
    pub fn read(request: Request, offset: u64, len: u64) -> Self {
        Self::new(request, Task::Read { offset, len })
    }

    /// Writes the `len` bytes behind the header at `offset`.
    pub fn write(request: Request, offset: u64, len: u64, durable: bool) -> Self {
        Self::new(
            request,
            Task::Write {
                offset,
                len,
                durable,
            },
        )
    }

    /// Makes durable what was written.
    pub fn sync(request: Request) -> Self {
        Self::new(request, Task::Sync)
    }

    /// Gives the space of ranges back; then syncs, when `sync`.
    pub fn discard(request: Request, ranges: Vec<Range>, block_device: bool, sync: bool) -> Self {
        Self::new(
            request,
            Task::Discard {
                ranges: in_turn(ranges),
                block_device,
                sync,
            },
        )
    }

    /// Makes ranges read as zeroes; then syncs, when `sync`.
    pub fn write_zeroes(request: Request, ranges: Vec<Range>, sync: bool) -> Self {
        Self::new(
            request,
            Task::Zero {
                ranges: in_turn(ranges),
                sync,
                filling: false,
            },
        )
    }

    fn new(request: Request, task: Task) -> Self {
        Self {
            request,
            task,
            done: 0,
            pieces: Vec::new(),
            attempts: 0,
        }
    }

    /// The memory the next read or write is to use.
    pub fn pieces(&self) -> &[Segment] {
        &self.pieces
    }

    /// The request, to be answered.
    pub fn into_request(self) -> Request {
        self.request
    }

    /// The operation to begin with, or the request's end when there is nothing to do.
    pub fn begin(&mut self) -> Next {
        self.next()
    }

    /// Takes the end of the operation last asked for: a count of bytes, or an error.
    pub fn advance(&mut self, result: io::Result<u32>) -> Next {
        match result {
            Ok(count) => {
                self.attempts = 0;
                self.succeeded(u64::from(count))
            }
            Err(error) if self.is_to_be_repeated(&error) => self.next(),
            Err(error) => self.failed(&error),
        }
    }

    fn is_to_be_repeated(&mut self, error: &io::Error) -> bool {
        self.attempts = self.attempts.saturating_add(1);
        matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
            && self.attempts < MAX_ATTEMPTS
    }

    fn succeeded(&mut self, count: u64) -> Next {
        match &mut self.task {
            // The file ends where it did not when it was opened, or takes nothing more.
            Task::Read { .. } | Task::Write { .. } | Task::Zero { filling: true, .. }
                if count == 0 =>
            {
                Next::Done(Status::IoError)
            }
            Task::Read { .. } | Task::Write { .. } => {
                self.done = self.done.saturating_add(count);
                self.next()
            }
            Task::Zero {
                ranges,
                filling: true,
                ..
            } => {
                self.done = self.done.saturating_add(count);
                if ranges.last().is_none_or(|range| self.done >= range.len) {
                    self.next_range();
                }
                self.next()
            }
            Task::Discard { .. } | Task::Zero { .. } => {
                self.next_range();
                self.next()
            }
            Task::Sync => Next::Done(Status::Ok),
        }
    }

    fn failed(&mut self, error: &io::Error) -> Next {
        let unable = matches!(
            error.raw_os_error(),
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::EINVAL)
        );
        match &mut self.task {
            // A discard is advice: a device that cannot take it has not failed.
            Task::Discard { .. } if unable => {
                self.next_range();
                self.next()
            }
            Task::Zero { filling, .. } if unable && !*filling => {
                *filling = true;
                self.next()
            }
            _ => Next::Done(Status::IoError),
        }
    }

    /// Leaves the range just done, and after the last one turns to syncing when that is asked.
    fn next_range(&mut self) {
        self.done = 0;
        let (ranges, sync) = match &mut self.task {
            Task::Discard { ranges, sync, .. } => (ranges, *sync),
            Task::Zero {
                ranges,
                sync,
                filling,
            } => {
                *filling = false;
                (ranges, *sync)
            }
            _ => return,
        };
        ranges.pop();
        if ranges.is_empty() && sync {
            self.task = Task::Sync;
        }
    }

    /// The operation that the state calls for.
    fn next(&mut self) -> Next {
        let done = self.done;
        match &self.task {
            Task::Read { offset, len } if done < *len => {
                let offset = offset.saturating_add(done);
                self.gather();
                Next::Io(HostIo::Read { offset })
            }
            Task::Write {
                offset,
                len,
                durable,
            } if done < *len => {
                let io = HostIo::Write {
                    offset: offset.saturating_add(done),
                    durable: *durable,
                };
                self.gather();
                Next::Io(io)
            }
            Task::Read { .. } | Task::Write { .. } => Next::Done(Status::Ok),
            Task::Sync => Next::Io(HostIo::Sync),
            Task::Discard {
                ranges,
                block_device,
                ..
            } => ranges
                .last()
                .map_or(Next::Done(Status::Ok), |&Range { offset, len, .. }| {
                    Next::Io(if *block_device {
                        HostIo::Discard { offset, len }
                    } else {
                        HostIo::Punch { offset, len }
                    })
                }),
            Task::Zero {
                ranges, filling, ..
            } => ranges
                .last()
                .map_or(Next::Done(Status::Ok), |&Range { offset, len, unmap }| {
                    Next::Io(match (*filling, unmap) {
                        (true, _) => HostIo::WriteZeroes {
                            offset: offset.saturating_add(done),
                            len: len.saturating_sub(done),
                        },
                        (false, true) => HostIo::Punch { offset, len },
                        (false, false) => HostIo::ZeroRange { offset, len },
                    })
                }),
        }
    }

    /// Points `pieces` at the memory of the transfer that is not done yet.
    fn gather(&mut self) {
        let done = usize::try_from(self.done).unwrap_or(usize::MAX);
        self.pieces.clear();
        // Neither cursor can be too short: the lengths were taken from them. Were it so all the
        // same, no pieces would be left, and a transfer of nothing ends in an error.
        match self.task {
            Task::Read { .. } => {
                if let Ok((mut data, _)) = self.request.writer().split_last(1)
                    && data.skip(done).is_ok()
                {
                    self.pieces.extend(data.segments().take(MAX_PIECES));
                }
            }
            Task::Write { .. } => {
                let mut data = self.request.reader();
                if data
                    .skip(crate::request::HEADER_LEN.saturating_add(done))
                    .is_ok()
                {
                    self.pieces.extend(data.segments().take(MAX_PIECES));
                }
            }
            _ => {}
        }
    }
}

impl fmt::Display for Op {
    /// What it does, as in "cannot read 4096 bytes at 0 of" the image.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.task {
            Task::Read { offset, len } => write!(f, "read {len} bytes at {offset} of"),
            Task::Write { offset, len, .. } => write!(f, "write {len} bytes at {offset} of"),
            Task::Discard { .. } => f.write_str("discard ranges of"),
            Task::Zero { .. } => f.write_str("write zeroes to ranges of"),
            Task::Sync => f.write_str("flush"),
        }
    }
}

/// Ranges as a stack, the first on top, without those of no length (which fallocate refuses).
fn in_turn(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|range| range.len > 0);
    ranges.reverse();
    ranges
}
