/* A plugin with faults, one at a time, by its option `fault`. For tests; sound without one: it answers each
 * request with 'A's. Built for a host whose ABI has grown when LATER is defined. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "outboard_plugin.h"

static const OutboardHost *host;
static const uint16_t groups[] = {1};

struct device {
    char fault[32];
    const OutboardServices *services;
    uint64_t kept;
};

static int is(const struct device *device, const char *fault) { return strcmp(device->fault, fault) == 0; }

static int32_t fail(const char *why) {
    OutboardStr reason = {why, strlen(why)};
    host->error(host->context, reason);
    return OUTBOARD_ERROR;
}

static void hang(void) {
    for (;;)
        sleep(1000);
}

static int32_t run(void *context, const OutboardQueues *queues, const OutboardReady *ready) {
    struct device *device = context;
    OutboardRequest request;
    (void)ready;
    int32_t taken;
    while ((taken = queues->take(queues->context, 0, &request, 1)) == 1) {
        uint32_t written = 0;
        for (uint32_t n = 0; n < request.writable; n++) {
            const OutboardSegment *s = &request.segments[request.readable + n];
            memset(s->base, 'A', s->len);
            written += (uint32_t)s->len;
        }
        OutboardCompletion done[2] = {{request.token, written, 0}, {request.token, written, 0}};
        size_t count = 1;
        if (is(device, "error"))
            return fail("the wheels came off");
        if (is(device, "silent-error"))
            return -77;
        if (is(device, "nonsense"))
            return 5;
        if (is(device, "hang"))
            hang();
        if (is(device, "segv"))
            *(volatile int *)NULL = 1;
        if (is(device, "twice"))
            count = 2;
        if (is(device, "never"))
            continue;
        if (is(device, "made-up"))
            done[0].token ^= 1ull << 40;
        if (is(device, "too-much"))
            done[0].written++;
        if (is(device, "foreign-queue")) {
            OutboardRequest other;
            queues->take(queues->context, 9, &other, 1);
        }
        if (is(device, "failed")) {
            OutboardStr why = OUTBOARD_STR("it says so itself");
            device->services->failed(device->services->context, why);
        }
        queues->complete(queues->context, done, count);
    }
    return taken < 0 ? taken : OUTBOARD_IDLE;
}

static int32_t describe(void *device, OutboardVirtioInfo *info) {
    if (is(device, "describe-error"))
        return fail("it does not know itself");
    info->groups = groups;
    info->group_count = is(device, "no-queues") ? 0 : 1;
    info->max_queue_size = is(device, "odd-rings") ? 1000 : 256;
    info->config_len = is(device, "huge-config") ? 1u << 30 : 0;
    return OUTBOARD_OK;
}

/* The same as a disk of 8 sectors, for guests that drive no other device. */
static int32_t describe_disk(void *device, OutboardVirtioInfo *info) {
    int32_t status = describe(device, info);
    info->features = 1u << 9;
    info->config_len = 60;
    return status;
}

static void read_config(void *device, uint32_t offset, uint8_t *data, size_t len) {
    uint8_t config[60] = {64};
    (void)device;
    memcpy(data, config + offset, len);
}

static int32_t start(void *device, uint32_t group, OutboardWorker *worker) {
    (void)group;
    if (is(device, "start-error"))
        return fail("it will not start");
    if (is(device, "start-hang"))
        hang();
    worker->context = device;
    if (!is(device, "no-run"))
        worker->run = run;
    return OUTBOARD_OK;
}

static void stop(void *device, uint32_t group, void *worker) { (void)device, (void)group, (void)worker; }

static void reset(void *device) {
    if (is(device, "reset-hang"))
        hang();
}

static int32_t create(const OutboardServices *services, const OutboardValue *values, size_t count,
                      void **into) {
    (void)count;
    struct device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return OUTBOARD_ERROR;
    size_t len = values[0].text.len < sizeof device->fault ? values[0].text.len : sizeof device->fault - 1;
    memcpy(device->fault, values[0].text.data, len);
    device->services = services;
    if (is(device, "create-error"))
        return fail("not today");
    if (is(device, "create-hang"))
        hang();
    if (is(device, "create-segv"))
        *(volatile int *)NULL = 1;
    *into = device;
    return OUTBOARD_OK;
}

static void destroy(void *device) { free(device); }

/* Registers at port 0x510: a write of an address copies four bytes from there, which a read returns. */
static int32_t describe_registers(void *device, OutboardRegistersInfo *info) {
    info->space = OUTBOARD_PORTS;
    info->base = is(device, "com1") ? 0x3f8 : 0x510;
    info->len = 8;
    info->line = is(device, "line") ? 4 : OUTBOARD_NO_LINE;
    return OUTBOARD_OK;
}

static void read_register(void *context, uint64_t offset, uint8_t *data, size_t len) {
    struct device *device = context;
    (void)offset;
    memcpy(data, &device->kept, len < 8 ? len : 8);
}

static void write_register(void *context, uint64_t offset, const uint8_t *data, size_t len) {
    struct device *device = context;
    uint64_t address = 0;
    (void)offset;
    memcpy(&address, data, len < 8 ? len : 8);
    OutboardStr name = OUTBOARD_STR(OUTBOARD_GUEST_MEMORY);
    const OutboardGuestMemory *memory = device->services->extension(device->services->context, name);
    if (memory == NULL || memory->read(memory->context, address, (uint8_t *)&device->kept, 4) < 0) {
        OutboardStr why = OUTBOARD_STR("the guest told it an address outside its memory");
        device->services->failed(device->services->context, why);
    }
}

static int32_t init(const OutboardHost *given) {
    host = given;
#ifdef REFUSES
    return fail("this machine has no wheels");
#endif
#ifdef CRASHES
    abort();
#endif
#ifdef HANGS
    hang();
#endif
    return OUTBOARD_OK;
}

static const OutboardOption options[] = {{
    .size = sizeof(OutboardOption),
    .kind = OUTBOARD_TEXT,
    .name = OUTBOARD_STR("fault"),
    .help = OUTBOARD_STR("what is wrong with it"),
    .default_value = OUTBOARD_STR("none"),
}};

static const OutboardVirtio virtio = {
    .size = sizeof(OutboardVirtio),
    .describe = describe,
    .start = start,
    .stop = stop,
    .reset = reset,
};

static const OutboardVirtio disk = {
    .size = sizeof(OutboardVirtio),
    .describe = describe_disk,
    .read_config = read_config,
    .start = start,
    .stop = stop,
    .reset = reset,
};

static const OutboardRegisters registers = {
    .size = sizeof(OutboardRegisters),
    .describe = describe_registers,
    .read = read_register,
    .write = write_register,
};

/* Of a later minor version when LATER is defined: each struct that is read by its size has grown. */
#ifdef LATER
#define GROWN(type) struct { type now; uint64_t appended[4]; }
#define NOW(...) .now = {__VA_ARGS__}, .appended = {~0ull, ~0ull, ~0ull, ~0ull}
#else
#define GROWN(type) struct { type now; }
#define NOW(...) .now = {__VA_ARGS__}
#endif

static const GROWN(OutboardDevice) devices[] = {
    {NOW(.size = sizeof devices[0], .kind = OUTBOARD_VIRTIO, .virtio_id = 4, .name = OUTBOARD_STR("faulty"),
         .summary = OUTBOARD_STR("Has a fault"), .options = options, .option_count = 1, .create = create,
         .destroy = destroy, .virtio = &virtio)},
    {NOW(.size = sizeof devices[0], .kind = OUTBOARD_REGISTERS, .name = OUTBOARD_STR("registers"),
         .summary = OUTBOARD_STR("Has a fault, in registers"), .options = options, .option_count = 1,
         .create = create, .destroy = destroy, .registers = &registers)},
    {NOW(.size = sizeof devices[0], .kind = OUTBOARD_VIRTIO, .virtio_id = 2, .name = OUTBOARD_STR("disk"),
         .summary = OUTBOARD_STR("Has a fault, as a disk"), .options = options, .option_count = 1, .create = create,
         .destroy = destroy, .virtio = &disk)},
};

#ifndef MAGIC
#define MAGIC OUTBOARD_MAGIC
#endif
#ifndef MAJOR
#define MAJOR OUTBOARD_ABI_MAJOR
#endif
#ifndef SIZE
#define SIZE sizeof plugin
#endif
#ifndef REQUIRED
#define REQUIRED 0
#endif

static const GROWN(OutboardPlugin) plugin = {
    NOW(.size = SIZE, .magic = MAGIC, .abi_major = MAJOR, .abi_minor = sizeof plugin > sizeof(OutboardPlugin),
        .required_minor = REQUIRED, .name = OUTBOARD_STR("faulty"), .version = OUTBOARD_STR("0.0.1"),
        .devices = &devices[0].now, .device_count = 3, .init = init)};

#ifdef NO_ENTRY
#define outboard_plugin_entry_v1 another_name
OUTBOARD_EXPORT const OutboardPlugin *another_name(void);
#endif
const OutboardPlugin *outboard_plugin_entry_v1(void) { return &plugin.now; }

#ifdef FORKS
/* A helper that outlives who loads it, with all that was open; in a session of its own where DETACHED. */
__attribute__((constructor)) static void helper(void) {
    if (fork() != 0)
        return;
#ifdef DETACHED
    setsid();
#endif
    alarm(60);
    hang();
}
#endif

#ifdef NEEDS_LIBRARY
extern int no_such_function(void);
int use_it(void) { return no_such_function(); }
#endif
