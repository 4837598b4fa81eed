//! The vhost-user frontend: a device's backend, wherever it runs, behind one connected stream.
//!
//! Each device has two threads. The *actor*, `ID-ctl`, owns the connection: it alone sends
//! requests, whose replies it awaits. The *watcher*, `ID-watch`, never sends one: it sees the
//! stream end, reads what the backend asks of us, and cuts the connection when a deadline passes,
//! which makes the actor's call return. vCPU threads only post to the actor's inbox and read the
//! shared state.
//!
//! The backend is distrusted: whatever it answers, or fails to, costs its own device at most.
//!
//! | file | what it holds |
//! |---|---|
//! | `device` | [`Device`]: what the VM and the transport see |
//! | `actor` | the device's thread: takes from the inbox, drives the link |
//! | `inbox` | what is posted to the actor, bounded and coalesced |
//! | `state` | what vCPU threads read: config cache, progress of resets |
//! | `host` | how the stream comes to be |
//! | `link` | one connection: handshake, config |
//! | `rings` | starting and stopping rings over a link |
//! | `raw` | the messages that the `vhost` crate cannot send |
//! | `foreign` | reaching somebody else's daemon, started by us or not |
//! | `watch` | deadlines, and the watcher |
//! | `requests` | the channel on which the backend asks |
//! | `class` | what vhost-user does not tell about a device |
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod actor;
mod burial;
mod class;
mod device;
mod error;
mod foreign;
mod host;
mod inbox;
mod link;
mod ports;
mod raw;
mod requests;
mod rings;
mod state;
mod watch;

pub use device::{Deadlines, Device, Lost, Owner, Pending, Spec};
pub(crate) use error::chain;
pub use error::{CallError, ConnectError};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
