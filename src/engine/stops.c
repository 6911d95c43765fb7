/* Owns what a stream holds back. The held text is always the longest suffix of the whole text that begins one of the stop strings (and
 * perhaps a stop string complete in the piece just pushed), so looking only at held text plus the new piece misses nothing and it
 * stays shorter than the longest stop string. Pieces never split a UTF-8 character and neither do cuts. */
#include "engine/stops.h"

#include <string.h>

am_status am_stops_init(am_stops *stops, const am_str *stop, uint32_t n, size_t max_piece, am_error *err) {
    *stops = (am_stops){.stop = stop, .n = n};
    if (n == 0) return AM_OK;
    size_t longest = 0;
    for (uint32_t i = 0; i < n; i++)
        if (stop[i].n > longest) longest = stop[i].n;
    am_buf_init(&stops->held, SIZE_MAX / 2);
    if (am_buf_reserve(&stops->held, longest + max_piece)) return am_fail(err, AM_ENOMEM, "no memory for the stop strings");
    return AM_OK;
}

void am_stops_free(am_stops *stops) {
    am_buf_free(&stops->held);
    *stops = (am_stops){0};
}

/* The stop string that is complete first: *begin is where it starts. */
static int find_stop(const am_stops *stops, am_str text, size_t *begin) {
    size_t least_end = SIZE_MAX;
    int found = -1;
    for (uint32_t i = 0; i < stops->n; i++) {
        am_str stop = stops->stop[i];
        const char *at = text.n >= stop.n ? memmem(text.p, text.n, stop.p, stop.n) : NULL;
        if (!at) continue;
        size_t start = (size_t)(at - text.p), end = start + stop.n;
        if (end < least_end || (end == least_end && start < *begin)) {
            least_end = end;
            *begin = start;
            found = (int)i;
        }
    }
    return found;
}

/* Where the longest suffix of text begins that is a proper beginning of a stop string; text.n when there is none. */
static size_t held_from(const am_stops *stops, am_str text) {
    size_t from = text.n;
    for (uint32_t i = 0; i < stops->n; i++) {
        am_str stop = stops->stop[i];
        size_t most = stop.n - 1 < text.n ? stop.n - 1 : text.n;
        for (size_t n = most; n > text.n - from; n--)
            if (memcmp(text.p + text.n - n, stop.p, n) == 0) {
                from = text.n - n;
                break;
            }
    }
    while (from > 0 && from < text.n && ((unsigned char)text.p[from] & 0xc0) == 0x80) from--; /* a stop may begin inside a character */
    return from;
}

static void drop_shown(am_stops *stops) {
    stops->held.n -= stops->n_shown;
    if (stops->held.n) memmove(stops->held.p, stops->held.p + stops->n_shown, stops->held.n);
    stops->n_shown = 0;
}

am_status am_stops_push(am_stops *stops, am_str piece, am_str *out, int *hit) {
    *hit = -1;
    *out = piece;
    if (stops->n == 0) return AM_OK;
    drop_shown(stops);
    *out = (am_str){0};
    am_status status = am_buf_add(&stops->held, piece);
    if (status) return status;
    am_str text = am_buf_str(&stops->held);
    size_t begin = 0;
    *hit = find_stop(stops, text, &begin);
    stops->n_shown = *hit >= 0 ? begin : held_from(stops, text);
    while (*hit >= 0 && begin > 0 && ((unsigned char)text.p[begin] & 0xc0) == 0x80) stops->n_shown = --begin;
    *out = (am_str){text.p, stops->n_shown};
    return AM_OK;
}

am_str am_stops_finish(am_stops *stops) {
    if (stops->n == 0) return (am_str){0};
    drop_shown(stops);
    stops->n_shown = stops->held.n;
    return am_buf_str(&stops->held);
}
