/* Owns normalizers: each takes a view of the text and, where it changes anything, writes a new one with the origin of every byte, so
 * that offsets and input ranges stay those of the original. Text that a stage would leave as it is, is not copied.
 *
 * Unicode forms work on chunks: from a character that may change or combine, up to the next that certainly begins afresh. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bool mapped_room(am_mapped *m, size_t n_more) {
    size_t need, cap_p = m->cap, cap_at = m->cap;
    if (!am_size_add(m->n, n_more, &need) || !am_size_add(need, 1, &need)) return false;
    if (need <= m->cap) return true;
    if (!am_grow(&m->p, &cap_p, need, 1) || !am_grow(&m->at, &cap_at, need, sizeof *m->at)) return false;
    m->cap = cap_p;
    return true;
}

am_status am_mapped_put(am_mapped *m, const char *p, size_t n, uint32_t at) {
    if (!mapped_room(m, n)) return AM_ENOMEM;
    memcpy(m->p + m->n, p, n);
    for (size_t i = 0; i < n; i++) m->at[m->n + i] = at;
    m->n += n;
    return AM_OK;
}

am_status am_mapped_copy(am_mapped *m, const am_view *v, size_t b, size_t e) {
    if (!mapped_room(m, e - b)) return AM_ENOMEM;
    memcpy(m->p + m->n, v->p + b, e - b);
    for (size_t i = b; i < e; i++) m->at[m->n + i - b] = am_view_at(v, i);
    m->n += e - b;
    return AM_OK;
}

am_status am_mapped_close(am_mapped *m, const am_view *from, am_view *out) {
    if (!mapped_room(m, 0)) return AM_ENOMEM;
    m->at[m->n] = am_view_at(from, from->n);
    *out = (am_view){m->p, m->n, m->at, 0};
    return AM_OK;
}

void am_mapped_free(am_mapped *m) {
    free(m->p);
    free(m->at);
}

/* ---- NFC and its kin */

/* Does nothing before cp ever combine with it or move past it? */
static bool begins_afresh(uint32_t cp, bool compat) {
    if (cp < 0x300) return true;
    if ((cp >= 0x1161 && cp <= 0x1175) || (cp >= 0x11A8 && cp <= 0x11C2)) return false;
    utf8proc_int32_t parts[32];
    int bound = 0;
    utf8proc_option_t options = (utf8proc_option_t)(UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0));
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    if (p->decomp_seqindex != UINT16_MAX && (compat || p->decomp_type == 0)) {
        if (utf8proc_decompose_char((utf8proc_int32_t)cp, parts, 32, options, &bound) > 0) {
            if ((parts[0] >= 0x1161 && parts[0] <= 0x1175) || (parts[0] >= 0x11A8 && parts[0] <= 0x11C2)) return false;
            p = utf8proc_get_property(parts[0]);
        }
    }
    return p->combining_class == 0 && (p->comb_index == UINT16_MAX || !(p->comb_index & 0x8000));
}

/* Is cp alone its own normal form? (Only then may it be skipped when what follows begins afresh.) */
static bool is_stable(uint32_t cp, const am_norm *norm) {
    if (cp < 0xA0 || (cp < 0xC0 && !norm->compat)) return true;
    if (norm->compose && !norm->compat && cp < 0x300) return true;
    if (cp >= 0xAC00 && cp <= 0xD7A3) return norm->compose;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    if (p->combining_class) return false;
    return p->decomp_seqindex == UINT16_MAX || (p->decomp_type != 0 && !norm->compat);
}

static am_status chunk_normalize(const am_norm *norm, am_mapped *m, const am_view *v, size_t b, size_t e) {
    utf8proc_uint8_t *form = NULL;
    int options = UTF8PROC_STABLE | (norm->compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (norm->compat ? UTF8PROC_COMPAT : 0);
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)v->p + b, (utf8proc_ssize_t)(e - b), &form, (utf8proc_option_t)options);
    if (n < 0) {
        free(form);
        return AM_ENOMEM;
    }
    am_status status = (size_t)n == e - b && memcmp(form, v->p + b, e - b) == 0 ? am_mapped_copy(m, v, b, e)
                                                                                : am_mapped_put(m, (char *)form, (size_t)n, am_view_at(v, b));
    free(form);
    return status;
}

/* The next chunk at or after i that has to be looked at: [*b, *e); false when there is none. */
static bool chunk_next(const am_norm *norm, const am_view *v, size_t i, size_t *b, size_t *e) {
    size_t last = i; /* where the last character that began afresh begins */
    bool skip_latin = norm->compose && !norm->compat;
    while (i < v->n) {
        uint32_t cp;
        if ((uint8_t)v->p[i] < 0x80 || (skip_latin && (uint8_t)v->p[i] < 0xCC)) {
            last = i;
            i += am_utf8_size((uint8_t)v->p[i]);
            continue;
        }
        size_t k = am_utf8_get(v->p + i, &cp);
        bool fresh = begins_afresh(cp, norm->compat);
        if (fresh) last = i;
        i += k;
        if (fresh && is_stable(cp, norm)) continue;
        *b = last;
        while (i < v->n && (k = am_utf8_get(v->p + i, &cp)) && !begins_afresh(cp, norm->compat)) i += k;
        *e = i;
        return true;
    }
    return false;
}

static am_status unicode(const am_norm *norm, am_scratch *s, am_view *v) {
    size_t b, e, done = 0;
    if (!chunk_next(norm, v, 0, &b, &e)) return AM_OK;
    am_mapped *m = &s->text[s->turn];
    m->n = 0;
    am_status status;
    do {
        status = am_mapped_copy(m, v, done, b);
        if (!status) status = chunk_normalize(norm, m, v, b, e);
        done = e;
    } while (!status && chunk_next(norm, v, done, &b, &e));
    if (!status) status = am_mapped_copy(m, v, done, v->n);
    if (!status) status = am_mapped_close(m, v, v);
    s->turn ^= 1;
    return status;
}

/* ---- stages that look at one character at a time: each writes what becomes of it */

static am_status lowercase(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp) {
    char out[8];
    if (cp == 0x130) return am_mapped_put(m, "i\xCC\x87", 3, am_view_at(v, i)); /* the one character that becomes two */
    uint32_t low = cp < 0x80 ? (cp >= 'A' && cp <= 'Z' ? cp + 32 : cp) : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    if (low == cp) return am_mapped_copy(m, v, i, i + k);
    return am_mapped_put(m, out, am_utf8_put(out, low), am_view_at(v, i));
}

static am_status clean(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp) {
    bool blank = cp == '\t' || cp == '\n' || cp == '\r' || am_is_space(cp);
    if (cp == 0 || cp == 0xFFFD || (cp != '\t' && cp != '\n' && cp != '\r' && am_is_other(cp))) return AM_OK;
    return blank ? am_mapped_put(m, " ", 1, am_view_at(v, i)) : am_mapped_copy(m, v, i, i + k);
}

static bool is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static am_status chinese(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp) {
    if (!is_chinese(cp)) return am_mapped_copy(m, v, i, i + k);
    am_status status = am_mapped_put(m, " ", 1, am_view_at(v, i));
    if (!status) status = am_mapped_copy(m, v, i, i + k);
    return status ? status : am_mapped_put(m, " ", 1, am_view_at(v, i + k)); /* behind all of its bytes: places never go back */
}

static am_status accents(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp) {
    return am_is_mark(cp) ? AM_OK : am_mapped_copy(m, v, i, i + k);
}

static am_status nonspacing(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp) {
    return am_is_nonspacing(cp) ? AM_OK : am_mapped_copy(m, v, i, i + k);
}

static am_status nmt(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp) {
    if ((cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F || cp == 0x8F || cp == 0x9F) return AM_OK;
    bool blank = cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 || (cp >= 0x200B && cp <= 0x200F) ||
                 cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD;
    return blank ? am_mapped_put(m, " ", 1, am_view_at(v, i)) : am_mapped_copy(m, v, i, i + k);
}

static am_status spell(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp) {
    (void)cp;
    char out[4];
    am_status status = AM_OK;
    for (size_t j = i; j < i + k && !status; j++)
        status = am_mapped_put(m, out, am_utf8_put(out, am_byte_char((uint8_t)v->p[j])), am_view_at(v, i));
    return status;
}

typedef am_status (*character)(am_mapped *m, const am_view *v, size_t i, size_t k, uint32_t cp);
static am_status each(character write, am_scratch *s, am_view *v) {
    am_mapped *m = &s->text[s->turn];
    m->n = 0;
    am_status status = AM_OK;
    for (size_t i = 0; i < v->n && !status;) {
        uint32_t cp;
        size_t k = am_utf8_get(v->p + i, &cp);
        status = write(m, v, i, k, cp);
        i += k;
    }
    if (!status) status = am_mapped_close(m, v, v);
    s->turn ^= 1;
    return status;
}

/* ---- the others */

static am_status replace(const am_norm *norm, am_scratch *s, am_view *v) {
    am_span hit;
    am_str text = {v->p, v->n};
    am_walk walk = {0};
    am_status status = am_regex_each(norm->regex, s, text, &walk, &hit);
    if (status) return status == AM_ENOTFOUND ? AM_OK : status;
    am_mapped *m = &s->text[s->turn];
    m->n = 0;
    size_t done = 0;
    do {
        status = am_mapped_copy(m, v, done, hit.begin);
        if (!status) status = am_mapped_put(m, norm->content.p, norm->content.n, am_view_at(v, hit.begin));
        if (status) return status;
        done = hit.end;
    } while ((status = am_regex_each(norm->regex, s, text, &walk, &hit)) == AM_OK);
    if (status == AM_OK || status == AM_ENOTFOUND) status = am_mapped_copy(m, v, done, v->n);
    if (!status) status = am_mapped_close(m, v, v);
    s->turn ^= 1;
    return status;
}

static am_status prepend(const am_norm *norm, am_scratch *s, am_view *v) {
    if (s->joined_before || (v->n == 0 && !norm->left && !s->joined_after)) return AM_OK;
    am_mapped *m = &s->text[s->turn];
    m->n = 0;
    am_status status = am_mapped_put(m, norm->content.p, norm->content.n, am_view_at(v, 0));
    if (!status) status = am_mapped_copy(m, v, 0, v->n);
    if (!status) status = am_mapped_close(m, v, v);
    s->turn ^= 1;
    return status;
}

static void strip(const am_norm *norm, am_view *v) {
    size_t b = 0, e = v->n;
    uint32_t cp;
    for (size_t k; norm->left && b < e && (k = am_utf8_get(v->p + b, &cp)) && am_is_space(cp);) b += k;
    while (norm->right && e > b) {
        size_t i = e - 1;
        while (i > b && ((uint8_t)v->p[i] & 0xC0) == 0x80) i--;
        if (!am_utf8_get(v->p + i, &cp) || !am_is_space(cp)) break;
        e = i;
    }
    *v = am_view_slice(v, b, e);
}

static bool ends_in_mark(const am_view *v, size_t n) { return n >= 3 && memcmp(v->p + n - 3, "\xE2\x96\x81", 3) == 0; }

/* SentencePiece: no spaces at either end, and never two in a row; with `right` the mark for spaces, typed as such, is none at the end. */
static am_status spaces(const am_norm *norm, am_scratch *s, am_view *v) {
    am_mapped *m = &s->text[s->turn];
    m->n = 0;
    size_t e = v->n;
    for (bool mark = false; !s->joined_after && e > 0 && (v->p[e - 1] == ' ' || (mark = norm->right && ends_in_mark(v, e))); mark = false) e -= mark ? 3 : 1;
    am_status status = AM_OK;
    for (size_t i = 0; i < e && !status; i++)
        if (v->p[i] != ' ' || (m->n ? m->p[m->n - 1] != ' ' : s->joined_before)) status = am_mapped_copy(m, v, i, i + 1);
    if (!status) status = am_mapped_close(m, v, v);
    s->turn ^= 1;
    return status;
}

am_status am_norm_apply(const am_norm *norm, am_scratch *s, am_view *v, am_error *err) {
    am_status status = AM_OK;
    switch (norm->kind) {
    case AM_NORM_UNICODE: status = unicode(norm, s, v); break;
    case AM_NORM_LOWERCASE: status = each(lowercase, s, v); break;
    case AM_NORM_REPLACE: status = replace(norm, s, v); break;
    case AM_NORM_PREPEND: status = prepend(norm, s, v); break;
    case AM_NORM_STRIP: strip(norm, v); break;
    case AM_NORM_STRIP_ACCENTS: status = each(accents, s, v); break;
    case AM_NORM_CHARSMAP: status = am_charsmap_apply(norm->content, norm->graphemes, s, v); break;
    case AM_NORM_CLEAN: status = each(clean, s, v); break;
    case AM_NORM_CHINESE: status = each(chinese, s, v); break;
    case AM_NORM_STRIP_MN: status = each(nonspacing, s, v); break;
    case AM_NORM_BYTES: status = each(spell, s, v); break;
    case AM_NORM_NMT: status = each(nmt, s, v); break;
    case AM_NORM_SPACES: status = spaces(norm, s, v); break;
    }
    if (v->n >= UINT32_MAX) status = AM_ELIMIT;
    if (status == AM_ELIMIT) return am_fail(err, status, "a normalizer took too many steps on this text, or made it too long");
    return status ? am_fail(err, status, "no memory to normalize the text") : AM_OK;
}

void am_norm_free(am_norm *norm) {
    am_regex_free(norm->regex);
    free((char *)norm->content.p);
}
