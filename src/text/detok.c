/* Owns decoding: ids to the bytes they stand for, pushed through the decoder's stages one token at a time, so that streaming and
 * decoding at once are the same code.
 *
 * A stage gets whole tokens until one fuses them (Fuse, ByteLevel); behind it come fragments of a single token, which only Strip
 * can take as they come. If anything else stands behind a fusing stage, that stage holds everything until the end: exact, only
 * not streaming. What a stage must hold (bytes that may yet form a character, the last token of BPEDecoder) is in its `held`. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HELD = 1 << 30 };

typedef struct stage {
    am_buf held, made; /* made: what this stage passes on, while it does */
    size_t seen;       /* tokens; STRIP in fragments: characters stripped */
    bool holds;        /* a fusing stage that must wait for the end */
} stage;

struct am_detok {
    const am_tokenizer *t;
    bool skip_special;
    const int32_t *kept;
    size_t n_kept;
    size_t n_tokens;
    stage stages[AM_MAX_STAGES];
    am_buf spelled;
    am_buf *out;
};

static bool fuses(am_dec_kind kind) { return kind == AM_DEC_FUSE || kind == AM_DEC_BYTES; }

static void detok_init(am_detok *d, const am_tokenizer *t, bool skip_special) {
    *d = (am_detok){.t = t, .skip_special = skip_special};
    am_buf_init(&d->spelled, MAX_HELD);
    for (size_t i = 0; i < t->n_dec; i++) {
        am_buf_init(&d->stages[i].held, MAX_HELD);
        am_buf_init(&d->stages[i].made, MAX_HELD);
        if (!fuses(t->dec[i].kind)) continue;
        for (size_t k = i + 1; k < t->n_dec; k++)
            if (t->dec[k].kind != AM_DEC_FUSE && !(t->dec[k].kind == AM_DEC_STRIP && t->dec[k].stop == 0)) d->stages[i].holds = true;
    }
}

static void detok_clear(am_detok *d) {
    am_buf_free(&d->spelled);
    for (size_t i = 0; i < d->t->n_dec; i++) am_buf_free(&d->stages[i].held), am_buf_free(&d->stages[i].made);
}

am_detok *am_detok_create(const am_tokenizer *t, bool skip_special) {
    am_detok *d = am_calloc(1, sizeof *d);
    if (d) detok_init(d, t, skip_special);
    return d;
}

void am_detok_keep(am_detok *d, const int32_t *ids, size_t n) {
    d->kept = ids;
    d->n_kept = n;
}

static bool is_kept(const am_detok *d, int32_t id) {
    size_t i = 0;
    while (i < d->n_kept && d->kept[i] != id) i++;
    return i < d->n_kept;
}

void am_detok_free(am_detok *d) {
    if (!d) return;
    detok_clear(d);
    free(d);
}

void am_detok_reset(am_detok *d) {
    d->n_tokens = 0;
    for (size_t i = 0; i < d->t->n_dec; i++) {
        am_buf_clear(&d->stages[i].held);
        d->stages[i].seen = 0;
    }
}

int am_byte_token(am_str s) {
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = s.p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* ---- what a stage makes of one token, where that depends on nothing else; appended to out */

static am_status put_replaced(am_str s, am_str find, am_str by, am_buf *out) {
    am_status status = AM_OK;
    for (size_t i = 0; i < s.n && !status;) {
        const char *hit = find.n ? memmem(s.p + i, s.n - i, find.p, find.n) : NULL;
        size_t end = hit ? (size_t)(hit - s.p) : s.n;
        status = am_buf_append(out, s.p + i, end - i);
        if (hit && !status) status = am_buf_add(out, by);
        i = hit ? end + find.n : end;
    }
    return status;
}

static am_status put_matches_replaced(const am_dec *dec, am_str s, am_buf *out) {
    am_scratch scratch = {0};
    am_walk walk = {0};
    am_span hit;
    size_t done = 0;
    am_status status = AM_OK, found = AM_OK;
    while (!status && (found = am_regex_each(dec->regex, &scratch, s, &walk, &hit)) == AM_OK) {
        status = am_buf_append(out, s.p + done, hit.begin - done);
        if (!status) status = am_buf_add(out, dec->content);
        done = hit.end;
    }
    am_scratch_free(&scratch);
    if (found != AM_OK && found != AM_ENOTFOUND) return found;
    return status ? status : am_buf_append(out, s.p + done, s.n - done);
}

/* The bytes a token spelled in the byte-level alphabet stands for; a token that is not spelled in it stands for itself. */
static am_status put_bytes(am_str s, am_buf *out) {
    size_t start = out->n;
    am_status status = am_buf_reserve(out, s.n);
    for (size_t i = 0; i < s.n && !status;) {
        uint32_t cp;
        size_t k = am_utf8_next(s.p + i, s.n - i, &cp);
        int byte = k ? am_char_byte(cp) : -1;
        if (byte < 0) {
            out->n = start;
            return am_buf_add(out, s);
        }
        status = am_buf_putc(out, (char)byte);
        i += k;
    }
    return status;
}

static am_str strip(const am_dec *dec, am_str s) {
    for (uint32_t i = 0; i < dec->start && am_str_starts(s, dec->content); i++) s.p += dec->content.n, s.n -= dec->content.n;
    for (uint32_t i = 0; i < dec->stop && s.n >= dec->content.n; i++) {
        if (memcmp(s.p + s.n - dec->content.n, dec->content.p, dec->content.n) != 0) break;
        s.n -= dec->content.n;
    }
    return s;
}

static am_status put_wordpiece(const am_dec *dec, am_str s, bool first, am_buf *out) {
    static const char *const tidy[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},           {" ,", ","},
                                          {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"},         {" do not", " don't"},
                                          {" 's", "'s"},   {" 've", "'ve"}, {" 're", "'re"}};
    am_buf a, b;
    am_buf_init(&a, MAX_HELD);
    am_buf_init(&b, MAX_HELD);
    am_status status = AM_OK;
    if (!first && am_str_starts(s, dec->find)) s.p += dec->find.n, s.n -= dec->find.n;
    else if (!first) status = am_buf_putc(&a, ' ');
    if (!status) status = am_buf_add(&a, s);
    for (size_t i = 0; dec->cleanup && i < sizeof tidy / sizeof *tidy && !status; i++) {
        am_buf_clear(&b);
        status = put_replaced(am_buf_str(&a), am_str_of(tidy[i][0]), am_str_of(tidy[i][1]), &b);
        am_buf swap = a;
        a = b;
        b = swap;
    }
    if (!status) status = am_buf_add(out, am_buf_str(&a));
    am_buf_free(&a);
    am_buf_free(&b);
    return status;
}

/* ---- the stages */

static am_status feed(am_detok *d, size_t i, am_str s, bool whole);

static am_status fallback_flush(am_detok *d, size_t i) {
    stage *g = &d->stages[i];
    if (g->held.n == 0) return AM_OK;
    am_str bytes = am_buf_str(&g->held);
    am_status status = AM_OK;
    bool good = am_utf8_check(bytes) == bytes.n;
    if (good) status = feed(d, i + 1, bytes, true);
    for (size_t k = 0, n; !good && k < bytes.n && !status; k += n) {
        uint32_t cp;
        n = d->t->dec[i].loose ? am_utf8_next(bytes.p + k, bytes.n - k, &cp) : 0;
        status = feed(d, i + 1, n ? (am_str){bytes.p + k, n} : AM_STR("\xEF\xBF\xBD"), true);
        n += n == 0;
    }
    am_buf_clear(&g->held);
    return status;
}

static void held_drop(stage *g, size_t n) {
    if (n) memmove(g->held.p, g->held.p + n, g->held.n - n);
    g->held.n -= n;
}

static am_status bytes_flush(am_detok *d, size_t i, bool last) {
    stage *g = &d->stages[i];
    if (g->holds && !last) return AM_OK;
    size_t used;
    am_buf_clear(&g->made);
    am_status status = am_utf8_lossy(am_buf_str(&g->held), last, &g->made, &used);
    if (status) return status;
    held_drop(g, used);
    return g->made.n ? feed(d, i + 1, am_buf_str(&g->made), g->holds) : AM_OK;
}

static am_status strip_feed(am_detok *d, size_t i, am_str s, bool whole) {
    const am_dec *dec = &d->t->dec[i];
    stage *g = &d->stages[i];
    if (whole) return feed(d, i + 1, strip(dec, s), true);
    while (g->seen < dec->start && s.n && am_str_starts(s, dec->content)) {
        s.p += dec->content.n, s.n -= dec->content.n, g->seen++;
        if (dec->each) break;
    }
    if (s.n) g->seen = UINT32_MAX;
    return s.n ? feed(d, i + 1, s, false) : AM_OK;
}

/* Stages that write their token into `made` and pass it on. */
static am_status made_feed(am_detok *d, size_t i, am_str s) {
    const am_dec *dec = &d->t->dec[i];
    stage *g = &d->stages[i];
    bool first = g->seen++ == 0;
    am_status status = AM_OK;
    am_buf_clear(&g->made);
    if (dec->kind == AM_DEC_METASPACE)
        status = put_replaced(s, dec->find, first && !dec->keep_first ? (am_str){"", 0} : AM_STR(" "), &g->made);
    else if (dec->kind == AM_DEC_WORDPIECE) status = put_wordpiece(dec, s, first, &g->made);
    else if (dec->regex) status = put_matches_replaced(dec, s, &g->made);
    else status = put_replaced(s, dec->find, dec->content, &g->made);
    return status ? status : feed(d, i + 1, am_buf_str(&g->made), true);
}

static am_status suffix_feed(am_detok *d, size_t i, am_str s) {
    const am_dec *dec = &d->t->dec[i];
    stage *g = &d->stages[i];
    am_status status = AM_OK;
    am_buf_clear(&g->made);
    if (g->seen++) status = put_replaced(am_buf_str(&g->held), dec->find, AM_STR(" "), &g->made);
    am_buf_clear(&g->held);
    if (!status) status = am_buf_add(&g->held, s);
    return !status && g->made.n ? feed(d, i + 1, am_buf_str(&g->made), true) : status;
}

static am_status feed(am_detok *d, size_t i, am_str s, bool whole) {
    if (i == d->t->n_dec) return am_buf_add(d->out, s);
    const am_dec *dec = &d->t->dec[i];
    stage *g = &d->stages[i];
    am_status status;
    switch (dec->kind) {
    case AM_DEC_BYTES:
        status = put_bytes(s, &g->held);
        return status ? status : bytes_flush(d, i, false);
    case AM_DEC_FUSE: return g->holds ? am_buf_add(&g->held, s) : feed(d, i + 1, s, false);
    case AM_DEC_STRIP: return strip_feed(d, i, s, whole);
    case AM_DEC_SUFFIX: return suffix_feed(d, i, s);
    case AM_DEC_FALLBACK: {
        int byte = am_byte_token(s);
        if (byte >= 0) return am_buf_putc(&g->held, (char)byte);
        status = fallback_flush(d, i);
        return status ? status : feed(d, i + 1, s, true);
    }
    default: return made_feed(d, i, s);
    }
}

static am_status stage_finish(am_detok *d, size_t i) {
    stage *g = &d->stages[i];
    switch (d->t->dec[i].kind) {
    case AM_DEC_BYTES: return bytes_flush(d, i, true);
    case AM_DEC_FUSE: return g->holds && g->held.n ? feed(d, i + 1, am_buf_str(&g->held), true) : AM_OK;
    case AM_DEC_FALLBACK: return fallback_flush(d, i);
    case AM_DEC_SUFFIX: {
        am_buf_clear(&g->made);
        am_status status = put_replaced(am_buf_str(&g->held), d->t->dec[i].find, (am_str){"", 0}, &g->made);
        return !status && g->made.n ? feed(d, i + 1, am_buf_str(&g->made), true) : status;
    }
    default: return AM_OK;
    }
}

/* ---- the interface */

/* A byte-level vocabulary whose decoder only joins bytes: no stages, just what may not yet be a character. */
static am_status push_plain(am_detok *d, int32_t id) {
    const am_words *w = &d->t->words;
    stage *g = &d->stages[0];
    am_str s = w->flags[id] & AM_WORD_NEEDLE ? am_added_of(d->t, id)->needle : am_words_get(w, id);
    if (g->held.n == 0 && (w->flags[id] & AM_WORD_UTF8)) return am_buf_add(d->out, s);
    am_status status = w->flags[id] & AM_WORD_FINDABLE ? am_buf_add(&g->held, s) : put_bytes(s, &g->held);
    size_t used;
    if (!status) status = am_utf8_lossy(am_buf_str(&g->held), false, d->out, &used);
    if (status) return status;
    held_drop(g, used);
    return AM_OK;
}

/* The token as the vocabulary file spells it; an added token that is looked for in normalised text, normalised, as the library has it. */
static am_status spelled(am_detok *d, int32_t id, am_str *s) {
    *s = am_words_get(&d->t->words, id);
    if (d->t->words.flags[id] & AM_WORD_NEEDLE) *s = am_added_of(d->t, id)->needle;
    if (!d->t->bpe.byte_level || !(d->t->words.flags[id] & AM_WORD_FINDABLE)) return AM_OK;
    am_buf_clear(&d->spelled);
    am_status status = am_buf_reserve(&d->spelled, s->n * 2);
    for (size_t i = 0; i < s->n && !status; i++) {
        char c[4];
        status = am_buf_append(&d->spelled, c, am_utf8_put(c, am_byte_char((uint8_t)s->p[i])));
    }
    *s = am_buf_str(&d->spelled);
    return status;
}

am_status am_detok_push(am_detok *d, int32_t id, am_buf *out) {
    const am_words *w = &d->t->words;
    if (id < 0 || (size_t)id >= w->n || !(w->flags[id] & AM_WORD_PRESENT)) return AM_OK;
    if (d->skip_special && (w->flags[id] & AM_WORD_SPECIAL) && !is_kept(d, id)) return AM_OK;
    d->out = out;
    if (d->t->plain_bytes) return push_plain(d, id);
    am_str s;
    am_status status = spelled(d, id, &s);
    if (!status && d->n_tokens++ && d->t->join_spaces) status = am_buf_putc(out, ' ');
    return status ? status : feed(d, 0, s, true);
}

am_status am_detok_finish(am_detok *d, am_buf *out) {
    d->out = out;
    am_status status = AM_OK;
    for (size_t i = 0; i < d->t->n_dec && !status; i++) status = stage_finish(d, i);
    am_detok_reset(d);
    return status;
}

am_status am_tokenizer_decode(const am_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, am_buf *out) {
    am_detok d;
    detok_init(&d, t, skip_special);
    am_status status = AM_OK;
    for (size_t i = 0; i < n && !status; i++) status = am_detok_push(&d, ids[i], out);
    if (!status) status = am_detok_finish(&d, out);
    detok_clear(&d);
    return status;
}

/* What one id stands for in the middle of a text: the stages that look at single tokens, with no token first or last. */
static am_status piece_make(const am_tokenizer *t, am_str s, am_buf *a, am_buf *b) {
    am_buf_clear(a);
    am_status status = am_buf_add(a, s);
    for (size_t i = 0; i < t->n_dec && !status; i++) {
        const am_dec *dec = &t->dec[i];
        am_str now = am_buf_str(a);
        am_buf_clear(b);
        int byte = am_byte_token(now);
        if (dec->regex && am_utf8_check(now) != now.n) return AM_OK; /* part of a character: patterns see whole ones only */
        switch (dec->kind) {
        case AM_DEC_FUSE: return AM_OK;
        case AM_DEC_BYTES: status = put_bytes(now, b); break;
        case AM_DEC_STRIP: status = am_buf_add(b, strip(dec, now)); break;
        case AM_DEC_FALLBACK: status = byte >= 0 ? am_buf_putc(b, (char)byte) : am_buf_add(b, now); break;
        case AM_DEC_METASPACE:
        case AM_DEC_SUFFIX: status = put_replaced(now, dec->find, AM_STR(" "), b); break;
        case AM_DEC_WORDPIECE: status = put_wordpiece(dec, now, false, b); break;
        case AM_DEC_REPLACE: status = dec->regex ? put_matches_replaced(dec, now, b) : put_replaced(now, dec->find, dec->content, b); break;
        }
        am_buf swap = *a;
        *a = *b;
        *b = swap;
    }
    return status;
}

am_status am_pieces_build(am_tokenizer *t, am_error *err) {
    am_words *w = &t->words;
    for (size_t id = 0; id < w->n; id++) {
        am_str s = am_words_get(w, (int64_t)id);
        uint8_t all = 0;
        for (size_t i = 0; i < s.n; i++) all |= (uint8_t)s.p[i];
        bool ascii = all < 0x80;
        if (w->flags[id] & AM_WORD_NEEDLE) continue;
        if (ascii || ((w->flags[id] & AM_WORD_FINDABLE) && am_utf8_check(s) == s.n)) w->flags[id] |= AM_WORD_UTF8;
    }
    t->plain_bytes = t->n_dec == 1 && t->dec[0].kind == AM_DEC_BYTES && t->bpe.byte_level;
    t->own_pieces = t->n_dec > 0 && !t->bpe.byte_level;
    am_buf a, b;
    am_buf_init(&a, MAX_HELD);
    am_buf_init(&b, MAX_HELD);
    am_status status = AM_OK;
    for (size_t id = 0; t->own_pieces && id < w->n && !status; id++) {
        if (!(w->flags[id] & AM_WORD_PRESENT)) continue;
        am_str s = am_words_get(w, (int64_t)id);
        status = w->flags[id] & AM_WORD_ADDED ? am_buf_add((am_buf_clear(&a), &a), s) : piece_make(t, s, &a, &b);
        if (status) am_fail(err, status, "no memory for the vocabulary's pieces");
        else status = am_words_add(&t->pieces, id, a.p ? am_buf_str(&a) : (am_str){"", 0}, err);
    }
    am_buf_free(&a);
    am_buf_free(&b);
    return status;
}

void am_dec_free(am_dec *dec) {
    am_regex_free(dec->regex);
    free((char *)dec->find.p);
    free((char *)dec->content.p);
}
