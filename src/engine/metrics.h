/* What the engine counts: turns, tokens, and the times a user feels. */
#ifndef AM_ENGINE_METRICS_H
#define AM_ENGINE_METRICS_H

#include "base/metrics.h"
#include "cache/cache.h"

extern am_metric am_metric_queue_time;      /* submitted -> admitted */
extern am_metric am_metric_first_token;     /* submitted -> first token, by am_tier */
extern am_metric am_metric_between_tokens;
extern am_metric am_metric_turns;           /* by am_finish */
extern am_metric am_metric_turns_of_tier;   /* by am_tier, as they were admitted */
extern am_metric am_metric_prompt_tokens, am_metric_generated_tokens;
extern am_metric am_metric_drafted_tokens, am_metric_accepted_tokens; /* of lookup decoding */
extern am_metric am_metric_cached_tokens;   /* by am_tier */
extern am_metric am_metric_misses;          /* by am_miss - 1 */

/* A turn was admitted: its tier, tokens, and why less than all was reused. */
void am_metrics_of_turn(const am_turn_info *info);

#endif
