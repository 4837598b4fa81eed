//! The simple level's view of its queues: streams of requests, on the worker's own thread.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::LazyLock;

use tokio::sync::Notify;
use tracing::warn;

use super::{Queue, QueueError};
use crate::request::Request;

/// The queues of a group, shared between the worker's loop, the streams and the requests. All of
/// them live on one thread.
pub(crate) struct SharedGroup {
    queues: RefCell<Vec<Queue>>,
    /// One per queue: there may be something to pop.
    news: Vec<Notify>,
    stopping: Cell<bool>,
}

impl SharedGroup {
    pub(crate) fn new(queues: Vec<Queue>) -> Rc<Self> {
        Rc::new(Self {
            news: queues.iter().map(|_| Notify::new()).collect(),
            queues: RefCell::new(queues),
            stopping: Cell::new(false),
        })
    }

    /// A stream per queue, in order.
    pub(crate) fn streams(self: &Rc<Self>) -> Vec<RequestStream> {
        let queues = self.queues.borrow();
        let streams = queues.iter().enumerate();
        streams
            .map(|(slot, queue)| RequestStream {
                group: Rc::clone(self),
                slot,
                index: queue.index(),
                asleep: false,
            })
            .collect()
    }

    /// Runs `f` on the queues. `f` must not wait.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Vec<Queue>) -> T) -> T {
        f(&mut self.queues.borrow_mut())
    }

    /// Wakes the stream of this queue.
    pub(crate) fn wake(&self, slot: usize) {
        if let Some(news) = self.news.get(slot) {
            news.notify_one();
        }
    }

    /// Wakes every stream, and whatever else waits for its queue.
    pub(crate) fn wake_all(&self) {
        for news in &self.news {
            // A device may wait in several places at once: all see what has changed, and so does
            // one that only begins to wait.
            news.notify_waiters();
            news.notify_one();
        }
    }

    /// Ends all streams.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.with(|queues| queues.iter_mut().for_each(Queue::begin_drain));
        self.wake_all();
    }
}

/// The requests of one queue, in the driver's order.
pub struct RequestStream {
    group: Rc<SharedGroup>,
    slot: usize,
    index: u16,
    /// The queue was armed since the last request.
    asleep: bool,
}

impl RequestStream {
    /// Index of the queue within the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    fn with_queue<T>(&self, f: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        self.group.with(|queues| queues.get_mut(self.slot).map(f))
    }

    /// The next request, if the driver has made one available already.
    pub fn try_next(&mut self) -> Result<Option<StreamRequest>, QueueError> {
        let popped = self.with_queue(Queue::pop).unwrap_or(Ok(None))?;
        Ok(popped.map(|request| StreamRequest {
            request: Some(request),
            group: Rc::clone(&self.group),
            slot: self.slot,
        }))
    }

    /// The next request; waits for one. `None` when the queue is to stop: finish what is held.
    /// Cancel-safe: nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Result<Option<StreamRequest>, QueueError> {
        loop {
            if self.group.stopping.get() {
                return Ok(None);
            }
            if let Some(request) = self.try_next()? {
                if mem::take(&mut self.asleep) {
                    self.with_queue(Queue::disarm);
                }
                return Ok(Some(request));
            }
            if self.with_queue(Queue::arm).unwrap_or(false) {
                continue;
            }
            self.asleep = true;
            if let Some(news) = self.group.news.get(self.slot) {
                news.notified().await;
            }
        }
    }
}

impl RequestStream {
    /// Waits until the queue is to stop: for a device that holds a request and waits for something
    /// else than the next one. Cancel-safe.
    pub async fn stopped(&self) {
        while !self.group.stopping.get() {
            match self.group.news.get(self.slot) {
                // What else this wakes up for is still there for `next`, which looks first.
                Some(news) => news.notified().await,
                None => std::future::pending().await,
            }
        }
    }
}

impl fmt::Debug for RequestStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestStream({})", self.index)
    }
}

/// A request of the simple level: reads and writes like a [`Request`] and knows its queue.
///
/// When dropped unanswered it is completed with nothing written, or given back if the queue is
/// stopping.
pub struct StreamRequest {
    /// `None` only once answered.
    request: Option<Request>,
    group: Rc<SharedGroup>,
    slot: usize,
}

impl StreamRequest {
    /// Answers the request; `written` as in [`Queue::complete`](super::Queue::complete).
    pub fn complete(mut self, written: u32) -> Result<(), QueueError> {
        self.finish(|queue, request| queue.complete([(request, written)]))
            .unwrap_or(Ok(()))
    }

    /// Returns the request as if it had never been taken.
    pub fn give_back(mut self) {
        self.finish(Queue::give_back);
    }

    fn finish<T>(&mut self, f: impl FnOnce(&mut Queue, Request) -> T) -> Option<T> {
        let request = self.request.take()?;
        self.group
            .with(|queues| queues.get_mut(self.slot).map(|queue| f(queue, request)))
    }
}

impl Drop for StreamRequest {
    fn drop(&mut self) {
        if self.group.stopping.get() {
            self.finish(Queue::give_back);
        } else if let Some(Err(error)) =
            self.finish(|queue, request| queue.complete([(request, 0)]))
        {
            warn!(%error, "a dropped request could not be completed");
        }
    }
}

impl Deref for StreamRequest {
    type Target = Request;

    fn deref(&self) -> &Request {
        static ANSWERED: LazyLock<Request> = LazyLock::new(|| Request {
            chain: Box::default(),
        });
        // Answering takes the value, so nobody can look at one that is.
        self.request.as_ref().unwrap_or_else(|| &ANSWERED)
    }
}

impl fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}
