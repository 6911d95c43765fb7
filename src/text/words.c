/* Owns the strings of a vocabulary: one blob, offset and length by id, and a hash table from string to id. Ids come from files:
 * they may have holes and any order, but not be so large that the tables would dwarf the file that asks for them. */
#include "text/tokenizer_int.h"
#include "base/fault.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { AHEAD = 8, MAX_ID = 1 << 22 }; /* sixteen times the largest vocabularies there are */

bool am_grow(void *p, size_t *cap, size_t n, size_t size) {
    if (n <= *cap) return true;
    size_t want = *cap ? *cap : 16, bytes;
    while (want < n) want = want > SIZE_MAX / 2 ? n : want * 2;
    if (!am_size_mul(want, size, &bytes)) return false;
    void *old;
    memcpy(&old, p, sizeof old);
    if (am_fault_alloc()) return false;
    void *grown = realloc(old, bytes);
    if (!grown) return false;
    memcpy(p, &grown, sizeof grown);
    *cap = want;
    return true;
}

static bool words_widen(am_words *w, size_t n) {
    size_t a = w->cap, b = w->cap;
    if (!am_grow(&w->at, &a, n, sizeof *w->at) || !am_grow(&w->flags, &b, n, 1)) return false;
    w->cap = b;
    return true;
}

am_status am_words_add(am_words *w, uint64_t id, am_str s, am_error *err) {
    if (id >= MAX_ID) return am_fail(err, AM_EFORMAT, "token id %llu is out of range", (unsigned long long)id);
    if (w->bytes.max == 0) am_buf_init(&w->bytes, (size_t)1 << 31);
    if (id >= w->n) {
        if (!words_widen(w, id + 1)) return am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
        memset(w->at + w->n, 0, (id + 1 - w->n) * sizeof *w->at);
        memset(w->flags + w->n, 0, id + 1 - w->n);
        w->n = id + 1;
    }
    uint32_t off = (uint32_t)w->bytes.n;
    am_status status = am_buf_add(&w->bytes, s);
    if (status) return am_fail(err, status, "the vocabulary is too large");
    w->at[id] = (am_word_at){off, (uint32_t)s.n};
    if (s.n > w->longest) w->longest = s.n;
    w->flags[id] |= AM_WORD_PRESENT | AM_WORD_FINDABLE;
    w->unsealed = true;
    return AM_OK;
}

am_status am_words_add_hidden(am_words *w, uint64_t id, am_str s, am_error *err) {
    bool before = w->unsealed;
    am_status status = am_words_add(w, id, s, err);
    if (!status) w->flags[id] &= (uint8_t)~AM_WORD_FINDABLE;
    w->unsealed = before;
    return status;
}

void am_words_undo_bytes(am_words *w) {
    for (size_t id = 0; id < w->n; id++) {
        if (!(w->flags[id] & AM_WORD_FINDABLE)) continue;
        char *p = w->bytes.p + w->at[id].off;
        size_t n = w->at[id].len, i = 0, k = 0;
        while (k < n && (uint8_t)p[k] - 0x21u < 0x5E) k++; /* these stand for themselves */
        if (k == n) continue;
        k = 0;
        for (uint32_t cp; i < n; i += am_utf8_get(p + i, &cp))
            if (am_utf8_get(p + i, &cp) && am_char_byte(cp) < 0) break;
        if (i < n) {
            w->flags[id] &= (uint8_t)~AM_WORD_FINDABLE;
            continue;
        }
        for (i = 0; i < n;) {
            uint32_t cp;
            i += am_utf8_get(p + i, &cp);
            p[k++] = (char)am_char_byte(cp);
        }
        w->at[id].len = (uint32_t)k;
    }
}

static inline uint64_t hash_of(const char *p, size_t n) {
    uint64_t h = n * 0x9E3779B97F4A7C15u, word;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * 0x9FB21C651E98DF25u;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, p, n);
    h = (h ^ word) * 0x9FB21C651E98DF25u;
    return h ^ h >> 29;
}

/* Entries are short: a call of memcmp would cost more than the comparison. */
static inline bool same(const char *a, const char *b, size_t n) {
    uint64_t x, y;
    if (n < 8) {
        for (size_t i = 0; i < n; i++)
            if (a[i] != b[i]) return false;
        return true;
    }
    for (size_t i = 0;; i = i + 16 <= n ? i + 8 : n - 8) {
        memcpy(&x, a + i, 8);
        memcpy(&y, b + i, 8);
        if (x != y) return false;
        if (i == n - 8) return true;
    }
}

static inline uint64_t hash_at(const am_words *w, size_t id) {
    am_str s = am_words_get(w, (int64_t)id);
    return hash_of(s.p, s.n);
}

am_status am_words_seal(am_words *w, am_error *err) {
    size_t n_slots = 16, n_found = 0;
    if (w->slots && !w->unsealed) return AM_OK;
    for (size_t id = 0; id < w->n; id++) n_found += (w->flags[id] & AM_WORD_FINDABLE) != 0;
    while (n_slots < n_found + n_found / 2) n_slots *= 2;
    free(w->slots);
    w->slots = am_calloc(n_slots, sizeof *w->slots);
    if (!w->slots) return am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    w->mask = n_slots - 1;
    memset(w->slots, 0xff, n_slots * sizeof *w->slots);
    for (size_t id = 0; id < w->n; id++) {
        if (id + AHEAD < w->n) __builtin_prefetch(&w->slots[hash_at(w, id + AHEAD) & w->mask], 1);
        if (!(w->flags[id] & AM_WORD_FINDABLE)) continue;
        am_str s = am_words_get(w, (int64_t)id);
        uint64_t h = hash_at(w, id);
        for (size_t i = h & w->mask;; i = (i + 1) & w->mask) {
            am_word_slot *slot = &w->slots[i];
            if (slot->id >= 0 && (slot->tag != (uint32_t)(h >> 32) || !am_str_eq(am_words_get(w, slot->id), s))) continue;
            *slot = (am_word_slot){(uint32_t)(h >> 32), (int32_t)id}; /* of equal entries the last counts */
            break;
        }
    }
    w->unsealed = false;
    return AM_OK;
}

uint64_t am_words_hash(am_str s) { return hash_of(s.p, s.n); }

void am_words_prefetch(const am_words *w, uint64_t h, int step) {
    const am_word_slot *slot = &w->slots[h & w->mask];
    if (step == 0) __builtin_prefetch(slot);
    else if (slot->id >= 0 && slot->tag == (uint32_t)(h >> 32)) {
        if (step == 1) __builtin_prefetch(&w->at[slot->id]);
        else __builtin_prefetch(w->bytes.p + w->at[slot->id].off);
    }
}

int32_t am_words_find(const am_words *w, am_str s) { return w->slots ? am_words_find_hashed(w, s, hash_of(s.p, s.n)) : -1; }

int32_t am_words_find_hashed(const am_words *w, am_str s, uint64_t h) {
    uint32_t tag = (uint32_t)(h >> 32);
    for (size_t i = h & w->mask;; i = (i + 1) & w->mask) {
        int32_t id = w->slots[i].id;
        if (id < 0) return -1;
        if (w->slots[i].tag == tag && w->at[id].len == s.n && same(w->bytes.p + w->at[id].off, s.p, s.n)) return id;
    }
}

am_str am_words_get(const am_words *w, int64_t id) {
    if (id < 0 || (size_t)id >= w->n || !w->bytes.p) return (am_str){"", 0};
    return (am_str){w->bytes.p + w->at[id].off, w->at[id].len};
}

void am_words_trim(am_words *w) {
    if (w->n == 0) return;
    char *bytes = w->bytes.p ? realloc(w->bytes.p, w->bytes.n + 1) : NULL;
    if (bytes) w->bytes.p = bytes, w->bytes.cap = w->bytes.n + 1;
    void *at = realloc(w->at, w->n * sizeof *w->at), *flags = realloc(w->flags, w->n);
    if (at) w->at = at;
    if (flags) w->flags = flags;
    w->cap = w->n;
}

void am_words_free(am_words *w) {
    am_buf_free(&w->bytes);
    free(w->at);
    free(w->flags);
    free(w->slots);
    *w = (am_words){0};
}

am_str am_str_own(am_str s) {
    char *p = am_calloc(s.n + 1, 1);
    if (p && s.n) memcpy(p, s.p, s.n);
    return (am_str){p, p ? s.n : 0};
}
