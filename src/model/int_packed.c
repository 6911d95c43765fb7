/* Owns the matrices of GPTQ and AWQ: integers in 32-bit words, with a zero point and a scale for each group of inputs; value = scale * (code - zero).
 *
 *   GPTQ  qweight [in / n][out]: a word holds n = 32 / bits inputs of one output, the first lowest
 *         qzeros  [groups][out / n]: a word holds n outputs, the first lowest; stored less one, modulo 2^bits (not so in checkpoint_format gptq_v2)
 *         g_idx   [in]: the group of each input; absent: input / group_size
 *   AWQ   qweight [in][out / 8], qzeros [groups][out / 8]: a word holds outputs 0, 2, 4, 6, 1, 3, 5, 7, the first lowest (version gemm)
 *   scales [groups][out] of both.
 *
 * Both are transposed to our rows of codes, with bias = -scale * zero: exact in f32, and in f16 where it fits. When the inputs of a group do not
 * lie together (GPTQ's desc_act), no run of inputs shares a scale, and the values become f16. Sources: the papers' arXiv 2210.17323 and 2306.00978,
 * and the layouts that their tools write. */
#include "model/weight_forms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_PER_TASK = 64 };

typedef struct int_packed {
    const am_matrix *m;
    const am_scheme *s;
    am_tensor weight, zeros, scales, g_idx;
    bool has_g_idx, scattered; /* g_idx is not input / group */
    uint32_t of, n;            /* stored outputs; codes a word */
    uint32_t stored_group, n_groups, group;
    uint8_t *codes;     /* [n_out][n_in * bits / 8] */
    float *scale, *bias; /* [n_out][n_in / group] */
    uint16_t *narrow;   /* the same two as f16 */
    uint16_t *rows;     /* [n_out][n_in], instead, when scattered */
} int_packed;

static uint32_t word_at(const am_tensor *t, size_t i) {
    uint32_t w;
    memcpy(&w, t->p + 4 * i, 4);
    return w;
}

static float scale_at(const int_packed *p, size_t g, size_t r) {
    const uint8_t *at = p->scales.p + (g * p->of + r) * am_st_dtype_bytes(p->scales.info->dtype);
    uint16_t h;
    float f;
    if (p->scales.info->dtype == AM_ST_F32) return memcpy(&f, at, 4), f;
    memcpy(&h, at, 2);
    return p->scales.info->dtype == AM_ST_F16 ? am_f16_to_f32(h) : am_bf16_to_f32(h);
}

/* Where in its word output r lies. */
static uint32_t shift_of(const int_packed *p, size_t r) {
    static const uint8_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return p->s->bits * (p->s->kind == AM_SCHEME_AWQ ? place[r % 8] : (uint32_t)(r % p->n));
}

static uint32_t zero_at(const int_packed *p, size_t g, size_t r) {
    uint32_t word = word_at(&p->zeros, g * (p->of / p->n) + r / p->n);
    return ((word >> shift_of(p, r)) + p->s->zero_offset) & ((1u << p->s->bits) - 1);
}

static uint32_t code_at(const int_packed *p, size_t i, size_t r) {
    uint32_t mask = (1u << p->s->bits) - 1;
    if (p->s->kind == AM_SCHEME_AWQ) return word_at(&p->weight, i * (p->of / p->n) + r / p->n) >> shift_of(p, r) & mask;
    return word_at(&p->weight, i / p->n * p->of + r) >> (p->s->bits * (i % p->n)) & mask;
}

static void take_codes(const int_packed *p, uint32_t o, size_t r) {
    size_t row_bytes = (size_t)p->m->n_in * p->s->bits / 8;
    uint8_t *dst = p->codes + o * row_bytes;
    if (p->s->kind == AM_SCHEME_GPTQ) { /* its words are already runs of our codes */
        for (size_t i = 0; i < p->m->n_in / p->n; i++) memcpy(dst + 4 * i, p->weight.p + 4 * (i * p->of + r), 4);
        return;
    }
    for (size_t i = 0; i < p->m->n_in; i += 2) dst[i / 2] = (uint8_t)(code_at(p, i, r) | code_at(p, i + 1, r) << 4);
}

static void take_row(const int_packed *p, uint32_t o, size_t r) {
    for (uint32_t i = 0; i < p->m->n_in; i++) {
        uint32_t g = word_at(&p->g_idx, i);
        float v = scale_at(p, g, r) * ((float)code_at(p, i, r) - (float)zero_at(p, g, r));
        p->rows[(size_t)o * p->m->n_in + i] = am_f32_to_f16(v);
    }
}

static void unpack_task(void *arg, size_t task, size_t worker) {
    (void)worker;
    const int_packed *p = arg;
    uint32_t first = (uint32_t)task * ROWS_PER_TASK, left = p->m->n_out - first, n_groups = p->m->n_in / p->group;
    for (uint32_t o = first; o < first + (left < ROWS_PER_TASK ? left : ROWS_PER_TASK); o++) {
        size_t r = am_matrix_row(o, p->m);
        if (p->scattered) {
            take_row(p, o, r);
            continue;
        }
        take_codes(p, o, r);
        for (uint32_t k = 0; k < n_groups; k++) {
            size_t g = (size_t)k * p->group / p->stored_group, at = (size_t)o * n_groups + k;
            p->scale[at] = scale_at(p, g, r);
            p->bias[at] = -p->scale[at] * (float)zero_at(p, g, r);
        }
    }
}

/* The finest of our groups' sizes that a stored group is made of, the longest first. */
static uint32_t our_group(uint32_t stored) {
    uint32_t group = 128;
    while (group > 16 && stored % group) group /= 2;
    return stored % group ? 0 : group;
}

static am_status check_type(const am_tensor *t, am_st_dtype dtype, am_error *err) {
    if (t->info->dtype == dtype || (dtype == AM_ST_I32 && t->info->dtype == AM_ST_U32)) return AM_OK;
    if (dtype == AM_ST_F16 && (t->info->dtype == AM_ST_BF16 || t->info->dtype == AM_ST_F32)) return AM_OK;
    return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s': dtype %s, must be %s", t->file, t->info->name.p, am_st_dtype_name(t->info->dtype),
                   am_st_dtype_name(dtype));
}

static am_status find_parts(am_loader *l, int_packed *p, am_error *err) {
    const am_matrix *m = p->m;
    uint64_t per_input = p->s->kind == AM_SCHEME_GPTQ ? p->n : 1, per_output = p->s->kind == AM_SCHEME_GPTQ ? 1 : p->n;
    am_status status = am_loader_find(l, m->path, ".qweight", &p->weight, err);
    if (!status) status = am_loader_find(l, m->path, ".qzeros", &p->zeros, err);
    if (!status) status = am_loader_find(l, m->path, ".scales", &p->scales, err);
    if (!status) status = check_type(&p->weight, AM_ST_I32, err);
    if (!status) status = check_type(&p->zeros, AM_ST_I32, err);
    if (!status) status = check_type(&p->scales, AM_ST_F16, err);
    if (!status) status = am_loader_shape(&p->weight, (uint64_t[]){m->n_in / per_input, p->of / per_output, 0}, err);
    if (!status) status = am_loader_shape(&p->zeros, (uint64_t[]){p->n_groups, p->of / p->n, 0}, err);
    if (!status) status = am_loader_shape(&p->scales, (uint64_t[]){p->n_groups, p->of, 0}, err);
    p->has_g_idx = p->s->kind == AM_SCHEME_GPTQ && am_loader_has_part(l, m->path, ".g_idx");
    if (status || !p->has_g_idx) return status;
    status = am_loader_find(l, m->path, ".g_idx", &p->g_idx, err);
    if (!status) status = check_type(&p->g_idx, AM_ST_I32, err);
    return status ? status : am_loader_shape(&p->g_idx, (uint64_t[]){m->n_in, 0}, err);
}

static am_status check_values(int_packed *p, am_error *err) {
    float most = 0;
    for (size_t i = 0; i < (size_t)p->n_groups * p->of; i++) {
        float s = fabsf(scale_at(p, 0, i));
        if (!isfinite(s)) return am_fail(err, AM_EFORMAT, "%s: tensor '%s': value %zu is not finite", p->scales.file, p->scales.info->name.p, i);
        if (s > most) most = s;
    }
    for (uint32_t i = 0; p->has_g_idx && i < p->m->n_in; i++) {
        uint32_t g = word_at(&p->g_idx, i);
        if (g >= p->n_groups)
            return am_fail(err, AM_EFORMAT, "%s: tensor '%s': value %u is %d, there are %u groups", p->g_idx.file, p->g_idx.info->name.p, i, (int)g,
                           p->n_groups);
        p->scattered = p->scattered || g != i / p->stored_group;
    }
    if (p->scattered && most * 255 > 65504)
        return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s': inputs in any order (desc_act) with a scale of %g", p->scales.file, p->scales.info->name.p,
                       (double)most);
    return AM_OK;
}

static am_status unpack(am_loader *l, int_packed *p, am_mat *mat, am_error *err) {
    size_t n = (size_t)p->m->n_out * p->m->n_in, n_scales = n / p->group, n_tasks = (p->m->n_out - 1) / ROWS_PER_TASK + 1;
    am_status status = check_values(p, err);
    if (status) return status;
    if (p->scattered) {
        p->rows = am_alloc_aligned(2 * n);
    } else {
        p->codes = am_alloc_aligned(n * p->s->bits / 8);
        p->scale = am_alloc_aligned(12 * n_scales);
    }
    if (!p->rows && (!p->codes || !p->scale)) return am_fail(err, AM_ENOMEM, "no memory to unpack tensor '%s'", p->weight.info->name.p);
    if (p->scale) {
        p->bias = p->scale + n_scales;
        p->narrow = (uint16_t *)(p->bias + n_scales);
    }
    am_loader_run(l, n_tasks, unpack_task, p);
    if (p->scattered) {
        mat->dtype = AM_F16;
        return am_loader_codes(l, mat, p->rows, NULL, NULL, err);
    }
    if (!am_narrow(p->narrow, p->scale, 2 * n_scales)) return am_loader_codes(l, mat, p->codes, p->scale, p->bias, err);
    mat->scale_dtype = AM_F16;
    return am_loader_codes(l, mat, p->codes, p->narrow, p->narrow + n_scales, err);
}

am_status am_int_packed_load(am_loader *l, const am_matrix *m, am_mat *mat, am_error *err) {
    const am_scheme *s = &l->config->scheme;
    int_packed p = {.m = m, .s = s, .of = m->of ? m->of : m->n_out};
    if (s->kind != AM_SCHEME_GPTQ && s->kind != AM_SCHEME_AWQ)
        return am_fail(err, AM_EFORMAT, "tensor '%s%s%s.qweight' is there, but config.json's 'quantization_config' names neither gptq nor awq", l->root,
                       l->prefix, m->path);
    p.n = 32 / s->bits;
    p.stored_group = s->group ? s->group : m->n_in;
    p.group = our_group(p.stored_group);
    if (m->n_expert || m->transposed || m->underscored || m->n_in % p.stored_group || m->n_in % p.n || p.of % p.n || p.group == 0)
        return am_fail(err, AM_EFORMAT, "matrix '%s%s%s': %u x %u cannot be in groups of %u and words of %u codes", l->root, l->prefix, m->path, p.of,
                       m->n_in, p.stored_group, p.n);
    p.n_groups = m->n_in / p.stored_group;
    mat->dtype = s->bits == 4 ? AM_Q4 : AM_Q8;
    mat->scale_dtype = AM_F32;
    mat->group = p.group;
    am_status status = find_parts(l, &p, err);
    if (!status) status = l->options->survey ? am_loader_codes(l, mat, NULL, NULL, NULL, err) : unpack(l, &p, mat, err);
    free(p.codes);
    free(p.scale);
    free(p.rows);
    if (status) return status;
    am_loader_note(l, m, "%s %u-bit g%u", s->kind == AM_SCHEME_GPTQ ? "gptq" : "awq", s->bits, p.stored_group);
    const am_tensor *parts[] = {&p.weight, &p.zeros, &p.scales, &p.g_idx};
    for (size_t i = 0; i < (p.has_g_idx ? 4u : 3u); i++) am_loader_finish(l, parts[i], parts[i]->p, parts[i]->info->n_bytes);
    return AM_OK;
}
