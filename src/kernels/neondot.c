/* The table of ARM with FEAT_DotProd (ARMv8.2-A and most of what is sold since 2018). */
#include "kernels/neon_int8.h"

#include <sys/auxv.h>

static bool supported(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

const am_kernels am_kernels_neondot = VECTOR_TABLE("neondot", supported, .matmul_int8 = matmul_int8, .row_int8 = row_int8);
