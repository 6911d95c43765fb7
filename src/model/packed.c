/* Owns the file of packed weights, byte for byte (little endian):
 *
 *      0  "AMPACK01"
 *      8  16 bytes  key: XXH3-128 of all that decides what is packed and how (model.c)
 *     24  16 bytes  the model's fingerprint
 *     40  u64  n_mats     48  u64  data_at, a multiple of 4096     56  u64  n_data     64  u64  n_path     72  zeros
 *    112  16 bytes  XXH3-128 of bytes 0 .. 112 and 128 .. data_at
 *    128  n_mats times: u64 part, u64 at (from data_at, a multiple of 64), u32 dtype, scale_dtype, n_out, n_in, group, u16 zero_point, book, form char[48]
 *         u64 XXH3-64 of each 4 MiB of data, the last may be shorter; the model's path [n_path]; zeros up to data_at
 *    data_at  matrices in panels, as kernels.h has them
 *
 * It is named by its key, written beside under another name, synced and renamed. Writing is slow where the disk is, so it is done behind
 * the model's back, synced in small steps: turns that are written meanwhile shall not wait for gigabytes. All bytes are checked before one is used, by all
 * workers; what that costs is a reading at the memory's rate, and a cold start reads the file with it. A panel's meaning is bound to the build in the key. */
#include "model/packed.h"

#include "base/fs.h"
#include "base/inhand.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { HEADER = 128, SUMMED = 112, CHUNK = 4 << 20, CHUNKS_A_SYNC = 8, MAX_MATS = 1 << 22, PAGE = 4096 };
static const char magic[8] = "AMPACK01", ending[] = ".packed", part_ending[] = ".part";

typedef struct header {
    char magic[8];
    am_sum key;
    uint8_t fingerprint[16];
    uint64_t n_mats, data_at, n_data, n_path;
    uint64_t zero[5];
    am_sum sum;
} header;
_Static_assert(sizeof(header) == HEADER, "the header is as drawn above");

typedef struct entry {
    uint64_t part, at;
    uint32_t dtype, scale_dtype, n_out, n_in, group;
    uint16_t zero_point, book;
    char form[AM_PACKED_FORM];
} entry;
_Static_assert(sizeof(entry) == 88, "an entry is as drawn above");

struct am_packed {
    am_map map;
    const header *h;
    const entry *entries;
    const uint64_t *sums;
    size_t next;
    bool taken;
};

struct am_packed_mat {
    entry e;
    const void *data;
};

static size_t n_chunks(uint64_t n_data) { return (size_t)((n_data + CHUNK - 1) / CHUNK); }
static size_t head_bytes(const header *h) { return HEADER + h->n_mats * sizeof(entry) + n_chunks(h->n_data) * 8 + h->n_path; }
static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

static void file_name(am_sum key, char name[64]) {
    char hex[33];
    am_sum_hex(&key, hex);
    snprintf(name, 64, "%s%s", hex, ending);
}

static am_mat mat_of(const entry *e) {
    return (am_mat){.dtype = (am_dtype)e->dtype, .scale_dtype = (am_dtype)e->scale_dtype, .n_out = e->n_out, .n_in = e->n_in, .group = e->group,
                    .zero_point = e->zero_point, .book = (am_book)e->book};
}

/* ---- reading */

/* A matrix that kernels can use, wholly inside. */
static bool entry_fits(const entry *e, uint64_t n_data) {
    if (!e->n_out || !e->n_in || e->n_in % 2 || e->n_out > 1u << 30 || e->n_in > 1u << 30 || !memchr(e->form, 0, sizeof e->form)) return false;
    am_mat mat = mat_of(e);
    if (am_dtype_quantised(mat.dtype)) {
        bool group = (e->group == 16 && e->dtype != AM_Q5) || e->group == 32 || e->group == 64 || e->group == 128;
        if (!group || e->n_in % e->group || (e->scale_dtype > AM_BF16 && e->scale_dtype != AM_S8)) return false;
        if (e->zero_point > UINT8_MAX || (e->scale_dtype == AM_S8 && e->n_in % AM_RUN_S8)) return false;
        if (e->book >= AM_N_BOOK || (e->book && (e->dtype != AM_Q4 || e->group == 16))) return false;
    } else if (e->dtype > AM_BF16) {
        return false;
    }
    return e->at % 64 == 0 && e->at <= n_data && am_mat_bytes(&mat) <= n_data - e->at;
}

static bool header_fits(const header *h, am_sum key, uint64_t n_file) {
    if (memcmp(h->magic, magic, sizeof magic) != 0 || memcmp(&h->key, &key, sizeof key) != 0) return false;
    if (h->n_mats > MAX_MATS || h->n_path > PAGE || h->data_at > n_file || h->data_at % PAGE || h->n_data != n_file - h->data_at) return false;
    return head_bytes(h) <= h->data_at;
}

typedef struct check_job {
    const am_packed *packed;
    atomic_bool damaged;
} check_job;

static void check_chunk(void *arg, size_t i, size_t worker) {
    (void)worker;
    check_job *job = arg;
    const am_packed *p = job->packed;
    const uint8_t *data = p->map.p + p->h->data_at + (uint64_t)i * CHUNK;
    uint64_t left = p->h->n_data - (uint64_t)i * CHUNK;
    size_t n = left < CHUNK ? (size_t)left : CHUNK;
    madvise((void *)(uintptr_t)data, n, MADV_POPULATE_READ); /* page by page takes half as long again; an older kernel does that */
    if (am_hash64(data, n) != p->sums[i]) atomic_store(&job->damaged, true);
}

static am_status check_file(am_packed *p, const char *path, am_sum key, am_workers *workers, am_error *err) {
    p->h = (const header *)(const void *)p->map.p;
    if (p->map.n < HEADER || !header_fits(p->h, key, p->map.n)) return am_fail(err, AM_EFORMAT, "%s: not packed weights of this layout", path);
    p->entries = (const entry *)(const void *)(p->map.p + HEADER);
    p->sums = (const uint64_t *)(const void *)(p->entries + p->h->n_mats);
    am_sum_state *state = am_sum_begin();
    if (!state) return am_fail(err, AM_ENOMEM, "no memory to check %s", path);
    am_sum_add(state, p->map.p, SUMMED);
    am_sum_add(state, p->map.p + HEADER, p->h->data_at - HEADER);
    am_sum sum = am_sum_end(state);
    if (memcmp(&sum, &p->h->sum, sizeof sum) != 0) return am_fail(err, AM_EFORMAT, "%s: damaged, the checksum of its table differs", path);
    for (size_t i = 0; i < p->h->n_mats; i++)
        if (!entry_fits(&p->entries[i], p->h->n_data)) return am_fail(err, AM_EFORMAT, "%s: matrix %zu does not hold together", path, i);
    check_job job = {.packed = p};
    size_t n = n_chunks(p->h->n_data);
    if (workers)
        am_workers_run(workers, n, check_chunk, &job);
    else
        for (size_t i = 0; i < n; i++) check_chunk(&job, i, 0);
    return atomic_load(&job.damaged) ? am_fail(err, AM_EFORMAT, "%s: damaged, a checksum of its data differs", path) : AM_OK;
}

am_status am_packed_open(const char *dir, am_sum key, am_workers *workers, am_packed **out, am_error *err) {
    char name[64], path[4096];
    *out = NULL;
    file_name(key, name);
    am_packed *p = am_calloc(1, sizeof *p);
    am_status status = p ? am_fs_join(path, sizeof path, dir, name, err) : am_fail(err, AM_ENOMEM, "no memory for packed weights");
    if (!status) status = am_map_open(path, &p->map, err);
    if (!status) {
        madvise((void *)(uintptr_t)p->map.p, p->map.n, MADV_HUGEPAGE); /* only faster: it may be refused */
        status = check_file(p, path, key, workers, err);
    }
    if (status)
        am_packed_free(p);
    else
        *out = p;
    return status;
}

void am_packed_free(am_packed *p) {
    if (!p) return;
    am_map_close(&p->map);
    free(p);
}

const uint8_t *am_packed_fingerprint(const am_packed *p) { return p->h->fingerprint; }
bool am_packed_taken(const am_packed *p) { return p->taken; }

bool am_packed_take(am_packed *p, uint64_t part, am_mat *mat, const char **form) {
    if (p->next == p->h->n_mats) return false;
    const entry *e = &p->entries[p->next];
    if (e->part != part || e->n_out != mat->n_out || e->n_in != mat->n_in) return false;
    *mat = mat_of(e);
    mat->data = p->map.p + p->h->data_at + e->at;
    *form = e->form;
    p->next++;
    return p->taken = true;
}

/* ---- writing */

am_status am_packed_add(am_packed_list *l, uint64_t part, const am_mat *mat, const char *form) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        struct am_packed_mat *mats = am_calloc(cap, sizeof *mats);
        if (!mats) return AM_ENOMEM;
        if (l->n) memcpy(mats, l->mats, l->n * sizeof *mats);
        free(l->mats);
        l->mats = mats;
        l->cap = cap;
    }
    struct am_packed_mat *m = &l->mats[l->n++];
    m->e = (entry){.part = part, .dtype = mat->dtype, .scale_dtype = mat->scale_dtype, .n_out = mat->n_out, .n_in = mat->n_in, .group = mat->group,
                   .zero_point = (uint16_t)mat->zero_point, .book = (uint16_t)mat->book};
    snprintf(m->e.form, sizeof m->e.form, "%s", form);
    m->data = mat->data;
    return AM_OK;
}

void am_packed_list_free(am_packed_list *l) {
    free(l->mats);
    *l = (am_packed_list){0};
}

struct am_packed_writer {
    pthread_t thread;
    atomic_bool stop;
    am_packed_job job;
    char *dir, *source;
};

/* The way of the data through one buffer: a chunk is summed, written, and now and then synced. */
typedef struct stream {
    int fd;
    const char *path;
    uint8_t *buffer; /* [CHUNK] */
    size_t n, n_done;
    uint64_t data_at;
    uint64_t *sums;
    am_packed_writer *w;
} stream;

static am_status stream_flush(stream *s, am_error *err) {
    if (s->n == 0) return AM_OK;
    if (atomic_load(&s->w->stop)) return AM_ECANCELED;
    s->sums[s->n_done] = am_hash64(s->buffer, s->n);
    am_status status = am_fs_write_at(s->fd, s->path, s->buffer, s->n, (off_t)(s->data_at + (uint64_t)s->n_done * CHUNK), err);
    if (status) return status;
    s->n = 0;
    int r = ++s->n_done % CHUNKS_A_SYNC ? 0 : am_io->fsync(s->fd);
    return r < 0 ? am_fail(err, AM_EIO, "%s: fsync: %s", s->path, strerror(-r)) : AM_OK;
}

static am_status stream_put(stream *s, const uint8_t *p, size_t n, am_error *err) { /* p NULL: zeros */
    am_status status = AM_OK;
    while (n && !status) {
        size_t k = n < CHUNK - s->n ? n : CHUNK - s->n;
        if (p)
            memcpy(s->buffer + s->n, p, k);
        else
            memset(s->buffer + s->n, 0, k);
        s->n += k;
        n -= k;
        if (p) p += k;
        if (s->n == CHUNK) status = stream_flush(s, err);
    }
    return status;
}

/* Sets where each matrix lies, and the data. */
static void lay_out(am_packed_list *l, header *h) {
    for (size_t i = 0; i < l->n; i++) {
        am_mat mat = mat_of(&l->mats[i].e);
        l->mats[i].e.at = h->n_data;
        h->n_data += round_up(am_mat_bytes(&mat), 64);
    }
    h->data_at = round_up(head_bytes(h), PAGE);
}

static am_status write_data(am_packed_writer *w, stream *s, am_error *err) {
    am_status status = AM_OK;
    for (size_t i = 0; i < w->job.list.n && !status; i++) {
        am_mat mat = mat_of(&w->job.list.mats[i].e);
        size_t n = am_mat_bytes(&mat);
        status = stream_put(s, w->job.list.mats[i].data, n, err);
        if (!status) status = stream_put(s, NULL, (size_t)(round_up(n, 64) - n), err);
    }
    return status ? status : stream_flush(s, err);
}

static am_status write_head(am_packed_writer *w, const stream *s, header *h, am_error *err) {
    uint8_t *head = am_calloc(1, h->data_at), *at = head + HEADER;
    am_sum_state *sum = am_sum_begin();
    am_status status = head && sum ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for the table of packed weights");
    if (!status) {
        for (size_t i = 0; i < w->job.list.n; i++, at += sizeof(entry)) memcpy(at, &w->job.list.mats[i].e, sizeof(entry));
        memcpy(at, s->sums, s->n_done * sizeof *s->sums);
        memcpy(at + s->n_done * sizeof *s->sums, w->source, h->n_path);
        am_sum_add(sum, h, SUMMED);
        am_sum_add(sum, head + HEADER, h->data_at - HEADER);
    }
    if (sum) h->sum = am_sum_end(sum);
    if (!status) {
        memcpy(head, h, sizeof *h);
        status = am_fs_write_at(s->fd, s->path, head, h->data_at, 0, err);
    }
    free(head);
    int r = status ? 0 : am_io->fsync(s->fd);
    return r < 0 ? am_fail(err, AM_EIO, "%s: fsync: %s", s->path, strerror(-r)) : status;
}

/* As much again must stay free: agents need the disk more. */
static am_status check_room(const char *dir, uint64_t n, am_error *err) {
    struct statvfs st;
    if (statvfs(dir, &st) != 0) return am_fail(err, AM_EIO, "%s: %s", dir, strerror(errno));
    uint64_t there = (uint64_t)st.f_bavail * st.f_frsize;
    if (there / 2 >= n) return AM_OK;
    return am_fail(err, AM_ELIMIT, "%s: packed weights take %.1f GiB and as much again has to stay free, of %.1f GiB", dir, (double)n / (1 << 30), (double)there / (1 << 30));
}

/* What has no use any more: half a file of a process that is gone, files of models that are gone or have another file now. */
static am_status sweep(void *arg, const char *name) {
    am_packed_writer *w = arg;
    char path[4096], own[64], source[PAGE + 1];
    header h;
    am_error ignored = {0};
    size_t n = strlen(name), k = strlen(ending);
    file_name(w->job.key, own);
    if (am_fs_join(path, sizeof path, w->dir, name, &ignored) || strcmp(name, own) == 0) return AM_OK;
    long pid;
    if (n > sizeof part_ending && strcmp(name + n - (sizeof part_ending - 1), part_ending) == 0) {
        if (sscanf(name, "%*32[0-9a-f].%ld", &pid) == 1 && pid != (long)getpid()) am_io->unlink(path);
        return AM_OK;
    }
    if (n <= k || strcmp(name + n - k, ending) != 0) return AM_OK;
    int fd = am_io->open(path, O_RDONLY, 0);
    if (fd < 0) return AM_OK;
    bool useless = true; /* also what cannot be read as one: it would be refused */
    if (!am_fs_read_at(fd, path, &h, sizeof h, 0, &ignored) && memcmp(h.magic, magic, sizeof magic) == 0 && h.n_path <= PAGE && h.n_mats <= MAX_MATS) {
        off_t at = (off_t)(head_bytes(&h) - h.n_path);
        source[h.n_path] = 0;
        useless = am_fs_read_at(fd, path, source, h.n_path, at, &ignored) || strcmp(source, w->source) == 0 || (access(source, F_OK) != 0 && errno == ENOENT);
    }
    am_io->close(fd);
    if (useless) am_io->unlink(path);
    return AM_OK;
}

static am_status write_file(am_packed_writer *w, uint64_t *n_bytes, am_error *err) {
    char name[64], part[96], path[4096], tmp[4096];
    header h = {.key = w->job.key, .n_mats = w->job.list.n, .n_path = strlen(w->source)};
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.fingerprint, w->job.fingerprint, sizeof h.fingerprint);
    lay_out(&w->job.list, &h);
    *n_bytes = h.data_at + h.n_data;
    file_name(w->job.key, name);
    snprintf(part, sizeof part, "%.32s.%ld%s", name, (long)getpid(), part_ending);
    am_status status = am_fs_mkdirs(w->dir, err);
    if (!status) status = am_fs_join(path, sizeof path, w->dir, name, err);
    if (!status) status = am_fs_join(tmp, sizeof tmp, w->dir, part, err);
    if (!status) status = am_fs_list(w->dir, sweep, w, err);
    if (!status) status = check_room(w->dir, *n_bytes, err);
    if (status) return status;
    stream s = {.path = tmp, .data_at = h.data_at, .w = w, .buffer = malloc(CHUNK), .sums = am_calloc(n_chunks(h.n_data), sizeof *s.sums)};
    s.fd = s.buffer && s.sums ? am_io->open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -ENOMEM;
    if (s.fd < 0) status = am_fail(err, AM_EIO, "%s: %s", tmp, strerror(-s.fd));
    if (!status) status = write_data(w, &s, err);
    if (!status) status = write_head(w, &s, &h, err);
    if (s.fd >= 0) am_io->close(s.fd);
    int r = status ? 0 : am_io->rename(tmp, path);
    if (r < 0) status = am_fail(err, AM_EIO, "%s: rename: %s", tmp, strerror(-r));
    if (status && s.fd >= 0) am_io->unlink(tmp);
    free(s.buffer);
    free(s.sums);
    return status ? status : am_fs_sync_dir(w->dir, err);
}

static void *writer_main(void *arg) {
    am_packed_writer *w = arg;
    am_error err = {0};
    uint64_t n_bytes = 0;
    am_thread_begin("am-packed");
    am_status status = write_file(w, &n_bytes, &err);
    if (!status)
        am_log(AM_LOG_INFO, "packed_weights_written", AM_LS("model", w->source), AM_LU("bytes", n_bytes));
    else if (status != AM_ECANCELED)
        am_log(AM_LOG_WARN, "packed_weights_not_written", AM_LS("model", w->source), AM_LS("reason", err.message));
    return NULL;
}

am_status am_packed_write_begin(const am_packed_job *job, am_packed_writer **out, am_error *err) {
    am_packed_writer *w = am_calloc(1, sizeof *w);
    *out = NULL;
    if (w) {
        w->job = *job;
        w->dir = strdup(job->dir);
        w->source = strdup(job->source);
        if (w->dir && w->source && strlen(w->source) <= PAGE && pthread_create(&w->thread, NULL, writer_main, w) == 0) {
            *out = w;
            return AM_OK;
        }
        free(w->dir);
        free(w->source);
        free(w);
    }
    am_packed_list list = job->list;
    am_packed_list_free(&list);
    return am_fail(err, AM_ENOMEM, "no memory to write packed weights");
}

void am_packed_write_end(am_packed_writer *w) {
    if (!w) return;
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    am_packed_list_free(&w->job.list);
    free(w->dir);
    free(w->source);
    free(w);
}
