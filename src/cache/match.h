/* Between match.c, turn.c and turn_windows.c. */
#ifndef AM_CACHE_MATCH_H
#define AM_CACHE_MATCH_H

#include "cache/internal.h"

/* Gives back everything a turn holds. */
void am_turn_release(am_turn *turn);
/* Starts reading the rows of the open block, when the turn is being opened and they are on disk, and what the first n_usable blocks lack: global parts, and window
 * parts that the turn holds. */
void am_turn_start_reads(am_turn *turn);

/* A part that is in memory, can be read, or is being read. */
static inline bool am_part_usable(const am_part *p) { return p && (p->resident || p->on_disk || p->busy == AM_PART_READING); }
/* A part of a block, NULL where the model has no such parts. */
static inline am_part *am_part_of(const am_turn *t, const am_block *b, am_kv_part kind) {
    return t->cache->options.layout.part_units[kind] ? b->part[kind] : NULL;
}

/* turn_windows.c: the window parts of a turn. All do nothing where no layer has a window. */
/* The longest prefix of at most n of the turn's blocks whose window parts in reach of its end can be had. *lost: why
 * it is shorter, unless that is set already. */
uint32_t am_turn_windows_usable(const am_turn *turn, uint32_t n, am_miss *lost);
/* Holds what is in reach of the end of the first n_usable blocks, and nothing else. */
void am_turn_windows_match(am_turn *turn);
/* The most window parts it will hold at once while it grows to n_blocks. */
uint32_t am_turn_windows_most(const am_turn *turn, uint32_t n_blocks);
uint32_t am_turn_windows_paid(const am_turn *turn); /* how many it pays for now */
/* Lets go of what a turn of n_blocks no longer needs. */
void am_turn_windows_move(am_turn *turn, uint32_t n_blocks);
bool am_turn_windows_wants(const am_turn *turn, uint32_t i, uint32_t n_blocks); /* the window part of block i, when it has n_blocks */
void am_turn_windows_hold(am_turn *turn, uint32_t i);
void am_turn_windows_end(am_turn *turn); /* leaves all of them to the pool, and writes those that are kept */

#endif
