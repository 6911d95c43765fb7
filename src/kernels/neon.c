/* The table of 64-bit ARM's baseline: float32 throughout. */
#include "kernels/neon.h"
#include "kernels/vector.h"

static bool always(void) { return true; }

const am_kernels am_kernels_neon = VECTOR_TABLE("neon", always);
