/* Owns SentencePiece's precompiled character map: u32 little endian size of a Darts double array, the array's units (u32), then the
 * replacements, each ended by a NUL; a key's value is its replacement's offset. Units come from a file: every step is bounds-checked.
 *
 * Two readers of the same map exist and differ: SentencePiece itself takes the longest key at each place; Hugging Face looks up whole
 * grapheme clusters of fewer than six bytes first, and takes the shortest key that begins one. Both are here, as the file's format says. */
#include "text/tokenizer_int.h"
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

typedef struct charsmap {
    const uint8_t *units;
    size_t n_units;
    am_str strings;
} charsmap;

static uint32_t unit_at(const charsmap *c, size_t i) {
    uint32_t u;
    memcpy(&u, c->units + i * 4, 4);
    return u;
}

static bool charsmap_open(am_str map, charsmap *c) {
    uint32_t size;
    if (map.n < 4) return false;
    memcpy(&size, map.p, 4);
    if (size > map.n - 4 || size % 4 || size == 0) return false;
    *c = (charsmap){(const uint8_t *)map.p + 4, size / 4, {map.p + 4 + size, map.n - 4 - size}};
    return true;
}

am_status am_charsmap_check(am_str map, am_error *err) {
    charsmap c;
    if (charsmap_open(map, &c)) return AM_OK;
    return am_fail(err, AM_EFORMAT, "the precompiled character map is malformed");
}

/* Replacement of the shortest or longest key that begins key; false when there is none. */
static bool lookup(const charsmap *c, const char *key, size_t n, bool shortest, am_str *to, size_t *used) {
    size_t node = 0;
    uint32_t unit = unit_at(c, 0);
    bool found = false;
    node ^= (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
    for (size_t i = 0; i < n && key[i]; i++) {
        node ^= (uint8_t)key[i];
        if (node >= c->n_units) break;
        unit = unit_at(c, node);
        if ((unit & 0x800000FFu) != (uint8_t)key[i]) break;
        node ^= (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
        if (!(unit >> 8 & 1) || node >= c->n_units) continue;
        size_t at = unit_at(c, node) & 0x7FFFFFFFu;
        if (at >= c->strings.n) continue;
        const char *end = memchr(c->strings.p + at, 0, c->strings.n - at);
        *to = (am_str){c->strings.p + at, end ? (size_t)(end - c->strings.p) - at : c->strings.n - at};
        *used = i + 1;
        found = true;
        if (shortest) break;
    }
    return found;
}

static size_t grapheme_end(const am_view *v, size_t i) {
    uint32_t a, b;
    utf8proc_int32_t state = 0;
    size_t k = am_utf8_get(v->p + i, &a);
    for (i += k; i < v->n; i += k, a = b) {
        k = am_utf8_get(v->p + i, &b);
        if (a < 0x80 && b < 0x80 && a != '\r') break;
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)a, (utf8proc_int32_t)b, &state)) break;
    }
    return i;
}

static am_status grapheme(const charsmap *c, am_mapped *m, const am_view *v, size_t i, size_t end) {
    am_str to;
    size_t used;
    if (end - i < 6 && lookup(c, v->p + i, end - i, true, &to, &used)) return am_mapped_put(m, to.p, to.n, am_view_at(v, i));
    am_status status = AM_OK;
    for (size_t k; i < end && !status; i += k) {
        k = am_utf8_size((uint8_t)v->p[i]);
        status = lookup(c, v->p + i, k, true, &to, &used) ? am_mapped_put(m, to.p, to.n, am_view_at(v, i)) : am_mapped_copy(m, v, i, i + k);
    }
    return status;
}

am_status am_charsmap_apply(am_str map, bool graphemes, am_scratch *s, am_view *v) {
    charsmap c;
    if (!charsmap_open(map, &c)) return AM_EFORMAT;
    am_mapped *m = &s->text[s->turn];
    m->n = 0;
    am_status status = AM_OK;
    for (size_t i = 0, end; i < v->n && !status; i = end) {
        if (graphemes) {
            end = grapheme_end(v, i);
            status = grapheme(&c, m, v, i, end);
            continue;
        }
        am_str to;
        size_t used;
        bool found = lookup(&c, v->p + i, v->n - i, false, &to, &used);
        end = i + (found ? used : am_utf8_size((uint8_t)v->p[i]));
        status = found ? am_mapped_put(m, to.p, to.n, am_view_at(v, i)) : am_mapped_copy(m, v, i, end);
    }
    if (!status) status = am_mapped_close(m, v, v);
    s->turn ^= 1;
    return status;
}
