/* Owns the filters on sequences. Those that are generators in jinja2 (map, select, unique, batch ...) are lazy here too: they
 * can be walked once, have no length, and fail when the failing item is reached. */
#include "text/jinja_int.h"

static bool given(jv v) { return v.t != J_MISSING; }
static bool flag(jv v) { return given(v) && jv_truth(v); }

/* "a.b.0" as the keys 'a', 'b', 0; an int as itself; None as no keys */
bool j_attr_path(jrender *r, jv attribute, const jv **path, size_t *n) {
    *n = 0;
    *path = NULL;
    if (!given(attribute) || attribute.t == J_NONE) return true;
    if (attribute.t != J_STR) {
        jv *one = j_alloc(r, sizeof *one);
        if (!one) return false;
        *one = attribute;
        *path = one;
        *n = 1;
        return true;
    }
    const jstr *s = attribute.s;
    size_t parts = 1;
    for (size_t i = 0; i < s->n; i++) parts += s->p[i] == '.';
    jv *p = j_alloc(r, parts * sizeof *p);
    if (!p) return false;
    for (size_t begin = 0, i = 0; i <= s->n; i++) {
        if (i < s->n && s->p[i] != '.') continue;
        const jstr *part = j_str_slice(r, s, begin, i);
        if (!part) return false;
        bool digits = i > begin && i - begin < 18;
        int64_t value = 0;
        for (size_t k = begin; digits && k < i; k++) {
            digits = s->p[k] >= '0' && s->p[k] <= '9';
            value = value * 10 + s->p[k] - '0';
        }
        p[(*n)++] = digits ? jv_int(value) : jv_str(part);
        begin = i + 1;
    }
    *path = p;
    return true;
}

bool j_walk_path(jrender *r, jv item, const jv *path, size_t n, jv dflt, jv *out) {
    for (size_t i = 0; i < n; i++) {
        if (!j_getitem(r, item, path[i], &item)) return false;
        if (item.t == J_UNDEF && given(dflt) && dflt.t != J_NONE) item = dflt;
    }
    *out = item;
    return true;
}

/* How items are looked at: an attribute path, then lower case unless case_sensitive. */
typedef struct getter {
    const jv *path;
    size_t n_path;
    bool lower;
    jv dflt;
} getter;

static bool getter_of(jrender *r, jv attribute, bool lower, getter *g) {
    *g = (getter){.lower = lower, .dflt = {.t = J_MISSING}};
    return j_attr_path(r, attribute, &g->path, &g->n_path);
}

static bool get(jrender *r, const getter *g, jv item, jv *out) {
    if (!j_walk_path(r, item, g->path, g->n_path, g->dflt, out)) return false;
    return !g->lower || j_ignore_case(r, *out, out);
}

static bool gen_value(jgen *g, jv *out) {
    *out = (jv){.t = J_GEN, .gen = g};
    return g != NULL;
}

/* A generator over v, or one of nothing when v is false: map and select look at that first. */
static bool gen_over(jrender *r, jgen *g, jv v, jv *out) {
    g->it.src = v;
    g->started = true; /* looks at v itself, behind its arguments */
    if (jv_truth(v)) return gen_value(g, out);
    jlist *none = j_list(r, 0);
    return none && j_gen_of_list(r, "generator", none, out);
}

static bool f_list(jrender *r, jv v, jv *arg, jv *out) {
    jlist *l;
    (void)arg;
    if (!j_to_list(r, v, &l)) return false;
    *out = (jv){.t = J_LIST, .l = l};
    return true;
}

static bool f_first(jrender *r, jv v, jv *arg, jv *out) {
    jiter it;
    (void)arg;
    if (!j_iter(r, v, &it)) return false;
    int got = v.t == J_GEN ? j_next(r, &(jiter){.src = v}, out) : j_next(r, &it, out);
    return got > 0 || (got == 0 && jv_undef_hint(r, "No first item, sequence was empty.", out));
}

static bool f_last(jrender *r, jv v, jv *arg, jv *out) {
    jlist *l;
    (void)arg;
    if (v.t == J_GEN || !jv_has_length(v)) return j_fail(r, "TypeError", "'%s' object is not reversible", j_type_name(v));
    if (!j_to_list(r, v, &l)) return false;
    *out = l->n ? l->v[l->n - 1] : jv_none;
    return l->n || jv_undef_hint(r, "No last item, sequence was empty.", out);
}

static bool reversed(jrender *r, jv v, jlist **out) {
    if (!j_to_list(r, v, out)) return false;
    jlist *l = *out;
    for (size_t i = 0; i < l->n / 2; i++) {
        jv x = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = x;
    }
    return true;
}

static bool f_reverse(jrender *r, jv v, jv *arg, jv *out) {
    jlist *l;
    (void)arg;
    if (v.t == J_STR) {
        const jv part[3] = {{.t = J_MISSING}, {.t = J_MISSING}, jv_int(-1)};
        return j_slice(r, v, part, out);
    }
    if (v.t == J_NONE || jv_is_number(v)) return j_fail(r, "FilterArgumentError", "argument must be iterable");
    if (!reversed(r, v, &l)) return v.t == J_GEN ? j_fail_instead(r, "TypeError", "FilterArgumentError", "argument must be iterable") : false;
    if (v.t == J_GEN) {
        *out = (jv){.t = J_LIST, .l = l};
        return true;
    }
    const char *name = v.t == J_LIST ? "list_reverseiterator" : v.t == J_TUPLE ? "reversed" : v.t == J_RANGE ? "range_iterator" : "dict_reversekeyiterator";
    return j_gen_of_list(r, name, l, out);
}

static bool join_escaped(jrender *r, jv v, jv sep, const getter *g, jv *out) {
    jlist *items;
    if (!sep.p || !j_to_list(r, v, &items)) return false;
    for (size_t i = 0; i < items->n; i++)
        if (!get(r, g, items->v[i], &items->v[i])) return false;
    return j_join_escaped(r, items, sep, out);
}

static bool f_join(jrender *r, jv v, jv *arg, jv *out) {
    jiter it;
    getter g;
    jv item;
    const jstr *sep = NULL;
    if (given(arg[0]) && !j_str_of(r, arg[0], &sep)) return false;
    if (!getter_of(r, arg[1], false, &g) || !j_iter(r, v, &it)) return false;
    if (r->autoescape) return join_escaped(r, v, given(arg[0]) ? arg[0] : jv_str(j_str_c(r, "")), &g, out);
    jout text;
    j_out_init(r, &text);
    int got;
    for (bool first = true; (got = j_next(r, &it, &item)) > 0; first = false) {
        if (!first && sep && !j_out_str(r, &text, sep)) break;
        if (!get(r, &g, item, &item) || !j_write_str(r, &text, item)) break;
    }
    if (got == 0) return j_out_value(r, &text, out);
    j_out_free(&text);
    return false;
}

/* sort's key: a list of the values of each comma-separated attribute */
static bool sort_key(jrender *r, jv attribute, bool lower, jv item, jv *out) {
    jlist *key = j_list(r, 1);
    getter g;
    jv v;
    if (!key) return false;
    if (!given(attribute) || attribute.t != J_STR) {
        if (!getter_of(r, attribute, lower, &g) || !get(r, &g, item, &v) || !j_list_add(r, key, v)) return false;
    } else {
        const jstr *s = attribute.s;
        for (size_t begin = 0, i = 0; i <= s->n; i++) {
            if (i < s->n && s->p[i] != ',') continue;
            const jstr *part = j_str_slice(r, s, begin, i);
            if (!part || !getter_of(r, jv_str(part), lower, &g) || !get(r, &g, item, &v) || !j_list_add(r, key, v)) return false;
            begin = i + 1;
        }
    }
    *out = (jv){.t = J_LIST, .l = key};
    return true;
}

/* sorted()'s reverse=, which must be an int */
static bool reverse_arg(jrender *r, jv v, bool *out) {
    *out = flag(v);
    if (!given(v) || jv_is_int(v)) return true;
    return j_fail(r, "TypeError", "'%s' object cannot be interpreted as an integer", j_type_name(v));
}

static bool f_sort(jrender *r, jv v, jv *arg, jv *out) {
    jlist *items, *keys;
    bool reverse;
    if (!j_to_list(r, v, &items) || !reverse_arg(r, arg[0], &reverse) || !(keys = j_list(r, items->n))) return false;
    for (size_t i = 0; i < items->n; i++)
        if (!sort_key(r, arg[2], !flag(arg[1]), items->v[i], &keys->v[keys->n++])) return false;
    *out = (jv){.t = J_LIST, .l = items};
    return j_sort(r, keys, items, reverse);
}

static bool f_dictsort(jrender *r, jv v, jv *arg, jv *out) {
    am_str by = AM_STR("key");
    if (given(arg[1])) by = arg[1].t == J_STR ? (am_str){arg[1].s->p, arg[1].s->n} : AM_STR("");
    bool value = am_str_eq(by, AM_STR("value"));
    if (!value && !am_str_eq(by, AM_STR("key")))
        return j_fail(r, "FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    if (v.t != J_DICT) return j_fail(r, "AttributeError", "'%s' object has no attribute 'items'", j_type_name(v));
    bool reverse;
    if (!reverse_arg(r, arg[2], &reverse)) return false;
    jlist *items = j_list(r, v.d->n), *keys = items ? j_list(r, v.d->n) : NULL;
    if (!keys) return false;
    for (size_t i = 0; i < v.d->n; i++) {
        const jentry *e = &v.d->e[i];
        jv key = value ? e->value : e->key;
        if (!flag(arg[0]) && !j_ignore_case(r, key, &key)) return false;
        if (!j_list_add(r, keys, key) || !j_pair(r, e->key, e->value, &items->v[items->n++])) return false;
    }
    *out = (jv){.t = J_LIST, .l = items};
    return j_sort(r, keys, items, reverse);
}

static bool extreme(jrender *r, jv v, jv *arg, bool max, jv *out) {
    jiter it;
    getter g;
    jv item, key, best_key;
    if (!getter_of(r, arg[1], !flag(arg[0]), &g) || !j_iter(r, v, &it)) return false;
    int got = j_next(r, &it, out);
    if (got == 0) return jv_undef_hint(r, "No aggregated item, sequence was empty.", out);
    if (got < 0 || !get(r, &g, *out, &best_key)) return false;
    while ((got = j_next(r, &it, &item)) > 0) {
        bool better;
        if (!get(r, &g, item, &key) || !jv_less(r, key, best_key, max ? JO_GT : JO_LT, &better)) return false;
        if (!better) continue;
        *out = item;
        best_key = key;
    }
    return got == 0;
}

static bool f_min(jrender *r, jv v, jv *arg, jv *out) { return extreme(r, v, arg, false, out); }
static bool f_max(jrender *r, jv v, jv *arg, jv *out) { return extreme(r, v, arg, true, out); }

static bool f_sum(jrender *r, jv v, jv *arg, jv *out) {
    jiter it;
    getter g;
    jv item;
    int got;
    *out = given(arg[1]) ? arg[1] : jv_int(0);
    if (!getter_of(r, arg[0], false, &g) || !j_iter(r, v, &it)) return false;
    if (out->t == J_STR) return j_fail(r, "TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
    while ((got = j_next(r, &it, &item)) > 0)
        if (!get(r, &g, item, &item) || !j_arith(r, JO_ADD, *out, item, out)) return false;
    return got == 0;
}

static bool f_random(jrender *r, jv v, jv *arg, jv *out) {
    /* prompts must be repeatable, so the choice is always the first */
    int64_t n;
    (void)arg;
    if (!jv_length(r, v, &n)) return false;
    if (n == 0) return jv_undef_hint(r, "No random item, sequence was empty.", out);
    return j_getitem(r, v, jv_int(0), out);
}

static int next_entry(jrender *r, jgen *g, jv *out) { return j_next(r, &g->it, out); }

static int fail_items(jrender *r, jgen *g, jv *out) {
    (void)g, (void)out;
    return j_fail(r, "TypeError", "Can only get item pairs from a mapping."), -1;
}

static bool f_items(jrender *r, jv v, jv *arg, jv *out) {
    jview *view = j_alloc(r, sizeof *view);
    jgen *g = view ? j_gen(r, "generator", v.t == J_DICT || v.t == J_UNDEF ? next_entry : fail_items) : NULL;
    (void)arg;
    if (!g) return false;
    if (v.t == J_UNDEF) g->it.src = v;
    if (v.t == J_DICT) {
        *view = (jview){v.d, JV_ITEMS};
        g->it.src = (jv){.t = J_VIEW, .view = view};
    }
    return gen_value(g, out);
}

static int next_unique(jrender *r, jgen *g, jv *out) {
    jdict *seen = (jdict *)g->what;
    getter by = {g->path, g->n_path, g->flag, {.t = J_MISSING}};
    int got;
    while ((got = j_next(r, &g->it, out)) > 0) {
        jv key, old;
        if (!get(r, &by, *out, &key) || !j_dict_get(r, seen, key, &old)) return -1;
        if (old.t != J_MISSING) continue;
        return j_dict_set(r, seen, key, jv_true) ? 1 : -1;
    }
    return got;
}

static bool f_unique(jrender *r, jv v, jv *arg, jv *out) {
    jgen *g = j_gen(r, "generator", next_unique);
    getter by;
    if (!g || !getter_of(r, arg[1], !flag(arg[0]), &by) || !(g->what = j_dict(r))) return false;
    g->it.src = v;
    g->path = by.path;
    g->n_path = by.n_path;
    g->flag = by.lower;
    return gen_value(g, out);
}

/* With a count of zero jinja2 gives an empty batch when it meets the first item (kept in fill), then all in one; below zero all in one. */
static int batch_of_all(jrender *r, jgen *g, jlist *l, jv *out) {
    jv item;
    int got;
    if (g->flag) return 0;
    *out = (jv){.t = J_LIST, .l = l};
    if (g->count == 0) {
        g->count = -1;
        return j_next(r, &g->it, &g->fill);
    }
    g->flag = true;
    if (given(g->fill) && !j_list_add(r, l, g->fill)) return -1;
    while ((got = j_next(r, &g->it, &item)) > 0)
        if (!j_list_add(r, l, item)) return -1;
    if (got < 0 || l->n == 0) return got;
    bool fewer = false; /* jinja2 asks that of whatever the count is, when there is something to fill with */
    jv count = g->args->pos[0], fill = g->args->pos[1];
    if (given(fill) && fill.t != J_NONE && !jv_less(r, jv_int((int64_t)l->n), count, JO_LT, &fewer)) return -1;
    if (fewer) return j_fail(r, "TypeError", "can't multiply sequence by non-int of type '%s'", j_type_name(count)), -1;
    return 1;
}

static int next_batch(jrender *r, jgen *g, jv *out) {
    jlist *l = j_list(r, 0);
    jv item;
    int got = 1;
    if (!l) return -1;
    if (g->count < 1) return batch_of_all(r, g, l, out);
    while ((int64_t)l->n < g->count && (got = j_next(r, &g->it, &item)) > 0)
        if (!j_list_add(r, l, item)) return -1;
    if (got < 0) return -1;
    if (l->n == 0) return 0;
    bool fills = given(g->fill) && g->fill.t != J_NONE && (int64_t)l->n < g->count;
    if (fills && g->args->pos[0].t == J_FLOAT) return j_fail(r, "TypeError", "can't multiply sequence by non-int of type 'float'"), -1;
    while (fills && (int64_t)l->n < g->count)
        if (!j_charge(r, 1) || !j_list_add(r, l, g->fill)) return -1;
    *out = (jv){.t = J_LIST, .l = l};
    return 1;
}

static bool f_batch(jrender *r, jv v, jv *arg, jv *out) {
    jgen *g = j_gen(r, "generator", next_batch);
    if (!g || !(g->args = j_alloc(r, sizeof *g->args)) || !(g->args->pos = j_alloc(r, 2 * sizeof(jv)))) return false;
    memcpy(g->args->pos, arg, 2 * sizeof(jv));
    if (jv_is_int(arg[0])) g->count = jv_to_int(arg[0]);
    else if (arg[0].t == J_FLOAT && arg[0].f == floor(arg[0].f) && fabs(arg[0].f) < 0x1p62) g->count = (int64_t)arg[0].f;
    else g->count = -1; /* no number of items is equal to it */
    g->it.src = v;
    g->fill = g->count < 1 ? (jv){.t = J_MISSING} : arg[1];
    return gen_value(g, out);
}

static int next_slice(jrender *r, jgen *g, jv *out) {
    jv count = g->args->pos[0], fill = g->args->pos[1];
    int64_t n;
    if (g->count == 0) {
        jlist *all;
        if (!j_to_list(r, g->it.src, &all)) return -1;
        g->it = (jiter){.src = {.t = J_LIST, .l = all}};
    }
    if (!j_operand_int(r, count, &n)) return -1;
    if (g->count == 0) {
        if (n == 0) return j_fail(r, "ZeroDivisionError", "integer division or modulo by zero"), -1;
    }
    if (g->count >= n) return 0;
    int64_t length = (int64_t)g->it.src.l->n, extra = length % n, size = length / n + (g->count < extra);
    jlist *l = j_list(r, (size_t)size + 1);
    jv item;
    if (!l) return -1;
    while ((int64_t)l->n < size && j_next(r, &g->it, &item) > 0) l->v[l->n++] = item;
    if (given(fill) && fill.t != J_NONE && g->count >= extra) l->v[l->n++] = fill;
    g->count++;
    *out = (jv){.t = J_LIST, .l = l};
    return r->status ? -1 : 1;
}

static bool f_slice(jrender *r, jv v, jv *arg, jv *out) {
    jgen *g = j_gen(r, "generator", next_slice);
    if (!g || !(g->args = j_alloc(r, sizeof *g->args)) || !(g->args->pos = j_alloc(r, 2 * sizeof(jv)))) return false;
    memcpy(g->args->pos, arg, 2 * sizeof(jv));
    g->args->n = 2;
    g->it.src = v;
    return gen_value(g, out);
}

static bool f_groupby(jrender *r, jv v, jv *arg, jv *out) {
    jlist *items, *keys, *groups = j_list(r, 0);
    getter by, plain;
    bool lower = !flag(arg[2]);
    if (!groups || !getter_of(r, arg[0], lower, &by) || !getter_of(r, arg[0], false, &plain) || !j_to_list(r, v, &items)) return false;
    by.dflt = plain.dflt = arg[1];
    if (!(keys = j_list(r, items->n))) return false;
    for (size_t i = 0; i < items->n; i++)
        if (!get(r, &by, items->v[i], &keys->v[keys->n++])) return false;
    if (!j_sort(r, keys, items, false)) return false;
    jv last = {.t = J_MISSING}, key, pair, shown;
    jlist *group = NULL;
    for (size_t i = 0; i < items->n; i++) {
        bool same = false;
        if (!get(r, &by, items->v[i], &key) || (group && !jv_equal(r, last, key, &same))) return false;
        if (!same) {
            if (!(group = j_list(r, 0)) || !get(r, &plain, items->v[i], &shown)) return false;
            if (!j_pair(r, lower ? shown : key, (jv){.t = J_LIST, .l = group}, &pair) || !j_list_add(r, groups, pair)) return false;
            pair.l->group = true;
            last = key;
        }
        if (!j_list_add(r, group, items->v[i])) return false;
    }
    *out = (jv){.t = J_LIST, .l = groups};
    return true;
}

static int map_one(jrender *r, jgen *g, jv item, jv *out) {
    bool ok = g->what ? j_call_func(r, g->what, item, g->args, out) : j_walk_path(r, item, g->path, g->n_path, g->fill, out);
    return ok ? 1 : -1;
}

static int next_mapped(jrender *r, jgen *g, jv *out) {
    jv item;
    int got = j_next(r, &g->it, &item);
    return got > 0 ? map_one(r, g, item, out) : got;
}

/* The rest of args after the first n, for the filter or test that map and select call. */
static jargs *rest_args(jrender *r, const jargs *args, size_t n) {
    jargs *rest = j_alloc(r, sizeof *rest);
    if (rest) *rest = (jargs){args->n > n ? args->pos + n : NULL, args->n > n ? args->n - n : 0, args->kw, args->n_kw};
    return rest;
}

static bool named(jrender *r, jv name, bool test, const void **out) {
    uint64_t hash; /* names are looked up in a dict */
    if (!jv_hash(r, name, &hash)) return false;
    if (name.t == J_STR) *out = test ? j_test_find((am_str){name.s->p, name.s->n}) : j_filter_find((am_str){name.s->p, name.s->n});
    else *out = NULL;
    return *out || j_fail(r, "TemplateRuntimeError", "No %s named %s.", test ? "test" : "filter", j_repr_c(r, name));
}

static bool prepare_map(jrender *r, const jargs *args, jgen *g) {
    jv attribute = {.t = J_MISSING};
    g->fill = (jv){.t = J_MISSING};
    for (size_t i = 0; i < args->n_kw; i++)
        if (j_str_eq(args->kw[i].name, AM_STR("attribute"))) attribute = args->kw[i].v;
    if (args->n == 0 && given(attribute)) {
        for (size_t i = 0; i < args->n_kw; i++) {
            if (j_str_eq(args->kw[i].name, AM_STR("default"))) g->fill = args->kw[i].v;
            else if (!j_str_eq(args->kw[i].name, AM_STR("attribute")))
                return j_fail(r, "FilterArgumentError", "Unexpected keyword argument %s", j_repr_c(r, jv_str(args->kw[i].name)));
        }
        return j_attr_path(r, attribute, &g->path, &g->n_path);
    }
    if (args->n == 0) return j_fail(r, "FilterArgumentError", "map requires a filter argument");
    return true;
}

/* Arguments are looked at when the first item is asked for, as in jinja2, whose generators have not run before. */
static int first_mapped(jrender *r, jgen *g, jv *out) {
    const jargs *args = g->args;
    jv item;
    int got;
    if (!prepare_map(r, args, g) || !j_iter(r, g->it.src, &g->it)) return -1;
    g->next = next_mapped;
    if ((got = j_next(r, &g->it, &item)) <= 0) return got;
    if (args->n && (!named(r, args->pos[0], false, &g->what) || !(g->args = rest_args(r, args, 1)))) return -1; /* which only an item asks for */
    return map_one(r, g, item, out);
}

static bool f_map(jrender *r, jv v, const jargs *args, jv *out) {
    jgen *g = j_gen(r, "generator", first_mapped);
    if (!g || !(g->args = rest_args(r, args, 0))) return false;
    return gen_over(r, g, v, out);
}

static bool selects(jrender *r, jgen *g, jv item, bool *yes) {
    jv v;
    if (!j_walk_path(r, item, g->path, g->n_path, (jv){.t = J_MISSING}, &v)) return false;
    *yes = jv_truth(v);
    return !g->what || j_apply_test(r, g->what, v, g->args, yes);
}

static int next_selected(jrender *r, jgen *g, jv *out) {
    int got;
    while ((got = j_next(r, &g->it, out)) > 0) {
        bool yes;
        if (!selects(r, g, *out, &yes)) return -1;
        if (yes == g->flag) return 1;
    }
    return got;
}

static int first_selected(jrender *r, jgen *g, jv *out) {
    const jargs *args = g->args;
    size_t at = g->has_test ? 1 : 0; /* has_test: an attribute comes first */
    if (at && args->n == 0) return j_fail(r, "FilterArgumentError", "Missing parameter for attribute name"), -1;
    if (at && !j_attr_path(r, args->pos[0], &g->path, &g->n_path)) return -1;
    if (!(g->args = rest_args(r, args, at + 1)) || !j_iter(r, g->it.src, &g->it)) return -1;
    g->next = next_selected;
    int got = j_next(r, &g->it, out);
    bool yes;
    if (got <= 0) return got;
    if ((args->n > at && !named(r, args->pos[at], true, &g->what)) || !selects(r, g, *out, &yes)) return -1;
    return yes == g->flag ? 1 : next_selected(r, g, out);
}

static bool select_(jrender *r, jv v, const jargs *args, bool keep, bool attr, jv *out) {
    jgen *g = j_gen(r, "generator", first_selected);
    if (!g || !(g->args = rest_args(r, args, 0))) return false;
    g->flag = keep;
    g->has_test = attr;
    return gen_over(r, g, v, out);
}

static bool f_select(jrender *r, jv v, const jargs *args, jv *out) { return select_(r, v, args, true, false, out); }
static bool f_reject(jrender *r, jv v, const jargs *args, jv *out) { return select_(r, v, args, false, false, out); }
static bool f_selectattr(jrender *r, jv v, const jargs *args, jv *out) { return select_(r, v, args, true, true, out); }
static bool f_rejectattr(jrender *r, jv v, const jargs *args, jv *out) { return select_(r, v, args, false, true, out); }

static const jfunc filters[] = {
    {.name = "list", .pyname = "sync_do_list", .fn = f_list},
    {.name = "first", .pyname = "sync_do_first", .fn = f_first, .hidden = true},
    {.name = "last", .pyname = "do_last", .fn = f_last, .hidden = true},
    {.name = "reverse", .pyname = "do_reverse", .fn = f_reverse},
    {.name = "join", .pyname = "sync_do_join", .fn = f_join, .params = "d attribute", .hidden = true},
    {.name = "sort", .pyname = "do_sort", .fn = f_sort, .params = "reverse case_sensitive attribute", .hidden = true},
    {.name = "dictsort", .pyname = "do_dictsort", .fn = f_dictsort, .params = "case_sensitive by reverse"},
    {.name = "min", .pyname = "do_min", .fn = f_min, .params = "case_sensitive attribute", .hidden = true},
    {.name = "max", .pyname = "do_max", .fn = f_max, .params = "case_sensitive attribute", .hidden = true},
    {.name = "sum", .pyname = "sync_do_sum", .fn = f_sum, .params = "attribute start", .hidden = true},
    {.name = "random", .pyname = "do_random", .fn = f_random, .hidden = true},
    {.name = "items", .pyname = "do_items", .fn = f_items},
    {.name = "unique", .pyname = "do_unique", .fn = f_unique, .params = "case_sensitive attribute", .hidden = true},
    {.name = "batch", .pyname = "do_batch", .fn = f_batch, .params = "linecount fill_with", .n_required = 1},
    {.name = "slice", .pyname = "sync_do_slice", .fn = f_slice, .params = "slices fill_with", .n_required = 1},
    {.name = "groupby", .pyname = "sync_do_groupby", .fn = f_groupby, .params = "attribute default case_sensitive", .n_required = 1, .hidden = true},
    {.name = "map", .pyname = "do_map", .raw = f_map},
    {.name = "select", .pyname = "do_select", .raw = f_select},
    {.name = "reject", .pyname = "do_reject", .raw = f_reject},
    {.name = "selectattr", .pyname = "do_selectattr", .raw = f_selectattr},
    {.name = "rejectattr", .pyname = "do_rejectattr", .raw = f_rejectattr},
};

const jfunc *j_seq_filter(am_str name) { return j_find(filters, sizeof filters / sizeof *filters, name); }
