/* What loading models takes. */
#ifndef AM_MODEL_METRICS_H
#define AM_MODEL_METRICS_H

#include "base/metrics.h"

extern am_metric am_metric_model_load_time;

#endif
