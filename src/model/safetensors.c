/* Owns what a valid safetensors header is.
 *
 * The order of the checks matters: nothing is allocated from a number in the file before that number was held against the
 * file's length or a limit. Tensors are sorted by their first byte, so that "no hole, no overlap, nothing left over" is one comparison each:
 * tensor i begins where tensor i-1 ended, the first at 0, and the last ends with the file. Names are looked up by a table of hashes,
 * which also would find a duplicate, had jansson not refused it before. */
#include "model/safetensors.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

struct am_st {
    json_t *json; /* owns names and metadata texts */
    am_st_tensor *tensors;
    size_t n;
    uint32_t *slots; /* index + 1 of a tensor, 0: empty; n_slots is a power of two */
    size_t n_slots;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
#define AM_ST_ROW(code, name, bytes) [code] = {name, bytes},
    AM_ST_DTYPE_LIST(AM_ST_ROW)
#undef AM_ST_ROW
};

const char *am_st_dtype_name(am_st_dtype dtype) { return dtypes[dtype].name; }
size_t am_st_dtype_bytes(am_st_dtype dtype) { return dtypes[dtype].bytes; }

static bool mul_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static bool add_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_add_overflow(a, b, out); }

am_status am_st_header_bytes(const uint8_t first[8], uint64_t file_bytes, const am_st_limits *limits, uint64_t *n, am_error *err) {
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | first[i];
    if (length > limits->max_header_bytes)
        return am_fail(err, AM_ELIMIT, "header length: %llu bytes, more than the %llu allowed", (unsigned long long)length,
                       (unsigned long long)limits->max_header_bytes);
    if (file_bytes < 8 || length > file_bytes - 8)
        return am_fail(err, AM_EFORMAT, "header length: %llu bytes, but the file has %llu in all", (unsigned long long)length,
                       (unsigned long long)file_bytes);
    if (length < 2) return am_fail(err, AM_EFORMAT, "header length: %llu bytes", (unsigned long long)length);
    *n = 8 + length;
    return AM_OK;
}

static am_status read_dtype(const json_t *v, am_st_tensor *t, am_error *err) {
    const char *text = json_string_value(v);
    if (!text) return am_fail(err, AM_EFORMAT, "tensor '%s': dtype is missing or no string", t->name.p);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(text, dtypes[i].name) == 0) {
            t->dtype = (am_st_dtype)i;
            return AM_OK;
        }
    return am_fail(err, AM_EFORMAT, "tensor '%s': dtype '%.40s' is unknown", t->name.p, text);
}

static bool read_count(const json_t *v, uint64_t *out) {
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* Fills shape and n_bytes (what the shape says). */
static am_status read_shape(const json_t *v, am_st_tensor *t, am_error *err) {
    if (!json_is_array(v)) return am_fail(err, AM_EFORMAT, "tensor '%s': shape is missing or no array", t->name.p);
    if (json_array_size(v) > AM_ST_MAX_DIM)
        return am_fail(err, AM_ELIMIT, "tensor '%s': shape has %zu dimensions, at most %d are allowed", t->name.p,
                       json_array_size(v), AM_ST_MAX_DIM);
    t->n_dim = (uint32_t)json_array_size(v);
    t->n_bytes = dtypes[t->dtype].bytes;
    for (uint32_t i = 0; i < t->n_dim; i++) {
        if (!read_count(json_array_get(v, i), &t->shape[i]))
            return am_fail(err, AM_EFORMAT, "tensor '%s': shape[%u] is no count", t->name.p, i);
        if (t->shape[i] == 0) return am_fail(err, AM_EFORMAT, "tensor '%s': shape[%u] is 0", t->name.p, i);
        if (!mul_u64(t->n_bytes, t->shape[i], &t->n_bytes))
            return am_fail(err, AM_EFORMAT, "tensor '%s': shape overflows", t->name.p);
    }
    return AM_OK;
}

static am_status read_tensor(const char *name, size_t n_name, const json_t *v, uint64_t data_at, uint64_t data_bytes, am_st_tensor *t,
                             am_error *err) {
    if (n_name == 0 || n_name > 1024 || strlen(name) != n_name)
        return am_fail(err, AM_EFORMAT, "a tensor's name is empty, longer than 1024 bytes or has a NUL in it");
    t->name = (am_str){name, n_name};
    if (!json_is_object(v)) return am_fail(err, AM_EFORMAT, "tensor '%s': not an object", name);
    if (json_object_size(v) != 3)
        return am_fail(err, AM_EFORMAT, "tensor '%s': has %zu fields, not dtype, shape and data_offsets alone", name,
                       json_object_size(v));
    am_status status = read_dtype(json_object_get(v, "dtype"), t, err);
    if (status || (status = read_shape(json_object_get(v, "shape"), t, err))) return status;
    const json_t *offsets = json_object_get(v, "data_offsets");
    uint64_t begin, end;
    if (json_array_size(offsets) != 2 || !read_count(json_array_get(offsets, 0), &begin) ||
        !read_count(json_array_get(offsets, 1), &end))
        return am_fail(err, AM_EFORMAT, "tensor '%s': data_offsets is not a pair of counts", name);
    if (begin > end || end > data_bytes)
        return am_fail(err, AM_EFORMAT, "tensor '%s': data_offsets [%llu, %llu] do not lie in the file's %llu data bytes", name,
                       (unsigned long long)begin, (unsigned long long)end, (unsigned long long)data_bytes);
    if (end - begin != t->n_bytes)
        return am_fail(err, AM_EFORMAT, "tensor '%s': data_offsets span %llu bytes, dtype and shape need %llu", name,
                       (unsigned long long)(end - begin), (unsigned long long)t->n_bytes);
    t->at = data_at + begin;
    return AM_OK;
}

static am_status check_metadata(const json_t *metadata, const am_st_limits *limits, am_error *err) {
    if (!json_is_object(metadata)) return am_fail(err, AM_EFORMAT, "__metadata__: not an object");
    size_t bytes = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)metadata, key, v) {
        if (!json_is_string(v)) return am_fail(err, AM_EFORMAT, "__metadata__: '%.80s' is no string", key);
        bytes += strlen(key) + json_string_length(v);
        if (bytes > limits->max_metadata_bytes)
            return am_fail(err, AM_ELIMIT, "__metadata__: more than the %zu bytes allowed", limits->max_metadata_bytes);
    }
    return AM_OK;
}

static int by_offset(const void *a, const void *b) {
    uint64_t x = ((const am_st_tensor *)a)->at, y = ((const am_st_tensor *)b)->at;
    return x < y ? -1 : x > y;
}

/* After sorting: tensors cover [data_at, file_bytes) exactly once. */
static am_status check_cover(const am_st *st, uint64_t data_at, uint64_t file_bytes, am_error *err) {
    uint64_t expected = data_at;
    for (size_t i = 0; i < st->n; i++) {
        const am_st_tensor *t = &st->tensors[i];
        if (t->at != expected)
            return am_fail(err, AM_EFORMAT, "tensor '%s': data_offsets begin at %llu, %s the tensor before it ended (%llu)", t->name.p,
                           (unsigned long long)(t->at - data_at), t->at < expected ? "before" : "after",
                           (unsigned long long)(expected - data_at));
        expected = t->at + t->n_bytes;
    }
    if (expected != file_bytes)
        return am_fail(err, AM_EFORMAT, "the file has %llu bytes that belong to no tensor", (unsigned long long)(file_bytes - expected));
    return AM_OK;
}

static am_status build_index(am_st *st, am_error *err) {
    st->n_slots = 16;
    while (st->n_slots < 2 * st->n) st->n_slots *= 2;
    st->slots = am_calloc(st->n_slots, sizeof *st->slots);
    if (!st->slots) return am_fail(err, AM_ENOMEM, "no memory for an index of %zu tensors", st->n);
    for (size_t i = 0; i < st->n; i++) {
        size_t at = am_hash64(st->tensors[i].name.p, st->tensors[i].name.n) & (st->n_slots - 1);
        while (st->slots[at]) at = (at + 1) & (st->n_slots - 1);
        st->slots[at] = (uint32_t)i + 1;
    }
    return AM_OK;
}

static am_status read_header(am_st *st, uint64_t data_at, uint64_t file_bytes, const am_st_limits *limits, am_error *err) {
    if (!json_is_object(st->json)) return am_fail(err, AM_EFORMAT, "the header is no JSON object");
    const json_t *metadata = json_object_get(st->json, "__metadata__");
    am_status status = metadata ? check_metadata(metadata, limits, err) : AM_OK;
    if (status) return status;
    size_t n = json_object_size(st->json) - (metadata != NULL);
    if (n > limits->max_tensors) return am_fail(err, AM_ELIMIT, "%zu tensors, more than the %zu allowed", n, limits->max_tensors);
    st->tensors = am_calloc(n ? n : 1, sizeof *st->tensors);
    if (!st->tensors) return am_fail(err, AM_ENOMEM, "no memory for %zu tensors", n);
    for (void *it = json_object_iter(st->json); it; it = json_object_iter_next(st->json, it)) {
        const char *name = json_object_iter_key(it);
        json_t *v = json_object_iter_value(it);
        if (v == metadata) continue;
        status = read_tensor(name, strlen(name), v, data_at, file_bytes - data_at, &st->tensors[st->n], err);
        if (status) return status;
        st->n++;
    }
    qsort(st->tensors, st->n, sizeof *st->tensors, by_offset);
    if ((status = check_cover(st, data_at, file_bytes, err))) return status;
    return build_index(st, err);
}

am_status am_st_parse(const uint8_t *head, size_t n_head, uint64_t file_bytes, const am_st_limits *limits, am_st **out,
                      am_error *err) {
    *out = NULL;
    if (n_head < 8) return am_fail(err, AM_EFORMAT, "%zu bytes are no safetensors file", n_head);
    uint64_t n;
    am_status status = am_st_header_bytes(head, file_bytes, limits, &n, err);
    if (status) return status;
    if (n > n_head) return am_fail(err, AM_EINVAL, "%zu bytes given of a header of %llu", n_head, (unsigned long long)n);
    if (head[8] != '{') return am_fail(err, AM_EFORMAT, "the header does not begin with '{'");
    am_st *st = am_calloc(1, sizeof *st);
    if (!st) return am_fail(err, AM_ENOMEM, "no memory for a safetensors header");
    json_error_t e;
    /* without JSON_ALLOW_NUL: a name cut at a NUL could stand for another */
    st->json = json_loadb((const char *)head + 8, (size_t)n - 8, JSON_REJECT_DUPLICATES, &e);
    if (!st->json)
        status = json_error_code(&e) == json_error_out_of_memory
                     ? am_fail(err, AM_ENOMEM, "no memory for the header's JSON")
                     : am_fail(err, AM_EFORMAT, "the header's JSON, byte %d: %s", e.position, e.text);
    else
        status = read_header(st, n, file_bytes, limits, err);
    if (status)
        am_st_free(st);
    else
        *out = st;
    return status;
}

void am_st_free(am_st *st) {
    if (!st) return;
    json_decref(st->json);
    free(st->tensors);
    free(st->slots);
    free(st);
}

size_t am_st_count(const am_st *st) { return st->n; }
const am_st_tensor *am_st_at(const am_st *st, size_t i) { return i < st->n ? &st->tensors[i] : NULL; }

const am_st_tensor *am_st_find(const am_st *st, am_str name) {
    size_t at = am_hash64(name.p, name.n) & (st->n_slots - 1);
    for (; st->slots[at]; at = (at + 1) & (st->n_slots - 1)) {
        const am_st_tensor *t = &st->tensors[st->slots[at] - 1];
        if (am_str_eq(t->name, name)) return t;
    }
    return NULL;
}

bool am_st_metadata(const am_st *st, const char *key, am_str *value) {
    const json_t *v = json_object_get(json_object_get(st->json, "__metadata__"), key);
    if (!v) return false;
    *value = (am_str){json_string_value(v), json_string_length(v)};
    return true;
}

size_t am_st_metadata_count(const am_st *st) { return json_object_size(json_object_get(st->json, "__metadata__")); }

static am_status put_entry(const am_st_entry *entry, uint64_t *at, am_buf *json, am_error *err) {
    uint64_t bytes = dtypes[entry->dtype].bytes, end;
    am_status status = am_json_quote(am_str_of(entry->name), json);
    if (!status) status = am_buf_printf(json, ":{\"dtype\":\"%s\",\"shape\":[", dtypes[entry->dtype].name);
    bool fits = true;
    for (uint32_t i = 0; !status && i < entry->n_dim; i++) {
        fits = fits && entry->shape[i] > 0 && mul_u64(bytes, entry->shape[i], &bytes);
        status = am_buf_printf(json, "%s%llu", i ? "," : "", (unsigned long long)entry->shape[i]);
    }
    if (!fits || !add_u64(*at, bytes, &end)) return am_fail(err, AM_EINVAL, "tensor '%s': its shape is empty or overflows", entry->name);
    if (!status)
        status = am_buf_printf(json, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at, (unsigned long long)end);
    *at = end;
    return status;
}

am_status am_st_header_build(const am_st_layout *l, am_buf *out, uint64_t *data_bytes, am_error *err) {
    if (l->align < 8 || (l->align & (l->align - 1)) != 0) return am_fail(err, AM_EINVAL, "an alignment of %zu bytes", l->align);
    size_t start = out->n;
    uint64_t at = 0;
    am_status status = am_buf_append(out, "\0\0\0\0\0\0\0", 8);
    if (!status) status = am_buf_putc(out, '{');
    if (!status && l->n_metadata) status = am_buf_add(out, AM_STR("\"__metadata__\":{"));
    for (size_t i = 0; !status && i < l->n_metadata; i++) {
        if (i) status = am_buf_putc(out, ',');
        if (!status) status = am_json_quote(am_str_of(l->metadata[i].key), out);
        if (!status) status = am_buf_putc(out, ':');
        if (!status) status = am_json_quote(l->metadata[i].value, out);
    }
    if (!status && l->n_metadata) status = am_buf_putc(out, '}');
    for (size_t i = 0; !status && i < l->n_entries; i++) {
        if (i || l->n_metadata) status = am_buf_putc(out, ',');
        if (!status && (status = put_entry(&l->entries[i], &at, out, err)) == AM_EINVAL) return status;
    }
    if (!status) status = am_buf_putc(out, '}');
    while (!status && (out->n - start) % l->align) status = am_buf_putc(out, ' ');
    if (status) return am_fail(err, status, "a safetensors header: %s", am_status_text(status));
    uint64_t length = out->n - start - 8;
    for (int i = 0; i < 8; i++) out->p[start + (size_t)i] = (char)(uint8_t)(length >> (8 * i));
    if (data_bytes) *data_bytes = at;
    return AM_OK;
}
