/* What a model folder's config.json and generation_config.json say, checked, in one struct for all architectures.
 *
 * Both forms are read: rope_theta / rope_scaling / torch_dtype and what transformers 5 writes (rope_parameters, dtype). Keys that an
 * architecture alone has are read by its own file through am_config_* below, which know the defaults' form of error. */
#ifndef AM_MODEL_CONFIG_H
#define AM_MODEL_CONFIG_H

#include "model/model.h"

#include "base/json.h"

typedef enum am_rope_kind { AM_ROPE_PLAIN, AM_ROPE_LINEAR, AM_ROPE_LLAMA3 } am_rope_kind;

typedef struct am_rope_config {
    am_rope_kind kind;
    double theta;
    double factor;                            /* linear, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double original_ctx;                      /* llama3 */
} am_rope_config;

typedef struct am_config {
    char model_type[32];
    uint32_t n_layer, n_vocab, n_embd, n_ff, n_head, n_kv_head, head_dim, n_ctx;
    float norm_eps;
    bool tied, attention_bias, mlp_bias;
    am_rope_config rope;

    uint32_t quant_bits, quant_group; /* MLX affine; 0: not quantised */
    const json_t *quant;              /* its object, for entries of single layers; lives as long as json */

    int32_t eos[AM_MAX_EOS];
    uint32_t n_eos;
    float temperature, top_p, min_p, repetition_penalty; /* negative: silent */
    int32_t top_k;

    json_t *json; /* the whole of config.json */
} am_config;

/* generation may be NULL. Takes a reference to `json`. Free with am_config_free, also after an error. */
am_status am_config_read(am_config *config, json_t *json, const json_t *generation, am_error *err);
void am_config_free(am_config *config);

/* One key of config.json; `fallback` when it is absent or null. AM_EFORMAT names key and value. */
am_status am_config_count(const am_config *config, const char *key, uint32_t min, uint32_t max, uint32_t fallback, uint32_t *out,
                          am_error *err);
am_status am_config_number(const am_config *config, const char *key, double fallback, double *out, am_error *err);
am_status am_config_flag(const am_config *config, const char *key, bool fallback, bool *out, am_error *err);
/* AM_EUNSUPPORTED, naming key and value, unless the key is absent, null, false, or equal to `same` (JSON text; may be NULL). */
am_status am_config_refuse(const am_config *config, const char *key, const char *same, am_error *err);

/* bits and group_size of a `quantization` object or of one layer's entry in it, over what *bits and *group hold already. */
am_status am_quant_entry(const json_t *entry, uint32_t *bits, uint32_t *group, am_error *err);

/* Appends everything that changes logits, as text, for the fingerprint. */
am_status am_config_describe(const am_config *config, am_buf *out);

#endif
