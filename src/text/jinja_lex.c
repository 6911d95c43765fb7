/* Owns the cutting of a template into tokens, with the whitespace rules of trim_blocks and lstrip_blocks, as jinja2's lexer
 * does with its regular expressions; here by hand, in one pass. A tag's end mark counts only where brackets are balanced.
 *
 *   text {{-  expr  -}}   '-' takes all whitespace away on its side
 *        {%+  stmt  +%}   '+' keeps what lstrip_blocks (spaces before a block at the start of its line) or
 *                         trim_blocks (the newline after it) would take */
#include "text/jinja_parse_int.h"

#include <stdio.h>

typedef struct lexer {
    const char *p;
    size_t n, at, counted; /* counted: where `line` was counted up to */
    uint32_t line;
    bool line_starting; /* what was read last ended in a newline */
    jtokens *out;
    am_status status;
    char stack[256]; /* the closing brackets we wait for */
    size_t n_stack;
} lexer;

static bool add(lexer *x, jtok type, size_t begin, size_t end) {
    jtokens *t = x->out;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 256;
        jtoken *v = am_calloc(cap, sizeof *v);
        if (!v) {
            x->status = AM_ENOMEM;
            return false;
        }
        if (t->n) memcpy(v, t->v, t->n * sizeof *v);
        free(t->v);
        t->v = v;
        t->cap = cap;
    }
    for (; x->counted < begin; x->counted++) x->line += x->p[x->counted] == '\n';
    t->v[t->n++] = (jtoken){(uint8_t)type, x->line, {x->p + begin, end - begin}};
    return true;
}

static bool error(lexer *x, const char *message) {
    if (add(x, JT_ERROR, x->at, x->at)) x->out->v[x->out->n - 1].text = am_str_of(message);
    return false;
}

static bool starts(const lexer *x, size_t at, const char *s) {
    size_t n = strlen(s);
    return n <= x->n - at && memcmp(x->p + at, s, n) == 0;
}

static size_t skip_space(const lexer *x, size_t at) {
    while (at < x->n) {
        size_t used;
        if (!j_is_space(j_decode(x->p + at, x->n - at, &used))) break;
        at += used;
    }
    return at;
}

static size_t strip_right(const lexer *x, size_t begin, size_t end) {
    while (end > begin) {
        size_t c = end - 1, used;
        while (c > begin && (x->p[c] & 0xc0) == 0x80) c--;
        if (!j_is_space(j_decode(x->p + c, end - c, &used))) break;
        end = c;
    }
    return end;
}

/* Where the text before a tag ends, given the tag's sign; `block`: not a print statement. */
static size_t text_end(const lexer *x, size_t begin, size_t end, char sign, bool block) {
    if (sign == '-') return strip_right(x, begin, end);
    if (sign == '+' || !block) return end;
    size_t line = end;
    while (line > begin && x->p[line - 1] != '\n') line--;
    if (line == begin && !x->line_starting) return end;
    return strip_right(x, line, end) == line ? line : end;
}

/* The end of a block or comment tag at `at` ("-%}", "+%}", "%}"): 0 when it is not there, else what comes after it. */
static size_t tag_end(const lexer *x, size_t at, const char *mark) {
    if (at < x->n && x->p[at] == '-' && starts(x, at + 1, mark)) return skip_space(x, at + 3);
    if (at < x->n && x->p[at] == '+' && starts(x, at + 1, mark)) return at + 3;
    if (!starts(x, at, mark)) return 0;
    return at + 2 < x->n && x->p[at + 2] == '\n' ? at + 3 : at + 2;
}

static void move(lexer *x, size_t to) {
    if (to > x->at) x->line_starting = x->p[to - 1] == '\n';
    x->at = to;
}

static bool comment(lexer *x, size_t at) {
    move(x, at);
    if (at == x->n) return true; /* jinja2 lets a template end in "{#" */
    for (; at < x->n; at++) {
        size_t end = tag_end(x, at, "#}");
        if (end) {
            move(x, end);
            return true;
        }
    }
    return error(x, "Missing end of comment tag");
}

/* After "{%" and its sign: 0 unless this is a raw tag, else where its text begins. */
static size_t raw_begin(const lexer *x, size_t at) {
    at = skip_space(x, at);
    if (!starts(x, at, "raw")) return 0;
    at = skip_space(x, at + 3);
    if (starts(x, at, "-%}")) return skip_space(x, at + 3);
    return starts(x, at, "%}") ? at + 2 : 0;
}

static size_t raw_end(const lexer *x, size_t at) {
    at = skip_space(x, at);
    if (!starts(x, at, "endraw")) return 0;
    return tag_end(x, skip_space(x, at + 6), "%}");
}

static char sign_at(const lexer *x, size_t at) { return at < x->n && (x->p[at] == '-' || x->p[at] == '+') ? x->p[at] : 0; }

static bool raw(lexer *x, size_t begin) {
    move(x, begin);
    if (begin == x->n) return true; /* or in "{% raw %}" */
    for (size_t at = begin; at < x->n; at++) {
        if (!starts(x, at, "{%")) continue;
        char sign = sign_at(x, at + 2);
        size_t end = raw_end(x, at + 2 + (sign != 0));
        if (!end) continue;
        size_t stop = text_end(x, begin, at, sign, true);
        if (stop > begin && !add(x, JT_DATA, begin, stop)) return false;
        move(x, end);
        return true;
    }
    return error(x, "Missing end of raw directive");
}

static size_t digits(const lexer *x, size_t at, int base) {
    size_t from = at;
    for (;; at++) {
        char c = at < x->n ? x->p[at] : 0;
        int v = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
        if (v < base) continue;
        if (c == '_' && at > from && at + 1 < x->n && x->p[at - 1] != '_') continue;
        break;
    }
    return at > from && x->p[at - 1] == '_' ? at - 1 : at;
}

static bool number(lexer *x) {
    size_t at = digits(x, x->at, 10), end = 0;
    bool after_dot = x->at > 0 && x->p[x->at - 1] == '.';
    if (!after_dot) {
        size_t f = at;
        if (f < x->n && x->p[f] == '.' && digits(x, f + 1, 10) > f + 1) end = f = digits(x, f + 1, 10);
        if (f < x->n && (x->p[f] | 32) == 'e') {
            size_t e = f + 1 + (f + 1 < x->n && (x->p[f + 1] == '+' || x->p[f + 1] == '-'));
            if (digits(x, e, 10) > e) end = digits(x, e, 10);
        }
    }
    jtok type = end ? JT_FLOAT : JT_INT;
    if (!end) {
        char c = x->at + 1 < x->n ? (char)(x->p[x->at + 1] | 32) : 0;
        int base = x->p[x->at] != '0' ? 10 : c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 1;
        size_t from = x->at + 2 + (base < 16 && base != 10 && base != 1 && x->at + 2 < x->n && x->p[x->at + 2] == '_');
        end = base == 10 ? at : base == 1 ? digits(x, x->at, 1) : digits(x, from, base);
        if (base != 10 && base != 1 && end <= from) end = x->at + 1; /* "0x" alone: a zero, then a name */
    }
    if (!add(x, type, x->at, end)) return false;
    move(x, end);
    return true;
}

/* "unexpected char 'x' at 7", the character as Python's repr has it, its place counted in characters */
static bool unexpected_char(lexer *x) {
    size_t used, place = 0;
    int32_t c = j_decode(x->p + x->at, x->n - x->at, &used);
    char shown[16];
    for (size_t i = 0; i < x->at; i++) place += (x->p[i] & 0xc0) != 0x80;
    if (c == '\\' || c == '\'')
        snprintf(shown, sizeof shown, c == '\'' ? "\"'\"" : "'\\\\'");
    else if (j_is_printable(c))
        snprintf(shown, sizeof shown, "'%.*s'", (int)used, x->p + x->at);
    else
        snprintf(shown, sizeof shown, c < 0x100 ? "'\\x%02x'" : c < 0x10000 ? "'\\u%04x'" : "'\\U%08x'", (unsigned)c);
    snprintf(x->out->error, sizeof x->out->error, "unexpected char %s at %zu", shown, place);
    return error(x, x->out->error);
}

static bool string(lexer *x) {
    char quote = x->p[x->at];
    for (size_t at = x->at + 1; at < x->n; at++) {
        if (x->p[at] == '\\') {
            at++;
        } else if (x->p[at] == quote) {
            if (!add(x, JT_STRING, x->at, at + 1)) return false;
            move(x, at + 1);
            return true;
        }
    }
    return unexpected_char(x);
}

static bool name(lexer *x) {
    size_t at = x->at, used;
    int32_t first = j_decode(x->p + at, x->n - at, &used);
    while (at < x->n) {
        int32_t c = j_decode(x->p + at, x->n - at, &used);
        if (!j_is_word(c)) break;
        at += used;
    }
    if (first != '_' && !j_is_alpha(first)) return error(x, "Invalid character in identifier");
    if (!add(x, JT_NAME, x->at, at)) return false;
    move(x, at);
    return true;
}

static const struct {
    char text[3];
    uint8_t type;
} operators[] = {{"//", JT_FLOORDIV}, {"**", JT_POW}, {"==", JT_EQ}, {"!=", JT_NE}, {">=", JT_GE}, {"<=", JT_LE},
                 {"+", JT_ADD}, {"-", JT_SUB}, {"/", JT_DIV}, {"*", JT_MUL}, {"%", JT_MOD}, {"~", JT_TILDE},
                 {"[", JT_LBRACKET}, {"]", JT_RBRACKET}, {"(", JT_LPAREN}, {")", JT_RPAREN}, {"{", JT_LBRACE}, {"}", JT_RBRACE},
                 {">", JT_GT}, {"<", JT_LT}, {"=", JT_ASSIGN}, {".", JT_DOT}, {":", JT_COLON}, {"|", JT_PIPE},
                 {",", JT_COMMA}, {";", JT_SEMICOLON}};

static bool balance(lexer *x, char c) {
    static const char *const wrong[] = {"unexpected ')'", "unexpected ']'", "unexpected '}'"};
    static const char *const other[3][3] = {
        {"", "unexpected ')', expected ']'", "unexpected ')', expected '}'"},
        {"unexpected ']', expected ')'", "", "unexpected ']', expected '}'"},
        {"unexpected '}', expected ')'", "unexpected '}', expected ']'", ""}};
    static const char open[] = "([{", close[] = ")]}";
    const char *o = strchr(open, c), *k = strchr(close, c);
    if (o) {
        if (x->n_stack == sizeof x->stack) return error(x, "brackets nest too deeply");
        x->stack[x->n_stack++] = close[o - open];
    } else if (k) {
        if (x->n_stack == 0) return error(x, wrong[k - close]);
        char expected = x->stack[--x->n_stack];
        if (expected != c) return error(x, other[k - close][strchr(close, expected) - close]);
    }
    return true;
}

static bool operator(lexer *x) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!starts(x, x->at, operators[i].text)) continue;
        size_t n = strlen(operators[i].text);
        if (n == 1 && !balance(x, *operators[i].text)) return false;
        if (!add(x, (jtok)operators[i].type, x->at, x->at + n)) return false;
        move(x, x->at + n);
        return true;
    }
    return unexpected_char(x);
}

/* The inside of a tag, up to and with its end mark. */
static bool expression(lexer *x, bool block) {
    x->n_stack = 0;
    for (;;) {
        if (x->at >= x->n) return true; /* the parser says what is missing */
        if (x->n_stack == 0) {
            size_t end = block ? tag_end(x, x->at, "%}") : starts(x, x->at, "-}}") ? skip_space(x, x->at + 3)
                                                         : starts(x, x->at, "}}")  ? x->at + 2
                                                                                   : 0;
            if (end) {
                if (!add(x, block ? JT_BLOCK_END : JT_VAR_END, x->at, end)) return false;
                move(x, end);
                return true;
            }
        }
        size_t space = skip_space(x, x->at);
        if (space > x->at) {
            move(x, space);
            continue;
        }
        size_t used;
        int32_t c = j_decode(x->p + x->at, x->n - x->at, &used);
        bool ok = c >= '0' && c <= '9' ? number(x) : c == '"' || c == '\'' ? string(x) : j_is_word(c) ? name(x) : operator(x);
        if (!ok) return false;
    }
}

/* Text up to the next tag, and that tag. */
static bool text_and_tag(lexer *x) {
    size_t begin = x->at, at = begin;
    while (at + 1 < x->n && !(x->p[at] == '{' && (x->p[at + 1] == '{' || x->p[at + 1] == '%' || x->p[at + 1] == '#'))) at++;
    if (at + 1 >= x->n) {
        if (x->n > begin && !add(x, JT_DATA, begin, x->n)) return false;
        move(x, x->n);
        return true;
    }
    char kind = x->p[at + 1], sign = sign_at(x, at + 2);
    size_t inside = at + 2 + (sign != 0), stop = text_end(x, begin, at, sign, kind != '{');
    if (stop > begin && !add(x, JT_DATA, begin, stop)) return false;
    x->at = at;
    if (kind == '#') return comment(x, inside);
    size_t raw_at = kind == '%' ? raw_begin(x, inside) : 0;
    if (raw_at) return raw(x, raw_at);
    if (!add(x, kind == '{' ? JT_VAR_BEGIN : JT_BLOCK_BEGIN, at, inside)) return false;
    move(x, inside);
    return expression(x, kind == '%');
}

am_status j_lex(am_str source, jtokens *out, am_error *err) {
    lexer x = {.p = source.p, .n = source.n, .line = 1, .line_starting = true, .out = out};
    bool ok = true;
    while (ok && x.at < x.n) ok = text_and_tag(&x);
    if (ok) add(&x, JT_EOF, x.n, x.n);
    return x.status ? am_fail(err, x.status, "no memory to read the template") : AM_OK;
}

const char *j_token_name(jtok type) {
    static const char *const text[] = {
        "end of template", "error", "template data / text", "begin of print statement", "end of print statement",
        "begin of statement block", "end of statement block", "name", "string", "integer", "float", "+", "-", "/", "//", "*",
        "%", "**", "~", "[", "]", "(", ")", "{", "}", "==", "!=", ">", ">=", "<", "<=", "=", ".", ":", "|", ",", ";"};
    return text[type];
}
