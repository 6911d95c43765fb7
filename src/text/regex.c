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
#define WORDS_IN_CLASS "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORDS WORDS_IN_CLASS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" /* Latin-1 has a table of its own there, which classes do not ask */
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
    am_dialect dialect;
    size_t i;
    am_buf out;
    size_t group[MAX_NEST]; /* where each open group began in out */
    unsigned options[MAX_NEST + 1]; /* groups opened for options in the middle of each, and of the whole */
    size_t depth;
    size_t atom; /* where the last atom began in out */
    am_buf *also; /* in a class: "|[^...]" for each member that is the opposite of a set */
    const char *refused;
} translator;

static void emit_n(translator *t, const char *s, size_t n) {
    if (am_buf_append(&t->out, s, n)) t->refused = t->refused ? t->refused : "a pattern of this size";
}
static void emit(translator *t, const char *s) { emit_n(t, s, strlen(s)); }
static void refuse(translator *t, const char *what) { t->refused = t->refused ? t->refused : what; }
static int peek(const translator *t, size_t k) { return t->i + k < t->in.n ? (uint8_t)t->in.p[t->i + k] : -1; }

/* A set of characters, given as members of a class, or its opposite, wherever we are. */
static void emit_set(translator *t, const char *members, bool negated) {
    bool in_class = t->also != NULL;
    if (in_class && negated && am_buf_printf(t->also, "|[^%s]", members)) refuse(t, "a pattern of this size");
    if (in_class && negated) return;
    if (!in_class) emit(t, negated ? "[^" : "[");
    emit(t, members);
    if (!in_class) emit(t, "]");
}

/* What [:name:] and \p{name} call by the same names. */
static const char *const named_sets[][2] = {
    {"alpha", "\\p{Alphabetic}"}, {"alnum", "\\p{Alphabetic}\\p{Nd}"}, {"punct", "\\p{P}\\p{S}"}, {"digit", "\\p{Nd}"}, {"space", SPACES},
    {"upper", "\\p{Uppercase}"}, {"lower", "\\p{Lowercase}"}, {"xdigit", HEX}, {"word", WORDS_IN_CLASS}, {"cntrl", "\\p{Cc}"},
    {"blank", "\\x{9}\\p{Zs}"}, {"ascii", "\\x{0}-\\x{7f}"}, {"whitespace", SPACES}, {"assigned", "\\P{Cn}"},
    {"letter", "\\p{L}"}, {"mark", "\\p{M}"}, {"number", "\\p{N}"}, {"punctuation", "\\p{P}"}, {"symbol", "\\p{S}"}, {"separator", "\\p{Z}"},
    {"other", "\\p{C}"}, {"alphabetic", "\\p{Alphabetic}"}, {"uppercase", "\\p{Uppercase}"}, {"lowercase", "\\p{Lowercase}"}, {"any", "\\p{Any}"},
    {"ideographic", "\\p{Ideographic}"}, {"emoji", "\\p{Emoji}"}, {"extendedpictographic", "\\p{Extended_Pictographic}"},
    {"uppercaseletter", "\\p{Lu}"}, {"lowercaseletter", "\\p{Ll}"}, {"titlecaseletter", "\\p{Lt}"}, {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"}, {"nonspacingmark", "\\p{Mn}"}, {"spacingmark", "\\p{Mc}"}, {"enclosingmark", "\\p{Me}"},
    {"decimalnumber", "\\p{Nd}"}, {"letternumber", "\\p{Nl}"}, {"othernumber", "\\p{No}"},
};
enum { N_POSIX = 12 }; /* the first of them */

static const char *set_named(am_str name, size_t n_sets) {
    char plain[32]; /* case, blanks, '_' and '-' mean nothing in a name */
    size_t n = 0;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (c == ' ' || c == '_' || c == '-') continue;
        if (n == sizeof plain) return NULL;
        plain[n++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    for (size_t k = 0; k < n_sets; k++)
        if (am_str_eq((am_str){plain, n}, am_str_of(named_sets[k][0]))) return named_sets[k][1];
    return NULL;
}

/* \p{Name}: general categories and what is in the table above; everything else is taken for a script's name. */
static void property(translator *t) {
    size_t start = t->i; /* at '\' */
    if (peek(t, 2) != '{') { /* \pL: a p and an L */
        t->i += 2;
        return emit_n(t, t->in.p + start + 1, 1);
    }
    const char *close = memchr(t->in.p + start, '}', t->in.n - start);
    if (!close) return refuse(t, "\\p without }");
    am_str name = {t->in.p + start + 3, (size_t)(close - t->in.p) - start - 3};
    t->i = (size_t)(close - t->in.p) + 1;
    bool negated = name.n && name.p[0] == '^';
    if (negated) name.p++, name.n--;
    negated ^= t->in.p[start + 1] == 'P';
    const char *set = set_named(name, sizeof named_sets / sizeof *named_sets);
    if (set && strcmp(set, "\\p{P}\\p{S}") == 0) set = "\\p{P}"; /* unlike [:punct:] */
    if (set && !t->also && strcmp(set, WORDS_IN_CLASS) == 0) set = WORDS;
    if (set) return emit_set(t, set, negated);
    emit(t, negated ? "\\P{" : "\\p{");
    if (name.n > 2) emit(t, "sc:");
    emit_n(t, name.p, name.n);
    emit(t, "}");
}

/* \x{e9}, \x41; without digits an x */
static void hex_escape(translator *t) {
    size_t k = 2, most = 4;
    if (peek(t, 2) == '{') {
        const char *close = memchr(t->in.p + t->i, '}', t->in.n - t->i);
        if (!close) return refuse(t, "\\x without }");
        k = (size_t)(close - t->in.p) + 1 - t->i;
    } else {
        while (k < most && peek(t, k) >= 0 && strchr("0123456789abcdefABCDEF", peek(t, k))) k++;
        if (k == 4 && peek(t, 2) >= '8') return refuse(t, "a raw byte above 0x7f");
    }
    emit_n(t, t->in.p + t->i + (k == 2), k - (k == 2));
    t->i += k;
}

/* One escape at t->i, inside or outside a class. */
static void escape(translator *t) {
    int c = peek(t, 1);
    bool in_class = t->also != NULL;
    const char *words = in_class ? WORDS_IN_CLASS : WORDS;
    const char *set = c == 's' ? SPACES : c == 'S' ? NON_SPACES : c == 'w' || c == 'W' ? words : c == 'h' || c == 'H' ? HEX : NULL;
    if (set) {
        t->i += 2;
        return emit_set(t, set, c == 'W' || c == 'H');
    }
    if (c == 'p' || c == 'P') return property(t);
    if (c == 'x') return hex_escape(t);
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
    } else emit_n(t, t->in.p + t->i, 1 + am_utf8_size((uint8_t)c));
    t->i += 1 + am_utf8_size((uint8_t)c);
    if (t->i > t->in.n) t->i = t->in.n;
}

/* [:name:] and [:^name:] inside a class */
static void posix(translator *t) {
    am_str rest = {t->in.p + t->i + 2, t->in.n - t->i - 2};
    bool negated = rest.n && rest.p[0] == '^';
    if (negated) rest.p++, rest.n--;
    const char *close = memchr(rest.p, ':', rest.n);
    const char *set = close ? set_named((am_str){rest.p, (size_t)(close - rest.p)}, N_POSIX) : NULL;
    if (!set || close + 1 >= rest.p + rest.n || close[1] != ']') return refuse(t, "this bracket expression");
    t->i = (size_t)(close - t->in.p) + 2;
    emit_set(t, set, negated);
}

static void class_at(translator *t, size_t depth);

/* Does a class at '[' hold plain members only, which may join those around it? */
static bool class_is_plain(const translator *t) {
    if (peek(t, 1) == '^' || peek(t, 1) == ']') return false;
    for (size_t k = 1; peek(t, k) >= 0 && peek(t, k) != ']'; k += peek(t, k) == '\\' ? 2 : 1)
        if (peek(t, k) == '[' || (peek(t, k) == '&' && peek(t, k + 1) == '&')) return false;
    return true;
}

/* The members of a class up to "&&" or "]". Leaves t->i at what ended it. */
static void class_members(translator *t, size_t depth) {
    bool first = true;
    for (; t->i < t->in.n && !t->refused; first = false) {
        int c = peek(t, 0);
        if (c == ']' && !first) return;
        if (c == '&' && peek(t, 1) == '&') return;
        if (c == '\\') escape(t);
        else if (c == '[' && peek(t, 1) == ':') posix(t);
        else if (c == '[' && class_is_plain(t)) {
            t->i++;
            class_members(t, depth);
            t->i++;
        } else if (c == '[') { /* stands beside this one */
            size_t start = t->out.n;
            am_buf *also = t->also;
            class_at(t, depth + 1);
            t->also = also;
            if (am_buf_putc(also, '|') || am_buf_append(also, t->out.p + start, t->out.n - start)) refuse(t, "a pattern of this size");
            t->out.n = start;
        } else {
            if (c == ']') emit(t, "\\");
            size_t k = am_utf8_size((uint8_t)c);
            emit_n(t, t->in.p + t->i, k);
            t->i += k;
        }
    }
    refuse(t, "a class without ]");
}

/* The union of some members, as one expression for a character: [members], or (?:[members]|[^set]|...). */
static void class_union(translator *t, size_t depth) {
    am_buf also;
    am_buf_init(&also, MAX_PATTERN_BYTES * 32);
    size_t start = t->out.n;
    t->also = &also;
    class_members(t, depth);
    t->also = NULL;
    if (!t->refused && t->out.n == start && also.n == 0) refuse(t, "an empty class");
    am_str members = am_str_own((am_str){t->out.p + start, t->out.n - start});
    t->out.n = start;
    if (!members.p) refuse(t, "a pattern of this size");
    if (also.n) emit(t, "(?:");
    if (members.n) emit(t, "["), emit_n(t, members.p, members.n), emit(t, "]");
    if (also.n) emit_n(t, also.p + (members.n == 0), also.n - (members.n == 0)), emit(t, ")");
    free((char *)members.p);
    am_buf_free(&also);
}

/* A class at '['. [a&&b] becomes (?:(?=[b])[a]), and the opposite of what is more than members (?:(?!...)(?s:.)). */
static void class_at(translator *t, size_t depth) {
    if (depth >= MAX_NEST) return refuse(t, "classes nested so deep");
    size_t start = t->out.n;
    t->i++;
    bool negated = peek(t, 0) == '^';
    if (negated) t->i++;
    class_union(t, depth);
    if (t->refused) return;
    am_str first = am_str_own((am_str){t->out.p + start, t->out.n - start});
    if (!first.p) return refuse(t, "a pattern of this size");
    bool several = peek(t, 0) == '&', simple = !several && first.p[0] == '[';
    t->out.n = start;
    if (negated && !simple) emit(t, "(?:(?!");
    if (several) emit(t, "(?:");
    while (peek(t, 0) == '&' && peek(t, 1) == '&' && !t->refused) {
        t->i += 2;
        if (peek(t, 0) == '^') return free((char *)first.p), refuse(t, "&&^");
        emit(t, "(?=");
        class_union(t, depth);
        emit(t, ")");
    }
    emit(t, negated && simple ? "[^" : simple ? "[" : "");
    emit_n(t, first.p + simple, first.n - simple);
    if (several) emit(t, ")");
    if (negated && !simple) emit(t, ")(?s:.))");
    free((char *)first.p);
    if (peek(t, 0) != ']') return refuse(t, "this class");
    t->i++;
}

/* "(" and, for "(?flags", the flags: Ruby's m is PCRE's s. */
static void group_open(translator *t) {
    if (t->depth >= MAX_NEST) return refuse(t, "groups nested so deep");
    t->group[t->depth++] = t->out.n;
    t->options[t->depth] = 0;
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
    if (peek(t, 0) != ':' && peek(t, 0) != ')') return refuse(t, "these options");
    if (peek(t, 0) == ')') t->options[--t->depth]++; /* alone: up to the end of the group around it, alternatives and all */
    emit(t, ":");
    t->i++;
}

static void options_close(translator *t) {
    for (; t->options[t->depth]; t->options[t->depth]--) emit(t, ")");
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
    if (t->dialect == AM_REGEX_RUST) return;
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
        if (c == '\\') t->atom = here, escape(t);
        else if (c == '[') t->atom = here, class_at(t, 0);
        else if (c == '(') group_open(t);
        else if (c == ')') {
            if (t->depth == 0) return refuse(t, "an unmatched )");
            options_close(t);
            t->atom = t->group[--t->depth];
            emit(t, ")");
            t->i++;
        } else if (c == '{') interval(t);
        else if (t->dialect == AM_REGEX_RUST && (c == '^' || c == '$')) {
            t->atom = here;
            emit(t, c == '^' ? "\\A" : "\\z"); /* of the text, not of its lines */
            t->i++;
        }
        else {
            if (!strchr("*+?|", c)) t->atom = here;
            size_t k = am_utf8_size((uint8_t)c);
            emit_n(t, t->in.p + t->i, k);
            t->i += k;
        }
    }
    if (t->depth == 0) options_close(t);
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

am_status am_regex_compile(am_str pattern, am_dialect dialect, am_regex **out, am_error *err) {
    *out = NULL;
    if (pattern.n > MAX_PATTERN_BYTES) return am_fail(err, AM_ELIMIT, "a pattern of %zu bytes", pattern.n);
    if (am_utf8_check(pattern) != pattern.n) return am_fail(err, AM_EFORMAT, "a pattern that is not UTF-8");
    translator t = {.in = pattern, .dialect = dialect};
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

static am_status regex_next(const am_regex *regex, am_scratch *s, am_str text, size_t from, am_span *match) {
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

am_status am_regex_each(const am_regex *regex, am_scratch *s, am_str text, am_walk *w, am_span *match) {
    while (w->from <= text.n && text.n) {
        am_status status = regex_next(regex, s, text, w->from, match);
        if (status) return status;
        bool empty = match->begin == match->end;
        if (!empty || !w->any || match->end != w->last_end) {
            w->from = w->last_end = match->end;
            w->any = true;
            return AM_OK;
        }
        w->from += w->from < text.n ? am_utf8_size((uint8_t)text.p[w->from]) : 1;
    }
    return AM_ENOTFOUND;
}
