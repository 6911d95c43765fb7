/* The table of AVX-512 F, BW, DQ and VL: float32 throughout. */
#include "kernels/avx512.h"
#include "kernels/vector.h"

const am_kernels am_kernels_avx512 = VECTOR_TABLE("avx512", am_cpu_has_avx512);
