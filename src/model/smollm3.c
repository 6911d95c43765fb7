/* SmolLM3: Llama with some layers that have no rope. Source: transformers' modeling_smollm3.py. */
#include "model/internal.h"

static const am_refused_key refused[] = {{"hidden_act", "\"silu\""}, {"partial_rotary_factor", "1"}, {NULL, NULL}};

/* no_rope_layers: 1 means rope. Without it every no_rope_layer_interval-th layer has none. */
static am_status read_rope(const am_model *m, uint32_t i, am_layer *layer, am_error *err) {
    const json_t *list = json_object_get(m->config.json, "no_rope_layers");
    uint32_t interval;
    am_status status = am_config_count(&m->config, "no_rope_layer_interval", 1, 1u << 20, 4, &interval, err);
    if (status) return status;
    bool rope = (i + 1) % interval != 0;
    if (list && !json_is_null(list)) {
        if (json_array_size(list) != m->config.n_layer || !json_is_integer(json_array_get(list, i)))
            return am_fail(err, AM_EFORMAT, "'no_rope_layers' must be a list of %u numbers", m->config.n_layer);
        rope = json_integer_value(json_array_get(list, i)) != 0;
    }
    layer->rope = rope ? 0 : -1;
    return AM_OK;
}

static am_status load_layer(am_model *m, am_loader *l, uint32_t i, am_error *err) {
    am_layer *layer = &m->layers[i];
    am_status status = read_rope(m, i, layer, err);
    if (!status) status = am_decoder_optional_window(m, i, layer->rope < 0, &layer->window, err);
    if (!status) status = am_decoder_load_norms(l, layer, err);
    if (!status) status = am_decoder_load_attention(l, layer, m->config.attention_bias, m->config.attention_bias, err);
    return status ? status : am_decoder_load_mlp(l, layer, m->config.mlp_bias, err);
}

static am_status load(am_model *m, am_loader *l, am_error *err) {
    am_status status = am_decoder_refuse(m, refused, err);
    return status ? status : am_decoder_load(m, l, load_layer, err);
}

const am_arch am_arch_smollm3 = {
    "smollm3", NULL, "{\"num_key_value_heads\":4,\"rope_theta\":2000000.0,\"tie_word_embeddings\":true,\"max_position_embeddings\":32768}", load,
    am_decoder_forward};
