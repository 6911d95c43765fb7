/* The body of products of codes by codes, for tables whose instructions multiply bytes (included after vector.h): weights as they are
 * packed, inputs as rows of am_int8_row_bytes.
 *
 * A step is min(group, AM_INT8_RUN) inputs. Its products are added up as integers, exactly; then acc = fma(float(sum), scale * input's scale,
 * acc) and acc = fma(bias, input's sum, acc), steps in ascending order. That order is the same in every tile, so rows and panels cannot
 * change a bit.
 *
 * The including file defines, besides vector.h's operations: ivec, i_zero i_load i_four(p: 4 bytes into every lane) i_low i_high (nibbles
 * of bytes) i_dot_nibbles(acc,w,x) i_dot_bytes(acc,w,x) (each lane plus the sum of 4 products of an unsigned and a signed byte) i_float
 * v_store_i8; INT8_TILE and INT8_WIDE: panels a tile, panels a tile of one or two rows. */
enum { INT8_ROWS = 6 }; /* a tile */
#define INT8_PANELS(r) ((r) <= 2 ? INT8_WIDE : INT8_TILE)

typedef struct int8_tile {
    float *y;
    size_t ldy;
    const uint8_t *x;
    size_t row_bytes;
    const uint8_t *w;
    size_t w_panel;
    size_t scales_at, sums_at; /* of a row: its scales, its sums of a step's codes */
    uint32_t step;
    const am_mat *mat;
} int8_tile;

INLINE vec row_float(const int8_tile *a, int row, size_t at, size_t i) {
    return v_set(load_f32(a->x + (size_t)row * a->row_bytes + at + i * sizeof(float)));
}

/* Dot products of one step, of a tile's rows with inputs from k on. */
INLINE void int8_step(ivec dot[INT8_ROWS][INT8_WIDE * PANEL_VECS], const int8_tile *a, const uint8_t *codes, uint32_t k, const int r,
                      const int p, const am_dtype dtype) {
    const uint32_t run = dtype == AM_Q4 ? 8 : 4;
    for (uint32_t end = k + a->step; k < end; k += run, codes += 4 * AM_PANEL) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            ivec w = i_load(codes + (size_t)(v / PANEL_VECS) * a->w_panel + v % PANEL_VECS * LANES * 4);
            ivec low = i_low(w), high = i_high(w);
            UNROLL for (int i = 0; i < r; i++) {
                const int8_t *x = (const int8_t *)a->x + (size_t)i * a->row_bytes + k;
                if (dtype == AM_Q4) {
                    dot[i][v] = i_dot_nibbles(dot[i][v], low, i_four(x));
                    dot[i][v] = i_dot_nibbles(dot[i][v], high, i_four(x + 4));
                } else {
                    dot[i][v] = i_dot_bytes(dot[i][v], w, i_four(x));
                }
            }
        }
    }
}

INLINE void int8_tile_run(const int8_tile *a, const int r, const int p, const am_dtype dtype) {
    vec acc[INT8_ROWS][INT8_WIDE * PANEL_VECS];
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) acc[i][v] = v_zero();
    }
    const am_mat *mat = a->mat;
    size_t group_bytes = mat_group_bytes(mat), scale_bytes = mat_scale_bytes(mat);
    const uint8_t *group = a->w;
    size_t step = 0;
    for (uint32_t k0 = 0; k0 < mat->n_in; k0 += mat->group, group += group_bytes) {
        const uint8_t *codes = group + scale_bytes;
        for (uint32_t k = k0; k < k0 + mat->group; k += a->step, step++, codes += (size_t)a->step * AM_PANEL / (dtype == AM_Q4 ? 2 : 1)) {
            ivec dot[INT8_ROWS][INT8_WIDE * PANEL_VECS];
            UNROLL for (int i = 0; i < r; i++) {
                UNROLL for (int v = 0; v < p * PANEL_VECS; v++) dot[i][v] = i_zero();
            }
            int8_step(dot, a, codes, k, r, p, dtype);
            UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
                const uint8_t *head = group + (size_t)(v / PANEL_VECS) * a->w_panel;
                vec scale = group_scale(mat, head, v % PANEL_VECS), bias = group_bias(mat, head, v % PANEL_VECS, scale);
                UNROLL for (int i = 0; i < r; i++) {
                    vec both = v_mul(scale, row_float(a, i, a->scales_at, k / AM_INT8_RUN));
                    acc[i][v] = v_fma(i_float(dot[i][v]), both, acc[i][v]);
                    acc[i][v] = v_fma(bias, row_float(a, i, a->sums_at, step), acc[i][v]);
                }
            }
        }
    }
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) v_store(a->y + (size_t)i * a->ldy + v * LANES, acc[i][v]);
    }
}

#define INT8_CASE(r, dtype)                                                                                            \
    case r:                                                                                                            \
        if (panels == 1)                                                                                               \
            int8_tile_run(a, r, 1, dtype);                                                                             \
        else if (panels == INT8_TILE)                                                                                  \
            int8_tile_run(a, r, INT8_TILE, dtype);                                                                     \
        else                                                                                                           \
            int8_tile_run(a, r, INT8_PANELS(r), dtype);                                                                \
        break;
#define INT8_SWITCH(dtype)                                                                                             \
    switch (rows) {                                                                                                    \
        INT8_CASE(1, dtype) INT8_CASE(2, dtype) INT8_CASE(3, dtype)                                                    \
        INT8_CASE(4, dtype) INT8_CASE(5, dtype) INT8_CASE(6, dtype)                                                    \
    }
static void int8_tile_q4(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(AM_Q4) }
static void int8_tile_q8(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(AM_Q8) }

/* All rows by the panels from p on: `panels` of them, or one whose last outputs do not exist in y. */
static void int8_rows(int8_tile a, size_t n_rows, uint32_t panels, uint32_t lanes, am_dtype dtype) {
    float copy[INT8_ROWS * AM_PANEL];
    float *y = a.y;
    size_t ldy = a.ldy;
    for (size_t r = 0, rows; r < n_rows; r += rows, a.x += rows * a.row_bytes, y += rows * ldy) {
        rows = n_rows - r < INT8_ROWS ? n_rows - r : INT8_ROWS;
        a.y = lanes == AM_PANEL ? y : copy;
        a.ldy = lanes == AM_PANEL ? ldy : AM_PANEL;
        if (dtype == AM_Q4)
            int8_tile_q4(&a, (uint32_t)rows, panels);
        else
            int8_tile_q8(&a, (uint32_t)rows, panels);
        for (size_t i = 0; lanes < AM_PANEL && i < rows; i++) memcpy(y + i * ldy, copy + i * AM_PANEL, lanes * sizeof *copy);
    }
}

static void matmul_int8(float *y, size_t ldy, const void *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    size_t n_runs = am_int8_runs(w->n_in);
    uint32_t step = w->group < AM_INT8_RUN ? w->group : AM_INT8_RUN;
    uint32_t wide = INT8_PANELS(n_rows);
    int8_tile a = {.ldy = ldy,
                   .x = x,
                   .row_bytes = am_int8_row_bytes(w->n_in),
                   .w_panel = am_mat_panel_bytes(w),
                   .scales_at = n_runs * AM_INT8_RUN,
                   .step = step,
                   .mat = w};
    a.sums_at = a.scales_at + n_runs * sizeof(float) * (step == 16 ? 1 : step == 32 ? 5 : 7);
    for (uint32_t p = p0, n; p < p1; p += n) {
        uint32_t lanes = mat_lanes(w, p);
        n = p + wide <= p1 && (p + wide) * AM_PANEL <= w->n_out ? wide : 1;
        a.y = y + (size_t)p * AM_PANEL;
        a.w = mat_panel(w, p);
        int8_rows(a, n_rows, n, lanes, w->dtype);
    }
}

/* One run: codes and their scale; the rest of a last run is 0. */
static float run_int8(int8_t *code, const float *x, size_t n) {
    float padded[AM_INT8_RUN] = {0};
    if (n < AM_INT8_RUN) x = memcpy(padded, x, n * sizeof *x);
    vec most = v_zero();
    for (int i = 0; i < AM_INT8_RUN; i += LANES) most = v_max(most, v_max(v_load(x + i), v_sub(v_zero(), v_load(x + i))));
    float largest = v_most(most), inverse = largest > 0 ? 127 / largest : 0;
    for (int i = 0; i < AM_INT8_RUN; i += LANES) v_store_i8(code + i, v_mul(v_load(x + i), v_set(inverse)));
    return largest / 127;
}

static void row_int8(void *dst, const float *x, size_t n_in) {
    size_t n_runs = am_int8_runs(n_in);
    int8_t *code = dst;
    float *scale = (float *)(void *)(code + n_runs * AM_INT8_RUN), *sum16 = scale + n_runs, *sum32 = sum16 + 4 * n_runs, *sum64 = sum32 + 2 * n_runs;
    for (size_t i = 0; i < n_runs; i++, code += AM_INT8_RUN) {
        size_t at = i * AM_INT8_RUN;
        scale[i] = run_int8(code, x + at, n_in - at < AM_INT8_RUN ? n_in - at : AM_INT8_RUN);
        int sum[4] = {0};
        for (int j = 0; j < 4; j++)
            for (int b = 0; b < 16; b++) sum[j] += code[16 * j + b];
        for (size_t j = 0; j < 4; j++) sum16[4 * i + j] = scale[i] * (float)sum[j];
        sum32[2 * i] = scale[i] * (float)(sum[0] + sum[1]);
        sum32[2 * i + 1] = scale[i] * (float)(sum[2] + sum[3]);
        sum64[i] = scale[i] * (float)(sum[0] + sum[1] + sum[2] + sum[3]);
    }
}
