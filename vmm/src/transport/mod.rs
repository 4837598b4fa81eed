//! The virtio transport: the virtio status machine and queue registers, shown as a PCI function.
//!
//! | file | idea |
//! |---|---|
//! | `device.rs` | what the transport and a device ask of each other |
//! | `machine.rs` | the status machine and its registers, apart from PCI |
//! | `queue.rs` | one queue's registers, and the check of them |
//! | `features.rs` | which feature bits the transport shows |
//! | `feature_names.rs` | what they are called |
//! | `snapshot.rs` | what the driver has made of a device, for people |
//! | `events.rs` | what the device's thread says, received without a lock |
//! | `common.rs` | register numbers of the common configuration |
//! | `capabilities.rs` | ids, BARs and capabilities in config space |
//! | `config_access.rs` | the window onto the registers in config space |
//! | `function.rs` | all of it as a PCI function |
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod capabilities;
mod common;
mod config_access;
pub mod device;
mod events;
pub mod feature_names;
mod features;
mod function;
mod machine;
mod queue;
mod snapshot;
#[cfg(test)]
mod tests;

pub use device::{Identity, QueueStart, Start, TransportEvents, VirtioDevice};
pub use function::{TransportError, VirtioPci};
pub use queue::{IsRam, in_ram};
pub use snapshot::{QueueSnapshot, Snapshot};
