/* Owns what llama.cpp's names and keys mean: each architecture's metadata becomes the config that transformers would have, and each
 * tensor gets the name it has there, so that the rest of the room knows one form of a model only.
 *
 * Where llama.cpp has no key and decides in its code (attention scales of Gemma, pattern of its windows, normalised expert weights), the same
 * decision is made here. Source: llama.cpp's gguf-py/gguf/constants.py and the converters' tensor maps. */
#include "model/gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct family {
    const char *gguf, *model_type;
} family;

/* Of several under one name the first is what such a file is read as. */
static const family families[] = {{"llama", "llama"},   {"llama", "mistral"},   {"qwen2", "qwen2"},        {"qwen3", "qwen3"},   {"qwen3moe", "qwen3_moe"},
                                  {"phi3", "phi3"},     {"gemma2", "gemma2"},   {"gemma3", "gemma3_text"}, {"gemma3", "gemma3"}, {"gpt-oss", "gpt_oss"},
                                  {"olmo2", "olmo2"},   {"smollm3", "smollm3"}, {"deepseek2", "deepseek_v2"}};

static am_status family_of(const am_gguf *g, const family **out, am_error *err) {
    am_str arch;
    am_status status = am_gguf_string(g, "general.architecture", &arch, err);
    if (status) return status == AM_ENOTFOUND ? am_fail(err, AM_EFORMAT, "key 'general.architecture' is missing") : status;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (am_str_eq(arch, am_str_of(families[i].gguf))) {
            *out = &families[i];
            return AM_OK;
        }
    return am_fail(err, AM_EUNSUPPORTED, "'general.architecture' is \"%.*s\", which is not supported", (int)(arch.n < 64 ? arch.n : 64), arch.p);
}

static bool is(const family *f, const char *gguf) { return strcmp(f->gguf, gguf) == 0; }

/* Names. */

typedef struct name_pair {
    const char *gguf, *hf;
} name_pair;

static const name_pair tops[] = {{"token_embd.weight", "model.embed_tokens.weight"}, {"output_norm.weight", "model.norm.weight"},
                                 {"output.weight", "lm_head.weight"}, {"rope_freqs.weight", ""}, {"rope_factors_long.weight", ""},
                                 {"rope_factors_short.weight", ""}};
enum { N_TOPS = sizeof tops / sizeof tops[0] };

static const name_pair layer_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_qkv", "self_attn.qkv_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"attn_sinks", "self_attn.sinks"},
};
static const name_pair expert_names[] = {{"ffn_gate_inp", "mlp.gate"},
                                           {"ffn_gate_exps", "mlp.switch_mlp.gate_proj"},
                                           {"ffn_up_exps", "mlp.switch_mlp.up_proj"},
                                           {"ffn_down_exps", "mlp.switch_mlp.down_proj"}};
static const name_pair gpt_oss_names[] = {{"ffn_gate_inp", "mlp.router"},
                                          {"ffn_gate_exps", "mlp.experts.gate_proj"},
                                          {"ffn_up_exps", "mlp.experts.up_proj"},
                                          {"ffn_down_exps", "mlp.experts.down_proj"}};

static const name_pair deepseek_names[] = {{"attn_q_a", "self_attn.q_a_proj"},
                                           {"attn_q_a_norm", "self_attn.q_a_layernorm"},
                                           {"attn_q_b", "self_attn.q_b_proj"},
                                           {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
                                           {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
                                           {"attn_kv_b", "self_attn.kv_b_proj"},
                                           {"attn_k_b", "self_attn.k_b_proj"},
                                           {"attn_v_b", "self_attn.v_b_proj"},
                                           {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
                                           {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
                                           {"ffn_down_shexp", "mlp.shared_experts.down_proj"}};

static const char *find_name(const name_pair *list, size_t n, am_str part) {
    for (size_t i = 0; i < n; i++)
        if (am_str_eq(part, am_str_of(list[i].gguf))) return list[i].hf;
    return NULL;
}

/* Ours of GGUF's name of a part of a layer; NULL: there is none. */
static const char *layer_name(const family *f, am_str part) {
    if (am_str_eq(part, AM_STR("ffn_norm"))) return strncmp(f->gguf, "gemma", 5) == 0 ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    if (is(f, "phi3") && am_str_eq(part, AM_STR("ffn_up"))) return "mlp.gate_up_proj";
    const char *name = find_name(layer_names, sizeof layer_names / sizeof layer_names[0], part);
    if (!name && (is(f, "qwen3moe") || is(f, "deepseek2"))) name = find_name(expert_names, 4, part);
    if (!name && is(f, "deepseek2")) name = find_name(deepseek_names, sizeof deepseek_names / sizeof deepseek_names[0], part);
    if (!name && is(f, "gpt-oss")) name = find_name(gpt_oss_names, 4, part);
    return name;
}

/* GGUF's of ours. */
static const char *find_gguf(const name_pair *list, size_t n, const char *hf) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].hf, hf) == 0) return list[i].gguf;
    return NULL;
}

static const char *gguf_part(const family *f, const char *hf) {
    bool gemma = strncmp(f->gguf, "gemma", 5) == 0, post_norm = gemma || is(f, "olmo2") || is(f, "gpt-oss");
    if (strcmp(hf, "pre_feedforward_layernorm") == 0) return gemma ? "ffn_norm" : NULL;
    if (strcmp(hf, "post_attention_layernorm") == 0) return post_norm ? "post_attention_norm" : "ffn_norm";
    if (is(f, "phi3") && strcmp(hf, "mlp.gate_up_proj") == 0) return "ffn_up";
    const char *name = find_gguf(layer_names, sizeof layer_names / sizeof layer_names[0], hf);
    if (!name && (is(f, "qwen3moe") || is(f, "deepseek2"))) name = find_gguf(expert_names, 4, hf);
    if (!name && is(f, "deepseek2")) name = find_gguf(deepseek_names, sizeof deepseek_names / sizeof deepseek_names[0], hf);
    if (!name && is(f, "gpt-oss")) name = find_gguf(gpt_oss_names, 4, hf);
    return name;
}

static const family *family_of_type(const char *model_type) {
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    return NULL;
}

const char *am_gguf_arch_of(const char *model_type) {
    const family *f = family_of_type(model_type);
    return f ? f->gguf : NULL;
}

bool am_gguf_name_of(const char *model_type, const char *name, char *out, size_t cap, int64_t *expert) {
    unsigned layer, e;
    int at = 0, rest = 0;
    char part[128];
    const family *f = family_of_type(model_type);
    static const char *const roots[] = {"language_model.", "model.language_model."};
    for (size_t i = 0; i < 2; i++)
        if (strncmp(name, roots[i], strlen(roots[i])) == 0) name += strlen(roots[i]);
    *expert = -1;
    if (!f) return false;
    for (size_t i = 0, n = strlen(name); i < N_TOPS; i++) /* matrices come without ".weight" */
        if (strncmp(tops[i].hf, name, n) == 0 && (tops[i].hf[n] == 0 || strcmp(tops[i].hf + n, ".weight") == 0))
            return (size_t)snprintf(out, cap, "%s", tops[i].gguf) < cap;
    if (sscanf(name, "model.layers.%u.%n", &layer, &at) != 1 || at == 0 || strlen(name + at) >= sizeof part) return false;
    strcpy(part, name + at);
    char *dot = strrchr(part, '.');
    const char *suffix = dot && strcmp(dot, ".bias") == 0 ? ".bias" : ".weight";
    if (dot && strcmp(dot, suffix) == 0) *dot = 0;
    if (sscanf(part, "mlp.experts.%u.%n", &e, &rest) == 1 && rest > 0) { /* one tensor an expert, where GGUF has a stack */
        *expert = e;
        char path[128];
        snprintf(path, sizeof path, "mlp.switch_mlp.%.100s", part + rest);
        strcpy(part, path);
    }
    const char *gguf = gguf_part(f, part);
    return gguf && (size_t)snprintf(out, cap, "blk.%u.%s%s", layer, gguf, suffix) < cap;
}

am_status am_gguf_rename(const am_gguf *g, am_str name, char *out, size_t cap, am_error *err) {
    const family *f;
    unsigned layer;
    int at = 0, n = -1;
    char text[128];
    am_status status = family_of(g, &f, err);
    if (status) return status;
    snprintf(text, sizeof text, "%.*s", (int)(name.n < 127 ? name.n : 127), name.p);
    const char *top = find_name(tops, N_TOPS, name), *dot;
    if (top) {
        n = snprintf(out, cap, "%s", top);
    } else if (sscanf(text, "blk.%5u.%n", &layer, &at) == 1 && at > 0 && (dot = strchr(text + at, '.'))) {
        am_str part = {text + at, (size_t)(dot - text - at)};
        const char *hf = layer_name(f, part);
        if (hf) n = snprintf(out, cap, "model.layers.%u.%s%s", layer, hf, strcmp(hf, "self_attn.sinks") ? dot : "");
    }
    if (n < 0 || (size_t)n >= cap) return am_fail(err, AM_EUNSUPPORTED, "tensor '%s' has no place in architecture \"%s\"", text, f->gguf);
    return AM_OK;
}

/* Metadata. */

/* A config while it is made: the first error sticks. */
typedef struct maker {
    const am_gguf *g;
    const family *f;
    json_t *json;
    am_status status;
    am_error *err;
} maker;

static void set(maker *m, json_t *object, const char *key, json_t *v) {
    if (!m->status && (!v || json_object_set_new(object, key, v))) m->status = am_fail(m->err, AM_ENOMEM, "no memory for the config");
    else if (m->status) json_decref(v);
}

static void key_of(const maker *m, const char *key, char out[128]) { snprintf(out, 128, "%s.%s", m->f->gguf, key); }

/* Whether it is there; a value of another kind is an error. */
static bool get_count(maker *m, const char *key, uint32_t *out) {
    char whole[128];
    key_of(m, key, whole);
    if (m->status || !am_gguf_get(m->g, whole)) return false;
    m->status = am_gguf_u32(m->g, whole, out, m->err);
    return !m->status;
}

static bool get_number(maker *m, const char *key, double *out) {
    char whole[128];
    key_of(m, key, whole);
    if (m->status || !am_gguf_get(m->g, whole)) return false;
    m->status = am_gguf_f64(m->g, whole, out, m->err);
    return !m->status;
}

static void put_count(maker *m, const char *gguf_key, const char *hf_key) {
    uint32_t v;
    if (get_count(m, gguf_key, &v)) set(m, m->json, hf_key, json_integer(v));
}

static void put_number(maker *m, const char *gguf_key, const char *hf_key) {
    double v;
    if (get_number(m, gguf_key, &v)) set(m, m->json, hf_key, json_real(v));
}

static void put_flag(maker *m, json_t *object, const char *gguf_key, const char *hf_key) {
    char whole[128];
    bool v;
    key_of(m, gguf_key, whole);
    if (m->status || !am_gguf_get(m->g, whole)) return;
    m->status = am_gguf_bool(m->g, whole, &v, m->err);
    if (!m->status) set(m, object, hf_key, json_boolean(v));
}

/* A small F32 tensor as a list. */
static json_t *list_of(const am_gguf_tensor *t) {
    json_t *list = json_array();
    for (uint64_t i = 0; list && i < t->n_bytes / sizeof(float); i++) {
        float v;
        memcpy(&v, t->p + i * sizeof v, sizeof v);
        if (json_array_append_new(list, json_real(v))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static bool put_factors(maker *m, json_t *rope, const char *tensor, const char *key) {
    const am_gguf_tensor *t = am_gguf_find(m->g, tensor);
    if (!t) return false;
    if (t->format->type != AM_GGML_F32 || t->n_dim != 1 || t->shape[0] > 4096)
        m->status = am_fail(m->err, AM_EFORMAT, "tensor '%s' must be a short F32 vector", tensor);
    set(m, rope, key, list_of(t));
    return true;
}

/* Yarn scales cos and sin by itself, and by attn_factor beside. */
static double implied_scale(maker *m, am_str type) {
    double factor;
    bool yarn = am_str_eq(type, AM_STR("yarn")) && get_number(m, "rope.scaling.factor", &factor) && factor > 1;
    return yarn ? 0.1 * log(factor) + 1 : 1;
}

static void make_rope(maker *m) {
    char whole[128];
    am_str type = {0};
    double v;
    uint32_t n;
    json_t *rope = json_object();
    key_of(m, "rope.scaling.type", whole);
    if (am_gguf_get(m->g, whole) && !m->status) m->status = am_gguf_string(m->g, whole, &type, m->err);
    if (type.n && !am_str_eq(type, AM_STR("none"))) set(m, rope, "rope_type", json_stringn(type.p, type.n));
    if (get_number(m, "rope.scaling.factor", &v)) set(m, rope, "factor", json_real(v));
    if (get_number(m, "rope.scaling.attn_factor", &v)) set(m, rope, "attention_factor", json_real(v * implied_scale(m, type)));
    if (get_count(m, "rope.scaling.original_context_length", &n)) set(m, rope, "original_max_position_embeddings", json_integer(n));
    if (get_number(m, "rope.scaling.yarn_beta_fast", &v)) set(m, rope, "beta_fast", json_real(v));
    if (get_number(m, "rope.scaling.yarn_beta_slow", &v)) set(m, rope, "beta_slow", json_real(v));
    put_flag(m, rope, "rope.scaling.yarn_truncate", "truncate"); /* our own writer's: llama.cpp always does */
    if (is(m->f, "phi3")) put_count(m, "rope.scaling.original_context_length", "original_max_position_embeddings"); /* it has a default there, which would win */
    if (is(m->f, "gpt-oss") && !type.n) set(m, rope, "rope_type", json_string("default")); /* and here */
    if (put_factors(m, rope, "rope_freqs.weight", "short_factor")) set(m, rope, "rope_type", json_string("divisors"));
    if (put_factors(m, rope, "rope_factors_short.weight", "short_factor")) set(m, rope, "rope_type", json_string("longrope"));
    put_factors(m, rope, "rope_factors_long.weight", "long_factor");
    set(m, m->json, "rope_scaling", rope);
}

/* DeepSeek: newer files give the dimensions of a head under _mla, since the others are the cache's there. */
static void make_latent(maker *m) {
    uint32_t turned = 0, key = 0, value = 0, gating, groups;
    double log_multiplier;
    put_count(m, "attention.head_count", "num_attention_heads");
    put_count(m, "attention.kv_lora_rank", "kv_lora_rank");
    put_count(m, "attention.q_lora_rank", "q_lora_rank");
    put_count(m, "leading_dense_block_count", "first_k_dense_replace");
    put_count(m, "rope.dimension_count", "qk_rope_head_dim");
    get_count(m, "rope.dimension_count", &turned);
    if (!get_count(m, "attention.key_length_mla", &key)) get_count(m, "attention.key_length", &key);
    if (!get_count(m, "attention.value_length_mla", &value)) get_count(m, "attention.value_length", &value);
    if (!m->status && key <= turned) m->status = am_fail(m->err, AM_EFORMAT, "'attention.key_length' %u is not above 'rope.dimension_count' %u", key, turned);
    set(m, m->json, "qk_nope_head_dim", json_integer((json_int_t)key - turned));
    set(m, m->json, "v_head_dim", json_integer(value));
    put_count(m, "expert_count", "n_routed_experts");
    put_count(m, "expert_used_count", "num_experts_per_tok");
    put_count(m, "expert_shared_count", "n_shared_experts");
    put_count(m, "expert_feed_forward_length", "moe_intermediate_size");
    put_number(m, "expert_weights_scale", "routed_scaling_factor");
    put_flag(m, m->json, "expert_weights_norm", "norm_topk_prob");
    if (get_count(m, "expert_gating_func", &gating) && gating > 1) set(m, m->json, "scoring_func", json_string("sigmoid"));
    if (get_count(m, "expert_group_count", &groups) && groups > 1) {
        set(m, m->json, "topk_method", json_string("group_limited_greedy"));
        put_count(m, "expert_group_count", "n_group");
        put_count(m, "expert_group_used_count", "topk_group");
    }
    json_t *rope = json_object_get(m->json, "rope_scaling");
    /* with the key cos and sin stay unscaled, so both mscale keys are that number; without it llama.cpp scales them, and the scores once more */
    bool told = get_number(m, "rope.scaling.yarn_log_multiplier", &log_multiplier) && log_multiplier != 0;
    if (told) set(m, rope, "mscale", json_real(10 * log_multiplier));
    set(m, rope, "mscale_all_dim", json_real(told ? 10 * log_multiplier : 1));
}

static void make_heads(maker *m) {
    uint32_t heads = 0, embd = 0, dim_k, dim_v, turned;
    put_count(m, "attention.head_count", "num_attention_heads");
    put_count(m, "attention.head_count_kv", "num_key_value_heads");
    if (!get_count(m, "attention.head_count", &heads) || !get_count(m, "embedding_length", &embd) || heads == 0) return;
    if (!get_count(m, "attention.key_length", &dim_k)) dim_k = embd / heads;
    if (get_count(m, "attention.value_length", &dim_v) && dim_v != dim_k)
        m->status = am_fail(m->err, AM_EUNSUPPORTED, "'attention.value_length' %u is not 'attention.key_length' %u", dim_v, dim_k);
    set(m, m->json, "head_dim", json_integer(dim_k));
    if (get_count(m, "rope.dimension_count", &turned) && turned != dim_k && dim_k)
        set(m, m->json, "partial_rotary_factor", json_real((double)turned / dim_k));
    uint32_t layers = 0;
    get_count(m, "block_count", &layers);
    bool largest = (is(m->f, "gemma2") && layers == 46) || (is(m->f, "gemma3") && layers == 62);
    if (is(m->f, "gemma2") || is(m->f, "gemma3"))
        set(m, m->json, "query_pre_attn_scalar", json_integer(largest ? embd / heads : dim_k));
}

/* Layers without a router have an MLP: no key says so. */
static void make_dense_layers(maker *m) {
    uint32_t layers = 0;
    char name[64];
    json_t *list = json_array();
    get_count(m, "block_count", &layers);
    for (uint32_t i = 0; list && i < layers && i < am_gguf_n_tensors(m->g); i++) {
        snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", i);
        if (!am_gguf_find(m->g, name)) json_array_append_new(list, json_integer(i));
    }
    set(m, m->json, "mlp_only_layers", list);
}

/* Which layers have the window: all but every so manieth, where the key is there, else the architecture knows. */
static void make_windows(maker *m) {
    uint32_t layers = 0, window = 0, period;
    get_count(m, "block_count", &layers);
    if (!get_count(m, "attention.sliding_window", &window) && !is(m->f, "gemma3")) return;
    if (!window && is(m->f, "gemma3")) set(m, m->json, "sliding_window_pattern", json_integer(1)); /* without the key it has none, and one rope */
    set(m, m->json, "sliding_window", window ? json_integer(window) : json_null()); /* Phi-4 has 0 */
    if (window && is(m->f, "llama")) set(m, m->json, "model_type", json_string("mistral")); /* our own writer's: llama.cpp takes no notice */
    if (!window || !get_count(m, "attention.sliding_window_pattern", &period) || period == 0) return;
    json_t *types = json_array();
    for (uint32_t i = 0; types && i < layers && i < am_gguf_n_tensors(m->g); i++)
        json_array_append_new(types, json_string((i + 1) % period ? "sliding_attention" : "full_attention"));
    set(m, m->json, "layer_types", types);
}

static void make_experts(maker *m) {
    if (is(m->f, "qwen3moe")) {
        put_count(m, "expert_count", "num_experts");
        put_count(m, "expert_used_count", "num_experts_per_tok");
        put_count(m, "expert_feed_forward_length", "moe_intermediate_size");
        set(m, m->json, "norm_topk_prob", json_true());
        make_dense_layers(m);
    } else if (is(m->f, "gpt-oss")) {
        put_count(m, "expert_count", "num_local_experts");
        put_count(m, "expert_used_count", "num_experts_per_tok");
        put_count(m, "expert_feed_forward_length", "intermediate_size");
    }
}

static void make_eos(maker *m) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    json_t *list = json_array();
    uint32_t id;
    for (size_t i = 0; list && i < 3; i++)
        if (am_gguf_get(m->g, keys[i]) && am_gguf_u32(m->g, keys[i], &id, NULL) == AM_OK) json_array_append_new(list, json_integer(id));
    set(m, m->json, "eos_token_id", list);
}

am_status am_gguf_config(const am_gguf *g, json_t **config, am_error *err) {
    static const char *const counts[][2] = {{"block_count", "num_hidden_layers"}, {"embedding_length", "hidden_size"},
                                            {"feed_forward_length", "intermediate_size"}, {"context_length", "max_position_embeddings"}};
    static const char *const numbers[][2] = {{"attention.layer_norm_rms_epsilon", "rms_norm_eps"}, {"rope.freq_base", "rope_theta"},
                                             {"rope.freq_base_swa", "rope_local_base_freq"},
                                             {"attn_logit_softcapping", "attn_logit_softcapping"},
                                             {"final_logit_softcapping", "final_logit_softcapping"}};
    maker m = {.g = g, .err = err, .json = json_object()};
    *config = NULL;
    am_status status = family_of(g, &m.f, err);
    if (status) {
        json_decref(m.json);
        return status;
    }
    const am_gguf_tensor *embd = am_gguf_find(g, "token_embd.weight");
    set(&m, m.json, "model_type", json_string(m.f->model_type));
    if (!m.status && (!embd || embd->n_dim != 2)) m.status = am_fail(err, AM_EFORMAT, "tensor 'token_embd.weight' is missing or no matrix");
    if (!m.status) set(&m, m.json, "vocab_size", json_integer((json_int_t)embd->shape[1]));
    set(&m, m.json, "tie_word_embeddings", json_boolean(!am_gguf_find(g, "output.weight")));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) put_count(&m, counts[i][0], counts[i][1]);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) put_number(&m, numbers[i][0], numbers[i][1]);
    set(&m, m.json, "attention_bias", json_boolean(am_gguf_find(g, "blk.0.attn_output.bias") != NULL));
    set(&m, m.json, "mlp_bias", json_boolean(am_gguf_find(g, "blk.0.ffn_down.bias") != NULL));
    make_rope(&m);
    if (is(m.f, "deepseek2"))
        make_latent(&m);
    else
        make_heads(&m);
    make_experts(&m);
    make_windows(&m);
    make_eos(&m);
    if (m.status)
        json_decref(m.json);
    else
        *config = m.json;
    return m.status;
}

bool am_gguf_pairs(const char *arch) { return strcmp(arch, "llama") == 0 || strcmp(arch, "smollm3") == 0; }

uint32_t am_gguf_pair_dim(const am_gguf *g, am_str name) {
    const family *f;
    uint32_t heads, embd, dim;
    static const char *const parts[] = {".attn_q.weight", ".attn_k.weight", ".attn_q.bias", ".attn_k.bias"};
    if (family_of(g, &f, NULL) || !am_gguf_pairs(f->gguf)) return 0;
    bool turned = false;
    for (size_t i = 0; i < 4; i++) {
        size_t n = strlen(parts[i]);
        turned = turned || (name.n > n && memcmp(name.p + name.n - n, parts[i], n) == 0);
    }
    if (!turned) return 0;
    maker m = {.g = g, .f = f};
    if (get_count(&m, "attention.key_length", &dim)) return dim;
    if (!get_count(&m, "attention.head_count", &heads) || !get_count(&m, "embedding_length", &embd) || heads == 0) return 0;
    return embd / heads;
}
