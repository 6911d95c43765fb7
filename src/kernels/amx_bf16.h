/* BF16 weights times rows of bf16 by tiles, any number of rows (part of amx.c). Panels lie as tiles want them, so nothing is unpacked: 32 inputs of a panel
 * are one tile of weights, 32 inputs of up to 16 rows one of inputs.
 *
 * A product of tiles reduces its 32 inputs in two chains of fused multiply-adds that begin with zero, one of the even inputs and one of the odd; their sum is
 * added to the output's accumulator. It rounds to nearest even, and what is smaller than float32's normal numbers is 0, going in and coming out. Products go
 * in ascending order of inputs, and between chunks an accumulator rests in y, which is exact: so a row's bits do not depend on the others. Behind the last
 * whole 32 inputs stand zeros.
 *
 * Two panels and two tiles of rows are four sums: enough products under way to hide how long one takes. */
#ifndef AM_KERNELS_AMX_BF16_H
#define AM_KERNELS_AMX_BF16_H

#include "kernels/bf16.h"

#include <math.h>

enum { STEP = 32 /* inputs */, PAIR_ROWS = 2 * TILE, PAIR_CHUNK = 512 /* inputs: 32 KiB of two panels stay in the first cache */ };

typedef struct pair_strip {
    const uint8_t *x; /* from the chunk's first input on, as w */
    size_t row_bytes;
    const uint8_t *w; /* the first panel */
    size_t w_panel;   /* bytes to the next */
    float *y;
    size_t ldy;
    uint32_t n_steps;
    bool fresh; /* start from zero instead of y */
} pair_strip;

/* Tiles 0 and 1 are sums of the first rows by either panel, 2 and 3 of the next; 4 and 5 rows, 6 and 7 weights. */
static void configure_pairs(size_t rows) {
    tile_config config = {.palette = 1};
    size_t first = rows < TILE ? rows : TILE, second = rows - first;
    for (int t = 0; t < 8; t++) {
        size_t n = t >= 6 ? TILE : t == 2 || t == 3 || t == 5 ? second : first;
        config.rows[t] = (uint8_t)n;
        config.row_bytes[t] = n ? 64 : 0;
    }
    tiles_configure(&config);
}

#define SUM_BEGIN(t, there, at)                                                                                        \
    if (there && s->fresh) TILE_ZERO(t);                                                                               \
    if (there && !s->fresh) TILE_LOAD(t, at, s->ldy * sizeof(float));
#define SUM_END(t, there, at)                                                                                          \
    if (there) TILE_STORE(t, at, s->ldy * sizeof(float));

INLINE void pairs_run(const pair_strip *s, const bool two_rows, const bool two_panels) {
    float *below = s->y + TILE * s->ldy;
    const uint8_t *x = s->x, *w = s->w;
    SUM_BEGIN(0, true, s->y)
    SUM_BEGIN(1, two_panels, s->y + AM_PANEL)
    SUM_BEGIN(2, two_rows, below)
    SUM_BEGIN(3, two_rows && two_panels, below + AM_PANEL)
    for (uint32_t i = 0; i < s->n_steps; i++, x += 2 * STEP, w += 2 * STEP * AM_PANEL) {
        TILE_LOAD(4, x, s->row_bytes);
        TILE_LOAD(6, w, 64);
        TILE_DOT_HALVES(0, 4, 6);
        if (two_panels) TILE_LOAD(7, w + s->w_panel, 64);
        if (two_panels) TILE_DOT_HALVES(1, 4, 7);
        if (two_rows) TILE_LOAD(5, x + TILE * s->row_bytes, s->row_bytes);
        if (two_rows) TILE_DOT_HALVES(2, 5, 6);
        if (two_rows && two_panels) TILE_DOT_HALVES(3, 5, 7);
    }
    SUM_END(0, true, s->y)
    SUM_END(1, two_panels, s->y + AM_PANEL)
    SUM_END(2, two_rows, below)
    SUM_END(3, two_rows && two_panels, below + AM_PANEL)
}

/* All rows of a chunk; rows_set: for how many tiles are configured. */
static void pairs_rows(pair_strip s, size_t n_rows, uint32_t panels, size_t *rows_set) {
    for (size_t r = 0, rows; r < n_rows; r += rows, s.x += rows * s.row_bytes, s.y += rows * s.ldy) {
        rows = n_rows - r < PAIR_ROWS ? n_rows - r : PAIR_ROWS;
        if (rows != *rows_set) configure_pairs(*rows_set = rows);
        if (rows > TILE) panels == 2 ? pairs_run(&s, true, true) : pairs_run(&s, true, false);
        else panels == 2 ? pairs_run(&s, false, true) : pairs_run(&s, false, false);
    }
}

/* Rows of one or two panels, all of the inputs. */
static void pairs_panels(pair_strip s, size_t n_rows, uint32_t n_in, uint32_t panels, size_t *rows_set) {
    uint8_t rest[2][2 * STEP * AM_PANEL] __attribute__((aligned(64)));
    uint32_t whole = n_in / STEP * STEP;
    const pair_strip all = s;
    for (uint32_t k = 0; k < whole; k += PAIR_CHUNK) {
        s.x = all.x + 2 * (size_t)k;
        s.w = all.w + 2 * (size_t)k * AM_PANEL;
        s.n_steps = (whole - k < PAIR_CHUNK ? whole - k : PAIR_CHUNK) / STEP;
        s.fresh = k == 0;
        pairs_rows(s, n_rows, panels, rows_set);
    }
    if (whole == n_in) return;
    memset(rest, 0, sizeof rest);
    for (uint32_t p = 0; p < panels; p++) memcpy(rest[p], all.w + p * all.w_panel + 2 * (size_t)whole * AM_PANEL, 2 * (size_t)mat_paired(n_in - whole) * AM_PANEL);
    s = all;
    s.x += 2 * (size_t)whole;
    s.w = rest[0];
    s.w_panel = sizeof rest[0];
    s.n_steps = 1;
    s.fresh = whole == 0;
    pairs_rows(s, n_rows, panels, rows_set);
}

static void matmul_bf16(float *y, size_t ldy, const void *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    static _Thread_local float copy[ROWS][AM_PANEL]; /* of a panel some of whose outputs are not in y */
    pair_strip s = {.row_bytes = am_bf16_row_bytes(w->n_in), .w_panel = am_mat_panel_bytes(w)};
    size_t rows_set = 0;
    for (size_t r = 0; r < n_rows; r += ROWS) {
        size_t rows = n_rows - r < ROWS ? n_rows - r : ROWS;
        for (uint32_t p = p0, n; p < p1; p += n) {
            uint32_t lanes = mat_lanes(w, p);
            float *to = y + r * ldy + (size_t)p * AM_PANEL;
            n = p + 2 <= p1 && (p + 2) * AM_PANEL <= w->n_out ? 2 : 1;
            s.x = (const uint8_t *)x + r * s.row_bytes;
            s.w = mat_panel(w, p);
            s.y = lanes == AM_PANEL ? to : copy[0];
            s.ldy = lanes == AM_PANEL ? ldy : AM_PANEL;
            pairs_panels(s, rows, w->n_in, n, &rows_set);
            for (size_t i = 0; lanes < AM_PANEL && i < rows; i++) memcpy(to + i * ldy, copy[i], lanes * sizeof *to);
        }
    }
    if (rows_set) tiles_release();
}

/* What the manual says that products of tiles add up to, where no number is too small. */
static float pairs_sum(const uint16_t *x, const uint16_t *w, uint32_t n_in) {
    float sum = 0;
    for (uint32_t k = 0; k < n_in; k += STEP) {
        float chain[2] = {0};
        for (uint32_t i = k; i < k + STEP && i < n_in; i++) chain[i % 2] = fmaf(bf16_expand(x[i]), bf16_expand(w[i]), chain[i % 2]);
        sum += chain[0] + chain[1];
    }
    return sum;
}

/* One and two tiles of rows and panels, a rest of inputs, against plain arithmetic. */
static bool pairs_prove_themselves(void) {
    enum { N_IN = PAIR_CHUNK + 2 * STEP + 11, N_OUT = 3 * AM_PANEL + 5, N_ROWS = PAIR_ROWS + 3, N_PAIRS = (N_IN + 1) / 2 };
    static uint16_t weights[N_OUT][N_IN];
    static uint32_t panels[4][N_PAIRS][AM_PANEL] __attribute__((aligned(64)));
    static uint8_t rows[N_ROWS][(2 * N_IN + 127) / 64 * 64 + 64] __attribute__((aligned(64)));
    static float x[N_IN], y[N_ROWS][N_OUT];
    size_t row_bytes = am_bf16_row_bytes(N_IN);
    uint32_t seed = 1;
    for (uint32_t o = 0; o < N_OUT; o++)
        for (uint32_t k = 0; k < N_IN; k++) {
            seed = seed * 1664525 + 1013904223;
            weights[o][k] = (uint16_t)(0x3e80 + (seed >> 24) + (seed >> 8 & 0x8000)); /* 0.25 .. 1 in size */
        }
    for (uint32_t r = 0; r < N_ROWS; r++) {
        for (uint32_t k = 0; k < N_IN; k++) x[k] = (float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-31f;
        row_bf16(rows[0] + r * row_bytes, x, N_IN);
    }
    am_mat w = {.dtype = AM_BF16, .n_out = N_OUT, .n_in = N_IN, .data = panels};
    am_pack_plain(panels, &w, weights, 0, am_mat_panels(&w));
    for (size_t n = 1; n <= N_ROWS; n += n == 1 ? TILE : N_ROWS - TILE - 1) {
        memset(y, 0, sizeof y);
        matmul_bf16(y[0], N_OUT, rows, n, &w, 0, am_mat_panels(&w));
        for (size_t r = 0; r < n; r++)
            for (size_t o = 0; o < N_OUT; o++)
                if (y[r][o] != pairs_sum((const uint16_t *)(const void *)(rows[0] + r * row_bytes), weights[o], N_IN)) return false;
    }
    return true;
}

#endif
