//! A request in flight: its plan, and the guest memory the plan's transfers use.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use outboard_device::{Request, Segment};

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
    /// `request`, to be carried out as `plan` says.
    pub fn new(request: Request, plan: Plan) -> Self {
        Self {
            request,
            plan,
            pieces: Vec::new(),
        }
    }

    /// The request, to be answered.
    pub fn into_request(self) -> Request {
        self.request
    }

    /// The memory that the operation last [gathered](Self::gather) for uses: that of the rest of
    /// the transfer, or the first part of it.
    pub fn pieces(&self) -> &[Segment] {
        &self.pieces
    }

    /// Finds the memory that `io` uses.
    pub fn gather(&mut self, io: HostIo) {
        self.pieces.clear();
        let count = |done| usize::try_from(done).unwrap_or(usize::MAX);
        // Neither cursor can be too short: the plan's lengths were taken from them. Were it so all
        // the same, no pieces would be left, and a transfer of nothing ends in an error.
        match io {
            HostIo::Read { done, .. } => {
                if let Ok((mut data, _)) = self.request.writer().split_last(1)
                    && data.skip(count(done)).is_ok()
                {
                    self.pieces.extend(data.segments().take(MAX_PIECES));
                }
            }
            HostIo::Write { done, .. } => {
                let mut data = self.request.reader();
                if data.skip(HEADER_LEN.saturating_add(count(done))).is_ok() {
                    self.pieces.extend(data.segments().take(MAX_PIECES));
                }
            }
            _ => {}
        }
    }
}
