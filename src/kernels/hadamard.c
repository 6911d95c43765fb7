/* Owns the rotation of keys, queries and values before quantisation: it spreads a head's outliers over all its dimensions, so that
 * 16 levels a group lose less. Orthonormal, hence dot products of rotated vectors are those of the originals, and its own inverse.
 *
 * One order of additions (butterflies of distance 1, 2, 4 ...), four at a time by the compiler's own vectors, which every machine here has:
 * each value is the same sum whatever the width, so all tables and machines get the same bits. Heads in use have runs of at least 16.
 * Reference: Sylvester's construction, H(2n) = [[H, H], [H, -H]], scaled by 1/sqrt(n). */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

typedef float four __attribute__((vector_size(16)));
#if defined(__clang__)
#define CHOOSE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t four_at __attribute__((vector_size(16)));
#define CHOOSE(a, b, i, j, k, l) __builtin_shuffle(a, b, (four_at){i, j, k, l})
#endif

static inline four load(const float *p) {
    four x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void store(float *p, four x) { memcpy(p, &x, sizeof x); }

/* Distances 1 and 2 within four values. */
static inline four four_butterflies(four x) {
    four low = CHOOSE(x, x, 0, 0, 2, 2), high = CHOOSE(x, x, 1, 1, 3, 3), sum = low + high, rest = low - high;
    x = CHOOSE(sum, rest, 0, 5, 2, 7);
    low = CHOOSE(x, x, 0, 1, 0, 1), high = CHOOSE(x, x, 2, 3, 2, 3), sum = low + high, rest = low - high;
    return CHOOSE(sum, rest, 0, 1, 6, 7);
}

static void hadamard_run(float *x, size_t n) {
    float scale = 1.0f / sqrtf((float)n);
    four scales = {scale, scale, scale, scale};
    if (n < 4) {
        if (n == 2) {
            float a = x[0], b = x[1];
            x[0] = a + b, x[1] = a - b;
        }
        for (size_t i = 0; i < n; i++) x[i] *= scale;
        return;
    }
    for (size_t i = 0; i < n; i += 4) store(x + i, four_butterflies(load(x + i)));
    for (size_t half = 4; half < n; half *= 2) {
        for (float *low = x, *high = x + half; low < x + n; low += half, high += half)
            for (size_t i = 0; i < half; i += 4, low += 4, high += 4) {
                four a = load(low), b = load(high);
                store(low, a + b);
                store(high, a - b);
            }
    }
    for (size_t i = 0; i < n; i += 4) store(x + i, load(x + i) * scales);
}

void am_hadamard(float *x, size_t n_heads, size_t dim) {
    if (!dim) return;
    size_t run = dim & -dim;
    for (size_t i = 0; i < n_heads * dim; i += run) hadamard_run(x + i, run);
}
