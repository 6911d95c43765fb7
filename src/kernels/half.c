/* Owns the conversions between float32 and the two 16-bit formats for code that needs no table. They are integer work plus exact
 * float steps, so they give the same bits on every machine; the tables' vector versions are tested against them. */
#include "kernels/tables.h"

float am_f16_to_f32(uint16_t h) { return f16_expand(h); }
uint16_t am_f32_to_f16(float f) { return f16_compress(f); }
float am_bf16_to_f32(uint16_t h) { return bf16_expand(h); }

/* Round to nearest even; a NaN stays one (its payload may not survive the cut, so the quiet bit is set). */
uint16_t am_f32_to_bf16(float f) {
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
