//! The simple level's view of a queue: a stream of requests.

use std::ops::Deref;

use super::QueueError;
use crate::request::Request;

/// The requests of one queue, in the driver's order.
#[derive(Debug)]
pub struct RequestStream {
    index: u16,
}

impl RequestStream {
    /// Index of the queue within the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The next request; waits for one. `None` when the queue is to stop: finish what is held.
    /// Cancel-safe: nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Result<Option<StreamRequest>, QueueError> {
        std::future::ready(()).await;
        Ok(None)
    }
}

/// A request of the simple level: reads and writes like a [`Request`] and knows its queue.
///
/// When dropped unanswered it is completed with nothing written, or given back if the queue is
/// stopping.
#[derive(Debug)]
pub struct StreamRequest {
    request: Request,
}

impl StreamRequest {
    /// Answers the request; `written` as in [`Queue::complete`](super::Queue::complete).
    pub fn complete(self, written: u32) -> Result<(), QueueError> {
        let _ = written;
        Ok(())
    }

    /// Returns the request as if it had never been taken.
    pub fn give_back(self) {}
}

impl Deref for StreamRequest {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}
