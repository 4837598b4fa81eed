//! A virtio block device over raw files and block devices of the host.
//!
//! A request meets the modules in this order: [`worker`] takes it from its queue, [`request`]
//! reads it and checks it against the disk, [`op`] says which host operations it needs, [`ring`]
//! runs them through `io_uring` straight on guest memory, and the worker answers. [`disk`] is the
//! device as the frontend sees it, [`config`] its registers, [`image`] the file behind it.

mod blocking;
pub mod cli;
pub mod config;
pub mod disk;
pub mod image;
mod log;
pub mod op;
pub mod request;
pub mod ring;
pub mod worker;
