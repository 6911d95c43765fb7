/* Owns the way of one tensor from a file to the kernels' layout.
 *
 * A tensor is found by name, its type and shape are held against what the architecture needs, its bytes go into the fingerprint, it is packed
 * once by all workers, and then the file's pages are dropped: the packed form is the only copy that stays. MLX writes headers of any
 * length, so tensors begin at any byte; what is not aligned is copied before it is read as numbers. */
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PANELS_PER_TASK = 16, NAME_MAX_BYTES = 512 };

void am_blobs_free(am_blobs *blobs) {
    for (size_t i = 0; i < blobs->n; i++) free(blobs->p[i]);
    free(blobs->p);
    *blobs = (am_blobs){0};
}

static void *new_blob(am_loader *l, size_t n_bytes, am_error *err) {
    am_blobs *b = l->blobs;
    if (b->n == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 64;
        void **p = am_calloc(cap, sizeof *p);
        if (p && b->n) memcpy(p, b->p, b->n * sizeof *p);
        if (p) {
            free(b->p);
            b->p = p;
            b->cap = cap;
        }
    }
    void *blob = b->n < b->cap ? am_alloc_aligned(n_bytes) : NULL;
    if (!blob) {
        am_fail(err, AM_ENOMEM, "no memory for %zu bytes of weights", n_bytes);
        return NULL;
    }
    b->p[b->n++] = blob;
    l->packed_bytes += n_bytes;
    return blob;
}

am_status am_loader_prefix(am_loader *l, am_error *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(l->prefix, sizeof l->prefix, format, args);
    va_end(args);
    return n >= 0 && (size_t)n < sizeof l->prefix ? AM_OK : am_fail(err, AM_ELIMIT, "a tensor prefix that is too long");
}

static am_status find(am_loader *l, const char *path, const char *suffix, am_tensor *t, am_error *err) {
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s%s%s", l->prefix, path, suffix);
    if (!am_tensors_find(l->tensors, name, t)) return am_fail(err, AM_EFORMAT, "tensor '%s' is missing", name);
    return AM_OK;
}

bool am_loader_has(const am_loader *l, const char *path) {
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s%s.weight", l->prefix, path);
    return am_tensors_has(l->tensors, name);
}

static am_status check_shape(const am_tensor *t, uint64_t rows, uint64_t cols, am_error *err) {
    const am_st_tensor *i = t->info;
    bool right = cols ? i->n_dim == 2 && i->shape[0] == rows && i->shape[1] == cols : i->n_dim == 1 && i->shape[0] == rows;
    if (right) return AM_OK;
    char found[128] = "";
    size_t n = 0;
    for (uint32_t d = 0; d < i->n_dim; d++) n += (size_t)snprintf(found + n, sizeof found - n, "%s%llu", d ? ", " : "", (unsigned long long)i->shape[d] % 10000000000000ull);
    char wanted[64];
    snprintf(wanted, sizeof wanted, cols ? "%llu, %llu" : "%llu", (unsigned long long)rows, (unsigned long long)cols);
    return am_fail(err, AM_EFORMAT, "%s: tensor '%s': shape [%s], must be [%s]", t->file, i->name.p, found, wanted);
}

/* The tensor's bytes at an address that numbers of its type can be read from; *copy (to be freed) holds them when they had to move. */
static const void *aligned_bytes(const am_tensor *t, void **copy, am_error *err) {
    *copy = NULL;
    if ((uintptr_t)t->p % am_st_dtype_bytes(t->info->dtype) == 0) return t->p;
    *copy = am_alloc_aligned(t->info->n_bytes);
    if (!*copy) {
        am_fail(err, AM_ENOMEM, "%s: no memory to align tensor '%s'", t->file, t->info->name.p);
        return NULL;
    }
    return memcpy(*copy, t->p, t->info->n_bytes);
}

/* Into the fingerprint, then the file's pages may go. */
static void finish(am_loader *l, const am_tensor *t) {
    const am_st_tensor *i = t->info;
    am_sum_add(l->sum, i->name.p, i->name.n + 1);
    am_sum_add(l->sum, am_st_dtype_name(i->dtype), strlen(am_st_dtype_name(i->dtype)) + 1);
    for (uint32_t d = 0; d < i->n_dim; d++) am_sum_add(l->sum, &i->shape[d], sizeof i->shape[d]);
    am_sum_add(l->sum, t->p, i->n_bytes);
    am_tensors_drop(l->tensors, t);
    l->done_bytes += i->n_bytes;
    if (l->options->progress) l->options->progress(l->options->progress_arg, "loading", l->done_bytes, l->total_bytes);
}

static bool float_type(am_st_dtype from, am_dtype *to) {
    if (from != AM_ST_F32 && from != AM_ST_F16 && from != AM_ST_BF16) return false;
    *to = from == AM_ST_F32 ? AM_F32 : from == AM_ST_F16 ? AM_F16 : AM_BF16;
    return true;
}

static am_status wrong_type(const am_tensor *t, const char *wanted, am_error *err) {
    return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s': dtype %s, only %s can be used here", t->file, t->info->name.p,
                   am_st_dtype_name(t->info->dtype), wanted);
}

static float value_at(const void *p, am_dtype dtype, size_t i) {
    if (dtype == AM_F32) return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return dtype == AM_F16 ? am_f16_to_f32(h) : am_bf16_to_f32(h);
}

static am_status check_finite(const am_tensor *t, const void *p, am_dtype dtype, am_error *err) {
    size_t n = t->info->n_bytes / am_st_dtype_bytes(t->info->dtype);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(value_at(p, dtype, i)))
            return am_fail(err, AM_EFORMAT, "%s: tensor '%s': value %zu is not finite", t->file, t->info->name.p, i);
    return AM_OK;
}

am_status am_loader_vector(am_loader *l, const char *name, uint32_t n, const float **out, am_error *err) {
    am_tensor t;
    am_dtype dtype;
    void *copy;
    am_status status = find(l, name, "", &t, err);
    if (status || (status = check_shape(&t, n, 0, err))) return status;
    if (!float_type(t.info->dtype, &dtype)) return wrong_type(&t, "F32, F16 and BF16", err);
    const void *p = aligned_bytes(&t, &copy, err);
    float *v = p ? new_blob(l, n * sizeof *v, err) : NULL;
    status = v ? check_finite(&t, p, dtype, err) : AM_ENOMEM;
    for (uint32_t i = 0; !status && i < n; i++) v[i] = value_at(p, dtype, i);
    free(copy);
    if (status) return status;
    finish(l, &t);
    l->n_params += n;
    *out = v;
    return AM_OK;
}

typedef struct pack_job {
    void *dst;
    const am_mat *mat;
    const void *weight, *scales, *biases; /* scales NULL: plain */
} pack_job;

static void pack_task(void *arg, size_t task, size_t worker) {
    const pack_job *job = arg;
    (void)worker;
    uint32_t n = am_mat_panels(job->mat), p0 = (uint32_t)task * PANELS_PER_TASK;
    uint32_t p1 = n - p0 < PANELS_PER_TASK ? n : p0 + PANELS_PER_TASK;
    if (job->scales)
        am_pack_affine(job->dst, job->mat, job->weight, job->scales, job->biases, p0, p1);
    else
        am_pack_plain(job->dst, job->mat, job->weight, p0, p1);
}

static am_status pack(am_loader *l, am_mat *mat, const void *weight, const void *scales, const void *biases, am_error *err) {
    void *dst = new_blob(l, am_mat_bytes(mat), err);
    if (!dst) return AM_ENOMEM;
    pack_job job = {dst, mat, weight, scales, biases};
    size_t n_tasks = (am_mat_panels(mat) + PANELS_PER_TASK - 1) / PANELS_PER_TASK;
    if (l->options->workers)
        am_workers_run(l->options->workers, n_tasks, pack_task, &job);
    else
        for (size_t i = 0; i < n_tasks; i++) pack_task(&job, i, 0);
    mat->data = dst;
    return AM_OK;
}

static am_status load_plain(am_loader *l, const am_tensor *t, uint32_t n_out, uint32_t n_in, am_mat *mat, am_error *err) {
    void *copy;
    *mat = (am_mat){.n_out = n_out, .n_in = n_in};
    am_status status = check_shape(t, n_out, n_in, err);
    if (status) return status;
    if (!float_type(t->info->dtype, &mat->dtype)) return wrong_type(t, "F32, F16 and BF16", err);
    const void *p = aligned_bytes(t, &copy, err);
    status = p ? pack(l, mat, p, NULL, NULL, err) : AM_ENOMEM;
    free(copy);
    if (status) return status;
    if (!*l->format) {
        static const char *const names[] = {[AM_F32] = "f32", [AM_F16] = "f16", [AM_BF16] = "bf16"};
        snprintf(l->format, sizeof l->format, "%s", names[mat->dtype]);
    }
    finish(l, t);
    return AM_OK;
}

/* bits and group of one layer: its own entry in `quantization`, else the object's defaults. */
static am_status quant_of(const am_loader *l, const char *path, uint32_t *bits, uint32_t *group, am_error *err) {
    char whole[NAME_MAX_BYTES];
    snprintf(whole, sizeof whole, "%s%s", l->prefix, path);
    *bits = l->config->quant_bits;
    *group = l->config->quant_group;
    if (!l->config->quant)
        return am_fail(err, AM_EFORMAT, "tensor '%s.scales' is there, but config.json has no 'quantization'", whole);
    const json_t *entry = json_object_get(l->config->quant, whole);
    if (!json_is_object(entry)) return AM_OK;
    am_status status = am_quant_entry(entry, bits, group, err);
    return status ? (am_error_prefix(err, "quantization of %s", whole), status) : AM_OK;
}

static am_status load_affine(am_loader *l, const char *path, const am_tensor *scales, am_mat *mat, am_error *err) {
    am_tensor weight, biases;
    void *copy[3] = {0};
    uint32_t bits, n_out = mat->n_out, n_in = mat->n_in;
    am_status status = quant_of(l, path, &bits, &mat->group, err);
    if (status || (status = find(l, path, ".weight", &weight, err)) || (status = find(l, path, ".biases", &biases, err))) return status;
    if (n_in % mat->group)
        return am_fail(err, AM_EFORMAT, "%s: tensor '%s': %u inputs are no multiple of the group %u", weight.file, weight.info->name.p, n_in,
                       mat->group);
    mat->dtype = bits == 4 ? AM_Q4 : AM_Q8;
    if ((status = check_shape(&weight, n_out, (uint64_t)n_in * bits / 32, err))) return status;
    if ((status = check_shape(scales, n_out, n_in / mat->group, err))) return status;
    if ((status = check_shape(&biases, n_out, n_in / mat->group, err))) return status;
    if (weight.info->dtype != AM_ST_U32) return wrong_type(&weight, "U32", err);
    if (!float_type(scales->info->dtype, &mat->scale_dtype)) return wrong_type(scales, "F32, F16 and BF16", err);
    if (biases.info->dtype != scales->info->dtype) return wrong_type(&biases, "the dtype of the scales", err);
    const void *w = aligned_bytes(&weight, &copy[0], err);
    const void *s = w ? aligned_bytes(scales, &copy[1], err) : NULL;
    const void *b = s ? aligned_bytes(&biases, &copy[2], err) : NULL;
    status = b ? check_finite(scales, s, mat->scale_dtype, err) : AM_ENOMEM;
    if (!status) status = check_finite(&biases, b, mat->scale_dtype, err);
    if (!status) status = pack(l, mat, w, s, b, err);
    for (int i = 0; i < 3; i++) free(copy[i]);
    if (status) return status;
    if (!*l->format) snprintf(l->format, sizeof l->format, "mlx %u-bit g%u", bits, mat->group);
    finish(l, &weight);
    finish(l, scales);
    finish(l, &biases);
    return AM_OK;
}

am_status am_loader_linear(am_loader *l, const char *path, uint32_t n_out, uint32_t n_in, bool bias, am_linear *out, am_error *err) {
    char name[NAME_MAX_BYTES];
    am_tensor t;
    *out = (am_linear){.w = {.n_out = n_out, .n_in = n_in}};
    snprintf(name, sizeof name, "%s%s.scales", l->prefix, path);
    am_status status;
    if (am_tensors_find(l->tensors, name, &t))
        status = load_affine(l, path, &t, &out->w, err);
    else if (!(status = find(l, path, ".weight", &t, err)))
        status = load_plain(l, &t, n_out, n_in, &out->w, err);
    if (status) return status;
    l->n_params += (uint64_t)n_out * n_in;
    if (!bias) return AM_OK;
    snprintf(name, sizeof name, "%s.bias", path);
    return am_loader_vector(l, name, n_out, &out->bias, err);
}
