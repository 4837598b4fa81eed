//! From the guest to the cable.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;

use outboard_device::ratelimit::RateLimit;
use outboard_device::{DeviceError, Queue, Request};
use tracing::debug;

use crate::cable::Cable;
use crate::link::Link;

/// Frames sent in one call, answered in one batch.
const BUDGET: usize = 128;

/// The sending half of a queue pair.
#[derive(Debug, Default)]
pub struct Transmit {
    /// A frame the cable had no room for.
    blocked: Option<Request>,
    done: Vec<(Request, u32)>,
}

/// What became of a frame.
enum Sent {
    /// The cable has it; or nobody ever will.
    Gone,
    /// To be tried again when the cable has room.
    Blocked,
}

impl Transmit {
    /// Sends frames while there are any; returns whether any was sent.
    pub fn run(
        &mut self,
        queue: &mut Queue,
        cable: &Cable,
        link: &Link,
    ) -> Result<bool, DeviceError> {
        while self.done.len() < BUDGET {
            let request = match self.blocked.take() {
                Some(request) => request,
                None => match queue.pop()? {
                    Some(request) => request,
                    None => break,
                },
            };
            match send(cable, link, &request) {
                Sent::Gone => self.done.push((request, 0)),
                Sent::Blocked => {
                    self.blocked = Some(request);
                    break;
                }
            }
        }
        // Also when there was nothing to send: the cable may have room for what it kept. A frame that was
        // refused has had it tried just now; room made since is told of, unless it is used up here.
        if self.blocked.is_none() {
            cable.flush();
        }
        let sent = !self.done.is_empty();
        if sent {
            queue.complete(self.done.drain(..))?;
        }
        Ok(sent)
    }

    /// Gives a frame that waits back; those already sent, when the ring broke, are done.
    pub fn drain(&mut self, queue: &mut Queue) -> Result<(), DeviceError> {
        queue.complete(self.done.drain(..))?;
        if let Some(request) = self.blocked.take() {
            queue.give_back(request);
        }
        Ok(())
    }
}

fn send(cable: &Cable, link: &Link, request: &Request) -> Sent {
    if !link.is_up() {
        return Sent::Gone;
    }
    loop {
        let Err(error) = cable.send(request) else {
            return Sent::Gone;
        };
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Sent::Blocked,
            _ if cable.gone(&error, link) => return Sent::Gone,
            // A frame without a whole header, a header that contradicts the frame, an interface
            // that is down: networks lose frames.
            _ => {
                static LIMIT: RateLimit = RateLimit::new();
                if let Some(unseen) = LIMIT.pass() {
                    debug!("'{}' refused a frame: {error}{unseen}", cable.name());
                }
                return Sent::Gone;
            }
        }
    }
}
