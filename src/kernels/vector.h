/* The body of every vector table: the algorithms once, over the few operations on `vec` that the including file defines for its
 * instruction set (avx512.c, avx2.c, neon.c; each includes this once, after them). Only the compiler's flags and those operations
 * differ between tables, so what invariant 1 asks for is argued here once:
 *
 *   - lanes are outputs (of a panel, or dimensions of a value row), never inputs: each output is one chain of fused multiply-adds
 *     in ascending order of inputs, whatever the tile it is computed in. Between runs of inputs it rests in y as float32: exact.
 *   - codes become scale * code + bias by the same fused operation in registers (few rows: each weight is used once or a few
 *     times) and through the scratch (many rows: unpacked once for all of them).
 *   - sums over a row (softmax, norm) go by position into lanes, then by a fixed tree.
 *
 * The including file defines: vec, LANES (4, 8 or 16), and v_zero v_set v_load v_store v_add v_sub v_mul v_div v_fma(a,b,c = a*b+c)
 * v_min v_max (of a NaN and x in either place: the second operand) v_round (to integer) v_scale2(y,n = y * 2^n) v_sum v_least v_most
 * v_number (NaN to 0) v_zero_below(y,x,low: y, 0 where x < low) v_range(t,from,to,a,b: a where from <= t + lane < to, else b)
 * v_load_f16 v_load_bf16 v_load_bf16_pairs(p,even,odd: of two neighbours a lane) v_load_u8 v_load_nibbles v_load_8_nibbles(p,out: of 4 bytes a lane, the low
 * nibbles, then the high ones) v_load_4_bytes(p,out: the same of bytes) v_add_fifth(x,bits: 16 more in lane i where bit i is set) v_store_f16 v_store_u8; TILE_PANELS and the two rules of how many panels a tile
 * of r rows takes, PLAIN_PANELS(r) and QUANT_PANELS(r), chosen so that accumulators fill the registers. */
#include "kernels/scales.h"

#include <math.h>

enum {
    PANEL_VECS = AM_PANEL / LANES,
    TILE_ROWS = 6,
    TILE_VECS = 8 * PANEL_VECS,
    KEY_ROWS = LANES == 16 ? 8 : 2, /* rows whose sums over tokens fill the registers */
    ROWS_RUN = 64, /* tokens of values unpacked at a time: 64 dims of them are 16 KiB */
};

/* y[r][16 * panel + j] += x[r][k] * w[panel][k][j] for k < n. F32 and F16: w is typed and strides count elements. Others: w is
 * the first panel and w_panel counts bytes. */
typedef struct tile {
    float *y;
    size_t ldy;
    const float *x;
    size_t ldx;
    const void *w;
    size_t w_step, w_panel;
    uint32_t n;
    bool fresh; /* start from zero instead of y */
    const am_mat *mat; /* quantised */
    const float *scale, *bias; /* of inputs [k0, k0 + n) of n_in: codes with a scale a channel */
    uint32_t k0, n_in;
} tile;

/* ---- tiles: r rows times p panels in registers, r and p constants after inlining ---- */

INLINE void acc_begin(vec acc[TILE_ROWS][TILE_VECS], const tile *a, const int r, const int p) {
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++)
            acc[i][v] = a->fresh ? v_zero() : v_load(a->y + (size_t)i * a->ldy + v * LANES);
    }
}

INLINE void acc_end(vec acc[TILE_ROWS][TILE_VECS], const tile *a, const int r, const int p) {
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) v_store(a->y + (size_t)i * a->ldy + v * LANES, acc[i][v]);
    }
}

INLINE vec plain_load(const void *w, size_t at, const am_dtype dtype) {
    return dtype == AM_F32 ? v_load((const float *)w + at) : v_load_f16((const uint16_t *)w + at);
}

INLINE void tile_plain(const tile *a, const int r, const int p, const am_dtype dtype) {
    vec acc[TILE_ROWS][TILE_VECS];
    acc_begin(acc, a, r, p);
    for (uint32_t k = 0; k < a->n; k++) {
        vec w[TILE_VECS];
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++)
            w[v] = plain_load(a->w, k * a->w_step + (size_t)(v / PANEL_VECS) * a->w_panel + v % PANEL_VECS * LANES, dtype);
        UNROLL for (int i = 0; i < r; i++) {
            vec x = v_set(a->x[(size_t)i * a->ldx + k]);
            UNROLL for (int v = 0; v < p * PANEL_VECS; v++) acc[i][v] = v_fma(x, w[v], acc[i][v]);
        }
    }
    acc_end(acc, a, r, p);
}

/* Vector v of the scales of a group and the level above it, and of its biases. */
INLINE vec group_scale(const am_mat *w, const uint8_t *group, const uint8_t *level, const int v) {
    return scale_load(group, w->scale_dtype, (size_t)v * LANES, level);
}
INLINE vec group_bias(const am_mat *w, const uint8_t *group, const uint8_t *level, const int v, vec scale) {
    if (w->zero_point) return v_mul(scale, v_set(-(float)w->zero_point));
    return scale_load(group, w->scale_dtype, AM_PANEL + (size_t)v * LANES, level);
}

/* Codes of the next inputs (8 of Q4, 4 of Q8) of one vector of outputs. */
INLINE void run_codes(vec code[8], const uint8_t *at, const am_dtype dtype) {
    if (dtype == AM_Q4)
        v_load_8_nibbles(at, code);
    else
        v_load_4_bytes(at, code);
}

/* Whether codes are read where they lie; others are opened to bytes. */
static inline bool codes_direct(const am_mat *w) { return w->dtype == AM_Q8 || (w->dtype == AM_Q4 && !w->book) || !am_dtype_quantised(w->dtype); }

/* Two inputs for vector v of a tile. */
INLINE void tile_pair(vec acc[TILE_ROWS][TILE_VECS], const tile *a, const int r, const int v, size_t k, vec low, vec high) {
    UNROLL for (int i = 0; i < r; i++) {
        acc[i][v] = v_fma(v_set(a->x[(size_t)i * a->ldx + k]), low, acc[i][v]);
        acc[i][v] = v_fma(v_set(a->x[(size_t)i * a->ldx + k + 1]), high, acc[i][v]);
    }
}

INLINE void tile_pairs(const tile *a, const int r, const int p) {
    vec acc[TILE_ROWS][TILE_VECS];
    acc_begin(acc, a, r, p);
    const uint8_t *at = a->w;
    for (uint32_t k = 0; k + 2 <= a->n; k += 2, at += 4 * AM_PANEL) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            vec even, odd;
            v_load_bf16_pairs(at + (size_t)(v / PANEL_VECS) * a->w_panel + v % PANEL_VECS * LANES * 4, &even, &odd);
            tile_pair(acc, a, r, v, k, even, odd);
        }
    }
    if (a->n % 2) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            vec even, odd;
            v_load_bf16_pairs(at + (size_t)(v / PANEL_VECS) * a->w_panel + v % PANEL_VECS * LANES * 4, &even, &odd);
            UNROLL for (int i = 0; i < r; i++) acc[i][v] = v_fma(v_set(a->x[(size_t)i * a->ldx + a->n - 1]), even, acc[i][v]);
        }
    }
    acc_end(acc, a, r, p);
}

INLINE void tile_quantised(const tile *a, const int r, const int p, const am_dtype dtype) {
    vec acc[TILE_ROWS][TILE_VECS];
    acc_begin(acc, a, r, p);
    const am_mat *mat = a->mat;
    size_t group_bytes = mat_group_bytes(mat), scale_bytes = mat_scale_bytes(mat);
    const uint8_t *group = mat_group(mat, a->w, 0);
    for (uint32_t k0 = 0; k0 < a->n; k0 += mat->group, group += group_bytes) {
        vec scale[TILE_VECS], bias[TILE_VECS];
        const uint8_t *level = mat_level(mat, a->w, k0);
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            size_t at = (size_t)(v / PANEL_VECS) * a->w_panel;
            scale[v] = group_scale(mat, group + at, level + at, v % PANEL_VECS);
            bias[v] = group_bias(mat, group + at, level + at, v % PANEL_VECS, scale[v]);
        }
        const uint8_t *codes = group + scale_bytes;
        const uint32_t run = dtype == AM_Q4 ? 8 : 4;
        for (uint32_t k = k0; k < k0 + mat->group; k += run, codes += 4 * AM_PANEL) {
            UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
                vec code[8];
                run_codes(code, codes + (size_t)(v / PANEL_VECS) * a->w_panel + v % PANEL_VECS * LANES * 4, dtype);
                UNROLL for (uint32_t b = 0; b < run; b += 2)
                    tile_pair(acc, a, r, v, k + b, v_fma(scale[v], code[b], bias[v]), v_fma(scale[v], code[b + 1], bias[v]));
            }
        }
    }
    acc_end(acc, a, r, p);
}

/* Codes of inputs k and k + 1 of a panel, vector v of its outputs. */
INLINE void channel_pair(const uint8_t *panel, const am_dtype dtype, uint32_t n_in, uint32_t k, const int v, vec *low, vec *high) {
    if (dtype == AM_C8) {
        *low = v_load_u8(panel + (size_t)k * AM_PANEL + v * LANES);
        *high = v_load_u8(panel + (size_t)(k + 1) * AM_PANEL + v * LANES);
        return;
    }
    v_load_nibbles(panel + (size_t)k / 2 * AM_PANEL + v * LANES, low, high);
    if (dtype == AM_C5) {
        *low = v_add_fifth(*low, panel_fifth(panel, n_in, k) >> v * LANES);
        *high = v_add_fifth(*high, panel_fifth(panel, n_in, k + 1) >> v * LANES);
    }
}

INLINE void tile_channels(const tile *a, const int r, const int p, const am_dtype dtype) {
    vec acc[TILE_ROWS][TILE_VECS];
    acc_begin(acc, a, r, p);
    for (uint32_t k = 0; k < a->n; k += 2) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            vec low, high;
            channel_pair((const uint8_t *)a->w + (size_t)(v / PANEL_VECS) * a->w_panel, dtype, a->n_in, a->k0 + k, v % PANEL_VECS, &low, &high);
            low = v_fma(v_set(a->scale[k]), low, v_set(a->bias[k]));
            high = v_fma(v_set(a->scale[k + 1]), high, v_set(a->bias[k + 1]));
            tile_pair(acc, a, r, v, k, low, high);
        }
    }
    acc_end(acc, a, r, p);
}

/* The tiles that exist, by rows and panels: as many panels as the rule of that row count gives, the many-row width, and one. */
#define TILE_CASES(r, rule, call)                                                                                      \
    case r:                                                                                                            \
        if (panels == 1)                                                                                               \
            call(r, 1);                                                                                                \
        else if (panels == TILE_PANELS)                                                                                \
            call(r, TILE_PANELS);                                                                                      \
        else                                                                                                           \
            call(r, rule(r));                                                                                          \
        break;
#define TILE_SWITCH(rule, call)                                                                                        \
    switch (rows) {                                                                                                    \
        TILE_CASES(1, rule, call) TILE_CASES(2, rule, call) TILE_CASES(3, rule, call)                                  \
        TILE_CASES(4, rule, call) TILE_CASES(5, rule, call) TILE_CASES(6, rule, call)                                  \
    }

static void tile_f32(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_plain(a, r, p, AM_F32)
    TILE_SWITCH(PLAIN_PANELS, CALL)
#undef CALL
}

static void tile_f16(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_plain(a, r, p, AM_F16)
    TILE_SWITCH(PLAIN_PANELS, CALL)
#undef CALL
}

static void tile_bf16(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_pairs(a, r, p)
    TILE_SWITCH(PLAIN_PANELS, CALL)
#undef CALL
}

static void tile_q8(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_quantised(a, r, p, AM_Q8)
    TILE_SWITCH(QUANT_PANELS, CALL)
#undef CALL
}

static void tile_q4(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_quantised(a, r, p, AM_Q4)
    TILE_SWITCH(QUANT_PANELS, CALL)
#undef CALL
}

static void tile_c8(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_channels(a, r, p, AM_C8)
    TILE_SWITCH(QUANT_PANELS, CALL)
#undef CALL
}

static void tile_c5(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_channels(a, r, p, AM_C5)
    TILE_SWITCH(QUANT_PANELS, CALL)
#undef CALL
}

static void tile_c4(const tile *a, uint32_t rows, uint32_t panels) {
#define CALL(r, p) tile_channels(a, r, p, AM_C4)
    TILE_SWITCH(QUANT_PANELS, CALL)
#undef CALL
}

typedef void tile_fn(const tile *a, uint32_t rows, uint32_t panels);
static tile_fn *const tile_of[AM_N_DTYPE] = {[AM_F32] = tile_f32, [AM_F16] = tile_f16, [AM_BF16] = tile_bf16, [AM_Q8] = tile_q8,
                                             [AM_Q4] = tile_q4,   [AM_C8] = tile_c8,   [AM_C5] = tile_c5,     [AM_C4] = tile_c4};

/* All rows by tiles of the same panels. lanes < 16: one panel whose other outputs do not exist in y, so it goes through a copy. */
static void tile_rows(tile a, tile_fn *fn, size_t n_rows, uint32_t panels, uint32_t lanes) {
    float copy[TILE_ROWS * AM_PANEL] = {0};
    for (size_t r = 0; r < n_rows; r += TILE_ROWS, a.y += TILE_ROWS * a.ldy, a.x += TILE_ROWS * a.ldx) {
        uint32_t rows = n_rows - r < TILE_ROWS ? (uint32_t)(n_rows - r) : TILE_ROWS;
        if (lanes == AM_PANEL) {
            fn(&a, rows, panels);
            continue;
        }
        tile c = a;
        c.y = copy;
        c.ldy = AM_PANEL;
        for (uint32_t i = 0; i < rows; i++) memcpy(copy + i * AM_PANEL, a.y + i * a.ldy, lanes * sizeof *copy);
        fn(&c, rows, panels);
        for (uint32_t i = 0; i < rows; i++) memcpy(a.y + i * a.ldy, copy + i * AM_PANEL, lanes * sizeof *copy);
    }
}

/* ---- unpacking ---- */

/* The group of input k. */
static void group_unpack(float *dst, const am_mat *w, const uint8_t *panel, uint32_t k) {
    uint8_t opened[128 * AM_PANEL];
    const uint8_t *group = mat_group(w, panel, k), *level = mat_level(w, panel, k), *codes = group + mat_scale_bytes(w);
    const am_dtype dtype = codes_direct(w) ? w->dtype : AM_Q8;
    const uint32_t run = dtype == AM_Q4 ? 8 : 4;
    if (!codes_direct(w)) {
        codes_open(opened, w, codes);
        codes = opened;
    }
    UNROLL for (int v = 0; v < PANEL_VECS; v++) {
        vec scale = group_scale(w, group, level, v), bias = group_bias(w, group, level, v, scale);
        const uint8_t *at = codes + v * LANES * 4;
        float *to = dst + v * LANES;
        for (uint32_t i = 0; i < w->group; i += run, at += 4 * AM_PANEL) {
            vec code[8];
            run_codes(code, at, dtype);
            for (uint32_t b = 0; b < run; b++, to += AM_PANEL) v_store(to, v_fma(scale, code[b], bias));
        }
    }
}

/* dst [n][16] = n inputs; the last of an odd n has no neighbour. */
static void pairs_unpack(float *dst, const uint8_t *pairs, uint32_t n) {
    for (uint32_t k = 0; k < n; k += 2, pairs += 4 * AM_PANEL, dst += 2 * AM_PANEL) {
        UNROLL for (int v = 0; v < PANEL_VECS; v++) {
            vec even, odd;
            v_load_bf16_pairs(pairs + v * LANES * 4, &even, &odd);
            v_store(dst + v * LANES, even);
            if (k + 1 < n) v_store(dst + AM_PANEL + v * LANES, odd);
        }
    }
}

/* dst [n][16] = inputs [k0, k0 + n) of a panel; k0 is a multiple of AM_RUN, n at most AM_RUN. */
static void panel_unpack(float *dst, const am_mat *w, const uint8_t *panel, uint32_t k0, uint32_t n) {
    size_t first = (size_t)k0 * AM_PANEL, count = (size_t)n * AM_PANEL;
    if (am_dtype_quantised(w->dtype)) {
        for (uint32_t k = 0; k < n; k += w->group) group_unpack(dst + (size_t)k * AM_PANEL, w, panel, k0 + k);
    } else if (w->dtype == AM_BF16) {
        pairs_unpack(dst, panel + 2 * first, n);
    } else {
        for (size_t i = 0; i < count; i += LANES) v_store(dst + i, plain_load(panel, first + i, w->dtype));
    }
}

/* scale and bias [n] = of channels [k0, k0 + n) of one group. */
static void channels_load(float *scale, float *bias, const uint16_t *channels, uint32_t n_channels, uint32_t k0, uint32_t n) {
    for (uint32_t i = 0; i < n; i += LANES) {
        v_store(scale + i, v_load_f16(channels + k0 + i));
        v_store(bias + i, v_load_f16(channels + n_channels + k0 + i));
    }
}

INLINE void panel_channels_unpack(float *dst, const tile *a, const uint8_t *panel, const am_dtype dtype) {
    for (uint32_t k = 0; k < a->n; k += 2, dst += 2 * AM_PANEL) {
        UNROLL for (int v = 0; v < PANEL_VECS; v++) {
            vec low, high;
            channel_pair(panel, dtype, a->n_in, a->k0 + k, v, &low, &high);
            v_store(dst + v * LANES, v_fma(v_set(a->scale[k]), low, v_set(a->bias[k])));
            v_store(dst + AM_PANEL + v * LANES, v_fma(v_set(a->scale[k + 1]), high, v_set(a->bias[k + 1])));
        }
    }
}

/* dst [n][16] = inputs [k0, k0 + n) of a panel of codes, with the scales of `a`. */
static void channels_unpack(float *dst, const tile *a, const uint8_t *panel, am_dtype dtype) {
    switch (dtype) {
    case AM_C8: panel_channels_unpack(dst, a, panel, AM_C8); break;
    case AM_C5: panel_channels_unpack(dst, a, panel, AM_C5); break;
    default: panel_channels_unpack(dst, a, panel, AM_C4);
    }
}

/* ---- matrices ---- */

/* Few rows: whole columns of inputs through registers, weights read once from memory. */
static void matmul_few(tile a, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    bool quantised = am_dtype_quantised(w->dtype);
    uint32_t wide = quantised ? QUANT_PANELS(n_rows) : PLAIN_PANELS(n_rows);
    a.n = w->n_in;
    a.fresh = true;
    a.w_step = AM_PANEL;
    a.w_panel = quantised || w->dtype == AM_BF16 ? am_mat_panel_bytes(w) : (size_t)w->n_in * AM_PANEL;
    a.mat = w;
    for (uint32_t p = p0, n; p < p1; p += n, a.y += n * AM_PANEL) {
        bool full = (p + wide) * AM_PANEL <= w->n_out && p + wide <= p1;
        n = full ? wide : 1;
        a.w = mat_panel(w, p);
        tile_rows(a, tile_of[w->dtype], n_rows, n, full ? AM_PANEL : mat_lanes(w, p));
    }
}

/* Many rows: runs of inputs of a few panels as float32 in the cache (unpacked into the scratch unless they are that already), used
 * by all rows before the next run. */
static void matmul_many(tile a, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    _Alignas(64) float scratch[TILE_PANELS][AM_RUN * AM_PANEL];
    const float *x = a.x;
    a.w_step = AM_PANEL;
    for (uint32_t p = p0, n; p < p1; p += n, a.y += n * AM_PANEL) {
        bool full = (p + TILE_PANELS) * AM_PANEL <= w->n_out && p + TILE_PANELS <= p1;
        n = full ? TILE_PANELS : 1;
        for (uint32_t k = 0; k < w->n_in; k += AM_RUN) {
            a.n = w->n_in - k < AM_RUN ? w->n_in - k : AM_RUN;
            a.fresh = k == 0;
            a.x = x + k;
            if (w->dtype == AM_F32) {
                a.w = (const float *)(const void *)mat_panel(w, p) + (size_t)k * AM_PANEL;
                a.w_panel = (size_t)w->n_in * AM_PANEL;
            } else {
                for (uint32_t i = 0; i < n; i++) panel_unpack(scratch[i], w, mat_panel(w, p + i), k, a.n);
                a.w = scratch;
                a.w_panel = AM_RUN * AM_PANEL;
            }
            tile_rows(a, tile_f32, n_rows, n, full ? AM_PANEL : mat_lanes(w, p));
        }
    }
}

/* Panels [p, end) of one group of outputs, for one run of inputs whose scales are in `a`. */
static void matmul_channels_run(tile a, size_t n_rows, const am_mat *w, uint32_t p, uint32_t end) {
    _Alignas(64) float scratch[TILE_PANELS][AM_RUN * AM_PANEL];
    bool many = n_rows > TILE_ROWS;
    for (uint32_t n; p < end; p += n, a.y += n * AM_PANEL) {
        uint32_t wide = many ? TILE_PANELS : QUANT_PANELS(n_rows);
        n = wide <= end - p ? wide : TILE_PANELS <= end - p ? TILE_PANELS : 1;
        a.w = many ? (const void *)scratch : mat_channel_codes(w, p);
        a.w_step = AM_PANEL;
        a.w_panel = many ? AM_RUN * AM_PANEL : channel_panel_bytes(w->dtype, w->n_in);
        for (uint32_t i = 0; many && i < n; i++) channels_unpack(scratch[i], &a, mat_channel_codes(w, p + i), w->dtype);
        tile_rows(a, many ? tile_f32 : tile_of[w->dtype], n_rows, n, AM_PANEL);
    }
}

static void matmul_channels(tile a, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    _Alignas(64) float scale[AM_RUN], bias[AM_RUN];
    const float *x = a.x;
    a.scale = scale;
    a.bias = bias;
    a.n_in = w->n_in;
    for (uint32_t p = p0, end; p < p1; a.y += (end - p) * AM_PANEL, p = end) {
        uint32_t group_panels = w->group / AM_PANEL;
        end = (p / group_panels + 1) * group_panels;
        if (end > p1) end = p1;
        for (a.k0 = 0; a.k0 < w->n_in; a.k0 += AM_RUN) {
            a.n = w->n_in - a.k0 < AM_RUN ? w->n_in - a.k0 : AM_RUN;
            a.fresh = a.k0 == 0;
            a.x = x + a.k0;
            channels_load(scale, bias, mat_channels(w, p), w->n_in, a.k0, a.n);
            matmul_channels_run(a, n_rows, w, p, end);
        }
    }
}

static void matmul(float *y, size_t ldy, const float *x, size_t ldx, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    tile a = {.y = y + (size_t)p0 * AM_PANEL, .ldy = ldy, .x = x, .ldx = ldx};
    if (dtype_channels(w->dtype))
        matmul_channels(a, n_rows, w, p0, p1);
    else if (n_rows <= TILE_ROWS && codes_direct(w))
        matmul_few(a, n_rows, w, p0, p1);
    else
        matmul_many(a, n_rows, w, p0, p1);
}

static void mat_row(float *dst, const am_mat *w, uint32_t o) {
    _Alignas(64) float weights[AM_RUN * AM_PANEL], scale[AM_RUN], bias[AM_RUN];
    for (uint32_t k = 0; k < w->n_in; k += AM_RUN) {
        uint32_t n = w->n_in - k < AM_RUN ? w->n_in - k : AM_RUN;
        if (dtype_channels(w->dtype)) {
            tile a = {.n = n, .scale = scale, .bias = bias, .k0 = k, .n_in = w->n_in};
            channels_load(scale, bias, mat_channels(w, o / AM_PANEL), w->n_in, k, n);
            channels_unpack(weights, &a, mat_channel_codes(w, o / AM_PANEL), w->dtype);
        } else {
            panel_unpack(weights, w, mat_panel(w, o / AM_PANEL), k, n);
        }
        for (uint32_t i = 0; i < n; i++) dst[k + i] = weights[i * AM_PANEL + o % AM_PANEL];
    }
}

/* ---- values: the same tile with tokens as inputs and runs of 16 dimensions as panels ---- */

/* dst [n_t][dims] = dims [d, d + dims) of rows [t, t + n_t), which share their scales; d is a multiple of 32. */
INLINE void rows_channels_unpack(float *dst, const am_rows *v, uint32_t t, uint32_t n_t, uint32_t d, uint32_t dims, const am_dtype dtype) {
    const uint16_t *scales = rows_channels(v, t) + d, *biases = scales + v->dim;
    const uint8_t *row = rows_channel_codes(v, t);
    size_t row_bytes = channel_row_bytes(dtype, v->dim);
    for (uint32_t i = 0; i < dims; i += dtype == AM_C8 ? 16 : 32) {
        bool pair = dtype != AM_C8 && i + 16 < dims;
        UNROLL for (uint32_t j = 0; j < 16; j += LANES) {
            vec scale = v_load_f16(scales + i + j), bias = v_load_f16(biases + i + j), low, high = v_zero();
            vec scale2 = pair ? v_load_f16(scales + i + 16 + j) : v_zero(), bias2 = pair ? v_load_f16(biases + i + 16 + j) : v_zero();
            const uint8_t *codes = row;
            float *to = dst + i + j;
            for (uint32_t n = n_t; n--; codes += row_bytes, to += dims) {
                if (dtype == AM_C8) {
                    low = v_load_u8(codes + d + i + j);
                } else {
                    v_load_nibbles(codes + (d + i) / 2 + j, &low, &high);
                    if (dtype == AM_C5) low = v_add_fifth(low, row_fifth(codes, v->dim, d + i) >> j);
                }
                v_store(to, v_fma(scale, low, bias));
                if (!pair) continue;
                if (dtype == AM_C5) high = v_add_fifth(high, row_fifth(codes, v->dim, d + i + 16) >> j);
                v_store(to + 16, v_fma(scale2, high, bias2));
            }
        }
    }
}

static void rows_unpack(float *dst, const am_rows *v, uint32_t t, uint32_t n_t, uint32_t d, uint32_t dims) {
    switch (v->dtype) {
    case AM_C8: rows_channels_unpack(dst, v, t, n_t, d, dims, AM_C8); break;
    case AM_C5: rows_channels_unpack(dst, v, t, n_t, d, dims, AM_C5); break;
    default: rows_channels_unpack(dst, v, t, n_t, d, dims, AM_C4);
    }
}

static void rows_accumulate(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_rows *v, uint32_t t0,
                            uint32_t t1) {
    _Alignas(64) float scratch[ROWS_RUN * 4 * AM_PANEL];
    bool codes = dtype_channels(v->dtype);
    tile a = {.ldy = ld_acc, .ldx = ld_p, .w_panel = AM_PANEL};
    for (uint32_t t = t0; t < t1; t += a.n) {
        a.n = t1 - t < ROWS_RUN ? t1 - t : ROWS_RUN;
        if (codes && a.n > v->group - t % v->group) a.n = v->group - t % v->group;
        for (uint32_t d = 0, dims; d < v->dim; d += dims) {
            dims = v->dim - d < 4 * AM_PANEL ? v->dim - d : 4 * AM_PANEL;
            if (codes) rows_unpack(scratch, v, t, a.n, d, dims);
            a.w_step = codes ? dims : v->dim;
            for (uint32_t i = 0, n; i < dims; i += n * AM_PANEL) {
                n = dims - i >= TILE_PANELS * AM_PANEL ? TILE_PANELS : 1;
                a.y = acc + d + i;
                a.x = p + t;
                a.w = codes ? (const void *)(scratch + i) : (const uint8_t *)v->data + ((size_t)t * v->dim + d + i) * dtype_bytes(v->dtype);
                tile_rows(a, codes ? tile_f32 : tile_of[v->dtype], n_q, n, AM_PANEL);
            }
        }
    }
}

/* Keys d and d + 1 of tokens [t0, t1), both multiples of 16 and of one group, into w[0] and w[1]. */
INLINE void key_pair_codes(float *w0, float *w1, const am_mat *k, uint32_t d, uint32_t t0, uint32_t t1, const am_dtype dtype) {
    const uint16_t *channels = mat_channels(k, t0 / AM_PANEL) + d;
    const uint8_t *panel = mat_channel_codes(k, t0 / AM_PANEL);
    size_t panel_bytes = channel_panel_bytes(dtype, k->n_in);
    vec scale = v_set(f16_expand(channels[0])), bias = v_set(f16_expand(channels[k->n_in]));
    vec scale2 = v_set(f16_expand(channels[1])), bias2 = v_set(f16_expand(channels[k->n_in + 1]));
    for (uint32_t t = t0; t < t1; t += AM_PANEL, panel += panel_bytes, w0 += AM_PANEL, w1 += AM_PANEL) {
        UNROLL for (int v = 0; v < PANEL_VECS; v++) {
            vec low, high;
            channel_pair(panel, dtype, k->n_in, d, v, &low, &high);
            v_store(w0 + v * LANES, v_fma(scale, low, bias));
            v_store(w1 + v * LANES, v_fma(scale2, high, bias2));
        }
    }
}

INLINE void key_pair_plain(float *w0, float *w1, const am_mat *k, uint32_t d, uint32_t t0, uint32_t t1) {
    for (uint32_t t = t0; t < t1; t += LANES) {
        size_t at = ((size_t)(t / AM_PANEL) * k->n_in + d) * AM_PANEL + t % AM_PANEL;
        v_store(w0 + t - t0, plain_load(k->data, at, k->dtype));
        v_store(w1 + t - t0, plain_load(k->data, at + AM_PANEL, k->dtype));
    }
}

/* The same for any multiples of 16. */
static void key_pair_unpack(float w[2][AM_RUN], const am_mat *k, uint32_t d, uint32_t t0, uint32_t t1) {
    if (!dtype_channels(k->dtype)) {
        key_pair_plain(w[0], w[1], k, d, t0, t1);
        return;
    }
    for (uint32_t t = t0, end; t < t1; t = end) {
        end = (t / k->group + 1) * k->group;
        if (end > t1) end = t1;
        switch (k->dtype) {
        case AM_C8: key_pair_codes(w[0] + t - t0, w[1] + t - t0, k, d, t, end, AM_C8); break;
        case AM_C5: key_pair_codes(w[0] + t - t0, w[1] + t - t0, k, d, t, end, AM_C5); break;
        default: key_pair_codes(w[0] + t - t0, w[1] + t - t0, k, d, t, end, AM_C4);
        }
    }
}

/* sum [r][2] of p times each of the two keys, over n tokens. */
INLINE void key_pair_dot(float *acc, size_t ld_acc, const float *p, size_t ld_p, const float w[2][AM_RUN], uint32_t n, const int r) {
    vec sum[KEY_ROWS][2 * PANEL_VECS];
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < 2 * PANEL_VECS; v++) sum[i][v] = v_zero();
    }
    for (uint32_t t = 0; t < n; t += AM_PANEL) {
        UNROLL for (int v = 0; v < PANEL_VECS; v++) {
            vec low = v_load(w[0] + t + v * LANES), high = v_load(w[1] + t + v * LANES);
            UNROLL for (int i = 0; i < r; i++) {
                vec x = v_load(p + (size_t)i * ld_p + t + v * LANES);
                sum[i][v] = v_fma(x, low, sum[i][v]);
                sum[i][PANEL_VECS + v] = v_fma(x, high, sum[i][PANEL_VECS + v]);
            }
        }
    }
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 1; v < PANEL_VECS; v++) {
            sum[i][0] = v_add(sum[i][0], sum[i][v]);
            sum[i][PANEL_VECS] = v_add(sum[i][PANEL_VECS], sum[i][PANEL_VECS + v]);
        }
        acc[(size_t)i * ld_acc] += v_sum(sum[i][0]);
        acc[(size_t)i * ld_acc + 1] += v_sum(sum[i][PANEL_VECS]);
    }
}

static void mat_accumulate(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_mat *k, uint32_t dims, uint32_t t0,
                           uint32_t t1) {
    _Alignas(64) float w[2][AM_RUN];
    uint32_t first = t0 / AM_PANEL * AM_PANEL, last = (t1 + AM_PANEL - 1) / AM_PANEL * AM_PANEL;
    for (uint32_t d = 0; d < dims && t0 < t1; d += 2, acc += 2) {
        for (uint32_t t = first; t < last; t += AM_RUN) {
            uint32_t n = last - t < AM_RUN ? last - t : AM_RUN;
            key_pair_unpack(w, k, d, t, t + n);
            for (uint32_t i = t; i < t0; i++) w[0][i - t] = w[1][i - t] = 0; /* what nobody may see, or has written */
            for (uint32_t i = t1 > t ? t1 : t; i < t + n; i++) w[0][i - t] = w[1][i - t] = 0;
            size_t q = 0;
            for (; q + KEY_ROWS <= n_q; q += KEY_ROWS) key_pair_dot(acc + q * ld_acc, ld_acc, p + q * ld_p + t, ld_p, w, n, KEY_ROWS);
            for (; q < n_q; q++) key_pair_dot(acc + q * ld_acc, ld_acc, p + q * ld_p + t, ld_p, w, n, 1);
        }
    }
}

/* ---- element-wise ---- */

/* exp by 2^n * e^r, |r| <= ln 2 / 2 (Cephes expf's polynomial); within 2 units in the last place on [-87.3, 88.3], clamped above,
 * 0 below, NaN for NaN. */
INLINE vec v_exp(vec x) {
    vec c = v_max(v_set(-87.3f), v_min(v_set(88.3f), x));
    vec n = v_round(v_mul(c, v_set(1.44269504f)));
    vec r = v_fma(n, v_set(2.12194440e-4f), v_fma(n, v_set(-0.693359375f), c));
    vec y = v_fma(v_set(1.9875691500e-4f), r, v_set(1.3981999507e-3f));
    y = v_fma(y, r, v_set(8.3334519073e-3f));
    y = v_fma(y, r, v_set(4.1665795894e-2f));
    y = v_fma(y, r, v_set(1.6666665459e-1f));
    y = v_fma(y, r, v_set(5.0000001201e-1f));
    y = v_add(v_fma(y, v_mul(r, r), r), v_set(1.0f));
    return v_zero_below(v_scale2(y, n), x, v_set(-87.3f));
}

INLINE vec v_tanh(vec x) {
    vec e = v_exp(v_add(x, x));
    return v_sub(v_set(1.0f), v_div(v_set(2.0f), v_add(e, v_set(1.0f))));
}

INLINE vec v_cap(vec s, float scale, float softcap) {
    vec x = v_mul(s, v_set(scale));
    return softcap == 0.0f ? x : v_mul(v_set(softcap), v_tanh(v_div(x, v_set(softcap))));
}

/* whole: the query sees every key of the run, as most do: no lane is masked, and no bit differs. */
INLINE void softmax_query(const am_softmax *step, size_t i, uint32_t from, uint32_t to, const bool whole) {
    float *s = step->s + i * step->ld, *acc = step->acc + i * step->ld_acc;
    uint32_t first = from < to ? from / LANES * LANES : 0, last = from < to ? (to + LANES - 1) / LANES * LANES : 0;
    memset(s, 0, first * sizeof *s);
    memset(s + last, 0, (step->n_keys - last) * sizeof *s);
    vec most = v_set(step->m[i]), sum = v_zero();
    for (uint32_t t = first; t < last; t += LANES) {
        vec x = v_cap(v_load(s + t), step->scale, step->softcap);
        v_store(s + t, x);
        most = v_max(most, whole ? x : v_range(t, from, to, x, most));
    }
    float m = v_most(most);
    if (first == last || m == -INFINITY) {
        memset(s + first, 0, (last - first) * sizeof *s);
        return;
    }
    for (uint32_t t = first; t < last; t += LANES) {
        vec p = v_exp(v_sub(v_load(s + t), v_set(m)));
        if (!whole) p = v_range(t, from, to, p, v_zero());
        v_store(s + t, p);
        sum = v_add(sum, p);
    }
    float factor[LANES];
    v_store(factor, v_exp(v_set(step->m[i] - m)));
    step->m[i] = m;
    step->l[i] = step->l[i] * factor[0] + v_sum(sum);
    if (factor[0] == 1.0f) return;
    uint32_t d = 0;
    for (; d + LANES <= step->dim; d += LANES) v_store(acc + d, v_mul(v_load(acc + d), v_set(factor[0])));
    for (; d < step->dim; d++) acc[d] *= factor[0];
}

static void softmax_step(const am_softmax *step) {
    for (size_t i = 0; i < step->n_q; i++) {
        uint32_t from = step->from[i], to = step->to[i] < step->n_keys ? step->to[i] : step->n_keys;
        if (from == 0 && to == step->n_keys)
            softmax_query(step, i, 0, to, true);
        else
            softmax_query(step, i, from, to, false);
    }
}

/* The last n < LANES elements, zeros behind them. */
INLINE vec tail_load(const float *src, size_t n) {
    float lane[LANES] = {0};
    memcpy(lane, src, n * sizeof *lane);
    return v_load(lane);
}

INLINE void tail_store(float *dst, vec x, size_t n) {
    float lane[LANES];
    v_store(lane, x);
    memcpy(dst, lane, n * sizeof *lane);
}

static void rmsnorm(float *dst, const float *x, const float *weight, size_t n, float eps) {
    size_t whole = n / LANES * LANES;
    vec sum = v_zero();
    for (size_t i = 0; i < whole; i += LANES) sum = v_fma(v_load(x + i), v_load(x + i), sum);
    vec rest = tail_load(x + whole, n - whole);
    vec inverse = v_set(1.0f / sqrtf(v_sum(v_fma(rest, rest, sum)) / (float)n + eps));
    for (size_t i = 0; i < whole; i += LANES) {
        vec y = v_mul(v_load(x + i), inverse);
        v_store(dst + i, weight ? v_mul(y, v_load(weight + i)) : y);
    }
    rest = v_mul(rest, inverse);
    tail_store(dst + whole, weight ? v_mul(rest, tail_load(weight + whole, n - whole)) : rest, n - whole);
}

INLINE vec v_silu_mul(vec gate, vec up) {
    return v_mul(v_div(gate, v_add(v_set(1.0f), v_exp(v_sub(v_zero(), gate)))), up);
}

static void silu_mul(float *dst, const float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(dst + i, v_silu_mul(v_load(gate + i), v_load(up + i)));
    tail_store(dst + i, v_silu_mul(tail_load(gate + i, n - i), tail_load(up + i, n - i)), n - i);
}

static void f32_to_f16(uint16_t *dst, const float *src, size_t n) {
    uint16_t lane[LANES];
    size_t i = 0;
    vec top = v_set(65504.0f), bottom = v_set(-65504.0f);
    for (; i + LANES <= n; i += LANES) v_store_f16(dst + i, v_min(top, v_max(bottom, v_number(v_load(src + i)))));
    v_store_f16(lane, v_min(top, v_max(bottom, v_number(tail_load(src + i, n - i)))));
    memcpy(dst + i, lane, (n - i) * sizeof *lane);
}

static void f16_to_f32(float *dst, const uint16_t *src, size_t n) {
    uint16_t lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(dst + i, v_load_f16(src + i));
    memcpy(lane, src + i, (n - i) * sizeof *lane);
    tail_store(dst + i, v_load_f16(lane), n - i);
}

#include "kernels/seal.h"

/* The three products may be others than this file's; more members may follow. */
#define VECTOR_TABLE_OF(table_name, test, product, accumulate, latent, ...)                                            \
    {                                                                                                                  \
        .name = table_name, .supported = test, .matmul = product, .mat_row = mat_row, .rows_accumulate = accumulate,   \
        .mat_accumulate = latent, .softmax_step = softmax_step, .rmsnorm = rmsnorm, .silu_mul = silu_mul,      \
        .f32_to_f16 = f32_to_f16, .f16_to_f32 = f16_to_f32, .seal_keys = seal_keys, .seal_values = seal_values, __VA_ARGS__ \
    }
#define VECTOR_TABLE(table_name, test, ...) VECTOR_TABLE_OF(table_name, test, matmul, rows_accumulate, mat_accumulate, __VA_ARGS__)
