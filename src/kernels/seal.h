/* Sealing by vectors (included by vector.h, over its operations): what scalar.c does one value at a time, to the same bits. Keys lie in panels of 16
 * tokens, so a channel's least and greatest go over lanes; of values a lane is a channel, and nothing crosses lanes. Two channels whose codes share
 * bytes are sealed together. */
/* Scale INFINITY gives 0. */
INLINE vec v_code(vec x, vec bias, vec scale, vec top) {
    vec c = v_div(v_sub(v_number(x), bias), scale);
    return v_min(top, v_max(v_zero(), c));
}

INLINE float scale_or_infinity(float scale) { return scale == 0.0f ? INFINITY : scale; }

/* 16 bytes of nibbles; 16 fifth bits. Codes are bytes, so eight of them can be worked on as one number. */
INLINE void nibbles_store(uint8_t *to, const uint8_t *low, const uint8_t *high) {
    const uint64_t nibble = 0x0f0f0f0f0f0f0f0f;
    uint64_t a[2], b[2];
    memcpy(a, low, sizeof a);
    memcpy(b, high, sizeof b);
    for (int i = 0; i < 2; i++) a[i] = (a[i] & nibble) | (b[i] & nibble) << 4;
    memcpy(to, a, sizeof a);
}

INLINE void fifths_store(uint8_t *to, const uint8_t *codes) {
    for (int i = 0; i < 2; i++) {
        uint64_t x;
        memcpy(&x, codes + 8 * i, sizeof x);
        to[i] = (uint8_t)(((x >> 4 & 0x0101010101010101) * 0x0102040810204080) >> 56); /* bit 8k comes to 56 + k */
    }
}

/* One channel of a group of keys, whose runs of 16 tokens are `step` values apart. */
INLINE void key_channel_seal(uint8_t *codes, uint16_t *scale, uint16_t *bias, const uint16_t *from, size_t step, uint32_t n_panels, int bits) {
    float top = (float)((1 << bits) - 1);
    vec low = v_set(INFINITY), high = v_set(-INFINITY);
    for (uint32_t p = 0; p < n_panels; p++)
        for (uint32_t j = 0; j < AM_PANEL; j += LANES) {
            vec x = v_number(v_load_f16(from + p * step + j));
            low = v_min(low, x);
            high = v_max(high, x);
        }
    float least = v_least(low), most = v_most(high);
    *bias = f16_compress(least + 0.0f); /* -0 becomes 0, whichever the minimum found */
    *scale = f16_compress((most - least) / top);
    vec b = v_set(f16_expand(*bias)), s = v_set(scale_or_infinity(f16_expand(*scale)));
    for (uint32_t p = 0; p < n_panels; p++)
        for (uint32_t j = 0; j < AM_PANEL; j += LANES)
            v_store_u8(codes + p * AM_PANEL + j, v_code(v_load_f16(from + p * step + j), b, s, v_set(top)));
}

static void seal_keys(const am_mat *to, const uint16_t *from) {
    uint8_t codes[2][SEAL_TOKENS];
    size_t step = (size_t)to->n_in * AM_PANEL;
    uint32_t n_panels = to->group / AM_PANEL;
    for (uint32_t first = 0; first < to->n_out / AM_PANEL; first += n_panels, from += n_panels * step) {
        uint16_t *channels = (uint16_t *)(uintptr_t)mat_channels(to, first);
        for (uint32_t i = 0; i < to->n_in; i += 2) {
            for (uint32_t c = 0; c < 2; c++)
                key_channel_seal(codes[c], channels + i + c, channels + to->n_in + i + c, from + (i + c) * AM_PANEL, step, n_panels, (int)channel_bits(to->dtype));
            for (uint32_t p = 0; p < n_panels; p++) {
                uint8_t *panel = (uint8_t *)(uintptr_t)mat_channel_codes(to, first + p);
                const uint8_t *low = codes[0] + p * AM_PANEL, *high = codes[1] + p * AM_PANEL;
                if (to->dtype == AM_C8) {
                    memcpy(panel + (size_t)i * AM_PANEL, low, AM_PANEL);
                    memcpy(panel + (size_t)(i + 1) * AM_PANEL, high, AM_PANEL);
                    continue;
                }
                nibbles_store(panel + (size_t)i / 2 * AM_PANEL, low, high);
                if (to->dtype == AM_C4) continue;
                fifths_store(panel + 8 * (size_t)to->n_in + 2 * i, low);
                fifths_store(panel + 8 * (size_t)to->n_in + 2 * i + 2, high);
            }
        }
    }
}

/* 16 channels of a group of values, whose rows are `dim` values apart: their scales and biases, then as vectors want them. */
INLINE void value_scales_seal(float *scale, float *bias, uint16_t *scales, uint16_t *biases, const uint16_t *from, const am_rows *to) {
    vec top = v_set((float)((1 << channel_bits(to->dtype)) - 1));
    for (uint32_t j = 0; j < 16; j += LANES) {
        vec low = v_set(INFINITY), high = v_set(-INFINITY);
        for (uint32_t n = 0; n < to->group; n++) {
            vec x = v_number(v_load_f16(from + (size_t)n * to->dim + j));
            low = v_min(low, x);
            high = v_max(high, x);
        }
        v_store(bias + j, v_add(low, v_zero()));
        v_store(scale + j, v_div(v_sub(high, low), top));
    }
    f32_to_f16(biases, bias, 16);
    f32_to_f16(scales, scale, 16);
    f16_to_f32(bias, biases, 16);
    f16_to_f32(scale, scales, 16);
    for (uint32_t j = 0; j < 16; j++) scale[j] = scale_or_infinity(scale[j]);
}

INLINE void value_codes(uint8_t *codes, const uint16_t *from, const float *scale, const float *bias, vec top) {
    for (uint32_t j = 0; j < 16; j += LANES) v_store_u8(codes + j, v_code(v_load_f16(from + j), v_load(bias + j), v_load(scale + j), top));
}

/* 32 channels from d on of the group from row t on; the last 16 of an odd number of 16 are alone, and their bytes' high nibbles 0. */
static void values_group_seal(const am_rows *to, const uint16_t *from, uint32_t t, uint32_t d) {
    uint32_t n_halves = to->dim - d < 32 ? 1 : 2;
    uint16_t *channels = (uint16_t *)(uintptr_t)rows_channels(to, t);
    float scale[2][16], bias[2][16];
    uint8_t codes[2][16] = {{0}};
    vec top = v_set((float)((1 << channel_bits(to->dtype)) - 1));
    from += (size_t)t * to->dim + d;
    for (uint32_t h = 0; h < n_halves; h++)
        value_scales_seal(scale[h], bias[h], channels + d + 16 * h, channels + to->dim + d + 16 * h, from + 16 * h, to);
    for (uint32_t n = 0; n < to->group; n++, from += to->dim) {
        uint8_t *row = (uint8_t *)(uintptr_t)rows_channel_codes(to, t + n);
        for (uint32_t h = 0; h < n_halves; h++) value_codes(codes[h], from + 16 * h, scale[h], bias[h], top);
        if (to->dtype == AM_C8) {
            memcpy(row + d, codes, 16 * n_halves);
            continue;
        }
        nibbles_store(row + d / 2, codes[0], codes[1]);
        for (uint32_t h = 0; to->dtype == AM_C5 && h < n_halves; h++) fifths_store(row + (to->dim + 31) / 32 * 16 + d / 8 + 2 * h, codes[h]);
    }
}

static void seal_values(const am_rows *to, const uint16_t *from) {
    for (uint32_t t = 0; t < to->n_rows; t += to->group)
        for (uint32_t d = 0; d < to->dim; d += 32) values_group_seal(to, from, t, d);
}
