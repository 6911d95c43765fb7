/* Owns the question how much memory there is, and still is: the kernel's own estimate, or what a container's limit leaves, whichever is less. Pages of files
 * count as free in both, since they can be dropped. */
#include "base/footprint.h"

#include "base/cgroup.h"

static uint64_t left_in_group(void) {
    am_cgroup group;
    am_cgroup_of(0, &group);
    double most = am_cgroup_number(group.memory, "memory.max", "memory.limit_in_bytes", ""),
           used = am_cgroup_number(group.memory, "memory.current", "memory.usage_in_bytes", ""),
           inactive = am_cgroup_number(group.memory, "memory.stat", "memory.stat", "\ninactive_file "),
           active = am_cgroup_number(group.memory, "memory.stat", "memory.stat", "\nactive_file ");
    if (most < 0 || used < 0) return UINT64_MAX;
    double files = (inactive > 0 ? inactive : 0) + (active > 0 ? active : 0), left = most - (used > files ? used - files : 0);
    return left > 0 ? (uint64_t)left : 0;
}

uint64_t am_memory_available(void) {
    double kib = am_number_in_file("/proc/meminfo", "MemAvailable:");
    uint64_t machine = kib > 0 ? (uint64_t)kib * 1024 : UINT64_MAX, group = left_in_group();
    return machine < group ? machine : group;
}

uint64_t am_memory_total(void) {
    am_cgroup group;
    am_cgroup_of(0, &group);
    double kib = am_number_in_file("/proc/meminfo", "MemTotal:");
    uint64_t machine = kib > 0 ? (uint64_t)kib * 1024 : 0, limit = am_cgroup_memory_limit(&group);
    return limit && limit < machine ? limit : machine;
}
