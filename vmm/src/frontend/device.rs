//! A device as the VM and the transport see it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use outboard_device::counters::Page;

use super::actor::{Actor, Ready};
use super::error::ConnectError;
use super::inbox::{Command, Inbox};
use super::rings::MemoryTable;
use super::state::State;
use super::watch::Watch;
use crate::config::DeviceConfig;
use crate::memory::RamRegion;
use crate::supervisor::Supervisor;
use crate::transport::{Identity, QueueStart, Start, TransportEvents, VirtioDevice};

/// What to connect to.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The device and its host.
    pub config: DeviceConfig,
    /// A spawned daemon owns the terminal; see [`crate::supervisor::Command::terminal`].
    pub terminal: bool,
    /// How long its backend may take.
    pub deadlines: Deadlines,
}

/// How long a backend may take before it is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From spawning or the first attempt to connect to the end of the handshake.
    pub start: Duration,
    /// For one thing that the driver asks: starting, config access.
    pub call: Duration,
    /// From the driver's reset to the last ring's end, whatever else is going on.
    pub reset: Duration,
}

/// How often someone who waits for a device asks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// How long a daemon whose device is taken out may take to end by itself, then after SIGTERM, then
/// after SIGKILL.
const RETIRE: Duration = Duration::from_secs(1);

impl Default for Deadlines {
    fn default() -> Self {
        let [start, call, reset] = [10, 5, 4].map(Duration::from_secs);
        Self { start, call, reset }
    }
}

/// A backend is gone for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The device.
    pub id: String,
    /// Why, for people; with the daemon's last words, if it left any.
    pub reason: String,
    /// The exit code of its daemon, if we spawned it and it ended by itself.
    pub code: Option<i32>,
    /// `on-exit=stop`: the VM is to end.
    pub stop: bool,
}

/// Who learns that a device has lost its backend. Called on the device's thread; must not block,
/// and must not wait for the device.
pub trait Owner: Send + Sync {
    /// Called once at most for each device. The driver has been told already.
    fn device_lost(&self, lost: &Lost);

    /// What stood behind the device's daemon is gone for good; the daemon is there. Called once at
    /// most for each device.
    fn device_cut_off(&self, lost: &Lost);
}

/// A virtio device whose backend is on the other end of a vhost-user stream. Dropped, it closes
/// the stream: a spawned daemon then ends by itself.
pub struct Device {
    ready: Ready,
    id: String,
    deadlines: Deadlines,
    state: Arc<State>,
    threads: Threads,
}

/// A device on its way to its backend. Dropped, it gives up.
pub struct Pending {
    id: String,
    deadlines: Deadlines,
    state: Arc<State>,
    threads: Threads,
    ready: mpsc::Receiver<Result<Ready, ConnectError>>,
}

/// The two threads of a device. Dropped, they end.
struct Threads {
    inbox: Arc<Inbox>,
    watch: Arc<Watch>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Device {
    /// Begins to bring a device up, on its own thread, so that all devices of a VM come up
    /// together. `regions` is all of guest memory.
    pub fn begin(
        spec: Spec,
        regions: &[RamRegion],
        supervisor: &Arc<Supervisor>,
        owner: Arc<dyn Owner>,
    ) -> Result<Pending, ConnectError> {
        let (id, deadlines) = (spec.config.id.clone(), spec.deadlines);
        let system = |source: io::Error| ConnectError::System {
            id: id.clone(),
            source,
        };
        let watch = Arc::new(Watch::new().map_err(|errno| system(errno.into()))?);
        let (state, inbox) = (Arc::<State>::default(), Arc::<Inbox>::default());
        let mut actor = Actor {
            spec,
            memory: MemoryTable(regions.to_vec()),
            supervisor: Arc::clone(supervisor),
            owner,
            inbox: Arc::clone(&inbox),
            state: Arc::clone(&state),
            watch: Arc::clone(&watch),
            link: None,
            process: None,
            behind: None,
        };
        let threads = Threads {
            inbox,
            watch,
            handles: Mutex::default(),
        };
        let (inbox, watch) = (Arc::clone(&threads.inbox), Arc::clone(&threads.watch));
        threads
            .spawn(&id, "watch", move || watch.run(&inbox))
            .map_err(system)?;
        let (done, ready) = mpsc::channel();
        let work = move || {
            let result = actor.connect();
            let connected = result.is_ok();
            // Nobody listens when the device has been given up meanwhile.
            let _ = done.send(result);
            if connected {
                actor.run();
            }
        };
        threads.spawn(&id, "ctl", work).map_err(system)?;
        Ok(Pending {
            id,
            deadlines,
            state,
            threads,
            ready,
        })
    }

    /// The device's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The process of its daemon, if we spawned one and it is there.
    pub fn pid(&self) -> Option<i32> {
        let process = self.state.process()?;
        process.exited().is_none().then(|| process.pid())
    }

    /// The page on which it counts, if it does.
    pub fn page(&self) -> Option<Arc<Page>> {
        self.state.page()
    }

    /// Where its daemon's console is, if it has said so.
    pub fn place(&self) -> Option<PathBuf> {
        self.state.process()?.place()
    }

    /// Whether its backend is gone for good.
    pub fn is_lost(&self) -> bool {
        self.state.is_lost()
    }

    /// Whether what stood behind its daemon is gone for good: passt, behind a network card.
    pub fn is_cut_off(&self) -> bool {
        self.state.is_cut_off()
    }

    /// [Closes](Self::close) the device and sees its daemon end, by force where it does not by
    /// itself. Takes a few seconds at most, and none once `over` is set.
    pub fn retire(&self, over: &AtomicBool) {
        self.close();
        let Some(process) = self.state.process() else {
            return;
        };
        for signal in [None, Some(libc::SIGTERM), Some(libc::SIGKILL)] {
            if let Some(signal) = signal {
                process.signal(signal);
            }
            let begin = Instant::now();
            while begin.elapsed() < RETIRE {
                if process.wait(LOOK).is_some() || over.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }

    /// A driver that posts more than the inbox holds has to begin again.
    fn post(&self, command: Command) {
        if !self.threads.inbox.post(command)
            && let Some(events) = self.state.events()
        {
            events.needs_reset();
        }
    }

    /// Stops every ring where it is; posted. Call it with all vCPUs parked. No ring is touched any
    /// more once the receiver has something. Disconnected without, it was not carried out: the device
    /// is closing.
    ///
    /// It has no deadline, for requests under way have to end first, and how long a disk takes is not the
    /// backend's fault. Who has waited enough posts [`resume`](Self::resume) behind it. A driver's reset
    /// has its deadline also meanwhile.
    pub fn pause(&self) -> mpsc::Receiver<()> {
        let (done, paused) = mpsc::channel();
        self.threads.inbox.owner(Command::Pause(done));
        paused
    }

    /// Lets the rings go on; posted, and carried out once the receiver has something. Does nothing to
    /// those that [`pause`](Self::pause) has not stopped.
    pub fn resume(&self) -> mpsc::Receiver<()> {
        let (done, resumed) = mpsc::channel();
        self.threads.inbox.owner(Command::Resume(done));
        resumed
    }

    /// Closes the stream and ends the device's threads. Whatever the backend has in hand it may
    /// finish. Idempotent; a call that waits for the backend returns.
    pub fn close(&self) {
        self.threads.close();
    }
}

impl Pending {
    /// Waits until the device is ready, or is known not to be. Bounded by [`Deadlines::start`].
    pub fn wait(self) -> Result<Arc<Device>, ConnectError> {
        self.wait_unless(|| false)
    }

    /// The same, given up soon after `cancelled` has turned true.
    pub fn wait_unless(self, cancelled: impl Fn() -> bool) -> Result<Arc<Device>, ConnectError> {
        let Self {
            id,
            deadlines,
            state,
            threads,
            ready,
        } = self;
        let ready = loop {
            match ready.recv_timeout(LOOK) {
                Ok(result) => break result?,
                Err(RecvTimeoutError::Timeout) if !cancelled() => {}
                Err(_) => return Err(ConnectError::Cancelled { id }),
            }
        };
        Ok(Arc::new(Device {
            ready,
            id,
            deadlines,
            state,
            threads,
        }))
    }
}

impl VirtioDevice for Device {
    fn identity(&self) -> Identity {
        self.ready.identity
    }

    fn features(&self) -> u64 {
        self.ready.features
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        self.state.read_config(offset, data);
    }

    fn write_config(&self, offset: u32, data: &[u8]) {
        let room = self.ready.identity.config_len.saturating_sub(offset) as usize;
        let data = data.get(..room).unwrap_or(data);
        if data.is_empty() {
            return;
        }
        self.state.write_posted();
        if !self.threads.inbox.write_config(offset, data.to_vec()) {
            self.state.write_done();
        }
    }

    fn config_generation(&self) -> u8 {
        self.state.config_generation()
    }

    fn start(&self, start: Start) {
        self.post(Command::Start(start));
    }

    fn start_queue(&self, queue: QueueStart) {
        self.post(Command::StartQueue(queue));
    }

    fn stop_queue(&self, index: u16) {
        self.state.queue_stopping(index);
        // One that finds no room is never reported as stopped, until the next reset.
        self.post(Command::StopQueue(index));
    }

    fn is_queue_stopped(&self, index: u16) -> bool {
        self.state.is_queue_stopped(index)
    }

    fn reset(&self) {
        self.threads
            .inbox
            .reset(&self.threads.watch, self.deadlines.reset);
    }

    fn is_reset(&self) -> bool {
        self.threads.inbox.is_reset()
    }

    fn attach(&self, events: Arc<dyn TransportEvents>) {
        self.state.attach(events);
    }
}

impl Threads {
    fn spawn(&self, id: &str, what: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let handle = Builder::new().name(format!("{id}-{what}")).spawn(work)?;
        self.handles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(handle);
        Ok(())
    }

    fn close(&self) {
        self.inbox.close();
        self.watch.close();
        let handles =
            std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in handles {
            // The owner may drop the device in answer to its loss.
            if handle.thread().id() != std::thread::current().id() {
                let _ = handle.join();
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}
