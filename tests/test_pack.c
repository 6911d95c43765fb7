/* kernels/: weights into panels. The layout that kernels.h draws is written out here value by value; what packs fast must give its bytes, for every form, for
 * any number of rows, from sources at any byte, in any division into panels. All buffers lie between guard pages. */
#include "kernels/kernels.h"

#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed = 88172645463325252u;
static uint32_t next_u32(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}

static void fill(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)next_u32();
}

static size_t element_bytes(am_dtype dtype) { return dtype == AM_F32 ? 4 : dtype == AM_S8 ? 1 : 2; }
static size_t bits_of(am_dtype dtype) { return dtype == AM_Q8 ? 8 : dtype == AM_Q6 ? 6 : dtype == AM_Q5 ? 5 : 4; }

static const uint32_t rows_of[] = {1, 3, 15, 16, 17, 31, 48, 70};
enum { N_ROWS = sizeof rows_of / sizeof rows_of[0] };

/* Packs by calls of one panel, of several and of all, and holds each against `wanted`. */
typedef void pack_fn(void *dst, const am_mat *mat, const void *const src[3], uint32_t p0, uint32_t p1);

static void check(const am_mat *mat, pack_fn *pack, const void *const src[3], const uint8_t *wanted) {
    size_t n = am_mat_bytes(mat);
    uint32_t n_panels = am_mat_panels(mat);
    for (uint32_t step = 1; step <= n_panels; step = step < n_panels && 2 * step > n_panels ? n_panels : 2 * step) {
        uint8_t *dst = guarded_alloc(n, 64, GUARD_AFTER);
        memset(dst, 0xa5, n); /* what is not written shows */
        for (uint32_t p = 0; p < n_panels; p += step) pack(dst, mat, src, p, p + step < n_panels ? p + step : n_panels);
        assert_memory_equal(dst, wanted, n);
    }
}

static void pack_plain(void *dst, const am_mat *mat, const void *const src[3], uint32_t p0, uint32_t p1) { am_pack_plain(dst, mat, src[0], p0, p1); }

static void pack_affine(void *dst, const am_mat *mat, const void *const src[3], uint32_t p0, uint32_t p1) {
    am_pack_affine(dst, mat, src[0], src[1], src[2], p0, p1);
}

static void pack_levels(void *dst, const am_mat *mat, const void *const src[3], uint32_t p0, uint32_t p1) {
    am_pack_levels(dst, mat, src[0], src[1], p0, p1);
}

static void pack_blocks(void *dst, const am_mat *mat, const void *const src[3], uint32_t p0, uint32_t p1) {
    assert_true(am_pack_blocks(dst, mat, src[0], p0, p1));
}

static void numbers(void **state) {
    (void)state;
    static const uint32_t ins[] = {1, 2, 4, 6, 7, 8, 14, 16, 30, 64, 129, 130};
    for (am_dtype dtype = AM_F32; dtype <= AM_BF16; dtype++)
        for (size_t r = 0; r < N_ROWS; r++)
            for (size_t i = 0; i < sizeof ins / sizeof ins[0]; i++) {
                am_mat mat = {.dtype = dtype, .n_out = rows_of[r], .n_in = ins[i]};
                size_t e = element_bytes(dtype), n = mat.n_out * mat.n_in * e;
                uint8_t *src = guarded_alloc(n, 1, GUARD_AFTER), *wanted = test_calloc(1, am_mat_bytes(&mat));
                fill(src, n);
                for (size_t o = 0; o < mat.n_out; o++)
                    for (size_t k = 0; k < mat.n_in; k++)
                        memcpy(wanted + (dtype == AM_BF16 ? (o / 16 * ((mat.n_in + 1) / 2) + k / 2) * 32 + o % 16 * 2 + k % 2 : (o / 16 * mat.n_in + k) * 16 + o % 16) * e,
                               src + (o * mat.n_in + k) * e, e);
                check(&mat, pack_plain, (const void *[]){src, NULL, NULL}, wanted);
                test_free(wanted);
                guarded_free_all();
            }
}

/* Where the layout has the scale and the code of one value. */
static size_t group_bytes(const am_mat *m) {
    return (m->zero_point ? 1 : 2) * 16 * element_bytes(m->scale_dtype) + m->group * 2 * bits_of(m->dtype);
}

/* What lies before a panel's groups: the upper level of scales. */
static size_t head_bytes(const am_mat *m) { return m->scale_dtype == AM_S8 ? m->n_in / 256 * (m->zero_point ? 32 : 64) : 0; }

static uint8_t *group_at(uint8_t *panels, const am_mat *m, size_t o, size_t g) {
    return panels + o / 16 * (head_bytes(m) + m->n_in / m->group * group_bytes(m)) + head_bytes(m) + g * group_bytes(m);
}

static void put_code(uint8_t *panels, const am_mat *m, size_t o, size_t i, uint8_t code) {
    uint8_t *codes = group_at(panels, m, o, i / m->group) + (m->zero_point ? 1 : 2) * 16 * element_bytes(m->scale_dtype);
    size_t at = i % m->group;
    if (m->dtype == AM_Q8) {
        codes[at / 4 * 64 + o % 16 * 4 + at % 4] = code;
        return;
    }
    codes[at / 8 * 64 + o % 16 * 4 + at % 4] |= (uint8_t)(at % 8 < 4 ? code & 15 : code << 4);
    uint8_t *more = codes + m->group * 8;
    if (m->dtype == AM_Q5) more[at / 32 * 64 + o % 16 * 4 + at % 4] |= (uint8_t)((code >> 4 & 1) << at % 32 / 4);
    if (m->dtype == AM_Q6) more[at / 16 * 64 + o % 16 * 4 + at % 4] |= (uint8_t)((code >> 4 & 3) << at % 16 / 4 * 2);
}

static void affine_of(const am_mat *m, size_t shift) {
    size_t bits = m->dtype == AM_Q4 ? 4 : 8, e = element_bytes(m->scale_dtype), n_groups = m->n_in / m->group;
    size_t n = m->n_out * m->n_in * bits / 8, n_scales = m->n_out * n_groups * e;
    uint8_t *codes = guarded_alloc(n + shift, 1, GUARD_AFTER), *scales = guarded_alloc(n_scales, 1, GUARD_AFTER), *biases = guarded_alloc(n_scales, 1, GUARD_AFTER);
    uint8_t *wanted = test_calloc(1, am_mat_bytes(m));
    assert_int_equal(am_mat_bytes(m), (m->n_out + 15) / 16 * (head_bytes(m) + n_groups * group_bytes(m)));
    fill(codes, n + shift);
    fill(scales, n_scales);
    fill(biases, n_scales);
    for (size_t o = 0; o < m->n_out; o++) {
        for (size_t g = 0; g < n_groups; g++) {
            memcpy(group_at(wanted, m, o, g) + o % 16 * e, scales + (o * n_groups + g) * e, e);
            if (!m->zero_point) memcpy(group_at(wanted, m, o, g) + (16 + o % 16) * e, biases + (o * n_groups + g) * e, e);
        }
        for (size_t i = 0; i < m->n_in; i++) {
            size_t at = o * m->n_in + i;
            put_code(wanted, m, o, i, bits == 8 ? codes[shift + at] : codes[shift + at / 2] >> at % 2 * 4 & 15);
        }
    }
    check(m, pack_affine, (const void *[]){codes + shift, scales, biases}, wanted);
    test_free(wanted);
    guarded_free_all();
}

/* The upper level alone: what lies between panels' heads is not touched. */
static void levels_of(const am_mat *m) {
    size_t n = m->n_in / 256, n_bytes = m->n_out * n * 2, panel = am_mat_bytes(m) / am_mat_panels(m);
    uint8_t *scales = guarded_alloc(n_bytes, 2, GUARD_AFTER), *biases = guarded_alloc(n_bytes, 2, GUARD_AFTER), *wanted = test_calloc(1, am_mat_bytes(m));
    fill(scales, n_bytes);
    fill(biases, n_bytes);
    memset(wanted, 0xa5, am_mat_bytes(m));
    for (size_t o = 0; o < (m->n_out + 15) / 16 * 16; o++)
        for (size_t i = 0; i < n; i++) {
            uint8_t *at = wanted + o / 16 * panel + i * (m->zero_point ? 32 : 64) + o % 16 * 2;
            memset(at, 0, 2);
            if (!m->zero_point) memset(at + 32, 0, 2);
            if (o >= m->n_out) continue;
            memcpy(at, scales + (o * n + i) * 2, 2);
            if (!m->zero_point) memcpy(at + 32, biases + (o * n + i) * 2, 2);
        }
    check(m, pack_levels, (const void *[]){scales, biases, NULL}, wanted);
    test_free(wanted);
    guarded_free_all();
}

static void levels(void **state) {
    (void)state;
    for (size_t r = 0; r < N_ROWS; r++)
        for (uint32_t i = 0; i < 6; i++)
            levels_of(&(am_mat){.dtype = AM_Q6, .scale_dtype = AM_S8, .n_out = rows_of[r], .n_in = 256 * (1 + i / 2), .group = 32, .zero_point = i % 2 * 32});
}

static void affine_groups(void **state) {
    (void)state;
    static const uint32_t groups[] = {16, 32, 64, 128};
    for (am_dtype dtype = AM_Q8; dtype <= AM_Q6; dtype++)
        for (am_dtype scale = AM_F32; scale <= AM_BF16; scale++)
            for (size_t r = 0; r < N_ROWS; r++)
                for (size_t g = dtype == AM_Q5; g < 4; g++)
                    for (uint32_t n = 1; n <= 3; n++)
                        for (uint32_t zero = 0; zero <= 8; zero += 8)
                            affine_of(&(am_mat){.dtype = dtype, .scale_dtype = scale, .n_out = rows_of[r], .n_in = n * groups[g], .group = groups[g], .zero_point = zero},
                                      n == 2 ? 4 : 0);
}

/* Q4_0: f16 scale, byte k of 16 has value k low and value 16 + k high, zero is 8. Q8_0: f16 scale, 32 signed bytes. */
static void blocks_of(const am_mat *m, size_t shift) {
    bool four = m->dtype == AM_Q4;
    size_t block = four ? 18 : 34, n_groups = m->n_in / 32, n = m->n_out * n_groups * block;
    uint8_t *src = guarded_alloc(n + shift, 1, GUARD_AFTER), *wanted = test_calloc(1, am_mat_bytes(m)), *rows = src + shift;
    fill(src, n + shift);
    for (size_t o = 0; o < m->n_out; o++)
        for (size_t g = 0; g < n_groups; g++) {
            uint8_t *from = rows + (o * n_groups + g) * block;
            if ((from[1] & 0x7c) == 0x7c) from[1] ^= 0x40; /* finite */
            memcpy(group_at(wanted, m, o, g) + o % 16 * 2, from, 2);
            for (size_t i = 0; i < 32; i++)
                put_code(wanted, m, o, g * 32 + i, four ? from[2 + i % 16] >> i / 16 * 4 & 15 : (uint8_t)(from[2 + i] + 128));
        }
    check(m, pack_blocks, (const void *[]){rows, NULL, NULL}, wanted);
    rows[(m->n_out - 1) * n_groups * block + 1] = 0x7c; /* infinite, in the last panel alone */
    rows[(m->n_out - 1) * n_groups * block] = 0;
    uint32_t last = am_mat_panels(m) - 1;
    assert_false(am_pack_blocks(wanted, m, rows, 0, last + 1));
    if (last > 0) assert_true(am_pack_blocks(wanted, m, rows, 0, last));
    test_free(wanted);
    guarded_free_all();
}

static void ggml_blocks(void **state) {
    (void)state;
    for (am_dtype dtype = AM_Q8; dtype <= AM_Q4; dtype++)
        for (size_t r = 0; r < N_ROWS; r++)
            for (uint32_t n = 1; n <= 5; n += 2)
                blocks_of(&(am_mat){.dtype = dtype, .scale_dtype = AM_F16, .n_out = rows_of[r], .n_in = 32 * n, .group = 32, .zero_point = dtype == AM_Q4 ? 8 : 128},
                          n == 3);
}

/* A matrix with scales that f16 holds, from random codes. */
static uint8_t *turnable(am_mat *m, bool exact) {
    uint8_t *panels = guarded_alloc(am_mat_bytes(m), 64, GUARD_AFTER);
    fill(panels, am_mat_bytes(m));
    for (size_t o = 0; o < (m->n_out + 15) / 16 * 16; o++)
        for (size_t g = 0; g < m->n_in / m->group; g++)
            for (size_t b = 0; b < (m->zero_point ? 1 : 2); b++) {
                float value = (float)(1 + next_u32() % 100) * (exact ? 0x1p-10f : 0x1.00001p-10f);
                if (m->scale_dtype == AM_S8) value = 1; /* of the byte above 128 */
                uint32_t bits;
                memcpy(&bits, &value, sizeof bits);
                uint16_t half = m->scale_dtype == AM_F16 ? am_f32_to_f16(value) : (uint16_t)(bits >> 16);
                uint8_t *to = group_at(panels, m, o, g) + (16 * b + o % 16) * element_bytes(m->scale_dtype);
                if (m->scale_dtype == AM_F32) memcpy(to, &value, 4);
                else if (m->scale_dtype != AM_S8) memcpy(to, &half, 2);
            }
    for (size_t p = 0; p < am_mat_panels(m); p++)
        for (size_t i = 0; i < head_bytes(m); i += 2) memcpy(panels + p * (am_mat_bytes(m) / am_mat_panels(m)) + i, (uint16_t[]){0x1400}, 2); /* 2^-10 */
    m->data = panels;
    return panels;
}

static void turned_of(am_mat m, uint32_t o, uint32_t n) {
    const am_kernels *scalar;
    am_error err;
    assert_int_equal(am_kernels_pick("scalar", &scalar, &err), AM_OK);
    turnable(&m, true);
    am_mat t;
    assert_true(am_turned_form(&t, &m, n));
    assert_int_equal(t.n_out, m.n_in);
    assert_int_equal(t.n_in, n);
    uint8_t *dst = guarded_alloc(am_mat_bytes(&t), 64, GUARD_AFTER);
    memset(dst, 0xa5, am_mat_bytes(&t));
    assert_true(am_pack_turned(dst, &t, &m, o));
    t.data = dst;
    float *row = test_calloc(m.n_in, sizeof *row), *column = test_calloc((size_t)m.n_in * n, sizeof *column);
    for (uint32_t k = 0; k < m.n_in; k++) scalar->mat_row(column + (size_t)k * n, &t, k);
    for (uint32_t i = 0; i < n; i++) {
        scalar->mat_row(row, &m, o + i);
        for (uint32_t k = 0; k < m.n_in; k++) assert_true(row[k] == column[(size_t)k * n + i]);
    }
    test_free(row);
    test_free(column);
    guarded_free_all();
}

static void turned(void **state) {
    (void)state;
    for (am_dtype dtype = AM_Q8; dtype <= AM_Q6; dtype++)
        for (am_dtype scale = AM_F32; scale <= AM_BF16; scale++)
            for (uint32_t group = 32; group <= 128; group *= 2)
                for (uint32_t zero = 0; zero <= 8; zero += 8)
                    turned_of((am_mat){.dtype = dtype, .scale_dtype = scale, .n_out = 70, .n_in = 2 * group, .group = group, .zero_point = zero}, zero ? 5 : 0, 48);
    for (am_book book = AM_BOOK_IQ4; book <= AM_BOOK_MXFP4; book++)
        turned_of((am_mat){.dtype = AM_Q4, .scale_dtype = AM_F16, .n_out = 40, .n_in = 96, .group = 32, .zero_point = book == AM_BOOK_IQ4 ? 128 : 12, .book = book}, 7, 32);
    turned_of((am_mat){.dtype = AM_Q6, .scale_dtype = AM_S8, .n_out = 33, .n_in = 256, .group = 16, .zero_point = 32}, 1, 32);
}

/* What f16 does not hold, or channels cannot have, is said and not rounded. */
static void not_turned(void **state) {
    (void)state;
    am_mat m = {.dtype = AM_Q4, .scale_dtype = AM_F32, .n_out = 32, .n_in = 64, .group = 32}, t;
    turnable(&m, false);
    assert_true(am_turned_form(&t, &m, 32));
    uint8_t *dst = guarded_alloc(am_mat_bytes(&t), 64, GUARD_AFTER);
    assert_false(am_pack_turned(dst, &t, &m, 0));
    assert_false(am_turned_form(&t, &m, 24));
    assert_false(am_turned_form(&t, &(am_mat){.dtype = AM_BF16, .n_out = 32, .n_in = 64}, 32));
    guarded_free_all();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(affine_groups),
        cmocka_unit_test(levels),
        cmocka_unit_test(ggml_blocks), cmocka_unit_test(turned), cmocka_unit_test(not_turned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
