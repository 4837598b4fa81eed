//! The ring engine: one [`Queue`] per virtqueue, and the streams of the simple level.

mod stream;

pub use stream::{RequestStream, StreamRequest};

use crate::request::Request;

/// The guest broke the rules of a ring. The ring takes no more work until the device is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The ring was found broken earlier.
    #[error("queue {queue} is broken since an earlier error; reset the device")]
    Broken {
        /// Index of the queue within the device.
        queue: u16,
    },
}

/// One virtqueue, as its worker sees it. Lives on the worker's thread.
#[derive(Debug)]
pub struct Queue {
    index: u16,
    size: u16,
}

impl Queue {
    /// Index of the queue within the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Ring size in entries: the most requests that can be in flight. 0 while not set up.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Whether the driver has set the queue up and enabled it. Nothing is popped from one that
    /// is not; requests already in flight may still be completed.
    pub fn enabled(&self) -> bool {
        self.size != 0
    }

    /// Takes the next chain the driver has made available; `None` when there is none now (a kick
    /// will announce the next).
    pub fn pop(&mut self) -> Result<Option<Request>, QueueError> {
        Ok(None)
    }

    /// Answers requests, each with the number of bytes written to it (which says nothing about
    /// success: that is in the device class's own status). The whole batch becomes visible to the
    /// driver at once, with one write of the used index and at most one interrupt.
    pub fn complete(
        &mut self,
        done: impl IntoIterator<Item = (Request, u32)>,
    ) -> Result<(), QueueError> {
        drop(done);
        Ok(())
    }

    /// Returns a request nobody has acted on. It is popped again next, or left to whoever serves
    /// the queue after this worker has stopped.
    pub fn give_back(&mut self, request: Request) {
        drop(request);
    }

    /// Whether a driver's kick should call the worker. On by default; a worker that has what it
    /// needs from this queue (enough receive buffers) may turn kicks off to spare wake-ups.
    pub fn set_kicks(&mut self, wanted: bool) {
        let _ = wanted;
    }
}
