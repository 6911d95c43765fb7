/* Values into ggml's forms: the way back from ggml_blocks.h, for the forms that `convert` writes. */
#ifndef AM_MODEL_GGML_PACK_H
#define AM_MODEL_GGML_PACK_H

#include "model/ggml_blocks.h"

/* n values, a whole number of blocks, to out: F32, F16, BF16, Q4_0, Q8_0 and MXFP4. MXFP4 is exact for what was MXFP4 before, and for nothing else. */
void am_ggml_pack(const am_ggml_format *format, const float *x, size_t n, uint8_t *out);

#endif
