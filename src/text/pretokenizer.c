/* Owns pre-tokenizers: each stage cuts every piece of the one before into smaller ones, by pattern or by character class, and some
 * also change the text (a mark for spaces, a leading space). Pieces are ranges of one text; a stage that changes it writes a new one.
 *
 * A byte-level text normally stays as bytes, since the vocabulary is kept as bytes too. Only where a stage after ByteLevel looks
 * at characters is the text spelled in the alphabet for it (am_pre.spell) and taken back to bytes at the end. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

am_status am_pieces_put(am_pieces *p, size_t begin, size_t end) {
    if (begin >= end) return AM_OK;
    if (p->n == p->cap && !am_grow(&p->v, &p->cap, p->n + 1, sizeof *p->v)) return AM_ENOMEM;
    p->v[p->n++] = (am_piece){(uint32_t)begin, (uint32_t)end};
    return AM_OK;
}

/* Takes matches and the gaps between them in order and puts pieces as the behaviour says. */
typedef struct folder {
    am_pieces *out;
    am_behavior behavior;
    bool invert;
    bool held, match; /* match: of the last part seen */
    size_t begin, end; /* the piece held back */
} folder;

static am_status fold_flush(folder *f) {
    if (!f->held) return AM_OK;
    f->held = false;
    return am_pieces_put(f->out, f->begin, f->end);
}

static am_status fold_part(folder *f, size_t b, size_t e, bool match) {
    if (f->behavior == AM_ISOLATED) return am_pieces_put(f->out, b, e);
    match ^= f->invert;
    if (f->behavior == AM_REMOVED) return match ? AM_OK : am_pieces_put(f->out, b, e);
    bool join = f->held && (f->behavior == AM_CONTIGUOUS        ? match == f->match
                            : f->behavior == AM_MERGED_PREVIOUS ? match && !f->match
                                                                : !match && f->match);
    f->match = match;
    if (join) {
        f->end = e;
        return AM_OK;
    }
    am_status status = fold_flush(f);
    f->held = true;
    f->begin = b;
    f->end = e;
    return status;
}

static am_status cut_regex(const am_regex *regex, am_scratch *s, am_str text, am_piece piece, folder *f) {
    am_str inside = {text.p + piece.begin, piece.end - piece.begin};
    size_t prev = 0;
    am_walk walk = {0};
    am_status status = AM_OK;
    while (!status) {
        am_span m;
        am_status found = am_regex_each(regex, s, inside, &walk, &m);
        if (found == AM_ENOTFOUND) break;
        if (found) return found;
        if (prev != m.begin) status = fold_part(f, piece.begin + prev, piece.begin + m.begin, false);
        if (!status) status = fold_part(f, piece.begin + m.begin, piece.begin + m.end, true);
        prev = m.end;
    }
    if (!status && prev < inside.n) status = fold_part(f, piece.begin + prev, piece.end, false);
    return status ? status : fold_flush(f);
}

static am_status cut_chars(bool (*is)(uint32_t), am_str text, am_piece piece, folder *f) {
    size_t prev = piece.begin;
    am_status status = AM_OK;
    for (size_t i = piece.begin; i < piece.end && !status;) {
        uint32_t cp;
        size_t k = am_utf8_get(text.p + i, &cp);
        if (is(cp)) {
            if (prev < i) status = fold_part(f, prev, i, false);
            if (!status) status = fold_part(f, i, i + k, true);
            prev = i + k;
        }
        i += k;
    }
    if (!status && prev < piece.end) status = fold_part(f, prev, piece.end, false);
    return status ? status : fold_flush(f);
}

/* \w+|[^\w\s]+ : runs of one class, white space dropped */
static am_status cut_words(am_str text, am_piece piece, am_pieces *out) {
    int class = -1;
    size_t begin = piece.begin;
    for (size_t i = piece.begin; i < piece.end;) {
        uint32_t cp;
        size_t k = am_utf8_get(text.p + i, &cp);
        int here = am_is_word(cp) ? 1 : am_is_space(cp) ? 0 : 2;
        if (here != class) {
            if (class > 0 && am_pieces_put(out, begin, i)) return AM_ENOMEM;
            class = here;
            begin = i;
        }
        i += k;
    }
    return class > 0 ? am_pieces_put(out, begin, piece.end) : AM_OK;
}

static am_status cut(const am_pre *pre, am_scratch *s, am_str text, am_piece piece, am_pieces *out) {
    folder f = {.out = out, .behavior = pre->behavior, .invert = pre->invert};
    switch (pre->kind) {
    case AM_PRE_SPLIT:
    case AM_PRE_BYTES: return cut_regex(pre->regex, s, text, piece, &f);
    case AM_PRE_DIGITS: return cut_chars(am_is_numeric, text, piece, &f);
    case AM_PRE_PUNCTUATION: return cut_chars(am_is_punctuation, text, piece, &f);
    case AM_PRE_SPACE_SPLIT: f.behavior = AM_REMOVED; return cut_chars(am_is_space, text, piece, &f);
    case AM_PRE_WHITESPACE: return cut_words(text, piece, out);
    default: return am_pieces_put(out, piece.begin, piece.end);
    }
}

/* Cuts every piece; the result becomes s->pieces. */
static am_status cut_all(const am_pre *pre, am_scratch *s, am_str text) {
    s->more.n = 0;
    am_status status = AM_OK;
    for (size_t i = 0; i < s->pieces.n && !status; i++) status = cut(pre, s, text, s->pieces.v[i], &s->more);
    am_pieces swap = s->pieces;
    s->pieces = s->more;
    s->more = swap;
    return status;
}

/* A stage that writes the text anew piece by piece. */
typedef am_status (*writer)(const am_pre *pre, am_mapped *m, const am_view *v);
static am_status rewrite(const am_pre *pre, writer write, am_scratch *s, am_view *v) {
    am_mapped *m = &s->text[s->turn];
    m->n = 0;
    am_status status = AM_OK;
    for (size_t i = 0; i < s->pieces.n && !status; i++) {
        am_view piece = am_view_slice(v, s->pieces.v[i].begin, s->pieces.v[i].end);
        size_t begin = m->n;
        status = write(pre, m, &piece);
        if (m->n >= UINT32_MAX) return AM_ELIMIT;
        s->pieces.v[i] = (am_piece){(uint32_t)begin, (uint32_t)m->n};
    }
    if (!status) status = am_mapped_close(m, v, v);
    s->turn ^= 1;
    return status;
}

static am_status write_marks(const am_pre *pre, am_mapped *m, const am_view *v) {
    size_t n_mark = strlen(pre->mark);
    bool marked = v->n >= n_mark && memcmp(v->p, pre->mark, n_mark) == 0;
    bool wanted = pre->prepend == AM_PREPEND_ALWAYS || (pre->prepend == AM_PREPEND_FIRST && am_view_at(v, 0) == 0);
    am_status status = AM_OK;
    if (wanted && !marked && v->n && v->p[0] != ' ') status = am_mapped_put(m, pre->mark, n_mark, am_view_at(v, 0));
    for (size_t i = 0; i < v->n && !status;) {
        const char *space = memchr(v->p + i, ' ', v->n - i);
        size_t end = space ? (size_t)(space - v->p) : v->n;
        status = am_mapped_copy(m, v, i, end);
        if (space && !status) status = am_mapped_put(m, pre->mark, n_mark, am_view_at(v, end));
        i = end + 1;
    }
    return status;
}

static am_status write_prefix(const am_pre *pre, am_mapped *m, const am_view *v) {
    (void)pre;
    am_status status = v->n && v->p[0] != ' ' ? am_mapped_put(m, " ", 1, am_view_at(v, 0)) : AM_OK;
    return status ? status : am_mapped_copy(m, v, 0, v->n);
}

static am_status write_spelled(const am_pre *pre, am_mapped *m, const am_view *v) {
    (void)pre;
    am_status status = AM_OK;
    for (size_t i = 0; i < v->n && !status; i++) {
        char c[4];
        status = am_mapped_put(m, c, am_utf8_put(c, am_byte_char((uint8_t)v->p[i])), am_view_at(v, i));
    }
    return status;
}

static am_status write_bytes(const am_pre *pre, am_mapped *m, const am_view *v) {
    (void)pre;
    am_status status = AM_OK;
    for (size_t i = 0; i < v->n && !status;) {
        uint32_t cp;
        size_t k = am_utf8_get(v->p + i, &cp);
        int byte = am_char_byte(cp);
        char c = (char)byte;
        status = byte < 0 ? am_mapped_copy(m, v, i, i + k) : am_mapped_put(m, &c, 1, am_view_at(v, i));
        i += k;
    }
    return status;
}

static am_status metaspace(const am_pre *pre, am_scratch *s, am_view *v) {
    am_status status = rewrite(pre, write_marks, s, v);
    if (status || !pre->split) return status;
    am_pre at_mark = {.kind = AM_PRE_SPLIT, .regex = pre->regex, .behavior = AM_MERGED_NEXT};
    return cut_all(&at_mark, s, (am_str){v->p, v->n});
}

static am_status byte_level(const am_pre *pre, am_scratch *s, am_view *v) {
    am_status status = pre->prefix_space ? rewrite(pre, write_prefix, s, v) : AM_OK;
    if (!status && pre->regex) status = cut_all(pre, s, (am_str){v->p, v->n});
    if (!status && pre->spell) status = rewrite(pre, write_spelled, s, v);
    return status;
}

static am_status bert(am_scratch *s, am_view *v) {
    am_status status = cut_all(&(am_pre){.kind = AM_PRE_SPACE_SPLIT}, s, (am_str){v->p, v->n});
    am_pre punctuation = {.kind = AM_PRE_PUNCTUATION, .behavior = AM_ISOLATED};
    return status ? status : cut_all(&punctuation, s, (am_str){v->p, v->n});
}

am_status am_pre_apply(const am_tokenizer *t, am_scratch *s, am_view *v, am_error *err) {
    s->pieces.n = 0;
    am_status status = am_pieces_put(&s->pieces, 0, v->n);
    bool spelled = false;
    for (size_t i = 0; i < t->n_pre && !status; i++) {
        const am_pre *pre = &t->pre[i];
        if (pre->kind == AM_PRE_METASPACE) status = metaspace(pre, s, v);
        else if (pre->kind == AM_PRE_BYTES) status = byte_level(pre, s, v);
        else if (pre->kind == AM_PRE_BERT) status = bert(s, v);
        else status = cut_all(pre, s, (am_str){v->p, v->n});
        spelled |= pre->spell;
    }
    if (!status && spelled && t->bpe.byte_level) status = rewrite(NULL, write_bytes, s, v);
    if (status == AM_ELIMIT) return am_fail(err, status, "the tokenizer's split pattern took too many steps on this text");
    return status ? am_fail(err, status, "no memory to split the text") : AM_OK;
}

void am_pre_free(am_pre *pre) { am_regex_free(pre->regex); }
