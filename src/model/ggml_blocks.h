/* ggml's block formats, unpacked into the one form our kernels know: codes with one scale and one bias a group, value = scale * code + bias.
 *
 * Every format here fits that form exactly: integer grids (Q4_0 ... Q8_0, the K quants, TQ) shift their zero into the bias, and the code books of IQ4_NL,
 * IQ4_XS, MXFP4 and the grids (ggml_iq.c) are themselves integers of at most 8 bits. Scales of two levels are also to be had as they are stored, for
 * matrices that keep them so. Source of the layouts: ggml's block definitions; truth for tests: ggml's own dequantisation. */
#ifndef AM_MODEL_GGML_BLOCKS_H
#define AM_MODEL_GGML_BLOCKS_H

#include "kernels/kernels.h"

typedef enum am_ggml_type {
    AM_GGML_F32 = 0,
    AM_GGML_F16 = 1,
    AM_GGML_Q4_0 = 2,
    AM_GGML_Q4_1 = 3,
    AM_GGML_Q5_0 = 6,
    AM_GGML_Q5_1 = 7,
    AM_GGML_Q8_0 = 8,
    AM_GGML_Q2_K = 10,
    AM_GGML_Q3_K = 11,
    AM_GGML_Q4_K = 12,
    AM_GGML_Q5_K = 13,
    AM_GGML_Q6_K = 14,
    AM_GGML_IQ2_XXS = 16,
    AM_GGML_IQ2_XS = 17,
    AM_GGML_IQ3_XXS = 18,
    AM_GGML_IQ1_S = 19,
    AM_GGML_IQ4_NL = 20,
    AM_GGML_IQ3_S = 21,
    AM_GGML_IQ2_S = 22,
    AM_GGML_IQ4_XS = 23,
    AM_GGML_IQ1_M = 29,
    AM_GGML_BF16 = 30,
    AM_GGML_TQ1_0 = 34,
    AM_GGML_TQ2_0 = 35,
    AM_GGML_MXFP4 = 39
} am_ggml_type;

/* Writes one block: `block` codes, block / group scales and biases. */
typedef void am_ggml_unpack_fn(const uint8_t *src, uint8_t *codes, float *scale, float *bias);

/* The same block's scales and biases before they are multiplied: scale = upper[0] * (scale - 128), bias = upper[1] * (bias - 128), upper f16. */
typedef void am_ggml_levels_fn(const uint8_t *src, uint8_t *scale, uint8_t *bias, uint16_t upper[2]);

typedef struct am_ggml_format {
    uint32_t type;
    const char *name;
    uint32_t block;       /* values a block */
    uint32_t block_bytes;
    uint32_t group;       /* values that share a scale; 0: not quantised */
    uint32_t max_code;
    uint32_t zero_point;  /* the code of 0, where every bias is -zero_point * scale; 0: biases are their own */
    am_ggml_unpack_fn *unpack; /* NULL: not quantised */
    am_ggml_levels_fn *levels; /* NULL: one level */
    am_book book;              /* every code is one of its values */
} am_ggml_format;

/* NULL for a number that ggml does not use or has retired. */
const am_ggml_format *am_ggml_format_of(uint32_t type);

#endif
