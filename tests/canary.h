/* Rows that say whose they are: K and V derived from tenant, layer, position and all tokens so far, so that any foreign, stale, missing or
 * damaged row in a turn's blocks is seen. Stands in for a model where only the cache is tested. */
#ifndef AM_TESTS_CANARY_H
#define AM_TESTS_CANARY_H

#include "cache/cache.h"

am_kv_layout canary_layout(uint32_t bits);
/* The same three layers with windows: bit i of `windowed`: layer i has one. */
am_kv_layout canary_layout_windows(uint32_t bits, uint32_t window, uint32_t windowed);
/* Writes the rows of tokens [n_past, n) into the turn. */
void canary_extend(am_cache *cache, am_turn *turn, const am_kv_layout *layout, const char *tenant, const int32_t *tokens, uint32_t n);
/* Every row and block the turn has is the one it must be. */
void canary_check(am_turn *turn, const am_kv_layout *layout, const char *tenant, const int32_t *tokens);
/* Opens a turn and waits until it is ready. */
am_turn *canary_open(am_cache *cache, const am_turn_request *request);
/* A whole turn: open, check, extend to n tokens, check, commit, wait until it is on disk or has failed. */
am_turn_info canary_turn(am_cache *cache, const am_kv_layout *layout, const am_turn_request *request, const int32_t *tokens, uint32_t n);
/* The files of a folder are on disk alone, where the system does as it is asked: reading them waits. */
void canary_drop_pages(const char *dir);

#endif
