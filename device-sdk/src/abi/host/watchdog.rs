//! Notices a call into a plugin that does not return.
//!
//! A call costs two stores: it notes the current tick and takes the note back. One thread per device
//! moves the ticks on and looks. It cannot end the call: it says that the device has failed, and
//! leaves the rest to whoever can do without the device.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFlags, PollTimeout, poll};

use super::services::Services;

/// How long a call into a plugin may take before its device counts as failed.
pub const CALL_LIMIT: Duration = Duration::from_secs(3);

const TICK: Duration = Duration::from_millis(500);
const LIMIT_TICKS: u64 = (CALL_LIMIT.as_millis() / TICK.as_millis()) as u64;

/// A thread's place to note its call.
#[derive(Debug)]
pub(super) struct Slot {
    /// The tick at which the call began; 0: none.
    since: AtomicU64,
    /// For a worker that has the thread: readable while it is to attend. -1: none.
    fd: AtomicI32,
    what: &'static str,
    ticks: Arc<Ticks>,
}

#[derive(Debug, Default)]
struct Ticks {
    now: AtomicU64,
    over: Mutex<bool>,
    end: Condvar,
}

/// The device's watchdog; its thread ends with it.
pub(super) struct Watchdog {
    slots: Mutex<Vec<Weak<Slot>>>,
    ticks: Arc<Ticks>,
}

impl Watchdog {
    pub(super) fn new() -> Arc<Self> {
        let ticks = Arc::new(Ticks::default());
        ticks.now.store(1, Ordering::Relaxed);
        Arc::new(Self {
            slots: Mutex::default(),
            ticks,
        })
    }

    /// Starts to look, for as long as this value is there. What is found is said to `services`.
    pub(super) fn look(self: &Arc<Self>, services: Weak<Services>) {
        let (watchdog, ticks) = (Arc::downgrade(self), Arc::clone(&self.ticks));
        let look = move || {
            // Calls that were found wanting: the slot, its beginning, since when, and whether said.
            let mut late: Vec<(usize, u64, u64, bool)> = Vec::new();
            loop {
                let over = ticks.over.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = ticks.end.wait_timeout_while(over, TICK, |over| !*over);
                let (over, _) = waited.unwrap_or_else(PoisonError::into_inner);
                let Some(watchdog) = watchdog.upgrade().filter(|_| !*over) else {
                    return;
                };
                drop(over);
                let now = ticks.now.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                let mut still = Vec::new();
                for slot in watchdog.live() {
                    let begun = slot.since.load(Ordering::Relaxed);
                    if begun == 0 || !slot.is_wanted() {
                        continue;
                    }
                    let key = Arc::as_ptr(&slot) as usize;
                    let known = late.iter().find(|l| (l.0, l.1) == (key, begun));
                    let (since, mut said) = known.map_or((now, false), |l| (l.2, l.3));
                    if !said
                        && now.saturating_sub(since) >= LIMIT_TICKS
                        && let Some(services) = services.upgrade()
                    {
                        said = true;
                        services.fail(&format!(
                            "the plugin has not returned from {} for {} s",
                            slot.what,
                            CALL_LIMIT.as_secs()
                        ));
                    }
                    still.push((key, begun, since, said));
                }
                late = still;
            }
        };
        // Without it a call that never returns is only found by whoever waits for it.
        let _ = thread::Builder::new()
            .name("plugin-watchdog".into())
            .spawn(look);
    }

    fn live(&self) -> Vec<Arc<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| slot.strong_count() != 0);
        slots.iter().filter_map(Weak::upgrade).collect()
    }

    /// A place for one thread.
    pub(super) fn slot(&self, what: &'static str) -> Arc<Slot> {
        let slot = Arc::new(Slot {
            since: AtomicU64::new(0),
            fd: AtomicI32::new(-1),
            what,
            ticks: Arc::clone(&self.ticks),
        });
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.push(Arc::downgrade(&slot));
        slot
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self
            .ticks
            .over
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.ticks.end.notify_all();
    }
}

impl Slot {
    /// Notes a call for as long as it takes.
    pub(super) fn during<T>(&self, f: impl FnOnce() -> T) -> T {
        self.begin();
        let result = f();
        self.since.store(0, Ordering::Relaxed);
        result
    }

    /// Notes that the thread was here just now.
    pub(super) fn begin(&self) {
        let now = self.ticks.now.load(Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    /// The descriptor that is readable while the thread is wanted; -1 again before it is closed.
    pub(super) fn set_fd(&self, fd: RawFd) {
        self.fd.store(fd, Ordering::Relaxed);
    }

    /// Whether a thread that has its own time is wanted by now.
    fn is_wanted(&self) -> bool {
        let fd = self.fd.load(Ordering::Relaxed);
        fd == -1 || readable(fd)
    }
}

fn readable(fd: RawFd) -> bool {
    // SAFETY: only asked whether it is readable; a number that is none any more answers POLLNVAL.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let mut fds = [nix::poll::PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
