/* DeepSeek-V2 and V2-Lite: multi-head latent attention, shared and routed experts.
 *
 * Attention runs in its absorbed form: instead of expanding a cached latent vector c into keys and values of every head, each head's
 * query goes through its own K projection backwards (q_nope Wk, as long as c), scores are taken against c and the one turned part that
 * all heads share, and the sum over c goes through the head's V projection. So the cache is that of one KV head whose
 * key is c and the turned part, and whose value is c, in the key and nowhere else. The result is that of expanded heads but for rounding.
 *
 * Sources: arXiv 2405.04434; transformers' modeling_deepseek_v2.py. Rope turns neighbours (2i, 2i+1) as stored; the rows of both sides are
 * taken apart into halves at load, which leaves the scores as they are. The latent norms have an epsilon of their own. */
#include "model/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float latent_eps = 1e-6f;

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"mlp_bias", NULL}, {"partial_rotary_factor", "1"},
                                         {"scoring_func", "\"softmax\""}, {NULL, NULL}};

static void norm_q_rows(const am_row_job *job, size_t r0, size_t r1) {
    for (size_t r = r0; r < r1; r++)
        job->pass->kernels->rmsnorm(job->y + r * job->n, job->y + r * job->n, job->weight, job->n, latent_eps);
}

/* A key, or a query, has the latent part first and then the turned one, each with zeros up to the width it has in the cache. */
static void put_turned(const am_model *m, float *key, const float *turned) {
    size_t latent = m->kv_lora, at = m->cache_dim_v, end = at + m->turned_dim;
    memset(key + latent, 0, (at - latent) * sizeof *key);
    memcpy(key + at, turned, m->turned_dim * sizeof *key);
    memset(key + end, 0, (m->cache_dim_k - end) * sizeof *key);
}

/* From latent_kv: the normed latent, which is also the value, and the turned part behind it as key; and each head's turned part into its query. */
static void split_rows(const am_row_job *job, size_t r0, size_t r1) {
    const am_model *m = job->pass->model;
    const am_workspace *ws = job->pass->ws;
    size_t latent = m->kv_lora, turned = m->turned_dim, nope = m->nope_dim, n_head = m->config.n_head;
    for (size_t r = r0; r < r1; r++) {
        const float *from = ws->latent_kv + r * (latent + turned);
        float *k = ws->k + r * m->cache_dim_k;
        job->pass->kernels->rmsnorm(k, from, job->weight, latent, latent_eps);
        put_turned(m, k, from + latent);
        for (size_t h = 0; h < n_head; h++) put_turned(m, ws->q + (r * n_head + h) * m->cache_dim_k, ws->heads + (r * n_head + h) * (nope + turned) + nope);
    }
}

void am_op_mla(am_pass *pass, uint32_t i) {
    const am_model *m = pass->model;
    const am_layer *layer = &m->layers[i];
    const am_mla *mla = layer->mla;
    am_workspace *ws = pass->ws;
    size_t n = pass->n_rows, n_head = m->config.n_head, latent = m->cache_dim_v, key = m->cache_dim_k, query = m->nope_dim + m->turned_dim;
    const float *q_in = ws->h;
    if (mla->q_a_norm) {
        am_op_linear(pass, &(am_projection){ws->latent_q, ws->h, &mla->q_a, n, 0, 0}, 1);
        am_pass_rows(&(am_row_job){pass, norm_q_rows, ws->latent_q, NULL, mla->q_a_norm, m->q_lora, n});
        q_in = ws->latent_q;
    }
    am_op_linear(pass, (am_projection[]){{ws->heads, q_in, &mla->q_b, n, 0, 0}, {ws->latent_kv, ws->h, &mla->kv_a, n, 0, 0}}, 2);
    am_pass_rows(&(am_row_job){.pass = pass, .rows = split_rows, .weight = mla->kv_a_norm, .n_rows = n});
    for (size_t h = 0; h < n_head; h++)
        ws->projections[h] = (am_projection){ws->q + h * key, ws->heads + h * query, &mla->k_b[h], n, n_head * key, n_head * query};
    am_op_linear(pass, ws->projections, n_head);
    am_op_cache(pass, i);
    am_op_attend(pass, i);
    n = pass->n_rows;
    for (size_t h = 0; h < n_head; h++)
        ws->projections[h] = (am_projection){ws->heads + h * m->value_dim, ws->att + h * latent, &mla->v_b[h], n, n_head * m->value_dim,
                                             n_head * latent};
    am_op_linear(pass, ws->projections, n_head);
    am_op_linear(pass, &(am_projection){ws->h, ws->heads, &layer->o, n, 0, 0}, 1);
}

/* kv_b as released: per head nope_dim rows of K, then value_dim rows of V, each as long as the latent. K is needed the other way round. */
static am_status load_kv_b(const am_model *m, am_loader *l, am_mla *mla, am_error *err) {
    uint32_t n_head = m->config.n_head, rows = m->nope_dim + m->value_dim;
    uint64_t n_params = l->n_params, packed_bytes = l->packed_bytes;
    am_blobs *kept = l->blobs, passing = {0};
    am_linear whole;
    l->blobs = &passing;
    l->passing = true;
    am_status status = am_loader_linear(l, "self_attn.kv_b_proj", n_head * rows, m->kv_lora, false, &whole, err);
    l->blobs = kept;
    l->passing = false;
    l->packed_bytes = packed_bytes;
    for (uint32_t h = 0; !status && h < n_head; h++) {
        status = am_loader_turn(l, &whole.w, h * rows, m->nope_dim, &mla->k_b[h], err);
        am_matrix v = {"self_attn.kv_b_proj", .n_out = m->value_dim, .n_in = m->kv_lora, .first = h * rows + m->nope_dim, .of = n_head * rows};
        if (!status) status = am_loader_matrix(l, &v, &mla->v_b[h], err);
    }
    am_blobs_free(&passing);
    l->n_params = n_params + (uint64_t)n_head * rows * m->kv_lora;
    return status;
}

/* Newer GGUF files hold both halves of kv_b apart, K the way it is needed. */
static am_status load_split_kv_b(const am_model *m, am_loader *l, am_mla *mla, am_error *err) {
    am_status status = AM_OK;
    for (uint32_t h = 0; !status && h < m->config.n_head; h++) {
        am_matrix k = {"self_attn.k_b_proj", .n_out = m->kv_lora, .n_in = m->nope_dim, .expert = h, .n_expert = m->config.n_head};
        am_matrix v = {"self_attn.v_b_proj", .n_out = m->value_dim, .n_in = m->kv_lora, .expert = h, .n_expert = m->config.n_head};
        status = am_loader_matrix(l, &k, &mla->k_b[h], err);
        if (!status) status = am_loader_matrix(l, &v, &mla->v_b[h], err);
    }
    return status;
}

static am_status load_attention(const am_model *m, am_loader *l, am_layer *layer, am_error *err) {
    uint32_t n = m->config.n_embd, n_head = m->config.n_head, query = m->nope_dim + m->turned_dim, key = m->kv_lora + m->turned_dim;
    am_mla *mla = am_loader_alloc(l, sizeof *mla, err);
    am_linear *parts = mla ? am_loader_alloc(l, 2 * (size_t)n_head * sizeof *parts, err) : NULL;
    if (!parts) return AM_ENOMEM;
    layer->mla = mla;
    mla->k_b = parts;
    mla->v_b = parts + n_head;
    am_matrix q = {m->q_lora ? "self_attn.q_b_proj" : "self_attn.q_proj", .n_out = n_head * query, .n_in = m->q_lora ? m->q_lora : n,
                   .head = query, .turned = m->turned_dim};
    bool bias = m->config.attention_bias; /* on what comes from and goes to the residual stream alone, but for q without LoRA */
    am_matrix kv = {"self_attn.kv_a_proj_with_mqa", .n_out = key, .n_in = n, .bias = bias, .head = key, .turned = m->turned_dim};
    am_status status = am_loader_matrix(l, &q, &mla->q_b, err);
    if (!status && m->q_lora) status = am_loader_linear(l, "self_attn.q_a_proj", m->q_lora, n, bias, &mla->q_a, err);
    if (!status && m->q_lora) status = am_loader_norm(l, "self_attn.q_a_layernorm.weight", m->q_lora, &mla->q_a_norm, err);
    if (!status) status = am_loader_matrix(l, &kv, &mla->kv_a, err);
    if (!status) status = am_loader_norm(l, "self_attn.kv_a_layernorm.weight", m->kv_lora, &mla->kv_a_norm, err);
    if (!status) status = am_loader_has(l, "self_attn.k_b_proj.weight") ? load_split_kv_b(m, l, mla, err) : load_kv_b(m, l, mla, err);
    return status ? status : am_loader_linear(l, "self_attn.o_proj", n, n_head * m->value_dim, bias, &layer->o, err);
}

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    uint32_t n_dense, step;
    am_status status = am_config_count(&m->config, "first_k_dense_replace", 0, 1u << 20, 0, &n_dense, err);
    if (!status) status = am_config_count(&m->config, "moe_layer_freq", 1, 1u << 20, 1, &step, err);
    if (!status) status = am_decoder_load_norms(l, layer, err);
    if (!status) status = load_attention(m, l, layer, err);
    if (status) return status;
    return i >= n_dense && i % step == 0 ? am_moe_load(m, l, layer, err) : am_decoder_load_mlp(l, layer, false, err);
}

static am_status configure_attention(am_model *m, am_error *err) {
    const am_rope_config *rope = &m->config.rope;
    const am_config *c = &m->config;
    am_status status = am_config_count(c, "kv_lora_rank", 2, 4000, 0, &m->kv_lora, err);
    if (!status) status = am_config_count(c, "q_lora_rank", 0, 1u << 16, 0, &m->q_lora, err);
    if (!status) status = am_config_count(c, "qk_nope_head_dim", 2, 1024, 0, &m->nope_dim, err);
    if (!status) status = am_config_count(c, "v_head_dim", 2, 1024, 0, &m->value_dim, err);
    if (status) return status;
    if (m->nope_dim % 2 || m->q_lora % 2 || m->value_dim % 2 || m->kv_lora % 2)
        return am_fail(err, AM_EUNSUPPORTED, "an odd 'qk_nope_head_dim' %u, 'q_lora_rank' %u, 'kv_lora_rank' %u or 'v_head_dim' %u", m->nope_dim, m->q_lora,
                       m->kv_lora, m->value_dim);
    m->turned_dim = c->head_dim;
    m->cache_heads = 1;
    m->cache_dim_v = am_cache_wide(m->kv_lora);
    m->cache_dim_k = m->cache_dim_v + am_cache_wide(m->turned_dim);
    m->ropes[0].first = m->cache_dim_v;
    double sharpen = rope->kind == AM_ROPE_YARN && rope->mscale_all_dim != 0 && rope->factor > 1
                         ? 0.1 * rope->mscale_all_dim * log(rope->factor) + 1
                         : 1;
    m->attention_scale = (float)(sharpen * sharpen / sqrt(m->nope_dim + m->turned_dim));
    return AM_OK;
}

static am_status configure_experts(am_model *m, bool gguf, am_error *err) {
    am_str method = AM_STR("greedy");
    uint32_t n_shared;
    double scale;
    am_status status = am_moe_configure(m, "n_routed_experts", "moe_intermediate_size", err);
    if (!status) status = am_config_count(&m->config, "n_shared_experts", 0, 1024, 0, &n_shared, err);
    if (!status) status = am_config_flag(&m->config, "norm_topk_prob", false, &m->expert_normalise, err);
    if (!status) status = am_config_number(&m->config, "routed_scaling_factor", 1, &scale, err);
    if (!status && (status = am_json_str(m->config.json, "topk_method", &method, err)) == AM_ENOTFOUND) status = AM_OK;
    if (status) return status;
    m->n_ff_shared = n_shared * m->n_ff_expert;
    /* DeepSeek's code scales only weights that were not normalised; llama.cpp does both */
    m->expert_scale = m->expert_normalise && !gguf ? 1 : (float)scale;
    if (am_str_eq(method, AM_STR("greedy"))) return AM_OK;
    if (!am_str_eq(method, AM_STR("group_limited_greedy"))) return am_config_refuse(&m->config, "topk_method", "\"greedy\"", err);
    status = am_config_count(&m->config, "n_group", 1, m->n_expert, 1, &m->n_expert_group, err);
    if (!status) status = am_config_count(&m->config, "topk_group", 1, m->n_expert_group, 1, &m->n_group_used, err);
    if (!status && (m->n_expert % m->n_expert_group || m->n_expert / m->n_expert_group * m->n_group_used < m->n_expert_used))
        return am_fail(err, AM_EFORMAT, "'n_group' %u and 'topk_group' %u do not fit %u of %u experts", m->n_expert_group, m->n_group_used,
                       m->n_expert_used, m->n_expert);
    return status;
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    if (!status) status = configure_attention(m, err);
    if (!status) status = configure_experts(m, l->gguf, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_deepseek_v2 = {"deepseek_v2", NULL, "{\"n_shared_experts\":2}", load, am_decoder_forward};
