/* kernels/kv: the layout of a block, what put and seal leave in it, and the compact rows of a head file. */
#include "kernels/kv.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint32_t state_u32 = 12345;
static float next_float(void) {
    state_u32 = state_u32 * 1664525u + 1013904223u;
    return (float)(int32_t)state_u32 * 0x1p-31f;
}

static const am_kv_spec specs[] = {
    {.n_layer = 2, .n_kv_head = 3, .head_dim_k = 64, .head_dim_v = 64, .bits_k = 4, .bits_v = 4},
    {.n_layer = 1, .n_kv_head = 2, .head_dim_k = 48, .head_dim_v = 32, .bits_k = 4, .bits_v = 4, .group_k = 32, .group_v = 64},
    {.n_layer = 2, .n_kv_head = 1, .head_dim_k = 96, .head_dim_v = 80, .bits_k = 8, .bits_v = 8},
    {.n_layer = 1, .n_kv_head = 2, .head_dim_k = 64, .head_dim_v = 80, .bits_k = 5, .bits_v = 4},
    {.n_layer = 1, .n_kv_head = 2, .head_dim_k = 80, .head_dim_v = 112, .bits_k = 4, .bits_v = 5, .group_k = 256, .group_v = 256},
    {.n_layer = 1, .n_kv_head = 1, .head_dim_k = 576, .head_dim_v = 512, .bits_k = 8, .bits_v = 4},
    {.n_layer = 1, .n_kv_head = 1, .head_dim_k = 576, .head_dim_v = 512, .bits_k = 5, .bits_v = 5, .shared = 1},
    {.n_layer = 1, .n_kv_head = 2, .head_dim_k = 16, .head_dim_v = 128, .bits_k = 16, .bits_v = 4},
    {.n_layer = 3, .n_kv_head = 2, .head_dim_k = 32, .head_dim_v = 16, .bits_k = 32, .bits_v = 32},
};
enum { N_SPECS = sizeof specs / sizeof specs[0] };

static float *rows_random(size_t n) {
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = 3 * next_float() + (i % 16 == 3 ? 5.0f : 0.0f); /* with outliers, as real keys have */
    return p;
}

/* A full open block of random rows; k and v as [layer][row][head][dim]. */
typedef struct filled {
    am_kv_layout layout;
    float *k, *v;
    uint8_t *open;
} filled;

static filled filled_create(const am_kernels *kernels, const am_kv_spec *spec) {
    filled f;
    assert_int_equal(am_kv_layout_init(&f.layout, spec, NULL), AM_OK);
    size_t k_row = spec->n_kv_head * spec->head_dim_k, v_row = spec->n_kv_head * spec->head_dim_v;
    f.k = rows_random(spec->n_layer * AM_BLOCK_TOKENS * k_row);
    f.v = rows_random(spec->n_layer * AM_BLOCK_TOKENS * v_row);
    f.open = am_alloc_aligned(f.layout.open_bytes);
    for (uint32_t layer = 0; layer < spec->n_layer; layer++)
        for (uint32_t row = 0; row < AM_BLOCK_TOKENS; row++)
            am_kv_put(kernels, &f.layout, f.open, layer, row, f.k + (layer * AM_BLOCK_TOKENS + row) * k_row,
                      f.v + (layer * AM_BLOCK_TOKENS + row) * v_row);
    for (size_t i = 0; spec->shared && i < (size_t)spec->n_layer * AM_BLOCK_TOKENS * spec->n_kv_head; i++)
        memcpy(f.v + i * spec->head_dim_v, f.k + i * spec->head_dim_k, spec->head_dim_v * sizeof *f.v);
    return f;
}

static void filled_free(filled *f) {
    free(f->k);
    free(f->v);
    free(f->open);
}

static float stored(float x, uint32_t bits) { return bits == 32 ? x : am_f16_to_f32(am_f32_to_f16(x)); }

/* Where a layer begins in a block that lies in one piece. */
static const void *layer_of(const filled *f, const void *block, bool sealed, uint32_t layer) {
    void *units[8];
    if (!sealed) return am_kv_open_layer(&f->layout, block, layer);
    am_kv_units_of(&f->layout, (void *)(uintptr_t)block, units);
    return am_kv_sealed_layer(&f->layout, (const void *const *)units, layer);
}

static void seal(const am_kernels *kernels, const filled *f, void *sealed, uint32_t layer) {
    void *units[8];
    am_kv_units_of(&f->layout, sealed, units);
    am_kv_seal(kernels, &f->layout, f->open, units, layer);
}

/* Values as attention sees them: row t of a K part by mat_row, of a V part by accumulating with weight one. */
static void k_read(const am_kernels *kernels, const filled *f, const void *block, bool sealed, uint32_t layer, uint32_t head,
                   uint32_t t, float *dst) {
    am_mat k = am_kv_k(&f->layout, layer_of(f, block, sealed, layer), sealed, head);
    assert_int_equal((uintptr_t)k.data % 64, 0);
    kernels->mat_row(dst, &k, t);
}

static void v_read(const am_kernels *kernels, const filled *f, const void *block, bool sealed, uint32_t layer, uint32_t head,
                   uint32_t t, float *dst) {
    if (f->layout.spec.shared) { /* part of the key */
        float key[AM_KV_MAX_DIM];
        k_read(kernels, f, block, sealed, layer, head, t, key);
        memcpy(dst, key, f->layout.spec.head_dim_v * sizeof *dst);
        return;
    }
    am_rows v = am_kv_v(&f->layout, layer_of(f, block, sealed, layer), sealed, head);
    float one[AM_BLOCK_TOKENS] = {0};
    assert_int_equal((uintptr_t)v.data % 64, 0);
    one[t] = 1;
    memset(dst, 0, v.dim * sizeof *dst);
    kernels->rows_accumulate(dst, v.dim, one, AM_BLOCK_TOKENS, 1, &v, t, t + 1);
}

static void an_open_block_gives_back_what_was_put(void **state) {
    (void)state;
    float got[AM_KV_MAX_DIM];
    for (const am_kernels *const *kernels = am_kernels_list(); *kernels; kernels++) {
        for (size_t i = 0; i < N_SPECS; i++) {
            const am_kv_spec *s = &specs[i];
            filled f = filled_create(*kernels, s);
            for (uint32_t layer = 0; layer < s->n_layer; layer++) {
                for (uint32_t n = 0; n < 2 * AM_BLOCK_TOKENS; n++) {
                    uint32_t t = n % AM_BLOCK_TOKENS, head = n % s->n_kv_head;
                    size_t row = (layer * AM_BLOCK_TOKENS + t) * s->n_kv_head + head;
                    k_read(*kernels, &f, f.open, false, layer, head, t, got);
                    for (uint32_t d = 0; d < s->head_dim_k; d++) assert_true(got[d] == stored(f.k[row * s->head_dim_k + d], s->bits_k));
                    v_read(*kernels, &f, f.open, false, layer, head, t, got);
                    for (uint32_t d = 0; d < s->head_dim_v; d++) assert_true(got[d] == stored(f.v[row * s->head_dim_v + d], s->bits_v));
                }
            }
            filled_free(&f);
        }
    }
}

/* Channel by channel and group by group of tokens from the rows that were put, [token][dim] `stride` apart: min, max, one scale and bias
 * in f16, the nearest code. */
static void part_compare(const float *got, const float *put, size_t stride, uint32_t dim, uint32_t group, uint32_t bits) {
    for (uint32_t d = 0; d < dim; d++) {
        for (uint32_t g = 0; g < AM_BLOCK_TOKENS; g += group) {
            float low = INFINITY, high = -INFINITY;
            for (uint32_t t = g; t < g + group; t++) {
                low = fminf(low, stored(put[t * stride + d], 16));
                high = fmaxf(high, stored(put[t * stride + d], 16));
            }
            float bias = stored(low, 16), scale = stored((high - low) / (float)((1u << (bits < 16 ? bits : 8)) - 1), 16);
            for (uint32_t t = g; t < g + group; t++) {
                float x = stored(put[t * stride + d], bits), y = got[t * dim + d];
                double want = bits >= 16 ? (double)x : (double)scale * rint((double)((stored(x, 16) - bias) / scale)) + (double)bias;
                assert_true(fabs(y - want) <= (bits >= 16 ? 0 : 32 * 0x1p-24)); /* magnitudes are below 16 */
            }
        }
    }
}

static void a_sealed_block_holds_the_quantised_rows(void **state) {
    (void)state;
    for (const am_kernels *const *kernels = am_kernels_list(); *kernels; kernels++) {
        for (size_t i = 0; i < N_SPECS; i++) {
            const am_kv_spec *s = &specs[i];
            filled f = filled_create(*kernels, s);
            uint8_t *sealed = am_alloc_aligned(f.layout.sealed_bytes), *other = am_alloc_aligned(f.layout.sealed_bytes);
            memset(sealed, 0xff, f.layout.sealed_bytes);
            for (uint32_t layer = s->n_layer; layer-- > 0;) seal(*kernels, &f, sealed, layer);
            for (uint32_t layer = 0; layer < s->n_layer; layer++) seal(am_kernels_list()[0], &f, other, layer);
            assert_memory_equal(sealed, other, f.layout.sealed_bytes); /* every byte written, the same on every table */
            float *k = malloc(AM_BLOCK_TOKENS * s->head_dim_k * sizeof *k), *v = malloc(AM_BLOCK_TOKENS * s->head_dim_v * sizeof *v);
            for (uint32_t n = 0; n < s->n_layer * s->n_kv_head; n++) {
                uint32_t head = n % s->n_kv_head, layer = n / s->n_kv_head;
                size_t row = (size_t)layer * AM_BLOCK_TOKENS * s->n_kv_head + head;
                for (uint32_t t = 0; t < AM_BLOCK_TOKENS; t++) {
                    k_read(*kernels, &f, sealed, true, layer, head, t, k + t * s->head_dim_k);
                    v_read(*kernels, &f, sealed, true, layer, head, t, v + t * s->head_dim_v);
                }
                part_compare(k, f.k + row * s->head_dim_k, s->n_kv_head * s->head_dim_k, s->head_dim_k, f.layout.spec.group_k, s->bits_k);
                part_compare(v, f.v + row * s->head_dim_v, s->n_kv_head * s->head_dim_v, s->head_dim_v, f.layout.spec.group_v, s->bits_v);
            }
            free(k), free(v);
            free(sealed);
            free(other);
            filled_free(&f);
        }
    }
}

static void saved_rows_come_back_and_no_others_change(void **state) {
    (void)state;
    static const uint32_t counts[] = {0, 1, 15, 16, 17, 200, 255, 256};
    const am_kernels *kernels = am_kernels_list()[0];
    for (size_t i = 0; i < N_SPECS; i++) {
        filled f = filled_create(kernels, &specs[i]);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            uint32_t n_rows = counts[c];
            size_t n_bytes = am_kv_rows_bytes(&f.layout, n_rows);
            uint8_t *saved = malloc(n_bytes + 1), *again = malloc(n_bytes + 1), *open = am_alloc_aligned(f.layout.open_bytes);
            saved[n_bytes] = 0x5a;
            am_kv_rows_save(&f.layout, f.open, n_rows, saved);
            assert_int_equal(saved[n_bytes], 0x5a);
            for (uint32_t p = 0; p < am_kv_rows_pieces(&f.layout); p++)
                am_kv_rows_load(&f.layout, open, n_rows, p, saved + p * (am_kv_rows_bytes(&f.layout, n_rows) / am_kv_rows_pieces(&f.layout)));
            am_kv_rows_save(&f.layout, open, n_rows, again);
            assert_memory_equal(saved, again, n_bytes);
            uint8_t *rest = malloc(am_kv_rows_bytes(&f.layout, AM_BLOCK_TOKENS));
            am_kv_rows_save(&f.layout, open, AM_BLOCK_TOKENS, rest);
            size_t non_zero = 0, non_zero_rows = 0;
            for (size_t b = 0; b < am_kv_rows_bytes(&f.layout, AM_BLOCK_TOKENS); b++) non_zero += rest[b] != 0;
            for (size_t b = 0; b < n_bytes; b++) non_zero_rows += saved[b] != 0;
            assert_int_equal(non_zero, non_zero_rows);
            if (n_rows == AM_BLOCK_TOKENS) assert_memory_equal(open, f.open, f.layout.open_bytes);
            free(rest), free(saved), free(again), free(open);
        }
        filled_free(&f);
    }
}

/* The order stated in kv.h, byte for byte, on one small case. */
static void saved_rows_have_the_stated_order(void **state) {
    (void)state;
    const am_kv_spec spec = {.n_layer = 2, .n_kv_head = 2, .head_dim_k = 16, .head_dim_v = 32, .bits_k = 32, .bits_v = 16};
    filled f = filled_create(am_kernels_list()[0], &spec);
    uint8_t saved[2 * 2 * 3 * (16 * 4 + 32 * 2)], *p = saved;
    assert_int_equal(am_kv_rows_bytes(&f.layout, 3), sizeof saved);
    am_kv_rows_save(&f.layout, f.open, 3, saved);
    for (size_t layer = 0; layer < 2; layer++) {
        for (size_t head = 0; head < 2; head++) {
            for (size_t t = 0; t < 3; t++, p += 64)
                assert_memory_equal(p, f.k + ((layer * AM_BLOCK_TOKENS + t) * 2 + head) * 16, 64);
            for (size_t n = 0; n < 3 * 32; n++, p += 2) {
                uint16_t half = am_f32_to_f16(f.v[((layer * AM_BLOCK_TOKENS + n / 32) * 2 + head) * 32 + n % 32]);
                assert_memory_equal(p, &half, 2);
            }
        }
    }
    filled_free(&f);
}

static void sizes_are_as_documented(void **state) {
    (void)state;
    am_kv_layout l;
    assert_int_equal(am_kv_layout_init(&l, &specs[0], NULL), AM_OK);
    assert_true(l.rotate_k && l.rotate_v);
    assert_int_equal(l.spec.group_k, AM_KV_GROUP);
    assert_int_equal(l.sealed_k_bytes, 256 * 64 * 17 / 32); /* 4.25 bits a value */
    assert_int_equal(l.open_bytes, 2 * 3 * 2 * 256 * 64 * 2);
    assert_int_equal(l.sealed_bytes * 64, l.open_bytes * 17);
    assert_int_equal(am_kv_layout_init(&l, &specs[1], NULL), AM_OK);
    assert_int_equal(l.spec.group_k, 32);
    assert_int_equal(l.spec.group_v, 64);
    am_kv_spec spec = {.n_layer = 1, .n_kv_head = 1, .head_dim_k = 64, .head_dim_v = 64, .bits_k = AM_KV_BITS_K, .bits_v = AM_KV_BITS_V};
    assert_int_equal(am_kv_layout_init(&l, &spec, NULL), AM_OK);
    assert_int_equal(l.sealed_bytes * 8 * 4, 2 * 256 * 64 * 19); /* the default: 4.75 bits a value */
    spec.shared = 1;
    spec.bits_v = spec.bits_k;
    assert_int_equal(am_kv_layout_init(&l, &spec, NULL), AM_OK);
    assert_int_equal(l.sealed_bytes * 8 * 4, 256 * 64 * 21); /* one vector, 5.25 bits a value */
    assert_int_equal(am_kv_layout_init(&l, &specs[7], NULL), AM_OK);
    assert_true(!l.rotate_k && l.rotate_v);
    assert_int_equal(l.open_k_bytes, l.sealed_k_bytes);
}

static void a_bad_spec_is_refused_with_its_reason(void **state) {
    (void)state;
    static const struct { am_kv_spec spec; const char *word; } cases[] = {
        {{0, 1, 64, 64, 4, 4, 0, 0, 0, 0, 0, {0}}, "0 layers"},         {{1, 0, 64, 64, 4, 4, 0, 0, 0, 0, 0, {0}}, "0 KV heads"},
        {{1, 1, 64, 64, 6, 4, 0, 0, 0, 0, 0, {0}}, "6"},                {{1, 1, 64, 64, 4, 0, 0, 0, 0, 0, 0, {0}}, "bits"},
        {{1, 1, 40, 64, 4, 4, 0, 0, 0, 0, 0, {0}}, "40"},               {{1, 1, 64, 64, 4, 4, 0, 48, 0, 0, 0, {0}}, "48"},
        {{1, 1, 64, 0, 16, 16, 0, 0, 0, 0, 0, {0}}, "multiples of 16"}, {{1, 1, 1u << 31, 64, 16, 16, 0, 0, 0, 0, 0, {0}}, "up to"},
        {{1024, UINT32_MAX, 4096, 4096, 32, 32, 0, 0, 0, 0, 0, {0}}, "address space"},
        {{1025, 1, 64, 64, 4, 4, 0, 0, 0, 0, 0, {0}}, "1025 layers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        am_kv_layout l;
        am_error err = {0};
        assert_int_not_equal(am_kv_layout_init(&l, &cases[i].spec, &err), AM_OK);
        if (!strstr(err.message, cases[i].word)) fail_msg("'%s' does not say '%s'", err.message, cases[i].word);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_as_documented),
        cmocka_unit_test(a_bad_spec_is_refused_with_its_reason),
        cmocka_unit_test(an_open_block_gives_back_what_was_put),
        cmocka_unit_test(a_sealed_block_holds_the_quantised_rows),
        cmocka_unit_test(saved_rows_come_back_and_no_others_change),
        cmocka_unit_test(saved_rows_have_the_stated_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
