/* Codes by codes for int8.h on ARM. sdot (FEAT_DotProd) adds four products of signed bytes into each of 4 lanes: codes of 4 bits are signed bytes as they
 * are, those of 8 go as two nibbles. usdot (FEAT_I8MM) takes unsigned weights in one. Three rows of one panel are 12 accumulators of integers and 12 of
 * floats. */
#ifndef AM_KERNELS_NEON_INT8_H
#define AM_KERNELS_NEON_INT8_H

#include "kernels/neon.h"
#include "kernels/vector.h"

enum { INT8_ROWS = 3 };
#define INT8_WIDE(r) ((r) == 1 ? 2 : 1)

typedef uint8x16_t ivec;

static inline ivec i_load(const uint8_t *p) { return vld1q_u8(p); }
static inline ivec i_four(const int8_t *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_u8_u32(vdupq_n_u32(four));
}
static inline ivec i_low(ivec w) { return vandq_u8(w, vdupq_n_u8(15)); }
static inline ivec i_high(ivec w) { return vshrq_n_u8(w, 4); }
static inline ivec i_look(const uint8_t book[16], ivec w) { return vqtbl1q_u8(vld1q_u8(book), w); }
static inline ivec i_join(ivec low, ivec w, const int left, const char mask) {
    return vorrq_u8(low, vandq_u8(vshlq_u8(w, vdupq_n_s8((int8_t)left)), vdupq_n_u8((uint8_t)mask)));
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
typedef int32x4_t idot;
static inline idot i_begin(int32_t start) { return vdupq_n_s32(start); }
static inline idot i_dot(idot sum, ivec w, ivec x, bool wide) {
    (void)wide;
    return vusdotq_s32(sum, w, vreinterpretq_s8_u8(x));
}
static inline vec i_end(idot sum, int32_t start, bool wide) {
    (void)start, (void)wide;
    return vcvtq_f32_s32(sum);
}
#else
typedef struct idot {
    int32x4_t low, high; /* high: of the upper nibbles of wide codes */
} idot;
static inline idot i_begin(int32_t start) { return (idot){vdupq_n_s32(start), vdupq_n_s32(0)}; }
static inline idot i_dot(idot sum, ivec w, ivec x, bool wide) {
    sum.low = vdotq_s32(sum.low, vreinterpretq_s8_u8(wide ? i_low(w) : w), vreinterpretq_s8_u8(x));
    if (wide) sum.high = vdotq_s32(sum.high, vreinterpretq_s8_u8(i_high(w)), vreinterpretq_s8_u8(x));
    return sum;
}
static inline vec i_end(idot sum, int32_t start, bool wide) {
    (void)start;
    return vcvtq_f32_s32(wide ? vaddq_s32(sum.low, vshlq_n_s32(sum.high, 4)) : sum.low);
}
#endif

static inline int i_sum(const int8_t *code) { return vaddlvq_s8(vld1q_s8(code)); }
static inline void v_store_i8(int8_t *p, vec x) {
    int16x4_t half = vqmovn_s32(vcvtnq_s32_f32(x));
    uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(half, half))), 0);
    memcpy(p, &four, sizeof four);
}

#include "kernels/int8.h"

#endif
