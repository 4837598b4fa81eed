//! A request in flight: its plan, and the guest memory the plan's transfers use.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use outboard_device::{Reader, Request, Segment, Writer};

use crate::plan::{HostIo, Plan};
use crate::request::HEADER_LEN;

/// Most pieces of memory one read or write may name (`IOV_MAX`, readv(2)).
const MAX_PIECES: usize = 1024;

/// A request in flight.
#[derive(Debug)]
pub struct Op {
    request: Request,
    /// How it is carried out.
    pub plan: Plan,
    pieces: Vec<Segment>,
}

impl Op {
    /// `request`, to be carried out as `plan` says. `pieces` is an earlier op's list, for reuse.
    pub fn new(request: Request, plan: Plan, pieces: Vec<Segment>) -> Self {
        Self {
            request,
            plan,
            pieces,
        }
    }

    /// The request, to be answered, and the list.
    pub fn into_parts(self) -> (Request, Vec<Segment>) {
        (self.request, self.pieces)
    }

    /// The memory that the operation last [gathered](Self::gather) for uses: that of the rest of
    /// the transfer, or the first part of it.
    pub fn pieces(&self) -> &[Segment] {
        &self.pieces
    }

    /// Finds the memory that `io` uses.
    pub fn gather(&mut self, io: HostIo) {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.clear();
        match io {
            HostIo::Read { done, .. } => {
                if let Some(data) = self.room(done) {
                    pieces.extend(data.segments().take(MAX_PIECES));
                }
            }
            HostIo::Write { done, .. } => {
                if let Some(data) = self.data(done) {
                    pieces.extend(data.segments().take(MAX_PIECES));
                }
            }
            _ => {}
        }
        self.pieces = pieces;
    }

    /// Where the rest of a read goes, when `done` bytes of it are done.
    ///
    /// It cannot be missing: the plan's lengths were taken from the request. Were it so all the
    /// same, no memory would be left, and a transfer of nothing ends in an error.
    pub fn room(&self, done: u64) -> Option<Writer<'_>> {
        let (mut data, _) = self.request.writer().split_last(1).ok()?;
        data.skip(usize::try_from(done).ok()?).ok()?;
        Some(data)
    }

    /// The rest of what is to be written, as above.
    pub fn data(&self, done: u64) -> Option<Reader<'_>> {
        let mut data = self.request.reader();
        let done = usize::try_from(done).ok()?;
        data.skip(HEADER_LEN.checked_add(done)?).ok()?;
        Some(data)
    }
}
