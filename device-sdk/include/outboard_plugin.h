/* The ABI between Outboard and its device plugins, version 1. Made from device-sdk/src/abi/raw.rs by
 * `make header`; do not edit.
 *
 * A plugin is a shared library that exports one function:
 *
 *     const OutboardPlugin *outboard_plugin_entry_v1(void);
 *
 * The rules, which hold for everything below:
 *
 * - Every struct begins with its size, in bytes, as its maker was compiled; those marked frozen never
 *   change instead. Within a major version fields are only appended. Whoever reads a struct looks at
 *   its size first and takes a field behind it for zero, so either side may be the older one.
 *   An array of structs that begin with a size is stepped through by the size of its first element,
 *   not by sizeof.
 * - Reserved fields are zero. Bits and numbers not named here are kept for later versions: a host
 *   ignores those in flags it does not know, and refuses kinds it does not know.
 * - Whoever allocates frees. "Plugin's", "host's" and so on say whose a thing is, and how long it is
 *   valid. A pointer argument is valid during the call, unless it says more.
 * - A function pointer may be NULL only where it says so. Calls return OUTBOARD_OK or an error (below
 *   zero) unless they say otherwise. No exception, panic or longjmp may cross.
 * - Threads. [control]: the thread that manages the device, one call at a time; it may be another at the
 *   next call. [queue]: the thread of a group of queues, from its worker's first call to its last.
 *   [device]: any thread, one call on a device at a time. [any]: any thread at any moment, also within a
 *   call in the other direction; never blocks. Calls of one device's [control] and [queue] threads run at
 *   the same time.
 * - What is not in this version is reached by name: `extension` of the plugin, of a device, of the host
 *   and of a device's services return a table that belongs to the name, or NULL. Names are
 *   "owner.what/version"; "outboard." is Outboard's. A table begins with its size, as any struct.
 * - A host calls nothing before it has checked magic, major version and size. It never unloads a
 *   plugin: its threads, statics and code stay until the process ends.
 */


#ifndef OUTBOARD_PLUGIN_H
#define OUTBOARD_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

// "OBPL" in a little-endian integer: the table is one of a plugin.
#define OUTBOARD_MAGIC 1280328271

// The ABI's major version. Another one has another entry symbol and other structs.
#define OUTBOARD_ABI_MAJOR 1

// The ABI's minor version: it counts what has been appended since 1.0.
#define OUTBOARD_ABI_MINOR 0

// Done.
#define OUTBOARD_OK 0

// Not done; `OutboardHost.error` has been called with the reason, if there is one worth saying.
#define OUTBOARD_ERROR -1

// Not done: the plugin panicked. Only Rust plugins say so.
#define OUTBOARD_PANIC -2

// Not done: there is no such thing here.
#define OUTBOARD_UNSUPPORTED -3

// A worker found nothing to do, and holds nothing that will come to an end by itself.
#define OUTBOARD_IDLE 0

// A worker found nothing to do now; one of its descriptors will announce the end of what it has in
// flight.
#define OUTBOARD_WAITING 1

// A worker did something and is to be called again soon.
#define OUTBOARD_WORKED 2

// Levels of `OutboardHost.log`.
#define OUTBOARD_LOG_ERROR 1

#define OUTBOARD_LOG_WARN 2

#define OUTBOARD_LOG_INFO 3

#define OUTBOARD_LOG_DEBUG 4

#define OUTBOARD_LOG_TRACE 5

// `OutboardPlugin.needs`: sockets other than local ones, after the device has been made.
#define OUTBOARD_NEEDS_NET 1

// `OutboardDevice.kind`: a virtio device, with queues.
#define OUTBOARD_VIRTIO 1

// `OutboardDevice.kind`: registers behind ports or MMIO, and an interrupt line.
#define OUTBOARD_REGISTERS 2

// `OutboardOption.kind`: any text.
#define OUTBOARD_TEXT 1

// on or off.
#define OUTBOARD_BOOL 2

// A whole number, decimal or hexadecimal with 0x.
#define OUTBOARD_NUMBER 3

// A number of bytes; people may write K, M, G or T after it.
#define OUTBOARD_SIZE 4

// A path; made absolute before the plugin sees it.
#define OUTBOARD_PATH 5

// `OutboardOption.flags`: the device cannot be made without it.
#define OUTBOARD_REQUIRED 1

// `OutboardWatch.events`, `OutboardServices.watch`: the descriptor can be read, or has ended.
#define OUTBOARD_READABLE 1

// The descriptor can be written.
#define OUTBOARD_WRITABLE 2

// `OutboardReady.flags`: the queues are to stop.
#define OUTBOARD_STOP 1

// `OutboardRegistersInfo.space`: I/O ports.
#define OUTBOARD_PORTS 1

// Memory-mapped I/O.
#define OUTBOARD_MMIO 2

// `OutboardRegistersInfo.line`: no interrupt line.
#define OUTBOARD_NO_LINE UINT32_MAX

// Text, in UTF-8, not ended by a zero. Frozen.
typedef struct OutboardStr {
    // May be NULL when `len` is 0.
    const char *data;
    // In bytes.
    size_t len;
} OutboardStr;

// One option of a device: `key=value`. Plugin's, constant, valid for ever.
typedef struct OutboardOption {
    // `sizeof(OutboardOption)`.
    uint32_t size;
    // `OUTBOARD_TEXT`, ...
    uint32_t kind;
    // `OUTBOARD_REQUIRED`, or 0.
    uint32_t flags;
    // 0.
    uint32_t reserved;
    // Small letters, digits and '-'. Not: plugin, device, host, name, id, addr, queues, on-exit.
    struct OutboardStr name;
    // A line for people.
    struct OutboardStr help;
    // As a person would write it; NULL when there is none.
    struct OutboardStr default_value;
} OutboardOption;

// The host, as one device sees it. Host's, valid until the device's `destroy` has returned.
typedef struct OutboardServices {
    // `sizeof(OutboardServices)`, of the host.
    uint32_t size;
    // 0.
    uint32_t reserved;
    // The first argument of the functions.
    void *context;
    // [any] Virtio: configuration space has changed; the driver is interrupted and reads it again.
    void (*config_changed)(void *context);
    // [any] The device cannot go on until it is reset, for this reason.
    void (*failed)(void *context, struct OutboardStr reason);
    // [any] Registers: drives the interrupt line high (1) or low (0).
    void (*set_line)(void *context, uint32_t high);
    // [any] Registers: `OutboardRegisters.timer` is called once, this many nanoseconds from now, in
    // place of any time set before. 0 takes the timer back.
    void (*set_timer)(void *context, uint64_t nanoseconds);
    // [any] Registers: `OutboardRegisters.ready` is called when `fd` becomes ready for `events`,
    // edge-triggered; 0 ends that, and must be asked for before `fd` is closed.
    int32_t (*watch)(void *context, int fd, uint32_t events);
    // [any] A named extension's table, or NULL. See the end of this header for those there are.
    const void *(*extension)(void *context, struct OutboardStr name);
} OutboardServices;

// An option's value. Frozen.
typedef struct OutboardValue {
    // Of a number or size, its value; of a bool, 0 or 1; else 0.
    uint64_t number;
    // As it was written, or the default; of a path, absolute.
    struct OutboardStr text;
    // 0: neither given nor with a default; the rest is 0 too.
    uint32_t set;
    // 0.
    uint32_t reserved;
} OutboardValue;

// What a virtio device is. The host's memory, all zeroes but for its size, and filled by
// `describe`; do not touch what lies behind `size`.
typedef struct OutboardVirtioInfo {
    // Of the host.
    uint32_t size;
    // Length of configuration space in bytes.
    uint32_t config_len;
    // Feature bits of the device class: 0 to 23, and from 50 on. The host adds those of rings and
    // transport.
    uint64_t features;
    // Queues per group, in queue order. Device's, valid and constant until `destroy`.
    const uint16_t *groups;
    size_t group_count;
    // The largest ring, a power of two up to 32768; 0 for the host's choice.
    uint32_t max_queue_size;
    // 0.
    uint32_t reserved;
} OutboardVirtioInfo;

// A descriptor that a worker's thread sleeps on besides its queues. Frozen.
//
// It is watched edge-triggered: after a wake-up read or write until EAGAIN, or remember that more
// is there.
typedef struct OutboardWatch {
    // The plugin's; open until the worker has ended.
    int fd;
    // `OUTBOARD_READABLE` and `OUTBOARD_WRITABLE`.
    uint32_t events;
} OutboardWatch;

// A piece of guest memory, laid out as a `struct iovec`. Frozen.
//
// The guest can change the bytes at any time: read what you check once, into memory of your own.
typedef struct OutboardSegment {
    void *base;
    // In bytes, never 0.
    size_t len;
} OutboardSegment;

// One descriptor chain: the plugin's from `take` until `complete` or `give_back`. Frozen.
typedef struct OutboardRequest {
    // The host's name for it.
    uint64_t token;
    // First those the device reads, then those it writes. Host's; valid as long as the request is
    // the plugin's, also for the kernel (readv, `io_uring`).
    const struct OutboardSegment *segments;
    // How many of the segments the device reads.
    uint32_t readable;
    // How many of the segments the device writes.
    uint32_t writable;
    // The queue's place in its group.
    uint32_t queue;
    // Index of the chain's first descriptor, or of a packed ring the buffer's id: below the ring's
    // size, and of no other request in flight on the same queue of a well-behaved driver.
    uint32_t head;
} OutboardRequest;

// The end of one request. Frozen.
typedef struct OutboardCompletion {
    // The request's.
    uint64_t token;
    // How many bytes were written to it; no more than its writable segments hold.
    uint32_t written;
    // 0.
    uint32_t reserved;
} OutboardCompletion;

// Why a worker is called: bit n for queue n of its group, for the nth of its watches. A hint: all
// may be set, and from place 64 on nothing is said. Host's, valid during the call.
typedef struct OutboardReady {
    // `sizeof(OutboardReady)`, of the host.
    uint32_t size;
    // `OUTBOARD_STOP`, of `attend` only.
    uint32_t flags;
    uint64_t queues;
    uint64_t watches;
} OutboardReady;

// The queues of one group. Host's, valid until the worker's `stop`.
//
// All its functions are [queue]: only the thread that calls the worker may call them, and only
// during such a call.
typedef struct OutboardQueues {
    // `sizeof(OutboardQueues)`, of the host.
    uint32_t size;
    // How many there are.
    uint32_t count;
    // The first argument of the functions.
    void *context;
    // [queue] Takes up to `capacity` requests from a queue, in the driver's order. Returns how many,
    // 0 when there are none now, or an error: return it as the worker's.
    int32_t (*take)(void *context,
                    uint32_t queue,
                    struct OutboardRequest *requests,
                    uint32_t capacity);
    // [queue] Answers requests, of any of the group's queues. Those of one queue that stand
    // together appear to the driver at once, in their order.
    int32_t (*complete)(void *context, const struct OutboardCompletion *done, size_t count);
    // [queue] Returns requests nobody has acted on, as if they had not been taken.
    int32_t (*give_back)(void *context, const uint64_t *tokens, size_t count);
    // [queue] Whether the driver's kicks on this queue are of interest. They are, at first.
    void (*set_kicks)(void *context, uint32_t queue, uint32_t wanted);
    // [queue] The ring's entries: the most requests that can be in flight; 0 while the driver has
    // not set the queue up, or has disabled it.
    uint32_t (*ring_size)(void *context, uint32_t queue);
    // [queue] For `serve`: does what the host wants done on this thread, and says what is ready. When
    // nothing is, `fd` will become readable with the next news. After `OUTBOARD_STOP` no more
    // requests are taken. `ready` is the caller's, its size set.
    int32_t (*attend)(void *context, struct OutboardReady *ready);
    // For `serve`: readable when `attend` is to be called. Do not read it. -1 for other workers.
    int fd;
    // The first queue's index within the device.
    uint32_t first;
} OutboardQueues;

// What serves one group of queues, on a thread of its own. The host's memory, filled by `start`; do
// not touch what lies behind `size`.
//
// A worker is called (`run`, and `poll` and `drain` if it has them), or it takes the thread
// (`serve`), which wins when both are there.
typedef struct OutboardWorker {
    // Of the host.
    uint32_t size;
    // 0.
    uint32_t reserved;
    // The first argument of the functions, and what `stop` frees.
    void *context;
    // Descriptors to be woken by, 64 at most. Worker's, valid until `stop`.
    const struct OutboardWatch *watches;
    size_t watch_count;
    // [queue] Something is ready: take what there is, complete what is done, keep the rest in
    // flight. No call may block. After a few hundred requests return `OUTBOARD_WORKED`: the call
    // comes again at once. Buffers left in a queue do not cause another call by themselves.
    // `queues` is the same at each call and valid until `stop`, `ready` during the call. Returns
    // `OUTBOARD_IDLE`, `_WAITING` or `_WORKED`, or an error, which ends the worker.
    int32_t (*run)(void *worker,
                   const struct OutboardQueues *queues,
                   const struct OutboardReady *ready);
    // [queue] Called between looks at the rings while the thread polls before it sleeps: look at
    // completions without a system call. Returns as `run`. May be NULL.
    int32_t (*poll)(void *worker, const struct OutboardQueues *queues);
    // [queue] The queues stop: complete or give back every request held. Called until it returns
    // `OUTBOARD_IDLE`, or an error. May be NULL when nothing is ever held between two calls.
    int32_t (*drain)(void *worker, const struct OutboardQueues *queues);
    // [queue] Serves until `OutboardQueues.attend` says `OUTBOARD_STOP`, completes or gives back what
    // is held, and returns. Sleeps on `OutboardQueues.fd`, and on what else it likes.
    int32_t (*serve)(void *worker, const struct OutboardQueues *queues);
} OutboardWorker;

// Where `save` writes. Host's, valid during that call.
typedef struct OutboardSink {
    // `sizeof(OutboardSink)`, of the host.
    uint32_t size;
    // 0.
    uint32_t reserved;
    void *context;
    // [control] Appends bytes.
    int32_t (*write)(void *context, const uint8_t *data, size_t len);
} OutboardSink;

// The operations of a virtio device. Plugin's, constant, valid for ever.
//
// All of them are [control]: one at a time, on one thread after another, and none may block for
// long, since a vCPU may be waiting.
typedef struct OutboardVirtio {
    // `sizeof(OutboardVirtio)`.
    uint32_t size;
    // 0.
    uint32_t reserved;
    // [control] Says what the device is. Called once, right after `create`.
    int32_t (*describe)(void *device, struct OutboardVirtioInfo *info);
    // [control] Reads configuration space into `data`, which holds zeroes. `offset + len` is
    // within `config_len`. May be NULL when that is 0.
    void (*read_config)(void *device, uint32_t offset, uint8_t *data, size_t len);
    // [control] A driver's write to configuration space, within `config_len`. May be NULL.
    void (*write_config)(void *device, uint32_t offset, const uint8_t *data, size_t len);
    // [control] The features the driver took, some of those offered. Called before the first
    // `start`, never while a worker runs. May be NULL.
    int32_t (*set_features)(void *device, uint64_t features);
    // [control] A worker for a group of queues: fills `worker`, which holds zeroes but for its
    // size. Called again only after `stop` of the same group.
    int32_t (*start)(void *device, uint32_t group, struct OutboardWorker *worker);
    // [control] The worker's thread has ended: free `worker`, the one from `start`. Called once for
    // each `start` that succeeded, also when the worker failed.
    void (*stop)(void *device, uint32_t group, void *worker);
    // [control] Back to the state after `create`. No worker runs. Twice is the same as once.
    void (*reset)(void *device);
    // [control] Writes what another instance needs to go on from here to `sink`; no worker runs. May
    // be NULL: then there is nothing.
    int32_t (*save)(void *device, const struct OutboardSink *sink);
    // [control] Takes what `save` of the same kind of device wrote, perhaps of another version of the
    // plugin. After `create` or `reset`, before `start`. May be NULL.
    int32_t (*restore)(void *device, const uint8_t *data, size_t len);
} OutboardVirtio;

// Where registers are. The host's memory, all zeroes but for its size, and filled by `describe`; do
// not touch what lies behind `size`.
typedef struct OutboardRegistersInfo {
    // Of the host.
    uint32_t size;
    // `OUTBOARD_PORTS` or `OUTBOARD_MMIO`.
    uint32_t space;
    // The first address.
    uint64_t base;
    // How many bytes.
    uint64_t len;
    // The interrupt line, as the machine's interrupt controllers count (ISA's 0 to 15, and on to
    // 23), or `OUTBOARD_NO_LINE`.
    uint32_t line;
    // 0.
    uint32_t reserved;
} OutboardRegistersInfo;

// The operations of a device of registers. Plugin's, constant, valid for ever.
//
// [device]: on any thread, but one call at a time. A vCPU waits meanwhile, so none may block.
typedef struct OutboardRegisters {
    // `sizeof(OutboardRegisters)`.
    uint32_t size;
    // 0.
    uint32_t reserved;
    // [control] Says where the registers are. Called once, right after `create`.
    int32_t (*describe)(void *device, struct OutboardRegistersInfo *info);
    // [device] The guest reads `len` bytes at `offset` from the start of the range: 1, 2, 4 or 8, all
    // within it. `data` holds ones: what no register answers may be left alone.
    void (*read)(void *device, uint64_t offset, uint8_t *data, size_t len);
    // [device] The guest writes, as above.
    void (*write)(void *device, uint64_t offset, const uint8_t *data, size_t len);
    // [device] The machine resets: power-on values, the line low. May be NULL.
    void (*reset)(void *device);
    // [device] The time set by `OutboardServices.set_timer` has come. May be NULL.
    void (*timer)(void *device);
    // [device] A descriptor given to `OutboardServices.watch` is ready. May be NULL.
    void (*ready)(void *device, int fd, uint32_t events);
} OutboardRegisters;

// A kind of device that the plugin offers. Plugin's, constant, valid for ever.
typedef struct OutboardDevice {
    // `sizeof(OutboardDevice)`.
    uint32_t size;
    // `OUTBOARD_VIRTIO` or `OUTBOARD_REGISTERS`.
    uint32_t kind;
    // Virtio device id (virtio 1.2, section 5); 0 for registers.
    uint32_t virtio_id;
    // 0.
    uint32_t reserved;
    // Letters, digits and '-'; unique in the plugin.
    struct OutboardStr name;
    // A line for people.
    struct OutboardStr summary;
    // An array; its step is its first element's `size`.
    const struct OutboardOption *options;
    size_t option_count;
    // [control] Makes a device. `values` has one for each option, in their order; it is valid
    // during the call, `services` until `destroy` returns. On success `device` is set.
    int32_t (*create)(const struct OutboardServices *services,
                      const struct OutboardValue *values,
                      size_t value_count,
                      void **device);
    // [control] Unmakes a device. None of its workers is running, and no call on it follows.
    void (*destroy)(void *device);
    // Of a virtio device.
    const struct OutboardVirtio *virtio;
    // Of a device of registers.
    const struct OutboardRegisters *registers;
    // [any] A named extension's table for the device, or NULL. May be NULL.
    const void *(*extension)(void *device, struct OutboardStr name);
} OutboardDevice;

// The host, as all devices of a plugin see it. Host's, valid for ever.
typedef struct OutboardHost {
    // `sizeof(OutboardHost)`, of the host.
    uint32_t size;
    // The host's `OUTBOARD_ABI_MINOR`. May be below the plugin's.
    uint32_t abi_minor;
    // The first argument of the functions.
    void *context;
    // [any] A line for the log. `target` says what speaks; it may be empty.
    void (*log)(void *context, uint32_t level, struct OutboardStr target, struct OutboardStr message);
    // [any] Says why the call that this thread is in will return an error. The last one counts.
    void (*error)(void *context, struct OutboardStr message);
    // [any] A named extension's table, or NULL.
    const void *(*extension)(void *context, struct OutboardStr name);
} OutboardHost;

// What `outboard_plugin_entry_v1` returns. Plugin's, constant, valid for ever.
typedef struct OutboardPlugin {
    // `sizeof(OutboardPlugin)`.
    uint32_t size;
    // `OUTBOARD_MAGIC`.
    uint32_t magic;
    // `OUTBOARD_ABI_MAJOR`, of the header the plugin was built with.
    uint32_t abi_major;
    // `OUTBOARD_ABI_MINOR`, of the header the plugin was built with. May be above the host's.
    uint32_t abi_minor;
    // The least minor version of a host this plugin can work with: 0, unless it cannot do without
    // something appended later.
    uint32_t required_minor;
    // 0.
    uint32_t reserved;
    // What the sandbox of outboard-plugin-host must leave: `OUTBOARD_NEEDS_NET`.
    uint64_t needs;
    struct OutboardStr name;
    // The plugin's own.
    struct OutboardStr version;
    // An array; its step is its first element's `size`.
    const struct OutboardDevice *devices;
    size_t device_count;
    // [control] Called once, before anything else. `host` is valid for ever. May be NULL.
    int32_t (*init)(const struct OutboardHost *host);
    // [any] A named extension's table, or NULL. May be NULL.
    const void *(*extension)(struct OutboardStr name);
} OutboardPlugin;

// The extension "outboard.guest-memory/1" of a device's services: copies to and from guest physical
// addresses, for a device that is told them in registers. Host's, valid as the services are.
typedef struct OutboardGuestMemory {
    // `sizeof(OutboardGuestMemory)`, of the host.
    uint32_t size;
    // 0.
    uint32_t reserved;
    // The first argument of the functions.
    void *context;
    // [any] Copies from the guest. An error, and nothing useful in `data`, when any of the bytes is
    // not the guest's memory.
    int32_t (*read)(void *context, uint64_t address, uint8_t *data, size_t len);
    // [any] Copies to the guest, as above.
    int32_t (*write)(void *context, uint64_t address, const uint8_t *data, size_t len);
} OutboardGuestMemory;

/* The first argument of OutboardServices.extension for an OutboardGuestMemory. */
#define OUTBOARD_GUEST_MEMORY "outboard.guest-memory/1"

/* A string literal as the initializer of an OutboardStr. */
#define OUTBOARD_STR(literal) { (literal), sizeof(literal) - 1 }

#if defined(__GNUC__)
#define OUTBOARD_EXPORT __attribute__((visibility("default")))
#else
#define OUTBOARD_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a plugin exports. [control] Called once. */
OUTBOARD_EXPORT const OutboardPlugin *outboard_plugin_entry_v1(void);

#ifdef __cplusplus
}
#else

/* The layout of version 1.0, for ever. */
_Static_assert(sizeof(OutboardStr) >= 16, "OutboardStr");
_Static_assert(offsetof(OutboardStr, data) == 0, "OutboardStr.data");
_Static_assert(offsetof(OutboardStr, len) == 8, "OutboardStr.len");
_Static_assert(sizeof(OutboardSegment) >= 16, "OutboardSegment");
_Static_assert(offsetof(OutboardSegment, base) == 0, "OutboardSegment.base");
_Static_assert(offsetof(OutboardSegment, len) == 8, "OutboardSegment.len");
_Static_assert(sizeof(OutboardRequest) >= 32, "OutboardRequest");
_Static_assert(offsetof(OutboardRequest, token) == 0, "OutboardRequest.token");
_Static_assert(offsetof(OutboardRequest, segments) == 8, "OutboardRequest.segments");
_Static_assert(offsetof(OutboardRequest, readable) == 16, "OutboardRequest.readable");
_Static_assert(offsetof(OutboardRequest, writable) == 20, "OutboardRequest.writable");
_Static_assert(offsetof(OutboardRequest, queue) == 24, "OutboardRequest.queue");
_Static_assert(offsetof(OutboardRequest, head) == 28, "OutboardRequest.head");
_Static_assert(sizeof(OutboardCompletion) >= 16, "OutboardCompletion");
_Static_assert(offsetof(OutboardCompletion, token) == 0, "OutboardCompletion.token");
_Static_assert(offsetof(OutboardCompletion, written) == 8, "OutboardCompletion.written");
_Static_assert(offsetof(OutboardCompletion, reserved) == 12, "OutboardCompletion.reserved");
_Static_assert(sizeof(OutboardWatch) >= 8, "OutboardWatch");
_Static_assert(offsetof(OutboardWatch, fd) == 0, "OutboardWatch.fd");
_Static_assert(offsetof(OutboardWatch, events) == 4, "OutboardWatch.events");
_Static_assert(sizeof(OutboardValue) >= 32, "OutboardValue");
_Static_assert(offsetof(OutboardValue, number) == 0, "OutboardValue.number");
_Static_assert(offsetof(OutboardValue, text) == 8, "OutboardValue.text");
_Static_assert(offsetof(OutboardValue, set) == 24, "OutboardValue.set");
_Static_assert(offsetof(OutboardValue, reserved) == 28, "OutboardValue.reserved");
_Static_assert(sizeof(OutboardPlugin) >= 96, "OutboardPlugin");
_Static_assert(offsetof(OutboardPlugin, size) == 0, "OutboardPlugin.size");
_Static_assert(offsetof(OutboardPlugin, magic) == 4, "OutboardPlugin.magic");
_Static_assert(offsetof(OutboardPlugin, abi_major) == 8, "OutboardPlugin.abi_major");
_Static_assert(offsetof(OutboardPlugin, abi_minor) == 12, "OutboardPlugin.abi_minor");
_Static_assert(offsetof(OutboardPlugin, required_minor) == 16, "OutboardPlugin.required_minor");
_Static_assert(offsetof(OutboardPlugin, reserved) == 20, "OutboardPlugin.reserved");
_Static_assert(offsetof(OutboardPlugin, needs) == 24, "OutboardPlugin.needs");
_Static_assert(offsetof(OutboardPlugin, name) == 32, "OutboardPlugin.name");
_Static_assert(offsetof(OutboardPlugin, version) == 48, "OutboardPlugin.version");
_Static_assert(offsetof(OutboardPlugin, devices) == 64, "OutboardPlugin.devices");
_Static_assert(offsetof(OutboardPlugin, device_count) == 72, "OutboardPlugin.device_count");
_Static_assert(offsetof(OutboardPlugin, init) == 80, "OutboardPlugin.init");
_Static_assert(offsetof(OutboardPlugin, extension) == 88, "OutboardPlugin.extension");
_Static_assert(sizeof(OutboardHost) >= 40, "OutboardHost");
_Static_assert(offsetof(OutboardHost, size) == 0, "OutboardHost.size");
_Static_assert(offsetof(OutboardHost, abi_minor) == 4, "OutboardHost.abi_minor");
_Static_assert(offsetof(OutboardHost, context) == 8, "OutboardHost.context");
_Static_assert(offsetof(OutboardHost, log) == 16, "OutboardHost.log");
_Static_assert(offsetof(OutboardHost, error) == 24, "OutboardHost.error");
_Static_assert(offsetof(OutboardHost, extension) == 32, "OutboardHost.extension");
_Static_assert(sizeof(OutboardDevice) >= 104, "OutboardDevice");
_Static_assert(offsetof(OutboardDevice, size) == 0, "OutboardDevice.size");
_Static_assert(offsetof(OutboardDevice, kind) == 4, "OutboardDevice.kind");
_Static_assert(offsetof(OutboardDevice, virtio_id) == 8, "OutboardDevice.virtio_id");
_Static_assert(offsetof(OutboardDevice, reserved) == 12, "OutboardDevice.reserved");
_Static_assert(offsetof(OutboardDevice, name) == 16, "OutboardDevice.name");
_Static_assert(offsetof(OutboardDevice, summary) == 32, "OutboardDevice.summary");
_Static_assert(offsetof(OutboardDevice, options) == 48, "OutboardDevice.options");
_Static_assert(offsetof(OutboardDevice, option_count) == 56, "OutboardDevice.option_count");
_Static_assert(offsetof(OutboardDevice, create) == 64, "OutboardDevice.create");
_Static_assert(offsetof(OutboardDevice, destroy) == 72, "OutboardDevice.destroy");
_Static_assert(offsetof(OutboardDevice, virtio) == 80, "OutboardDevice.virtio");
_Static_assert(offsetof(OutboardDevice, registers) == 88, "OutboardDevice.registers");
_Static_assert(offsetof(OutboardDevice, extension) == 96, "OutboardDevice.extension");
_Static_assert(sizeof(OutboardOption) >= 64, "OutboardOption");
_Static_assert(offsetof(OutboardOption, size) == 0, "OutboardOption.size");
_Static_assert(offsetof(OutboardOption, kind) == 4, "OutboardOption.kind");
_Static_assert(offsetof(OutboardOption, flags) == 8, "OutboardOption.flags");
_Static_assert(offsetof(OutboardOption, reserved) == 12, "OutboardOption.reserved");
_Static_assert(offsetof(OutboardOption, name) == 16, "OutboardOption.name");
_Static_assert(offsetof(OutboardOption, help) == 32, "OutboardOption.help");
_Static_assert(offsetof(OutboardOption, default_value) == 48, "OutboardOption.default_value");
_Static_assert(sizeof(OutboardServices) >= 64, "OutboardServices");
_Static_assert(offsetof(OutboardServices, size) == 0, "OutboardServices.size");
_Static_assert(offsetof(OutboardServices, reserved) == 4, "OutboardServices.reserved");
_Static_assert(offsetof(OutboardServices, context) == 8, "OutboardServices.context");
_Static_assert(offsetof(OutboardServices, config_changed) == 16, "OutboardServices.config_changed");
_Static_assert(offsetof(OutboardServices, failed) == 24, "OutboardServices.failed");
_Static_assert(offsetof(OutboardServices, set_line) == 32, "OutboardServices.set_line");
_Static_assert(offsetof(OutboardServices, set_timer) == 40, "OutboardServices.set_timer");
_Static_assert(offsetof(OutboardServices, watch) == 48, "OutboardServices.watch");
_Static_assert(offsetof(OutboardServices, extension) == 56, "OutboardServices.extension");
_Static_assert(sizeof(OutboardVirtio) >= 80, "OutboardVirtio");
_Static_assert(offsetof(OutboardVirtio, size) == 0, "OutboardVirtio.size");
_Static_assert(offsetof(OutboardVirtio, reserved) == 4, "OutboardVirtio.reserved");
_Static_assert(offsetof(OutboardVirtio, describe) == 8, "OutboardVirtio.describe");
_Static_assert(offsetof(OutboardVirtio, read_config) == 16, "OutboardVirtio.read_config");
_Static_assert(offsetof(OutboardVirtio, write_config) == 24, "OutboardVirtio.write_config");
_Static_assert(offsetof(OutboardVirtio, set_features) == 32, "OutboardVirtio.set_features");
_Static_assert(offsetof(OutboardVirtio, start) == 40, "OutboardVirtio.start");
_Static_assert(offsetof(OutboardVirtio, stop) == 48, "OutboardVirtio.stop");
_Static_assert(offsetof(OutboardVirtio, reset) == 56, "OutboardVirtio.reset");
_Static_assert(offsetof(OutboardVirtio, save) == 64, "OutboardVirtio.save");
_Static_assert(offsetof(OutboardVirtio, restore) == 72, "OutboardVirtio.restore");
_Static_assert(sizeof(OutboardVirtioInfo) >= 40, "OutboardVirtioInfo");
_Static_assert(offsetof(OutboardVirtioInfo, size) == 0, "OutboardVirtioInfo.size");
_Static_assert(offsetof(OutboardVirtioInfo, config_len) == 4, "OutboardVirtioInfo.config_len");
_Static_assert(offsetof(OutboardVirtioInfo, features) == 8, "OutboardVirtioInfo.features");
_Static_assert(offsetof(OutboardVirtioInfo, groups) == 16, "OutboardVirtioInfo.groups");
_Static_assert(offsetof(OutboardVirtioInfo, group_count) == 24, "OutboardVirtioInfo.group_count");
_Static_assert(offsetof(OutboardVirtioInfo, max_queue_size) == 32, "OutboardVirtioInfo.max_queue_size");
_Static_assert(offsetof(OutboardVirtioInfo, reserved) == 36, "OutboardVirtioInfo.reserved");
_Static_assert(sizeof(OutboardSink) >= 24, "OutboardSink");
_Static_assert(offsetof(OutboardSink, size) == 0, "OutboardSink.size");
_Static_assert(offsetof(OutboardSink, reserved) == 4, "OutboardSink.reserved");
_Static_assert(offsetof(OutboardSink, context) == 8, "OutboardSink.context");
_Static_assert(offsetof(OutboardSink, write) == 16, "OutboardSink.write");
_Static_assert(sizeof(OutboardWorker) >= 64, "OutboardWorker");
_Static_assert(offsetof(OutboardWorker, size) == 0, "OutboardWorker.size");
_Static_assert(offsetof(OutboardWorker, reserved) == 4, "OutboardWorker.reserved");
_Static_assert(offsetof(OutboardWorker, context) == 8, "OutboardWorker.context");
_Static_assert(offsetof(OutboardWorker, watches) == 16, "OutboardWorker.watches");
_Static_assert(offsetof(OutboardWorker, watch_count) == 24, "OutboardWorker.watch_count");
_Static_assert(offsetof(OutboardWorker, run) == 32, "OutboardWorker.run");
_Static_assert(offsetof(OutboardWorker, poll) == 40, "OutboardWorker.poll");
_Static_assert(offsetof(OutboardWorker, drain) == 48, "OutboardWorker.drain");
_Static_assert(offsetof(OutboardWorker, serve) == 56, "OutboardWorker.serve");
_Static_assert(sizeof(OutboardReady) >= 24, "OutboardReady");
_Static_assert(offsetof(OutboardReady, size) == 0, "OutboardReady.size");
_Static_assert(offsetof(OutboardReady, flags) == 4, "OutboardReady.flags");
_Static_assert(offsetof(OutboardReady, queues) == 8, "OutboardReady.queues");
_Static_assert(offsetof(OutboardReady, watches) == 16, "OutboardReady.watches");
_Static_assert(sizeof(OutboardQueues) >= 72, "OutboardQueues");
_Static_assert(offsetof(OutboardQueues, size) == 0, "OutboardQueues.size");
_Static_assert(offsetof(OutboardQueues, count) == 4, "OutboardQueues.count");
_Static_assert(offsetof(OutboardQueues, context) == 8, "OutboardQueues.context");
_Static_assert(offsetof(OutboardQueues, take) == 16, "OutboardQueues.take");
_Static_assert(offsetof(OutboardQueues, complete) == 24, "OutboardQueues.complete");
_Static_assert(offsetof(OutboardQueues, give_back) == 32, "OutboardQueues.give_back");
_Static_assert(offsetof(OutboardQueues, set_kicks) == 40, "OutboardQueues.set_kicks");
_Static_assert(offsetof(OutboardQueues, ring_size) == 48, "OutboardQueues.ring_size");
_Static_assert(offsetof(OutboardQueues, attend) == 56, "OutboardQueues.attend");
_Static_assert(offsetof(OutboardQueues, fd) == 64, "OutboardQueues.fd");
_Static_assert(offsetof(OutboardQueues, first) == 68, "OutboardQueues.first");
_Static_assert(sizeof(OutboardRegisters) >= 56, "OutboardRegisters");
_Static_assert(offsetof(OutboardRegisters, size) == 0, "OutboardRegisters.size");
_Static_assert(offsetof(OutboardRegisters, reserved) == 4, "OutboardRegisters.reserved");
_Static_assert(offsetof(OutboardRegisters, describe) == 8, "OutboardRegisters.describe");
_Static_assert(offsetof(OutboardRegisters, read) == 16, "OutboardRegisters.read");
_Static_assert(offsetof(OutboardRegisters, write) == 24, "OutboardRegisters.write");
_Static_assert(offsetof(OutboardRegisters, reset) == 32, "OutboardRegisters.reset");
_Static_assert(offsetof(OutboardRegisters, timer) == 40, "OutboardRegisters.timer");
_Static_assert(offsetof(OutboardRegisters, ready) == 48, "OutboardRegisters.ready");
_Static_assert(sizeof(OutboardRegistersInfo) >= 32, "OutboardRegistersInfo");
_Static_assert(offsetof(OutboardRegistersInfo, size) == 0, "OutboardRegistersInfo.size");
_Static_assert(offsetof(OutboardRegistersInfo, space) == 4, "OutboardRegistersInfo.space");
_Static_assert(offsetof(OutboardRegistersInfo, base) == 8, "OutboardRegistersInfo.base");
_Static_assert(offsetof(OutboardRegistersInfo, len) == 16, "OutboardRegistersInfo.len");
_Static_assert(offsetof(OutboardRegistersInfo, line) == 24, "OutboardRegistersInfo.line");
_Static_assert(offsetof(OutboardRegistersInfo, reserved) == 28, "OutboardRegistersInfo.reserved");
_Static_assert(sizeof(OutboardGuestMemory) >= 32, "OutboardGuestMemory");
_Static_assert(offsetof(OutboardGuestMemory, size) == 0, "OutboardGuestMemory.size");
_Static_assert(offsetof(OutboardGuestMemory, reserved) == 4, "OutboardGuestMemory.reserved");
_Static_assert(offsetof(OutboardGuestMemory, context) == 8, "OutboardGuestMemory.context");
_Static_assert(offsetof(OutboardGuestMemory, read) == 16, "OutboardGuestMemory.read");
_Static_assert(offsetof(OutboardGuestMemory, write) == 24, "OutboardGuestMemory.write");
#endif

#endif  /* OUTBOARD_PLUGIN_H */
