/* Owns the two classes of slot. Each is one private mapping whose pages the system gives when they are first written, so a large budget costs
 * nothing until it is used; free slots are a stack, so the warmest is used again first. */
#include "cache/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

am_status am_pool_init(am_pool *pool, size_t slot_bytes, uint32_t n_slots, am_error *err) {
    *pool = (am_pool){.slot_bytes = slot_bytes};
    if (!am_size_mul(slot_bytes, n_slots, &pool->mapped_bytes) || !(pool->free_slots = am_calloc(n_slots, sizeof *pool->free_slots)))
        return am_fail(err, AM_ENOMEM, "no memory for %u cache slots", n_slots);
    void *memory = mmap(NULL, pool->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
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
