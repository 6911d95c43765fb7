/* Owns the cache's metrics. They are of the process: with several caches in it they add up. */
#include "cache/metrics.h"

static _Atomic uint64_t restore[AM_METRIC_HISTOGRAM_CELLS], reading[AM_METRIC_HISTOGRAM_CELLS], saving[AM_METRIC_HISTOGRAM_CELLS];

am_metric am_metric_restore_time = {.name = "agent_memory_restore_seconds", .help = "Time from a turn's opening until all its state was read from disk.",
                                    .kind = AM_METRIC_HISTOGRAM, .cells = restore};
am_metric am_metric_read_time = {.name = "agent_memory_read_seconds", .help = "Time to read one block or the rows of one agent.",
                                 .kind = AM_METRIC_HISTOGRAM, .cells = reading};
am_metric am_metric_save_time = {.name = "agent_memory_save_seconds", .help = "Time to write one block or agent file, as durably as configured.",
                                 .kind = AM_METRIC_HISTOGRAM, .cells = saving};
