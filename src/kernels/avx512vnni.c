/* The table of AVX-512 with VNNI: as avx512, and quantised weights times 8-bit inputs by vpdpbusd, which adds four products of an unsigned
 * and a signed byte into each of 16 lanes. Six rows by two panels are 12 accumulators of integers and 12 of floats. */
#include "kernels/avx512.h"
#include "kernels/vector.h"

enum { INT8_WIDE = 4, INT8_TILE = 2 };

typedef __m512i ivec;

static inline ivec i_zero(void) { return _mm512_setzero_si512(); }
static inline ivec i_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline ivec i_four(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
static inline ivec i_low(ivec w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
static inline ivec i_high(ivec w) { return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15)); }
static inline ivec i_dot_nibbles(ivec acc, ivec w, ivec x) { return _mm512_dpbusd_epi32(acc, w, x); }
static inline ivec i_dot_bytes(ivec acc, ivec w, ivec x) { return _mm512_dpbusd_epi32(acc, w, x); }
static inline vec i_float(ivec x) { return _mm512_cvtepi32_ps(x); }
static inline void v_store_i8(int8_t *p, vec x) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}

#include "kernels/int8.h"

const am_kernels am_kernels_avx512vnni = VECTOR_TABLE("avx512vnni", am_cpu_has_avx512vnni, .matmul_int8 = matmul_int8, .row_int8 = row_int8);
