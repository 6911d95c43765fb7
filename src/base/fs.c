/* Owns the default I/O table and the few file operations built on it. The order write, fsync, rename, fsync of the folder
 * lives in am_fs_write_atomic alone. */
#include "base/fs.h"

#include "base/inhand.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int result(long r) { return r < 0 ? -errno : (int)r; }

static int sys_open(const char *path, int flags, mode_t mode) {
    return result(open(path, flags | O_CLOEXEC | O_NOFOLLOW, mode));
}
static int sys_close(int fd) { return result(close(fd)); }
static ssize_t sys_pread(int fd, void *p, size_t n, off_t at) {
    ssize_t r = pread(fd, p, n, at);
    return r < 0 ? -errno : r;
}
static ssize_t sys_pwrite(int fd, const void *p, size_t n, off_t at) {
    ssize_t r = pwrite(fd, p, n, at);
    return r < 0 ? -errno : r;
}
static int sys_fsync(int fd) { return result(fsync(fd)); }
static int sys_rename(const char *from, const char *to) { return result(rename(from, to)); }
static int sys_unlink(const char *path) { return result(unlink(path)); }
static int sys_mkdir(const char *path, mode_t mode) { return result(mkdir(path, mode)); }
static int sys_lstat(const char *path, struct stat *st) { return result(lstat(path, st)); }

const am_io_ops am_io_system = {sys_open,   sys_close,  sys_pread, sys_pwrite, sys_fsync,
                                sys_rename, sys_unlink, sys_mkdir, sys_lstat};
const am_io_ops *am_io = &am_io_system;

am_status am_fs_join(char *out, size_t cap, const char *dir, const char *name, am_error *err) {
    int n = snprintf(out, cap, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= cap) return am_fail(err, AM_ELIMIT, "path too long: %.200s/%.100s", dir, name);
    return AM_OK;
}

am_status am_fs_read_at(int fd, const char *path, void *p, size_t n, off_t at, am_error *err) {
    size_t done = 0;
    while (done < n) {
        ssize_t r = am_io->pread(fd, (char *)p + done, n - done, at + (off_t)done);
        if (r == -EINTR) continue;
        if (r < 0) return am_fail(err, AM_EIO, "%s: read at %lld: %s", path, (long long)at, strerror((int)-r));
        if (r == 0) return am_fail(err, AM_EFORMAT, "%s: ends %zu bytes early", path, n - done);
        done += (size_t)r;
    }
    return AM_OK;
}

am_status am_fs_write_at(int fd, const char *path, const void *p, size_t n, off_t at, am_error *err) {
    size_t done = 0;
    while (done < n) {
        ssize_t r = am_io->pwrite(fd, (const char *)p + done, n - done, at + (off_t)done);
        if (r == -EINTR) continue;
        if (r <= 0) return am_fail(err, AM_EIO, "%s: write at %lld: %s", path, (long long)at, strerror(r ? (int)-r : EIO));
        done += (size_t)r;
    }
    return AM_OK;
}

static am_status open_failed(const char *path, int r, am_error *err) {
    am_status code = r == -ENOENT ? AM_ENOTFOUND : r == -EACCES || r == -EPERM ? AM_EPERM : AM_EIO;
    return am_fail(err, code, "%s: %s", path, r == -ELOOP ? "is a symbolic link" : strerror(-r));
}

/* Opens a regular file for reading and tells its size. O_NONBLOCK so that a FIFO in a file's place cannot hang us. */
static am_status open_regular(const char *path, bool follow, int *fd, struct stat *st, am_error *err) {
    int r = follow ? result(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) : am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (r < 0) return open_failed(path, r, err);
    if (fstat(r, st) != 0 || !S_ISREG(st->st_mode)) {
        am_io->close(r);
        return am_fail(err, AM_EFORMAT, "%s: not a regular file", path);
    }
    *fd = r;
    return AM_OK;
}

am_status am_fs_read_file(const char *path, am_buf *buf, size_t max, am_error *err) {
    int fd;
    struct stat st;
    am_status status = open_regular(path, true, &fd, &st, err);
    if (status) return status;
    size_t n = (size_t)st.st_size;
    am_buf_clear(buf);
    if (n > max) {
        status = am_fail(err, AM_ELIMIT, "%s: %zu bytes, more than the %zu allowed", path, n, max);
    } else if ((status = am_buf_reserve(buf, n))) {
        am_fail(err, status, "%s: %zu bytes: %s", path, n, am_status_text(status));
    } else if (!(status = am_fs_read_at(fd, path, buf->p, n, 0, err))) {
        buf->n = n;
        buf->p[n] = 0;
    }
    am_io->close(fd);
    return status;
}

am_status am_fs_sync_dir(const char *dir, am_error *err) {
    int fd = am_io->open(dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return open_failed(dir, fd, err);
    int r = am_io->fsync(fd);
    am_io->close(fd);
    return r < 0 ? am_fail(err, AM_EIO, "%s: fsync: %s", dir, strerror(-r)) : AM_OK;
}

static am_status write_parts(int fd, const char *path, const am_str *parts, size_t n_parts, bool durable, am_error *err) {
    off_t at = 0;
    for (size_t i = 0; i < n_parts; i++) {
        am_status status = am_fs_write_at(fd, path, parts[i].p, parts[i].n, at, err);
        if (status) return status;
        at += (off_t)parts[i].n;
    }
    int r = durable ? am_io->fsync(fd) : 0;
    return r < 0 ? am_fail(err, AM_EIO, "%s: fsync: %s", path, strerror(-r)) : AM_OK;
}

am_status am_fs_write_atomic(const char *dir, const char *tmp_name, const char *name, const am_str *parts, size_t n_parts,
                             bool durable, am_error *err) {
    char tmp[4096], path[4096];
    am_status status = am_fs_join(tmp, sizeof tmp, dir, tmp_name, err);
    if (status || (status = am_fs_join(path, sizeof path, dir, name, err))) return status;
    int fd = am_io->open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return open_failed(tmp, fd, err);
    status = write_parts(fd, tmp, parts, n_parts, durable, err);
    int r = am_io->close(fd);
    if (!status && r < 0) status = am_fail(err, AM_EIO, "%s: close: %s", tmp, strerror(-r));
    if (!status && (r = am_io->rename(tmp, path)) < 0)
        status = am_fail(err, AM_EIO, "%s: rename to %s: %s", tmp, name, strerror(-r));
    if (status) {
        am_io->unlink(tmp);
        return status;
    }
    return durable ? am_fs_sync_dir(dir, err) : AM_OK;
}

am_status am_fs_mkdirs(const char *path, am_error *err) {
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) return am_fail(err, AM_EINVAL, "bad folder name of %zu bytes", n);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        int r = am_io->mkdir(part, 0700);
        if (r < 0 && r != -EEXIST) return am_fail(err, r == -EACCES ? AM_EPERM : AM_EIO, "%s: %s", part, strerror(-r));
    }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) return am_fail(err, AM_EINVAL, "%s: not a folder", path);
    return AM_OK;
}

am_status am_fs_list(const char *dir, am_status (*fn)(void *arg, const char *name), void *arg, am_error *err) {
    DIR *d = opendir(dir);
    if (!d) return open_failed(dir, -errno, err);
    am_status status = AM_OK;
    for (struct dirent *e; !status && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) status = fn(arg, e->d_name);
    closedir(d);
    return status;
}

static uint64_t ns_of(struct timespec t) { return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec; }

am_status am_map_open(const char *path, am_map *map, am_error *err) {
    int fd;
    struct stat st;
    *map = (am_map){0};
    am_status status = open_regular(path, true, &fd, &st, err);
    if (status) return status;
    size_t n = (size_t)st.st_size;
    if (n == 0) {
        status = am_fail(err, AM_EFORMAT, "%s: empty file", path);
    } else {
        void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            status = am_fail(err, AM_EIO, "%s: mmap of %zu bytes: %s", path, n, strerror(errno));
        else
            *map = (am_map){p, n, {st.st_dev, st.st_ino, ns_of(st.st_mtim), ns_of(st.st_ctim)}};
        if (map->p) am_inhand_map(map->p, n, path);
    }
    am_io->close(fd);
    return status;
}

void am_map_close(am_map *map) {
    if (map->p) {
        am_inhand_unmap(map->p);
        munmap((void *)map->p, map->n);
    }
    *map = (am_map){0};
}

void am_map_drop(const am_map *map, size_t from, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t first = (from + page - 1) / page * page, end = (from + n) / page * page;
    if (end > first && end <= map->n) madvise((void *)(map->p + first), end - first, MADV_DONTNEED);
}
