//! The queues of a group as a worker of a plugin sees them.
//!
//! What the plugin holds is in a table here; it knows only a token. A token that names nothing
//! (completed twice, made up), more bytes written than there was room for, or a call from a thread
//! that has no business here is a fault of the plugin: it is noted, and ends the worker.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::watchdog::Slot;
use crate::abi::layout::Sized32;
use crate::abi::raw::*;
use crate::device::{DeviceError, Ready};
use crate::queue::{Queue, QueueError};
use crate::request::Request;
use crate::worker::Group;

/// A request that the plugin holds, or the place of one.
struct Held {
    /// How often the place has been used.
    generation: u32,
    request: Option<Request>,
    /// The queue's place in its group.
    queue: u32,
    /// The most that may be written to it.
    room: u64,
}

/// What stands behind an [`OutboardQueues`]. Boxed, for its address.
pub(super) struct Bridge {
    pub(super) table: OutboardQueues,
    /// During a call: the group's queues, and the group when the worker has the thread.
    queues: *mut [Queue],
    group: *mut c_void,
    /// During a call: the thread that makes it; else 0.
    inside: AtomicUsize,
    slot: Arc<Slot>,
    held: Vec<Held>,
    free: Vec<u32>,
    in_hand: usize,
    batch: Vec<(Request, u32)>,
    fault: Option<Fault>,
}

/// Why the worker is to end.
enum Fault {
    Queue(QueueError),
    Plugin(String),
}

/// A number that no other thread has.
fn this_thread() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.with(|here| ptr::from_ref(here) as usize)
}

impl Bridge {
    pub(super) fn new(first: u16, slot: Arc<Slot>) -> Box<Self> {
        let empty: &mut [Queue] = &mut [];
        let mut bridge = Box::new(Self {
            table: OutboardQueues {
                take: Some(take),
                complete: Some(complete),
                give_back: Some(give_back),
                set_kicks: Some(set_kicks),
                ring_size: Some(ring_size),
                attend: Some(attend),
                fd: -1,
                first: u32::from(first),
                ..OutboardQueues::zeroed()
            },
            queues: ptr::from_mut(empty),
            group: ptr::null_mut(),
            inside: AtomicUsize::new(0),
            slot,
            held: Vec::new(),
            free: Vec::new(),
            in_hand: 0,
            batch: Vec::new(),
            fault: None,
        });
        bridge.table.context = (&raw mut *bridge).cast();
        bridge
    }

    /// How many requests the plugin holds.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// Makes a call into the plugin, during which it may use these queues.
    pub(super) fn lend<T>(
        &mut self,
        queues: &mut [Queue],
        f: impl FnOnce(*const OutboardQueues) -> T,
    ) -> Result<T, DeviceError> {
        self.table.count = queues.len() as u32;
        self.queues = ptr::from_mut(queues);
        self.inside.store(this_thread(), Ordering::Relaxed);
        let slot = Arc::clone(&self.slot);
        let table = &raw const self.table;
        let result = slot.during(|| f(table));
        self.take_back()?;
        Ok(result)
    }

    /// The same for a worker that takes the thread.
    pub(super) fn lend_group<T>(
        &mut self,
        group: &mut Group<'_>,
        f: impl FnOnce(*const OutboardQueues) -> T,
    ) -> Result<T, DeviceError> {
        let fd = group.fd().as_raw_fd();
        self.table.fd = fd;
        self.table.count = group.queues().len() as u32;
        self.group = ptr::from_mut(group).cast();
        self.inside.store(this_thread(), Ordering::Relaxed);
        let slot = Arc::clone(&self.slot);
        slot.set_fd(fd);
        let table = &raw const self.table;
        let result = slot.during(|| f(table));
        slot.set_fd(-1);
        self.take_back()?;
        Ok(result)
    }

    fn take_back(&mut self) -> Result<(), DeviceError> {
        self.inside.store(0, Ordering::Relaxed);
        self.group = ptr::null_mut();
        let empty: &mut [Queue] = &mut [];
        self.queues = ptr::from_mut(empty);
        match self.fault.take() {
            None => Ok(()),
            Some(Fault::Queue(error)) => Err(error.into()),
            Some(Fault::Plugin(reason)) => Err(DeviceError::other(reason)),
        }
    }

    fn queues(&mut self) -> &mut [Queue] {
        if self.group.is_null() {
            // SAFETY: within `lend`, whose borrow of the queues nobody else uses meanwhile; or the
            // empty slice.
            unsafe { &mut *self.queues }
        } else {
            // SAFETY: within `lend_group`, as above.
            unsafe { &mut *self.group.cast::<Group<'_>>() }.queues()
        }
    }

    fn queue(&mut self, queue: u32) -> Option<&mut Queue> {
        self.queues().get_mut(queue as usize)
    }

    /// Notes what is wrong; the first fault is the cause of the others.
    fn fault(&mut self, reason: impl FnOnce() -> String) -> i32 {
        self.fault.get_or_insert_with(|| Fault::Plugin(reason()));
        OUTBOARD_ERROR
    }

    fn take(&mut self, queue: u32, requests: *mut OutboardRequest, capacity: u32) -> i32 {
        let mut taken = 0u32;
        while taken < capacity && taken < i32::MAX as u32 {
            let Some(source) = self.queue(queue) else {
                return self.fault(|| {
                    format!("the plugin takes from queue {queue} of its group, which there is not")
                });
            };
            let request = match source.pop() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) => {
                    self.fault.get_or_insert(Fault::Queue(error));
                    // What was taken before is the plugin's; the error comes with the next call.
                    return if taken == 0 {
                        OUTBOARD_ERROR
                    } else {
                        taken.cast_signed()
                    };
                }
            };
            let given = self.hold(queue, request);
            // SAFETY: the plugin has room for `capacity` requests there, and `taken` is below that.
            unsafe { requests.add(taken as usize).write(given) };
            taken = taken.saturating_add(1);
        }
        taken.cast_signed()
    }

    /// Puts a request into the plugin's hands.
    fn hold(&mut self, queue: u32, request: Request) -> OutboardRequest {
        let writable = request.writable();
        let room = writable.iter().map(|s| s.len() as u64).sum();
        let mut given = OutboardRequest {
            token: 0,
            segments: request.segments().as_ptr().cast(),
            readable: request.readable().len() as u32,
            writable: writable.len() as u32,
            queue,
            head: u32::from(request.head()),
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.held.push(Held {
                generation: 0,
                request: None,
                queue: 0,
                room: 0,
            });
            self.held.len().saturating_sub(1) as u32
        });
        if let Some(held) = self.held.get_mut(place as usize) {
            held.generation = held.generation.wrapping_add(1);
            held.queue = queue;
            held.room = room;
            held.request = Some(request);
            given.token = u64::from(held.generation) << 32 | u64::from(place);
        }
        self.in_hand = self.in_hand.saturating_add(1);
        given
    }

    /// Takes a request out of the plugin's hands: it, its queue, and the room it had.
    fn release(&mut self, token: u64) -> Option<(Request, u32, u64)> {
        let place = token as u32;
        let held = self.held.get_mut(place as usize)?;
        if u64::from(held.generation) != token >> 32 {
            return None;
        }
        let request = held.request.take()?;
        let (queue, room) = (held.queue, held.room);
        self.free.push(place);
        self.in_hand = self.in_hand.saturating_sub(1);
        Some((request, queue, room))
    }

    fn complete(&mut self, done: &[OutboardCompletion]) -> i32 {
        let mut status = OUTBOARD_OK;
        let mut batch = std::mem::take(&mut self.batch);
        let mut current = 0;
        for &OutboardCompletion { token, written, .. } in done {
            let Some((request, queue, room)) = self.release(token) else {
                status = self.fault(|| {
                    format!("the plugin completes a request it does not hold (token {token:#x}): one that it completed before, or none")
                });
                continue;
            };
            let written = if u64::from(written) > room {
                status = self.fault(|| {
                    format!(
                        "the plugin says it wrote {written} bytes to a request with room for {room}"
                    )
                });
                0
            } else {
                written
            };
            if queue != current && !batch.is_empty() {
                self.publish(current, &mut batch);
            }
            current = queue;
            batch.push((request, written));
        }
        self.publish(current, &mut batch);
        self.batch = batch;
        status
    }

    fn publish(&mut self, queue: u32, batch: &mut Vec<(Request, u32)>) {
        let completed = self.queue(queue).map(|q| q.complete(batch.drain(..)));
        if let Some(Err(error)) = completed {
            self.fault.get_or_insert(Fault::Queue(error));
        }
    }

    fn give_back(&mut self, tokens: &[u64]) -> i32 {
        let mut status = OUTBOARD_OK;
        for &token in tokens {
            let Some((request, queue, _)) = self.release(token) else {
                status = self.fault(|| {
                    format!("the plugin gives back a request it does not hold (token {token:#x})")
                });
                continue;
            };
            if let Some(queue) = self.queue(queue) {
                queue.give_back(request);
            }
        }
        status
    }

    fn attend(&mut self) -> Option<(Ready, bool)> {
        if self.group.is_null() {
            self.fault(|| "the plugin attends in a worker that does not serve".into());
            return None;
        }
        self.slot.begin();
        // SAFETY: within `lend_group`, as for `queues`.
        let group = unsafe { &mut *self.group.cast::<Group<'_>>() };
        let attention = group.attend();
        Some((attention.ready, attention.stop))
    }
}

/// The bridge of a call from the plugin, if it comes from where it may.
///
/// # Safety
/// The context is that of queues whose worker has not been stopped.
unsafe fn bridge<'a>(context: *mut c_void) -> Option<&'a mut Bridge> {
    let bridge = context.cast::<Bridge>();
    // SAFETY: the contract; only this one field is looked at before the thread is known.
    let inside = unsafe { (*bridge).inside.load(Ordering::Relaxed) };
    if inside != this_thread() {
        tracing::error!("a plugin uses queues on a thread, or at a time, that has none");
        return None;
    }
    // SAFETY: this thread is within `lend` or `lend_group`, which do not touch the bridge meanwhile.
    Some(unsafe { &mut *bridge })
}

/// An array of the plugin's.
///
/// # Safety
/// `count` elements at `data`, or none.
unsafe fn array<'a, T>(data: *const T, count: usize) -> &'a [T] {
    if data.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the contract.
    unsafe { std::slice::from_raw_parts(data, count) }
}

unsafe extern "C" fn take(
    context: *mut c_void,
    queue: u32,
    requests: *mut OutboardRequest,
    capacity: u32,
) -> i32 {
    // SAFETY: the ABI: the context is of queues that are still lent.
    match unsafe { bridge(context) } {
        Some(bridge) => bridge.take(queue, requests, capacity),
        None => OUTBOARD_ERROR,
    }
}

unsafe extern "C" fn complete(
    context: *mut c_void,
    done: *const OutboardCompletion,
    count: usize,
) -> i32 {
    // SAFETY: as above, and an array as the ABI says.
    match unsafe { (bridge(context), array(done, count)) } {
        (Some(bridge), done) => bridge.complete(done),
        (None, _) => OUTBOARD_ERROR,
    }
}

unsafe extern "C" fn give_back(context: *mut c_void, tokens: *const u64, count: usize) -> i32 {
    // SAFETY: as above.
    match unsafe { (bridge(context), array(tokens, count)) } {
        (Some(bridge), tokens) => bridge.give_back(tokens),
        (None, _) => OUTBOARD_ERROR,
    }
}

unsafe extern "C" fn set_kicks(context: *mut c_void, queue: u32, wanted: u32) {
    // SAFETY: as above.
    if let Some(queue) = unsafe { bridge(context) }.and_then(|bridge| bridge.queue(queue)) {
        queue.set_kicks(wanted != 0);
    }
}

unsafe extern "C" fn ring_size(context: *mut c_void, queue: u32) -> u32 {
    // SAFETY: as above.
    let queue = unsafe { bridge(context) }.and_then(|bridge| bridge.queue(queue));
    queue
        .filter(|queue| queue.enabled())
        .map_or(0, |queue| u32::from(queue.size()))
}

unsafe extern "C" fn attend(context: *mut c_void, ready: *mut OutboardReady) -> i32 {
    // SAFETY: as above.
    let Some(bridge) = (unsafe { bridge(context) }) else {
        return OUTBOARD_ERROR;
    };
    let Some((found, stop)) = bridge.attend() else {
        return OUTBOARD_ERROR;
    };
    // SAFETY: a struct of the plugin's, of at least version 1.0.
    unsafe {
        (*ready).flags = if stop { OUTBOARD_STOP } else { 0 };
        (*ready).queues = found.queues;
        (*ready).watches = found.events;
    }
    OUTBOARD_OK
}
