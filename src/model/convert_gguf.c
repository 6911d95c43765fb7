/* Owns writing a GGUF file from another: the same keys and tensors in the same order, matrices in another form.
 *
 * Vectors and routers stay what they are, as do matrices that already have the form, those whose rows are no multiple of its block, and experts in MXFP4. A tensor is
 * written in slices of rows, each a step. The layout of a file is in gguf.h. */
#include "model/convert_int.h"

#include "model/ggml_pack.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE_BYTES = 32 << 20, ALIGN = 32, VERSION = 3 };

typedef struct planned {
    const am_gguf_tensor *from;
    const am_ggml_format *to;
    uint64_t at, n_bytes; /* from the start of the data */
} planned;

typedef struct writer {
    const am_convert_options *o;
    am_gguf *gguf;
    planned *list;
    size_t n;
    uint64_t data_at; /* of the data in the file */
    am_part_file *file;
    uint8_t *buffer;
    uint64_t done_bytes, total_bytes;
} writer;

/* The forms by their names in GGUF, with the number that general.file_type has for a file of them. */
static const struct {
    am_ggml_type type;
    uint32_t file_type;
} forms[] = {[AM_TO_GGUF_Q4_0] = {AM_GGML_Q4_0, 2}, [AM_TO_GGUF_Q8_0] = {AM_GGML_Q8_0, 7}, [AM_TO_GGUF_F16] = {AM_GGML_F16, 1},
             [AM_TO_GGUF_BF16] = {AM_GGML_BF16, 32}, [AM_TO_GGUF_F32] = {AM_GGML_F32, 0}};

const am_ggml_format *am_convert_ggml(const am_convert_options *o) { return am_ggml_format_of(forms[o->form].type); }
uint32_t am_convert_file_type(const am_convert_options *o) { return forms[o->form].file_type; }

static void put_text(am_buf *b, am_str s) {
    uint64_t n = s.n;
    am_buf_append(b, &n, 8);
    if (n) am_buf_append(b, s.p, s.n);
}

static size_t scalar_bytes(am_gguf_kind kind) {
    static const uint8_t bytes[AM_GGUF_N_KIND] = {[AM_GGUF_U8] = 1, [AM_GGUF_I8] = 1, [AM_GGUF_U16] = 2, [AM_GGUF_I16] = 2, [AM_GGUF_U32] = 4,
                                                  [AM_GGUF_I32] = 4, [AM_GGUF_F32] = 4, [AM_GGUF_BOOL] = 1, [AM_GGUF_U64] = 8, [AM_GGUF_I64] = 8,
                                                  [AM_GGUF_F64] = 8};
    return bytes[kind];
}

/* A value's bytes in the file, after its kind. Checked when the file was read: lengths lead nowhere outside. */
static am_status put_value(am_buf *b, const am_gguf_value *v, am_error *err) {
    uint32_t element = (uint32_t)v->element;
    if (v->kind == AM_GGUF_STRING) {
        put_text(b, (am_str){(const char *)v->p, (size_t)v->n});
    } else if (v->kind != AM_GGUF_ARRAY) {
        am_buf_append(b, v->p, scalar_bytes(v->kind));
    } else {
        const uint8_t *p = v->p;
        if (v->element == AM_GGUF_ARRAY) return am_fail(err, AM_EUNSUPPORTED, "key '%.*s': an array of arrays", (int)v->key.n, v->key.p);
        am_buf_append(b, &element, 4);
        am_buf_append(b, &v->n, 8);
        if (v->element == AM_GGUF_STRING) {
            for (uint64_t i = 0, n; i < v->n; i++, p += 8 + n) memcpy(&n, p, 8);
            am_buf_append(b, v->p, (size_t)(p - v->p));
        } else {
            am_buf_append(b, v->p, (size_t)v->n * scalar_bytes(v->element));
        }
    }
    return AM_OK;
}

static bool replaced(am_str key) {
    return am_str_eq(key, AM_STR("general.file_type")) || am_str_eq(key, AM_STR("general.alignment")) || am_str_starts(key, AM_STR("split."));
}

/* The keys; what says how the source was cut and quantised is said anew. */
static am_status put_keys(const writer *w, am_buf *b, am_error *err) {
    uint64_t n_tensors = w->n, n_keys = 1, at = b->n + 8;
    uint32_t u32 = AM_GGUF_U32, file_type = am_convert_file_type(w->o);
    am_buf_append(b, &n_tensors, 8);
    am_buf_append(b, &n_keys, 8);
    put_text(b, AM_STR("general.file_type"));
    am_buf_append(b, &u32, 4);
    am_status status = am_buf_append(b, &file_type, 4);
    for (size_t i = 0; !status && i < am_gguf_n_values(w->gguf); i++) {
        const am_gguf_value *v = am_gguf_value_at(w->gguf, i);
        uint32_t kind = (uint32_t)v->kind;
        if (replaced(v->key)) continue;
        put_text(b, v->key);
        am_buf_append(b, &kind, 4);
        status = put_value(b, v, err);
        n_keys++;
    }
    if (!status && (status = b->failed)) am_fail(err, status, "a header: %s", am_status_text(status));
    if (!status) memcpy(b->p + at, &n_keys, 8);
    return status;
}

static bool ends_in(am_str s, const char *suffix) {
    size_t n = strlen(suffix);
    return s.n >= n && memcmp(s.p + s.n - n, suffix, n) == 0;
}

static const am_ggml_format *form_of(const writer *w, const am_gguf_tensor *t) {
    const am_ggml_format *to = am_convert_ggml(w->o);
    bool keep = t->n_dim < 2 || t->shape[0] % to->block || ends_in(t->name, "ffn_gate_inp.weight") || !ends_in(t->name, ".weight");
    if (t->format->type == AM_GGML_MXFP4 && to->type != AM_GGML_F32) keep = true; /* no other form of that size has its values */
    return keep ? t->format : to;
}

static uint64_t rows_of(const am_gguf_tensor *t) { return t->shape[1] * t->shape[2] * t->shape[3]; }

static am_status layout(writer *w, am_buf *head, am_error *err) {
    uint32_t version = VERSION;
    uint64_t at = 0;
    if (!(w->list = am_calloc(w->n, sizeof *w->list))) return am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
    am_buf_add(head, AM_STR("GGUF"));
    am_buf_append(head, &version, 4);
    am_status status = put_keys(w, head, err);
    for (size_t i = 0; !status && i < w->n; i++) {
        const am_gguf_tensor *t = am_gguf_tensor_at(w->gguf, i);
        planned *p = &w->list[i];
        *p = (planned){t, form_of(w, t), at, 0};
        p->n_bytes = rows_of(t) * (t->shape[0] / p->to->block * p->to->block_bytes);
        put_text(head, t->name);
        am_buf_append(head, &t->n_dim, 4);
        am_buf_append(head, t->shape, 8 * t->n_dim);
        am_buf_append(head, &p->to->type, 4);
        if (am_buf_append(head, &at, 8)) status = am_fail(err, AM_ENOMEM, "no memory for a header");
        at += (p->n_bytes + ALIGN - 1) / ALIGN * ALIGN;
        w->total_bytes += p->n_bytes;
    }
    while (!status && head->n % ALIGN) status = am_buf_putc(head, 0);
    w->data_at = head->n;
    return status;
}

/* n values of the source's form, a whole number of its blocks. */
static void unpack(const am_ggml_format *f, const uint8_t *src, float *x, size_t n) {
    uint8_t codes[256];
    float scale[16], bias[16];
    for (size_t i = 0; i < n; i += f->block, src += f->block_bytes) {
        uint16_t h;
        switch (f->type) {
        case AM_GGML_F32: memcpy(&x[i], src, 4); break;
        case AM_GGML_F16: memcpy(&h, src, 2), x[i] = am_f16_to_f32(h); break;
        case AM_GGML_BF16: memcpy(&h, src, 2), x[i] = am_bf16_to_f32(h); break;
        default:
            f->unpack(src, codes, scale, bias);
            for (uint32_t k = 0; k < f->block; k++) x[i + k] = scale[k / f->group] * (float)codes[k] + bias[k / f->group];
        }
    }
}

typedef struct slice {
    const writer *w;
    const planned *p;
    uint64_t first, n_rows;
    float *rows; /* [workers][n_in] */
} slice;

static void slice_task(void *arg, size_t task, size_t worker) {
    const slice *s = arg;
    const am_gguf_tensor *t = s->p->from;
    size_t n_in = (size_t)t->shape[0], from_bytes = n_in / t->format->block * t->format->block_bytes;
    size_t to_bytes = n_in / s->p->to->block * s->p->to->block_bytes;
    float *x = s->rows + worker * n_in;
    uint8_t *to = s->w->buffer + task * to_bytes;
    unpack(t->format, t->p + (s->first + task) * from_bytes, x, n_in);
    am_ggml_pack(s->p->to, x, n_in, to);
}

static am_status fill(const writer *w, slice *s, am_error *err) {
    const am_gguf_tensor *t = s->p->from;
    if (s->p->to == t->format) {
        size_t row = (size_t)(t->n_bytes / rows_of(t));
        memcpy(w->buffer, t->p + s->first * row, s->n_rows * row);
        return AM_OK;
    }
    size_t n_workers = w->o->workers ? am_workers_count(w->o->workers) : 1;
    s->rows = am_calloc(n_workers * (size_t)t->shape[0], sizeof *s->rows);
    if (!s->rows) return am_fail(err, AM_ENOMEM, "no memory for rows of '%.*s'", (int)t->name.n, t->name.p);
    if (w->o->workers) am_workers_run(w->o->workers, (size_t)s->n_rows, slice_task, s);
    else
        for (uint64_t i = 0; i < s->n_rows; i++) slice_task(s, (size_t)i, 0);
    free(s->rows);
    return AM_OK;
}

static am_status write_tensor(writer *w, const planned *p, am_error *err) {
    uint64_t rows = rows_of(p->from), row = p->n_bytes / rows, most = SLICE_BYTES / row;
    am_status status = AM_OK;
    if (most == 0) most = 1;
    w->buffer = am_alloc_aligned((size_t)((most < rows ? most : rows) * row));
    if (!w->buffer) return am_fail(err, AM_ENOMEM, "no memory for tensor '%.*s'", (int)p->from->name.n, p->from->name.p);
    for (uint64_t first = 0; !status && first < rows; first += most) {
        slice s = {.w = w, .p = p, .first = first, .n_rows = rows - first < most ? rows - first : most};
        am_region region = {w->data_at + p->at + first * row, (size_t)(s.n_rows * row)};
        if (!am_part_file_done(w->file, &region, 1, w->buffer)) {
            status = fill(w, &s, err);
            if (!status) status = am_part_file_write(w->file, &region, 1, w->buffer, err);
        }
        w->done_bytes += region.n;
        if (!status && w->o->progress) w->o->progress(w->o->progress_arg, "converting", w->done_bytes, w->total_bytes);
    }
    free(w->buffer);
    am_gguf_drop(w->gguf, p->from, 0, (size_t)p->from->n_bytes);
    return status;
}

/* The last tensor's padding, so that the file's length is a multiple of the alignment as readers expect. */
static am_status pad(writer *w, uint64_t *n_bytes, am_error *err) {
    static const uint8_t zeros[ALIGN];
    const planned *last = &w->list[w->n - 1];
    uint64_t end = w->data_at + last->at + last->n_bytes, padding = (ALIGN - end % ALIGN) % ALIGN;
    uint8_t scratch[ALIGN];
    am_region region = {end, (size_t)padding};
    *n_bytes = end + padding;
    if (padding == 0 || am_part_file_done(w->file, &region, 1, scratch)) return AM_OK;
    return am_part_file_write(w->file, &region, 1, zeros, err);
}

static am_status write_all(writer *w, am_convert_result *result, am_error *err) {
    am_buf head;
    am_sum plan, sum;
    am_buf_init(&head, 1u << 30);
    w->n = am_gguf_n_tensors(w->gguf);
    am_status status = w->n ? layout(w, &head, err) : am_fail(err, AM_EFORMAT, "%s: no tensors", w->o->from);
    if (!status) status = am_convert_plan(w->o, head.p, head.n, &plan, err);
    if (!status) status = am_part_file_open(w->o->to, head.p, head.n, &plan, &w->file, err);
    am_buf_free(&head);
    for (size_t i = 0; !status && i < w->n; i++) status = write_tensor(w, &w->list[i], err);
    if (!status) status = pad(w, &result->n_bytes, err);
    if (!status) status = am_part_file_finish(w->file, result->n_bytes, &sum, err);
    if (status) return status;
    am_sum_hex(&sum, result->sum);
    result->n_tensors = w->n;
    result->n_steps = am_part_file_steps(w->file);
    result->n_resumed = am_part_file_resumed(w->file);
    return AM_OK;
}

am_status am_convert_gguf(const am_convert_options *o, am_convert_result *result, am_error *err) {
    writer w = {.o = o};
    am_status status = am_gguf_open(o->from, &w.gguf, err);
    if (!status) status = write_all(&w, result, err);
    am_part_file_close(w.file);
    am_gguf_free(w.gguf);
    free(w.list);
    return status;
}
