/* The table of AVX2 with FMA and F16C: a panel is two vectors of 8 outputs. Six rows of one panel are 12 of the 16 registers.
 *
 * Codes times codes: vpmaddubsw adds two products into 16 bits. Those of nibbles are at most 2 * 15 * 128, so that the eight of a step of 32
 * inputs add up to at most 30720 and fit; codes of 8 bits go as two nibbles, each with sums of its own. */
#include "kernels/kernels.h"

#include <immintrin.h>

enum { LANES = 8, TILE_PANELS = 1 };
#define PLAIN_PANELS(r) ((r) == 1 ? 4 : (r) == 2 ? 2 : 1)
#define QUANT_PANELS(r) ((r) == 1 ? 2 : 1)

typedef __m256 vec;

static inline vec v_zero(void) { return _mm256_setzero_ps(); }
static inline vec v_set(float x) { return _mm256_set1_ps(x); }
static inline vec v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_round(vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline vec v_scale2(vec y, vec n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

static inline float v_sum(vec x) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

static inline float v_least(vec x) {
    __m128 a = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    a = _mm_min_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)));
}

static inline float v_most(vec x) {
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

static inline vec v_number(vec x) { return _mm256_and_ps(x, _mm256_cmp_ps(x, x, _CMP_ORD_Q)); }
static inline vec v_zero_below(vec y, vec x, vec low) { return _mm256_and_ps(y, _mm256_cmp_ps(x, low, _CMP_NLT_UQ)); }

/* Signed comparisons do: positions in a run of keys are far below 2^31. */
static inline vec v_range(uint32_t t, uint32_t from, uint32_t to, vec a, vec b) {
    __m256i at = _mm256_add_epi32(_mm256_set1_epi32((int)t), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)from), at);
    __m256i in = _mm256_andnot_si256(before, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)to), at));
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(in));
}

static inline vec v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }

static inline vec v_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline void v_load_bf16_pairs(const uint8_t *p, vec *even, vec *odd) {
    __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)p);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xffff0000)));
}

static inline __m256i bytes_widen(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)); }
static inline vec v_load_u8(const uint8_t *p) { return _mm256_cvtepi32_ps(bytes_widen(p)); }

static inline void v_load_nibbles(const uint8_t *p, vec *low, vec *high) {
    __m256i wide = bytes_widen(p);
    *low = _mm256_cvtepi32_ps(_mm256_and_si256(wide, _mm256_set1_epi32(15)));
    *high = _mm256_cvtepi32_ps(_mm256_srli_epi32(wide, 4));
}

static inline void v_load_8_nibbles(const uint8_t *p, vec out[8]) {
    __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)p), low = _mm256_set1_epi32(15);
    for (int b = 0; b < 4; b++) {
        out[b] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w, 8 * b), low));
        out[4 + b] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w, 8 * b + 4), low));
    }
}

static inline void v_load_4_bytes(const uint8_t *p, vec out[4]) {
    __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)p), low = _mm256_set1_epi32(255);
    for (int b = 0; b < 4; b++) out[b] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w, 8 * b), low));
}

static inline vec v_add_fifth(vec x, uint32_t bits) {
    __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lane), lane);
    return _mm256_add_ps(x, _mm256_and_ps(_mm256_castsi256_ps(set), _mm256_set1_ps(16)));
}

static inline void v_store_f16(uint16_t *p, vec x) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline void v_store_u8(uint8_t *p, vec x) {
    __m256i wide = _mm256_cvtps_epi32(x);
    __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(half, half));
}

#include "kernels/vector.h"

enum { INT8_ROWS = 4 };
#define INT8_WIDE(r) ((r) == 1 ? 4 : (r) == 2 ? 2 : 1)

typedef __m256i ivec;
typedef struct idot {
    __m256i low, high; /* of 16 bits; high: of the upper nibbles of wide codes */
} idot;

static inline ivec i_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
static inline ivec i_four(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
static inline ivec i_low(ivec w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
static inline ivec i_high(ivec w) { return _mm256_and_si256(_mm256_srli_epi16(w, 4), _mm256_set1_epi8(15)); }
static inline ivec i_look(const uint8_t book[16], ivec w) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)book)), w);
}
static inline ivec i_join(ivec low, ivec w, const int left, const char mask) {
    w = left >= 0 ? _mm256_slli_epi16(w, left > 0 ? left : 0) : _mm256_srli_epi16(w, left < 0 ? -left : 0);
    return _mm256_or_si256(low, _mm256_and_si256(w, _mm256_set1_epi8(mask)));
}
static inline idot i_begin(int32_t start) {
    (void)start;
    return (idot){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
static inline idot i_dot(idot sum, ivec w, ivec x, bool wide) {
    sum.low = _mm256_add_epi16(sum.low, _mm256_maddubs_epi16(wide ? i_low(w) : w, x));
    if (wide) sum.high = _mm256_add_epi16(sum.high, _mm256_maddubs_epi16(i_high(w), x));
    return sum;
}
static inline vec i_end(idot sum, int32_t start, bool wide) {
    __m256i all = _mm256_add_epi32(_mm256_set1_epi32(start), _mm256_madd_epi16(sum.low, _mm256_set1_epi16(1)));
    if (wide) all = _mm256_add_epi32(all, _mm256_madd_epi16(sum.high, _mm256_set1_epi16(16)));
    return _mm256_cvtepi32_ps(all);
}
static inline int i_sum(const int8_t *code) {
    __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), _mm_loadu_si128((const __m128i *)(const void *)code));
    __m128i sums = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1)));
}
static inline void v_store_i8(int8_t *p, vec x) {
    __m256i wide = _mm256_cvtps_epi32(x);
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(half, half));
}

#include "kernels/int8.h"

const am_kernels am_kernels_avx2 = VECTOR_TABLE("avx2", am_cpu_has_avx2, .matmul_int8 = matmul_int8, .row_int8 = row_int8);
