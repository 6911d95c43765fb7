/* Owns the filter pprint: values over several lines of at most 80 characters, keys in order, as Python's pprint.pformat lays them out. */
#include "text/jinja_int.h"

enum { WIDTH = 80 };

/* Python's order of keys that cannot be compared is that of the names of their types. */
static bool key_less(jrender *r, jv a, jv b, bool *out) {
    bool numbers = jv_is_number(a) && jv_is_number(b);
    if (numbers || (a.t == b.t && (a.t == J_STR || a.t == J_UNDEF))) return jv_less(r, a, b, JO_LT, out);
    *out = strcmp(j_type_name(a), j_type_name(b)) < 0;
    return true;
}

/* The order of d's entries by key. */
static const uint32_t *sorted(jrender *r, const jdict *d) {
    jlist *keys = j_list(r, d->n);
    for (size_t i = 0; keys && i < d->n; i++)
        if (!j_list_add(r, keys, d->e[i].key)) return NULL;
    return keys ? j_order(r, keys, key_less, false) : NULL;
}

/* repr, but for the order of keys. */
static bool put_repr(jrender *r, jout *out, jv v, int depth) {
    if (v.t != J_DICT && !(jv_has_list(v) && !v.l->group)) return j_write_repr(r, out, v, depth);
    if (!j_enter(r)) return false;
    bool dict = v.t == J_DICT, ok = j_out_c(r, out, dict ? "{" : v.t == J_LIST ? "[" : "(");
    const uint32_t *at = NULL;
    if (dict) ok = ok && (at = sorted(r, v.d));
    for (size_t i = 0; ok && i < (dict ? v.d->n : v.l->n); i++) {
        ok = i == 0 || j_out_c(r, out, ", ");
        if (ok && dict) ok = put_repr(r, out, v.d->e[at[i]].key, depth + 1) && j_out_c(r, out, ": ");
        ok = ok && put_repr(r, out, dict ? v.d->e[at[i]].value : v.l->v[i], depth + 1);
    }
    j_leave(r);
    return ok && j_out_c(r, out, dict ? "}" : v.t == J_LIST ? "]" : v.l->n == 1 ? ",)" : ")");
}

static const jstr *repr(jrender *r, jv v) {
    jout text;
    j_out_init(r, &text);
    if (put_repr(r, &text, v, 0)) return j_out_finish(r, &text);
    j_out_free(&text);
    return NULL;
}

/* Where we are: `indent` columns in, `allowance` characters must still fit behind the value. */
typedef struct place {
    int64_t indent, allowance;
    int level;
} place;

static bool new_line(jrender *r, jout *out, int64_t indent) {
    const jstr *blank = j_str_c(r, " ");
    return blank && j_out_c(r, out, "\n") && j_out_repeat(r, out, blank, indent);
}

static bool pretty(jrender *r, jout *out, jv v, place at);

static bool items(jrender *r, jout *out, const jlist *l, place at) {
    at.indent++;
    for (size_t i = 0; i < l->n; i++) {
        bool last = i + 1 == l->n;
        if (i && (!j_out_c(r, out, ",") || !new_line(r, out, at.indent))) return false;
        if (!pretty(r, out, l->v[i], (place){at.indent, last ? at.allowance : 1, at.level})) return false;
    }
    return true;
}

static bool entries(jrender *r, jout *out, const jdict *d, place at) {
    const uint32_t *order = sorted(r, d);
    at.indent++;
    if (!order) return false;
    for (size_t i = 0; i < d->n; i++) {
        bool last = i + 1 == d->n;
        const jentry *e = &d->e[order[i]];
        const jstr *key = repr(r, e->key);
        if (!key || (i && (!j_out_c(r, out, ",") || !new_line(r, out, at.indent))) || !j_out_str(r, out, key) || !j_out_c(r, out, ": ")) return false;
        if (!pretty(r, out, e->value, (place){at.indent + (int64_t)j_str_chars(key) + 2, last ? at.allowance : 1, at.level})) return false;
    }
    return true;
}

/* The pieces that a long string is cut into, each a literal. */
typedef struct pieces {
    jlist *l;
    int64_t width;
} pieces;

static const jstr *literal(jrender *r, const jstr *s, size_t begin, size_t end) {
    const jstr *part = j_str_slice(r, s, begin, end);
    return part ? repr(r, jv_str(part)) : NULL;
}

static bool add_piece(jrender *r, pieces *p, const jstr *piece) { return piece && j_list_add(r, p->l, jv_str(piece)); }

/* One line of the string: words with the blanks behind them, as many as fit. `room`: what must be left behind the last one. */
static bool cut_line(jrender *r, pieces *p, const jstr *s, size_t begin, size_t end, int64_t room) {
    int64_t width = p->width;
    size_t from = begin;
    for (size_t at = begin, used; at < end;) {
        size_t next = at;
        while (next < end && !j_is_space(j_decode(s->p + next, end - next, &used))) next += used;
        while (next < end && j_is_space(j_decode(s->p + next, end - next, &used))) next += used;
        if (next == end) width -= room;
        const jstr *shown = literal(r, s, from, next);
        if (!shown || !j_charge(r, 1 + (next - from) / 16)) return false;
        if ((int64_t)j_str_chars(shown) > width) {
            if (at > from && !add_piece(r, p, literal(r, s, from, at))) return false;
            from = at;
        }
        at = next;
    }
    return from == end || add_piece(r, p, literal(r, s, from, end));
}

static bool string(jrender *r, jout *out, const jstr *s, place at) {
    jlist *lines;
    pieces p = {j_list(r, 4), 0};
    bool parens = at.level == 1;
    if (!p.l || !j_splitlines(r, s, true, &lines)) return false;
    at.indent += parens;
    at.allowance += parens;
    p.width = WIDTH - at.indent;
    for (size_t i = 0; i < lines->n; i++) {
        const jstr *line = lines->v[i].s, *shown = repr(r, lines->v[i]);
        int64_t room = i + 1 == lines->n ? at.allowance : 0;
        if (!shown) return false;
        bool fits = (int64_t)j_str_chars(shown) <= p.width - room;
        if (!(fits ? add_piece(r, &p, shown) : cut_line(r, &p, line, 0, line->n, room))) return false;
    }
    if (p.l->n == 1) return j_write_repr(r, out, jv_str(s), 0);
    if (parens && !j_out_c(r, out, "(")) return false;
    for (size_t i = 0; i < p.l->n; i++)
        if ((i && !new_line(r, out, at.indent)) || !j_out_str(r, out, p.l->v[i].s)) return false;
    return !parens || j_out_c(r, out, ")");
}

static bool spread(jrender *r, jout *out, jv v, place at) {
    at.level++;
    if (v.t == J_STR) return string(r, out, v.s, at);
    const char *close = v.t == J_DICT ? "}" : v.t == J_LIST ? "]" : v.l->n == 1 ? ",)" : ")";
    at.allowance += (int64_t)strlen(close);
    if (!j_out_c(r, out, v.t == J_DICT ? "{" : v.t == J_LIST ? "[" : "(")) return false;
    return (v.t == J_DICT ? entries(r, out, v.d, at) : items(r, out, v.l, at)) && j_out_c(r, out, close);
}

static bool pretty(jrender *r, jout *out, jv v, place at) {
    const jstr *s = repr(r, v);
    if (!s) return false;
    bool lays_out = v.t == J_DICT || (jv_has_list(v) && !v.l->group) || (v.t == J_STR && !v.s->markup && !v.s->number && v.s->n);
    if (!lays_out || (int64_t)j_str_chars(s) <= WIDTH - at.indent - at.allowance) return j_out_str(r, out, s);
    if (!j_enter(r)) return false;
    bool ok = spread(r, out, v, at);
    j_leave(r);
    return ok;
}

bool j_pprint(jrender *r, jv v, jv *arg, jv *out) {
    jout text;
    (void)arg;
    j_out_init(r, &text);
    if (pretty(r, &text, v, (place){0, 0, 0})) return j_out_value(r, &text, out);
    j_out_free(&text);
    return false;
}
