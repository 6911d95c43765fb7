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
static inline ivec i_look(const uint8_t book[16], ivec w) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)book)), w);
}
static inline ivec i_join(ivec low, ivec w, const int left, const char mask) {
    w = left >= 0 ? _mm512_slli_epi16(w, left > 0 ? (unsigned)left : 0) : _mm512_srli_epi16(w, left < 0 ? (unsigned)-left : 0);
    return _mm512_ternarylogic_epi32(low, w, _mm512_set1_epi8(mask), 0xf8); /* low | (w & mask) */
}
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

static inline idot u_dot(idot sum, ivec w, ivec x) { return _mm512_dpbusd_epi32(sum, x, w); }
static inline int u_sum(const uint8_t *code) {
    __m128i sums = _mm_sad_epu8(_mm_loadu_si128((const __m128i *)(const void *)code), _mm_setzero_si128());
    return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums)));
}

typedef __m512i quad;

static inline quad q_four(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline quad q_low(quad q) { return i_low(q); }
static inline quad q_high(quad q) { return i_high(q); }
static inline quad q_pairs(const uint8_t *p) {
    const int64_t four = 0x0004000400040004;
    __m512i two = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p));
    two = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), two);
    return q_low(_mm512_srlv_epi16(two, _mm512_setr_epi64(0, 0, four, four, 0, 0, four, four)));
}
static inline quad q_rows(const uint8_t *p, size_t stride) {
    __m512i q = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    q = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i *)(const void *)(p + stride)), 1);
    q = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * stride)), 2);
    return _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i *)(const void *)(p + 3 * stride)), 3);
}
static inline quad q_fifth(quad q, uint64_t bits) { return _mm512_mask_add_epi8(q, (__mmask64)bits, q, _mm512_set1_epi8(16)); }
static inline quad q_signed(quad q) { return _mm512_xor_si512(q, _mm512_set1_epi8(-128)); }
static inline void q_store(uint8_t *to, quad q) {
    const __m512i fours = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    _mm512_storeu_si512(to, _mm512_shuffle_epi8(_mm512_permutexvar_epi32(fours, q), bytes));
}
static inline void q_cross(uint8_t *to, const quad q[4]) {
    const __m512i low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29), high = _mm512_add_epi32(low, _mm512_set1_epi32(2));
    __m512i a = _mm512_permutex2var_epi32(q[0], low, q[1]), b = _mm512_permutex2var_epi32(q[2], low, q[3]);
    __m512i c = _mm512_permutex2var_epi32(q[0], high, q[1]), d = _mm512_permutex2var_epi32(q[2], high, q[3]);
    _mm512_storeu_si512(to, _mm512_inserti64x4(a, _mm512_castsi512_si256(b), 1));
    _mm512_storeu_si512(to + 64, _mm512_shuffle_i64x2(a, b, 0xee));
    _mm512_storeu_si512(to + 128, _mm512_inserti64x4(c, _mm512_castsi512_si256(d), 1));
    _mm512_storeu_si512(to + 192, _mm512_shuffle_i64x2(c, d, 0xee));
}

#include "kernels/codes.h"

const am_kernels am_kernels_avx512vnni = VECTOR_TABLE_OF("avx512vnni", am_cpu_has_avx512vnni, matmul_or_keys, rows_or_values, mat_or_latent, .matmul_int8 = matmul_int8,
                                                         .row_int8 = row_int8, .rounds_attention = true);
