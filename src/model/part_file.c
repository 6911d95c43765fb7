/* Owns files that are too large to be written again: PATH.part grows in steps whose order is fixed, and PATH.journal has a line for each that is whole.
 *
 *   journal  line 1: 32 hex digits, the plan (who else wrote there would have another); then one line a step: 32 hex digits, XXH3-128 of its bytes
 *
 * A step's bytes are written before its line. After a crash of the machine a line may be there without its bytes, so a step counts as done only
 * when its bytes, read back, have the sum. At the first that does not, the journal ends and the rest is written again. */
#include "model/part_file.h"

#include "base/fs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 33, MAX_JOURNAL_BYTES = 256 << 20, READ_BYTES = 4 << 20 };

struct am_part_file {
    char path[4096], part[4096], journal[4096];
    int fd, journal_fd;
    am_buf lines;    /* the journal of the run before */
    uint64_t n_known, n_steps, n_resumed;
};

static am_status open_one(const char *path, int flags, int *fd, am_error *err) {
    *fd = am_io->open(path, flags, 0600);
    if (*fd >= 0) return AM_OK;
    int code = -*fd;
    *fd = -1;
    return am_fail(err, AM_EIO, "%s: %s", path, strerror(code));
}

static am_status start(am_part_file *f, const void *head, size_t n_head, const char *plan, am_error *err) {
    char line[LINE + 1];
    bool same = f->lines.n >= LINE && memcmp(f->lines.p, plan, LINE - 1) == 0 && f->lines.p[LINE - 1] == '\n';
    int flags = O_RDWR | O_CREAT | (same ? 0 : O_TRUNC);
    f->n_known = same ? f->lines.n / LINE - 1 : 0;
    am_status status = open_one(f->part, flags, &f->fd, err);
    if (!status) status = open_one(f->journal, flags, &f->journal_fd, err);
    if (!status) status = am_fs_write_at(f->fd, f->part, head, n_head, 0, err);
    snprintf(line, sizeof line, "%s\n", plan);
    return status ? status : am_fs_write_at(f->journal_fd, f->journal, line, LINE, 0, err);
}

am_status am_part_file_open(const char *path, const void *head, size_t n_head, const am_sum *plan, am_part_file **out, am_error *err) {
    char hex[33];
    *out = NULL;
    am_part_file *f = am_calloc(1, sizeof *f);
    if (!f) return am_fail(err, AM_ENOMEM, "no memory for a file");
    f->fd = f->journal_fd = -1;
    am_buf_init(&f->lines, MAX_JOURNAL_BYTES + 1);
    am_status status = AM_OK;
    if (snprintf(f->path, sizeof f->path, "%s", path) >= (int)sizeof f->path - 10) status = am_fail(err, AM_ELIMIT, "%.100s...: a path that is too long", path);
    snprintf(f->part, sizeof f->part, "%.4080s.part", path);
    snprintf(f->journal, sizeof f->journal, "%.4080s.journal", path);
    am_sum_hex(plan, hex);
    if (!status && (status = am_fs_read_file(f->journal, &f->lines, MAX_JOURNAL_BYTES, err)) == AM_ENOTFOUND) status = AM_OK;
    if (!status) status = start(f, head, n_head, hex, err);
    if (status) am_part_file_close(f);
    else *out = f;
    return status;
}

static size_t total(const am_region *regions, size_t n) {
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += regions[i].n;
    return sum;
}

bool am_part_file_done(am_part_file *f, const am_region *regions, size_t n_regions, void *scratch) {
    if (f->n_steps >= f->n_known) return false;
    uint8_t *to = scratch;
    char hex[33];
    bool same = true;
    for (size_t i = 0; same && i < n_regions; to += regions[i++].n)
        same = am_fs_read_at(f->fd, f->part, to, regions[i].n, (off_t)regions[i].at, NULL) == AM_OK;
    if (same) {
        am_sum sum = am_sum_of(scratch, total(regions, n_regions));
        am_sum_hex(&sum, hex);
        same = memcmp(f->lines.p + (f->n_steps + 1) * LINE, hex, LINE - 1) == 0;
    }
    f->n_known = same ? f->n_known : f->n_steps;
    f->n_steps += same;
    f->n_resumed += same;
    return same;
}

am_status am_part_file_write(am_part_file *f, const am_region *regions, size_t n_regions, const void *bytes, am_error *err) {
    const uint8_t *from = bytes;
    char line[LINE + 1], hex[33];
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < n_regions; from += regions[i++].n)
        status = am_fs_write_at(f->fd, f->part, from, regions[i].n, (off_t)regions[i].at, err);
    am_sum sum = am_sum_of(bytes, total(regions, n_regions));
    am_sum_hex(&sum, hex);
    snprintf(line, sizeof line, "%s\n", hex);
    if (!status) status = am_fs_write_at(f->journal_fd, f->journal, line, LINE, (off_t)((f->n_steps + 1) * LINE), err);
    f->n_steps += !status;
    return status;
}

uint64_t am_part_file_resumed(const am_part_file *f) { return f->n_resumed; }
uint64_t am_part_file_steps(const am_part_file *f) { return f->n_steps; }

static am_status sum_of_file(const am_part_file *f, uint64_t n_bytes, am_sum *out, am_error *err) {
    am_sum_state *sum = am_sum_begin();
    void *buffer = malloc(READ_BYTES);
    am_status status = sum && buffer ? AM_OK : am_fail(err, AM_ENOMEM, "no memory to read %s", f->part);
    for (uint64_t at = 0; !status && at < n_bytes; at += READ_BYTES) {
        size_t n = n_bytes - at < READ_BYTES ? (size_t)(n_bytes - at) : READ_BYTES;
        status = am_fs_read_at(f->fd, f->part, buffer, n, (off_t)at, err);
        if (!status) am_sum_add(sum, buffer, n);
    }
    if (sum) *out = am_sum_end(sum);
    free(buffer);
    return status;
}

/* dir and last part of the path */
static const char *split(const char *path, char dir[4096]) {
    const char *slash = strrchr(path, '/');
    snprintf(dir, 4096, "%.*s", slash ? (int)(slash - path + !(slash - path)) : 1, slash ? path : ".");
    return slash ? slash + 1 : path;
}

am_status am_part_file_finish(am_part_file *f, uint64_t n_bytes, am_sum *sum, am_error *err) {
    char dir[4096], name[300], hex[33], text[400];
    const char *base = split(f->path, dir);
    am_status status = sum_of_file(f, n_bytes, sum, err);
    if (status) return status;
    am_sum_hex(sum, hex);
    snprintf(name, sizeof name, "%.290s.xxh3", base);
    snprintf(text, sizeof text, "%s  %.290s\n", hex, base);
    int code = am_io->fsync(f->fd);
    if (code < 0) return am_fail(err, AM_EIO, "%s: %s", f->part, strerror(-code));
    status = am_fs_write_atomic(dir, ".xxh3.tmp", name, &(am_str){text, strlen(text)}, 1, true, err);
    if (status) return status;
    if ((code = am_io->rename(f->part, f->path)) < 0) return am_fail(err, AM_EIO, "%s: %s", f->path, strerror(-code));
    am_io->unlink(f->journal);
    return am_fs_sync_dir(dir, err);
}

void am_part_file_close(am_part_file *f) {
    if (!f) return;
    if (f->fd >= 0) am_io->close(f->fd);
    if (f->journal_fd >= 0) am_io->close(f->journal_fd);
    am_buf_free(&f->lines);
    free(f);
}
