/* Where the process's resident memory lies, as the system and the allocator tell it. */
#ifndef AM_BASE_FOOTPRINT_H
#define AM_BASE_FOOTPRINT_H

#include <stddef.h>
#include <stdint.h>

typedef struct am_footprint {
    uint64_t rss, peak, anon, swap, locked; /* of the whole process */
    uint64_t program, libraries, mapped;    /* resident pages of files: ours, shared objects, others (weights) */
    uint64_t data;                          /* resident zero-initialised data of the program */
    uint64_t stacks;                        /* resident, of all threads */
    uint64_t heap_used, heap_free;          /* the allocator's: handed out; kept for later */
} am_footprint;
void am_footprint_read(am_footprint *out);
uint64_t am_footprint_rss(void); /* that alone; exact, which /proc/self/statm need not be */

uint64_t am_memory_total(void); /* the machine's, or what the control group allows of it */
/* Memory that a process can still get without swapping, by the machine and by its control group; UINT64_MAX: nobody says. */
uint64_t am_memory_available(void);

/* How many bytes of n from p on are resident, by whole pages. */
uint64_t am_footprint_resident(const void *p, size_t n);
/* The calling thread's stack is counted from now on (am_thread_begin does it). */
void am_footprint_add_stack(void);

#endif
