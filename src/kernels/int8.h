/* The body of products of codes by codes, for tables whose instructions multiply bytes (included after vector.h): weights as they are
 * packed, inputs as rows of am_int8_row_bytes.
 *
 * A step is min(group, AM_INT8_RUN) inputs. Its products are added up as integers, exactly, beginning with -zero_point * (the sum of the
 * input's codes), which is what the zero point is worth. Then acc = fma(float(sum), scale * input's scale, acc); and behind each group
 * of a matrix with biases acc = fma(bias, input's sum, acc): all in ascending order. Nothing here depends on how many rows or panels a
 * tile has, and every operation is exact or rounded as IEEE says, so that all tables of this kind give the same bits.
 *
 * Codes are unpacked in registers, for each tile again: that costs instructions which run beside the products, while opening a panel once
 * for all rows was no faster (docs/PROFILES.md).
 *
 * The including file defines, besides vector.h's operations: ivec (LANES times 4 bytes), i_load i_four(p: 4 bytes into every lane) i_low
 * i_high (nibbles of bytes) i_look(book: 16 bytes, w: each byte below 16 by what stands there) i_join(low,w,left: low with the bits of `mask` that w has when
 * shifted to the left, or to the right where it is negative); idot, the sums of one step, with i_begin(start) i_dot(sum,w,x,wide) (each lane plus the sum of 4 products of an
 * unsigned and a signed byte) i_end(sum,start,wide: as floats), where `wide` says that w has codes above 15; i_sum(code: of 16); v_store_i8;
 * INT8_ROWS: rows a tile, at most 6; INT8_WIDE(r): panels a tile of r rows. */
enum { INT8_CHUNK = 512, INT8_MAX_PANELS = 4, INT8_AHEAD = 8192 /* bytes */ };

typedef enum int8_form { PACKED_4, PACKED_5, PACKED_6, PACKED_8, BOOK_4 } int8_form;

typedef struct int8_tile {
    float *y;
    size_t ldy;
    const uint8_t *x;
    size_t row_bytes;
    am_int8_at at;
    const uint8_t *w; /* the first panel */
    size_t w_panel;   /* bytes to the next */
    bool fetch;       /* it comes from memory */
    const am_mat *mat;
} int8_tile;

/* What the dots of each step of inputs [k, end) begin with. */
INLINE void int8_starts(int32_t start[INT8_ROWS][INT8_CHUNK / 16], const int8_tile *a, uint32_t k, uint32_t end, const int r,
                        const uint32_t step) {
    int32_t by = -(int32_t)a->mat->zero_point;
    for (int i = 0; i < r; i++) {
        const int16_t *sums = (const int16_t *)(const void *)(a->x + (size_t)i * a->row_bytes + (step == 16 ? a->at.sum16 : a->at.sum32)) + k / step;
        for (uint32_t s = 0; s < (end - k) / step; s++) start[i][s] = by * sums[s];
    }
}

/* Codes above 15 of inputs b and b + 4 of a step, from their nibbles: `more` is what of the group's further bits begins with the step. */
INLINE ivec int8_more(ivec w, const uint8_t *more, uint32_t b, const int8_form form, const uint8_t *book) {
    if (form == BOOK_4) return i_look(book, w);
    if (form == PACKED_5) return i_join(w, i_load(more), 4 - (int)b / 4, 16);
    if (form == PACKED_6) return i_join(w, i_load(more + b / 16 * 64), 4 - (int)(b % 16) / 2, 48);
    return w;
}

/* Dot products of one step, of a tile's rows with inputs from k on. */
INLINE void int8_step(idot dot[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS], const uint8_t *const x[INT8_ROWS], const uint8_t *codes, const uint8_t *more,
                      size_t w_panel, uint32_t k, const int r, const int p, const int8_form form, const uint32_t step, const uint8_t *book) {
    const bool nibbles = form != PACKED_8, wide = form != PACKED_4;
    UNROLL for (uint32_t b = 0; b < step; b += nibbles ? 8 : 4) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            size_t at = (size_t)(v / PANEL_VECS) * w_panel + v % PANEL_VECS * LANES * 4;
            ivec w = i_load(codes + at + (nibbles ? b / 2 : b) * AM_PANEL);
            ivec low = nibbles ? int8_more(i_low(w), more + at, b, form, book) : w, high = nibbles ? int8_more(i_high(w), more + at, b + 4, form, book) : w;
            UNROLL for (int i = 0; i < r; i++) {
                const int8_t *four = (const int8_t *)x[i] + k + b;
                dot[i][v] = i_dot(dot[i][v], low, i_four(four), wide);
                if (nibbles) dot[i][v] = i_dot(dot[i][v], high, i_four(four + 4), wide);
            }
        }
    }
}

INLINE vec int8_set(const uint8_t *row, size_t at, size_t i) { return v_set(load_f32(row + at + 4 * i)); }

/* A group further on comes from memory into the second cache while this one is multiplied; behind the last one the next tile's panels begin. One row
 * needs none: the processor follows a single run by itself. */
INLINE void int8_fetch(const int8_tile *a, const uint8_t *group, size_t group_bytes, const int p) {
    size_t ahead = INT8_AHEAD, left = (size_t)(a->w + a->w_panel - group);
    const uint8_t *at = group + ahead + (left <= ahead ? (size_t)(p - 1) * a->w_panel : 0);
    UNROLL for (int i = 0; i < p; i++, at += a->w_panel)
        for (size_t b = 0; b < group_bytes; b += 64) __builtin_prefetch(at + b, 0, 2);
}

INLINE void int8_group(vec acc[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS], const int8_tile *a, const uint8_t *const x[INT8_ROWS], const uint8_t *group,
                       uint32_t k, const int32_t start[INT8_ROWS][INT8_CHUNK / 16], uint32_t s, const int r, const int p, const int8_form form,
                       const uint32_t step) {
    const uint8_t *codes = group + mat_scale_bytes(a->mat), *more = codes + (size_t)a->mat->group * AM_PANEL / 2, *level = mat_level(a->mat, a->w, k);
    const uint32_t more_bytes = form == PACKED_5 ? 2 * step : form == PACKED_6 ? 4 * step : 0;
    for (uint32_t end = k + a->mat->group, at = k; at < end; at += step, s++, codes += (size_t)step * AM_PANEL / (form == PACKED_8 ? 1 : 2), more += more_bytes) {
        idot dot[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS];
        UNROLL for (int i = 0; i < r; i++) {
            UNROLL for (int v = 0; v < p * PANEL_VECS; v++) dot[i][v] = i_begin(start[i][s]);
        }
        int8_step(dot, x, codes, more, a->w_panel, at, r, p, form, step, am_books[a->mat->book]);
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            size_t panel = (size_t)(v / PANEL_VECS) * a->w_panel;
            vec scale = group_scale(a->mat, group + panel, level + panel, v % PANEL_VECS);
            UNROLL for (int i = 0; i < r; i++)
                acc[i][v] = v_fma(i_end(dot[i][v], start[i][s], form != PACKED_4), v_mul(scale, int8_set(x[i], a->at.scale, at / AM_INT8_RUN)), acc[i][v]);
        }
    }
}

INLINE void int8_biases(vec acc[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS], const int8_tile *a, const uint8_t *const x[INT8_ROWS], const uint8_t *group,
                        size_t g, const int r, const int p) {
    const uint8_t *level = mat_level(a->mat, a->w, (uint32_t)g * a->mat->group);
    UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
        size_t panel = (size_t)(v / PANEL_VECS) * a->w_panel;
        vec bias = scale_load(group + panel, a->mat->scale_dtype, AM_PANEL + v % PANEL_VECS * LANES, level + panel);
        UNROLL for (int i = 0; i < r; i++) acc[i][v] = v_fma(bias, int8_set(x[i], a->at.sum, g), acc[i][v]);
    }
}

INLINE void int8_tile_run(const int8_tile *a, const int r, const int p, const int8_form form, const uint32_t step) {
    vec acc[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS];
    int32_t start[INT8_ROWS][INT8_CHUNK / 16];
    const am_mat *mat = a->mat;
    const uint8_t *x[INT8_ROWS], *group = mat_group(mat, a->w, 0);
    size_t group_bytes = mat_group_bytes(mat), g = 0;
    UNROLL for (int i = 0; i < r; i++) {
        x[i] = a->x + (size_t)i * a->row_bytes;
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) acc[i][v] = v_zero();
    }
    for (uint32_t chunk = 0, end; chunk < mat->n_in; chunk = end) {
        end = mat->n_in - chunk < INT8_CHUNK ? mat->n_in : chunk + INT8_CHUNK;
        int8_starts(start, a, chunk, end, r, step);
        for (uint32_t k = chunk; k < end; k += mat->group, group += group_bytes, g++) {
            if (r > 1 && a->fetch) int8_fetch(a, group, group_bytes, p);
            int8_group(acc, a, x, group, k, start, (k - chunk) / step, r, p, form, step);
            if (!mat->zero_point) int8_biases(acc, a, x, group, g, r, p);
        }
    }
    UNROLL for (int i = 0; i < r; i++) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) v_store(a->y + (size_t)i * a->ldy + v * LANES, acc[i][v]);
    }
}

/* The tiles that exist: one panel, and the width of that row count; steps of 32, and of 16. Few rows wait for memory more than they multiply, and one
 * panel after the other is one long run to read. */
#define INT8_PANELS(r) ((r) <= 4 ? 1 : INT8_WIDE(r))
#define INT8_SIZE(r, form, step)                                                                                       \
    if (INT8_PANELS(r) == 1 || panels == 1)                                                                            \
        int8_tile_run(a, r, 1, form, step);                                                                            \
    else                                                                                                               \
        int8_tile_run(a, r, INT8_PANELS(r), form, step);                                                               \
    break;
#define INT8_SWITCH(form, step)                                                                                        \
    switch (rows) {                                                                                                    \
    case 1: INT8_SIZE(1, form, step)                                                                                   \
    case 2: INT8_SIZE(2, form, step)                                                                                   \
    case 3: INT8_SIZE(3, form, step)                                                                                   \
    case 4: INT8_SIZE(INT8_ROWS < 4 ? 1 : 4, form, step)                                                               \
    case 5: INT8_SIZE(INT8_ROWS < 5 ? 1 : 5, form, step)                                                               \
    case 6: INT8_SIZE(INT8_ROWS < 6 ? 1 : 6, form, step)                                                               \
    }
typedef void int8_fn(const int8_tile *a, uint32_t rows, uint32_t panels);
static void int8_4_by_32(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(PACKED_4, 32) }
static void int8_4_by_16(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(PACKED_4, 16) }
static void int8_5_by_32(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(PACKED_5, 32) }
static void int8_6_by_32(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(PACKED_6, 32) }
static void int8_6_by_16(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(PACKED_6, 16) }
static void int8_8_by_32(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(PACKED_8, 32) }
static void int8_8_by_16(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(PACKED_8, 16) }
static void int8_book_by_32(const int8_tile *a, uint32_t rows, uint32_t panels) { INT8_SWITCH(BOOK_4, 32) }

static int8_fn *int8_fn_of(const am_mat *w) {
    bool by_16 = w->group < 32;
    switch (w->dtype) {
    case AM_Q4: return w->book ? int8_book_by_32 : by_16 ? int8_4_by_16 : int8_4_by_32;
    case AM_Q5: return int8_5_by_32;
    case AM_Q6: return by_16 ? int8_6_by_16 : int8_6_by_32;
    default: return by_16 ? int8_8_by_16 : int8_8_by_32;
    }
}

/* How many of n rows the next tile takes: tiles of about the same size. */
static inline size_t int8_rows_of(size_t n) { return n / ((n + INT8_ROWS - 1) / INT8_ROWS); }

/* Rows of a tile stay in the first cache while the panels pass; only the first rows fetch those from memory. */
static void matmul_int8(float *y, size_t ldy, const void *x, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    int8_tile a = {.row_bytes = am_int8_row_bytes(w->n_in), .at = am_int8_at_of(w->n_in, w->group), .w_panel = am_mat_panel_bytes(w), .mat = w};
    int8_fn *fn = int8_fn_of(w);
    float copy[INT8_ROWS * AM_PANEL];
    for (size_t r = 0, rows; r < n_rows; r += rows) {
        rows = int8_rows_of(n_rows - r);
        a.x = (const uint8_t *)x + r * a.row_bytes;
        a.fetch = r == 0;
        uint32_t wide = INT8_PANELS(rows);
        for (uint32_t p = p0, n; p < p1; p += n) {
            uint32_t lanes = mat_lanes(w, p);
            float *to = y + r * ldy + (size_t)p * AM_PANEL;
            n = p + wide <= p1 && (p + wide) * AM_PANEL <= w->n_out ? wide : 1;
            a.w = mat_panel(w, p);
            a.y = lanes == AM_PANEL ? to : copy;
            a.ldy = lanes == AM_PANEL ? ldy : AM_PANEL;
            fn(&a, (uint32_t)rows, n);
            for (size_t i = 0; lanes < AM_PANEL && i < rows; i++) memcpy(to + i * ldy, copy + i * AM_PANEL, lanes * sizeof *copy);
        }
    }
}

/* ---- inputs ---- */

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
    am_int8_at at = am_int8_at_of(n_in, 16);
    uint8_t *row = dst;
    float *scale = (float *)(void *)(row + at.scale), *scaled16 = (float *)(void *)(row + at.sum), *scaled32 = scaled16 + 2 * n_runs;
    float *scaled64 = scaled32 + n_runs, *scaled128 = scaled64 + n_runs / 2;
    int16_t *sum16 = (int16_t *)(void *)(row + at.sum16), *sum32 = (int16_t *)(void *)(row + at.sum32);
    for (size_t i = 0; i < n_runs; i++) {
        size_t k = i * AM_INT8_RUN;
        int8_t *code = (int8_t *)row + k;
        scale[i] = k < n_in ? run_int8(code, x + k, n_in - k < AM_INT8_RUN ? n_in - k : AM_INT8_RUN) : run_int8(code, x, 0);
        const int sum[2] = {i_sum(code), i_sum(code + 16)};
        for (size_t j = 0; j < 2; j++) sum16[2 * i + j] = (int16_t)sum[j], scaled16[2 * i + j] = scale[i] * (float)sum[j];
        sum32[i] = (int16_t)(sum[0] + sum[1]);
        scaled32[i] = scale[i] * (float)(sum[0] + sum[1]);
    }
    for (size_t i = 0; i < n_runs / 2; i++) scaled64[i] = scaled32[2 * i] + scaled32[2 * i + 1];
    for (size_t i = 0; i < n_runs / 4; i++) scaled128[i] = scaled64[2 * i] + scaled64[2 * i + 1];
}
