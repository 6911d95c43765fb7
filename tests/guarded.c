/* Owns the maps of guarded buffers until guarded_free_all; a test that needs more than MAX_MAPS at once is a mistake. */
#include "guarded.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_MAPS = 512 };
static struct { void *p; size_t n; } maps[MAX_MAPS];
static size_t n_maps;

void *guarded_alloc(size_t n, size_t align, guard_side side) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page;
    uint8_t *p = mmap(NULL, body + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || n_maps == MAX_MAPS || mprotect(p, page, PROT_NONE) || mprotect(p + page + body, page, PROT_NONE)) {
        fprintf(stderr, "guarded_alloc: no map for %zu bytes\n", n);
        exit(1);
    }
    maps[n_maps].p = p;
    maps[n_maps++].n = body + 2 * page;
    return p + page + (side == GUARD_BEFORE ? 0 : (body - n) & ~(align - 1));
}

void guarded_free_all(void) {
    while (n_maps) {
        n_maps--;
        munmap(maps[n_maps].p, maps[n_maps].n);
    }
}
