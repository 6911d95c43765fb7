/* kernels/: products of codes by codes. The rule of kernels.h and int8.h is written out here in plain C; every table that has these products
 * must give its bits, for rows of codes and for products, so all of them give the same. All buffers lie between guard pages. */
#include "kernel_rig.h"

#include <math.h>

enum { MAX_IN = 1024, MAX_ROWS = 40 };

/* ---- rows ---- */

typedef struct row {
    int8_t code[MAX_IN];
    float scale[MAX_IN / 32];
    float worth[4][MAX_IN / 16]; /* of 16, 32, 64, 128 neighbours */
} row;

static void row_truth(row *to, const float *x, size_t n) {
    memset(to, 0, sizeof *to);
    for (size_t i = 0; i < am_int8_runs(n); i++) {
        float most = 0;
        for (size_t k = 32 * i; k < 32 * i + 32 && k < n; k++) most = fmaxf(most, fabsf(x[k]));
        float inverse = most > 0 ? 127 / most : 0;
        to->scale[i] = most / 127;
        for (size_t k = 32 * i; k < 32 * i + 32 && k < n; k++) to->code[k] = (int8_t)rintf(x[k] * inverse);
        int sum[2] = {0};
        for (size_t b = 0; b < 32; b++) sum[b / 16] += to->code[32 * i + b];
        to->worth[0][2 * i] = to->scale[i] * (float)sum[0];
        to->worth[0][2 * i + 1] = to->scale[i] * (float)sum[1];
        to->worth[1][i] = to->scale[i] * (float)(sum[0] + sum[1]);
    }
    for (int w = 2; w < 4; w++)
        for (size_t i = 0; i < am_int8_runs(n) >> (w - 1); i++) to->worth[w][i] = to->worth[w - 1][2 * i] + to->worth[w - 1][2 * i + 1];
}

static void row_check(const char *table, const row *truth, const uint8_t *got, size_t n) {
    size_t runs = am_int8_runs(n), at = 42 * runs;
    assert_memory_equal(got, truth->code, 32 * runs);
    if (memcmp(got + 32 * runs, truth->scale, 4 * runs)) fail_msg("%s: scales of a row of %zu", table, n);
    for (size_t i = 0; i < 2 * runs; i++) {
        int sum = 0;
        for (size_t b = 0; b < 16; b++) sum += truth->code[16 * i + b];
        assert_int_equal(((const int16_t *)(const void *)(got + 36 * runs))[i], sum);
    }
    for (size_t i = 0; i < runs; i++) {
        const int16_t *pair = (const int16_t *)(const void *)(got + 36 * runs) + 2 * i;
        assert_int_equal(((const int16_t *)(const void *)(got + 40 * runs))[i], pair[0] + pair[1]);
    }
    for (int w = 0; w < 4; at += 4 * (2 * runs >> w), w++)
        if (memcmp(got + at, truth->worth[w], 4 * (2 * runs >> w))) fail_msg("%s: sums of a row of %zu", table, n);
}

/* What inputs may look like: usual; none; all as large as can be; one far out; tiny. */
static void inputs_fill(float *x, size_t n, uint32_t kind) {
    for (size_t k = 0; k < n; k++) {
        x[k] = next_float();
        if (kind == 1) x[k] = 0;
        if (kind == 2) x[k] = next_u32() % 2 ? 3.0f : -3.0f;
        if (kind == 3) x[k] *= k == n / 2 ? 1e6f : 1.0f;
        if (kind == 4) x[k] *= 1e-30f;
        if (kind == 5) x[k] = -2.0f;
    }
}

static void rows_become_the_codes_that_the_rule_says(void **state) {
    (void)state;
    static const size_t sizes[] = {16, 32, 48, 80, 128, 144, 512, 576, 1024};
    static row truth;
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        size_t n = sizes[i / 2];
        for (uint32_t kind = 0; kind < 6; kind++) {
            float *x = guarded_alloc(n * sizeof *x, 4, side);
            uint8_t *got = guarded_alloc(am_int8_row_bytes(n), 64, side);
            inputs_fill(x, n, kind);
            row_truth(&truth, x, n);
            for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
                assert_true(!(*k)->row_int8 == !(*k)->matmul_int8);
                if (!(*k)->row_int8) continue;
                (*k)->row_int8(got, x, n);
                row_check((*k)->name, &truth, got, n);
            }
        }
        guarded_free_all();
    }
}

/* ---- products ---- */

typedef struct sample {
    am_mat mat;
    uint8_t *code;       /* [n_out][n_in]; free() */
    float *scale, *bias; /* [n_out][n_in / group]; free() */
} sample;

static float stored(am_dtype dtype, void *to, size_t i, float value) {
    if (dtype == AM_F32) return ((float *)to)[i] = value;
    uint16_t half = dtype == AM_F16 ? am_f32_to_f16(value) : am_f32_to_bf16(value);
    ((uint16_t *)to)[i] = half;
    return dtype == AM_F16 ? am_f16_to_f32(half) : am_bf16_to_f32(half);
}

/* Scales of S8: bytes, and the level above them. */
static void levels_create(const sample *s, void *data, uint8_t *scales, uint8_t *biases) {
    const am_mat *m = &s->mat;
    size_t n = (size_t)m->n_out * m->n_in, per_upper = 256 / m->group;
    uint16_t *upper = malloc(n / 256 * 2), *upper_bias = malloc(n / 256 * 2);
    for (size_t i = 0; i < n / m->group; i++) {
        float worth = i % per_upper ? am_f16_to_f32(upper[i / per_upper]) : stored(AM_F16, upper, i / per_upper, next_float() / 64);
        float bias = i % per_upper ? am_f16_to_f32(upper_bias[i / per_upper]) : stored(AM_F16, upper_bias, i / per_upper, next_float() / 64);
        scales[i] = (uint8_t)next_u32(), biases[i] = (uint8_t)next_u32();
        s->scale[i] = worth * (float)(scales[i] - 128);
        s->bias[i] = bias * (float)(biases[i] - 128);
    }
    am_pack_levels(data, m, upper, upper_bias, 0, am_mat_panels(m));
    free(upper), free(upper_bias);
}

static sample sample_create(const am_mat *shape, bool extreme) {
    sample s = {.mat = *shape};
    size_t n = (size_t)shape->n_out * shape->n_in, n_groups = n / shape->group, bits = shape->dtype == AM_Q4 ? 4 : 8;
    uint32_t n_bits = shape->dtype == AM_Q8 ? 8 : shape->dtype == AM_Q6 ? 6 : shape->dtype == AM_Q5 ? 5 : 4;
    s.code = malloc(n), s.scale = malloc(4 * n_groups), s.bias = malloc(4 * n_groups);
    uint32_t *words = calloc(n * bits / 32, 4);
    void *scales = malloc(4 * n_groups), *biases = malloc(4 * n_groups), *data = guarded_alloc(am_mat_bytes(shape), 64, side);
    for (size_t i = 0; i < n; i++) {
        uint32_t code = extreme ? (1u << n_bits) - 1 : next_u32() >> (32 - n_bits);
        s.code[i] = shape->book ? am_books[shape->book][code] : (uint8_t)code;
        words[i * bits / 32] |= code << i * bits % 32;
    }
    if (shape->scale_dtype == AM_S8) levels_create(&s, data, scales, biases);
    for (size_t i = 0; shape->scale_dtype != AM_S8 && i < n_groups; i++) {
        s.scale[i] = stored(shape->scale_dtype, scales, i, (next_float() + 1.5f) / 16);
        s.bias[i] = stored(shape->scale_dtype, biases, i, next_float());
    }
    am_pack_affine(data, shape, words, scales, biases, 0, am_mat_panels(shape));
    s.mat.data = data;
    free(words), free(scales), free(biases);
    return s;
}

static float product_truth(const sample *s, const row *x, uint32_t o) {
    const am_mat *m = &s->mat;
    uint32_t step = m->group < 32 ? m->group : 32, w = m->group == 16 ? 0 : m->group == 32 ? 1 : m->group == 64 ? 2 : 3;
    float acc = 0;
    for (uint32_t g = 0; g < m->n_in / m->group; g++) {
        size_t at = (size_t)o * (m->n_in / m->group) + g;
        for (uint32_t k = g * m->group; k < (g + 1) * m->group; k += step) {
            int sum = 0;
            for (uint32_t i = k; i < k + step; i++) sum += (s->code[(size_t)o * m->n_in + i] - (int)m->zero_point) * x->code[i];
            acc = fmaf((float)sum, s->scale[at] * x->scale[k / 32], acc);
        }
        if (!m->zero_point) acc = fmaf(s->bias[at], x->worth[w][g], acc);
    }
    return acc;
}

static const am_mat shapes[] = {
    {AM_Q4, AM_F16, 16, 64, 64, 0, NULL, 0},   {AM_Q4, AM_F16, 100, 576, 32, 8, NULL, 0}, {AM_Q4, AM_BF16, 47, 576, 64, 0, NULL, 0},
    {AM_Q4, AM_F32, 130, 320, 32, 0, NULL, 0}, {AM_Q4, AM_F16, 96, 48, 16, 0, NULL, 0},   {AM_Q4, AM_F16, 95, 640, 128, 0, NULL, 0},
    {AM_Q4, AM_F32, 64, 1024, 128, 7, NULL, 0}, {AM_Q8, AM_F16, 33, 320, 64, 128, NULL, 0}, {AM_Q8, AM_BF16, 144, 96, 32, 0, NULL, 0},
    {AM_Q8, AM_F32, 20, 384, 128, 0, NULL, 0}, {AM_Q8, AM_F32, 100, 800, 16, 32, NULL, 0}, {AM_Q8, AM_F16, 80, 1024, 32, 128, NULL, 0},
    {AM_Q4, AM_S8, 40, 512, 32, 0, NULL, 0},   {AM_Q4, AM_S8, 16, 256, 16, 0, NULL, 0},   {AM_Q4, AM_S8, 130, 768, 16, 4, NULL, 0},
    {AM_Q5, AM_S8, 33, 512, 32, 0, NULL, 0},   {AM_Q5, AM_F16, 100, 96, 32, 16, NULL, 0}, {AM_Q5, AM_BF16, 96, 640, 128, 0, NULL, 0},
    {AM_Q6, AM_S8, 100, 768, 16, 32, NULL, 0}, {AM_Q6, AM_F16, 47, 192, 64, 0, NULL, 0},  {AM_Q6, AM_F32, 31, 96, 32, 32, NULL, 0},
    {AM_Q6, AM_S8, 64, 256, 16, 0, NULL, 0},   {AM_Q4, AM_F16, 95, 320, 32, 128, NULL, AM_BOOK_IQ4}, {AM_Q4, AM_S8, 50, 512, 32, 128, NULL, AM_BOOK_IQ4},
    {AM_Q4, AM_BF16, 64, 96, 32, 12, NULL, AM_BOOK_MXFP4},
};

static void products_have_the_bits_of_the_rule(void **state) {
    (void)state;
    static row truth[MAX_ROWS];
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, MAX_ROWS};
    for (size_t i = 0; i < 4 * sizeof shapes / sizeof shapes[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        const am_mat *m = &shapes[i / 4];
        sample s = sample_create(m, i / 2 % 2);
        size_t row_bytes = am_int8_row_bytes(m->n_in);
        float *y = malloc(MAX_ROWS * m->n_out * sizeof *y), *x = guarded_alloc(m->n_in * sizeof *x, 4, side);
        uint8_t *codes = guarded_alloc(MAX_ROWS * row_bytes, 64, side);
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            if (!(*k)->matmul_int8) continue;
            for (uint32_t r = 0; r < MAX_ROWS; r++) {
                inputs_fill(x, m->n_in, i / 2 % 2 ? 1 + r % 5 : r == 1);
                row_truth(&truth[r], x, m->n_in);
                (*k)->row_int8(codes + r * row_bytes, x, m->n_in);
                for (uint32_t o = 0; o < m->n_out; o++) y[r * m->n_out + o] = product_truth(&s, &truth[r], o);
            }
            for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++)
                {
                size_t first = side == GUARD_AFTER ? MAX_ROWS - rows[j] : 0; /* the last row ends at the guard page */
                check_product(*k, (*k)->matmul_int8, &s.mat, y + first * m->n_out, rows[j], codes + first * row_bytes);
            }
        }
        free(y), free(s.code), free(s.scale), free(s.bias);
        guarded_free_all();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_become_the_codes_that_the_rule_says),
        cmocka_unit_test(products_have_the_bits_of_the_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
