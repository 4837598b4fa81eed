//! What can go wrong on the driver's side.

use std::io;
use std::time::Duration;

use super::memory::MemoryError;
use super::ring::RingError;

/// A failure of the driver or of the device it drives.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The socket could not be reached, cloned or used.
    #[error("the vhost-user socket failed while {doing}; is the daemon running?")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A request on the socket failed. The connection may or may not still be usable: a device
    /// that merely refused says [`DriverError::Refused`].
    #[error("the vhost-user request {request} failed")]
    Request {
        /// The message's name in the vhost-user specification.
        request: &'static str,
        /// Why it failed.
        #[source]
        source: vhost::Error,
    },
    /// The device answered a request with a non-zero acknowledgement.
    #[error("the device refused the vhost-user request {request}")]
    Refused {
        /// The message's name in the vhost-user specification.
        request: &'static str,
    },
    /// The device did not answer in time, and the connection was cut.
    #[error("the device did not answer the vhost-user request {request} within {limit:?}")]
    Deadline {
        /// The message's name in the vhost-user specification.
        request: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// A reply that is not one.
    #[error("the device's reply to {request} is malformed: {reason}")]
    Reply {
        /// The message's name in the vhost-user specification.
        request: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The device does not offer what this driver cannot do without.
    #[error("the device does not offer {0}")]
    Missing(&'static str),
    /// A queue index that was not started, or is past the device's last queue.
    #[error("queue {0} is not started; start it first, and see queue_count()")]
    NoQueue(u16),
    /// Guest memory could not be made or has no room left.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The ring is full, or the device corrupted it.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// An eventfd could not be made, written or waited for.
    #[error("an eventfd of queue {queue} failed")]
    Event {
        /// The queue's index.
        queue: u16,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Nothing was completed in time.
    #[error("the device completed nothing on queue {queue} within {limit:?}")]
    Timeout {
        /// The queue's index.
        queue: u16,
        /// How long it had.
        limit: Duration,
    },
    /// The daemon could not be started.
    #[error("cannot start the daemon {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The device completed a request with a failure, or with nonsense.
    #[error("the device failed the request: {0}")]
    Device(String),
}

/// The result of anything the driver does.
pub type Result<T> = std::result::Result<T, DriverError>;
