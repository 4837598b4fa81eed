//! A plugin's worker, as a worker of this SDK.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::Instance;
use super::call::checked;
use super::queues::Bridge;
use crate::abi::layout::Sized32;
use crate::abi::raw::*;
use crate::device::{DeviceError, Progress, QueueWorker, Ready, Watch};
use crate::queue::Queue;
use crate::worker::{Group, ThreadWorker};

/// More descriptors than this are not watched.
const WATCHES_MAX: usize = 64;

/// The worker of one group. It keeps the device from being destroyed.
pub(super) struct PluginWorker {
    raw: OutboardWorker,
    watches: Vec<OutboardWatch>,
    bridge: Box<Bridge>,
    /// It failed, and is not called again.
    ended: bool,
    _device: Arc<Instance>,
}

// SAFETY: one thread at a time has it, and the plugin's worker may be called on any, one after
// another; its pointers are to what goes with it.
unsafe impl Send for PluginWorker {}

impl PluginWorker {
    /// # Safety
    /// `raw` is what `start` of this device has filled.
    pub(super) unsafe fn new(
        raw: OutboardWorker,
        bridge: Box<Bridge>,
        device: Arc<Instance>,
    ) -> Self {
        let watches = if raw.watches.is_null() {
            Vec::new()
        } else {
            // One too many is enough to have the worker refused.
            let count = raw.watch_count.min(WATCHES_MAX.saturating_add(1));
            // SAFETY: an array of the worker's (contract).
            unsafe { std::slice::from_raw_parts(raw.watches, count) }.to_vec()
        };
        Self {
            raw,
            watches,
            bridge,
            ended: false,
            _device: device,
        }
    }

    /// It takes its thread.
    pub(super) fn serves(&self) -> bool {
        self.raw.serve.is_some()
    }

    fn call(
        &mut self,
        queues: &mut [Queue],
        f: impl FnOnce(*mut c_void, *const OutboardQueues) -> i32,
    ) -> Result<Progress, DeviceError> {
        let context = self.raw.context;
        let lent = self
            .bridge
            .lend(queues, |table| checked(|| f(context, table)));
        let result = lent.and_then(|status| match status? {
            OUTBOARD_IDLE => Ok(Progress::Idle),
            OUTBOARD_WAITING => Ok(Progress::Waiting),
            OUTBOARD_WORKED => Ok(Progress::Worked),
            other => Err(DeviceError::other(format!(
                "the plugin's worker returned {other}, which means nothing"
            ))),
        });
        self.ended |= result.is_err();
        result
    }

    fn left_nothing(&mut self) -> Result<(), DeviceError> {
        match self.bridge.in_hand() {
            0 => Ok(()),
            held => {
                self.ended = true;
                Err(DeviceError::other(format!(
                    "the plugin's worker has stopped and still holds {held} request(s): it has to complete or give back each"
                )))
            }
        }
    }
}

impl QueueWorker for PluginWorker {
    fn run(&mut self, queues: &mut [Queue], ready: Ready) -> Result<Progress, DeviceError> {
        let Some(run) = self.raw.run else {
            return Ok(Progress::Idle);
        };
        let ready = OutboardReady {
            queues: ready.queues,
            watches: ready.events,
            ..OutboardReady::zeroed()
        };
        self.call(queues, |worker, queues| {
            // SAFETY: the worker has not been stopped; the rest is lent for the call.
            unsafe { run(worker, queues, &raw const ready) }
        })
    }

    fn event_fds(&self) -> Vec<Watch<'_>> {
        let watch = |watch: &OutboardWatch| Watch {
            // SAFETY: the plugin keeps it open until the worker has ended, by the ABI. One that is
            // not open is refused by epoll.
            fd: unsafe { BorrowedFd::borrow_raw(watch.fd.max(0)) },
            readable: watch.events & OUTBOARD_READABLE != 0,
            writable: watch.events & OUTBOARD_WRITABLE != 0,
        };
        self.watches.iter().map(watch).collect()
    }

    fn poll(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        let Some(poll) = self.raw.poll else {
            return Ok(Progress::Idle);
        };
        self.call(queues, |worker, queues| {
            // SAFETY: as for `run`.
            unsafe { poll(worker, queues) }
        })
    }

    fn drain(&mut self, queues: &mut [Queue]) -> Result<Progress, DeviceError> {
        if self.ended {
            return Ok(Progress::Idle);
        }
        let progress = match self.raw.drain {
            None => Progress::Idle,
            Some(drain) => self.call(queues, |worker, queues| {
                // SAFETY: as for `run`.
                unsafe { drain(worker, queues) }
            })?,
        };
        if progress == Progress::Idle {
            self.left_nothing()?;
        }
        Ok(progress)
    }
}

impl ThreadWorker for PluginWorker {
    fn serve(&mut self, group: &mut Group<'_>) -> Result<(), DeviceError> {
        let Some(serve) = self.raw.serve else {
            return Ok(());
        };
        let worker = self.raw.context;
        self.bridge.lend_group(group, |table| {
            // SAFETY: as for `run`.
            checked(|| unsafe { serve(worker, table) })
        })??;
        if !group.is_stopping() {
            return Err(DeviceError::other(
                "the plugin's worker has ended before it was told to",
            ));
        }
        self.left_nothing()
    }
}
