/* Owns the metric of loading models. */
#include "model/metrics.h"

static _Atomic uint64_t load_time[AM_METRIC_HISTOGRAM_CELLS];

am_metric am_metric_model_load_time = {.name = "agent_memory_model_load_seconds", .help = "Time to load a model.", .kind = AM_METRIC_HISTOGRAM,
                                       .cells = load_time};
