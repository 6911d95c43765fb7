/* Owns the way from logits to a token. The order is the one written at am_sampling: bias, penalties, temperature, top_k, typical, top_p,
 * min_p, draw. Each truncation works on the distribution that the one before it left, renormalised.
 *
 * Randomness is counter-based: the number for a position is a hash of (seed, position), never the next of a stream, so a request that is
 * cancelled and sent again, or that runs beside others, draws the same numbers.
 *
 * Truncations need the likeliest few of many thousands, so they take them off a heap (built in linear time) and never sort the
 * vocabulary. Scratch for one vocabulary is made once; picking allocates nothing. */
#include "engine/sampler.h"

#include "base/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { IN_PROMPT = 1u << 31, TIMES = IN_PROMPT - 1 };

typedef struct candidate {
    float y;   /* (x - max) / temperature */
    float w;   /* exp(y): probability up to a factor */
    float key; /* what the heap orders by */
    int32_t token;
} candidate;

struct am_sampler {
    uint32_t n_vocab;
    float *x;      /* [n_vocab] logits with bias and penalties */
    candidate *c;  /* [n_vocab] */
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

am_status am_sampler_create(uint32_t n_vocab, am_sampler **out, am_error *err) {
    *out = NULL;
    am_sampler *sampler = am_calloc(1, sizeof *sampler);
    if (!sampler) goto out_of_memory;
    sampler->n_vocab = n_vocab;
    sampler->x = am_calloc(n_vocab, sizeof *sampler->x);
    sampler->c = am_calloc(n_vocab, sizeof *sampler->c);
    if (!sampler->x || !sampler->c) goto out_of_memory;
    *out = sampler;
    return AM_OK;
out_of_memory:
    am_sampler_free(sampler);
    return am_fail(err, AM_ENOMEM, "no memory for the sampler (%u tokens)", n_vocab);
}

void am_sampler_free(am_sampler *sampler) {
    if (!sampler) return;
    free(sampler->x);
    free(sampler->c);
    free(sampler);
}

double am_draw_uniform(uint64_t seed, uint64_t position) {
    uint64_t counter[2] = {seed, position};
    return (double)(am_hash64(counter, sizeof counter) >> 11) * 0x1p-53;
}

int32_t am_likeliest(const float *x, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* Copies logits into x without NaN and adds what the request wants added. */
static void adjust(float *x, uint32_t n, const float *logits, const am_draw *draw) {
    const am_sampling *s = draw->sampling;
    for (uint32_t i = 0; i < n; i++) x[i] = isnan(logits[i]) ? -INFINITY : logits[i];
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

static void logprobs(const float *logits, uint32_t n, uint32_t n_top, am_sample *out) {
    float max = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        if (logits[i] > max) max = logits[i];
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (logits[i] > -INFINITY) sum += exp((double)logits[i] - max);
    double log_sum = max + log(sum);
    out->logprob = (float)(logits[out->token] - log_sum);
    out->n_top = n_top < n ? n_top : n;
    uint32_t n_kept = 0;
    for (uint32_t i = 0; out->n_top && i < n; i++) {
        if (n_kept == out->n_top && !(logits[i] > logits[out->top[n_kept - 1].token])) continue;
        uint32_t at = n_kept < out->n_top ? n_kept++ : n_kept - 1;
        for (; at > 0 && logits[i] > logits[out->top[at - 1].token]; at--) out->top[at] = out->top[at - 1];
        out->top[at].token = (int32_t)i;
    }
    for (uint32_t i = 0; i < out->n_top; i++) out->top[i].logprob = (float)(logits[out->top[i].token] - log_sum);
}

static bool comes_first(const candidate *a, const candidate *b) {
    return a->key > b->key || (a->key == b->key && a->token < b->token);
}

static void sift_down(candidate *c, size_t n, size_t at) {
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && comes_first(&c[child + 1], &c[child])) child++;
        if (!comes_first(&c[child], &c[at])) return;
        candidate t = c[at];
        c[at] = c[child];
        c[child] = t;
        at = child;
    }
}

/* Moves the first candidates by key to the front, in order, until there are most of them or their weights reach mass. At least one. */
static size_t take_first(candidate *c, size_t n, size_t most, double mass) {
    for (size_t i = n / 2; i-- > 0;) sift_down(c, n, i);
    size_t n_taken = 0;
    double sum = 0;
    while (n_taken < n && (n_taken == 0 || (n_taken < most && sum < mass))) {
        size_t last = n - 1 - n_taken;
        candidate first = c[0];
        c[0] = c[last];
        c[last] = first; /* taken ones gather at the end, in reverse */
        sum += first.w;
        n_taken++;
        sift_down(c, last, 0);
    }
    for (size_t i = 0; i < n / 2; i++) {
        candidate t = c[i];
        c[i] = c[n - 1 - i];
        c[n - 1 - i] = t;
    }
    return n_taken;
}

static double total_weight(const candidate *c, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += c[i].w;
    return sum;
}

/* Keeps the tokens whose surprise is nearest to the distribution's entropy (Meister et al., Locally Typical Sampling, 2022). */
static size_t keep_typical(candidate *c, size_t n, double mass) {
    double total = total_weight(c, n), log_total = log(total), entropy = 0;
    for (size_t i = 0; i < n; i++) entropy -= c[i].w / total * (c[i].y - log_total);
    for (size_t i = 0; i < n; i++) c[i].key = (float)-fabs(-(c[i].y - log_total) - entropy);
    return take_first(c, n, n, mass * total);
}

static size_t keep_likeliest(candidate *c, size_t n, size_t most, double mass) {
    for (size_t i = 0; i < n; i++) c[i].key = c[i].y;
    return take_first(c, n, most, mass * total_weight(c, n));
}

static size_t keep_above(candidate *c, size_t n, float share) {
    float most = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].w > most) most = c[i].w;
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].w >= share * most) c[n_kept++] = c[i];
    return n_kept;
}

static int32_t draw_one(const candidate *c, size_t n, double uniform) {
    double target = uniform * total_weight(c, n), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += c[i].w;
        if (sum > target) return c[i].token;
    }
    return c[n - 1].token;
}

static int32_t sample_token(am_sampler *sampler, const am_draw *draw) {
    const am_sampling *s = draw->sampling;
    uint32_t best = (uint32_t)am_likeliest(sampler->x, sampler->n_vocab);
    float max = sampler->x[best];
    if (s->temperature == 0 || !isfinite(max)) return (int32_t)best;
    candidate *c = sampler->c;
    size_t n = 0;
    for (uint32_t i = 0; i < sampler->n_vocab; i++) {
        float y = (sampler->x[i] - max) / s->temperature, w = expf(y);
        if (w > 0) c[n++] = (candidate){.y = y, .w = w, .token = (int32_t)i};
    }
    if (s->top_k > 0 && (size_t)s->top_k < n) n = keep_likeliest(c, n, (size_t)s->top_k, 2);
    if (s->typical_p < 1) n = keep_typical(c, n, s->typical_p);
    if (s->top_p < 1) n = keep_likeliest(c, n, n, s->top_p);
    if (s->min_p > 0) n = keep_above(c, n, s->min_p);
    return draw_one(c, n, am_draw_uniform(draw->seed, draw->position));
}

void am_sampler_pick(am_sampler *sampler, const am_draw *draw, const float *logits, am_sample *out) {
    adjust(sampler->x, sampler->n_vocab, logits, draw);
    out->token = sample_token(sampler, draw);
    out->logprob = 0;
    out->n_top = 0;
    if (draw->sampling->top_logprobs >= 0) logprobs(logits, sampler->n_vocab, (uint32_t)draw->sampling->top_logprobs, out);
}
