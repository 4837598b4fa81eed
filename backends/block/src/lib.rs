//! A virtio block device over raw files and block devices of the host.
pub mod config;
pub mod image;
pub mod request;
