/* Owns matrices of 8-bit floats with a scale for each block of rows and columns, each row, or the whole matrix (DeepSeek's weight_scale_inv,
 * others' weight_scale): value = e4m3 * scale.
 *
 * The grid of e4m3 spans 18 bits, so no form of codes with one scale a group holds it: the values become f16, eleven significant bits where the
 * stored ones have four. A matrix whose values f16 cannot reach is kept as f32. The scale of activations (input_scale) is for kernels
 * that quantise those too; ours do not. */
#include "model/weight_forms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_PER_TASK = 32 };

typedef struct fp8 {
    const am_matrix *m;
    const uint8_t *codes; /* the tensor, rows of n_in */
    float *scale;         /* [rows of blocks][n_scale_in] */
    uint32_t n_scale_in, block_out, block_in;
    float decode[256];
    void *rows; /* f16 or f32 */
    bool wide;
} fp8;

/* 1 sign, 4 exponent (bias 7), 3 mantissa; no infinities, all ones is NaN. Source: arXiv 2209.05433. */
static float e4m3(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if ((code & 127) == 127) return NAN;
    float v = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return code & 128 ? -v : v;
}

static void decode_task(void *arg, size_t task, size_t worker) {
    (void)worker;
    const fp8 *f = arg;
    uint32_t n_in = f->m->n_in, first = (uint32_t)task * ROWS_PER_TASK, left = f->m->n_out - first;
    for (uint32_t o = first; o < first + (left < ROWS_PER_TASK ? left : ROWS_PER_TASK); o++) {
        size_t r = am_matrix_row(o, f->m);
        const uint8_t *code = f->codes + r * n_in;
        const float *scale = f->scale + r / f->block_out * f->n_scale_in;
        for (uint32_t i = 0; i < n_in; i++) {
            float v = f->decode[code[i]] * scale[i / f->block_in];
            if (f->wide) ((float *)f->rows)[(size_t)o * n_in + i] = v;
            else ((uint16_t *)f->rows)[(size_t)o * n_in + i] = am_f32_to_f16(v);
        }
    }
}

static const char *scale_suffix(const am_loader *l, const am_matrix *m) {
    return am_loader_has_part(l, m->path, ".weight_scale_inv") ? ".weight_scale_inv" : ".weight_scale";
}

bool am_fp8_is(const am_loader *l, const am_matrix *m) { return am_loader_has_part(l, m->path, scale_suffix(l, m)); }

/* How the scales lie over `of` rows: by block, by row, or one. */
static am_status scale_shape(fp8 *f, const am_scheme *s, const am_tensor *t, uint32_t of, am_error *err) {
    uint64_t n = 1;
    for (uint32_t d = 0; d < t->info->n_dim; d++) n *= t->info->shape[d]; /* no overflow: the bytes are there */
    f->block_out = of;
    f->block_in = f->m->n_in;
    f->n_scale_in = 1;
    if (s->block_out) {
        f->block_out = s->block_out;
        f->block_in = s->block_in;
        f->n_scale_in = (f->m->n_in - 1) / s->block_in + 1;
        return am_loader_shape(t, (uint64_t[]){(of - 1) / s->block_out + 1, f->n_scale_in, 0}, err);
    }
    if (n == 1) return AM_OK;
    f->block_out = 1;
    return am_loader_shape(t, t->info->n_dim == 1 ? (uint64_t[]){of, 0} : (uint64_t[]){of, 1, 0}, err);
}

static am_status read_scales(fp8 *f, const am_tensor *t, am_error *err) {
    size_t size = am_st_dtype_bytes(t->info->dtype), n = t->info->n_bytes / size;
    if (!(f->scale = am_calloc(n, sizeof *f->scale))) return am_fail(err, AM_ENOMEM, "no memory for the scales of '%s'", t->info->name.p);
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        if (size == 4) memcpy(&f->scale[i], t->p + 4 * i, 4);
        else memcpy(&h, t->p + 2 * i, 2), f->scale[i] = am_bf16_to_f32(h);
        if (!isfinite(f->scale[i]))
            return am_fail(err, AM_EFORMAT, "%s: tensor '%s': value %zu is not finite", t->file, t->info->name.p, i);
        if (fabsf(f->scale[i]) * 448 > 65504) f->wide = true;
    }
    return AM_OK;
}

static am_status check_codes(const am_tensor *t, am_error *err) {
    for (size_t i = 0; i < t->info->n_bytes; i++)
        if ((t->p[i] & 127) == 127) return am_fail(err, AM_EFORMAT, "%s: tensor '%s': value %zu is not a number", t->file, t->info->name.p, i);
    return AM_OK;
}

static am_status decode(am_loader *l, fp8 *f, const am_tensor *weight, const am_tensor *scale, am_error *err) {
    am_status status = read_scales(f, scale, err);
    if (!status) status = check_codes(weight, err);
    if (status) return status;
    for (int c = 0; c < 256; c++) f->decode[c] = (c & 127) == 127 ? 0 : e4m3((uint8_t)c);
    f->codes = weight->p;
    f->rows = am_alloc_aligned((size_t)f->m->n_out * f->m->n_in * (f->wide ? 4 : 2));
    if (!f->rows) return am_fail(err, AM_ENOMEM, "no memory to unpack tensor '%s'", weight->info->name.p);
    am_loader_run(l, (f->m->n_out - 1) / ROWS_PER_TASK + 1, decode_task, f);
    return AM_OK;
}

am_status am_fp8_load(am_loader *l, const am_matrix *m, am_mat *mat, am_error *err) {
    fp8 f = {.m = m};
    am_tensor weight, scale;
    uint32_t of = m->of ? m->of : m->n_out;
    am_status status = am_loader_find(l, m->path, ".weight", &weight, err);
    if (!status) status = am_loader_find(l, m->path, scale_suffix(l, m), &scale, err);
    if (status) return status;
    if (m->n_expert || m->transposed || m->underscored || weight.info->dtype != AM_ST_F8_E4M3)
        return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s': dtype %s with a scale beside it, only rows of F8_E4M3 can be used here", weight.file,
                       weight.info->name.p, am_st_dtype_name(weight.info->dtype));
    if (scale.info->dtype != AM_ST_F32 && scale.info->dtype != AM_ST_BF16)
        return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s': dtype %s, only F32 and BF16 can be used here", scale.file, scale.info->name.p,
                       am_st_dtype_name(scale.info->dtype));
    status = am_loader_shape(&weight, (uint64_t[]){of, m->n_in, 0}, err);
    if (!status) status = scale_shape(&f, &l->config->scheme, &scale, of, err);
    if (!status && !l->options->survey) status = decode(l, &f, &weight, &scale, err);
    mat->dtype = f.wide ? AM_F32 : AM_F16;
    if (!status) status = am_loader_codes(l, mat, f.rows, NULL, NULL, err);
    free(f.rows);
    free(f.scale);
    if (status) return status;
    am_loader_note(l, m, "fp8 e4m3");
    am_loader_finish(l, &weight, weight.p, weight.info->n_bytes);
    am_loader_finish(l, &scale, scale.p, scale.info->n_bytes);
    return AM_OK;
}
