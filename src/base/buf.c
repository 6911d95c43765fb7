/* Owns the buffer growth rule (double, never past max) and the arena's chunks. All memory of the product that is sized by
 * input comes through here or through am_calloc, so that tests can make it fail (am_test_fail_alloc in base/fault.h). */
#include "base/buf.h"

#include "base/fault.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

am_str am_str_of(const char *s) { return (am_str){s, s ? strlen(s) : 0}; }
bool am_str_eq(am_str a, am_str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }
bool am_str_starts(am_str s, am_str prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool am_size_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

bool am_size_mul(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

void *am_calloc(size_t n, size_t size) {
    if (am_fault_alloc()) return NULL;
    return calloc(n ? n : 1, size ? size : 1);
}

void *am_alloc_aligned(size_t n_bytes) {
    size_t rounded;
    if (am_fault_alloc() || !am_size_add(n_bytes ? n_bytes : 1, 63, &rounded)) return NULL;
    rounded &= ~(size_t)63;
    void *p = aligned_alloc(64, rounded);
    if (p) memset(p, 0, rounded);
    return p;
}

void *am_alloc_room(size_t n_bytes) {
    enum { HUGE = 2 << 20 };
    size_t rounded;
    if (am_fault_alloc() || !am_size_add(n_bytes ? n_bytes : 1, 63, &rounded)) return NULL;
    rounded &= ~(size_t)63;
    uint8_t *p = aligned_alloc(64, rounded);
    if (!p || rounded < 2 * HUGE) return p;
    uint8_t *first = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1)), *end = (uint8_t *)((uintptr_t)(p + rounded) & ~(uintptr_t)(HUGE - 1));
    madvise(first, (size_t)(end - first), MADV_HUGEPAGE); /* only faster: it may be refused */
    return p;
}

void am_buf_init(am_buf *buf, size_t max) { *buf = (am_buf){.max = max}; }

void am_buf_free(am_buf *buf) {
    if (!buf) return;
    free(buf->p);
    *buf = (am_buf){.max = buf->max};
}

am_status am_buf_reserve(am_buf *buf, size_t n_more) {
    size_t need;
    if (buf->failed) return buf->failed;
    if (!am_size_add(buf->n, n_more, &need) || need > buf->max) return buf->failed = AM_ELIMIT;
    if (need < buf->cap) return AM_OK;
    size_t cap = buf->cap ? buf->cap : 64;
    while (cap <= need) cap = cap > SIZE_MAX / 2 ? need + 1 : cap * 2;
    char *p = am_fault_alloc() ? NULL : realloc(buf->p, cap);
    if (!p) return buf->failed = AM_ENOMEM;
    buf->p = p;
    buf->cap = cap;
    return AM_OK;
}

am_status am_buf_append(am_buf *buf, const void *p, size_t n) {
    am_status status = am_buf_reserve(buf, n);
    if (status) return status;
    if (n) memcpy(buf->p + buf->n, p, n);
    buf->n += n;
    buf->p[buf->n] = 0;
    return AM_OK;
}

am_status am_buf_add(am_buf *buf, am_str s) { return am_buf_append(buf, s.p, s.n); }
am_status am_buf_putc(am_buf *buf, char c) { return am_buf_append(buf, &c, 1); }

am_status am_buf_printf(am_buf *buf, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) return AM_EINVAL;
    am_status status = am_buf_reserve(buf, (size_t)n);
    if (status) return status;
    va_start(args, format);
    vsnprintf(buf->p + buf->n, (size_t)n + 1, format, args);
    va_end(args);
    buf->n += (size_t)n;
    return AM_OK;
}

void am_buf_clear(am_buf *buf) {
    buf->n = 0;
    buf->failed = AM_OK;
    if (buf->p) buf->p[0] = 0;
}

am_str am_buf_str(const am_buf *buf) { return (am_str){buf->p, buf->n}; }

typedef struct chunk {
    struct chunk *next;
    size_t cap;
    size_t used;
    _Alignas(16) char bytes[];
} chunk;

struct am_arena {
    chunk *chunks; /* newest first */
    size_t max_bytes;
    size_t used_bytes;
};

am_arena *am_arena_create(size_t max_bytes) {
    am_arena *arena = am_calloc(1, sizeof *arena);
    if (arena) arena->max_bytes = max_bytes;
    return arena;
}

static atomic_size_t all_bytes; /* of all arenas */

size_t am_arena_all_bytes(void) { return atomic_load_explicit(&all_bytes, memory_order_relaxed); }

static void chunks_free(chunk *c) {
    while (c) {
        chunk *next = c->next;
        atomic_fetch_sub_explicit(&all_bytes, sizeof *c + c->cap, memory_order_relaxed);
        free(c);
        c = next;
    }
}

void am_arena_free(am_arena *arena) {
    if (!arena) return;
    chunks_free(arena->chunks);
    free(arena);
}

void am_arena_reset(am_arena *arena) {
    chunks_free(arena->chunks);
    arena->chunks = NULL;
    arena->used_bytes = 0;
}

void *am_arena_alloc(am_arena *arena, size_t n_bytes) {
    size_t n;
    if (!am_size_add(n_bytes ? n_bytes : 1, 15, &n)) return NULL;
    n &= ~(size_t)15;
    if (n > arena->max_bytes - arena->used_bytes) return NULL;
    chunk *c = arena->chunks;
    if (!c || n > c->cap - c->used) {
        size_t cap = c ? c->cap * 2 : 4096;
        if (cap > (1u << 20)) cap = 1u << 20;
        if (cap < n) cap = n;
        c = am_calloc(1, sizeof *c + cap);
        if (!c) return NULL;
        atomic_fetch_add_explicit(&all_bytes, sizeof *c + cap, memory_order_relaxed);
        c->cap = cap;
        c->next = arena->chunks;
        arena->chunks = c;
    }
    void *p = c->bytes + c->used;
    c->used += n;
    arena->used_bytes += n;
    return p;
}

char *am_arena_strdup(am_arena *arena, am_str s) {
    size_t n;
    if (!am_size_add(s.n, 1, &n)) return NULL;
    char *p = am_arena_alloc(arena, n);
    if (p && s.n) memcpy(p, s.p, s.n);
    return p;
}

size_t am_arena_used(const am_arena *arena) { return arena->used_bytes; }
