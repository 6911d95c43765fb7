/* Scales of a quantised matrix as vectors, over the operations that the including file has for its instruction set (see vector.h). */
#ifndef AM_KERNELS_SCALES_H
#define AM_KERNELS_SCALES_H

#include "kernels/tables.h"

/* Those from number `at` on of a group's scales and biases, which lie at p. level: what is above the group (S8 only). */
INLINE vec scale_load(const uint8_t *p, am_dtype dtype, size_t at, const uint8_t *level) {
    if (dtype == AM_F32) return v_load((const float *)(const void *)p + at);
    if (dtype == AM_S8) return v_mul(v_load_f16((const uint16_t *)(const void *)level + at), v_sub(v_load_u8(p + at), v_set(128)));
    const uint16_t *half = (const uint16_t *)(const void *)p + at;
    return dtype == AM_F16 ? v_load_f16(half) : v_load_bf16(half);
}

#endif
