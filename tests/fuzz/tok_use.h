/* What every tokenizer target does with a tokenizer that loaded: encodes, extends, decodes, and checks what must hold for any of them. */
#ifndef TESTS_FUZZ_TOK_USE_H
#define TESTS_FUZZ_TOK_USE_H

#include "fuzz.h"

#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <string.h>

/* Decoding at once and as a stream is the same, and what a stream gives out is whole characters. */
static inline void tok_use_decode(const am_tokenizer *t, const int32_t *ids, size_t n, bool skip_special) {
    am_buf whole, stream;
    am_buf_init(&whole, 1 << 24);
    am_buf_init(&stream, 1 << 24);
    am_status status = am_tokenizer_decode(t, ids, n, skip_special, &whole);
    am_detok *d = am_detok_create(t, skip_special);
    fuzz_check(d);
    am_status streamed = AM_OK;
    for (size_t i = 0; i <= n && !streamed; i++) {
        size_t before = stream.n;
        streamed = i < n ? am_detok_push(d, ids[i], &stream) : am_detok_finish(d, &stream);
        am_str piece = {stream.p ? stream.p + before : "", stream.n - before};
        fuzz_check(am_utf8_check(piece) == piece.n);
    }
    fuzz_check(status == streamed);
    if (!status) fuzz_check(whole.n == stream.n && (whole.n == 0 || memcmp(whole.p, stream.p, whole.n) == 0));
    am_detok_free(d);
    am_buf_free(&whole);
    am_buf_free(&stream);
}

static inline void tok_use_encode(const am_tokenizer *t, am_str text) {
    am_tokens tokens = {0}, more = {0};
    am_error err = {0};
    const am_span typed = {text.n / 2, text.n};
    for (unsigned k = 0; k < 2; k++) {
        if (am_tokenizer_encode(t, text, k ? &typed : NULL, k, k ? 0 : AM_ENCODE_BOS_EOS, &tokens, &err)) continue;
        fuzz_check(tokens.offsets[tokens.n] == text.n);
        for (size_t i = 0; i < tokens.n; i++) {
            fuzz_check(tokens.offsets[i] <= tokens.offsets[i + 1]);
            fuzz_check(tokens.ids[i] >= 0 && (size_t)tokens.ids[i] < am_tokenizer_n_vocab(t));
            am_str piece = am_tokenizer_piece(t, tokens.ids[i]), here = {text.p + tokens.offsets[i], text.n - tokens.offsets[i]};
            /* what was typed is no control token; the unknown token stands for other text than its own */
            if (k && am_tokenizer_is_special(t, tokens.ids[i]) && tokens.ids[i] != t->unk && piece.n > 4 && am_str_starts(here, piece)) fuzz_check(tokens.offsets[i] < typed.begin);
        }
        tok_use_decode(t, tokens.ids, tokens.n, k);
        if (k && am_tokenizer_extend(t, &tokens, text.n, text, &typed, 1, &more, &err) == AM_OK)
            fuzz_check(more.n == tokens.n && (more.n == 0 || memcmp(more.ids, tokens.ids, more.n * sizeof *more.ids) == 0));
    }
    am_tokens_free(&tokens);
    am_tokens_free(&more);
}

/* The text a target carries, then texts that take every branch. Frees t. */
static inline void tok_use(am_tokenizer *t, const uint8_t *data, size_t size) {
    static const char *const texts[] = {"", "abc abc new <|end|>  new", "a\xCC\x81 xxx 12345 \xE4\xBD\xA0", "<unk>A _a  ab", "\n\n\t", "\xF0\x9F\x98\x80 d'ABC"};
    tok_use_encode(t, (am_str){data ? (const char *)data : "", data ? size : 0});
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) tok_use_encode(t, am_str_of(texts[i]));
    am_tokenizer_free(t);
}

#endif
