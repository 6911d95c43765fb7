/* Views, growing buffers with a maximum from birth, and arenas. */
#ifndef AM_BASE_BUF_H
#define AM_BASE_BUF_H

#include "base/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A view: bytes somebody else owns; not NUL-terminated. */
typedef struct am_str {
    const char *p;
    size_t n;
} am_str;

#define AM_STR(literal) ((am_str){(literal), sizeof(literal) - 1})
am_str am_str_of(const char *s); /* s may be NULL: then empty */
bool am_str_eq(am_str a, am_str b);
bool am_str_starts(am_str s, am_str prefix);

/* A growing byte buffer. Appending past `max` fails with AM_ELIMIT and leaves the content as it was; whatever is asked of it after a failure
 * fails the same way until it is cleared, so that what misses a piece never passes for whole and the last append's status tells of all. p is always
 * NUL-terminated once anything was appended (the NUL is not counted in n). Zero-initialised with max set is valid. */
typedef struct am_buf {
    char *p;
    size_t n;
    size_t cap;
    size_t max;
    am_status failed;
} am_buf;

void am_buf_init(am_buf *buf, size_t max);
void am_buf_free(am_buf *buf);
am_status am_buf_reserve(am_buf *buf, size_t n_more);
am_status am_buf_append(am_buf *buf, const void *p, size_t n);
am_status am_buf_add(am_buf *buf, am_str s);
am_status am_buf_putc(am_buf *buf, char c);
am_status am_buf_printf(am_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void am_buf_clear(am_buf *buf); /* empty and not failed, memory kept */
am_str am_buf_str(const am_buf *buf);

/* An arena: allocations live until it is freed or reset, 16-byte aligned, zeroed. Past max_bytes it returns NULL. */
typedef struct am_arena am_arena;
am_arena *am_arena_create(size_t max_bytes); /* NULL when out of memory; free with am_arena_free */
void am_arena_free(am_arena *arena);
void am_arena_reset(am_arena *arena);
void *am_arena_alloc(am_arena *arena, size_t n_bytes);
char *am_arena_strdup(am_arena *arena, am_str s); /* NUL-terminated copy */
size_t am_arena_used(const am_arena *arena);
size_t am_arena_all_bytes(void); /* what all arenas of the process hold */

/* Checked size arithmetic: false on overflow, *out then untouched. */
bool am_size_add(size_t a, size_t b, size_t *out);
bool am_size_mul(size_t a, size_t b, size_t *out);

/* malloc of n elements with overflow check; zeroed. Aligned variants: 64 bytes, free with free(). */
void *am_calloc(size_t n, size_t size);
void *am_alloc_aligned(size_t n_bytes); /* zeroed, 64-byte aligned, size rounded up to 64 */
void *am_alloc_room(size_t n_bytes);    /* the same, not zeroed, in huge pages where there are: for what is large and filled in parallel */

#endif
