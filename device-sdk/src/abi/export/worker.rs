//! A worker of this SDK behind the table of a plugin's worker.

use std::ffi::c_void;
use std::os::fd::AsRawFd;

use super::{asynchronous, guard};
use crate::abi::layout::adopt;
use crate::abi::raw::*;
use crate::device::{DeviceError, Progress, QueueWorker, Ready, Worker};
use crate::queue::Queue;

/// What the host's pointer points to. Its thread has it while it runs.
pub(super) struct ExportedWorker {
    /// `None` once it has panicked.
    worker: Option<Worker>,
    watches: Vec<OutboardWatch>,
    /// Made at the first call.
    queues: Vec<Queue>,
}

impl ExportedWorker {
    /// The worker, unless it has panicked.
    pub(super) fn take(mut self) -> Option<Worker> {
        self.worker.take()
    }
}

/// Fills the host's struct with a worker.
pub(super) fn fill(into: &mut OutboardWorker, worker: Worker) -> Result<(), DeviceError> {
    let mut watches = Vec::new();
    match &worker {
        Worker::Queues(worker) => {
            into.run = Some(run);
            into.poll = Some(poll);
            into.drain = Some(drain);
            watches.extend(worker.event_fds().iter().map(|watch| OutboardWatch {
                fd: watch.fd.as_raw_fd(),
                events: if watch.readable { OUTBOARD_READABLE } else { 0 }
                    | if watch.writable { OUTBOARD_WRITABLE } else { 0 },
            }));
        }
        Worker::Async(_) => into.serve = Some(serve),
        Worker::Thread(_) | Worker::Shared(_) => {
            return Err(DeviceError::other(
                "a worker that has its thread, or shares one, cannot be a plugin's; write it as a QueueWorker or an AsyncDevice",
            ));
        }
    }
    let exported = Box::new(ExportedWorker {
        worker: Some(worker),
        watches,
        queues: Vec::new(),
    });
    into.watches = exported.watches.as_ptr();
    into.watch_count = exported.watches.len();
    into.context = Box::into_raw(exported).cast();
    Ok(())
}

/// The queues the host has lent, one for each place.
///
/// # Safety
/// The host's struct, during a call.
pub(super) unsafe fn lent(table: *const OutboardQueues) -> Vec<Queue> {
    // SAFETY: the contract.
    let Ok(table) = (unsafe { adopt(table) }) else {
        return Vec::new();
    };
    (0..table.count)
        .map(|slot| Queue::remote(&table, slot))
        .collect()
}

unsafe fn call(
    worker: *mut c_void,
    table: *const OutboardQueues,
    f: impl FnOnce(&mut dyn QueueWorker, &mut [Queue]) -> Result<Progress, DeviceError>,
) -> i32 {
    // SAFETY: the ABI: a worker of `start`, on the one thread that has it, with its queues.
    let exported = unsafe { &mut *worker.cast::<ExportedWorker>() };
    let status = guard::status(|| {
        let Some(Worker::Queues(worker)) = &mut exported.worker else {
            return Err(DeviceError::other("it panicked before"));
        };
        if exported.queues.is_empty() {
            // SAFETY: as above.
            exported.queues = unsafe { lent(table) };
        }
        Ok(match f(&mut **worker, &mut exported.queues)? {
            Progress::Idle => OUTBOARD_IDLE,
            Progress::Waiting => OUTBOARD_WAITING,
            Progress::Worked => OUTBOARD_WORKED,
        })
    });
    if status == OUTBOARD_PANIC {
        // Its state cannot be trusted, not even to be dropped quietly.
        let broken = exported.worker.take();
        let _ = guard::quietly(|| drop(broken));
    }
    exported.queues.iter_mut().for_each(Queue::return_untouched);
    status
}

unsafe extern "C" fn run(
    worker: *mut c_void,
    queues: *const OutboardQueues,
    ready: *const OutboardReady,
) -> i32 {
    // SAFETY: the ABI; fields of version 1.0.
    let ready = unsafe {
        Ready {
            queues: (*ready).queues,
            events: (*ready).watches,
        }
    };
    // SAFETY: as for `call`.
    unsafe { call(worker, queues, |worker, queues| worker.run(queues, ready)) }
}

unsafe extern "C" fn poll(worker: *mut c_void, queues: *const OutboardQueues) -> i32 {
    // SAFETY: as above.
    unsafe { call(worker, queues, |worker, queues| worker.poll(queues)) }
}

unsafe extern "C" fn drain(worker: *mut c_void, queues: *const OutboardQueues) -> i32 {
    // SAFETY: as above.
    unsafe {
        call(worker, queues, |worker, queues| {
            queues.iter_mut().for_each(Queue::begin_drain);
            worker.drain(queues)
        })
    }
}

unsafe extern "C" fn serve(worker: *mut c_void, queues: *const OutboardQueues) -> i32 {
    // SAFETY: as above.
    let exported = unsafe { &mut *worker.cast::<ExportedWorker>() };
    let status = guard::status(|| {
        let Some(Worker::Async(device)) = &mut exported.worker else {
            return Err(DeviceError::other("it is no async device"));
        };
        // SAFETY: as above.
        unsafe { asynchronous::serve(&mut **device, queues) }
    });
    if status == OUTBOARD_PANIC {
        let broken = exported.worker.take();
        let _ = guard::quietly(|| drop(broken));
    }
    status
}
