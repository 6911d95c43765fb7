/* Owns a model from path to freed memory: opens the folder (or the embedded files), has the architecture load its weights, and makes the
 * fingerprint that names everything which can change a logit. */
#include "model/internal.h"

#include "base/fs.h"
#include "model/embedded.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20 };

/* What a model is made from, before it is one. */
typedef struct source {
    json_t *config, *generation;
    am_tensors *tensors;
} source;

static void source_free(source *s) {
    json_decref(s->config);
    json_decref(s->generation);
    am_tensors_free(s->tensors);
}

static am_status optional(am_status status) { return status == AM_ENOTFOUND ? AM_OK : status; }

static am_status open_embedded(am_model *m, source *s, am_error *err) {
    am_str weights = AM_EMBEDDED(weights);
    strcpy(m->name, "memo-28m");
    am_status status = am_json_parse(AM_EMBEDDED(config), true, &s->config, err);
    if (!status) status = am_json_parse(AM_EMBEDDED(generation), true, &s->generation, err);
    if (!status) status = am_tensors_open_bytes((const uint8_t *)weights.p, weights.n, "memo-28m", &s->tensors, err);
    if (!status) status = am_tokenizer_load_json(AM_EMBEDDED(tokenizer), AM_EMBEDDED(tokenizer_config), &m->tokenizer, err);
    return status ? status : am_chat_load_json(AM_EMBEDDED(tokenizer_config), &m->chat, err);
}

static am_status read_json(const char *dir, const char *name, json_t **out, am_error *err) {
    char path[4096];
    am_status status = am_fs_join(path, sizeof path, dir, name, err);
    return status ? status : am_json_read(path, MAX_CONFIG_BYTES, out, err);
}

/* The last part of a path, without trailing slashes. */
static void name_of(const char *path, char *out, size_t cap) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    size_t n = end - begin < cap - 1 ? end - begin : cap - 1;
    memcpy(out, path + begin, n);
    out[n] = 0;
}

static am_status open_dir(am_model *m, const char *dir, source *s, am_error *err) {
    name_of(dir, m->name, sizeof m->name);
    am_status status = read_json(dir, "config.json", &s->config, err);
    if (!status) status = optional(read_json(dir, "generation_config.json", &s->generation, err));
    if (!status) status = am_tensors_open_dir(dir, &s->tensors, err);
    if (!status) status = optional(am_tokenizer_load_dir(dir, &m->tokenizer, err));
    return status ? status : optional(am_chat_load_dir(dir, &m->chat, err));
}

/* Left behind by old checkpoints, or stored twice: no loss to leave them out. */
static bool may_stay_unused(void *arg, am_str name) {
    const am_config *config = arg;
    static const char inv_freq[] = ".rotary_emb.inv_freq";
    if (config->tied && am_str_starts(name, AM_STR("lm_head."))) return true;
    return name.n > sizeof inv_freq && strcmp(name.p + name.n - (sizeof inv_freq - 1), inv_freq) == 0;
}

static void make_fingerprint(am_model *m, am_sum_state *sum, const am_buf *description) {
    uint8_t tokenizer[16] = {0};
    if (m->tokenizer) am_tokenizer_fingerprint(m->tokenizer, tokenizer);
    am_sum_add(sum, description->p, description->n);
    am_sum_add(sum, tokenizer, sizeof tokenizer);
    am_sum s = am_sum_end(sum);
    memcpy(m->info.fingerprint, s.b, sizeof m->info.fingerprint);
}

static void fill_info(am_model *m, const am_loader *l) {
    const am_config *c = &m->config;
    am_model_info *i = &m->info;
    memcpy(m->format, l->format, sizeof m->format);
    i->name = m->name;
    i->architecture = m->arch->model_type;
    i->format = m->format;
    i->n_params = l->n_params;
    i->weight_bytes = l->packed_bytes;
    i->n_layer = c->n_layer;
    i->n_vocab = c->n_vocab;
    i->n_embd = c->n_embd;
    i->n_head = c->n_head;
    i->n_kv_head = c->n_kv_head;
    i->head_dim_k = i->head_dim_v = c->head_dim;
    i->n_ctx = c->n_ctx;
    memcpy(i->eos, c->eos, sizeof i->eos);
    i->n_eos = c->n_eos;
    i->temperature = c->temperature;
    i->top_p = c->top_p;
    i->min_p = c->min_p;
    i->repetition_penalty = c->repetition_penalty;
    i->top_k = c->top_k;
}

static am_status load_weights(am_model *m, const source *s, const am_model_options *options, am_error *err) {
    am_loader l = {.config = &m->config, .options = options, .tensors = s->tensors, .blobs = &m->blobs, .sum = am_sum_begin()};
    am_buf description;
    am_buf_init(&description, 64 << 10);
    l.total_bytes = am_tensors_bytes(s->tensors);
    m->layers = am_calloc(m->config.n_layer, sizeof *m->layers);
    m->rope_freq = am_calloc(m->config.head_dim / 2, sizeof *m->rope_freq);
    am_status status = l.sum && m->layers && m->rope_freq ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for the model's layers");
    if (!status) status = m->arch->load(m, &l, err);
    if (!status) status = am_tensors_all_used(s->tensors, may_stay_unused, &m->config, err);
    if (!status && (status = am_config_describe(&m->config, &description))) am_fail(err, status, "the config's description: %s", am_status_text(status));
    if (!status) {
        am_rope_frequencies(&m->config.rope, m->config.head_dim, m->rope_freq);
        make_fingerprint(m, l.sum, &description);
        fill_info(m, &l);
    } else if (l.sum) {
        am_sum_end(l.sum);
    }
    am_buf_free(&description);
    return status;
}

am_status am_model_load(const char *path, const am_model_options *options, am_model **out, am_error *err) {
    source s = {0};
    *out = NULL;
    am_model *m = am_calloc(1, sizeof *m);
    if (!m) return am_fail(err, AM_ENOMEM, "no memory for a model");
    m->kernels = options->kernels;
    am_status status = path ? open_dir(m, path, &s, err) : open_embedded(m, &s, err);
    if (!status && (status = am_config_read(&m->config, s.config, s.generation, err))) am_error_prefix(err, "config.json");
    if (!status && !(m->arch = am_arch_find(m->config.model_type))) status = am_arch_unknown(m->config.model_type, err);
    if (!status && (status = load_weights(m, &s, options, err)) && path) am_error_prefix(err, "%s", path);
    source_free(&s);
    if (status)
        am_model_free(m);
    else
        *out = m;
    return status;
}

void am_model_free(am_model *m) {
    if (!m) return;
    am_tokenizer_free(m->tokenizer);
    am_chat_free(m->chat);
    am_blobs_free(&m->blobs);
    am_config_free(&m->config);
    free(m->layers);
    free(m->rope_freq);
    free(m);
}

const am_model_info *am_model_info_of(const am_model *m) { return &m->info; }
const am_tokenizer *am_model_tokenizer(const am_model *m) { return m->tokenizer; }
const am_chat *am_model_chat(const am_model *m) { return m->chat; }

am_status am_model_kv_spec(const am_model *m, uint32_t bits_k, uint32_t bits_v, am_kv_spec *out, am_error *err) {
    am_kv_layout layout;
    am_kv_spec spec = {.n_layer = m->config.n_layer,
                       .n_kv_head = m->config.n_kv_head,
                       .head_dim_k = m->config.head_dim,
                       .head_dim_v = m->config.head_dim,
                       .bits_k = bits_k,
                       .bits_v = bits_v};
    am_status status = am_kv_layout_init(&layout, &spec, err);
    if (!status) *out = layout.spec;
    return status;
}
