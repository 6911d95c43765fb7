/* Owns the way from weights as files have them (row by row) to panels of 16 outputs as the kernels read them, and the sizes of
 * panels. Sixteen rows are read side by side, so both sides stream; sources come from mapped files and may be unaligned, so they
 * are only ever read by memcpy. The layout is in kernels.h.
 *
 * Codes are a transposition of 32-bit words: four neighbouring inputs of 8 bits, or eight of 4, are a word of a row, and become the word of an
 * output in a run. Four rows by four words are turned at a time, in the vectors of any machine's baseline; that is about the memory's rate,
 * and so is the start of a model. */
#include "kernels/tables.h"

typedef uint32_t four __attribute__((vector_size(16)));
typedef uint16_t eight __attribute__((vector_size(16)));
enum { NIBBLES = 0x0f0f0f0f };

static four four_load(const uint8_t *p) {
    four v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void four_turn(four m[4]) {
    four a = __builtin_shufflevector(m[0], m[1], 0, 4, 1, 5), b = __builtin_shufflevector(m[0], m[1], 2, 6, 3, 7);
    four c = __builtin_shufflevector(m[2], m[3], 0, 4, 1, 5), d = __builtin_shufflevector(m[2], m[3], 2, 6, 3, 7);
    m[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    m[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    m[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    m[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

const uint8_t am_books[AM_N_BOOK][16] = {
    [AM_BOOK_IQ4] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241},
    [AM_BOOK_MXFP4] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0},
};

size_t am_mat_panel_bytes(const am_mat *mat) {
    if (mat->dtype == AM_BF16) return (size_t)mat_paired(mat->n_in) * AM_PANEL * sizeof(uint16_t);
    if (!am_dtype_quantised(mat->dtype)) return (size_t)mat->n_in * AM_PANEL * dtype_bytes(mat->dtype);
    return mat_levels_bytes(mat) + mat->n_in / mat->group * mat_group_bytes(mat);
}

size_t am_mat_bytes(const am_mat *mat) {
    if (dtype_channels(mat->dtype)) return mat->n_out / mat->group * mat_channels_bytes(mat);
    return am_mat_panels(mat) * am_mat_panel_bytes(mat);
}

size_t am_rows_bytes(const am_rows *rows) {
    if (dtype_channels(rows->dtype)) return rows->n_rows / rows->group * rows_channels_bytes(rows);
    return (size_t)rows->n_rows * rows->dim * dtype_bytes(rows->dtype);
}

/* Words [0, n) of rows that are row_bytes apart. */
static void panel_transpose_32(uint8_t *dst, const uint8_t *src, size_t row_bytes, size_t n, uint32_t lanes) {
    size_t i = 0;
    for (; lanes == AM_PANEL && i + 4 <= n; i += 4)
        for (uint32_t j = 0; j < AM_PANEL; j += 4) {
            four m[4];
            for (uint32_t k = 0; k < 4; k++) m[k] = four_load(src + (j + k) * row_bytes + i * 4);
            four_turn(m);
            for (uint32_t k = 0; k < 4; k++) memcpy(dst + ((i + k) * AM_PANEL + j) * 4, &m[k], sizeof m[k]);
        }
    for (; i < n; i++)
        for (uint32_t j = 0; j < lanes; j++) memcpy(dst + (i * AM_PANEL + j) * 4, src + j * row_bytes + i * 4, 4);
}

/* Pairs of neighbours are words; of an odd n_in the last has a zero behind it. */
static void panel_transpose_pairs(uint8_t *dst, const uint8_t *src, size_t n_in, uint32_t lanes) {
    panel_transpose_32(dst, src, 2 * n_in, n_in / 2, lanes);
    for (uint32_t j = 0; n_in % 2 && j < lanes; j++) {
        uint16_t last[2] = {load_u16(src + (j * n_in + n_in - 1) * 2), 0};
        memcpy(dst + (n_in / 2 * AM_PANEL + j) * 4, last, sizeof last);
    }
}

/* Rows of 8 values of 16 bits, as pairs of neighbours turned like words; then the pairs are taken apart. */
static void panel_transpose_16(uint8_t *dst, const uint8_t *src, size_t n_in, uint32_t lanes) {
    size_t i = 0;
    for (; lanes == AM_PANEL && i + 8 <= n_in; i += 8)
        for (uint32_t j = 0; j < AM_PANEL; j += 8) {
            four a[4], b[4];
            for (uint32_t k = 0; k < 4; k++) {
                a[k] = four_load(src + ((j + k) * n_in + i) * 2);
                b[k] = four_load(src + ((j + 4 + k) * n_in + i) * 2);
            }
            four_turn(a);
            four_turn(b);
            for (uint32_t k = 0; k < 4; k++) {
                eight x = (eight)a[k], y = (eight)b[k], even = __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14);
                eight odd = __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15);
                memcpy(dst + ((i + 2 * k) * AM_PANEL + j) * 2, &even, sizeof even);
                memcpy(dst + ((i + 2 * k + 1) * AM_PANEL + j) * 2, &odd, sizeof odd);
            }
        }
    for (; i < n_in; i++)
        for (uint32_t j = 0; j < lanes; j++) memcpy(dst + (i * AM_PANEL + j) * 2, src + (j * n_in + i) * 2, 2);
}

void am_pack_plain(void *dst, const am_mat *mat, const void *src, uint32_t p0, uint32_t p1) {
    size_t panel_bytes = am_mat_panel_bytes(mat), size = dtype_bytes(mat->dtype);
    for (uint32_t p = p0; p < p1; p++) {
        uint8_t *to = (uint8_t *)dst + p * panel_bytes;
        const uint8_t *from = (const uint8_t *)src + (size_t)p * AM_PANEL * mat->n_in * size;
        uint32_t lanes = mat_lanes(mat, p);
        if (lanes < AM_PANEL) memset(to, 0, panel_bytes);
        if (size == 4)
            panel_transpose_32(to, from, 4 * (size_t)mat->n_in, mat->n_in, lanes);
        else if (mat->dtype == AM_BF16)
            panel_transpose_pairs(to, from, mat->n_in, lanes);
        else
            panel_transpose_16(to, from, mat->n_in, lanes);
    }
}

/* A word of eight 4-bit codes, the first lowest, becomes four bytes of (input b, input 4 + b). */
static four codes_pair(four w) {
    four low = w & 0xffff, high = w >> 16;
    low = (low | low << 8) & 0x00ff00ff;
    high = (high | high << 8) & 0x00ff00ff;
    return ((low | low << 4) & NIBBLES) | ((high | high << 4) & NIBBLES) << 4;
}

static uint32_t code_word(const uint8_t *p, bool nibbles) {
    uint32_t w;
    memcpy(&w, p, 4);
    return nibbles ? codes_pair((four){w})[0] : w;
}

/* One group of one panel: n_words words of each row, row_bytes apart. */
static void codes_pack(uint8_t *to, const uint8_t *codes, size_t row_bytes, size_t n_words, uint32_t lanes, bool nibbles) {
    size_t i = 0;
    for (; lanes == AM_PANEL && i + 4 <= n_words; i += 4)
        for (uint32_t j = 0; j < AM_PANEL; j += 4) {
            four m[4];
            for (uint32_t k = 0; k < 4; k++) m[k] = four_load(codes + (j + k) * row_bytes + 4 * i);
            four_turn(m);
            for (uint32_t k = 0; k < 4; k++) {
                four w = nibbles ? codes_pair(m[k]) : m[k];
                memcpy(to + ((i + k) * AM_PANEL + j) * 4, &w, sizeof w);
            }
        }
    for (; i < n_words; i++)
        for (uint32_t j = 0; j < lanes; j++) {
            uint32_t w = code_word(codes + j * row_bytes + 4 * i, nibbles);
            memcpy(to + (i * AM_PANEL + j) * 4, &w, 4);
        }
}

/* Bytes as Q8 has them become nibbles and the bits above them. */
static void codes_narrow(uint8_t *to, const am_mat *mat, const uint8_t *codes) {
    const uint32_t bits = dtype_bits(mat->dtype) - 4;
    const size_t n = (size_t)mat->group * AM_PANEL;
    for (size_t i = 0; i < n; i += 128, to += 64)
        for (size_t b = 0; b < 64; b++) to[b] = (uint8_t)((codes[i + b] & 15) | codes[i + 64 + b] << 4);
    memset(to, 0, n * bits / 8);
    for (size_t i = 0; i < n; to += 64)
        for (uint32_t t = 0; t < 8; t += bits, i += 64)
            for (size_t b = 0; b < 64; b++) to[b] |= (uint8_t)((codes[i + b] >> 4 & ((1 << bits) - 1)) << t);
}

static void group_pack_affine(uint8_t *to, const am_mat *mat, const uint8_t *codes, const uint8_t *scales, const uint8_t *biases,
                              uint32_t lanes) {
    size_t size = dtype_bytes(mat->scale_dtype), n_groups = mat->n_in / mat->group;
    bool nibbles = mat->dtype == AM_Q4;
    for (uint32_t j = 0; j < lanes; j++) {
        memcpy(to + j * size, scales + j * n_groups * size, size);
        if (!mat->zero_point) memcpy(to + (AM_PANEL + j) * size, biases + j * n_groups * size, size);
    }
    uint8_t bytes[128 * AM_PANEL] = {0};
    bool whole = nibbles || mat->dtype == AM_Q8;
    to += mat_scale_bytes(mat);
    codes_pack(whole ? to : bytes, codes, nibbles ? mat->n_in / 2 : mat->n_in, mat->group / (nibbles ? 8 : 4), lanes, nibbles);
    if (!whole) codes_narrow(to, mat, bytes);
}

void am_pack_affine(void *dst, const am_mat *mat, const uint32_t *codes, const void *scales, const void *biases, uint32_t p0,
                    uint32_t p1) {
    size_t n_groups = mat->n_in / mat->group, group_bytes = mat_group_bytes(mat), size = dtype_bytes(mat->scale_dtype);
    size_t per_byte = mat->dtype == AM_Q4 ? 2 : 1;
    for (uint32_t p = p0; p < p1; p++) {
        uint32_t lanes = mat_lanes(mat, p);
        size_t row = (size_t)p * AM_PANEL;
        for (size_t g = 0; g < n_groups; g++) {
            uint8_t *to = (uint8_t *)dst + p * am_mat_panel_bytes(mat) + mat_levels_bytes(mat) + g * group_bytes;
            if (lanes < AM_PANEL) memset(to, 0, group_bytes);
            size_t scale_at = (row * n_groups + g) * size;
            group_pack_affine(to, mat, (const uint8_t *)codes + (row * mat->n_in + g * mat->group) / per_byte,
                              (const uint8_t *)scales + scale_at, mat->zero_point ? NULL : (const uint8_t *)biases + scale_at, lanes);
        }
    }
}

void am_pack_levels(void *dst, const am_mat *mat, const uint16_t *scales, const uint16_t *biases, uint32_t p0, uint32_t p1) {
    size_t n = mat->n_in / AM_RUN_S8;
    for (uint32_t p = p0; p < p1; p++) {
        uint16_t *to = (uint16_t *)(void *)((uint8_t *)dst + p * am_mat_panel_bytes(mat));
        uint32_t lanes = mat_lanes(mat, p);
        memset(to, 0, mat_levels_bytes(mat));
        for (size_t i = 0; i < n; i++, to += mat_level_bytes(mat) / sizeof *to)
            for (size_t j = 0; j < lanes; j++) {
                size_t at = ((size_t)p * AM_PANEL + j) * n + i;
                to[j] = scales[at];
                if (!mat->zero_point) to[AM_PANEL + j] = biases[at];
            }
    }
}

/* Four words of a row of Q4_0: byte k of a block has input k low and input 16 + k high. */
static void q4_0_runs(four m[4]) {
    four a = m[0], b = m[1], c = m[2], d = m[3];
    m[0] = (a & NIBBLES) | (b & NIBBLES) << 4;
    m[1] = (c & NIBBLES) | (d & NIBBLES) << 4;
    m[2] = (a >> 4 & NIBBLES) | (b & ~(uint32_t)NIBBLES);
    m[3] = (c >> 4 & NIBBLES) | (d & ~(uint32_t)NIBBLES);
}

/* One block of up to sixteen rows: an f16 scale, then 16 bytes of 4-bit codes or 32 signed bytes. */
static bool block_pack(uint8_t *to, const uint8_t *from, size_t row_bytes, uint32_t lanes, bool nibbles) {
    uint8_t *to_codes = to + AM_PANEL * sizeof(uint16_t);
    unsigned not_finite = 0;
    for (uint32_t j = 0; j < lanes; j++) {
        uint16_t scale;
        memcpy(&scale, from + j * row_bytes, sizeof scale);
        memcpy(to + j * sizeof scale, &scale, sizeof scale);
        not_finite |= (scale & 0x7c00) == 0x7c00;
    }
    uint8_t nothing[16];
    memset(nothing, nibbles ? 0 : 0x80, sizeof nothing);
    for (uint32_t i = 0; i < (nibbles ? 4u : 8u); i += 4)
        for (uint32_t j = 0; j < AM_PANEL; j += 4) {
            four m[4];
            for (uint32_t k = 0; k < 4; k++) m[k] = four_load(j + k < lanes ? from + (j + k) * row_bytes + 2 + 4 * i : nothing);
            four_turn(m);
            if (nibbles) q4_0_runs(m);
            for (uint32_t k = 0; k < 4; k++) {
                four w = nibbles ? m[k] : m[k] ^ 0x80808080;
                memcpy(to_codes + ((i + k) * AM_PANEL + j) * 4, &w, sizeof w);
            }
        }
    return !not_finite;
}

bool am_pack_blocks(void *dst, const am_mat *mat, const void *blocks, uint32_t p0, uint32_t p1) {
    bool nibbles = mat->dtype == AM_Q4, finite = true;
    size_t n_groups = mat->n_in / mat->group, group_bytes = mat_group_bytes(mat), block_bytes = nibbles ? 18 : 34, row_bytes = n_groups * block_bytes;
    for (uint32_t p = p0; p < p1; p++) {
        const uint8_t *from = (const uint8_t *)blocks + (size_t)p * AM_PANEL * row_bytes;
        uint8_t *to = (uint8_t *)dst + p * n_groups * group_bytes;
        uint32_t lanes = mat_lanes(mat, p);
        if (lanes < AM_PANEL) memset(to, 0, n_groups * group_bytes);
        for (size_t g = 0; g < n_groups; g++, to += group_bytes, from += block_bytes)
            if (!block_pack(to, from, row_bytes, lanes, nibbles)) finite = false;
    }
    return finite;
}

void mat_channel_put(const am_mat *mat, uint32_t first_panel, uint32_t i, const uint8_t *codes) {
    for (uint32_t t = 0; t < mat->group; t += AM_PANEL, codes += AM_PANEL) {
        uint8_t *panel = (uint8_t *)(uintptr_t)mat_channel_codes(mat, first_panel + t / AM_PANEL);
        if (mat->dtype == AM_C8) {
            memcpy(panel + (size_t)i * AM_PANEL, codes, AM_PANEL);
            continue;
        }
        uint8_t *pair = panel + (size_t)i / 2 * AM_PANEL;
        for (uint32_t j = 0; j < AM_PANEL; j++) pair[j] = i % 2 ? (uint8_t)(pair[j] | codes[j] << 4) : codes[j] & 15;
        if (mat->dtype == AM_C4) continue;
        uint16_t fifth = 0;
        for (uint32_t j = 0; j < AM_PANEL; j++) fifth = (uint16_t)(fifth | (codes[j] >> 4) << j);
        memcpy(panel + 8 * (size_t)mat->n_in + 2 * i, &fifth, sizeof fifth);
    }
}

bool am_turned_form(am_mat *out, const am_mat *w, uint32_t n) {
    if (!am_dtype_quantised(w->dtype) || n % AM_PANEL) return false;
    am_dtype dtype = w->dtype == AM_Q4 && !w->book ? AM_C4 : w->dtype == AM_Q5 || w->book == AM_BOOK_MXFP4 ? AM_C5 : AM_C8;
    *out = (am_mat){.dtype = dtype, .n_out = w->n_in, .n_in = n, .group = w->group};
    return true;
}

bool am_pack_turned(void *dst, const am_mat *mat, const am_mat *w, uint32_t o) {
    uint8_t opened[128 * AM_PANEL], codes[128];
    float scale[AM_PANEL], bias[AM_PANEL];
    am_mat to = *mat;
    to.data = dst;
    for (uint32_t g = 0; g < w->n_in; g += w->group)
        for (uint32_t i = 0; i < mat->n_in; i++) {
            uint32_t j = (o + i) % AM_PANEL;
            const uint8_t *panel = mat_panel(w, (o + i) / AM_PANEL), *group = mat_group(w, panel, g);
            uint16_t *channels = (uint16_t *)(uintptr_t)mat_channels(&to, g / AM_PANEL);
            if (i == 0 || j == 0) {
                group_scales(scale, bias, w, group, mat_level(w, panel, g));
                codes_open(opened, w, group + mat_scale_bytes(w));
            }
            channels[i] = f16_compress(scale[j]);
            channels[mat->n_in + i] = f16_compress(bias[j]);
            if (f16_expand(channels[i]) != scale[j] || f16_expand(channels[mat->n_in + i]) != bias[j]) return false;
            for (uint32_t k = 0; k < w->group; k++) codes[k] = opened[k / 4 * 64 + 4 * j + k % 4];
            mat_channel_put(&to, g / AM_PANEL, i, codes);
        }
    return true;
}
