/* Owns a model from path to freed memory: opens the folder (or the embedded files), has the architecture load its weights, and makes the
 * fingerprint that names everything which can change a logit. */
#include "model/internal.h"

#include "base/clock.h"
#include "base/footprint.h"
#include "base/fs.h"
#include "base/log.h"
#include "model/embedded.h"
#include "model/gguf_model.h"
#include "model/metrics.h"
#include "model/text_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CONFIG_BYTES = 16 << 20, WORTH_A_NOTICE_BYTES = 256 << 20 };

/* What a model is made from, before it is one. */
typedef struct source {
    json_t *config, *generation;
    am_tensors *tensors;
    am_gguf *gguf; /* what tensors lie in, for GGUF */
} source;

static void source_free(source *s) {
    json_decref(s->config);
    json_decref(s->generation);
    am_tensors_free(s->tensors);
    am_gguf_free(s->gguf);
}

static am_status optional(am_status status) { return status == AM_ENOTFOUND ? AM_OK : status; }

/* Without text: nobody will run it. */
static bool bare(const am_model_options *options) { return options->survey || options->weight; }

static am_status open_embedded(am_model *m, const am_model_options *options, source *s, am_error *err) {
    am_str weights = AM_EMBEDDED(weights);
    strcpy(m->name, "memo-28m");
    am_status status = am_json_parse(AM_EMBEDDED(config), true, &s->config, err);
    if (!status) status = am_json_parse(AM_EMBEDDED(generation), true, &s->generation, err);
    if (!status) status = am_tensors_open_bytes((const uint8_t *)weights.p, weights.n, "memo-28m", &s->tensors, err);
    return status || bare(options) ? status : am_text_source_open(NULL, &m->tokenizer, &m->chat, err);
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

static am_status open_dir(am_model *m, const char *dir, const am_model_options *options, source *s, am_error *err) {
    name_of(dir, m->name, sizeof m->name);
    am_status status = read_json(dir, "config.json", &s->config, err);
    if (!status) status = optional(read_json(dir, "generation_config.json", &s->generation, err));
    if (!status) status = am_tensors_open_dir(dir, &s->tensors, err);
    if (status || bare(options)) return status;
    status = optional(am_tokenizer_load_dir_compiled(dir, options->vocab_dir, &m->tokenizer, err));
    return status ? status : optional(am_chat_load_dir(dir, &m->chat, err));
}

static am_status open_gguf(am_model *m, const char *path, const am_model_options *options, source *s, am_error *err) {
    name_of(path, m->name, sizeof m->name);
    am_status status = am_gguf_open(path, &s->gguf, err);
    if (!status && (status = am_gguf_config(s->gguf, &s->config, err))) am_error_prefix(err, "%s", path);
    if (!status) status = am_tensors_open_gguf(s->gguf, m->name, &s->tensors, err);
    return status || bare(options) ? status : am_text_source_gguf(s->gguf, &m->tokenizer, &m->chat, err);
}

static bool ends_in(const char *path, const char *suffix) {
    size_t n = strlen(path), k = strlen(suffix);
    return n > k && strcmp(path + n - k, suffix) == 0;
}

static am_status open_path(am_model *m, const char *path, const am_model_options *options, source *s, am_error *err) {
    if (ends_in(path, ".gguf")) return open_gguf(m, path, options, s, err);
    if (!options->survey || !ends_in(path, ".json")) return open_dir(m, path, options, s, err);
    name_of(path, m->name, sizeof m->name);
    return am_json_read(path, MAX_CONFIG_BYTES, &s->config, err);
}

/* Left behind by old checkpoints, or stored twice: no loss to leave them out. */
static bool may_stay_unused(void *arg, am_str name) {
    const am_config *config = arg;
    static const char inv_freq[] = ".rotary_emb.inv_freq";
    if (config->tied && am_str_starts(name, AM_STR("lm_head."))) return true;
    if (am_str_starts(name, AM_STR("vision_tower.")) || am_str_starts(name, AM_STR("multi_modal_projector."))) return true;
    static const char input_scale[] = ".input_scale"; /* of activations, for kernels that quantise them (fp8.c) */
    if (name.n > sizeof input_scale && strcmp(name.p + name.n - (sizeof input_scale - 1), input_scale) == 0) return true;
    return name.n > sizeof inv_freq && strcmp(name.p + name.n - (sizeof inv_freq - 1), inv_freq) == 0;
}

/* All that changes a logit besides the tensors. */
static void sum_text(const am_model *m, am_sum_state *sum, const am_buf *description) {
    uint8_t tokenizer[16] = {0};
    if (m->tokenizer) am_tokenizer_fingerprint(m->tokenizer, tokenizer);
    am_sum_add(sum, description->p, description->n);
    am_sum_add(sum, tokenizer, sizeof tokenizer);
}

static void make_fingerprint(am_model *m, am_sum_state *sum, const am_buf *description) {
    sum_text(m, sum, description);
    am_sum s = am_sum_end(sum);
    if (m->packed) memcpy(s.b, am_packed_fingerprint(m->packed), sizeof s.b); /* of these very files; sum has seen but the vectors */
    memcpy(m->info.fingerprint, s.b, sizeof m->info.fingerprint);
}

/* "Q4_K 145, Q6_K 24", and the form of most parameters. */
static void fill_forms(am_model *m, const am_loader *l) {
    uint32_t most = 0;
    size_t n = 0;
    for (uint32_t i = 0; i < l->n_forms; i++) {
        if (l->forms[i].n_params > l->forms[most].n_params) most = i;
        if (n < sizeof m->forms)
            n += (size_t)snprintf(m->forms + n, sizeof m->forms - n, "%s%s %u", i ? ", " : "", l->forms[i].name, l->forms[i].n_matrices);
    }
    snprintf(m->format, sizeof m->format, "%s", l->forms[most].name);
    m->info.format = m->format;
    m->info.forms = m->forms;
}

static void fill_info(am_model *m, const am_loader *l) {
    const am_config *c = &m->config;
    am_model_info *i = &m->info;
    i->name = m->name;
    i->architecture = m->arch->model_type;
    fill_forms(m, l);
    i->n_params = l->n_params;
    i->weight_bytes = l->packed_bytes;
    i->mapped_bytes = l->mapped_bytes;
    i->file_bytes = l->total_bytes;
    i->n_layer = c->n_layer;
    i->n_vocab = c->n_vocab;
    i->n_embd = c->n_embd;
    i->n_head = c->n_head;
    i->n_kv_head = m->cache_heads;
    i->head_dim_k = m->cache_dim_k;
    i->head_dim_v = m->cache_dim_v;
    i->n_ctx = c->n_ctx;
    for (uint32_t k = 0; k < c->n_layer; k++)
        if (m->layers[k].window) {
            i->n_window_layers++;
            i->window = m->layers[k].window;
        }
    i->n_ctx_short = c->rope.kind == AM_ROPE_LONGROPE && c->rope.original_ctx < c->n_ctx ? c->rope.original_ctx : 0;
    memcpy(i->eos, c->eos, sizeof i->eos);
    i->n_eos = c->n_eos;
    i->temperature = c->temperature;
    i->top_p = c->top_p;
    i->min_p = c->min_p;
    i->repetition_penalty = c->repetition_penalty;
    i->top_k = c->top_k;
}

/* Forms that the kernels do not know are kept as one they know, which may take several times the room. */
static void notice_unpacked(const am_model *m, const am_model_options *options) {
    const am_model_info *i = &m->info;
    if (bare(options) || i->weight_bytes < i->file_bytes + WORTH_A_NOTICE_BYTES) return;
    am_log(AM_LOG_WARN, "weights take more memory than their files", AM_LS("forms", m->forms), AM_LU("file_bytes", i->file_bytes),
           AM_LU("memory_bytes", i->weight_bytes));
}

/* Where the text model's tensors begin: multimodal folders put them under a name of their own. */
static void find_root(am_loader *l) {
    static const char *const roots[] = {"", "language_model.", "model.language_model."};
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        snprintf(l->root, sizeof l->root, "%s", roots[i]);
        if (am_loader_has(l, "model.embed_tokens.weight") || am_loader_has(l, "embed_tokens.weight")) return;
    }
    l->root[0] = 0;
}

/* Of packed weights: what they are made of, and by which build of this program, since another may pack otherwise. Files are told by size and times, because
 * reading them is what shall not be. */
static am_status packed_key(const am_model *m, const source *s, const am_buf *description, am_sum *out, am_error *err) {
    am_sum_state *sum = am_sum_begin();
    if (!sum) return am_fail(err, AM_ENOMEM, "no memory for a checksum");
    struct stat program = {0};
    (void)!stat("/proc/self/exe", &program);
    uint64_t build[] = {(uint64_t)program.st_size, (uint64_t)program.st_mtim.tv_sec, (uint64_t)program.st_mtim.tv_nsec};
    am_sum_add(sum, AM_VERSION, sizeof AM_VERSION);
    am_sum_add(sum, build, sizeof build);
    am_tensors_identify(s->tensors, sum);
    sum_text(m, sum, description);
    *out = am_sum_end(sum);
    return AM_OK;
}

/* A file that is refused is written anew: derived data, no reason not to start. */
static void open_packed(am_model *m, am_loader *l, am_sum key, am_packed_list *made) {
    am_error why = {0};
    am_status status = am_packed_open(l->options->packed_dir, key, l->options->workers, &m->packed, &why);
    if (status && status != AM_ENOTFOUND) am_log(AM_LOG_WARN, "packed_weights_refused", AM_LS("reason", why.message));
    l->packed = m->packed;
    l->made = status ? made : NULL;
}

static void write_packed(am_model *m, const am_loader *l, const char *path, am_sum key) {
    am_error why = {0};
    am_packed_job job = {.dir = l->options->packed_dir, .source = path, .key = key, .list = *l->made};
    memcpy(job.fingerprint, m->info.fingerprint, sizeof job.fingerprint);
    *l->made = (am_packed_list){0};
    if (am_packed_write_begin(&job, &m->packed_writer, &why)) am_log(AM_LOG_WARN, "packed_weights_not_written", AM_LS("model", path), AM_LS("reason", why.message));
}

static am_status load_weights(am_model *m, const char *path, const source *s, const am_model_options *options, am_error *err) {
    am_loader l = {.config = &m->config, .options = options, .tensors = s->tensors, .blobs = &m->blobs, .sum = am_sum_begin()};
    am_buf description;
    am_packed_list made = {0};
    am_sum key;
    am_buf_init(&description, 1 << 20);
    l.total_bytes = s->tensors ? am_tensors_bytes(s->tensors) : 0;
    l.gguf = s->gguf != NULL;
    m->layers = am_calloc(m->config.n_layer, sizeof *m->layers);
    am_status status = l.sum && m->layers ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for the model's layers");
    if (!status) status = am_model_add_rope(m, &m->config.rope, err);
    find_root(&l);
    if (!status && (status = am_config_describe(&m->config, &description)))
        am_fail(err, status, "the config's description: %s", am_status_text(status));
    if (!status && options->packed_dir && !bare(options) && path && !(status = packed_key(m, s, &description, &key, err))) open_packed(m, &l, key, &made);
    if (!status) status = m->arch->load(m, &l, err);
    /* packed weights were written when all tensors had been used */
    if (!status && s->tensors && !m->packed) status = am_tensors_all_used(s->tensors, may_stay_unused, &m->config, err);
    if (!status) {
        make_fingerprint(m, l.sum, &description);
        fill_info(m, &l);
        notice_unpacked(m, options);
        if (l.made && m->info.weight_bytes >= options->packed_least_bytes) write_packed(m, &l, path, key);
    } else if (l.sum) {
        am_sum_end(l.sum);
    }
    am_packed_list_free(&made);
    am_buf_free(&description);
    return status;
}

static const json_t *object_at(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_object(v) ? v : NULL;
}

/* Finds the architecture, then reads the config with what its transformers class would fill in. */
static am_status read_config(am_model *m, source *s, const am_model_options *options, am_error *err) {
    am_str type;
    am_status status = am_json_str(s->config, "model_type", &type, err);
    if (status) return status == AM_ENOTFOUND ? am_fail(err, AM_EFORMAT, "'model_type' is missing") : status;
    if (!(m->arch = am_arch_find(type.p))) return am_arch_unknown(type.p, err);
    json_t *json = s->config;
    if (m->arch->text_config && !(json = (json_t *)object_at(s->config, m->arch->text_config)))
        return am_fail(err, AM_EFORMAT, "'%s' is missing or no object", m->arch->text_config);
    if (m->arch->defaults) {
        json_t *defaults = json_loads(m->arch->defaults, 0, NULL);
        int failed = !defaults || json_object_update_missing(json, defaults);
        json_decref(defaults);
        if (failed) return am_fail(err, AM_ENOMEM, "no memory for the config's defaults");
    }
    const json_t *quant = object_at(s->config, "quantization");
    if (!quant) quant = json_object_get(s->config, "quantization_config");
    status = am_config_read(&m->config, json, json_is_null(quant) ? NULL : quant, s->generation, err);
    m->config.n_ctx_served = options->n_ctx ? options->n_ctx : m->config.n_ctx;
    return status;
}

/* A template of the operator's in the place of the model's, with the model's special tokens. */
static am_status replace_chat(am_model *m, const char *path, am_error *err) {
    am_buf text;
    am_chat *chat = NULL;
    am_buf_init(&text, MAX_CONFIG_BYTES + 1);
    am_status status = am_fs_read_file(path, &text, MAX_CONFIG_BYTES, err);
    if (!status && (status = am_chat_load_source(am_buf_str(&text), m->chat ? am_chat_tokens(m->chat) : NULL, &chat, err))) am_error_prefix(err, "%s", path);
    am_buf_free(&text);
    if (status) return status;
    am_chat_free(m->chat);
    m->chat = chat;
    return AM_OK;
}

/* A large model's headers say what it will take; better a word now than a machine that swaps, or the kernel's axe in the middle. */
static am_status check_memory(const char *path, const source *s, const am_model_options *options, am_error *err) {
    am_model *m;
    if (!path || bare(options) || am_tensors_bytes(s->tensors) < WORTH_A_NOTICE_BYTES) return AM_OK;
    am_status status = am_model_load(path, &(am_model_options){.survey = true, .n_ctx = options->n_ctx}, &m, err);
    if (status) return status;
    uint64_t wanted = m->info.weight_bytes, there = am_memory_available();
    am_model_free(m);
    if (wanted <= there) return AM_OK;
    return am_fail(err, AM_ENOMEM, "%s: its weights take %.1f GiB of memory, %.1f GiB are available", path, (double)wanted / (1 << 30),
                   (double)there / (1 << 30));
}

static am_status load(const char *path, const am_model_options *options, am_model **out, am_error *err) {
    source s = {0};
    *out = NULL;
    am_model *m = am_calloc(1, sizeof *m);
    if (!m) return am_fail(err, AM_ENOMEM, "no memory for a model");
    m->kernels = options->kernels;
    am_status status = path ? open_path(m, path, options, &s, err) : open_embedded(m, options, &s, err);
    if (!status && options->template_path) status = replace_chat(m, options->template_path, err);
    if (!status && (status = read_config(m, &s, options, err))) am_error_prefix(err, "%s: config.json", m->name);
    if (!status) status = check_memory(path, &s, options, err);
    m->embed_scale = 1;
    m->attention_scale = 1 / sqrtf((float)m->config.head_dim);
    m->cache_heads = m->config.n_kv_head;
    m->cache_dim_k = m->cache_dim_v = am_cache_wide(m->config.head_dim);
    if (!status && (status = load_weights(m, path, &s, options, err)) && path) am_error_prefix(err, "%s", path);
    source_free(&s);
    /* these point into what was just freed or into JSON that nobody needs any more */
    m->config.quant_json = NULL;
    if (status)
        am_model_free(m);
    else
        *out = m;
    return status;
}

am_status am_model_load(const char *path, const am_model_options *options, am_model **out, am_error *err) {
    uint64_t start = am_now_ns();
    am_status status = load(path, options, out, err);
    if (bare(options)) return status;
    if (!status) am_metric_observe(&am_metric_model_load_time, 0, am_now_ns() - start);
    return status;
}

am_status am_model_probe(const char *path, am_model_facts *out, am_error *err) {
    am_model_options options = {.survey = true};
    am_model *m;
    *out = (am_model_facts){0};
    am_status status = am_model_load(path, &options, &m, err);
    if (!status) am_model_facts_of(&m->info, out);
    if (!status && path && !m->info.file_bytes) status = am_fail(err, AM_EFORMAT, "%s: a config without weights", path);
    am_model_free(m);
    return status;
}

void am_model_facts_of(const am_model_info *info, am_model_facts *out) {
    *out = (am_model_facts){.n_params = info->n_params, .weight_bytes = info->weight_bytes, .n_layer = info->n_layer, .n_vocab = info->n_vocab,
                            .n_embd = info->n_embd, .n_head = info->n_head, .n_kv_head = info->n_kv_head, .head_dim = info->head_dim_k,
                            .n_ctx = info->n_ctx};
    snprintf(out->architecture, sizeof out->architecture, "%s", info->architecture);
    snprintf(out->format, sizeof out->format, "%s", info->format);
    snprintf(out->forms, sizeof out->forms, "%s", info->forms);
}

void am_model_free(am_model *m) {
    if (!m) return;
    am_tokenizer_free(m->tokenizer);
    am_chat_free(m->chat);
    am_packed_write_end(m->packed_writer);
    am_packed_free(m->packed);
    am_blobs_free(&m->blobs);
    am_config_free(&m->config);
    free(m->layers);
    for (uint32_t i = 0; i < m->n_ropes; i++) free(m->ropes[i].freq);
    free(m);
}

const am_model_info *am_model_info_of(const am_model *m) { return &m->info; }
uint64_t am_model_untouched_bytes(const am_model *m) { return am_blobs_untouched(&m->blobs); }
const am_tokenizer *am_model_tokenizer(const am_model *m) { return m->tokenizer; }
const am_chat *am_model_chat(const am_model *m) { return m->chat; }

am_status am_model_kv_spec(const am_model *m, uint32_t bits_k, uint32_t bits_v, am_kv_spec *out, am_error *err) {
    am_kv_layout layout;
    am_kv_spec spec = {.n_layer = m->config.n_layer,
                       .n_kv_head = m->cache_heads,
                       .head_dim_k = m->cache_dim_k,
                       .head_dim_v = m->cache_dim_v,
                       .bits_k = bits_k,
                       .bits_v = m->kv_lora ? bits_k : bits_v,
                       .shared = m->kv_lora != 0};
    for (uint32_t i = 0; i < m->config.n_layer; i++) {
        uint32_t window = m->layers[i].window;
        if (!window || window >= m->config.n_ctx) continue;
        spec.windowed[i / 64] |= 1ull << i % 64;
        if (window < 2) window = 2; /* a query that sees itself alone needs no block; that none is ever kept is not worth a case of its own */
        if (window > spec.window) spec.window = window;
    }
    am_status status = am_kv_layout_init(&layout, &spec, err);
    if (!status) *out = layout.spec;
    return status;
}
