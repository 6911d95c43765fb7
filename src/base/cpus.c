/* Owns the count of processors, by what the system, the affinity and the control group say together. */
#include "base/cpus.h"

#include "base/cgroup.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>

void am_cpus_allowed(am_cpus *out) {
    cpu_set_t set;
    out->n = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set)) CPU_SET(0, &set);
    for (int i = 0; i < AM_MAX_CPUS && i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set)) out->id[out->n++] = (uint16_t)i;
}

static bool is_among(const am_cpus *cpus, uint64_t id) {
    for (uint32_t i = 0; i < cpus->n; i++)
        if (cpus->id[i] == id) return true;
    return false;
}

/* Digits at *text, which moves behind them; beyond all processors: AM_MAX_CPUS. */
static bool number(am_str *text, uint64_t *out) {
    size_t i = 0;
    for (*out = 0; i < text->n && text->p[i] >= '0' && text->p[i] <= '9'; i++)
        if ((*out = *out * 10 + (uint64_t)(text->p[i] - '0')) > AM_MAX_CPUS) *out = AM_MAX_CPUS;
    *text = (am_str){text->p + i, text->n - i};
    return i > 0;
}

static bool skip(am_str *text, char c) {
    if (!text->n || *text->p != c) return false;
    *text = (am_str){text->p + 1, text->n - 1};
    return true;
}

/* "3" or "0-3"; false: it is neither. */
static bool range(am_str *text, uint64_t *first, uint64_t *last) {
    if (!number(text, first)) return false;
    *last = *first;
    return !skip(text, '-') || (number(text, last) && *last >= *first);
}

am_status am_cpus_parse(am_str text, const am_cpus *allowed, am_cpus *out, am_error *err) {
    bool chosen[AM_MAX_CPUS] = {false};
    am_str rest = text;
    do {
        uint64_t first, last;
        if (!range(&rest, &first, &last)) return am_fail(err, AM_EINVAL, "'%.*s' is no list of processors, as \"0-3,8\"", (int)text.n, text.p);
        for (; first <= last; first++) {
            if (!is_among(allowed, first)) return am_fail(err, AM_EINVAL, "processor %llu of '%.*s' is none that this process may use", (unsigned long long)first, (int)text.n, text.p);
            chosen[first] = true;
        }
    } while (skip(&rest, ','));
    if (rest.n) return am_fail(err, AM_EINVAL, "'%.*s' is no list of processors, as \"0-3,8\"", (int)text.n, text.p);
    out->n = 0;
    for (uint32_t i = 0; i < AM_MAX_CPUS; i++)
        if (chosen[i]) out->id[out->n++] = (uint16_t)i;
    return AM_OK;
}

void am_cpus_cores(const am_cpus *cpus, const char *sys, am_cpus *out) {
    am_cpus siblings;
    char path[600], line[256];
    out->n = 0;
    for (uint32_t i = 0; i < cpus->n; i++) {
        snprintf(path, sizeof path, "%.500s/cpu%u/topology/thread_siblings_list", sys, cpus->id[i]);
        FILE *f = fopen(path, "re");
        bool known = f && fscanf(f, "%255s", line) == 1 && am_cpus_parse(am_str_of(line), cpus, &siblings, NULL) == AM_OK;
        if (f) fclose(f);
        if (!known || siblings.id[0] == cpus->id[i]) out->id[out->n++] = cpus->id[i];
    }
}

uint32_t am_cpus_threads(void) {
    am_cpus allowed, cores;
    am_cgroup group;
    am_cpus_allowed(&allowed);
    am_cpus_cores(&allowed, "/sys/devices/system/cpu", &cores);
    am_cgroup_of(0, &group);
    double limit = am_cgroup_cpu_limit(&group);
    uint32_t n = limit > 0 && limit < cores.n ? (uint32_t)limit : cores.n;
    return n ? n : 1;
}
