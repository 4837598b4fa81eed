//! From the cable to the guest.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;

use outboard_device::ratelimit::RateLimit;
use outboard_device::{DeviceError, Queue, Request};
use tracing::debug;

use crate::cable::Cable;
use crate::filter::{HEAD_LEN, View};
use crate::link::Link;
use crate::posted::{Posted, Received};

/// Frames received in one call, and what is none, answered in one batch.
const BUDGET: usize = 64;

/// Buffers taken in one call at most.
const GATHER_BUDGET: usize = 1024;

/// The receiving half of a queue pair.
#[derive(Debug)]
pub struct Receive {
    posted: Posted,
    filter: View,
    /// The cable may hold frames: it has not said otherwise since it last became readable.
    readable: bool,
    done: Vec<(Request, u32)>,
}

impl Receive {
    /// `mergeable`: the driver took `VIRTIO_NET_F_MRG_RXBUF`.
    pub fn new(filter: View, mergeable: bool) -> Self {
        Self {
            posted: Posted::new(mergeable),
            filter,
            readable: true,
            done: Vec::new(),
        }
    }

    /// The cable has become readable.
    pub fn wake(&mut self) {
        self.readable = true;
    }

    /// Receives frames while there are any and buffers for them; returns whether more may be had
    /// at once.
    pub fn run(
        &mut self,
        queue: &mut Queue,
        cable: &Cable,
        link: &Link,
    ) -> Result<bool, DeviceError> {
        let mut taken = 0usize;
        let mut frames = 0usize;
        let mut starved = false;
        while queue.enabled() && frames < BUDGET && taken < GATHER_BUDGET {
            taken = taken.saturating_add(self.gather(queue)?);
            let received = match self.posted.retry(usize::from(queue.size())) {
                Some(Received::Waiting) => {
                    starved = true;
                    break;
                }
                Some(received) => received,
                None if !self.readable => break,
                None if self.posted.is_empty() => {
                    starved = true;
                    break;
                }
                None => match cable.receive(&mut self.posted) {
                    Ok(received) => self.filtered(received),
                    Err(error) => {
                        self.failed(&error, cable, link);
                        continue;
                    }
                },
            };
            frames = frames.saturating_add(1);
            match received {
                Received::Frame { len } => self.posted.take(len, &mut self.done),
                Received::Dropped => dropped(),
                // What it needs may be in the ring already, or may never be: see in the next round.
                Received::Waiting | Received::Unwanted | Received::Runt => {}
            }
        }
        // Frames come up whole: all buffers of each are in the same batch.
        if !self.done.is_empty() {
            queue.complete(self.done.drain(..))?;
        }
        // New buffers matter only to one who lacks them.
        queue.set_kicks(starved);
        // Who has taken so many may not have seen the end of the ring, where there may be some of use.
        Ok(frames > 0 && !starved || taken >= GATHER_BUDGET)
    }

    /// Gives every buffer back, the last one first; those already filled, when the ring broke
    /// under them, are the guest's.
    pub fn drain(&mut self, queue: &mut Queue) -> Result<(), DeviceError> {
        queue.complete(self.done.drain(..))?;
        while let Some(request) = self.posted.pop_back() {
            queue.give_back(request);
        }
        queue.set_kicks(true);
        Ok(())
    }

    /// Takes buffers as long as they are of use; returns how many.
    fn gather(&mut self, queue: &mut Queue) -> Result<usize, DeviceError> {
        let mut count = 0usize;
        while self.posted.wants_more() && count < GATHER_BUDGET {
            let Some(request) = queue.pop()? else { break };
            count = count.saturating_add(1);
            if let Err(useless) = self.posted.push(request) {
                static LIMIT: RateLimit = RateLimit::new();
                if let Some(unseen) = LIMIT.pass() {
                    debug!("A receive buffer is too small or too scattered{unseen}");
                }
                self.done.push((useless, 0));
            }
        }
        Ok(count)
    }

    /// The frame that has just been received, if the guest wants it.
    fn filtered(&mut self, received: Received) -> Received {
        let rules = self.filter.rules();
        if rules.pass_all() || matches!(received, Received::Dropped | Received::Runt) {
            return received;
        }
        if rules.pass(self.posted.head(&mut [0; HEAD_LEN])) {
            return received;
        }
        self.posted.forget();
        Received::Unwanted
    }

    fn failed(&mut self, error: &io::Error, cable: &Cable, link: &Link) {
        // Else it is empty; or down, or deleted.
        if error.kind() != io::ErrorKind::Interrupted {
            self.readable = false;
            cable.gone(error, link);
        }
    }
}

fn dropped() {
    static LIMIT: RateLimit = RateLimit::new();
    if let Some(unseen) = LIMIT.pass() {
        debug!("A frame is longer than the guest's receive buffers: dropped{unseen}");
    }
}
