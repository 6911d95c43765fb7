/* Owns which hash is used for what; libsodium and xxHash do the work.
 *
 * On x86-64 xxHash's own choice by the processor is asked for: the library's plain functions are those of the oldest one (SSE2), at 20 GB/s where AVX-512
 * goes at 57, and every byte of an agent that comes back is summed. */
#include "base/hash.h"

#include <sodium.h>
#include <string.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

am_hash am_hash_parts(const uint8_t key[32], const am_hash_part *parts, size_t n_parts) {
    crypto_generichash_state state;
    am_hash h;
    crypto_generichash_init(&state, key, key ? 32 : 0, sizeof h.b);
    for (size_t i = 0; i < n_parts; i++) {
        uint8_t length[8];
        for (int j = 0; j < 8; j++) length[j] = (uint8_t)((uint64_t)parts[i].n >> (8 * j));
        crypto_generichash_update(&state, length, sizeof length);
        if (parts[i].n) crypto_generichash_update(&state, parts[i].p, parts[i].n);
    }
    crypto_generichash_final(&state, h.b, sizeof h.b);
    return h;
}

bool am_hash_eq(const am_hash *a, const am_hash *b) { return memcmp(a->b, b->b, sizeof a->b) == 0; }
void am_hash_hex(const am_hash *h, char hex[65]) { sodium_bin2hex(hex, 65, h->b, sizeof h->b); }

bool am_hash_parse(const char *hex, size_t n, am_hash *h) {
    if (n != 64) return false;
    for (size_t i = 0; i < n; i++) {
        char c = hex[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return false;
        h->b[i / 2] = (uint8_t)(i % 2 ? h->b[i / 2] | digit : digit << 4);
    }
    return true;
}

static am_sum canonical(XXH128_hash_t hash) {
    am_sum s;
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, hash);
    memcpy(s.b, c.digest, sizeof s.b);
    return s;
}

am_sum am_sum_of(const void *p, size_t n) { return canonical(XXH3_128bits(p, n)); }

am_sum_state *am_sum_begin(void) {
    XXH3_state_t *state = XXH3_createState();
    if (state) XXH3_128bits_reset(state);
    return (am_sum_state *)state;
}

void am_sum_add(am_sum_state *state, const void *p, size_t n) { XXH3_128bits_update((XXH3_state_t *)state, p, n); }

am_sum am_sum_end(am_sum_state *state) {
    am_sum s = canonical(XXH3_128bits_digest((XXH3_state_t *)state));
    XXH3_freeState((XXH3_state_t *)state);
    return s;
}

void am_sum_hex(const am_sum *s, char hex[33]) { sodium_bin2hex(hex, 33, s->b, sizeof s->b); }
uint64_t am_hash64(const void *p, size_t n) { return XXH3_64bits(p, n); }
void am_random_bytes(void *p, size_t n) { randombytes_buf(p, n); }
