/* Owns the checks of the data folder and its disk: who may read it, what crashes left, how much room there is and how
 * fast it is. */
#include "main/doctor.h"

#include "base/clock.h"
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { MIB = 1 << 20, PROBE_BYTES = 16 * MIB };
static const double low_bytes = 256.0 * MIB, scarce_bytes = 2048.0 * MIB, slow_mib_s = 30, slow_sync_ms = 100;

static void check_mode(am_doctor *d, const char *path, const char *what, mode_t wanted) {
    struct stat st;
    char todo[4300];
    if (lstat(path, &st) != 0) return;
    if (st.st_uid != geteuid() && geteuid() != 0) {
        snprintf(todo, sizeof todo, "sudo chown -R $USER %.4200s", path);
        am_doctor_say(d, AM_DOCTOR_BAD, "folder", todo, "%s %s belongs to user %u", what, path, (unsigned)st.st_uid);
    } else if (st.st_mode & 077) {
        snprintf(todo, sizeof todo, "chmod %o %.4200s (or doctor --fix)", (unsigned)wanted, path);
        if (d->fix && chmod(path, wanted) == 0)
            am_doctor_fixed(d, "folder", "%s %s could be opened by other users", what, path);
        else
            am_doctor_say(d, AM_DOCTOR_WARN, "folder", todo, "%s %s can be opened by other users (mode %o)", what, path,
                          (unsigned)st.st_mode & 07777);
    } else if ((st.st_mode & wanted) != wanted) {
        snprintf(todo, sizeof todo, "chmod %o %.4200s (or doctor --fix)", (unsigned)wanted, path);
        if (d->fix && chmod(path, wanted) == 0)
            am_doctor_fixed(d, "folder", "%s %s could not be used by its owner", what, path);
        else
            am_doctor_say(d, AM_DOCTOR_BAD, "folder", todo, "%s %s cannot be used by its owner (mode %o)", what, path,
                          (unsigned)st.st_mode & 07777);
    }
}

void am_doctor_folder(am_doctor *d) {
    if (!d->data_dir[0]) {
        am_doctor_say(d, AM_DOCTOR_BAD, "folder", "set HOME, or name one with --data-dir",
                      "there is no data folder: $HOME is not set");
    } else if (!d->has_dir) {
        am_doctor_say(d, AM_DOCTOR_OK, "folder", "", "%s is not there yet: the first start makes it", d->caches);
    } else {
        check_mode(d, d->data_dir, "folder", 0700);
        check_mode(d, d->caches, "folder", 0700);
        am_doctor_say(d, AM_DOCTOR_OK, "folder", "", "agents are kept in %s", d->caches);
    }
}

typedef struct tally {
    am_doctor *doctor;
    unsigned n_agents, n_blocks, n_orphans, n_removed, n_open, n_refused;
    double bytes, refused_bytes;
} tally;

static bool ends_with(const char *name, const char *tail) {
    size_t n = strlen(name), m = strlen(tail);
    return n >= m && strcmp(name + n - m, tail) == 0;
}

static am_status look_at_file(void *arg, const char *name) {
    tally *t = arg;
    am_doctor *d = t->doctor;
    char path[4400];
    struct stat st;
    if (am_fs_join(path, sizeof path, d->caches, name, NULL) || lstat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return AM_OK;
    if (ends_with(name, ".tmp.safetensors") || ends_with(name, ".tmp")) {
        t->n_orphans++;
        if (d->fix && !d->served && am_io->unlink(path) >= 0) t->n_removed++;
    } else if (ends_with(name, ".safetensors")) {
        *(strncmp(name, "b-", 2) == 0 ? &t->n_blocks : &t->n_agents) += 1;
        t->bytes += (double)st.st_size;
        if (st.st_mode & 077) t->n_open++;
        if (st.st_mode & 077 && d->fix) chmod(path, 0600);
    }
    return AM_OK;
}

static am_status look_at_refused(void *arg, const char *name) {
    tally *t = arg;
    char dir[4300], path[4700];
    struct stat st;
    if (am_fs_join(dir, sizeof dir, t->doctor->caches, "refused", NULL) ||
        am_fs_join(path, sizeof path, dir, name, NULL))
        return AM_OK;
    t->n_refused++;
    if (lstat(path, &st) == 0) t->refused_bytes += (double)st.st_size;
    return AM_OK;
}

void am_doctor_files(am_doctor *d) {
    tally t = {.doctor = d};
    char refused[4300], todo[4600];
    if (!d->has_dir || am_fs_list(d->caches, look_at_file, &t, NULL)) return;
    am_doctor_say(d, AM_DOCTOR_OK, "files", "", "%u agents and %u blocks, %.1f MiB (agents verify reads them all)",
                  t.n_agents, t.n_blocks, t.bytes / MIB);
    if (t.n_open && d->fix)
        am_doctor_fixed(d, "files", "%u files could be read by other users", t.n_open);
    else if (t.n_open)
        am_doctor_say(d, AM_DOCTOR_WARN, "files", "doctor --fix", "%u files can be read by other users", t.n_open);
    if (t.n_orphans && d->served)
        am_doctor_say(d, AM_DOCTOR_OK, "files", "", "%u files are being written", t.n_orphans);
    else if (t.n_removed)
        am_doctor_fixed(d, "files", "%u temporary files of a crash are removed", t.n_removed);
    else if (t.n_orphans)
        am_doctor_say(d, AM_DOCTOR_NOTE, "files", "the next start removes them; or doctor --fix",
                      "%u temporary files of a crash", t.n_orphans);
    if (am_fs_join(refused, sizeof refused, d->caches, "refused", NULL) || access(refused, F_OK) != 0) return;
    if (am_fs_list(refused, look_at_refused, &t, NULL) || !t.n_refused) return;
    snprintf(todo, sizeof todo, "the log says why (file_refused); check the disk, then rm -r %.4290s", refused);
    am_doctor_say(d, AM_DOCTOR_WARN, "files", todo,
                  "%u damaged or foreign files were refused and moved aside, %.1f MiB", t.n_refused,
                  t.refused_bytes / MIB);
}

/* Writes a file and syncs it as the server would; MiB a second, and the time of one small fsync. false: could not. */
static bool probe(const char *path, double *mib_s, double *sync_ms, am_error *err) {
    static char chunk[MIB];
    int fd = am_io->open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return am_fail(err, AM_EIO, "%s: %s", path, strerror(-fd)), false;
    for (size_t i = 0; i < sizeof chunk; i++)
        chunk[i] = (char)(i * 2654435761u >> 11); /* nothing that compresses away */
    uint64_t start = am_now_ns();
    am_status status = AM_OK;
    for (off_t at = 0; !status && at < PROBE_BYTES; at += MIB)
        status = am_fs_write_at(fd, path, chunk, sizeof chunk, at, err);
    if (!status && am_io->fsync(fd) < 0) status = am_fail(err, AM_EIO, "%s: cannot be synced", path);
    *mib_s = PROBE_BYTES / MIB / (am_ms_since(start) / 1000 + 1e-9);
    start = am_now_ns();
    if (!status) status = am_fs_write_at(fd, path, chunk, 4096, 0, err);
    if (!status && am_io->fsync(fd) < 0) status = am_fail(err, AM_EIO, "%s: cannot be synced", path);
    *sync_ms = am_ms_since(start);
    am_io->close(fd);
    am_io->unlink(path);
    return !status;
}

void am_doctor_disk(am_doctor *d) {
    struct statvfs fs;
    char path[4200];
    double mib_s, sync_ms;
    am_error err = {0};
    if (!d->has_dir || statvfs(d->caches, &fs) != 0) return;
    double free_bytes = (double)fs.f_bavail * (double)fs.f_frsize, inodes = (double)fs.f_favail;
    am_doctor_level level = free_bytes < low_bytes      ? AM_DOCTOR_BAD
                            : free_bytes < scarce_bytes ? AM_DOCTOR_WARN
                                                        : AM_DOCTOR_OK;
    am_doctor_say(d, level, "disk", level ? "make room, or set --disk-quota so that blocks nobody needs leave" : "",
                  "%.1f GiB free", free_bytes / MIB / 1024);
    if (fs.f_files && inodes < 10000)
        am_doctor_say(d, AM_DOCTOR_WARN, "disk", "make room: each block is a file", "only %.0f files can still be made",
                      inodes);
    if (free_bytes < 4.0 * PROBE_BYTES || am_fs_join(path, sizeof path, d->data_dir, "doctor.tmp", NULL)) return;
    if (!probe(path, &mib_s, &sync_ms, &err)) {
        am_doctor_say(d, AM_DOCTOR_BAD, "disk", "the folder must be writable, on a disk that works: see dmesg", "%s",
                      err.message);
        return;
    }
    bool slow = mib_s < slow_mib_s || sync_ms > slow_sync_ms;
    am_doctor_say(d, slow ? AM_DOCTOR_WARN : AM_DOCTOR_OK, "disk",
                  slow ? "a faster disk, or --durability everysec" : "",
                  "writes and syncs %.0f MiB/s; a small fsync takes %.1f ms", mib_s, sync_ms);
}
