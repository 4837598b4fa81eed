//! PCI: one bus of 32 slots behind a host bridge, its config space by ECAM and ports, BARs
//! that the guest may move, and MSI-X.
//!
//! | file | idea |
//! |---|---|
//! | `function.rs` | what the root needs of a function |
//! | `config_space.rs` | the registers of a header, each bit writable or not |
//! | `bar.rs` | base address registers |
//! | `root.rs` | slots, and where BARs are mapped |
//! | `access.rs` | ports 0xcf8/0xcfc and ECAM |
//! | `host_bridge.rs` | slot 0 |
//! | `msix.rs` | vector table, pending bits |
//! | `wiring.rs` | the hypervisor behind interrupts and doorbells |
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod access;
mod bar;
mod config_space;
mod function;
mod host_bridge;
pub mod msix;
pub(crate) mod pending;
mod root;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wiring;

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use outboard_device::ratelimit::RateLimit;

pub use access::{ConfigPorts, Ecam};
pub use bar::{BarKind, BarSpec};
pub use config_space::{ConfigSpace, Ids};
pub use function::PciFunction;
pub use host_bridge::HostBridge;
pub use root::{BarWindows, PciError, PciRoot};
pub use wiring::{KvmWiring, Wiring, WiringError};

/// Locks a mutex whose data no panic can leave half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs what went wrong and why, for things that a guest can cause as often as it likes.
pub(crate) fn warn(limit: &RateLimit, what: &str, cause: &(dyn Error + 'static)) {
    if let Some(unseen) = limit.pass() {
        tracing::warn!(cause, "{what}{unseen}");
    }
}
