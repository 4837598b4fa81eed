//! The plugin ABI, version 1: what crosses between a host and a plugin, and nothing else.
//!
//! `include/outboard_plugin.h` is made from this file and says the same to C. The rules that hold
//! for all of it are at the header's beginning, in `header.txt`.
#![allow(missing_docs)] // Said of the types: each field that needs words has them.
#![allow(rustdoc::broken_intra_doc_links)] // [control], [queue] and so on are thread tags.

use std::ffi::{c_char, c_int, c_void};

/// "OBPL" in a little-endian integer: the table is one of a plugin.
pub const OUTBOARD_MAGIC: u32 = 0x4c50_424f;
/// The ABI's major version. Another one has another entry symbol and other structs.
pub const OUTBOARD_ABI_MAJOR: u32 = 1;
/// The ABI's minor version: it counts what has been appended since 1.0.
pub const OUTBOARD_ABI_MINOR: u32 = 0;

/// Done.
pub const OUTBOARD_OK: i32 = 0;
/// Not done; `OutboardHost.error` has been called with the reason, if there is one worth saying.
pub const OUTBOARD_ERROR: i32 = -1;
/// Not done: the plugin panicked. Only Rust plugins say so.
pub const OUTBOARD_PANIC: i32 = -2;
/// Not done: there is no such thing here.
pub const OUTBOARD_UNSUPPORTED: i32 = -3;

/// A worker found nothing to do, and holds nothing that will come to an end by itself.
pub const OUTBOARD_IDLE: i32 = 0;
/// A worker found nothing to do now; one of its descriptors will announce the end of what it has in
/// flight.
pub const OUTBOARD_WAITING: i32 = 1;
/// A worker did something and is to be called again soon.
pub const OUTBOARD_WORKED: i32 = 2;

/// Levels of `OutboardHost.log`.
pub const OUTBOARD_LOG_ERROR: u32 = 1;
pub const OUTBOARD_LOG_WARN: u32 = 2;
pub const OUTBOARD_LOG_INFO: u32 = 3;
pub const OUTBOARD_LOG_DEBUG: u32 = 4;
pub const OUTBOARD_LOG_TRACE: u32 = 5;

/// `OutboardPlugin.needs`: sockets other than local ones, after the device has been made.
pub const OUTBOARD_NEEDS_NET: u64 = 1;

/// `OutboardDevice.kind`: a virtio device, with queues.
pub const OUTBOARD_VIRTIO: u32 = 1;
/// `OutboardDevice.kind`: registers behind ports or MMIO, and an interrupt line.
pub const OUTBOARD_REGISTERS: u32 = 2;

/// `OutboardOption.kind`: any text.
pub const OUTBOARD_TEXT: u32 = 1;
/// on or off.
pub const OUTBOARD_BOOL: u32 = 2;
/// A whole number, decimal or hexadecimal with 0x.
pub const OUTBOARD_NUMBER: u32 = 3;
/// A number of bytes; people may write K, M, G or T after it.
pub const OUTBOARD_SIZE: u32 = 4;
/// A path; made absolute before the plugin sees it.
pub const OUTBOARD_PATH: u32 = 5;

/// `OutboardOption.flags`: the device cannot be made without it.
pub const OUTBOARD_REQUIRED: u32 = 1;

/// `OutboardWatch.events`, `OutboardServices.watch`: the descriptor can be read, or has ended.
pub const OUTBOARD_READABLE: u32 = 1;
/// The descriptor can be written.
pub const OUTBOARD_WRITABLE: u32 = 2;

/// `OutboardReady.flags`: the queues are to stop.
pub const OUTBOARD_STOP: u32 = 1;

/// `OutboardRegistersInfo.space`: I/O ports.
pub const OUTBOARD_PORTS: u32 = 1;
/// Memory-mapped I/O.
pub const OUTBOARD_MMIO: u32 = 2;

/// `OutboardRegistersInfo.line`: no interrupt line.
pub const OUTBOARD_NO_LINE: u32 = u32::MAX;

/// Text, in UTF-8, not ended by a zero. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardStr {
    /// May be NULL when `len` is 0.
    pub data: *const c_char,
    /// In bytes.
    pub len: usize,
}

/// A piece of guest memory, laid out as a `struct iovec`. Frozen.
///
/// The guest can change the bytes at any time: read what you check once, into memory of your own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardSegment {
    pub base: *mut c_void,
    /// In bytes, never 0.
    pub len: usize,
}

/// One descriptor chain: the plugin's from `take` until `complete` or `give_back`. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardRequest {
    /// The host's name for it.
    pub token: u64,
    /// First those the device reads, then those it writes. Host's; valid as long as the request is
    /// the plugin's, also for the kernel (readv, `io_uring`).
    pub segments: *const OutboardSegment,
    /// How many of the segments the device reads.
    pub readable: u32,
    /// How many of the segments the device writes.
    pub writable: u32,
    /// The queue's place in its group.
    pub queue: u32,
    /// Index of the chain's first descriptor, or of a packed ring the buffer's id: below the ring's
    /// size, and of no other request in flight on the same queue of a well-behaved driver.
    pub head: u32,
}

/// The end of one request. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardCompletion {
    /// The request's.
    pub token: u64,
    /// How many bytes were written to it; no more than its writable segments hold.
    pub written: u32,
    /// 0.
    pub reserved: u32,
}

/// A descriptor that a worker's thread sleeps on besides its queues. Frozen.
///
/// It is watched edge-triggered: after a wake-up read or write until EAGAIN, or remember that more
/// is there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardWatch {
    /// The plugin's; open until the worker has ended.
    pub fd: c_int,
    /// `OUTBOARD_READABLE` and `OUTBOARD_WRITABLE`.
    pub events: u32,
}

/// An option's value. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardValue {
    /// Of a number or size, its value; of a bool, 0 or 1; else 0.
    pub number: u64,
    /// As it was written, or the default; of a path, absolute.
    pub text: OutboardStr,
    /// 0: neither given nor with a default; the rest is 0 too.
    pub set: u32,
    /// 0.
    pub reserved: u32,
}

/// What `outboard_plugin_entry_v1` returns. Plugin's, constant, valid for ever.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardPlugin {
    /// `sizeof(OutboardPlugin)`.
    pub size: u32,
    /// `OUTBOARD_MAGIC`.
    pub magic: u32,
    /// `OUTBOARD_ABI_MAJOR`, of the header the plugin was built with.
    pub abi_major: u32,
    /// `OUTBOARD_ABI_MINOR`, of the header the plugin was built with. May be above the host's.
    pub abi_minor: u32,
    /// The least minor version of a host this plugin can work with: 0, unless it cannot do without
    /// something appended later.
    pub required_minor: u32,
    /// 0.
    pub reserved: u32,
    /// What the sandbox of outboard-plugin-host must leave: `OUTBOARD_NEEDS_NET`.
    pub needs: u64,
    pub name: OutboardStr,
    /// The plugin's own.
    pub version: OutboardStr,
    /// An array; its step is its first element's `size`.
    pub devices: *const OutboardDevice,
    pub device_count: usize,
    /// [control] Called once, before anything else. `host` is valid for ever. May be NULL.
    pub init: Option<unsafe extern "C" fn(host: *const OutboardHost) -> i32>,
    /// [any] A named extension's table, or NULL. May be NULL.
    pub extension: Option<unsafe extern "C" fn(name: OutboardStr) -> *const c_void>,
}

/// The host, as all devices of a plugin see it. Host's, valid for ever.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardHost {
    /// `sizeof(OutboardHost)`, of the host.
    pub size: u32,
    /// The host's `OUTBOARD_ABI_MINOR`. May be below the plugin's.
    pub abi_minor: u32,
    /// The first argument of the functions.
    pub context: *mut c_void,
    /// [any] A line for the log. `target` says what speaks; it may be empty.
    pub log: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            level: u32,
            target: OutboardStr,
            message: OutboardStr,
        ),
    >,
    /// [any] Says why the call that this thread is in will return an error. The last one counts.
    pub error: Option<unsafe extern "C" fn(context: *mut c_void, message: OutboardStr)>,
    /// [any] A named extension's table, or NULL.
    pub extension:
        Option<unsafe extern "C" fn(context: *mut c_void, name: OutboardStr) -> *const c_void>,
}

/// A kind of device that the plugin offers. Plugin's, constant, valid for ever.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardDevice {
    /// `sizeof(OutboardDevice)`.
    pub size: u32,
    /// `OUTBOARD_VIRTIO` or `OUTBOARD_REGISTERS`.
    pub kind: u32,
    /// Virtio device id (virtio 1.2, section 5); 0 for registers.
    pub virtio_id: u32,
    /// 0.
    pub reserved: u32,
    /// Letters, digits and '-'; unique in the plugin.
    pub name: OutboardStr,
    /// A line for people.
    pub summary: OutboardStr,
    /// An array; its step is its first element's `size`.
    pub options: *const OutboardOption,
    pub option_count: usize,
    /// [control] Makes a device. `values` has one for each option, in their order; it is valid
    /// during the call, `services` until `destroy` returns. On success `device` is set.
    pub create: Option<
        unsafe extern "C" fn(
            services: *const OutboardServices,
            values: *const OutboardValue,
            value_count: usize,
            device: *mut *mut c_void,
        ) -> i32,
    >,
    /// [control] Unmakes a device. None of its workers is running, and no call on it follows.
    pub destroy: Option<unsafe extern "C" fn(device: *mut c_void)>,
    /// Of a virtio device.
    pub virtio: *const OutboardVirtio,
    /// Of a device of registers.
    pub registers: *const OutboardRegisters,
    /// [any] A named extension's table for the device, or NULL. May be NULL.
    pub extension:
        Option<unsafe extern "C" fn(device: *mut c_void, name: OutboardStr) -> *const c_void>,
}

/// One option of a device: `key=value`. Plugin's, constant, valid for ever.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardOption {
    /// `sizeof(OutboardOption)`.
    pub size: u32,
    /// `OUTBOARD_TEXT`, ...
    pub kind: u32,
    /// `OUTBOARD_REQUIRED`, or 0.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// Small letters, digits and '-'. Not: plugin, device, host, name, id, addr, queues, on-exit.
    pub name: OutboardStr,
    /// A line for people.
    pub help: OutboardStr,
    /// As a person would write it; NULL when there is none.
    pub default_value: OutboardStr,
}

/// The host, as one device sees it. Host's, valid until the device's `destroy` has returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardServices {
    /// `sizeof(OutboardServices)`, of the host.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The first argument of the functions.
    pub context: *mut c_void,
    /// [any] Virtio: configuration space has changed; the driver is interrupted and reads it again.
    pub config_changed: Option<unsafe extern "C" fn(context: *mut c_void)>,
    /// [any] The device cannot go on until it is reset, for this reason.
    pub failed: Option<unsafe extern "C" fn(context: *mut c_void, reason: OutboardStr)>,
    /// [any] Registers: drives the interrupt line high (1) or low (0).
    pub set_line: Option<unsafe extern "C" fn(context: *mut c_void, high: u32)>,
    /// [any] Registers: `OutboardRegisters.timer` is called once, this many nanoseconds from now, in
    /// place of any time set before. 0 takes the timer back.
    pub set_timer: Option<unsafe extern "C" fn(context: *mut c_void, nanoseconds: u64)>,
    /// [any] Registers: `OutboardRegisters.ready` is called when `fd` becomes ready for `events`,
    /// edge-triggered; 0 ends that, and must be asked for before `fd` is closed.
    pub watch: Option<unsafe extern "C" fn(context: *mut c_void, fd: c_int, events: u32) -> i32>,
    /// [any] A named extension's table, or NULL. See the end of this header for those there are.
    pub extension:
        Option<unsafe extern "C" fn(context: *mut c_void, name: OutboardStr) -> *const c_void>,
}

/// The operations of a virtio device. Plugin's, constant, valid for ever.
///
/// All of them are [control]: one at a time, on one thread after another, and none may block for
/// long, since a vCPU may be waiting.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardVirtio {
    /// `sizeof(OutboardVirtio)`.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// [control] Says what the device is. Called once, right after `create`.
    pub describe:
        Option<unsafe extern "C" fn(device: *mut c_void, info: *mut OutboardVirtioInfo) -> i32>,
    /// [control] Reads configuration space into `data`, which holds zeroes. `offset + len` is
    /// within `config_len`. May be NULL when that is 0.
    pub read_config:
        Option<unsafe extern "C" fn(device: *mut c_void, offset: u32, data: *mut u8, len: usize)>,
    /// [control] A driver's write to configuration space, within `config_len`. May be NULL.
    pub write_config:
        Option<unsafe extern "C" fn(device: *mut c_void, offset: u32, data: *const u8, len: usize)>,
    /// [control] The features the driver took, some of those offered. Called before the first
    /// `start`, never while a worker runs. May be NULL.
    pub set_features: Option<unsafe extern "C" fn(device: *mut c_void, features: u64) -> i32>,
    /// [control] A worker for a group of queues: fills `worker`, which holds zeroes but for its
    /// size. Called again only after `stop` of the same group.
    pub start: Option<
        unsafe extern "C" fn(device: *mut c_void, group: u32, worker: *mut OutboardWorker) -> i32,
    >,
    /// [control] The worker's thread has ended: free `worker`, the one from `start`. Called once for
    /// each `start` that succeeded, also when the worker failed.
    pub stop: Option<unsafe extern "C" fn(device: *mut c_void, group: u32, worker: *mut c_void)>,
    /// [control] Back to the state after `create`. No worker runs. Twice is the same as once.
    pub reset: Option<unsafe extern "C" fn(device: *mut c_void)>,
    /// [control] Writes what another instance needs to go on from here to `sink`; no worker runs. May
    /// be NULL: then there is nothing.
    pub save: Option<unsafe extern "C" fn(device: *mut c_void, sink: *const OutboardSink) -> i32>,
    /// [control] Takes what `save` of the same kind of device wrote, perhaps of another version of the
    /// plugin. After `create` or `reset`, before `start`. May be NULL.
    pub restore:
        Option<unsafe extern "C" fn(device: *mut c_void, data: *const u8, len: usize) -> i32>,
}

/// What a virtio device is. The host's memory, all zeroes but for its size, and filled by
/// `describe`; do not touch what lies behind `size`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardVirtioInfo {
    /// Of the host.
    pub size: u32,
    /// Length of configuration space in bytes.
    pub config_len: u32,
    /// Feature bits of the device class: 0 to 23, and from 50 on. The host adds those of rings and
    /// transport.
    pub features: u64,
    /// Queues per group, in queue order. Device's, valid and constant until `destroy`.
    pub groups: *const u16,
    pub group_count: usize,
    /// The largest ring, a power of two up to 32768; 0 for the host's choice.
    pub max_queue_size: u32,
    /// 0.
    pub reserved: u32,
}

/// Where `save` writes. Host's, valid during that call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardSink {
    /// `sizeof(OutboardSink)`, of the host.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    pub context: *mut c_void,
    /// [control] Appends bytes.
    pub write:
        Option<unsafe extern "C" fn(context: *mut c_void, data: *const u8, len: usize) -> i32>,
}

/// What serves one group of queues, on a thread of its own. The host's memory, filled by `start`; do
/// not touch what lies behind `size`.
///
/// A worker is called (`run`, and `poll` and `drain` if it has them), or it takes the thread
/// (`serve`), which wins when both are there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardWorker {
    /// Of the host.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The first argument of the functions, and what `stop` frees.
    pub context: *mut c_void,
    /// Descriptors to be woken by, 64 at most. Worker's, valid until `stop`.
    pub watches: *const OutboardWatch,
    pub watch_count: usize,
    /// [queue] Something is ready: take what there is, complete what is done, keep the rest in
    /// flight. No call may block. After a few hundred requests return `OUTBOARD_WORKED`: the call
    /// comes again at once. Buffers left in a queue do not cause another call by themselves.
    /// `queues` is the same at each call and valid until `stop`, `ready` during the call. Returns
    /// `OUTBOARD_IDLE`, `_WAITING` or `_WORKED`, or an error, which ends the worker.
    pub run: Option<
        unsafe extern "C" fn(
            worker: *mut c_void,
            queues: *const OutboardQueues,
            ready: *const OutboardReady,
        ) -> i32,
    >,
    /// [queue] Called between looks at the rings while the thread polls before it sleeps: look at
    /// completions without a system call. Returns as `run`. May be NULL.
    pub poll:
        Option<unsafe extern "C" fn(worker: *mut c_void, queues: *const OutboardQueues) -> i32>,
    /// [queue] The queues stop: complete or give back every request held. Called until it returns
    /// `OUTBOARD_IDLE`, or an error. May be NULL when nothing is ever held between two calls.
    pub drain:
        Option<unsafe extern "C" fn(worker: *mut c_void, queues: *const OutboardQueues) -> i32>,
    /// [queue] Serves until `OutboardQueues.attend` says `OUTBOARD_STOP`, completes or gives back what
    /// is held, and returns. Sleeps on `OutboardQueues.fd`, and on what else it likes.
    pub serve:
        Option<unsafe extern "C" fn(worker: *mut c_void, queues: *const OutboardQueues) -> i32>,
}

/// Why a worker is called: bit n for queue n of its group, for the nth of its watches. A hint: all
/// may be set, and from place 64 on nothing is said. Host's, valid during the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardReady {
    /// `sizeof(OutboardReady)`, of the host.
    pub size: u32,
    /// `OUTBOARD_STOP`, of `attend` only.
    pub flags: u32,
    pub queues: u64,
    pub watches: u64,
}

/// The queues of one group. Host's, valid until the worker's `stop`.
///
/// All its functions are [queue]: only the thread that calls the worker may call them, and only
/// during such a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardQueues {
    /// `sizeof(OutboardQueues)`, of the host.
    pub size: u32,
    /// How many there are.
    pub count: u32,
    /// The first argument of the functions.
    pub context: *mut c_void,
    /// [queue] Takes up to `capacity` requests from a queue, in the driver's order. Returns how many,
    /// 0 when there are none now, or an error: return it as the worker's.
    pub take: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            queue: u32,
            requests: *mut OutboardRequest,
            capacity: u32,
        ) -> i32,
    >,
    /// [queue] Answers requests, of any of the group's queues. Those of one queue that stand
    /// together appear to the driver at once, in their order.
    pub complete: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            done: *const OutboardCompletion,
            count: usize,
        ) -> i32,
    >,
    /// [queue] Returns requests nobody has acted on, as if they had not been taken.
    pub give_back:
        Option<unsafe extern "C" fn(context: *mut c_void, tokens: *const u64, count: usize) -> i32>,
    /// [queue] Whether the driver's kicks on this queue are of interest. They are, at first.
    pub set_kicks: Option<unsafe extern "C" fn(context: *mut c_void, queue: u32, wanted: u32)>,
    /// [queue] The ring's entries: the most requests that can be in flight; 0 while the driver has
    /// not set the queue up, or has disabled it.
    pub ring_size: Option<unsafe extern "C" fn(context: *mut c_void, queue: u32) -> u32>,
    /// [queue] For `serve`: does what the host wants done on this thread, and says what is ready. When
    /// nothing is, `fd` will become readable with the next news. After `OUTBOARD_STOP` no more
    /// requests are taken. `ready` is the caller's, its size set.
    pub attend:
        Option<unsafe extern "C" fn(context: *mut c_void, ready: *mut OutboardReady) -> i32>,
    /// For `serve`: readable when `attend` is to be called. Do not read it. -1 for other workers.
    pub fd: c_int,
    /// The first queue's index within the device.
    pub first: u32,
}

/// The operations of a device of registers. Plugin's, constant, valid for ever.
///
/// [device]: on any thread, but one call at a time. A vCPU waits meanwhile, so none may block.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardRegisters {
    /// `sizeof(OutboardRegisters)`.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// [control] Says where the registers are. Called once, right after `create`.
    pub describe:
        Option<unsafe extern "C" fn(device: *mut c_void, info: *mut OutboardRegistersInfo) -> i32>,
    /// [device] The guest reads `len` bytes at `offset` from the start of the range: 1, 2, 4 or 8, all
    /// within it. `data` holds ones: what no register answers may be left alone.
    pub read:
        Option<unsafe extern "C" fn(device: *mut c_void, offset: u64, data: *mut u8, len: usize)>,
    /// [device] The guest writes, as above.
    pub write:
        Option<unsafe extern "C" fn(device: *mut c_void, offset: u64, data: *const u8, len: usize)>,
    /// [device] The machine resets: power-on values, the line low. May be NULL.
    pub reset: Option<unsafe extern "C" fn(device: *mut c_void)>,
    /// [device] The time set by `OutboardServices.set_timer` has come. May be NULL.
    pub timer: Option<unsafe extern "C" fn(device: *mut c_void)>,
    /// [device] A descriptor given to `OutboardServices.watch` is ready. May be NULL.
    pub ready: Option<unsafe extern "C" fn(device: *mut c_void, fd: c_int, events: u32)>,
}

/// Where registers are. The host's memory, all zeroes but for its size, and filled by `describe`; do
/// not touch what lies behind `size`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardRegistersInfo {
    /// Of the host.
    pub size: u32,
    /// `OUTBOARD_PORTS` or `OUTBOARD_MMIO`.
    pub space: u32,
    /// The first address.
    pub base: u64,
    /// How many bytes.
    pub len: u64,
    /// The interrupt line, as the machine's interrupt controllers count (ISA's 0 to 15, and on to
    /// 23), or `OUTBOARD_NO_LINE`.
    pub line: u32,
    /// 0.
    pub reserved: u32,
}

/// The extension "outboard.guest-memory/1" of a device's services: copies to and from guest physical
/// addresses, for a device that is told them in registers. Host's, valid as the services are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OutboardGuestMemory {
    /// `sizeof(OutboardGuestMemory)`, of the host.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The first argument of the functions.
    pub context: *mut c_void,
    /// [any] Copies from the guest. An error, and nothing useful in `data`, when any of the bytes is
    /// not the guest's memory.
    pub read: Option<
        unsafe extern "C" fn(context: *mut c_void, address: u64, data: *mut u8, len: usize) -> i32,
    >,
    /// [any] Copies to the guest, as above.
    pub write: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            address: u64,
            data: *const u8,
            len: usize,
        ) -> i32,
    >,
}
