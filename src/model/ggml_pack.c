/* Owns the quantising of values to ggml's blocks, with the roundings that ggml's own quantiser has. */
#include "model/ggml_pack.h"

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

/* Q4_0: the value farthest from zero becomes code 0 or the scale's other end; Q8_0: the farthest becomes 127. */
static void pack_q4_0(const float *x, uint8_t *to) {
    float most = 0;
    for (int i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > fabsf(most)) most = x[i];
    float d = most / -8, inverse = d != 0 ? 1 / d : 0;
    uint16_t h = am_f32_to_f16(d);
    memcpy(to, &h, 2);
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = (int)(x[i] * inverse + 8.5f), high = (int)(x[i + BLOCK / 2] * inverse + 8.5f);
        to[2 + i] = (uint8_t)((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
    }
}

static void pack_q8_0(const float *x, uint8_t *to) {
    float most = 0;
    for (int i = 0; i < BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    float d = most / 127, inverse = d != 0 ? 1 / d : 0;
    uint16_t h = am_f32_to_f16(d);
    memcpy(to, &h, 2);
    for (int i = 0; i < BLOCK; i++) to[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inverse);
}

/* Twice e2m1's values are 0 1 2 3 4 6 8 12. All of a block's values are some of them times a power of two; the smallest power under which the largest value
 * fits holds the others too, since twice a value of the list is in the list as long as it is no more than 12. */
static void pack_mxfp4(const float *x, uint8_t *to) {
    static const uint8_t code_of[13] = {0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7};
    float most = 0;
    for (int i = 0; i < BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    int exponent = 0; /* of twice the values */
    if (most > 0) {
        float m = frexpf(most, &exponent); /* [0.5, 1): 12 is 0.75 times 16 */
        exponent -= m > 0.75f ? 3 : 4;
    }
    if (exponent < -128) exponent = -128; /* the byte is exponent + 128, and 0 the least */
    to[0] = (uint8_t)(exponent + 128);
    memset(to + 1, 0, BLOCK / 2);
    for (int i = 0; i < BLOCK; i++) {
        int twice = (int)lrintf(ldexpf(fabsf(x[i]), -exponent));
        uint8_t code = (uint8_t)(code_of[twice < 12 ? twice : 12] | (x[i] < 0 ? 8 : 0));
        to[1 + i % (BLOCK / 2)] |= (uint8_t)(i < BLOCK / 2 ? code : code << 4);
    }
}

static void pack_block(uint32_t type, const float *x, uint8_t *to) {
    uint16_t h;
    switch (type) {
    case AM_GGML_F32: memcpy(to, x, 4); break;
    case AM_GGML_F16: h = am_f32_to_f16(*x), memcpy(to, &h, 2); break;
    case AM_GGML_BF16: h = am_f32_to_bf16(*x), memcpy(to, &h, 2); break;
    case AM_GGML_Q4_0: pack_q4_0(x, to); break;
    case AM_GGML_Q8_0: pack_q8_0(x, to); break;
    default: pack_mxfp4(x, to);
    }
}

void am_ggml_pack(const am_ggml_format *f, const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i += f->block, out += f->block_bytes) pack_block(f->type, x + i, out);
}
