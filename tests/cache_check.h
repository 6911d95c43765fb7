/* The books of a cache, looked through between two steps: who holds which part, who pays for it, and that every unit of memory is in one place. What
 * is written in src/cache/internal.h and docs/DESIGN.md, "Windows", as code. */
#ifndef AM_TESTS_CACHE_CHECK_H
#define AM_TESTS_CACHE_CHECK_H

#include "cache/cache.h"

void cache_check(const am_cache *cache);

#endif
