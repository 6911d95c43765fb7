/* Owns the opening of a turn: whose state it continues, how much of it can be reused, what must be reserved, and the reads that bring it back.
 *
 * The order matters: find the blocks and pin those in memory, then take the open slot and the units of sealed blocks (which may evict anything that is not
 * pinned), then see where the rows of the open block can come from, then start the reads. What fails gives everything back. */
#include "cache/match.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t common_prefix(const int32_t *a, uint32_t n_a, const int32_t *b, uint32_t n_b) {
    uint32_t n = n_a < n_b ? n_a : n_b, i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

static bool same_tenant(const am_tenant *a, const am_tenant *b) { return strcmp(a->name, b->name) == 0; }

/* Without a name: the agent whose rows are all a prefix of the prompt, the longest such. */
static am_head *head_by_prefix(am_cache *c, const am_tenant *tenant, const int32_t *tokens, uint32_t n_tokens) {
    am_head *best = NULL;
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) {
        if (h->removed || h->n_rows == 0 || h->n_rows >= n_tokens || !same_tenant(&h->tenant, tenant)) continue;
        if (best && h->n_rows <= best->n_rows) continue;
        if (memcmp(h->tokens, tokens, h->n_rows * sizeof *h->tokens) == 0) best = h;
    }
    return best;
}

am_str am_cache_continues(am_cache *c, const am_tenant *tenant, const int32_t *tokens, uint32_t n_tokens) {
    const am_head *h = head_by_prefix(c, tenant, tokens, n_tokens);
    return h ? am_str_of(h->agent) : (am_str){0};
}

/* The tokens that a block's files must hold. AM_ENOTFOUND: it holds others. */
static am_status set_tokens(am_block *b, const am_hash *parent, const int32_t *tokens) {
    if (b->tokens) return memcmp(b->tokens, tokens, AM_BLOCK_TOKENS * sizeof *tokens) == 0 ? AM_OK : AM_ENOTFOUND;
    b->tokens = am_calloc(AM_BLOCK_TOKENS, sizeof *b->tokens); /* it was known by name only */
    if (!b->tokens) return AM_ENOMEM;
    memcpy(b->tokens, tokens, AM_BLOCK_TOKENS * sizeof *tokens);
    b->parent = *parent;
    return AM_OK;
}

/* The block of this name if its global part can be had; without such parts every name will do. */
static am_status find_block(am_turn *t, const am_hash *hash, am_block **out) {
    am_cache *c = t->cache;
    *out = am_index_block(c, hash);
    if (!c->options.layout.part_units[AM_KV_GLOBAL]) {
        if (!*out) *out = am_index_name_block(c, hash);
        return *out ? AM_OK : AM_ENOMEM;
    }
    if (*out && am_part_usable((*out)->part[AM_KV_GLOBAL])) return AM_OK;
    if (*out) t->next_lost = (*out)->part[AM_KV_GLOBAL]->lost;
    return AM_ENOTFOUND;
}

static void pin(am_turn *t, am_block *b) {
    am_part *global = am_part_of(t, b, AM_KV_GLOBAL);
    b->n_turns++;
    if (global) {
        global->n_pins++;
        am_index_touch(t->cache, global);
    }
    t->blocks[t->n_pinned++] = b;
}

static void unpin_last(am_turn *t) {
    am_block *b = t->blocks[--t->n_pinned];
    am_part *global = am_part_of(t, b, AM_KV_GLOBAL);
    if (global) global->n_pins--;
    b->n_turns--;
    am_index_drop_block(t->cache, b);
}

/* Follows the prompt's chain through the index, then comes back to where its window parts can be had too; pins what is left. */
static am_status match_chain(am_turn *t) {
    am_cache *c = t->cache;
    uint32_t n_most = (t->n_prompt - 1) / AM_BLOCK_TOKENS, n_known = 0;
    am_hash parent = {0};
    for (uint32_t i = 0; i < n_most; i++) {
        const int32_t *tokens = t->tokens + (size_t)i * AM_BLOCK_TOKENS;
        am_hash hash = am_block_name(&t->tenant, &c->tag, &parent, tokens);
        am_block *b;
        am_status status = find_block(t, &hash, &b);
        if (!status) {
            b->n_turns++; /* not to be lost meanwhile */
            if (b->part[AM_KV_GLOBAL] || b->n_heads || am_part_usable(b->part[AM_KV_WINDOW])) n_known = i + 1;
            status = set_tokens(b, &parent, tokens);
            b->n_turns--;
            if (status) am_index_drop_block(c, b); /* it may have been named just now */
        }
        if (status == AM_ENOTFOUND) break;
        if (status) return status;
        pin(t, b);
        parent = hash;
    }
    t->n_usable = am_turn_windows_usable(t, t->n_pinned, &t->next_lost);
    if (n_known > t->n_usable) t->n_redone = n_known - t->n_usable;
    while (t->n_pinned > t->n_usable) unpin_last(t);
    am_turn_windows_match(t);
    return AM_OK;
}

/* How many rows of h's open block continue the matched chain with the prompt's tokens. */
static uint32_t rows_of(const am_turn *t, const am_head *h) {
    uint32_t at = t->n_pinned * AM_BLOCK_TOKENS, n_open = h->n_rows % AM_BLOCK_TOKENS;
    if (h->removed || n_open == 0 || (!h->open && !(h->rows_on_disk && h->on_disk)) || h->n_rows / AM_BLOCK_TOKENS != t->n_pinned ||
        h->n_chain != t->n_pinned || !same_tenant(&h->tenant, &t->tenant))
        return 0;
    if (t->n_pinned && h->chain[t->n_pinned - 1] != t->blocks[t->n_pinned - 1]) return 0;
    return common_prefix(h->tokens + at, n_open, t->tokens + at, t->n_prompt - 1 - at);
}

static void rows_read(am_cache *c, am_job *job) {
    am_turn *t = job->turn;
    t->reading_rows = false;
    if (job->status == AM_OK) {
        t->from_disk = true;
        c->stats.bytes_read += am_kv_rows_bytes(&c->options.layout, t->rows_in_file);
    } else {
        t->n_rows = 0;
        t->rows_lost = job->status == AM_ECORRUPT ? AM_MISS_CHECKSUM : job->status == AM_EFORMAT ? AM_MISS_REFUSED
                       : job->status == AM_ENOTFOUND ? AM_MISS_EVICTED : AM_MISS_IO;
        am_head *h = am_index_head(c, &t->tenant, am_str_of(t->rows_agent));
        if (h && h->on_disk && memcmp(h->sum.b, t->rows_sum.b, sizeof h->sum.b) == 0) { /* its file is no more: write what is still known */
            h->on_disk = h->rows_on_disk = false;
            if (!h->open) h->n_rows -= h->n_rows % AM_BLOCK_TOKENS;
            h->changed++;
            am_keep_write_head(c, h);
        }
    }
    if (t->aborted) am_turn_release(t);
}

/* The head with most rows to give: the turn's own first, then any of the tenant. */
static void find_rows(am_turn *t) {
    am_cache *c = t->cache;
    am_head *from = t->head;
    uint32_t n = from ? rows_of(t, from) : 0;
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) {
        uint32_t n_here = h == from ? 0 : rows_of(t, h);
        if (n_here > n) {
            n = n_here;
            from = h;
        }
    }
    t->n_rows = n;
    if (n == 0) return;
    if (from->open) {
        memcpy(t->open, from->open, c->open.slot_bytes);
        return;
    }
    t->reading_rows = true;
    t->rows_in_file = from->n_rows % AM_BLOCK_TOKENS;
    t->rows_sum_at = from->sum_at;
    t->rows_sum = from->sum;
    snprintf(t->rows_file, sizeof t->rows_file, "%s", from->file);
    snprintf(t->rows_agent, sizeof t->rows_agent, "%s", from->agent);
    t->rows_job = (am_job){.run = am_head_file_read_rows, .done = rows_read, .turn = t};
}

static void part_read(am_cache *c, am_job *job) {
    am_part *p = job->part;
    am_turn *t = job->turn;
    uint32_t n_units = am_part_units(c, p);
    bool good = job->status == AM_OK && !p->resident;
    p->busy = AM_PART_IDLE;
    for (uint32_t i = 0; i < n_units; i++) {
        if (good)
            p->units[i] = p->incoming[i];
        else if (t)
            t->units[t->n_units++] = p->incoming[i]; /* it will have to compute this block, or somebody has */
        else
            am_pool_give(&c->sealed, p->incoming[i]);
        p->incoming[i] = NULL;
    }
    if (good) {
        p->resident = true;
        c->stats.n_restored_blocks++;
        c->stats.bytes_read += n_units * c->options.layout.unit_bytes;
    } else if (!p->resident) {
        p->payer = NULL;
    }
    if (job->status != AM_OK) {
        am_keep_delete_file(c, p); /* where it is still there: nobody would know of it any more */
        p->lost = job->status == AM_ECORRUPT    ? AM_MISS_CHECKSUM
                  : job->status == AM_EFORMAT   ? AM_MISS_REFUSED
                  : job->status == AM_ENOTFOUND ? AM_MISS_EVICTED
                                                : AM_MISS_IO;
        if (p->resident && am_keep_wanted(p) && !p->payer) am_keep_write_part(c, p); /* somebody computed it meanwhile */
    }
    am_keep_settle(c, p);
}

/* Adds the job that reads p, where one is needed, to a list. */
static void add_read(am_turn *t, am_part *p, am_job ***last) {
    if (!p || p->resident) return;
    t->from_disk = true;
    if (p->busy == AM_PART_READING) return;
    p->busy = AM_PART_READING;
    for (uint32_t i = 0; i < am_part_units(t->cache, p); i++) p->incoming[i] = t->units[--t->n_units];
    if (p->kind == AM_KV_WINDOW) p->payer = t;
    p->job = (am_job){.run = am_block_file_read, .done = part_read, .part = p, .turn = t};
    **last = &p->job;
    *last = &p->job.next;
}

void am_turn_start_reads(am_turn *t) {
    am_job *reads = NULL, **last = &reads;
    if (t->reading_rows) { /* the turn is being opened; the longest read first */
        reads = &t->rows_job;
        last = &t->rows_job.next;
    }
    for (uint32_t i = 0; i < t->n_usable; i++) {
        add_read(t, am_part_of(t, t->blocks[i], AM_KV_GLOBAL), &last);
        if (t->window[i]) add_read(t, t->blocks[i]->part[AM_KV_WINDOW], &last);
    }
    am_io_queue_add_reads(t->cache->io, reads);
}

/* What is known before anything is read; am_turn_ready completes it. */
static void first_info(am_turn *t, const am_turn_request *r) {
    am_turn_info *info = &t->info;
    const am_head *h = t->head;
    info->n_prompt = r->n_tokens;
    info->new_agent = !h;
    uint32_t n_found = t->n_pinned * AM_BLOCK_TOKENS + t->n_rows;
    if (r->no_reuse) {
        info->miss = AM_MISS_DISABLED;
    } else if (!h) {
        bool foreign = r->agent.n > 0 && am_index_is_foreign(t->cache, r->tenant, r->agent);
        info->miss = foreign ? AM_MISS_MODEL_CHANGED : n_found == 0 ? AM_MISS_NEW_AGENT : AM_MISS_NONE;
    } else {
        uint32_t same = common_prefix(h->tokens, h->n_tokens, r->tokens, r->n_tokens);
        uint32_t could = same < h->n_rows ? same : h->n_rows;
        if (same < h->n_rows && same < r->n_tokens) {
            info->miss = AM_MISS_TOKENS_DIFFER;
            info->miss_at = same;
        } else if (could >= r->n_tokens) {
            could = r->n_tokens - 1;
        }
        if (info->miss == AM_MISS_NONE && n_found / AM_BLOCK_TOKENS < could / AM_BLOCK_TOKENS)
            info->miss = t->next_lost ? t->next_lost : AM_MISS_EVICTED;
        if (info->miss == AM_MISS_NONE && h->n_rows + 1 < same && n_found + 1 < same)
            info->miss = AM_MISS_EVICTED; /* rows that could not be written, and had to make room */
    }
    if (t->n_redone && !r->no_reuse && info->miss != AM_MISS_MODEL_CHANGED) {
        info->miss = AM_MISS_WINDOW;
        info->miss_at = t->n_redone * AM_BLOCK_TOKENS;
    }
    if (r->agent.n > 0)
        snprintf(info->agent, sizeof info->agent, "%.*s", (int)r->agent.n, r->agent.p);
    else if (h)
        snprintf(info->agent, sizeof info->agent, "%s", h->agent);
    else {
        uint8_t random[6];
        am_random_bytes(random, sizeof random);
        snprintf(info->agent, sizeof info->agent, "agent-%02x%02x%02x%02x%02x%02x", random[0], random[1], random[2], random[3], random[4],
                 random[5]);
    }
}

static am_block *make_spares(const am_kv_layout *layout, uint32_t n) {
    am_block *list = NULL;
    for (uint32_t i = 0; i < n; i++) {
        am_block *b = am_index_new_block(layout);
        if (b) b->tokens = am_calloc(AM_BLOCK_TOKENS, sizeof *b->tokens);
        if (!b || !b->tokens) {
            am_index_free_block(b);
            while (list) {
                b = list->next;
                am_index_free_block(list);
                list = b;
            }
            return NULL;
        }
        b->next = list;
        list = b;
    }
    return list;
}

static am_turn *make_turn(am_cache *c, const am_turn_request *r) {
    size_t cap = r->n_tokens + (size_t)r->n_max_new, n_blocks = cap / AM_BLOCK_TOKENS + 1;
    am_turn *t = am_calloc(1, sizeof *t);
    if (!t) return NULL;
    t->cache = c;
    t->tenant = *r->tenant;
    t->ephemeral = r->ephemeral;
    t->named = r->agent.n > 0;
    t->n_prompt = r->n_tokens;
    t->started_ns = am_now_ns();
    t->tokens = am_calloc(cap + 1, sizeof *t->tokens);
    t->blocks = am_calloc(n_blocks, sizeof *t->blocks);
    t->sealed = am_calloc(n_blocks, sizeof *t->sealed);
    t->window = am_calloc(n_blocks, sizeof *t->window);
    c->n_open_turns++;
    t->next_open = c->turns;
    if (c->turns) c->turns->prev_open = t;
    c->turns = t;
    if (!t->tokens || !t->blocks || !t->sealed || !t->window) {
        am_turn_release(t);
        return NULL;
    }
    memcpy(t->tokens, r->tokens, r->n_tokens * sizeof *r->tokens);
    return t;
}

/* Where its successors may go on: see am_head. A turn that leaves its agent's history keeps what lies before that. */
static void set_points(am_turn *t) {
    const am_head *h = t->head;
    uint32_t same = h ? common_prefix(h->tokens, h->n_tokens, t->tokens, t->n_prompt) : 0;
    if (h && same >= h->n_rows) t->point[AM_POINT_BEFORE] = h->n_chain;
    else if (h) t->point[AM_POINT_BEFORE] = h->before < same / AM_BLOCK_TOKENS ? h->before : same / AM_BLOCK_TOKENS;
    t->point[AM_POINT_PROMPT] = (t->n_prompt - 1) / AM_BLOCK_TOKENS;
    if (t->n_redone) t->point[AM_POINT_FORK] = t->n_usable + t->n_redone;
}

static am_status reserve(am_turn *t, uint32_t n_blocks, am_error *err) {
    am_cache *c = t->cache;
    const am_kv_layout *l = &c->options.layout;
    uint32_t n_windows = am_turn_windows_most(t, n_blocks), n_paid = am_turn_windows_paid(t), n_there = 0;
    size_t n_most = (size_t)n_blocks * l->part_units[AM_KV_GLOBAL] + (size_t)n_windows * l->part_units[AM_KV_WINDOW];
    for (uint32_t i = 0; i < t->n_pinned; i++) {
        const am_part *global = am_part_of(t, t->blocks[i], AM_KV_GLOBAL);
        n_there += global && global->resident;
    }
    if (n_most > c->sealed.n_slots)
        return am_fail(err, AM_ELIMIT, "the turn may need %zu bytes of blocks, the cache's memory holds %zu", n_most * l->unit_bytes,
                       c->sealed.n_slots * l->unit_bytes);
    uint32_t n_need = (uint32_t)n_most - n_there * l->part_units[AM_KV_GLOBAL] - n_paid * l->part_units[AM_KV_WINDOW];
    t->units = am_calloc(n_most, sizeof *t->units);
    t->open = am_keep_open_slot(c);
    if (!t->units) return am_fail(err, AM_ENOMEM, "no memory for a turn of %u blocks", n_blocks);
    if (!t->open || !am_keep_units(c, t->units, n_need)) return am_fail(err, AM_AGAIN, "no room in the cache's memory now");
    t->n_units = n_need;
    t->spare = make_spares(l, n_blocks - t->n_usable);
    if (n_blocks > t->n_usable && !t->spare) return am_fail(err, AM_ENOMEM, "no memory for a turn of %u blocks", n_blocks);
    return AM_OK;
}

am_status am_turn_open(am_cache *c, const am_turn_request *r, am_turn **out, am_error *err) {
    *out = NULL;
    am_status status = r->agent.n ? am_agent_name_check(r->agent, err) : AM_OK;
    if (status) return status;
    if (r->n_tokens == 0 || (uint64_t)r->n_tokens + r->n_max_new > c->options.n_ctx)
        return am_fail(err, AM_EINVAL, "%u tokens and up to %u more do not fit a context of %u", r->n_tokens, r->n_max_new, c->options.n_ctx);
    uint32_t n_blocks = (r->n_tokens + r->n_max_new) / AM_BLOCK_TOKENS;
    am_turn *t = make_turn(c, r);
    if (!t) return am_fail(err, AM_ENOMEM, "no memory for a turn of %u tokens", r->n_tokens);
    t->head = r->agent.n ? am_index_head(c, r->tenant, r->agent) : r->no_reuse ? NULL : head_by_prefix(c, r->tenant, r->tokens, r->n_tokens);
    if (t->head) t->head->n_running++;
    if (!r->no_reuse) status = match_chain(t);
    set_points(t);
    if (!status) status = reserve(t, n_blocks, err);
    if (status) {
        am_turn_release(t);
        return status;
    }
    if (!r->no_reuse) find_rows(t);
    am_turn_start_reads(t);
    first_info(t, r);
    if (t->head) am_index_touch_head(c, t->head);
    *out = t;
    return AM_OK;
}
