//! The virtio status machine and the registers that drive it (virtio 1.2, chapters 2.1 and 3.1),
//! apart from the bus that carries them.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use outboard_device::ratelimit::RateLimit;

use super::common::Register;
use super::device::{QueueStart, Start, TransportEvents as _, VirtioDevice};
use super::events::Events;
use super::features::{self, RING_PACKED, RING_RESET};
use super::queue::{Doors, IsRam, NO_VECTOR, Queue};
use super::snapshot::Snapshot;
use crate::pci::warn;

pub(super) const ACKNOWLEDGE: u8 = 1;
pub(super) const DRIVER: u8 = 2;
pub(super) const DRIVER_OK: u8 = 4;
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const NEEDS_RESET: u8 = 0x40;
pub(super) const FAILED: u8 = 0x80;

/// The most queues that are shown: their notify addresses fit a page.
pub(super) const MAX_QUEUES: u16 = 1024;

/// What the bus has to do after a register was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// The queue has eventfds now: connect them.
    Enabled(u16),
    /// The queue is as after a reset: nothing of it may stay connected.
    Disabled(u16),
    /// So is every queue, and the config vector.
    Reset,
}

/// The state of one device as its driver drives it. Called under the lock of its function.
pub(super) struct Machine {
    device: Arc<dyn VirtioDevice>,
    events: Arc<Events>,
    is_ram: IsRam,
    max_queue_size: u16,
    queues: Vec<Queue>,
    status: u8,
    /// What status reads until the device has stopped, once the driver has asked for a reset.
    resetting: Option<u8>,
    /// The device runs, or was told to.
    started: bool,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    queue_select: u16,
    failures: RateLimit,
}

impl Machine {
    pub(super) fn new(device: Arc<dyn VirtioDevice>, events: Arc<Events>, is_ram: IsRam) -> Self {
        let identity = device.identity();
        let max_queue_size = identity.max_queue_size.clamp(1, 32768);
        let count = identity.queues.min(MAX_QUEUES);
        Self {
            device,
            events,
            is_ram,
            max_queue_size,
            queues: (0..count).map(|_| Queue::new(max_queue_size)).collect(),
            status: 0,
            resetting: None,
            started: false,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            failures: RateLimit::new(),
        }
    }

    pub(super) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The eventfds of a queue that is enabled.
    pub(super) fn doors(&self, index: u16) -> Option<&Doors> {
        self.queues.get(usize::from(index))?.doors.as_ref()
    }

    /// The queue that the driver selected, with its number.
    pub(super) fn selected(&mut self) -> Option<(u16, &mut Queue)> {
        let index = self.queue_select;
        Some((index, self.queues.get_mut(usize::from(index))?))
    }

    pub(super) fn set_config_vector(&mut self, vector: u16) {
        self.config_vector = vector;
    }

    /// What the driver has made of the device.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let packed = self.driver_features & RING_PACKED != 0;
        let queues = (0..).zip(&self.queues);
        let queues = queues
            .map(|(index, queue)| queue.snapshot(index, packed))
            .collect();
        Snapshot {
            status: self.status(),
            offered: self.offered(),
            taken: self.driver_features,
            queues,
        }
    }

    /// What a register holds.
    pub(super) fn read(&mut self, register: Register) -> u32 {
        match register {
            Register::DeviceFeatureSelect => self.device_feature_select,
            Register::DeviceFeature => window(self.offered(), self.device_feature_select),
            Register::DriverFeatureSelect => self.driver_feature_select,
            Register::DriverFeature => window(self.driver_features, self.driver_feature_select),
            Register::ConfigVector => self.config_vector.into(),
            Register::NumQueues => self.queues.len() as u32,
            Register::DeviceStatus => self.status().into(),
            Register::ConfigGeneration => self.device.config_generation().into(),
            Register::QueueSelect => self.queue_select.into(),
            Register::QueueVector => self
                .selected()
                .map_or(NO_VECTOR, |(_, queue)| queue.vector)
                .into(),
            Register::QueueReset => self.poll_queue_reset().into(),
            _ => self.selected().map_or(0, |(index, queue)| match register {
                Register::QueueSize => queue.size.into(),
                Register::QueueEnable => queue.doors.is_some().into(),
                Register::QueueNotifyOff | Register::QueueNotifyData => index.into(),
                Register::QueueDesc(half) => half.of(queue.desc),
                Register::QueueDriver(half) => half.of(queue.avail),
                Register::QueueDevice(half) => half.of(queue.used),
                _ => 0,
            }),
        }
    }

    /// The driver writes a register. The two vector registers are the bus's, which knows whether
    /// there is such a vector.
    pub(super) fn write(&mut self, register: Register, value: u32) -> Effect {
        match register {
            Register::DeviceFeatureSelect => self.device_feature_select = value,
            Register::DriverFeatureSelect => self.driver_feature_select = value,
            Register::DriverFeature if self.status & FEATURES_OK == 0 => {
                set_window(&mut self.driver_features, self.driver_feature_select, value);
            }
            Register::DeviceStatus => return self.set_status(value as u8),
            Register::QueueSelect => self.queue_select = value as u16,
            Register::QueueEnable if value == 1 => return self.enable_queue(),
            Register::QueueReset if value == 1 => return self.reset_queue(),
            _ => self.set_up_queue(register, value),
        }
        Effect::Nothing
    }

    /// Forgets the driver and stops the device; the VM resets, or the driver wrote status 0.
    pub(super) fn reset(&mut self) -> Effect {
        if self.started {
            self.resetting = Some(self.status);
            self.started = false;
            self.events.ignore();
            self.device.reset();
        } else if self.resetting.is_none() {
            self.events.ignore();
            self.events.forget();
        }
        self.status = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.config_vector = NO_VECTOR;
        self.queue_select = 0;
        let max = self.max_queue_size;
        self.queues
            .iter_mut()
            .for_each(|queue| *queue = Queue::new(max));
        Effect::Reset
    }

    /// Whether the device runs, or was told to.
    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    /// Whether the device has stopped since the last [`reset`](Self::reset).
    pub(super) fn is_reset(&mut self) -> bool {
        if self.resetting.is_some() && self.device.is_reset() {
            self.resetting = None;
            self.events.forget();
        }
        self.resetting.is_none()
    }

    fn offered(&self) -> u64 {
        features::offered(self.device.features())
    }

    fn status(&mut self) -> u8 {
        self.is_reset();
        match (self.status, self.resetting) {
            // A driver waits for 0 after a reset, also of a device that is broken.
            (0, None) => 0,
            (0, Some(before)) => before,
            (status, _) if self.events.is_reset_needed() => status | NEEDS_RESET,
            (status, _) => status,
        }
    }

    /// Status bits are only ever added, but for 0, which resets.
    fn set_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return self.reset();
        }
        self.is_reset();
        let mut new = value & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        new &= !self.status;
        if !features::acceptable(self.offered(), self.driver_features) {
            new &= !FEATURES_OK;
        }
        if (self.status | new) & FEATURES_OK == 0 {
            new &= !DRIVER_OK;
        }
        self.status |= new;
        if new & DRIVER_OK != 0 {
            self.start();
        }
        Effect::Nothing
    }

    fn start(&mut self) {
        // A driver that did not wait: what the device says from here on is about this start.
        if self.resetting.take().is_some() {
            self.events.forget();
        }
        let queues: Result<Vec<QueueStart>, _> = (0..)
            .zip(&self.queues)
            .filter_map(|(index, queue)| queue.start(index))
            .collect();
        match queues {
            Ok(queues) => {
                self.started = true;
                self.device.start(Start {
                    features: self.driver_features,
                    queues,
                });
            }
            Err(error) => self.fail("Cannot start a device", &error),
        }
        self.events.listen();
    }

    fn enable_queue(&mut self) -> Effect {
        let packed = self.driver_features & RING_PACKED != 0;
        let (negotiated, is_ram) = (self.status & FEATURES_OK != 0, self.is_ram.clone());
        self.poll_queue_reset();
        let Some((index, queue)) = self.selected() else {
            return Effect::Nothing;
        };
        if !negotiated || queue.stopping || queue.doors.is_some() {
            return Effect::Nothing;
        }
        if let Err(error) = queue.enable(packed, &is_ram) {
            warn(
                &self.failures,
                "The guest's driver set up a queue that cannot run",
                &error,
            );
            return Effect::Nothing;
        }
        let start = queue.start(index).filter(|_| self.started);
        match start {
            Some(Ok(start)) => self.device.start_queue(start),
            Some(Err(error)) => self.fail("Cannot start a queue", &error),
            None => {}
        }
        Effect::Enabled(index)
    }

    fn reset_queue(&mut self) -> Effect {
        let (started, max) = (self.started, self.max_queue_size);
        if self.driver_features & RING_RESET == 0 || self.status & FEATURES_OK == 0 {
            return Effect::Nothing;
        }
        let Some((index, queue)) = self.selected() else {
            return Effect::Nothing;
        };
        if queue.doors.is_none() {
            return Effect::Nothing;
        }
        *queue = Queue::new(max);
        queue.stopping = started;
        if started {
            self.device.stop_queue(index);
        }
        Effect::Disabled(index)
    }

    /// Whether the selected queue's reset is still under way.
    fn poll_queue_reset(&mut self) -> bool {
        let device = self.device.clone();
        self.selected().is_some_and(|(index, queue)| {
            queue.stopping = queue.stopping && !device.is_queue_stopped(index);
            queue.stopping
        })
    }

    /// A queue's size and addresses; fixed while it is enabled.
    fn set_up_queue(&mut self, register: Register, value: u32) {
        let max = self.max_queue_size;
        let Some((_, queue)) = self.selected().filter(|(_, queue)| queue.doors.is_none()) else {
            return;
        };
        match register {
            Register::QueueSize => {
                if let Some(size) = u16::try_from(value)
                    .ok()
                    .filter(|size| (1..=max).contains(size))
                {
                    queue.size = size;
                }
            }
            Register::QueueDesc(half) => half.set(&mut queue.desc, value),
            Register::QueueDriver(half) => half.set(&mut queue.avail, value),
            Register::QueueDevice(half) => half.set(&mut queue.used, value),
            _ => {}
        }
    }

    /// The host lacks what the device needs to run: the driver may try again after a reset.
    fn fail(&self, what: &str, error: &std::io::Error) {
        warn(&self.failures, what, error);
        self.events.needs_reset();
    }
}

/// The 32 feature bits that a select register shows; there are no more than 64.
fn window(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn set_window(features: &mut u64, select: u32, value: u32) {
    let value = u64::from(value);
    match select {
        0 => *features = *features & !0xffff_ffff | value,
        1 => *features = *features & 0xffff_ffff | value << 32,
        _ => {}
    }
}
