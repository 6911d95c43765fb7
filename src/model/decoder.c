/* Owns what the architectures have in common: loading the parts under the names that most checkpoints use, and the forward pass of all
 * those that are Llama's with other parts (biases, norms on q and k, windows, layers without rope, experts). */
#include "model/internal.h"

#include <string.h>

am_status am_decoder_refuse(const am_model *model, const am_refused_key *keys, am_error *err) {
    am_status status = AM_OK;
    for (; !status && keys->key; keys++) {
        status = am_config_refuse(&model->config, keys->key, keys->same, err);
        /* transformers 5 has it among the rope's parameters */
        if (!status && strcmp(keys->key, "partial_rotary_factor") == 0 && model->config.rope.partial != 1)
            status = am_fail(err, AM_EUNSUPPORTED, "'partial_rotary_factor' is %g, which is not supported", model->config.rope.partial);
    }
    return status;
}

am_status am_decoder_window(const am_model *model, uint32_t *window, am_error *err) {
    *window = 0;
    if (json_is_null(json_object_get(model->config.json, "sliding_window"))) return AM_OK;
    if (!json_object_get(model->config.json, "sliding_window")) return AM_OK;
    return am_config_count(&model->config, "sliding_window", 1, 1u << 30, 0, window, err);
}

am_status am_decoder_window_everywhere(const am_model *model, uint32_t i, uint32_t *window, am_error *err) {
    bool sliding;
    am_status status = am_decoder_window(model, window, err);
    if (!status && *window) status = am_config_sliding(&model->config, i, true, &sliding, err);
    if (status || !*window || sliding) return status;
    return am_config_bad_value(AM_EUNSUPPORTED, "layer_types", json_object_get(model->config.json, "layer_types"), "sliding_attention in every layer", err);
}

am_status am_decoder_optional_window(const am_model *model, uint32_t i, bool fallback, uint32_t *window, am_error *err) {
    bool used, sliding;
    *window = 0;
    am_status status = am_config_flag(&model->config, "use_sliding_window", false, &used, err);
    if (status || !used) return status;
    status = am_config_sliding(&model->config, i, fallback, &sliding, err);
    return status || !sliding ? status : am_decoder_window(model, window, err);
}

am_status am_decoder_load_norms(am_loader *l, am_layer *layer, am_error *err) {
    am_status status = am_loader_norm(l, "input_layernorm.weight", l->config->n_embd, &layer->attn_norm, err);
    return status ? status : am_loader_norm(l, "post_attention_layernorm.weight", l->config->n_embd, &layer->mlp_norm, err);
}

am_status am_decoder_load_attention(am_loader *l, am_layer *layer, bool qkv_bias, bool o_bias, am_error *err) {
    const am_config *c = l->config;
    uint32_t n = c->n_embd, n_q = c->n_head * c->head_dim, n_kv = c->n_kv_head * c->head_dim;
    am_status status = am_loader_linear(l, "self_attn.q_proj", n_q, n, qkv_bias, &layer->q, err);
    if (!status) status = am_loader_linear(l, "self_attn.k_proj", n_kv, n, qkv_bias, &layer->k, err);
    if (!status) status = am_loader_linear(l, "self_attn.v_proj", n_kv, n, qkv_bias, &layer->v, err);
    return status ? status : am_loader_linear(l, "self_attn.o_proj", n, n_q, o_bias, &layer->o, err);
}

am_status am_decoder_load_qk_norm(am_loader *l, am_layer *layer, uint32_t n_q, uint32_t n_k, am_error *err) {
    am_status status = am_loader_norm(l, "self_attn.q_norm.weight", n_q, &layer->q_norm, err);
    return status ? status : am_loader_norm(l, "self_attn.k_norm.weight", n_k, &layer->k_norm, err);
}

am_status am_decoder_load_mlp(am_loader *l, am_layer *layer, bool bias, am_error *err) {
    const am_config *c = l->config;
    am_status status = am_loader_linear(l, "mlp.gate_proj", c->n_ff, c->n_embd, bias, &layer->gate, err);
    if (!status) status = am_loader_linear(l, "mlp.up_proj", c->n_ff, c->n_embd, bias, &layer->up, err);
    return status ? status : am_loader_linear(l, "mlp.down_proj", c->n_embd, c->n_ff, bias, &layer->down, err);
}

am_status am_decoder_load(am_model *m, am_loader *l,
                          am_status (*load_layer)(am_model *model, am_loader *loader, uint32_t i, am_error *err), am_error *err) {
    const am_config *c = &m->config;
    /* one matrix for both ends is stored under either name */
    const char *embed = c->tied && am_loader_has(l, "lm_head.weight") && !am_loader_has(l, "model.embed_tokens.weight") ? "lm_head" : "model.embed_tokens";
    am_status status = am_loader_linear(l, embed, c->n_vocab, c->n_embd, false, &m->embed, err);
    for (uint32_t i = 0; !status && i < c->n_layer; i++)
        if (!(status = am_loader_prefix(l, err, "model.layers.%u.", i))) status = load_layer(m, l, i, err);
    if (!status) status = am_loader_prefix(l, err, "%s", "");
    if (!status) status = am_loader_norm(l, "model.norm.weight", c->n_embd, &m->final_norm, err);
    m->head = m->embed;
    return status || c->tied ? status : am_loader_linear(l, "lm_head", c->n_vocab, c->n_embd, false, &m->head, err);
}

void am_decoder_forward(am_pass *pass) {
    am_workspace *ws = pass->ws;
    am_op_embed(pass, ws->x);
    for (uint32_t i = 0; i < pass->model->config.n_layer; i++) {
        const am_layer *layer = &pass->model->layers[i];
        am_op_rmsnorm(pass, ws->h, ws->x, layer->attn_norm);
        am_op_attention(pass, i);
        am_op_add(pass, ws->x, ws->h);
        am_op_rmsnorm(pass, ws->h, ws->x, layer->mlp_norm);
        am_op_mlp(pass, i);
        am_op_add(pass, ws->x, ws->h);
    }
    am_op_logits(pass);
}
