/* Qwen3: Llama with a norm on each head of q and k before rope. Qwen3-MoE: with experts instead of the MLP in most layers.
 * Sources: arXiv 2505.09388; transformers' modeling_qwen3.py, modeling_qwen3_moe.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"partial_rotary_factor", "1"}, {NULL, NULL}};

static am_status load_attention(am_model *m, am_loader *l, am_layer *layer, am_error *err) {
    am_status status = am_decoder_load_norms(l, layer, err);
    if (!status) status = am_decoder_load_attention(l, layer, m->config.attention_bias, m->config.attention_bias, err);
    return status ? status : am_decoder_load_qk_norm(l, layer, m->config.head_dim, m->config.head_dim, err);
}

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    uint32_t first;
    am_status status = am_config_count(&m->config, "max_window_layers", 0, 1u << 20, 28, &first, err);
    if (!status) status = am_decoder_optional_window(m, i, i >= first, &m->layers[i].window, err);
    if (!status) status = load_attention(m, l, &m->layers[i], err);
    return status ? status : am_decoder_load_mlp(l, &m->layers[i], false, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

/* Layers are dense when mlp_only_layers lists them or decoder_sparse_step leaves them out. */
static am_status is_sparse(const am_model *m, uint32_t i, bool *sparse, am_error *err) {
    uint32_t step;
    am_status status = am_config_count(&m->config, "decoder_sparse_step", 1, 1u << 20, 1, &step, err);
    *sparse = !status && (i + 1) % step == 0;
    size_t k;
    json_t *dense;
    json_array_foreach(json_object_get(m->config.json, "mlp_only_layers"), k, dense)
        if (json_is_integer(dense) && json_integer_value(dense) == i) *sparse = false;
    return status;
}

static am_status load_moe_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    bool sparse, windows;
    am_status status = is_sparse(m, i, &sparse, err);
    if (!status) status = am_config_flag(&m->config, "use_sliding_window", false, &windows, err);
    if (!status && windows) status = am_decoder_window_everywhere(m, i, &m->layers[i].window, err);
    if (!status) status = load_attention(m, l, &m->layers[i], err);
    if (status) return status;
    return sparse ? am_moe_load(m, l, &m->layers[i], err) : am_decoder_load_mlp(l, &m->layers[i], false, err);
}

static am_status load_moe(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    if (!status) status = am_moe_configure(m, "num_experts", "moe_intermediate_size", err);
    if (!status) status = am_config_flag(&m->config, "norm_topk_prob", false, &m->expert_normalise, err);
    return status ? status : am_decoder_load(m, l, load_moe_layer, err);
}

const am_arch am_arch_qwen3 = {"qwen3", NULL, "{\"head_dim\":128,\"max_position_embeddings\":32768,\"sliding_window\":4096}", load, am_decoder_forward};
const am_arch am_arch_qwen3_moe = {"qwen3_moe", NULL, "{\"max_position_embeddings\":32768,\"num_experts_per_tok\":8,\"sliding_window\":4096}", load_moe,
                                   am_decoder_forward};
