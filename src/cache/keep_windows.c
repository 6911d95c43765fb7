/* Owns which window parts a head keeps: those in reach of its points, which are its end, the end of its last prompt, the end of the turn before, and
 * the ends of blocks of its chain where somebody else went another way (docs/DESIGN.md, "Windows"). Keeping is by count, so heads share parts as
 * they share blocks; a part that nobody keeps loses its file at once and is the first to leave memory. */
#include "cache/internal.h"

#include "base/log.h"

#include <stdlib.h>

/* Marks the blocks in reach of a point. */
static void mark(const am_cache *c, bool *wanted, uint32_t point) {
    for (uint32_t i = am_kv_reach(&c->options.layout, point * AM_BLOCK_TOKENS); i < point; i++) wanted[i] = true;
}

static void mark_points(const am_cache *c, const am_head *h, bool *wanted) {
    mark(c, wanted, h->n_chain);
    if (h->before <= h->n_chain) mark(c, wanted, h->before);
    if (h->prompt <= h->n_chain) mark(c, wanted, h->prompt);
    for (uint32_t i = 0; i < h->n_chain; i++)
        if (h->chain[i]->fork) mark(c, wanted, i + 1);
}

void am_keep_windows(am_cache *c, am_head *h) {
    if (!c->options.layout.spec.window) return;
    bool *wanted = h->n_chain ? am_calloc(h->n_chain, sizeof *wanted) : NULL;
    am_part **kept = h->n_chain ? am_calloc(h->n_chain, sizeof *kept) : NULL, **before = h->kept;
    uint32_t n_before = h->n_kept;
    if (h->n_chain && (!wanted || !kept)) { /* it goes on keeping what it kept */
        am_log(AM_LOG_WARN, "cache_windows_not_kept", AM_LS("agent", h->agent));
        free(wanted);
        free(kept);
        return;
    }
    mark_points(c, h, wanted);
    h->kept = kept;
    h->n_kept = 0;
    for (uint32_t i = 0; i < h->n_chain; i++) {
        if (!wanted[i]) continue;
        kept[h->n_kept] = h->chain[i]->part[AM_KV_WINDOW];
        kept[h->n_kept++]->n_keeps++;
    }
    for (uint32_t i = 0; i < n_before; i++) am_keep_unkeep(c, before[i]);
    for (uint32_t i = 0; i < h->n_kept; i++) /* what a turn pays for is written when it ends */
        if (!kept[i]->payer) am_keep_write_part(c, kept[i]);
    free(before);
    free(wanted);
}

void am_keep_fork(am_cache *c, am_block *b, uint32_t i) {
    if (b->fork) return;
    b->fork = true;
    for (am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older)
        if (i < h->n_chain && h->chain[i] == b) am_keep_windows(c, h);
}
