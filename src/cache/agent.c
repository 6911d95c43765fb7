/* Owns what people do with agents between turns: look at them, copy them, evict them, forget them. */
#include "cache/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

/* Adds a part that an agent has; whether it is in memory, if the model has such. */
static bool describe_part(const am_cache *c, const am_part *p, am_agent_info *out) {
    if (!p) return true;
    if (p->resident) out->memory_bytes += am_part_units(c, p) * c->options.layout.unit_bytes;
    if (p->on_disk) out->disk_bytes += p->file_bytes;
    return p->resident || am_part_units(c, p) == 0;
}

static void describe(const am_cache *c, const am_head *h, am_agent_info *out) {
    *out = (am_agent_info){.tier = AM_HOT,
                           .n_tokens = h->n_tokens,
                           .n_rows = h->n_rows,
                           .n_turns = h->n_turns,
                           .created_ns = h->created_ns,
                           .used_ns = h->used_ns,
                           .disk_bytes = h->file_bytes,
                           .running = h->n_running > 0,
                           .dirty = !h->on_disk,
                           .unnamed = h->unnamed};
    memcpy(out->agent, h->agent, sizeof out->agent);
    memcpy(out->tenant, h->tenant.name, sizeof out->tenant);
    if (h->n_rows % AM_BLOCK_TOKENS && !h->open) out->tier = AM_WARM;
    if (h->open) out->memory_bytes += c->options.layout.open_bytes;
    for (uint32_t i = 0; i < h->n_chain; i++)
        if (!describe_part(c, h->chain[i]->part[AM_KV_GLOBAL], out)) out->tier = AM_WARM;
    for (uint32_t i = 0; i < h->n_kept; i++) describe_part(c, h->kept[i], out);
    for (uint32_t i = am_kv_reach(&c->options.layout, h->n_chain * AM_BLOCK_TOKENS); i < h->n_chain; i++)
        if (!h->chain[i]->part[AM_KV_WINDOW]->resident) out->tier = AM_WARM;
}

am_status am_cache_agents(am_cache *c, const am_tenant *tenant, am_status (*fn)(void *arg, const am_agent_info *info), void *arg) {
    am_status status = AM_OK;
    for (am_head *h = c->head_ring.older; !status && h != &c->head_ring; h = h->older) {
        if (h->removed || h->n_tokens == 0 || (tenant && strcmp(tenant->name, h->tenant.name) != 0)) continue;
        am_agent_info info;
        describe(c, h, &info);
        status = fn(arg, &info);
    }
    return status;
}

static am_status find(am_cache *c, const am_tenant *tenant, am_str agent, am_head **out, am_error *err) {
    *out = am_index_head(c, tenant, agent);
    return *out ? AM_OK : am_fail(err, AM_ENOTFOUND, "there is no agent '%.*s'", (int)(agent.n < 200 ? agent.n : 200), agent.p);
}

am_status am_cache_agent(am_cache *c, const am_tenant *tenant, am_str agent, am_agent_info *out) {
    am_head *h;
    am_status status = find(c, tenant, agent, &h, NULL);
    if (!status) describe(c, h, out);
    return status;
}

am_status am_cache_tokens(am_cache *c, const am_tenant *tenant, am_str agent, const int32_t **tokens, uint32_t *n) {
    am_head *h;
    am_status status = find(c, tenant, agent, &h, NULL);
    if (status) return status;
    *tokens = h->tokens;
    *n = h->n_tokens;
    return AM_OK;
}

am_status am_cache_rm(am_cache *c, const am_tenant *tenant, am_str agent, am_error *err) {
    am_head *h;
    am_status status = find(c, tenant, agent, &h, err);
    if (status) return status;
    if (h->n_running) return am_fail(err, AM_EBUSY, "agent '%s' has a turn running", h->agent);
    am_keep_forget_head(c, h);
    return AM_OK;
}

/* The copy gets tokens and chain; open rows are found through the original when the copy first runs, or computed again. */
am_status am_cache_fork(am_cache *c, const am_tenant *tenant, am_str from, am_str to, am_error *err) {
    am_head *h;
    am_status status = find(c, tenant, from, &h, err);
    if (status || (status = am_agent_name_check(to, err))) return status;
    if (am_index_head(c, tenant, to)) return am_fail(err, AM_EEXIST, "there is an agent '%.*s' already", (int)to.n, to.p);
    int32_t *tokens = am_calloc(h->n_tokens, sizeof *tokens);
    am_block **chain = am_calloc(h->n_chain, sizeof *chain);
    am_head *copy = tokens && chain ? am_index_make_head(c, &h->tenant, to, err) : NULL;
    if (!copy) {
        free(tokens);
        free(chain);
        return am_fail(err, AM_ENOMEM, "no memory for a copy of agent '%s'", h->agent);
    }
    memcpy(tokens, h->tokens, h->n_tokens * sizeof *tokens);
    if (h->n_chain) memcpy(chain, h->chain, h->n_chain * sizeof *chain);
    copy->tokens = tokens;
    copy->n_tokens = h->n_tokens;
    copy->n_rows = h->n_chain * AM_BLOCK_TOKENS;
    copy->n_turns = h->n_turns;
    copy->created_ns = copy->used_ns = am_wall_ns();
    copy->changed++;
    copy->before = h->before;
    copy->prompt = h->prompt;
    am_keep_set_chain(c, copy, chain, h->n_chain);
    am_keep_windows(c, copy);
    am_keep_write_head(c, copy);
    return AM_OK;
}

/* Nothing that is wanted is lost with it. */
static bool may_go(const am_part *p) { return p->on_disk || !am_keep_wanted(p); }

static void evict_head(am_cache *c, am_head *h) {
    if (h->n_running) return;
    if (am_keep_rows_droppable(h)) am_keep_drop_rows(c, h);
    for (uint32_t i = 0; i < h->n_chain; i++)
        for (int kind = 0; kind < AM_KV_PARTS; kind++) {
            am_part *p = h->chain[i]->part[kind];
            if (p && am_keep_evictable(p) && may_go(p)) am_keep_evict_part(c, p);
        }
}

am_status am_cache_evict(am_cache *c, const am_tenant *tenant, am_str agent, am_error *err) {
    am_head *h;
    if (agent.n == 0) {
        for (h = c->head_ring.older; h != &c->head_ring; h = h->older)
            if (!tenant || strcmp(tenant->name, h->tenant.name) == 0) evict_head(c, h);
        return AM_OK;
    }
    am_status status = find(c, tenant, agent, &h, err);
    if (!status) evict_head(c, h);
    return status;
}

uint32_t am_cache_n_coming(const am_cache *c, const am_tenant *tenant, am_str agent) {
    uint32_t n = 0;
    for (const am_turn *t = c->turns; t; t = t->next_open) {
        if (t->head || t->ephemeral || t->aborted || (tenant && strcmp(tenant->name, t->tenant.name) != 0)) continue;
        n += agent.n == 0 || am_str_eq(agent, am_str_of(t->info.agent));
    }
    return n;
}

/* What failed turns have left: blocks that no head names. */
static void drop_unnamed(am_cache *c) {
    for (am_part *p = c->part_ring.older, *older; p != &c->part_ring; p = older) {
        am_block *b = p->block;
        for (older = p->older; older->block == b;) older = older->older; /* the entry may go, with both its parts */
        if (b->n_heads == 0 && b->n_turns == 0 && !b->foreign) am_keep_delete_block(c, b);
    }
}

uint32_t am_cache_clear(am_cache *c, const am_tenant *tenant, uint32_t *n_busy) {
    uint32_t n = 0;
    *n_busy = am_cache_n_coming(c, tenant, (am_str){0});
    for (am_head *h = c->head_ring.older, *older; h != &c->head_ring; h = older) {
        older = h->older;
        if (h->removed || h->n_tokens == 0 || (tenant && strcmp(tenant->name, h->tenant.name) != 0)) continue;
        if (h->n_running) {
            ++*n_busy;
        } else {
            am_keep_forget_head(c, h);
            n++;
        }
    }
    if (!tenant) {
        drop_unnamed(c);
        c->n_foreign = 0; /* "it has state under another model" is then true of nobody */
    }
    return n;
}

size_t am_cache_trim(am_cache *c, bool lossy) {
    uint32_t n_sealed = c->sealed.n_free, n_open = c->open.n_free;
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older)
        if (h->n_running == 0 && am_keep_rows_droppable(h) && (lossy || h->on_disk)) am_keep_drop_rows(c, h);
    for (am_part *p = c->part_ring.older, *older; p != &c->part_ring; p = older) {
        older = p->older;
        if (older->block == p->block && !am_keep_evictable(older)) older = older->older; /* the entry may go, with both its parts */
        if (!am_keep_evictable(p) || !(lossy || may_go(p))) continue;
        am_keep_evict_part(c, p);
    }
    am_pool_trim(&c->sealed);
    am_pool_trim(&c->open);
    return (c->sealed.n_free - n_sealed) * c->sealed.slot_bytes + (c->open.n_free - n_open) * c->open.slot_bytes;
}
