/* Owns the way from logits to a token. The order is the one written at am_sampling: bias, penalties, temperature, top_k, typical, top_p,
 * min_p, draw. Each truncation works on the distribution that the one before it left, renormalised.
 *
 * Randomness is counter-based: the number for a position is a hash of (seed, position), never the next of a stream, so a request that is
 * cancelled and sent again, or that runs beside others, draws the same numbers.
 *
 * Each truncation finds where an order is cut and keeps what is before the cut (select.h); nothing is sorted. top_k comes first and needs no
 * probability, so with it only k of them are computed. Scratch for one vocabulary is made once; picking allocates nothing. */
#include "engine/sampler.h"

#include "base/hash.h"
#include "engine/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { IN_PROMPT = 1u << 31, TIMES = IN_PROMPT - 1 };

struct am_sampler {
    uint32_t n_vocab;
    const am_kernels *kernels;
    float *key; /* [n_vocab] of typical_p */
    am_candidates c;
    am_select *select;
};

am_status am_history_init(am_history *history, uint32_t n_vocab, am_error *err) {
    *history = (am_history){.seen = am_calloc(n_vocab, sizeof(uint32_t)), .distinct = am_calloc(n_vocab, sizeof(int32_t))};
    if (history->seen && history->distinct) return AM_OK;
    am_history_free(history);
    return am_fail(err, AM_ENOMEM, "no memory for the penalties of a request (%u tokens)", n_vocab);
}

void am_history_free(am_history *history) {
    free(history->seen);
    free(history->distinct);
    *history = (am_history){0};
}

void am_history_add(am_history *history, int32_t token, bool sampled) {
    if (!history->seen) return;
    uint32_t *seen = &history->seen[token];
    if (*seen == 0) history->distinct[history->n_distinct++] = token;
    if (sampled)
        *seen += 1;
    else
        *seen |= IN_PROMPT;
}

bool am_sampling_wants_history(const am_sampling *sampling) {
    return sampling->repetition_penalty != 1 || sampling->frequency_penalty != 0 || sampling->presence_penalty != 0;
}

am_status am_sampling_check(const am_sampling *sampling, uint32_t n_vocab, am_error *err) {
    const struct {
        const char *name;
        float value, least, most;
    } range[] = {
        {"temperature", sampling->temperature, 0, 1e6f},
        {"top_p", sampling->top_p, 0, 1},
        {"min_p", sampling->min_p, 0, 1},
        {"typical_p", sampling->typical_p, 0, 1},
        {"repetition_penalty", sampling->repetition_penalty, 1e-6f, 1e6f},
        {"frequency_penalty", sampling->frequency_penalty, -1e6f, 1e6f},
        {"presence_penalty", sampling->presence_penalty, -1e6f, 1e6f},
        {"top_k", (float)sampling->top_k, 0, 2147483648.0f},
        {"top_logprobs", (float)sampling->top_logprobs, -1, AM_MAX_TOP_LOGPROBS},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (!(range[i].value >= range[i].least && range[i].value <= range[i].most)) /* NaN too */
            return am_fail(err, AM_EINVAL, "%s is %g, it must be between %g and %g", range[i].name, (double)range[i].value,
                           (double)range[i].least, (double)range[i].most);
    for (uint32_t i = 0; i < sampling->n_bias; i++) {
        const am_logit_bias *bias = &sampling->bias[i];
        if (bias->token < 0 || (uint32_t)bias->token >= n_vocab)
            return am_fail(err, AM_EINVAL, "logit_bias names token %d, the model has 0 to %u", bias->token, n_vocab - 1);
        if (!(fabsf(bias->bias) <= 1e6f))
            return am_fail(err, AM_EINVAL, "logit_bias of token %d is %g, it must be a number of at most a million", bias->token,
                           (double)bias->bias);
    }
    return AM_OK;
}

am_status am_sampler_create(uint32_t n_vocab, const am_kernels *kernels, am_sampler **out, am_error *err) {
    *out = NULL;
    am_sampler *sampler = am_calloc(1, sizeof *sampler);
    if (!sampler) goto out_of_memory;
    size_t room = am_select_room(n_vocab);
    sampler->n_vocab = n_vocab;
    sampler->kernels = kernels;
    sampler->key = am_calloc(room, sizeof *sampler->key);
    sampler->c.x = am_calloc(room, sizeof *sampler->c.x);
    sampler->c.w = am_calloc(room, sizeof *sampler->c.w);
    sampler->c.id = am_calloc(room, sizeof *sampler->c.id);
    if (!sampler->key || !sampler->c.x || !sampler->c.w || !sampler->c.id) goto out_of_memory;
    if (am_select_create(n_vocab, &sampler->select, NULL)) goto out_of_memory;
    *out = sampler;
    return AM_OK;
out_of_memory:
    am_sampler_free(sampler);
    return am_fail(err, AM_ENOMEM, "no memory for the sampler (%u tokens)", n_vocab);
}

void am_sampler_free(am_sampler *sampler) {
    if (!sampler) return;
    free(sampler->key);
    free(sampler->c.x);
    free(sampler->c.w);
    free(sampler->c.id);
    am_select_free(sampler->select);
    free(sampler);
}

double am_draw_uniform(uint64_t seed, uint64_t position) {
    uint64_t counter[2] = {seed, position};
    return (double)(am_hash64(counter, sizeof counter) >> 11) * 0x1p-53;
}

int32_t am_likeliest(const float *x, uint32_t n) { return (int32_t)am_select_find(x, n, am_select_most(x, n)); }

/* Copies logits into x without NaN and adds what the request wants added. */
static void adjust(float *x, uint32_t n, const float *logits, const am_draw *draw) {
    const am_sampling *s = draw->sampling;
    am_select_copy(x, logits, n);
    for (uint32_t i = 0; i < s->n_bias; i++) x[s->bias[i].token] += s->bias[i].bias;
    const am_history *h = draw->history;
    for (uint32_t i = 0; h && i < h->n_distinct; i++) {
        int32_t token = h->distinct[i];
        uint32_t times = h->seen[token] & TIMES;
        x[token] = x[token] > 0 ? x[token] / s->repetition_penalty : x[token] * s->repetition_penalty;
        x[token] -= s->frequency_penalty * (float)times;
        if (times) x[token] -= s->presence_penalty;
    }
}

/* w = exp(w / temperature), for w <= 0. */
static void weigh(const am_sampler *sampler, float *w, uint32_t n, float temperature) {
    uint32_t from = 0;
    float m = 0, l = 0;
    am_softmax step = {.s = w, .ld = am_select_room(n), .n_q = 1, .n_keys = (uint32_t)am_select_room(n), .from = &from, .to = &n, .m = &m,
                       .l = &l, .acc = &l};
    step.scale = temperature > 1e-30f ? 1 / temperature : 1e30f;
    sampler->kernels->softmax_step(&step);
}

static void logprobs(am_sampler *sampler, const float *logits, uint32_t n_top, am_sample *out) {
    uint32_t n = sampler->n_vocab;
    float max = am_select_most(logits, n), *w = sampler->c.w;
    am_select_copy(w, logits, n);
    am_select_subtract(w, n, max);
    weigh(sampler, w, n, 1);
    double log_sum = max + log(am_select_sum(w, n));
    out->logprob = (float)(logits[out->token] - log_sum);
    out->n_top = n_top < n ? n_top : n;
    uint32_t n_kept = 0;
    enum { RUN = 64 };
    for (uint32_t first = 0; out->n_top && first < n; first += RUN) {
        uint32_t end = n - first < RUN ? n : first + RUN;
        if (n_kept == out->n_top && !(am_select_most(logits + first, end - first) > logits[out->top[n_kept - 1].token])) continue;
        for (uint32_t i = first; i < end; i++) {
            if (n_kept == out->n_top && !(logits[i] > logits[out->top[n_kept - 1].token])) continue;
            uint32_t at = n_kept < out->n_top ? n_kept++ : n_kept - 1;
            for (; at > 0 && logits[i] > logits[out->top[at - 1].token]; at--) out->top[at] = out->top[at - 1];
            out->top[at].token = (int32_t)i;
        }
    }
    for (uint32_t i = 0; i < out->n_top; i++) out->top[i].logprob = (float)(logits[out->top[i].token] - log_sum);
}

static void keep_likeliest(am_sampler *sampler, uint32_t most) {
    am_candidates *c = &sampler->c;
    float top = am_select_most(c->x, c->n), spread = 16; /* the likeliest few of a model lie there; if not, the cut looks further */
    am_cut cut = am_select_cut(sampler->select, c->x, NULL, c->n, most, top - spread);
    am_select_keep(c, c->x, cut);
}

/* Keeps the tokens whose surprise is nearest to the distribution's entropy (Meister et al., Locally Typical Sampling, 2022). With y = x /
 * temperature and w = exp(y) a token's surprise is log(total) - y, and the entropy log(total) minus the mean of y. */
static void keep_typical(am_sampler *sampler, float temperature, double mass) {
    am_candidates *c = &sampler->c;
    double total = am_select_sum(c->w, c->n), scale = 1 / fmax(temperature, 1e-30);
    double mean = am_select_weigh(c->x, c->w, c->n) / total * scale;
    am_select_distance(sampler->key, c->x, c->n, (float)scale, (float)mean);
    am_select_keep(c, sampler->key, am_select_cut(sampler->select, sampler->key, c->w, c->n, mass * total, am_select_least(sampler->key, c->w, c->n)));
}

/* What is less likely than the floor is all together less than the rest: it is never needed. */
static void keep_mass(am_sampler *sampler, float temperature, double mass) {
    am_candidates *c = &sampler->c;
    double total = am_select_sum(c->w, c->n), floor = (log((1 - mass) * total / c->n) - 1e-3) * temperature;
    am_select_keep(c, c->x, am_select_cut(sampler->select, c->x, c->w, c->n, mass * total, (float)floor));
}

static int32_t sample_token(am_sampler *sampler, const am_draw *draw) {
    const am_sampling *s = draw->sampling;
    am_candidates *c = &sampler->c;
    float max = am_select_most(c->x, c->n);
    if (s->temperature == 0 || !isfinite(max)) return (int32_t)am_select_find(c->x, c->n, max);
    if (s->top_k > 0 && (uint32_t)s->top_k < c->n) keep_likeliest(sampler, (uint32_t)s->top_k);
    am_select_subtract(c->x, c->n, max);
    memcpy(c->w, c->x, am_select_room(c->n) * sizeof *c->w);
    weigh(sampler, c->w, c->n, s->temperature);
    if (s->typical_p < 1) keep_typical(sampler, s->temperature, s->typical_p);
    if (s->top_p < 1) keep_mass(sampler, s->temperature, s->top_p);
    if (s->min_p > 0) am_select_keep(c, c->w, (am_cut){s->min_p * am_select_most(c->w, c->n), c->n});
    uint32_t i = am_select_at(c->w, c->n, am_draw_uniform(draw->seed, draw->position) * am_select_sum(c->w, c->n));
    return c->all ? (int32_t)i : c->id[i];
}

void am_sampler_pick(am_sampler *sampler, const am_draw *draw, const float *logits, am_sample *out) {
    sampler->c.n = sampler->n_vocab;
    sampler->c.all = true;
    adjust(sampler->c.x, sampler->n_vocab, logits, draw);
    out->token = sample_token(sampler, draw);
    out->logprob = 0;
    out->n_top = 0;
    if (draw->sampling->top_logprobs >= 0) logprobs(sampler, logits, (uint32_t)draw->sampling->top_logprobs, out);
}
