/* Owns WordPiece and WordLevel: the longest entry at each place of a word, entries inside a word spelled with a prefix; a word that
 * does not come out even, or is too long, is unknown as a whole. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <string.h>

static am_status unknown(const am_tokenizer *t, const am_view *v, am_tokens *out, am_error *err) {
    if (t->unk < 0) return am_fail(err, AM_EINVAL, "the vocabulary lacks its unknown token");
    am_status status = am_tokens_push(out, t->unk, am_view_at(v, 0));
    return status ? am_tokens_fail(out, status, err) : AM_OK;
}

static size_t count_chars(const am_view *v) {
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++) n += ((uint8_t)v->p[i] & 0xC0) != 0x80;
    return n;
}

/* The longest entry at b; its end, or b when there is none. s->path: room for the prefix and the rest of the word. */
static size_t longest(const am_tokenizer *t, const am_scratch *s, const am_view *v, size_t b, int32_t *id) {
    char *word = s->path;
    am_str before = b ? t->wordpiece.prefix : t->wordpiece.first;
    size_t n = before.n, most = v->n - b < t->words.longest ? v->n - b : t->words.longest;
    if (n) memcpy(word, before.p, n);
    memcpy(word + n, v->p + b, most);
    size_t end = b + most;
    while (end > b && end < v->n && ((uint8_t)v->p[end] & 0xC0) == 0x80) end--;
    for (size_t e = end; e > b;) {
        *id = am_words_find(&t->words, (am_str){word, n + e - b});
        if (*id >= 0 && am_entry_allowed(s, &t->words, *id)) return e;
        do e--;
        while (e > b && ((uint8_t)v->p[e] & 0xC0) == 0x80);
    }
    return b;
}

am_status am_wordpiece_encode(const am_tokenizer *t, am_scratch *s, const am_view *v, am_tokens *out, am_error *err) {
    am_status status = AM_OK;
    int32_t id = am_words_find(&t->words, (am_str){v->p, v->n});
    if (t->kind == AM_MODEL_WORDLEVEL) {
        if (id < 0 || !am_entry_allowed(s, &t->words, id)) return unknown(t, v, out, err);
        status = am_tokens_push(out, id, am_view_at(v, 0));
        return status ? am_tokens_fail(out, status, err) : AM_OK;
    }
    if (count_chars(v) > t->wordpiece.max_chars) return unknown(t, v, out, err);
    if (!am_grow(&s->path, &s->path_cap, v->n / 16 + (t->wordpiece.prefix.n + t->wordpiece.first.n) / 16 + 3, 16)) return am_fail(err, AM_ENOMEM, "no memory to encode the text");
    size_t start = out->n;
    for (size_t b = 0, e; b < v->n && !status; b = e) {
        e = longest(t, s, v, b, &id);
        if (e == b) {
            out->n = start;
            return unknown(t, v, out, err);
        }
        status = am_tokens_push(out, id, am_view_at(v, b));
    }
    return status ? am_tokens_fail(out, status, err) : AM_OK;
}
