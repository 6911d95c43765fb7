/* Owns the account of the cache's memory: slots by use, what running turns hold, what the index takes. */
#include "cache/internal.h"

void am_cache_memory_get(const am_cache *c, am_cache_memory *out) {
    *out = (am_cache_memory){.sealed_slot_bytes = c->sealed.slot_bytes,
                             .open_slot_bytes = c->open.slot_bytes,
                             .sealed = c->sealed.memory,
                             .open = c->open.memory,
                             .sealed_mapped_bytes = c->sealed.mapped_bytes,
                             .open_mapped_bytes = c->open.mapped_bytes};
    for (const am_turn *t = c->turns; t; t = t->next_open) out->n_reserved += t->n_units;
    out->index_bytes = (c->n_block_buckets + c->n_head_buckets) * sizeof(void *) +
                       (c->sealed.n_slots + c->open.n_slots) * sizeof(void *);
    for (const am_part *p = c->part_ring.older; p != &c->part_ring; p = p->older) {
        const am_block *b = p->block;
        out->index_bytes += sizeof *p;
        if (p == b->part[AM_KV_GLOBAL] || !b->part[AM_KV_GLOBAL])
            out->index_bytes += sizeof *b + 2 * c->options.layout.n_units * sizeof *b->units + (b->tokens ? AM_BLOCK_TOKENS * sizeof *b->tokens : 0);
    }
    for (const am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older)
        out->index_bytes += sizeof *h + h->n_tokens * sizeof *h->tokens + h->n_chain * sizeof *h->chain + h->n_kept * sizeof *h->kept + h->image.n +
                            h->in_flight.n;
}

/* Sealed slots of the parts that a turn holds. */
static uint32_t units_held(const am_turn *t) {
    const am_kv_layout *l = &t->cache->options.layout;
    uint32_t n = t->n_pinned * l->part_units[AM_KV_GLOBAL];
    for (uint32_t i = 0; i < t->n_pinned; i++) n += t->window[i] ? l->part_units[AM_KV_WINDOW] : 0;
    return n;
}

void am_cache_turns(const am_cache *c, void (*fn)(void *arg, const am_turn_memory *turn), void *arg) {
    for (const am_turn *t = c->turns; t; t = t->next_open)
        fn(arg, &(am_turn_memory){t->info.agent, t->n_units, units_held(t), t->open != NULL});
}
