/* Owns the rotation of keys, queries and values before quantisation: it spreads a head's outliers over all its dimensions, so that
 * 16 levels a group lose less. Orthonormal, hence dot products of rotated vectors are those of the originals, and its own inverse.
 *
 * Plain C with one order of additions (butterflies of distance 1, 2, 4 ...), so that all tables and machines get the same bits.
 * Reference: Sylvester's construction, H(2n) = [[H, H], [H, -H]], scaled by 1/sqrt(n). */
#include "kernels/kernels.h"

#include <math.h>

static void hadamard_run(float *x, size_t n) {
    for (size_t half = 1; half < n; half *= 2) {
        for (size_t base = 0; base < n; base += 2 * half) {
            float *low = x + base, *high = low + half;
            for (size_t i = 0; i < half; i++) {
                float a = low[i], b = high[i];
                low[i] = a + b;
                high[i] = a - b;
            }
        }
    }
    float scale = 1.0f / sqrtf((float)n);
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

void am_hadamard(float *x, size_t n_heads, size_t dim) {
    if (!dim) return;
    size_t run = dim & -dim;
    for (size_t i = 0; i < n_heads * dim; i += run) hadamard_run(x + i, run);
}
