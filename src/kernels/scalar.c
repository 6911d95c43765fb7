/* The table every other one is measured against: portable C written for reading, no fused multiply-add, no library function whose
 * bits depend on the machine (exp is our own). The loops over the 16 outputs of a panel are plain enough for the compiler to
 * vectorise.
 *
 * Invariant 1: each output has one accumulator, filled in ascending order of inputs. Between runs of AM_RUN inputs it rests in y,
 * which is exact; so neither rows nor panels nor calls can change a bit. */
#include "kernels/tables.h"

#include <math.h>

static bool always(void) { return true; }

/* ---- matrices ---- */

/* The group of input k. */
static void group_unpack(float *dst, const am_mat *w, const uint8_t *panel, uint32_t k) {
    float scale[AM_PANEL], bias[AM_PANEL];
    uint8_t code[128 * AM_PANEL];
    const uint8_t *group = mat_group(w, panel, k), *level = mat_level(w, panel, k);
    group_scales(scale, bias, w, group, level);
    codes_open(code, w, group + mat_scale_bytes(w));
    for (uint32_t i = 0; i < w->group; i++, dst += AM_PANEL)
        for (uint32_t j = 0; j < AM_PANEL; j++) dst[j] = scale[j] * (float)code[i / 4 * 64 + 4 * j + i % 4] + bias[j];
}

static float panel_code(const uint8_t *panel, const am_mat *w, uint32_t k, uint32_t j) {
    if (w->dtype == AM_C8) return (float)panel[k * AM_PANEL + j];
    uint32_t code = panel[k / 2 * AM_PANEL + j] >> 4 * (k % 2) & 15;
    if (w->dtype == AM_C5) code |= (panel_fifth(panel, w->n_in, k) >> j & 1) << 4;
    return (float)code;
}

static void channels_unpack(float *dst, const am_mat *w, uint32_t p, uint32_t k0, uint32_t n) {
    const uint16_t *channels = mat_channels(w, p);
    const uint8_t *panel = mat_channel_codes(w, p);
    for (uint32_t k = k0; k < k0 + n; k++) {
        float scale = f16_expand(channels[k]), bias = f16_expand(channels[w->n_in + k]);
        for (uint32_t j = 0; j < AM_PANEL; j++) *dst++ = scale * panel_code(panel, w, k, j) + bias;
    }
}

/* dst [n][16] = inputs [k0, k0 + n) of panel p; n is at most AM_RUN. Q types: whole groups. */
static void panel_unpack(float *dst, const am_mat *w, uint32_t p, uint32_t k0, uint32_t n) {
    if (dtype_channels(w->dtype)) {
        channels_unpack(dst, w, p, k0, n);
        return;
    }
    const uint8_t *panel = mat_panel(w, p);
    size_t first = (size_t)k0 * AM_PANEL, count = (size_t)n * AM_PANEL;
    switch (w->dtype) {
    case AM_F32: memcpy(dst, panel + 4 * first, 4 * count); break;
    case AM_F16:
        for (size_t i = 0; i < count; i++) dst[i] = f16_expand(load_u16(panel + 2 * (first + i)));
        break;
    case AM_BF16:
        for (uint32_t k = 0; k < n; k++)
            for (uint32_t j = 0; j < AM_PANEL; j++) *dst++ = bf16_expand(load_u16(panel + 2 * ((size_t)(k0 + k) / 2 * 2 * AM_PANEL + 2 * j + (k0 + k) % 2)));
        break;
    default:
        for (uint32_t k = 0; k < n; k += w->group) group_unpack(dst + (size_t)k * AM_PANEL, w, panel, k0 + k);
    }
}

static void run_multiply(float *y, uint32_t lanes, const float *x, const float *weights, uint32_t n) {
    float acc[AM_PANEL] = {0};
    for (uint32_t j = 0; j < lanes; j++) acc[j] = y[j];
    for (uint32_t k = 0; k < n; k++)
        for (int j = 0; j < AM_PANEL; j++) acc[j] += x[k] * weights[k * AM_PANEL + j];
    for (uint32_t j = 0; j < lanes; j++) y[j] = acc[j];
}

static void matmul(float *y, size_t ldy, const float *x, size_t ldx, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    float weights[AM_RUN * AM_PANEL];
    for (uint32_t p = p0; p < p1; p++) {
        uint32_t lanes = mat_lanes(w, p);
        float *out = y + (size_t)p * AM_PANEL;
        for (size_t r = 0; r < n_rows; r++) memset(out + r * ldy, 0, lanes * sizeof *out);
        for (uint32_t k = 0; k < w->n_in; k += AM_RUN) {
            uint32_t n = w->n_in - k < AM_RUN ? w->n_in - k : AM_RUN;
            panel_unpack(weights, w, p, k, n);
            for (size_t r = 0; r < n_rows; r++) run_multiply(out + r * ldy, lanes, x + r * ldx + k, weights, n);
        }
    }
}

static void mat_row(float *dst, const am_mat *w, uint32_t o) {
    float weights[AM_RUN * AM_PANEL];
    for (uint32_t k = 0; k < w->n_in; k += AM_RUN) {
        uint32_t n = w->n_in - k < AM_RUN ? w->n_in - k : AM_RUN;
        panel_unpack(weights, w, o / AM_PANEL, k, n);
        for (uint32_t i = 0; i < n; i++) dst[k + i] = weights[i * AM_PANEL + o % AM_PANEL];
    }
}

/* ---- values ---- */

/* dst = dims [d, d + 16) of row t. */
static void row_unpack(float *dst, const am_rows *v, uint32_t t, uint32_t d) {
    size_t at = (size_t)t * v->dim + d;
    if (v->dtype == AM_F32) {
        memcpy(dst, (const float *)v->data + at, 16 * sizeof *dst);
        return;
    }
    if (v->dtype == AM_F16) {
        for (int i = 0; i < 16; i++) dst[i] = f16_expand(((const uint16_t *)v->data)[at + (size_t)i]);
        return;
    }
    const uint16_t *scale = rows_channels(v, t) + d, *bias = scale + v->dim;
    const uint8_t *row = rows_channel_codes(v, t);
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t code = v->dtype == AM_C8 ? row[d + i] : row[d / 32 * 16 + i] >> (d % 32 ? 4 : 0) & 15;
        if (v->dtype == AM_C5) code |= (row_fifth(row, v->dim, d) >> i & 1) << 4;
        dst[i] = f16_expand(scale[i]) * (float)code + f16_expand(bias[i]);
    }
}

static void rows_accumulate(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_rows *v, uint32_t t0,
                            uint32_t t1) {
    float row[16];
    for (uint32_t d = 0; d < v->dim; d += 16) {
        for (uint32_t t = t0; t < t1; t++) {
            row_unpack(row, v, t, d);
            for (size_t q = 0; q < n_q; q++)
                for (uint32_t i = 0; i < 16; i++) acc[q * ld_acc + d + i] += p[q * ld_p + t] * row[i];
        }
    }
}

/* ---- element-wise ---- */

/* Keys are summed in 16 lanes by position, the lanes then in pairs: n_keys beyond `to` cannot change the sum. */
static float lanes_sum(const float *lane) {
    float a[8];
    for (int j = 0; j < 8; j++) a[j] = lane[j] + lane[j + 8];
    for (int j = 0; j < 4; j++) a[j] += a[j + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

static void mat_accumulate(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_mat *k, uint32_t dims, uint32_t t0,
                           uint32_t t1) {
    float keys[AM_RUN * AM_PANEL];
    for (uint32_t d0 = 0; d0 < dims; d0 += AM_RUN / AM_PANEL) { /* a run of few dimensions, so that their lanes stay at hand */
        uint32_t n = dims - d0 < AM_RUN / AM_PANEL ? dims - d0 : AM_RUN / AM_PANEL;
        for (size_t q = 0; q < n_q; q++) {
            float lane[AM_RUN / AM_PANEL][AM_PANEL] = {{0}};
            for (uint32_t panel = t0 / AM_PANEL; panel * AM_PANEL < t1; panel++) {
                panel_unpack(keys, k, panel, d0, n);
                for (uint32_t d = 0; d < n; d++)
                    for (uint32_t j = 0; j < AM_PANEL; j++) {
                        uint32_t t = panel * AM_PANEL + j;
                        if (t >= t0 && t < t1) lane[d][j] += p[q * ld_p + t] * keys[d * AM_PANEL + j];
                    }
            }
            for (uint32_t d = 0; d < n; d++) acc[q * ld_acc + d0 + d] += lanes_sum(lane[d]);
        }
    }
}

/* exp by 2^n * e^r, |r| <= ln 2 / 2, a polynomial of degree 6 (Cephes expf's coefficients); within 2 units in the last place on
 * [-87.3, 88.3], clamped above, 0 below. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. */
static inline float exp_scalar(float x) {
    float c = x > 88.3f ? 88.3f : x;
    c = c < -87.3f ? -87.3f : c;
    float shifted = c * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
    float r = c - n * 0.693359375f - n * -2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    y = bits_float(float_bits(y) + (float_bits(shifted) << 23));
    return x < -87.3f ? 0.0f : y;
}

static inline float tanh_scalar(float x) { return 1.0f - 2.0f / (exp_scalar(2.0f * x) + 1.0f); }

static inline float score_cap(float s, float scale, float softcap) {
    return softcap == 0.0f ? scale * s : softcap * tanh_scalar(scale * s / softcap);
}

static void softmax_query(const am_softmax *step, size_t i) {
    float *s = step->s + i * step->ld, *acc = step->acc + i * step->ld_acc;
    uint32_t from = step->from[i], to = step->to[i] < step->n_keys ? step->to[i] : step->n_keys;
    float m = step->m[i];
    for (uint32_t t = from; t < to; t++) {
        s[t] = score_cap(s[t], step->scale, step->softcap);
        m = s[t] > m ? s[t] : m;
    }
    if (from >= to || m == -INFINITY) {
        memset(s, 0, step->n_keys * sizeof *s);
        return;
    }
    float sum[AM_PANEL] = {0};
    for (uint32_t t = 0; t < step->n_keys; t++) {
        s[t] = t >= from && t < to ? exp_scalar(s[t] - m) : 0.0f;
        sum[t % AM_PANEL] += s[t];
    }
    float factor = exp_scalar(step->m[i] - m);
    step->m[i] = m;
    step->l[i] = step->l[i] * factor + lanes_sum(sum);
    for (uint32_t d = 0; d < step->dim; d++) acc[d] *= factor;
}

static void softmax_step(const am_softmax *step) {
    for (size_t i = 0; i < step->n_q; i++) softmax_query(step, i);
}

static void rmsnorm(float *dst, const float *x, const float *weight, size_t n, float eps) {
    float lane[AM_PANEL] = {0};
    size_t i = 0;
    for (; i + AM_PANEL <= n; i += AM_PANEL)
        for (size_t j = 0; j < AM_PANEL; j++) lane[j] += x[i + j] * x[i + j];
    for (size_t j = 0; i + j < n; j++) lane[j] += x[i + j] * x[i + j];
    float inverse = 1.0f / sqrtf(lanes_sum(lane) / (float)n + eps);
    for (i = 0; i < n; i++) dst[i] = weight ? x[i] * inverse * weight[i] : x[i] * inverse;
}

static void silu_mul(float *dst, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) dst[i] = gate[i] / (1.0f + exp_scalar(-gate[i])) * up[i];
}

static void f32_to_f16(uint16_t *dst, const float *src, size_t n) {
    for (size_t i = 0; i < n; i++) dst[i] = f16_compress(src[i]);
}

static void f16_to_f32(float *dst, const uint16_t *src, size_t n) {
    for (size_t i = 0; i < n; i++) dst[i] = f16_expand(src[i]);
}

/* ---- sealing ---- */

static void quantise(uint8_t *codes, uint16_t *scale, uint16_t *bias, const float *src, size_t n, uint32_t bits) {
    float top = (float)((1 << bits) - 1), low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        float x = src[i] == src[i] ? src[i] : 0.0f;
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    *bias = f16_compress(low + 0.0f); /* -0 becomes 0, whichever the minimum found */
    *scale = f16_compress((high - low) / top);
    float b = f16_expand(*bias), s = f16_expand(*scale);
    for (size_t i = 0; i < n; i++) {
        float x = src[i] == src[i] ? src[i] : 0.0f;
        float c = s == 0.0f ? 0.0f : (x - b) / s;
        c = c < 0.0f ? 0.0f : c > top ? top : c;
        codes[i] = (uint8_t)(c + 8388608.0f - 8388608.0f); /* to nearest, ties to even */
    }
}

/* One channel of a group of keys, which lies in runs of 16 tokens, one a panel. */
static void key_channel_seal(const am_mat *to, const uint16_t *from, uint32_t first_panel, uint32_t i) {
    uint16_t *channels = (uint16_t *)(uintptr_t)mat_channels(to, first_panel);
    uint8_t codes[SEAL_TOKENS];
    float wide[SEAL_TOKENS];
    for (uint32_t t = 0; t < to->group; t++)
        wide[t] = f16_expand(from[((size_t)(first_panel + t / AM_PANEL) * to->n_in + i) * AM_PANEL + t % AM_PANEL]);
    quantise(codes, channels + i, channels + to->n_in + i, wide, to->group, channel_bits(to->dtype));
    mat_channel_put(to, first_panel, i, codes);
}

static void seal_keys(const am_mat *to, const uint16_t *from) {
    for (uint32_t panel = 0; panel < to->n_out / AM_PANEL; panel += to->group / AM_PANEL)
        for (uint32_t i = 0; i < to->n_in; i++) key_channel_seal(to, from, panel, i);
}

/* Lays the codes of 16 channels from d on, [16][group], into the rows from t on. */
static void value_codes_store(const am_rows *to, uint32_t t, uint32_t d, const uint8_t *codes) {
    for (uint32_t n = 0; n < to->group; n++) {
        uint8_t *row = (uint8_t *)(uintptr_t)rows_channel_codes(to, t + n);
        uint16_t fifth = 0;
        for (uint32_t i = 0; i < 16; i++) {
            uint8_t code = codes[i * to->group + n], *at = row + d / 32 * 16 + i;
            if (to->dtype == AM_C8) row[d + i] = code;
            else *at = d % 32 ? (uint8_t)(*at | code << 4) : code & 15;
            fifth = (uint16_t)(fifth | (code >> 4 & 1) << i);
        }
        if (to->dtype == AM_C5) memcpy(row + (to->dim + 31) / 32 * 16 + d / 8, &fifth, sizeof fifth);
    }
}

static void seal_values(const am_rows *to, const uint16_t *from) {
    uint8_t codes[16 * SEAL_TOKENS];
    float wide[SEAL_TOKENS];
    for (uint32_t t = 0; t < to->n_rows; t += to->group) {
        uint16_t *channels = (uint16_t *)(uintptr_t)rows_channels(to, t);
        for (uint32_t d = 0; d < to->dim; d += 16) {
            for (uint32_t i = d; i < d + 16; i++) {
                for (uint32_t n = 0; n < to->group; n++) wide[n] = f16_expand(from[(size_t)(t + n) * to->dim + i]);
                quantise(codes + (i - d) * to->group, channels + i, channels + to->dim + i, wide, to->group, channel_bits(to->dtype));
            }
            value_codes_store(to, t, d, codes);
        }
    }
}

const am_kernels am_kernels_scalar = {
    .name = "scalar",
    .supported = always,
    .matmul = matmul,
    .mat_row = mat_row,
    .rows_accumulate = rows_accumulate,
    .mat_accumulate = mat_accumulate,
    .softmax_step = softmax_step,
    .rmsnorm = rmsnorm,
    .silu_mul = silu_mul,
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .seal_keys = seal_keys,
    .seal_values = seal_values,
};
