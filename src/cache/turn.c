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
const void *const *am_turn_sealed(const am_turn *t) { return t->sealed; }
void *am_turn_open_block(am_turn *t) { return t->open; }

/* Why less was reused than the agent has, once it is known what could be read. */
static void settle_info(am_turn *t, uint32_t n_usable, uint32_t n_matched) {
    am_turn_info *info = &t->info;
    info->n_cached = t->n_past;
    info->tier = t->n_past == 0 ? AM_COLD : t->from_disk ? AM_WARM : AM_HOT;
    if (n_usable < n_matched)
        info->miss = t->blocks[n_usable]->lost;
    else if (t->rows_lost != AM_MISS_NONE)
        info->miss = t->rows_lost;
    if (t->from_disk) {
        uint64_t ns = am_now_ns() - t->started_ns;
        info->restore_ms = (double)ns / 1e6;
        am_metric_observe(&am_metric_restore_time, 0, ns);
    }
    t->ready = true;
}

am_status am_turn_ready(am_turn *t) {
    if (t->ready) return AM_OK;
    uint32_t n_matched = t->n_pinned, n_usable = 0;
    if (t->reading_rows) return AM_AGAIN;
    for (uint32_t i = 0; i < n_matched; i++)
        if (!t->blocks[i]->slot && t->blocks[i]->busy == AM_BLOCK_READING) return AM_AGAIN;
    while (n_usable < n_matched && t->blocks[n_usable]->slot) {
        t->sealed[n_usable] = t->blocks[n_usable]->slot;
        n_usable++;
    }
    t->n_past = n_usable * AM_BLOCK_TOKENS + (n_usable == n_matched ? t->n_rows : 0);
    if (n_usable == 0 && t->n_past == 0) t->from_disk = false;
    settle_info(t, n_usable, n_matched);
    return AM_OK;
}

typedef struct seal_job {
    const am_cache *cache;
    const void *open;
    void *slot;
} seal_job;

static void seal_layer(void *arg, size_t layer, size_t worker) {
    const seal_job *job = arg;
    (void)worker;
    am_kv_seal(job->cache->options.kernels, &job->cache->options.layout, job->open, job->slot, (uint32_t)layer);
}

static void seal(am_turn *t, void *slot) {
    const am_cache *c = t->cache;
    seal_job job = {c, t->open, slot};
    uint32_t n_layer = c->options.layout.spec.n_layer;
    if (c->options.workers)
        am_workers_run(c->options.workers, n_layer, seal_layer, &job);
    else
        for (uint32_t i = 0; i < n_layer; i++) seal_layer(&job, i, 0);
}

/* The open block is full: it becomes the sealed block of its name, or that block if it is there already. */
static void seal_open(am_turn *t) {
    am_cache *c = t->cache;
    uint32_t i = t->n_past / AM_BLOCK_TOKENS - 1;
    const int32_t *tokens = t->tokens + (size_t)i * AM_BLOCK_TOKENS;
    am_hash parent = i ? t->blocks[i - 1]->hash : (am_hash){0};
    am_hash hash = am_block_name(&t->tenant, &c->tag, &parent, tokens);
    am_block *b = am_index_block(c, &hash);
    am_block *spare = t->spare; /* one for each slot, so there is one when a slot is needed */
    if (!b || !b->slot) {
        void *slot = t->slots[--t->n_slots];
        t->spare = spare->next;
        seal(t, slot);
        if (!b) {
            b = spare;
            spare = NULL;
            b->hash = hash;
            b->parent = parent;
            b->lost = AM_MISS_EVICTED;
            memcpy(b->tokens, tokens, AM_BLOCK_TOKENS * sizeof *tokens);
            am_index_add_block(c, b);
        } else if (!b->tokens) { /* its name was known, from a head or a file's name */
            b->tokens = spare->tokens;
            spare->tokens = NULL;
            b->parent = parent;
            memcpy(b->tokens, tokens, AM_BLOCK_TOKENS * sizeof *tokens);
        }
        b->slot = slot;
        if (spare) { /* not used: kept for the end of the turn, where freeing is allowed */
            spare->next = t->used_spare;
            t->used_spare = spare;
        }
    }
    if (i >= t->n_pinned) {
        b->n_pins++;
        t->blocks[t->n_pinned++] = b;
    }
    t->sealed[i] = b->slot;
    am_index_touch(c, b);
    am_keep_write_block(c, b);
}

void am_turn_advance(am_turn *t, const int32_t *tokens, uint32_t n) {
    memcpy(t->tokens + t->n_past, tokens, n * sizeof *tokens);
    t->n_past += n;
    if (n > 0 && t->n_past % AM_BLOCK_TOKENS == 0) seal_open(t);
}

static void free_spares(am_block *b) {
    while (b) {
        am_block *next = b->next;
        free(b->tokens);
        free(b);
        b = next;
    }
}

void am_turn_release(am_turn *t) {
    am_cache *c = t->cache;
    for (uint32_t i = 0; i < t->n_pinned; i++) {
        am_block *b = t->blocks[i];
        if (b->busy == AM_BLOCK_READING && b->job.turn == t) b->job.turn = NULL;
        b->n_pins--;
        am_index_drop_block(c, b);
    }
    while (t->n_slots) am_pool_give(&c->sealed, t->slots[--t->n_slots]);
    am_pool_give(&c->open, t->open);
    free_spares(t->spare);
    free_spares(t->used_spare);
    if (t->head) t->head->n_running--;
    free(t->tokens);
    free(t->blocks);
    free(t->sealed);
    free(t->slots);
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

/* Makes the turn's state the head's. */
static am_status hand_over(am_turn *t, am_head *h, const int32_t *pending, uint32_t n_pending) {
    am_cache *c = t->cache;
    uint32_t n_chain = t->n_past / AM_BLOCK_TOKENS;
    int32_t *tokens = am_calloc((size_t)t->n_past + n_pending, sizeof *tokens);
    am_block **chain = am_calloc(n_chain, sizeof *chain);
    if (!tokens || !chain) {
        free(tokens);
        free(chain);
        return AM_ENOMEM;
    }
    memcpy(tokens, t->tokens, t->n_past * sizeof *tokens);
    if (n_pending) memcpy(tokens + t->n_past, pending, n_pending * sizeof *tokens);
    memcpy(chain, t->blocks, n_chain * sizeof *chain);
    am_keep_set_chain(c, h, chain, n_chain);
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
    return AM_OK;
}

void am_turn_commit(am_turn *t, const int32_t *pending, uint32_t n_pending, void (*done)(void *arg, am_status status), void *arg) {
    am_cache *c = t->cache;
    am_waiter *w = am_calloc(1, sizeof *w);
    am_head *h = NULL;
    am_status status = w ? AM_OK : AM_ENOMEM;
    if (!status && !t->ephemeral) {
        h = am_index_make_head(c, &t->tenant, am_str_of(t->info.agent), NULL);
        status = h ? hand_over(t, h, pending, n_pending) : AM_ENOMEM;
    }
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
    if (h)
        am_keep_write_head(c, h);
    else if (c->options.wake)
        c->options.wake(c->options.wake_arg);
}
