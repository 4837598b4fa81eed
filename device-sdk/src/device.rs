//! What a device author writes: [`Device`], and per queue group a [`QueueWorker`] or an
//! [`AsyncDevice`].
//!
//! Threads: the session thread speaks with the frontend and makes every call of [`Device`]; each
//! queue group has one thread of its own, which makes every call of its worker. The two never
//! share the worker: [`Device::start`] makes it, the thread owns it, [`Device::stop`] gets it back.

use std::error::Error;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;

use crate::queue::{Queue, QueueError, RequestStream};
use crate::request::ShortRequest;
use crate::worker::{Place, ThreadWorker};

/// Why a device or a worker cannot go on. The device is marked broken (the guest sees
/// `DEVICE_NEEDS_RESET`) until the next reset; the process and the connection live on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The guest broke the rules of a ring.
    #[error("a queue is broken")]
    Queue(#[from] QueueError),
    /// A request too short to be answered at all.
    #[error(transparent)]
    ShortRequest(#[from] ShortRequest),
    /// A host resource failed. What could be answered to the guest as an I/O error should be.
    #[error("{what}")]
    Io {
        /// What was being done, to which resource.
        what: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A device's own error.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl DeviceError {
    /// A host error, with what was being done in a few words ("open /dev/net/tun").
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    /// Wraps a device's own error.
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// Identity, features, configuration and queues of one device.
///
/// Every call comes from the session thread, one at a time. None may block for long: the
/// frontend (and with it a vCPU, after a config write) may be waiting.
pub trait Device: Send + 'static {
    /// Virtio device id (virtio 1.2, section 5): 1 net, 2 block, 3 console, 4 entropy.
    fn device_id(&self) -> u32;

    /// Feature bits of the device class that are offered (bits 0..24 and 50..). The engine adds
    /// its own: `VERSION_1`, `RING_INDIRECT_DESC`, `RING_EVENT_IDX`, and vhost-user's bit 30. None
    /// unless it says so.
    fn features(&self) -> u64 {
        0
    }

    /// Queues per group, in queue order: a block device with 4 queues says `[1, 1, 1, 1]`, a net
    /// pair with its control queue `[2, 1]`. Fixed for the device's life. One worker thread
    /// serves each group.
    fn queue_groups(&self) -> Vec<u16>;

    /// Largest ring size accepted, a power of two up to 32768.
    fn max_queue_size(&self) -> u16 {
        1024
    }

    /// Length of the device configuration space in bytes; 0 unless it says so.
    fn config_len(&self) -> u32 {
        0
    }

    /// Reads configuration space; bytes beyond [`config_len`](Device::config_len) read 0.
    /// `offset` counts from the start of the device-specific part.
    fn read_config(&self, offset: u32, data: &mut [u8]) {
        let _ = (offset, data);
    }

    /// A guest's write to configuration space. Ignored unless the class has writable fields.
    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The class bits the driver took, a subset of [`features`](Device::features). Called at least
    /// once before the first [`start`](Device::start), never while a worker runs.
    fn set_features(&mut self, acked: u64) -> Result<(), DeviceError> {
        let _ = acked;
        Ok(())
    }

    /// A handle to announce config changes with, given once per connection, before any other
    /// call of that connection but the getters.
    fn attach(&mut self, events: DeviceEvents) {
        let _ = events;
    }

    /// A worker for `group` (index into [`queue_groups`](Device::queue_groups)), one of whose
    /// queues starts to run. Called again only after [`stop`](Device::stop) of the same group.
    fn start(&mut self, group: usize) -> Result<Worker, DeviceError>;

    /// The worker comes back after its queues have stopped and nothing is in flight any more. A
    /// worker that panicked does not come back.
    fn stop(&mut self, group: usize, worker: Worker) {
        let _ = (group, worker);
    }

    /// What to do when told that something outside has changed, such as the size of an image: a
    /// daemon is told by SIGUSR1. Asked once, before the first frontend; called from a thread of the
    /// host's own, at any time, also without a frontend. It may block.
    fn refresher(&self) -> Option<Refresher> {
        None
    }

    /// Back to the state after construction, with every group stopped. Called at device reset
    /// and between two connections; calling it twice is the same as once. Nothing happens unless it
    /// says so.
    fn reset(&mut self) {}

    /// What another instance needs to go on from here, beside features, configuration and rings, which
    /// are the frontend's; empty where there is nothing. No worker runs. The bytes are the device's own to
    /// lay out, and later versions of it read them.
    ///
    /// # Errors
    /// The state cannot be told; the device is as before.
    fn save(&mut self) -> Result<Vec<u8>, DeviceError> {
        Ok(Vec::new())
    }

    /// Takes what [`save`](Device::save) of the same kind of device returned. After construction or
    /// [`reset`](Device::reset), before [`start`](Device::start). The bytes may be damaged: nothing in
    /// them is to be trusted.
    ///
    /// # Errors
    /// They are no state of this device; it is as after a reset.
    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceError> {
        if state.is_empty() {
            return Ok(());
        }
        Err(DeviceError::other(format!(
            "there are {} bytes of state, and the device has none",
            state.len()
        )))
    }
}

/// What a device does when something outside has changed.
pub type Refresher = Box<dyn Fn() + Send>;

/// The levels a queue group can be written at.
pub enum Worker {
    /// Fast: called with its queues.
    Queues(Box<dyn QueueWorker>),
    /// Simple: an async function over streams of requests.
    Async(Box<dyn AsyncDevice>),
    /// With an event loop of its own: it has the thread.
    Thread(Box<dyn ThreadWorker>),
    /// With the groups of other devices on one thread.
    Shared(Place),
}

impl Worker {
    /// Boxes a [`QueueWorker`].
    pub fn queues(worker: impl QueueWorker + 'static) -> Self {
        Self::Queues(Box::new(worker))
    }

    /// Boxes an [`AsyncDevice`].
    pub fn asynchronous(device: impl AsyncDevice + 'static) -> Self {
        Self::Async(Box::new(device))
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queues(_) => "Worker::Queues",
            Self::Async(_) => "Worker::Async",
            Self::Thread(_) => "Worker::Thread",
            Self::Shared(_) => "Worker::Shared",
        })
    }
}

/// What a worker's call came to, and so when it wants to be called next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was found to do and nothing is in flight.
    Idle,
    /// Nothing was found to do now, but requests are in flight whose end one of the
    /// [`event_fds`](QueueWorker::event_fds) will announce.
    Waiting,
    /// Something was done: call again soon, more may have come.
    Worked,
}

/// Why [`QueueWorker::run`] is called: which queues were kicked, which watched descriptors have
/// become ready. A hint: all may be set, and a worker may look at everything every time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    pub(crate) queues: u64,
    pub(crate) events: u64,
}

impl Ready {
    /// Everything is worth a look: the first call of a worker, and calls after a change of rings.
    pub const ALL: Self = Self {
        queues: u64::MAX,
        events: u64::MAX,
    };

    /// Whether queue `n` of the group (its position in the slice) may have new buffers; always true of the
    /// 65th and all after it.
    pub fn queue(self, n: usize) -> bool {
        n >= 64 || self.queues & (1 << n) != 0
    }

    /// Whether descriptor `n` of [`QueueWorker::event_fds`] has become ready.
    pub fn event(self, n: usize) -> bool {
        n >= 64 || self.events & (1 << n) != 0
    }

    pub(crate) fn set_queue(&mut self, n: usize) {
        // Beyond the last bit every queue is always worth a look: one bit says that there is a reason to.
        self.queues |= 1 << n.min(63);
    }

    pub(crate) fn set_event(&mut self, n: usize) {
        self.events |= 1 << n.min(63);
    }

    /// Whether nothing is set.
    pub fn is_empty(self) -> bool {
        self.queues == 0 && self.events == 0
    }
}

/// A descriptor a worker's thread sleeps on besides its queues.
///
/// It is watched edge-triggered: after a wake-up, read or write until `WouldBlock`, or remember
/// that more is there. (So a tap whose packets have no receive buffer yet costs no wake-ups; the
/// queue's next kick does.)
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl<'a> Watch<'a> {
    /// Wake up when `fd` becomes readable.
    pub fn readable(fd: &'a impl AsFd) -> Self {
        Self {
            fd: fd.as_fd(),
            readable: true,
            writable: false,
        }
    }

    /// Wake up when `fd` becomes writable.
    pub fn writable(fd: &'a impl AsFd) -> Self {
        Self {
            fd: fd.as_fd(),
            readable: false,
            writable: true,
        }
    }

    /// Wake up when `fd` becomes readable or writable.
    pub fn both(fd: &'a impl AsFd) -> Self {
        Self {
            fd: fd.as_fd(),
            readable: true,
            writable: true,
        }
    }
}

/// The fast level: one value per queue group, called on the group's own thread.
///
/// `queues` always holds every queue of the group, in order; one that the driver has not set up,
/// or has disabled, pops nothing (see [`Queue::enabled`]). An error or a panic ends the worker
/// and marks the device broken. No call may block, save for short and bounded system calls.
pub trait QueueWorker: Send {
    /// Something is ready. Take what there is, complete what is done, keep the rest in flight.
    /// Stop after a few hundred requests and return [`Progress::Worked`], so that control
    /// messages are heard: the call comes again at once.
    ///
    /// The engine remembers how far it has seen each ring: buffers left in a ring (posted receive
    /// buffers, or no room for more in flight) do not cause another call by themselves.
    fn run(&mut self, queues: &mut [Queue], ready: Ready) -> Result<Progress, DeviceError>;

    /// Descriptors to be woken by. Asked once, right after the worker's thread has begun. Bit `n`
    /// of [`Ready::event`] is the n-th of these. More than 64 are an error of the worker, which breaks the
    /// device before [`run`](Self::run) is called: watch an epoll of your own that holds them.
    fn event_fds(&self) -> Vec<Watch<'_>> {
        Vec::new()
    }

    /// Called again and again, between looks at the rings, while the thread polls before it
    /// sleeps: look at completions without a system call. [`Progress::Worked`] keeps it polling.
    fn poll(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let _ = queues;
        Ok(Progress::Idle)
    }

    /// The queues are about to stop: complete or give back every request held, start no new one.
    /// Called until it returns [`Progress::Idle`]; after [`Progress::Waiting`] the thread first
    /// sleeps on the event descriptors.
    fn drain(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let _ = queues;
        Ok(Progress::Idle)
    }
}

/// A boxed future on the worker's thread; it need not be `Send`.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The simple level: an async function, run on a current-thread tokio runtime (with time, I/O and
/// `spawn_local`) on the group's own thread.
///
/// ```no_run
/// use outboard_device::{AsyncDevice, DeviceError, device::LocalFuture, queue::RequestStream};
///
/// struct Zeroes;
///
/// impl AsyncDevice for Zeroes {
///     fn run(&mut self, mut queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>> {
///         Box::pin(async move {
///             let Some(queue) = queues.first_mut() else { return Ok(()) };
///             while let Some(request) = queue.next().await? {
///                 let written = request.writer().write(&[0; 64]);
///                 request.complete(written as u32)?;
///             }
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait AsyncDevice: Send {
    /// Serves the group's queues, one stream each, in queue order, until the streams end. Requests
    /// awaited in turn are answered in order; spawned, they run concurrently. After the end of
    /// the streams what is still held should be completed or given back; a request that is
    /// dropped is given back.
    fn run(&mut self, queues: Vec<RequestStream>) -> LocalFuture<'_, Result<(), DeviceError>>;
}

/// Announces changes of the device's own making to the frontend. Cheap to clone; may be used from
/// any thread, also after the connection is gone (then it does nothing).
#[derive(Clone)]
pub struct DeviceEvents {
    config_changed: Arc<dyn Fn() + Send + Sync>,
    failed: Arc<dyn Fn(&DeviceError) + Send + Sync>,
}

impl DeviceEvents {
    /// A handle that calls `config_changed` at each announcement: for tests, and for hosts other
    /// than the vhost-user session. Failures are only logged.
    pub fn new(config_changed: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            config_changed: Arc::new(config_changed),
            failed: Arc::new(|error| tracing::error!("the device has failed: {}", chain(error))),
        }
    }

    /// The same handle, which calls `failed` at each failure.
    #[must_use]
    pub fn on_failure(self, failed: impl Fn(&DeviceError) + Send + Sync + 'static) -> Self {
        Self {
            failed: Arc::new(failed),
            ..self
        }
    }

    /// Configuration space has changed: the frontend reads it again and interrupts the driver.
    /// Never blocks.
    pub fn config_changed(&self) {
        (self.config_changed)();
    }

    /// The device cannot go on until it is reset, for this reason: the driver sees
    /// `DEVICE_NEEDS_RESET`. For what is found outside a worker, whose own errors do the same.
    /// Never blocks.
    pub fn failed(&self, error: &DeviceError) {
        (self.failed)(error);
    }
}

impl std::fmt::Debug for DeviceEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceEvents")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_a_queue_or_descriptor_beyond_the_bits_are_news() {
        for n in [0, 1, 63, 64, 65, 1000] {
            let mut queues = Ready::default();
            queues.set_queue(n);
            let mut events = Ready::default();
            events.set_event(n);
            assert!(!queues.is_empty() && queues.queue(n), "{n}");
            assert!(!events.is_empty() && events.event(n), "{n}");
        }
        let mut ready = Ready::default();
        ready.set_queue(62);
        assert!(!ready.queue(61) && !ready.queue(63) && !ready.event(62));
    }
}
