/* A console that says what it is told (virtio 1.2, section 5.3), as a plugin in C11. Build it with `make`, or:
 *
 *     cc -std=c11 -O2 -fPIC -shared -I device-sdk/include -o libecho.so plugins/c-echo/echo.c
 *     outboard run ... --device plugin=./libecho.so
 *
 * One port: what the guest writes to the transmit queue comes back on the receive queue, at the latest when the
 * guest offers buffers. Until then it is kept, the oldest only as far as there is room: a guest that does not
 * listen is not kept waiting. What is kept outlives a stop, and goes along when the device is saved.
 */
#include <stdlib.h>
#include <string.h>

#include "outboard_plugin.h"

/* The queues of port 0, section 5.3.2: they are one group, so that one thread serves both. */
enum { RECEIVE = 0, TRANSMIT = 1 };

#define KEPT 65536u

struct echo {
    uint32_t count;
    uint8_t bytes[KEPT];
};

static const OutboardHost *host;
static const uint16_t groups[] = {2};

static int32_t fail(const char *why) {
    OutboardStr reason = {why, strlen(why)};
    host->error(host->context, reason);
    return OUTBOARD_ERROR;
}

/* Forgets what was kept first. */
static void forget(struct echo *echo, uint32_t count) {
    echo->count -= count;
    memmove(echo->bytes, echo->bytes + count, echo->count);
}

/* Keeps what the guest says. */
static void hear(struct echo *echo, const OutboardRequest *said) {
    for (uint32_t n = 0; n < said->readable; n++) {
        const uint8_t *base = said->segments[n].base;
        size_t len = said->segments[n].len, skip = len > KEPT ? len - KEPT : 0;
        uint32_t part = (uint32_t)(len - skip);
        if (part > KEPT - echo->count)
            forget(echo, part - (KEPT - echo->count));
        memcpy(echo->bytes + echo->count, base + skip, part);
        echo->count += part;
    }
}

/* Says as much of what is kept as the guest's buffer holds, and returns how much. */
static uint32_t say(struct echo *echo, const OutboardRequest *buffer) {
    const OutboardSegment *segments = buffer->segments + buffer->readable;
    uint32_t said = 0;
    for (uint32_t n = 0; n < buffer->writable && said < echo->count; n++) {
        uint32_t left = echo->count - said;
        uint32_t part = segments[n].len < left ? (uint32_t)segments[n].len : left;
        memcpy(segments[n].base, echo->bytes + said, part);
        said += part;
    }
    forget(echo, said);
    return said;
}

/* Takes one request, answers it and returns 1, or 0 when there is none. */
static int32_t serve_one(struct echo *echo, const OutboardQueues *queues, uint32_t queue) {
    OutboardRequest request;
    int32_t taken = queues->take(queues->context, queue, &request, 1);
    if (taken <= 0)
        return taken;
    OutboardCompletion done = {.token = request.token};
    if (queue == TRANSMIT)
        hear(echo, &request);
    else
        done.written = say(echo, &request);
    int32_t status = queues->complete(queues->context, &done, 1);
    return status < 0 ? status : 1;
}

/* Buffers are taken only when there is something to put in; those left in the queue are seen again when the
 * guest says something. */
static int32_t run(void *context, const OutboardQueues *queues, const OutboardReady *ready) {
    struct echo *echo = context;
    int32_t heard, said;
    (void)ready;
    do {
        heard = serve_one(echo, queues, TRANSMIT);
        said = heard >= 0 && echo->count > 0 ? serve_one(echo, queues, RECEIVE) : 0;
    } while (heard > 0 || said > 0);
    return heard < 0 ? heard : said < 0 ? said : OUTBOARD_IDLE;
}

static int32_t describe(void *device, OutboardVirtioInfo *info) {
    (void)device;
    info->config_len = 12; /* Columns, rows, ports, emergency write: zeroes, as no feature offers them. */
    info->groups = groups;
    info->group_count = 1;
    info->max_queue_size = 256;
    return OUTBOARD_OK;
}

static void read_config(void *device, uint32_t offset, uint8_t *data, size_t len) {
    (void)device, (void)offset, (void)data, (void)len; /* It holds zeroes. */
}

static int32_t start(void *device, uint32_t group, OutboardWorker *worker) {
    (void)group;
    worker->context = device;
    worker->run = run;
    return OUTBOARD_OK;
}

static void stop(void *device, uint32_t group, void *worker) {
    (void)device, (void)group, (void)worker;
}

static void reset(void *device) { ((struct echo *)device)->count = 0; }

static int32_t save(void *device, const OutboardSink *sink) {
    struct echo *echo = device;
    return sink->write(sink->context, echo->bytes, echo->count);
}

static int32_t restore(void *device, const uint8_t *data, size_t len) {
    struct echo *echo = device;
    if (len > KEPT)
        return fail("the saved state is longer than any of this device's");
    memcpy(echo->bytes, data, len);
    echo->count = (uint32_t)len;
    return OUTBOARD_OK;
}

static int32_t create(const OutboardServices *services, const OutboardValue *values, size_t count,
                      void **device) {
    (void)services, (void)values, (void)count;
    if ((*device = calloc(1, sizeof(struct echo))) == NULL)
        return fail("there is not enough memory");
    return OUTBOARD_OK;
}

static void destroy(void *device) { free(device); }

static int32_t init(const OutboardHost *given) {
    host = given;
    return OUTBOARD_OK;
}

static const OutboardVirtio operations = {
    .size = sizeof(OutboardVirtio),
    .describe = describe,
    .read_config = read_config,
    .start = start,
    .stop = stop,
    .reset = reset,
    .save = save,
    .restore = restore,
};

static const OutboardDevice devices[] = {{
    .size = sizeof(OutboardDevice),
    .kind = OUTBOARD_VIRTIO,
    .virtio_id = 3,
    .name = OUTBOARD_STR("echo"),
    .summary = OUTBOARD_STR("A console that says what it is told"),
    .create = create,
    .destroy = destroy,
    .virtio = &operations,
}};

static const OutboardPlugin plugin = {
    .size = sizeof(OutboardPlugin),
    .magic = OUTBOARD_MAGIC,
    .abi_major = OUTBOARD_ABI_MAJOR,
    .abi_minor = OUTBOARD_ABI_MINOR,
    .name = OUTBOARD_STR("c-echo"),
    .version = OUTBOARD_STR("1.0.0"),
    .devices = devices,
    .device_count = 1,
    .init = init,
};

const OutboardPlugin *outboard_plugin_entry_v1(void) { return &plugin; }
