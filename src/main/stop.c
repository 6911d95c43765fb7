/* Owns `stop`: the operators' procedure for ending a server. Find who has the port, make sure it is one of ours,
 * SIGTERM, wait until the process is gone, and as the last resort SIGKILL. The process is held by a pidfd from the
 * moment it was looked at, so no other one can be hit that gets its number later. */
#include "main/commands.h"

#include "base/clock.h"
#include "base/procs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LAST_RESORT_MS = 5000 };

static bool gone(int pidfd, uint64_t ms) {
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, ms > 86400000 ? 86400000 : (int)ms) == 1;
}

static int end_it(const am_settings *settings, const am_proc *proc, int pidfd) {
    uint64_t start = am_now_ns();
    printf("pid %d (%s): SIGTERM, waiting for it to write everything to disk\n", proc->pid, proc->command);
    fflush(stdout);
    if (pidfd_send_signal(pidfd, SIGTERM, NULL, 0) != 0 && errno != ESRCH) {
        fprintf(stderr, "agent-memory: pid %d cannot be signalled: %s\n", proc->pid, strerror(errno));
        return AM_EXIT_FAILED;
    }
    if (gone(pidfd, settings->wait_ms)) {
        printf("gone after %.1f s; port %llu is free\n", am_ms_since(start) / 1000, (unsigned long long)settings->port);
        return 0;
    }
    if (!settings->force) {
        fprintf(stderr,
                "agent-memory: pid %d is still there after %.0f s; --force ends it with SIGKILL (nothing that was "
                "answered is lost)\n",
                proc->pid, am_ms_since(start) / 1000);
        return AM_EXIT_FAILED;
    }
    printf("still there after %.0f s: SIGKILL (nothing that was answered is lost)\n", am_ms_since(start) / 1000);
    pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
    if (gone(pidfd, LAST_RESORT_MS)) return AM_EXIT_FOUND;
    fprintf(stderr, "agent-memory: pid %d does not end: it waits for a disk (state %c); see dmesg\n", proc->pid,
            proc->state);
    return AM_EXIT_FAILED;
}

int am_command_stop(am_settings *settings) {
    am_proc proc;
    am_status status = am_proc_of_port((unsigned)settings->port, &proc);
    if (status == AM_ENOTFOUND) {
        printf("nobody listens on port %llu\n", (unsigned long long)settings->port);
        return 0;
    }
    if (status) {
        fprintf(stderr, "agent-memory: port %llu belongs to another user's process; ask with sudo\n",
                (unsigned long long)settings->port);
        return AM_EXIT_FAILED;
    }
    int pidfd = pidfd_open(proc.pid, 0);
    am_proc again;
    bool same = pidfd >= 0 && am_proc_of_port((unsigned)settings->port, &again) == AM_OK && again.pid == proc.pid;
    int code = AM_EXIT_FAILED;
    if (!same)
        fprintf(stderr, "agent-memory: pid %d went away while it was looked at; try again\n", proc.pid);
    else if (strcmp(proc.name, "agent_memory") != 0)
        fprintf(stderr,
                "agent-memory: port %llu belongs to pid %d (%s), which is no server of ours; it was left alone\n",
                (unsigned long long)settings->port, proc.pid, proc.command);
    else
        code = end_it(settings, &proc, pidfd);
    if (pidfd >= 0) close(pidfd);
    return code;
}
