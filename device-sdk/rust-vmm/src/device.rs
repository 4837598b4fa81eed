//! [`Adapted`]: the device that the session sees.

use std::sync::Arc;

use outboard_device::plugin::{FromOptions, OptionSpec, Options};
use outboard_device::{Device, DeviceError, Worker};
use tracing::error;
use vhost_user_backend::VhostUserBackend;
use vm_memory::GuestRegionMmap;

use crate::RustVmmDevice;
use crate::guarded::Guarded;
use crate::memory::Memory;
use crate::shadow::footprint;
use crate::worker::{BackendWorker, Rings};

/// The feature bits that are a device's own (virtio 1.2, section 6).
const CLASS: u64 = ((1 << 24) - 1) | (!0 << 50);
/// Ring features that a backend may insist on: `VIRTIO_RING_F_INDIRECT_DESC`, vhost-user's own bit,
/// `VIRTIO_F_VERSION_1`.
const RING: u64 = 1 << 28 | 1 << 30 | 1 << 32;

type Bitmap<T> = <<T as RustVmmDevice>::Backend as VhostUserBackend>::Bitmap;

/// A device written for `vhost-user-backend`, as one of this SDK.
pub struct Adapted<T: RustVmmDevice> {
    device: T,
    backend: Arc<Guarded<T::Backend>>,
    memory: Memory<Bitmap<T>>,
    groups: Vec<Group<Bitmap<T>>>,
    features: u64,
    offered: u64,
    max_queue_size: u16,
}

/// Queues that one thread of the backend serves.
struct Group<B> {
    thread: usize,
    /// Index of the first of them, and how many.
    first: u32,
    count: u16,
    /// The memory that their rings have while they run.
    region: Option<Arc<GuestRegionMmap<B>>>,
}

impl<T: RustVmmDevice> Adapted<T> {
    /// Makes the backend and asks it what it is.
    ///
    /// # Errors
    /// It cannot be made, or is one that cannot run here: the error says why.
    pub fn new(device: T) -> Result<Self, DeviceError> {
        let backend = Guarded::new(device.backend()?);
        let (count, size, masks, offered) = backend.call(|backend| {
            (
                backend.num_queues(),
                backend.max_queue_size(),
                backend.queues_per_thread(),
                backend.features(),
            )
        })?;
        let max_queue_size = u16::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= 1 << 15)
            .ok_or_else(|| {
                DeviceError::other(format!(
                    "max_queue_size() is {size}; it has to be a power of two, at most 32768"
                ))
            })?;
        Ok(Self {
            device,
            backend: Arc::new(backend),
            memory: Memory::new(),
            groups: groups(count, &masks)?,
            features: offered & CLASS,
            offered,
            max_queue_size,
        })
    }

    fn unmap(&mut self, group: usize) {
        let region = self.groups.get_mut(group).and_then(|g| g.region.take());
        if let Some(region) = region {
            self.memory.unmap(&region);
        }
    }
}

/// The groups that `queues_per_thread` makes of so many queues.
fn groups<B>(count: usize, masks: &[u64]) -> Result<Vec<Group<B>>, DeviceError> {
    let mut groups = Vec::new();
    let mut first = 0u32;
    for (thread, mask) in masks.iter().enumerate() {
        let mut queues = 0u16;
        for queue in (0..count.min(64)).filter(|queue| mask >> queue & 1 != 0) {
            if queue as u64 != u64::from(first).saturating_add(queues.into()) {
                return Err(DeviceError::other(format!(
                    "queues_per_thread() gives thread {thread} queue {queue}; each queue has to have one thread, and \
                     those of a thread to follow on those of the one before"
                )));
            }
            queues = queues.saturating_add(1);
        }
        if queues > 0 {
            groups.push(Group {
                thread,
                first,
                count: queues,
                region: None,
            });
        }
        first = first.saturating_add(queues.into());
    }
    if first as usize != count || count == 0 {
        return Err(DeviceError::other(format!(
            "queues_per_thread() gives threads {first} of {count} queues"
        )));
    }
    Ok(groups)
}

impl<T: RustVmmDevice> Device for Adapted<T> {
    fn device_id(&self) -> u32 {
        T::DEVICE_ID
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_groups(&self) -> Vec<u16> {
        self.groups.iter().map(|group| group.count).collect()
    }

    fn max_queue_size(&self) -> u16 {
        self.max_queue_size
    }

    fn config_len(&self) -> u32 {
        T::CONFIG_LEN
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let len = data.len() as u32;
        match self.backend.call(|backend| backend.get_config(offset, len)) {
            Ok(config) => data
                .iter_mut()
                .zip(config)
                .for_each(|(byte, value)| *byte = value),
            Err(error) => error!(%error, "the configuration cannot be read"),
        }
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let written = self
            .backend
            .call(|backend| backend.set_config(offset, data));
        if let Err(error) = written.and_then(|set| set.map_err(DeviceError::other)) {
            error!(%error, "the backend refuses what the guest writes to its configuration");
        }
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        let acked = acked | self.offered & RING;
        self.backend.call(|backend| {
            backend.set_event_idx(false);
            backend.acked_features(acked);
        })
    }

    fn start(&mut self, group: usize) -> Result<Worker, DeviceError> {
        // Of a worker that panicked and so was not stopped.
        self.unmap(group);
        let size = self.max_queue_size;
        let Some(place) = self.groups.get_mut(group) else {
            return Err(DeviceError::other(format!("there is no group {group}")));
        };
        let region = (self.memory).map(footprint(size).saturating_mul(place.count.into()))?;
        place.region = Some(Arc::clone(&region));
        let memory = self.memory.shared();
        let thread = place.thread;
        let listeners = self.backend.call(|backend| {
            backend.update_memory(memory)?;
            self.device.listeners(backend, thread)
        })?;
        let listeners = listeners.map_err(|e| DeviceError::io("give the backend memory", e))?;
        let queues = place.first..place.first.saturating_add(place.count.into());
        let posted = queues.clone();
        let posted = posted
            .map(|queue| self.device.posts_buffers(queue))
            .collect();
        let rings = Rings {
            memory: self.memory.shared(),
            region,
            size,
            queues,
            posted,
        };
        let backend = Arc::clone(&self.backend);
        Ok(Worker::queues(BackendWorker::new(
            backend, thread, rings, listeners,
        )?))
    }

    fn stop(&mut self, group: usize, worker: Worker) {
        drop(worker);
        self.unmap(group);
    }

    fn reset(&mut self) {
        (0..self.groups.len()).for_each(|group| self.unmap(group));
        if !self.backend.has_panicked() {
            if let Err(error) = self.backend.call(VhostUserBackend::reset_device) {
                error!(%error, "the device cannot be reset");
            }
            return;
        }
        match self.device.backend() {
            Ok(backend) => self.backend = Arc::new(Guarded::new(backend)),
            Err(error) => error!(%error, "no new backend in place of the one that panicked"),
        }
    }
}

impl<T: RustVmmDevice + FromOptions> FromOptions for Adapted<T> {
    const NAME: &'static str = T::NAME;
    const SUMMARY: &'static str = T::SUMMARY;
    const OPTIONS: &'static [OptionSpec] = T::OPTIONS;

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        Self::new(T::from_options(options)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(count: usize, masks: &[u64]) -> Result<Vec<(usize, u32, u16)>, String> {
        let groups = groups::<()>(count, masks).map_err(|error| error.to_string())?;
        Ok(groups
            .iter()
            .map(|g| (g.thread, g.first, g.count))
            .collect())
    }

    #[test]
    fn threads_are_groups() {
        assert_eq!(cut(2, &[0xffff_ffff]), Ok(vec![(0, 0, 2)]));
        assert_eq!(
            cut(4, &[0b11, 0, 0b100, 0b1000]),
            Ok(vec![(0, 0, 2), (2, 2, 1), (3, 3, 1)])
        );
        let why = cut(2, &[0b10, 0b01]).unwrap_err();
        assert!(why.contains("thread 0 queue 1"), "{why}");
        let why = cut(2, &[0b01, 0b11]).unwrap_err();
        assert!(why.contains("thread 1 queue 0"), "{why}");
        let why = cut(3, &[0b11]).unwrap_err();
        assert!(why.contains("2 of 3 queues"), "{why}");
        assert!(cut(0, &[1]).is_err());
    }
}
