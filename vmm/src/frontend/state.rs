//! What vCPU threads read without asking the backend.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use outboard_device::counters::Page;

use crate::supervisor::Process;
use crate::transport::TransportEvents;

/// How long the first config read after a write waits for the backend at most.
const REFILL_WAIT: Duration = Duration::from_millis(500);

/// Shared by the actor, which writes, and the vCPU threads.
#[derive(Default)]
pub(super) struct State {
    config: Mutex<Config>,
    refilled: Condvar,
    generation: AtomicU8,
    stopping: Mutex<BTreeSet<u16>>,
    events: OnceLock<Arc<dyn TransportEvents>>,
    /// The daemon, if we spawned one.
    process: Mutex<Option<Process>>,
    /// Where the device counts, if it does.
    page: OnceLock<Arc<Page>>,
    lost: AtomicBool,
    alone: AtomicBool,
}

#[derive(Default)]
struct Config {
    bytes: Vec<u8>,
    /// Writes posted whose effect is not in `bytes` yet.
    writes: usize,
    /// No read has waited for them yet.
    wait: bool,
}

impl State {
    /// The transport's ear.
    pub(super) fn attach(&self, events: Arc<dyn TransportEvents>) {
        if self.events.set(events).is_err() {
            tracing::error!("A device has been attached to a second transport");
        }
    }

    pub(super) fn events(&self) -> Option<&dyn TransportEvents> {
        self.events.get().map(Arc::as_ref)
    }

    /// The daemon is this process.
    pub(super) fn spawned(&self, process: Process) {
        *self.daemon() = Some(process);
    }

    /// The daemon, if we spawned one.
    pub(super) fn process(&self) -> Option<Process> {
        self.daemon().clone()
    }

    /// The device counts here.
    pub(super) fn counts(&self, page: Page) {
        // A device has one host, and its page comes before that.
        let _ = self.page.set(Arc::new(page));
    }

    pub(super) fn page(&self) -> Option<Arc<Page>> {
        self.page.get().cloned()
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend is gone for good.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// What stood behind the daemon is gone for good.
    pub(super) fn cut_off(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    /// Copies from the cache; zeros beyond its end.
    pub(super) fn read_config(&self, offset: u32, data: &mut [u8]) {
        let mut config = self.config();
        if std::mem::take(&mut config.wait) {
            let filled = self
                .refilled
                .wait_timeout_while(config, REFILL_WAIT, |config| config.writes > 0);
            (config, _) = filled.unwrap_or_else(PoisonError::into_inner);
        }
        let from = config
            .bytes
            .iter()
            .skip(offset as usize)
            .chain(std::iter::repeat(&0));
        data.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }

    pub(super) fn config_generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// A write has been posted: the next read waits.
    pub(super) fn write_posted(&self) {
        let mut config = self.config();
        config.writes = config.writes.saturating_add(1);
        config.wait = true;
    }

    /// A posted write has been carried out, or could not be.
    pub(super) fn write_done(&self) {
        let mut config = self.config();
        config.writes = config.writes.saturating_sub(1);
        if config.writes == 0 {
            config.wait = false;
            self.refilled.notify_all();
        }
    }

    /// New contents of the cache. Its length does not change once it is set.
    pub(super) fn fill(&self, bytes: Vec<u8>) {
        self.config().bytes = bytes;
    }

    /// New contents that the driver did not cause.
    pub(super) fn change(&self, bytes: Vec<u8>) {
        let mut config = self.config();
        config.bytes = bytes;
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// A queue is to be stopped.
    pub(super) fn queue_stopping(&self, index: u16) {
        self.stopping().insert(index);
    }

    pub(super) fn queue_stopped(&self, index: u16) {
        self.stopping().remove(&index);
    }

    /// All queues have stopped.
    pub(super) fn queues_stopped(&self) {
        self.stopping().clear();
    }

    pub(super) fn is_queue_stopped(&self, index: u16) -> bool {
        !self.stopping().contains(&index)
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_beyond_the_end_are_zero() {
        let state = State::default();
        state.fill(vec![1, 2, 3]);
        for (offset, expect) in [(0, [1, 2]), (2, [3, 0]), (3, [0, 0]), (u32::MAX, [0, 0])] {
            let mut data = [9; 2];
            state.read_config(offset, &mut data);
            assert_eq!(data, expect, "{offset}");
        }
    }

    #[test]
    fn one_read_waits_for_a_write_and_no_more() {
        let state = State::default();
        state.write_posted();
        let mut data = [0];
        state.read_config(0, &mut data);
        assert!(
            !state.config().wait,
            "the one that waited in vain was the last"
        );
        state.write_posted();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                state.fill(vec![7]);
                state.write_done();
                state.write_done();
            });
            state.read_config(0, &mut data);
        });
        state.read_config(0, &mut data);
        assert_eq!(data, [7]);
    }

    #[test]
    fn only_changes_from_outside_change_the_generation() {
        let state = State::default();
        state.fill(vec![1]);
        assert_eq!(state.config_generation(), 0);
        state.change(vec![2]);
        assert_eq!(state.config_generation(), 1);
    }
}
