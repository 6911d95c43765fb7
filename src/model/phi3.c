/* Phi-3 and Phi-4-mini: Llama with q, k, v in one matrix, gate and up in another, a sliding window, part of each head turned, longrope.
 * Sources: arXiv 2404.14219; transformers' modeling_phi3.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"attention_bias", NULL}, {NULL, NULL}};

/* Rows of a fused matrix. */
static am_status load_rows(am_loader *l, const char *path, uint32_t first, uint32_t n, uint32_t of, am_linear *out, am_error *err) {
    return am_loader_matrix(l, &(am_matrix){.path = path, .n_out = n, .n_in = l->config->n_embd, .first = first, .of = of}, out, err);
}

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    static const char qkv[] = "self_attn.qkv_proj", gate_up[] = "mlp.gate_up_proj";
    const am_config *c = &m->config;
    am_layer *layer = &m->layers[i];
    uint32_t n_q = c->n_head * c->head_dim, n_kv = c->n_kv_head * c->head_dim, all = n_q + 2 * n_kv;
    am_status status = am_decoder_window(m, &layer->window, err);
    if (!status) status = am_decoder_load_norms(l, layer, err);
    if (!status) status = load_rows(l, qkv, 0, n_q, all, &layer->q, err);
    if (!status) status = load_rows(l, qkv, n_q, n_kv, all, &layer->k, err);
    if (!status) status = load_rows(l, qkv, n_q + n_kv, n_kv, all, &layer->v, err);
    if (!status) status = am_loader_linear(l, "self_attn.o_proj", c->n_embd, n_q, false, &layer->o, err);
    if (!status) status = load_rows(l, gate_up, 0, c->n_ff, 2 * c->n_ff, &layer->gate, err);
    if (!status) status = load_rows(l, gate_up, c->n_ff, c->n_ff, 2 * c->n_ff, &layer->up, err);
    return status ? status : am_loader_linear(l, "mlp.down_proj", c->n_embd, c->n_ff, false, &layer->down, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_phi3 = {"phi3", NULL, "{\"rms_norm_eps\":1e-5,\"max_position_embeddings\":4096,\"original_max_position_embeddings\":4096}",
                              load, am_decoder_forward};
