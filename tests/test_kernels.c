/* kernels/: every table of this machine against sums in double, against bounds stated here, and against itself bit for bit where
 * invariant 1 asks for it. All buffers lie between guard pages, flush with one and then with the other. */
#include "kernel_rig.h"

#include <float.h>
#include <math.h>

static float *floats(size_t n) { return guarded_alloc(n * sizeof(float), 4, side); }
static float *random_floats(size_t n) {
    float *p = floats(n);
    for (size_t i = 0; i < n; i++) p[i] = next_float();
    return p;
}

static float scale_value(am_dtype dtype, const uint8_t *p, size_t i) {
    if (dtype == AM_F32) return ((const float *)(const void *)p)[i];
    uint16_t h = ((const uint16_t *)(const void *)p)[i];
    return dtype == AM_F16 ? am_f16_to_f32(h) : am_bf16_to_f32(h);
}

static void scale_store(am_dtype dtype, uint8_t *p, size_t i, float value) {
    if (dtype == AM_F32)
        ((float *)(void *)p)[i] = value;
    else
        ((uint16_t *)(void *)p)[i] = dtype == AM_F16 ? am_f32_to_f16(value) : am_f32_to_bf16(value);
}

static size_t size_of(am_dtype dtype) { return dtype == AM_F32 ? 4 : dtype == AM_S8 ? 1 : 2; }

/* A random matrix, packed, and its values row by row as doubles, computed here from the unpacked form. */
typedef struct sample {
    am_mat mat;
    double *value; /* [n_out][n_in]; free() */
} sample;

static void sample_plain(sample *s) {
    size_t n = (size_t)s->mat.n_out * s->mat.n_in;
    uint8_t *src = guarded_alloc(n * size_of(s->mat.dtype), size_of(s->mat.dtype), side);
    for (size_t i = 0; i < n; i++) {
        scale_store(s->mat.dtype, src, i, next_float());
        s->value[i] = scale_value(s->mat.dtype, src, i);
    }
    am_pack_plain((void *)(uintptr_t)s->mat.data, &s->mat, src, 0, am_mat_panels(&s->mat));
}

/* A scale, or with the one above it: f16 of 256 inputs times a byte less 128. */
static double worth_of(const am_mat *m, const uint8_t *scales, const uint8_t *upper, size_t i) {
    if (m->scale_dtype != AM_S8) return (double)scale_value(m->scale_dtype, scales, i);
    return (double)scale_value(AM_F16, upper, i * m->group / 256) * (scales[i] - 128);
}

static void sample_quantised(sample *s) {
    const am_mat *m = &s->mat;
    uint32_t bits = m->dtype == AM_Q4 ? 4 : 8, per_word = 32 / bits, kept = m->dtype == AM_Q5 ? 0x1f1f1f1f : m->dtype == AM_Q6 ? 0x3f3f3f3f : UINT32_MAX;
    size_t n_groups = (size_t)m->n_out * (m->n_in / m->group), n = (size_t)m->n_out * m->n_in, n_upper = n / 256;
    uint8_t *scales = guarded_alloc(n_groups * size_of(m->scale_dtype), size_of(m->scale_dtype), side);
    uint8_t *biases = guarded_alloc(n_groups * size_of(m->scale_dtype), size_of(m->scale_dtype), side);
    uint8_t *upper = guarded_alloc(n_upper * 2, 2, side), *upper_bias = guarded_alloc(n_upper * 2, 2, side);
    uint32_t *codes = guarded_alloc(n / per_word * 4, 4, side);
    bool levels = m->scale_dtype == AM_S8;
    for (size_t i = 0; i < n_groups; i++) {
        if (levels) {
            scales[i] = (uint8_t)next_u32(), biases[i] = (uint8_t)next_u32();
            continue;
        }
        scale_store(m->scale_dtype, scales, i, (next_float() + 1.5f) / 16.0f);
        scale_store(m->scale_dtype, biases, i, m->zero_point ? NAN : next_float()); /* what is not to be read shows */
    }
    for (size_t i = 0; levels && i < n_upper; i++) {
        scale_store(AM_F16, upper, i, next_float() / 1024);
        scale_store(AM_F16, upper_bias, i, m->zero_point ? NAN : next_float() / 128);
    }
    for (size_t i = 0; i < n / per_word; i++) codes[i] = next_u32() & kept;
    for (size_t i = 0; i < n; i++) {
        uint32_t code = codes[i / per_word] >> (i % per_word * bits) & ((1u << bits) - 1);
        if (m->book) code = am_books[m->book][code];
        double scale = worth_of(m, scales, upper, i / m->group);
        s->value[i] = scale * code + (m->zero_point ? -scale * m->zero_point : worth_of(m, biases, upper_bias, i / m->group));
    }
    if (levels) am_pack_levels((void *)(uintptr_t)m->data, m, (uint16_t *)(void *)upper, (uint16_t *)(void *)upper_bias, 0, am_mat_panels(m));
    uint32_t half = am_mat_panels(m) / 2; /* workers share the panels */
    am_pack_affine((void *)(uintptr_t)m->data, m, codes, scales, biases, half, am_mat_panels(m));
    am_pack_affine((void *)(uintptr_t)m->data, m, codes, scales, biases, 0, half);
}

static bool channels_of(am_dtype dtype) { return dtype == AM_C8 || dtype == AM_C5 || dtype == AM_C4; }

/* Scales and biases of one group of n channels. */
static void channels_fill(uint8_t *group, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        scale_store(AM_F16, group, i, (next_float() + 1.5f) / 16.0f);
        scale_store(AM_F16, group, n + i, next_float());
    }
}

static double channel_value(const uint8_t *group, uint32_t n, uint32_t i, uint32_t code) {
    return (double)scale_value(AM_F16, group, i) * code + scale_value(AM_F16, group, n + i);
}

/* Bits are laid down here as kernels.h states them. */
static void sample_channels(sample *s) {
    const am_mat *m = &s->mat;
    uint32_t n = m->n_in, bits = m->dtype == AM_C8 ? 8 : m->dtype == AM_C5 ? 5 : 4;
    size_t panel_bytes = (size_t)2 * n * bits, group_bytes = 4 * (size_t)n + m->group / 16 * panel_bytes;
    for (uint32_t o = 0; o < m->n_out; o++) {
        uint8_t *group = (uint8_t *)(uintptr_t)m->data + o / m->group * group_bytes, *panel = group + 4 * n + o % m->group / 16 * panel_bytes;
        if (o % m->group == 0) {
            memset(group, 0, group_bytes);
            channels_fill(group, n);
        }
        for (uint32_t i = 0; i < n; i++) {
            uint32_t code = next_u32() >> (32 - bits);
            if (bits == 8) panel[i * 16 + o % 16] = (uint8_t)code;
            else panel[i / 2 * 16 + o % 16] |= (uint8_t)((code & 15) << 4 * (i % 2));
            if (bits == 5) panel[8 * n + 2 * i + o % 16 / 8] |= (uint8_t)(code >> 4 << o % 8);
            s->value[(size_t)o * n + i] = channel_value(group, n, i, code);
        }
    }
}

/* An odd number of groups a row, or of outputs where scales have two levels: with a zero point of half the codes. */
static sample sample_create(am_dtype dtype, am_dtype scale_dtype, uint32_t n_out, uint32_t n_in, uint32_t group, am_book book) {
    sample s = {.mat = {.dtype = dtype, .scale_dtype = scale_dtype, .n_out = n_out, .n_in = n_in, .group = group, .book = book}};
    if (am_dtype_quantised(dtype) && (scale_dtype == AM_S8 ? n_out : n_in / group) % 2)
        s.mat.zero_point = book == AM_BOOK_IQ4 || dtype == AM_Q8 ? 128 : dtype == AM_Q6 ? 32 : dtype == AM_Q5 ? 16 : 8;
    size_t bytes = am_mat_bytes(&s.mat);
    uint8_t *data = guarded_alloc(bytes, 64, side);
    memset(data, 0xa5, bytes); /* packing must write every byte, padding lanes too */
    s.mat.data = data;
    s.value = malloc((size_t)n_out * n_in * sizeof *s.value);
    if (am_dtype_quantised(dtype))
        sample_quantised(&s);
    else if (channels_of(dtype))
        sample_channels(&s);
    else
        sample_plain(&s);
    return s;
}

static double middle_of(am_dtype dtype) { return dtype == AM_C8 ? 128 : dtype == AM_C5 ? 16 : 8; }

/* What rounding n values of at most 1 in size to so many levels costs in their products with codes of at most `middle` off their middle, times scales of at
 * most 2.5/16 (channels_fill). */
enum { KEY_LEVELS = 127, VALUE_LEVELS = 255 };
static double rounding_of(const am_kernels *k, am_dtype dtype, double n, double levels) {
    return k->rounds_attention && channels_of(dtype) ? n * 0.501 / levels * 2.5 / 16 * middle_of(dtype) : 0;
}

/* Bound of a product: each of n_in multiply-adds and the 3 roundings of unpacking err by at most 2^-24 of the running sum of
 * magnitudes; a code's value scale * code + bias is itself a sum, so it counts with |scale * code| + |bias| <= 4 (see sample). */
static void product_check(const am_kernels *k, const sample *s, const float *x, const float *y) {
    for (uint32_t o = 0; o < s->mat.n_out; o++) {
        double sum = 0, magnitude = 0;
        for (uint32_t i = 0; i < s->mat.n_in; i++) {
            double w = s->value[(size_t)o * s->mat.n_in + i];
            sum += x[i] * w;
            magnitude += fabs(x[i]) * (s->mat.group ? fabs(w) + 4 * (s->mat.dtype == AM_Q8 || s->mat.dtype == AM_C8 || s->mat.book ? 12 : s->mat.dtype == AM_Q4 || channels_of(s->mat.dtype) ? 1 : 4) : fabs(w));
        }
        double bound = (s->mat.n_in + 3) * 0x1p-24 * magnitude * 1.01 + rounding_of(k, s->mat.dtype, s->mat.n_in, KEY_LEVELS);
        if (fabs(y[o] - sum) > bound)
            fail_msg("%s: output %u of %ux%u dtype %d: %g, should be %g +- %g", k->name, o, s->mat.n_out, s->mat.n_in,
                     (int)s->mat.dtype, (double)y[o], sum, bound);
    }
}

static void matmul_case(const am_kernels *k, const sample *s, size_t n_rows) {
    size_t ldx = s->mat.n_in + 3, ldy = s->mat.n_out + 5; /* rows unaligned; the last row ends at the guard page */
    uint32_t panels = am_mat_panels(&s->mat);
    float *x = random_floats((n_rows - 1) * ldx + s->mat.n_in), *y = random_floats((n_rows - 1) * ldy + s->mat.n_out);
    float *gap = malloc(n_rows * ldy * sizeof *gap);
    memcpy(gap, y, ((n_rows - 1) * ldy + s->mat.n_out) * sizeof *y);
    k->matmul(y, ldy, x, ldx, n_rows, &s->mat, 0, panels);
    float *one = floats(s->mat.n_out);
    for (size_t r = 0; r < n_rows; r++) {
        product_check(k, s, x + r * ldx, y + r * ldy);
        if (r + 1 < n_rows) assert_memory_equal(gap + r * ldy + s->mat.n_out, y + r * ldy + s->mat.n_out, 5 * sizeof *y);
        uint32_t cut = below(panels + 1), cut2 = cut + below(panels - cut + 1); /* a row alone, panels over three calls */
        k->matmul(one, s->mat.n_out, x + r * ldx, ldx, 1, &s->mat, cut2, panels);
        k->matmul(one, s->mat.n_out, x + r * ldx, ldx, 1, &s->mat, 0, cut);
        k->matmul(one, s->mat.n_out, x + r * ldx, ldx, 1, &s->mat, cut, cut2);
        assert_memory_equal(one, y + r * ldy, s->mat.n_out * sizeof *y);
    }
    free(gap);
}

static void mat_row_case(const am_kernels *k, const sample *s) {
    float *row = floats(s->mat.n_in);
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t o = i == 0 ? 0 : i == 1 ? s->mat.n_out - 1 : below(s->mat.n_out);
        k->mat_row(row, &s->mat, o);
        for (uint32_t j = 0; j < s->mat.n_in; j++)
            assert_true(fabs(row[j] - s->value[(size_t)o * s->mat.n_in + j]) <= (s->mat.group ? 0x1p-22 * 20 : 0));
    }
}

static const struct { am_dtype dtype, scale; uint32_t n_out, n_in, group; am_book book; } shapes[] = {
    {AM_F32, 0, 1, 1, 0, 0},        {AM_F32, 0, 37, 77, 0, 0},          {AM_F32, 0, 256, 300, 0, 0},       {AM_F16, 0, 50, 63, 0, 0},
    {AM_F16, 0, 256, 64, 0, 0},     {AM_BF16, 0, 17, 515, 0, 0},        {AM_BF16, 0, 160, 129, 0, 0},      {AM_Q4, AM_F16, 16, 64, 64, 0},
    {AM_Q4, AM_BF16, 47, 576, 64, 0}, {AM_Q4, AM_F32, 130, 320, 32, 0}, {AM_Q4, AM_F16, 256, 48, 16, 0},   {AM_Q4, AM_F16, 95, 640, 128, 0},
    {AM_Q8, AM_F16, 33, 320, 64, 0}, {AM_Q8, AM_BF16, 144, 96, 32, 0},  {AM_Q8, AM_F32, 20, 384, 128, 0},  {AM_Q8, AM_F16, 256, 80, 16, 0},
    {AM_C8, 0, 256, 64, 128, 0},     {AM_C5, 0, 256, 64, 128, 0},       {AM_C4, 0, 256, 128, 64, 0},       {AM_C4, 0, 96, 48, 32, 0},
    {AM_C5, 0, 256, 576, 256, 0},    {AM_C8, 0, 128, 80, 32, 0},
    {AM_Q6, AM_S8, 47, 512, 16, 0},  {AM_Q6, AM_F16, 80, 48, 16, 0},    {AM_Q6, AM_BF16, 130, 384, 64, 0}, {AM_Q5, AM_S8, 96, 256, 32, 0},
    {AM_Q5, AM_S8, 33, 512, 32, 0},  {AM_Q5, AM_F16, 70, 128, 128, 0},  {AM_Q4, AM_S8, 64, 768, 32, 0},    {AM_Q4, AM_S8, 65, 256, 16, 0},
    {AM_Q4, AM_F16, 47, 96, 32, AM_BOOK_IQ4}, {AM_Q4, AM_S8, 33, 512, 32, AM_BOOK_IQ4},           {AM_Q4, AM_BF16, 160, 320, 32, AM_BOOK_MXFP4},
};

static void products_are_right_and_the_same_for_any_batch_and_split(void **state) {
    (void)state;
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        sample s = sample_create(shapes[i / 2].dtype, shapes[i / 2].scale, shapes[i / 2].n_out, shapes[i / 2].n_in, shapes[i / 2].group, shapes[i / 2].book);
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            for (size_t rows = 1; rows <= 17; rows++) matmul_case(*k, &s, rows);
            mat_row_case(*k, &s);
        }
        free(s.value);
        guarded_free_all();
    }
}

/* What a softmax leaves: none is below 0. */
static float *random_weights(size_t n) {
    float *p = random_floats(n);
    for (size_t i = 0; i < n; i++) p[i] = fabsf(p[i]);
    return p;
}

/* Random rows for rows_accumulate and their values. */
static am_rows rows_create(am_dtype dtype, uint32_t n_rows, uint32_t dim, uint32_t group, double *value) {
    am_rows v = {.dtype = dtype, .n_rows = n_rows, .dim = dim, .group = group};
    size_t bytes = am_rows_bytes(&v), row_bytes = dtype == AM_C8 ? dim : (dim + 31) / 32 * 16 + (dtype == AM_C5 ? dim / 8 : 0);
    uint8_t *data = guarded_alloc(bytes, 64, side);
    v.data = data;
    for (size_t i = 0; !group && i < (size_t)n_rows * dim; i++) {
        scale_store(dtype, data, i, next_float());
        value[i] = scale_value(dtype, data, i);
    }
    for (uint32_t t = 0; group && t < n_rows; t++) {
        uint8_t *channels = data + t / group * (4 * dim + group * row_bytes), *row = channels + 4 * dim + t % group * row_bytes;
        if (t % group == 0) channels_fill(channels, dim);
        memset(row, 0, row_bytes);
        for (uint32_t d = 0; d < dim; d++) {
            uint32_t code = next_u32() >> (dtype == AM_C8 ? 24 : dtype == AM_C5 ? 27 : 28);
            if (dtype == AM_C8) row[d] = (uint8_t)code;
            else row[d / 32 * 16 + d % 16] |= (uint8_t)((code & 15) << (d % 32 < 16 ? 0 : 4));
            if (dtype == AM_C5) row[(dim + 31) / 32 * 16 + d / 8] |= (uint8_t)(code >> 4 << d % 8);
            value[(size_t)t * dim + d] = channel_value(channels, dim, d, code);
        }
    }
    return v;
}

static void rows_case(const am_kernels *k, const am_rows *v, const double *value, size_t n_q, uint32_t t0, uint32_t t1) {
    size_t ld_p = v->n_rows + 1, ld_acc = v->dim + 3;
    float *p = random_weights((n_q - 1) * ld_p + v->n_rows), *acc = random_floats((n_q - 1) * ld_acc + v->dim);
    size_t n_acc = (n_q - 1) * ld_acc + v->dim;
    float *before = malloc(n_acc * sizeof *before), *one = floats(v->dim);
    memcpy(before, acc, n_acc * sizeof *acc);
    k->rows_accumulate(acc, ld_acc, p, ld_p, n_q, v, t0, t1);
    for (size_t q = 0; q < n_q; q++) {
        memcpy(one, before + q * ld_acc, v->dim * sizeof *one);
        for (uint32_t t = t0, next; t < t1; t = next) { /* this query alone, [t0, t1) in random pieces */
            next = t + 1 + below(t1 - t);
            if (k->rounds_attention && v->group) next = (next + v->group - 1) / v->group * v->group < t1 ? (next + v->group - 1) / v->group * v->group : t1;
            k->rows_accumulate(one, v->dim, p + q * ld_p, ld_p, 1, v, t, next);
        }
        assert_memory_equal(one, acc + q * ld_acc, v->dim * sizeof *one);
        if (q + 1 < n_q) assert_memory_equal(before + q * ld_acc + v->dim, acc + q * ld_acc + v->dim, 3 * sizeof *acc);
        for (uint32_t d = 0; d < v->dim; d++) {
            double sum = before[q * ld_acc + d], magnitude = fabs(sum);
            for (uint32_t t = t0; t < t1; t++) {
                sum += p[q * ld_p + t] * value[(size_t)t * v->dim + d];
                magnitude += fabs(p[q * ld_p + t]) * (fabs(value[(size_t)t * v->dim + d]) + (v->group ? 48 : 0));
            }
            assert_true(fabs(acc[q * ld_acc + d] - sum) <= (t1 - t0 + 4) * 0x1p-24 * magnitude * 1.01 + rounding_of(k, v->dtype, t1 - t0, VALUE_LEVELS));
        }
    }
    free(before);
}

static void rows_are_right_and_the_same_for_any_split_and_any_queries(void **state) {
    (void)state;
    static const struct { am_dtype dtype; uint32_t n_rows, dim, group; } cases[] = {
        {AM_F32, 300, 16, 0},  {AM_F32, 77, 176, 0},  {AM_F16, 256, 64, 0},  {AM_F16, 40, 48, 0},   {AM_C8, 256, 64, 128},
        {AM_C8, 96, 48, 32},   {AM_C8, 64, 160, 64},  {AM_C4, 256, 128, 64}, {AM_C4, 256, 64, 256}, {AM_C4, 32, 96, 32},
        {AM_C4, 256, 80, 128}, {AM_C5, 128, 16, 64},  {AM_C5, 256, 64, 128}, {AM_C5, 256, 112, 128},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        uint32_t n_rows = cases[i / 2].n_rows;
        double *value = malloc((size_t)n_rows * cases[i / 2].dim * sizeof *value);
        am_rows v = rows_create(cases[i / 2].dtype, n_rows, cases[i / 2].dim, cases[i / 2].group, value);
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            for (size_t n_q = 1; n_q <= 17; n_q += n_q < 9 ? 1 : 4) {
                uint32_t t0 = below(n_rows / 2);
                rows_case(*k, &v, value, n_q, t0, t0 + below(n_rows - t0 + 1));
            }
            rows_case(*k, &v, value, 3, 0, n_rows);
        }
        free(value);
        guarded_free_all();
    }
}

/* Bound: as for rows, with at most 16 + 5 roundings in a lane and its tree for each 256 tokens. */
static void mat_accumulate_case(const am_kernels *k, const sample *s, size_t n_q, uint32_t t0, uint32_t t1) {
    uint32_t n_rows = s->mat.n_out, dims = s->mat.n_in / 2 * 2;
    size_t ld_p = n_rows + 16, ld_acc = dims + 3;
    float *p = random_weights(n_q * ld_p), *acc = random_floats((n_q - 1) * ld_acc + dims), *one = floats(dims);
    float *before = malloc(((n_q - 1) * ld_acc + dims) * sizeof *before);
    memcpy(before, acc, ((n_q - 1) * ld_acc + dims) * sizeof *acc);
    for (size_t q = 0; q < n_q; q++)
        for (uint32_t t = 0; t < ld_p; t++)
            if (t < t0 || t >= t1) p[q * ld_p + t] = 0;
    k->mat_accumulate(acc, ld_acc, p, ld_p, n_q, &s->mat, dims, t0, t1);
    for (size_t q = 0; q < n_q; q++) {
        memcpy(one, before + q * ld_acc, dims * sizeof *one);
        k->mat_accumulate(one, dims, p + q * ld_p, ld_p, 1, &s->mat, dims, t0, t1);
        assert_memory_equal(one, acc + q * ld_acc, dims * sizeof *one);
        for (uint32_t d = 0; d < dims; d++) {
            double sum = before[q * ld_acc + d], magnitude = fabs(sum);
            for (uint32_t t = t0; t < t1; t++) {
                sum += p[q * ld_p + t] * s->value[(size_t)t * s->mat.n_in + d];
                magnitude += fabs(p[q * ld_p + t]) * (fabs(s->value[(size_t)t * s->mat.n_in + d]) + (s->mat.group ? 48 : 0));
            }
            assert_true(fabs(acc[q * ld_acc + d] - sum) <= 32 * 0x1p-24 * magnitude + rounding_of(k, s->mat.dtype, t1 - t0, VALUE_LEVELS));
        }
    }
    free(before);
}

static void values_in_keys_are_right_and_the_same_for_any_queries(void **state) {
    (void)state;
    static const struct { am_dtype dtype; uint32_t n_out, n_in, group; } cases[] = {
        {AM_F32, 256, 48, 0}, {AM_F16, 256, 96, 0}, {AM_C8, 256, 80, 128}, {AM_C5, 256, 288, 128}, {AM_C4, 256, 64, 64},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        sample s = sample_create(cases[i / 2].dtype, AM_F16, cases[i / 2].n_out, cases[i / 2].n_in, cases[i / 2].group, AM_BOOK_NONE);
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            for (size_t n_q = 1; n_q <= 9; n_q += 2) {
                uint32_t t0 = below(s.mat.n_out);
                mat_accumulate_case(*k, &s, n_q, t0, t0 + below(s.mat.n_out - t0 + 1));
            }
            mat_accumulate_case(*k, &s, 3, 0, s.mat.n_out);
        }
        free(s.value);
        guarded_free_all();
    }
}

/* Values of their own and values in keys, sealed from the same numbers: where sums follow the rule of codes, the same bits. */
static void values_in_keys_have_the_bits_of_values_in_rows(void **state) {
    (void)state;
    enum { TOKENS = 256, DIM = 96, KEY = 112, QUERIES = 7 };
    static const am_dtype dtypes[] = {AM_C8, AM_C5, AM_C4};
    for (size_t i = 0; i < 2 * sizeof dtypes / sizeof dtypes[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        am_mat keys = {.dtype = dtypes[i / 2], .n_out = TOKENS, .n_in = KEY, .group = 128};
        am_rows rows = {.dtype = dtypes[i / 2], .n_rows = TOKENS, .dim = DIM, .group = 128};
        keys.data = guarded_alloc(am_mat_bytes(&keys), 64, side), rows.data = guarded_alloc(am_rows_bytes(&rows), 64, side);
        uint16_t *as_keys = guarded_alloc(2 * TOKENS * KEY, 64, side), *as_rows = guarded_alloc(2 * TOKENS * DIM, 64, side);
        float *p = random_weights(QUERIES * TOKENS), *acc = random_floats(QUERIES * DIM), *other = floats(QUERIES * DIM);
        for (uint32_t t = 0; t < TOKENS; t++)
            for (uint32_t d = 0; d < KEY; d++) {
                uint16_t value = am_f32_to_f16(next_float());
                as_keys[((size_t)(t / 16) * KEY + d) * 16 + t % 16] = value;
                if (d < DIM) as_rows[t * DIM + d] = value;
            }
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            if (!(*k)->rounds_attention) continue;
            uint32_t t0 = below(TOKENS), t1 = t0 + below(TOKENS - t0 + 1);
            for (uint32_t t = 0; t < QUERIES * TOKENS; t++)
                if (t % TOKENS < t0 || t % TOKENS >= t1) p[t] = 0;
            (*k)->seal_keys(&keys, as_keys);
            (*k)->seal_values(&rows, as_rows);
            memcpy(other, acc, QUERIES * DIM * sizeof *acc);
            (*k)->rows_accumulate(acc, DIM, p, TOKENS, QUERIES, &rows, t0, t1);
            (*k)->mat_accumulate(other, DIM, p, TOKENS, QUERIES, &keys, DIM, t0, t1);
            assert_memory_equal(acc, other, QUERIES * DIM * sizeof *acc);
        }
        guarded_free_all();
    }
}

static double capped(double s, double scale, double cap) { return cap == 0 ? s * scale : cap * tanh(s * scale / cap); }

/* One query in one run against double precision: p within 8e-6 relative (exp's 2 units, and the rounding of x - m at |x| < 32); a cap
 * adds the rounding of tanh near 1 times the cap, to x and to m. */
static void softmax_check(const am_softmax *step, size_t q, const float *s, float m, float l, const float *acc) {
    double top = m, sum = 0, slack = 8e-6 + 4e-7 * (double)step->softcap;
    uint32_t from = step->from[q], to = step->to[q];
    for (uint32_t t = from; t < to; t++) top = fmax(top, capped(s[t], step->scale, step->softcap));
    if (from >= to) top = m;
    double factor = m == -INFINITY ? 0 : exp(m - top);
    if (from >= to) factor = 1;
    for (uint32_t t = 0; t < step->n_keys; t++) {
        double p = t >= from && t < to ? exp(capped(s[t], step->scale, step->softcap) - top) : 0;
        if (t < from || t >= to) assert_true(step->s[q * step->ld + t] == 0.0f);
        assert_true(fabs(step->s[q * step->ld + t] - p) <= slack * p + 1e-37);
        sum += p;
    }
    assert_true(step->m[q] == (float)top || fabs(step->m[q] - top) <= 4e-7 * (fabs(top) + (double)step->softcap));
    assert_true(fabs(step->l[q] - (l * factor + sum)) <= slack * (l * factor + sum));
    for (uint32_t d = 0; d < step->dim; d++)
        assert_true(fabs(step->acc[q * step->ld_acc + d] - acc[d] * factor) <= slack * fabs(acc[d]) * factor + 1e-37);
}

static void softmax_case(const am_kernels *k, size_t n_q, uint32_t n_keys, float softcap, float reach) {
    uint32_t dim = 16 * (1 + below(8)), *from = guarded_alloc(n_q * 4, 4, side), *to = guarded_alloc(n_q * 4, 4, side);
    size_t ld = n_keys + 5, ld_acc = dim + 1;
    float *s = random_floats((n_q - 1) * ld + n_keys), *acc = random_floats((n_q - 1) * ld_acc + dim);
    float *m = floats(n_q), *l = floats(n_q), *s_one = floats(n_keys + 16), *acc_one = floats(dim);
    for (size_t i = 0; i < (n_q - 1) * ld + n_keys; i++) s[i] *= reach;
    float *s_before = malloc(((n_q - 1) * ld + n_keys) * 4), *acc_before = malloc(((n_q - 1) * ld_acc + dim) * 4);
    memcpy(acc_before, acc, ((n_q - 1) * ld_acc + dim) * 4);
    for (size_t q = 0; q < n_q; q++) {
        m[q] = q % 3 == 0 ? -INFINITY : next_float() * 8;
        l[q] = q % 3 == 0 ? 0 : 1 + below(5);
        from[q] = q % 4 == 0 ? 0 : below(n_keys + 1);
        to[q] = q % 4 == 1 ? from[q] : from[q] + below(n_keys - from[q] + 1);
        for (uint32_t t = 0; t < n_keys; t++)
            if (t < from[q] || t >= to[q]) s[q * ld + t] = NAN; /* what nobody has written yet may be anything */
    }
    memcpy(s_before, s, ((n_q - 1) * ld + n_keys) * 4);
    float *m_before = malloc(n_q * 4), *l_before = malloc(n_q * 4);
    memcpy(m_before, m, n_q * 4);
    memcpy(l_before, l, n_q * 4);
    am_softmax step = {.s = s, .ld = ld, .n_q = n_q, .n_keys = n_keys, .from = from, .to = to, .scale = 0.125f, .softcap = softcap,
                       .m = m, .l = l, .acc = acc, .ld_acc = ld_acc, .dim = dim};
    k->softmax_step(&step);
    for (size_t q = 0; q < n_q; q++) {
        softmax_check(&step, q, s_before + q * ld, m_before[q], l_before[q], acc_before + q * ld_acc);
        /* alone, and with 16 more keys that do not count: the same bits */
        memcpy(s_one, s_before + q * ld, n_keys * 4);
        for (uint32_t t = n_keys; t < n_keys + 16; t++) s_one[t] = NAN;
        memcpy(acc_one, acc_before + q * ld_acc, dim * 4);
        float m_one = m_before[q], l_one = l_before[q];
        am_softmax one = {.s = s_one, .ld = n_keys + 16, .n_q = 1, .n_keys = n_keys + 16, .from = from + q, .to = to + q, .scale = 0.125f,
                          .softcap = softcap, .m = &m_one, .l = &l_one, .acc = acc_one, .ld_acc = dim, .dim = dim};
        k->softmax_step(&one);
        assert_memory_equal(s_one, s + q * ld, n_keys * 4);
        assert_memory_equal(acc_one, acc + q * ld_acc, dim * 4);
        assert_memory_equal(&m_one, m + q, 4);
        assert_memory_equal(&l_one, l + q, 4);
    }
    free(s_before), free(acc_before), free(m_before), free(l_before);
}

static void softmax_is_right_and_the_same_for_any_queries(void **state) {
    (void)state;
    for (int i = 0; i < 24; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        for (const am_kernels *const *k = am_kernels_list(); *k; k++)
            softmax_case(*k, 1 + below(17), 16 * (1 + below(16)), i % 3 == 2 ? 30.0f : 0, i % 2 ? 40 : 200);
        guarded_free_all();
    }
}

static void norms_and_gates_are_right(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 7, 8, 15, 16, 17, 31, 33, 64, 100, 512, 1000};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        size_t n = sizes[i / 2];
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            float *x = random_floats(n), *w = random_floats(n), *dst = floats(n), *in_place = floats(n);
            double square = 0;
            for (size_t j = 0; j < n; j++) square += (double)x[j] * x[j];
            double inverse = 1 / sqrt(square / (double)n + 1e-5);
            (*k)->rmsnorm(dst, x, w, n, 1e-5f);
            for (size_t j = 0; j < n; j++) assert_true(fabs(dst[j] - x[j] * inverse * w[j]) <= 4e-6 * fabs(x[j] * inverse * w[j]));
            memcpy(in_place, x, n * 4);
            (*k)->rmsnorm(in_place, in_place, w, n, 1e-5f);
            assert_memory_equal(in_place, dst, n * 4);
            (*k)->rmsnorm(dst, x, NULL, n, 1e-5f);
            for (size_t j = 0; j < n; j++) assert_true(fabs(dst[j] - x[j] * inverse) <= 4e-6 * fabs(x[j] * inverse));

            for (size_t j = 0; j < n; j++) x[j] *= j % 5 == 4 ? 200.0f : 8.0f;
            (*k)->silu_mul(dst, x, w, n);
            for (size_t j = 0; j < n; j++) {
                double truth = x[j] / (1 + exp(-(double)x[j])) * w[j];
                assert_true(fabs(dst[j] - truth) <= 2e-6 * fabs(truth) + 1e-35);
                float alone;
                (*k)->silu_mul(&alone, x + j, w + j, 1); /* an element does not depend on its neighbours */
                assert_memory_equal(&alone, dst + j, 4);
            }
            memcpy(in_place, w, n * 4);
            (*k)->silu_mul(in_place, x, in_place, n);
            assert_memory_equal(in_place, dst, n * 4);
        }
        guarded_free_all();
    }
}

/* f16 stated from its definition: sign, exponent, fraction, by ldexp. */
static double f16_value(uint16_t h) {
    int e = h >> 10 & 31, f = h & 1023;
    double v = e == 0 ? ldexp(f, -24) : e == 31 ? (f ? NAN : INFINITY) : ldexp(1024 + f, e - 25);
    return h & 0x8000 ? -v : v;
}

/* The nearest finite f16, ties to even, found among the two neighbours of x. */
static uint16_t f16_nearest(float x) {
    if (isnan(x)) return 0;
    uint16_t sign = signbit(x) ? 0x8000 : 0, low = 0, high = 0x7bff;
    double a = fabs((double)x);
    if (a >= 65504) return sign | 0x7bff;
    while (high - low > 1) {
        uint16_t mid = (uint16_t)((low + high) / 2);
        if (f16_value(mid) <= a) low = mid; else high = mid;
    }
    double down = a - f16_value(low), up = f16_value(high) - a;
    return sign | (down < up || (down == up && low % 2 == 0) ? low : high);
}

static void halves_convert_to_the_bit(void **state) {
    (void)state;
    enum { N = 65536 };
    for (int i = 0; i < 2; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        uint16_t *h = guarded_alloc(N * 2, 2, side), *back = guarded_alloc(N * 2, 2, side);
        float *f = floats(N), *x = floats(N);
        for (uint32_t j = 0; j < N; j++) h[j] = (uint16_t)j;
        for (uint32_t j = 0; j < N; j++) { /* around every f16: itself, midpoints, their neighbours, and random bits */
            uint32_t bits = next_u32();
            memcpy(x + j, &bits, 4);
            double mid = (f16_value((uint16_t)j) + f16_value((uint16_t)(j + 1))) / 2;
            if (j % 4 == 0) x[j] = (float)mid;
            if (j % 4 == 1) x[j] = nextafterf((float)mid, j % 8 == 1 ? INFINITY : -INFINITY);
        }
        for (const am_kernels *const *k = am_kernels_list(); *k; k++) {
            (*k)->f16_to_f32(f, h, N);
            for (uint32_t j = 0; j < N; j++) {
                assert_true(f[j] == f16_value(h[j]) || (isnan(f[j]) && isnan(f16_value(h[j]))));
                assert_true(f[j] == am_f16_to_f32(h[j]) || isnan(f[j]));
            }
            (*k)->f32_to_f16(back, x, N);
            for (uint32_t j = 0; j < N; j++) {
                assert_int_equal(back[j], f16_nearest(x[j]));
                assert_int_equal(am_f32_to_f16(x[j]), back[j]);
            }
            for (size_t n = 0; n < 40; n++) (*k)->f32_to_f16(back + N - n, x + N - n, n), (*k)->f16_to_f32(f + N - n, h + N - n, n);
            for (size_t n = 0; n < 40; n++) assert_int_equal(back[N - 1 - n], f16_nearest(x[N - 1 - n]));
        }
        guarded_free_all();
    }
    assert_int_equal(am_f32_to_bf16(1.00390625f), 0x3f80); /* a tie, to even */
    assert_int_equal(am_f32_to_bf16(1.01171875f), 0x3f82);
    assert_true(isnan(am_bf16_to_f32(am_f32_to_bf16(NAN))));
    assert_true(am_bf16_to_f32(0xc049) == -3.140625f);
}

/* The header's sentence, in double with explicit roundings. */
static void quantise_truth(uint8_t *codes, uint16_t *scale, uint16_t *bias, const float *x, size_t n, int bits) {
    float top = (float)((1 << bits) - 1), low = x[0], high = x[0];
    for (size_t i = 0; i < n; i++) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    *bias = f16_nearest(low == 0 ? 0 : low);
    *scale = f16_nearest((high - low) / top);
    for (size_t i = 0; i < n; i++) {
        double s = f16_value(*scale), c = s == 0 ? 0 : rint((double)((float)(x[i] - (float)f16_value(*bias)) / (float)s));
        codes[i] = (uint8_t)(c < 0 ? 0 : c > (double)top ? (double)top : c);
    }
}

static uint32_t bits_of(am_dtype dtype) { return dtype == AM_C8 ? 8 : dtype == AM_C5 ? 5 : 4; }

/* The code of channel i, token t, by the header's layout. */
static uint8_t key_code(const am_mat *k, uint32_t i, uint32_t t) {
    const uint8_t *group = (const uint8_t *)k->data + t / k->group * (4 * (size_t)k->n_in + k->group * k->n_in * bits_of(k->dtype) / 8);
    const uint8_t *panel = group + 4 * (size_t)k->n_in + t % k->group / 16 * (2 * (size_t)k->n_in * bits_of(k->dtype));
    if (k->dtype == AM_C8) return panel[i * 16 + t % 16];
    uint32_t code = panel[i / 2 * 16 + t % 16] >> (i % 2 ? 4 : 0) & 15;
    if (k->dtype == AM_C5) code |= (uint32_t)(panel[8 * k->n_in + 2 * i + t % 16 / 8] >> t % 8 & 1) << 4;
    return (uint8_t)code;
}

static uint8_t value_code(const am_rows *v, uint32_t i, uint32_t t) {
    size_t nibbles = (v->dim + 31) / 32 * 16, row_bytes = v->dtype == AM_C8 ? v->dim : nibbles + (v->dtype == AM_C5 ? v->dim / 8 : 0);
    const uint8_t *group = (const uint8_t *)v->data + t / v->group * (4 * (size_t)v->dim + v->group * row_bytes);
    const uint8_t *row = group + 4 * (size_t)v->dim + t % v->group * row_bytes;
    if (v->dtype == AM_C8) return row[i];
    uint32_t code = row[i / 32 * 16 + i % 16] >> (i % 32 / 16 ? 4 : 0) & 15;
    if (v->dtype == AM_C5) code |= (uint32_t)(row[nibbles + i / 8] >> i % 8 & 1) << 4;
    return (uint8_t)code;
}

/* Channel i of a group, as it should be and as it lies there. */
static void channel_check(const uint16_t *channels, size_t dim, uint32_t i, const float *x, const uint8_t *codes, uint32_t n, uint32_t bits) {
    uint8_t truth[256];
    uint16_t scale, bias;
    quantise_truth(truth, &scale, &bias, x, n, (int)bits);
    assert_int_equal(channels[i], scale);
    assert_int_equal(channels[dim + i], bias);
    assert_memory_equal(codes, truth, n);
}

static void sealed_check(const am_mat *k, const am_rows *v, const uint16_t *keys, const uint16_t *values) {
    float x[256];
    uint8_t codes[256];
    for (uint32_t t0 = 0; t0 < 256; t0 += k->group)
        for (uint32_t i = 0; i < k->n_in; i++) {
            const uint8_t *k_group = (const uint8_t *)k->data + t0 / k->group * (am_mat_bytes(k) / (256 / k->group));
            const uint8_t *v_group = (const uint8_t *)v->data + t0 / v->group * (am_rows_bytes(v) / (256 / v->group));
            for (uint32_t t = t0; t < t0 + k->group; t++) x[t - t0] = (float)f16_value(keys[(t / 16 * k->n_in + i) * 16 + t % 16]), codes[t - t0] = key_code(k, i, t);
            channel_check((const uint16_t *)(const void *)k_group, k->n_in, i, x, codes, k->group, bits_of(k->dtype));
            for (uint32_t t = t0; t < t0 + v->group; t++) x[t - t0] = (float)f16_value(values[t * v->dim + i]), codes[t - t0] = value_code(v, i, t);
            channel_check((const uint16_t *)(const void *)v_group, v->dim, i, x, codes, v->group, bits_of(v->dtype));
        }
}

static void sealing_is_the_same_bits_everywhere(void **state) {
    (void)state;
    for (int i = 0; i < 300; i++) {
        side = i % 2 ? GUARD_AFTER : GUARD_BEFORE;
        static const am_dtype dtypes[] = {AM_C8, AM_C5, AM_C4};
        uint32_t dim = 16 + 16 * below(5), group = 32u << below(4);
        am_mat k = {.dtype = dtypes[i % 3], .n_out = 256, .n_in = dim, .group = group};
        am_rows v = {.dtype = k.dtype, .n_rows = 256, .dim = dim, .group = group};
        size_t k_bytes = am_mat_bytes(&k), v_bytes = am_rows_bytes(&v);
        uint16_t *from = guarded_alloc(1024 * (size_t)dim, 2, side), *keys = from, *values = from + 256 * dim;
        float *x = random_floats(512 * dim), reach = ldexpf(1, (int)below(30) - 20), shift = next_float() * reach * (float)below(3);
        for (uint32_t j = 0; j < 512 * dim; j++) {
            float y = x[j] * reach + shift;
            if (i % 20 == 0) y = shift;
            if (i % 20 == 1) y = j % 2 ? 0.0f : -0.0f;
            if (i % 20 == 2 && below(500) == 0) y = 60000;
            from[j] = f16_nearest((double)y);
        }
        uint8_t *k_to = guarded_alloc(k_bytes, 64, side), *v_to = guarded_alloc(v_bytes, 64, side), *k_first = malloc(k_bytes), *v_first = malloc(v_bytes);
        k.data = k_to, v.data = v_to;
        for (int poisoned = 0; poisoned < 2; poisoned++) {
            for (const am_kernels *const *table = am_kernels_list(); *table; table++) {
                memset(k_to, 0xff, k_bytes), memset(v_to, 0xff, v_bytes);
                (*table)->seal_keys(&k, keys);
                (*table)->seal_values(&v, values);
                if (!poisoned) sealed_check(&k, &v, keys, values);
                if (table == am_kernels_list()) memcpy(k_first, k_to, k_bytes), memcpy(v_first, v_to, v_bytes);
                assert_memory_equal(k_first, k_to, k_bytes);
                assert_memory_equal(v_first, v_to, v_bytes);
            }
            for (uint32_t j = 0; j < 2 * dim; j++) assert_true(f16_value(*(const uint16_t *)(const void *)(k_to + 2 * j)) < 65505 && f16_value(*(const uint16_t *)(const void *)(v_to + 2 * j)) < 65505);
            for (int j = 0; j < 9; j++) from[below(512 * dim)] = j % 3 ? 0x7e00 : i % 3 ? 0x7c00 : 0xfc00; /* poison: finite out of it, the same on every table */
        }
        free(k_first), free(v_first);
        guarded_free_all();
    }
}

static void hadamard_is_orthonormal_and_its_own_inverse(void **state) {
    (void)state;
    static const size_t dims[] = {1, 16, 48, 64, 80, 96, 128, 256};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        size_t dim = dims[i], run = dim & -dim;
        float *x = random_floats(3 * dim), *y = floats(3 * dim);
        memcpy(y, x, 3 * dim * 4);
        am_hadamard(y, 3, dim);
        for (size_t j = 0; j < 3 * dim; j++) { /* entry (a, b) of Sylvester's matrix: the parity of a & b */
            double sum = 0;
            for (size_t b = 0; b < run; b++)
                sum += x[j / run * run + b] * (__builtin_parityll(j % run & b) ? -1.0 : 1.0) / sqrt((double)run);
            assert_true(fabs(y[j] - sum) < 2e-6 * sqrt((double)run));
        }
        am_hadamard(y, 3, dim);
        for (size_t j = 0; j < 3 * dim; j++) assert_true(fabsf(y[j] - x[j]) < 2e-6f);
        guarded_free_all();
    }
}

static void a_table_is_picked_by_name_and_an_unknown_name_lists_them(void **state) {
    (void)state;
    const am_kernels *k = NULL;
    am_error err = {0};
    assert_int_equal(am_kernels_pick("scalar", &k, &err), AM_OK);
    assert_string_equal(k->name, "scalar");
    assert_int_equal(am_kernels_pick("", &k, &err), AM_OK);
    assert_ptr_equal(k, am_kernels_list()[0]);
    assert_int_equal(am_kernels_pick(NULL, &k, &err), AM_OK);
    assert_int_equal(am_kernels_pick("sse9", &k, &err), AM_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "sse9"));
    assert_non_null(strstr(err.message, "scalar"));
    for (const am_kernels *const *t = am_kernels_list(); *t; t++) printf("# table %s\n", (*t)->name);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_picked_by_name_and_an_unknown_name_lists_them),
        cmocka_unit_test(products_are_right_and_the_same_for_any_batch_and_split),
        cmocka_unit_test(rows_are_right_and_the_same_for_any_split_and_any_queries),
        cmocka_unit_test(values_in_keys_are_right_and_the_same_for_any_queries),
        cmocka_unit_test(values_in_keys_have_the_bits_of_values_in_rows),
        cmocka_unit_test(softmax_is_right_and_the_same_for_any_queries),
        cmocka_unit_test(norms_and_gates_are_right),
        cmocka_unit_test(halves_convert_to_the_bit),
        cmocka_unit_test(sealing_is_the_same_bits_everywhere),
        cmocka_unit_test(hadamard_is_orthonormal_and_its_own_inverse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
