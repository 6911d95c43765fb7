/* Owns which window parts a running turn holds, and who pays for them (internal.h has the rule).
 *
 * A turn with n blocks holds the window parts in reach of its position, and those of its points that it has computed itself: what was there before
 * is somebody's who keeps it. Going on, it lets go at each border before the next block is sealed, so it never holds more than was counted
 * when it opened. */
#include "cache/match.h"

static const am_kv_layout *layout_of(const am_turn *t) { return &t->cache->options.layout; }
static bool has_windows(const am_turn *t) { return layout_of(t)->part_units[AM_KV_WINDOW] > 0; }
static uint32_t reach_of(const am_turn *t, uint32_t n_blocks) { return am_kv_reach(layout_of(t), n_blocks * AM_BLOCK_TOKENS); }

uint32_t am_turn_windows_usable(const am_turn *t, uint32_t n, am_miss *lost) {
    if (!has_windows(t)) return n;
    for (uint32_t i = n; i-- > reach_of(t, n);) {
        if (am_part_usable(t->blocks[i]->part[AM_KV_WINDOW])) continue;
        if (*lost == AM_MISS_NONE) *lost = t->blocks[i]->part[AM_KV_WINDOW]->lost;
        n = i; /* every longer prefix down to here has this block in reach */
    }
    return n;
}

static bool in_reach_of_point(const am_turn *t, uint32_t i, uint32_t point) { return i < point && i >= reach_of(t, point); }

/* Block i is held for a point. */
static bool wanted_later(const am_turn *t, uint32_t i) {
    if (i < t->n_usable) return false;
    for (int k = 0; k < AM_N_POINTS; k++)
        if (in_reach_of_point(t, i, t->point[k])) return true;
    return false;
}

bool am_turn_windows_wants(const am_turn *t, uint32_t i, uint32_t n_blocks) {
    return has_windows(t) && (i >= reach_of(t, n_blocks) || wanted_later(t, i));
}

/* Blocks before `end` that are held for point k and for none before it. */
static uint32_t count_of_point(const am_turn *t, int k, uint32_t end) {
    uint32_t n = 0;
    for (uint32_t i = reach_of(t, t->point[k]); i < t->point[k] && i < end; i++) {
        bool counted = i < t->n_usable;
        for (int before = 0; before < k; before++) counted |= in_reach_of_point(t, i, t->point[before]);
        n += !counted;
    }
    return n;
}

uint32_t am_turn_windows_most(const am_turn *t, uint32_t n_blocks) {
    uint32_t most = 0;
    for (uint32_t n = t->n_usable; has_windows(t) && n <= n_blocks; n++) {
        uint32_t count = n - reach_of(t, n);
        for (int k = 0; k < AM_N_POINTS; k++) count += count_of_point(t, k, reach_of(t, n));
        if (count > most) most = count;
    }
    return most;
}

uint32_t am_turn_windows_paid(const am_turn *t) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_pinned; i++) n += t->window[i] && t->blocks[i]->part[AM_KV_WINDOW]->payer == t;
    return n;
}

void am_turn_windows_hold(am_turn *t, uint32_t i) {
    am_part *p = t->blocks[i]->part[AM_KV_WINDOW];
    if (t->window[i]) return;
    t->window[i] = true;
    p->n_pins++;
}

static void give_units(am_turn *from, am_turn *to) {
    for (uint32_t i = 0; i < layout_of(to)->part_units[AM_KV_WINDOW]; i++) to->units[to->n_units++] = from->units[--from->n_units];
}

/* The turn that has the part read with units of its own; NULL when nobody does, or it has ended. */
static am_turn *reader_of(const am_part *p) { return p->busy == AM_PART_READING ? p->job.turn : NULL; }

/* Another turn that holds this part, which is block i of its sequence too: names say the whole history. Not the one that is reading it, whose
 * units for it are on their way. */
static am_turn *another_user(const am_turn *t, const am_part *p, uint32_t i) {
    am_turn *u = t->cache->turns;
    while (u && (u == t || u == reader_of(p) || i >= u->n_pinned || u->blocks[i] != p->block || !u->window[i])) u = u->next_open;
    return u;
}

/* Nobody's any more, but for those who keep it. */
static void leave(am_turn *t, am_part *p) {
    if (p->n_pins == 0 && !am_keep_wanted(p)) am_index_demote(t->cache, p);
}

static void let_go(am_turn *t, uint32_t i) {
    am_part *p = t->blocks[i]->part[AM_KV_WINDOW];
    t->window[i] = false;
    p->n_pins--;
    if (p->payer != t) {
        leave(t, p);
        return;
    }
    p->payer = another_user(t, p, i);
    if (p->payer) {
        give_units(p->payer, t);
        return;
    }
    for (uint32_t u = 0; u < layout_of(t)->part_units[AM_KV_WINDOW]; u++) {
        t->units[t->n_units++] = p->units[u];
        p->units[u] = NULL;
    }
    p->resident = false;
    p->payer = reader_of(p); /* it waits for the disk, as if nobody had computed the part meanwhile */
    if (!p->on_disk) p->lost = AM_MISS_WINDOW;
}

void am_turn_windows_move(am_turn *t, uint32_t n_blocks) {
    for (uint32_t i = 0; i < t->n_pinned && i < n_blocks; i++)
        if (t->window[i] && !am_turn_windows_wants(t, i, n_blocks)) let_go(t, i);
}

void am_turn_windows_match(am_turn *t) {
    if (!has_windows(t)) return;
    uint32_t from = reach_of(t, t->n_usable);
    for (uint32_t i = 0; i < t->n_pinned; i++) {
        am_part *p = t->blocks[i]->part[AM_KV_WINDOW];
        bool wanted = i >= from && i < t->n_usable;
        if (t->window[i] && !wanted) let_go(t, i);
        if (!wanted) continue;
        am_turn_windows_hold(t, i);
        am_index_touch(t->cache, p);
        bool reserved = t->units != NULL; /* then there are units for this part too, and none may come on top */
        if (!reserved && p->resident && p->busy == AM_PART_IDLE && !p->payer) p->payer = t;
    }
}

void am_turn_windows_end(am_turn *t) {
    for (uint32_t i = 0; i < t->n_pinned; i++) {
        if (!t->window[i]) continue;
        am_part *p = t->blocks[i]->part[AM_KV_WINDOW];
        t->window[i] = false;
        p->n_pins--;
        if (p->payer == t) p->payer = NULL;
        leave(t, p);
        if (!am_keep_wanted(p) || p->on_disk || !p->resident) continue;
        if (p->payer && t->n_units < layout_of(t)->part_units[AM_KV_WINDOW]) continue; /* it was refused before it had any, or they are being read to: the payer goes on */
        if (p->payer) { /* a writer will have it now, so who pays for it could not get its units back */
            give_units(t, p->payer);
            p->payer = NULL;
        }
        am_keep_write_part(t->cache, p);
    }
}
