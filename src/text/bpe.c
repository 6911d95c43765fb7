/* Owns byte-pair merges: the table from a pair of ids to the merged id and its rank, and the encoder of one piece.
 *
 * A piece's symbols are merged lowest rank first, leftmost first among equals. Short pieces do that over a small array; long ones
 * with a linked list and a heap, O(n log n), so that no input is quadratic. Most pieces of real text are entries themselves:
 * whether an entry's text really merges up to the entry is found out once per entry and remembered (memo). */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT = 24, GONE = -2 };

/* ---- the table */

static inline size_t pair_slot(uint64_t key, size_t mask) {
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32) & mask;
}

static inline const am_pair *pair_find(const am_bpe *bpe, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    if (!bpe->pairs) return NULL;
    for (size_t i = pair_slot(key, bpe->mask);; i = (i + 1) & bpe->mask) {
        if (bpe->pairs[i].key == key) return &bpe->pairs[i];
        if (bpe->pairs[i].key == UINT64_MAX) return NULL;
    }
}

am_status am_bpe_reserve(am_bpe *bpe, size_t n_pairs, am_error *err) {
    size_t n = 64;
    while (n / 4 * 3 < n_pairs) n *= 2;
    if (bpe->pairs && n <= bpe->mask + 1) return AM_OK;
    am_pair *pairs = am_calloc(n, sizeof *pairs);
    if (!pairs) return am_fail(err, AM_ENOMEM, "no memory for the merges");
    memset(pairs, 0xff, n * sizeof *pairs);
    for (size_t k = 0; bpe->pairs && k <= bpe->mask; k++) {
        if (bpe->pairs[k].key == UINT64_MAX) continue;
        size_t i = pair_slot(bpe->pairs[k].key, n - 1);
        while (pairs[i].key != UINT64_MAX) i = (i + 1) & (n - 1);
        pairs[i] = bpe->pairs[k];
    }
    free(bpe->pairs);
    bpe->pairs = pairs;
    bpe->mask = n - 1;
    return AM_OK;
}

void am_bpe_prefetch(const am_bpe *bpe, int32_t left, int32_t right) {
    if (bpe->pairs) __builtin_prefetch(&bpe->pairs[pair_slot((uint64_t)(uint32_t)left << 32 | (uint32_t)right, bpe->mask)], 1);
}

am_status am_bpe_merge(am_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id, am_error *err) {
    if (!bpe->pairs || bpe->n_pairs >= (bpe->mask + 1) / 4 * 3) {
        am_status status = am_bpe_reserve(bpe, bpe->n_pairs + bpe->n_pairs / 4 + 64, err);
        if (status) return status;
    }
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = pair_slot(key, bpe->mask);
    while (bpe->pairs[i].key != UINT64_MAX && bpe->pairs[i].key != key) i = (i + 1) & bpe->mask;
    bpe->n_pairs += bpe->pairs[i].key == UINT64_MAX;
    bpe->pairs[i] = (am_pair){key, rank, id}; /* of equal pairs the last counts */
    return AM_OK;
}

void am_bytes_seal(am_tokenizer *t) {
    am_bpe *bpe = &t->bpe;
    for (int b = 0; b < 256; b++) {
        char c = (char)b, name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        bpe->byte_id[b] = am_words_find(&t->words, (am_str){&c, 1});
        if (!bpe->has_fallback) bpe->fallback_id[b] = am_words_find(&t->words, am_str_of(name));
    }
}

am_status am_bpe_seal(am_tokenizer *t, am_error *err) {
    am_bpe *bpe = &t->bpe;
    am_bytes_seal(t);
    free(bpe->memo);
    bpe->memo = am_calloc(t->words.n, 1);
    if (!bpe->memo) return am_fail(err, AM_ENOMEM, "no memory for the merges");
    bpe->cut_marks = !bpe->byte_level && !bpe->ignore_merges && !bpe->prefix.n && !bpe->suffix.n &&
                     am_words_find(&t->words, AM_STR("\xE2\x96\x81")) >= 0;
    for (size_t k = 0; bpe->cut_marks && bpe->pairs && k <= bpe->mask; k++) {
        const am_pair *pair = &bpe->pairs[k];
        if (pair->key == UINT64_MAX) continue;
        am_str left = am_words_get(&t->words, (int32_t)(pair->key >> 32)), right = am_words_get(&t->words, (int32_t)pair->key);
        bool left_mark = left.n >= 3 && memcmp(left.p + left.n - 3, "\xE2\x96\x81", 3) == 0;
        if (!left_mark && am_str_starts(right, AM_STR("\xE2\x96\x81"))) bpe->cut_marks = false;
    }
    return AM_OK;
}

void am_bpe_free(am_bpe *bpe) {
    free(bpe->pairs);
    free(bpe->memo);
    free((char *)bpe->prefix.p);
    free((char *)bpe->suffix.p);
    am_words_free(&bpe->letters);
}

/* ---- a piece's first symbols */

/* A pending unknown can come behind bytes of a later character (symbols_make): places never go back all the same. */
static bool symbol_put(am_scratch *s, size_t *n, int32_t id, size_t pos) {
    if (!am_grow(&s->symbols, &s->symbols_cap, *n + 1, sizeof *s->symbols)) return false;
    if (*n && s->symbols[*n - 1].pos > pos) pos = s->symbols[*n - 1].pos;
    s->symbols[(*n)++] = (am_symbol){id, (uint32_t)pos, 0, 0};
    return true;
}

/* The character p[0..k) with the prefix and suffix its place asks for; n is 0 when there is no room for them. */
typedef struct affixed {
    char text[256];
    size_t n;
} affixed;
static bool affix(const am_bpe *bpe, const char *p, size_t k, bool first, bool last, affixed *a) {
    am_str prefix = first ? (am_str){0} : bpe->prefix, suffix = last ? bpe->suffix : (am_str){0};
    a->n = 0;
    if (!prefix.n && !suffix.n) return false;
    if (prefix.n > sizeof a->text || suffix.n > sizeof a->text - prefix.n || k > sizeof a->text - prefix.n - suffix.n) return true;
    if (prefix.n) memcpy(a->text, prefix.p, prefix.n);
    memcpy(a->text + prefix.n, p, k);
    if (suffix.n) memcpy(a->text + prefix.n + k, suffix.p, suffix.n);
    a->n = prefix.n + k + suffix.n;
    return true;
}

/* -1 when there is none. */
static int32_t letter_id(const am_tokenizer *t, const char *p, size_t k, bool first, bool last) {
    const am_bpe *bpe = &t->bpe;
    affixed a;
    if (affix(bpe, p, k, first, last, &a)) return am_words_find(&t->words, (am_str){a.text, a.n});
    if (k == 1) return bpe->byte_id[(uint8_t)p[0]];
    int32_t id = am_words_find(&t->words, (am_str){p, k});
    if (id >= 0 || !bpe->letters.slots) return id;
    int32_t letter = am_words_find(&bpe->letters, (am_str){p, k});
    return letter < 0 ? -1 : (int32_t)t->words.n + letter;
}

static bool bytes_known(const am_bpe *bpe, const char *p, size_t k) {
    for (size_t i = 0; i < k; i++)
        if (bpe->fallback_id[(uint8_t)p[i]] < 0) return false;
    return true;
}

/* The bytes that stand for an unknown letter: of its affixes too, and of its spelling where the vocabulary is one of bytes. */
static am_str letter_bytes(const am_bpe *bpe, const char *p, size_t k, bool first, bool last, affixed *a) {
    char c[4];
    am_str letter = bpe->byte_level ? (am_str){c, am_utf8_put(c, am_byte_char((uint8_t)*p))} : (am_str){p, k};
    if (!affix(bpe, letter.p, letter.n, first, last, a)) memcpy(a->text, letter.p, a->n = letter.n);
    return (am_str){a->text, a->n};
}

/* Unknown characters: bytes if the model falls back to them, else the unknown token, runs of it fused when asked; with neither
 * they vanish, as in the reference. A pending unknown is written before the next known character. */
static am_status symbols_make(const am_tokenizer *t, am_scratch *s, am_str w, size_t *n) {
    const am_bpe *bpe = &t->bpe;
    size_t unknown = SIZE_MAX;
    affixed a;
    am_str bytes;
    *n = 0;
    for (size_t i = 0; i < w.n;) {
        size_t k = bpe->byte_level ? 1 : am_utf8_size((uint8_t)w.p[i]);
        int32_t id = letter_id(t, w.p + i, k, i == 0, i + k == w.n);
        if (id >= 0) {
            if (unknown != SIZE_MAX && !symbol_put(s, n, t->unk, unknown)) return AM_ENOMEM;
            unknown = SIZE_MAX;
            if (!symbol_put(s, n, id, i)) return AM_ENOMEM;
        } else if (bpe->byte_fallback && (bytes = letter_bytes(bpe, w.p + i, k, i == 0, i + k == w.n, &a)).n && bytes_known(bpe, bytes.p, bytes.n)) {
            for (size_t b = 0; b < bytes.n; b++)
                if (!symbol_put(s, n, bpe->fallback_id[(uint8_t)bytes.p[b]], bytes.n == k ? i + b : i)) return AM_ENOMEM;
        } else if (t->unk_lost) {
            return AM_EINVAL;
        } else if (t->unk >= 0) {
            if (unknown != SIZE_MAX && !bpe->fuse_unk && !symbol_put(s, n, t->unk, unknown)) return AM_ENOMEM;
            if (unknown == SIZE_MAX || !bpe->fuse_unk) unknown = i;
        }
        i += k;
    }
    return unknown == SIZE_MAX || symbol_put(s, n, t->unk, unknown) ? AM_OK : AM_ENOMEM;
}

/* ---- merging */

static inline const am_pair *merge_find(const am_tokenizer *t, const am_scratch *s, int32_t left, int32_t right) {
    const am_pair *pair = pair_find(&t->bpe, left, right);
    return pair && s->guarded && (size_t)pair->id < t->words.n && !am_entry_allowed(s, &t->words, pair->id) ? NULL : pair;
}

static void merge_short(const am_tokenizer *t, am_scratch *s, size_t *n_symbols) {
    am_symbol *y = s->symbols;
    uint32_t rank[SHORT];
    int32_t into[SHORT];
    size_t n = *n_symbols;
    for (size_t i = 0; i + 1 < n; i++) {
        const am_pair *pair = merge_find(t, s, y[i].id, y[i + 1].id);
        rank[i] = pair ? pair->rank : UINT32_MAX;
        into[i] = pair ? pair->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        y[best].id = into[best];
        memmove(y + best + 1, y + best + 2, (n - best - 2) * sizeof *y);
        memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        memmove(into + best, into + best + 1, (n - best - 2) * sizeof *into);
        n--;
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const am_pair *pair = merge_find(t, s, y[i].id, y[i + 1].id);
            rank[i] = pair ? pair->rank : UINT32_MAX;
            into[i] = pair ? pair->id : -1;
        }
    }
    *n_symbols = n;
}

/* The heap's entries are rank << 32 | position, so that the smallest is the next merge; four children a node, for the caches' sake. */
static void heap_sink(uint64_t *heap, size_t n, size_t i, uint64_t c) {
    for (size_t child; (child = 4 * i + 1) < n; i = child) {
        size_t end = child + 4 < n ? child + 4 : n;
        for (size_t k = child + 1; k < end; k++)
            if (heap[k] < heap[child]) child = k;
        if (heap[child] >= c) break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

static bool heap_put(am_scratch *s, uint64_t c) {
    if (s->n_heap == s->heap_cap && !am_grow(&s->heap, &s->heap_cap, s->n_heap + 1, sizeof *s->heap)) return false;
    size_t i = s->n_heap++;
    for (size_t up; i > 0 && (up = (i - 1) / 4, c < s->heap[up]); i = up) s->heap[i] = s->heap[up];
    s->heap[i] = c;
    return true;
}

static uint64_t heap_take(am_scratch *s) {
    uint64_t top = s->heap[0];
    s->n_heap--;
    heap_sink(s->heap, s->n_heap, 0, s->heap[s->n_heap]);
    return top;
}

static bool candidate_put(const am_tokenizer *t, am_scratch *s, int32_t i) {
    const am_symbol *y = s->symbols;
    const am_pair *pair = merge_find(t, s, y[i].id, y[y[i].next].id);
    return !pair || heap_put(s, (uint64_t)pair->rank << 32 | (uint32_t)i);
}

/* All first candidates at once: cheaper than one by one. */
static bool heap_make(const am_tokenizer *t, am_scratch *s, int32_t n) {
    if (!am_grow(&s->heap, &s->heap_cap, (size_t)n + 1, sizeof *s->heap)) return false;
    s->n_heap = 0;
    for (int32_t i = 0; i + 1 < n; i++) {
        const am_pair *pair = merge_find(t, s, s->symbols[i].id, s->symbols[i + 1].id);
        if (pair) s->heap[s->n_heap++] = (uint64_t)pair->rank << 32 | (uint32_t)i;
    }
    for (size_t i = s->n_heap / 4 + 1; i-- > 0;)
        if (i < s->n_heap) heap_sink(s->heap, s->n_heap, i, s->heap[i]);
    return true;
}

static bool merge_long(const am_tokenizer *t, am_scratch *s, size_t *n_symbols) {
    am_symbol *y = s->symbols;
    int32_t n = (int32_t)*n_symbols;
    for (int32_t i = 0; i < n; i++) y[i].prev = i - 1, y[i].next = i + 1 < n ? i + 1 : -1;
    if (!heap_make(t, s, n)) return false;
    while (s->n_heap) {
        uint64_t c = heap_take(s);
        int32_t i = (int32_t)(uint32_t)c, right = y[i].next;
        if (right < 0) continue; /* gone, or the last */
        const am_pair *pair = pair_find(&t->bpe, y[i].id, y[right].id);
        if (!pair || pair->rank != c >> 32) continue; /* stale */
        y[i].id = pair->id;
        y[i].next = y[right].next;
        y[right].next = GONE;
        if (y[i].next >= 0) y[y[i].next].prev = i;
        if (y[i].prev >= 0 && !candidate_put(t, s, y[i].prev)) return false;
        if (y[i].next >= 0 && !candidate_put(t, s, i)) return false;
    }
    size_t kept = 0;
    for (int32_t i = 0; i < n; i++)
        if (y[i].next != GONE) y[kept++] = y[i];
    *n_symbols = kept;
    return true;
}

/* Ids beyond the words are letters no entry holds alone (see am_bpe.letters): they leave as bytes or unknown. */
static am_status letter_emit(const am_tokenizer *t, const am_view *v, const am_symbol *y, am_tokens *out) {
    size_t k = am_utf8_size((uint8_t)v->p[y->pos]);
    if (!t->bpe.byte_fallback || !bytes_known(&t->bpe, v->p + y->pos, k))
        return t->unk < 0 ? AM_OK : am_tokens_push(out, t->unk, am_view_at(v, y->pos));
    am_status status = AM_OK;
    for (size_t b = 0; b < k && !status; b++)
        status = am_tokens_push(out, t->bpe.fallback_id[(uint8_t)v->p[y->pos + b]], am_view_at(v, y->pos + b));
    return status;
}

static am_status piece_encode(const am_tokenizer *t, am_scratch *s, const am_view *v, am_tokens *out) {
    const am_bpe *bpe = &t->bpe;
    int32_t whole = v->n <= 512 && (!bpe->suffix.n || bpe->ignore_merges) ? am_words_find(&t->words, (am_str){v->p, v->n}) : -1;
    uint8_t memo = 0;
    if (whole >= 0 && !am_entry_allowed(s, &t->words, whole)) whole = -1;
    if (whole >= 0) {
        memo = bpe->ignore_merges || (bpe->whole_lines && v->p[0] == '\n') ? 1 : __atomic_load_n(&bpe->memo[whole], __ATOMIC_RELAXED);
        if (memo == 1) return am_tokens_push(out, whole, am_view_at(v, 0));
    }
    size_t n;
    am_status status = symbols_make(t, s, (am_str){v->p, v->n}, &n);
    if (status) return status;
    if (n <= SHORT) merge_short(t, s, &n);
    else if (n > INT32_MAX || !merge_long(t, s, &n)) return AM_ENOMEM;
    if (whole >= 0 && memo == 0)
        __atomic_store_n(&bpe->memo[whole], n == 1 && s->symbols[0].id == whole ? 1 : 2, __ATOMIC_RELAXED);
    for (size_t i = 0; i < n && !status; i++) {
        const am_symbol *y = &s->symbols[i];
        status = (size_t)y->id < t->words.n ? am_tokens_push(out, y->id, am_view_at(v, y->pos)) : letter_emit(t, v, y, out);
    }
    return status;
}

/* Where the next run of marks after a character that is none begins. */
static size_t mark_after(const am_view *v, size_t i) {
    while (i < v->n) {
        const char *mark = memmem(v->p + i, v->n - i, "\xE2\x96\x81", 3);
        if (!mark) return v->n;
        size_t at = (size_t)(mark - v->p);
        if (at > i) return at;
        i = at + 3;
    }
    return v->n;
}

am_status am_bpe_encode(const am_tokenizer *t, am_scratch *s, const am_view *v, am_tokens *out, am_error *err) {
    am_status status = AM_OK;
    if (!t->bpe.cut_marks) status = piece_encode(t, s, v, out);
    else
        for (size_t i = 0, end; i < v->n && !status; i = end) {
            end = mark_after(v, i);
            am_view piece = am_view_slice(v, i, end);
            status = piece_encode(t, s, &piece, out);
        }
    if (status == AM_EINVAL) return am_fail(err, status, "the model's unknown token is not in its vocabulary, and the text needs it");
    return status ? am_tokens_fail(out, status, err) : AM_OK;
}
