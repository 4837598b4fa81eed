//! An [`AsyncDevice`] on the thread that the host gives it.

use std::mem;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use tokio::runtime;
use tokio::task::LocalSet;

use super::worker::lent;
use crate::abi::layout::{Sized32, adopt};
use crate::abi::raw::*;
use crate::device::{AsyncDevice, DeviceError};
use crate::queue::{Queue, SharedGroup};
use crate::worker::Failure;
use crate::worker::asynchronous::{drive, watch};

/// Serves until the host says stop and the device has ended.
///
/// # Safety
/// The host's queues, during a call of `serve`.
pub(super) unsafe fn serve(
    device: &mut dyn AsyncDevice,
    table: *const OutboardQueues,
) -> Result<i32, DeviceError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| DeviceError::io("start an async runtime", e))?;
    // SAFETY: the contract.
    let host = unsafe { adopt(table) }.map_err(DeviceError::other)?;
    // SAFETY: as above.
    let group = SharedGroup::new(unsafe { lent(table) });
    let local = LocalSet::new();
    let served = local.block_on(&runtime, async {
        let stopped = attend(&host, &group);
        drive(device, &group, stopped).await
    });
    group.stop();
    // Ends the tasks the device has left behind; the requests they hold are given back.
    drop(local);
    group
        .with(mem::take)
        .iter_mut()
        .for_each(Queue::return_untouched);
    match served {
        Ok(()) => Ok(OUTBOARD_OK),
        Err(Failure::Error(error)) => Err(error),
        Err(Failure::Panic(text)) => {
            super::host::say(&text);
            Ok(OUTBOARD_PANIC)
        }
    }
}

/// Comes by at the host's whenever it calls, until it says stop.
async fn attend(table: &OutboardQueues, group: &Rc<SharedGroup>) {
    // SAFETY: the host's, open until the worker has ended; the copy is this side's own.
    let fd = unsafe { BorrowedFd::borrow_raw(table.fd) }.try_clone_to_owned();
    let (Ok(bell), Some(call)) = (fd.and_then(watch), table.attend) else {
        tracing::error!("the host's descriptor cannot be watched");
        return;
    };
    let mut ready = OutboardReady::zeroed();
    loop {
        // SAFETY: within the call of `serve`, on its thread.
        let status = unsafe { call(table.context, &raw mut ready) };
        if status < 0 || ready.flags & OUTBOARD_STOP != 0 {
            return;
        }
        if ready.queues == 0 {
            match bell.readable().await {
                Ok(mut rung) => rung.clear_ready(),
                Err(_) => return,
            }
            continue;
        }
        for slot in 0..table.count as usize {
            if slot >= 64 || ready.queues & (1 << slot) != 0 {
                group.wake(slot);
            }
        }
        tokio::task::yield_now().await;
    }
}
