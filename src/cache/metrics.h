/* What the cache counts besides am_cache_stats: how long reading and writing takes. */
#ifndef AM_CACHE_METRICS_H
#define AM_CACHE_METRICS_H

#include "base/metrics.h"

extern am_metric am_metric_restore_time; /* of turns that read something: opened -> everything there */
extern am_metric am_metric_read_time;    /* of one file's block or rows */
extern am_metric am_metric_save_time;    /* of one file: written, and synced when it is to be */

#endif
