/* The operations a forward pass is made of, one table per instruction set, chosen at run time.
 *
 * Invariant 1 rests here. In every table:
 *   - a row of a result depends on that row's inputs and the other operand alone, never on n_rows, on how panels or rows are
 *     split over calls or threads, or on alignment: each output is reduced over its inputs in ascending order (one accumulator an
 *     output, or a fixed number of them combined in a fixed order), the same in the one-row and the many-row path;
 *   - weights that are unpacked give the same float32 values whichever path unpacks them.
 * Tables may differ from each other in the last bits (fused multiply-add or not); tests bound the difference to the scalar one.
 *
 * Matrices are packed once into panels of 16 outputs, the same layout for every table and every machine, because sealed blocks on
 * disk use it too:
 *
 *   am_mat, panel p (outputs 16p .. 16p+15; rows past n_out are zero), panels back to back:
 *     F32 F16        [n_in][16] elements
 *     BF16           [ceil(n_in/2)][16][2] elements: two neighbouring inputs of an output side by side, as products of pairs take them; behind an odd
 *                    n_in a zero
 *     Q8             for each group of `group` inputs: scale[16], bias[16] (scale_dtype), codes u8 [group/4][16][4]: four
 *                    neighbouring inputs of an output side by side, as integer dot products take them
 *     Q4             for each group of `group` inputs: scale[16], bias[16] (scale_dtype), codes [group/8][16][4] bytes,
 *                    byte b of output j of run i: low nibble input 8i + b, high nibble input 8i + 4 + b
 *     Q5             as Q4, and behind a group's nibbles [group/32][16][4] bytes: bit t of byte b of output j of run i is the fifth bit of
 *                    input 32i + 4t + b
 *     Q6             as Q4, and behind a group's nibbles [group/16][16][4] bytes: bits 2t and 2t + 1 of byte b of output j of run i are
 *                    the fifth and sixth of input 16i + 4t + b
 *   A matrix with a zero point has no bias[16]; its bias is -zero_point * scale, rounded to float32.
 *   Scales of S8 have two levels, as ggml's K quants: a panel begins with f16 scale[16], and bias[16], for every AM_RUN_S8 inputs; a group's
 *   scale[16] and bias[16] are bytes, and worth (byte - 128) times that f16, which float32 holds exactly.
 *   Codes of a Q4 with a book stand for am_books[book][code].
 *   value = scale * code + bias, in float32, rounded as fma(scale, code, bias) where the table fuses, else multiply then add.
 *
 *     C8 C5 C4       (keys of a sealed KV block, and weights that were turned; `group` counts outputs, n_out is a multiple of it) for each group of outputs:
 *                    scale f16 [n_in], bias f16 [n_in], one of each an input; then the group's panels: codes u8 [n_in][16] (C8), or
 *                    [n_in/2][16] bytes, low nibble input 2i, high nibble input 2i + 1 (C4), followed by u16 [n_in], bit j the fifth bit of output j's code (C5)
 *
 *   am_rows (values of a KV block; n_rows x dim, dim a multiple of 16):
 *     F32 F16        [n_rows][dim]
 *     C8 C5 C4       for each group of `group` rows (n_rows is a multiple of it): scale f16 [dim], bias f16 [dim], then the group's
 *                    rows: codes u8 [dim] (C8), or 16 bytes for each run of 32 dims, byte j holding dim j (low) and, where there is
 *                    one, dim j+16 (high) (C4), followed by u16 [dim/16], bit j of word i the fifth bit of dim 16i + j (C5) */
#ifndef AM_KERNELS_KERNELS_H
#define AM_KERNELS_KERNELS_H

#include "base/buf.h"

typedef enum am_dtype { AM_F32, AM_F16, AM_BF16, AM_Q8, AM_Q4, AM_Q5, AM_Q6, AM_C8, AM_C5, AM_C4, AM_S8, AM_N_DTYPE } am_dtype;

enum { AM_PANEL = 16, AM_RUN_S8 = 256 };

static inline bool am_dtype_quantised(am_dtype dtype) { return dtype >= AM_Q8 && dtype <= AM_Q6; }

/* Books of 16 values: what the codes of some forms stand for. */
typedef enum am_book { AM_BOOK_NONE, AM_BOOK_IQ4 /* ggml's, plus 128 */, AM_BOOK_MXFP4 /* E2M1 doubled, plus 12 */, AM_N_BOOK } am_book;
extern const uint8_t am_books[AM_N_BOOK][16];

typedef struct am_mat {
    am_dtype dtype;
    am_dtype scale_dtype; /* F32, F16, BF16 or S8; Q types only */
    uint32_t n_out, n_in; /* n_in is a multiple of group, and even */
    uint32_t group;       /* inputs (Q types: 16, 32, 64 or 128; Q5: not 16) or outputs (C types: a multiple of 16) that share a scale */
    uint32_t zero_point;  /* Q types: not 0: bias is -zero_point * scale and there is no bias[16] in a group */
    const void *data;     /* 64-byte aligned */
    am_book book;         /* Q4 of groups of 32 or more only */
} am_mat;

/* A row of inputs as 8-bit codes, for tables that multiply codes by codes: runs of AM_INT8_RUN inputs share a scale, x ~ scale * code with
 * code = round(x / scale) and scale = max |x| / 127. For N runs (a multiple of 4: codes beyond n_in are 0) a row is: codes i8 [32N], scale f32 [N],
 * sums of 16 neighbouring codes i16 [2N], of 32 i16 [N], and what those sums are worth, f32: scale * sum of 16 [2N], scale * sum of 32 [N],
 * of 64 as the sum of two of those [N/2], of 128 likewise [N/4]. A row takes an odd number of 64 bytes, so that rows below each other do not
 * meet in the same set of a cache. */
enum { AM_INT8_RUN = 32 };
static inline size_t am_int8_runs(size_t n_in) { return (n_in + 4 * AM_INT8_RUN - 1) / (4 * AM_INT8_RUN) * 4; }
static inline size_t am_int8_row_bytes(size_t n_in) { return ((am_int8_runs(n_in) * 57 + 63) / 64 | 1) * 64; }

/* A row of inputs as bf16, for tables that multiply pairs of those: each rounded to nearest even (NaN stays NaN), zeros up to a multiple of 32. An odd
 * number of 64 bytes here too. */
static inline size_t am_bf16_row_bytes(size_t n_in) { return ((n_in * 2 + 63) / 64 | 1) * 64; }

typedef struct am_rows {
    am_dtype dtype;
    uint32_t n_rows, dim, group; /* rows that share a scale; C types only */
    const void *data;
} am_rows;

size_t am_mat_panel_bytes(const am_mat *mat); /* not of C types, whose panels share scales */
size_t am_mat_bytes(const am_mat *mat);       /* all panels */
size_t am_rows_bytes(const am_rows *rows);
static inline uint32_t am_mat_panels(const am_mat *mat) { return (mat->n_out + AM_PANEL - 1) / AM_PANEL; }

/* One step of online softmax over one run of keys for n_q queries. For query i, scores s[i*ld + t] of keys t in [from[i], to[i]) count;
 * everything else in [0, n_keys) is treated as minus infinity. With x = cap(scale * s): m' = max(m, max x), factor = exp(m - m'),
 * l = l * factor + sum exp(x - m'), acc row *= factor, and s is overwritten by exp(x - m') (0 where it does not count). A query that
 * sees no key in this run is left as it is, its s row zeroed. Start with m = -INFINITY, l = 0, acc = 0. */
typedef struct am_softmax {
    float *s;             /* [n_q][ld] */
    size_t ld;
    size_t n_q;
    uint32_t n_keys;      /* multiple of 16, <= ld */
    const uint32_t *from; /* [n_q] */
    const uint32_t *to;   /* [n_q] */
    float scale;
    float softcap;        /* 0: none; else x = softcap * tanh(scale * s / softcap) */
    float *m, *l;         /* [n_q] */
    float *acc;           /* [n_q][ld_acc], dim used */
    size_t ld_acc;
    uint32_t dim;
} am_softmax;

typedef struct am_kernels {
    const char *name; /* "scalar", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx", "neon", "neondot", "neoni8mm" */
    bool (*supported)(void);

    /* y[r*ldy + o] = sum_k x[r*ldx + k] * W[o][k] for the outputs of panels [p0, p1), o < n_out. */
    void (*matmul)(float *y, size_t ldy, const float *x, size_t ldx, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1);
    /* The same product of a quantised matrix (Q types) with rows of 8-bit codes, am_int8_row_bytes apart and 64-byte aligned; NULL where the
     * table has no such instructions. Sums of codes are exact; they are scaled and added up in float32 by steps of min(group, AM_INT8_RUN)
     * inputs, in ascending order (int8.h has the rule, which is the same in all tables to the bit). */
    void (*matmul_int8)(float *y, size_t ldy, const void *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1);
    void (*row_int8)(void *dst, const float *x, size_t n_in); /* NULL where matmul_int8 is */
    /* The product of a BF16 matrix with rows of bf16, am_bf16_row_bytes apart and 64-byte aligned; NULL where the table has no such instructions. An output
     * is reduced as the file of the table says: the bits are a table's own. */
    void (*matmul_bf16)(float *y, size_t ldy, const void *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1);
    void (*row_bf16)(void *dst, const float *x, size_t n_in); /* NULL where matmul_bf16 is */
    /* Products with C types round the other operand to 8-bit codes in runs of AM_INT8_RUN dimensions or, from t = 0 on, tokens: splits of tokens
     * within a group are then not exact, and p is not below 0 (codes.h has the rule). */
    bool rounds_attention;
    /* dst[k] = W[o][k] for one output (embedding lookup). */
    void (*mat_row)(float *dst, const am_mat *w, uint32_t o);
    /* acc[q*ld_acc + d] += sum over t in [t0, t1), ascending, of p[q*ld_p + t] * V[t][d]. */
    void (*rows_accumulate)(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_rows *v, uint32_t t0,
                            uint32_t t1);
    /* The same from keys in panels (values that are a key's first dimensions): acc[q*ld_acc + d] += sum over t in [t0, t1) of p[q*ld_p + t] *
     * K[t][d] for d < dims (even; of C types a multiple of 16). Where rounds_attention is not set, and of other types, the sum runs in 16 lanes by
     * position, then by a fixed tree. p is readable from t0 rounded down to t1 rounded up to a multiple of 16, and 0 outside [t0, t1). */
    void (*mat_accumulate)(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_mat *k, uint32_t dims, uint32_t t0,
                           uint32_t t1);
    void (*softmax_step)(const am_softmax *step);
    /* dst = x / sqrt(mean(x^2) + eps) * weight; weight may be NULL (all ones); dst may be x. */
    void (*rmsnorm)(float *dst, const float *x, const float *weight, size_t n, float eps);
    /* dst[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; dst may be gate or up. */
    void (*silu_mul)(float *dst, const float *gate, const float *up, size_t n);

    /* Round to nearest even; beyond the largest finite f16 the value is clamped, NaN becomes 0 (a cache must stay finite). */
    void (*f32_to_f16)(uint16_t *dst, const float *src, size_t n);
    void (*f16_to_f32)(float *dst, const uint16_t *src, size_t n);
    /* Sealing, of a whole part (C types): from lies as the open block has it, keys [n_out / 16][n_in][16], values [n_rows][dim]. Each channel of a group is
     * quantised with one scale and bias (f16): bias = min, scale = (max - min) / (2^bits - 1), both rounded to f16 first, code = clamp(round_half_even((x -
     * bias) / scale)); scale 0 gives codes 0. NaN counts as 0. */
    void (*seal_keys)(const am_mat *to, const uint16_t *from);
    void (*seal_values)(const am_rows *to, const uint16_t *from);
} am_kernels;

/* Tables this build has that this machine can run, best first, ended by NULL. */
const am_kernels *const *am_kernels_list(void);
/* The table named by name, or the best when name is NULL or empty. AM_EUNSUPPORTED lists the names. (main passes AM_ISA here.) */
am_status am_kernels_pick(const char *name, const am_kernels **out, am_error *err);

/* Packing. src points to n_out x n_in values row by row; dst has am_mat_bytes room, 64-byte aligned. Panels [p0, p1) only, so that
 * workers can share the work. */
void am_pack_plain(void *dst, const am_mat *mat, const void *src /* of mat->dtype */, uint32_t p0, uint32_t p1);
/* Affine groups as MLX has them: codes little-endian in 32-bit words (Q4: eight a word, else four), scales and biases [n_out][n_in/group] of
 * scale_dtype; biases are not read where the matrix has a zero point. */
void am_pack_affine(void *dst, const am_mat *mat, const uint32_t *codes, const void *scales, const void *biases, uint32_t p0,
                    uint32_t p1);
/* The upper level of scales of S8, and of biases: f16 [n_out][n_in / AM_RUN_S8] each. */
void am_pack_levels(void *dst, const am_mat *mat, const uint16_t *scales, const uint16_t *biases, uint32_t p0, uint32_t p1);
/* ggml's blocks of 32 with one f16 scale: Q4_0 into a Q4 matrix with zero point 8, Q8_0 into a Q8 one with zero point 128, both of f16 scales and
 * group 32. False when a scale of these panels is not finite. */
bool am_pack_blocks(void *dst, const am_mat *mat, const void *blocks, uint32_t p0, uint32_t p1);

/* n rows of a quantised matrix the other way round: inputs become outputs and rows inputs, a group's scale is a channel's (C types), and no value changes.
 * The form, w's groups now along outputs; false: there is none. Then rows [o, o + mat->n_in); false when f16 does not hold a scale or bias exactly. */
bool am_turned_form(am_mat *out, const am_mat *w, uint32_t n);
bool am_pack_turned(void *dst, const am_mat *mat, const am_mat *w, uint32_t o);

/* Plain element-wise helpers that need no table: same bits everywhere. */
float am_f16_to_f32(uint16_t h);
uint16_t am_f32_to_f16(float f); /* with the clamping of the table's f32_to_f16 */
float am_bf16_to_f32(uint16_t h);
uint16_t am_f32_to_bf16(float f);
/* Orthonormal Hadamard transform in place of each of n heads of dim values, in runs of the largest power of two that divides dim.
 * It is its own inverse. Reference: Sylvester's construction, scaled by 1/sqrt(run). */
void am_hadamard(float *x, size_t n_heads, size_t dim);

#endif
