/* Owns the filters wordwrap and urlize, which jinja2 builds on Python's regular expressions: here PCRE2 runs the same ones. Prompts hardly ever want
 * them, so the expressions are compiled where they are used. */
#include "text/jinja_int.h"

#include <pcre2.h>

enum { MATCH_LIMIT = 10 * 1000 * 1000 };

static bool given(jv v) { return v.t != J_MISSING && v.t != J_NONE; }
static bool flag(jv v) { return v.t != J_MISSING && jv_truth(v); }

typedef struct pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
} pattern;

static bool open_pattern(jrender *r, pattern *p, const char *source) {
    int error;
    PCRE2_SIZE at;
    *p = (pattern){0};
    p->code = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_EXTENDED | PCRE2_CASELESS | PCRE2_DOLLAR_ENDONLY, &error, &at, NULL);
    p->match = p->code ? pcre2_match_data_create_from_pattern(p->code, NULL) : NULL;
    p->limits = p->match ? pcre2_match_context_create(NULL) : NULL;
    if (!p->limits) return j_no_memory(r);
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    return true;
}

static void close_pattern(pattern *p) {
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
}

/* 1: found in s from `at` on, 0: not, -1: failed. */
static int find(jrender *r, const pattern *p, am_str s, size_t at, am_span *out) {
    int n = pcre2_match(p->code, (PCRE2_SPTR)s.p, s.n, at, PCRE2_NO_UTF_CHECK, p->match, p->limits);
    if (n == PCRE2_ERROR_NOMATCH) return j_charge(r, 1 + (s.n - at) / 8) ? 0 : -1;
    if (n == PCRE2_ERROR_NOMEMORY) return j_no_memory(r), -1;
    if (n < 0) return j_limit(r, "searches a text for too long"), -1;
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(p->match);
    *out = (am_span){v[0], v[1]};
    return j_charge(r, 1 + (v[1] - at) / 8) ? 1 : -1;
}

/* ---- wordwrap */

#define BLANKS "[\\x09-\\x0d\\x20]"
#define OTHERS "[^\\x09-\\x0d\\x20]"
#define BESIDE "(?<=[\\w!\"'&.,?])"
#define LETTER "[^\\d\\W]"
/* Python's textwrap: blanks, a dash between words, or a word, which may end behind a hyphen. (?-i) is not needed: nothing has a case. */
static const char chunk_pattern[] = BLANKS "+ | " BESIDE "-{2,}(?=\\w) | " OTHERS "+? (?: -(?: (?<=" LETTER "{2}-) | (?<=" LETTER "-" LETTER "-) ) (?= " LETTER " -? " LETTER ") | (?=" BLANKS
                                    "|\\z) | " BESIDE "(?=-{2,}\\w) )";
static const char simple_pattern[] = BLANKS "+";

typedef struct wrapper {
    const pattern *chunks;
    int64_t width;
    bool break_long_words, break_on_hyphens;
    jlist *chunk; /* strings, the first one last */
    jlist *line;
} wrapper;

static bool add_part(jrender *r, jlist *l, const jstr *s, size_t begin, size_t end) {
    if (begin == end) return true;
    const jstr *part = j_str_slice(r, s, begin, end);
    return part && j_list_add(r, l, jv_str(part));
}

static bool split_chunks(jrender *r, wrapper *w, const jstr *s) {
    size_t at = 0;
    am_span m;
    int found;
    if (!(w->chunk = j_list(r, 16))) return false;
    while (at < s->n && (found = find(r, w->chunks, (am_str){s->p, s->n}, at, &m)) != 0) {
        if (found < 0 || !add_part(r, w->chunk, s, at, m.begin) || !add_part(r, w->chunk, s, m.begin, m.end)) return false;
        at = m.end;
    }
    if (!add_part(r, w->chunk, s, at, s->n)) return false;
    for (size_t i = 0, n = w->chunk->n; i < n / 2; i++) {
        jv x = w->chunk->v[i];
        w->chunk->v[i] = w->chunk->v[n - 1 - i];
        w->chunk->v[n - 1 - i] = x;
    }
    return true;
}

static bool is_blank(jv v) {
    for (size_t i = 0, used; i < v.s->n; i += used)
        if (!j_is_space(j_decode(v.s->p + i, v.s->n - i, &used))) return false;
    return true;
}

/* A chunk longer than a line: as much of it as fits, behind a hyphen if there is one. */
static bool long_word(jrender *r, wrapper *w, int64_t room) {
    jv *last = &w->chunk->v[w->chunk->n - 1];
    const jstr *s = last->s;
    if (!w->break_long_words) return w->line->n || (j_list_add(r, w->line, *last) && (w->chunk->n--, true));
    size_t end = j_str_offset(s, (size_t)room), hyphen = end;
    if (w->break_on_hyphens && (int64_t)j_str_chars(s) > room) {
        while (hyphen > 0 && s->p[hyphen - 1] != '-') hyphen--;
        bool other = false;
        for (size_t i = 0; hyphen > 1 && i < hyphen - 1; i++) other |= s->p[i] != '-';
        if (hyphen > 1 && other) end = hyphen;
    }
    const jstr *head = j_str_slice(r, s, 0, end), *rest = j_str_slice(r, s, end, s->n);
    if (!head || !rest || !j_list_add(r, w->line, jv_str(head))) return false;
    *last = jv_str(rest);
    return true;
}

/* The next line's chunks; length: characters of them. */
static bool fill_line(jrender *r, wrapper *w, bool first) {
    int64_t length = 0;
    w->line->n = 0;
    if (!first && is_blank(w->chunk->v[w->chunk->n - 1])) w->chunk->n--;
    while (w->chunk->n) {
        jv next = w->chunk->v[w->chunk->n - 1];
        if (!j_charge(r, 1 + next.s->n / 32)) return false; /* what is left of a long word is counted again for every line */
        int64_t n = (int64_t)j_str_chars(next.s);
        if (length + n > w->width) {
            if (n > w->width && !long_word(r, w, w->width - length)) return false;
            break;
        }
        if (!j_list_add(r, w->line, next)) return false;
        w->chunk->n--;
        length += n;
    }
    if (w->line->n && is_blank(w->line->v[w->line->n - 1])) w->line->n--;
    return true;
}

static bool wrap_line(jrender *r, wrapper *w, jout *out, const jstr *s, const jstr *between) {
    if (!split_chunks(r, w, s)) return false;
    bool first = true;
    while (w->chunk->n) {
        if (!fill_line(r, w, first)) return false;
        if (!w->line->n) continue;
        if (!first && !j_out_str(r, out, between)) return false;
        for (size_t i = 0; i < w->line->n; i++)
            if (!j_out_str(r, out, w->line->v[i].s)) return false;
        first = false;
    }
    return true;
}

bool j_wordwrap(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *between = j_str_c(r, "\n");
    wrapper w = {.width = 79, .break_long_words = arg[1].t == J_MISSING || flag(arg[1]), .break_on_hyphens = arg[3].t == J_MISSING || flag(arg[3]), .line = j_list(r, 8)};
    jlist *lines;
    if (!between || !w.line) return false;
    if (arg[2].t == J_UNDEF) return j_undefined_error(r, arg[2]);
    if (given(arg[2]) && arg[2].t != J_STR) return j_fail(r, "AttributeError", "'%s' object has no attribute 'join'", j_type_name(arg[2]));
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    if (v.t != J_STR) return j_fail(r, "AttributeError", "'%s' object has no attribute 'splitlines'", j_type_name(v));
    if (given(arg[2])) between = arg[2].s;
    if (!j_splitlines(r, v.s, false, &lines)) return false;
    if (lines->n && arg[0].t != J_MISSING && !j_operand_int(r, arg[0], &w.width)) return false;
    if (w.width <= 0 && lines->n) return j_fail(r, "ValueError", "invalid width %lld (must be > 0)", (long long)w.width);
    pattern p;
    jout text;
    j_out_init(r, &text);
    bool hyphens = arg[3].t == J_MISSING || (arg[3].t == J_BOOL && arg[3].b), ok = open_pattern(r, &p, hyphens ? chunk_pattern : simple_pattern);
    w.chunks = &p;
    for (size_t i = 0; ok && i < lines->n; i++) ok = (i == 0 || j_out_str(r, &text, between)) && wrap_line(r, &w, &text, lines->v[i].s, between);
    close_pattern(&p);
    if (ok) return j_out_value(r, &text, out) && j_markup(r, out->s, between->markup, out);
    j_out_free(&text);
    return false;
}

/* ---- urlize */

static const char url_pattern[] = "^ (?: (?:https?://|www\\.) (?:(?:[\\w%-]+\\.)+)? (?: [a-z]{2,63} | xn--[\\w%]{2,59} )"
                                  " | (?:[\\w%-]{2,63}\\.)+ (?:com|net|int|edu|gov|org|info|mil)"
                                  " | https?:// (?: (?:\\d{1,3}(?:\\.\\d{1,3}){3}) | \\[(?:[\\da-f]{0,4}:){2}(?:[\\da-f]{0,4}:?){1,6}\\] ) )"
                                  " (?::\\d{1,5})? (?:[/?\\#]\\S*)? $";
static const char mail_pattern[] = "^\\S+@\\w[\\w.-]*\\.\\w+$";
static const char scheme_pattern[] = "^[\\w.+-]{2,}:/{0,2}$";

typedef struct linker {
    pattern url, mail, scheme;
    jv shown; /* how many characters of an address, J_MISSING: all */
    const jstr *attributes; /* rel and target, escaped */
    jlist *schemes;
} linker;

static bool starts(am_str s, const char *with) { return am_str_starts(s, am_str_of(with)); }
static bool ends(am_str s, const char *with) {
    size_t n = strlen(with);
    return s.n >= n && memcmp(s.p + s.n - n, with, n) == 0;
}

static size_t count(am_str s, const char *what) {
    size_t n = 0, len = strlen(what);
    for (size_t i = 0; i + len <= s.n; i++) n += memcmp(s.p + i, what, len) == 0;
    return n;
}

static am_str view(const jstr *s, am_span at) { return (am_str){s->p + at.begin, at.end - at.begin}; }

/* Brackets and points around an address do not belong to it, but for brackets that it opened itself. */
static void bounds(const jstr *s, am_span word, am_span *middle) {
    static const char *const open[] = {"(", "<", "&lt;"}, *const close[] = {")", ">", "&gt;"}, *const tails[] = {")", ">", ".", ",", "&gt;"};
    *middle = word;
    for (bool on = true; on;) {
        on = false;
        for (int i = 0; i < 3; i++)
            if (starts(view(s, *middle), open[i])) middle->begin += strlen(open[i]), on = true;
    }
    for (bool on = true; on;) {
        on = false;
        for (int i = 0; i < 5; i++)
            if (ends(view(s, *middle), tails[i])) middle->end -= strlen(tails[i]), on = true;
    }
    for (int i = 0; i < 3; i++) {
        size_t opened = count(view(s, *middle), open[i]), in_tail = count((am_str){s->p + middle->end, word.end - middle->end}, close[i]);
        if (opened <= count(view(s, *middle), close[i])) continue;
        for (size_t k = opened < in_tail ? opened : in_tail; k; k--) {
            const char *at = memmem(s->p + middle->end, word.end - middle->end, close[i], strlen(close[i]));
            middle->end = (size_t)(at - s->p) + strlen(close[i]);
        }
    }
}

static bool put_link(jrender *r, jout *out, const linker *l, const jstr *s, am_span at, const char *before) {
    const jstr *all = j_str_slice(r, s, at.begin, at.end);
    if (!all || !j_out_c(r, out, "<a href=\"") || !j_out_c(r, out, before) || !j_out_str(r, out, all) || !j_out_c(r, out, "\"")) return false;
    if (l && (!j_out_str(r, out, l->attributes))) return false;
    int64_t limit = INT64_MAX, n = (int64_t)j_str_chars(all);
    if (l && given(l->shown) && !j_operand_int(r, l->shown, &limit)) return false;
    bool cut = n > limit;
    if (limit < 0) limit = limit < -n ? 0 : n + limit;
    size_t end = cut ? j_str_offset(all, (size_t)limit) : all->n, from = before[0] == 0 && !l && starts((am_str){all->p, all->n}, "mailto:") ? 7 : 0;
    return j_out_c(r, out, ">") && j_out_part(r, out, all, from, end) && (!cut || j_out_c(r, out, "...")) && j_out_c(r, out, "</a>");
}

static bool put_word(jrender *r, jout *out, linker *l, const jstr *s, am_span at) {
    am_str text = view(s, at);
    am_span m;
    int found = find(r, &l->url, text, 0, &m);
    if (found > 0) return put_link(r, out, l, s, at, starts(text, "https://") || starts(text, "http://") ? "" : "https://");
    bool at_sign = text.n && memchr(text.p, '@', text.n), mailto = starts(text, "mailto:");
    if (found == 0 && mailto) found = find(r, &l->mail, (am_str){text.p + 7, text.n - 7}, 0, &m);
    if (found > 0) return put_link(r, out, NULL, s, at, "");
    if (found == 0 && at_sign && !starts(text, "www.") && !memchr(text.p, ':', text.n)) found = find(r, &l->mail, text, 0, &m);
    if (found > 0) return put_link(r, out, NULL, s, at, "mailto:");
    for (size_t i = 0; found == 0 && l->schemes && i < l->schemes->n; i++) {
        am_str scheme = {l->schemes->v[i].s->p, l->schemes->v[i].s->n};
        linker whole = *l;
        whole.shown = (jv){.t = J_MISSING};
        if (text.n > scheme.n && am_str_starts(text, scheme)) return put_link(r, out, &whole, s, at, "");
    }
    return found == 0 && j_out_part(r, out, s, at.begin, at.end);
}

static bool link_words(jrender *r, jout *out, linker *l, const jstr *s) {
    for (size_t at = 0, used; at < s->n;) {
        size_t end = at;
        am_span middle;
        while (end < s->n && !j_is_space(j_decode(s->p + end, s->n - end, &used))) end += used;
        bounds(s, (am_span){at, end}, &middle);
        if (!j_charge(r, 1 + (end - at) / 4) || !j_out_part(r, out, s, at, middle.begin) || !put_word(r, out, l, s, middle) || !j_out_part(r, out, s, middle.end, end)) return false;
        for (at = end; at < s->n && j_is_space(j_decode(s->p + at, s->n - at, &used));) at += used;
        if (!j_out_part(r, out, s, end, at)) return false;
    }
    return true;
}

/* rel="..." of the words given, nofollow, and jinja2's own noopener, each once and in order; target="..." */
static bool attributes(jrender *r, jv nofollow, jv rel, jv target, const jstr **out) {
    const jfunc *split = j_str_method(AM_STR("split"));
    jv words = {.t = J_MISSING}, arg[JP_MAX] = {{.t = J_MISSING}, {.t = J_MISSING}}, e;
    const jstr *own[] = {j_str_c(r, "noopener"), flag(nofollow) ? j_str_c(r, "nofollow") : NULL};
    jout text;
    if (!own[0] || (given(rel) && rel.t != J_STR)) return own[0] && j_fail(r, "AttributeError", "'%s' object has no attribute 'split'", j_type_name(rel));
    if (given(rel) && jv_truth(rel) && !split->fn(r, rel, arg, &words)) return false;
    jlist *all = words.t == J_LIST ? words.l : j_list(r, 2), *keys;
    for (int i = 0; i < 2; i++)
        if (!all || (own[i] && !j_list_add(r, all, jv_str(own[i])))) return false;
    if (!(keys = j_list(r, all->n))) return false;
    for (size_t i = 0; i < all->n; i++) keys->v[keys->n++] = all->v[i];
    if (!j_sort(r, keys, all, false)) return false;
    j_out_init(r, &text);
    bool ok = j_out_c(r, &text, " rel=\"");
    for (size_t i = 0; ok && i < all->n; i++) {
        if (i && jv_same(all->v[i], all->v[i - 1])) continue;
        ok = (i == 0 || j_out_c(r, &text, " ")) && j_write_escaped(r, &text, all->v[i]);
    }
    ok = ok && j_out_c(r, &text, "\"");
    if (ok && given(target) && jv_truth(target))
        ok = j_escape_value(r, target, &e) && j_out_c(r, &text, " target=\"") && j_out_str(r, &text, e.s) && j_out_c(r, &text, "\"");
    if (ok) return (*out = j_out_finish(r, &text)) != NULL;
    j_out_free(&text);
    return false;
}

static bool check_schemes(jrender *r, linker *l, jv given_schemes) {
    am_span m;
    if (!given(given_schemes)) return true;
    if (!j_to_list(r, given_schemes, &l->schemes)) return false;
    for (size_t i = 0; i < l->schemes->n; i++) {
        jv s = l->schemes->v[i];
        if (s.t != J_STR) return j_fail(r, "TypeError", "expected string or bytes-like object, got '%s'", j_type_name(s));
        int found = find(r, &l->scheme, (am_str){s.s->p, s.s->n}, 0, &m);
        if (found <= 0) return found == 0 && j_fail(r, "FilterArgumentError", "%s is not a valid URI scheme prefix.", j_repr_c(r, s));
    }
    return true;
}

bool j_urlize(jrender *r, jv v, jv *arg, jv *out) {
    linker l = {.shown = arg[0]};
    jout text;
    jv e;
    j_out_init(r, &text);
    bool ok = attributes(r, arg[1], arg[3], arg[2], &l.attributes) && open_pattern(r, &l.url, url_pattern) && open_pattern(r, &l.mail, mail_pattern) &&
              open_pattern(r, &l.scheme, scheme_pattern) && check_schemes(r, &l, arg[4]) &&
              j_escape_value(r, v, &e) && link_words(r, &text, &l, e.s);
    close_pattern(&l.url);
    close_pattern(&l.mail);
    close_pattern(&l.scheme);
    if (ok) return j_out_value(r, &text, out) && (!r->autoescape || j_mark_up(r, out));
    j_out_free(&text);
    return false;
}
