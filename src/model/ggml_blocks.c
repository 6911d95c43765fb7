/* Owns the layouts of ggml's quantised blocks. Each unpack reads one block and writes codes, scales and biases such that scale * code + bias
 * is the value ggml itself gives; where that differs in the last bit (an inexact product), the tests say by how much. */
#include "model/ggml_blocks.h"

#include "model/ggml_iq.h"

#include <math.h>
#include <string.h>

static uint16_t u16_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static float half_at(const uint8_t *p) { return am_f16_to_f32(u16_at(p)); }

/* 32 codes from 16 bytes: low nibbles first. */
static void nibbles(const uint8_t *q, uint8_t *codes) {
    for (int j = 0; j < 16; j++) {
        codes[j] = q[j] & 15;
        codes[j + 16] = q[j] >> 4;
    }
}

static void unpack_q4_0(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s);
    *bias = -8 * *scale;
    nibbles(s + 2, codes);
}

static void unpack_q4_1(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s);
    *bias = half_at(s + 2);
    nibbles(s + 4, codes);
}

/* The fifth bits: bit j of a 32-bit word belongs to value j. */
static void fifth_bits(const uint8_t *h, uint8_t *codes) {
    for (int j = 0; j < 32; j++) codes[j] |= (uint8_t)((h[j / 8] >> j % 8 & 1) << 4);
}

static void unpack_q5_0(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s);
    *bias = -16 * *scale;
    nibbles(s + 6, codes);
    fifth_bits(s + 2, codes);
}

static void unpack_q5_1(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s);
    *bias = half_at(s + 2);
    nibbles(s + 8, codes);
    fifth_bits(s + 4, codes);
}

static void unpack_q8_0(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s);
    *bias = -128 * *scale;
    for (int j = 0; j < 32; j++) codes[j] = (uint8_t)(s[2 + j] ^ 0x80); /* signed plus 128 */
}

/* What levels that are stored make of a block: products that float32 holds exactly. */
static void multiply_levels(am_ggml_levels_fn *levels, const uint8_t *s, int n, float *scale, float *bias, int zero_point) {
    uint8_t by_scale[16], by_bias[16];
    uint16_t upper[2];
    levels(s, by_scale, by_bias, upper);
    float d = am_f16_to_f32(upper[0]), e = zero_point ? 0 : am_f16_to_f32(upper[1]);
    for (int i = 0; i < n; i++) {
        scale[i] = d * (float)(by_scale[i] - 128);
        bias[i] = zero_point ? -(float)zero_point * scale[i] : e * (float)(by_bias[i] - 128);
    }
}

static uint16_t minus(uint16_t half) { return half ^ 0x8000; }

/* The 6-bit scales and minima of Q4_K and Q5_K, 8 of each in 12 bytes. */
static void levels_q4_k(const uint8_t *s, uint8_t *scale, uint8_t *bias, uint16_t upper[2]) {
    const uint8_t *packed = s + 4;
    upper[0] = u16_at(s);
    upper[1] = minus(u16_at(s + 2));
    for (int j = 0; j < 8; j++) {
        scale[j] = (uint8_t)(128 + (j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4));
        bias[j] = (uint8_t)(128 + (j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4));
    }
}

static void unpack_q4_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    multiply_levels(levels_q4_k, s, 8, scale, bias, 0);
    const uint8_t *q = s + 16;
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)(q[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15);
}

static void unpack_q5_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    multiply_levels(levels_q4_k, s, 8, scale, bias, 0);
    const uint8_t *high = s + 16, *q = s + 48;
    for (int i = 0; i < 256; i++)
        codes[i] = (uint8_t)((q[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) | (high[i % 32] >> i / 32 & 1) << 4);
}

static void levels_q6_k(const uint8_t *s, uint8_t *scale, uint8_t *bias, uint16_t upper[2]) {
    (void)bias;
    upper[0] = u16_at(s + 208);
    for (int g = 0; g < 16; g++) scale[g] = s[192 + g] ^ 0x80; /* signed plus 128 */
}

static void unpack_q6_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *low = s, *high = s + 128;
    for (int i = 0; i < 256; i++) {
        int part = i % 128, at = i / 128 * 64 + part % 64; /* halves of 128; in each, 64 bytes of low nibbles serve two runs */
        int nibble = low[at] >> (part / 64 * 4) & 15;
        int two = high[i / 128 * 32 + part % 32] >> (part / 32 * 2) & 3;
        codes[i] = (uint8_t)(nibble | two << 4);
    }
    multiply_levels(levels_q6_k, s, 16, scale, bias, 32);
}

static void levels_q3_k(const uint8_t *s, uint8_t *scale, uint8_t *bias, uint16_t upper[2]) {
    const uint8_t *packed = s + 96;
    (void)bias;
    upper[0] = u16_at(s + 108);
    for (int g = 0; g < 16; g++) { /* low four bits in bytes 0..7, high two in bytes 8..11 */
        int low = packed[g % 8] >> (g / 8 * 4) & 15, high = packed[8 + g % 4] >> (g / 4 * 2) & 3;
        scale[g] = (uint8_t)(128 + (low | high << 4) - 32);
    }
}

static void unpack_q3_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *mask = s, *q = s + 32;
    for (int i = 0; i < 256; i++) {
        int two = q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        codes[i] = (uint8_t)(two | (mask[i % 32] >> i / 32 & 1) << 2);
    }
    multiply_levels(levels_q3_k, s, 16, scale, bias, 4);
}

static void levels_q2_k(const uint8_t *s, uint8_t *scale, uint8_t *bias, uint16_t upper[2]) {
    upper[0] = u16_at(s + 80);
    upper[1] = minus(u16_at(s + 82));
    for (int g = 0; g < 16; g++) scale[g] = (uint8_t)(128 + (s[g] & 15)), bias[g] = (uint8_t)(128 + (s[g] >> 4));
}

static void unpack_q2_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *q = s + 16;
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)(q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
    multiply_levels(levels_q2_k, s, 16, scale, bias, 0);
}

static void look_up(uint8_t *codes, int n, am_book book) {
    for (int j = 0; j < n; j++) codes[j] = am_books[book][codes[j]];
}

static void unpack_iq4_nl(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s);
    *bias = -128 * *scale;
    nibbles(s + 2, codes);
    look_up(codes, 32, AM_BOOK_IQ4);
}

static void levels_iq4_xs(const uint8_t *s, uint8_t *scale, uint8_t *bias, uint16_t upper[2]) {
    (void)bias;
    upper[0] = u16_at(s);
    for (int g = 0; g < 8; g++) {
        int low = s[4 + g / 2] >> (g % 2 * 4) & 15, high = u16_at(s + 2) >> 2 * g & 3;
        scale[g] = (uint8_t)(128 + (low | high << 4) - 32);
    }
}

static void unpack_iq4_xs(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    for (int g = 0; g < 8; g++) nibbles(s + 8 + 16 * g, codes + 32 * g);
    look_up(codes, 256, AM_BOOK_IQ4);
    multiply_levels(levels_iq4_xs, s, 8, scale, bias, 128);
}

static void unpack_mxfp4(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = ldexpf(1, s[0] - 128); /* 2^(e - 127), halved since the book's values are doubled */
    *bias = -12 * *scale;
    nibbles(s + 1, codes);
    look_up(codes, 32, AM_BOOK_MXFP4);
}

static void unpack_tq2_0(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s + 64);
    *bias = -*scale;
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)(s[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
}

/* Trits: five to a byte as a fixed-point fraction of 3^5 (four to a byte in the last 4). */
static uint8_t trit(uint8_t byte, int n) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    return (uint8_t)((uint8_t)(byte * power[n]) * 3 >> 8);
}

static void unpack_tq1_0(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s + 52);
    *bias = -*scale;
    for (int i = 0; i < 160; i++) codes[i] = trit(s[i % 32], i / 32);
    for (int i = 0; i < 80; i++) codes[160 + i] = trit(s[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++) codes[240 + i] = trit(s[48 + i % 4], i / 4);
}

static const am_ggml_format formats[] = {
    {AM_GGML_F32, "F32", 1, 4, 0, 0, 0, NULL, NULL, AM_BOOK_NONE},
    {AM_GGML_F16, "F16", 1, 2, 0, 0, 0, NULL, NULL, AM_BOOK_NONE},
    {AM_GGML_BF16, "BF16", 1, 2, 0, 0, 0, NULL, NULL, AM_BOOK_NONE},
    {AM_GGML_Q4_0, "Q4_0", 32, 18, 32, 15, 8, unpack_q4_0, NULL, AM_BOOK_NONE},
    {AM_GGML_Q4_1, "Q4_1", 32, 20, 32, 15, 0, unpack_q4_1, NULL, AM_BOOK_NONE},
    {AM_GGML_Q5_0, "Q5_0", 32, 22, 32, 31, 16, unpack_q5_0, NULL, AM_BOOK_NONE},
    {AM_GGML_Q5_1, "Q5_1", 32, 24, 32, 31, 0, unpack_q5_1, NULL, AM_BOOK_NONE},
    {AM_GGML_Q8_0, "Q8_0", 32, 34, 32, 255, 128, unpack_q8_0, NULL, AM_BOOK_NONE},
    {AM_GGML_Q2_K, "Q2_K", 256, 84, 16, 3, 0, unpack_q2_k, levels_q2_k, AM_BOOK_NONE},
    {AM_GGML_Q3_K, "Q3_K", 256, 110, 16, 7, 4, unpack_q3_k, levels_q3_k, AM_BOOK_NONE},
    {AM_GGML_Q4_K, "Q4_K", 256, 144, 32, 15, 0, unpack_q4_k, levels_q4_k, AM_BOOK_NONE},
    {AM_GGML_Q5_K, "Q5_K", 256, 176, 32, 31, 0, unpack_q5_k, levels_q4_k, AM_BOOK_NONE},
    {AM_GGML_Q6_K, "Q6_K", 256, 210, 16, 63, 32, unpack_q6_k, levels_q6_k, AM_BOOK_NONE},
    {AM_GGML_IQ2_XXS, "IQ2_XXS", 256, 66, 32, 255, 128, am_unpack_iq2_xxs, NULL, AM_BOOK_NONE},
    {AM_GGML_IQ2_XS, "IQ2_XS", 256, 74, 16, 255, 128, am_unpack_iq2_xs, NULL, AM_BOOK_NONE},
    {AM_GGML_IQ3_XXS, "IQ3_XXS", 256, 98, 32, 255, 128, am_unpack_iq3_xxs, NULL, AM_BOOK_NONE},
    {AM_GGML_IQ1_S, "IQ1_S", 256, 50, 32, 3, 0, am_unpack_iq1_s, NULL, AM_BOOK_NONE},
    {AM_GGML_IQ4_NL, "IQ4_NL", 32, 18, 32, 255, 128, unpack_iq4_nl, NULL, AM_BOOK_IQ4},
    {AM_GGML_IQ3_S, "IQ3_S", 256, 110, 32, 255, 128, am_unpack_iq3_s, NULL, AM_BOOK_NONE},
    {AM_GGML_IQ2_S, "IQ2_S", 256, 82, 16, 255, 128, am_unpack_iq2_s, NULL, AM_BOOK_NONE},
    {AM_GGML_IQ4_XS, "IQ4_XS", 256, 136, 32, 255, 128, unpack_iq4_xs, levels_iq4_xs, AM_BOOK_IQ4},
    {AM_GGML_IQ1_M, "IQ1_M", 256, 56, 16, 18, 9, am_unpack_iq1_m, NULL, AM_BOOK_NONE},
    {AM_GGML_TQ1_0, "TQ1_0", 256, 54, 256, 2, 1, unpack_tq1_0, NULL, AM_BOOK_NONE},
    {AM_GGML_TQ2_0, "TQ2_0", 256, 66, 256, 3, 1, unpack_tq2_0, NULL, AM_BOOK_NONE},
    {AM_GGML_MXFP4, "MXFP4", 32, 17, 32, 24, 12, unpack_mxfp4, NULL, AM_BOOK_MXFP4},
};

const am_ggml_format *am_ggml_format_of(uint32_t type) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].type == type) return &formats[i];
    return NULL;
}
