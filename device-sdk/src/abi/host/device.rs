//! A plugin's virtio device, as a [`Device`].

use std::sync::Arc;

use super::call::checked;
use super::queues::Bridge;
use super::services::Services;
use super::watchdog::{Slot, Watchdog};
use super::worker::PluginWorker;
use super::{DeviceType, Instance};
use crate::abi::error::Problem;
use crate::abi::layout::{Sized32, adopt};
use crate::abi::options::Value;
use crate::abi::raw::*;
use crate::device::{Device, DeviceError, DeviceEvents, Worker};

/// The most queues vhost-user can number.
const QUEUES_MAX: usize = 256;
/// What `max_queue_size` is when the plugin leaves it to the host.
const QUEUE_SIZE: u16 = 1024;
/// The largest configuration space there is any use for.
const CONFIG_MAX: u32 = 4096;

/// A virtio device that a plugin has made. Dropped, it is destroyed.
pub struct PluginDevice {
    id: u32,
    features: u64,
    config_len: u32,
    max_queue_size: u16,
    groups: Vec<u16>,
    /// The worker of each group that runs, for the plugin to free.
    workers: Vec<Option<WorkerContext>>,
    operations: OutboardVirtio,
    control: Arc<Slot>,
    watchdog: Arc<Watchdog>,
    // In this order: the device is destroyed before what it was created with goes.
    device: Arc<Instance>,
    services: Arc<Services>,
}

struct WorkerContext(*mut std::ffi::c_void);

// SAFETY: only handed back to the plugin.
unsafe impl Send for WorkerContext {}

impl PluginDevice {
    pub(super) fn create(device: &DeviceType, id: u32, values: &[Value]) -> Result<Self, Problem> {
        // SAFETY: a table of the plugin's, checked not to be NULL.
        let operations: OutboardVirtio = unsafe { adopt(device.raw.virtio) }?;
        let wrong = |what: &str| Problem::Table(format!("device '{}' {what}", device.name));
        if operations.start.is_none() || operations.stop.is_none() || operations.reset.is_none() {
            return Err(wrong("lacks start, stop or reset"));
        }
        let describe = operations.describe.ok_or_else(|| wrong("lacks describe"))?;
        let services = Services::new(&device.name);
        let instance = Arc::new(device.create(&services.table, values)?);
        let mut info = OutboardVirtioInfo::zeroed();
        let described = instance.call(|device| {
            // SAFETY: a device of this table.
            checked(|| unsafe { describe(device, &raw mut info) })
        });
        described.map_err(|failed| Problem::Create(failed.into()))?;
        let groups = if info.groups.is_null() {
            Vec::new()
        } else {
            let count = info.group_count.min(QUEUES_MAX);
            // SAFETY: an array of the device's.
            unsafe { std::slice::from_raw_parts(info.groups, count) }.to_vec()
        };
        let queues: usize = groups.iter().map(|count| usize::from(*count)).sum();
        if queues == 0 || queues > QUEUES_MAX || groups.contains(&0) {
            return Err(wrong(&format!(
                "has {queues} queues in {} groups; 1 to {QUEUES_MAX}, at least one in each group",
                info.group_count
            )));
        }
        if info.config_len > CONFIG_MAX {
            return Err(wrong(&format!(
                "has {} bytes of configuration space; at most {CONFIG_MAX}",
                info.config_len
            )));
        }
        if info.config_len != 0 && operations.read_config.is_none() {
            return Err(wrong("has configuration space and no read_config"));
        }
        let max_queue_size = match info.max_queue_size {
            0 => QUEUE_SIZE,
            size if size.is_power_of_two() && size <= 1 << 15 => size as u16,
            size => {
                return Err(wrong(&format!(
                    "has rings of {size}; a power of two up to 32768"
                )));
            }
        };
        let watchdog = Watchdog::new();
        watchdog.look(Arc::downgrade(&services));
        Ok(Self {
            id,
            features: info.features,
            config_len: info.config_len,
            max_queue_size,
            workers: groups.iter().map(|_| None).collect(),
            groups,
            operations,
            control: watchdog.slot("a call of the device's"),
            watchdog,
            device: instance,
            services,
        })
    }

    fn call<T>(&self, f: impl FnOnce(*mut std::ffi::c_void) -> T) -> T {
        self.device.call(|device| self.control.during(|| f(device)))
    }

    fn first_of(&self, group: usize) -> u16 {
        self.groups.iter().take(group).sum()
    }

    /// The part of an access that lies within configuration space.
    fn within(&self, offset: u32, len: usize) -> usize {
        len.min(self.config_len.saturating_sub(offset) as usize)
    }
}

impl Device for PluginDevice {
    fn device_id(&self) -> u32 {
        self.id
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_groups(&self) -> Vec<u16> {
        self.groups.clone()
    }

    fn max_queue_size(&self) -> u16 {
        self.max_queue_size
    }

    fn config_len(&self) -> u32 {
        self.config_len
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let len = self.within(offset, data.len());
        if let (Some(read), Some(data)) = (self.operations.read_config, data.get_mut(..len))
            && len != 0
        {
            // SAFETY: a device of this table, and `len` bytes.
            self.call(|device| unsafe { read(device, offset, data.as_mut_ptr(), len) });
        }
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let len = self.within(offset, data.len());
        if let Some(write) = self.operations.write_config
            && len != 0
        {
            // SAFETY: as above.
            self.call(|device| unsafe { write(device, offset, data.as_ptr(), len) });
        }
    }

    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        if let Some(set) = self.operations.set_features {
            // SAFETY: a device of this table.
            self.call(|device| checked(|| unsafe { set(device, acked) }))?;
        }
        Ok(())
    }

    fn attach(&mut self, events: DeviceEvents) {
        self.services.attach(events);
    }

    fn start(&mut self, group: usize) -> Result<Worker, DeviceError> {
        let Some(start) = self.operations.start else {
            return Err(DeviceError::other("the plugin has no start"));
        };
        let mut raw = OutboardWorker::zeroed();
        // SAFETY: a device of this table, a group of it that is not running.
        self.call(|device| checked(|| unsafe { start(device, group as u32, &raw mut raw) }))?;
        if let Some(place) = self.workers.get_mut(group) {
            *place = Some(WorkerContext(raw.context));
        }
        let slot = self.watchdog.slot("a call of a worker's");
        let bridge = Bridge::new(self.first_of(group), slot);
        // SAFETY: just filled by the plugin.
        let worker = unsafe { PluginWorker::new(raw, bridge, Arc::clone(&self.device)) };
        if worker.serves() {
            Ok(Worker::Thread(Box::new(worker)))
        } else if raw.run.is_some() {
            Ok(Worker::Queues(Box::new(worker)))
        } else {
            let worker = Worker::Queues(Box::new(worker));
            self.stop(group, worker);
            Err(DeviceError::other(
                "the plugin's worker has neither run nor serve",
            ))
        }
    }

    fn stop(&mut self, group: usize, worker: Worker) {
        drop(worker);
        let context = self.workers.get_mut(group).and_then(Option::take);
        if let (Some(context), Some(stop)) = (context, self.operations.stop) {
            let context = context.0;
            // SAFETY: the worker that `start` made for this group, whose thread has ended.
            self.call(|device| unsafe { stop(device, group as u32, context) });
        }
    }

    fn reset(&mut self) {
        if let Some(reset) = self.operations.reset {
            // SAFETY: a device of this table; no worker runs.
            self.call(|device| unsafe { reset(device) });
        }
    }

    fn save(&mut self) -> Result<Vec<u8>, DeviceError> {
        let mut state = Vec::new();
        if let Some(save) = self.operations.save {
            let sink = OutboardSink {
                context: (&raw mut state).cast(),
                write: Some(keep),
                ..OutboardSink::zeroed()
            };
            // SAFETY: a device of this table, and a sink that outlives the call.
            self.call(|device| checked(|| unsafe { save(device, &raw const sink) }))?;
        }
        Ok(state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        let Some(restore) = self.operations.restore else {
            return match state.len() {
                0 => Ok(()),
                len => Err(DeviceError::other(format!(
                    "there are {len} bytes of state, and the plugin's device takes none"
                ))),
            };
        };
        // SAFETY: a device of this table, and its length of bytes.
        self.call(|device| checked(|| unsafe { restore(device, state.as_ptr(), state.len()) }))?;
        Ok(())
    }
}

/// The most state there is any use for: a plugin that writes without end is stopped here.
const STATE_MAX: usize = 64 << 20;

/// Appends what a device saves to a `Vec<u8>`.
unsafe extern "C" fn keep(context: *mut std::ffi::c_void, data: *const u8, len: usize) -> i32 {
    // SAFETY: the vector that `save` passed, used by nobody else during the call.
    let state = unsafe { &mut *context.cast::<Vec<u8>>() };
    if len > STATE_MAX - state.len().min(STATE_MAX) {
        return OUTBOARD_ERROR;
    }
    if len != 0 {
        // SAFETY: `len` bytes of the plugin's.
        state.extend_from_slice(unsafe { std::slice::from_raw_parts(data, len) });
    }
    OUTBOARD_OK
}

impl std::fmt::Debug for PluginDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginDevice")
            .field("id", &self.id)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}
