/* Owns what stays in memory and how it gets to disk: writing blocks and heads behind the engine's back, evicting by least recent use, the disk's
 * quota, and trying again what failed.
 *
 * A block may be evicted when no turn pins it, no job has it, and it is on disk or cannot get there; then nothing is lost but time. A head's open
 * rows may be dropped from memory on the same terms. A failed write (full disk, broken disk) is counted, logged and tried again every RETRY_S
 * seconds; until then the server goes on from memory. */
#include "cache/internal.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS (5ull * 1000 * 1000 * 1000)

static void write_failed(am_cache *c, const char *what, const char *name, const am_error *err) {
    c->stats.n_write_failures++;
    if (!c->retry_ns) c->retry_ns = am_now_ns() + RETRY_NS;
    am_log(AM_LOG_WARN, "cache_write_failed", AM_LS("what", what), AM_LS("name", name), AM_LS("error", err->message));
}

void am_keep_count_disk(am_cache *c, int64_t bytes) {
    c->stats.disk_bytes += (uint64_t)bytes;
    atomic_fetch_add(&c->folder->disk_bytes, (uint64_t)bytes);
}

static int unlink_file(am_cache *c, const char *name) {
    char path[4096];
    return am_fs_join(path, sizeof path, c->dir, name, NULL) == AM_OK ? am_io->unlink(path) : -ENAMETOOLONG;
}

static void delete_block(am_cache *c, am_block *b) {
    char name[96];
    if (b->busy) {
        b->unwanted = true;
        return;
    }
    if (b->on_disk) {
        am_block_file_name(&b->hash, name);
        if (unlink_file(c, name) == -ENOENT && b->foreign)
            c->stats.disk_bytes -= b->file_bytes; /* the cache whose block it was, open meanwhile, has counted that */
        else
            am_keep_count_disk(c, -(int64_t)b->file_bytes);
        c->stats.n_blocks_disk--;
        b->on_disk = false;
        b->lost = AM_MISS_EVICTED;
    }
    if (b->slot && b->n_pins == 0) {
        am_pool_give(&c->sealed, b->slot);
        b->slot = NULL;
    }
    b->unwanted = false;
    am_index_drop_block(c, b);
}

static void block_written(am_cache *c, am_job *job) {
    am_block *b = job->block;
    b->busy = AM_BLOCK_IDLE;
    b->write_failed = job->status != AM_OK;
    if (job->status == AM_OK) {
        b->on_disk = true;
        b->file_bytes = job->file_bytes;
        c->stats.n_blocks_disk++;
        am_keep_count_disk(c, (int64_t)b->file_bytes);
        c->stats.bytes_written += b->file_bytes;
    } else {
        char name[96];
        am_block_file_name(&b->hash, name);
        write_failed(c, "block", name, &job->err);
    }
    if (b->unwanted && b->n_heads == 0 && b->n_pins == 0)
        delete_block(c, b);
    else
        am_index_drop_block(c, b);
}

void am_keep_write_block(am_cache *c, am_block *b) {
    if (b->busy || b->on_disk || !b->slot) return;
    b->busy = AM_BLOCK_WRITING;
    b->job = (am_job){.run = am_block_file_write, .done = block_written, .block = b, .slot = b->slot};
    am_io_queue_add(c->io, &b->job, false);
}

bool am_keep_evictable(const am_block *b) {
    return b->slot && b->n_pins == 0 && b->busy == AM_BLOCK_IDLE && (b->on_disk || b->write_failed);
}

void am_keep_evict_block(am_cache *c, am_block *b) {
    am_pool_give(&c->sealed, b->slot);
    b->slot = NULL;
    b->write_failed = false;
    if (!b->on_disk) b->lost = AM_MISS_EVICTED;
    c->stats.n_evictions++;
    am_index_drop_block(c, b);
}

bool am_keep_sealed_slots(am_cache *c, void **slots, uint32_t n) {
    uint32_t n_can = c->sealed.n_free;
    for (am_block *b = c->block_ring.newer; b != &c->block_ring && n_can < n; b = b->newer) n_can += am_keep_evictable(b);
    if (n_can < n) return false;
    for (am_block *b = c->block_ring.newer, *newer; c->sealed.n_free < n; b = newer) {
        newer = b->newer;
        if (am_keep_evictable(b)) am_keep_evict_block(c, b);
    }
    for (uint32_t i = 0; i < n; i++) slots[i] = am_pool_take(&c->sealed);
    return true;
}

bool am_keep_rows_droppable(const am_head *h) { return h->open && !h->writing && (h->write_failed || (h->on_disk && h->rows_on_disk)); }

void am_keep_drop_rows(am_cache *c, am_head *h) {
    am_pool_give(&c->open, h->open);
    h->open = NULL;
    if (!h->rows_on_disk) h->n_rows -= h->n_rows % AM_BLOCK_TOKENS;
}

void *am_keep_open_slot(am_cache *c) {
    for (am_head *h = c->head_ring.newer; h != &c->head_ring && c->open.n_free == 0; h = h->newer)
        if (am_keep_rows_droppable(h)) am_keep_drop_rows(c, h);
    return am_pool_take(&c->open);
}

void am_keep_set_chain(am_cache *c, am_head *h, am_block **chain, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) chain[i]->n_heads++;
    for (uint32_t i = 0; i < h->n_chain; i++) {
        h->chain[i]->n_heads--;
        am_index_drop_block(c, h->chain[i]);
    }
    free(h->chain);
    h->chain = chain;
    h->n_chain = n;
}

void am_keep_waiters_done(am_waiter *w, am_status status) {
    while (w) {
        am_waiter *next = w->next;
        w->done(w->arg, status);
        free(w);
        w = next;
    }
}

static void head_written(am_cache *c, am_job *job);

static void start_writing(am_cache *c, am_head *h) {
    h->in_flight = h->image;
    h->image = (am_head_image){0};
    h->in_flight_waiters = h->waiters;
    h->waiters = NULL;
    h->writing = true;
    h->job = (am_job){.run = am_head_file_write, .done = head_written, .head = h};
    am_io_queue_add(c->io, &h->job, false);
}

static void end_removed(am_cache *c, am_head *h) {
    unlink_file(c, h->file);
    am_index_free_head(c, h);
}

static void head_written(am_cache *c, am_job *job) {
    am_head *h = job->head;
    am_waiter *waiters = h->in_flight_waiters;
    am_status status = job->status; /* the job is used again, or gone with its head, before the waiters hear of it */
    h->writing = false;
    h->in_flight_waiters = NULL;
    if (status == AM_OK) {
        am_keep_count_disk(c, (int64_t)h->in_flight.n - (int64_t)h->file_bytes);
        c->stats.bytes_written += h->in_flight.n;
        h->file_bytes = h->in_flight.n;
        h->sum_at = h->in_flight.sum_at;
        h->sum = h->in_flight.sum;
        h->write_failed = false;
        h->on_disk = h->in_flight.version == h->changed;
        h->rows_on_disk = h->on_disk && h->in_flight.has_rows;
    } else {
        h->write_failed = true;
        write_failed(c, "head", h->file, &job->err);
    }
    free(h->in_flight.bytes);
    h->in_flight = (am_head_image){0};
    if (h->image.bytes)
        start_writing(c, h);
    else if (h->removed)
        end_removed(c, h);
    am_keep_waiters_done(waiters, status);
}

void am_keep_write_head(am_cache *c, am_head *h) {
    am_error err = {0};
    am_head_image image = {.version = h->changed, .has_rows = h->open && h->n_rows % AM_BLOCK_TOKENS};
    am_status status = am_head_file_build(c, h, &image, &err);
    if (status) {
        am_waiter *waiters = h->waiters;
        h->waiters = NULL;
        h->write_failed = true;
        write_failed(c, "head", h->file, &err);
        am_keep_waiters_done(waiters, status);
        return;
    }
    free(h->image.bytes);
    h->image = image;
    if (!h->writing) start_writing(c, h);
}

void am_keep_forget_head(am_cache *c, am_head *h) {
    am_block **chain = h->chain;
    uint32_t n = h->n_chain;
    h->chain = NULL;
    h->n_chain = 0;
    for (uint32_t i = 0; i < n; i++)
        if (--chain[i]->n_heads == 0 && chain[i]->n_pins == 0) delete_block(c, chain[i]);
    free(chain);
    am_pool_give(&c->open, h->open);
    h->open = NULL;
    am_keep_count_disk(c, -(int64_t)h->file_bytes);
    h->file_bytes = 0;
    free(h->tokens);
    h->tokens = NULL;
    h->n_tokens = h->n_rows = h->n_turns = 0;
    h->on_disk = h->rows_on_disk = h->write_failed = false;
    free(h->image.bytes);
    h->image = (am_head_image){0};
    if (h->writing)
        h->removed = true;
    else
        end_removed(c, h);
}

void am_keep_retry(am_cache *c) {
    if (!c->retry_ns || am_now_ns() < c->retry_ns) return;
    c->retry_ns = 0;
    for (am_head *h = c->head_ring.newer; h != &c->head_ring; h = h->newer)
        if (h->write_failed && !h->writing) am_keep_write_head(c, h);
    for (am_block *b = c->block_ring.newer; b != &c->block_ring; b = b->newer)
        if (b->write_failed) am_keep_write_block(c, b);
}

/* The least recently used block file that nobody pins; those that no head of any model names first. */
static am_block *quota_victim(am_cache *c) {
    am_block *named = NULL;
    bool alone = atomic_load(&c->folder->n_open) == 1;
    for (am_block *b = c->block_ring.newer; b != &c->block_ring; b = b->newer) {
        if (!b->on_disk || b->busy || b->n_pins || (b->foreign && !alone)) continue;
        if (b->n_heads == 0 && !b->foreign) return b;
        if (!named) named = b;
    }
    return named;
}

void am_keep_quota(am_cache *c) {
    am_block *victim;
    while (c->options.disk_bytes && atomic_load(&c->folder->disk_bytes) > c->options.disk_bytes && (victim = quota_victim(c))) delete_block(c, victim);
}
