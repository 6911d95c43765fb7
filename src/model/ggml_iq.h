/* ggml's IQ1, IQ2 and IQ3 blocks: points of fixed grids. */
#ifndef AM_MODEL_GGML_IQ_H
#define AM_MODEL_GGML_IQ_H

#include "model/ggml_blocks.h"

extern const uint16_t am_grid_iq2_xxs[256], am_grid_iq2_xs[512], am_grid_iq2_s[1024], am_grid_iq3_xxs[256], am_grid_iq3_s[512], am_grid_iq1[2048];

am_ggml_unpack_fn am_unpack_iq1_s, am_unpack_iq1_m, am_unpack_iq2_xxs, am_unpack_iq2_xs, am_unpack_iq2_s, am_unpack_iq3_xxs, am_unpack_iq3_s;

#endif
