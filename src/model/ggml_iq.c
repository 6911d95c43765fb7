/* Owns the unpacking of ggml's IQ1, IQ2 and IQ3 blocks of 256 values: an index chooses a point of a grid for eight (IQ3: four) values together, signs are
 * apart, and each run of 16 or 32 has a scale.
 *
 * The grids' values are whole numbers (8, 25, 43; 4 .. 62; 1 .. 15), so value + 128 is a code of 8 bits and nothing is lost, but a block takes three to four times
 * its room. IQ1's grid is -1, 0, 1 with a shift of an eighth for a whole run (IQ1_S, which fits into 4 bits) or for eight values (IQ1_M: eighths as
 * codes). Where seven bits stand for eight signs, the eighth makes their number even. Source: ggml's block definitions. */
#include "model/ggml_iq.h"

#include "kernels/kernels.h"

#include <string.h>

static const uint8_t values_2[4] = {8, 25, 43, 0}; /* a digit of 3 does not occur */
static const uint8_t values_3xxs[8] = {4, 12, 20, 28, 36, 44, 52, 62};
static const uint8_t values_3s[8] = {1, 3, 5, 7, 9, 11, 13, 15};

static unsigned u16_at(const uint8_t *p) { return (unsigned)(p[0] | p[1] << 8); }
static uint32_t u32_at(const uint8_t *p) { return u16_at(p) | (uint32_t)u16_at(p + 2) << 16; }
static float half_at(const uint8_t *p) { return am_f16_to_f32((uint16_t)u16_at(p)); }

static unsigned even_signs(uint32_t seven) { return (seven & 127) | (unsigned)__builtin_parity(seven & 127) << 7; }

/* Eight codes 128 +- value: bit i of `signs` makes value i negative. */
static void signed_2(uint8_t *codes, unsigned point, unsigned signs) {
    for (int i = 0; i < 8; i++) {
        int v = values_2[point >> 2 * i & 3];
        codes[i] = (uint8_t)(128 + (signs >> i & 1 ? -v : v));
    }
}

/* The same from two points of four. */
static void signed_3(uint8_t *codes, const uint8_t *values, unsigned a, unsigned b, unsigned signs) {
    for (int i = 0; i < 8; i++) {
        int v = values[(i < 4 ? a : b) >> 3 * (i % 4) & 7];
        codes[i] = (uint8_t)(128 + (signs >> i & 1 ? -v : v));
    }
}

static void set_scale(float *scale, float *bias, int g, float s) {
    scale[g] = s;
    bias[g] = -128 * s;
}

void am_unpack_iq2_xxs(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    float d = half_at(s);
    for (int g = 0; g < 8; g++) { /* four indices of a byte, then four times seven signs and a scale of four bits */
        const uint8_t *q = s + 2 + 8 * g;
        uint32_t rest = u32_at(q + 4);
        set_scale(scale, bias, g, d * (0.5f + (float)(rest >> 28)) * 0.25f);
        for (int i = 0; i < 4; i++) signed_2(codes + 32 * g + 8 * i, am_grid_iq2_xxs[q[i]], even_signs(rest >> 7 * i));
    }
}

void am_unpack_iq2_xs(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    float d = half_at(s);
    for (int g = 0; g < 16; g++) set_scale(scale, bias, g, d * (0.5f + (float)(s[66 + g / 2] >> g % 2 * 4 & 15)) * 0.25f);
    for (int i = 0; i < 32; i++) {
        unsigned q = u16_at(s + 2 + 2 * i);
        signed_2(codes + 8 * i, am_grid_iq2_xs[q & 511], even_signs(q >> 9));
    }
}

void am_unpack_iq2_s(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *low = s + 2, *signs = s + 34, *high = s + 66, *scales = s + 74;
    float d = half_at(s);
    for (int g = 0; g < 16; g++) set_scale(scale, bias, g, d * (0.5f + (float)(scales[g / 2] >> g % 2 * 4 & 15)) * 0.25f);
    for (int i = 0; i < 32; i++)
        signed_2(codes + 8 * i, am_grid_iq2_s[low[i] | (high[i / 4] >> i % 4 * 2 & 3) << 8], signs[i]);
}

void am_unpack_iq3_xxs(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *q = s + 2;
    float d = half_at(s);
    for (int g = 0; g < 8; g++) {
        uint32_t rest = u32_at(s + 66 + 4 * g);
        set_scale(scale, bias, g, d * (0.5f + (float)(rest >> 28)) * 0.5f);
        for (int i = 4 * g; i < 4 * g + 4; i++)
            signed_3(codes + 8 * i, values_3xxs, am_grid_iq3_xxs[q[2 * i]], am_grid_iq3_xxs[q[2 * i + 1]], even_signs(rest >> i % 4 * 7));
    }
}

void am_unpack_iq3_s(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *low = s + 2, *high = s + 66, *signs = s + 74, *scales = s + 106;
    float d = half_at(s);
    for (int g = 0; g < 8; g++) set_scale(scale, bias, g, d * (float)(1 + 2 * (scales[g / 2] >> g % 2 * 4 & 15)));
    for (int i = 0; i < 32; i++) {
        unsigned ninth = high[i / 4] >> i % 4 * 2; /* of two indices */
        signed_3(codes + 8 * i, values_3s, am_grid_iq3_s[low[2 * i] | (ninth & 1) << 8], am_grid_iq3_s[low[2 * i + 1] | (ninth & 2) << 7], signs[i]);
    }
}

void am_unpack_iq1_s(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *low = s + 2;
    float d = half_at(s);
    for (int g = 0; g < 8; g++) {
        unsigned high = u16_at(s + 34 + 2 * g);
        scale[g] = d * (float)(2 * (high >> 12 & 7) + 1);
        bias[g] = scale[g] * (high & 0x8000 ? -1.125f : -0.875f);
        for (int i = 0; i < 32; i++)
            codes[32 * g + i] = (uint8_t)(am_grid_iq1[low[4 * g + i / 8] | (high >> i / 8 * 3 & 7) << 8] >> i % 8 * 2 & 3);
    }
}

void am_unpack_iq1_m(const uint8_t *s, uint8_t *codes, float *scale, float *bias) {
    const uint8_t *low = s, *high = s + 32, *scales = s + 48;
    unsigned half = 0;
    for (int i = 0; i < 4; i++) half |= u16_at(scales + 2 * i) >> 12 << 4 * i; /* the block's scale lies in the top bits of the others */
    float d = am_f16_to_f32((uint16_t)half);
    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(2 * (u16_at(scales + g / 4 * 2) >> g % 4 * 3 & 7) + 1) / 8;
        bias[g] = -9 * scale[g];
    }
    for (int i = 0; i < 256; i++) {
        unsigned h = high[i / 16] >> i / 8 % 2 * 4;
        int digit = am_grid_iq1[low[i / 8] | (h & 7) << 8] >> i % 8 * 2 & 3;
        codes[i] = (uint8_t)(8 * (digit - 1) + (h & 8 ? -1 : 1) + 9);
    }
}
