/* Processes and listening ports as /proc tells them. Another user's processes may be hidden, in part or altogether. */
#ifndef AM_BASE_PROCS_H
#define AM_BASE_PROCS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct am_proc {
    int pid, parent;
    char state; /* R, S, D, T, Z ... */
    unsigned uid;
    char name[32];     /* the kernel's short one */
    char command[200]; /* arguments, separated by blanks; empty for zombies */
    uint64_t rss_bytes, peak_bytes, swap_bytes, locked_bytes,
        shared_bytes; /* shared: of the RSS, files and shared memory */
    double age_s;
} am_proc;

am_status am_proc_read(int pid, am_proc *out); /* AM_ENOTFOUND */
/* Every process, until fn returns non-AM_OK, which is then returned. */
am_status am_proc_each(am_status (*fn)(void *arg, const am_proc *proc), void *arg, am_error *err);

/* Who listens on a TCP port. AM_OK, AM_ENOTFOUND: nobody; AM_EPERM: somebody this user may not look into. */
am_status am_proc_of_port(unsigned port, am_proc *out);
/* Whether a process listens on any TCP port. */
bool am_proc_listens(int pid);

#endif
