//! A device written for rust-vmm's `vhost-user-backend`, under every host of ours.
//!
//! Such a device implements `VhostUserBackend`: it is told of guest memory and handed `Vring`s, and reads
//! and writes the rings itself. [`Adapted`] makes a [`Device`](outboard_device::Device) of one, so that it
//! runs as a daemon, in `outboard-plugin-host` and in the VMM, and its requests go through our ring engine:
//! packed rings, indirect descriptors, event indices, a ring that is moved, a frontend that comes back and
//! a guest that lies about its ring are no business of the device's any more.
//!
//! ```ignore
//! impl RustVmmDevice for Echo {
//!     const DEVICE_ID: u32 = 3;
//!     type Backend = RwLock<EchoBackend>;
//!
//!     fn backend(&self) -> Result<Self::Backend, DeviceError> {
//!         Ok(RwLock::new(EchoBackend::new()))
//!     }
//! }
//!
//! outboard_device::export_plugin! { virtio 3: Adapted<Echo> }
//! ```
//!
//! # How
//!
//! The backend does not get the guest's rings but rings of the adapter's, one for each queue, and is told
//! that the memory they lie in is the guest's. A request that the engine has taken and checked is copied
//! there, descriptor for descriptor, and made available; `handle_event` is called; what the backend puts
//! into the used ring completes the request, its writable part copied back.
//!
//! The reason is the plugin ABI, which passes requests and never rings: a plugin knows neither where the
//! guest's rings are nor how its memory is laid out. Handing over the guest's own rings would work in a
//! daemon alone, and give up there what the engine does. Handing over the guest's buffers in place would need
//! guest memory whose addresses are those of this process, so that a device which believes an address in
//! a request could be led anywhere in it. A copy needs no unsafe code; it is what this costs, and besides
//! the rate of a device whose requests are locks and several hundred nanoseconds each it is little.
//!
//! # What such a device cannot do here
//!
//! - Believe guest addresses that are in a request's *content*: there is nothing at them.
//! - Take more than [`ROOM`] in flight on one queue. A single request that is longer breaks the device.
//! - Use `VringEpollHandler`, which only that crate can make: see [`RustVmmDevice::listeners`].
//! - Call the frontend back (`set_backend_req_fd`, shared objects, shared memory regions, a GPU socket), save
//!   its state (`set_device_state_fd`), or do without a driver of virtio 1.0.
//! - Keep a request that it has taken for as long as it likes: a stop waits for the answer, except on queues of
//!   [posted buffers](RustVmmDevice::posts_buffers).
//! - Share a queue between threads, or give a thread queues that do not follow each other.
//! - Choose ring features: bits 24 to 49 are the engine's. `set_event_idx(false)` is what it hears.
//!
//! `exit_event` is not asked: there is no loop to leave. An error of `handle_event`, which ends a thread of
//! that crate's in silence, breaks the device, as a panic does; after a panic the reset makes a new backend.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod device;
mod guarded;
mod listener;
mod memory;
mod room;
mod shadow;
#[cfg(test)]
mod tests;
mod worker;

use outboard_device::DeviceError;
use vhost_user_backend::VhostUserBackend;

pub use device::Adapted;
pub use listener::Listener;
pub use memory::MemoryBitmap;
pub use shadow::ROOM;

/// What [`Adapted`] needs to know of a device, beside its backend: vhost-user does not tell it.
///
/// A plugin or a daemon is made of a type that is also
/// [`FromOptions`](outboard_device::plugin::FromOptions).
pub trait RustVmmDevice: Send + 'static {
    /// Virtio device id (virtio 1.2, section 5).
    const DEVICE_ID: u32;

    /// Length of its configuration space in bytes.
    const CONFIG_LEN: u32 = 0;

    /// The device itself.
    type Backend: VhostUserBackend<Bitmap: MemoryBitmap, Vring: Send + Sync + 'static> + 'static;

    /// Makes the backend: once, and again by the reset after it has panicked.
    fn backend(&self) -> Result<Self::Backend, DeviceError>;

    /// Whether the driver posts buffers into this queue, which the backend takes and keeps until something else
    /// happens: input, packets or captured sound comes; or the driver says START, where sound to be played is
    /// kept until then. When a queue stops, posted buffers are given back; on every other queue whatever the
    /// backend has taken is waited for, without a limit, since whoever serves the queue next would do it again
    /// while this backend may still be doing it.
    fn posts_buffers(&self, queue: u32) -> bool {
        let _ = queue;
        false
    }

    /// What the device would register with the `VringEpollHandler` of this thread before it serves. Asked when
    /// the thread's first queue starts.
    fn listeners(&self, backend: &Self::Backend, thread: usize) -> std::io::Result<Vec<Listener>> {
        let _ = (backend, thread);
        Ok(Vec::new())
    }
}
