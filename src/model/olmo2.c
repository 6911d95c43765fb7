/* OLMo 2: no norm before attention and MLP, norms on what comes out of them; q and k normalised over all heads together, before rope.
 * Sources: arXiv 2501.00656; transformers' modeling_olmo2.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"sliding_window", NULL}, {"partial_rotary_factor", "1"}, {NULL, NULL}};

static void forward(am_pass *pass) {
    am_workspace *ws = pass->ws;
    am_op_embed(pass, ws->x);
    for (uint32_t i = 0; i < pass->model->config.n_layer; i++) {
        const am_layer *layer = &pass->model->layers[i];
        am_op_copy(pass, ws->h, ws->x);
        am_op_attention(pass, i);
        am_op_rmsnorm(pass, ws->h, ws->h, layer->attn_post_norm);
        am_op_add(pass, ws->x, ws->h);
        am_op_copy(pass, ws->h, ws->x);
        am_op_mlp(pass, i);
        am_op_rmsnorm(pass, ws->h, ws->h, layer->mlp_post_norm);
        am_op_add(pass, ws->x, ws->h);
    }
    am_op_logits(pass);
}

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    const am_config *c = &m->config;
    am_layer *layer = &m->layers[i];
    am_status status = am_decoder_load_attention(l, layer, c->attention_bias, c->attention_bias, err);
    if (!status) status = am_decoder_load_qk_norm(l, layer, c->n_head * c->head_dim, c->n_kv_head * c->head_dim, err);
    if (!status) status = am_loader_norm(l, "post_attention_layernorm.weight", c->n_embd, &layer->attn_post_norm, err);
    if (!status) status = am_loader_norm(l, "post_feedforward_layernorm.weight", c->n_embd, &layer->mlp_post_norm, err);
    return status ? status : am_decoder_load_mlp(l, layer, false, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    m->qk_norm_all_heads = true;
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_olmo2 = {"olmo2", NULL, "{\"rms_norm_eps\":1e-5}", load, forward};
