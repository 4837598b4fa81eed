//! The seam between the virtio transport and a device, wherever the device runs.
//!
//! [`VirtioDevice`] is what the transport asks of a device; [`TransportEvents`] is what a device
//! tells the transport. A device's life as the transport drives it:
//!
//! ```text
//! attach ─► [ start ─► (write_config | stop_queue | start_queue)* ─► reset ─► is_reset ]*
//! ```
//!
//! `reset` may come at any moment, also twice in a row or before the first `start`. A driver that
//! does not wait for the reset to end may cause `start` while `is_reset` is still false: a device
//! carries out `reset` and `start` in the order they were posted.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// What a device is; never changes during its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The virtio device id (virtio 1.2, section 5): 1 is net, 2 block, 3 console.
    pub device_id: u32,
    /// How many queues it has, 1 to 1024. The transport shows no more than 1024.
    pub queues: u16,
    /// The greatest size of each of its queues: a power of two, 1 to 32768.
    pub max_queue_size: u16,
    /// Bytes of its config space; 0 is a device without one. At most 4096 are shown.
    pub config_len: u32,
}

/// One queue as the driver set it up, checked by the transport: the size is in range, the
/// addresses are aligned as the ring format asks and all three areas lie in guest RAM.
#[derive(Debug)]
pub struct QueueStart {
    /// Its number, below [`Identity::queues`].
    pub index: u16,
    /// Number of descriptors; a power of two for a split ring.
    pub size: u16,
    /// Guest physical address of the descriptor area.
    pub desc: u64,
    /// Guest physical address of the driver area (the available ring of a split ring).
    pub avail: u64,
    /// Guest physical address of the device area (the used ring of a split ring).
    pub used: u64,
    /// Signalled at each notification of the driver. Each `QueueStart` of one enabling of the
    /// queue carries a duplicate of the same eventfd.
    pub kick: EventFd,
    /// To be signalled by the device to interrupt the driver. It is the interrupt's pending bit:
    /// nobody but KVM (and the transport, while MSI-X is off) reads it.
    pub call: EventFd,
}

/// What the driver negotiated, at the moment it set `DRIVER_OK`.
#[derive(Debug)]
pub struct Start {
    /// The features the driver took: a subset of [`VirtioDevice::features`], with `VERSION_1`.
    pub features: u64,
    /// The queues the driver enabled, in rising order of index. Those it did not enable are
    /// absent and must not be started.
    pub queues: Vec<QueueStart>,
}

/// What the transport needs of a device, wherever it runs.
///
/// All calls come from vCPU threads (and from the thread that resets the VM), several at once
/// save where said otherwise. None may block, except [`read_config`](Self::read_config) for a
/// bounded time after a write. None may call back into [`TransportEvents`] from within the call
/// in a way that waits for it.
pub trait VirtioDevice: Send + Sync {
    /// What the device is. Asked once, when the transport is built.
    fn identity(&self) -> Identity;

    /// The virtio features the backend offers, without vhost-user's own (bit 30) and
    /// with `VERSION_1` (bit 32). Must not change between two resets. The transport removes
    /// the transport features it does not carry out; `RING_RESET` (bit 40) only passes when the
    /// device sets it, and then [`stop_queue`](Self::stop_queue) must work.
    fn features(&self) -> u64;

    /// Fills `data` from the device's config space, bytes beyond its end with 0. Answered from a
    /// cache; the first read after a write may wait, for a bounded time, for the cache's refill.
    /// Works in every state, also when the backend is gone.
    fn read_config(&self, offset: u32, data: &mut [u8]);

    /// Writes to the device's config space; posted. Bytes out of range are dropped.
    fn write_config(&self, offset: u32, data: &[u8]);

    /// A number that changes whenever what `read_config` answers has changed by itself.
    fn config_generation(&self) -> u8;

    /// `DRIVER_OK`: start the queues; posted. Called once between two resets. A device that cannot
    /// start says so by [`TransportEvents::needs_reset`].
    fn start(&self, start: Start);

    /// Starts one queue that was enabled after `DRIVER_OK`: anew after
    /// [`stop_queue`](Self::stop_queue), or for the first time. Posted; called only after `start`.
    fn start_queue(&self, queue: QueueStart);

    /// `RING_RESET`: stops one queue that runs; posted. Never called unless the driver took
    /// `RING_RESET`.
    fn stop_queue(&self, index: u16);

    /// Whether the queue stopped by [`stop_queue`](Self::stop_queue) touches its rings no more.
    /// The transport asks when the driver polls `queue_reset`.
    fn is_queue_stopped(&self, index: u16) -> bool {
        let _ = index;
        true
    }

    /// Stops every queue and forgets the driver; posted, idempotent.
    fn reset(&self);

    /// True once every [`reset`](Self::reset) asked for has been carried out: no ring is touched any more, be it
    /// because the backend stopped or because it was cut off. True before the first `reset` of a
    /// device that never started.
    fn is_reset(&self) -> bool;

    /// Hands the device the transport's ear. Called once, before the VM runs.
    fn attach(&self, events: Arc<dyn TransportEvents>);
}

/// What a device tells the transport. Called on the device's own thread. Neither call blocks nor
/// takes a lock, so both may be made while the device holds locks of its own.
pub trait TransportEvents: Send + Sync {
    /// The config space changed by itself; [`VirtioDevice::config_generation`] has changed
    /// already. The driver gets a config-change interrupt, at once or when it reaches `DRIVER_OK`.
    fn config_changed(&self);

    /// The device cannot go on until the driver resets it: sets `DEVICE_NEEDS_RESET` and
    /// interrupts the driver. Forgotten at the end of the next reset; a device that is still
    /// broken then says it again when it is started.
    fn needs_reset(&self);
}
