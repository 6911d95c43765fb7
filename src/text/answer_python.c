/* Owns calls as Python writes them: [f(a=1, b="x"), g()], as Llama 4, LFM 2 and OLMo 3 answer, and Gemma within ```tool_code. What stands in the
 * parentheses is literals by keyword; without one, by the order of the function's schema. They become JSON.
 *
 * Some templates write such calls without minding quotes (name="say "hi""), or without any (name=hi), and their models learn it from the history. So what
 * is no Python is read a second time: a string then ends where a value can end, and a word is text. */
#include "text/answer_int.h"
#include "text/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUE_DEPTH = 64, MAX_ARGUMENTS = 16 << 20 };

typedef struct reader {
    am_cursor *c;
    bool loose;
} reader;

static bool value(reader *r, am_buf *out, int depth);

static bool wait_for(am_cursor *c) {
    c->more |= !c->last;
    return false;
}

/* The next character that is no blank; 0: there is none (yet). */
static char next_char(am_cursor *c) {
    am_cursor_blanks(c);
    if (c->at < c->s.n) return c->s.p[c->at];
    wait_for(c);
    return 0;
}

static bool is_word(char c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || (unsigned char)c >= 0x80; }

/* name= at c, which then stands behind it. */
static bool keyword(am_cursor *c, am_str *name) {
    size_t from = c->at;
    if (!is_word(next_char(c)) || (c->s.p[c->at] >= '0' && c->s.p[c->at] <= '9')) return c->at = from, false;
    size_t begin = c->at;
    while (c->at < c->s.n && (is_word(c->s.p[c->at]) || c->s.p[c->at] == '-')) c->at++;
    *name = (am_str){c->s.p + begin, c->at - begin};
    if (next_char(c) != '=') return c->at = from, false;
    c->at++;
    return true;
}

/* Whether a value can end before what stands at `at`: in a call, before the next keyword or its end. */
static bool value_ends(const reader *r, size_t at, int depth, bool *more) {
    am_cursor c = {.s = r->c->s, .at = at, .last = r->c->last};
    am_str name;
    char next = next_char(&c);
    bool ends = next == ')' || (depth && next && strchr(",]}:", next));
    if (next == ',' && !depth) {
        c.at++;
        ends = keyword(&c, &name) || next_char(&c) == ')';
    }
    *more |= c.more;
    return ends;
}

static bool put_character(am_buf *out, uint32_t c) {
    char b[4];
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) c = 0xfffd;
    return am_buf_append(out, b, am_utf8_put(b, c)) == AM_OK;
}

/* One escape of Python, c behind its backslash. */
static bool escape(am_cursor *c, am_buf *out) {
    static const char from[] = "abfnrtv\\'\"", into[] = "\a\b\f\n\r\t\v\\'\"";
    char ch = c->s.p[c->at++];
    const char *k = strchr(from, ch);
    if (ch && k) return am_buf_putc(out, into[k - from]) == AM_OK;
    if (ch == '\n') return true;
    int n = ch == 'x' ? 2 : ch == 'u' ? 4 : ch == 'U' ? 8 : 0;
    uint32_t v = 0;
    if (n) {
        for (int i = 0; i < n; i++) {
            int digit = c->at < c->s.n ? am_hex_digit(c->s.p[c->at]) : -1;
            if (c->at == c->s.n) return wait_for(c);
            if (digit < 0) return false;
            v = v << 4 | (uint32_t)digit;
            c->at++;
        }
        if (v >= 0xd800 && v < 0xdc00 && c->s.n - c->at >= 6 && memcmp(c->s.p + c->at, "\\u", 2) == 0) { /* as JSON writes the two halves of one character */
            uint32_t low = 0;
            for (int i = 2; i < 6 && am_hex_digit(c->s.p[c->at + (size_t)i]) >= 0; i++) low = low << 4 | (uint32_t)am_hex_digit(c->s.p[c->at + (size_t)i]);
            if (low >= 0xdc00 && low < 0xe000) {
                v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
                c->at += 6;
            }
        }
        return put_character(out, v);
    }
    if (ch < '0' || ch > '7') return am_buf_putc(out, '\\') == AM_OK && am_buf_putc(out, ch) == AM_OK;
    v = (uint32_t)(ch - '0');
    for (int i = 0; i < 2 && c->at < c->s.n && c->s.p[c->at] >= '0' && c->s.p[c->at] <= '7'; i++) v = v * 8 + (uint32_t)(c->s.p[c->at++] - '0');
    return put_character(out, v);
}

/* The text of one literal, its opening quote at c. */
static bool literal(reader *r, am_buf *text, bool raw, int depth) {
    am_cursor *c = r->c;
    char quote = c->s.p[c->at];
    bool more = false;
    size_t n = c->s.n - c->at >= 3 && c->s.p[c->at + 1] == quote && c->s.p[c->at + 2] == quote ? 3 : 1;
    if (n == 1 && c->s.n - c->at == 2 && c->s.p[c->at + 1] == quote && !c->last) return wait_for(c);
    for (c->at += n; c->at < c->s.n;) {
        char ch = c->s.p[c->at];
        bool closes = ch == quote && (n == 1 || (c->s.n - c->at >= 3 && c->s.p[c->at + 1] == quote && c->s.p[c->at + 2] == quote));
        if (closes && r->loose && !value_ends(r, c->at + n, depth, &more)) {
            if (more) break;
            closes = false;
        }
        if (closes) return c->at += n, true;
        c->at++;
        if (ch != '\\' || c->at == c->s.n || raw) {
            if (am_buf_putc(text, ch)) return false;
            if (raw && ch == '\\' && c->at < c->s.n && am_buf_putc(text, c->s.p[c->at++])) return false;
        } else if (!escape(c, text)) {
            return false;
        }
    }
    return wait_for(c);
}

/* Literals in a row are one, as in Python. */
static bool string(reader *r, am_buf *out, int depth) {
    am_cursor *c = r->c;
    am_buf text;
    am_buf_init(&text, MAX_ARGUMENTS);
    bool ok = true, again = true;
    while (ok && again) {
        bool raw = (c->s.p[c->at] | 32) == 'r';
        c->at += c->s.p[c->at] != '"' && c->s.p[c->at] != '\'';
        ok = literal(r, &text, raw, depth);
        size_t behind = c->at;
        char next = ok && !r->loose ? next_char(c) : 0;
        again = next == '"' || next == '\'';
        if (!again) c->at = behind;
    }
    ok = ok && am_json_quote(am_buf_str(&text), out) == AM_OK;
    am_buf_free(&text);
    return ok;
}

/* A Python number as JSON spells it: no _, no leading + or dot, no base but ten. */
static bool number(am_str s, am_buf *out) {
    char digits[80], *end;
    size_t n = 0;
    json_t *v = NULL;
    for (size_t i = s.p[0] == '+'; i < s.n; i++) {
        if (s.p[i] == '_') continue;
        if (n + 3 > sizeof digits) return am_json_parse(s, false, &v, NULL) == AM_OK && (json_decref(v), am_buf_add(out, s) == AM_OK);
        if (s.p[i] == '.' && (n == 0 || digits[n - 1] == '-')) digits[n++] = '0';
        digits[n++] = s.p[i];
        if (s.p[i] == '.' && (i + 1 == s.n || s.p[i + 1] < '0' || s.p[i + 1] > '9')) digits[n++] = '0';
    }
    digits[n] = 0;
    bool minus = digits[0] == '-';
    char kind = digits[minus] == '0' ? (char)(digits[minus + 1] | 32) : 0;
    int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    if (base) {
        errno = 0;
        unsigned long long i = strtoull(digits + minus + 2, &end, base);
        return !errno && !*end && end > digits + minus + 2 && am_buf_printf(out, "%s%llu", minus ? "-" : "", i) == AM_OK;
    }
    bool ok = am_json_parse((am_str){digits, n}, false, &v, NULL) == AM_OK && json_is_number(v);
    json_decref(v);
    return ok && am_buf_append(out, digits, n) == AM_OK;
}

/* A number, a constant, or (loose) text without quotes. */
static bool word(reader *r, am_buf *out, int depth) {
    static const char *const names[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}, {"true", "true"}, {"false", "false"}, {"null", "null"}};
    am_cursor *c = r->c;
    size_t from = c->at;
    bool more = false;
    while (c->at < c->s.n && (is_word(c->s.p[c->at]) || strchr("+-.", c->s.p[c->at]))) c->at++;
    if (c->at == c->s.n && !c->last) return wait_for(c);
    am_str s = {c->s.p + from, c->at - from};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (am_str_eq(s, am_str_of(names[i][0]))) return am_buf_add(out, am_str_of(names[i][1])) == AM_OK;
    if (s.n && strchr("0123456789+-.", s.p[0]) && (!r->loose || value_ends(r, c->at, depth, &more)) && number(s, out)) return true;
    if (!r->loose || depth) return false;
    while (c->at < c->s.n && !value_ends(r, c->at, depth, &more) && !more) c->at++;
    if (more || c->at == c->s.n) return wait_for(c);
    s.n = c->at - from;
    while (s.n && am_is_blank(s.p[s.n - 1])) s.n--;
    return s.n && am_json_quote(s, out) == AM_OK;
}

/* A key of a dict, which JSON wants as a string. */
static bool key(reader *r, am_buf *out, int depth) {
    size_t from = out->n;
    if (!value(r, out, depth + 1) || out->p[from] == '[' || out->p[from] == '{') return false;
    if (out->p[from] == '"') return true;
    am_buf text;
    am_buf_init(&text, MAX_ARGUMENTS);
    bool ok = am_buf_append(&text, out->p + from, out->n - from) == AM_OK;
    out->n = from;
    ok = ok && am_json_quote(am_buf_str(&text), out) == AM_OK;
    am_buf_free(&text);
    return ok;
}

/* [a, b] and (a, b) as a list, {a: b} as an object, and (a) as a. */
static bool container(reader *r, am_buf *out, int depth) {
    am_cursor *c = r->c;
    char open = c->s.p[c->at++], close = open == '[' ? ']' : open == '(' ? ')' : '}', next = next_char(c);
    size_t from = out->n, n = 0;
    bool object = open == '{', comma = false;
    if (am_buf_putc(out, object ? '{' : '[')) return false;
    for (; (next = next_char(c)) && next != close; n++) {
        if ((n && !comma) || (n && am_buf_putc(out, ','))) return false;
        if (!(object ? key(r, out, depth) : value(r, out, depth + 1))) return false;
        if (object) {
            if (next_char(c) != ':') return false;
            c->at++;
            if (am_buf_putc(out, ':') || !value(r, out, depth + 1)) return false;
        }
        comma = next_char(c) == ',';
        c->at += comma;
    }
    if (!next) return false;
    c->at++;
    if (open != '(' || n != 1 || comma) return am_buf_putc(out, object ? '}' : ']') == AM_OK;
    memmove(out->p + from, out->p + from + 1, --out->n - from);
    return true;
}

static bool value(reader *r, am_buf *out, int depth) {
    char next = next_char(r->c);
    if (!next || depth > MAX_VALUE_DEPTH) return false;
    if (strchr("[({", next)) return container(r, out, depth);
    if (next == '"' || next == '\'') return string(r, out, depth);
    size_t left = r->c->s.n - r->c->at;
    char quote = left > 1 ? r->c->s.p[r->c->at + 1] : 0;
    if (strchr("rRuU", next) && (quote == '"' || quote == '\'')) return string(r, out, depth);
    return word(r, out, depth);
}

bool am_answer_put_python(am_str text, am_buf *out) {
    am_cursor c = {.s = text, .last = true};
    reader r = {&c, false};
    size_t n = out->n;
    if (value(&r, out, 1) && !next_char(&c)) return true;
    out->n = n;
    return false;
}

/* Puts v, but as its schema has it where history without types misled the model: "3" for an integer, 3 for a text. */
static am_status put_typed(const json_t *type, am_str v, am_buf *out) {
    bool quoted = v.p[0] == '"', text = am_answer_takes_text(type);
    json_t *string = NULL;
    if (!quoted && text && json_is_string(type) && strchr("-0123456789", v.p[0])) return am_json_quote(v, out);
    if (!quoted || !type || text || am_json_parse(v, false, &string, NULL)) return am_buf_add(out, v);
    am_str inner = {json_string_value(string), json_string_length(string)};
    bool ok = inner.n && inner.p[0] != '"' && inner.p[0] != '\'' && am_answer_put_python(inner, out);
    json_decref(string);
    return ok ? AM_OK : am_buf_add(out, v);
}

/* (a=1, "x") behind the name of a function, as a JSON object. */
static bool arguments(reader *r, const json_t *tool, am_buf *out) {
    am_cursor *c = r->c;
    json_t *properties = json_object_get(json_object_get(json_object_get(tool, "function"), "parameters"), "properties");
    void *parameter = json_object_iter(properties);
    am_buf one;
    am_buf_init(&one, MAX_ARGUMENTS);
    bool ok = am_buf_putc(out, '{') == AM_OK, comma = true;
    char next;
    for (size_t n = 0; ok && (next = next_char(c)) && next != ')'; n++) {
        am_str name;
        am_buf_clear(&one);
        bool named = keyword(c, &name);
        if (!named) name = parameter ? (am_str){json_object_iter_key(parameter), json_object_iter_key_len(parameter)} : (am_str){0};
        if (parameter) parameter = json_object_iter_next(properties, parameter);
        ok = comma && !c->more && (named || name.p) && value(r, &one, 0);
        ok = ok && (n == 0 || am_buf_putc(out, ',') == AM_OK) && am_json_quote(name, out) == AM_OK && am_buf_putc(out, ':') == AM_OK;
        ok = ok && put_typed(am_answer_type(tool, name), am_buf_str(&one), out) == AM_OK;
        comma = ok && next_char(c) == ',';
        if (ok) c->at += comma;
    }
    am_buf_free(&one);
    if (!ok || !next_char(c)) return false;
    c->at++;
    return am_buf_putc(out, '}') == AM_OK;
}

/* All calls at c, given out or only looked at. */
static am_found calls(am_answer *a, reader *r, bool listed, bool give, const am_answer_sink *sink) {
    am_cursor *c = r->c;
    bool list = next_char(c) == '[', on = list || (!listed && c->at < c->s.n);
    size_t n = 0;
    c->at += list;
    while (on) {
        const json_t *tool = am_answer_take_name(a, c);
        am_buf out;
        am_buf_init(&out, MAX_ARGUMENTS);
        bool ok = tool && am_cursor_take(c, "(") && arguments(r, tool, &out);
        if (ok && give) ok = am_answer_give_call(a, json_string_value(json_object_get(json_object_get(tool, "function"), "name")), am_buf_str(&out), sink);
        am_buf_free(&out);
        if (!ok) break;
        n++;
        bool comma = next_char(c) == ',' || (!list && c->at < c->s.n && c->s.p[c->at] == ';');
        c->at += comma;
        char next = next_char(c);
        if (list && next == ']') return c->at++, AM_CALL_READ;
        am_cursor ahead = *c;
        on = list ? comma : next && am_answer_take_name(a, &ahead);
        c->more |= ahead.more;
        if (!list && !on) break;
    }
    if (c->more) return AM_CALL_MORE;
    return n && !list && !on ? AM_CALL_READ : AM_NO_CALL;
}

am_found am_answer_read_python(am_answer *a, bool listed, am_cursor *c, const am_answer_sink *sink) {
    am_found found = AM_NO_CALL;
    for (int loose = 0; loose < 2 && found == AM_NO_CALL; loose++) {
        am_cursor at = *c;
        reader r = {&at, loose};
        at.more = false;
        found = calls(a, &r, listed, false, sink);
        if (found != AM_CALL_READ) continue;
        at = *c;
        found = calls(a, &r, listed, true, sink);
        *c = at;
    }
    return found;
}
