//! What the device tells its driver unasked: the backend's own requests.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::error::{DriverError, Result};
use super::raw;

/// The device's config space changed.
const CONFIG_CHANGE: u32 = 2;

/// Reads and acknowledges the backend's requests on a thread of its own, for as long as it lives.
#[derive(Debug)]
pub(super) struct Notices {
    config_changes: Arc<AtomicU64>,
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Notices {
    /// Opens the channel; the stream is the device's end, to be sent to it.
    pub(super) fn open() -> Result<(Self, UnixStream)> {
        let failed = |source| DriverError::Socket {
            doing: "opening the backend's channel",
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let stream = ours.try_clone().map_err(failed)?;
        let config_changes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&config_changes);
        let thread = thread::Builder::new()
            .name("notices".into())
            .spawn(move || read(&ours, &counter))
            .map_err(failed)?;
        Ok((
            Self {
                config_changes,
                stream,
                thread: Some(thread),
            },
            theirs,
        ))
    }

    /// How often the device's config space changed.
    pub(super) fn config_changes(&self) -> u64 {
        self.config_changes.load(Ordering::Acquire)
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        // It fails only on a socket that is no longer connected.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A reader that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn read(stream: &UnixStream, config_changes: &AtomicU64) {
    while let Ok((header, _payload)) = raw::receive_request(stream) {
        let known = header.request == CONFIG_CHANGE;
        if known {
            config_changes.fetch_add(1, Ordering::AcqRel);
        }
        if header.flags & raw::NEED_REPLY != 0 {
            let flags = raw::VERSION | raw::REPLY;
            let reply = raw::Header {
                request: header.request,
                flags,
                size: 8,
            };
            if raw::send(stream, reply, &u64::from(!known).to_ne_bytes()).is_err() {
                return;
            }
        }
    }
}
