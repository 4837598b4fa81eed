//! A ring of either format, from the driver's side.

pub use super::descriptor::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, Segment, Used};
pub use super::packed::PackedRing;
pub use super::split::{SplitRing, crosses};

use super::layout::RingLayout;
use super::memory::Window;

/// The ring is full, or the device broke it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// There are not enough free descriptors now; complete some requests first.
    #[error("the chain needs {needed} descriptors and {free} are free; poll for completions first")]
    Full {
        /// How many the chain takes.
        needed: usize,
        /// How many are free.
        free: usize,
    },
    /// A chain has at least one buffer.
    #[error("a chain needs at least one buffer")]
    Empty,
    /// The device completed a chain that it was not given.
    #[error("the device put head {0} in the used ring, which is not outstanding")]
    NotOutstanding(u32),
    /// The device says it completed more chains than it was given.
    #[error(
        "the device's used index {index} is {ahead} ahead of the driver's, {outstanding} chains are outstanding"
    )]
    UsedIndex {
        /// The index in the used ring.
        index: u16,
        /// How far it is beyond the last element read.
        ahead: u16,
        /// How many chains the device had.
        outstanding: u16,
    },
}

/// Tables for chains of more than one buffer, one for each head.
#[derive(Debug)]
pub struct IndirectTables {
    /// The tables, one after another.
    pub window: Window,
    /// Entries in each.
    pub entries: u16,
}

/// The driver's half of a ring.
#[derive(Debug)]
pub enum Ring {
    /// A split ring (virtio 1.2, section 2.7).
    Split(SplitRing),
    /// A packed ring (virtio 1.2, section 2.8).
    Packed(PackedRing),
}

/// The same call on either ring.
macro_rules! either {
    ($self:expr, $ring:ident => $call:expr) => {
        match $self {
            Ring::Split($ring) => $call,
            Ring::Packed($ring) => $call,
        }
    };
}

impl Ring {
    /// The split ring, to be filled by hand.
    ///
    /// # Panics
    /// If it is a packed one.
    #[allow(clippy::panic)] // Whoever asks has set it up.
    pub fn split(&self) -> &SplitRing {
        match self {
            Self::Split(ring) => ring,
            Self::Packed(_) => panic!("a split ring was expected"),
        }
    }

    /// The ring's memory, for tests that write it by hand.
    pub fn memory(&self) -> &Window {
        either!(self, ring => ring.memory())
    }

    /// Where the parts of the ring are.
    pub fn layout(&self) -> &RingLayout {
        either!(self, ring => ring.layout())
    }

    /// How many chains the device has.
    pub fn outstanding(&self) -> u16 {
        either!(self, ring => ring.outstanding())
    }

    /// What `SET_VRING_BASE` says of a ring whose indices, or of a packed ring whose slots passed, are
    /// `base` on both sides.
    pub fn wire_base(&self, base: u16) -> u32 {
        match self {
            Self::Split(_) => base.into(),
            Self::Packed(ring) => ring.wire_base(base),
        }
    }

    /// Adds a chain; the device sees it after [`publish`](Self::publish). `token` comes back with it.
    #[inline]
    pub fn add(&mut self, chain: &[Segment], token: u64) -> Result<(), RingError> {
        either!(self, ring => ring.add(chain, token))
    }

    /// Shows the device every chain added so far.
    #[inline]
    pub fn publish(&mut self) {
        either!(self, ring => ring.publish());
    }

    /// Whether the device asked to be kicked for what was published since the last call.
    #[inline]
    pub fn needs_kick(&mut self) -> bool {
        either!(self, ring => ring.needs_kick())
    }

    /// Takes back one completed chain, in the order the device completed them.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used>, RingError> {
        either!(self, ring => ring.pop())
    }

    /// Asks to be notified of the next completion. True if one is already there: then poll again
    /// instead of sleeping.
    #[inline]
    pub fn arm(&mut self) -> bool {
        either!(self, ring => ring.arm())
    }

    /// Asks not to be notified, until the next [`arm`](Self::arm); of a split ring to be renewed after some
    /// thousand completions, since an index comes round.
    #[inline]
    pub fn disarm(&mut self) {
        either!(self, ring => ring.disarm());
    }

    /// Asks to be notified only once `count` more chains have completed, where the ring can say so (a
    /// split one with `EVENT_IDX`), else at the next completion. True if they have already.
    pub fn arm_after(&mut self, count: u16) -> bool {
        match self {
            Self::Split(ring) => ring.arm_after(count),
            Self::Packed(ring) => ring.arm(),
        }
    }
}
