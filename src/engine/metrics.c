/* Owns the names of the engine's metrics and their places in a meter. */
#include "engine/metrics.h"

static const char *const tiers[] = {"cold", "warm", "hot"}; /* as am_tier */
static const char *const finishes[] = {"stop", "length", "canceled", "error"}; /* as am_finish */
static const char *const misses[] = {
#define MISS_NAME(code, text) [code] = text,
    AM_MISS_LIST(MISS_NAME)
#undef MISS_NAME
};
enum { N_TIERS = 3, N_FINISHES = 4, N_MISSES = sizeof misses / sizeof misses[0] - 1 /* without AM_MISS_NONE */, TIMES = AM_METRIC_HISTOGRAM_CELLS };

/* Where each has its cells in a meter. */
enum {
    QUEUE_AT = 0,
    FIRST_AT = QUEUE_AT + TIMES,
    BETWEEN_AT = FIRST_AT + N_TIERS * TIMES,
    TURNS_AT = BETWEEN_AT + TIMES,
    TIERS_AT = TURNS_AT + N_FINISHES,
    PROMPT_AT = TIERS_AT + N_TIERS,
    GENERATED_AT,
    DRAFTED_AT,
    ACCEPTED_AT,
    CACHED_AT,
    MISSES_AT = CACHED_AT + N_TIERS,
    END_AT = MISSES_AT + N_MISSES
};
_Static_assert((int)END_AT == (int)AM_ENGINE_METER_CELLS, "a meter has a cell for each");

const am_metric am_metric_queue_time = {.name = "agent_memory_queue_seconds", .help = "Time from a request's submission to its admission.",
                                        .kind = AM_METRIC_HISTOGRAM, .at = QUEUE_AT};
const am_metric am_metric_first_token = {.name = "agent_memory_time_to_first_token_seconds", .help = "Time from submission to the first token, by where the state came from.",
                                         .kind = AM_METRIC_HISTOGRAM, .label = "tier", .values = tiers, .n_values = N_TIERS, .at = FIRST_AT};
const am_metric am_metric_between_tokens = {.name = "agent_memory_time_between_tokens_seconds", .help = "Time from one token of an answer to the next.",
                                            .kind = AM_METRIC_HISTOGRAM, .at = BETWEEN_AT};
const am_metric am_metric_turns = {.name = "agent_memory_turns_total", .help = "Turns that ended, by how.", .kind = AM_METRIC_COUNTER, .label = "finish",
                             .values = finishes, .n_values = N_FINISHES, .at = TURNS_AT};
const am_metric am_metric_turns_of_tier = {.name = "agent_memory_turns_admitted_total", .help = "Turns that began, by where their state came from.",
                                           .kind = AM_METRIC_COUNTER, .label = "tier", .values = tiers, .n_values = N_TIERS, .at = TIERS_AT};
const am_metric am_metric_prompt_tokens = {.name = "agent_memory_prompt_tokens_total", .help = "Tokens of prompts, cached ones included.",
                                           .kind = AM_METRIC_COUNTER, .at = PROMPT_AT};
const am_metric am_metric_generated_tokens = {.name = "agent_memory_generated_tokens_total", .help = "Tokens of answers.", .kind = AM_METRIC_COUNTER,
                                              .at = GENERATED_AT};
const am_metric am_metric_drafted_tokens = {.name = "agent_memory_drafted_tokens_total", .help = "Tokens that were guessed from the sequence's own and computed along.",
                                            .kind = AM_METRIC_COUNTER, .at = DRAFTED_AT};
const am_metric am_metric_accepted_tokens = {.name = "agent_memory_accepted_tokens_total", .help = "Guessed tokens that turned out right: passes saved.",
                                             .kind = AM_METRIC_COUNTER, .at = ACCEPTED_AT};
const am_metric am_metric_cached_tokens = {.name = "agent_memory_cached_tokens_total", .help = "Tokens of prompts whose state was reused, by where it came from.",
                                           .kind = AM_METRIC_COUNTER, .label = "tier", .values = tiers, .n_values = N_TIERS, .at = CACHED_AT};
const am_metric am_metric_misses = {.name = "agent_memory_cache_misses_total", .help = "Turns that reused less than the agent has, by why.",
                              .kind = AM_METRIC_COUNTER, .label = "reason", .values = misses + 1, .n_values = N_MISSES, .at = MISSES_AT};

void am_metrics_of_turn(am_engine_meter *meter, const am_turn_info *info) {
    am_metric_add_in(&am_metric_turns_of_tier, meter->cells, info->tier, 1);
    am_metric_add_in(&am_metric_prompt_tokens, meter->cells, 0, info->n_prompt);
    am_metric_add_in(&am_metric_cached_tokens, meter->cells, info->tier, info->n_cached);
    if (info->miss) am_metric_add_in(&am_metric_misses, meter->cells, (uint32_t)info->miss - 1, 1);
}
