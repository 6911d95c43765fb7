/* Owns lists, dicts and walking over things that can be walked over.
 *
 * Dicts keep insertion order in an array; from nine entries on an open-addressing index finds keys. Nothing is ever removed
 * from a dict, because the sandbox forbids templates to change one. */
#include "text/jinja_int.h"

jlist *j_list(jrender *r, size_t cap) {
    jlist *l = j_alloc(r, sizeof *l);
    if (!l) return NULL;
    *l = (jlist){0};
    if (cap) {
        size_t bytes;
        if (!am_size_mul(cap, sizeof(jv), &bytes)) return j_no_memory(r), NULL;
        if (!(l->v = j_alloc(r, bytes))) return NULL;
    }
    l->cap = cap;
    return l;
}

bool j_list_add(jrender *r, jlist *l, jv v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        jv *p = j_alloc(r, cap * sizeof *p);
        if (!p) return false;
        if (l->n) memcpy(p, l->v, l->n * sizeof *p);
        l->v = p;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return true;
}

bool j_pair(jrender *r, jv a, jv b, jv *out) {
    jlist *l = j_list(r, 2);
    if (!l) return false;
    l->v[0] = a;
    l->v[1] = b;
    l->n = 2;
    *out = (jv){.t = J_TUPLE, .l = l};
    return true;
}

jdict *j_dict(jrender *r) { return j_alloc(r, sizeof(jdict)); }

enum { LINEAR_MAX = 8 };

/* The slot of the key in the index, or of the hole where it would go. */
static bool find_slot(jrender *r, const jdict *d, jv key, uint64_t hash, size_t *slot) {
    size_t mask = d->n_index - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        *slot = i;
        if (!d->index[i]) return true;
        const jentry *e = &d->e[d->index[i] - 1];
        bool same = false;
        if (e->hash == hash && !jv_equal(r, e->key, key, &same)) return false;
        if (same) return true;
    }
}

static bool find(jrender *r, const jdict *d, jv key, uint64_t hash, jentry **out) {
    *out = NULL;
    if (d->index) {
        size_t slot;
        if (!find_slot(r, d, key, hash, &slot)) return false;
        if (d->index[slot]) *out = &d->e[d->index[slot] - 1];
        return true;
    }
    for (size_t i = 0; i < d->n; i++) {
        bool same = false;
        if (d->e[i].hash == hash && !jv_equal(r, d->e[i].key, key, &same)) return false;
        if (same) {
            *out = &d->e[i];
            return true;
        }
    }
    return true;
}

static bool reindex(jrender *r, jdict *d) {
    size_t n = d->n_index ? d->n_index : 32;
    while (n < d->cap * 2) n *= 2;
    uint32_t *index = j_alloc(r, n * sizeof *index);
    if (!index) return false;
    for (size_t i = 0; i < d->n; i++) {
        size_t at = d->e[i].hash & (n - 1);
        while (index[at]) at = (at + 1) & (n - 1);
        index[at] = (uint32_t)i + 1;
    }
    d->index = index;
    d->n_index = n;
    return true;
}

static bool grow(jrender *r, jdict *d) {
    size_t cap = d->cap ? d->cap * 2 : 4;
    if (cap > UINT32_MAX / 4) return j_limit(r, "makes a dict of more than %zu entries", d->n);
    jentry *e = j_alloc(r, cap * sizeof *e);
    if (!e) return false;
    if (d->n) memcpy(e, d->e, d->n * sizeof *e);
    d->e = e;
    d->cap = cap;
    return cap <= LINEAR_MAX || reindex(r, d);
}

bool j_dict_set(jrender *r, jdict *d, jv key, jv value) {
    uint64_t hash;
    jentry *e;
    if (!jv_hash(r, key, &hash) || !find(r, d, key, hash, &e)) return false;
    if (e) {
        e->value = value;
        return true;
    }
    if (d->n == d->cap && !grow(r, d)) return false;
    if (d->index) {
        size_t slot;
        if (!find_slot(r, d, key, hash, &slot)) return false;
        d->index[slot] = (uint32_t)d->n + 1;
    }
    d->e[d->n++] = (jentry){key, value, hash};
    return true;
}

bool j_dict_get(jrender *r, const jdict *d, jv key, jv *out) {
    uint64_t hash;
    jentry *e;
    if (!jv_hash(r, key, &hash) || !find(r, d, key, hash, &e)) return false;
    *out = e ? e->value : (jv){.t = J_MISSING};
    return true;
}

bool j_iter(jrender *r, jv v, jiter *it) {
    *it = (jiter){.src = v};
    switch (v.t) {
    case J_STR: case J_LIST: case J_TUPLE: case J_DICT: case J_VIEW: case J_RANGE: case J_GEN: case J_UNDEF: case J_LOOP:
        return true;
    default: return j_fail(r, "TypeError", "'%s' object is not iterable", j_type_name(v));
    }
}

static int next_entry(jrender *r, const jdict *d, int kind, jiter *it, jv *out) {
    if (it->i >= d->n) return 0;
    const jentry *e = &d->e[it->i++];
    if (kind == JV_ITEMS) return j_pair(r, e->key, e->value, out) ? 1 : -1;
    *out = kind == JV_KEYS ? e->key : e->value;
    return 1;
}

static int next_char(jrender *r, const jstr *s, jiter *it, jv *out) {
    if (it->i >= s->n) return 0;
    size_t end = it->i + 1;
    while (end < s->n && (s->p[end] & 0xc0) == 0x80) end++;
    const jstr *c = j_str_slice(r, s, it->i, end);
    if (!c) return -1;
    it->i = end;
    *out = jv_str(c);
    if (!c->markup) return 1;
    jstr *plain = j_alloc(r, sizeof *plain); /* Markup has no __iter__ of its own: its characters are str */
    if (!plain) return -1;
    *plain = *c;
    plain->markup = false;
    *out = jv_str(plain);
    return 1;
}

static int next_of_gen(jrender *r, jgen *g, jv *out) {
    if (g->running) return j_fail(r, "ValueError", "generator already executing"), -1;
    if (!j_enter(r)) return -1;
    g->running = true;
    int got = g->started || g->it.src.t == J_MISSING || j_iter(r, g->it.src, &g->it) ? 0 : -1;
    g->started = true;
    if (got == 0) got = g->next(r, g, out);
    g->running = false;
    j_leave(r);
    return got;
}

int j_next(jrender *r, jiter *it, jv *out) {
    if (!j_charge(r, 1)) return -1;
    switch (it->src.t) {
    case J_STR: return next_char(r, it->src.s, it, out);
    case J_LIST: case J_TUPLE:
        if (it->i >= it->src.l->n) return 0;
        *out = it->src.l->v[it->i++];
        return 1;
    case J_DICT: return next_entry(r, it->src.d, JV_KEYS, it, out);
    case J_VIEW: return next_entry(r, it->src.view->d, it->src.view->kind, it, out);
    case J_RANGE:
        if ((int64_t)it->i >= it->src.range->n) return 0;
        *out = jv_int(it->src.range->start + (int64_t)it->i++ * it->src.range->step);
        return 1;
    case J_GEN: return next_of_gen(r, it->src.gen, out);
    default: return 0; /* undefined is empty; so is a loop object, whose items the loop itself takes */
    }
}

bool j_to_list(jrender *r, jv v, jlist **out) {
    jiter it;
    if (!j_iter(r, v, &it) || !(*out = j_list(r, jv_has_list(v) ? v.l->n : 0))) return false;
    jv item;
    int got;
    while ((got = j_next(r, &it, &item)) > 0)
        if (!j_list_add(r, *out, item)) return false;
    return got == 0;
}

jgen *j_gen(jrender *r, const char *name, int (*next)(jrender *, jgen *, jv *)) {
    jgen *g = j_alloc(r, sizeof *g);
    if (!g) return NULL;
    *g = (jgen){.next = next, .name = name};
    return g;
}

static int next_of_list(jrender *r, jgen *g, jv *out) { return j_next(r, &g->it, out); }

bool j_gen_of_list(jrender *r, const char *name, jlist *l, jv *out) {
    jgen *g = j_gen(r, name, next_of_list);
    if (!g) return false;
    g->it = (jiter){.src = {.t = J_LIST, .l = l}};
    *out = (jv){.t = J_GEN, .gen = g};
    return true;
}

/* Merge sort over positions, stable as Python's. */
static bool merge(jrender *r, const jlist *keys, j_less_fn *key_less, uint32_t *at, uint32_t *tmp) {
    size_t n = keys->n;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = lo + 2 * width < n ? lo + 2 * width : n;
            size_t a = lo, b = mid, k = lo;
            while (a < mid && b < hi) {
                bool less;
                if (!j_charge(r, 1) || !key_less(r, keys->v[at[b]], keys->v[at[a]], &less)) return false;
                tmp[k++] = less ? at[b++] : at[a++];
            }
            while (a < mid) tmp[k++] = at[a++];
            while (b < hi) tmp[k++] = at[b++];
        }
        memcpy(at, tmp, n * sizeof *at);
    }
    return true;
}

const uint32_t *j_order(jrender *r, const jlist *keys, j_less_fn *less, bool reverse) {
    size_t n = keys->n;
    if (n > UINT32_MAX) return j_limit(r, "sorts more than %u items", UINT32_MAX), NULL;
    uint32_t *at = j_alloc(r, (n + 1) * sizeof *at), *tmp = at ? j_alloc(r, (n + 1) * sizeof *tmp) : NULL;
    if (!tmp) return NULL;
    /* reversed before and after, as Python does it: equal items keep their order, and the same two items are compared first */
    for (size_t i = 0; i < n; i++) at[i] = (uint32_t)(reverse ? n - 1 - i : i);
    if (!merge(r, keys, less, at, tmp)) return NULL;
    for (size_t i = 0; reverse && i < n; i++) tmp[n - 1 - i] = at[i];
    return reverse ? tmp : at;
}

static bool less_than(jrender *r, jv a, jv b, bool *out) { return jv_less(r, a, b, JO_LT, out); }

bool j_sort(jrender *r, jlist *keys, jlist *items, bool reverse) {
    size_t n = keys->n;
    if (n < 2) return true;
    const uint32_t *at = j_order(r, keys, less_than, reverse);
    jv *sorted = at ? j_alloc(r, n * sizeof *sorted) : NULL;
    if (!sorted) return false;
    for (size_t i = 0; i < n; i++) sorted[i] = items->v[at[i]];
    memcpy(items->v, sorted, n * sizeof *sorted);
    return true;
}
