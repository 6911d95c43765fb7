/* Between match.c and turn.c. */
#ifndef AM_CACHE_MATCH_H
#define AM_CACHE_MATCH_H

#include "cache/internal.h"

/* Gives back everything a turn holds. */
void am_turn_release(am_turn *turn);

#endif
