/* Mistral 7B and its kin: Llama with a sliding window on every layer, where the config has one, and head dimensions of its own.
 * Sources: arXiv 2310.06825; transformers' modeling_mistral.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"partial_rotary_factor", "1"}, {"num_local_experts", NULL},
                                         {"attention_bias", NULL}, {"mlp_bias", NULL}, {NULL, NULL}};

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    am_status status = am_decoder_window_everywhere(m, i, &layer->window, err);
    if (!status) status = am_decoder_load_norms(l, layer, err);
    if (!status) status = am_decoder_load_attention(l, layer, false, false, err);
    return status ? status : am_decoder_load_mlp(l, layer, false, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_mistral = {
    "mistral", NULL, "{\"num_key_value_heads\":8,\"sliding_window\":4096,\"max_position_embeddings\":131072}", load, am_decoder_forward};
