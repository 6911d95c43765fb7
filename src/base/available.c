/* Owns the question how much memory there still is: the kernel's own estimate, or what a container's limit leaves, whichever is less. Pages of files
 * count as free in both, since they can be dropped. */
#include "base/footprint.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The number behind `word` at the beginning of a line; of a file with one number, word is "". */
static bool number_in(const char *path, const char *word, uint64_t *out) {
    char line[256];
    FILE *f = fopen(path, "re");
    bool found = false;
    unsigned long long v;
    while (f && !found && fgets(line, sizeof line, f))
        if (strncmp(line, word, strlen(word)) == 0 && sscanf(line + strlen(word), " %llu", &v) == 1) {
            *out = v;
            found = true;
        }
    if (f) fclose(f);
    return found;
}

/* The folder of this process's control group. */
static bool group_folder(char out[512]) {
    char line[512];
    FILE *f = fopen("/proc/self/cgroup", "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, 512, "/sys/fs/cgroup%.480s", line + 3);
            found = true;
        }
    if (f) fclose(f);
    return found;
}

static uint64_t left_in_group(void) {
    char folder[512], path[560];
    uint64_t most, used, files, part;
    if (!group_folder(folder)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.max", folder); /* "max" where there is no limit */
    if (!number_in(path, "", &most)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.current", folder);
    if (!number_in(path, "", &used)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    files = number_in(path, "inactive_file ", &part) ? part : 0;
    if (number_in(path, "active_file ", &part)) files += part;
    used = used > files ? used - files : 0;
    return most > used ? most - used : 0;
}

uint64_t am_memory_available(void) {
    uint64_t kib, machine = number_in("/proc/meminfo", "MemAvailable:", &kib) ? kib * 1024 : UINT64_MAX, group = left_in_group();
    return machine < group ? machine : group;
}
