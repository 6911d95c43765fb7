/* Llama 1 to 3.2 and what is built like it (TinyLlama, SmolLM2): RMSNorm before attention and MLP, rotary grouped-query attention, SwiGLU.
 * Sources: arXiv 2302.13971, 2307.09288, 2407.21783; transformers' modeling_llama.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"sliding_window", NULL}, {"partial_rotary_factor", "1"},
                                         {"no_rope_layers", NULL}, {"attn_logit_softcapping", NULL}, {"final_logit_softcapping", NULL},
                                         {"num_local_experts", NULL}, {"num_experts", NULL}, {NULL, NULL}};

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    am_status status = am_decoder_load_norms(l, layer, err);
    if (!status) status = am_decoder_load_attention(l, layer, m->config.attention_bias, m->config.attention_bias, err);
    return status ? status : am_decoder_load_mlp(l, layer, m->config.mlp_bias, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_llama = {"llama", NULL, NULL, load, am_decoder_forward};
