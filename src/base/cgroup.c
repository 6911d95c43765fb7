/* Owns reading control groups. A namespace shows a group's folder as the root of what is mounted, so a path that is not there is the mount itself. */
#include "base/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

double am_number_in_file(const char *path, const char *word) {
    char small[65536];
    FILE *f = fopen(path, "re"); /* files of /proc have no length, so am_fs_read_file is not for them */
    size_t n = f ? fread(small, 1, sizeof small - 1, f) : 0;
    if (f) fclose(f);
    small[n] = 0;
    const char *at = *word ? strstr(small, word) : small;
    if (!n || !at) return -1;
    at += strlen(word);
    char *end;
    double value = strtod(at, &end);
    return end == at ? -1 : value;
}

double am_cgroup_number(const char *folder, const char *v2, const char *v1, const char *word) {
    char path[600];
    if (!*folder) return -1;
    snprintf(path, sizeof path, "%s/%s", folder, v2);
    if (access(path, F_OK) != 0) snprintf(path, sizeof path, "%s/%s", folder, v1);
    return am_number_in_file(path, word);
}

/* Whether a list of names separated by commas has one. */
static bool has_name(const char *names, const char *name) {
    size_t n = strlen(name);
    for (const char *at = names; (at = strstr(at, name)); at += n)
        if ((at == names || at[-1] == ',') && (at[n] == ',' || at[n] == 0)) return true;
    return false;
}

static void folder_of(const char *list, const char *mount, const char *controller, char out[512]) {
    char line[512], root[512];
    FILE *f = fopen(list, "re");
    bool own = false; /* version 1 has a line for the controller, which goes before version 2's */
    out[0] = 0;
    while (f && !own && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        own = has_name(names + 1, controller);
        if (!own && names[1]) continue;
        snprintf(root, sizeof root, own ? "%.400s/%.30s" : "%.400s", mount, controller);
        snprintf(out, 512, "%.430s%.80s", root, strcmp(path, "/") == 0 ? "" : path);
        if (access(out, F_OK) != 0) snprintf(out, 512, "%.430s", access(root, F_OK) == 0 ? root : mount);
    }
    if (f) fclose(f);
}

void am_cgroup_find(const char *list, const char *mount, am_cgroup *out) {
    folder_of(list, mount, "memory", out->memory);
    folder_of(list, mount, "cpu", out->cpu);
    out->n_mount = strlen(mount);
}

void am_cgroup_of(int pid, am_cgroup *out) {
    char list[64];
    snprintf(list, sizeof list, "/proc/%d/cgroup", pid ? pid : (int)getpid());
    am_cgroup_find(list, "/sys/fs/cgroup", out);
}

/* The least positive number that `limit` finds from a folder up to the mount. */
static double least(const am_cgroup *group, const char *folder, double (*limit)(const char *folder)) {
    char at[512];
    double found = 0;
    snprintf(at, sizeof at, "%s", folder);
    while (strlen(at) >= group->n_mount && *at) {
        double v = limit(at);
        if (v > 0 && (found == 0 || v < found)) found = v;
        char *slash = strrchr(at, '/');
        if (!slash) break;
        *slash = 0;
    }
    return found;
}

static double memory_limit(const char *folder) { return am_cgroup_number(folder, "memory.max", "memory.limit_in_bytes", ""); }

static double cpu_limit(const char *folder) {
    char path[600];
    double quota = -1, period = -1;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    FILE *f = fopen(path, "re");
    if (!f) {
        quota = am_cgroup_number(folder, "cpu.cfs_quota_us", "cpu.cfs_quota_us", "");
        period = am_cgroup_number(folder, "cpu.cfs_period_us", "cpu.cfs_period_us", "");
    } else {
        if (fscanf(f, "%lf %lf", &quota, &period) != 2) quota = -1; /* "max" */
        fclose(f);
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

uint64_t am_cgroup_memory_limit(const am_cgroup *group) {
    double v = least(group, group->memory, memory_limit);
    return v > 0 && v < 0x1p62 ? (uint64_t)v : 0; /* version 1 says "none" by a number near 2^63 */
}

double am_cgroup_cpu_limit(const am_cgroup *group) { return least(group, group->cpu, cpu_limit); }
