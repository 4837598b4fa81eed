//! The simple level: a device's async function on a current-thread runtime, fed by its streams.
#![allow(unsafe_code)] // The runtime wants a promise about the descriptors it watches.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::task::Poll;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime;
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use super::{ChangeError, Command, Failure, Seat, apply};
use crate::device::{AsyncDevice, DeviceError};
use crate::queue::SharedGroup;

/// Serves until the session says stop and the device has ended. An error is the device's.
pub(super) fn serve(device: &mut dyn AsyncDevice, seat: &mut Seat) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| DeviceError::io("start an async runtime", e))?;
    let group = SharedGroup::new(mem::take(&mut seat.queues));
    let local = LocalSet::new();
    let served = local.block_on(&runtime, run(device, seat, &group));
    group.stop();
    // Ends the tasks the device has left behind; the requests they hold are given back.
    drop(local);
    seat.queues = group.with(mem::take);
    served
}

async fn run(
    device: &mut dyn AsyncDevice,
    seat: &mut Seat,
    group: &Rc<SharedGroup>,
) -> Result<(), Failure> {
    let bell = seat.bell.try_clone().and_then(watch);
    let bell = bell.map_err(|e| DeviceError::io("watch the control eventfd", e))?;
    let mut kicks = Kicks::default();
    let stopped = async {
        control(&seat.commands, &bell, group, &mut kicks).await;
        seat.stopped.set(true);
    };
    drive(device, group, stopped).await
}

/// Runs the device until `stopped` is over and the device has ended.
pub(crate) async fn drive(
    device: &mut dyn AsyncDevice,
    group: &Rc<SharedGroup>,
    stopped: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let streams = group.streams();
    // The call itself may panic, before there is a future.
    let mut serving = catch_unwind(AssertUnwindSafe(|| device.run(streams)))
        .map_err(|payload| Failure::panicked(&*payload))?;
    let serving = poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(result.map_err(Failure::from)),
            Err(payload) => Poll::Ready(Err(Failure::panicked(&*payload))),
        }
    });
    tokio::pin!(serving);
    let mut ended = false;
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            // A device that ends before it is told to has no use for more requests.
            result = &mut serving, if !ended => {
                result?;
                ended = true;
            }
            () = &mut stopped => break,
        }
    }
    group.stop();
    if ended { Ok(()) } else { serving.await }
}

pub(crate) fn watch(fd: impl Into<OwnedFd>) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that is registered, stays the same and stays
    // open for as long as that value lives.
    let watched = unsafe { AsyncFd::register_with_interest(fd.into(), Interest::READABLE) };
    Ok(watched?)
}

/// Carries out the session's commands until it says stop.
async fn control(
    commands: &Receiver<Command>,
    bell: &AsyncFd<OwnedFd>,
    group: &Rc<SharedGroup>,
    kicks: &mut Kicks,
) {
    loop {
        let (change, ack) = match commands.try_recv() {
            Ok(Command::Change(change, ack)) => (change, ack),
            Err(TryRecvError::Empty) => {
                match bell.readable().await {
                    Ok(mut rung) => rung.clear_ready(),
                    Err(_) => return,
                }
                continue;
            }
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
        };
        let result = match group.with(|queues| apply(queues, change)) {
            Ok(None) => Ok(()),
            Ok(Some((slot, kick))) => kicks.replace(group, slot, kick).map_err(ChangeError::Kick),
            Err(error) => Err(error.into()),
        };
        group.wake_all();
        let _ = ack.send(result);
    }
}

/// A task per queue that turns kicks into wake-ups of its stream.
#[derive(Default)]
struct Kicks(Vec<(usize, AbortHandle)>);

impl Kicks {
    fn replace(&mut self, group: &Rc<SharedGroup>, slot: usize, kick: File) -> io::Result<()> {
        self.0.retain(|(other, task)| {
            if *other == slot {
                task.abort();
            }
            *other != slot
        });
        let kick = watch(kick)?;
        let group = Rc::clone(group);
        let task = spawn_local(async move {
            // Watched edge-triggered, so the eventfd need not be read.
            while let Ok(mut kicked) = kick.readable().await {
                kicked.clear_ready();
                group.wake(slot);
            }
        });
        self.0.push((slot, task.abort_handle()));
        Ok(())
    }
}
