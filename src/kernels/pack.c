/* Owns the way from weights as files have them (row by row) to panels of 16 outputs as the kernels read them, and the sizes of
 * panels. Sixteen rows are read side by side, so both sides stream; sources come from mapped files and may be unaligned, so they
 * are only ever read by memcpy. The layout is in kernels.h. */
#include "kernels/tables.h"

size_t am_mat_panel_bytes(const am_mat *mat) {
    if (!dtype_quantised(mat->dtype)) return (size_t)mat->n_in * AM_PANEL * dtype_bytes(mat->dtype);
    return mat->n_in / mat->group * mat_group_bytes(mat);
}

size_t am_mat_bytes(const am_mat *mat) {
    if (dtype_channels(mat->dtype)) return mat->n_out / mat->group * mat_channels_bytes(mat);
    return am_mat_panels(mat) * am_mat_panel_bytes(mat);
}

size_t am_rows_bytes(const am_rows *rows) {
    if (dtype_channels(rows->dtype)) return rows->n_rows / rows->group * rows_channels_bytes(rows);
    return (size_t)rows->n_rows * rows->dim * dtype_bytes(rows->dtype);
}

static void panel_transpose_32(uint8_t *dst, const uint8_t *src, size_t n_in, uint32_t lanes) {
    for (size_t k = 0; k < n_in; k++)
        for (uint32_t j = 0; j < lanes; j++) memcpy(dst + (k * AM_PANEL + j) * 4, src + (j * n_in + k) * 4, 4);
}

static void panel_transpose_16(uint8_t *dst, const uint8_t *src, size_t n_in, uint32_t lanes) {
    for (size_t k = 0; k < n_in; k++)
        for (uint32_t j = 0; j < lanes; j++) memcpy(dst + (k * AM_PANEL + j) * 2, src + (j * n_in + k) * 2, 2);
}

void am_pack_plain(void *dst, const am_mat *mat, const void *src, uint32_t p0, uint32_t p1) {
    size_t panel_bytes = am_mat_panel_bytes(mat), size = dtype_bytes(mat->dtype);
    for (uint32_t p = p0; p < p1; p++) {
        uint8_t *to = (uint8_t *)dst + p * panel_bytes;
        const uint8_t *from = (const uint8_t *)src + (size_t)p * AM_PANEL * mat->n_in * size;
        uint32_t lanes = mat_lanes(mat, p);
        if (lanes < AM_PANEL) memset(to, 0, panel_bytes);
        if (size == 4)
            panel_transpose_32(to, from, mat->n_in, lanes);
        else
            panel_transpose_16(to, from, mat->n_in, lanes);
    }
}

typedef uint8_t bytes16 __attribute__((vector_size(16)));

#define INTERLEAVE(to, from, i)                                                                                        \
    (to)[2 * (i)] = __builtin_shufflevector((from)[i], (from)[(i) + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), \
    (to)[2 * (i) + 1] = __builtin_shufflevector((from)[i], (from)[(i) + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define ROUND(to, from)                                                                                                \
    INTERLEAVE(to, from, 0), INTERLEAVE(to, from, 1), INTERLEAVE(to, from, 2), INTERLEAVE(to, from, 3),                \
        INTERLEAVE(to, from, 4), INTERLEAVE(to, from, 5), INTERLEAVE(to, from, 6), INTERLEAVE(to, from, 7)

/* to[i][j] = from[j][i]. A round that interleaves rows j and j + 8 turns the eight bits of a byte's place (row, column) by one; after four,
 * row and column have changed places. */
static void transpose_16x16(uint8_t *to, const uint8_t *from, size_t stride) {
    bytes16 a[16], b[16];
    for (size_t j = 0; j < 16; j++) memcpy(&a[j], from + j * stride, 16);
    ROUND(b, a);
    ROUND(a, b);
    ROUND(b, a);
    ROUND(a, b);
    memcpy(to, a, sizeof a);
}

/* One group of one panel. A little-endian word of eight 4-bit codes is four bytes of (even input, odd input): exactly the pairs of a
 * panel, so both widths are a transposition of bytes. */
static void group_pack_affine(uint8_t *to, const am_mat *mat, const uint8_t *codes, const uint8_t *scales, const uint8_t *biases,
                              uint32_t lanes) {
    size_t size = dtype_bytes(mat->scale_dtype), n_groups = mat->n_in / mat->group;
    size_t per_byte = mat->dtype == AM_Q4 ? 2 : 1, row_bytes = mat->n_in / per_byte, n = mat->group / per_byte;
    size_t whole = lanes == AM_PANEL ? n / 16 * 16 : 0; /* bytes of a row that go in squares */
    uint8_t *to_codes = to + 2 * AM_PANEL * size;
    for (uint32_t j = 0; j < lanes; j++) {
        memcpy(to + j * size, scales + j * n_groups * size, size);
        memcpy(to + (AM_PANEL + j) * size, biases + j * n_groups * size, size);
        for (size_t i = whole; i < n; i++) to_codes[i * AM_PANEL + j] = codes[j * row_bytes + i];
    }
    for (size_t i = 0; i < whole; i += 16) transpose_16x16(to_codes + i * AM_PANEL, codes + i, row_bytes);
}

void am_pack_affine(void *dst, const am_mat *mat, const uint32_t *codes, const void *scales, const void *biases, uint32_t p0,
                    uint32_t p1) {
    size_t n_groups = mat->n_in / mat->group, group_bytes = mat_group_bytes(mat), size = dtype_bytes(mat->scale_dtype);
    size_t per_byte = mat->dtype == AM_Q4 ? 2 : 1;
    for (uint32_t p = p0; p < p1; p++) {
        uint32_t lanes = mat_lanes(mat, p);
        size_t row = (size_t)p * AM_PANEL;
        for (size_t g = 0; g < n_groups; g++) {
            uint8_t *to = (uint8_t *)dst + (p * n_groups + g) * group_bytes;
            if (lanes < AM_PANEL) memset(to, 0, group_bytes);
            size_t scale_at = (row * n_groups + g) * size;
            group_pack_affine(to, mat, (const uint8_t *)codes + (row * mat->n_in + g * mat->group) / per_byte,
                              (const uint8_t *)scales + scale_at, (const uint8_t *)biases + scale_at, lanes);
        }
    }
}
