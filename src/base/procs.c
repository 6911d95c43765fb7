/* Owns the reading of /proc: a process's stat, status and command line, and the way from a port over its socket's inode
 * to the process that has it. */
#include "base/procs.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char *const tcp_tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
enum { N_TCP_TABLES = sizeof tcp_tables / sizeof tcp_tables[0], LISTENS = 0x0a };

static size_t read_text(int pid, const char *file, char *out, size_t cap) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, cap - 1, f) : 0;
    if (f) fclose(f);
    out[n] = 0;
    return n;
}

static uint64_t kib_of(const char *status, const char *key) {
    const char *line = strstr(status, key);
    return line ? strtoull(line + strlen(key), NULL, 10) * 1024 : 0;
}

static double age_of(const char *stat_after_name) {
    unsigned long long start = 0;
    double up = 0;
    FILE *f = fopen("/proc/uptime", "re");
    if (!f || fscanf(f, "%lf", &up) != 1) up = 0;
    if (f) fclose(f);
    /* state is field 3, the start is field 22 */
    sscanf(stat_after_name, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
           &start);
    double age = up - (double)start / (double)sysconf(_SC_CLK_TCK);
    return age > 0 ? age : 0;
}

am_status am_proc_read(int pid, am_proc *out) {
    char stat[1024], status[4096];
    *out = (am_proc){.pid = pid};
    if (!read_text(pid, "stat", stat, sizeof stat)) return AM_ENOTFOUND;
    char *open = strchr(stat, '('), *close = strrchr(stat, ')');
    if (!open || !close || sscanf(close + 1, " %c %d", &out->state, &out->parent) != 2) return AM_ENOTFOUND;
    snprintf(out->name, sizeof out->name, "%.*s", (int)(close - open - 1), open + 1);
    out->age_s = age_of(close + 1);
    read_text(pid, "status", status, sizeof status);
    const char *uid = strstr(status, "\nUid:");
    out->uid = uid ? (unsigned)strtoul(uid + 5, NULL, 10) : 0;
    out->rss_bytes = kib_of(status, "\nVmRSS:");
    out->peak_bytes = kib_of(status, "\nVmHWM:");
    out->swap_bytes = kib_of(status, "\nVmSwap:");
    out->locked_bytes = kib_of(status, "\nVmLck:");
    out->shared_bytes = kib_of(status, "\nRssFile:") + kib_of(status, "\nRssShmem:");
    size_t n = read_text(pid, "cmdline", out->command, sizeof out->command);
    for (size_t i = 0; i + 1 < n; i++)
        if ((unsigned char)out->command[i] < ' ') out->command[i] = ' '; /* arguments are separated by NUL */
    return AM_OK;
}

am_status am_proc_each(am_status (*fn)(void *arg, const am_proc *proc), void *arg, am_error *err) {
    DIR *d = opendir("/proc");
    if (!d) return am_fail(err, AM_EIO, "/proc cannot be read");
    am_status status = AM_OK;
    am_proc proc;
    for (struct dirent *e; !status && (e = readdir(d));)
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && am_proc_read(atoi(e->d_name), &proc) == AM_OK)
            status = fn(arg, &proc);
    closedir(d);
    return status;
}

/* Calls fn for the inode of every listening socket until it says true. */
static bool each_listener(bool (*fn)(void *arg, unsigned port, unsigned long inode), void *arg) {
    bool found = false;
    for (size_t i = 0; !found && i < N_TCP_TABLES; i++) {
        FILE *f = fopen(tcp_tables[i], "re");
        char line[512];
        while (f && !found && fgets(line, sizeof line, f)) {
            unsigned port, state;
            unsigned long inode;
            if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %lu", &port, &state,
                       &inode) == 3 &&
                state == LISTENS)
                found = fn(arg, port, inode);
        }
        if (f) fclose(f);
    }
    return found;
}

/* Calls fn for every socket the process has until it says true. */
static bool each_socket(int pid, bool (*fn)(void *arg, unsigned long inode), void *arg) {
    char dir[64], path[340], link[64];
    snprintf(dir, sizeof dir, "/proc/%d/fd", pid);
    DIR *d = opendir(dir);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        unsigned long inode;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        ssize_t n = readlink(path, link, sizeof link - 1);
        link[n > 0 ? n : 0] = 0;
        if (sscanf(link, "socket:[%lu]", &inode) == 1) found = fn(arg, inode);
    }
    if (d) closedir(d);
    return found;
}

static bool is_inode(void *arg, unsigned long inode) { return *(unsigned long *)arg == inode; }

typedef struct wanted {
    unsigned port;
    unsigned long inode;
} wanted;

static bool is_port(void *arg, unsigned port, unsigned long inode) {
    wanted *w = arg;
    if (port == w->port) w->inode = inode;
    return port == w->port;
}

typedef struct holder {
    unsigned long inode;
    am_proc *out;
} holder;

static am_status holds(void *arg, const am_proc *proc) {
    holder *h = arg;
    if (!each_socket(proc->pid, is_inode, &h->inode)) return AM_OK;
    *h->out = *proc;
    return AM_EEXIST; /* found: enough */
}

am_status am_proc_of_port(unsigned port, am_proc *out) {
    wanted w = {.port = port};
    *out = (am_proc){0};
    if (!each_listener(is_port, &w)) return AM_ENOTFOUND;
    return am_proc_each(holds, &(holder){w.inode, out}, NULL) == AM_EEXIST ? AM_OK : AM_EPERM;
}

static bool has_socket(void *arg, unsigned port, unsigned long inode) {
    (void)port;
    return each_socket(*(int *)arg, is_inode, &inode);
}

bool am_proc_listens(int pid) { return each_listener(has_socket, &pid); }
