/* Buffers between pages that nobody may touch: a read or write one byte outside is a crash at the guilty instruction. */
#ifndef AM_TESTS_GUARDED_H
#define AM_TESTS_GUARDED_H

#include <stddef.h>

typedef enum guard_side { GUARD_BEFORE, GUARD_AFTER } guard_side; /* which edge the buffer is flush with */

/* n zeroed bytes, flush with the guard page of that side as far as `align` (a power of two) lets it. Freed by guarded_free_all. */
void *guarded_alloc(size_t n, size_t align, guard_side side);
void guarded_free_all(void);

#endif
