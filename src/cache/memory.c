/* Owns the account of the cache's memory: slots by use, what running turns hold, what the index takes. */
#include "cache/internal.h"

void am_cache_memory_get(const am_cache *c, am_cache_memory *out) {
    *out = (am_cache_memory){.sealed_slot_bytes = c->sealed.slot_bytes,
                             .open_slot_bytes = c->open.slot_bytes,
                             .sealed = c->sealed.memory,
                             .open = c->open.memory,
                             .sealed_mapped_bytes = c->sealed.mapped_bytes,
                             .open_mapped_bytes = c->open.mapped_bytes};
    for (const am_turn *t = c->turns; t; t = t->next_open) out->n_reserved += t->n_slots;
    out->index_bytes = (c->n_block_buckets + c->n_head_buckets) * sizeof(void *) +
                       (c->sealed.n_slots + c->open.n_slots) * sizeof(void *);
    for (const am_block *b = c->block_ring.older; b != &c->block_ring; b = b->older)
        out->index_bytes += sizeof *b + (b->tokens ? AM_BLOCK_TOKENS * sizeof *b->tokens : 0);
    for (const am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older)
        out->index_bytes +=
            sizeof *h + h->n_tokens * sizeof *h->tokens + h->n_chain * sizeof *h->chain + h->image.n + h->in_flight.n;
}

void am_cache_turns(const am_cache *c, void (*fn)(void *arg, const am_turn_memory *turn), void *arg) {
    for (const am_turn *t = c->turns; t; t = t->next_open)
        fn(arg, &(am_turn_memory){t->info.agent, t->n_slots, t->n_pinned, t->open != NULL});
}
