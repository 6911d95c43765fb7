/* How long a pass of so many rows takes, learned from the passes that were made. The room's own.
 *
 * The time of one row is a level that follows quickly what depth of context and the machine's other work do to it; how much longer more rows take
 * is a shape that follows slowly. Between the numbers of rows that have been seen the shape is a straight line. */
#ifndef AM_ENGINE_PACE_H
#define AM_ENGINE_PACE_H

#include "base/status.h"

#include <stdint.h>

enum { AM_PACE_KNOTS = 16 };

typedef struct am_pace {
    double level;                /* ns of a pass of one row; 0: none was seen */
    double shape[AM_PACE_KNOTS]; /* a pass of the knot's rows over that of one */
    uint32_t n_seen[AM_PACE_KNOTS];
    double off[2];               /* what the last two passes took over what was expected of them */
} am_pace;

void am_pace_saw(am_pace *pace, uint32_t n_rows, double ns);
double am_pace_ns(const am_pace *pace, uint32_t n_rows); /* 0: nothing was seen yet */

#endif
