/* What an engine counts: turns, tokens, and the times a user feels. Each engine counts into a meter, which may outlive it: a model that leaves memory
 * and comes back goes on counting where it was. */
#ifndef AM_ENGINE_METRICS_H
#define AM_ENGINE_METRICS_H

#include "base/metrics.h"
#include "cache/cache.h"

enum { AM_ENGINE_METER_CELLS = 5 * AM_METRIC_HISTOGRAM_CELLS + 14 + AM_MISS_DISABLED };
typedef struct am_engine_meter {
    _Atomic uint64_t cells[AM_ENGINE_METER_CELLS]; /* the block of the metrics below */
} am_engine_meter;

extern const am_metric am_metric_queue_time;      /* submitted -> admitted */
extern const am_metric am_metric_first_token;     /* submitted -> first token, by am_tier */
extern const am_metric am_metric_between_tokens;
extern const am_metric am_metric_turns;           /* by am_finish */
extern const am_metric am_metric_turns_of_tier;   /* by am_tier, as they were admitted */
extern const am_metric am_metric_prompt_tokens, am_metric_generated_tokens;
extern const am_metric am_metric_drafted_tokens, am_metric_accepted_tokens; /* of lookup decoding */
extern const am_metric am_metric_cached_tokens;   /* by am_tier */
extern const am_metric am_metric_misses;          /* by am_miss - 1 */

/* A turn was admitted: its tier, tokens, and why less than all was reused. */
void am_metrics_of_turn(am_engine_meter *meter, const am_turn_info *info);

#endif
