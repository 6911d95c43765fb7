/* Owns the making of merges for vocabularies that have none: SentencePiece's BPE and tiktoken join any two neighbours whose joined text
 * is an entry, best entry first. Listing every way to cut each entry in two gives the same table that files with merges hold.
 *
 * SentencePiece starts from characters, also from those that are no entries (they end up as bytes or unknown, unless a merge takes
 * them in): those get ids of their own behind the vocabulary's. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

static size_t unit(const am_bpe *bpe, const char *p) { return bpe->byte_level ? 1 : am_utf8_size((uint8_t)*p); }

/* Characters of entries that are no entries themselves. */
static am_status letters_find(am_tokenizer *t, am_error *err) {
    uint8_t *seen = am_calloc(0x110000 / 8, 1);
    if (!seen) return am_fail(err, AM_ENOMEM, "no memory for the merges");
    am_status status = AM_OK;
    for (size_t id = 0; id < t->words.n && !status; id++) {
        if (!(t->words.flags[id] & AM_WORD_FINDABLE)) continue;
        am_str s = am_words_get(&t->words, (int64_t)id);
        for (size_t i = 0; i < s.n && !status;) {
            uint32_t cp;
            size_t k = am_utf8_get(s.p + i, &cp);
            am_str letter = {s.p + i, k};
            if (!(seen[cp / 8] >> cp % 8 & 1)) {
                seen[cp / 8] |= (uint8_t)(1u << cp % 8);
                if (am_words_find(&t->words, letter) < 0) status = am_words_add(&t->bpe.letters, t->bpe.letters.n, letter, err);
            }
            i += k;
        }
    }
    free(seen);
    return status || t->bpe.letters.n == 0 ? status : am_words_seal(&t->bpe.letters, err);
}

static int32_t half_find(const am_tokenizer *t, am_str s) {
    int32_t id = am_words_find(&t->words, s);
    if (id >= 0 || !t->bpe.letters.slots || s.n != unit(&t->bpe, s.p)) return id;
    id = am_words_find(&t->bpe.letters, s);
    return id < 0 ? -1 : (int32_t)t->words.n + id;
}

am_status am_bpe_merges_from_words(am_tokenizer *t, const uint32_t *rank, am_error *err) {
    am_status status = t->bpe.byte_level ? AM_OK : letters_find(t, err);
    for (size_t id = 0; id < t->words.n && !status; id++) {
        if (!(t->words.flags[id] & AM_WORD_FINDABLE)) continue;
        am_str s = am_words_get(&t->words, (int64_t)id);
        if (am_words_find(&t->words, s) != (int32_t)id) continue; /* a duplicate */
        for (size_t i = s.n ? unit(&t->bpe, s.p) : 0; i < s.n && !status; i += unit(&t->bpe, s.p + i)) {
            int32_t left = half_find(t, (am_str){s.p, i}), right = left < 0 ? -1 : half_find(t, (am_str){s.p + i, s.n - i});
            if (right >= 0) status = am_bpe_merge(&t->bpe, left, right, rank[id], (int32_t)id, err);
        }
    }
    return status;
}
