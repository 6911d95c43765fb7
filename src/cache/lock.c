/* Owns the lock on a data folder: flock on `<dir>/lock`, which the kernel drops when the process dies, however it dies. The file's text only tells
 * people who holds it; it stays behind and means nothing without the lock. */
#include "cache/cache.h"

#include "base/clock.h"
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

/* A process that ends closes its port before its last bytes are on disk, so a successor may come a moment too early. */
static bool locked_within(int fd, uint32_t wait_ms) {
    uint64_t start = am_now_ns();
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (am_ms_since(start) >= wait_ms) return false;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000000}, NULL);
    }
    return true;
}

static void read_text(int fd, char text[512]) {
    ssize_t n = am_io->pread(fd, text, 511, 0);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
}

am_status am_cache_lock_dir(const char *dir, const char *who, uint32_t wait_ms, int *fd, am_error *err) {
    char path[4096], text[512];
    *fd = -1;
    am_status status = am_fs_mkdirs(dir, err);
    if (status || (status = am_fs_join(path, sizeof path, dir, "lock", err))) return status;
    int f = am_io->open(path, O_RDWR | O_CREAT, 0600);
    if (f < 0) return am_fail(err, f == -EACCES ? AM_EPERM : AM_EIO, "%s: %s", path, strerror(-f));
    if (!locked_within(f, wait_ms)) {
        read_text(f, text);
        am_io->close(f);
        return am_fail(err, AM_EBUSY, "%s is in use by %s; stop it, or choose another --data-dir", dir, *text ? text : "another process");
    }
    int n = snprintf(text, sizeof text, "pid %ld, %s\n", (long)getpid(), who ? who : "agent-memory");
    if (n > 0 && ftruncate(f, 0) == 0) status = am_fs_write_at(f, path, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1, 0, err);
    if (status) {
        am_io->close(f);
        return status;
    }
    *fd = f;
    return AM_OK;
}

void am_cache_lock_release(int fd) {
    if (fd < 0) return;
    if (ftruncate(fd, 0) != 0) {} /* the text is only for people */
    am_io->close(fd);
}

bool am_cache_lock_held(const char *dir, char who[512]) {
    char path[4096];
    who[0] = 0;
    if (am_fs_join(path, sizeof path, dir, "lock", NULL)) return false;
    int fd = am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0; /* a server that starts in this very moment tries again */
    if (held) read_text(fd, who);
    am_io->close(fd);
    return held;
}
