/* A disk in memory (virtio 1.2, section 5.2), as a plugin in C11. Build it with `make`, or:
 *
 *     cc -std=c11 -O2 -fPIC -shared -I device-sdk/include -o libramdisk.so plugins/ramdisk/ramdisk.c
 *     outboard run ... --device plugin=./libramdisk.so,size=64M
 *
 * One queue, one worker, which answers each request before it takes the next.
 */
#include <stdlib.h>
#include <string.h>

#include "outboard_plugin.h"

#define SECTOR 512u
#define BATCH 64

/* Request types, status and features, section 5.2.6. */
enum { TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4, TYPE_GET_ID = 8 };
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };
enum { FEATURE_FLUSH = 1u << 9 };

struct header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

struct disk {
    uint8_t *bytes;
    uint64_t size;
};

static const OutboardHost *host;
static const uint16_t groups[] = {1};

static int32_t fail(const char *why) {
    OutboardStr reason = {why, strlen(why)};
    host->error(host->context, reason);
    return OUTBOARD_ERROR;
}

/* Moves up to `len` bytes between `data` and segments from `skip` on; returns how many. The segments are
 * guest memory: nothing in them is looked at twice. */
static size_t move(const OutboardSegment *segments, uint32_t count, size_t skip, uint8_t *data, size_t len,
                   int to_guest) {
    size_t done = 0;
    for (uint32_t n = 0; n < count && done < len; n++) {
        if (skip >= segments[n].len) {
            skip -= segments[n].len;
            continue;
        }
        uint8_t *at = (uint8_t *)segments[n].base + skip;
        size_t part = segments[n].len - skip;
        skip = 0;
        if (part > len - done)
            part = len - done;
        if (to_guest)
            memcpy(at, data + done, part);
        else
            memcpy(data + done, at, part);
        done += part;
    }
    return done;
}

static size_t length(const OutboardSegment *segments, uint32_t count) {
    size_t sum = 0;
    for (uint32_t n = 0; n < count; n++)
        sum += segments[n].len;
    return sum;
}

/* Carries out a request and returns the bytes written to it, the status byte included. */
static uint32_t answer(struct disk *disk, const OutboardRequest *request) {
    const OutboardSegment *in = request->segments, *out = in + request->readable;
    size_t readable = length(in, request->readable), writable = length(out, request->writable);
    struct header header;
    if (writable == 0)
        return 0; /* There is nowhere to say anything. */
    size_t room = writable - 1, moved = 0;
    uint8_t status = STATUS_OK;
    if (move(in, request->readable, 0, (uint8_t *)&header, sizeof header, 0) < sizeof header) {
        status = STATUS_IOERR;
    } else if (header.type == TYPE_FLUSH) {
        status = STATUS_OK;
    } else if (header.type == TYPE_GET_ID) {
        uint8_t id[20] = "ramdisk";
        moved = move(out, request->writable, 0, id, room < sizeof id ? room : sizeof id, 1);
    } else if (header.type == TYPE_IN || header.type == TYPE_OUT) {
        size_t len = header.type == TYPE_IN ? room : readable - sizeof header;
        if (len % SECTOR != 0 || header.sector > disk->size / SECTOR ||
            len > disk->size - header.sector * SECTOR) {
            status = STATUS_IOERR;
        } else if (header.type == TYPE_IN) {
            moved = move(out, request->writable, 0, disk->bytes + header.sector * SECTOR, len, 1);
        } else {
            move(in, request->readable, sizeof header, disk->bytes + header.sector * SECTOR, len, 0);
        }
    } else {
        status = STATUS_UNSUPP;
    }
    move(out, request->writable, room, &status, 1, 1);
    /* Bytes up to the first that was not written: the driver finds the status in any case. */
    return (uint32_t)(moved == room ? writable : moved);
}

static int32_t run(void *context, const OutboardQueues *queues, const OutboardReady *ready) {
    OutboardRequest requests[BATCH];
    OutboardCompletion done[BATCH];
    (void)ready;
    int32_t taken = queues->take(queues->context, 0, requests, BATCH);
    if (taken < 0)
        return taken;
    for (int32_t n = 0; n < taken; n++) {
        done[n].token = requests[n].token;
        done[n].written = answer(context, &requests[n]);
        done[n].reserved = 0;
    }
    if (taken > 0 && queues->complete(queues->context, done, (size_t)taken) < 0)
        return OUTBOARD_ERROR;
    return taken > 0 ? OUTBOARD_WORKED : OUTBOARD_IDLE;
}

static int32_t describe(void *device, OutboardVirtioInfo *info) {
    (void)device;
    info->features = FEATURE_FLUSH;
    info->config_len = 60; /* Up to write_zeroes_may_unmap. */
    info->groups = groups;
    info->group_count = 1;
    info->max_queue_size = 256;
    return OUTBOARD_OK;
}

/* The capacity comes first, in sectors; the rest is 0. */
static void read_config(void *device, uint32_t offset, uint8_t *data, size_t len) {
    uint8_t config[60] = {0};
    uint64_t sectors = ((struct disk *)device)->size / SECTOR;
    for (size_t n = 0; n < 8; n++)
        config[n] = (uint8_t)(sectors >> (8 * n));
    memcpy(data, config + offset, len);
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

static void reset(void *device) { (void)device; }

static int32_t create(const OutboardServices *services, const OutboardValue *values, size_t count,
                      void **device) {
    (void)services, (void)count;
    uint64_t size = values[0].number;
    if (size == 0 || size % SECTOR != 0)
        return fail("size has to be a multiple of 512 bytes");
    struct disk *disk = malloc(sizeof *disk);
    if (disk == NULL || (disk->bytes = calloc(1, size)) == NULL) {
        free(disk);
        return fail("there is not enough memory for a disk of that size");
    }
    disk->size = size;
    *device = disk;
    return OUTBOARD_OK;
}

static void destroy(void *device) {
    struct disk *disk = device;
    free(disk->bytes);
    free(disk);
}

static int32_t init(const OutboardHost *given) {
    host = given;
    return OUTBOARD_OK;
}

static const OutboardOption options[] = {{
    .size = sizeof(OutboardOption),
    .kind = OUTBOARD_SIZE,
    .name = OUTBOARD_STR("size"),
    .help = OUTBOARD_STR("how large the disk is, a multiple of 512 bytes"),
    .default_value = OUTBOARD_STR("16M"),
}};

static const OutboardVirtio operations = {
    .size = sizeof(OutboardVirtio),
    .describe = describe,
    .read_config = read_config,
    .start = start,
    .stop = stop,
    .reset = reset,
};

static const OutboardDevice devices[] = {{
    .size = sizeof(OutboardDevice),
    .kind = OUTBOARD_VIRTIO,
    .virtio_id = 2,
    .name = OUTBOARD_STR("ramdisk"),
    .summary = OUTBOARD_STR("A disk in memory, gone with the VM"),
    .options = options,
    .option_count = 1,
    .create = create,
    .destroy = destroy,
    .virtio = &operations,
}};

static const OutboardPlugin plugin = {
    .size = sizeof(OutboardPlugin),
    .magic = OUTBOARD_MAGIC,
    .abi_major = OUTBOARD_ABI_MAJOR,
    .abi_minor = OUTBOARD_ABI_MINOR,
    .name = OUTBOARD_STR("ramdisk"),
    .version = OUTBOARD_STR("1.0.0"),
    .devices = devices,
    .device_count = 1,
    .init = init,
};

const OutboardPlugin *outboard_plugin_entry_v1(void) { return &plugin; }
