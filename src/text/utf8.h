/* UTF-8 by hand, inline: every stage of the tokenizer walks characters, and validates its input once, at the door. */
#ifndef AM_TEXT_UTF8_H
#define AM_TEXT_UTF8_H

#include "base/buf.h"

/* Decodes one character; returns its length, 0 when the bytes are not valid UTF-8 (overlong, surrogate, cut short) or n is 0. */
static inline size_t am_utf8_next(const char *text, size_t n, uint32_t *cp) {
    const uint8_t *p = (const uint8_t *)text;
    if (n == 0) return 0;
    if (p[0] < 0x80) return *cp = p[0], 1;
    if (p[0] < 0xC2 || p[0] > 0xF4 || n < 2 || (p[1] & 0xC0) != 0x80) return 0;
    if (p[0] < 0xE0) return *cp = (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F), 2;
    if (n < 3 || (p[2] & 0xC0) != 0x80) return 0;
    uint32_t three = (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    if (p[0] < 0xF0) return *cp = three, three >= 0x800 && (three < 0xD800 || three > 0xDFFF) ? 3 : 0;
    if (n < 4 || (p[3] & 0xC0) != 0x80) return 0;
    uint32_t four = (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
    return *cp = four, four >= 0x10000 && four <= 0x10FFFF ? 4 : 0;
}

/* The same for text known to be valid: no checks but the lead byte. */
static inline size_t am_utf8_get(const char *text, uint32_t *cp) {
    const uint8_t *p = (const uint8_t *)text;
    if (p[0] < 0x80) return *cp = p[0], 1;
    if (p[0] < 0xE0) return *cp = (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F), 2;
    if (p[0] < 0xF0) return *cp = (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F), 3;
    return *cp = (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F), 4;
}

static inline size_t am_utf8_size(uint8_t lead) { return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

static inline size_t am_utf8_put(char *out, uint32_t cp) {
    if (cp < 0x80) return out[0] = (char)cp, 1;
    if (cp < 0x800) return out[0] = (char)(0xC0 | cp >> 6), out[1] = (char)(0x80 | (cp & 0x3F)), 2;
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        return out[2] = (char)(0x80 | (cp & 0x3F)), 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    return out[3] = (char)(0x80 | (cp & 0x3F)), 4;
}

/* What a hexadecimal digit of an escape is worth; -1: it is none. */
static inline int am_hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

/* Offset of the first byte that is not valid UTF-8, or n when all is. */
size_t am_utf8_check(am_str s);

/* Appends s with what is not UTF-8 replaced by U+FFFD, one per maximal ill-formed part (Unicode 3.9, as Rust and Python do). When
 * `last` is false an incomplete character at the end is left; returns in *used how many bytes of s were taken. */
am_status am_utf8_lossy(am_str s, bool last, am_buf *out, size_t *used);

/* The alphabet of byte-level BPE (GPT-2): each byte has a printable character. */
uint32_t am_byte_char(uint8_t byte);
int am_char_byte(uint32_t cp); /* -1 when cp is not in the alphabet */

/* Character classes, as Rust's char methods and the regex crate have them. */
bool am_is_space(uint32_t cp);       /* White_Space */
bool am_is_numeric(uint32_t cp);     /* Nd Nl No */
bool am_is_punctuation(uint32_t cp); /* ASCII punctuation and all of P */
bool am_is_word(uint32_t cp);        /* \w: Alphabetic, M, Nd, Pc, join controls */
bool am_is_mark(uint32_t cp);        /* M */
bool am_is_nonspacing(uint32_t cp);  /* Mn */
bool am_is_other(uint32_t cp);       /* C */

#endif
