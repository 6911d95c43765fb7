/* Rows of bf16 for tables of AVX-512 (included after avx512.h): by integers, so that every value is rounded as am_f32_to_bf16 does it, small ones too, which
 * the processor's own instruction takes for 0. */
#ifndef AM_KERNELS_BF16_H
#define AM_KERNELS_BF16_H

#include "kernels/tables.h"

static inline __m256i bf16_of(__m512 x) {
    __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

static void row_bf16(void *dst, const float *x, size_t n_in) {
    uint16_t *to = dst;
    size_t i = 0, end = (n_in + 31) / 32 * 32;
    for (; i + 16 <= n_in; i += 16) _mm256_storeu_si256((__m256i *)(void *)(to + i), bf16_of(_mm512_loadu_ps(x + i)));
    for (; i < end; i += 16) {
        __mmask16 there = (__mmask16)(i < n_in ? (1u << (n_in - i)) - 1 : 0);
        _mm256_storeu_si256((__m256i *)(void *)(to + i), bf16_of(_mm512_maskz_loadu_ps(there, x + i)));
    }
}

#endif
