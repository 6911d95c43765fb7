/* Owns the bytes of a block: where each layer's and head's part lies, how a token's rows get in, how a full block is sealed, and the
 * compact form of open rows that goes to disk. The layout is stated in kv.h; attention reads it through am_kv_k and am_kv_v alone.
 *
 * Keys lie transposed in panels, so a new token is one lane of a panel: put scatters, seal gathers 16 tokens at a time. Everything
 * here is a pure function of its inputs: the same rows give the same sealed bytes on every table (conversion and quantisation are
 * specified to the bit), which is what lets blocks be named by content and move between machines. */
#include "kernels/kv.h"

#include "kernels/tables.h"

enum { CHUNK = 256 }; /* values converted at a time, on the stack */

static am_dtype open_dtype(uint32_t bits) { return bits == 32 ? AM_F32 : AM_F16; }
static am_dtype sealed_dtype(uint32_t bits) { return bits == 4 ? AM_C4 : bits == 5 ? AM_C5 : bits == 8 ? AM_C8 : open_dtype(bits); }
static bool bits_known(uint32_t bits) { return bits == 32 || bits == 16 || bits == 8 || bits == 5 || bits == 4; }
static bool group_known(uint32_t group) { return group == 32 || group == 64 || group == 128 || group == 256; }

/* Bytes of one head's part: a multiple of 64, since dimensions are of 16 and a block has 256 tokens. A dimension is at most
 * AM_KV_MAX_DIM, so nothing overflows. */
static size_t k_bytes(const am_kv_spec *s, am_dtype dtype) {
    return am_mat_bytes(&(am_mat){.dtype = dtype, .n_out = AM_BLOCK_TOKENS, .n_in = s->head_dim_k, .group = s->group_k});
}
static size_t v_bytes(const am_kv_spec *s, am_dtype dtype) {
    if (s->shared) return 0;
    return am_rows_bytes(&(am_rows){.dtype = dtype, .n_rows = AM_BLOCK_TOKENS, .dim = s->head_dim_v, .group = s->group_v});
}

static am_status spec_check(const am_kv_spec *s, am_error *err) {
    if (!s->n_layer || !s->n_kv_head) return am_fail(err, AM_EINVAL, "cache spec: %u layers, %u KV heads", s->n_layer, s->n_kv_head);
    if (!bits_known(s->bits_k) || !bits_known(s->bits_v))
        return am_fail(err, AM_EINVAL, "cache spec: K and V bits must be 4, 5, 8, 16 or 32, not %u and %u", s->bits_k, s->bits_v);
    if (!group_known(s->group_k) || !group_known(s->group_v))
        return am_fail(err, AM_EINVAL, "cache spec: K and V groups must be 32, 64, 128 or 256 tokens, not %u and %u", s->group_k, s->group_v);
    if (!s->head_dim_k || !s->head_dim_v || s->head_dim_k % 16 || s->head_dim_v % 16 || s->head_dim_k > AM_KV_MAX_DIM ||
        s->head_dim_v > AM_KV_MAX_DIM)
        return am_fail(err, AM_EUNSUPPORTED, "cache spec: head dimensions must be multiples of 16 up to %d, not %u (K) and %u (V)",
                       AM_KV_MAX_DIM, s->head_dim_k, s->head_dim_v);
    if (s->shared && (s->head_dim_v > s->head_dim_k || s->bits_v != s->bits_k || s->group_v != s->group_k))
        return am_fail(err, AM_EINVAL, "cache spec: values that are part of keys have their bits and groups, and at most their dimensions");
    if (s->n_layer > AM_KV_MAX_LAYERS) return am_fail(err, AM_EUNSUPPORTED, "cache spec: %u layers, at most %d are possible", s->n_layer, AM_KV_MAX_LAYERS);
    if (s->window == 1) return am_fail(err, AM_EINVAL, "cache spec: a window of 1 token");
    return AM_OK;
}

static bool has_window(const am_kv_spec *s, uint32_t layer) { return s->window && s->windowed[layer / 64] >> layer % 64 & 1; }

static uint32_t common_divisor(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Layers by part, global ones first, so many to a unit that both parts are whole numbers of them. */
static void parts_init(am_kv_layout *l) {
    const am_kv_spec *s = &l->spec;
    for (uint32_t i = 0; i < s->n_layer; i++) l->part_layers[has_window(s, i) ? AM_KV_WINDOW : AM_KV_GLOBAL]++;
    uint32_t unit_layers = common_divisor(l->part_layers[AM_KV_GLOBAL], l->part_layers[AM_KV_WINDOW]);
    uint32_t at[AM_KV_PARTS] = {0, l->part_layers[AM_KV_GLOBAL]};
    for (uint32_t i = 0; i < s->n_layer; i++) {
        uint32_t place = at[has_window(s, i) ? AM_KV_WINDOW : AM_KV_GLOBAL]++;
        l->place[i].unit = (uint16_t)(place / unit_layers);
        l->place[i].layer = (uint16_t)(place % unit_layers);
    }
    for (int part = 0; part < AM_KV_PARTS; part++) l->part_units[part] = l->part_layers[part] / unit_layers;
    l->n_units = s->n_layer / unit_layers;
    l->unit_bytes = unit_layers * l->sealed_layer_bytes;
    l->reach = s->window ? (s->window - 1 + AM_BLOCK_TOKENS - 1) / AM_BLOCK_TOKENS : 0;
}

am_status am_kv_layout_init(am_kv_layout *layout, const am_kv_spec *spec, am_error *err) {
    am_kv_layout l = {.spec = *spec};
    am_kv_spec *s = &l.spec;
    if (!s->group_k) s->group_k = AM_KV_GROUP;
    if (!s->group_v) s->group_v = AM_KV_GROUP;
    am_status status = spec_check(s, err);
    if (status) return status;
    l.open_k_bytes = k_bytes(s, open_dtype(s->bits_k));
    l.open_v_bytes = v_bytes(s, open_dtype(s->bits_v));
    l.sealed_k_bytes = k_bytes(s, sealed_dtype(s->bits_k));
    l.sealed_v_bytes = v_bytes(s, sealed_dtype(s->bits_v));
    if (!am_size_mul(s->n_kv_head, l.open_k_bytes + l.open_v_bytes, &l.open_layer_bytes) ||
        !am_size_mul(s->n_kv_head, l.sealed_k_bytes + l.sealed_v_bytes, &l.sealed_layer_bytes) ||
        !am_size_mul(s->n_layer, l.open_layer_bytes, &l.open_bytes) ||
        !am_size_mul(s->n_layer, l.sealed_layer_bytes, &l.sealed_bytes))
        return am_fail(err, AM_ELIMIT, "cache spec: a block of %u layers x %u heads does not fit the address space", s->n_layer,
                       s->n_kv_head);
    parts_init(&l);
    l.rotate_k = s->bits_k <= 8 && !s->unrotated;
    l.rotate_v = s->bits_v <= 8 && !s->unrotated;
    *layout = l;
    return AM_OK;
}

void am_kv_rotate_k(const am_kv_layout *layout, float *x, size_t n_heads) {
    const am_kv_spec *s = &layout->spec;
    if (!layout->rotate_k) return;
    if (!s->shared) {
        am_hadamard(x, n_heads, s->head_dim_k);
        return;
    }
    for (size_t h = 0; h < n_heads; h++, x += s->head_dim_k) {
        am_hadamard(x, 1, s->head_dim_v);
        am_hadamard(x + s->head_dim_v, 1, s->head_dim_k - s->head_dim_v);
    }
}

void am_kv_rotate_v(const am_kv_layout *layout, float *x, size_t n_heads) {
    if (layout->rotate_v) am_hadamard(x, n_heads, layout->spec.head_dim_v);
}

am_kv_part am_kv_part_of(const am_kv_layout *layout, uint32_t layer) { return has_window(&layout->spec, layer) ? AM_KV_WINDOW : AM_KV_GLOBAL; }

uint32_t am_kv_reach(const am_kv_layout *layout, uint32_t n_past) {
    uint32_t window = layout->spec.window;
    if (!window) return n_past / AM_BLOCK_TOKENS;
    return n_past >= window ? (n_past + 1 - window) / AM_BLOCK_TOKENS : 0;
}

const void *am_kv_open_layer(const am_kv_layout *layout, const void *open, uint32_t layer) {
    return (const uint8_t *)open + layer * layout->open_layer_bytes;
}

const void *am_kv_sealed_layer(const am_kv_layout *layout, const void *const *units, uint32_t layer) {
    return (const uint8_t *)units[layout->place[layer].unit] + layout->place[layer].layer * layout->sealed_layer_bytes;
}

void am_kv_units_of(const am_kv_layout *layout, void *sealed, void **units) {
    for (uint32_t i = 0; i < layout->n_units; i++) units[i] = (uint8_t *)sealed + i * layout->unit_bytes;
}

am_mat am_kv_k(const am_kv_layout *layout, const void *layer, bool sealed, uint32_t head) {
    const am_kv_spec *s = &layout->spec;
    size_t head_bytes = sealed ? layout->sealed_k_bytes + layout->sealed_v_bytes : layout->open_k_bytes + layout->open_v_bytes;
    return (am_mat){
        .dtype = sealed ? sealed_dtype(s->bits_k) : open_dtype(s->bits_k),
        .n_out = AM_BLOCK_TOKENS,
        .n_in = s->head_dim_k,
        .group = s->group_k,
        .data = (const uint8_t *)layer + head * head_bytes,
    };
}

am_rows am_kv_v(const am_kv_layout *layout, const void *layer, bool sealed, uint32_t head) {
    const am_kv_spec *s = &layout->spec;
    size_t k = sealed ? layout->sealed_k_bytes : layout->open_k_bytes, v = sealed ? layout->sealed_v_bytes : layout->open_v_bytes;
    return (am_rows){
        .dtype = sealed ? sealed_dtype(s->bits_v) : open_dtype(s->bits_v),
        .n_rows = AM_BLOCK_TOKENS,
        .dim = s->head_dim_v,
        .group = s->group_v,
        .data = (const uint8_t *)layer + head * (k + v) + k,
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
    const void *at_layer = am_kv_open_layer(layout, open, layer);
    for (uint32_t head = 0; head < s->n_kv_head; head++, k += s->head_dim_k, v += s->head_dim_v) {
        am_mat k_part = am_kv_k(layout, at_layer, false, head);
        am_rows v_part = am_kv_v(layout, at_layer, false, head);
        size_t at = (size_t)row * v_part.dim;
        k_put(kernels, &k_part, row, k);
        if (s->shared) continue;
        if (v_part.dtype == AM_F32)
            memcpy((float *)(uintptr_t)v_part.data + at, v, v_part.dim * sizeof *v);
        else
            kernels->f32_to_f16((uint16_t *)(uintptr_t)v_part.data + at, v, v_part.dim);
    }
}

void am_kv_seal(const am_kernels *kernels, const am_kv_layout *layout, const void *open, void *const *units, uint32_t layer) {
    const void *from = am_kv_open_layer(layout, open, layer), *to = am_kv_sealed_layer(layout, (const void *const *)units, layer);
    for (uint32_t head = 0; head < layout->spec.n_kv_head; head++) {
        am_mat k = am_kv_k(layout, from, false, head), k_sealed = am_kv_k(layout, to, true, head);
        am_rows v = am_kv_v(layout, from, false, head), v_sealed = am_kv_v(layout, to, true, head);
        if (k.dtype == k_sealed.dtype)
            memcpy((void *)(uintptr_t)k_sealed.data, k.data, layout->open_k_bytes);
        else
            kernels->seal_keys(&k_sealed, k.data);
        if (layout->spec.shared) continue;
        if (v.dtype == v_sealed.dtype)
            memcpy((void *)(uintptr_t)v_sealed.data, v.data, layout->open_v_bytes);
        else
            kernels->seal_values(&v_sealed, v.data);
    }
}

/* Keys between their panels and rows [n_rows][dim]. The 16 rows of a panel stay in the nearest cache meanwhile, and a size that the compiler knows makes
 * each element one move: an agent's rows are read and written between two tokens of others. */
static inline void keys_move(uint8_t *panels, uint8_t *rows, uint32_t n_rows, uint32_t dim, const size_t size, const bool out) {
    for (uint32_t first = 0; first < n_rows; first += AM_PANEL, panels += AM_PANEL * dim * size, rows += AM_PANEL * dim * size) {
        uint32_t n = n_rows - first < AM_PANEL ? n_rows - first : AM_PANEL;
        for (uint32_t d = 0; d < dim; d++)
            for (uint32_t r = 0; r < n; r++) {
                uint8_t *row = rows + ((size_t)r * dim + d) * size, *lane = panels + ((size_t)d * AM_PANEL + r) * size;
                memcpy(out ? row : lane, out ? lane : row, size);
            }
    }
}

/* One layer's rows of one head. */
static inline void rows_move(const am_kv_layout *layout, const void *open, uint32_t n_rows, uint32_t piece, uint8_t *rows, const bool out) {
    const am_kv_spec *s = &layout->spec;
    const void *layer = am_kv_open_layer(layout, open, piece / s->n_kv_head);
    am_mat k = am_kv_k(layout, layer, false, piece % s->n_kv_head);
    am_rows v = am_kv_v(layout, layer, false, piece % s->n_kv_head);
    uint8_t *keys = (uint8_t *)(uintptr_t)k.data, *values = (uint8_t *)(uintptr_t)v.data;
    if (dtype_bytes(k.dtype) == 2) keys_move(keys, rows, n_rows, k.n_in, 2, out);
    else keys_move(keys, rows, n_rows, k.n_in, 4, out);
    rows += (size_t)n_rows * k.n_in * dtype_bytes(k.dtype);
    if (!s->shared) memcpy(out ? rows : values, out ? values : rows, (size_t)n_rows * v.dim * dtype_bytes(v.dtype));
}

uint32_t am_kv_rows_pieces(const am_kv_layout *layout) { return layout->spec.n_layer * layout->spec.n_kv_head; }

size_t am_kv_rows_bytes(const am_kv_layout *layout, uint32_t n_rows) {
    const am_kv_spec *s = &layout->spec;
    size_t row = s->head_dim_k * dtype_bytes(open_dtype(s->bits_k));
    if (!s->shared) row += s->head_dim_v * dtype_bytes(open_dtype(s->bits_v));
    return (size_t)am_kv_rows_pieces(layout) * n_rows * row;
}

void am_kv_rows_save(const am_kv_layout *layout, const void *open, uint32_t n_rows, void *dst) {
    size_t piece_bytes = am_kv_rows_bytes(layout, n_rows) / am_kv_rows_pieces(layout);
    for (uint32_t i = 0; i < am_kv_rows_pieces(layout); i++) rows_move(layout, open, n_rows, i, (uint8_t *)dst + i * piece_bytes, true);
}

void am_kv_rows_load(const am_kv_layout *layout, void *open, uint32_t n_rows, uint32_t piece, const void *src) {
    rows_move(layout, open, n_rows, piece, (uint8_t *)(uintptr_t)src, false);
}
