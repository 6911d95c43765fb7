/* Owns the pull reader (jscan.h). Strings without escapes are views into the text; others are unescaped into a buffer. Invalid UTF-8
 * and unpaired surrogates are refused: a vocabulary entry must be text. */
#include "text/jscan.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 1000 };

void am_jscan_init(am_jscan *j, am_str text) {
    if (!text.p) text = (am_str){"", 0};
    *j = (am_jscan){.p = text.p, .begin = text.p, .end = text.p + text.n};
    am_buf_init(&j->text, text.n + 16);
}

void am_jscan_free(am_jscan *j) { am_buf_free(&j->text); }

am_status am_jscan_fail(const am_jscan *j, const char *wanted, am_error *err) {
    return am_fail(err, AM_EFORMAT, "bad JSON at byte %zu: %s expected", (size_t)(j->p - j->begin), wanted);
}

/* Has any of the eight bytes the value c? (the highest bit of each that has; may also mark bytes above one that has) */
static inline uint64_t has_byte(uint64_t word, uint8_t c) {
    uint64_t x = word ^ 0x0101010101010101u * c;
    return (x - 0x0101010101010101u) & ~x & 0x8080808080808080u;
}

/* Where the string from p ends: at the first quote, backslash, control character or end of text. *high gathers the bytes above ASCII. */
static const char *plain_end(const char *p, const char *end, uint64_t *high) {
    for (uint64_t word; end - p >= 8; p += 8) {
        memcpy(&word, p, 8);
        uint64_t control = (word - 0x2020202020202020u) & ~word & 0x8080808080808080u;
        uint64_t hit = has_byte(word, '"') | has_byte(word, '\\') | control;
        if (hit) {
            unsigned k = (unsigned)__builtin_ctzll(hit) / 8;
            *high |= k ? word << (64 - 8 * k) : 0;
            return p + k;
        }
        *high |= word;
    }
    for (; p < end && *p != '"' && *p != '\\' && (uint8_t)*p >= 0x20; p++) *high |= (uint8_t)*p;
    return p;
}

static void blanks(am_jscan *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t')) j->p++;
}

bool am_jscan_take(am_jscan *j, char c) {
    blanks(j);
    if (j->p >= j->end || *j->p != c) return false;
    j->p++;
    return true;
}

static int hex4(const am_jscan *j, const char *p) {
    int value = 0;
    if (j->end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = am_hex_digit(p[i]);
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* One escape at the character after the backslash. */
static am_status unescape(am_jscan *j, am_error *err) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *known = j->p < j->end && *j->p ? strchr(from, *j->p) : NULL;
    if (known) {
        j->p++;
        return am_buf_putc(&j->text, to[known - from]);
    }
    if (j->p >= j->end || *j->p != 'u') return am_jscan_fail(j, "an escape", err);
    int32_t cp = hex4(j, j->p + 1);
    if (cp < 0) return am_jscan_fail(j, "four hex digits", err);
    j->p += 5;
    if (cp >= 0xD800 && cp <= 0xDFFF) {
        int low = j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u' ? hex4(j, j->p + 2) : -1;
        if (cp > 0xDBFF || low < 0xDC00 || low > 0xDFFF) return am_jscan_fail(j, "a surrogate pair", err);
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
        j->p += 6;
    }
    char c[4];
    return am_buf_append(&j->text, c, am_utf8_put(c, (uint32_t)cp));
}

am_status am_jscan_string(am_jscan *j, am_str *s, am_error *err) {
    if (!am_jscan_take(j, '"')) return am_jscan_fail(j, "a string", err);
    const char *start = j->p;
    bool copied = false;
    uint64_t high = 0;
    am_buf_clear(&j->text);
    for (;;) {
        const char *run = j->p;
        j->p = plain_end(run, j->end, &high);
        if (j->p >= j->end || (uint8_t)*j->p < 0x20) return am_jscan_fail(j, "the end of a string", err);
        if (*j->p == '"' && !copied) break;
        am_status status = am_buf_append(&j->text, run, (size_t)(j->p - run));
        copied = true;
        if (!status && *j->p == '\\') j->p++, status = unescape(j, err);
        else if (!status) break;
        if (status) return status == AM_EFORMAT ? status : am_fail(err, status, "no memory for a string");
    }
    *s = copied ? am_buf_str(&j->text) : (am_str){start, (size_t)(j->p - start)};
    if ((high & 0x8080808080808080u) && am_utf8_check(*s) != s->n) return am_jscan_fail(j, "UTF-8", err);
    j->p++;
    return AM_OK;
}

am_status am_jscan_id(am_jscan *j, uint64_t *value, am_error *err) {
    blanks(j);
    if (j->p >= j->end || *j->p < '0' || *j->p > '9') return am_jscan_fail(j, "a token id", err);
    for (*value = 0; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++) {
        if (*value > UINT32_MAX) return am_jscan_fail(j, "a token id in range", err);
        *value = *value * 10 + (uint64_t)(*j->p - '0');
    }
    if (j->p < j->end && strchr(".eE", *j->p)) return am_jscan_fail(j, "a whole number", err);
    return AM_OK;
}

am_status am_jscan_number(am_jscan *j, double *value, am_error *err) {
    blanks(j);
    char text[64];
    size_t n = 0;
    while (n < sizeof text - 1 && j->p + n < j->end && j->p[n] && strchr("+-0123456789.eE", j->p[n])) text[n] = j->p[n], n++;
    text[n] = 0;
    char *end = text;
    if (n && text[0] != '+') *value = strtod(text, &end);
    if (n == 0 || *end || end == text) return am_jscan_fail(j, "a number", err);
    j->p += n;
    return AM_OK;
}

am_status am_jscan_skip(am_jscan *j, am_str *value, am_error *err) {
    blanks(j);
    const char *start = j->p;
    size_t depth = 0;
    do {
        blanks(j);
        if (j->p >= j->end) return am_jscan_fail(j, "a value", err);
        char c = *j->p++;
        if (depth && ((c >= '0' && c <= '9') || c == ',' || c == ':')) continue; /* nearly all of a vocabulary */
        if (c == '"') {
            uint64_t high = 0;
            while ((j->p = plain_end(j->p, j->end, &high)) < j->end && *j->p != '"') j->p += *j->p == '\\' && j->end - j->p > 1 ? 2 : 1;
            if (j->p >= j->end) return j->p = j->end, am_jscan_fail(j, "the end of a string", err);
            j->p++;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) return am_jscan_fail(j, "less nesting", err);
        } else if (c == '}' || c == ']') {
            if (depth-- == 0) return j->p--, am_jscan_fail(j, "a value", err);
        } else if (depth == 0) {
            if (c == ',' || c == ':') return j->p--, am_jscan_fail(j, "a value", err);
            while (j->p < j->end && !strchr(",]} \n\r\t", *j->p)) j->p++;
        }
    } while (depth);
    *value = (am_str){start, (size_t)(j->p - start)};
    return AM_OK;
}
