/* Files, behind one small table so that tests can inject faults and record the order of writes.
 *
 * am_io points at the table in use; the default calls the system. Each entry returns >= 0, or -errno. Nothing in the
 * product writes a file, renames or syncs but through it. Reading of model weights maps files (am_map_*) directly. */
#ifndef AM_BASE_FS_H
#define AM_BASE_FS_H

#include "base/buf.h"

#include <sys/stat.h>
#include <sys/types.h>

typedef struct am_io_ops {
    int (*open)(const char *path, int flags, mode_t mode); /* O_CLOEXEC and O_NOFOLLOW are added by the default table */
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *p, size_t n, off_t at);
    ssize_t (*pwrite)(int fd, const void *p, size_t n, off_t at);
    int (*fsync)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*mkdir)(const char *path, mode_t mode);
    int (*lstat)(const char *path, struct stat *st);
} am_io_ops;

extern const am_io_ops am_io_system;
extern const am_io_ops *am_io;

/* Whole reads and writes, retried on EINTR and short counts. AM_EIO names path, offset and errno text. */
am_status am_fs_read_at(int fd, const char *path, void *p, size_t n, off_t at, am_error *err);
am_status am_fs_write_at(int fd, const char *path, const void *p, size_t n, off_t at, am_error *err);

/* Reads a regular file of at most max bytes into buf (cleared first; its own max still counts). AM_ENOTFOUND, AM_ELIMIT, AM_EIO. */
am_status am_fs_read_file(const char *path, am_buf *buf, size_t max, am_error *err);

/* Writes parts to dir/tmp_name, fsyncs it when `durable`, renames it to dir/name, fsyncs dir when `durable`. On failure the
 * temporary file is removed and dir/name is what it was. Mode 0600. */
am_status am_fs_write_atomic(const char *dir, const char *tmp_name, const char *name, const am_str *parts, size_t n_parts,
                             bool durable, am_error *err);
am_status am_fs_sync_dir(const char *dir, am_error *err);

/* mkdir -p with mode 0700 for what is created. */
am_status am_fs_mkdirs(const char *path, am_error *err);

/* Calls fn for each name in dir ("." and ".." left out) until it returns non-AM_OK, which is then returned. */
am_status am_fs_list(const char *dir, am_status (*fn)(void *arg, const char *name), void *arg, am_error *err);

/* A read-only private mapping of a whole regular file. */
typedef struct am_map {
    const uint8_t *p;
    size_t n;
    uint64_t id[4]; /* device, inode, time of the last change of content and of anything, in ns: another file, or a changed one, has others */
} am_map;
am_status am_map_open(const char *path, am_map *map, am_error *err);
void am_map_close(am_map *map);
void am_map_drop(const am_map *map, size_t from, size_t n); /* tell the kernel these pages are not needed soon */

/* Joins dir and name into out; AM_ELIMIT when it does not fit. */
am_status am_fs_join(char *out, size_t cap, const char *dir, const char *name, am_error *err);

#endif
