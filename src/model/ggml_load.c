/* Owns the way of ggml's blocks into panels: sixteen rows at a time are unpacked and packed by one worker, so that nothing but the panels is ever as
 * large as a matrix, and pages are first touched by whoever fills them.
 *
 * Scales of two levels are kept so. Others are kept as f16 where f16 holds all of a matrix's scales and biases exactly, else as f32. Which it is turns out while packing, so
 * formats whose scale is one f16 a group are tried as f16 first, and packed again in the rare case that f16 does not hold one. */
#include "model/weight_forms.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ggml_job {
    const am_ggml_format *f;
    const am_mat *mat;
    const uint8_t *rows; /* [n_out] rows of blocks */
    size_t row_bytes;
    uint8_t *dst;
    uint8_t *scratch;    /* [workers][scratch_bytes]: codes, scales and biases as f32, as f16 or in levels */
    uint8_t index[256];  /* of a value in the format's book */
    size_t scratch_bytes, n_groups;
    atomic_bool wide;          /* f16 does not hold them */
    atomic_size_t not_finite;  /* 1 + the group where that was found; 0: nowhere */
} ggml_job;

/* Two codes of 4 bits a byte, from eight bytes of one code each. */
static void put_nibbles(uint8_t *to, const uint8_t *codes, uint32_t n) {
    for (uint32_t i = 0; i < n; i += 8) {
        uint64_t x;
        memcpy(&x, codes + i, 8);
        x = (x | x >> 4) & 0x00ff00ff00ff00ff;
        x = (x | x >> 8) & 0x0000ffff0000ffff;
        uint32_t four = (uint32_t)(x | x >> 16);
        memcpy(to + i / 2, &four, 4);
    }
}

static void unpack_row(const ggml_job *j, const uint8_t *src, uint8_t *codes, float *scales, float *biases) {
    const am_ggml_format *f = j->f;
    bool four = j->mat->dtype == AM_Q4;
    size_t groups = f->block / f->group;
    uint8_t block[256];
    for (uint32_t i = 0; i < j->mat->n_in; i += f->block, src += f->block_bytes, scales += groups, biases += groups) {
        f->unpack(src, four ? block : codes + i, scales, biases);
        for (uint32_t b = 0; f->book && b < f->block; b++) block[b] = j->index[block[b]];
        if (four) put_nibbles(codes + i / 2, block, f->block);
    }
}

static bool all_finite(const float *v, size_t n, size_t *where) {
    float sum = 0; /* of zeros, unless something is not finite */
    for (size_t i = 0; i < n; i++) sum += v[i] * 0;
    for (size_t i = 0; sum != 0 && i < n; i++) /* true of NaN too */
        if (!isfinite(v[i])) return *where = i, false;
    return true;
}

/* A panel's scales as they are stored: bytes of n groups each, and the level above. */
static void pack_levels(const ggml_job *j, uint8_t *dst, const am_mat *panel, const uint8_t *rows, const uint8_t *codes, uint8_t *scratch) {
    const am_ggml_format *f = j->f;
    size_t n_blocks = panel->n_in / f->block, groups = f->block / f->group;
    uint16_t *upper = (uint16_t *)(void *)scratch, *upper_bias = upper + AM_PANEL * n_blocks, both[2];
    uint8_t *scales = (uint8_t *)(upper_bias + AM_PANEL * n_blocks), *biases = scales + AM_PANEL * j->n_groups;
    for (size_t i = 0; i < panel->n_out * n_blocks; i++) {
        f->levels(rows + i / n_blocks * j->row_bytes + i % n_blocks * f->block_bytes, scales + i * groups, biases + i * groups, both);
        upper[i] = both[0];
        if (!f->zero_point) upper_bias[i] = both[1];
    }
    am_pack_levels(dst, panel, upper, upper_bias, 0, 1);
    am_pack_affine(dst, panel, (const uint32_t *)(const void *)codes, scales, biases, 0, 1);
}

static void pack_panel(ggml_job *j, uint32_t p, uint8_t *scratch) {
    am_mat panel = *j->mat;
    uint32_t first = p * AM_PANEL;
    panel.n_out = j->mat->n_out - first < AM_PANEL ? j->mat->n_out - first : AM_PANEL;
    size_t code_bytes = j->mat->n_in / (j->mat->dtype == AM_Q4 ? 2 : 1), n = panel.n_out * j->n_groups, where;
    float *scales = (float *)(void *)(scratch + AM_PANEL * code_bytes), *biases = scales + AM_PANEL * j->n_groups;
    uint16_t *narrow = (uint16_t *)(biases + AM_PANEL * j->n_groups);
    uint8_t *dst = j->dst + p * am_mat_panel_bytes(j->mat);
    /* the most common forms without a way through floats; where a scale is not finite the long way finds out which */
    if ((j->f->type == AM_GGML_Q4_0 || j->f->type == AM_GGML_Q8_0) && j->mat->scale_dtype == AM_F16 &&
        am_pack_blocks(dst, &panel, j->rows + first * j->row_bytes, 0, 1))
        return;
    for (uint32_t o = 0; o < panel.n_out; o++)
        unpack_row(j, j->rows + (first + o) * j->row_bytes, scratch + o * code_bytes, scales + o * j->n_groups, biases + o * j->n_groups);
    if (!all_finite(scales, n, &where) || !all_finite(biases, n, &where)) {
        atomic_store(&j->not_finite, first * j->n_groups + where + 1);
        return;
    }
    if (j->mat->scale_dtype == AM_S8) {
        pack_levels(j, dst, &panel, j->rows + first * j->row_bytes, scratch, (uint8_t *)narrow);
        return;
    }
    void *s = scales, *b = biases;
    if (j->mat->scale_dtype == AM_F16) {
        if (!am_narrow(narrow, scales, n) || (!j->mat->zero_point && !am_narrow(narrow + n, biases, n))) {
            atomic_store(&j->wide, true);
            return;
        }
        s = narrow;
        b = narrow + n;
    }
    am_pack_affine(dst, &panel, (const uint32_t *)(const void *)scratch, s, b, 0, 1);
}

static void pack_task(void *arg, size_t task, size_t worker) {
    ggml_job *j = arg;
    uint32_t n = am_mat_panels(j->mat), unit = am_loader_unit(j->mat), p0 = (uint32_t)task * unit, p1 = n - p0 < unit ? n : p0 + unit;
    for (uint32_t p = p0; p < p1 && !atomic_load(&j->wide) && !atomic_load(&j->not_finite); p++)
        pack_panel(j, p, j->scratch + worker * j->scratch_bytes);
}

/* One scale a group, or a power of two: then f16 usually holds it and its bias. */
static bool likely_narrow(const am_ggml_format *f) {
    switch (f->type) {
    case AM_GGML_Q4_0: case AM_GGML_Q4_1: case AM_GGML_Q5_0: case AM_GGML_Q5_1: case AM_GGML_Q8_0: case AM_GGML_IQ4_NL: case AM_GGML_MXFP4:
    case AM_GGML_TQ1_0: case AM_GGML_TQ2_0: return true;
    default: return false;
    }
}

static am_status pack_as(am_loader *l, const am_tensor *t, ggml_job *j, am_mat *mat, am_dtype scale_dtype, am_error *err) {
    mat->scale_dtype = scale_dtype;
    atomic_store(&j->wide, false);
    if (!(j->dst = am_loader_room(l, am_mat_bytes(mat), err))) return AM_ENOMEM;
    mat->data = j->dst;
    am_loader_run(l, (am_mat_panels(mat) + am_loader_unit(mat) - 1) / am_loader_unit(mat), pack_task, j);
    size_t where = atomic_load(&j->not_finite);
    if (where)
        return am_fail(err, AM_EFORMAT, "%s: tensor '%s': the scale of group %zu is not finite", t->file, t->info->name.p, where - 1);
    return AM_OK;
}

static am_dtype dtype_of(const am_ggml_format *f) {
    if (f->book || f->max_code <= 15) return AM_Q4;
    if (f->max_code <= 31 && f->group >= 32) return AM_Q5;
    return f->max_code <= 63 ? AM_Q6 : AM_Q8;
}

am_status am_ggml_load(am_loader *l, const am_matrix *m, const am_tensor *t, const void *rows, am_mat *mat, am_error *err) {
    const am_ggml_format *f = t->ggml;
    if (!f->unpack || f->block > 256) return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s': ggml type %s", t->file, t->info->name.p, f->name);
    if (m->n_in % f->block)
        return am_fail(err, AM_EFORMAT, "%s: tensor '%s': %u inputs are no multiple of the block %u", t->file, t->info->name.p, m->n_in, f->block);
    bool narrow = likely_narrow(f);
    mat->dtype = dtype_of(f);
    mat->book = f->book;
    mat->scale_dtype = f->levels ? AM_S8 : narrow ? AM_F16 : AM_F32;
    mat->group = f->group;
    mat->zero_point = f->zero_point;
    if (l->options->survey) return am_loader_codes(l, mat, NULL, NULL, NULL, err);
    size_t n_workers = l->options->workers ? am_workers_count(l->options->workers) : 1;
    ggml_job j = {.f = f, .mat = mat, .rows = rows, .row_bytes = m->n_in / f->block * (size_t)f->block_bytes, .n_groups = m->n_in / f->group};
    for (uint32_t i = 0; f->book && i < 16; i++) j.index[am_books[f->book][15 - i]] = (uint8_t)(15 - i); /* of equal values the first */
    j.scratch_bytes = (AM_PANEL * (m->n_in / (mat->dtype == AM_Q4 ? 2u : 1u) + 12 * j.n_groups) + 63) / 64 * 64;
    j.scratch = am_alloc_aligned(n_workers * j.scratch_bytes);
    if (!j.scratch) return am_fail(err, AM_ENOMEM, "no memory to unpack tensor '%s'", t->info->name.p);
    am_status status = pack_as(l, t, &j, mat, mat->scale_dtype, err);
    if (!status && atomic_load(&j.wide)) {
        am_loader_give_back(l, am_mat_bytes(mat));
        status = pack_as(l, t, &j, mat, AM_F32, err);
    }
    free(j.scratch);
    return status;
}
