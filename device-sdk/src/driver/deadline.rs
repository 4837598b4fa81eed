//! A deadline on every request: when it passes, the connection is cut.
//!
//! The `vhost` crate retries a read that timed out for ever, so socket timeouts cannot bound it.
//! A timer thread shuts the socket down instead, which ends the read; and since a late reply would
//! answer the next request, cutting the connection is also the only right thing to do.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    /// When the request in progress is to end, if there is one.
    end: Option<Instant>,
    /// A deadline passed: the socket was shut down.
    expired: bool,
    /// The thread is to leave.
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The timer of one connection.
#[derive(Debug)]
pub(super) struct Deadline {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Deadline {
    /// Starts the timer's thread; it holds `stream`, a clone of the connection.
    pub(super) fn new(stream: UnixStream) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let timer = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("deadline".into())
            .spawn(move || watch(&timer, &stream))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Runs `request`, which may block on the socket for at most `limit`.
    ///
    /// `Err` holds the request's own result if the deadline passed, now or ever.
    pub(super) fn bound<T>(&self, limit: Duration, request: impl FnOnce() -> T) -> Result<T, T> {
        self.set(Some(Instant::now() + limit));
        let result = request();
        if self.set(None) {
            Err(result)
        } else {
            Ok(result)
        }
    }

    fn set(&self, end: Option<Instant>) -> bool {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.end = end;
        // Only a new, earlier end needs the thread: it finds a cleared one by itself.
        if end.is_some() {
            self.shared.changed.notify_one();
        }
        state.expired
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A timer that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, stream: &UnixStream) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.closed {
        state = match state.end {
            None => shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.expired = true;
                    state.end = None;
                    // It fails only on a socket that is no longer connected.
                    let _ = stream.shutdown(Shutdown::Both);
                    continue;
                }
                let woken = shared.changed.wait_timeout(state, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_read_that_gets_no_answer_ends() {
        let (mut near, _far) = UnixStream::pair().unwrap();
        let deadline = Deadline::new(near.try_clone().unwrap()).unwrap();
        let read = deadline.bound(Duration::from_millis(20), || near.read(&mut [0]));
        assert!(matches!(read, Err(Ok(0))));
        assert!(
            deadline.bound(Duration::from_mins(1), || ()).is_err(),
            "it stays cut"
        );
    }

    #[test]
    fn an_answer_in_time_leaves_the_connection_alone() {
        let (near, far) = UnixStream::pair().unwrap();
        let deadline = Deadline::new(near.try_clone().unwrap()).unwrap();
        assert!(deadline.bound(Duration::from_millis(1), || ()).is_ok());
        thread::sleep(Duration::from_millis(20));
        assert!(deadline.bound(Duration::from_mins(1), || ()).is_ok());
        far.set_nonblocking(true).unwrap();
        assert!((&far).read(&mut [0]).is_err(), "still open");
    }
}
