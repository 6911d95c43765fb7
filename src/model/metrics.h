/* What loading models counts. */
#ifndef AM_MODEL_METRICS_H
#define AM_MODEL_METRICS_H

#include "base/metrics.h"

enum { AM_LOAD_OK, AM_LOAD_FAILED };
extern am_metric am_metric_model_loads; /* by how they ended */
extern am_metric am_metric_model_load_time;

#endif
