/* Owns the two clocks. */
#include "base/clock.h"

#include <time.h>

static uint64_t read_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t am_now_ns(void) { return read_ns(CLOCK_MONOTONIC); }
uint64_t am_wall_ns(void) { return read_ns(CLOCK_REALTIME); }
double am_ms_since(uint64_t start_ns) { return (double)(am_now_ns() - start_ns) / 1e6; }
