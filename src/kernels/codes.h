/* Attention on the codes of sealed blocks, for tables whose instructions multiply bytes (included after int8.h): nothing is unpacked to floats.
 *
 *   scores   sum_d q_d (scale_d c_d + bias_d): a group's scales go into the query, q_d scale_d becomes codes in runs of AM_INT8_RUN dimensions,
 *            and with c_d = MID + c'_d the rest is one constant a query and group.
 *   values   sum_t p_t (scale_d c_td + bias_d): p, never below 0, becomes codes of 0 to 255 in runs of AM_INT8_RUN tokens; scale and bias come in once
 *            a group and query. These instructions multiply unsigned by signed bytes: here p is the unsigned one, and c_td of 8 bits loses 128.
 *
 * Codes are counted from their middle, so that what the rounding of q or p costs is in proportion to the spread of keys and values and not
 * to their biases. Sums of codes are exact. Float steps go run by run in ascending order, then group by group, for each row alone, so a
 * row's bits do not depend on the others. Groups are not to be split over calls. A key's codes are opened to bytes for each tile of rows: 4 inputs of 16
 * outputs are 64 bytes, as products take them.
 *
 * The including file defines, besides int8.h's operations: quad (64 bytes: [4][16]), q_four(p: 64 bytes) q_pairs(p: 32 bytes, low nibbles of 16
 * before high ones) q_rows(p,stride: 16 bytes of each of four rows) q_low q_high (nibbles) q_fifth(q,bits: 16 more in byte i where bit i is
 * set) q_signed(q: each byte less 128) q_store(to,q: transposed to [16][4]) q_cross(to,q[4]: of [4][4][4], the first two changed places: 256 bytes);
 * u_dot(sum,w,x) i_dot of signed w and unsigned x, u_sum(code: of 16 unsigned). */
enum { CODE_ROWS = 48, CODE_TOKENS = 128, CODE_PANELS = 4 };

/* Rows of inputs, as codes, for at most AM_RUN inputs (or CODE_TOKENS tokens). */
typedef struct code_rows {
    uint8_t code[CODE_ROWS][AM_RUN]; /* of keys signed */
    float scale[CODE_ROWS][AM_RUN / AM_INT8_RUN];
    int32_t start[CODE_ROWS][AM_RUN / AM_INT8_RUN]; /* -MID * (sum of a run's codes); 0 where codes have lost MID */
    float rest[CODE_ROWS];                          /* what is not a product of codes: of keys the constant, of values the sum of p */
} code_rows;

typedef struct code_tile {
    float *y;
    size_t ldy;
    const code_rows *x;
    uint32_t row, n;       /* the first; inputs, a multiple of AM_INT8_RUN */
    const uint8_t *codes;  /* [panels][AM_RUN / 4][16][4] */
    const float *scale, *bias; /* [16 * panels] of values; NULL: keys */
    bool fresh;
} code_tile;

static inline int code_middle(am_dtype dtype) { return dtype == AM_C8 ? 128 : dtype == AM_C5 ? 16 : 8; }

/* Codes, scales and starts of row i from n values; the rest of the last run is 0. */
static void code_row(code_rows *rows, uint32_t i, const float *x, uint32_t n, int middle) {
    for (uint32_t k = 0, run = 0; k < n; k += AM_INT8_RUN, run++) {
        int8_t *code = (int8_t *)rows->code[i] + k;
        rows->scale[i][run] = run_int8(code, x + k, n - k < AM_INT8_RUN ? n - k : AM_INT8_RUN);
        rows->start[i][run] = -middle * (i_sum(code) + i_sum(code + 16));
    }
}

INLINE void code_step(idot dot[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS], const uint8_t *const x[INT8_ROWS], const uint8_t *codes, uint32_t k, const int r,
                      const int p, const bool values) {
    UNROLL for (uint32_t b = 0; b < AM_INT8_RUN; b += 4) {
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            ivec w = i_load(codes + ((size_t)(v / PANEL_VECS) * AM_RUN + k + b) * AM_PANEL + v % PANEL_VECS * LANES * 4);
            UNROLL for (int i = 0; i < r; i++) {
                ivec four = i_four((const int8_t *)x[i] + k + b);
                dot[i][v] = values ? u_dot(dot[i][v], w, four) : i_dot(dot[i][v], w, four, true);
            }
        }
    }
}

INLINE void code_tile_run(const code_tile *a, const int r, const int p, const bool values) {
    vec sum[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS];
    const uint8_t *x[INT8_ROWS];
    UNROLL for (int i = 0; i < r; i++) {
        x[i] = a->x->code[a->row + (uint32_t)i];
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) sum[i][v] = v_zero();
    }
    for (uint32_t k = 0; k < a->n; k += AM_INT8_RUN) {
        idot dot[INT8_ROWS][INT8_MAX_PANELS * PANEL_VECS];
        const int32_t *start[INT8_ROWS];
        UNROLL for (int i = 0; i < r; i++) {
            start[i] = &a->x->start[a->row + (uint32_t)i][k / AM_INT8_RUN];
            UNROLL for (int v = 0; v < p * PANEL_VECS; v++) dot[i][v] = i_begin(*start[i]);
        }
        code_step(dot, x, a->codes, k, r, p, values);
        UNROLL for (int i = 0; i < r; i++) {
            vec scale = v_set(a->x->scale[a->row + (uint32_t)i][k / AM_INT8_RUN]);
            UNROLL for (int v = 0; v < p * PANEL_VECS; v++) sum[i][v] = v_fma(i_end(dot[i][v], *start[i], true), scale, sum[i][v]);
        }
    }
    UNROLL for (int i = 0; i < r; i++) {
        vec rest = v_set(a->x->rest[a->row + (uint32_t)i]);
        UNROLL for (int v = 0; v < p * PANEL_VECS; v++) {
            float *y = a->y + (size_t)i * a->ldy + v * LANES;
            if (values)
                v_store(y, v_fma(rest, v_load(a->bias + v * LANES), v_fma(sum[i][v], v_load(a->scale + v * LANES), v_load(y))));
            else
                v_store(y, v_add(a->fresh ? rest : v_add(rest, v_load(y)), sum[i][v]));
        }
    }
}

#define CODE_SIZE(r)                                                                                                   \
    if (panels == 1) code_tile_run(a, r, 1, values);                                                                   \
    else code_tile_run(a, r, INT8_WIDE(r), values);                                                                    \
    break;
INLINE void code_tile_of(const code_tile *a, size_t rows, uint32_t panels, const bool values) {
    switch (rows) {
    case 1: CODE_SIZE(1)
    case 2: CODE_SIZE(2)
    case 3: CODE_SIZE(3)
    case 4: CODE_SIZE(4)
    case 5: CODE_SIZE(INT8_ROWS < 5 ? 1 : 5)
    case 6: CODE_SIZE(INT8_ROWS < 6 ? 1 : 6)
    }
}
static void code_tile_of_keys(const code_tile *a, size_t rows, uint32_t panels) { code_tile_of(a, rows, panels, false); }
static void code_tile_of_values(const code_tile *a, size_t rows, uint32_t panels) { code_tile_of(a, rows, panels, true); }

/* All rows by n opened panels. */
static void code_tiles(code_tile a, size_t n_rows, uint32_t n) {
    for (size_t r = 0, rows; r < n_rows; r += rows, a.y += rows * a.ldy, a.row += (uint32_t)rows) {
        rows = int8_rows_of(n_rows - r);
        code_tile b = a;
        for (uint32_t p = 0, wide; p < n; p += wide) {
            wide = p + INT8_WIDE(rows) <= n ? INT8_WIDE(rows) : 1;
            b.y = a.y + (size_t)p * AM_PANEL;
            b.codes = a.codes + (size_t)p * AM_RUN * AM_PANEL;
            if (a.scale) b.scale = a.scale + (size_t)p * AM_PANEL, b.bias = a.bias + (size_t)p * AM_PANEL;
            (a.scale ? code_tile_of_values : code_tile_of_keys)(&b, rows, wide);
        }
    }
}

/* ---- keys ---- */

/* Inputs k to k + 3 of a panel. */
INLINE quad keys_four(const uint8_t *panel, uint32_t n_in, uint32_t k, const am_dtype dtype) {
    quad q = dtype == AM_C8 ? q_four(panel + (size_t)k * AM_PANEL) : q_pairs(panel + (size_t)k / 2 * AM_PANEL);
    if (dtype != AM_C5) return q;
    uint64_t fifth;
    memcpy(&fifth, panel + 8 * (size_t)n_in + 2 * k, sizeof fifth);
    return q_fifth(q, fifth);
}

INLINE void keys_open_as(uint8_t *to, const uint8_t *panel, uint32_t n_in, uint32_t k0, uint32_t n, const am_dtype dtype) {
    for (uint32_t k = k0; k < k0 + n; k += 4, to += 4 * AM_PANEL) q_store(to, keys_four(panel, n_in, k, dtype));
}

/* Inputs [k0, k0 + n) of a panel of keys. */
static void keys_open(uint8_t *to, const am_mat *w, uint32_t panel, uint32_t k0, uint32_t n) {
    const uint8_t *codes = mat_channel_codes(w, panel);
    switch (w->dtype) {
    case AM_C8: keys_open_as(to, codes, w->n_in, k0, n, AM_C8); break;
    case AM_C5: keys_open_as(to, codes, w->n_in, k0, n, AM_C5); break;
    default: keys_open_as(to, codes, w->n_in, k0, n, AM_C4);
    }
}

/* The queries of a tile with the scales of channels [k0, k0 + n) of a group. */
static void keys_rows(code_rows *rows, const float *x, size_t ldx, size_t n_rows, const uint16_t *channels, uint32_t n_in, uint32_t k0, uint32_t n, int middle) {
    _Alignas(64) float scale[AM_RUN], bias[AM_RUN], scaled[AM_RUN];
    channels_load(scale, bias, channels, n_in, k0, n);
    for (uint32_t i = 0; i < n; i += LANES) v_store(bias + i, v_fma(v_load(scale + i), v_set((float)middle), v_load(bias + i)));
    for (uint32_t i = 0; i < n_rows; i++) {
        vec rest = v_zero();
        for (uint32_t k = 0; k < n; k += LANES) {
            vec q = v_load(x + i * ldx + k0 + k);
            rest = v_fma(q, v_load(bias + k), rest);
            v_store(scaled + k, v_mul(q, v_load(scale + k)));
        }
        rows->rest[i] = v_sum(rest);
        code_row(rows, i, scaled, n, middle);
    }
}

static void keys_int8(float *y, size_t ldy, const float *x, size_t ldx, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    _Alignas(64) uint8_t open[CODE_PANELS * AM_RUN * AM_PANEL];
    code_rows rows;
    uint32_t group_panels = w->group / AM_PANEL;
    for (size_t r = 0, count; r < n_rows; r += count, x += count * ldx, y += count * ldy) {
        count = n_rows - r < CODE_ROWS ? n_rows - r : CODE_ROWS;
        for (uint32_t p = p0, end; p < p1; p = end) {
            end = (p / group_panels + 1) * group_panels < p1 ? (p / group_panels + 1) * group_panels : p1;
            for (uint32_t k0 = 0, n; k0 < w->n_in; k0 += n) {
                n = w->n_in - k0 < AM_RUN ? w->n_in - k0 : AM_RUN;
                keys_rows(&rows, x, ldx, count, mat_channels(w, p), w->n_in, k0, n, code_middle(w->dtype));
                code_tile a = {.ldy = ldy, .x = &rows, .n = (n + AM_INT8_RUN - 1) / AM_INT8_RUN * AM_INT8_RUN, .codes = open, .fresh = k0 == 0};
                for (uint32_t q = p, panels; q < end; q += panels) {
                    panels = end - q < CODE_PANELS ? end - q : CODE_PANELS;
                    for (uint32_t i = 0; i < panels; i++) keys_open(open + (size_t)i * AM_RUN * AM_PANEL, w, q + i, k0, n);
                    a.y = y + (size_t)q * AM_PANEL;
                    code_tiles(a, count, panels);
                }
            }
        }
    }
}

/* ---- values ---- */

/* The fifth bits of 16 dimensions from d on of four rows. */
INLINE uint64_t values_fifth(const uint8_t *row, size_t stride, uint32_t dim, uint32_t d) {
    return row_fifth(row, dim, d) | row_fifth(row + stride, dim, d) << 16 | (uint64_t)row_fifth(row + 2 * stride, dim, d) << 32 |
           (uint64_t)row_fifth(row + 3 * stride, dim, d) << 48;
}

/* Dimensions [d, d + 16 * panels) of n rows from t on. */
INLINE void values_open_as(uint8_t *to, const am_rows *v, uint32_t t, uint32_t n, uint32_t d, uint32_t panels, const am_dtype dtype) {
    size_t stride = channel_row_bytes(dtype, v->dim);
    for (const uint8_t *row = rows_channel_codes(v, t); n; n -= 4, row += 4 * stride, to += 4 * AM_PANEL)
        for (uint32_t p = 0; p < panels; p++) {
            uint32_t at = d + p * AM_PANEL;
            quad q = q_rows(row + (dtype == AM_C8 ? at : at / 32 * 16), stride);
            if (dtype != AM_C8) q = at % 32 ? q_high(q) : q_low(q);
            if (dtype == AM_C5) q = q_fifth(q, values_fifth(row, stride, v->dim, at));
            if (dtype == AM_C8) q = q_signed(q);
            q_store(to + (size_t)p * AM_RUN * AM_PANEL, q);
        }
}

static void values_open(uint8_t *to, const am_rows *v, uint32_t t, uint32_t n, uint32_t d, uint32_t panels) {
    switch (v->dtype) {
    case AM_C8: values_open_as(to, v, t, n, d, panels, AM_C8); break;
    case AM_C5: values_open_as(to, v, t, n, d, panels, AM_C5); break;
    default: values_open_as(to, v, t, n, d, panels, AM_C4);
    }
}

/* As code_row: n, whole runs, of numbers that are not below 0. */
static void code_row_unsigned(code_rows *rows, uint32_t i, const float *x, uint32_t n, int middle) {
    for (uint32_t k = 0, run = 0; k < n; k += AM_INT8_RUN, run++) {
        uint8_t *code = rows->code[i] + k;
        vec most = v_zero();
        for (int j = 0; j < AM_INT8_RUN; j += LANES) most = v_max(most, v_load(x + k + j));
        float largest = v_most(most), inverse = largest > 0 ? 255 / largest : 0;
        for (int j = 0; j < AM_INT8_RUN; j += LANES) v_store_u8(code + j, v_mul(v_load(x + k + j), v_set(inverse)));
        rows->scale[i][run] = largest / 255;
        rows->start[i][run] = -middle * (u_sum(code) + u_sum(code + 16));
    }
}

/* p of tokens [t, t + n), 0 outside [t0, t1). */
static void values_rows(code_rows *rows, const float *p, size_t ld_p, size_t n_rows, uint32_t t, uint32_t n, uint32_t t0, uint32_t t1, int middle) {
    uint32_t from = t0 > t ? t0 - t : 0, to = t1 < t + n ? t1 - t : n;
    for (uint32_t i = 0; i < n_rows; i++) {
        _Alignas(64) float part[CODE_TOKENS] = {0};
        const float *x = p + i * ld_p + t;
        if (to - from < n) {
            memcpy(part + from, x + from, (to - from) * sizeof *x);
            x = part;
        }
        vec sum = v_zero();
        for (uint32_t k = 0; k < n; k += LANES) sum = v_add(sum, v_load(x + k));
        rows->rest[i] = v_sum(sum);
        code_row_unsigned(rows, i, x, n, middle);
    }
}

/* Dimensions [d, d + 16 * panels) of n keys from t on, where those are the values: 16 of 16 tokens are four quads, which change places. */
INLINE void latent_open_as(uint8_t *to, const am_mat *k, uint32_t t, uint32_t n, uint32_t d, uint32_t panels, const am_dtype dtype) {
    for (uint32_t i = 0; i < n; i += AM_PANEL, to += AM_PANEL * AM_PANEL) {
        const uint8_t *codes = mat_channel_codes(k, (t + i) / AM_PANEL);
        for (uint32_t p = 0; p < panels; p++) {
            quad q[4];
            UNROLL for (uint32_t j = 0; j < 4; j++) {
                q[j] = keys_four(codes, k->n_in, d + p * AM_PANEL + 4 * j, dtype);
                if (dtype == AM_C8) q[j] = q_signed(q[j]);
            }
            q_cross(to + (size_t)p * AM_RUN * AM_PANEL, q);
        }
    }
}

static void latent_open(uint8_t *to, const am_mat *k, uint32_t t, uint32_t n, uint32_t d, uint32_t panels) {
    switch (k->dtype) {
    case AM_C8: latent_open_as(to, k, t, n, d, panels, AM_C8); break;
    case AM_C5: latent_open_as(to, k, t, n, d, panels, AM_C5); break;
    default: latent_open_as(to, k, t, n, d, panels, AM_C4);
    }
}

/* Where values are: in rows of their own, or in keys. */
typedef struct code_values {
    const am_rows *rows;
    const am_mat *keys;
    uint32_t dims;
} code_values;

static void values_int8(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const code_values *v, uint32_t t0, uint32_t t1) {
    _Alignas(64) uint8_t open[CODE_PANELS * AM_RUN * AM_PANEL];
    _Alignas(64) float scale[CODE_PANELS * AM_PANEL], bias[CODE_PANELS * AM_PANEL];
    code_rows rows;
    uint32_t group = v->rows ? v->rows->group : v->keys->group, n_channels = v->rows ? v->rows->dim : v->keys->n_in, run = group < CODE_TOKENS ? group : CODE_TOKENS;
    am_dtype dtype = v->rows ? v->rows->dtype : v->keys->dtype;
    int middle = code_middle(dtype);
    for (size_t r = 0, count; r < n_q; r += count, p += count * ld_p, acc += count * ld_acc) {
        count = n_q - r < CODE_ROWS ? n_q - r : CODE_ROWS;
        for (uint32_t t = t0 / run * run; t < t1; t += run) {
            const uint16_t *channels = v->rows ? rows_channels(v->rows, t) : mat_channels(v->keys, t / AM_PANEL);
            values_rows(&rows, p, ld_p, count, t, run, t0, t1, dtype == AM_C8 ? 0 : middle);
            for (uint32_t d = 0, panels; d < v->dims; d += panels * AM_PANEL) {
                panels = (v->dims - d) / AM_PANEL < CODE_PANELS ? (v->dims - d) / AM_PANEL : CODE_PANELS;
                if (v->rows) values_open(open, v->rows, t, run, d, panels);
                else latent_open(open, v->keys, t, run, d, panels);
                channels_load(scale, bias, channels, n_channels, d, panels * AM_PANEL);
                for (uint32_t i = 0; i < panels * AM_PANEL; i += LANES) v_store(bias + i, v_fma(v_load(scale + i), v_set((float)middle), v_load(bias + i)));
                code_tiles((code_tile){.y = acc + d, .ldy = ld_acc, .x = &rows, .n = run, .codes = open, .scale = scale, .bias = bias}, count, panels);
            }
        }
    }
}

static void matmul_or_keys(float *y, size_t ldy, const float *x, size_t ldx, size_t n_rows, const am_mat *w, uint32_t p0, uint32_t p1) {
    (dtype_channels(w->dtype) ? keys_int8 : matmul)(y, ldy, x, ldx, n_rows, w, p0, p1);
}

static void rows_or_values(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_rows *v, uint32_t t0, uint32_t t1) {
    if (dtype_channels(v->dtype))
        values_int8(acc, ld_acc, p, ld_p, n_q, &(code_values){.rows = v, .dims = v->dim}, t0, t1);
    else
        rows_accumulate(acc, ld_acc, p, ld_p, n_q, v, t0, t1);
}

static void mat_or_latent(float *acc, size_t ld_acc, const float *p, size_t ld_p, size_t n_q, const am_mat *k, uint32_t dims, uint32_t t0, uint32_t t1) {
    if (dtype_channels(k->dtype))
        values_int8(acc, ld_acc, p, ld_p, n_q, &(code_values){.keys = k, .dims = dims}, t0, t1);
    else
        mat_accumulate(acc, ld_acc, p, ld_p, n_q, k, dims, t0, t1);
}
