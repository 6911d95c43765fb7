/* Owns what values are to each other: truth, equality, order, hash, membership, and where they come from (JSON). Nested
 * values are compared with a bound on depth, since a template can build them deeper than C's stack. */
#include "text/jinja_int.h"

#include <stdio.h>

const jv jv_none = {.t = J_NONE}, jv_true = {.t = J_BOOL, .b = true}, jv_false = {.t = J_BOOL, .b = false};

bool jv_truth(jv v) {
    switch (v.t) {
    case J_MISSING: case J_UNDEF: case J_NONE: return false;
    case J_BOOL: return v.b;
    case J_INT: return v.i != 0;
    case J_FLOAT: return v.f != 0;
    case J_STR: return v.s->n > 0;
    case J_LIST: case J_TUPLE: return v.l->n > 0;
    case J_DICT: return v.d->n > 0;
    case J_VIEW: return v.view->d->n > 0;
    case J_RANGE: return v.range->n > 0;
    default: return true;
    }
}

bool jv_same(jv a, jv b) {
    if (a.t != b.t) return false;
    switch (a.t) {
    case J_NONE: return true;
    case J_BOOL: return a.b == b.b;
    case J_INT: return a.i == b.i;
    case J_FLOAT: return a.f == b.f;
    case J_STR: return a.s->n == b.s->n && memcmp(a.s->p, b.s->p, a.s->n) == 0;
    case J_TUPLE: return a.l == b.l || (a.l->n == 0 && b.l->n == 0);
    default: return a.p == b.p;
    }
}

static bool numbers_equal(jv a, jv b) {
    if (jv_is_int(a) && jv_is_int(b)) return jv_to_int(a) == jv_to_int(b);
    if (a.t == J_FLOAT && b.t == J_FLOAT) return a.f == b.f;
    double f = a.t == J_FLOAT ? a.f : b.f;
    int64_t i = a.t == J_FLOAT ? jv_to_int(b) : jv_to_int(a);
    return f >= -0x1p63 && f < 0x1p63 && f == floor(f) && (int64_t)f == i;
}

static bool lists_equal(jrender *r, const jlist *a, const jlist *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n && i < b->n; i++) {
        if (a->v[i].p == b->v[i].p && a->v[i].t == b->v[i].t && a->v[i].t != J_FLOAT) continue;
        if (!jv_equal(r, a->v[i], b->v[i], out)) return false;
    }
    return true;
}

static bool dicts_equal(jrender *r, const jdict *a, const jdict *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        jv other;
        if (!j_dict_get(r, b, a->e[i].key, &other)) return false;
        *out = other.t != J_MISSING;
        if (*out && !jv_equal(r, a->e[i].value, other, out)) return false;
    }
    return true;
}

/* Keys and items are sets to Python, values are not. */
static bool views_equal(jrender *r, const jview *a, const jview *b, bool *out) {
    *out = a->d->n == b->d->n;
    for (size_t i = 0; *out && i < a->d->n; i++) {
        jv other;
        if (!j_charge(r, 1) || !j_dict_get(r, b->d, a->d->e[i].key, &other)) return false;
        *out = other.t != J_MISSING;
        if (*out && a->kind == JV_ITEMS && !jv_equal(r, a->d->e[i].value, other, out)) return false;
    }
    return true;
}

bool jv_equal(jrender *r, jv a, jv b, bool *out) {
    if (jv_is_number(a) && jv_is_number(b)) {
        *out = numbers_equal(a, b);
        return true;
    }
    if (a.t != b.t) {
        *out = false;
        return true;
    }
    if (a.t == J_UNDEF) {
        *out = true;
        return true;
    }
    if (a.t == J_RANGE) {
        const jrange *x = a.range, *y = b.range;
        *out = x->n == y->n && (x->n == 0 || (x->start == y->start && (x->n == 1 || x->step == y->step)));
        return true;
    }
    bool views = a.t == J_VIEW && a.view->kind == b.view->kind && a.view->kind != JV_VALUES;
    if (a.t != J_LIST && a.t != J_TUPLE && a.t != J_DICT && !views) {
        *out = jv_same(a, b);
        return a.t != J_STR || j_charge(r, a.s->n / 64);
    }
    if (!j_enter(r)) return false;
    bool ok = views ? views_equal(r, a.view, b.view, out) : a.t == J_DICT ? dicts_equal(r, a.d, b.d, out) : lists_equal(r, a.l, b.l, out);
    j_leave(r);
    return ok;
}

static bool ordered(int sign, jop op) {
    return op == JO_LT ? sign < 0 : op == JO_LE ? sign <= 0 : op == JO_GT ? sign > 0 : sign >= 0;
}

static bool floats_ordered(double a, double b, jop op) {
    return op == JO_LT ? a < b : op == JO_LE ? a <= b : op == JO_GT ? a > b : a >= b;
}

static bool lists_less(jrender *r, const jlist *a, const jlist *b, jop op, bool *out) {
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same = a->v[i].t == b->v[i].t && a->v[i].p == b->v[i].p;
        if (!same && !jv_equal(r, a->v[i], b->v[i], &same)) return false;
        if (!same) return jv_less(r, a->v[i], b->v[i], op, out);
    }
    *out = ordered((a->n > b->n) - (a->n < b->n), op);
    return true;
}

bool jv_less(jrender *r, jv a, jv b, jop op, bool *out) {
    static const char *const sign[] = {[JO_LT] = "<", [JO_LE] = "<=", [JO_GT] = ">", [JO_GE] = ">="};
    if (a.t == J_UNDEF) return j_undefined_error(r, a);
    if (b.t == J_UNDEF) return j_undefined_error(r, b);
    if (jv_is_int(a) && jv_is_int(b)) {
        int64_t x = jv_to_int(a), y = jv_to_int(b);
        *out = ordered((x > y) - (x < y), op);
        return true;
    }
    if (jv_is_number(a) && jv_is_number(b)) {
        *out = floats_ordered(jv_to_float(a), jv_to_float(b), op);
        return true;
    }
    if (a.t == J_STR && b.t == J_STR) {
        /* byte order of UTF-8 is code point order */
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        int c = memcmp(a.s->p, b.s->p, n);
        *out = ordered(c ? c : (a.s->n > b.s->n) - (a.s->n < b.s->n), op);
        return j_charge(r, n / 64);
    }
    if (jv_has_list(a) && a.t == b.t) {
        if (!j_enter(r)) return false;
        bool ok = lists_less(r, a.l, b.l, op, out);
        j_leave(r);
        return ok;
    }
    return j_fail(r, "TypeError", "'%s' not supported between instances of '%s' and '%s'", sign[op], j_type_name(a),
                  j_type_name(b));
}

static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
}

bool jv_hash(jrender *r, jv v, uint64_t *out) {
    switch (v.t) {
    case J_STR: *out = j_hash_str(v.s); return j_charge(r, v.s->n / 64);
    case J_BOOL: case J_INT: *out = mix((uint64_t)jv_to_int(v)); return true;
    case J_FLOAT: {
        uint64_t bits;
        if (v.f >= -0x1p63 && v.f < 0x1p63 && v.f == floor(v.f)) {
            *out = mix((uint64_t)(int64_t)v.f);
            return true;
        }
        memcpy(&bits, &v.f, sizeof bits);
        *out = mix(bits);
        return true;
    }
    case J_TUPLE: {
        *out = v.l->n + 1;
        if (!j_enter(r)) return false;
        bool ok = true;
        for (size_t i = 0; ok && i < v.l->n; i++) {
            uint64_t h;
            if ((ok = jv_hash(r, v.l->v[i], &h))) *out = mix(*out * 31 + h);
        }
        j_leave(r);
        return ok;
    }
    case J_LIST: case J_DICT: return j_fail(r, "TypeError", "unhashable type: '%s'", j_type_name(v));
    case J_NONE: case J_UNDEF: *out = v.t; return true;
    default: *out = mix((uint64_t)(uintptr_t)v.p); return true;
    }
}

static bool contains_string(jrender *r, jv item, const jstr *s, bool *out) {
    if (item.t == J_UNDEF || item.t != J_STR)
        return j_fail(r, "TypeError", "'in <string>' requires string as left operand, not %s", j_type_name(item));
    *out = item.s->n == 0 || (item.s->n <= s->n && memmem(s->p, s->n, item.s->p, item.s->n));
    return j_charge(r, s->n / 32);
}

static bool contains_number(const jrange *range, jv item) {
    if (!jv_is_number(item)) return false;
    double f = jv_to_float(item);
    if (f != floor(f) || f < -0x1p62 || f > 0x1p62) return false;
    int64_t i = item.t == J_FLOAT ? (int64_t)f : jv_to_int(item), from = i - range->start;
    return from % range->step == 0 && from / range->step >= 0 && from / range->step < range->n;
}

bool jv_contains(jrender *r, jv item, jv in, bool *out) {
    *out = false;
    jv found;
    if (in.t == J_STR) return contains_string(r, item, in.s, out);
    if (in.t == J_DICT || (in.t == J_VIEW && in.view->kind == JV_KEYS)) {
        if (!j_dict_get(r, in.t == J_DICT ? in.d : in.view->d, item, &found)) return false;
        *out = found.t != J_MISSING;
        return true;
    }
    if (in.t == J_RANGE && jv_is_number(item)) {
        *out = contains_number(in.range, item);
        return true;
    }
    jiter it = {.src = in};
    if (in.t != J_LIST && in.t != J_TUPLE && in.t != J_VIEW && in.t != J_GEN && in.t != J_UNDEF && in.t != J_RANGE)
        return j_fail(r, "TypeError", "argument of type '%s' is not iterable", j_type_name(in));
    int got;
    while ((got = j_next(r, &it, &found)) > 0) {
        if (found.t == item.t && found.t != J_STR && jv_same(found, item))
            *out = true;
        else if (!jv_equal(r, found, item, out))
            return false;
        if (*out) return true;
    }
    return got == 0;
}

bool jv_has_length(jv v) {
    switch (v.t) {
    case J_STR: case J_LIST: case J_TUPLE: case J_DICT: case J_VIEW: case J_RANGE: case J_UNDEF: case J_LOOP: return true;
    default: return false;
    }
}

bool jv_length(jrender *r, jv v, int64_t *out) {
    switch (v.t) {
    case J_STR: *out = (int64_t)j_str_chars(v.s); return true;
    case J_LIST: case J_TUPLE: *out = (int64_t)v.l->n; return true;
    case J_DICT: *out = (int64_t)v.d->n; return true;
    case J_VIEW: *out = (int64_t)v.view->d->n; return true;
    case J_RANGE: *out = v.range->n; return true;
    case J_UNDEF: *out = 0; return true;
    case J_LOOP: {
        jv n;
        const jstr *name = j_str_c(r, "length");
        if (!name || !j_loop_attr(r, v.loop, name, &n)) return false;
        *out = n.i;
        return true;
    }
    default: return j_fail(r, "TypeError", "object of type '%s' has no len()", j_type_name(v));
    }
}

static bool undef(jrender *r, jundef u, jv *out) {
    jundef *p = j_alloc(r, sizeof *p);
    if (!p) return false;
    *p = u;
    *out = (jv){.t = J_UNDEF, .undef = p};
    return true;
}

bool jv_undef_name(jrender *r, const jstr *name, jv *out) { return undef(r, (jundef){.kind = JU_NAME, .name = jv_str(name)}, out); }
bool jv_undef_member(jrender *r, jv obj, jv name, jv *out) {
    return undef(r, (jundef){.kind = JU_MEMBER, .obj = obj, .name = name}, out);
}
bool jv_undef_hint(jrender *r, const char *hint, jv *out) { return undef(r, (jundef){.kind = JU_HINT, .hint = hint}, out); }

bool jv_undef_unsafe(jrender *r, jv obj, const jstr *name, jv *out) {
    const char *repr = j_repr_c(r, jv_str(name));
    size_t n = strlen(repr) + 100;
    char *hint = j_alloc(r, n);
    if (!hint) return false;
    snprintf(hint, n, "access to attribute %s of '%s' object is unsafe.", repr, j_type_name(obj));
    return undef(r, (jundef){.kind = JU_HINT, .hint = hint, .security = true}, out);
}

static bool array_from_json(jrender *r, const json_t *json, bool input, jv *out) {
    size_t n = json_array_size(json);
    jlist *l = j_list(r, n);
    if (!l) return false;
    *out = (jv){.t = J_LIST, .l = l};
    for (size_t i = 0; i < n; i++)
        if (!jv_from_json(r, json_array_get(json, i), input, &l->v[l->n++])) return false;
    return true;
}

static bool object_from_json(jrender *r, const json_t *json, bool input, jv *out) {
    jdict *d = j_dict(r);
    if (!d) return false;
    *out = (jv){.t = J_DICT, .d = d};
    for (void *at = json_object_iter((json_t *)json); at; at = json_object_iter_next((json_t *)json, at)) {
        const jstr *key = j_str_view(r, (am_str){json_object_iter_key(at), json_object_iter_key_len(at)}, input);
        jv value;
        if (!key || !jv_from_json(r, json_object_iter_value(at), input, &value) || !j_dict_set(r, d, jv_str(key), value))
            return false;
    }
    return true;
}

bool jv_from_json(jrender *r, const json_t *json, bool input, jv *out) {
    if (!json) {
        *out = jv_none;
        return true;
    }
    switch (json_typeof(json)) {
    case JSON_NULL: *out = jv_none; return true;
    case JSON_TRUE: *out = jv_true; return true;
    case JSON_FALSE: *out = jv_false; return true;
    case JSON_INTEGER: *out = jv_int(json_integer_value(json)); return true;
    case JSON_REAL: *out = jv_float(json_real_value(json)); return true;
    case JSON_STRING: {
        am_str text = {json_string_value(json), json_string_length(json)};
        bool wide = am_json_is_wide(text);
        const jstr *s = wide ? j_str_number(r, (am_str){text.p + 1, text.n - 1}, input) : j_str_view(r, text, input);
        *out = s ? jv_str(s) : jv_none;
        return s != NULL;
    }
    case JSON_ARRAY: case JSON_OBJECT: break;
    }
    if (!j_enter(r)) return false;
    bool ok = json_is_array(json) ? array_from_json(r, json, input, out) : object_from_json(r, json, input, out);
    j_leave(r);
    return ok;
}
