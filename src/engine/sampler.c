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
    float *key, *key_peak; /* [n_vocab], [runs] of typical_p */
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
    sampler->key_peak = am_calloc(am_select_runs(n_vocab), sizeof *sampler->key_peak);
    sampler->c.peak = am_calloc(am_select_runs(n_vocab), sizeof *sampler->c.peak);
    sampler->c.x = am_calloc(room, sizeof *sampler->c.x);
    sampler->c.w = am_calloc(room, sizeof *sampler->c.w);
    sampler->c.id = am_calloc(room, sizeof *sampler->c.id);
    if (!sampler->key || !sampler->key_peak || !sampler->c.peak || !sampler->c.x || !sampler->c.w || !sampler->c.id) goto out_of_memory;
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
    free(sampler->key_peak);
    free(sampler->c.peak);
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

/* Takes the logits, and adds what the request wants added. */
static void adjust(am_candidates *c, uint32_t n, const float *logits, const am_draw *draw) {
    const am_sampling *s = draw->sampling;
    const am_history *h = draw->history;
    am_select_all(c, logits, n);
    float *x = c->x;
    for (uint32_t i = 0; i < s->n_bias; i++) x[s->bias[i].token] += s->bias[i].bias;
    for (uint32_t i = 0; h && i < h->n_distinct; i++) {
        int32_t token = h->distinct[i];
        uint32_t times = h->seen[token] & TIMES;
        x[token] = x[token] > 0 ? x[token] / s->repetition_penalty : x[token] * s->repetition_penalty;
        x[token] -= s->frequency_penalty * (float)times;
        if (times) x[token] -= s->presence_penalty;
    }
    uint32_t n_changed = s->n_bias + (h ? h->n_distinct : 0), n_runs = am_select_runs(n);
    if (n_changed > n_runs) { /* most of them */
        for (uint32_t r = 0; r < n_runs; r++) am_select_peak(c, r);
        return;
    }
    for (uint32_t i = 0; i < n_changed; i++) am_select_peak(c, (uint32_t)(i < s->n_bias ? s->bias[i].token : h->distinct[i - s->n_bias]) / AM_SELECT_RUN);
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

/* The n_top likeliest of all candidates, of which x is the model's own. */
static void find_top(const am_candidates *c, uint32_t n_top, am_sample *out) {
    uint32_t n_kept = 0;
    out->n_top = n_top;
    for (uint32_t r = 0; n_top > 0 && r < am_select_runs(c->n); r++) {
        if (n_kept == n_top && !(c->peak[r] > c->x[out->top[n_kept - 1].token])) continue;
        uint32_t first = r * AM_SELECT_RUN, end = c->n - first < AM_SELECT_RUN ? c->n : first + AM_SELECT_RUN;
        for (uint32_t i = first; i < end; i++) {
            if (n_kept == n_top && !(c->x[i] > c->x[out->top[n_kept - 1].token])) continue;
            uint32_t at = n_kept < n_top ? n_kept++ : n_kept - 1;
            for (; at > 0 && c->x[i] > c->x[out->top[at - 1].token]; at--) out->top[at] = out->top[at - 1];
            out->top[at].token = (int32_t)i;
        }
    }
}

static void logprobs(am_sampler *sampler, const float *logits, uint32_t n_top, am_sample *out) {
    uint32_t n = sampler->n_vocab;
    am_candidates *c = &sampler->c;
    am_select_all(c, logits, n);
    find_top(c, n_top < n ? n_top : n, out);
    float max = am_select_most(c->peak, am_select_runs(n));
    am_select_center(c, max);
    weigh(sampler, c->w, n, 1);
    double log_sum = max + log(am_select_sum(c->w, n));
    out->logprob = (float)(logits[out->token] - log_sum);
    for (uint32_t i = 0; i < out->n_top; i++) out->top[i].logprob = (float)(logits[out->top[i].token] - log_sum);
}

static am_order by_logit(const am_candidates *c, const float *w) { return (am_order){.key = c->x, .w = w, .peak = c->peak, .n = c->n}; }

static void keep_likeliest(am_sampler *sampler, uint32_t most) {
    am_candidates *c = &sampler->c;
    am_order order = by_logit(c, NULL);
    am_select_keep(c, c->x, c->peak, am_select_first(sampler->select, &order, most));
}

/* Keeps the tokens whose surprise is nearest to the distribution's entropy (Meister et al., Locally Typical Sampling, 2022). With y = x /
 * temperature and w = exp(y) a token's surprise is log(total) - y, and the entropy log(total) minus the mean of y. */
static void keep_typical(am_sampler *sampler, float temperature, double mass) {
    am_candidates *c = &sampler->c;
    double total = am_select_sum(c->w, c->n), scale = 1 / fmax(temperature, 1e-30);
    double mean = am_select_weigh(c->x, c->w, c->n) / total * scale;
    float least = am_select_distance(c, (float)scale, (float)mean, sampler->key, sampler->key_peak);
    am_order order = {.key = sampler->key, .w = c->w, .peak = sampler->key_peak, .n = c->n};
    am_select_keep(c, order.key, order.peak, am_select_cut(sampler->select, &order, mass * total, least));
}

/* What is less likely than the floor is all together less than the rest: it is never needed. */
static void keep_mass(am_sampler *sampler, float temperature, double mass) {
    am_candidates *c = &sampler->c;
    am_order order = by_logit(c, c->w);
    double total = am_select_sum(c->w, c->n), floor = (log((1 - mass) * total / c->n) - 1e-3) * temperature;
    am_select_keep(c, c->x, c->peak, am_select_cut(sampler->select, &order, mass * total, (float)floor));
}

static int32_t sample_token(am_sampler *sampler, const am_draw *draw) {
    const am_sampling *s = draw->sampling;
    am_candidates *c = &sampler->c;
    float max = am_select_most(c->peak, am_select_runs(c->n));
    if (s->temperature == 0 || !isfinite(max)) {
        uint32_t first = am_select_find(c->peak, am_select_runs(c->n), max) * AM_SELECT_RUN;
        return (int32_t)(first + am_select_find(c->x + first, AM_SELECT_RUN, max));
    }
    if (s->top_k > 0 && (uint32_t)s->top_k < c->n) keep_likeliest(sampler, (uint32_t)s->top_k);
    am_select_center(c, max);
    weigh(sampler, c->w, c->n, s->temperature);
    if (s->typical_p < 1) keep_typical(sampler, s->temperature, s->typical_p);
    if (s->top_p < 1) keep_mass(sampler, s->temperature, s->top_p);
    if (s->min_p > 0) am_select_keep(c, c->w, NULL, (am_cut){s->min_p * am_select_most(c->w, c->n), c->n});
    uint32_t i = am_select_at(c->w, c->n, am_draw_uniform(draw->seed, draw->position) * am_select_sum(c->w, c->n));
    return c->all ? (int32_t)i : c->id[i];
}

void am_sampler_pick(am_sampler *sampler, const am_draw *draw, const float *logits, am_sample *out) {
    adjust(&sampler->c, sampler->n_vocab, logits, draw);
    out->token = sample_token(sampler, draw);
    out->logprob = 0;
    out->n_top = 0;
    if (draw->sampling->top_logprobs >= 0) logprobs(sampler, logits, (uint32_t)draw->sampling->top_logprobs, out);
}
