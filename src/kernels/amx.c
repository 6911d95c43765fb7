/* The table of AMX: as avx512vnni, BF16 weights times inputs of bf16 by tiles (amx_bf16.h), and many rows of 8-bit inputs times quantised weights. Sums of codes are exact whatever adds them up, and
 * what follows is int8.h's rule operation by operation, so there this table gives the bits of avx512vnni. It proves itself before it is offered: a processor,
 * hypervisor or system that gets tiles wrong costs speed, not answers.
 *
 * A tile of inputs is 16 rows of one step (32 or 16 codes, as int8.h says), straight from the rows; a tile of weights is the same step of a panel, whose
 * packed codes lie as tiles want them ([step/4][16][4]) once they are bytes. One product gives 16 rows by 16 outputs of integers, which are scaled
 * and added to 16 vectors of floats while the next products run. A panel is opened once for ROWS rows: that many rows' codes and scales stay in the second
 * cache (1 MiB at 2048 inputs), CHUNK inputs of a panel in the first. */
#include "kernels/avx512.h"
#include "kernels/scales.h"

#ifndef AM_AMX_TEST /* a test puts tiles in plain C and small sizes here */
#include "kernels/amx_tiles.h"
enum { ROWS = 256, CHUNK = 2048 };
#endif

enum { TILE = 16, N_SUMS = 4 /* products under way, one a tile */ };

/* CHUNK inputs of a panel. */
typedef struct opened {
    uint8_t codes[CHUNK / 4][AM_PANEL][4]; /* signed when zero points are taken off */
    float scale[CHUNK / 16][AM_PANEL], bias[CHUNK / 16][AM_PANEL];
} opened;

typedef struct strip {
    const am_mat *mat;
    const opened *panel;
    am_int8_at at;
    size_t row_bytes;
    uint32_t k, n_in; /* inputs [k, k + n_in) are opened */
    int group_shift;  /* a group is a power of two */
    const uint8_t *x; /* 16 rows */
    float *y;
    size_t ldy;
    __mmask16 lanes;
    int32_t sums[N_SUMS][TILE][AM_PANEL] __attribute__((aligned(64)));
} strip;

/* Whether code - zero point is a signed byte for every code. Else, where there is a zero point, sums begin with what it is worth. */
static bool takes_zero_off(const am_mat *w) { return w->zero_point && (w->dtype != AM_Q8 || w->zero_point == 128); }

/* Inputs [k, k + n_in) of a panel. */
static void open_panel(opened *to, const am_mat *w, const uint8_t *from, uint32_t k, uint32_t n_in) {
    __m512i zero = _mm512_set1_epi8(takes_zero_off(w) ? (char)w->zero_point : 0);
    __m512i book = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)am_books[w->book]));
    uint8_t *codes = to->codes[0][0];
    for (uint32_t g = 0; g < n_in / w->group; g++, k += w->group) {
        const uint8_t *group = mat_group(w, from, k), *level = mat_level(w, from, k);
        v_store(to->scale[g], scale_load(group, w->scale_dtype, 0, level));
        if (!w->zero_point) v_store(to->bias[g], scale_load(group, w->scale_dtype, AM_PANEL, level));
        codes_widen(codes, w, group + mat_scale_bytes(w));
        for (uint8_t *end = codes + w->group * AM_PANEL; codes < end; codes += 64) {
            __m512i bytes = _mm512_load_si512(codes);
            if (w->book) bytes = _mm512_shuffle_epi8(book, bytes);
            _mm512_store_si512(codes, _mm512_sub_epi8(bytes, zero));
        }
    }
}

/* What the rule makes of a step's sums. */
INLINE void add_step(vec acc[TILE], const strip *s, uint32_t i, const uint32_t step, const bool starts) {
    uint32_t k = s->k + i * step, g = i * step >> s->group_shift;
    vec scale = v_load(s->panel->scale[g]);
    const uint8_t *x = s->x;
    UNROLL for (int r = 0; r < TILE; r++, x += s->row_bytes) {
        __m512i sum = _mm512_load_si512(s->sums[i % N_SUMS][r]);
        if (starts) {
            const int16_t *codes = (const int16_t *)(const void *)(x + (step == 16 ? s->at.sum16 : s->at.sum32)) + k / step;
            sum = _mm512_add_epi32(sum, _mm512_set1_epi32(-(int32_t)s->mat->zero_point * *codes));
        }
        acc[r] = v_fma(_mm512_cvtepi32_ps(sum), v_mul(scale, v_set(load_f32(x + s->at.scale + 4 * (size_t)(k / AM_INT8_RUN)))), acc[r]);
    }
    if (s->mat->zero_point || (k + step) & (s->mat->group - 1)) return;
    vec bias = v_load(s->panel->bias[g]);
    x = s->x;
    UNROLL for (int r = 0; r < TILE; r++, x += s->row_bytes) acc[r] = v_fma(bias, v_set(load_f32(x + s->at.sum + 4 * (size_t)(k >> s->group_shift))), acc[r]);
}

/* Tiles 0 to 3 are sums; a product's inputs are in 4, its weights in 5, those of every other one in 6 and 7. Its sums are looked at when N_SUMS - 1
 * more are under way. */
#define PRODUCT(to, a, b)                                                                                              \
    if (i + to < n) {                                                                                                  \
        TILE_ZERO(to);                                                                                                 \
        TILE_LOAD(a, s->x + s->k + (size_t)(i + to) * step, s->row_bytes);                                             \
        TILE_LOAD(b, s->panel->codes[(size_t)(i + to) * step / 4], 64);                                                \
        if (is_signed)                                                                                                 \
            TILE_DOT_SIGNED(to, a, b);                                                                                 \
        else                                                                                                           \
            TILE_DOT_UNSIGNED(to, a, b);                                                                               \
        TILE_STORE(to, s->sums[to], 64);                                                                               \
    }                                                                                                                  \
    if (i + to >= N_SUMS - 1 && i + to - (N_SUMS - 1) < n) add_step(acc, s, i + to - (N_SUMS - 1), step, starts);

INLINE void strip_run(strip *s, const uint32_t step, const bool is_signed, const bool starts) {
    vec acc[TILE];
    uint32_t n = s->n_in / step;
    UNROLL for (int r = 0; r < TILE; r++) acc[r] = s->k ? _mm512_maskz_loadu_ps(s->lanes, s->y + (size_t)r * s->ldy) : v_zero();
    for (uint32_t i = 0; i < n + N_SUMS - 1; i += N_SUMS) {
        PRODUCT(0, 4, 5)
        PRODUCT(1, 6, 7)
        PRODUCT(2, 4, 5)
        PRODUCT(3, 6, 7)
    }
    UNROLL for (int r = 0; r < TILE; r++) _mm512_mask_storeu_ps(s->y + (size_t)r * s->ldy, s->lanes, acc[r]);
}

typedef void strip_fn(strip *s);
static void by_32_signed(strip *s) { strip_run(s, 32, true, false); }
static void by_32_unsigned(strip *s) { strip_run(s, 32, false, false); }
static void by_32_starts(strip *s) { strip_run(s, 32, false, true); }
static void by_16_signed(strip *s) { strip_run(s, 16, true, false); }
static void by_16_unsigned(strip *s) { strip_run(s, 16, false, false); }
static void by_16_starts(strip *s) { strip_run(s, 16, false, true); }

static strip_fn *strip_of(const am_mat *w) {
    static strip_fn *const all[2][3] = {{by_32_unsigned, by_32_signed, by_32_starts}, {by_16_unsigned, by_16_signed, by_16_starts}};
    return all[w->group < 32][!w->zero_point ? 0 : takes_zero_off(w) ? 1 : 2];
}

static void configure(uint32_t step) {
    tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        bool weights = t == 5 || t == 7, inputs = t == 4 || t == 6;
        config.rows[t] = (uint8_t)(weights ? step / 4 : TILE);
        config.row_bytes[t] = (uint16_t)(inputs ? step : 64);
    }
    tiles_configure(&config);
}

/* A multiple of TILE rows. */
static void matmul_tiles(float *y, size_t ldy, const uint8_t *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    static _Thread_local opened panel __attribute__((aligned(64)));
    strip s = {.mat = w, .panel = &panel, .at = am_int8_at_of(w->n_in, w->group), .row_bytes = am_int8_row_bytes(w->n_in), .ldy = ldy,
               .group_shift = __builtin_ctz(w->group)};
    strip_fn *run = strip_of(w);
    configure(w->group < 32 ? 16 : 32);
    for (size_t r0 = 0; r0 < n_rows; r0 += ROWS)
        for (uint32_t p = p0; p < p1; p++) {
            s.lanes = (__mmask16)((1u << mat_lanes(w, p)) - 1);
            for (s.k = 0; s.k < w->n_in; s.k += s.n_in) {
                s.n_in = w->n_in - s.k < CHUNK ? w->n_in - s.k : CHUNK;
                open_panel(&panel, w, mat_panel(w, p), s.k, s.n_in);
                for (size_t r = r0; r < n_rows && r < r0 + ROWS; r += TILE) {
                    s.x = x + r * s.row_bytes;
                    s.y = y + r * ldy + (size_t)p * AM_PANEL;
                    run(&s);
                }
            }
        }
    tiles_release();
}

/* Rows beyond whole tiles go the way of the other table, as do few rows, where memory is the limit. */
static void matmul_int8(float *y, size_t ldy, const void *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    size_t n_tiled = n_rows / TILE * TILE;
    if (n_tiled) matmul_tiles(y, ldy, x, n_tiled, w, p0, p1);
    if (n_tiled == n_rows) return;
    am_kernels_avx512vnni.matmul_int8(y + n_tiled * ldy, ldy, (const uint8_t *)x + n_tiled * am_int8_row_bytes(w->n_in), n_rows - n_tiled, w, p0, p1);
}

#include "kernels/amx_bf16.h"

/* Every form of strip once, against the other table. */
static bool strips_prove_themselves(void) {
    enum { N_IN = 320, N_OUT = 27, N_ROWS = TILE + 1, PANELS = 2 };
    static const am_mat forms[] = {{AM_Q4, AM_F16, N_OUT, N_IN, 32, 8, NULL, 0},  {AM_Q4, AM_F16, N_OUT, N_IN, 64, 0, NULL, 0},
                                   {AM_Q8, AM_BF16, N_OUT, N_IN, 32, 32, NULL, 0}, {AM_Q8, AM_BF16, N_OUT, N_IN, 16, 128, NULL, 0},
                                   {AM_Q4, AM_F16, N_OUT, N_IN, 16, 0, NULL, 0},  {AM_Q8, AM_F32, N_OUT, N_IN, 16, 32, NULL, 0},
                                   {AM_Q5, AM_F16, N_OUT, N_IN, 32, 16, NULL, 0}, {AM_Q6, AM_F16, N_OUT, N_IN, 16, 32, NULL, 0},
                                   {AM_Q4, AM_F16, N_OUT, N_IN, 32, 12, NULL, AM_BOOK_MXFP4}};
    static uint8_t data[PANELS * (N_IN + N_IN / 16 * 8) * AM_PANEL] __attribute__((aligned(64)));
    static uint8_t rows[N_ROWS * ((N_IN + 127) / 128 * 4 * 57 + 128)] __attribute__((aligned(64)));
    static float x[N_IN], y[2][N_ROWS][N_OUT];
    uint32_t seed = 1;
    for (uint32_t r = 0; r < N_ROWS; r++) {
        for (uint32_t k = 0; k < N_IN; k++) x[k] = (float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-31f;
        am_kernels_avx512vnni.row_int8(rows + r * am_int8_row_bytes(N_IN), x, N_IN);
    }
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        am_mat w = forms[f];
        size_t group_bytes = mat_group_bytes(&w), scale_bytes = mat_scale_bytes(&w);
        w.data = data;
        for (size_t i = 0; i < am_mat_bytes(&w); i++) {
            size_t in_group = i % group_bytes, in_scale = in_group % dtype_bytes(w.scale_dtype);
            data[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
            if (in_group < scale_bytes && in_scale == dtype_bytes(w.scale_dtype) - 1) data[i] = data[i] % 4 + 0x3c; /* about 1, in every type */
        }
        am_kernels_avx512vnni.matmul_int8(y[0][0], N_OUT, rows, N_ROWS, &w, 0, PANELS);
        matmul_int8(y[1][0], N_OUT, rows, N_ROWS, &w, 0, PANELS);
        if (memcmp(y[0], y[1], sizeof y[0]) != 0) return false;
    }
    return true;
}

static bool supported(void) {
    if (!am_cpu_has_avx512vnni() || !tiles_usable()) return false;
    am_kernels_amx = am_kernels_avx512vnni;
    am_kernels_amx.name = "amx";
    am_kernels_amx.supported = supported;
    am_kernels_amx.matmul_int8 = matmul_int8;
    am_kernels_amx.matmul_bf16 = matmul_bf16;
    am_kernels_amx.row_bf16 = row_bf16;
    return strips_prove_themselves() && pairs_prove_themselves();
}

am_kernels am_kernels_amx = {.name = "amx", .supported = supported};
