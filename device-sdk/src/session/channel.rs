//! The backend's own channel to the frontend, and the device's handle on it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use super::raw;
use crate::device::DeviceEvents;
use crate::worker::Breakage;

/// Where the device's announcements go: nowhere, until the frontend opens the channel.
#[derive(Debug, Default)]
pub(super) struct Channel(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stream: Option<UnixStream>,
    /// Something was announced before there was a channel.
    missed: bool,
}

impl Channel {
    /// The frontend has sent its end.
    pub(super) fn open(&self, stream: OwnedFd) {
        let stream = UnixStream::from(stream);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut inner.missed) {
            raw::send_config_change(&stream);
        }
        inner.stream = Some(stream);
    }

    /// The connection is over; announcements go nowhere again.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Inner::default();
    }

    fn announce(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &inner.stream {
            Some(stream) => raw::send_config_change(stream),
            None => inner.missed = true,
        }
    }

    /// The device's handle.
    pub(super) fn events(self: &Arc<Self>, breakage: &Arc<Breakage>) -> DeviceEvents {
        let (channel, breakage) = (Arc::clone(self), Arc::clone(breakage));
        DeviceEvents::new(move || channel.announce()).on_failure(move |error| breakage.mark(error))
    }
}
