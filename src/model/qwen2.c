/* Qwen2 and Qwen2.5: Llama with biases on q, k and v (no config key says so) and none on o.
 * Sources: arXiv 2407.10671; transformers' modeling_qwen2.py. */
#include "model/internal.h"

/* A window counts only with use_sliding_window, which no released text model sets. */
static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"use_sliding_window", NULL}, {"partial_rotary_factor", "1"},
                                         {NULL, NULL}};

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    am_status status = am_decoder_load_norms(l, layer, err);
    if (!status) status = am_decoder_load_attention(l, layer, true, false, err);
    return status ? status : am_decoder_load_mlp(l, layer, false, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_qwen2 = {"qwen2", NULL, "{\"max_position_embeddings\":32768}", load, am_decoder_forward};
