/* Owns the reading of config.json: which keys there are, their ranges and defaults.
 *
 * A config is input: each number has a range, products of them are checked where memory is taken, and what asks for something that is not
 * implemented is refused here by key and value, because a model that computes something else without saying so is the worst outcome.
 * Defaults are those of transformers' configuration classes. */
#include "model/config.h"

#include <math.h>
#include <stdlib.h>
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

am_status am_config_bad_value(am_status code, const char *key, const json_t *v, const char *wanted, am_error *err) {
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
        return am_config_bad_value(AM_EFORMAT, key, v, range, err);
    *out = (uint32_t)json_integer_value(v);
    return AM_OK;
}

static am_status number_of(const json_t *object, const char *key, double fallback, double *out, am_error *err) {
    const json_t *v = present(object, key);
    *out = fallback;
    if (!v) return isnan(fallback) ? am_fail(err, AM_EFORMAT, "'%s' is missing", key) : AM_OK;
    if (!json_is_number(v) || !isfinite(json_number_value(v))) return am_config_bad_value(AM_EFORMAT, key, v, "a finite number", err);
    *out = json_number_value(v);
    return AM_OK;
}

am_status am_config_number(const am_config *config, const char *key, double fallback, double *out, am_error *err) {
    return number_of(config->json, key, fallback, out, err);
}

am_status am_config_flag(const am_config *config, const char *key, bool fallback, bool *out, am_error *err) {
    const json_t *v = present(config->json, key);
    *out = v ? json_is_true(v) : fallback;
    return v && !json_is_boolean(v) ? am_config_bad_value(AM_EFORMAT, key, v, "true or false", err) : AM_OK;
}

am_status am_config_refuse(const am_config *config, const char *key, const char *same, am_error *err) {
    const json_t *v = present(config->json, key);
    if (!v || json_is_false(v)) return AM_OK;
    json_t *wanted = same ? json_loads(same, JSON_DECODE_ANY, NULL) : NULL;
    bool equal = wanted && (json_equal(v, wanted) || (json_is_number(v) && json_is_number(wanted) &&
                                                      json_number_value(v) == json_number_value(wanted)));
    json_decref(wanted);
    return equal ? AM_OK : am_config_bad_value(AM_EUNSUPPORTED, key, v, NULL, err);
}

static am_status positive(const json_t *object, const char *key, double fallback, double *out, am_error *err) {
    am_status status = number_of(object, key, fallback, out, err);
    if (status) return status;
    return *out > 0 && *out <= 1e12 ? AM_OK : am_config_bad_value(AM_EFORMAT, key, present(object, key), "above 0 and at most 1e12", err);
}

static am_status read_llama3(am_rope_config *rope, const json_t *scaling, am_error *err) {
    am_status status = positive(scaling, "low_freq_factor", NAN, &rope->low_freq_factor, err);
    if (!status) status = positive(scaling, "high_freq_factor", NAN, &rope->high_freq_factor, err);
    if (!status && rope->high_freq_factor <= rope->low_freq_factor)
        return am_fail(err, AM_EFORMAT, "'high_freq_factor' %g must be above 'low_freq_factor' %g", rope->high_freq_factor,
                       rope->low_freq_factor);
    return status;
}

static am_status read_yarn(am_rope_config *rope, const json_t *scaling, am_error *err) {
    const json_t *truncate = present(scaling, "truncate");
    if (truncate && !json_is_boolean(truncate)) return am_config_bad_value(AM_EFORMAT, "truncate", truncate, "true or false", err);
    rope->truncate = !json_is_false(truncate); /* absent means true */
    am_status status = positive(scaling, "beta_fast", 32, &rope->beta_fast, err);
    if (!status) status = positive(scaling, "beta_slow", 1, &rope->beta_slow, err);
    if (!status) status = number_of(scaling, "mscale", 0, &rope->mscale, err);
    if (!status) status = number_of(scaling, "mscale_all_dim", 0, &rope->mscale_all_dim, err);
    return status;
}

static am_status read_factors(const json_t *scaling, const char *key, size_t n, const json_t **out, am_error *err) {
    const json_t *list = present(scaling, key);
    if (!json_is_array(list) || json_array_size(list) != n)
        return am_fail(err, AM_EFORMAT, "'%s' must be a list of %zu numbers", key, n);
    for (size_t i = 0; i < n; i++)
        if (!(json_number_value(json_array_get(list, i)) > 0)) return am_config_bad_value(AM_EFORMAT, key, list, "numbers above 0", err);
    *out = list;
    return AM_OK;
}

static am_status read_longrope(const am_config *config, am_rope_config *rope, const json_t *scaling, am_error *err) {
    size_t n = am_rope_dims(rope, config->head_dim) / 2;
    am_status status = read_factors(scaling, "short_factor", n, &rope->short_factor, err);
    return status ? status : read_factors(scaling, "long_factor", n, &rope->long_factor, err);
}

/* Phi-3's first configs call longrope by other names. */
static bool is_longrope(const am_config *c, const json_t *scaling, const char *type) {
    return strcmp(c->model_type, "phi3") == 0 && present(scaling, "short_factor") && (strcmp(type, "su") == 0 || strcmp(type, "yarn") == 0);
}

static am_status read_kind(const am_config *c, const json_t *scaling, am_rope_kind *out, am_error *err) {
    static const char *const kinds[] = {[AM_ROPE_PLAIN] = "default", [AM_ROPE_LINEAR] = "linear", [AM_ROPE_LLAMA3] = "llama3",
                                        [AM_ROPE_YARN] = "yarn", [AM_ROPE_LONGROPE] = "longrope", [AM_ROPE_DIVISORS] = "divisors"};
    const char *key = present(scaling, "rope_type") ? "rope_type" : "type"; /* older files say "type" */
    const json_t *type = present(scaling, key);
    *out = AM_ROPE_PLAIN;
    if (!type) return AM_OK;
    if (!json_is_string(type)) return am_config_bad_value(AM_EFORMAT, key, type, "a string", err);
    const char *name = is_longrope(c, scaling, json_string_value(type)) ? kinds[AM_ROPE_LONGROPE] : json_string_value(type);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(name, kinds[i]) == 0) {
            *out = (am_rope_kind)i;
            return AM_OK;
        }
    return am_config_bad_value(AM_EUNSUPPORTED, key, type, NULL, err);
}

uint32_t am_rope_dims(const am_rope_config *rope, uint32_t head_dim) { return (uint32_t)(head_dim * rope->partial); }

am_status am_config_rope(const am_config *c, const json_t *scaling, double theta, am_rope_config *rope, am_error *err) {
    *rope = (am_rope_config){.factor = 1, .theta = theta};
    if (scaling && !json_is_object(scaling)) return am_config_bad_value(AM_EFORMAT, "rope_scaling", scaling, "an object", err);
    const json_t *partial_of = present(scaling, "partial_rotary_factor") ? scaling : c->json;
    am_status status = positive(partial_of, "partial_rotary_factor", 1, &rope->partial, err);
    if (!status) status = positive(present(scaling, "rope_theta") ? scaling : NULL, "rope_theta", theta, &rope->theta, err);
    if (!status) status = read_kind(c, scaling, &rope->kind, err);
    if (status) return status;
    if (rope->partial > 1 || am_rope_dims(rope, c->head_dim) % 2 || am_rope_dims(rope, c->head_dim) == 0)
        return am_fail(err, AM_EUNSUPPORTED, "'partial_rotary_factor' %g of a head dimension of %u", rope->partial, c->head_dim);
    if (rope->kind == AM_ROPE_PLAIN) return AM_OK;
    if (rope->kind == AM_ROPE_DIVISORS) /* how GGUF files hold llama3's scaling */
        return read_factors(scaling, "short_factor", am_rope_dims(rope, c->head_dim) / 2, &rope->short_factor, err);
    const json_t *original_of = present(c->json, "original_max_position_embeddings") ? c->json : scaling; /* transformers lets the outer one win */
    status = positive(original_of, "original_max_position_embeddings", c->n_ctx, &rope->original_ctx, err);
    double implied = rope->kind == AM_ROPE_LONGROPE ? c->n_ctx / rope->original_ctx : NAN;
    if (!status) status = positive(scaling, "factor", implied, &rope->factor, err);
    bool scaled = rope->kind == AM_ROPE_YARN || rope->kind == AM_ROPE_LONGROPE; /* the others take no notice of an attention_factor */
    if (!status && scaled && present(scaling, "attention_factor")) status = positive(scaling, "attention_factor", 1, &rope->attention_factor, err);
    if (!status && rope->kind == AM_ROPE_LLAMA3) status = read_llama3(rope, scaling, err);
    if (!status && rope->kind == AM_ROPE_YARN) status = read_yarn(rope, scaling, err);
    if (!status && rope->kind == AM_ROPE_LONGROPE) status = read_longrope(c, rope, scaling, err);
    return status;
}

/* The model's one rope, or the one of its full layers where rope_parameters holds several by layer kind. The older key wins where both are there. */
static am_status read_rope(am_config *c, am_error *err) {
    const json_t *scaling = present(c->json, "rope_scaling");
    if (!scaling || (json_is_object(scaling) && json_object_size(scaling) == 0)) scaling = present(c->json, "rope_parameters");
    if (present(scaling, "full_attention")) scaling = present(scaling, "full_attention");
    double theta;
    am_status status = positive(c->json, "rope_theta", 10000.0, &theta, err);
    return status ? status : am_config_rope(c, scaling, theta, &c->rope, err);
}

am_status am_config_sliding(const am_config *c, uint32_t i, bool fallback, bool *out, am_error *err) {
    const json_t *types = present(c->json, "layer_types"), *type = json_array_get(types, i);
    *out = fallback;
    if (!types) return AM_OK;
    if (json_array_size(types) != c->n_layer || !json_is_string(type))
        return am_fail(err, AM_EFORMAT, "'layer_types' must be a list of %u strings", c->n_layer);
    *out = strcmp(json_string_value(type), "sliding_attention") == 0;
    if (*out || strcmp(json_string_value(type), "full_attention") == 0) return AM_OK;
    return am_config_bad_value(AM_EUNSUPPORTED, "layer_types", type, NULL, err);
}

static am_status read_shape(am_config *c, am_error *err) {
    am_status status = am_config_count(c, "num_hidden_layers", 1, MAX_LAYERS, 0, &c->n_layer, err);
    if (!status) status = am_config_count(c, "vocab_size", 1, MAX_VOCAB, 0, &c->n_vocab, err);
    if (!status) status = am_config_count(c, "hidden_size", 2, MAX_EMBD, 0, &c->n_embd, err);
    if (!status) status = am_config_count(c, "intermediate_size", 2, MAX_FF, 0, &c->n_ff, err);
    if (!status) status = am_config_count(c, "num_attention_heads", 1, MAX_HEADS, 0, &c->n_head, err);
    if (!status) status = am_config_count(c, "num_key_value_heads", 1, MAX_HEADS, c->n_head, &c->n_kv_head, err);
    bool latent = present(c->json, "kv_lora_rank"); /* then what counts as a head here is the part that rope turns */
    const char *dim_key = latent ? "qk_rope_head_dim" : "head_dim";
    if (!status) status = am_config_count(c, dim_key, 2, MAX_HEAD_DIM, latent ? 0 : c->n_embd / c->n_head, &c->head_dim, err);
    if (!status) status = am_config_count(c, "max_position_embeddings", 1, MAX_CTX, 2048, &c->n_ctx, err);
    if (status) return status;
    if (!present(c->json, dim_key) && c->n_embd % c->n_head)
        return am_fail(err, AM_EFORMAT, "'hidden_size' %u is no multiple of 'num_attention_heads' %u", c->n_embd, c->n_head);
    if (c->n_head % c->n_kv_head)
        return am_fail(err, AM_EFORMAT, "'num_attention_heads' %u is no multiple of 'num_key_value_heads' %u", c->n_head, c->n_kv_head);
    if (c->head_dim % 2) return am_fail(err, AM_EUNSUPPORTED, "'%s' %u: only even ones are supported", dim_key, c->head_dim);
    if (c->n_embd % 2 || c->n_ff % 2)
        return am_fail(err, AM_EUNSUPPORTED, "'hidden_size' %u or 'intermediate_size' %u is odd", c->n_embd, c->n_ff);
    return AM_OK;
}

am_status am_quant_read(const json_t *entry, am_quant *quant, am_error *err) {
    const json_t *mode = present(entry, "mode"), *bits = present(entry, "bits"), *group = present(entry, "group_size");
    const char *name = mode ? json_string_value(mode) : "affine";
    quant->mxfp4 = name && strcmp(name, "mxfp4") == 0;
    if (!quant->mxfp4 && (!name || strcmp(name, "affine") != 0)) return am_config_bad_value(AM_EUNSUPPORTED, "quantization.mode", mode, NULL, err);
    if (bits) {
        json_int_t v = json_integer_value(bits);
        if ((quant->mxfp4 && v != 4) || v < 2 || v > 8 || v == 7) return am_config_bad_value(AM_EUNSUPPORTED, "quantization.bits", bits, NULL, err);
        quant->bits = (uint32_t)v;
    }
    if (group) {
        json_int_t v = json_integer_value(group);
        if (v != 32 && (quant->mxfp4 || (v != 64 && v != 128)))
            return am_config_bad_value(AM_EUNSUPPORTED, "quantization.group_size", group, NULL, err);
        quant->group = (uint32_t)v;
    }
    if (quant->bits == 0 || quant->group == 0) return am_fail(err, AM_EFORMAT, "'quantization' lacks bits or group_size");
    return AM_OK;
}

/* MLX writes `quantization` (and repeats it as quantization_config); others write quantization_config with a quant_method. That of MXFP4 says
 * nothing that the tensors' names do not say. */
static am_status read_quant(am_config *c, const json_t *quant, am_error *err) {
    if (!quant) return AM_OK;
    if (!json_is_object(quant)) return am_config_bad_value(AM_EFORMAT, "quantization", quant, "an object", err);
    const json_t *method = present(quant, "quant_method");
    if (method && json_is_string(method) && strcmp(json_string_value(method), "mxfp4") == 0) return AM_OK;
    if (method) return am_scheme_read(quant, &c->scheme, err);
    c->quant_json = quant;
    return am_quant_read(quant, &c->quant, err);
}

static am_status read_eos(am_config *c, const json_t *v, am_error *err) {
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > AM_MAX_EOS) return am_fail(err, AM_ELIMIT, "'eos_token_id' names %zu tokens, at most %d are supported", n, AM_MAX_EOS);
    c->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return am_config_bad_value(AM_EFORMAT, "eos_token_id", v, "a token id or a list of them", err);
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

am_status am_config_read(am_config *c, json_t *json, const json_t *quant, const json_t *generation, am_error *err) {
    *c = (am_config){.json = json_incref(json)};
    if (!json_is_object(json)) return am_fail(err, AM_EFORMAT, "not a JSON object");
    am_str type;
    am_status status = am_json_str(json, "model_type", &type, err);
    if (status) return status == AM_ENOTFOUND ? am_fail(err, AM_EFORMAT, "'model_type' is missing") : status;
    if (type.n >= sizeof c->model_type)
        return am_config_bad_value(AM_EUNSUPPORTED, "model_type", present(json, "model_type"), NULL, err);
    memcpy(c->model_type, type.p, type.n);
    double eps;
    if ((status = read_shape(c, err)) || (status = read_rope(c, err)) || (status = read_quant(c, quant, err))) return status;
    if ((status = am_config_number(c, "rms_norm_eps", 1e-6, &eps, err))) return status;
    if (eps < 0 || eps > 1) return am_config_bad_value(AM_EFORMAT, "rms_norm_eps", present(json, "rms_norm_eps"), "from 0 to 1", err);
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
    static const char *const idle[] = {"architectures", "attention_dropout", "bos_token_id", "dtype", "embd_pdrop", "eos_token_id",
                                       "initializer_range", "pad_token_id", "resid_pdrop", "torch_dtype",
                                       "transformers_version", "use_cache", "_name_or_path"};
    json_t *copy = json_copy(c->json);
    if (!copy) return AM_ENOMEM;
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++) json_object_del(copy, idle[i]);
    /* longrope's frequencies follow the context that is served */
    bool longer = c->rope.kind == AM_ROPE_LONGROPE && c->n_ctx_served > c->rope.original_ctx;
    am_status status = am_buf_add(out, longer ? AM_STR("long ") : AM_STR(""));
    char *text = status ? NULL : json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
    if (!status) status = text ? am_buf_add(out, am_str_of(text)) : AM_ENOMEM;
    free(text);
    json_decref(copy);
    return status;
}
