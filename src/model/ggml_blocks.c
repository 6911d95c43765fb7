/* Owns the layouts of ggml's quantised blocks. Each unpack reads one block and writes codes, scales and biases such that scale * code + bias
 * is the value ggml itself gives; where that differs in the last bit (an inexact product), the tests say by how much. */
#include "model/ggml_blocks.h"

#include "kernels/kernels.h"
#include "model/ggml_iq.h"

#include <math.h>
#include <string.h>

static float half_at(const uint8_t *p) { return am_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

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

/* The 6-bit scales and minima of Q4_K and Q5_K, 8 of each in 12 bytes. */
static void k_scales(const uint8_t *s, const uint8_t *packed, float *scale, float *bias) {
    float d = half_at(s), dmin = half_at(s + 2);
    for (int j = 0; j < 8; j++) {
        int sc = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        int m = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4;
        scale[j] = d * (float)sc;
        bias[j] = -(dmin * (float)m);
    }
}

static void unpack_q4_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    k_scales(s, s + 4, scale, bias);
    const uint8_t *q = s + 16;
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)(q[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15);
}

static void unpack_q5_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    k_scales(s, s + 4, scale, bias);
    const uint8_t *high = s + 16, *q = s + 48;
    for (int i = 0; i < 256; i++)
        codes[i] = (uint8_t)((q[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) | (high[i % 32] >> i / 32 & 1) << 4);
}

static void unpack_q6_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *low = s, *high = s + 128, *sc = s + 192;
    float d = half_at(s + 208);
    for (int i = 0; i < 256; i++) {
        int part = i % 128, at = i / 128 * 64 + part % 64; /* halves of 128; in each, 64 bytes of low nibbles serve two runs */
        int nibble = low[at] >> (part / 64 * 4) & 15;
        int two = high[i / 128 * 32 + part % 32] >> (part / 32 * 2) & 3;
        codes[i] = (uint8_t)(nibble | two << 4);
    }
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(int8_t)sc[g];
        bias[g] = -32 * scale[g];
    }
}

static void unpack_q3_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *mask = s, *q = s + 32, *packed = s + 96;
    float d = half_at(s + 108);
    for (int i = 0; i < 256; i++) {
        int two = q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        codes[i] = (uint8_t)(two | (mask[i % 32] >> i / 32 & 1) << 2);
    }
    for (int g = 0; g < 16; g++) { /* low four bits in bytes 0..7, high two in bytes 8..11 */
        int low = packed[g % 8] >> (g / 8 * 4) & 15, high = packed[8 + g % 4] >> (g / 4 * 2) & 3;
        scale[g] = d * (float)((low | high << 4) - 32);
        bias[g] = -4 * scale[g];
    }
}

static void unpack_q2_k(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *packed = s, *q = s + 16;
    float d = half_at(s + 80), dmin = half_at(s + 82);
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)(q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(packed[g] & 15);
        bias[g] = -(dmin * (float)(packed[g] >> 4));
    }
}

/* The code book of IQ4_NL and IQ4_XS, shifted by 128 to be unsigned. */
static const uint8_t iq4_code[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

static void unpack_iq4_nl(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(s);
    *bias = -128 * *scale;
    nibbles(s + 2, codes);
    for (int j = 0; j < 32; j++) codes[j] = iq4_code[codes[j]];
}

static void unpack_iq4_xs(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    float d = half_at(s);
    unsigned high = (unsigned)(s[2] | s[3] << 8);
    for (int g = 0; g < 8; g++) {
        int low = s[4 + g / 2] >> (g % 2 * 4) & 15;
        scale[g] = d * (float)((low | (int)(high >> 2 * g & 3) << 4) - 32);
        bias[g] = -128 * scale[g];
        nibbles(s + 8 + 16 * g, codes + 32 * g);
    }
    for (int j = 0; j < 256; j++) codes[j] = iq4_code[codes[j]];
}

static void unpack_mxfp4(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    /* E2M1 values doubled, plus 12; the scale 2^(e - 127) is halved for it */
    static const uint8_t code[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    *scale = ldexpf(1, s[0] - 128);
    *bias = -12 * *scale;
    nibbles(s + 1, codes);
    for (int j = 0; j < 32; j++) codes[j] = code[codes[j]];
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
    {AM_GGML_F32, "F32", 1, 4, 0, 0, 0, NULL},
    {AM_GGML_F16, "F16", 1, 2, 0, 0, 0, NULL},
    {AM_GGML_BF16, "BF16", 1, 2, 0, 0, 0, NULL},
    {AM_GGML_Q4_0, "Q4_0", 32, 18, 32, 15, 8, unpack_q4_0},
    {AM_GGML_Q4_1, "Q4_1", 32, 20, 32, 15, 0, unpack_q4_1},
    {AM_GGML_Q5_0, "Q5_0", 32, 22, 32, 31, 16, unpack_q5_0},
    {AM_GGML_Q5_1, "Q5_1", 32, 24, 32, 31, 0, unpack_q5_1},
    {AM_GGML_Q8_0, "Q8_0", 32, 34, 32, 255, 128, unpack_q8_0},
    {AM_GGML_Q2_K, "Q2_K", 256, 84, 16, 3, 0, unpack_q2_k},
    {AM_GGML_Q3_K, "Q3_K", 256, 110, 16, 7, 4, unpack_q3_k},
    {AM_GGML_Q4_K, "Q4_K", 256, 144, 32, 15, 0, unpack_q4_k},
    {AM_GGML_Q5_K, "Q5_K", 256, 176, 32, 31, 0, unpack_q5_k},
    {AM_GGML_Q6_K, "Q6_K", 256, 210, 16, 63, 32, unpack_q6_k},
    {AM_GGML_IQ2_XXS, "IQ2_XXS", 256, 66, 32, 255, 128, am_unpack_iq2_xxs},
    {AM_GGML_IQ2_XS, "IQ2_XS", 256, 74, 16, 255, 128, am_unpack_iq2_xs},
    {AM_GGML_IQ3_XXS, "IQ3_XXS", 256, 98, 32, 255, 128, am_unpack_iq3_xxs},
    {AM_GGML_IQ1_S, "IQ1_S", 256, 50, 32, 3, 0, am_unpack_iq1_s},
    {AM_GGML_IQ4_NL, "IQ4_NL", 32, 18, 32, 255, 128, unpack_iq4_nl},
    {AM_GGML_IQ3_S, "IQ3_S", 256, 110, 32, 255, 128, am_unpack_iq3_s},
    {AM_GGML_IQ2_S, "IQ2_S", 256, 82, 16, 255, 128, am_unpack_iq2_s},
    {AM_GGML_IQ4_XS, "IQ4_XS", 256, 136, 32, 255, 128, unpack_iq4_xs},
    {AM_GGML_IQ1_M, "IQ1_M", 256, 56, 16, 18, 9, am_unpack_iq1_m},
    {AM_GGML_TQ1_0, "TQ1_0", 256, 54, 256, 2, 1, unpack_tq1_0},
    {AM_GGML_TQ2_0, "TQ2_0", 256, 66, 256, 3, 1, unpack_tq2_0},
    {AM_GGML_MXFP4, "MXFP4", 32, 17, 32, 24, 12, unpack_mxfp4},
};

const am_ggml_format *am_ggml_format_of(uint32_t type) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].type == type) return &formats[i];
    return NULL;
}
