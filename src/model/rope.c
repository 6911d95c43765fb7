/* Owns rotary frequencies: one number a pair of dimensions, from theta and the scaling the config asks for. */
#include "model/internal.h"

#include <math.h>

/* Llama 3.1: wavelengths beyond the original context over low_freq_factor are stretched by `factor`, those below it over high_freq_factor are
 * kept, and in between the two are mixed. It acts at every position, short ones too. */
static double llama3(const am_rope_config *rope, double freq) {
    double wavelength = 2 * M_PI / freq;
    if (wavelength < rope->original_ctx / rope->high_freq_factor) return freq;
    if (wavelength > rope->original_ctx / rope->low_freq_factor) return freq / rope->factor;
    double smooth = (rope->original_ctx / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * freq / rope->factor + smooth * freq;
}

void am_rope_frequencies(const am_rope_config *rope, uint32_t dim, float *freq) {
    for (uint32_t i = 0; i < dim / 2; i++) {
        double f = 1 / pow(rope->theta, 2.0 * i / dim);
        switch (rope->kind) {
        case AM_ROPE_PLAIN: break;
        case AM_ROPE_LINEAR: f /= rope->factor; break;
        case AM_ROPE_LLAMA3: f = llama3(rope, f); break;
        }
        freq[i] = (float)f;
    }
}
