/* Stop strings over streamed text: shows what is certain, holds back what may still become a stop string. */
#ifndef AM_ENGINE_STOPS_H
#define AM_ENGINE_STOPS_H

#include "base/buf.h"

/* The result depends on the text alone, not on how it was cut into pieces: the text ends before the stop string that is complete first
 * (of several that end at the same byte, the longest). Zeroed: no stop strings. */
typedef struct am_stops {
    const am_str *stop; /* the caller's, none empty; must outlive this */
    uint32_t n;
    am_buf held;    /* [0, n_shown) was handed out by the last call, the rest is held back */
    size_t n_shown;
} am_stops;

/* Takes memory for pieces of up to max_piece bytes; longer ones allocate. */
am_status am_stops_init(am_stops *stops, const am_str *stop, uint32_t n, size_t max_piece, am_error *err);
void am_stops_free(am_stops *stops);
/* Adds a piece. *out: what may be shown now, valid until the next call. *hit: the index of the stop string that ended the text, or -1; after
 * a hit nothing more may be pushed. AM_ENOMEM, AM_ELIMIT. */
am_status am_stops_push(am_stops *stops, am_str piece, am_str *out, int *hit);
/* What was held back, at the end of the text. */
am_str am_stops_finish(am_stops *stops);

#endif
