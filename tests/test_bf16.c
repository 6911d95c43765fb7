/* kernels/: products of BF16 weights with rows rounded to bf16. The rule of each table that has them is written out here in plain C, and its bits must
 * come out for any rows, panels and calls; against sums in double they must keep a bound. All buffers lie between guard pages.
 *
 * Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: VDPBF16PS, TDPBF16PS. */
#include "kernel_rig.h"

#include <float.h>
#include <math.h>

enum { MAX_ROWS = 70 };

/* What inputs may look like: usual; none; one far out; some too small for a normal number; large of both signs. */
static float input(uint32_t kind) {
    float x = next_float();
    if (kind == 1) return 0;
    if (kind == 2) return below(9) ? x : x * 1e6f;
    if (kind == 3) return below(3) ? x * 0x1p-130f : x;
    if (kind == 4) return x * 1e18f;
    return x;
}

static void rows_are_rounded_to_even(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 129, 576};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        size_t n = sizes[i / 2], filled = (n + 31) / 32 * 32;
        float *x = guarded_alloc(n * sizeof *x, 4, side);
        uint16_t *got = guarded_alloc(am_bf16_row_bytes(n), 64, side);
        assert_true(am_bf16_row_bytes(n) >= 2 * filled && am_bf16_row_bytes(n) % 128 == 64);
        for (uint32_t kind = 0; kind < 8; kind++) {
            for (size_t k = 0; k < n; k++) {
                uint32_t any = next_u32();
                x[k] = input(kind);
                if (kind == 5) memcpy(&x[k], &any, sizeof any); /* NaN and infinity among them */
                if (kind == 6) any = (any & 0xffff0000) | 0x8000, memcpy(&x[k], &any, sizeof any); /* ties */
                if (kind == 7) x[k] = any % 3 == 0 ? NAN : any % 3 == 1 ? -INFINITY : FLT_MAX;
            }
            for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
                assert_true(!(*k)->row_bf16 == !(*k)->matmul_bf16);
                if (!(*k)->row_bf16) continue;
                memset(got, 0xa5, am_bf16_row_bytes(n));
                (*k)->row_bf16(got, x, n);
                for (size_t j = 0; j < filled; j++)
                    if (got[j] != (j < n ? am_f32_to_bf16(x[j]) : 0)) fail_msg("%s: input %zu of %zu, %a, is %04x", (*k)->name, j, n, (double)x[j < n ? j : 0], got[j]);
            }
        }
        guarded_free_all();
    }
}

/* ---- products ---- */

/* Numbers too small to be normal are 0. */
static float flushed(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }
static float step(float a, float b, float sum) { return flushed(fmaf(flushed(a), flushed(b), flushed(sum))); }

/* One accumulator; of a pair the odd input comes first. */
static float by_pairs(const float *x, const float *w, size_t n) {
    float sum = 0;
    for (size_t k = 0; k < n; k += 2) {
        sum = step(k + 1 < n ? x[k + 1] : 0, k + 1 < n ? w[k + 1] : 0, sum);
        sum = step(x[k], w[k], sum);
    }
    return sum;
}

/* 32 inputs are a product of tiles: a chain of the even and one of the odd, added up, then to what was there. */
static float by_tiles(const float *x, const float *w, size_t n) {
    float sum = 0;
    for (size_t t = 0; t < n; t += 32) {
        float chain[2] = {0};
        for (size_t k = t; k < t + 32; k++) chain[k % 2] = step(k < n ? x[k] : 0, k < n ? w[k] : 0, chain[k % 2]);
        sum = flushed(flushed(sum) + flushed(chain[0] + chain[1]));
    }
    return sum;
}

typedef float rule(const float *x, const float *w, size_t n);
static rule *rule_of(const am_kernels *k) { return strcmp(k->name, "amx") == 0 ? by_tiles : by_pairs; }

typedef struct sample {
    am_mat mat;
    float *w;  /* [n_out][n_in], as bf16 holds it; free() */
    float *x;  /* [MAX_ROWS][n_in], likewise; free() */
} sample;

static sample sample_create(uint32_t n_out, uint32_t n_in, uint32_t kind) {
    sample s = {.mat = {.dtype = AM_BF16, .n_out = n_out, .n_in = n_in}};
    size_t n = (size_t)n_out * n_in;
    uint16_t *src = guarded_alloc(2 * n, 2, side);
    uint8_t *data = guarded_alloc(am_mat_bytes(&s.mat), 64, side);
    s.w = malloc(n * sizeof *s.w);
    s.x = malloc(MAX_ROWS * (size_t)n_in * sizeof *s.x);
    for (size_t i = 0; i < n; i++) src[i] = am_f32_to_bf16(input(kind == 3 ? 3 : 0)), s.w[i] = am_bf16_to_f32(src[i]);
    am_pack_plain(data, &s.mat, src, 0, am_mat_panels(&s.mat));
    s.mat.data = data;
    return s;
}

/* Each of n_in multiply-adds errs by at most 2^-24 of the running sum of magnitudes; what is flushed is less than the least normal number, times what it is
 * multiplied with. */
static void check_bound(const am_kernels *k, const float *x, const float *w, size_t n, float got) {
    double sum = 0, magnitude = 0, lost = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * w[i], magnitude += fabs((double)x[i] * w[i]), lost += (double)FLT_MIN * (fabs((double)x[i]) + fabs((double)w[i]) + 3);
    double bound = ((double)n + 3) * 0x1p-24 * magnitude * 1.01 + lost;
    if (fabs(got - sum) > bound) fail_msg("%s: %zu inputs: %a, should be %a +- %a", k->name, n, (double)got, sum, bound);
}

static void products_have_the_bits_of_the_rule(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {16, 2}, {17, 31}, {33, 32}, {64, 64}, {100, 65}, {130, 576}, {47, 129}, {160, 300}, {271, 96}};
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 31, 32, 33, 47, MAX_ROWS};
    for (size_t i = 0; i < 4 * sizeof shapes / sizeof shapes[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        uint32_t kind = i / 2 % 2 ? 3 : 0, n_out = shapes[i / 4][0], n_in = shapes[i / 4][1];
        sample s = sample_create(n_out, n_in, kind);
        size_t row_bytes = am_bf16_row_bytes(n_in);
        uint8_t *halves = guarded_alloc(MAX_ROWS * row_bytes, 64, side);
        float *truth = malloc(MAX_ROWS * n_out * sizeof *truth), *row = guarded_alloc(n_in * sizeof *row, 4, side);
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            if (!(*k)->matmul_bf16) continue;
            for (size_t r = 0; r < MAX_ROWS; r++) {
                float *x = s.x + r * n_in;
                for (uint32_t j = 0; j < n_in; j++) row[j] = input(kind ? (uint32_t)r % 5 : r == 3), x[j] = am_bf16_to_f32(am_f32_to_bf16(row[j]));
                (*k)->row_bf16(halves + r * row_bytes, row, n_in);
                for (uint32_t o = 0; o < n_out; o++) {
                    const float *w = s.w + (size_t)o * n_in;
                    truth[r * n_out + o] = rule_of(*k)(x, w, n_in);
                    check_bound(*k, x, w, n_in, truth[r * n_out + o]);
                }
            }
            for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++) {
                size_t first = side == GUARD_AFTER ? MAX_ROWS - rows[j] : 0; /* the last row ends at the guard page */
                check_product(*k, (*k)->matmul_bf16, &s.mat, truth + first * n_out, rows[j], halves + first * row_bytes);
            }
        }
        free(truth), free(s.w), free(s.x);
        guarded_free_all();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_rounded_to_even),
        cmocka_unit_test(products_have_the_bits_of_the_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
