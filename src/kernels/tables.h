/* What the tables of this room share and nobody else sees: their names, the addresses inside a matrix, the element conversions
 * written so that a compiler can vectorise them. */
#ifndef AM_KERNELS_TABLES_H
#define AM_KERNELS_TABLES_H

#include "kernels/kernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

extern const am_kernels am_kernels_scalar;
#if defined(__x86_64__)
extern const am_kernels am_kernels_avx2;
extern const am_kernels am_kernels_avx512;
extern const am_kernels am_kernels_avx512vnni;
extern am_kernels am_kernels_avx512bf16, am_kernels_amx; /* whole once their `supported` has said yes */
/* What cpuid and XCR0 say, together: the instructions exist and the kernel saves their registers. */
bool am_cpu_has_avx2(void);
bool am_cpu_has_avx512(void);
bool am_cpu_has_avx512vnni(void);
bool am_cpu_has_avx512bf16(void); /* and vnni */
bool am_cpu_saves(uint64_t states); /* bits of XCR0; only where there is AVX */
#elif defined(__aarch64__)
extern const am_kernels am_kernels_neon;
extern const am_kernels am_kernels_neondot;
extern const am_kernels am_kernels_neoni8mm;
#endif

/* Inputs unpacked at a time: a panel's run is 16 KiB of float32, and every group size divides it. */
enum { AM_RUN = 256 };

static inline uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float bf16_expand(uint16_t h) { return bits_float((uint32_t)h << 16); }

/* Exponent and mantissa moved into place read as value * 2^-112, subnormals included; one exact multiplication puts that right. */
static inline float f16_expand(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t value = float_bits(bits_float((uint32_t)(h & 0x7fff) << 13) * 0x1p112f);
    uint32_t special = (h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
    return bits_float(value | special | sign);
}

/* Round to nearest even, clamped to the largest finite f16; NaN becomes 0. Below 2^-14 adding 0.5 lets the adder round to the
 * subnormal grid of 2^-24. */
static inline uint16_t f16_compress(float f) {
    uint32_t bits = float_bits(f);
    uint32_t sign = (bits >> 16) & 0x8000, value = bits & 0x7fffffff;
    if (value > 0x7f800000) return 0;
    if (value > 0x477fe000) value = 0x477fe000; /* 65504 */
    uint32_t normal = ((value + 0xfff + ((value >> 13) & 1)) >> 13) - (112u << 10);
    uint32_t small = float_bits(bits_float(value) + 0.5f) - 0x3f000000u;
    return (uint16_t)(sign | (value < 0x38800000 ? small : normal));
}

static inline float load_f32(const void *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

static inline uint16_t load_u16(const void *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

static inline size_t dtype_bytes(am_dtype dtype) { return dtype == AM_F32 ? 4 : am_dtype_quantised(dtype) || dtype == AM_S8 ? 1 : 2; }
static inline uint32_t dtype_bits(am_dtype dtype) { return dtype == AM_Q8 ? 8 : dtype == AM_Q6 ? 6 : dtype == AM_Q5 ? 5 : 4; }

/* Scales, and biases where there are some: what lies before a group's codes. */
static inline size_t mat_scale_bytes(const am_mat *mat) { return (mat->zero_point ? 1 : 2) * AM_PANEL * dtype_bytes(mat->scale_dtype); }

static inline size_t mat_group_bytes(const am_mat *mat) { return mat_scale_bytes(mat) + (size_t)mat->group * AM_PANEL / 8 * dtype_bits(mat->dtype); }

/* The upper level of scales, and of biases: one run's of S8; all, which lie before a panel's groups. */
static inline size_t mat_level_bytes(const am_mat *mat) { return (mat->zero_point ? 1 : 2) * AM_PANEL * sizeof(uint16_t); }
static inline size_t mat_levels_bytes(const am_mat *mat) { return mat->scale_dtype == AM_S8 ? mat->n_in / AM_RUN_S8 * mat_level_bytes(mat) : 0; }

/* The group of input k of a panel; the level above it. */
static inline const uint8_t *mat_group(const am_mat *mat, const uint8_t *panel, uint32_t k) {
    return panel + mat_levels_bytes(mat) + k / mat->group * mat_group_bytes(mat);
}
static inline const uint8_t *mat_level(const am_mat *mat, const uint8_t *panel, uint32_t k) { return panel + k / AM_RUN_S8 * mat_level_bytes(mat); }

static inline const uint8_t *mat_panel(const am_mat *mat, uint32_t panel) {
    return (const uint8_t *)mat->data + panel * am_mat_panel_bytes(mat);
}

/* An even number of inputs: BF16 has them in pairs. */
static inline uint32_t mat_paired(uint32_t n_in) { return (n_in + 1) / 2 * 2; }

/* How many outputs of a panel are real. */
static inline uint32_t mat_lanes(const am_mat *mat, uint32_t panel) {
    uint32_t left = mat->n_out - panel * AM_PANEL;
    return left < AM_PANEL ? left : AM_PANEL;
}

static inline void scales_load(float *dst, const uint8_t *src, am_dtype dtype, const uint8_t *level) {
    for (size_t j = 0; j < AM_PANEL; j++) {
        if (dtype == AM_F32)
            dst[j] = load_f32(src + 4 * j);
        else if (dtype == AM_S8)
            dst[j] = f16_expand(load_u16(level + 2 * j)) * (float)(src[j] - 128);
        else
            dst[j] = dtype == AM_F16 ? f16_expand(load_u16(src + 2 * j)) : bf16_expand(load_u16(src + 2 * j));
    }
}

/* The scales and biases of a group's outputs. */
static inline void group_scales(float scale[AM_PANEL], float bias[AM_PANEL], const am_mat *w, const uint8_t *group, const uint8_t *level) {
    scales_load(scale, group, w->scale_dtype, level);
    if (!w->zero_point) scales_load(bias, group + AM_PANEL * dtype_bytes(w->scale_dtype), w->scale_dtype, level + AM_PANEL * sizeof(uint16_t));
    for (int j = 0; w->zero_point && j < AM_PANEL; j++) bias[j] = scale[j] * -(float)w->zero_point;
}

/* Where the parts of a row of 8-bit codes begin; sum: what the codes of `group` neighbours are worth. */
typedef struct am_int8_at {
    size_t scale, sum16, sum32, sum;
} am_int8_at;

static inline am_int8_at am_int8_at_of(size_t n_in, uint32_t group) {
    size_t n = am_int8_runs(n_in), sum = 42 * n;
    if (group > 16) sum += 8 * n;
    if (group > 32) sum += 4 * n;
    if (group > 64) sum += 2 * n;
    return (am_int8_at){.scale = 32 * n, .sum16 = 36 * n, .sum32 = 40 * n, .sum = sum};
}

/* A group's codes as Q8 has them: [group/4][16][4] bytes; where there is a book, before they are looked up. */
static inline void codes_widen(uint8_t *restrict to, const am_mat *mat, const uint8_t *restrict codes) {
    size_t n = (size_t)mat->group * AM_PANEL;
    if (mat->dtype == AM_Q8) {
        memcpy(to, codes, n);
        return;
    }
    for (size_t i = 0; i < n; i += 128, codes += 64)
        for (size_t b = 0; b < 64; b++) to[i + b] = codes[b] & 15, to[i + 64 + b] = codes[b] >> 4;
    const uint32_t bits = dtype_bits(mat->dtype) - 4;
    for (size_t i = 0; bits && i < n; codes += 64)
        for (uint32_t t = 0; t < 8; t += bits, i += 64)
            for (size_t b = 0; b < 64; b++) to[i + b] |= (uint8_t)((codes[b] >> t & ((1 << bits) - 1)) << 4);
}

static inline void codes_open(uint8_t *restrict to, const am_mat *mat, const uint8_t *restrict codes) {
    codes_widen(to, mat, codes);
    for (size_t i = 0; mat->book && i < (size_t)mat->group * AM_PANEL; i++) to[i] = am_books[mat->book][to[i]];
}

/* ---- codes with a scale and a bias a channel ---- */

enum { SEAL_TOKENS = 256 /* of a group, at most */ };

static inline uint32_t channel_bits(am_dtype dtype) { return dtype == AM_C8 ? 8 : dtype == AM_C5 ? 5 : 4; }
static inline bool dtype_channels(am_dtype dtype) { return dtype == AM_C8 || dtype == AM_C5 || dtype == AM_C4; }

/* A panel's codes; a row's. */
static inline size_t channel_panel_bytes(am_dtype dtype, uint32_t n_in) { return (size_t)n_in * AM_PANEL / 8 * channel_bits(dtype); }
static inline size_t channel_row_bytes(am_dtype dtype, uint32_t dim) {
    if (dtype == AM_C8) return dim;
    return (dim + 31) / 32 * 16 + (dtype == AM_C5 ? dim / 8 : 0);
}

/* One group: scales, biases, codes. */
static inline size_t mat_channels_bytes(const am_mat *mat) {
    return 4 * (size_t)mat->n_in + mat->group / AM_PANEL * channel_panel_bytes(mat->dtype, mat->n_in);
}
static inline size_t rows_channels_bytes(const am_rows *v) { return 4 * (size_t)v->dim + v->group * channel_row_bytes(v->dtype, v->dim); }

static inline const uint16_t *mat_channels(const am_mat *mat, uint32_t panel) {
    uint32_t group = panel / (mat->group / AM_PANEL);
    return (const uint16_t *)(const void *)((const uint8_t *)mat->data + group * mat_channels_bytes(mat));
}
static inline const uint8_t *mat_channel_codes(const am_mat *mat, uint32_t panel) {
    uint32_t in_group = panel % (mat->group / AM_PANEL);
    return (const uint8_t *)(mat_channels(mat, panel) + 2 * (size_t)mat->n_in) + in_group * channel_panel_bytes(mat->dtype, mat->n_in);
}
/* Stores input i's codes of the group of outputs that begins with first_panel; inputs come in ascending order. */
void mat_channel_put(const am_mat *mat, uint32_t first_panel, uint32_t i, const uint8_t *codes);

static inline const uint16_t *rows_channels(const am_rows *v, uint32_t t) {
    return (const uint16_t *)(const void *)((const uint8_t *)v->data + t / v->group * rows_channels_bytes(v));
}
static inline const uint8_t *rows_channel_codes(const am_rows *v, uint32_t t) {
    return (const uint8_t *)(rows_channels(v, t) + 2 * (size_t)v->dim) + t % v->group * channel_row_bytes(v->dtype, v->dim);
}
/* The fifth bits of a panel's inputs from k on; of a row's runs of 16 dimensions from d on. */
static inline uint32_t panel_fifth(const uint8_t *panel, uint32_t n_in, uint32_t k) { return load_u16(panel + 8 * (size_t)n_in + 2 * k); }
static inline uint32_t row_fifth(const uint8_t *row, uint32_t dim, uint32_t d) { return load_u16(row + (dim + 31) / 32 * 16 + d / 8); }

#endif
