/* Owns a model's config as GGUF keys: the way back of gguf_model.c, for `convert`.
 *
 * The keys are those of llama.cpp's converter, and they mean what llama.cpp's loader takes them for. A config that asks for what has no key there and what
 * llama.cpp would compute otherwise is refused by its key. Three exceptions: what llama.cpp's own converter leaves out of released models too (Mistral's
 * window, gpt-oss's untruncated yarn range, other ranges) gets a key that only our reader knows, and a word in the log; Gemma's scale of scores and DeepSeek's of cos and
 * sin can be put into weights without changing the model (am_gguf_query_factor, convert_folder.c). */
#include "model/convert_int.h"

#include "base/log.h"
#include "model/gguf_model.h"
#include "model/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct keys {
    am_buf *buf;
    const am_model *m;
    const char *arch;
    uint64_t n;
} keys;

static bool is(const keys *k, const char *arch) { return strcmp(k->arch, arch) == 0; }
static bool is_gemma(const keys *k) { return strncmp(k->arch, "gemma", 5) == 0; }

static const char *whole(keys *k, const char *key, char out[128]) {
    snprintf(out, 128, "%s.%s", k->arch, key);
    k->n++;
    return out;
}

static void count(keys *k, const char *key, uint32_t v) {
    char name[128];
    am_gguf_put_u32(k->buf, whole(k, key, name), v);
}

static void number(keys *k, const char *key, double v) {
    char name[128];
    am_gguf_put_f32(k->buf, whole(k, key, name), (float)v);
}

static void flag(keys *k, const char *key, bool v) {
    char name[128];
    am_gguf_put_bool(k->buf, whole(k, key, name), v);
}

static void text(keys *k, const char *key, const char *v) {
    char name[128];
    am_gguf_put_text(k->buf, whole(k, key, name), am_str_of(v));
}

static am_status refuse(const keys *k, const char *key, am_error *err) {
    const json_t *v = json_object_get(k->m->config.json, key);
    return am_config_bad_value(AM_EUNSUPPORTED, key, v, "what llama.cpp takes, since GGUF has no key for it", err);
}

static bool slides(const keys *k, uint32_t i) { return k->m->layers[i].window != 0; }

/* Every how manieth layer has no window, the last of each run; 0: there is no such number. */
static uint32_t period_of(const keys *k) {
    uint32_t n = k->m->config.n_layer;
    for (uint32_t p = 2; p <= n + 1; p++) {
        bool all = true;
        for (uint32_t i = 0; all && i < n; i++) all = slides(k, i) == ((i + 1) % p != 0);
        if (all) return p;
    }
    return 0;
}

static am_status put_windows(keys *k, am_error *err) {
    uint32_t n = k->m->info.n_window_layers, period = period_of(k);
    bool everywhere = is(k, "llama") || is(k, "phi3"), known = everywhere || is_gemma(k) || is(k, "gpt-oss");
    if (is(k, "phi3")) count(k, "attention.sliding_window", k->m->info.window); /* 0 is said too */
    if (n == 0) return is(k, "gemma2") || is(k, "gpt-oss") ? refuse(k, "layer_types", err) : AM_OK;
    if (!known) return refuse(k, "use_sliding_window", err);
    if (!everywhere && (period == 0 || (is(k, "gpt-oss") && period != 2))) return refuse(k, "layer_types", err);
    if (!is(k, "phi3")) count(k, "attention.sliding_window", k->m->info.window);
    if (is_gemma(k) && period != (is(k, "gemma2") ? 2 : 6)) count(k, "attention.sliding_window_pattern", period);
    if (everywhere) am_log(AM_LOG_WARN, "llama.cpp takes no notice of this architecture's window", AM_LU("window", k->m->info.window));
    return AM_OK;
}

/* Cos and sin are scaled by what the factor implies, in llama.cpp too, and by this. */
static void put_attn_factor(keys *k, double implied) {
    double factor = (double)k->m->ropes[0].scale / implied;
    if (fabs(factor - 1) > 1e-6) number(k, "rope.scaling.attn_factor", factor);
}

static void put_yarn(keys *k) {
    const am_rope_config *rope = &k->m->config.rope;
    text(k, "rope.scaling.type", "yarn");
    number(k, "rope.scaling.factor", rope->factor);
    count(k, "rope.scaling.original_context_length", (uint32_t)rope->original_ctx);
    if (rope->beta_fast != 32) number(k, "rope.scaling.yarn_beta_fast", rope->beta_fast);
    if (rope->beta_slow != 1) number(k, "rope.scaling.yarn_beta_slow", rope->beta_slow);
    if (is(k, "deepseek2")) {
        /* without the key llama.cpp scales more than such a model does, and takes 0 for none */
        number(k, "rope.scaling.yarn_log_multiplier", rope->mscale_all_dim != 0 ? 0.1 * rope->mscale_all_dim : 1e-9);
    } else {
        put_attn_factor(k, rope->factor > 1 ? 0.1 * log(rope->factor) + 1 : 1);
    }
    if (!rope->truncate) flag(k, "rope.scaling.yarn_truncate", false);
    if (!rope->truncate || rope->beta_fast != 32 || rope->beta_slow != 1)
        am_log(AM_LOG_WARN, "llama.cpp takes 32 and 1 as yarn's range, in whole dimensions", AM_LF("beta_fast", rope->beta_fast),
               AM_LF("beta_slow", rope->beta_slow), AM_LS("truncate", rope->truncate ? "true" : "false"));
}

static am_status put_rope(keys *k, am_error *err) {
    const am_config *c = &k->m->config;
    const am_rope_config *rope = &c->rope;
    am_rope_config local;
    number(k, "rope.freq_base", rope->theta);
    count(k, "rope.dimension_count", am_rope_dims(rope, c->head_dim));
    if (is(k, "gemma3")) {
        am_status status = am_gemma_local_rope(c, &local, err);
        if (status) return status;
        if (local.kind != AM_ROPE_PLAIN) return refuse(k, "rope_parameters", err);
        number(k, "rope.freq_base_swa", local.theta);
    }
    bool fits = rope->kind == AM_ROPE_PLAIN || rope->kind == AM_ROPE_LINEAR || (rope->kind == AM_ROPE_YARN && !is_gemma(k)) ||
                (rope->kind == AM_ROPE_LONGROPE && is(k, "phi3")) || ((rope->kind == AM_ROPE_LLAMA3 || rope->kind == AM_ROPE_DIVISORS) && is(k, "llama"));
    if (!fits) return refuse(k, json_object_get(c->json, "rope_scaling") ? "rope_scaling" : "rope_parameters", err);
    if (rope->kind == AM_ROPE_LINEAR) {
        text(k, "rope.scaling.type", "linear");
        number(k, "rope.scaling.factor", rope->factor);
    }
    if (rope->kind == AM_ROPE_YARN) put_yarn(k);
    if (rope->kind == AM_ROPE_LONGROPE) put_attn_factor(k, 1);
    if (is(k, "phi3")) count(k, "rope.scaling.original_context_length", rope->kind == AM_ROPE_LONGROPE ? (uint32_t)rope->original_ctx : c->n_ctx);
    return AM_OK;
}

static am_status put_latent(keys *k, am_error *err) {
    const am_model *m = k->m;
    uint32_t dense = 0;
    while (dense < m->config.n_layer && !m->layers[dense].moe) dense++;
    for (uint32_t i = dense; i < m->config.n_layer; i++)
        if (!m->layers[i].moe) return refuse(k, "moe_layer_freq", err);
    if (m->q_lora) count(k, "attention.q_lora_rank", m->q_lora);
    count(k, "attention.kv_lora_rank", m->kv_lora);
    count(k, "attention.key_length", m->kv_lora + m->turned_dim);
    count(k, "attention.value_length", m->kv_lora);
    count(k, "attention.key_length_mla", m->nope_dim + m->turned_dim);
    count(k, "attention.value_length_mla", m->value_dim);
    count(k, "leading_dense_block_count", dense);
    count(k, "expert_shared_count", m->n_ff_shared / m->n_ff_expert);
    number(k, "expert_weights_scale", (double)m->expert_scale); /* 1 where weights are normalised: llama.cpp does both */
    flag(k, "expert_weights_norm", m->expert_normalise);
    count(k, "expert_gating_func", 1); /* softmax */
    if (m->n_expert_group) {
        count(k, "expert_group_count", m->n_expert_group);
        count(k, "expert_group_used_count", m->n_group_used);
    }
    return AM_OK;
}

static am_status put_parts(keys *k, am_error *err) {
    const am_model *m = k->m;
    am_status status = AM_OK;
    if (is(k, "deepseek2")) {
        status = put_latent(k, err);
    } else {
        count(k, "attention.key_length", m->config.head_dim);
        count(k, "attention.value_length", m->config.head_dim);
    }
    if (m->n_expert) {
        count(k, "expert_count", m->n_expert);
        count(k, "expert_used_count", m->n_expert_used);
        count(k, "expert_feed_forward_length", m->n_ff_expert);
    }
    if (m->attention_softcap != 0) number(k, "attn_logit_softcapping", (double)m->attention_softcap);
    if (m->logit_softcap != 0) number(k, "final_logit_softcapping", (double)m->logit_softcap);
    if (!status && is(k, "qwen3moe") && !m->expert_normalise) status = refuse(k, "norm_topk_prob", err);
    if (!status && is(k, "gpt-oss") && m->activation_limit != 7) status = refuse(k, "swiglu_limit", err);
    if (!status && is(k, "gpt-oss") && m->activation_alpha != 1.702f) status = refuse(k, "swiglu_alpha", err);
    for (uint32_t i = 0; !status && is(k, "smollm3") && i < m->config.n_layer; i++)
        if ((m->layers[i].rope < 0) != ((i + 1) % 4 == 0)) status = refuse(k, "no_rope_layers", err);
    return status;
}

/* The tokens that end an answer: three have a name. */
static void put_ends(keys *k) {
    static const char *const names[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    const am_model_info *i = &k->m->info;
    for (uint32_t e = 0; e < i->n_eos && e < 3; e++, k->n++) am_gguf_put_u32(k->buf, names[e], (uint32_t)i->eos[e]);
    if (i->n_eos > 3) am_log(AM_LOG_WARN, "GGUF names three tokens that end an answer", AM_LU("tokens", i->n_eos));
}

am_status am_gguf_put_model(am_buf *buf, const am_model *m, uint64_t *n, am_error *err) {
    const am_config *c = &m->config;
    keys k = {buf, m, am_gguf_arch_of(m->arch->model_type), 0};
    if (!k.arch) return am_fail(err, AM_EUNSUPPORTED, "'model_type' \"%s\" has no name in GGUF", m->arch->model_type);
    am_gguf_put_text(buf, "general.architecture", am_str_of(k.arch));
    am_gguf_put_text(buf, "general.name", am_str_of(m->info.name));
    am_gguf_put_u32(buf, "general.quantization_version", 2);
    k.n += 3;
    count(&k, "block_count", c->n_layer);
    count(&k, "context_length", c->n_ctx);
    count(&k, "embedding_length", c->n_embd);
    count(&k, "feed_forward_length", c->n_ff);
    count(&k, "attention.head_count", c->n_head);
    count(&k, "attention.head_count_kv", m->kv_lora ? 1 : c->n_kv_head);
    count(&k, "vocab_size", c->n_vocab);
    number(&k, "attention.layer_norm_rms_epsilon", (double)c->norm_eps);
    am_status status = put_parts(&k, err);
    if (!status) status = put_windows(&k, err);
    if (!status) status = put_rope(&k, err);
    put_ends(&k);
    *n += k.n;
    return status;
}

/* llama.cpp: by the head's dimension, but for the largest of each family, which it tells by its layers. */
double am_gguf_query_factor(const am_model *m) {
    const am_config *c = &m->config;
    const char *type = m->arch->model_type;
    if (strncmp(type, "gemma", 5) != 0) return 1;
    bool largest = c->n_layer == (strcmp(type, "gemma2") == 0 ? 46 : 62);
    return (double)m->attention_scale * sqrt(largest ? c->n_embd / c->n_head : c->head_dim);
}
