/* Owns what the disk is told before it is asked. A file that is not in memory is read by its header first: a small request that is waited for, then larger ones as
 * the kernel learns that they follow each other; and between two files the disk has nothing to do. So who finds its bytes not there starts reading all of them,
 * and the files of the jobs that come next. Where bytes are in memory that costs one call.
 *
 * Not by POSIX_FADV_WILLNEED: that reads into pages of 4 KiB, and a request made of those took half as long again as one made of large ones (Linux 6.18). The
 * kernel makes pages larger with each window that it reads ahead, and starts the next window when a mark in the one before is touched; a read that may not wait
 * (RWF_NOWAIT) touches marks without waiting for any. They lie 16 KiB behind a multiple of 32 KiB, whatever the windows' sizes, but for the first.
 *
 * All of it is advice: what cannot be opened or is refused is left to the job that reads it. */
#include "cache/internal.h"

#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

enum { N_AHEAD = 8, SECOND = 4096, THIRD = 16 << 10, STEP = 32 << 10 };

typedef struct file {
    char name[96];
    size_t n;
} file;

typedef struct files {
    file file[N_AHEAD];
    uint32_t n;
} files;

static void add_file(void *arg, const am_job *job) {
    files *next = arg;
    file *f = &next->file[next->n++];
    f->n = job->part->file_bytes;
    am_block_file_name(job->part->kind, &job->part->block->hash, f->name);
}

/* False: the byte is not in memory; reading what lies there and behind may have begun. A file system that cannot tell is taken for one that has all in memory. */
static bool touch(int fd, off_t at) {
    char byte;
    return preadv2(fd, &(struct iovec){&byte, 1}, 1, at, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

/* False: all was there already, as far as can be seen. */
static bool begin(int fd, off_t at, size_t n) {
    if (touch(fd, at)) return false;
    touch(fd, at + SECOND);
    for (size_t mark = THIRD; mark < n; mark += STEP) touch(fd, at + (off_t)mark);
    return true;
}

void am_read_ahead(const am_cache *c, int fd, off_t at, size_t n) {
    files next = {.n = 0};
    char path[4096];
    if (!begin(fd, at, n)) return;
    am_io_queue_look_ahead(c->io, N_AHEAD, add_file, &next);
    for (uint32_t i = 0; i < next.n; i++) {
        if (am_fs_join(path, sizeof path, c->dir, next.file[i].name, NULL)) continue;
        int other = am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
        if (other < 0) continue;
        begin(other, 0, next.file[i].n);
        am_io->close(other);
    }
}
