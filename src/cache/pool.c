/* Owns the two classes of slot. Each is one private mapping whose pages the system gives when they are first written, so a large budget costs
 * nothing until it is used; free slots are a stack, so the warmest is used again first.
 *
 * Huge pages are asked for: an agent that comes back after a restart writes to memory that was never touched, and by pages of 4 KiB the kernel's part of
 * that took five times as long as reading the files (bench/bench_restore). The price is that the last page of what is used may reach beyond it. */
#include "cache/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20 };

/* A mapping of n bytes that begins where a huge page can; small ones do without. */
static void *map(size_t n) {
    if (n < 2 * (size_t)HUGE_PAGE) return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *p = mmap(NULL, n + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return p;
    char *first = (char *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (n + page - 1) & ~(page - 1);
    if (first > p) munmap(p, (size_t)(first - p));
    if (p + n + HUGE_PAGE > first + used) munmap(first + used, (size_t)(p + n + HUGE_PAGE - (first + used)));
    madvise(first, used, MADV_HUGEPAGE); /* only faster: it may be refused */
    return first;
}

am_status am_pool_init(am_pool *pool, size_t slot_bytes, uint32_t n_slots, am_error *err) {
    *pool = (am_pool){.slot_bytes = slot_bytes};
    if (!am_size_mul(slot_bytes, n_slots, &pool->mapped_bytes) || !(pool->free_slots = am_calloc(n_slots, sizeof *pool->free_slots)))
        return am_fail(err, AM_ENOMEM, "no memory for %u cache slots", n_slots);
    void *memory = map(pool->mapped_bytes);
    if (memory == MAP_FAILED) {
        free(pool->free_slots);
        *pool = (am_pool){0};
        return am_fail(err, AM_ENOMEM, "cannot map %zu bytes for %u cache slots: %s", slot_bytes * n_slots, n_slots, strerror(errno));
    }
    pool->memory = memory;
    pool->n_slots = n_slots;
    while (pool->n_free < n_slots) {
        pool->free_slots[pool->n_free] = pool->memory + (size_t)(n_slots - 1 - pool->n_free) * slot_bytes;
        pool->n_free++;
    }
    return AM_OK;
}

void am_pool_free(am_pool *pool) {
    if (pool->memory) munmap(pool->memory, pool->mapped_bytes);
    free(pool->free_slots);
    *pool = (am_pool){0};
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; an older one refuses it */
#endif

void am_pool_populate(const am_pool *pool, uint32_t n_slots) {
    if (n_slots > pool->n_slots) n_slots = pool->n_slots;
    if (n_slots) madvise(pool->memory, n_slots * pool->slot_bytes, MADV_POPULATE_WRITE); /* only faster */
}

void *am_pool_take(am_pool *pool) { return pool->n_free ? pool->free_slots[--pool->n_free] : NULL; }

void am_pool_give(am_pool *pool, void *slot) {
    if (slot) pool->free_slots[pool->n_free++] = slot;
}

void am_pool_trim(am_pool *pool) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint32_t i = 0; i < pool->n_free; i++) {
        uintptr_t from = ((uintptr_t)pool->free_slots[i] + page - 1) / page * page;
        uintptr_t to = ((uintptr_t)pool->free_slots[i] + pool->slot_bytes) / page * page;
        if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
    }
}
