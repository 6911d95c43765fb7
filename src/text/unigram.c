/* Owns the Unigram model: the segmentation with the greatest sum of scores, by Viterbi over the entries that begin at each character.
 * Sums are doubles (floats where SentencePiece is the reference) added from the left and only a strictly greater one replaces a path,
 * as in the reference, so that ties fall the same way. A character that no entry covers alone may be unknown, ten below the least score. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN_PENALTY 10.0

typedef struct step { /* the best path that ends here */
    double score;
    uint32_t from;
    int32_t id; /* -1: none yet */
} step;

am_status am_unigram_seal(am_tokenizer *t, am_error *err) {
    am_trie_entry *entries = am_calloc(t->words.n, sizeof *entries);
    if (!entries) return am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    am_bytes_seal(t);
    size_t n = 0;
    for (size_t id = 0; id < t->words.n; id++)
        if (t->words.at[id].len && am_words_find(&t->words, am_words_get(&t->words, (int64_t)id)) == (int32_t)id)
            entries[n++] = (am_trie_entry){am_words_get(&t->words, (int64_t)id), (int32_t)id};
    am_status status = am_trie_build(&t->unigram.trie, entries, n, err);
    free(entries);
    return status;
}

static inline double sum(const am_tokenizer *t, double a, double b) { return t->unigram.single ? (double)(float)(a + b) : a + b; }

static void relax(step *to, double score, uint32_t from, int32_t id) {
    if (to->id >= 0 && score <= to->score) return;
    *to = (step){score, from, id};
}

static am_status run_emit(const am_tokenizer *t, const am_scratch *s, const am_view *v, size_t b, size_t e, am_tokens *out) {
    int32_t id = am_words_find(&t->words, (am_str){v->p + b, e - b});
    if (id >= 0 && am_entry_allowed(s, &t->words, id)) return am_tokens_push(out, id, am_view_at(v, b));
    bool bytes = t->unigram.byte_fallback;
    for (size_t i = b; i < e && bytes; i++) bytes = t->bpe.fallback_id[(uint8_t)v->p[i]] >= 0;
    if (!bytes) return am_tokens_push(out, t->unk, am_view_at(v, b));
    am_status status = AM_OK;
    for (size_t i = b; i < e && !status; i++) status = am_tokens_push(out, t->bpe.fallback_id[(uint8_t)v->p[i]], am_view_at(v, i));
    return status;
}

/* Unknown characters in a row are one unknown token (or their bytes). */
static am_status path_emit(const am_tokenizer *t, const am_scratch *s, const am_view *v, am_tokens *out) {
    step *best = s->path;
    size_t end = v->n, next = SIZE_MAX;
    while (end > 0) { /* turn the links around */
        size_t from = best[end].from;
        best[end].from = (uint32_t)next;
        next = end;
        end = from;
    }
    am_status status = AM_OK;
    size_t b = 0, unknown = SIZE_MAX;
    for (size_t e = next; b < v->n && !status; b = e, e = best[e].from) {
        bool is_unknown = best[e].id == t->unk;
        if (!is_unknown && unknown != SIZE_MAX) status = run_emit(t, s, v, unknown, b, out), unknown = SIZE_MAX;
        if (is_unknown && unknown == SIZE_MAX) unknown = b;
        if (!is_unknown && !status) status = am_tokens_push(out, best[e].id, am_view_at(v, b));
    }
    return status || unknown == SIZE_MAX ? status : run_emit(t, s, v, unknown, v->n, out);
}

am_status am_unigram_encode(const am_tokenizer *t, am_scratch *s, const am_view *v, am_tokens *out, am_error *err) {
    const am_trie *trie = &t->unigram.trie;
    if (v->n == SIZE_MAX || !am_grow(&s->path, &s->path_cap, v->n + 1, sizeof(step))) return am_fail(err, AM_ENOMEM, "no memory to encode the text");
    step *best = s->path;
    for (size_t i = 0; i <= v->n; i++) best[i] = (step){0, 0, -1};
    for (size_t i = 0; i < v->n;) {
        size_t k = am_utf8_size((uint8_t)v->p[i]);
        bool alone = false;
        uint32_t node = 0;
        for (size_t e = i; e < v->n; e++) {
            node = am_trie_step(trie, node, (uint8_t)v->p[e]);
            if (node == 0) break;
            int32_t id = trie->value[node];
            if (id < 0 || !am_entry_allowed(s, &t->words, id)) continue;
            relax(&best[e + 1], sum(t, t->unigram.score[id], best[i].score), (uint32_t)i, id);
            alone |= e + 1 - i == k;
        }
        if (!alone) {
            if (t->unk < 0) return am_fail(err, AM_EINVAL, "the vocabulary covers no character at byte %u and has no unknown token", am_view_at(v, i));
            relax(&best[i + k], sum(t, t->unigram.least - UNKNOWN_PENALTY, best[i].score), (uint32_t)i, t->unk);
        }
        i += k;
    }
    am_status status = path_emit(t, s, v, out);
    return status ? am_tokens_fail(out, status, err) : AM_OK;
}
