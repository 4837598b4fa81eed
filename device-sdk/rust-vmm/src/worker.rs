//! The worker of a group: offers requests to the backend, calls it, and collects its answers.

use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use outboard_device::device::Watch;
use outboard_device::{DeviceError, Progress, Queue, QueueWorker, Ready};
use vhost_user_backend::{VhostUserBackend, VringT};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap, GuestRegionMmap};
use vmm_sys_util::epoll::EventSet;

use crate::guarded::Guarded;
use crate::listener::Listener;
use crate::memory::MemoryBitmap;
use crate::shadow::{Shadow, Staged, footprint};

/// Requests offered before the backend is called.
const BATCH: usize = 128;

/// When rings stop, posted buffers that the backend has taken are waited for so long: it may be filling one.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the rings of a group are made of.
pub(crate) struct Rings<B: MemoryBitmap> {
    pub(crate) memory: GuestMemoryAtomic<GuestMemoryMmap<B>>,
    /// Where in that memory they are to lie.
    pub(crate) region: Arc<GuestRegionMmap<B>>,
    /// Of each, in entries.
    pub(crate) size: u16,
    /// The group's queues, by their index in the device.
    pub(crate) queues: Range<u32>,
    /// Of each, whether what is in it are posted buffers.
    pub(crate) posted: Vec<bool>,
}

/// See the module.
pub(crate) struct BackendWorker<B: VhostUserBackend<Bitmap: MemoryBitmap>> {
    backend: Arc<Guarded<B>>,
    /// The backend's number for this thread.
    thread: usize,
    /// Index of the first queue, in the device.
    first: u32,
    /// As `handle_event` wants them, and their other halves, in the same order.
    vrings: Vec<B::Vring>,
    shadows: Vec<Shadow<B::Bitmap>>,
    posted: Vec<bool>,
    /// Signalled by the backend, which may answer on any thread.
    calls: Vec<OwnedFd>,
    listeners: Vec<Listener>,
    /// Set once the rings are stopping.
    patience: Option<Instant>,
    /// What failed may never answer.
    failed: bool,
}

impl<B: VhostUserBackend<Bitmap: MemoryBitmap>> BackendWorker<B> {
    /// Makes the rings, and tells the backend's vrings of them.
    pub(crate) fn new(
        backend: Arc<Guarded<B>>,
        thread: usize,
        rings: Rings<B::Bitmap>,
        listeners: Vec<Listener>,
    ) -> Result<Self, DeviceError> {
        let Rings {
            memory,
            region,
            size,
            queues,
            posted,
        } = rings;
        let mut worker = Self {
            backend,
            thread,
            first: queues.start,
            vrings: Vec::new(),
            shadows: Vec::new(),
            posted,
            calls: Vec::new(),
            listeners,
            patience: None,
            failed: false,
        };
        for place in 0..queues.len() as u64 {
            let at = footprint(size).saturating_mul(place);
            let shadow = Shadow::new(Arc::clone(&region), at, size);
            let vring = B::Vring::new(memory.clone(), size).map_err(DeviceError::other)?;
            let call = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
            let call =
                OwnedFd::from(call.map_err(|e| DeviceError::io("make an eventfd", e.into()))?);
            let own = call.try_clone();
            let own = own.map_err(|e| DeviceError::io("share an eventfd", e))?;
            shadow.describe(&vring)?;
            vring.set_call(Some(File::from(own)));
            vring.set_queue_ready(true);
            vring.set_enabled(true);
            worker.vrings.push(vring);
            worker.shadows.push(shadow);
            worker.calls.push(call);
        }
        Ok(worker)
    }

    fn event(&self, event: u16, events: EventSet) -> Result<(), DeviceError> {
        let handled = self
            .backend
            .call(|backend| backend.handle_event(event, events, &self.vrings, self.thread))?;
        handled.map_err(|source| DeviceError::io("handle an event, says the backend", source))
    }

    /// Offers what the driver has made available, and says so to the backend.
    fn offer(&mut self, place: usize, queue: &mut Queue) -> Result<bool, DeviceError> {
        let Some(shadow) = self.shadows.get_mut(place) else {
            return Ok(false);
        };
        let mut offered = false;
        for _ in 0..BATCH {
            let Some(request) = queue.pop()? else { break };
            match shadow.stage(request)? {
                Staged::Done => offered = true,
                Staged::Full(request) => {
                    // When some of what is in flight is answered.
                    queue.give_back(request);
                    break;
                }
            }
        }
        if offered {
            shadow.publish()?;
            self.event(place as u16, EventSet::IN)?;
        }
        Ok(offered)
    }

    /// Completes what the backend has answered.
    fn collect(&mut self, queues: &mut [Queue]) -> Result<bool, DeviceError> {
        let mut collected = false;
        for (shadow, queue) in self.shadows.iter_mut().zip(queues) {
            let mut done = Vec::new();
            let failure = loop {
                match shadow.answer() {
                    Ok(Some(answer)) => done.push(answer),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if !done.is_empty() {
                collected = true;
                queue.complete(done)?;
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(collected)
    }

    /// Tells the backend of what it listens to. True: there is more.
    fn listen(&mut self) -> Result<bool, DeviceError> {
        let mut more = false;
        for listener in &self.listeners {
            let events = listener.ready();
            if !events.is_empty() {
                self.event(listener.data(), events)?;
                more |= !listener.ready().is_empty();
            }
        }
        Ok(more)
    }

    fn in_flight(&self) -> usize {
        self.shadows.iter().map(Shadow::in_flight).sum()
    }

    /// Whether there are answers that a stop waits for. What has been taken is under way, and would be done twice
    /// if it were given back; posted buffers are held until something happens outside.
    fn is_working(&self) -> bool {
        let late = self.patience.is_none_or(|end| Instant::now() >= end);
        let mut rings = self.shadows.iter().zip(&self.posted);
        rings.any(|(shadow, posted)| shadow.in_flight() > 0 && !(late && (*posted || self.failed)))
    }

    fn turn(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let mut worked = false;
        for (place, queue) in queues.iter_mut().enumerate() {
            worked |= self.offer(place, queue)?;
        }
        worked |= self.listen()?;
        worked |= self.collect(queues)?;
        Ok(match self.in_flight() {
            _ if worked => Progress::Worked,
            0 => Progress::Idle,
            _ => Progress::Waiting,
        })
    }

    /// Ends the rings for the backend, as `GET_VRING_BASE` does.
    fn stop_rings(&self) -> Result<(), DeviceError> {
        for (index, vring) in (self.first..).zip(&self.vrings) {
            let stopped = self.backend.call(|backend| {
                vring.set_enabled(false);
                vring.set_queue_ready(false);
                stop_vring(backend, index)
            })?;
            stopped.map_err(|source| DeviceError::io("stop a ring, says the backend", source))?;
        }
        Ok(())
    }

    /// Gives back what the backend has not begun with.
    fn give_back_untaken(&mut self, queues: &mut [Queue]) -> Result<(), DeviceError> {
        for ((shadow, vring), queue) in self.shadows.iter_mut().zip(&self.vrings).zip(queues) {
            // In the backend's hands is its lock, too.
            let next = self.backend.call(|_| vring.queue_next_avail())?;
            for request in shadow.untaken(next) {
                queue.give_back(request);
            }
        }
        Ok(())
    }

    fn wind_up(&mut self, queues: &mut [Queue]) -> Result<(), DeviceError> {
        if self.patience.is_none() {
            self.patience = Instant::now().checked_add(PATIENCE);
            self.stop_rings()?;
        }
        self.collect(queues)?;
        self.give_back_untaken(queues)
    }
}

#[cfg(feature = "stop-vring")]
fn stop_vring<B: VhostUserBackend>(backend: &B, index: u32) -> std::io::Result<()> {
    backend.stop_vring(index)
}

#[cfg(not(feature = "stop-vring"))]
#[allow(clippy::unnecessary_wraps)] // As the other.
fn stop_vring<B: VhostUserBackend>(_: &B, _: u32) -> std::io::Result<()> {
    Ok(())
}

impl<B> QueueWorker for BackendWorker<B>
where
    B: VhostUserBackend<Bitmap: MemoryBitmap, Vring: Send>,
{
    fn run(&mut self, queues: &mut [Queue], _ready: Ready) -> Result<Progress, DeviceError> {
        let turned = self.turn(queues);
        self.failed |= turned.is_err();
        turned
    }

    fn event_fds(&self) -> Vec<Watch<'_>> {
        let calls = self.calls.iter().map(Watch::readable);
        calls
            .chain(self.listeners.iter().map(Listener::watch))
            .collect()
    }

    fn poll(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let collected = self.collect(queues);
        self.failed |= collected.is_err();
        Ok(if collected? {
            Progress::Worked
        } else {
            Progress::Idle
        })
    }

    fn drain(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let wound_up = self.wind_up(queues).and_then(|()| {
            if !self.is_working() {
                return Ok(None);
            }
            // What it works with may be a descriptor that it listens to. One that stays ready is not told of
            // without end: the engine comes again soon, and at once when there is an answer.
            let mut told = 0..BATCH;
            while !self.failed && told.next().is_some() && self.listen()? {}
            Ok(Some(Progress::Waiting))
        });
        if let Ok(Some(progress)) = wound_up {
            return Ok(progress);
        }
        // The rest is for whoever serves the queues next: an answer to it would find no ring.
        for (shadow, queue) in self.shadows.iter_mut().zip(queues) {
            for request in shadow.abandon() {
                queue.give_back(request);
            }
        }
        wound_up.map(|_| Progress::Idle)
    }
}
