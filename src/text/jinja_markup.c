/* Owns Markup, the strings that escape, safe and autoescape make: str, but what is joined to them is escaped first. They stay so through their own
 * methods (markupsafe's), and are plain text again where Python's own functions build a new string of them. */
#include "text/jinja_int.h"

bool j_markup(jrender *r, const jstr *s, bool markup, jv *out) {
    *out = jv_str(s);
    if (s->markup == markup) return true;
    jstr *m = j_alloc(r, sizeof *m);
    if (!m) return false;
    *m = *s;
    m->markup = markup;
    m->grow = NULL;
    *out = jv_str(m);
    return true;
}

/* Also inside of the lists that methods give. */
bool j_mark_up(jrender *r, jv *v) {
    for (size_t i = 0; jv_has_list(*v) && i < v->l->n; i++)
        if (!j_mark_up(r, &v->l->v[i])) return false;
    return v->t != J_STR || j_markup(r, v->s, true, v);
}

bool j_escape_value(jrender *r, jv v, jv *out) {
    const jstr *s;
    return j_str_of(r, v, &s) && j_escape(r, s, out);
}

/* What a print writes where autoescape is on. */
bool j_write_escaped(jrender *r, jout *out, jv v) {
    jv e;
    return j_escape_value(r, v, &e) && j_out_str(r, out, e.s);
}

/* `a ~ b` where autoescape is on: Markup when one of them is. */
bool j_markup_join(jrender *r, const jlist *parts, jv *out) {
    bool markup = false;
    jout text;
    for (size_t i = 0; i < parts->n; i++) markup |= parts->v[i].t == J_STR && parts->v[i].s->markup;
    j_out_init(r, &text);
    for (size_t i = 0; i < parts->n; i++) {
        if (markup ? j_write_escaped(r, &text, parts->v[i]) : j_write_str(r, &text, parts->v[i])) continue;
        j_out_free(&text);
        return false;
    }
    return j_out_value(r, &text, out) && (!markup || j_mark_up(r, out));
}

/* join where autoescape is on: a separator that is no Markup becomes it when an item is. */
bool j_join_escaped(jrender *r, const jlist *items, jv sep, jv *out) {
    bool markup = sep.t == J_STR && sep.s->markup;
    const jstr *between;
    jout text;
    for (size_t i = 0; i < items->n && !markup; i++) markup = items->v[i].t == J_STR && items->v[i].s->markup;
    if (!j_str_of(r, sep, &between)) return false;
    if (markup && !j_escape(r, between, &sep)) return false;
    j_out_init(r, &text);
    for (size_t i = 0; i < items->n; i++) {
        bool ok = i == 0 || j_out_str(r, &text, markup ? sep.s : between);
        if (ok && (markup ? j_write_escaped(r, &text, items->v[i]) : j_write_str(r, &text, items->v[i]))) continue;
        j_out_free(&text);
        return false;
    }
    return j_out_value(r, &text, out) && (!markup || j_mark_up(r, out));
}
