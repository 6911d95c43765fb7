/* Owns the metrics of loading models. */
#include "model/metrics.h"

static const char *const results[] = {"ok", "failed"};
static _Atomic uint64_t loads[2], load_time[AM_METRIC_HISTOGRAM_CELLS];

am_metric am_metric_model_loads = {.name = "agent_memory_model_loads_total", .help = "Models loaded, by how it ended.", .kind = AM_METRIC_COUNTER,
                                   .label = "result", .values = results, .n_values = 2, .cells = loads};
am_metric am_metric_model_load_time = {.name = "agent_memory_model_load_seconds", .help = "Time to load a model.", .kind = AM_METRIC_HISTOGRAM,
                                       .cells = load_time};
