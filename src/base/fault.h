/* The seam through which tests make allocations fail. In normal running it costs one relaxed load. */
#ifndef AM_BASE_FAULT_H
#define AM_BASE_FAULT_H

#include <stdbool.h>

/* The n-th allocation from now on fails (1 = the next), once; 0 switches it off. */
void am_fault_alloc_at(long n);
bool am_fault_alloc(void); /* called by the allocators of base/: true when this one must fail */

#endif
