/* Owns how JSON errors read and how members are fetched with a type. */
#include "base/json.h"

#include "base/fs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A copy of the text in which integers that may not fit 64 bits are written as reals: Hugging Face's tokenizer_config.json says
 * "model_max_length": 1000000000000000019884624838656. exact: as marked strings, which lose no digit. */
static am_status widen_integers(am_str text, bool exact, am_buf *out) {
    bool in_string = false;
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < text.n;) {
        size_t n = 1, digits = 0;
        char c = text.p[i];
        if (in_string) {
            n = c == '\\' && i + 1 < text.n ? 2 : 1;
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else {
            while (i + digits < text.n && text.p[i + digits] >= '0' && text.p[i + digits] <= '9') digits++;
            n = digits ? digits : 1;
        }
        bool whole = i + n >= text.n || !strchr(".eE", text.p[i + n]);
        bool begins = i == 0 || !strchr(".eE+", text.p[i - 1]); /* and is no fraction or exponent */
        bool wide = digits > 19 || (digits == 19 && memcmp(text.p + i, "9223372036854775807", 19) > 0);
        bool alone = wide && whole && begins;
        bool minus = alone && exact && i > 0 && text.p[i - 1] == '-';
        if (minus) out->n--;
        if (alone && exact) status = am_buf_add(out, minus ? AM_STR("\"\\u0001-") : AM_STR("\"\\u0001"));
        if (!status) status = am_buf_append(out, text.p + i, n);
        if (!status && alone) status = am_buf_add(out, exact ? AM_STR("\"") : AM_STR(".0"));
        i += n;
    }
    return status;
}

/* A copy of the text in which a NUL in a member's name is U+FFFD: jansson's names are C strings. */
static am_status replace_nul_names(am_str text, am_buf *out) {
    am_status status = AM_OK;
    for (size_t i = 0, end; !status && i < text.n; i = end) {
        end = i + 1;
        if (text.p[i] == '"') {
            while (end < text.n && text.p[end] != '"') end += text.p[end] == '\\' ? 2 : 1;
            end = end < text.n ? end + 1 : text.n;
        }
        size_t at = out->n, after = end;
        status = am_buf_append(out, text.p + i, end - i);
        while (after < text.n && strchr(" \t\r\n", text.p[after])) after++;
        bool name = text.p[i] == '"' && after < text.n && text.p[after] == ':';
        for (char *p = out->p + at; !status && name && p < out->p + out->n; p += *p == '\\' ? 2 : 1)
            if (out->p + out->n - p >= 6 && memcmp(p, "\\u0000", 6) == 0) memcpy(p, "\\ufffd", 6);
    }
    return status;
}

/* What jansson cannot read and JSON allows is written in another way and read again. */
static json_t *load_json(am_str text, bool strict, bool exact, json_error_t *e) {
    size_t flags = JSON_ALLOW_NUL | JSON_DECODE_ANY | (strict ? JSON_REJECT_DUPLICATES : 0);
    json_t *v = json_loadb(text.n ? text.p : "", text.n, flags, e);
    am_buf copy, named;
    am_buf_init(&copy, text.n + text.n / 2 + 64); /* at most 8 bytes more for each run of 19 digits */
    am_buf_init(&named, text.n + text.n / 8 + 64);
    if (!v && json_error_code(e) == json_error_null_byte_in_key && !replace_nul_names(text, &named)) {
        text = am_buf_str(&named);
        v = json_loadb(text.p, text.n, flags, e);
    }
    if (!v && json_error_code(e) == json_error_numeric_overflow && !widen_integers(text, exact, &copy)) v = json_loadb(copy.p, copy.n, flags, e);
    am_buf_free(&copy);
    am_buf_free(&named);
    return v;
}

static am_status parse(am_str text, bool strict, bool exact, json_t **out, am_error *err) {
    json_error_t e;
    *out = NULL;
    const char *nul = text.n ? memchr(text.p, 0, text.n) : NULL; /* jansson takes it for the end */
    if (nul) return am_fail(err, AM_EFORMAT, "bad JSON: a NUL at byte %zu", (size_t)(nul - text.p));
    *out = load_json(text, strict, exact, &e);
    if (*out) return AM_OK;
    if (json_error_code(&e) == json_error_out_of_memory) return am_fail(err, AM_ENOMEM, "no memory for the JSON text");
    return am_fail(err, AM_EFORMAT, "bad JSON at line %d column %d, byte %d: %s", e.line, e.column, e.position, e.text);
}

am_status am_json_parse(am_str text, bool strict, json_t **out, am_error *err) { return parse(text, strict, false, out, err); }
am_status am_json_parse_exact(am_str text, json_t **out, am_error *err) { return parse(text, false, true, out, err); }

bool am_json_is_wide(am_str s) {
    size_t sign = s.n > 1 && s.p[1] == '-', n = 1 + sign;
    if (s.n < 20 + sign || s.p[0] != 1) return false;
    while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9') n++;
    return n == s.n;
}

/* Marked strings that were dumped from `from` on become the integers they stand for. */
static void unmark(am_buf *buf, size_t from) {
    static const char mark[] = "\"\\u0001";
    const char *first = buf->n > from ? memmem(buf->p + from, buf->n - from, mark, 7) : NULL;
    if (!first) return;
    size_t to = (size_t)(first - buf->p);
    for (size_t i = to; i < buf->n;) {
        size_t begin = i + 7, end = begin;
        bool wide = buf->n - i >= 27 && memcmp(buf->p + i, mark, 7) == 0 && (i == 0 || buf->p[i - 1] != '\\');
        if (wide && buf->p[end] == '-') end++;
        size_t digits = end;
        while (wide && end < buf->n && buf->p[end] >= '0' && buf->p[end] <= '9') end++;
        wide = wide && end - digits >= 19 && end < buf->n && buf->p[end] == '"' && (end + 1 == buf->n || buf->p[end + 1] != ':');
        size_t n = wide ? end - begin : 1;
        memmove(buf->p + to, buf->p + (wide ? begin : i), n);
        to += n;
        i = wide ? end + 1 : i + 1;
    }
    buf->n = to;
    buf->p[to] = 0;
}

am_status am_json_read(const char *path, size_t max_bytes, json_t **out, am_error *err) {
    am_buf text;
    am_buf_init(&text, max_bytes + 1);
    *out = NULL;
    am_status status = am_fs_read_file(path, &text, max_bytes, err);
    if (!status && (status = am_json_parse(am_buf_str(&text), true, out, err))) am_error_prefix(err, "%s", path);
    am_buf_free(&text);
    return status;
}

static const char *type_name(const json_t *v) {
    static const char *const name[] = {"object", "array", "string", "integer", "real", "true", "false", "null"};
    return name[json_typeof(v)];
}

static am_status member(const json_t *object, const char *key, const json_t **v, am_error *err) {
    *v = json_object_get(object, key);
    if (*v && !json_is_null(*v)) return AM_OK;
    return am_fail(err, AM_ENOTFOUND, "'%s' is missing", key);
}

static am_status wrong_type(const char *key, const char *wanted, const json_t *v, am_error *err) {
    return am_fail(err, AM_EFORMAT, "'%s' must be %s, not %s", key, wanted, type_name(v));
}

am_status am_json_u64(const json_t *object, const char *key, uint64_t max, uint64_t *out, am_error *err) {
    const json_t *v;
    am_status status = member(object, key, &v, err);
    if (status) return status;
    if (!json_is_integer(v)) return wrong_type(key, "an integer", v, err);
    json_int_t i = json_integer_value(v);
    if (i < 0 || (uint64_t)i > max)
        return am_fail(err, AM_EFORMAT, "'%s' is %lld, must be 0..%llu", key, (long long)i, (unsigned long long)max);
    *out = (uint64_t)i;
    return AM_OK;
}

am_status am_json_f64(const json_t *object, const char *key, double *out, am_error *err) {
    const json_t *v;
    am_status status = member(object, key, &v, err);
    if (status) return status;
    if (!json_is_number(v)) return wrong_type(key, "a number", v, err);
    *out = json_number_value(v);
    return isfinite(*out) ? AM_OK : am_fail(err, AM_EFORMAT, "'%s' is not finite", key);
}

am_status am_json_bool(const json_t *object, const char *key, bool *out, am_error *err) {
    const json_t *v;
    am_status status = member(object, key, &v, err);
    if (status) return status;
    if (!json_is_boolean(v)) return wrong_type(key, "true or false", v, err);
    *out = json_is_true(v);
    return AM_OK;
}

am_status am_json_str(const json_t *object, const char *key, am_str *out, am_error *err) {
    const json_t *v;
    am_status status = member(object, key, &v, err);
    if (status) return status;
    if (!json_is_string(v)) return wrong_type(key, "a string", v, err);
    *out = (am_str){json_string_value(v), json_string_length(v)};
    return AM_OK;
}

/* jansson goes on after some writes that failed (those of keys), so the first failure is kept. */
typedef struct sink {
    am_buf *buf;
    am_status status;
} sink;

static int dump_to_buf(const char *p, size_t n, void *arg) {
    sink *to = arg;
    if (!to->status) to->status = am_buf_append(to->buf, p, n);
    return to->status ? -1 : 0;
}

static am_status dump(const json_t *value, am_buf *buf, size_t flags) {
    sink to = {.buf = buf};
    size_t from = buf->n;
    int failed = json_dump_callback(value, dump_to_buf, &to, flags | JSON_ENCODE_ANY);
    unmark(buf, from);
    return to.status ? to.status : failed ? AM_ELIMIT : AM_OK;
}

am_status am_json_dump(const json_t *value, am_buf *buf) { return dump(value, buf, JSON_COMPACT); }
am_status am_json_dump_spaced(const json_t *value, am_buf *buf) { return dump(value, buf, 0); }

/* Length of the UTF-8 character at s, 0 when it is not one (overlong, surrogate, above U+10FFFF, cut). */
static size_t utf8_length(const unsigned char *s, size_t n) {
    if (s[0] < 0x80) return 1;
    size_t need = s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : 0;
    if (need == 0 || n < need) return 0;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)) return 0;
    if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0;
    return need;
}

am_status am_json_quote(am_str s, am_buf *buf) {
    am_status status = am_buf_putc(buf, '"');
    for (size_t i = 0; !status && i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t n = utf8_length((const unsigned char *)s.p + i, s.n - i);
        if (n == 0) {
            status = am_buf_add(buf, AM_STR("\xef\xbf\xbd"));
            n = 1;
        } else if (c == '"' || c == '\\') {
            status = am_buf_printf(buf, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            status = c == '\n' ? am_buf_add(buf, AM_STR("\\n")) : am_buf_printf(buf, "\\u%04x", c);
        } else {
            status = am_buf_append(buf, s.p + i, n);
        }
        i += n;
    }
    return status ? status : am_buf_putc(buf, '"');
}
