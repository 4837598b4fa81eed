//! The block device: identity, features, configuration, and a worker for each queue.

use std::io;
use std::sync::Arc;

use outboard_device::{Device, DeviceError, Worker};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::config::{CONFIG_LEN, Config, bit, features};
use crate::image::Image;
use crate::request::Limits;
use crate::ring;
use crate::worker::BlockWorker;

/// Length of a serial number (virtio 1.2, section 5.2.6).
pub const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Why a disk cannot be made of an image.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The guest could not see all of the serial number, or not as text.
    #[error("Serial number '{0}' does not fit: give at most 20 printable ASCII characters")]
    Serial(String),
    /// This kernel, or its settings, keep `io_uring` from us.
    #[error(
        "io_uring cannot be used here: allow it with `sysctl kernel.io_uring_disabled=0` and in \
         the container's seccomp profile"
    )]
    IoUring(#[source] io::Error),
}

/// A disk with an image behind it.
#[derive(Debug)]
pub struct Disk {
    image: Arc<Image>,
    config: Config,
    features: u64,
    queues: u16,
    serial: [u8; SERIAL_LEN],
    acked: u64,
}

impl Disk {
    /// A disk over `image` with `queues` queues, which tells `serial` when asked.
    pub fn new(image: Image, serial: &str, queues: u16) -> Result<Self, DiskError> {
        let printable = serial.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if serial.len() > SERIAL_LEN || !printable {
            return Err(DiskError::Serial(serial.to_owned()));
        }
        ring::probe().map_err(DiskError::IoUring)?;
        let mut padded = [0; SERIAL_LEN];
        padded[..serial.len()].copy_from_slice(serial.as_bytes());
        Ok(Self {
            config: Config::new(&image, queues),
            features: features(&image, queues),
            image: Arc::new(image),
            queues,
            serial: padded,
            acked: 0,
        })
    }

    fn acked(&self, feature: u32) -> bool {
        self.acked & bit(feature) != 0
    }
}

impl Device for Disk {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_groups(&self) -> Vec<u16> {
        vec![1; usize::from(self.queues)]
    }

    fn config_len(&self) -> u32 {
        CONFIG_LEN as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        self.acked = acked;
        Ok(())
    }

    fn start(&mut self, _group: usize) -> Result<Worker, DeviceError> {
        let limits = Limits {
            size: self.image.size(),
            readonly: self.image.readonly(),
            discard: self.acked(VIRTIO_BLK_F_DISCARD),
            write_zeroes: self.acked(VIRTIO_BLK_F_WRITE_ZEROES),
        };
        // Virtio 1.2, section 5.2.6.2: a driver that cannot flush counts on durable writes.
        let writethrough = !self.acked(VIRTIO_BLK_F_FLUSH);
        let worker = BlockWorker::new(Arc::clone(&self.image), limits, self.serial, writethrough)
            .map_err(|error| DeviceError::io("make an io_uring", error))?;
        Ok(Worker::queues(worker))
    }

    fn reset(&mut self) {
        self.acked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(serial: &str) -> Result<Disk, DiskError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        Disk::new(Image::open(file.path(), None, false).unwrap(), serial, 2)
    }

    #[test]
    fn a_serial_number_fits_or_is_refused() {
        assert_eq!(
            &disk("abc").unwrap().serial,
            b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert!(disk(&"x".repeat(20)).is_ok());
        assert!(
            disk(&"x".repeat(21))
                .unwrap_err()
                .to_string()
                .contains("at most 20")
        );
        assert!(disk("a\nb").is_err());
    }

    #[test]
    fn a_group_a_queue() {
        assert_eq!(disk("").unwrap().queue_groups(), [1, 1]);
    }
}
