//! One queue's worker: takes requests, keeps them in flight on an engine, answers what has ended.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use outboard_device::{DeviceError, Progress, Queue, QueueWorker, Ready, Request, Segment, Watch};

use crate::disk::SERIAL_LEN;
use crate::engine::Engine;
use crate::image::Image;
use crate::log;
use crate::op::Op;
use crate::plan::Plan;
use crate::request::{Command, HEADER_LEN, Limits, MAX_RANGES_LEN, Range, Status};

/// Requests taken in one call, so that control messages are heard.
const BUDGET: usize = 512;

/// Answers held back, so as to publish them together, while more requests are taken: few enough
/// that the guest can work on some while we work on others.
const PUBLISH_BATCH: usize = 16;

/// Lists of pieces kept for reuse have no more room than this, so that one long request does not cost
/// its memory for ever.
const KEPT_PIECES: usize = 16;

/// Serves one queue of a disk. What is in flight ends before the worker does.
#[derive(Debug)]
pub struct BlockWorker {
    image: Arc<Image>,
    engine: Engine,
    limits: Limits,
    serial: [u8; SERIAL_LEN],
    /// Every write is durable when it ends: the driver does not know how to flush.
    writethrough: bool,
    /// Ended and not yet given to the queue.
    done: Vec<(Request, u32)>,
    /// Lists of pieces of ops that have ended, for reuse.
    pieces: Vec<Vec<Segment>>,
}

/// What becomes of a request just taken.
enum Taken {
    /// It needs the host.
    Op(Op),
    /// It can be answered at once.
    Done(Request, Status),
}

impl BlockWorker {
    /// A worker over `image` that keeps to `limits`.
    pub fn new(
        image: Arc<Image>,
        engine: Engine,
        limits: Limits,
        serial: [u8; SERIAL_LEN],
        writethrough: bool,
    ) -> Self {
        Self {
            image,
            engine,
            limits,
            serial,
            writethrough,
            done: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// Takes note of an op that has ended.
    fn end(&mut self, op: Op, status: Status) {
        let (request, pieces) = op.into_parts();
        if pieces.capacity() <= KEPT_PIECES {
            self.pieces.push(pieces);
        }
        self.done.push(answer(request, status));
    }

    /// Takes requests while there are any, and room for them; returns how many.
    fn take(&mut self, queue: &mut Queue) -> Result<usize, DeviceError> {
        let mut taken = 0usize;
        while taken < BUDGET && self.engine.has_room() {
            let Some(request) = queue.pop()? else { break };
            taken = taken.saturating_add(1);
            match self.read(request) {
                Taken::Op(op) => {
                    if let Some((op, status)) = self.engine.begin(op) {
                        self.end(op, status);
                    }
                }
                Taken::Done(request, status) => self.done.push(answer(request, status)),
            }
            if self.done.len() >= PUBLISH_BATCH {
                queue.complete(self.done.drain(..))?;
            }
        }
        self.engine.submit();
        Ok(taken)
    }

    /// Gathers what has ended and gives it to the queue in one batch; returns how many.
    fn answer(&mut self, queue: &mut Queue) -> Result<usize, DeviceError> {
        while let Some((op, status)) = self.engine.finished() {
            self.end(op, status);
        }
        // Ops that go on after a short transfer queue another operation.
        self.engine.submit();
        let count = self.done.len();
        if count > 0 {
            queue.complete(self.done.drain(..))?;
        }
        Ok(count)
    }

    /// Reads what a request asks for.
    fn read(&mut self, request: Request) -> Taken {
        let mut reader = request.reader();
        let mut header = [0; HEADER_LEN];
        let Ok((data, _)) = request.writer().split_last(1) else {
            return Taken::Done(request, Status::IoError);
        };
        if reader.read_exact(&mut header).is_err() {
            log::malformed("no whole header");
            return Taken::Done(request, Status::IoError);
        }
        let (size, limits) = (self.image.size(), self.limits);
        let command = match Command::parse(header, reader.len(), data.len(), size, limits) {
            Ok(command) => command,
            Err(status) => return Taken::Done(request, status),
        };
        let sync = self.writethrough;
        let plan = match command {
            Command::Read { offset, len } => Plan::read(offset, len),
            Command::Write { offset, len } => Plan::write(offset, len, sync),
            Command::Flush => Plan::sync(),
            Command::GetId => {
                let mut data = data;
                data.write(&self.serial);
                return Taken::Done(request, Status::Ok);
            }
            Command::Discard | Command::WriteZeroes => match Self::ranges(command, reader, size) {
                Ok(ranges) if command == Command::Discard => {
                    Plan::discard(ranges, self.image.is_block_device(), sync)
                }
                Ok(mut ranges) => {
                    for range in &mut ranges {
                        range.unmap &= self.image.can_discard();
                    }
                    Plan::write_zeroes(ranges, sync)
                }
                Err(status) => return Taken::Done(request, status),
            },
        };
        Taken::Op(Op::new(
            request,
            plan,
            self.pieces.pop().unwrap_or_default(),
        ))
    }

    /// Copies the ranges behind a header out and reads them.
    fn ranges(
        command: Command,
        mut reader: outboard_device::Reader<'_>,
        size: u64,
    ) -> Result<Vec<Range>, Status> {
        let mut bytes = [0; MAX_RANGES_LEN];
        let bytes = bytes.get_mut(..reader.len()).ok_or(Status::IoError)?;
        reader.read_exact(bytes).map_err(|_| Status::IoError)?;
        Range::parse_all(bytes, command, size)
    }

    fn progress(&self, worked: bool) -> Progress {
        match (worked, self.engine.in_flight()) {
            (true, _) => Progress::Worked,
            _ if self.engine.is_behind() => Progress::Worked,
            (false, 0) => Progress::Idle,
            (false, _) => Progress::Waiting,
        }
    }
}

impl QueueWorker for BlockWorker {
    fn run(&mut self, queues: &mut [Queue], _ready: Ready) -> Result<Progress, DeviceError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        let before = self.answer(queue)?;
        let taken = self.take(queue)?;
        // What the page cache held has ended already.
        let after = self.answer(queue)?;
        Ok(self.progress(before > 0 || taken > 0 || after > 0))
    }

    fn event_fds(&self) -> Vec<Watch<'_>> {
        self.engine.event_fds()
    }

    fn poll(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        let ended = self.answer(queue)?;
        Ok(self.progress(ended > 0))
    }

    fn drain(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        self.poll(queues)
    }
}

/// Writes the status and says how long the answer is: all the guest gave room for. (After an
/// error part of it may hold what the guest had there before.)
fn answer(request: Request, status: Status) -> (Request, u32) {
    let writer = request.writer();
    let len = writer.len();
    match writer.split_last(1) {
        Ok((_, mut last)) => {
            last.write(&[status.byte()]);
        }
        Err(_) => log::malformed("no room for a status"),
    }
    (request, u32::try_from(len).unwrap_or(u32::MAX))
}
