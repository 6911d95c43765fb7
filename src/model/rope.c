/* Owns rotary frequencies: one number a pair of dimensions, from theta and the scaling the config asks for.
 * Sources: arXiv 2104.09864 (rope), 2309.00071 (yarn), 2402.13753 (longrope); transformers' modeling_rope_utils.py for each kind's details. */
#include "model/internal.h"

#include <math.h>

/* Llama 3.1: wavelengths beyond the original context over low_freq_factor are stretched by `factor`, those below it over high_freq_factor are
 * kept, and in between the two are mixed. It acts at every position, short ones too. */
static double llama3(const am_rope_config *rope, double freq) {
    double wavelength = 2 * M_PI / freq;
    if (wavelength < rope->original_ctx / rope->high_freq_factor) return freq;
    if (wavelength > rope->original_ctx / rope->low_freq_factor) return freq / rope->factor;
    double smooth = (rope->original_ctx / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * freq / rope->factor + smooth * freq;
}

/* The dimension pair that makes `turns` turns over the original context. */
static double yarn_pair(const am_rope_config *rope, uint32_t dims, double turns) {
    return dims * log(rope->original_ctx / (turns * 2 * M_PI)) / (2 * log(rope->theta));
}

/* Pairs that turn often keep their frequency, those that turn less than once over the original context are stretched, a ramp between. */
static double yarn(const am_rope_config *rope, uint32_t dims, uint32_t i, double freq) {
    double low = yarn_pair(rope, dims, rope->beta_fast), high = yarn_pair(rope, dims, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, dims - 1);
    if (low == high) high += 0.001;
    double stretched = fmin(fmax((i - low) / (high - low), 0), 1);
    return freq / rope->factor * stretched + freq * (1 - stretched);
}

static double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

static double scale_of(const am_rope_config *rope) {
    if (rope->attention_factor > 0) return rope->attention_factor;
    if (rope->kind == AM_ROPE_YARN)
        return rope->mscale != 0 && rope->mscale_all_dim != 0
                   ? yarn_mscale(rope->factor, rope->mscale) / yarn_mscale(rope->factor, rope->mscale_all_dim)
                   : yarn_mscale(rope->factor, 1);
    if (rope->kind == AM_ROPE_LONGROPE && rope->factor > 1) return sqrt(1 + log(rope->factor) / log(rope->original_ctx));
    return 1;
}

/* Longrope has two sets of divisors. Which one counts is decided once, by the context the model is loaded for: were it decided by a
 * sequence's length, keys that lie in a cache would become wrong when it grows. */
static double longrope(const am_rope_config *rope, uint32_t i, double freq, double n_ctx) {
    const json_t *factors = n_ctx > rope->original_ctx ? rope->long_factor : rope->short_factor;
    return freq / json_number_value(json_array_get(factors, i));
}

double am_rope_freq(const am_rope_config *rope, uint32_t dims, uint32_t i, double n_ctx) {
    double freq = 1 / pow(rope->theta, 2.0 * i / dims);
    switch (rope->kind) {
    case AM_ROPE_PLAIN: break;
    case AM_ROPE_LINEAR: return freq / rope->factor;
    case AM_ROPE_LLAMA3: return llama3(rope, freq);
    case AM_ROPE_YARN: return yarn(rope, dims, i, freq);
    case AM_ROPE_DIVISORS: return freq / json_number_value(json_array_get(rope->short_factor, i));
    case AM_ROPE_LONGROPE: return longrope(rope, i, freq, n_ctx);
    }
    return freq;
}

am_status am_model_add_rope(am_model *model, const am_rope_config *rope, am_error *err) {
    am_rope *r = &model->ropes[model->n_ropes];
    if (model->n_ropes == AM_MAX_ROPES) return am_fail(err, AM_EUNSUPPORTED, "more than %d kinds of rope", AM_MAX_ROPES);
    r->dims = am_rope_dims(rope, model->config.head_dim);
    r->scale = (float)scale_of(rope);
    r->freq = am_calloc(r->dims / 2, sizeof *r->freq);
    if (!r->freq) return am_fail(err, AM_ENOMEM, "no memory for rotary frequencies");
    model->n_ropes++;
    for (uint32_t i = 0; i < r->dims / 2; i++) r->freq[i] = (float)am_rope_freq(rope, r->dims, i, model->config.n_ctx_served);
    return AM_OK;
}
