/* The table of AVX-512 with VNNI: as avx512, and quantised weights times 8-bit inputs by vpdpbusd, which adds four products of an unsigned
 * and a signed byte into each of 16 lanes. Six rows by two panels, or three by four, are 12 accumulators of integers and 12 of floats. */
#include "kernels/avx512.h"
#include "kernels/vector.h"

enum { INT8_ROWS = 6 };
#define INT8_WIDE(r) ((r) <= 3 ? 4 : 2)

typedef __m512i ivec;
typedef __m512i idot;

static inline ivec i_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline ivec i_four(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
static inline ivec i_low(ivec w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
static inline ivec i_high(ivec w) { return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15)); }
static inline idot i_begin(int32_t start) { return _mm512_set1_epi32(start); }
static inline idot i_dot(idot sum, ivec w, ivec x, bool wide) {
    (void)wide;
    return _mm512_dpbusd_epi32(sum, w, x);
}
static inline vec i_end(idot sum, int32_t start, bool wide) {
    (void)start, (void)wide;
    return _mm512_cvtepi32_ps(sum);
}
static inline int i_sum(const int8_t *code) {
    __m128i sums = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), _mm_loadu_si128((const __m128i *)(const void *)code));
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1)));
}
static inline void v_store_i8(int8_t *p, vec x) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}

#include "kernels/int8.h"

const am_kernels am_kernels_avx512vnni = VECTOR_TABLE("avx512vnni", am_cpu_has_avx512vnni, .matmul_int8 = matmul_int8, .row_int8 = row_int8);
