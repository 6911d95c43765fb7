/* Owns the way of one tensor from a file to the kernels' layout.
 *
 * A tensor is found by name, its type and shape are held against what the architecture needs, its bytes go into the fingerprint, it is packed
 * once by all workers, and then the file's pages are dropped: the packed form is the only copy that stays. What does not lie as numbers of
 * its type can be read (MLX writes headers of any length, so tensors begin at any byte), or lies in other rows than wanted, is copied first.
 *
 * Quantised forms that the kernels do not know become one they know with the same values: 2 and 3 bits become 4. */
#include "model/weight_forms.h"

#include "base/footprint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 512, MXFP4_GROUP = 32, TASK_BYTES = 2 << 20, STRIPE_BYTES = 32 << 20, ROOM_BYTES = 64 << 20, ROOM_LEAST = 64 << 10, HUGE_PAGE = 2 << 20 };

void am_blobs_free(am_blobs *blobs) {
    for (size_t i = 0; i < blobs->n; i++) free(blobs->list[i].p);
    free(blobs->list);
    *blobs = (am_blobs){0};
}

static uint64_t pageless(const void *p, size_t n) { return n - am_footprint_resident(p, n); }

uint64_t am_blobs_untouched(const am_blobs *blobs) {
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < blobs->n; i++) {
        const am_blob *b = &blobs->list[i];
        n_bytes += pageless(b->p, b->first) + pageless((const uint8_t *)b->p + b->end, b->n_bytes - b->end);
    }
    return n_bytes;
}

static void *blob_add(am_loader *l, void *blob, size_t n_bytes, am_error *err) {
    am_blobs *b = l->blobs;
    if (blob && b->n == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 64;
        am_blob *list = am_calloc(cap, sizeof *list);
        if (list && b->n) memcpy(list, b->list, b->n * sizeof *list);
        if (list) {
            free(b->list);
            b->list = list;
            b->cap = cap;
        }
    }
    if (!blob || b->n == b->cap) {
        free(blob);
        am_fail(err, AM_ENOMEM, "no memory for %zu bytes of weights", n_bytes);
        return NULL;
    }
    b->list[b->n++] = (am_blob){blob, 0, n_bytes, n_bytes};
    l->packed_bytes += n_bytes;
    return blob;
}

void *am_loader_alloc(am_loader *l, size_t n_bytes, am_error *err) { return blob_add(l, am_alloc_aligned(n_bytes), n_bytes, err); }

/* What it takes of a room. */
static size_t room_of(size_t n_bytes) { return (n_bytes + 63) / 64 * 64; }

/* A room for at least n_bytes, from the start of a huge page on. */
static am_blob *room_add(am_loader *l, size_t n_bytes, am_error *err) {
    size_t whole = n_bytes + HUGE_PAGE;
    uint8_t *p = blob_add(l, am_alloc_room(whole), whole, err);
    if (!p) return NULL;
    l->packed_bytes -= whole;
    am_blob *room = &l->blobs->list[l->blobs->n - 1];
    room->first = room->end = (size_t)(-(uintptr_t)p % HUGE_PAGE);
    return room;
}

static void *room_take(am_loader *l, am_blob *room, size_t n_bytes) {
    void *p = (uint8_t *)room->p + room->end;
    room->end += room_of(n_bytes);
    l->packed_bytes += n_bytes;
    return p;
}

void *am_loader_room(am_loader *l, size_t n_bytes, am_error *err) {
    am_blobs *b = l->blobs;
    if (n_bytes < ROOM_LEAST) return blob_add(l, am_alloc_room(n_bytes), n_bytes, err);
    if (n_bytes > ROOM_BYTES) {
        am_blob *own = room_add(l, room_of(n_bytes), err);
        return own ? room_take(l, own, n_bytes) : NULL;
    }
    if (!b->n_rooms || room_of(n_bytes) > b->list[b->room].n_bytes - b->list[b->room].end) {
        if (!room_add(l, ROOM_BYTES, err)) return NULL;
        b->room = b->n - 1;
        b->n_rooms++;
    }
    return room_take(l, &b->list[b->room], n_bytes);
}

void am_loader_give_back(am_loader *l, size_t n_bytes) {
    if (n_bytes < ROOM_LEAST || n_bytes > ROOM_BYTES)
        free(l->blobs->list[--l->blobs->n].p);
    else
        l->blobs->list[l->blobs->room].end -= room_of(n_bytes);
    l->packed_bytes -= n_bytes;
}

am_status am_loader_prefix(am_loader *l, am_error *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(l->prefix, sizeof l->prefix, format, args);
    va_end(args);
    return n >= 0 && (size_t)n < sizeof l->prefix ? AM_OK : am_fail(err, AM_ELIMIT, "a tensor prefix that is too long");
}

static void name_of(const am_loader *l, const char *path, const char *suffix, char name[NAME_MAX_BYTES]) {
    snprintf(name, NAME_MAX_BYTES, "%s%s%s%s", l->root, l->prefix, path, suffix);
}

bool am_loader_has_part(const am_loader *l, const char *path, const char *suffix) {
    char name[NAME_MAX_BYTES];
    name_of(l, path, suffix, name);
    return l->tensors && am_tensors_has(l->tensors, name);
}

bool am_loader_has(const am_loader *l, const char *name) { return am_loader_has_part(l, name, ""); }

am_status am_loader_find(am_loader *l, const char *path, const char *suffix, am_tensor *t, am_error *err) {
    char name[NAME_MAX_BYTES];
    name_of(l, path, suffix, name);
    if (!am_tensors_find(l->tensors, name, t)) return am_fail(err, AM_EFORMAT, "tensor '%s' is missing", name);
    return AM_OK;
}

/* wanted: up to 4 dimensions, ended by 0. */
am_status am_loader_shape(const am_tensor *t, const uint64_t *wanted, am_error *err) {
    const am_st_tensor *i = t->info;
    char found[160] = "", must[100] = "";
    size_t n = 0, k = 0;
    uint32_t n_dim = 0;
    bool right = true;
    for (; wanted[n_dim]; n_dim++) {
        right = right && n_dim < i->n_dim && i->shape[n_dim] == wanted[n_dim];
        k += (size_t)snprintf(must + k, sizeof must - k, "%s%llu", n_dim ? ", " : "", (unsigned long long)wanted[n_dim]);
    }
    if (right && i->n_dim == n_dim) return AM_OK;
    for (uint32_t d = 0; d < i->n_dim; d++) /* each below 10^13, so that all eight fit */
        n += (size_t)snprintf(found + n, sizeof found - n, "%s%llu", d ? ", " : "", (unsigned long long)i->shape[d] % 10000000000000ull);
    return am_fail(err, AM_EFORMAT, "%s: tensor '%s': shape [%s], must be [%s]", t->file, i->name.p, found, must);
}

static am_status wrong_type(const am_tensor *t, const char *wanted, am_error *err) {
    return am_fail(err, AM_EUNSUPPORTED, "%s: tensor '%s': dtype %s, only %s can be used here", t->file, t->info->name.p,
                   am_st_dtype_name(t->info->dtype), wanted);
}

static bool float_type(am_st_dtype from, am_dtype *to) {
    if (from != AM_ST_F32 && from != AM_ST_F16 && from != AM_ST_BF16) return false;
    *to = from == AM_ST_F32 ? AM_F32 : from == AM_ST_F16 ? AM_F16 : AM_BF16;
    return true;
}

/* The part of a tensor that a matrix needs: n_out rows of row_bytes, back to back at `data`, aligned for its type. */
typedef struct part {
    am_tensor t;
    const uint8_t *p; /* in the file: the whole span the rows lie in */
    size_t n_bytes;
    const void *data;
    void *copy; /* data, when it had to move; to be freed */
} part;

static void part_free(part *p) { free(p->copy); }

/* Which row of the tensor row o comes from; `turned` is for when the pairs (i, i + turned/2) at the end of each head were stored as neighbours. */
size_t am_matrix_row(size_t o, const am_matrix *m) {
    if (m->turned == 0) return m->first + o * (m->stride ? m->stride : 1);
    size_t r = o % m->head, first = m->head - m->turned, half = m->turned / 2;
    return r < first ? o : o - (r - first) + 2 * ((r - first) % half) + (r - first) / half;
}

static bool part_copy(part *p, const am_matrix *m, size_t row_bytes, size_t element) {
    size_t stride = m->stride ? m->stride : 1, of = m->of ? m->of : m->n_out;
    p->copy = am_alloc_aligned(m->n_out * row_bytes);
    p->data = p->copy;
    if (!p->copy) return false;
    uint8_t *dst = p->copy;
    for (size_t o = 0; o < m->n_out; o++, dst += row_bytes) {
        if (!m->transposed) {
            memcpy(dst, p->p + (am_matrix_row(o, m) - m->first) * row_bytes, row_bytes);
            continue;
        }
        for (size_t i = 0; i < m->n_in; i++) memcpy(dst + i * element, p->p + (i * of + m->first + o * stride) * element, element);
    }
    return true;
}

/* The matrix as this tensor's converter left it. */
static am_status as_stored(am_matrix *m, const am_tensor *t, am_error *err) {
    if (t->pair_dim) m->head = m->turned = t->pair_dim;
    if (m->turned == 0) return AM_OK;
    if (m->turned % 2 || m->turned > m->head || m->n_out % m->head || m->of || m->transposed)
        return am_fail(err, AM_EFORMAT, "%s: tensor '%s': %u rows are no heads of %u", t->file, t->info->name.p, m->n_out, m->head);
    return AM_OK;
}

/* cols: elements of a row, as the tensor counts them. */
static am_status part_open(am_loader *l, const am_matrix *matrix, const char *suffix, uint64_t cols, part *p, am_error *err) {
    am_matrix stored = *matrix, *m = &stored;
    *p = (part){0};
    am_status status = am_loader_find(l, m->path, suffix, &p->t, err);
    if (!status) status = as_stored(m, &p->t, err);
    if (status) return status;
    uint64_t of = m->of ? m->of : m->n_out, shape[5] = {0}, n = 0;
    bool blocks = m->underscored && p->t.info->n_dim == 4; /* [..][groups][16] */
    if (m->n_expert) shape[n++] = m->n_expert;
    shape[n++] = m->transposed ? cols : of;
    shape[n++] = m->transposed ? of : blocks ? cols / 16 : cols;
    if (blocks) shape[n++] = 16;
    if ((status = am_loader_shape(&p->t, shape, err))) return status;
    const am_ggml_format *ggml = p->t.ggml;
    size_t element = am_st_dtype_bytes(p->t.info->dtype), row_bytes = ggml ? cols / ggml->block * ggml->block_bytes : cols * element;
    const uint8_t *stack = p->t.p + (size_t)m->expert * of * row_bytes;
    bool in_place = !m->transposed && m->stride <= 1 && !m->turned;
    p->p = m->transposed ? stack : stack + m->first * row_bytes;
    p->n_bytes = m->transposed ? of * row_bytes : ((size_t)(m->n_out - 1) * (m->stride ? m->stride : 1) + 1) * row_bytes;
    if (l->options->survey) return AM_OK;
    p->data = p->p;
    if (in_place && (uintptr_t)p->p % element == 0) return AM_OK;
    if (part_copy(p, m, row_bytes, element)) return AM_OK;
    return am_fail(err, AM_ENOMEM, "%s: no memory to align tensor '%s'", p->t.file, p->t.info->name.p);
}

static void sum_head(am_loader *l, const am_tensor *t, const uint8_t *p, size_t n_bytes) {
    const am_st_tensor *i = t->info;
    uint64_t at[2] = {(uint64_t)(p - t->p), n_bytes};
    am_sum_add(l->sum, i->name.p, i->name.n + 1);
    am_sum_add(l->sum, am_st_dtype_name(i->dtype), strlen(am_st_dtype_name(i->dtype)) + 1);
    am_sum_add(l->sum, i->shape, i->n_dim * sizeof i->shape[0]);
    am_sum_add(l->sum, at, sizeof at);
}

/* The next tensor to finish is this one: its bytes go into the fingerprint while it is packed. */
static void sum_beside(am_loader *l, const part *p) {
    if (l->options->survey) return;
    sum_head(l, &p->t, p->p, p->n_bytes);
    l->beside = p->p;
    l->beside_of = p->t;
    l->beside_bytes = p->n_bytes;
}

/* Into the fingerprint, then the file's pages may go. */
void am_loader_finish(am_loader *l, const am_tensor *t, const uint8_t *p, size_t n_bytes) {
    if (l->options->survey) return;
    if (p != l->beside) {
        sum_head(l, t, p, n_bytes);
        am_sum_add(l->sum, p, n_bytes);
    }
    l->beside = NULL;
    am_tensors_drop(l->tensors, t, (size_t)(p - t->p), n_bytes);
    l->done_bytes += n_bytes;
    if (l->options->progress && l->done_bytes <= l->total_bytes)
        l->options->progress(l->options->progress_arg, "loading", l->done_bytes, l->total_bytes);
}

size_t am_weight_row(const am_weight *weight, uint32_t o) { return weight->part ? am_matrix_row(o, weight->part) : o; }

/* Shows a weight to whoever asked for it; what is shown is not kept. */
static am_status show_matrix(am_loader *l, const am_matrix *m, am_mat *mat, am_error *err) {
    char name[NAME_MAX_BYTES];
    bool both_ends = l->config->tied && strcmp(m->path, "lm_head") == 0; /* is the embedding, whatever it is stored as */
    name_of(l, both_ends ? "model.embed_tokens" : m->path, "", name);
    am_weight w = {name, m->of ? m->of : m->n_out, m->n_in, m->expert, m->n_expert, m->n_out, mat, NULL, l->form, m};
    am_status status = l->options->weight(l->options->weight_arg, &w, err);
    uint64_t packed_bytes = l->packed_bytes;
    if (mat->data) am_loader_give_back(l, am_mat_bytes(mat));
    l->packed_bytes = packed_bytes; /* counted all the same */
    mat->data = NULL;
    return status;
}

static am_status show_vector(am_loader *l, const am_matrix *m, const char *suffix, const float **values, am_error *err) {
    char name[NAME_MAX_BYTES];
    name_of(l, m->path, suffix, name);
    am_weight w = {name, m->of ? m->of : m->n_out, 0, m->expert, m->n_expert, m->n_out, NULL, *values, "", m->n_expert || m->of || m->stride || m->turned ? m : NULL};
    return l->options->weight(l->options->weight_arg, &w, err);
}

/* Counts a matrix under the name of its stored form; past AM_MAX_FORMS names they stay uncounted. */
void am_loader_note(am_loader *l, const am_matrix *m, const char *format, ...) {
    char *name = l->form;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof l->form, format, args);
    va_end(args);
    uint32_t i = 0;
    while (i < l->n_forms && strcmp(l->forms[i].name, name) != 0) i++;
    if (i == AM_MAX_FORMS) return;
    if (i == l->n_forms) memcpy(l->forms[l->n_forms++].name, name, sizeof l->form);
    l->forms[i].n_params += (uint64_t)m->n_out * m->n_in;
    l->forms[i].n_matrices++;
}

static float value_at(const void *p, am_dtype dtype, size_t i) {
    if (dtype == AM_F32) return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return dtype == AM_F16 ? am_f16_to_f32(h) : am_bf16_to_f32(h);
}

static am_status check_finite(const am_tensor *t, const void *p, am_dtype dtype, size_t n, am_error *err) {
    for (size_t i = 0; p && i < n; i++)
        if (!isfinite(value_at(p, dtype, i)))
            return am_fail(err, AM_EFORMAT, "%s: tensor '%s': value %zu is not finite", t->file, t->info->name.p, i);
    return AM_OK;
}

static am_status count_vector(am_loader *l, uint32_t n) {
    l->n_params += n;
    l->packed_bytes += n * sizeof(float);
    return AM_OK;
}

/* A vector is a matrix of rows of one value; shape: what the tensor must have. */
static am_status load_vector(am_loader *l, const am_tensor *t, const am_matrix *matrix, const float **out, am_error *err) {
    am_dtype dtype;
    if (!float_type(t->info->dtype, &dtype)) return wrong_type(t, "F32, F16 and BF16", err);
    am_matrix stored = *matrix, *m = &stored;
    am_status status = as_stored(m, t, err);
    if (status) return status;
    if (l->options->survey) return count_vector(l, m->n_out);
    size_t element = am_st_dtype_bytes(t->info->dtype), of = m->of ? m->of : m->n_out;
    part p = {.t = *t, .p = t->p + (m->expert * of + m->first) * element};
    p.n_bytes = ((size_t)(m->n_out - 1) * (m->stride ? m->stride : 1) + 1) * element;
    float *v = am_loader_alloc(l, m->n_out * sizeof *v, err);
    if (!v || !part_copy(&p, m, element, element)) return am_fail(err, AM_ENOMEM, "no memory for tensor '%s'", t->info->name.p);
    status = check_finite(t, p.data, dtype, m->n_out, err);
    for (uint32_t i = 0; !status && i < m->n_out; i++) v[i] = value_at(p.data, dtype, i);
    part_free(&p);
    if (status) return status;
    am_loader_finish(l, t, p.p, p.n_bytes);
    l->n_params += m->n_out;
    *out = v;
    return AM_OK;
}

am_status am_loader_vector(am_loader *l, const char *name, uint32_t n, const float **out, am_error *err) {
    am_tensor t;
    am_matrix whole = {.path = name, .n_out = n, .n_in = 1};
    *out = NULL;
    am_status status = l->tensors ? am_loader_find(l, name, "", &t, err) : count_vector(l, n);
    if (!status && l->tensors) status = am_loader_shape(&t, (uint64_t[]){n, 0}, err);
    if (!status && l->tensors) status = load_vector(l, &t, &whole, out, err);
    return status || !l->options->weight ? status : show_vector(l, &whole, "", out, err);
}

am_status am_loader_norm(am_loader *l, const char *name, uint32_t n, const float **out, am_error *err) {
    am_status status = am_loader_vector(l, name, n, out, err);
    for (uint32_t i = 0; !status && *out && l->norm_offset != 0 && i < n; i++) ((float *)*out)[i] += l->norm_offset; /* our own blob */
    return status;
}

static am_status load_bias(am_loader *l, const am_matrix *m, const float **out, am_error *err) {
    am_tensor t;
    const char *suffix = m->underscored ? "_bias" : ".bias";
    uint64_t of = m->of ? m->of : m->n_out;
    *out = NULL;
    am_status status = l->tensors ? am_loader_find(l, m->path, suffix, &t, err) : count_vector(l, m->n_out);
    if (!status && l->tensors) status = am_loader_shape(&t, m->n_expert ? (uint64_t[]){m->n_expert, of, 0} : (uint64_t[]){of, 0}, err);
    if (status) return status;
    am_matrix rows = *m;
    rows.transposed = false;
    rows.n_in = 1;
    if (l->tensors) status = load_vector(l, &t, &rows, out, err);
    return status || !l->options->weight ? status : show_vector(l, &rows, suffix, out, err);
}

/* A huge page each: two workers in one page would both clear it. */
uint32_t am_loader_unit(const am_mat *mat) {
    size_t n = TASK_BYTES / am_mat_panel_bytes(mat);
    return n ? (uint32_t)n : 1;
}

typedef struct pack_job {
    void *dst;
    const am_mat *mat;
    const void *weight, *scales, *biases; /* scales NULL: plain */
} pack_job;

static void pack_task(void *arg, size_t task, size_t worker) {
    const pack_job *job = arg;
    (void)worker;
    uint32_t n = am_mat_panels(job->mat), unit = am_loader_unit(job->mat), p0 = (uint32_t)task * unit, p1 = n - p0 < unit ? n : p0 + unit;
    if (job->scales)
        am_pack_affine(job->dst, job->mat, job->weight, job->scales, job->biases, p0, p1);
    else
        am_pack_plain(job->dst, job->mat, job->weight, p0, p1);
}

/* Tasks from `first` on, and before them one that sums up. */
typedef struct beside_job {
    am_sum_state *sum;
    const uint8_t *p;
    size_t n_bytes, first;
    am_workers_fn *task;
    void *arg;
} beside_job;

static void beside_task(void *arg, size_t task, size_t worker) {
    const beside_job *job = arg;
    bool sums = job->n_bytes != 0;
    if (sums && task == 0)
        am_sum_add(job->sum, job->p, job->n_bytes);
    else
        job->task(job->arg, job->first + task - sums, worker);
}

/* A large tensor goes by in stripes, each of which has its pages dropped, so that it is not there twice. What a task still reads of a stripe that is gone, the
 * kernel finds again. */
void am_loader_run(am_loader *l, size_t n_tasks, am_workers_fn *task, void *arg) {
    size_t bytes = l->beside_bytes, n = bytes / STRIPE_BYTES + 1;
    if (n > n_tasks) n = n_tasks;
    l->beside_bytes = 0; /* once, however often it is packed */
    for (size_t s = 0; s < n; s++) {
        size_t t0 = n_tasks * s / n, n_here = n_tasks * (s + 1) / n - t0, b0 = bytes / n * s, b1 = s + 1 < n ? bytes / n * (s + 1) : bytes;
        beside_job job = {l->sum, bytes ? l->beside + b0 : NULL, b1 - b0, t0, task, arg};
        if (b1 > b0) n_here++;
        if (l->options->workers)
            am_workers_run(l->options->workers, n_here, beside_task, &job);
        else
            for (size_t i = 0; i < n_here; i++) beside_task(&job, i, 0);
        if (n > 1) am_tensors_drop(l->tensors, &l->beside_of, (size_t)(job.p - l->beside_of.p), job.n_bytes);
    }
}

am_status am_loader_codes(am_loader *l, am_mat *mat, const void *weight, const void *scales, const void *biases, am_error *err) {
    if (l->options->survey) {
        l->packed_bytes += am_mat_bytes(mat);
        return AM_OK;
    }
    void *dst = am_loader_room(l, am_mat_bytes(mat), err);
    if (!dst) return AM_ENOMEM;
    pack_job job = {dst, mat, weight, scales, biases};
    am_loader_run(l, (am_mat_panels(mat) + am_loader_unit(mat) - 1) / am_loader_unit(mat), pack_task, &job);
    mat->data = dst;
    return AM_OK;
}

bool am_narrow(uint16_t *dst, const float *src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dst[i] = am_f32_to_f16(src[i]);
        if (am_f16_to_f32(dst[i]) != src[i]) return false;
    }
    return true;
}

static am_status load_plain(am_loader *l, const am_matrix *m, am_mat *mat, am_error *err) {
    part weight;
    am_status status = part_open(l, m, m->underscored ? "" : ".weight", m->n_in, &weight, err);
    const am_ggml_format *ggml = status ? NULL : weight.t.ggml;
    if (!status) sum_beside(l, &weight);
    if (ggml)
        status = am_ggml_load(l, m, &weight.t, weight.data, mat, err);
    else if (!status && !float_type(weight.t.info->dtype, &mat->dtype))
        status = wrong_type(&weight.t, "F32, F16 and BF16", err);
    if (!status && !ggml) status = am_loader_codes(l, mat, weight.data, NULL, NULL, err);
    part_free(&weight);
    if (status) return status;
    static const char *const names[] = {[AM_F32] = "f32", [AM_F16] = "f16", [AM_BF16] = "bf16"};
    am_loader_note(l, m, "%s%s", l->gguf ? "gguf " : "", ggml ? ggml->name : names[mat->dtype]);
    am_loader_finish(l, &weight.t, weight.p, weight.n_bytes);
    return AM_OK;
}

/* How one matrix is quantised: its own entry in `quantization`, else the object's defaults. */
static am_status quant_of(const am_loader *l, const am_matrix *m, am_quant *quant, am_error *err) {
    char whole[NAME_MAX_BYTES];
    name_of(l, m->path, "", whole);
    *quant = l->config->quant;
    if (!l->config->quant_json)
        return am_fail(err, AM_EFORMAT, "tensor '%s.scales' is there, but config.json has no 'quantization'", whole);
    const json_t *entry = json_object_get(l->config->quant_json, whole);
    if (!json_is_object(entry)) return AM_OK;
    am_status status = am_quant_read(entry, quant, err);
    return status ? (am_error_prefix(err, "quantization of %s", whole), status) : AM_OK;
}

/* Codes of `bits` as a little-endian stream, row by row, into wider ones of `to` bits. */
static void *widen(const am_matrix *m, const uint8_t *src, uint32_t bits, uint32_t to) {
    size_t src_row = (size_t)m->n_in * bits / 8, dst_row = (size_t)m->n_in * to / 8;
    uint8_t *out = am_alloc_aligned(m->n_out * dst_row);
    if (!out) return NULL;
    for (size_t o = 0; o < m->n_out; o++)
        for (size_t i = 0; i < m->n_in; i++) {
            const uint8_t *p = src + o * src_row + i * bits / 8;
            uint32_t at = (uint32_t)(i * bits % 8), code = p[0] >> at;
            if (at + bits > 8) code |= (uint32_t)p[1] << (8 - at);
            code &= (1u << bits) - 1;
            out[o * dst_row + i * to / 8] |= (uint8_t)(code << (i * to % 8));
        }
    return out;
}

static am_status load_affine(am_loader *l, const am_matrix *m, const am_quant *quant, am_mat *mat, am_error *err) {
    part weight, scales = {0}, biases = {0};
    uint32_t to = quant->bits <= 4 ? 4 : 8;
    void *wide = NULL;
    mat->dtype = to == 4 ? AM_Q4 : quant->bits == 5 ? AM_Q5 : quant->bits == 6 ? AM_Q6 : AM_Q8;
    am_status status = part_open(l, m, ".weight", (uint64_t)m->n_in * quant->bits / 32, &weight, err);
    if (!status) status = part_open(l, m, ".scales", m->n_in / mat->group, &scales, err);
    if (!status) status = part_open(l, m, ".biases", m->n_in / mat->group, &biases, err);
    if (!status && weight.t.info->dtype != AM_ST_U32) status = wrong_type(&weight.t, "U32", err);
    if (!status && !float_type(scales.t.info->dtype, &mat->scale_dtype)) status = wrong_type(&scales.t, "F32, F16 and BF16", err);
    if (!status && biases.t.info->dtype != scales.t.info->dtype) status = wrong_type(&biases.t, "the dtype of the scales", err);
    size_t n = (size_t)m->n_out * (m->n_in / mat->group);
    if (!status) status = check_finite(&scales.t, scales.data, mat->scale_dtype, n, err);
    if (!status) status = check_finite(&biases.t, biases.data, mat->scale_dtype, n, err);
    if (!status && !l->options->survey && quant->bits != to && !(wide = widen(m, weight.data, quant->bits, to)))
        status = am_fail(err, AM_ENOMEM, "no memory to unpack tensor '%s'", weight.t.info->name.p);
    if (!status) sum_beside(l, &weight);
    if (!status) status = am_loader_codes(l, mat, wide ? wide : weight.data, scales.data, biases.data, err);
    free(wide);
    part_free(&weight);
    part_free(&scales);
    part_free(&biases);
    if (status) return status;
    am_loader_note(l, m, "mlx %u-bit g%u", quant->bits, mat->group);
    am_loader_finish(l, &weight.t, weight.p, weight.n_bytes);
    am_loader_finish(l, &scales.t, scales.p, scales.n_bytes);
    am_loader_finish(l, &biases.t, biases.p, biases.n_bytes);
    return AM_OK;
}

/* value = e2m1 code * 2^(scale - 127), as (12 + twice e2m1) * s - 12 s with s = 2^(scale - 128), which bf16 holds. */
static am_status load_mxfp4(am_loader *l, const am_matrix *m, am_mat *mat, am_error *err) {
    part weight, scales = {0};
    bool words = !m->underscored; /* MLX keeps eight codes in a word, the released files two in a byte: the same bytes */
    size_t n = (size_t)m->n_out * m->n_in / MXFP4_GROUP;
    uint16_t *scale = NULL;
    am_status status = part_open(l, m, words ? ".weight" : "_blocks", m->n_in / (words ? 8 : 2), &weight, err);
    if (!status) status = part_open(l, m, words ? ".scales" : "_scales", m->n_in / MXFP4_GROUP, &scales, err);
    if (!status && weight.t.info->dtype != (words ? AM_ST_U32 : AM_ST_U8)) status = wrong_type(&weight.t, words ? "U32" : "U8", err);
    if (!status && scales.t.info->dtype != AM_ST_U8) status = wrong_type(&scales.t, "U8", err);
    if (!status && !l->options->survey && !(scale = am_alloc_aligned(n * sizeof *scale)))
        status = am_fail(err, AM_ENOMEM, "no memory to unpack tensor '%s'", weight.t.info->name.p);
    for (size_t i = 0; !status && scale && i < n; i++) {
        uint8_t exponent = ((const uint8_t *)scales.data)[i];
        float value = ldexpf(1, exponent - 128);
        scale[i] = am_f32_to_bf16(value);
        if (!isfinite(12 * value))
            status = am_fail(err, AM_EFORMAT, "%s: tensor '%s': scale %zu is %u, out of range", scales.t.file, scales.t.info->name.p, i, exponent);
    }
    mat->dtype = AM_Q4;
    mat->book = AM_BOOK_MXFP4;
    mat->scale_dtype = AM_BF16;
    mat->zero_point = 12;
    if (!status) status = am_loader_codes(l, mat, weight.data, scale, NULL, err);
    free(scale);
    part_free(&weight);
    part_free(&scales);
    if (status) return status;
    am_loader_note(l, m, "mxfp4");
    am_loader_finish(l, &weight.t, weight.p, weight.n_bytes);
    am_loader_finish(l, &scales.t, scales.p, scales.n_bytes);
    return AM_OK;
}

static am_status load_quantised(am_loader *l, const am_matrix *m, am_mat *mat, am_error *err) {
    am_quant quant = {.bits = 4, .group = MXFP4_GROUP, .mxfp4 = true};
    am_status status = m->underscored ? AM_OK : quant_of(l, m, &quant, err);
    if (status) return status;
    mat->group = quant.group;
    if (m->n_in % mat->group)
        return am_fail(err, AM_EFORMAT, "matrix '%s%s%s': %u inputs are no multiple of the group %u", l->root, l->prefix, m->path, m->n_in,
                       mat->group);
    return quant.mxfp4 ? load_mxfp4(l, m, mat, err) : load_affine(l, m, &quant, mat, err);
}

/* From a config alone: as the numbers that models are published in. */
static am_status count_matrix(am_loader *l, const am_matrix *m, am_mat *mat, am_error *err) {
    mat->dtype = AM_BF16;
    am_loader_note(l, m, "bf16");
    return am_loader_codes(l, mat, NULL, NULL, NULL, err);
}

static am_status load_matrix(am_loader *l, const am_matrix *m, am_linear *out, am_error *err) {
    bool quantised = am_loader_has_part(l, m->path, m->underscored ? "_scales" : ".scales");
    am_status status;
    if (!l->tensors) status = count_matrix(l, m, &out->w, err);
    else if (am_loader_has_part(l, m->path, ".qweight")) status = am_int_packed_load(l, m, &out->w, err);
    else if (l->config->scheme.kind == AM_SCHEME_FP8 && am_fp8_is(l, m)) status = am_fp8_load(l, m, &out->w, err);
    else status = quantised ? load_quantised(l, m, &out->w, err) : load_plain(l, m, &out->w, err);
    return status;
}

/* Which tensor, and which rows of it in which order. */
static uint64_t part_of(const am_loader *l, const am_matrix *m) {
    char text[NAME_MAX_BYTES + 200];
    name_of(l, m->path, "", text);
    size_t n = strlen(text);
    n += (size_t)snprintf(text + n, sizeof text - n, " %u %u %u %u %u %u %u %u %u %d", m->n_out, m->n_in, m->first, m->of, m->stride, m->expert, m->n_expert,
                          m->head, m->turned, m->transposed);
    return am_hash64(text, n);
}

static bool take_packed(am_loader *l, const am_matrix *m, am_mat *mat) {
    const char *form;
    if (!l->packed || l->passing || !am_packed_take(l->packed, part_of(l, m), mat, &form)) return false;
    am_loader_note(l, m, "%s", form);
    l->packed_bytes += am_mat_bytes(mat);
    l->mapped_bytes += am_mat_bytes(mat);
    return true;
}

am_status am_loader_matrix(am_loader *l, const am_matrix *m, am_linear *out, am_error *err) {
    *out = (am_linear){.w = {.n_out = m->n_out, .n_in = m->n_in}};
    bool packed = take_packed(l, m, &out->w);
    am_status status = packed ? AM_OK : load_matrix(l, m, out, err);
    if (!status && l->made && !l->passing && (status = am_packed_add(l->made, part_of(l, m), &out->w, l->form))) am_fail(err, status, "no memory for a list of matrices");
    if (!status && l->options->weight) status = show_matrix(l, m, &out->w, err);
    if (status) return status;
    l->n_params += (uint64_t)m->n_out * m->n_in;
    /* some quantisers write a bias, mostly of zeros, also where the model has none */
    bool bias = m->bias || (l->config->scheme.kind && am_loader_has_part(l, m->path, ".bias"));
    return bias ? load_bias(l, m, &out->bias, err) : AM_OK;
}

am_status am_loader_linear(am_loader *l, const char *path, uint32_t n_out, uint32_t n_in, bool bias, am_linear *out, am_error *err) {
    return am_loader_matrix(l, &(am_matrix){.path = path, .n_out = n_out, .n_in = n_in, .bias = bias}, out, err);
}

/* By its values, in its own type where that is plain. */
static am_status turn_values(am_loader *l, const am_mat *w, uint32_t o, am_mat *mat, am_error *err) {
    float *row = am_calloc(w->n_in, sizeof *row);
    void *turned = am_alloc_aligned((size_t)w->n_in * mat->n_in * sizeof *row);
    for (uint32_t i = 0; row && turned && i < mat->n_in; i++) {
        l->options->kernels->mat_row(row, w, o + i);
        for (size_t k = 0, at = i; k < w->n_in; k++, at += mat->n_in) {
            if (mat->dtype == AM_F32) ((float *)turned)[at] = row[k];
            else ((uint16_t *)turned)[at] = mat->dtype == AM_F16 ? am_f32_to_f16(row[k]) : am_f32_to_bf16(row[k]);
        }
    }
    am_status status = row && turned ? am_loader_codes(l, mat, turned, NULL, NULL, err) : am_fail(err, AM_ENOMEM, "no memory to turn a matrix");
    free(row);
    free(turned);
    return status;
}

am_status am_loader_turn(am_loader *l, const am_mat *w, uint32_t o, uint32_t n, am_linear *out, am_error *err) {
    *out = (am_linear){0};
    bool channels = am_turned_form(&out->w, w, n);
    size_t n_bytes = channels ? am_mat_bytes(&out->w) : 0;
    void *dst = channels && w->data ? am_loader_room(l, n_bytes, err) : NULL;
    if (dst && am_pack_turned(dst, &out->w, w, o)) {
        out->w.data = dst;
        return AM_OK;
    }
    if (dst) am_loader_give_back(l, n_bytes);
    else if (channels && w->data) return AM_ENOMEM;
    if (!channels || dst) out->w = (am_mat){.dtype = am_dtype_quantised(w->dtype) ? AM_F32 : w->dtype, .n_out = w->n_in, .n_in = n};
    if (w->data) return turn_values(l, w, o, &out->w, err);
    l->packed_bytes += am_mat_bytes(&out->w); /* there is only a form to look at */
    return AM_OK;
}
