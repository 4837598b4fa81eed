//! Outboard's device SDK: everything a virtio device needs to run outside a VMM.
//!
//! A device implements [`Device`] and hands out one worker per queue group, either a fast
//! [`QueueWorker`] or a simple [`AsyncDevice`]. [`daemon::serve`] does the rest: it speaks
//! vhost-user with any frontend, maps guest memory, drives the rings and runs the workers.
//!
//! A request meets the pieces in this order: the session turned the frontend's messages into
//! rings, a worker thread wakes up on a kick, the [`queue`] engine pops a [`Request`], the device
//! answers it, the engine publishes the answer.
//!
//! Devices that are registers rather than queues implement [`register::RegisterDevice`].

pub mod abi;
pub mod counters;
pub mod daemon;
pub mod device;
pub mod driver;
pub mod limits;
pub mod memory;
pub mod queue;
pub mod ratelimit;
pub mod register;
pub mod request;
pub mod session;
pub mod testing;
mod worker;

pub use abi::export as plugin;
pub use device::{
    AsyncDevice, Device, DeviceError, DeviceEvents, Progress, QueueWorker, Ready, Watch, Worker,
};
pub use queue::{Queue, QueueError};
pub use request::{Reader, Request, Segment, ShortRequest, Writer};
pub use worker::{Attention, Group, Groups, Place, SharedThread, SharedWorker, ThreadWorker};
