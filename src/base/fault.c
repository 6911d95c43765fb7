/* Owns the countdown to the allocation that must fail. */
#include "base/fault.h"

#include <stdatomic.h>

static atomic_long countdown;

void am_fault_alloc_at(long n) { atomic_store(&countdown, n); }

bool am_fault_alloc(void) {
    if (atomic_load_explicit(&countdown, memory_order_relaxed) <= 0) return false;
    return atomic_fetch_sub(&countdown, 1) == 1;
}
