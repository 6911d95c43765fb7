/* Owns the files of a model while it is loaded.
 *
 * An index is input like any other: shard names must be plain file names, every name it lists must be in the shard it says, and no
 * tensor may be in two shards, because which of the two a reader takes would be a matter of luck. */
#include "model/tensors.h"

#include "base/fs.h"
#include "model/gguf_model.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 1024, MAX_INDEX_BYTES = 64 << 20 };

typedef struct weight_file {
    char *name;
    am_map map;
    am_st *st;
    bool *used; /* [am_st_count(st)] */
} weight_file;

/* A tensor of a GGUF file under its other name. */
typedef struct renamed {
    am_st_tensor info; /* name, shape and, where it is numbers, dtype; `at` is not used */
    const am_gguf_tensor *source;
    const am_ggml_format *ggml;
    uint32_t pair_dim;
    bool used;
} renamed;

struct am_tensors {
    weight_file *files;
    size_t n_files;
    bool mapped; /* the maps are ours */

    const am_gguf *gguf; /* or this instead of files */
    char *gguf_name;
    renamed *renamed; /* [n_renamed], sorted by name */
    size_t n_renamed;
};

static am_status parse_file(weight_file *f, am_error *err) {
    am_status status = am_st_parse(f->map.p, f->map.n, f->map.n, &AM_ST_LIMITS, &f->st, err);
    if (status) return am_error_prefix(err, "%s", f->name), status;
    f->used = am_calloc(am_st_count(f->st), sizeof *f->used);
    return f->used ? AM_OK : am_fail(err, AM_ENOMEM, "%s: no memory for its tensors", f->name);
}

static am_status map_file(am_tensors *t, const char *dir, const char *name, am_error *err) {
    char path[4096];
    weight_file *f = &t->files[t->n_files];
    am_status status = am_fs_join(path, sizeof path, dir, name, err);
    if (status) return status;
    f->name = strdup(name);
    if (!f->name) return am_fail(err, AM_ENOMEM, "no memory for a file name");
    t->n_files++; /* from here on am_tensors_free cleans it up */
    status = am_map_open(path, &f->map, err);
    return status ? status : parse_file(f, err);
}

static am_status check_disjoint(const am_tensors *t, am_error *err) {
    for (size_t i = 1; i < t->n_files; i++)
        for (size_t k = 0; k < am_st_count(t->files[i].st); k++)
            for (size_t j = 0; j < i; j++)
                if (am_st_find(t->files[j].st, am_st_at(t->files[i].st, k)->name))
                    return am_fail(err, AM_EFORMAT, "tensor '%s' is in both %s and %s", am_st_at(t->files[i].st, k)->name.p,
                                   t->files[j].name, t->files[i].name);
    return AM_OK;
}

static weight_file *file_named(const am_tensors *t, const char *name) {
    for (size_t i = 0; i < t->n_files; i++)
        if (strcmp(t->files[i].name, name) == 0) return &t->files[i];
    return NULL;
}

static am_status open_shards(am_tensors *t, const char *dir, const json_t *index, am_error *err) {
    const json_t *weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map)) return am_fail(err, AM_EFORMAT, "'weight_map' is missing or no object");
    const char *tensor;
    json_t *v;
    json_object_foreach((json_t *)weight_map, tensor, v) {
        const char *shard = json_string_value(v);
        if (!shard || !*shard || *shard == '.' || strchr(shard, '/'))
            return am_fail(err, AM_EFORMAT, "'weight_map' gives '%s' no plain file name", tensor);
        weight_file *f = file_named(t, shard);
        if (!f) {
            if (t->n_files == MAX_FILES) return am_fail(err, AM_ELIMIT, "more than %d shards", MAX_FILES);
            am_status status = map_file(t, dir, shard, err);
            if (status == AM_ENOTFOUND) return am_fail(err, AM_EFORMAT, "shard '%s' of '%s' is missing", shard, tensor);
            if (status) return status;
            f = &t->files[t->n_files - 1];
        }
        if (!am_st_find(f->st, am_str_of(tensor)))
            return am_fail(err, AM_EFORMAT, "tensor '%s' is not in %s, where 'weight_map' puts it", tensor, shard);
    }
    if (t->n_files == 0) return am_fail(err, AM_EFORMAT, "'weight_map' is empty");
    return check_disjoint(t, err);
}

am_status am_tensors_open_dir(const char *dir, am_tensors **out, am_error *err) {
    static const char index_name[] = "model.safetensors.index.json";
    char path[4096];
    json_t *index = NULL;
    *out = NULL;
    am_tensors *t = am_calloc(1, sizeof *t);
    if (t) t->files = am_calloc(MAX_FILES, sizeof *t->files);
    if (!t || !t->files) {
        am_tensors_free(t);
        return am_fail(err, AM_ENOMEM, "no memory for a list of weight files");
    }
    t->mapped = true;
    am_status status = am_fs_join(path, sizeof path, dir, index_name, err);
    if (!status) status = am_json_read(path, MAX_INDEX_BYTES, &index, err);
    if (status == AM_OK) {
        status = open_shards(t, dir, index, err);
        if (status) am_error_prefix(err, "%s", path);
    } else if (status == AM_ENOTFOUND) {
        status = map_file(t, dir, "model.safetensors", err);
        if (status && status != AM_ENOTFOUND) am_error_prefix(err, "%s", dir);
    }
    json_decref(index);
    if (status)
        am_tensors_free(t);
    else
        *out = t;
    return status;
}

am_status am_tensors_open_bytes(const uint8_t *p, size_t n, const char *name, am_tensors **out, am_error *err) {
    *out = NULL;
    am_tensors *t = am_calloc(1, sizeof *t);
    if (t) t->files = am_calloc(1, sizeof *t->files);
    if (t && t->files) t->files[0].name = strdup(name);
    if (!t || !t->files || !t->files[0].name) {
        am_tensors_free(t);
        return am_fail(err, AM_ENOMEM, "no memory for a list of weight files");
    }
    t->n_files = 1;
    t->files[0].map = (am_map){.p = p, .n = n};
    am_status status = parse_file(&t->files[0], err);
    if (status)
        am_tensors_free(t);
    else
        *out = t;
    return status;
}

void am_tensors_free(am_tensors *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n_files; i++) {
        am_st_free(t->files[i].st);
        free(t->files[i].used);
        free(t->files[i].name);
        if (t->mapped) am_map_close(&t->files[i].map);
    }
    for (size_t i = 0; i < t->n_renamed; i++) free((char *)t->renamed[i].info.name.p);
    free(t->renamed);
    free(t->gguf_name);
    free(t->files);
    free(t);
}

static am_status rename_tensor(const am_gguf *gguf, const am_gguf_tensor *source, renamed *r, bool *keep, am_error *err) {
    char name[256];
    am_status status = am_gguf_rename(gguf, source->name, name, sizeof name, err);
    *keep = !status && *name;
    if (!*keep) return status;
    *r = (renamed){.source = source, .pair_dim = am_gguf_pair_dim(gguf, source->name)};
    char *copy = strdup(name);
    if (!copy) return am_fail(err, AM_ENOMEM, "no memory for a tensor's name");
    r->info.name = am_str_of(copy);
    r->info.n_bytes = source->n_bytes;
    r->info.n_dim = source->n_dim;
    for (uint32_t d = 0; d < source->n_dim; d++) r->info.shape[d] = source->shape[source->n_dim - 1 - d];
    switch (source->format->type) {
    case AM_GGML_F32: r->info.dtype = AM_ST_F32; break;
    case AM_GGML_F16: r->info.dtype = AM_ST_F16; break;
    case AM_GGML_BF16: r->info.dtype = AM_ST_BF16; break;
    default: r->info.dtype = AM_ST_U8; r->ggml = source->format;
    }
    return AM_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const renamed *)a)->info.name.p, ((const renamed *)b)->info.name.p);
}

am_status am_tensors_open_gguf(const am_gguf *gguf, const char *name, am_tensors **out, am_error *err) {
    *out = NULL;
    am_tensors *t = am_calloc(1, sizeof *t);
    size_t n = am_gguf_n_tensors(gguf);
    if (t) {
        t->gguf = gguf;
        t->gguf_name = strdup(name);
        t->renamed = am_calloc(n, sizeof *t->renamed);
    }
    am_status status = t && t->gguf_name && t->renamed ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for a list of tensors");
    for (size_t i = 0; !status && i < n; i++) {
        bool keep;
        status = rename_tensor(gguf, am_gguf_tensor_at(gguf, i), &t->renamed[t->n_renamed], &keep, err);
        t->n_renamed += !status && keep;
    }
    if (!status) {
        qsort(t->renamed, t->n_renamed, sizeof *t->renamed, by_name);
        *out = t;
    } else {
        am_tensors_free(t);
    }
    return status;
}

static renamed *find_renamed(const am_tensors *t, const char *name) {
    const renamed key = {.info = {.name = am_str_of(name)}};
    return t->n_renamed ? bsearch(&key, t->renamed, t->n_renamed, sizeof key, by_name) : NULL;
}

bool am_tensors_has(const am_tensors *t, const char *name) {
    for (size_t i = 0; i < t->n_files; i++)
        if (am_st_find(t->files[i].st, am_str_of(name))) return true;
    return find_renamed(t, name) != NULL;
}

bool am_tensors_find(am_tensors *t, const char *name, am_tensor *out) {
    for (size_t i = 0; i < t->n_files; i++) {
        weight_file *f = &t->files[i];
        const am_st_tensor *info = am_st_find(f->st, am_str_of(name));
        if (!info) continue;
        f->used[info - am_st_at(f->st, 0)] = true;
        *out = (am_tensor){.info = info, .p = f->map.p + info->at, .file = f->name, .n_file = i};
        return true;
    }
    renamed *r = find_renamed(t, name);
    if (!r) return false;
    r->used = true;
    *out = (am_tensor){.info = &r->info, .p = r->source->p, .file = t->gguf_name, .ggml = r->ggml, .pair_dim = r->pair_dim};
    return true;
}

void am_tensors_drop(const am_tensors *t, const am_tensor *tensor, size_t at, size_t n_bytes) {
    if (t->gguf) {
        am_gguf_drop(t->gguf, ((const renamed *)tensor->info)->source, at, n_bytes); /* info is its first member */
        return;
    }
    am_map_drop(&t->files[tensor->n_file].map, tensor->info->at + at, n_bytes);
}

void am_tensors_identify(const am_tensors *t, am_sum_state *sum) {
    if (t->gguf) am_gguf_identify(t->gguf, sum);
    for (size_t i = 0; i < t->n_files; i++) {
        am_sum_add(sum, &t->files[i].map.n, sizeof t->files[i].map.n);
        am_sum_add(sum, t->files[i].map.id, sizeof t->files[i].map.id);
    }
}

uint64_t am_tensors_bytes(const am_tensors *t) {
    uint64_t sum = 0;
    for (size_t i = 0; i < t->n_files; i++) sum += t->files[i].map.n;
    for (size_t i = 0; i < t->n_renamed; i++) sum += t->renamed[i].info.n_bytes;
    return sum;
}

am_status am_tensors_all_used(const am_tensors *t, bool (*ignore)(void *arg, am_str name), void *arg, am_error *err) {
    for (size_t i = 0; i < t->n_files; i++)
        for (size_t k = 0; k < am_st_count(t->files[i].st); k++) {
            am_str name = am_st_at(t->files[i].st, k)->name;
            if (!t->files[i].used[k] && !ignore(arg, name))
                return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s' has no place in this architecture", t->files[i].name, name.p);
        }
    for (size_t i = 0; i < t->n_renamed; i++)
        if (!t->renamed[i].used && !ignore(arg, t->renamed[i].info.name))
            return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s' has no place in this architecture", t->gguf_name, t->renamed[i].info.name.p);
    return AM_OK;
}
