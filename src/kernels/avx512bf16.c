/* The table of AVX-512 with BF16: as avx512vnni, and BF16 weights times inputs rounded to bf16 by vdpbf16ps, which adds two products of neighbours to each of
 * 16 lanes. An output is one accumulator, filled pair by pair in ascending order of inputs, the odd one of a pair before the even one, each by a fused
 * multiply-add that rounds to nearest even; what is smaller than float32's normal numbers is 0, going in and coming out. So rows, panels and calls cannot
 * change a bit.
 *
 * Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: VDPBF16PS. */
#include "kernels/avx512.h"
#include "kernels/bf16.h"

enum { PAIR_ROWS = 6, PAIR_PANELS = 8 };
#define PANELS_OF(r) ((r) == 1 ? 8 : 4)

typedef struct pair_tile {
    float *y;
    size_t ldy;
    const uint8_t *x;
    size_t row_bytes;
    const uint8_t *w; /* the first panel */
    size_t w_panel;   /* bytes to the next */
    size_t n_pairs;
    __mmask16 lanes;  /* of its outputs that there are */
} pair_tile;

INLINE __m512 pair_dot(__m512 acc, __m512i w, const uint8_t *pair) {
    int32_t two;
    memcpy(&two, pair, sizeof two);
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)_mm512_set1_epi32(two));
}

INLINE void pair_tile_run(const pair_tile *a, const int r, const int p) {
    __m512 acc[PAIR_ROWS][PAIR_PANELS];
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < p; v++) acc[i][v] = _mm512_setzero_ps();
    }
    const uint8_t *w = a->w, *x = a->x;
    for (size_t k = 0; k < a->n_pairs; k++, w += 64, x += 4) {
        __m512i weights[PAIR_PANELS];
        UNROLL for (int v = 0; v < p; v++) weights[v] = _mm512_loadu_si512(w + (size_t)v * a->w_panel);
        UNROLL for (int i = 0; i < r; i++) {
            UNROLL for (int v = 0; v < p; v++) acc[i][v] = pair_dot(acc[i][v], weights[v], x + (size_t)i * a->row_bytes);
        }
    }
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < p; v++) _mm512_mask_storeu_ps(a->y + (size_t)i * a->ldy + v * AM_PANEL, a->lanes, acc[i][v]);
    }
}

#define PAIR_CASE(r)                                                                                                   \
    case r:                                                                                                            \
        if (panels == 1) pair_tile_run(a, r, 1);                                                                       \
        else pair_tile_run(a, r, PANELS_OF(r));                                                                        \
        break;
static void pair_tile_of(const pair_tile *a, size_t rows, uint32_t panels) {
    switch (rows) { PAIR_CASE(1) PAIR_CASE(2) PAIR_CASE(3) PAIR_CASE(4) PAIR_CASE(5) PAIR_CASE(6) }
}

/* Rows of a tile stay in the first cache while the panels pass. Tiles are of about the same size. */
static void matmul_bf16(float *y, size_t ldy, const void *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    pair_tile a = {.ldy = ldy, .row_bytes = am_bf16_row_bytes(w->n_in), .w_panel = am_mat_panel_bytes(w), .n_pairs = mat_paired(w->n_in) / 2};
    for (size_t r = 0, rows; r < n_rows; r += rows) {
        size_t left = n_rows - r, n_tiles = (left + PAIR_ROWS - 1) / PAIR_ROWS;
        rows = left / n_tiles;
        a.x = (const uint8_t *)x + r * a.row_bytes;
        uint32_t wide = PANELS_OF(rows);
        for (uint32_t p = p0, n; p < p1; p += n) {
            n = p + wide <= p1 && (p + wide) * AM_PANEL <= w->n_out ? wide : 1;
            a.lanes = (__mmask16)((1u << mat_lanes(w, p)) - 1);
            a.w = mat_panel(w, p);
            a.y = y + r * ldy + (size_t)p * AM_PANEL;
            pair_tile_of(&a, rows, n);
        }
    }
}

static bool supported(void) {
    if (!am_cpu_has_avx512bf16()) return false;
    am_kernels_avx512bf16 = am_kernels_avx512vnni;
    am_kernels_avx512bf16.name = "avx512bf16";
    am_kernels_avx512bf16.supported = supported;
    am_kernels_avx512bf16.matmul_bf16 = matmul_bf16;
    am_kernels_avx512bf16.row_bf16 = row_bf16;
    return true;
}

am_kernels am_kernels_avx512bf16 = {.name = "avx512bf16", .supported = supported};
