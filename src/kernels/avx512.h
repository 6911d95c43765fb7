/* The operations of AVX-512 F, BW, DQ and VL for vector.h: a vector is a panel's 16 outputs. Four panels by six rows are 24 of the 32 registers, four
 * hold weights, one the input. A nibble becomes a float by a table look-up among 16 lanes (vpermps reads just the low four bits of
 * each index), which saves both the mask and the conversion. */
#ifndef AM_KERNELS_AVX512_H
#define AM_KERNELS_AVX512_H

#include "kernels/kernels.h"

#include <immintrin.h>

enum { LANES = 16, TILE_PANELS = 4 };
#define PLAIN_PANELS(r) ((r) == 1 ? 8 : 4)
#define QUANT_PANELS(r) ((r) == 1 ? 8 : 4)

typedef __m512 vec;

static inline vec v_zero(void) { return _mm512_setzero_ps(); }
static inline vec v_set(float x) { return _mm512_set1_ps(x); }
static inline vec v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_round(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vec v_scale2(vec y, vec n) { return _mm512_scalef_ps(y, n); }
static inline float v_least(vec x) { return _mm512_reduce_min_ps(x); }
static inline float v_most(vec x) { return _mm512_reduce_max_ps(x); }
static inline vec v_number(vec x) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x); }
static inline vec v_zero_below(vec y, vec x, vec low) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), y); }

static inline float v_sum(vec x) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline vec v_range(uint32_t t, uint32_t from, uint32_t to, vec a, vec b) {
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i at = _mm512_add_epi32(_mm512_set1_epi32((int)t), lane);
    __mmask16 in = _mm512_cmpge_epu32_mask(at, _mm512_set1_epi32((int)from));
    in = _mm512_mask_cmplt_epu32_mask(in, at, _mm512_set1_epi32((int)to));
    return _mm512_mask_blend_ps(in, b, a);
}

static inline vec v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }

static inline vec v_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void v_load_bf16_pairs(const uint8_t *p, vec *even, vec *odd) {
    __m512i w = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000)));
}

static inline __m512i bytes_widen(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)); }
static inline vec v_load_u8(const uint8_t *p) { return _mm512_cvtepi32_ps(bytes_widen(p)); }

static inline void v_load_nibbles(const uint8_t *p, vec *low, vec *high) {
    const vec level = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i wide = bytes_widen(p);
    *low = _mm512_permutexvar_ps(wide, level);
    *high = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), level);
}

static inline void v_load_8_nibbles(const uint8_t *p, vec out[8]) {
    const vec level = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i w = _mm512_loadu_si512(p);
    out[0] = _mm512_permutexvar_ps(w, level);
    out[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(w, 8), level);
    out[2] = _mm512_permutexvar_ps(_mm512_srli_epi32(w, 16), level);
    out[3] = _mm512_permutexvar_ps(_mm512_srli_epi32(w, 24), level);
    out[4] = _mm512_permutexvar_ps(_mm512_srli_epi32(w, 4), level);
    out[5] = _mm512_permutexvar_ps(_mm512_srli_epi32(w, 12), level);
    out[6] = _mm512_permutexvar_ps(_mm512_srli_epi32(w, 20), level);
    out[7] = _mm512_permutexvar_ps(_mm512_srli_epi32(w, 28), level);
}

static inline void v_load_4_bytes(const uint8_t *p, vec out[4]) {
    __m512i w = _mm512_loadu_si512(p), low = _mm512_set1_epi32(255);
    out[0] = _mm512_cvtepi32_ps(_mm512_and_si512(w, low));
    out[1] = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(w, 8), low));
    out[2] = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(w, 16), low));
    out[3] = _mm512_cvtepi32_ps(_mm512_srli_epi32(w, 24));
}

static inline vec v_add_fifth(vec x, uint32_t bits) { return _mm512_mask_add_ps(x, (__mmask16)bits, x, _mm512_set1_ps(16)); }

static inline void v_store_f16(uint16_t *p, vec x) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline void v_store_u8(uint8_t *p, vec x) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

#endif
