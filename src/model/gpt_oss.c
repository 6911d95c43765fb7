/* gpt-oss: biases everywhere in attention (unless `attention_bias` says otherwise), a sink in each softmax, every second layer with a window, experts with clamped SwiGLU.
 * Source: transformers' modeling_gpt_oss.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"partial_rotary_factor", "1"}, {NULL, NULL}};

/* One expert, from whichever of three forms there is: gate and up apart (MLX), or their rows alternating, as MXFP4 blocks or plain and transposed. */
static am_status load_expert(am_model *m, am_loader *l, am_moe *moe, uint32_t e, am_error *err) {
    uint32_t n_ff = m->n_ff_expert, n = m->config.n_embd;
    am_matrix gate = {"mlp.experts.gate_proj", .n_out = n_ff, .n_in = n, .bias = true, .expert = e, .n_expert = m->n_expert}, up = gate;
    am_matrix down = {"mlp.experts.down_proj", .n_out = n, .n_in = n_ff, .bias = true, .expert = e, .n_expert = m->n_expert};
    up.path = "mlp.experts.up_proj";
    if (!am_loader_has(l, "mlp.experts.gate_proj.weight")) {
        gate.path = "mlp.experts.gate_up_proj";
        gate.underscored = down.underscored = true;
        gate.transposed = am_loader_has(l, "mlp.experts.gate_up_proj");
        down.transposed = am_loader_has(l, "mlp.experts.down_proj");
        gate.of = 2 * n_ff;
        gate.stride = 2;
        up = gate;
        up.first = 1;
    }
    am_status status = am_loader_matrix(l, &gate, &moe->gate[e], err);
    if (!status) status = am_loader_matrix(l, &up, &moe->up[e], err);
    return status ? status : am_loader_matrix(l, &down, &moe->down[e], err);
}

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    bool sliding;
    am_status status = am_config_sliding(&m->config, i, i % 2 == 0, &sliding, err);
    if (!status && sliding) status = am_decoder_window(m, &layer->window, err);
    if (!status) status = am_decoder_load_norms(l, layer, err);
    if (!status) status = am_decoder_load_attention(l, layer, m->config.attention_bias, m->config.attention_bias, err);
    if (!status) status = am_loader_vector(l, "self_attn.sinks", m->config.n_head, &layer->sinks, err);
    if (!status) status = am_moe_create(m, l, layer, err);
    if (!status) status = am_loader_linear(l, "mlp.router", m->n_expert, m->config.n_embd, true, &layer->moe->router, err);
    for (uint32_t e = 0; !status && e < m->n_expert; e++) status = load_expert(m, l, layer->moe, e, err);
    return status;
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    double limit, alpha;
    am_status status = am_decoder_refuse(m, refused, err);
    if (!status) status = am_moe_configure(m, "num_local_experts", "intermediate_size", err);
    if (!status) status = am_config_number(&m->config, "swiglu_limit", 7, &limit, err);
    if (!status) status = am_config_number(&m->config, "swiglu_alpha", 1.702, &alpha, err);
    if (status) return status;
    if (alpha <= 0) return am_config_bad_value(AM_EUNSUPPORTED, "swiglu_alpha", json_object_get(m->config.json, "swiglu_alpha"), "above 0", err);
    m->activation = AM_ACT_SWIGLU_CLAMP;
    m->activation_limit = (float)limit;
    m->activation_alpha = (float)alpha;
    m->expert_normalise = true;
    return am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_gpt_oss = {
    "gpt_oss", NULL, "{\"attention_bias\":true,\"head_dim\":64,\"num_key_value_heads\":8,\"max_position_embeddings\":131072,\"rope_theta\":150000.0,\"rms_norm_eps\":1e-5,"
                     "\"num_local_experts\":128,\"num_experts_per_tok\":4,\"sliding_window\":128,"
                     "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"truncate\":false,\"original_max_position_embeddings\":4096}}", load, am_decoder_forward};
