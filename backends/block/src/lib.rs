//! A virtio block device over disk images of the host: raw files, block devices, qcow2.
//!
//! A request meets the modules in this order: [`worker`] takes it from its queue, [`request`]
//! reads it and checks it against the disk, [`plan`] says which host operations it needs, [`engine`]
//! runs them on the guest memory that [`op`] finds, at once, through `io_uring` or on threads, and
//! the worker answers. [`disk`] is the device as the frontend sees it, [`config`] its registers,
//! [`image`] the file behind it, `bounce` the memory for transfers that cannot use the guest's.

mod bounce;
pub mod cli;
pub mod config;
pub mod disk;
pub mod engine;
pub mod image;
mod log;
pub mod op;
pub mod plan;
pub mod request;
pub mod worker;
