//! Devices of plugins.
//!
//! What a plugin offers is asked of a process that may die of the answer ([`inspect`]); that of one which is part
//! of this program is known ([`library`]). Then the device
//! is one of three: a daemon, `outboard-plugin-host`, as any other; a virtio device in this process,
//! served from a thread of its own over a stream ([`serve`]); or registers on the machine's buses
//! ([`registers`]).

pub mod inspect;
pub mod library;
pub mod registers;
pub mod serve;
pub mod settle;

pub use inspect::{Inspected, InspectedDevice, InspectedKind, InspectedOption};
pub use settle::{PluginsError, Settled, settle, settle_one};
