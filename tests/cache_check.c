#include "cache_check.h"

#include "cache/internal.h"
#include "cache/match.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static bool holds(const am_turn *t, const am_block *b) {
    for (uint32_t i = 0; i < t->n_pinned; i++)
        if (t->blocks[i] == b) return t->window[i];
    return false;
}

static bool has_block(const am_turn *t, const am_block *b) {
    for (uint32_t i = 0; i < t->n_pinned; i++)
        if (t->blocks[i] == b) return true;
    return false;
}

static uint32_t count_keeps(const am_cache *c, const am_part *p) {
    uint32_t n = 0;
    for (const am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older)
        for (uint32_t i = 0; i < h->n_kept; i++) n += h->kept[i] == p;
    return n;
}

/* Who has the part is who is written down; units it has, or waits for, are there. Returns how many. */
static uint32_t check_part(const am_cache *c, const am_part *p) {
    uint32_t n_pins = 0, n_units = am_part_units(c, p);
    for (const am_turn *t = c->turns; t; t = t->next_open) n_pins += p->kind == AM_KV_WINDOW ? holds(t, p->block) : has_block(t, p->block);
    assert_int_equal(p->n_pins, n_pins);
    if (p->kind == AM_KV_WINDOW) assert_int_equal(p->n_keeps, count_keeps(c, p));
    bool writing = p->busy == AM_PART_WRITING, reading = p->busy == AM_PART_READING;
    if (writing) assert_true(p->resident);
    if (p->payer) { /* an open turn that holds it, and no writer has it */
        assert_int_equal(p->kind, AM_KV_WINDOW);
        const am_turn *t = c->turns;
        while (t && t != p->payer) t = t->next_open;
        assert_non_null(t);
        assert_true(holds(t, p->block));
        assert_false(writing);
        assert_true(p->resident || (reading && p->job.turn == t));
    }
    for (uint32_t i = 0; i < n_units; i++) {
        assert_true(p->resident == (p->units[i] != NULL));
        assert_true(reading == (p->incoming[i] != NULL));
    }
    return n_units * (p->resident + reading);
}

/* Blocks are named by as many heads and turns as they say. */
static void check_block(const am_cache *c, const am_block *b) {
    uint32_t n_heads = 0, n_turns = 0;
    for (const am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older)
        for (uint32_t i = 0; i < h->n_chain; i++) n_heads += h->chain[i] == b;
    for (const am_turn *t = c->turns; t; t = t->next_open) n_turns += has_block(t, b);
    assert_int_equal(b->n_heads, n_heads);
    assert_int_equal(b->n_turns, n_turns);
    bool used = n_heads || n_turns;
    for (int kind = 0; kind < AM_KV_PARTS; kind++)
        if (b->part[kind]) used |= b->part[kind]->resident || b->part[kind]->on_disk || b->part[kind]->n_keeps || b->part[kind]->busy;
    assert_true(used); /* else nobody would ever free it */
}

/* A turn can give units for every part that it holds and does not pay for, those aside whose units are on their way back to it. */
static void check_turn(const am_turn *t) {
    const am_kv_layout *l = &t->cache->options.layout;
    uint32_t n_owed = 0;
    for (uint32_t i = 0; i < t->n_pinned; i++) {
        const am_part *p = t->blocks[i]->part[AM_KV_WINDOW];
        if (!t->window[i]) continue;
        bool own_read = p->busy == AM_PART_READING && p->job.turn == t;
        n_owed += p->payer != t && !own_read;
        if (t->ready) assert_true(p->resident && !own_read);
    }
    assert_true(t->n_units >= n_owed * l->part_units[AM_KV_WINDOW]);
    for (uint32_t i = 0; i < t->n_units; i++) assert_non_null(t->units[i]);
    for (uint32_t i = 0; t->ready && i < t->n_past / AM_BLOCK_TOKENS; i++) {
        const am_part *global = am_part_of(t, t->blocks[i], AM_KV_GLOBAL);
        assert_true(!global || global->resident);
        if (l->spec.window && i >= am_kv_reach(l, t->n_past)) assert_true(t->window[i]);
    }
}

void cache_check(const am_cache *c) {
    uint32_t n_units = c->sealed.n_free;
    for (const am_part *p = c->part_ring.older; p != &c->part_ring; p = p->older) {
        assert_ptr_equal(p->older->newer, p);
        n_units += check_part(c, p);
        check_block(c, p->block);
    }
    for (const am_turn *t = c->turns; t; t = t->next_open) {
        check_turn(t);
        n_units += t->n_units;
    }
    assert_int_equal(n_units, c->sealed.n_slots);
}
