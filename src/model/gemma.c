/* Gemma 2 and 3: norms before and after attention and MLP that multiply by 1 + w, scaled embeddings, gelu, windows on some layers; Gemma 2
 * caps scores and logits softly, Gemma 3 normalises q and k and gives local layers a rope of their own, never scaled.
 * Sources: arXiv 2408.00118, 2503.19786; transformers' modeling_gemma2.py, modeling_gemma3.py. */
#include "model/internal.h"

#include <math.h>

static const am_refused_key refused[] = {{"hidden_activation", "\"gelu_pytorch_tanh\""},
                                         {"partial_rotary_factor", "1"}, {"use_bidirectional_attention", NULL}, {NULL, NULL}};

static void forward(am_pass *pass) {
    am_workspace *ws = pass->ws;
    am_op_embed(pass, ws->x);
    for (uint32_t i = 0; i < pass->model->config.n_layer; i++) {
        const am_layer *layer = &pass->model->layers[i];
        am_op_rmsnorm(pass, ws->h, ws->x, layer->attn_norm);
        am_op_attention(pass, i);
        am_op_rmsnorm(pass, ws->h, ws->h, layer->attn_post_norm);
        am_op_add(pass, ws->x, ws->h);
        am_op_rmsnorm(pass, ws->h, ws->x, layer->mlp_norm);
        am_op_mlp(pass, i);
        am_op_rmsnorm(pass, ws->h, ws->h, layer->mlp_post_norm);
        am_op_add(pass, ws->x, ws->h);
    }
    am_op_logits(pass);
}

static am_status load_parts(am_loader *l, am_layer *layer, am_error *err) {
    uint32_t n = l->config->n_embd;
    am_status status = am_loader_norm(l, "input_layernorm.weight", n, &layer->attn_norm, err);
    if (!status) status = am_loader_norm(l, "post_attention_layernorm.weight", n, &layer->attn_post_norm, err);
    if (!status) status = am_loader_norm(l, "pre_feedforward_layernorm.weight", n, &layer->mlp_norm, err);
    if (!status) status = am_loader_norm(l, "post_feedforward_layernorm.weight", n, &layer->mlp_post_norm, err);
    if (!status) status = am_decoder_load_attention(l, layer, l->config->attention_bias, l->config->attention_bias, err);
    return status ? status : am_decoder_load_mlp(l, layer, false, err);
}

static am_status load_gemma2_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    bool sliding;
    am_status status = am_config_sliding(&m->config, i, i % 2 == 0, &sliding, err);
    if (!status && sliding) status = am_decoder_window(m, &layer->window, err);
    return status ? status : load_parts(l, layer, err);
}

static am_status load_gemma3_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    uint32_t pattern;
    bool sliding;
    am_status status = am_config_count(&m->config, "sliding_window_pattern", 1, 1u << 20, 6, &pattern, err);
    if (!status) status = am_config_sliding(&m->config, i, (i + 1) % pattern != 0, &sliding, err);
    if (!status && sliding) status = am_decoder_window(m, &layer->window, err);
    if (status) return status;
    layer->rope = sliding ? 1 : 0;
    status = am_decoder_load_qk_norm(l, layer, m->config.head_dim, m->config.head_dim, err);
    return status ? status : load_parts(l, layer, err);
}

static am_status configure(am_model *m, am_loader *l, am_error *err) {
    double query, cap, logit_cap;
    l->norm_offset = l->gguf ? 0 : 1;
    m->embed_scale = sqrtf((float)m->config.n_embd);
    m->activation = AM_ACT_GELU_TANH;
    am_status status = am_decoder_refuse(m, refused, err);
    if (!status) status = am_config_number(&m->config, "query_pre_attn_scalar", m->config.head_dim, &query, err);
    if (!status) status = am_config_number(&m->config, "attn_logit_softcapping", 0, &cap, err);
    if (!status) status = am_config_number(&m->config, "final_logit_softcapping", 0, &logit_cap, err);
    if (status) return status;
    if (!(query > 0) || cap < 0 || logit_cap < 0)
        return am_fail(err, AM_EFORMAT, "'query_pre_attn_scalar' %g, 'attn_logit_softcapping' %g and 'final_logit_softcapping' %g", query, cap, logit_cap);
    m->attention_scale = (float)(1 / sqrt(query));
    m->attention_softcap = (float)cap;
    m->logit_softcap = (float)logit_cap;
    return AM_OK;
}

static am_status load_gemma2(am_model *m, am_loader *l, am_error *err) {
    am_status status = configure(m, l, err);
    return status ? status : am_decoder_load(m, l, load_gemma2_layer, err);
}

am_status am_gemma_local_rope(const am_config *c, am_rope_config *out, am_error *err) {
    const json_t *parameters = json_object_get(json_object_get(c->json, "rope_parameters"), "sliding_attention");
    double theta;
    am_status status = am_config_number(c, "rope_local_base_freq", 10000, &theta, err);
    return status ? status : am_config_rope(c, parameters, theta, out, err);
}

static am_status load_gemma3(am_model *m, am_loader *l, am_error *err) {
    static const am_refused_key refused3[] = {{"attn_logit_softcapping", NULL}, {NULL, NULL}}; /* the reference reads it and takes no notice */
    am_rope_config local;
    am_status status = am_decoder_refuse(m, refused3, err);
    if (!status) status = configure(m, l, err);
    if (!status) status = am_gemma_local_rope(&m->config, &local, err);
    if (!status) status = am_model_add_rope(m, &local, err);
    return status ? status : am_decoder_load(m, l, load_gemma3_layer, err);
}

static const char gemma2_defaults[] =
    "{\"vocab_size\":256000,\"hidden_size\":2304,\"intermediate_size\":9216,\"num_hidden_layers\":26,\"num_attention_heads\":8,"
    "\"num_key_value_heads\":4,\"head_dim\":256,\"max_position_embeddings\":8192,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,"
    "\"query_pre_attn_scalar\":256,\"sliding_window\":4096,\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0}";
static const char gemma3_defaults[] =
    "{\"vocab_size\":262208,\"hidden_size\":2304,\"intermediate_size\":9216,\"num_hidden_layers\":26,\"num_attention_heads\":8,"
    "\"num_key_value_heads\":4,\"head_dim\":256,\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,\"tie_word_embeddings\":true,"
    "\"rope_theta\":1000000.0,\"rope_local_base_freq\":10000.0,\"query_pre_attn_scalar\":256,\"sliding_window\":4096}";

const am_arch am_arch_gemma2 = {"gemma2", NULL, gemma2_defaults, load_gemma2, forward};
const am_arch am_arch_gemma3_text = {"gemma3_text", NULL, gemma3_defaults, load_gemma3, forward};
const am_arch am_arch_gemma3 = {"gemma3", "text_config", gemma3_defaults, load_gemma3, forward};
