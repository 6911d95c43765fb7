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

/* One group of one panel: codes of four neighbouring inputs side by side. */
static void codes_pack_8(uint8_t *to, const uint8_t *codes, size_t n) {
    for (size_t k = 0; k < n; k += 4, to += 4 * AM_PANEL) memcpy(to, codes + k, 4);
}

/* A little-endian word of eight 4-bit codes is four bytes of (even input, odd input); it becomes four of (input b, input 4 + b). */
static void codes_pack_4(uint8_t *to, const uint8_t *codes, size_t n) {
    for (size_t i = 0; i < n / 2; i += 4, to += 4 * AM_PANEL) {
        uint32_t even, odd, low, high;
        memcpy(&even, codes + i, 4);
        odd = even >> 4 & 0x0f0f0f0f; /* inputs 1 3 5 7 */
        even &= 0x0f0f0f0f;           /* inputs 0 2 4 6 */
        low = (even & 0xff) | (odd & 0xff) << 8 | (even & 0xff00) << 8 | (odd & 0xff00) << 16;
        high = (even >> 16 & 0xff) | (odd >> 8 & 0xff00) | (even >> 8 & 0xff0000) | (odd & 0xff000000);
        low |= high << 4;
        memcpy(to, &low, 4);
    }
}

static void group_pack_affine(uint8_t *to, const am_mat *mat, const uint8_t *codes, const uint8_t *scales, const uint8_t *biases,
                              uint32_t lanes) {
    size_t size = dtype_bytes(mat->scale_dtype), n_groups = mat->n_in / mat->group;
    size_t row_bytes = mat->dtype == AM_Q4 ? mat->n_in / 2 : mat->n_in;
    uint8_t *to_codes = to + mat_scale_bytes(mat);
    for (uint32_t j = 0; j < lanes; j++, to_codes += 4, codes += row_bytes) {
        memcpy(to + j * size, scales + j * n_groups * size, size);
        if (!mat->zero_point) memcpy(to + (AM_PANEL + j) * size, biases + j * n_groups * size, size);
        if (mat->dtype == AM_Q4)
            codes_pack_4(to_codes, codes, mat->group);
        else
            codes_pack_8(to_codes, codes, mat->group);
    }
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
                              (const uint8_t *)scales + scale_at, mat->zero_point ? NULL : (const uint8_t *)biases + scale_at, lanes);
        }
    }
}
