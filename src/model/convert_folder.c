/* Owns writing a GGUF file from a folder: any architecture that has a name in GGUF, in any form that loads.
 *
 * As for MLX, the architecture's own loading lists and hands over the weights; gguf_model.c has their names, gguf_keys.c the keys, gguf_text.c the vocabulary.
 * What lies otherwise in GGUF is turned here: experts are stacks, rows of q and k go back to neighbours as pairs of rope where llama.cpp wants them so,
 * DeepSeek's kv_b is two stacks with K transposed, norms of Gemma hold 1 more, rope factors are tensors. Source: llama.cpp's convert_hf_to_gguf.py and
 * src/models, as documentation of the format. */
#include "model/convert_int.h"

#include "model/ggml_pack.h"
#include "model/gguf_model.h"
#include "model/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 32, MAX_FACTORS = 2 };

/* A tensor of the file. */
typedef struct planned {
    char name[AM_CONVERT_NAME];
    uint32_t n_rows, n_in, n_expert; /* n_in 0: vectors; n_expert 0: no stack */
    uint32_t pair_dim;               /* rows are pairs of rope as neighbours */
    uint32_t scaled_from;            /* rows from here on are multiplied by scale */
    float scale, plus;               /* plus: added to every value before */
    const am_ggml_format *to;
    uint64_t at, n_bytes;
} planned;

/* Divisors of rope's frequencies, a tensor of the file too. */
typedef struct factors {
    float *v;
    size_t planned; /* place in list */
} factors;

typedef struct folder {
    const am_convert_options *o;
    am_model *model;  /* a survey */
    const char *arch; /* in GGUF */
    json_t *index;    /* name -> place in list */
    planned *list;
    size_t n, cap;
    factors factors[MAX_FACTORS];
    size_t n_factors;
    uint64_t data_at;
    am_part_file *file;
} folder;

/* Where a weight goes: a tensor's name, which of its stack, whether its rows are counted by themselves. */
typedef struct target {
    char name[AM_CONVERT_NAME];
    uint32_t expert;
    bool apart;
} target;

static bool is_kv_b(const am_weight *w) { return strstr(w->name, ".self_attn.kv_b_proj") != NULL; }

static am_status target_of(const folder *f, const am_weight *w, target *t, am_error *err) {
    char ours[AM_CONVERT_NAME];
    int64_t expert;
    t->apart = am_convert_name(w, ours);
    if (!am_gguf_name_of(f->model->arch->model_type, ours, t->name, sizeof t->name, &expert))
        return am_fail(err, AM_EUNSUPPORTED, "tensor '%s' has no place in a GGUF file of \"%s\"", w->name, f->arch);
    t->expert = expert >= 0 ? (uint32_t)expert : w->expert;
    return AM_OK;
}

static am_status add(folder *f, const planned *p, am_error *err) {
    if (json_object_get(f->index, p->name)) return AM_OK;
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 256;
        planned *list = realloc(f->list, cap * sizeof *list);
        if (!list) return am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
        f->list = list;
        f->cap = cap;
    }
    f->list[f->n] = *p;
    if (json_object_set_new(f->index, p->name, json_integer((json_int_t)f->n))) return am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
    f->n++;
    return AM_OK;
}

static planned *find(const folder *f, const char *name) { return &f->list[json_integer_value(json_object_get(f->index, name))]; }

/* What a matrix is written as: its own MXFP4, which no other form of that size can hold, else the form asked for where its blocks divide the rows. */
static const am_ggml_format *form_of(const folder *f, const char *name, const char *form, uint32_t n_in) {
    const am_ggml_format *to = am_convert_ggml(f->o);
    if (n_in == 0 || strstr(name, ".ffn_gate_inp.")) return am_ggml_format_of(AM_GGML_F32);
    if (to->type != AM_GGML_F32 && strcmp(form, "mxfp4") == 0) return am_ggml_format_of(AM_GGML_MXFP4);
    return n_in % to->block ? am_ggml_format_of(AM_GGML_F16) : to;
}

/* The two stacks that kv_b becomes, by the name of the whole. */
static void kv_b_parts(const am_model *m, const char *whole, planned *k, planned *v) {
    int n = (int)(strlen(whole) - strlen("attn_kv_b.weight"));
    *k = (planned){.n_rows = m->kv_lora, .n_in = m->nope_dim, .n_expert = m->config.n_head};
    *v = (planned){.n_rows = m->value_dim, .n_in = m->kv_lora, .n_expert = m->config.n_head, .scale = 1};
    snprintf(k->name, sizeof k->name, "%.*sattn_k_b.weight", n, whole);
    snprintf(v->name, sizeof v->name, "%.*sattn_v_b.weight", n, whole);
}

static am_status plan_kv_b(folder *f, const am_weight *w, const char *name, am_error *err) {
    planned k, v;
    kv_b_parts(f->model, name, &k, &v);
    k.to = form_of(f, k.name, w->form, k.n_in);
    v.to = form_of(f, v.name, w->form, v.n_in);
    am_status status = add(f, &k, err);
    return status ? status : add(f, &v, err);
}

/* What llama.cpp has no key for and a weight can hold. */
static void plan_scale(const folder *f, planned *p) {
    const am_model *m = f->model;
    float turned = m->ropes[0].scale;
    p->plus = strncmp(f->arch, "gemma", 5) == 0 && p->n_in == 0 && strstr(p->name, "norm.") ? 1 : 0;
    p->scale = 1;
    if (strstr(p->name, strcmp(f->arch, "gemma3") == 0 ? ".attn_q_norm." : ".attn_q.")) p->scale = (float)am_gguf_query_factor(m);
    if (m->kv_lora && strstr(p->name, ".attn_kv_a_mqa.")) { /* of k alone, and so squared */
        p->scale = turned * turned;
        p->scaled_from = m->kv_lora;
    }
}

static am_status plan_weight(void *arg, const am_weight *w, am_error *err) {
    folder *f = arg;
    target t;
    am_status status = target_of(f, w, &t, err);
    if (status) return status;
    if (is_kv_b(w)) return plan_kv_b(f, w, t.name, err);
    planned p = {.n_rows = t.apart ? w->n_out : w->n_rows, .n_in = w->n_in, .n_expert = w->n_expert};
    memcpy(p.name, t.name, sizeof p.name);
    if (strstr(p.name, "_exps.")) p.n_expert = f->model->n_expert;
    if (am_gguf_pairs(f->arch) && (strstr(p.name, ".attn_q.") || strstr(p.name, ".attn_k."))) p.pair_dim = f->model->config.head_dim;
    p.to = form_of(f, p.name, w->form, w->n_in);
    plan_scale(f, &p);
    return add(f, &p, err);
}

static am_status plan_factors(folder *f, const char *name, const am_rope_config *rope, double n_ctx, am_error *err) {
    uint32_t dims = am_rope_dims(rope, f->model->config.head_dim);
    am_rope_config plain = {.kind = AM_ROPE_PLAIN, .theta = rope->theta};
    float *v = am_calloc(dims / 2, sizeof *v);
    if (!v) return am_fail(err, AM_ENOMEM, "no memory for rope factors");
    for (uint32_t i = 0; i < dims / 2; i++) v[i] = (float)(am_rope_freq(&plain, dims, i, 0) / am_rope_freq(rope, dims, i, n_ctx));
    f->factors[f->n_factors++] = (factors){v, f->n};
    planned p = {.n_rows = dims / 2, .to = am_ggml_format_of(AM_GGML_F32)};
    snprintf(p.name, sizeof p.name, "%s", name);
    return add(f, &p, err);
}

static am_status plan_rope(folder *f, am_error *err) {
    const am_rope_config *rope = &f->model->config.rope;
    if (rope->kind == AM_ROPE_LLAMA3 || rope->kind == AM_ROPE_DIVISORS) return plan_factors(f, "rope_freqs.weight", rope, 0, err);
    if (rope->kind != AM_ROPE_LONGROPE) return AM_OK;
    am_status status = plan_factors(f, "rope_factors_long.weight", rope, rope->original_ctx + 1, err);
    return status ? status : plan_factors(f, "rope_factors_short.weight", rope, rope->original_ctx, err);
}

static am_status put_tensor(planned *p, am_buf *head, uint64_t *at, am_error *err) {
    uint64_t shape[3], length = strlen(p->name), n_stack = p->n_expert ? p->n_expert : 1;
    uint32_t n_dim = 0;
    if (p->n_in) shape[n_dim++] = p->n_in;
    shape[n_dim++] = p->n_rows;
    if (p->n_expert) shape[n_dim++] = p->n_expert;
    p->at = *at;
    p->n_bytes = n_stack * p->n_rows * ((p->n_in ? p->n_in : 1u) / p->to->block * (uint64_t)p->to->block_bytes);
    *at += (p->n_bytes + ALIGN - 1) / ALIGN * ALIGN;
    am_buf_append(head, &length, 8);
    am_buf_append(head, p->name, length);
    am_buf_append(head, &n_dim, 4);
    am_buf_append(head, shape, 8 * n_dim);
    am_buf_append(head, &p->to->type, 4);
    return am_buf_append(head, &p->at, 8) ? am_fail(err, AM_ENOMEM, "no memory for a header") : AM_OK;
}

static am_status layout(folder *f, am_buf *head, am_error *err) {
    uint32_t version = 3;
    uint64_t n = f->n, n_keys = 1, at = 0;
    am_buf_add(head, AM_STR("GGUF"));
    am_buf_append(head, &version, 4);
    am_buf_append(head, &n, 8);
    size_t keys_at = head->n;
    am_buf_append(head, &n_keys, 8);
    am_gguf_put_u32(head, "general.file_type", am_convert_file_type(f->o));
    am_status status = am_gguf_put_model(head, f->model, &n_keys, err);
    if (!status) status = am_gguf_put_text_keys(head, f->o->from, f->model, &n_keys, err);
    if (!status && (status = head->failed)) am_fail(err, status, "a header: %s", am_status_text(status));
    if (!status) memcpy(head->p + keys_at, &n_keys, 8);
    for (size_t i = 0; !status && i < f->n; i++) status = put_tensor(&f->list[i], head, &at, err);
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

static size_t row_bytes(const planned *p) { return (size_t)(p->n_bytes / p->n_rows / (p->n_expert ? p->n_expert : 1)); }

/* Rows of one weight on their way to one tensor. */
typedef struct row_job {
    const folder *f;
    const am_weight *w;
    const planned *p;
    const uint64_t *rows; /* [n_out]: of the tensor's one stack */
    uint8_t *buffer;
    float *scratch; /* [workers][n_in] */
} row_job;

static float changed(const planned *p, uint64_t row, float v) { return (v + p->plus) * (row >= p->scaled_from ? p->scale : 1); }

static void row_task(void *arg, size_t o, size_t worker) {
    const row_job *j = arg;
    uint32_t n = j->w->n_in;
    float *x = j->scratch + worker * n;
    j->f->o->kernels->mat_row(x, j->w->mat, (uint32_t)o);
    for (uint32_t i = 0; i < n; i++) x[i] = changed(j->p, j->rows[o], x[i]);
    am_ggml_pack(j->p->to, x, n, j->buffer + o * row_bytes(j->p));
}

/* task: a head's K, transposed. */
static void head_task(void *arg, size_t task, size_t worker) {
    const row_job *j = arg;
    const am_model *m = j->f->model;
    uint32_t latent = m->kv_lora, nope = m->nope_dim, rows = nope + m->value_dim;
    float *x = j->scratch + worker * (size_t)latent * (nope + 1), *turned = x + latent;
    for (uint32_t i = 0; i < nope; i++) {
        j->f->o->kernels->mat_row(x, j->w->mat, (uint32_t)task * rows + i);
        for (uint32_t k = 0; k < latent; k++) turned[(size_t)k * nope + i] = x[k];
    }
    for (uint32_t k = 0; k < latent; k++) am_ggml_pack(j->p->to, turned + (size_t)k * nope, nope, j->buffer + (task * latent + k) * row_bytes(j->p));
}

static am_status run(row_job *j, am_workers_fn *task, size_t n_tasks, size_t n_scratch, am_error *err) {
    am_workers *workers = j->f->o->workers;
    j->scratch = am_calloc((workers ? am_workers_count(workers) : 1) * n_scratch, sizeof *j->scratch);
    if (!j->scratch) return am_fail(err, AM_ENOMEM, "no memory for rows of '%s'", j->w->name);
    if (workers) am_workers_run(workers, n_tasks, task, j);
    else
        for (size_t i = 0; i < n_tasks; i++) task(j, i, 0);
    free(j->scratch);
    return AM_OK;
}

static am_status fill(row_job *j, am_error *err) {
    if (strstr(j->p->name, ".attn_k_b.") && is_kv_b(j->w))
        return run(j, head_task, j->f->model->config.n_head, (size_t)j->f->model->kv_lora * (j->f->model->nope_dim + 1), err);
    if (j->w->n_in) return run(j, row_task, j->w->n_out, j->w->n_in, err);
    for (uint32_t o = 0; o < j->w->n_out; o++) {
        float v = changed(j->p, j->rows[o], j->w->vector[o]);
        memcpy(j->buffer + 4 * o, &v, 4);
    }
    return AM_OK;
}

/* rows[n]: where they lie in which of the tensor's stacks; what an interrupted run wrote is left. */
static am_status write_rows(const folder *f, const am_weight *w, const planned *p, uint32_t expert, const uint64_t *rows, size_t n, am_error *err) {
    size_t bytes = row_bytes(p), n_regions = 0;
    row_job j = {.f = f, .w = w, .p = p, .rows = rows, .buffer = am_alloc_aligned(n * bytes)};
    am_region *regions = am_calloc(n, sizeof *regions);
    am_status status = j.buffer && regions ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for tensor '%s'", w->name);
    for (size_t o = 0; !status && o < n; o++) {
        uint64_t at = f->data_at + p->at + ((uint64_t)expert * p->n_rows + rows[o]) * bytes;
        if (n_regions && regions[n_regions - 1].at + regions[n_regions - 1].n == at) regions[n_regions - 1].n += bytes;
        else regions[n_regions++] = (am_region){at, bytes};
    }
    if (!status && !am_part_file_done(f->file, regions, n_regions, j.buffer)) {
        status = fill(&j, err);
        if (!status) status = am_part_file_write(f->file, regions, n_regions, j.buffer, err);
    }
    free(j.buffer);
    free(regions);
    return status;
}

static am_status write_weight(void *arg, const am_weight *w, am_error *err) {
    const folder *f = arg;
    const am_model *m = f->model;
    target t;
    planned k, v;
    am_status status = target_of(f, w, &t, err);
    if (status) return status;
    const planned *p = NULL;
    bool heads = is_kv_b(w) && w->n_out == w->n_rows, values = is_kv_b(w) && !heads;
    if (is_kv_b(w)) {
        kv_b_parts(m, t.name, &k, &v);
        if (values) t.expert = (uint32_t)(am_weight_row(w, 0) / (m->nope_dim + m->value_dim));
        p = find(f, heads ? k.name : v.name);
    } else {
        p = find(f, t.name);
    }
    size_t n = heads ? (size_t)p->n_rows * p->n_expert : w->n_out;
    uint64_t *rows = am_calloc(n, sizeof *rows);
    if (!rows) return am_fail(err, AM_ENOMEM, "no memory for rows of '%s'", w->name);
    for (size_t o = 0; o < n; o++) rows[o] = heads || values || t.apart ? o : paired(am_weight_row(w, (uint32_t)o), p->pair_dim);
    status = write_rows(f, w, p, t.expert, rows, n, err);
    free(rows);
    return status;
}

static am_status write_bytes(const folder *f, uint64_t at, const void *bytes, size_t n, am_error *err) {
    am_region region = {at, n};
    uint8_t scratch[4096];
    if (n <= sizeof scratch && am_part_file_done(f->file, &region, 1, scratch)) return AM_OK;
    return am_part_file_write(f->file, &region, 1, bytes, err);
}

/* Rope factors, and the last tensor's padding. */
static am_status write_rest(const folder *f, uint64_t *n_bytes, am_error *err) {
    static const uint8_t zeros[ALIGN];
    const planned *last = &f->list[f->n - 1];
    uint64_t end = f->data_at + last->at + last->n_bytes, padding = (ALIGN - end % ALIGN) % ALIGN;
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < f->n_factors; i++) {
        const planned *p = &f->list[f->factors[i].planned];
        status = write_bytes(f, f->data_at + p->at, f->factors[i].v, (size_t)p->n_bytes, err);
    }
    *n_bytes = end + padding;
    return status || padding == 0 ? status : write_bytes(f, end, zeros, (size_t)padding, err);
}

static am_status load_with(const folder *f, am_model_options *options, am_error *err) {
    am_model *model = NULL;
    options->kernels = f->o->kernels;
    am_status status = am_model_load(f->o->from, options, &model, err);
    am_model_free(model);
    return status;
}

static am_status plan(folder *f, am_buf *head, am_error *err) {
    am_status status = am_model_load(f->o->from, &(am_model_options){.kernels = f->o->kernels, .survey = true}, &f->model, err);
    if (status) return status;
    f->arch = am_gguf_arch_of(f->model->arch->model_type);
    if (!f->arch) return am_fail(err, AM_EUNSUPPORTED, "%s: 'model_type' \"%s\" has no name in GGUF", f->o->from, f->model->arch->model_type);
    status = load_with(f, &(am_model_options){.survey = true, .weight = plan_weight, .weight_arg = f}, err);
    if (!status) status = plan_rope(f, err);
    return status ? status : layout(f, head, err);
}

static am_status write_all(folder *f, am_convert_result *result, am_error *err) {
    am_buf head;
    am_sum key, sum;
    am_buf_init(&head, 1u << 30);
    am_status status = plan(f, &head, err);
    if (!status) status = am_convert_plan(f->o, head.p, head.n, &key, err);
    if (!status) status = am_part_file_open(f->o->to, head.p, head.n, &key, &f->file, err);
    am_buf_free(&head);
    if (!status)
        status = load_with(f, &(am_model_options){.workers = f->o->workers, .progress = f->o->progress, .progress_arg = f->o->progress_arg,
                                                  .weight = write_weight, .weight_arg = f}, err);
    if (!status) status = write_rest(f, &result->n_bytes, err);
    if (!status) status = am_part_file_finish(f->file, result->n_bytes, &sum, err);
    if (status) return status;
    am_sum_hex(&sum, result->sum);
    result->n_tensors = f->n;
    result->n_steps = am_part_file_steps(f->file);
    result->n_resumed = am_part_file_resumed(f->file);
    return AM_OK;
}

am_status am_convert_folder(const am_convert_options *o, am_convert_result *result, am_error *err) {
    folder f = {.o = o, .index = json_object()};
    am_status status = f.index ? write_all(&f, result, err) : am_fail(err, AM_ENOMEM, "no memory to convert");
    am_part_file_close(f.file);
    am_model_free(f.model);
    json_decref(f.index);
    for (size_t i = 0; i < f.n_factors; i++) free(f.factors[i].v);
    free(f.list);
    return status;
}
