/* Processors: those this process may run on, and how many threads of arithmetic they carry. */
#ifndef AM_BASE_CPUS_H
#define AM_BASE_CPUS_H

#include "base/buf.h"

#include <stdint.h>

enum { AM_MAX_CPUS = 1024 };

typedef struct am_cpus {
    uint32_t n;
    uint16_t id[AM_MAX_CPUS]; /* ascending */
} am_cpus;

void am_cpus_allowed(am_cpus *out); /* by this process's affinity */
/* Of `cpus`, the first of each core: threads of one core share its arithmetic units. sys: where the system lists processors. */
void am_cpus_cores(const am_cpus *cpus, const char *sys, am_cpus *out);
/* Threads worth starting: one a core that this process may use, no more than its control group gives time for; at least 1. */
uint32_t am_cpus_threads(void);
/* A list as taskset -c takes it ("0-3,8"). AM_EINVAL: no such list, or a processor that is not among `allowed`. */
am_status am_cpus_parse(am_str text, const am_cpus *allowed, am_cpus *out, am_error *err);

#endif
