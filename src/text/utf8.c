/* Owns validation, lossy replacement, the byte-level alphabet and the character classes that the tokenizer's stages ask for. The
 * classes come from utf8proc's category table; where Rust's definition is a derived property (White_Space, Alphabetic) the small
 * difference to the categories is written out here. */
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

size_t am_utf8_check(am_str s) {
    size_t i = 0;
    while (i < s.n) {
        uint64_t word;
        while (i + 8 <= s.n && (memcpy(&word, s.p + i, 8), (word & 0x8080808080808080u) == 0)) i += 8;
        if (i >= s.n) break;
        uint32_t cp;
        size_t k = am_utf8_next(s.p + i, s.n - i, &cp);
        if (k == 0) return i;
        i += k;
    }
    return s.n;
}

/* Length of the maximal ill-formed part at p: the lead byte and the continuation bytes that could still belong to it. *cut is set
 * when the text ends inside what could have become a character. */
static size_t bad_part(const uint8_t *p, size_t n, bool *cut) {
    *cut = false;
    size_t need = p[0] >= 0xC2 && p[0] < 0xE0 ? 2 : p[0] >= 0xE0 && p[0] < 0xF0 ? 3 : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4 : 1;
    if (need == 1) return 1;
    uint8_t low = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;
    uint8_t high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    size_t k = 1;
    for (; k < need && k < n; k++) {
        if (p[k] < (k == 1 ? low : 0x80) || p[k] > (k == 1 ? high : 0xBF)) return k;
    }
    *cut = k < need;
    return k;
}

am_status am_utf8_lossy(am_str s, bool last, am_buf *out, size_t *used) {
    size_t i = 0;
    am_status status = AM_OK;
    while (i < s.n && !status) {
        am_str rest = {s.p + i, s.n - i};
        size_t good = am_utf8_check(rest);
        status = am_buf_append(out, rest.p, good);
        i += good;
        if (status || i >= s.n) break;
        bool cut;
        size_t bad = bad_part((const uint8_t *)s.p + i, s.n - i, &cut);
        if (cut && !last) break;
        status = am_buf_append(out, "\xEF\xBF\xBD", 3);
        i += bad;
    }
    *used = i;
    return status;
}

/* Printable Latin-1 bytes stand for themselves; the other 68 follow in order from U+0100. */
static bool stands_for_itself(uint32_t b) { return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF); }

uint32_t am_byte_char(uint8_t byte) {
    if (stands_for_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return 0x143;
}

int am_char_byte(uint32_t cp) {
    if (cp - 0x21 < 0x5E) return (int)cp; /* nearly all of them */
    if (cp < 0x100) return stands_for_itself(cp) ? (int)cp : -1;
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp <= 0x142) return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

static utf8proc_category_t category(uint32_t cp) { return utf8proc_category((utf8proc_int32_t)cp); }

bool am_is_space(uint32_t cp) {
    if (cp < 0x80) return cp == ' ' || (cp >= 9 && cp <= 13);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool am_is_numeric(uint32_t cp) {
    if (cp < 0x80) return cp >= '0' && cp <= '9';
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool am_is_punctuation(uint32_t cp) {
    if (cp < 0x80) return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') || (cp >= '[' && cp <= '`') || (cp >= '{' && cp <= '~');
    utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool am_is_word(uint32_t cp) {
    if (cp < 0x80) return (cp >= '0' && cp <= '9') || ((cp | 32) >= 'a' && (cp | 32) <= 'z') || cp == '_';
    utf8proc_category_t c = category(cp);
    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) return true; /* L, M, Nd, Nl (all of Nl is Alphabetic) */
    if (c == UTF8PROC_CATEGORY_PC || cp == 0x200C || cp == 0x200D) return true;
    /* Other_Alphabetic outside L, M and N: circled and squared letters */
    return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
           (cp >= 0x1F170 && cp <= 0x1F189);
}

bool am_is_mark(uint32_t cp) {
    if (cp < 0x300) return false;
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

bool am_is_nonspacing(uint32_t cp) { return cp >= 0x300 && category(cp) == UTF8PROC_CATEGORY_MN; }

bool am_is_other(uint32_t cp) {
    if (cp < 0x80) return cp < 0x20 || cp == 0x7F;
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CN || c == UTF8PROC_CATEGORY_CO ||
           c == UTF8PROC_CATEGORY_CS;
}
