//! A virtio block device over raw files and block devices of the host.
//!
//! A request meets the modules in this order: [`worker`] takes it from its queue, [`request`]
//! reads it and checks it against the disk, [`plan`] says which host operations it needs, [`inline`]
//! runs those that need no waiting and [`ring`] the others through `io_uring`, both straight on the
//! guest memory that [`op`] finds, and the worker answers. [`disk`] is the
//! device as the frontend sees it, [`config`] its registers, [`image`] the file behind it.

mod blocking;
pub mod cli;
pub mod config;
pub mod disk;
pub mod image;
pub mod inline;
mod log;
pub mod op;
pub mod plan;
pub mod request;
pub mod ring;
pub mod worker;
