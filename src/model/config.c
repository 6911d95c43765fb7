/* Owns the reading of config.json: which keys there are, their ranges and defaults.
 *
 * A config is input: each number has a range, products of them are checked where memory is taken, and what asks for something that is not
 * implemented is refused here by key and value, because a model that computes something else without saying so is the worst outcome.
 * Defaults are those of transformers' configuration classes. */
#include "model/config.h"

#include <math.h>
#include <string.h>

enum {
    MAX_LAYERS = 1024,
    MAX_VOCAB = 1 << 22,
    MAX_EMBD = 1 << 17,
    MAX_FF = 1 << 20,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_CTX = 1 << 26,
};

static const json_t *present(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return v && !json_is_null(v) ? v : NULL;
}

static am_status bad_value(am_status code, const char *key, const json_t *v, const char *wanted, am_error *err) {
    am_buf text;
    am_buf_init(&text, 400);
    bool told = am_json_dump(v, &text) == AM_OK;
    am_status status = am_fail(err, code, "'%s' is %s%s%s", key, told ? am_buf_str(&text).p : "a long value", wanted ? ", must be " : "",
                               wanted ? wanted : ", which is not supported");
    am_buf_free(&text);
    return status;
}

am_status am_config_count(const am_config *config, const char *key, uint32_t min, uint32_t max, uint32_t fallback, uint32_t *out,
                          am_error *err) {
    const json_t *v = present(config->json, key);
    if (!v) {
        if (fallback < min) return am_fail(err, AM_EFORMAT, "'%s' is missing", key);
        *out = fallback;
        return AM_OK;
    }
    char range[64];
    snprintf(range, sizeof range, "an integer from %u to %u", min, max);
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
        return bad_value(AM_EFORMAT, key, v, range, err);
    *out = (uint32_t)json_integer_value(v);
    return AM_OK;
}

static am_status number_of(const json_t *object, const char *key, double fallback, double *out, am_error *err) {
    const json_t *v = present(object, key);
    *out = fallback;
    if (!v) return isnan(fallback) ? am_fail(err, AM_EFORMAT, "'%s' is missing", key) : AM_OK;
    if (!json_is_number(v) || !isfinite(json_number_value(v))) return bad_value(AM_EFORMAT, key, v, "a finite number", err);
    *out = json_number_value(v);
    return AM_OK;
}

am_status am_config_number(const am_config *config, const char *key, double fallback, double *out, am_error *err) {
    return number_of(config->json, key, fallback, out, err);
}

am_status am_config_flag(const am_config *config, const char *key, bool fallback, bool *out, am_error *err) {
    const json_t *v = present(config->json, key);
    *out = v ? json_is_true(v) : fallback;
    return v && !json_is_boolean(v) ? bad_value(AM_EFORMAT, key, v, "true or false", err) : AM_OK;
}

am_status am_config_refuse(const am_config *config, const char *key, const char *same, am_error *err) {
    const json_t *v = present(config->json, key);
    if (!v || json_is_false(v)) return AM_OK;
    json_t *wanted = same ? json_loads(same, JSON_DECODE_ANY, NULL) : NULL;
    bool equal = wanted && (json_equal(v, wanted) || (json_is_number(v) && json_is_number(wanted) &&
                                                      json_number_value(v) == json_number_value(wanted)));
    json_decref(wanted);
    return equal ? AM_OK : bad_value(AM_EUNSUPPORTED, key, v, NULL, err);
}

static am_status positive(const json_t *object, const char *key, double fallback, double *out, am_error *err) {
    am_status status = number_of(object, key, fallback, out, err);
    if (status) return status;
    return *out > 0 && *out <= 1e12 ? AM_OK : bad_value(AM_EFORMAT, key, present(object, key), "above 0 and at most 1e12", err);
}

static am_status read_llama3(am_rope_config *rope, const json_t *scaling, am_error *err) {
    am_status status = positive(scaling, "low_freq_factor", NAN, &rope->low_freq_factor, err);
    if (!status) status = positive(scaling, "high_freq_factor", NAN, &rope->high_freq_factor, err);
    if (!status) status = positive(scaling, "original_max_position_embeddings", NAN, &rope->original_ctx, err);
    if (!status && rope->high_freq_factor <= rope->low_freq_factor)
        return am_fail(err, AM_EFORMAT, "'high_freq_factor' %g must be above 'low_freq_factor' %g", rope->high_freq_factor,
                       rope->low_freq_factor);
    return status;
}

static am_status read_rope_scaling(am_rope_config *rope, const json_t *scaling, am_error *err) {
    static const char *const kinds[] = {[AM_ROPE_PLAIN] = "default", [AM_ROPE_LINEAR] = "linear", [AM_ROPE_LLAMA3] = "llama3"};
    if (!json_is_object(scaling)) return bad_value(AM_EFORMAT, "rope_scaling", scaling, "an object", err);
    const char *key = present(scaling, "rope_type") ? "rope_type" : "type"; /* older files say "type" */
    const json_t *type = present(scaling, key);
    if (!type) return AM_OK;
    if (!json_is_string(type)) return bad_value(AM_EFORMAT, key, type, "a string", err);
    size_t kind = 0, n_kinds = sizeof kinds / sizeof kinds[0];
    while (kind < n_kinds && strcmp(json_string_value(type), kinds[kind]) != 0) kind++;
    if (kind == n_kinds) return bad_value(AM_EUNSUPPORTED, key, type, NULL, err);
    rope->kind = (am_rope_kind)kind;
    if (rope->kind == AM_ROPE_PLAIN) return AM_OK;
    am_status status = positive(scaling, "factor", NAN, &rope->factor, err);
    return status || rope->kind != AM_ROPE_LLAMA3 ? status : read_llama3(rope, scaling, err);
}

static am_status read_rope(am_config *config, am_error *err) {
    am_rope_config *rope = &config->rope;
    *rope = (am_rope_config){.factor = 1};
    const json_t *parameters = present(config->json, "rope_parameters"), *scaling = present(config->json, "rope_scaling");
    const json_t *theta_of = parameters && present(parameters, "rope_theta") ? parameters : config->json;
    am_status status = positive(theta_of, "rope_theta", 10000.0, &rope->theta, err);
    if (!status && parameters) return read_rope_scaling(rope, parameters, err);
    return !status && scaling ? read_rope_scaling(rope, scaling, err) : status;
}

static am_status read_shape(am_config *c, am_error *err) {
    am_status status = am_config_count(c, "num_hidden_layers", 1, MAX_LAYERS, 0, &c->n_layer, err);
    if (!status) status = am_config_count(c, "vocab_size", 1, MAX_VOCAB, 0, &c->n_vocab, err);
    if (!status) status = am_config_count(c, "hidden_size", 2, MAX_EMBD, 0, &c->n_embd, err);
    if (!status) status = am_config_count(c, "intermediate_size", 2, MAX_FF, 0, &c->n_ff, err);
    if (!status) status = am_config_count(c, "num_attention_heads", 1, MAX_HEADS, 0, &c->n_head, err);
    if (!status) status = am_config_count(c, "num_key_value_heads", 1, MAX_HEADS, c->n_head, &c->n_kv_head, err);
    if (!status) status = am_config_count(c, "head_dim", 2, MAX_HEAD_DIM, c->n_embd / c->n_head, &c->head_dim, err);
    if (!status) status = am_config_count(c, "max_position_embeddings", 1, MAX_CTX, 2048, &c->n_ctx, err);
    if (status) return status;
    if (!present(c->json, "head_dim") && c->n_embd % c->n_head)
        return am_fail(err, AM_EFORMAT, "'hidden_size' %u is no multiple of 'num_attention_heads' %u", c->n_embd, c->n_head);
    if (c->n_head % c->n_kv_head)
        return am_fail(err, AM_EFORMAT, "'num_attention_heads' %u is no multiple of 'num_key_value_heads' %u", c->n_head, c->n_kv_head);
    if (c->head_dim % 16)
        return am_fail(err, AM_EUNSUPPORTED, "a head dimension of %u: only multiples of 16 are supported", c->head_dim);
    if (c->n_embd % 2 || c->n_ff % 2)
        return am_fail(err, AM_EUNSUPPORTED, "'hidden_size' %u or 'intermediate_size' %u is odd", c->n_embd, c->n_ff);
    return AM_OK;
}

/* MLX writes `quantization` (and repeats it as quantization_config); others write quantization_config with a quant_method. */
static am_status read_quant(am_config *c, am_error *err) {
    const json_t *quant = present(c->json, "quantization"), *other = present(c->json, "quantization_config");
    if (!quant && other && present(other, "quant_method"))
        return bad_value(AM_EUNSUPPORTED, "quantization_config.quant_method", present(other, "quant_method"), NULL, err);
    if (!quant) quant = other;
    if (!quant) return AM_OK;
    if (!json_is_object(quant)) return bad_value(AM_EFORMAT, "quantization", quant, "an object", err);
    c->quant = quant;
    return am_quant_entry(quant, &c->quant_bits, &c->quant_group, err);
}

am_status am_quant_entry(const json_t *entry, uint32_t *bits, uint32_t *group, am_error *err) {
    const json_t *mode = present(entry, "mode"), *b = present(entry, "bits"), *g = present(entry, "group_size");
    if (mode && (!json_is_string(mode) || strcmp(json_string_value(mode), "affine") != 0))
        return bad_value(AM_EUNSUPPORTED, "quantization.mode", mode, NULL, err);
    if (b) {
        json_int_t v = json_integer_value(b);
        if (v != 4 && v != 8) return bad_value(AM_EUNSUPPORTED, "quantization.bits", b, NULL, err);
        *bits = (uint32_t)v;
    }
    if (g) {
        json_int_t v = json_integer_value(g);
        if (v != 32 && v != 64 && v != 128) return bad_value(AM_EUNSUPPORTED, "quantization.group_size", g, NULL, err);
        *group = (uint32_t)v;
    }
    if (*bits == 0 || *group == 0) return am_fail(err, AM_EFORMAT, "'quantization' lacks bits or group_size");
    return AM_OK;
}

static am_status read_eos(am_config *c, const json_t *v, am_error *err) {
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > AM_MAX_EOS) return am_fail(err, AM_ELIMIT, "'eos_token_id' names %zu tokens, at most %d are supported", n, AM_MAX_EOS);
    c->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return bad_value(AM_EFORMAT, "eos_token_id", v, "a token id or a list of them", err);
        c->eos[c->n_eos++] = (int32_t)json_integer_value(id);
    }
    return AM_OK;
}

static float setting(const json_t *generation, const char *key) {
    const json_t *v = present(generation, key);
    double x = json_is_number(v) ? json_number_value(v) : -1;
    return isfinite(x) && x >= 0 && x < 1e6 ? (float)x : -1;
}

/* The author's sampling settings. do_sample false means greedy, whatever else is there. */
static am_status read_generation(am_config *c, const json_t *generation, am_error *err) {
    const json_t *eos = present(generation, "eos_token_id");
    if (!eos) eos = present(c->json, "eos_token_id");
    am_status status = eos ? read_eos(c, eos, err) : AM_OK;
    c->temperature = json_is_true(present(generation, "do_sample")) ? setting(generation, "temperature") : -1;
    c->top_p = setting(generation, "top_p");
    c->min_p = setting(generation, "min_p");
    c->repetition_penalty = setting(generation, "repetition_penalty");
    c->top_k = (int32_t)setting(generation, "top_k");
    return status;
}

am_status am_config_read(am_config *c, json_t *json, const json_t *generation, am_error *err) {
    *c = (am_config){.json = json_incref(json)};
    if (!json_is_object(json)) return am_fail(err, AM_EFORMAT, "not a JSON object");
    am_str type;
    am_status status = am_json_str(json, "model_type", &type, err);
    if (status) return status == AM_ENOTFOUND ? am_fail(err, AM_EFORMAT, "'model_type' is missing") : status;
    if (type.n >= sizeof c->model_type)
        return bad_value(AM_EUNSUPPORTED, "model_type", present(json, "model_type"), NULL, err);
    memcpy(c->model_type, type.p, type.n);
    double eps;
    if ((status = read_shape(c, err)) || (status = read_rope(c, err)) || (status = read_quant(c, err))) return status;
    if ((status = am_config_number(c, "rms_norm_eps", 1e-6, &eps, err))) return status;
    if (eps < 0 || eps > 1) return bad_value(AM_EFORMAT, "rms_norm_eps", present(json, "rms_norm_eps"), "from 0 to 1", err);
    c->norm_eps = (float)eps;
    if ((status = am_config_flag(c, "tie_word_embeddings", false, &c->tied, err))) return status;
    if ((status = am_config_flag(c, "attention_bias", false, &c->attention_bias, err))) return status;
    if ((status = am_config_flag(c, "mlp_bias", false, &c->mlp_bias, err))) return status;
    return read_generation(c, generation, err);
}

void am_config_free(am_config *config) {
    if (!config) return;
    json_decref(config->json);
    config->json = NULL;
}

am_status am_config_describe(const am_config *c, am_buf *out) {
    const am_rope_config *r = &c->rope;
    am_status status = am_buf_printf(out, "%s %u %u %u %u %u %u %u eps=%a", c->model_type, c->n_layer, c->n_vocab, c->n_embd, c->n_ff,
                                     c->n_head, c->n_kv_head, c->head_dim, (double)c->norm_eps);
    if (status) return status;
    return am_buf_printf(out, " rope=%d %a %a %a %a %a", (int)r->kind, r->theta, r->factor, r->low_freq_factor, r->high_freq_factor,
                         r->original_ctx);
}
