/* What the tables of this room share and nobody else sees: their names, the addresses inside a matrix, the element conversions
 * written so that a compiler can vectorise them. */
#ifndef AM_KERNELS_TABLES_H
#define AM_KERNELS_TABLES_H

#include "kernels/kernels.h"

#include <string.h>

extern const am_kernels am_kernels_scalar;
#if defined(__x86_64__)
extern const am_kernels am_kernels_avx2;
extern const am_kernels am_kernels_avx512;
/* What cpuid and XCR0 say, together: the instructions exist and the kernel saves their registers. */
bool am_cpu_has_avx2(void);
bool am_cpu_has_avx512(void);
#elif defined(__aarch64__)
extern const am_kernels am_kernels_neon;
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

static inline size_t dtype_bytes(am_dtype dtype) { return dtype == AM_F32 ? 4 : dtype == AM_Q8 || dtype == AM_Q4 ? 1 : 2; }
static inline bool dtype_quantised(am_dtype dtype) { return dtype == AM_Q8 || dtype == AM_Q4; }

static inline size_t mat_group_bytes(const am_mat *mat) {
    size_t codes = (size_t)mat->group * AM_PANEL / (mat->dtype == AM_Q4 ? 2 : 1);
    return 2 * AM_PANEL * dtype_bytes(mat->scale_dtype) + codes;
}

static inline const uint8_t *mat_panel(const am_mat *mat, uint32_t panel) {
    return (const uint8_t *)mat->data + panel * am_mat_panel_bytes(mat);
}

/* How many outputs of a panel are real. */
static inline uint32_t mat_lanes(const am_mat *mat, uint32_t panel) {
    uint32_t left = mat->n_out - panel * AM_PANEL;
    return left < AM_PANEL ? left : AM_PANEL;
}

/* Where row t of quantised values keeps its parts. */
static inline const uint16_t *rows_scale(const am_rows *v, uint32_t t) {
    return (const uint16_t *)v->data + (size_t)t * (v->dim / v->group);
}

static inline const uint16_t *rows_bias(const am_rows *v, uint32_t t) {
    return rows_scale(v, v->n_rows) + (size_t)t * (v->dim / v->group);
}

static inline const uint8_t *rows_codes(const am_rows *v, uint32_t t) {
    return (const uint8_t *)rows_bias(v, v->n_rows) + (size_t)t * (v->dtype == AM_Q4 ? v->dim / 2 : v->dim);
}

#endif
