/* Owns the cache's life: sizing the pool, reading the folder at start, taking finished jobs back, flushing and closing.
 *
 * At start every file name in the folder is looked at once: temporary files are orphans of a crash and are removed, block files are
 * indexed by name alone (their content is checked when it is wanted), heads are read and checked. Everything else is left alone. */
#include "cache/internal.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_AHEAD_BYTES = 256 << 20, N_IO_THREADS = 2, N_HEAD_BUCKETS = 4096, N_BLOCK_BUCKETS = 4096 };

static void put_u32(uint8_t *to, uint32_t x) {
    for (size_t i = 0; i < 4; i++) to[i] = (uint8_t)(x >> (8 * i));
}

/* What makes state usable: the model and the form of its cache. */
am_hash am_model_tag(const am_kv_spec *s, const uint8_t fingerprint[16]) {
    const uint32_t spec[] = {s->n_layer, s->n_kv_head, s->head_dim_k, s->head_dim_v, s->bits_k, s->bits_v, s->group_k, s->group_v, s->unrotated,
                             s->shared, AM_BLOCK_TOKENS, s->window, s->n_layer};
    uint8_t bytes[sizeof spec + AM_KV_MAX_LAYERS];
    size_t n_spec = s->window ? sizeof spec : sizeof spec - 2 * sizeof *spec, n_layer = s->window ? s->n_layer : 0;
    for (size_t i = 0; i < sizeof spec / sizeof *spec; i++) put_u32(bytes + 4 * i, spec[i]);
    for (size_t i = 0; i < n_layer; i++) bytes[n_spec + i] = s->windowed[i / 64] >> i % 64 & 1;
    am_hash_part parts[] = {{s->window ? "agent-memory/3" : "agent-memory/2", 14}, {fingerprint, 16}, {bytes, n_spec + n_layer}};
    return am_hash_parts(NULL, parts, 3);
}

uint32_t am_cache_most_windows(const am_kv_layout *l, uint32_t n_blocks) {
    uint64_t most = (AM_N_POINTS + 1) * (uint64_t)l->reach;
    return most < n_blocks ? (uint32_t)most : n_blocks;
}

size_t am_cache_least_bytes(const am_kv_layout *l, uint32_t n_ctx) {
    uint32_t n_blocks = n_ctx / AM_BLOCK_TOKENS + 1;
    size_t units = (size_t)n_blocks * l->part_units[AM_KV_GLOBAL] + (size_t)am_cache_most_windows(l, n_blocks) * l->part_units[AM_KV_WINDOW];
    return l->open_bytes + units * l->unit_bytes;
}

uint64_t am_cache_agent_bytes(const am_kv_layout *l, uint64_t n_tokens) {
    uint64_t n_blocks = n_tokens / AM_BLOCK_TOKENS, n_windows = n_blocks - am_kv_reach(l, (uint32_t)n_blocks * AM_BLOCK_TOKENS);
    uint64_t units = n_blocks * l->part_units[AM_KV_GLOBAL] + n_windows * l->part_units[AM_KV_WINDOW];
    return units * l->unit_bytes + (n_tokens % AM_BLOCK_TOKENS ? l->open_bytes : 0);
}

/* Splits the budget: open slots for the turns that may run at once (up to a third of it), as many again for idle heads while they take less than a
 * quarter, units of sealed blocks with the rest. A budget too small for all turns gets fewer open slots; one sequence of full length must fit. */
static am_status make_pools(am_cache *c, am_error *err) {
    const am_cache_options *o = &c->options;
    size_t open = o->layout.open_bytes, unit = o->layout.unit_bytes, least = am_cache_least_bytes(&o->layout, o->n_ctx);
    if (o->memory_bytes < least)
        return am_fail(err, AM_ELIMIT, "%zu bytes of cache memory cannot hold one sequence of %u tokens: that takes %zu", o->memory_bytes, o->n_ctx,
                       least);
    size_t spare = (o->memory_bytes - least) / 3 / open, n_open = 1 + spare;
    if (n_open > o->n_turns) {
        size_t idle = (o->memory_bytes - least) / 4 / open;
        n_open = o->n_turns + (idle > o->n_turns ? idle - o->n_turns : 0);
        if (n_open > 4096) n_open = o->n_turns > 4096 ? o->n_turns : 4096;
    }
    size_t n_units = (o->memory_bytes - n_open * open) / unit;
    if (n_units > UINT32_MAX / 2) n_units = UINT32_MAX / 2;
    am_status status = am_pool_init(&c->open, open, (uint32_t)n_open, err);
    return status ? status : am_pool_init(&c->sealed, unit, (uint32_t)n_units, err);
}

static bool ends_with(const char *name, const char *tail) {
    size_t n = strlen(name), m = strlen(tail);
    return n >= m && strcmp(name + n - m, tail) == 0;
}

static void add_block_file(am_cache *c, const char *name, am_kv_part kind, const am_hash *hash) {
    char path[4096];
    struct stat st;
    if (am_fs_join(path, sizeof path, c->dir, name, NULL) || am_io->lstat(path, &st) < 0) return;
    am_block *b = am_index_name_block(c, hash);
    if (!b) return;
    am_part *p = am_index_name_part(c, b, kind);
    if (!p) return;
    p->on_disk = true;
    p->file_bytes = (uint64_t)st.st_size;
    c->stats.n_blocks_disk++;
    c->stats.disk_bytes += p->file_bytes;
}

/* First pass: orphans and blocks. Heads wait for the second, so that every block's place is known when a chain names it. */
static am_status scan_blocks(void *arg, const char *name) {
    am_cache *c = arg;
    am_hash hash;
    am_kv_part kind;
    char path[4096];
    if (ends_with(name, ".tmp.safetensors") || ends_with(name, ".tmp")) {
        if (c->alone && am_fs_join(path, sizeof path, c->dir, name, NULL) == AM_OK && am_io->unlink(path) >= 0) {
            c->stats.n_orphans++;
            am_log(AM_LOG_INFO, "orphan_removed", AM_LS("file", name));
        }
    } else if (am_block_file_parse(name, &kind, &hash)) {
        add_block_file(c, name, kind, &hash);
    }
    return AM_OK;
}

static am_status scan_heads(void *arg, const char *name) {
    am_cache *c = arg;
    am_error err = {0};
    if (!ends_with(name, ".safetensors") || !strchr(name, '~')) return AM_OK;
    am_status status = am_head_file_load(c, name, &err);
    if (status == AM_EFORMAT || status == AM_ECORRUPT || status == AM_ELIMIT)
        am_refuse_file(c, name, status, err.message);
    else if (status && status != AM_ENOTFOUND) /* gone since the folder was listed: another model's agent was removed */
        am_log(AM_LOG_WARN, "head_not_read", AM_LS("file", name), AM_LS("error", err.message));
    return status == AM_ENOMEM ? status : AM_OK;
}

/* A head of this model or of another. */
typedef struct used {
    uint64_t used_ns;
    am_head *head; /* NULL: another's */
    am_block **chain;
    uint32_t n_chain;
} used;

static int by_use(const void *a, const void *b) {
    const used *x = a, *y = b;
    return (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
}

/* Heads came in the folder's order; the lists by use want them by time. */
static void order_by_use(am_cache *c) {
    size_t n = 0;
    used *all = am_calloc(c->stats.n_heads + c->n_foreign, sizeof *all);
    if (!all) return;
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) all[n++] = (used){h->used_ns, h, h->chain, h->n_chain};
    for (size_t i = 0; i < c->n_foreign; i++) all[n++] = (used){c->foreign[i].used_ns, NULL, c->foreign[i].chain, c->foreign[i].n_chain};
    qsort(all, n, sizeof *all, by_use);
    for (size_t i = 0; i < n; i++) {
        if (all[i].head) am_index_touch_head(c, all[i].head);
        for (uint32_t j = 0; j < all[i].n_chain; j++) am_index_touch_block(c, all[i].chain[j]);
    }
    free(all);
}

static void count_disk(am_cache *c) {
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) c->stats.disk_bytes += h->file_bytes;
    if (c->alone) atomic_store(&c->folder->disk_bytes, c->stats.disk_bytes + c->foreign_bytes);
}

static am_status read_folder(am_cache *c, am_error *err) {
    if (c->alone) am_absent_forget_all(c->folder); /* all of it is read anew */
    am_status status = am_fs_list(c->dir, scan_blocks, c, err);
    if (!status) status = am_fs_list(c->dir, scan_heads, c, err);
    if (status) return status;
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) am_keep_windows(c, h);
    order_by_use(c);
    count_disk(c);
    for (size_t i = 0; i < c->n_foreign; i++) {
        free(c->foreign[i].chain);
        c->foreign[i].chain = NULL;
    }
    return AM_OK;
}

/* The first agent that comes back after a start writes to memory that was never touched, and clearing that takes longer than reading its files
 * (bench/bench_restore). So as much as the agent used last has gets its pages now, where nobody waits for them: memory that it will have, if it comes. */
static am_status populate(am_cache *c, am_job *job, am_error *err) {
    (void)job, (void)err;
    am_pool_populate(&c->sealed, c->n_ahead);
    am_pool_populate(&c->open, c->n_ahead ? 1 : 0);
    return AM_OK;
}

static void populated(am_cache *c, am_job *job) { (void)c, (void)job; }

static void populate_ahead(am_cache *c) {
    const am_head *h = c->head_ring.older;
    if (h == &c->head_ring) return;
    for (uint32_t i = 0; i < h->n_chain; i++)
        for (int kind = 0; kind < AM_KV_PARTS; kind++)
            if (h->chain[i]->part[kind] && h->chain[i]->part[kind]->on_disk) c->n_ahead += am_part_units(c, h->chain[i]->part[kind]);
    if (c->n_ahead > MAX_AHEAD_BYTES / c->sealed.slot_bytes) c->n_ahead = (uint32_t)(MAX_AHEAD_BYTES / c->sealed.slot_bytes);
    c->populate_job = (am_job){.run = populate, .done = populated};
    am_io_queue_add(c->io, &c->populate_job);
}

am_status am_cache_open(const am_cache_options *options, am_cache **out, am_error *err) {
    *out = NULL;
    am_status status = am_fs_mkdirs(options->dir, err);
    if (status) return status;
    am_cache *c = am_calloc(1, sizeof *c);
    if (!c) return am_fail(err, AM_ENOMEM, "no memory for a cache");
    c->options = *options;
    c->folder = options->folder ? options->folder : &c->own_folder;
    c->alone = atomic_fetch_add(&c->folder->n_open, 1) == 0;
    c->dir = strdup(options->dir);
    c->model_name = strdup(options->model_name ? options->model_name : "");
    c->options.dir = c->dir;
    c->options.model_name = c->model_name;
    c->part_ring.newer = c->part_ring.older = &c->part_ring;
    c->head_ring.newer = c->head_ring.older = &c->head_ring;
    c->n_block_buckets = N_BLOCK_BUCKETS;
    c->n_head_buckets = N_HEAD_BUCKETS;
    c->block_buckets = am_calloc(N_BLOCK_BUCKETS, sizeof *c->block_buckets);
    c->head_buckets = am_calloc(N_HEAD_BUCKETS, sizeof *c->head_buckets);
    c->tag = am_model_tag(&options->layout.spec, options->model_fingerprint);
    am_hash_hex(&c->tag, c->tag_hex);
    if (!c->dir || !c->model_name || !c->block_buckets || !c->head_buckets) {
        status = am_fail(err, AM_ENOMEM, "no memory for a cache");
        goto out;
    }
    if ((status = make_pools(c, err)) || (status = read_folder(c, err))) goto out;
    if ((status = am_io_queue_create(c, N_IO_THREADS, &c->io, err))) goto out;
    populate_ahead(c);
    am_absent_opened(c);
    am_log(AM_LOG_INFO, "cache_opened", AM_LS("dir", c->dir), AM_LU("agents", c->stats.n_heads), AM_LU("blocks", c->stats.n_blocks_disk),
           AM_LU("orphans", c->stats.n_orphans), AM_LU("refused", c->n_refused), AM_LU("sealed_slots", c->sealed.n_slots),
           AM_LU("open_slots", c->open.n_slots));
    *out = c;
    return AM_OK;
out:
    am_cache_close(c);
    return status;
}

void am_cache_poll(am_cache *c) {
    am_waiter *ready = c->ready_waiters;
    c->ready_waiters = NULL;
    am_keep_waiters_done(ready, AM_OK);
    for (am_job *job = am_io_queue_take_done(c->io), *next; job; job = next) {
        next = job->next;
        job->done(c, job);
    }
    am_keep_retry(c);
    am_keep_quota(c);
}

am_status am_cache_flush(am_cache *c, am_error *err) {
    c->retry_ns = 1; /* what failed is tried once more now */
    do am_cache_poll(c);
    while (am_io_queue_wait(c->io, 1000));
    am_cache_poll(c);
    uint32_t n_dirty = 0;
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) n_dirty += !h->removed && h->n_tokens && !h->on_disk;
    return n_dirty ? am_fail(err, AM_EIO, "%u agents could not be written", n_dirty) : AM_OK;
}

void am_cache_close(am_cache *c) {
    if (!c) return;
    if (c->io) {
        while (am_io_queue_wait(c->io, 1000)) am_cache_poll(c);
        am_io_queue_free(c->io);
        am_absent_closing(c);
    }
    while (c->head_ring.older && c->head_ring.older != &c->head_ring) {
        am_keep_set_chain(c, c->head_ring.older, NULL, 0);
        am_index_free_head(c, c->head_ring.older);
    }
    while (c->part_ring.older && c->part_ring.older != &c->part_ring) {
        am_block *b = c->part_ring.older->block;
        for (int kind = 0; kind < AM_KV_PARTS; kind++) {
            am_part *p = b->part[kind];
            if (!p) continue;
            p->resident = p->on_disk = false;
            p->busy = AM_PART_IDLE;
            p->n_pins = p->n_keeps = 0;
        }
        b->n_heads = b->n_turns = 0; /* a turn that is open against the contract must not keep this loop here for ever */
        am_index_drop_block(c, b);
    }
    am_pool_free(&c->sealed);
    am_pool_free(&c->open);
    free(c->block_buckets);
    free(c->head_buckets);
    for (size_t i = 0; i < c->n_foreign; i++) free(c->foreign[i].chain);
    free(c->foreign);
    if (c->folder == &c->own_folder) am_absent_forget_all(c->folder);
    atomic_fetch_sub(&c->folder->n_open, 1);
    free(c->dir);
    free(c->model_name);
    free(c);
}

void am_cache_folder_free(am_cache_folder *folder) { am_absent_forget_all(folder); }

am_hash am_cache_tag(const am_cache *c) { return c->tag; }

void am_cache_stats_get(const am_cache *c, am_cache_stats *out) {
    *out = c->stats;
    out->memory_bytes = c->sealed.mapped_bytes + c->open.mapped_bytes;
    out->n_sealed_slots = c->sealed.n_slots;
    out->n_sealed_used = c->sealed.n_slots - c->sealed.n_free;
    out->n_open_slots = c->open.n_slots;
    out->n_open_used = c->open.n_slots - c->open.n_free;
    out->n_refused = c->n_refused;
    out->n_dirty = out->n_unnamed = 0;
    for (const am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) {
        out->n_dirty += !h->on_disk && h->n_tokens;
        out->n_unnamed += h->unnamed && !h->removed;
    }
}
