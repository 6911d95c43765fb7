/* Owns a turn from its end of matching to commit or abort: waiting for what is read, growing by what the forward pass writes, and handing its state
 * over to the agent's head. Opening (finding and reserving) is in match.c. */
#include "cache/match.h"

#include "cache/metrics.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

const am_turn_info *am_turn_info_of(const am_turn *t) { return &t->info; }
uint32_t am_turn_n_past(const am_turn *t) { return t->n_past; }
const void *const *const *am_turn_sealed(const am_turn *t) { return t->sealed; }
void *am_turn_open_block(am_turn *t) { return t->open; }

/* Why less was reused than the agent has, once it is known what could be read. */
static void settle_info(am_turn *t) {
    am_turn_info *info = &t->info;
    info->n_cached = t->n_past;
    info->tier = t->n_past == 0 ? AM_COLD : t->from_disk ? AM_WARM : AM_HOT;
    if (t->lost != AM_MISS_NONE)
        info->miss = t->lost;
    else if (t->rows_lost != AM_MISS_NONE)
        info->miss = t->rows_lost;
    if (t->from_disk) {
        uint64_t ns = am_now_ns() - t->started_ns;
        info->restore_ms = (double)ns / 1e6;
        am_metric_observe(&am_metric_restore_time, 0, ns);
    }
    t->ready = true;
}

/* What the turn reads itself is waited for even when somebody has computed it meanwhile: then it has its units back before it runs. */
static bool is_reading(const am_turn *t, const am_part *p) { return p && p->busy == AM_PART_READING && (!p->resident || p->job.turn == t); }

static bool reads_go_on(const am_turn *t) {
    for (uint32_t i = 0; i < t->n_usable; i++)
        if (is_reading(t, am_part_of(t, t->blocks[i], AM_KV_GLOBAL)) || (t->window[i] && is_reading(t, t->blocks[i]->part[AM_KV_WINDOW]))) return true;
    return false;
}

/* How many blocks can be used after all. */
static uint32_t count_usable(const am_turn *t, am_miss *lost) {
    uint32_t n = 0;
    for (; n < t->n_usable; n++) {
        const am_part *global = am_part_of(t, t->blocks[n], AM_KV_GLOBAL);
        if (!global || global->resident) continue;
        *lost = global->lost;
        break;
    }
    return am_turn_windows_usable(t, n, lost);
}

/* A shorter prefix may need other window parts, which may be on disk. What this turn would have kept for later is given up: it was not counted for so
 * early a start. */
static void start_shorter(am_turn *t, uint32_t n_usable) {
    t->n_usable = n_usable;
    memset(t->point, 0, sizeof t->point);
    am_turn_windows_match(t);
    am_turn_start_reads(t);
}

am_status am_turn_ready(am_turn *t) {
    am_miss lost = AM_MISS_NONE;
    if (t->ready) return AM_OK;
    if (t->reading_rows || reads_go_on(t)) return AM_AGAIN;
    uint32_t n = count_usable(t, &lost);
    if (n < t->n_usable) {
        if (t->lost == AM_MISS_NONE) t->lost = lost; /* the first reason counts, should another read fail too */
        start_shorter(t, n);
        if (reads_go_on(t)) return AM_AGAIN;
    }
    for (uint32_t i = 0; i < n; i++) t->sealed[i] = (const void *const *)t->blocks[i]->units;
    t->n_past = n * AM_BLOCK_TOKENS + (n == t->n_pinned ? t->n_rows : 0);
    if (t->n_past == 0) t->from_disk = false;
    settle_info(t);
    return AM_OK;
}

typedef struct seal_job {
    const am_cache *cache;
    const void *open;
    void *const *units;
    bool part[AM_KV_PARTS]; /* which are to be sealed */
} seal_job;

static void seal_layer(void *arg, size_t layer, size_t worker) {
    const seal_job *job = arg;
    const am_kv_layout *l = &job->cache->options.layout;
    (void)worker;
    if (job->part[am_kv_part_of(l, (uint32_t)layer)]) am_kv_seal(job->cache->options.kernels, l, job->open, job->units, (uint32_t)layer);
}

static void seal(seal_job *job) {
    const am_cache *c = job->cache;
    uint32_t n_layer = c->options.layout.spec.n_layer;
    if (!job->part[AM_KV_GLOBAL] && !job->part[AM_KV_WINDOW]) return;
    if (c->options.workers)
        am_workers_run(c->options.workers, n_layer, seal_layer, job);
    else
        for (uint32_t i = 0; i < n_layer; i++) seal_layer(job, i, 0);
}

/* The entry of the block that was just filled, with its tokens; a spare one where there was none. */
static am_block *name_filled(am_turn *t, uint32_t i) {
    am_cache *c = t->cache;
    const int32_t *tokens = t->tokens + (size_t)i * AM_BLOCK_TOKENS;
    am_hash parent = i ? t->blocks[i - 1]->hash : (am_hash){0};
    am_hash hash = am_block_name(&t->tenant, &c->tag, &parent, tokens);
    am_block *b = am_index_block(c, &hash);
    if (b && b->tokens) return b;
    am_block *spare = t->spare;
    t->spare = spare->next;
    memcpy(spare->tokens, tokens, AM_BLOCK_TOKENS * sizeof *tokens);
    if (!b) {
        b = spare;
        b->hash = hash;
        am_index_add_block(c, b);
    } else { /* its name was known, from a head or a file's name */
        b->tokens = spare->tokens;
        spare->tokens = NULL;
        spare->next = t->used_spare; /* kept for the end of the turn, where freeing is allowed */
        t->used_spare = spare;
    }
    b->parent = parent;
    return b;
}

/* Units for a part that is not in memory and will be sealed now. */
static bool take_units(am_turn *t, am_part *p) {
    if (p->resident) return false;
    for (uint32_t i = 0; i < am_part_units(t->cache, p); i++) p->units[i] = t->units[--t->n_units];
    p->resident = true;
    return true;
}

/* The open block is full: it becomes the sealed block of its name, or what is missing of that block. */
static void seal_open(am_turn *t) {
    am_cache *c = t->cache;
    uint32_t n_blocks = t->n_past / AM_BLOCK_TOKENS, i = n_blocks - 1;
    am_block *b = name_filled(t, i);
    am_part *global = am_part_of(t, b, AM_KV_GLOBAL);
    seal_job job = {.cache = c, .open = t->open, .units = b->units};
    am_turn_windows_move(t, n_blocks);
    if (i >= t->n_pinned) {
        b->n_turns++;
        if (global) global->n_pins++;
        t->blocks[t->n_pinned++] = b;
    }
    if (global) job.part[AM_KV_GLOBAL] = take_units(t, global);
    if (am_turn_windows_wants(t, i, n_blocks)) {
        am_part *window = b->part[AM_KV_WINDOW];
        am_turn_windows_hold(t, i);
        if ((job.part[AM_KV_WINDOW] = take_units(t, window))) window->payer = t;
    }
    seal(&job);
    t->sealed[i] = (const void *const *)b->units;
    am_index_touch_block(c, b);
    if (global) am_keep_write_part(c, global);
}

void am_turn_advance(am_turn *t, const int32_t *tokens, uint32_t n) {
    memcpy(t->tokens + t->n_past, tokens, n * sizeof *tokens);
    t->n_past += n;
    if (n > 0 && t->n_past % AM_BLOCK_TOKENS == 0) seal_open(t);
}

static void free_spares(am_block *b) {
    while (b) {
        am_block *next = b->next;
        am_index_free_block(b);
        b = next;
    }
}

static void forget_read(const am_turn *t, am_part *p) {
    if (p && p->busy == AM_PART_READING && p->job.turn == t) p->job.turn = NULL;
}

static void unpin(am_turn *t, am_block *b) {
    am_part *global = am_part_of(t, b, AM_KV_GLOBAL);
    forget_read(t, b->part[AM_KV_GLOBAL]);
    forget_read(t, b->part[AM_KV_WINDOW]);
    if (global) global->n_pins--;
    b->n_turns--;
    am_index_drop_block(t->cache, b);
}

void am_turn_release(am_turn *t) {
    am_cache *c = t->cache;
    if (t->window) am_turn_windows_end(t);
    for (uint32_t i = 0; i < t->n_pinned; i++) unpin(t, t->blocks[i]);
    while (t->n_units) am_pool_give(&c->sealed, t->units[--t->n_units]);
    am_pool_give(&c->open, t->open);
    free_spares(t->spare);
    free_spares(t->used_spare);
    if (t->head) t->head->n_running--;
    free(t->tokens);
    free(t->blocks);
    free(t->sealed);
    free(t->window);
    free(t->units);
    *(t->prev_open ? &t->prev_open->next_open : &c->turns) = t->next_open;
    if (t->next_open) t->next_open->prev_open = t->prev_open;
    free(t);
    c->n_open_turns--;
}

void am_turn_abort(am_turn *t) {
    if (!t) return;
    if (t->reading_rows)
        t->aborted = true;
    else
        am_turn_release(t);
}

/* Makes the turn's state that of its agent's head, which is there afterwards; NULL: no memory, and all is as before. */
static am_head *hand_over(am_turn *t, const int32_t *pending, uint32_t n_pending) {
    am_cache *c = t->cache;
    uint32_t n_chain = t->n_past / AM_BLOCK_TOKENS;
    int32_t *tokens = am_calloc((size_t)t->n_past + n_pending, sizeof *tokens);
    am_block **chain = am_calloc(n_chain, sizeof *chain);
    am_head *h = tokens && chain ? am_index_make_head(c, &t->tenant, am_str_of(t->info.agent), NULL) : NULL;
    if (!h) {
        free(tokens);
        free(chain);
        return NULL;
    }
    memcpy(tokens, t->tokens, t->n_past * sizeof *tokens);
    if (n_pending) memcpy(tokens + t->n_past, pending, n_pending * sizeof *tokens);
    memcpy(chain, t->blocks, n_chain * sizeof *chain);
    am_keep_set_chain(c, h, chain, n_chain);
    h->unnamed = !t->named && (h->n_tokens == 0 || h->unnamed); /* one that had a name keeps it, whoever goes on with it */
    uint32_t fork = t->point[AM_POINT_FORK];
    h->before = t->point[AM_POINT_BEFORE] < n_chain ? t->point[AM_POINT_BEFORE] : n_chain;
    h->prompt = t->point[AM_POINT_PROMPT] < n_chain ? t->point[AM_POINT_PROMPT] : n_chain;
    am_keep_windows(c, h);
    if (fork && fork <= n_chain) am_keep_fork(c, chain[fork - 1], fork - 1);
    free(h->tokens);
    h->tokens = tokens;
    h->n_tokens = t->n_past + n_pending;
    h->n_rows = t->n_past;
    am_pool_give(&c->open, h->open);
    h->open = NULL;
    if (t->n_past % AM_BLOCK_TOKENS) {
        h->open = t->open;
        t->open = NULL;
    }
    h->n_turns++;
    h->used_ns = am_wall_ns();
    h->changed++;
    h->on_disk = h->rows_on_disk = h->write_failed = false;
    am_index_touch_head(c, h);
    return h;
}

void am_turn_commit(am_turn *t, const int32_t *pending, uint32_t n_pending, void (*done)(void *arg, am_status status), void *arg) {
    am_cache *c = t->cache;
    am_waiter *w = am_calloc(1, sizeof *w);
    am_head *h = NULL;
    am_status status = w ? AM_OK : AM_ENOMEM;
    if (!status && !t->ephemeral && !(h = hand_over(t, pending, n_pending))) status = AM_ENOMEM;
    am_turn_release(t);
    if (status) {
        am_log(AM_LOG_ERROR, "commit_failed", AM_LS("error", am_status_text(status)));
        free(w);
        if (done) done(arg, status);
        return;
    }
    if (!done) {
        free(w);
    } else {
        *w = (am_waiter){NULL, done, arg};
        am_waiter **list = h ? &h->waiters : &c->ready_waiters;
        w->next = *list;
        *list = w;
    }
    if (h) {
        am_keep_write_head(c, h);
        if (h->unnamed) am_shed_excess(c, &h->tenant);
    } else if (c->options.wake)
        c->options.wake(c->options.wake_arg);
}
