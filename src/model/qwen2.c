/* Qwen2 and Qwen2.5: Llama with biases on q, k and v (no config key says so) and none on o.
 * Sources: arXiv 2407.10671; transformers' modeling_qwen2.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"partial_rotary_factor", "1"}, {NULL, NULL}};

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    uint32_t first;
    am_status status = am_config_count(&m->config, "max_window_layers", 0, 1u << 20, 28, &first, err);
    if (!status) status = am_decoder_optional_window(m, i, i >= first, &layer->window, err);
    if (!status) status = am_decoder_load_norms(l, layer, err);
    if (!status) status = am_decoder_load_attention(l, layer, true, false, err);
    return status ? status : am_decoder_load_mlp(l, layer, false, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_qwen2 = {"qwen2", NULL, "{\"max_position_embeddings\":32768,\"sliding_window\":4096}", load, am_decoder_forward};
