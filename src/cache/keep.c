/* Owns what stays in memory and how it gets to disk: writing blocks and heads behind the engine's back, evicting by least recent use, the disk's
 * quota, and trying again what failed.
 *
 * A part of a block may be evicted when no turn pins it, no job has it, and it is on disk, cannot get there or need not; then nothing is lost but time. A head's open
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

void am_keep_give_units(am_cache *c, am_part *p) {
    for (uint32_t i = 0; i < am_part_units(c, p); i++) {
        am_pool_give(&c->sealed, p->units[i]);
        p->units[i] = NULL;
    }
    p->resident = false;
}

void am_keep_delete_file(am_cache *c, am_part *p) {
    char name[96];
    am_block_file_name(p->kind, &p->block->hash, name);
    if (unlink_file(c, name) == -ENOENT && p->block->foreign)
        c->stats.disk_bytes -= p->file_bytes; /* the cache whose block it was, open meanwhile, has counted that */
    else
        am_keep_count_disk(c, -(int64_t)p->file_bytes);
    c->stats.n_blocks_disk--;
    p->on_disk = false;
    p->lost = p->kind == AM_KV_WINDOW ? AM_MISS_WINDOW : AM_MISS_EVICTED;
}

static void delete_part(am_cache *c, am_part *p) {
    p->unwanted = p->busy != AM_PART_IDLE;
    if (p->unwanted) return;
    if (p->on_disk) am_keep_delete_file(c, p);
    if (p->resident && p->n_pins == 0) am_keep_give_units(c, p);
}

void am_keep_delete_block(am_cache *c, am_block *b) {
    for (int kind = 0; kind < AM_KV_PARTS; kind++)
        if (b->part[kind]) delete_part(c, b->part[kind]);
    am_index_drop_block(c, b);
}

void am_keep_unkeep(am_cache *c, am_part *p) {
    if (--p->n_keeps > 0) return;
    p->unwanted = p->busy != AM_PART_IDLE;
    if (p->on_disk && !p->unwanted && !p->block->foreign) am_keep_delete_file(c, p);
    am_index_demote(c, p);
    am_index_drop_block(c, p->block);
}

static void part_written(am_cache *c, am_job *job) {
    am_part *p = job->part;
    p->busy = AM_PART_IDLE;
    p->write_failed = job->status != AM_OK;
    if (job->status == AM_OK) {
        p->on_disk = true;
        p->file_bytes = job->file_bytes;
        c->stats.n_blocks_disk++;
        am_keep_count_disk(c, (int64_t)p->file_bytes);
        c->stats.bytes_written += p->file_bytes;
    } else {
        char name[96];
        am_block_file_name(p->kind, &p->block->hash, name);
        write_failed(c, "block", name, &job->err);
    }
    am_keep_settle(c, p);
}

void am_keep_settle(am_cache *c, am_part *p) {
    const am_block *b = p->block;
    if (p->unwanted && (p->kind == AM_KV_WINDOW ? p->n_keeps == 0 : b->n_heads == 0 && b->n_turns == 0)) delete_part(c, p);
    p->unwanted = false;
    am_index_drop_block(c, p->block);
}

void am_keep_write_part(am_cache *c, am_part *p) {
    if (p->busy || p->on_disk || !p->resident) return;
    p->busy = AM_PART_WRITING;
    p->job = (am_job){.run = am_block_file_write, .done = part_written, .part = p};
    am_io_queue_add(c->io, &p->job);
}

bool am_keep_evictable(const am_part *p) {
    return p->resident && p->n_pins == 0 && p->busy == AM_PART_IDLE && (p->on_disk || p->write_failed || !am_keep_wanted(p));
}

void am_keep_evict_part(am_cache *c, am_part *p) {
    am_keep_give_units(c, p);
    p->write_failed = false;
    if (!p->on_disk) p->lost = p->kind == AM_KV_WINDOW ? AM_MISS_WINDOW : AM_MISS_EVICTED;
    c->stats.n_evictions++;
    am_index_drop_block(c, p->block);
}

bool am_keep_units(am_cache *c, void **units, uint32_t n) {
    uint32_t n_can = c->sealed.n_free;
    for (am_part *p = c->part_ring.newer; p != &c->part_ring && n_can < n; p = p->newer)
        if (am_keep_evictable(p)) n_can += am_part_units(c, p);
    if (n_can < n) return false;
    for (am_part *p = c->part_ring.newer, *newer; c->sealed.n_free < n; p = newer) {
        newer = p->newer;
        if (p == &c->part_ring || !am_keep_evictable(p)) continue;
        if (newer->block == p->block) newer = newer->newer; /* the entry may go, with both its parts; the round comes by again */
        am_keep_evict_part(c, p);
    }
    for (uint32_t i = 0; i < n; i++) units[i] = am_pool_take(&c->sealed);
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
        if (--h->chain[i]->n_heads == 0) h->chain[i]->fork = false;
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
    am_io_queue_add(c->io, &h->job);
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
    else if (status == AM_OK && !h->on_disk) /* what came meanwhile could not be made an image of */
        am_keep_write_head(c, h);
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
    h->n_chain = h->before = h->prompt = 0;
    am_keep_windows(c, h);
    for (uint32_t i = 0; i < n; i++) {
        if (--chain[i]->n_heads > 0) continue;
        chain[i]->fork = false;
        if (chain[i]->n_turns == 0) am_keep_delete_block(c, chain[i]);
    }
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
    while (h->waiters) { /* for that image: nothing is left to be written */
        am_waiter *w = h->waiters;
        h->waiters = w->next;
        w->next = c->ready_waiters;
        c->ready_waiters = w;
        if (c->options.wake) c->options.wake(c->options.wake_arg);
    }
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
    for (am_part *p = c->part_ring.newer; p != &c->part_ring; p = p->newer)
        if (p->write_failed && am_keep_wanted(p) && !p->payer) am_keep_write_part(c, p);
}

/* The least recently used block file that nobody pins; those that no head of any model wants first (*unwanted). */
static am_part *quota_victim(am_cache *c, bool *unwanted) {
    am_part *wanted = NULL;
    bool alone = atomic_load(&c->folder->n_open) == 1;
    for (am_part *p = c->part_ring.newer; p != &c->part_ring; p = p->newer) {
        if (!p->on_disk || p->busy || p->n_pins || (p->block->foreign && !alone)) continue;
        *unwanted = (p->block->n_heads == 0 || !am_keep_wanted(p)) && !p->block->foreign;
        if (*unwanted) return p;
        if (!wanted) wanted = p;
    }
    return wanted;
}

void am_keep_quota(am_cache *c) {
    while (c->options.disk_bytes && atomic_load(&c->folder->disk_bytes) > c->options.disk_bytes) {
        bool unwanted = false;
        am_part *victim = quota_victim(c, &unwanted);
        if (!unwanted && am_shed_one(c, "disk_quota")) continue;
        if (!victim) return;
        delete_part(c, victim);
        am_index_drop_block(c, victim->block);
    }
}
