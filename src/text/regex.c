/* Owns regular expressions: Oniguruma's dialect (what tokenizer.json files are written in) translated to PCRE2 and run by its JIT.
 *
 * The two dialects differ quietly: \s and \w cover other characters, \h is a hex digit, ^ and $ match at every line, {n,m}+ is not
 * possessive, classes nest and intersect, script names mean Script and not Script_Extensions. All that is translated here; what is
 * not known to mean the same is refused by name. Matching runs under a match limit and a heap limit: a hostile pattern ends in
 * AM_ELIMIT. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct am_regex {
    pcre2_code *code; /* NULL: literal */
    am_str literal;
    bool cuts_lines;
};

#define SPACES "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NON_SPACES                                                                                                     \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"     \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORDS "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define HEX "0-9a-fA-F"

/* The split patterns nearly all byte-level models use: GPT-2, cl100k and Llama 3, Qwen 2, o200k, in the spellings that occur. */
static const char *const well_known[] = {
    AM_PATTERN_GPT2,
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    AM_PATTERN_O200K,
};

enum { MAX_NEST = 64, MATCH_LIMIT = 50000000, HEAP_LIMIT_KIB = 65536, MAX_PATTERN_BYTES = 1 << 16 };

typedef struct translator {
    am_str in;
    size_t i;
    am_buf out;
    size_t group[MAX_NEST]; /* where each open group began in out */
    size_t depth;
    size_t atom; /* where the last atom began in out */
    const char *refused;
} translator;

static void emit(translator *t, const char *s) {
    if (am_buf_append(&t->out, s, strlen(s))) t->refused = t->refused ? t->refused : "a pattern of this size";
}
static void emit_n(translator *t, const char *s, size_t n) {
    if (am_buf_append(&t->out, s, n)) t->refused = t->refused ? t->refused : "a pattern of this size";
}
static void refuse(translator *t, const char *what) { t->refused = t->refused ? t->refused : what; }
static int peek(const translator *t, size_t k) { return t->i + k < t->in.n ? (uint8_t)t->in.p[t->i + k] : -1; }

/* \p{Name}: general categories and a few binary properties mean the same; everything else is taken for a script's name. */
static void property(translator *t) {
    size_t start = t->i; /* at '\' */
    if (peek(t, 2) != '{') { /* \pL */
        emit_n(t, t->in.p + start, 3 <= t->in.n - start ? 3 : t->in.n - start);
        t->i = start + 3 <= t->in.n ? start + 3 : t->in.n;
        return;
    }
    const char *close = memchr(t->in.p + start, '}', t->in.n - start);
    if (!close) return refuse(t, "\\p without }");
    am_str name = {t->in.p + start + 3, (size_t)(close - t->in.p) - start - 3};
    t->i = (size_t)(close - t->in.p) + 1;
    bool negated = name.n && name.p[0] == '^';
    if (negated) name.p++, name.n--;
    emit_n(t, t->in.p + start, 2);
    emit(t, negated ? "{^" : "{");
    static const char *const same[][2] = {
        {"Letter", "L"}, {"Mark", "M"}, {"Number", "N"}, {"Punctuation", "P"}, {"Symbol", "S"}, {"Separator", "Z"}, {"Other", "C"},
        {"Alphabetic", "Alphabetic"}, {"Alpha", "Alphabetic"}, {"Uppercase", "Uppercase"}, {"Lowercase", "Lowercase"},
        {"Upper", "Uppercase"}, {"Lower", "Lowercase"}, {"Any", "Any"}, {"Ideographic", "Ideographic"}, {"Digit", "Nd"},
    };
    const char *known = NULL;
    for (size_t k = 0; k < sizeof same / sizeof *same && !known; k++)
        if (am_str_eq(name, am_str_of(same[k][0]))) known = same[k][1];
    if (known) emit(t, known);
    else {
        if (name.n > 2) emit(t, "sc:");
        emit_n(t, name.p, name.n);
    }
    emit(t, "}");
}

/* One escape at t->i, inside or outside a class. */
static void escape(translator *t, bool in_class) {
    int c = peek(t, 1);
    const char *set = c == 's' ? SPACES : c == 'S' ? NON_SPACES : c == 'w' || c == 'W' ? WORDS : c == 'h' || c == 'H' ? HEX : NULL;
    if (set) {
        bool negated = c == 'W' || c == 'H';
        if (in_class && negated) return refuse(t, c == 'W' ? "\\W in a class" : "\\H in a class");
        if (!in_class) emit(t, negated ? "[^" : "[");
        emit(t, set);
        if (!in_class) emit(t, "]");
        t->i += 2;
        return;
    }
    if (c == 'p' || c == 'P') return property(t);
    if (c < 0) return refuse(t, "a trailing backslash");
    if (strchr("kgKCQEXyYNO", c)) return refuse(t, "this escape");
    if (c == 'b' && !in_class) emit(t, "(?:(?<=[" WORDS "])(?![" WORDS "])|(?<![" WORDS "])(?=[" WORDS "]))");
    else if (c == 'B') emit(t, "(?:(?<=[" WORDS "])(?=[" WORDS "])|(?<![" WORDS "])(?![" WORDS "]))");
    else if (c == 'v') emit(t, "\\x0b");
    else if (c == 'u') {
        if (t->in.n - t->i < 6) return refuse(t, "a short \\u");
        emit(t, "\\x{");
        emit_n(t, t->in.p + t->i + 2, 4);
        emit(t, "}");
        t->i += 4;
    } else if (c == 'x' && peek(t, 2) != '{' && peek(t, 2) >= '8') return refuse(t, "a raw byte above 0x7f");
    else emit_n(t, t->in.p + t->i, 1 + am_utf8_size((uint8_t)c));
    t->i += 1 + am_utf8_size((uint8_t)c);
    if (t->i > t->in.n) t->i = t->in.n;
}

/* [:name:] inside a class */
static void posix(translator *t) {
    static const char *const sets[][2] = {
        {"[:alpha:]", "\\p{Alphabetic}"}, {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"}, {"[:punct:]", "\\p{P}\\p{S}"}, {"[:digit:]", "\\p{Nd}"},
        {"[:space:]", SPACES}, {"[:upper:]", "\\p{Uppercase}"}, {"[:lower:]", "\\p{Lowercase}"}, {"[:xdigit:]", HEX}, {"[:word:]", WORDS},
    };
    am_str rest = {t->in.p + t->i, t->in.n - t->i};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!am_str_starts(rest, am_str_of(sets[i][0]))) continue;
        emit(t, sets[i][1]);
        t->i += strlen(sets[i][0]);
        return;
    }
    refuse(t, "this bracket expression");
}

static void class_at(translator *t, size_t depth);

/* The members of a class up to "&&" or "]"; nested plain classes are joined in. Leaves t->i at what ended it. */
static void class_members(translator *t, size_t depth) {
    bool first = true;
    for (; t->i < t->in.n && !t->refused; first = false) {
        int c = peek(t, 0);
        if (c == ']' && !first) return;
        if (c == '&' && peek(t, 1) == '&') return;
        if (c == '\\') escape(t, true);
        else if (c == '[' && peek(t, 1) == ':') posix(t);
        else if (c == '[') {
            if (peek(t, 1) == '^' || depth >= MAX_NEST) return refuse(t, "a negated class inside a class");
            t->i++;
            class_members(t, depth + 1);
            if (peek(t, 0) != ']') return refuse(t, "an intersection inside a class");
            t->i++;
        } else {
            if (c == ']') emit(t, "\\");
            size_t k = am_utf8_size((uint8_t)c);
            emit_n(t, t->in.p + t->i, k);
            t->i += k;
        }
    }
    refuse(t, "a class without ]");
}

/* What follows "&&": a bracketed class or bare members; written as a class of its own. */
static void class_operand(translator *t, size_t depth) {
    if (peek(t, 0) == '[' && peek(t, 1) != ':') {
        class_at(t, depth + 1);
        return;
    }
    emit(t, "[");
    class_members(t, depth);
    emit(t, "]");
}

/* A class at '['. a[b&&c] becomes a(?:(?=[c])[b]). */
static void class_at(translator *t, size_t depth) {
    if (depth >= MAX_NEST) return refuse(t, "classes nested so deep");
    size_t start = t->out.n;
    t->i++;
    bool negated = peek(t, 0) == '^';
    if (negated) t->i++;
    emit(t, negated ? "[^" : "[");
    class_members(t, depth);
    if (peek(t, 0) != '&') {
        emit(t, "]");
        t->i++;
        return;
    }
    /* the first operand moves behind the others, which become lookaheads */
    if (t->refused) return;
    size_t skip = negated ? 2 : 1;
    am_str members = am_str_own((am_str){t->out.p + start + skip, t->out.n - start - skip});
    if (!members.p) return refuse(t, "a pattern of this size");
    t->out.n = start;
    emit(t, negated ? "(?:(?!" : "(?:");
    while (peek(t, 0) == '&' && peek(t, 1) == '&' && !t->refused) {
        t->i += 2;
        emit(t, "(?=");
        class_operand(t, depth);
        emit(t, ")");
    }
    emit(t, "[");
    emit_n(t, members.p, members.n);
    emit(t, negated ? "])(?s:.))" : "])");
    free((char *)members.p);
    if (peek(t, 0) != ']') return refuse(t, "this class");
    t->i++;
}

/* "(" and, for "(?flags", the flags: Ruby's m is PCRE's s. */
static void group_open(translator *t) {
    if (t->depth >= MAX_NEST) return refuse(t, "groups nested so deep");
    bool at_start = t->out.n == 0 || t->out.p[t->out.n - 1] == '(' || t->out.p[t->out.n - 1] == ':';
    size_t here = t->out.n;
    t->group[t->depth++] = here;
    emit(t, "(");
    t->i++;
    if (peek(t, 0) != '?') return;
    size_t k = 1;
    while (peek(t, k) >= 0 && strchr("imx-", peek(t, k))) k++;
    if (k == 1) {
        if (peek(t, 1) == '~' || peek(t, 1) == '(' || peek(t, 1) == '{') return refuse(t, "this kind of group");
        emit(t, "?");
        t->i++;
        for (size_t n = 0; n < 2 && peek(t, 0) >= 0 && strchr(":=!<>", peek(t, 0)); n++) emit_n(t, t->in.p + t->i++, 1);
        return;
    }
    if (memchr(t->in.p + t->i, 'x', k)) return refuse(t, "(?x)");
    emit(t, "?");
    for (size_t n = 1; n < k; n++) emit(t, peek(t, n) == 'm' ? "s" : peek(t, n) == 'i' ? "i" : "-");
    t->i += k;
    if (peek(t, 0) == ':') emit(t, ":"), t->i++;
    else if (peek(t, 0) == ')' && at_start) emit(t, ")"), t->i++, t->depth--;
    else refuse(t, "an option in the middle of a pattern");
}

/* An interval at '{'; a '+' or '?' behind it repeats the whole in Oniguruma ('?' only after {n}). */
static void interval(translator *t) {
    size_t k = 1, commas = 0;
    while (peek(t, k) >= 0 && strchr("0123456789,", peek(t, k))) commas += peek(t, k++) == ',';
    if (peek(t, k) != '}' || k == 1 || (k == 2 && commas) || commas > 1) {
        t->atom = t->out.n;
        emit(t, "\\{");
        t->i++;
        return;
    }
    emit(t, peek(t, 1) == ',' ? "{0" : "{");
    emit_n(t, t->in.p + t->i + 1, k);
    t->i += k + 1;
    int next = peek(t, 0);
    if (next != '+' && !(next == '?' && commas == 0)) {
        if (next == '?') emit(t, "?"), t->i++;
        return;
    }
    am_str atom = am_str_own((am_str){t->out.p + t->atom, t->out.n - t->atom});
    if (!atom.p) return refuse(t, "a pattern of this size");
    t->out.n = t->atom;
    emit(t, "(?:");
    emit_n(t, atom.p, atom.n);
    emit(t, next == '+' ? ")+" : ")?");
    free((char *)atom.p);
    t->i++;
}

static void translate(translator *t) {
    while (t->i < t->in.n && !t->refused) {
        int c = peek(t, 0);
        size_t here = t->out.n;
        if (c == '\\') t->atom = here, escape(t, false);
        else if (c == '[') t->atom = here, class_at(t, 0);
        else if (c == '(') group_open(t);
        else if (c == ')') {
            if (t->depth == 0) return refuse(t, "an unmatched )");
            t->atom = t->group[--t->depth];
            emit(t, ")");
            t->i++;
        } else if (c == '{') interval(t);
        else {
            if (!strchr("*+?|", c)) t->atom = here;
            size_t k = am_utf8_size((uint8_t)c);
            emit_n(t, t->in.p + t->i, k);
            t->i += k;
        }
    }
}

static am_status regex_build(am_str pattern, const translator *t, am_regex *regex, am_error *err) {
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return am_fail(err, AM_ENOMEM, "no memory for a pattern");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    regex->code = pcre2_compile((PCRE2_SPTR)(t->out.n ? t->out.p : ""), t->out.n, options, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!regex->code) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        return am_fail(err, AM_EUNSUPPORTED, "pattern '%.*s': %s", (int)(pattern.n < 200 ? pattern.n : 200), pattern.p, (char *)why);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* without JIT the interpreter does it, only slower */
    return AM_OK;
}

am_status am_regex_compile(am_str pattern, am_regex **out, am_error *err) {
    *out = NULL;
    if (pattern.n > MAX_PATTERN_BYTES) return am_fail(err, AM_ELIMIT, "a pattern of %zu bytes", pattern.n);
    if (am_utf8_check(pattern) != pattern.n) return am_fail(err, AM_EFORMAT, "a pattern that is not UTF-8");
    translator t = {.in = pattern};
    am_buf_init(&t.out, MAX_PATTERN_BYTES * 32);
    translate(&t);
    am_status status = AM_OK;
    am_regex *regex = am_calloc(1, sizeof *regex);
    if (!regex) status = am_fail(err, AM_ENOMEM, "no memory for a pattern");
    else if (t.refused)
        status = am_fail(err, AM_EUNSUPPORTED, "pattern '%.*s': %s is not supported", (int)(pattern.n < 200 ? pattern.n : 200), pattern.p, t.refused);
    else status = regex_build(pattern, &t, regex, err);
    am_buf_free(&t.out);
    if (status) {
        am_regex_free(regex);
        return status;
    }
    for (size_t i = 0; i < sizeof well_known / sizeof *well_known; i++)
        regex->cuts_lines |= am_str_eq(pattern, am_str_of(well_known[i]));
    *out = regex;
    return AM_OK;
}

am_status am_regex_literal(am_str text, am_regex **out, am_error *err) {
    *out = am_calloc(1, sizeof **out);
    if (!*out) return am_fail(err, AM_ENOMEM, "no memory for a pattern");
    (*out)->literal = am_str_own(text);
    if ((*out)->literal.p) return AM_OK;
    am_regex_free(*out);
    *out = NULL;
    return am_fail(err, AM_ENOMEM, "no memory for a pattern");
}

bool am_regex_cuts_lines(const am_regex *regex) { return regex && regex->cuts_lines; }

void am_regex_free(am_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    free((char *)regex->literal.p);
    free(regex);
}

static bool match_ready(am_scratch *s) {
    if (s->match) return true;
    s->context = pcre2_match_context_create(NULL);
    s->stack = pcre2_jit_stack_create(32 << 10, 4 << 20, NULL);
    s->match = pcre2_match_data_create(16, NULL);
    if (!s->match || !s->context || !s->stack) return false;
    pcre2_set_match_limit(s->context, MATCH_LIMIT);
    pcre2_set_heap_limit(s->context, HEAP_LIMIT_KIB);
    pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return true;
}

am_status am_regex_next(const am_regex *regex, am_scratch *s, am_str text, size_t from, am_span *match) {
    if (!regex->code) {
        const char *p = from <= text.n ? memmem(text.p + from, text.n - from, regex->literal.p, regex->literal.n) : NULL;
        if (!p) return AM_ENOTFOUND;
        *match = (am_span){(size_t)(p - text.p), (size_t)(p - text.p) + regex->literal.n};
        return AM_OK;
    }
    if (!match_ready(s)) return AM_ENOMEM;
    /* one pass over a long text is no runaway: the limit is for patterns that go over it again and again */
    if (text.n > MATCH_LIMIT / 16) pcre2_set_match_limit(s->context, text.n > UINT32_MAX / 32 ? UINT32_MAX : MATCH_LIMIT + (uint32_t)text.n * 16);
    int n = pcre2_match(regex->code, (PCRE2_SPTR)text.p, text.n, from, PCRE2_NO_UTF_CHECK, s->match, s->context);
    if (n == PCRE2_ERROR_NOMATCH) return AM_ENOTFOUND;
    if (n < 0) return n == PCRE2_ERROR_NOMEMORY ? AM_ENOMEM : AM_ELIMIT;
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->match);
    *match = (am_span){at[0], at[1] < at[0] ? at[0] : at[1]};
    return AM_OK;
}
