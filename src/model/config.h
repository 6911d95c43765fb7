/* What a model folder's config.json and generation_config.json say, checked, in one struct for all architectures.
 *
 * Both forms are read: rope_theta / rope_scaling / torch_dtype and what transformers 5 writes (rope_parameters, dtype). Keys that an
 * architecture alone has are read by its own file through am_config_* below, which know the defaults' form of error. */
#ifndef AM_MODEL_CONFIG_H
#define AM_MODEL_CONFIG_H

#include "model/model.h"

#include "base/json.h"

typedef enum am_rope_kind { AM_ROPE_PLAIN, AM_ROPE_LINEAR, AM_ROPE_LLAMA3, AM_ROPE_YARN, AM_ROPE_LONGROPE, AM_ROPE_DIVISORS } am_rope_kind;

typedef struct am_rope_config {
    am_rope_kind kind;
    double theta;
    double partial;                           /* share of a head's dimensions that turns; the rest passes */
    double factor;                            /* all but plain */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double original_ctx;                      /* llama3, yarn, longrope */
    double beta_fast, beta_slow;              /* yarn */
    double mscale, mscale_all_dim;            /* yarn; 0: absent */
    double attention_factor;                  /* yarn, longrope: scales cos and sin; 0: from the factor */
    bool truncate;                            /* yarn: correction range in whole dimensions */
    const json_t *short_factor, *long_factor; /* longrope, and divisors (GGUF) with the first alone: by pair; live as long as the config */
} am_rope_config;

/* MLX's quantisation of a matrix. */
typedef struct am_quant {
    uint32_t bits, group;
    bool mxfp4; /* else affine */
} am_quant;

/* How a whole checkpoint was quantised, as `quantization_config` says: see int_packed.c and fp8.c. */
typedef enum am_scheme_kind { AM_SCHEME_NONE, AM_SCHEME_GPTQ, AM_SCHEME_AWQ, AM_SCHEME_FP8 } am_scheme_kind;
typedef struct am_scheme {
    am_scheme_kind kind;
    uint32_t bits, group;      /* GPTQ, AWQ; group 0: all inputs of an output */
    uint32_t zero_offset;      /* GPTQ: added to stored zero points */
    uint32_t block_out, block_in; /* FP8: a scale each block; 0: one a matrix or a row */
} am_scheme;

typedef struct am_config {
    char model_type[32];
    uint32_t n_layer, n_vocab, n_embd, n_ff, n_head, n_kv_head, head_dim, n_ctx;
    float norm_eps;
    bool tied, attention_bias, mlp_bias;
    uint32_t n_ctx_served; /* what the model is loaded for */
    am_rope_config rope;

    am_quant quant;           /* MLX's default for matrices that have scales */
    am_scheme scheme;
    const json_t *quant_json; /* its object, for entries of single matrices; NULL: none. Lives as long as the config file's JSON */

    int32_t eos[AM_MAX_EOS];
    uint32_t n_eos;
    float temperature, top_p, min_p, repetition_penalty; /* negative: silent */
    int32_t top_k;

    json_t *json; /* the object with the model's keys, completed by the architecture's defaults */
} am_config;

/* json: config.json, or the part of it that describes the text model, with defaults filled in; quant: its `quantization` or `quantization_config`
 * object or NULL; generation: generation_config.json or NULL. Takes a reference to json. Free with am_config_free, also after an error. */
am_status am_config_read(am_config *config, json_t *json, const json_t *quant, const json_t *generation, am_error *err);
void am_config_free(am_config *config);

/* One key of config.json; `fallback` when it is absent or null. AM_EFORMAT names key and value. */
am_status am_config_count(const am_config *config, const char *key, uint32_t min, uint32_t max, uint32_t fallback, uint32_t *out,
                          am_error *err);
am_status am_config_number(const am_config *config, const char *key, double fallback, double *out, am_error *err);
am_status am_config_flag(const am_config *config, const char *key, bool fallback, bool *out, am_error *err);
/* AM_EUNSUPPORTED, naming key and value, unless the key is absent, null, false, or equal to `same` (JSON text; may be NULL). */
am_status am_config_refuse(const am_config *config, const char *key, const char *same, am_error *err);

/* mode, bits and group_size of a `quantization` object or of one matrix's entry in it; what it leaves out stays (mode: is affine). */
am_status am_quant_read(const json_t *entry, am_quant *quant, am_error *err);

/* `quantization_config` with a quant_method. AM_EUNSUPPORTED names key and value. */
am_status am_scheme_read(const json_t *quant, am_scheme *out, am_error *err);
am_status am_config_bad_value(am_status code, const char *key, const json_t *v, const char *wanted, am_error *err);

/* Rope settings from an object like rope_parameters or rope_scaling (may be NULL: plain) over theta; original_ctx falls back to
 * the config's original_max_position_embeddings or its whole context. */
uint32_t am_rope_dims(const am_rope_config *rope, uint32_t head_dim); /* how many of a head's dimensions turn */
am_status am_config_rope(const am_config *config, const json_t *scaling, double theta, am_rope_config *out, am_error *err);
/* Whether layer i attends through the sliding window, by `layer_types`; `fallback` where the config has none. */
am_status am_config_sliding(const am_config *config, uint32_t i, bool fallback, bool *out, am_error *err);

/* Appends everything that may change logits, as text, for the fingerprint: all keys but those known not to. */
am_status am_config_describe(const am_config *config, am_buf *out);

#endif
