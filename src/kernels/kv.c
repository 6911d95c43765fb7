/* Owns the bytes of a block: where each layer's and head's part lies, how a token's rows get in, how a full block is sealed, and the
 * compact form of open rows that goes to disk. The layout is stated in kv.h; attention reads it through am_kv_k and am_kv_v alone.
 *
 * Keys lie transposed in panels, so a new token is one lane of a panel: put scatters, seal gathers 16 tokens at a time. Everything
 * here is a pure function of its inputs: the same rows give the same sealed bytes on every table (conversion and quantisation are
 * specified to the bit), which is what lets blocks be named by content and move between machines. */
#include "kernels/kv.h"

#include "kernels/tables.h"

enum { CHUNK = 256 }; /* values converted at a time, on the stack */

static uint32_t group_of(uint32_t dim) { return dim % 64 == 0 ? 64 : dim % 32 == 0 ? 32 : 16; }
static am_dtype open_dtype(uint32_t bits) { return bits == 32 ? AM_F32 : AM_F16; }
static am_dtype sealed_dtype(uint32_t bits) { return bits == 4 ? AM_Q4 : bits == 8 ? AM_Q8 : open_dtype(bits); }
static bool bits_known(uint32_t bits) { return bits == 32 || bits == 16 || bits == 8 || bits == 4; }

/* Bytes of AM_BLOCK_TOKENS x dim values; dim is at most AM_KV_MAX_DIM, so nothing overflows. */
static size_t part_bytes(am_dtype dtype, uint32_t dim, uint32_t group) {
    size_t n = (size_t)AM_BLOCK_TOKENS * dim;
    if (dtype == AM_F32) return 4 * n;
    if (dtype == AM_F16) return 2 * n;
    size_t bytes = 4 * (n / group) + (dtype == AM_Q4 ? n / 2 : n);
    return (bytes + 63) & ~(size_t)63;
}

static am_status spec_check(const am_kv_spec *s, am_error *err) {
    if (!s->n_layer || !s->n_kv_head) return am_fail(err, AM_EINVAL, "cache spec: %u layers, %u KV heads", s->n_layer, s->n_kv_head);
    if (!bits_known(s->bits_k) || !bits_known(s->bits_v))
        return am_fail(err, AM_EINVAL, "cache spec: K and V bits must be 4, 8, 16 or 32, not %u and %u", s->bits_k, s->bits_v);
    if (!s->head_dim_k || !s->head_dim_v || s->head_dim_k % 16 || s->head_dim_v % 16 || s->head_dim_k > AM_KV_MAX_DIM ||
        s->head_dim_v > AM_KV_MAX_DIM)
        return am_fail(err, AM_EUNSUPPORTED, "cache spec: head dimensions must be multiples of 16 up to %d, not %u (K) and %u (V)",
                       AM_KV_MAX_DIM, s->head_dim_k, s->head_dim_v);
    if (s->bits_v == 4 && s->head_dim_v % 32)
        return am_fail(err, AM_EUNSUPPORTED, "cache spec: 4-bit V needs a head dimension that 32 divides, not %u", s->head_dim_v);
    return AM_OK;
}

am_status am_kv_layout_init(am_kv_layout *layout, const am_kv_spec *spec, am_error *err) {
    am_status status = spec_check(spec, err);
    if (status) return status;
    am_kv_layout l = {.spec = *spec};
    am_kv_spec *s = &l.spec;
    s->group_k = group_of(s->head_dim_k);
    s->group_v = group_of(s->head_dim_v);
    l.open_k_bytes = part_bytes(open_dtype(s->bits_k), s->head_dim_k, s->group_k);
    l.open_v_bytes = part_bytes(open_dtype(s->bits_v), s->head_dim_v, s->group_v);
    l.sealed_k_bytes = part_bytes(sealed_dtype(s->bits_k), s->head_dim_k, s->group_k);
    l.sealed_v_bytes = part_bytes(sealed_dtype(s->bits_v), s->head_dim_v, s->group_v);
    if (!am_size_mul(s->n_kv_head, l.open_k_bytes + l.open_v_bytes, &l.open_layer_bytes) ||
        !am_size_mul(s->n_kv_head, l.sealed_k_bytes + l.sealed_v_bytes, &l.sealed_layer_bytes) ||
        !am_size_mul(s->n_layer, l.open_layer_bytes, &l.open_bytes) ||
        !am_size_mul(s->n_layer, l.sealed_layer_bytes, &l.sealed_bytes))
        return am_fail(err, AM_ELIMIT, "cache spec: a block of %u layers x %u heads does not fit the address space", s->n_layer,
                       s->n_kv_head);
    l.rotate_k = s->bits_k <= 8;
    l.rotate_v = s->bits_v <= 8;
    *layout = l;
    return AM_OK;
}

/* Start of one head's K part; its V part follows. */
static size_t head_offset(const am_kv_layout *l, bool sealed, uint32_t layer, uint32_t head) {
    size_t layer_bytes = sealed ? l->sealed_layer_bytes : l->open_layer_bytes;
    size_t head_bytes = sealed ? l->sealed_k_bytes + l->sealed_v_bytes : l->open_k_bytes + l->open_v_bytes;
    return layer * layer_bytes + head * head_bytes;
}

am_mat am_kv_k(const am_kv_layout *layout, const void *block, bool sealed, uint32_t layer, uint32_t head) {
    const am_kv_spec *s = &layout->spec;
    return (am_mat){
        .dtype = sealed ? sealed_dtype(s->bits_k) : open_dtype(s->bits_k),
        .scale_dtype = AM_F16,
        .n_out = AM_BLOCK_TOKENS,
        .n_in = s->head_dim_k,
        .group = s->group_k,
        .data = (const uint8_t *)block + head_offset(layout, sealed, layer, head),
    };
}

am_rows am_kv_v(const am_kv_layout *layout, const void *block, bool sealed, uint32_t layer, uint32_t head) {
    const am_kv_spec *s = &layout->spec;
    size_t k_bytes = sealed ? layout->sealed_k_bytes : layout->open_k_bytes;
    return (am_rows){
        .dtype = sealed ? sealed_dtype(s->bits_v) : open_dtype(s->bits_v),
        .n_rows = AM_BLOCK_TOKENS,
        .dim = s->head_dim_v,
        .group = s->group_v,
        .data = (const uint8_t *)block + head_offset(layout, sealed, layer, head) + k_bytes,
    };
}

/* Element (row, i) of a K part lies at [row / 16][i][row % 16]. */
static size_t k_index(uint32_t dim, uint32_t row, uint32_t i) {
    return ((size_t)(row / AM_PANEL) * dim + i) * AM_PANEL + row % AM_PANEL;
}

static void k_put(const am_kernels *kernels, const am_mat *part, uint32_t row, const float *k) {
    if (part->dtype == AM_F32) {
        float *to = (float *)(uintptr_t)part->data;
        for (uint32_t i = 0; i < part->n_in; i++) to[k_index(part->n_in, row, i)] = k[i];
        return;
    }
    uint16_t half[CHUNK], *to = (uint16_t *)(uintptr_t)part->data;
    for (uint32_t i = 0; i < part->n_in; i += CHUNK) {
        uint32_t n = part->n_in - i < CHUNK ? part->n_in - i : CHUNK;
        kernels->f32_to_f16(half, k + i, n);
        for (uint32_t j = 0; j < n; j++) to[k_index(part->n_in, row, i + j)] = half[j];
    }
}

void am_kv_put(const am_kernels *kernels, const am_kv_layout *layout, void *open, uint32_t layer, uint32_t row, const float *k,
               const float *v) {
    const am_kv_spec *s = &layout->spec;
    for (uint32_t head = 0; head < s->n_kv_head; head++, k += s->head_dim_k, v += s->head_dim_v) {
        am_mat k_part = am_kv_k(layout, open, false, layer, head);
        am_rows v_part = am_kv_v(layout, open, false, layer, head);
        size_t at = (size_t)row * v_part.dim;
        k_put(kernels, &k_part, row, k);
        if (v_part.dtype == AM_F32)
            memcpy((float *)(uintptr_t)v_part.data + at, v, v_part.dim * sizeof *v);
        else
            kernels->f32_to_f16((uint16_t *)(uintptr_t)v_part.data + at, v, v_part.dim);
    }
}

/* One group of inputs of one panel: 16 tokens gathered from lanes, quantised each for itself, their codes laid back into lanes. */
static void k_group_seal(const am_kernels *kernels, uint8_t *to, const uint16_t *from, uint32_t group, int bits) {
    float wide[64 * AM_PANEL], token[64];
    uint8_t codes[64], *to_codes = to + 2 * AM_PANEL * sizeof(uint16_t);
    uint16_t scale, bias;
    kernels->f16_to_f32(wide, from, (size_t)group * AM_PANEL);
    for (uint32_t j = 0; j < AM_PANEL; j++) {
        for (uint32_t i = 0; i < group; i++) token[i] = wide[i * AM_PANEL + j];
        kernels->quantise(codes, &scale, &bias, token, group, bits);
        memcpy(to + j * sizeof scale, &scale, sizeof scale);
        memcpy(to + (AM_PANEL + j) * sizeof bias, &bias, sizeof bias);
        if (bits == 8)
            for (uint32_t i = 0; i < group; i++) to_codes[i * AM_PANEL + j] = codes[i];
        else
            for (uint32_t i = 0; i < group; i += 2) to_codes[i / 2 * AM_PANEL + j] = (uint8_t)(codes[i] | codes[i + 1] << 4);
    }
}

static void k_seal(const am_kernels *kernels, const am_mat *to, const am_mat *from) {
    uint8_t *out = (uint8_t *)(uintptr_t)to->data;
    const uint16_t *in = from->data;
    size_t n_groups = (size_t)am_mat_panels(to) * (to->n_in / to->group), bytes = mat_group_bytes(to);
    for (size_t g = 0; g < n_groups; g++, out += bytes, in += (size_t)to->group * AM_PANEL)
        k_group_seal(kernels, out, in, to->group, to->dtype == AM_Q8 ? 8 : 4);
}

static void v_seal(const am_kernels *kernels, const am_rows *to, const am_rows *from) {
    uint16_t *scale = (uint16_t *)(uintptr_t)rows_scale(to, 0), *bias = (uint16_t *)(uintptr_t)rows_bias(to, 0);
    uint8_t *out = (uint8_t *)(uintptr_t)rows_codes(to, 0), codes[64];
    const uint16_t *in = from->data;
    float wide[64];
    size_t n_groups = (size_t)to->n_rows * (to->dim / to->group);
    for (size_t g = 0; g < n_groups; g++, in += to->group) {
        kernels->f16_to_f32(wide, in, to->group);
        if (to->dtype == AM_Q8) {
            kernels->quantise(out, scale + g, bias + g, wide, to->group, 8);
            out += to->group;
            continue;
        }
        kernels->quantise(codes, scale + g, bias + g, wide, to->group, 4);
        for (uint32_t d = 0; d < to->group; d += 32)
            for (uint32_t j = 0; j < 16; j++) *out++ = (uint8_t)(codes[d + j] | codes[d + 16 + j] << 4);
    }
}

void am_kv_seal(const am_kernels *kernels, const am_kv_layout *layout, const void *open, void *sealed, uint32_t layer) {
    for (uint32_t head = 0; head < layout->spec.n_kv_head; head++) {
        am_mat k = am_kv_k(layout, open, false, layer, head), k_sealed = am_kv_k(layout, sealed, true, layer, head);
        am_rows v = am_kv_v(layout, open, false, layer, head), v_sealed = am_kv_v(layout, sealed, true, layer, head);
        if (k.dtype == k_sealed.dtype)
            memcpy((void *)(uintptr_t)k_sealed.data, k.data, layout->open_k_bytes);
        else
            k_seal(kernels, &k_sealed, &k);
        if (v.dtype == v_sealed.dtype)
            memcpy((void *)(uintptr_t)v_sealed.data, v.data, layout->open_v_bytes);
        else
            v_seal(kernels, &v_sealed, &v);
    }
}

size_t am_kv_rows_bytes(const am_kv_layout *layout, uint32_t n_rows) {
    const am_kv_spec *s = &layout->spec;
    size_t row = s->head_dim_k * dtype_bytes(open_dtype(s->bits_k)) + s->head_dim_v * dtype_bytes(open_dtype(s->bits_v));
    return (size_t)s->n_layer * s->n_kv_head * n_rows * row;
}

void am_kv_rows_save(const am_kv_layout *layout, const void *open, uint32_t n_rows, void *dst) {
    const am_kv_spec *s = &layout->spec;
    uint8_t *to = dst;
    for (size_t i = 0; i < (size_t)s->n_layer * s->n_kv_head; i++) {
        am_mat k = am_kv_k(layout, open, false, (uint32_t)(i / s->n_kv_head), (uint32_t)(i % s->n_kv_head));
        am_rows v = am_kv_v(layout, open, false, (uint32_t)(i / s->n_kv_head), (uint32_t)(i % s->n_kv_head));
        size_t size = dtype_bytes(k.dtype), v_bytes = (size_t)n_rows * v.dim * dtype_bytes(v.dtype);
        for (uint32_t row = 0; row < n_rows; row++)
            for (uint32_t d = 0; d < k.n_in; d++, to += size)
                memcpy(to, (const uint8_t *)k.data + k_index(k.n_in, row, d) * size, size);
        memcpy(to, v.data, v_bytes);
        to += v_bytes;
    }
}

void am_kv_rows_load(const am_kv_layout *layout, void *open, uint32_t n_rows, const void *src) {
    const am_kv_spec *s = &layout->spec;
    const uint8_t *from = src;
    for (size_t i = 0; i < (size_t)s->n_layer * s->n_kv_head; i++) {
        am_mat k = am_kv_k(layout, open, false, (uint32_t)(i / s->n_kv_head), (uint32_t)(i % s->n_kv_head));
        am_rows v = am_kv_v(layout, open, false, (uint32_t)(i / s->n_kv_head), (uint32_t)(i % s->n_kv_head));
        size_t size = dtype_bytes(k.dtype), v_bytes = (size_t)n_rows * v.dim * dtype_bytes(v.dtype);
        for (uint32_t row = 0; row < n_rows; row++)
            for (uint32_t d = 0; d < k.n_in; d++, from += size)
                memcpy((uint8_t *)(uintptr_t)k.data + k_index(k.n_in, row, d) * size, from, size);
        memcpy((void *)(uintptr_t)v.data, from, v_bytes);
        from += v_bytes;
    }
}
