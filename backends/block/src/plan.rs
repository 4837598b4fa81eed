//! How a request is carried out: which host operation comes next, and what the last one's outcome
//! means. Knows neither the guest's memory nor how operations are run.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;
use std::io;

use crate::request::{Range, Status};

/// How often an operation the kernel wants repeated is repeated.
const MAX_ATTEMPTS: u8 = 32;

/// One operation on the image. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostIo {
    /// Read into the request's data.
    Read {
        /// Where in the image.
        offset: u64,
        /// How much of the request's data is done, from its start.
        done: u64,
    },
    /// Write from the request's data.
    Write {
        /// Where in the image.
        offset: u64,
        /// How much of the request's data is done, from its start.
        done: u64,
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
pub struct Plan {
    task: Task,
    /// Bytes of a transfer, or of the range being filled with zeroes, that are done.
    done: u64,
    /// Failures since the last progress that the kernel wants tried again.
    attempts: u8,
}

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
    /// `ranges` are a stack, the next on top.
    Discard {
        ranges: Vec<Range>,
        block_device: bool,
        sync: bool,
    },
    /// As above; `filling`: the range on top must be written out.
    Zero {
        ranges: Vec<Range>,
        filling: bool,
        sync: bool,
    },
    Sync,
}

impl Plan {
    /// Read `len` bytes at `offset`.
    pub fn read(offset: u64, len: u64) -> Self {
        Self::new(Task::Read { offset, len })
    }

    /// Write `len` bytes at `offset`; `durable`: they must be so at the end.
    pub fn write(offset: u64, len: u64, durable: bool) -> Self {
        Self::new(Task::Write {
            offset,
            len,
            durable,
        })
    }

    /// Make durable what was written.
    pub fn sync() -> Self {
        Self::new(Task::Sync)
    }

    /// Give the space of ranges back; then sync, when `sync`.
    pub fn discard(ranges: Vec<Range>, block_device: bool, sync: bool) -> Self {
        Self::new(Task::Discard {
            ranges: stack(ranges),
            block_device,
            sync,
        })
    }

    /// Make ranges read as zeroes; then sync, when `sync`.
    pub fn write_zeroes(ranges: Vec<Range>, sync: bool) -> Self {
        Self::new(Task::Zero {
            ranges: stack(ranges),
            filling: false,
            sync,
        })
    }

    fn new(task: Task) -> Self {
        Self {
            task,
            done: 0,
            attempts: 0,
        }
    }

    /// The operation to run now, or the request's end when there is nothing to do.
    pub fn next(&self) -> Next {
        let done = self.done;
        let (ranges, filling) = match &self.task {
            Task::Read { len, .. } | Task::Write { len, .. } if done >= *len => {
                return Next::Done(Status::Ok);
            }
            Task::Read { offset, .. } => {
                return Next::Io(HostIo::Read {
                    offset: offset.saturating_add(done),
                    done,
                });
            }
            Task::Write {
                offset, durable, ..
            } => {
                let (offset, durable) = (offset.saturating_add(done), *durable);
                return Next::Io(HostIo::Write {
                    offset,
                    done,
                    durable,
                });
            }
            Task::Sync => return Next::Io(HostIo::Sync),
            Task::Discard {
                ranges,
                block_device,
                ..
            } => {
                return ranges.last().map_or(
                    Next::Done(Status::Ok),
                    |&Range { offset, len, .. }| {
                        Next::Io(if *block_device {
                            HostIo::Discard { offset, len }
                        } else {
                            HostIo::Punch { offset, len }
                        })
                    },
                );
            }
            Task::Zero {
                ranges, filling, ..
            } => (ranges, *filling),
        };
        ranges
            .last()
            .map_or(Next::Done(Status::Ok), |&Range { offset, len, unmap }| {
                Next::Io(match (filling, unmap) {
                    (true, _) => HostIo::WriteZeroes {
                        offset: offset.saturating_add(done),
                        len: len.saturating_sub(done),
                    },
                    (false, true) => HostIo::Punch { offset, len },
                    (false, false) => HostIo::ZeroRange { offset, len },
                })
            })
    }

    /// Takes the end of the operation that was next, a count of bytes or an error, and says what
    /// comes now.
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
        match &self.task {
            // The file ends where it did not when it was opened, or takes nothing more.
            Task::Read { .. } | Task::Write { .. } | Task::Zero { filling: true, .. }
                if count == 0 =>
            {
                return Next::Done(Status::IoError);
            }
            Task::Read { .. } | Task::Write { .. } => self.done = self.done.saturating_add(count),
            Task::Zero {
                ranges,
                filling: true,
                ..
            } => {
                self.done = self.done.saturating_add(count);
                if ranges.last().is_none_or(|range| self.done >= range.len) {
                    self.next_range();
                }
            }
            Task::Discard { .. } | Task::Zero { .. } => self.next_range(),
            Task::Sync => return Next::Done(Status::Ok),
        }
        self.next()
    }

    fn failed(&mut self, error: &io::Error) -> Next {
        let unable = matches!(
            error.raw_os_error(),
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::EINVAL)
        );
        match &mut self.task {
            // A discard is advice: a device that cannot take it has not failed.
            Task::Discard { .. } if unable => self.next_range(),
            Task::Zero { filling, .. } if unable && !*filling => *filling = true,
            _ => return Next::Done(Status::IoError),
        }
        self.next()
    }

    /// Leaves the range just done, and after the last one turns to syncing when that is asked.
    fn next_range(&mut self) {
        self.done = 0;
        let (ranges, sync) = match &mut self.task {
            Task::Discard { ranges, sync, .. } => (ranges, *sync),
            Task::Zero {
                ranges,
                filling,
                sync,
            } => {
                *filling = false;
                (ranges, *sync)
            }
            Task::Read { .. } | Task::Write { .. } | Task::Sync => return,
        };
        ranges.pop();
        if ranges.is_empty() && sync {
            self.task = Task::Sync;
        }
    }
}

impl fmt::Display for Plan {
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

/// Ranges with the first on top, without those of no length (which fallocate refuses).
fn stack(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|range| range.len > 0);
    ranges.reverse();
    ranges
}

#[cfg(test)]
mod tests;
