/* kernels/amx.c on any machine: its tiles are arrays here, its instructions functions that do what the manual says and refuse what the processor
 * would. Included by the tests that run others' cases on that table. Small blocks, so that every loop goes round.
 *
 * Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TDPBSSD, TDPBSUD, TDPBF16PS. */
#include "kernels/tables.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <immintrin.h>

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "the form of LDTILECFG's operand");

static tile_config configured; /* palette 0: none */
static uint8_t tiles[8][16][64];
static unsigned long n_products;

static void tiles_configure(const tile_config *c) {
    assert_int_equal(c->palette, 1);
    assert_int_equal(c->start_row, 0);
    for (int i = 0; i < 16; i++) {
        assert_true(i < 8 ? c->rows[i] <= 16 && c->row_bytes[i] <= 64 : !c->rows[i] && !c->row_bytes[i]);
        if (i < 14) assert_int_equal(c->reserved[i], 0);
    }
    configured = *c;
    memset(tiles, 0, sizeof tiles);
}

static void tiles_release(void) { configured = (tile_config){0}; }

static void tile_zero(int t) {
    assert_int_equal(configured.palette, 1);
    assert_true(configured.rows[t] > 0);
    memset(tiles[t], 0, sizeof tiles[t]);
}

static void tile_load(int t, const void *p, size_t stride) {
    tile_zero(t);
    for (size_t r = 0; r < configured.rows[t]; r++) memcpy(tiles[t][r], (const uint8_t *)p + r * stride, configured.row_bytes[t]);
}

static void tile_store(int t, void *p, size_t stride) {
    assert_int_equal(configured.palette, 1);
    for (size_t r = 0; r < configured.rows[t]; r++) memcpy((uint8_t *)p + r * stride, tiles[t][r], configured.row_bytes[t]);
}

static void product_begin(int to, int a, int b) {
    assert_int_equal(configured.palette, 1);
    assert_true(to != a && to != b && a != b);
    assert_true(configured.rows[to] > 0);
    assert_int_equal(configured.rows[a], configured.rows[to]);
    assert_int_equal(configured.row_bytes[b], configured.row_bytes[to]);
    assert_int_equal(configured.rows[b], configured.row_bytes[a] / 4);
    n_products++;
}

static void tile_dot(int to, int a, int b, bool is_signed) {
    product_begin(to, a, b);
    for (int m = 0; m < configured.rows[to]; m++)
        for (int n = 0; n < configured.row_bytes[to] / 4; n++) {
            int32_t sum;
            memcpy(&sum, &tiles[to][m][4 * n], sizeof sum);
            for (int k = 0; k < configured.row_bytes[a]; k++) {
                uint8_t w = tiles[b][k / 4][4 * n + k % 4];
                sum += (int8_t)tiles[a][m][k] * (is_signed ? (int8_t)w : (int)w);
            }
            memcpy(&tiles[to][m][4 * n], &sum, sizeof sum);
        }
}

/* Numbers that are not normal are 0, as inputs and as results. */
static float tile_number(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

static float tile_half(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return tile_number(am_bf16_to_f32(h));
}

static void tile_dot_halves(int to, int a, int b) {
    product_begin(to, a, b);
    for (int m = 0; m < configured.rows[to]; m++)
        for (int n = 0; n < configured.row_bytes[to] / 4; n++) {
            float sum, chain[2] = {0};
            memcpy(&sum, &tiles[to][m][4 * n], sizeof sum);
            for (int k = 0; k < configured.row_bytes[a] / 4; k++)
                for (int i = 0; i < 2; i++) chain[i] = tile_number(fmaf(tile_half(&tiles[a][m][4 * k + 2 * i]), tile_half(&tiles[b][k][4 * n + 2 * i]), chain[i]));
            sum = tile_number(tile_number(sum) + tile_number(chain[0] + chain[1]));
            memcpy(&tiles[to][m][4 * n], &sum, sizeof sum);
        }
}

#define TILE_ZERO(t) tile_zero(t)
#define TILE_LOAD(t, p, stride) tile_load(t, p, stride)
#define TILE_STORE(t, p, stride) tile_store(t, p, stride)
#define TILE_DOT_UNSIGNED(to, a, b) tile_dot(to, a, b, false)
#define TILE_DOT_SIGNED(to, a, b) tile_dot(to, a, b, true)
#define TILE_DOT_HALVES(to, a, b) tile_dot_halves(to, a, b)
static bool tiles_usable(void) { return true; }

#define AM_AMX_TEST
enum { ROWS = 32, CHUNK = 256 };
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")
#endif
#include "kernels/amx.c"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* 0: the table was offered and its tiles were used. */
static int amx_tried(unsigned long least_products) {
    const am_kernels *amx;
    am_error err = {0};
    if (!am_cpu_has_avx512vnni()) {
        print_message("no AVX-512 with VNNI here: the table of AMX was not tried\n");
    } else if (am_kernels_pick("amx", &amx, &err) || n_products < least_products) {
        print_message("the table of AMX: %s, %lu products\n", err.message, n_products);
        return 1;
    }
    return 0;
}
