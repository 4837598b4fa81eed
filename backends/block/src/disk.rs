//! The block device: identity, features, configuration, and a worker for each queue.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outboard_device::device::Refresher;
use outboard_device::{Device, DeviceError, DeviceEvents, Worker};
use tracing::{info, warn};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::config::{CONFIG_LEN, Config, bit, features};
use crate::engine::{Engine, Kind, Pool};
use crate::image::Image;
use crate::request::Limits;
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
        "io_uring cannot be used here: use another --engine, or allow it with `sysctl kernel.io_uring_disabled=0` and in \
         the container's seccomp profile"
    )]
    IoUring(#[source] io::Error),
}

/// How a disk is to be.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The serial number it tells when asked.
    pub serial: &'a str,
    /// Number of request queues.
    pub queues: u16,
    /// How what has to wait is run.
    pub engine: Kind,
}

/// A disk with an image behind it.
#[derive(Debug)]
pub struct Disk {
    image: Arc<Image>,
    pool: Arc<Pool>,
    engine: Kind,
    features: u64,
    queues: u16,
    serial: [u8; SERIAL_LEN],
    acked: u64,
    /// Where a change of size is announced: with the present frontend, or the last.
    events: Arc<Mutex<Option<DeviceEvents>>>,
}

impl Disk {
    /// A disk over `image`.
    pub fn new(image: Image, settings: &Settings<'_>) -> Result<Self, DiskError> {
        let &Settings { serial, queues, .. } = settings;
        let printable = serial.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if serial.len() > SERIAL_LEN || !printable {
            return Err(DiskError::Serial(serial.to_owned()));
        }
        let mut padded = [0; SERIAL_LEN];
        padded[..serial.len()].copy_from_slice(serial.as_bytes());
        let image = Arc::new(image);
        Ok(Self {
            engine: settings.engine.decided().map_err(DiskError::IoUring)?,
            features: features(&image, queues),
            pool: Arc::new(Pool::new(Arc::clone(&image))),
            image,
            queues,
            serial: padded,
            acked: 0,
            events: Arc::default(),
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
        Config::new(&self.image, self.queues).read(offset, data);
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        self.acked = acked;
        Ok(())
    }

    fn start(&mut self, _group: usize) -> Result<Worker, DeviceError> {
        let limits = Limits {
            readonly: self.image.readonly(),
            discard: self.acked(VIRTIO_BLK_F_DISCARD),
            write_zeroes: self.acked(VIRTIO_BLK_F_WRITE_ZEROES),
        };
        // Virtio 1.2, section 5.2.6.2: a driver that cannot flush counts on durable writes.
        let writethrough = !self.acked(VIRTIO_BLK_F_FLUSH);
        let image = Arc::clone(&self.image);
        let engine = Engine::new(Arc::clone(&image), self.engine, &self.pool)
            .map_err(|error| DeviceError::io("make an io_uring", error))?;
        let worker = BlockWorker::new(image, engine, limits, self.serial, writethrough);
        Ok(Worker::queues(worker))
    }

    fn attach(&mut self, events: DeviceEvents) {
        *lock(&self.events) = Some(events);
    }

    fn refresher(&self) -> Option<Refresher> {
        let (image, events) = (Arc::clone(&self.image), Arc::clone(&self.events));
        Some(Box::new(move || remeasure(&image, &events)))
    }

    fn reset(&mut self) {
        self.acked = 0;
        self.pool.settle();
    }
}

/// Looks at the image's size again, and announces another one.
fn remeasure(image: &Image, events: &Mutex<Option<DeviceEvents>>) {
    match image.remeasure() {
        Ok(true) => {
            let path = image.path().display();
            info!("Disk image '{path}' has {} bytes now", image.size());
            if let Some(events) = &*lock(events) {
                events.config_changed();
            }
        }
        Ok(false) => {
            let path = image.path().display();
            info!("Disk image '{path}' has the size it had");
        }
        Err(error) => warn!("{error}. For the guest its size is what it was"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Options;

    fn disk(serial: &str) -> Result<Disk, DiskError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let image = Image::open(file.path(), &Options::default()).unwrap();
        let settings = Settings {
            serial,
            queues: 2,
            engine: Kind::Auto,
        };
        Disk::new(image, &settings)
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
