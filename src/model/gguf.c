/* Owns the reading of GGUF headers. One cursor walks each file once and never passes its end; keys and tensors become sorted lists of views, so a
 * lookup is a binary search and a duplicate shows as two equal neighbours. */
#include "model/gguf.h"

#include "base/fs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SPLIT = 999, MAX_ARRAY_DEPTH = 4, MAX_ALIGNMENT = 1 << 20 };

typedef struct part {
    am_map map; /* empty for bytes of the caller */
    const uint8_t *p;
    size_t n;
    size_t number, of; /* which of how many split files; of 0: one alone */
} part;

struct am_gguf {
    part *parts;
    size_t n_parts;
    am_gguf_value *values; /* of the first part, sorted by key */
    size_t n_values;
    am_gguf_tensor *tensors; /* of all parts, sorted by name */
    size_t n_tensors;
};

typedef struct cursor {
    const uint8_t *p;
    size_t n, at;
    const char *file;
    am_error *err;
} cursor;

static const uint8_t kind_bytes[AM_GGUF_N_KIND] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static size_t left(const cursor *c) { return c->n - c->at; }

static uint64_t little(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static am_status take(cursor *c, size_t bytes, const char *what, uint64_t *out) {
    *out = 0;
    if (left(c) < bytes) return am_fail(c->err, AM_EFORMAT, "%s: ends inside %s at byte %zu", c->file, what, c->at);
    *out = little(c->p + c->at, bytes);
    c->at += bytes;
    return AM_OK;
}

static am_status take_string(cursor *c, const char *what, am_str *out) {
    uint64_t n;
    am_status status = take(c, 8, what, &n);
    if (status) return status;
    if (n > left(c))
        return am_fail(c->err, AM_EFORMAT, "%s: %s says %llu bytes, %zu are left", c->file, what, (unsigned long long)n, left(c));
    *out = (am_str){(const char *)c->p + c->at, (size_t)n};
    c->at += (size_t)n;
    return AM_OK;
}

static am_status skip_array(cursor *c, am_gguf_value *v, int depth);

/* Moves past one value of v->kind and notes where it lies. */
static am_status take_value(cursor *c, am_gguf_value *v, int depth) {
    if (v->kind >= AM_GGUF_N_KIND)
        return am_fail(c->err, AM_EFORMAT, "%s: key '%.*s' has unknown type %d", c->file, (int)v->key.n, v->key.p, (int)v->kind);
    if (v->kind == AM_GGUF_ARRAY) return skip_array(c, v, depth);
    if (v->kind == AM_GGUF_STRING) {
        am_str s;
        char what[96];
        snprintf(what, sizeof what, "key '%.*s': a string", (int)(v->key.n < 64 ? v->key.n : 64), v->key.p);
        am_status status = take_string(c, what, &s);
        if (status) return status;
        v->p = (const uint8_t *)s.p;
        v->n = s.n;
        return AM_OK;
    }
    uint64_t ignored;
    v->p = c->p + c->at;
    v->n = 1;
    return take(c, kind_bytes[v->kind], "a value", &ignored);
}

static am_status skip_array(cursor *c, am_gguf_value *v, int depth) {
    uint64_t kind, n;
    am_status status = take(c, 4, "an array's type", &kind);
    if (status || (status = take(c, 8, "an array's length", &n))) return status;
    if (kind >= AM_GGUF_N_KIND || depth >= MAX_ARRAY_DEPTH)
        return am_fail(c->err, AM_EFORMAT, "%s: key '%.*s': array of type %llu at depth %d", c->file, (int)v->key.n, v->key.p,
                       (unsigned long long)kind, depth);
    size_t least = kind == AM_GGUF_STRING ? 8 : kind == AM_GGUF_ARRAY ? 12 : kind_bytes[kind];
    if (n > left(c) / least)
        return am_fail(c->err, AM_EFORMAT, "%s: key '%.*s': %llu elements do not fit in the %zu bytes left", c->file, (int)v->key.n,
                       v->key.p, (unsigned long long)n, left(c));
    v->element = (am_gguf_kind)kind;
    v->n = n;
    v->p = c->p + c->at;
    if (kind != AM_GGUF_STRING && kind != AM_GGUF_ARRAY) {
        c->at += (size_t)n * least;
        return AM_OK;
    }
    for (uint64_t i = 0; i < n; i++) {
        am_gguf_value inner = {.key = v->key, .kind = (am_gguf_kind)kind};
        if ((status = take_value(c, &inner, depth + 1))) return status;
    }
    return AM_OK;
}

static int compare_str(am_str a, am_str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.p, b.p, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int compare_values(const void *a, const void *b) {
    return compare_str(((const am_gguf_value *)a)->key, ((const am_gguf_value *)b)->key);
}
static int compare_tensors(const void *a, const void *b) {
    return compare_str(((const am_gguf_tensor *)a)->name, ((const am_gguf_tensor *)b)->name);
}
static int compare_places(const void *a, const void *b) {
    const am_gguf_tensor *x = a, *y = b;
    return (x->p > y->p) - (x->p < y->p);
}

static am_status read_values(cursor *c, uint64_t n, am_gguf_value *values) {
    for (uint64_t i = 0; i < n; i++) {
        uint64_t kind;
        am_status status = take_string(c, "a key", &values[i].key);
        if (status || (status = take(c, 4, "a key's type", &kind))) return status;
        if (values[i].key.n == 0 || values[i].key.n > 65535)
            return am_fail(c->err, AM_EFORMAT, "%s: key %llu has a name of %zu bytes", c->file, (unsigned long long)i, values[i].key.n);
        values[i].kind = kind < AM_GGUF_N_KIND ? (am_gguf_kind)kind : AM_GGUF_N_KIND;
        if ((status = take_value(c, &values[i], 0))) return status;
    }
    qsort(values, (size_t)n, sizeof *values, compare_values);
    for (uint64_t i = 1; i < n; i++)
        if (compare_values(&values[i - 1], &values[i]) == 0)
            return am_fail(c->err, AM_EFORMAT, "%s: key '%.*s' stands twice", c->file, (int)values[i].key.n, values[i].key.p);
    return AM_OK;
}

/* One directory entry; *offset from the start of the data. */
static am_status read_tensor(cursor *c, am_gguf_tensor *t, uint64_t *offset) {
    uint64_t n_dim, type, count = 1, bytes;
    am_status status = take_string(c, "a tensor's name", &t->name);
    if (status || (status = take(c, 4, "a tensor's dimensions", &n_dim))) return status;
    int name_n = (int)(t->name.n < 200 ? t->name.n : 200);
    if (t->name.n == 0 || n_dim < 1 || n_dim > 4)
        return am_fail(c->err, AM_EFORMAT, "%s: tensor '%.*s' has %llu dimensions", c->file, name_n, t->name.p, (unsigned long long)n_dim);
    t->n_dim = (uint32_t)n_dim;
    for (uint32_t i = 0; i < 4; i++) {
        t->shape[i] = 1;
        if (i < n_dim && (status = take(c, 8, "a tensor's shape", &t->shape[i]))) return status;
        if (t->shape[i] == 0 || __builtin_mul_overflow(count, t->shape[i], &count) || count > (uint64_t)INT64_MAX / 16)
            return am_fail(c->err, AM_EFORMAT, "%s: tensor '%.*s': dimension %u is %llu", c->file, name_n, t->name.p, i,
                           (unsigned long long)t->shape[i]);
    }
    if ((status = take(c, 4, "a tensor's type", &type)) || (status = take(c, 8, "a tensor's offset", offset))) return status;
    t->format = am_ggml_format_of((uint32_t)type);
    if (!t->format)
        return am_fail(c->err, AM_EUNSUPPORTED, "%s: tensor '%.*s' has ggml type %llu", c->file, name_n, t->name.p, (unsigned long long)type);
    if (t->shape[0] % t->format->block != 0)
        return am_fail(c->err, AM_EFORMAT, "%s: tensor '%.*s': rows of %llu are no multiple of %s's %u", c->file, name_n, t->name.p,
                       (unsigned long long)t->shape[0], t->format->name, t->format->block);
    bytes = count / t->format->block * t->format->block_bytes;
    t->n_bytes = bytes;
    return AM_OK;
}

/* Directory entries lie before the data, so they are read with their offsets first and get their places afterwards. */
static am_status read_tensors(cursor *c, uint64_t n, uint64_t alignment, am_gguf_tensor *tensors) {
    uint64_t *offsets = am_calloc((size_t)n, sizeof *offsets);
    if (!offsets) return am_fail(c->err, AM_ENOMEM, "%s: no memory for %llu tensors", c->file, (unsigned long long)n);
    am_status status = AM_OK;
    for (uint64_t i = 0; !status && i < n; i++) status = read_tensor(c, &tensors[i], &offsets[i]);
    uint64_t data = (c->at + alignment - 1) / alignment * alignment;
    for (uint64_t i = 0; !status && i < n; i++) {
        am_gguf_tensor *t = &tensors[i];
        if (offsets[i] % alignment != 0 || data > c->n || offsets[i] > c->n - data || t->n_bytes > c->n - data - offsets[i])
            status = am_fail(c->err, AM_EFORMAT, "%s: tensor '%.*s': %llu bytes at offset %llu do not lie in the file's data", c->file,
                             (int)(t->name.n < 200 ? t->name.n : 200), t->name.p, (unsigned long long)t->n_bytes,
                             (unsigned long long)offsets[i]);
        else
            t->p = c->p + data + offsets[i];
    }
    free(offsets);
    if (status) return status;
    qsort(tensors, (size_t)n, sizeof *tensors, compare_places);
    for (uint64_t i = 1; i < n; i++)
        if (tensors[i - 1].p + tensors[i - 1].n_bytes > tensors[i].p)
            return am_fail(c->err, AM_EFORMAT, "%s: tensors '%.*s' and '%.*s' overlap", c->file, (int)tensors[i - 1].name.n,
                           tensors[i - 1].name.p, (int)tensors[i].name.n, tensors[i].name.p);
    return AM_OK;
}

static am_status read_head(cursor *c, uint64_t *n_tensors, uint64_t *n_values) {
    uint64_t magic, version;
    am_status status = take(c, 4, "the magic", &magic);
    if (status || (status = take(c, 4, "the version", &version))) return status;
    if (magic != 0x46554747) return am_fail(c->err, AM_EFORMAT, "%s: does not begin with GGUF", c->file);
    if (version == 1)
        return am_fail(c->err, AM_EUNSUPPORTED, "%s: GGUF version 1 (32-bit lengths) is not supported; convert the file to version 3", c->file);
    if (version == 2u << 24 || version == 3u << 24) return am_fail(c->err, AM_EUNSUPPORTED, "%s: big-endian GGUF is not supported", c->file);
    if (version != 2 && version != 3)
        return am_fail(c->err, AM_EUNSUPPORTED, "%s: GGUF version %llu is not known", c->file, (unsigned long long)version);
    if ((status = take(c, 8, "the tensor count", n_tensors)) || (status = take(c, 8, "the key count", n_values))) return status;
    /* the shortest key has 13 bytes, the shortest tensor 33 */
    if (*n_values > left(c) / 13 || *n_tensors > left(c) / 33)
        return am_fail(c->err, AM_EFORMAT, "%s: %llu keys and %llu tensors do not fit in %zu bytes", c->file,
                       (unsigned long long)*n_values, (unsigned long long)*n_tensors, c->n);
    return AM_OK;
}

static const am_gguf_value *find_value(const am_gguf_value *values, size_t n, const char *key) {
    am_gguf_value wanted = {.key = am_str_of(key)};
    return n ? bsearch(&wanted, values, n, sizeof *values, compare_values) : NULL;
}

static am_status alignment_of(const am_gguf_value *values, size_t n, const cursor *c, uint64_t *out) {
    const am_gguf_value *v = find_value(values, n, "general.alignment");
    *out = 32;
    if (!v) return AM_OK;
    if (v->kind == AM_GGUF_U32) *out = little(v->p, 4);
    if (v->kind != AM_GGUF_U32 || *out == 0 || (*out & (*out - 1)) != 0 || *out > MAX_ALIGNMENT)
        return am_fail(c->err, AM_EFORMAT, "%s: general.alignment must be a power of two up to %d", c->file, MAX_ALIGNMENT);
    return AM_OK;
}

/* Reads one part. The first part's keys are kept; of the others only their tensors. */
/* The parts of a split file say which they are: else a copy of another part, or of another model's, would go unseen. */
static am_status check_split(const part *p, const am_gguf_value *values, size_t n_values, const cursor *c) {
    static const char *const keys[] = {"split.no", "split.count"};
    const uint64_t wanted[] = {p->number, p->of};
    for (size_t i = 0; p->of && i < 2; i++) {
        const am_gguf_value *v = find_value(values, n_values, keys[i]);
        if (!v) return am_fail(c->err, AM_EFORMAT, "%s: key '%s' is missing", c->file, keys[i]);
        uint64_t found = kind_bytes[v->kind] ? little(v->p, kind_bytes[v->kind]) : UINT64_MAX;
        if (found != wanted[i])
            return am_fail(c->err, AM_EFORMAT, "%s: key '%s' is %llu, must be %llu", c->file, keys[i], (unsigned long long)found,
                           (unsigned long long)wanted[i]);
    }
    return AM_OK;
}

static am_status read_part(am_gguf *g, const part *from, const char *file, am_error *err) {
    cursor c = {from->p, from->n, 0, file, err};
    uint64_t n_tensors = 0, n_values = 0, alignment = 32;
    am_gguf_value *values = NULL;
    am_status status = read_head(&c, &n_tensors, &n_values);
    if (status) return status;
    values = am_calloc((size_t)n_values, sizeof *values);
    am_gguf_tensor *tensors = realloc(g->tensors, (g->n_tensors + (size_t)n_tensors + 1) * sizeof *tensors);
    if (tensors) g->tensors = tensors;
    if (!values || !tensors) {
        status = am_fail(err, AM_ENOMEM, "%s: no memory for %llu tensors", file, (unsigned long long)n_tensors);
        goto out;
    }
    if ((status = read_values(&c, n_values, values)) || (status = check_split(from, values, (size_t)n_values, &c)) || (status = alignment_of(values, (size_t)n_values, &c, &alignment)) ||
        (status = read_tensors(&c, n_tensors, alignment, g->tensors + g->n_tensors)))
        goto out;
    g->n_tensors += (size_t)n_tensors;
    if (!g->values) {
        g->values = values;
        g->n_values = (size_t)n_values;
        values = NULL;
    }
out:
    free(values);
    return status;
}

static am_status sort_tensors(am_gguf *g, const char *file, am_error *err) {
    qsort(g->tensors, g->n_tensors, sizeof *g->tensors, compare_tensors);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (compare_tensors(&g->tensors[i - 1], &g->tensors[i]) == 0)
            return am_fail(err, AM_EFORMAT, "%s: tensor '%.*s' stands twice", file, (int)g->tensors[i].name.n, g->tensors[i].name.p);
    return AM_OK;
}

static am_status create(size_t n_parts, am_gguf **out, am_error *err) {
    am_gguf *g = am_calloc(1, sizeof *g);
    if (g) g->parts = am_calloc(n_parts, sizeof *g->parts);
    if (!g || !g->parts) {
        free(g);
        return am_fail(err, AM_ENOMEM, "no memory for a GGUF reader");
    }
    *out = g;
    return AM_OK;
}

am_status am_gguf_open_bytes(const uint8_t *p, size_t n, const char *name, am_gguf **out, am_error *err) {
    am_gguf *g;
    *out = NULL;
    am_status status = create(1, &g, err);
    if (status) return status;
    g->parts[g->n_parts++] = (part){.p = p, .n = n};
    if ((status = read_part(g, &g->parts[0], name, err)) || (status = sort_tensors(g, name, err)))
        am_gguf_free(g);
    else
        *out = g;
    return status;
}

/* "x-00001-of-00003.gguf" -> prefix length and 3; 1 for any other name. */
static size_t split_count(const char *path, size_t *prefix) {
    size_t n = strlen(path);
    unsigned count;
    const char *tail = n > 20 ? path + n - 20 : "";
    if (sscanf(tail, "-00001-of-%5u.gguf", &count) != 1 || strcmp(tail + 15, ".gguf") != 0 || count < 2) return 1;
    *prefix = n - 20;
    return count;
}

am_status am_gguf_open(const char *path, am_gguf **out, am_error *err) {
    size_t prefix = 0, n = split_count(path, &prefix);
    am_gguf *g;
    *out = NULL;
    if (n > MAX_SPLIT) return am_fail(err, AM_EFORMAT, "%s: %zu split files", path, n);
    am_status status = create(n, &g, err);
    if (status) return status;
    for (size_t i = 0; !status && i < n; i++) {
        char name[4096];
        int length = n == 1 ? snprintf(name, sizeof name, "%s", path)
                            : snprintf(name, sizeof name, "%.*s-%05zu-of-%05zu.gguf", (int)prefix, path, i + 1, n);
        part *p = &g->parts[i];
        if (length < 0 || (size_t)length >= sizeof name) status = am_fail(err, AM_ELIMIT, "path too long: %.200s", path);
        if (status || (status = am_map_open(name, &p->map, err))) break;
        g->n_parts++;
        p->p = p->map.p;
        p->n = p->map.n;
        p->number = i;
        p->of = n > 1 ? n : 0;
        status = read_part(g, p, name, err);
    }
    if (!status) status = sort_tensors(g, path, err);
    uint32_t declared;
    if (!status && am_gguf_u32(g, "split.count", &declared, NULL) == AM_OK && declared > 1 && declared != n)
        status = am_fail(err, AM_EFORMAT, "%s: split.count is %u; name the first file, -00001-of-%05u.gguf", path, declared, declared);
    if (status)
        am_gguf_free(g);
    else
        *out = g;
    return status;
}

void am_gguf_identify(const am_gguf *g, am_sum_state *sum) {
    for (size_t i = 0; i < g->n_parts; i++) {
        am_sum_add(sum, &g->parts[i].map.n, sizeof g->parts[i].map.n);
        am_sum_add(sum, g->parts[i].map.id, sizeof g->parts[i].map.id);
    }
}

void am_gguf_free(am_gguf *g) {
    if (!g) return;
    for (size_t i = 0; i < g->n_parts; i++) am_map_close(&g->parts[i].map);
    free(g->parts);
    free(g->values);
    free(g->tensors);
    free(g);
}

const am_gguf_value *am_gguf_get(const am_gguf *g, const char *key) { return find_value(g->values, g->n_values, key); }

static am_status wanted(const am_gguf *g, const char *key, const am_gguf_value **v, am_error *err) {
    *v = am_gguf_get(g, key);
    return *v ? AM_OK : am_fail(err, AM_ENOTFOUND, "key '%s' is missing", key);
}

static am_status wrong_kind(const char *key, const char *kind, am_error *err) {
    return am_fail(err, AM_EFORMAT, "key '%s' is not %s", key, kind);
}

/* One number of any kind but string and array. */
static double number_at(const uint8_t *p, am_gguf_kind kind) {
    uint64_t bits = little(p, kind_bytes[kind]);
    float f;
    double d;
    switch (kind) {
    case AM_GGUF_I8: return (int8_t)bits;
    case AM_GGUF_I16: return (int16_t)bits;
    case AM_GGUF_I32: return (int32_t)bits;
    case AM_GGUF_I64: return (double)(int64_t)bits;
    case AM_GGUF_F32: memcpy(&f, p, sizeof f); return f;
    case AM_GGUF_F64: memcpy(&d, p, sizeof d); return d;
    default: return (double)bits;
    }
}

static bool is_number(am_gguf_kind kind) { return kind != AM_GGUF_STRING && kind != AM_GGUF_ARRAY && kind != AM_GGUF_BOOL; }

am_status am_gguf_u32(const am_gguf *g, const char *key, uint32_t *out, am_error *err) {
    const am_gguf_value *v;
    am_status status = wanted(g, key, &v, err);
    if (status) return status;
    double d = is_number(v->kind) ? number_at(v->p, v->kind) : -1;
    if (!(d >= 0 && d <= UINT32_MAX) || floor(d) != d) return wrong_kind(key, "a whole number of 32 bits", err);
    *out = (uint32_t)d;
    return AM_OK;
}

am_status am_gguf_f64(const am_gguf *g, const char *key, double *out, am_error *err) {
    const am_gguf_value *v;
    am_status status = wanted(g, key, &v, err);
    if (status) return status;
    if (!is_number(v->kind) || !isfinite(number_at(v->p, v->kind))) return wrong_kind(key, "a finite number", err);
    *out = number_at(v->p, v->kind);
    return AM_OK;
}

am_status am_gguf_bool(const am_gguf *g, const char *key, bool *out, am_error *err) {
    const am_gguf_value *v;
    am_status status = wanted(g, key, &v, err);
    if (status) return status;
    if (v->kind != AM_GGUF_BOOL || *v->p > 1) return wrong_kind(key, "true or false", err);
    *out = *v->p;
    return AM_OK;
}

am_status am_gguf_string(const am_gguf *g, const char *key, am_str *out, am_error *err) {
    const am_gguf_value *v;
    am_status status = wanted(g, key, &v, err);
    if (status) return status;
    if (v->kind != AM_GGUF_STRING) return wrong_kind(key, "a string", err);
    *out = (am_str){(const char *)v->p, (size_t)v->n};
    return AM_OK;
}

static am_status wanted_array(const am_gguf *g, const char *key, const am_gguf_value **v, am_error *err) {
    am_status status = wanted(g, key, v, err);
    if (!status && (*v)->kind != AM_GGUF_ARRAY) status = wrong_kind(key, "an array", err);
    return status;
}

am_status am_gguf_strings(const am_gguf *g, const char *key, am_str **out, size_t *n, am_error *err) {
    const am_gguf_value *v;
    am_status status = wanted_array(g, key, &v, err);
    if (status) return status;
    if (v->element != AM_GGUF_STRING) return wrong_kind(key, "an array of strings", err);
    am_str *list = am_calloc((size_t)v->n, sizeof *list);
    if (!list) return am_fail(err, AM_ENOMEM, "no memory for the %llu strings of '%s'", (unsigned long long)v->n, key);
    const uint8_t *p = v->p; /* lengths were checked when the file was opened */
    for (uint64_t i = 0; i < v->n; i++) {
        list[i] = (am_str){(const char *)p + 8, (size_t)little(p, 8)};
        p += 8 + list[i].n;
    }
    *out = list;
    *n = (size_t)v->n;
    return AM_OK;
}

am_status am_gguf_i32s(const am_gguf *g, const char *key, int32_t **out, size_t *n, am_error *err) {
    const am_gguf_value *v;
    am_status status = wanted_array(g, key, &v, err);
    if (status) return status;
    bool whole = (is_number(v->element) || v->element == AM_GGUF_BOOL) && v->element != AM_GGUF_F32 && v->element != AM_GGUF_F64;
    if (!whole) return wrong_kind(key, "an array of whole numbers", err);
    int32_t *list = am_calloc((size_t)v->n, sizeof *list);
    if (!list) return am_fail(err, AM_ENOMEM, "no memory for the %llu numbers of '%s'", (unsigned long long)v->n, key);
    for (uint64_t i = 0; i < v->n; i++) {
        double d = number_at(v->p + i * kind_bytes[v->element], v->element);
        if (d < INT32_MIN || d > INT32_MAX) {
            free(list);
            return wrong_kind(key, "an array of 32-bit numbers", err);
        }
        list[i] = (int32_t)d;
    }
    *out = list;
    *n = (size_t)v->n;
    return AM_OK;
}

am_status am_gguf_f32s(const am_gguf *g, const char *key, float **out, size_t *n, am_error *err) {
    const am_gguf_value *v;
    am_status status = wanted_array(g, key, &v, err);
    if (status) return status;
    if (!is_number(v->element)) return wrong_kind(key, "an array of numbers", err);
    float *list = am_calloc((size_t)v->n, sizeof *list);
    if (!list) return am_fail(err, AM_ENOMEM, "no memory for the %llu numbers of '%s'", (unsigned long long)v->n, key);
    for (uint64_t i = 0; i < v->n; i++) list[i] = (float)number_at(v->p + i * kind_bytes[v->element], v->element);
    *out = list;
    *n = (size_t)v->n;
    return AM_OK;
}

size_t am_gguf_n_values(const am_gguf *g) { return g->n_values; }
const am_gguf_value *am_gguf_value_at(const am_gguf *g, size_t i) { return &g->values[i]; }
size_t am_gguf_n_tensors(const am_gguf *g) { return g->n_tensors; }
const am_gguf_tensor *am_gguf_tensor_at(const am_gguf *g, size_t i) { return &g->tensors[i]; }

const am_gguf_tensor *am_gguf_find(const am_gguf *g, const char *name) {
    am_gguf_tensor key = {.name = am_str_of(name)};
    return g->n_tensors ? bsearch(&key, g->tensors, g->n_tensors, sizeof key, compare_tensors) : NULL;
}

void am_gguf_drop(const am_gguf *g, const am_gguf_tensor *t, size_t at, size_t n_bytes) {
    for (size_t i = 0; i < g->n_parts; i++) {
        const am_map *map = &g->parts[i].map;
        if (map->p && t->p >= map->p && t->p < map->p + map->n) am_map_drop(map, (size_t)(t->p - map->p) + at, n_bytes);
    }
}
