/* Llama 1 to 3.2 and what is built like it: RMSNorm before attention and MLP, rotary grouped-query attention, SwiGLU.
 * Sources: arXiv 2302.13971, 2307.09288, 2407.21783; transformers' modeling_llama.py. */
#include "model/internal.h"

#include <math.h>

static void forward(am_pass *pass) {
    const am_model *m = pass->model;
    am_workspace *ws = pass->ws;
    am_op_embed(pass, ws->x);
    for (uint32_t i = 0; i < m->config.n_layer; i++) {
        const am_layer *layer = &m->layers[i];
        am_op_rmsnorm(pass, ws->h, ws->x, layer->attn_norm);
        am_op_linear(pass, (am_projection[]){{ws->q, ws->h, &layer->q}, {ws->k, ws->h, &layer->k}, {ws->v, ws->h, &layer->v}}, 3);
        am_op_cache(pass, i);
        am_op_attend(pass, &(am_attention){.layer = i, .scale = 1 / sqrtf((float)m->config.head_dim)});
        am_op_linear(pass, &(am_projection){ws->h, ws->att, &layer->o}, 1);
        am_op_add(pass, ws->x, ws->h);

        am_op_rmsnorm(pass, ws->h, ws->x, layer->mlp_norm);
        am_op_linear(pass, (am_projection[]){{ws->gate, ws->h, &layer->gate}, {ws->up, ws->h, &layer->up}}, 2);
        am_op_silu_mul(pass, ws->gate, ws->up);
        am_op_linear(pass, &(am_projection){ws->h, ws->gate, &layer->down}, 1);
        am_op_add(pass, ws->x, ws->h);
    }
    am_op_logits(pass);
}

static am_status load_layer(am_loader *l, am_layer *layer, am_error *err) {
    const am_config *c = l->config;
    uint32_t n = c->n_embd, n_q = c->n_head * c->head_dim, n_kv = c->n_kv_head * c->head_dim;
    am_status status = am_loader_vector(l, "input_layernorm.weight", n, &layer->attn_norm, err);
    if (!status) status = am_loader_linear(l, "self_attn.q_proj", n_q, n, c->attention_bias, &layer->q, err);
    if (!status) status = am_loader_linear(l, "self_attn.k_proj", n_kv, n, c->attention_bias, &layer->k, err);
    if (!status) status = am_loader_linear(l, "self_attn.v_proj", n_kv, n, c->attention_bias, &layer->v, err);
    if (!status) status = am_loader_linear(l, "self_attn.o_proj", n, n_q, c->attention_bias, &layer->o, err);
    if (!status) status = am_loader_vector(l, "post_attention_layernorm.weight", n, &layer->mlp_norm, err);
    if (!status) status = am_loader_linear(l, "mlp.gate_proj", c->n_ff, n, c->mlp_bias, &layer->gate, err);
    if (!status) status = am_loader_linear(l, "mlp.up_proj", c->n_ff, n, c->mlp_bias, &layer->up, err);
    if (!status) status = am_loader_linear(l, "mlp.down_proj", n, c->n_ff, c->mlp_bias, &layer->down, err);
    return status;
}

/* Keys of a config that, set to anything else, would make another model of it. */
static am_status check_config(const am_config *c, am_error *err) {
    static const struct {
        const char *key, *same;
    } keys[] = {{"hidden_act", "\"silu\""}, {"sliding_window", NULL}, {"partial_rotary_factor", "1"}, {"no_rope_layers", NULL},
                {"attn_logit_softcapping", NULL}, {"final_logit_softcapping", NULL}, {"num_local_experts", NULL}, {"num_experts", NULL}};
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < sizeof keys / sizeof keys[0]; i++) status = am_config_refuse(c, keys[i].key, keys[i].same, err);
    return status;
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    const am_config *c = &m->config;
    am_status status = check_config(c, err);
    /* one matrix for both ends is stored under either name */
    const char *embed = c->tied && !am_loader_has(l, "model.embed_tokens") ? "lm_head" : "model.embed_tokens";
    if (!status) status = am_loader_linear(l, embed, c->n_vocab, c->n_embd, false, &m->embed, err);
    for (uint32_t i = 0; !status && i < c->n_layer; i++)
        if (!(status = am_loader_prefix(l, err, "model.layers.%u.", i))) status = load_layer(l, &m->layers[i], err);
    if (!status) status = am_loader_prefix(l, err, "model.");
    if (!status) status = am_loader_vector(l, "norm.weight", c->n_embd, &m->final_norm, err);
    if (!status) status = am_loader_prefix(l, err, "%s", "");
    am_linear head = m->embed;
    if (!status && !c->tied) status = am_loader_linear(l, "lm_head", c->n_vocab, c->n_embd, false, &head, err);
    m->head = head.w;
    return status;
}

const am_arch am_arch_llama = {"llama", load, forward};
