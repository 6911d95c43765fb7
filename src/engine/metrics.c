/* Owns the engine's metrics. They are of the process: with several engines in it they add up. */
#include "engine/metrics.h"

static const char *const tiers[] = {"cold", "warm", "hot"}; /* as am_tier */
static const char *const finishes[] = {"stop", "length", "canceled", "error"}; /* as am_finish */
static const char *const misses[] = {
#define MISS_NAME(code, text) [code] = text,
    AM_MISS_LIST(MISS_NAME)
#undef MISS_NAME
};
enum { N_TIERS = 3, N_FINISHES = 4, N_MISSES = sizeof misses / sizeof misses[0] - 1 /* without AM_MISS_NONE */ };

static _Atomic uint64_t queue_time[AM_METRIC_HISTOGRAM_CELLS], between[AM_METRIC_HISTOGRAM_CELLS];
static _Atomic uint64_t first_token[N_TIERS * AM_METRIC_HISTOGRAM_CELLS];
static _Atomic uint64_t turns[N_FINISHES], of_tier[N_TIERS], prompt_tokens, generated_tokens, drafted_tokens, accepted_tokens, cached_tokens[N_TIERS], missed[N_MISSES];

am_metric am_metric_queue_time = {.name = "agent_memory_queue_seconds", .help = "Time from a request's submission to its admission.",
                                  .kind = AM_METRIC_HISTOGRAM, .cells = queue_time};
am_metric am_metric_first_token = {.name = "agent_memory_time_to_first_token_seconds", .help = "Time from submission to the first token, by where the state came from.",
                                   .kind = AM_METRIC_HISTOGRAM, .label = "tier", .values = tiers, .n_values = N_TIERS, .cells = first_token};
am_metric am_metric_between_tokens = {.name = "agent_memory_time_between_tokens_seconds", .help = "Time from one token of an answer to the next.",
                                      .kind = AM_METRIC_HISTOGRAM, .cells = between};
am_metric am_metric_turns = {.name = "agent_memory_turns_total", .help = "Turns that ended, by how.", .kind = AM_METRIC_COUNTER, .label = "finish",
                             .values = finishes, .n_values = N_FINISHES, .cells = turns};
am_metric am_metric_turns_of_tier = {.name = "agent_memory_turns_admitted_total", .help = "Turns that began, by where their state came from.",
                                     .kind = AM_METRIC_COUNTER, .label = "tier", .values = tiers, .n_values = N_TIERS, .cells = of_tier};
am_metric am_metric_prompt_tokens = {.name = "agent_memory_prompt_tokens_total", .help = "Tokens of prompts, cached ones included.",
                                     .kind = AM_METRIC_COUNTER, .cells = &prompt_tokens};
am_metric am_metric_generated_tokens = {.name = "agent_memory_generated_tokens_total", .help = "Tokens of answers.", .kind = AM_METRIC_COUNTER,
                                        .cells = &generated_tokens};
am_metric am_metric_drafted_tokens = {.name = "agent_memory_drafted_tokens_total", .help = "Tokens that were guessed from the sequence's own and computed along.",
                                      .kind = AM_METRIC_COUNTER, .cells = &drafted_tokens};
am_metric am_metric_accepted_tokens = {.name = "agent_memory_accepted_tokens_total", .help = "Guessed tokens that turned out right: passes saved.",
                                       .kind = AM_METRIC_COUNTER, .cells = &accepted_tokens};
am_metric am_metric_cached_tokens = {.name = "agent_memory_cached_tokens_total", .help = "Tokens of prompts whose state was reused, by where it came from.",
                                     .kind = AM_METRIC_COUNTER, .label = "tier", .values = tiers, .n_values = N_TIERS, .cells = cached_tokens};
am_metric am_metric_misses = {.name = "agent_memory_cache_misses_total", .help = "Turns that reused less than the agent has, by why.",
                              .kind = AM_METRIC_COUNTER, .label = "reason", .values = misses + 1, .n_values = N_MISSES, .cells = missed};

void am_metrics_of_turn(const am_turn_info *info) {
    am_metric_add(&am_metric_turns_of_tier, info->tier, 1);
    am_metric_add(&am_metric_prompt_tokens, 0, info->n_prompt);
    am_metric_add(&am_metric_cached_tokens, info->tier, info->n_cached);
    if (info->miss) am_metric_add(&am_metric_misses, (uint32_t)info->miss - 1, 1);
}
