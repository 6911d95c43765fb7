/* The operations of 64-bit ARM's baseline (ARMv8.0-A) for vector.h: a panel is four vectors of 4 outputs. Six rows of one panel are 24 of the 32
 * registers. */
#ifndef AM_KERNELS_NEON_H
#define AM_KERNELS_NEON_H

#include "kernels/kernels.h"

#include <arm_neon.h>
#include <string.h>

enum { LANES = 4, TILE_PANELS = 1 };
#define PLAIN_PANELS(r) ((r) == 1 ? 2 : 1)
#define QUANT_PANELS(r) ((r) == 1 ? 2 : 1)

typedef float32x4_t vec;

static inline vec v_zero(void) { return vdupq_n_f32(0); }
static inline vec v_set(float x) { return vdupq_n_f32(x); }
static inline vec v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vec x) { vst1q_f32(p, x); }
static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
/* not vminq and vmaxq: those give NaN for a NaN in either place */
static inline vec v_min(vec a, vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vec v_max(vec a, vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vec v_round(vec x) { return vrndnq_f32(x); }

static inline vec v_scale2(vec y, vec n) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(y), vshlq_n_s32(vcvtq_s32_f32(n), 23)));
}

static inline float v_sum(vec x) { return vaddvq_f32(x); } /* pairs, then their sum */
static inline float v_least(vec x) { return vminvq_f32(x); }
static inline float v_most(vec x) { return vmaxvq_f32(x); }

static inline vec v_where(uint32x4_t in, vec x) { return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), in)); }
static inline vec v_number(vec x) { return v_where(vceqq_f32(x, x), x); }
static inline vec v_zero_below(vec y, vec x, vec low) { return v_where(vmvnq_u32(vcltq_f32(x, low)), y); }

static inline vec v_range(uint32_t t, uint32_t from, uint32_t to, vec a, vec b) {
    static const uint32_t lane[LANES] = {0, 1, 2, 3};
    uint32x4_t at = vaddq_u32(vdupq_n_u32(t), vld1q_u32(lane));
    return vbslq_f32(vandq_u32(vcgeq_u32(at, vdupq_n_u32(from)), vcltq_u32(at, vdupq_n_u32(to))), a, b);
}

static inline vec v_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline vec v_load_bf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }

static inline void v_load_bf16_pairs(const uint8_t *p, vec *even, vec *odd) {
    uint32x4_t w = vreinterpretq_u32_u8(vld1q_u8(p));
    *even = vreinterpretq_f32_u32(vshlq_n_u32(w, 16));
    *odd = vreinterpretq_f32_u32(vandq_u32(w, vdupq_n_u32(0xffff0000)));
}

static inline uint32x4_t bytes_widen(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
}

static inline vec v_load_u8(const uint8_t *p) { return vcvtq_f32_u32(bytes_widen(p)); }

static inline void v_load_nibbles(const uint8_t *p, vec *low, vec *high) {
    uint32x4_t wide = bytes_widen(p);
    *low = vcvtq_f32_u32(vandq_u32(wide, vdupq_n_u32(15)));
    *high = vcvtq_f32_u32(vshrq_n_u32(wide, 4));
}

static inline void v_load_8_nibbles(const uint8_t *p, vec out[8]) {
    uint32x4_t w = vreinterpretq_u32_u8(vld1q_u8(p)), low = vdupq_n_u32(15);
    for (int b = 0; b < 4; b++) {
        out[b] = vcvtq_f32_u32(vandq_u32(vshlq_u32(w, vdupq_n_s32(-8 * b)), low));
        out[4 + b] = vcvtq_f32_u32(vandq_u32(vshlq_u32(w, vdupq_n_s32(-8 * b - 4)), low));
    }
}

static inline void v_load_4_bytes(const uint8_t *p, vec out[4]) {
    uint32x4_t w = vreinterpretq_u32_u8(vld1q_u8(p)), low = vdupq_n_u32(255);
    for (int b = 0; b < 4; b++) out[b] = vcvtq_f32_u32(vandq_u32(vshlq_u32(w, vdupq_n_s32(-8 * b)), low));
}

static inline vec v_add_fifth(vec x, uint32_t bits) {
    static const uint32_t lane[LANES] = {1, 2, 4, 8};
    return vaddq_f32(x, v_where(vtstq_u32(vdupq_n_u32(bits), vld1q_u32(lane)), vdupq_n_f32(16)));
}

static inline void v_store_f16(uint16_t *p, vec x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }

static inline void v_store_u8(uint8_t *p, vec x) {
    uint16x4_t half = vqmovn_u32(vcvtnq_u32_f32(x));
    uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(half, half))), 0);
    memcpy(p, &four, sizeof four);
}

#endif
