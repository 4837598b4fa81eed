//! A device written for rust-vmm's `vhost-user-backend`, under the hosts of Outboard.
//!
//! [`backend`] is the device, a console that says what it is told (virtio 1.2, section 5.3), as it would be
//! for a daemon of that crate: it knows nothing of this SDK. What is here is all it takes to run it.
#![allow(unsafe_code)] // The plugin's entry is a symbol that C finds.

pub mod backend;

use std::sync::RwLock;

use outboard_device::DeviceError;
use outboard_device::plugin::{FromOptions, Options};
use outboard_rust_vmm::{Adapted, RustVmmDevice};

use backend::EchoBackend;

outboard_device::export_plugin! { virtio 3: Adapted<Echo> }

/// What makes the backend: it takes no options.
#[derive(Debug)]
pub struct Echo;

impl FromOptions for Echo {
    const NAME: &'static str = "rust-vmm-echo";
    const SUMMARY: &'static str =
        "A console that says what it is told, by rust-vmm's vhost-user-backend";

    fn from_options(_: &Options<'_>) -> Result<Self, DeviceError> {
        Ok(Self)
    }
}

impl RustVmmDevice for Echo {
    const DEVICE_ID: u32 = 3;
    const CONFIG_LEN: u32 = 12;
    type Backend = RwLock<EchoBackend>;

    fn backend(&self) -> Result<Self::Backend, DeviceError> {
        Ok(RwLock::default())
    }

    fn posts_buffers(&self, queue: u32) -> bool {
        queue == u32::from(backend::RX)
    }
}
