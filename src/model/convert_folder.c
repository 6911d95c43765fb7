/* Owns writing a GGUF file from a folder: llama, mistral, qwen2 and qwen3, whose names and keys llama.cpp's converter defines.
 *
 * As for MLX, the architecture's own loading lists and hands over the weights. Rows of q and k go back to neighbours as pairs of rope where
 * llama.cpp wants them so; llama3's scaling becomes the tensor rope_freqs.weight; a byte-level vocabulary goes along (gguf_text.c). What would be lost
 * on the way (windows, other scalings) is refused by key. Source: llama.cpp's convert_hf_to_gguf.py, as documentation of the format. */
#include "model/convert_int.h"

#include "base/fs.h"
#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_NAME = 128, ALIGN = 32 };

typedef struct planned {
    char name[MAX_NAME];
    uint32_t n_rows, n_in, pair_dim; /* n_in 0: a vector; pair_dim: rows are pairs of rope as neighbours */
    const am_ggml_format *to;
    uint64_t at, n_bytes;
} planned;

typedef struct folder {
    const am_convert_options *o;
    json_t *config, *index; /* index: the source's name -> place in list */
    const char *arch;
    uint32_t head_dim;
    planned *list;
    size_t n, cap;
    float *rope_freqs; /* [head_dim / 2], or NULL */
    uint64_t data_at;
    am_part_file *file;
    uint8_t *buffer;
    am_region *regions;
} folder;

static json_int_t integer(const folder *f, const char *key) { return json_integer_value(json_object_get(f->config, key)); }

static const char *gguf_arch(const char *model_type) {
    if (strcmp(model_type, "llama") == 0 || strcmp(model_type, "mistral") == 0) return "llama";
    if (strcmp(model_type, "qwen2") == 0 || strcmp(model_type, "qwen3") == 0) return model_type;
    return NULL;
}

static bool gguf_name(const char *name, char out[MAX_NAME]) {
    static const char *const tops[][2] = {{"model.embed_tokens", "token_embd.weight"}, {"model.norm.weight", "output_norm.weight"},
                                          {"lm_head", "output.weight"}};
    static const char *const parts[][2] = {
        {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"}, {"self_attn.v_proj", "attn_v"}, {"self_attn.o_proj", "attn_output"},
        {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"}, {"mlp.gate_proj", "ffn_gate"}, {"mlp.up_proj", "ffn_up"},
        {"mlp.down_proj", "ffn_down"}, {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"}};
    unsigned layer;
    int at = 0;
    for (size_t i = 0; i < sizeof tops / sizeof tops[0]; i++)
        if (strcmp(name, tops[i][0]) == 0) return snprintf(out, MAX_NAME, "%s", tops[i][1]) > 0;
    if (sscanf(name, "model.layers.%u.%n", &layer, &at) != 1 || at == 0) return false;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t n = strlen(parts[i][0]);
        if (strncmp(name + at, parts[i][0], n) != 0) continue;
        const char *end = name[at + n] ? name + at + n : ".weight"; /* matrices come without */
        return snprintf(out, MAX_NAME, "blk.%u.%s%s", layer, parts[i][1], end) > 0;
    }
    return false;
}

static am_status add(folder *f, const char *source, const planned *p, am_error *err) {
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 256;
        planned *list = realloc(f->list, cap * sizeof *list);
        if (!list) return am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
        f->list = list;
        f->cap = cap;
    }
    f->list[f->n] = *p;
    if (json_object_set_new(f->index, source, json_integer((json_int_t)f->n))) return am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
    f->n++;
    return AM_OK;
}

static am_status plan_weight(void *arg, const am_weight *w, am_error *err) {
    folder *f = arg;
    planned p = {.n_rows = w->n_rows, .n_in = w->n_in};
    if (json_object_get(f->index, w->name)) return AM_OK;
    if (w->n_expert || !gguf_name(w->name, p.name)) return am_fail(err, AM_EUNSUPPORTED, "tensor '%s' has no place in a GGUF file of \"%s\"", w->name, f->arch);
    bool turned = strstr(p.name, ".attn_q.") || strstr(p.name, ".attn_k.");
    if (turned && strcmp(f->arch, "llama") == 0) p.pair_dim = f->head_dim;
    p.to = am_ggml_format_of(AM_GGML_F32);
    if (w->n_in) p.to = w->n_in % 32 ? am_ggml_format_of(AM_GGML_F16) : am_convert_ggml(f->o);
    return add(f, w->name, &p, err);
}

/* llama3: frequencies of long waves are divided, those between by what lies between. */
static am_status plan_rope(folder *f, am_error *err) {
    am_config c;
    am_status status = am_config_read(&c, json_incref(f->config), NULL, NULL, err);
    am_rope_config rope = c.rope;
    am_config_free(&c);
    if (status || rope.kind == AM_ROPE_PLAIN || rope.kind == AM_ROPE_LINEAR) return status;
    if (rope.kind != AM_ROPE_LLAMA3) return am_fail(err, AM_EUNSUPPORTED, "'rope_scaling': only linear and llama3 become GGUF");
    uint32_t n = f->head_dim / 2;
    if (!(f->rope_freqs = am_calloc(n, sizeof *f->rope_freqs))) return am_fail(err, AM_ENOMEM, "no memory for rope factors");
    for (uint32_t i = 0; i < n; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(rope.theta, 2.0 * i / f->head_dim), turns = rope.original_ctx / wave;
        double smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        smooth = fmin(fmax(smooth, 0), 1);
        f->rope_freqs[i] = (float)(1 / ((1 - smooth) / rope.factor + smooth));
    }
    planned p = {.name = "rope_freqs.weight", .n_rows = n, .to = am_ggml_format_of(AM_GGML_F32)};
    return add(f, "", &p, err);
}

static void put_count(am_buf *b, const folder *f, const char *key, json_int_t v, uint64_t *n) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", f->arch, key);
    am_gguf_put_u32(b, name, (uint32_t)v);
    ++*n;
}

static void put_number(am_buf *b, const folder *f, const char *key, double v, uint64_t *n) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", f->arch, key);
    am_gguf_put_f32(b, name, (float)v);
    ++*n;
}

static am_status put_keys(const folder *f, am_buf *b, uint64_t *n, am_error *err) {
    am_config c;
    am_status status = am_config_read(&c, json_incref(f->config), NULL, NULL, err);
    if (!status) {
        am_gguf_put_text(b, "general.architecture", am_str_of(f->arch));
        am_gguf_put_u32(b, "general.file_type", am_convert_ggml(f->o)->type == AM_GGML_Q4_0 ? 2 : 7);
        *n += 2;
        put_count(b, f, "block_count", c.n_layer, n);
        put_count(b, f, "context_length", c.n_ctx, n);
        put_count(b, f, "embedding_length", c.n_embd, n);
        put_count(b, f, "feed_forward_length", c.n_ff, n);
        put_count(b, f, "attention.head_count", c.n_head, n);
        put_count(b, f, "attention.head_count_kv", c.n_kv_head, n);
        put_count(b, f, "attention.key_length", c.head_dim, n);
        put_count(b, f, "attention.value_length", c.head_dim, n);
        put_count(b, f, "rope.dimension_count", c.head_dim, n);
        put_count(b, f, "vocab_size", c.n_vocab, n);
        put_number(b, f, "attention.layer_norm_rms_epsilon", (double)c.norm_eps, n);
        put_number(b, f, "rope.freq_base", c.rope.theta, n);
        if (c.rope.kind == AM_ROPE_LINEAR) {
            char name[96];
            snprintf(name, sizeof name, "%s.rope.scaling.type", f->arch);
            am_gguf_put_text(b, name, AM_STR("linear"));
            ++*n;
            put_number(b, f, "rope.scaling.factor", c.rope.factor, n);
        }
        for (uint32_t i = 0; i < c.n_eos && i < 1; i++) am_gguf_put_u32(b, "tokenizer.ggml.eos_token_id", (uint32_t)c.eos[i]), ++*n;
    }
    am_config_free(&c);
    if (!status && json_is_integer(json_object_get(f->config, "bos_token_id"))) {
        am_gguf_put_u32(b, "tokenizer.ggml.bos_token_id", (uint32_t)integer(f, "bos_token_id"));
        ++*n;
    }
    return status ? status : am_gguf_put_vocabulary(b, f->o->from, (uint32_t)integer(f, "vocab_size"), n, err);
}

static am_status layout(folder *f, am_buf *head, am_error *err) {
    uint32_t version = 3;
    uint64_t n = f->n, n_keys = 0, at = 0;
    am_buf_add(head, AM_STR("GGUF"));
    am_buf_append(head, &version, 4);
    am_buf_append(head, &n, 8);
    size_t keys_at = head->n;
    am_buf_append(head, &n_keys, 8);
    am_status status = put_keys(f, head, &n_keys, err);
    if (status) return status;
    memcpy(head->p + keys_at, &n_keys, 8);
    for (size_t i = 0; !status && i < f->n; i++) {
        planned *p = &f->list[i];
        uint32_t n_dim = p->n_in ? 2 : 1;
        uint64_t shape[2] = {p->n_in ? p->n_in : p->n_rows, p->n_rows}, length = strlen(p->name);
        p->at = at;
        p->n_bytes = p->n_rows * ((p->n_in ? p->n_in : 1u) / p->to->block * (uint64_t)p->to->block_bytes);
        am_buf_append(head, &length, 8);
        am_buf_append(head, p->name, length);
        am_buf_append(head, &n_dim, 4);
        am_buf_append(head, shape, 8 * n_dim);
        am_buf_append(head, &p->to->type, 4);
        if (am_buf_append(head, &at, 8)) status = am_fail(err, AM_ENOMEM, "no memory for a header");
        at += (p->n_bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    while (!status && head->n % ALIGN) status = am_buf_putc(head, 0);
    f->data_at = head->n;
    return status;
}

/* Rope's halves (i, i + half) of a head become neighbours (2i, 2i + 1). */
static uint64_t paired(uint64_t row, uint32_t dim) {
    if (dim == 0) return row;
    uint64_t r = row % dim, half = dim / 2;
    return row - r + 2 * (r % half) + r / half;
}

typedef struct row_job {
    const folder *f;
    const am_weight *w;
    const planned *p;
    size_t row_bytes;
    float *rows; /* [workers][n_in] */
} row_job;

static void row_task(void *arg, size_t o, size_t worker) {
    const row_job *j = arg;
    uint8_t *to = j->f->buffer + o * j->row_bytes;
    float *x = j->rows + worker * j->w->n_in;
    j->f->o->kernels->mat_row(x, j->w->mat, (uint32_t)o);
    for (uint32_t i = 0; i < j->w->n_in; i += j->p->to->block, to += j->p->to->block_bytes) {
        uint16_t h = am_f32_to_f16(x[i]);
        if (j->p->to->block == 1) memcpy(to, &h, 2);
        else am_convert_block(j->f->o, x + i, to);
    }
}

static am_status fill(const folder *f, const am_weight *w, const planned *p, size_t row_bytes, am_error *err) {
    if (w->n_in == 0) {
        memcpy(f->buffer, w->vector, w->n_out * sizeof(float));
        return AM_OK;
    }
    size_t n_workers = f->o->workers ? am_workers_count(f->o->workers) : 1;
    row_job j = {f, w, p, row_bytes, am_calloc(n_workers * w->n_in, sizeof(float))};
    if (!j.rows) return am_fail(err, AM_ENOMEM, "no memory for rows of '%s'", w->name);
    if (f->o->workers) am_workers_run(f->o->workers, w->n_out, row_task, &j);
    else
        for (size_t o = 0; o < w->n_out; o++) row_task(&j, o, 0);
    free(j.rows);
    return AM_OK;
}

static am_status write_weight(void *arg, const am_weight *w, am_error *err) {
    folder *f = arg;
    const planned *p = &f->list[json_integer_value(json_object_get(f->index, w->name))];
    size_t row_bytes = (size_t)(p->n_bytes / p->n_rows), n = 0;
    f->buffer = am_alloc_aligned(w->n_out * row_bytes);
    f->regions = am_calloc(w->n_out, sizeof *f->regions);
    am_status status = f->buffer && f->regions ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for tensor '%s'", w->name);
    for (uint32_t o = 0; !status && o < w->n_out; o++) {
        uint64_t at = f->data_at + p->at + paired(am_weight_row(w, o), p->pair_dim) * row_bytes;
        if (n && f->regions[n - 1].at + f->regions[n - 1].n == at) f->regions[n - 1].n += row_bytes;
        else f->regions[n++] = (am_region){at, row_bytes};
    }
    if (!status && !am_part_file_done(f->file, f->regions, n, f->buffer)) {
        status = fill(f, w, p, row_bytes, err);
        if (!status) status = am_part_file_write(f->file, f->regions, n, f->buffer, err);
    }
    free(f->buffer);
    free(f->regions);
    return status;
}

static am_status write_rope(folder *f, am_error *err) {
    const planned *p = &f->list[f->n - 1]; /* planned last */
    uint8_t zeros[ALIGN] = {0};
    am_region region = {f->data_at + p->at, (size_t)p->n_bytes}, pad = {region.at + region.n, (size_t)(ALIGN - p->n_bytes % ALIGN) % ALIGN};
    am_status status = f->rope_freqs ? am_part_file_write(f->file, &region, 1, f->rope_freqs, err) : AM_OK;
    return status || pad.n == 0 ? status : am_part_file_write(f->file, &pad, 1, zeros, err);
}

static am_status write_all(folder *f, am_convert_result *result, am_error *err) {
    am_model *model = NULL;
    am_buf head;
    am_sum plan, sum;
    am_model_options options = {.kernels = f->o->kernels, .survey = true, .weight = plan_weight, .weight_arg = f};
    am_buf_init(&head, 1u << 30);
    am_status status = am_model_load(f->o->from, &options, &model, err);
    am_model_free(model);
    model = NULL;
    if (!status) status = plan_rope(f, err);
    if (!status) status = layout(f, &head, err);
    if (!status) status = am_convert_plan(f->o, head.p, head.n, &plan, err);
    if (!status) status = am_part_file_open(f->o->to, head.p, head.n, &plan, &f->file, err);
    am_buf_free(&head);
    options = (am_model_options){.kernels = f->o->kernels, .workers = f->o->workers, .progress = f->o->progress, .progress_arg = f->o->progress_arg,
                                 .weight = write_weight, .weight_arg = f};
    if (!status) status = am_model_load(f->o->from, &options, &model, err);
    am_model_free(model);
    if (!status) status = write_rope(f, err);
    if (status) return status;
    const planned *last = &f->list[f->n - 1];
    result->n_bytes = f->data_at + last->at + (last->n_bytes + ALIGN - 1) / ALIGN * ALIGN;
    status = am_part_file_finish(f->file, result->n_bytes, &sum, err);
    if (status) return status;
    am_sum_hex(&sum, result->sum);
    result->n_tensors = f->n;
    result->n_steps = am_part_file_steps(f->file);
    result->n_resumed = am_part_file_resumed(f->file);
    return AM_OK;
}

static am_status open_config(folder *f, am_error *err) {
    char path[4096];
    am_str type;
    am_status status = am_fs_join(path, sizeof path, f->o->from, "config.json", err);
    if (!status) status = am_json_read(path, MAX_CONFIG_BYTES, &f->config, err);
    if (!status) status = am_json_str(f->config, "model_type", &type, err);
    if (status) return status;
    if (!(f->arch = gguf_arch(type.p)))
        return am_fail(err, AM_EUNSUPPORTED, "%s: 'model_type' \"%s\" does not become GGUF here; llama, mistral, qwen2 and qwen3 do", path, type.p);
    const json_t *window = json_object_get(f->config, "sliding_window");
    bool windows = json_is_integer(window) && !json_is_false(json_object_get(f->config, "use_sliding_window"));
    if (windows) return am_fail(err, AM_EUNSUPPORTED, "%s: 'sliding_window' %lld would be lost in GGUF", path, json_integer_value(window));
    json_int_t dim = integer(f, "head_dim"), heads = integer(f, "num_attention_heads");
    f->head_dim = (uint32_t)(dim ? dim : heads ? integer(f, "hidden_size") / heads : 0);
    return AM_OK;
}

am_status am_convert_folder(const am_convert_options *o, am_convert_result *result, am_error *err) {
    folder f = {.o = o, .index = json_object()};
    am_status status = f.index ? open_config(&f, err) : am_fail(err, AM_ENOMEM, "no memory to convert");
    if (!status) status = write_all(&f, result, err);
    am_part_file_close(f.file);
    json_decref(f.config);
    json_decref(f.index);
    free(f.rope_freqs);
    free(f.list);
    return status;
}
