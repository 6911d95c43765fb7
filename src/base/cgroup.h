/* What control groups, of version 2 or 1, allow a process. A folder of a parent's limits its children too. */
#ifndef AM_BASE_CGROUP_H
#define AM_BASE_CGROUP_H

#include <stddef.h>
#include <stdint.h>

typedef struct am_cgroup {
    char memory[512], cpu[512]; /* folders of the two controllers; "": none */
    size_t n_mount;             /* their first bytes, where all groups lie */
} am_cgroup;

void am_cgroup_of(int pid, am_cgroup *out); /* 0: this process */
/* The same by a list as /proc/PID/cgroup is one, and where groups are mounted. */
void am_cgroup_find(const char *list, const char *mount, am_cgroup *out);

/* The number behind `word` in a file of a folder, by its name in version 2 or 1; word "": the first. Negative: not there, or no number ("max"). */
double am_cgroup_number(const char *folder, const char *v2, const char *v1, const char *word);
/* The least limit of the group and those above it; 0: none. */
uint64_t am_cgroup_memory_limit(const am_cgroup *group); /* bytes */
double am_cgroup_cpu_limit(const am_cgroup *group);      /* processors' worth of time */

/* The number behind `word` anywhere in a small file of /proc, /sys or a group; word "": at its beginning. Negative: not there, or no number. */
double am_number_in_file(const char *path, const char *word);

#endif
