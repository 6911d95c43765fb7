/* Hashes. XXH3 for checksums of bytes (fast, not against an adversary), keyed BLAKE2b for names and chains. */
#ifndef AM_BASE_HASH_H
#define AM_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct am_hash {
    uint8_t b[32];
} am_hash;

/* BLAKE2b-256 of the parts in turn; each part is preceded by its length (u64 little endian), so that parts cannot run
 * into each other. key may be NULL (unkeyed) or 32 bytes. */
typedef struct am_hash_part {
    const void *p;
    size_t n;
} am_hash_part;
am_hash am_hash_parts(const uint8_t key[32], const am_hash_part *parts, size_t n_parts);
bool am_hash_eq(const am_hash *a, const am_hash *b);
void am_hash_hex(const am_hash *h, char hex[65]);
bool am_hash_parse(const char *hex, size_t n, am_hash *h); /* exactly 64 lower-case hex digits */

/* XXH3-128, as 16 bytes in XXH's canonical (big-endian) order, for stored checksums; hex has 33 bytes. */
typedef struct am_sum {
    uint8_t b[16];
} am_sum;
am_sum am_sum_of(const void *p, size_t n);
typedef struct am_sum_state am_sum_state; /* streaming */
am_sum_state *am_sum_begin(void);          /* NULL when out of memory */
void am_sum_add(am_sum_state *state, const void *p, size_t n);
am_sum am_sum_end(am_sum_state *state); /* frees state */
void am_sum_hex(const am_sum *s, char hex[33]);

uint64_t am_hash64(const void *p, size_t n); /* XXH3-64, for tables in memory */
void am_random_bytes(void *p, size_t n);     /* from the system's generator */

#endif
