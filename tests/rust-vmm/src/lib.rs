//! rust-vmm's `vhost-device-sound`, as published, under the hosts of Outboard.

use std::sync::Arc;

use outboard_device::DeviceError;
use outboard_device::plugin::{FromOptions, OptionSpec, Options};
use outboard_rust_vmm::{Adapted, RustVmmDevice};
use vhost_device_sound::device::VhostUserSoundBackend;
use vhost_device_sound::{BackendType, SoundConfig};

outboard_device::export_plugin! { virtio 25: Adapted<Sound> }

/// A sound card that plays to nobody.
pub struct Sound {
    threads: bool,
}

impl FromOptions for Sound {
    const NAME: &'static str = "sound";
    const SUMMARY: &'static str = "rust-vmm's vhost-device-sound, without a sound system";
    const OPTIONS: &'static [OptionSpec] =
        &[OptionSpec::bool("threads", "serve its queues by three threads").default("off")];

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        Ok(Self {
            threads: options.is_on("threads"),
        })
    }
}

impl RustVmmDevice for Sound {
    const DEVICE_ID: u32 = 25;
    // struct virtio_snd_config, with controls (virtio 1.3, section 5.14.4).
    const CONFIG_LEN: u32 = 16;
    type Backend = Arc<VhostUserSoundBackend>;

    fn backend(&self) -> Result<Self::Backend, DeviceError> {
        // It listens nowhere: the socket is for the crate's own daemon.
        let config = SoundConfig::new("".into(), self.threads, BackendType::Null);
        let backend = VhostUserSoundBackend::new(config).map_err(DeviceError::other)?;
        Ok(Arc::new(backend))
    }

    fn posts_buffers(&self, queue: u32) -> bool {
        // Events, what is to be played once the driver says START, and what is captured.
        matches!(queue, 1..=3)
    }
}
