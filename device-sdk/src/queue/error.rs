//! What can be wrong with a queue.

use super::ChainError;

/// The guest broke the rules of a ring, or a device those of the engine. The ring takes no more
/// work until it is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The ring was found broken earlier.
    #[error("queue {queue} is broken since an earlier error; reset the device")]
    Broken {
        /// Index of the queue within the device.
        queue: u16,
    },
    /// The driver's chain cannot be used.
    #[error("queue {queue}: the chain at descriptor {head} is malformed")]
    Chain {
        /// Index of the queue within the device.
        queue: u16,
        /// Index of the chain's first descriptor.
        head: u16,
        /// What is wrong with it.
        #[source]
        source: ChainError,
    },
    /// The driver claims to have made more chains available, with those still in flight, than the
    /// ring has entries.
    #[error("queue {queue}: the available index {index} is too far beyond {next}")]
    AvailableIndex {
        /// Index of the queue within the device.
        queue: u16,
        /// What the driver wrote.
        index: u16,
        /// The next chain to be taken.
        next: u16,
    },
    /// The device completed a request on a queue it did not come from.
    #[error("queue {queue}: a request of another queue was completed here")]
    Foreign {
        /// Index of the queue within the device.
        queue: u16,
    },
}
