/* From logits to a token: bias, penalties, temperature, truncation and one draw that batch and schedule cannot change. */
#ifndef AM_ENGINE_SAMPLER_H
#define AM_ENGINE_SAMPLER_H

#include "engine/engine.h"

/* Which tokens a sequence holds, for the penalties. Zeroed: no penalties wanted, adding does nothing. */
typedef struct am_history {
    uint32_t *seen;    /* [n_vocab]: times sampled, plus AM_IN_PROMPT when the prompt has it */
    int32_t *distinct; /* [n_distinct] tokens with seen != 0 */
    uint32_t n_distinct;
} am_history;
/* Room for every token; nothing is allocated later. Free with am_history_free. */
am_status am_history_init(am_history *history, uint32_t n_vocab, am_error *err);
void am_history_free(am_history *history);
void am_history_add(am_history *history, int32_t token, bool sampled);
bool am_sampling_wants_history(const am_sampling *sampling);

/* Ranges of every field, and that biased tokens exist. AM_EINVAL names the field. */
am_status am_sampling_check(const am_sampling *sampling, uint32_t n_vocab, am_error *err);

typedef struct am_sampler am_sampler; /* scratch for one vocabulary size; one thread at a time */
am_status am_sampler_create(uint32_t n_vocab, const am_kernels *kernels, am_sampler **out, am_error *err);
void am_sampler_free(am_sampler *sampler);

typedef struct am_draw {
    const am_sampling *sampling;
    const am_history *history; /* may be NULL */
    uint64_t seed;
    uint64_t position; /* of the token to be drawn in its sequence */
} am_draw;

typedef struct am_sample {
    int32_t token;
    float logprob; /* of the model's own distribution; set when logprobs are asked for */
    am_logprob top[AM_MAX_TOP_LOGPROBS];
    uint32_t n_top;
} am_sample;

/* The same draw and logits give the same sample. Logits that are NaN count as minus infinity; ties go to the lowest id. No allocation. */
void am_sampler_pick(am_sampler *sampler, const am_draw *draw, const float *logits, am_sample *out);

/* The id of the largest of n >= 1 logits; ties go to the lowest. */
int32_t am_likeliest(const float *logits, uint32_t n);

/* The generator: uniform in [0, 1), a function of its two arguments. */
double am_draw_uniform(uint64_t seed, uint64_t position);

#endif
