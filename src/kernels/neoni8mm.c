/* The table of ARM with FEAT_I8MM (ARMv8.6-A: Neoverse V1 and later, Apple M2 and later). */
#include "kernels/neon_int8.h"

#include <sys/auxv.h>

static bool supported(void) { return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }

const am_kernels am_kernels_neoni8mm = VECTOR_TABLE("neoni8mm", supported, .matmul_int8 = matmul_int8, .row_int8 = row_int8);
