//! A console in a process of its own: the bytes of a virtio console or of a serial port on one
//! side, people on the other.
//!
//! ```text
//! virtio queues -> device \                          / terminal (raw, escapes)
//!                          one stream of bytes <-> hub  pty
//! ttyS0's registers ------ /                         \ socket people attach to, file
//! ```
//!
//! The hub does not know where its stream comes from, so ttyS0 and the virtio console are served
//! alike.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod cli;
pub mod device;
pub mod end;
pub mod escape;
pub mod hub;
pub mod scrollback;
pub mod serve;
pub mod size;
