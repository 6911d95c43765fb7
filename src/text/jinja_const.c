/* Owns which expressions are constant in jinja2's eyes: no name, no call, no filter that needs the context. It folds those at
 * compile time; the result is the same but for slices of what cannot be sliced (j_const_slice), and for a dict with a key that
 * has no hash: folding it is an error even where it would never run. */
#include "text/jinja_parse_int.h"

enum {
    MAX_DEPTH = 64, /* deeper ones are computed at run time, with the same result but for that corner */
    MAX_WALK = 1000 /* chains of members and filters are no deeper than this in C's stack */
};

static bool all(jnode *const *list, uint32_t n, int depth) {
    for (uint32_t i = 0; i < n; i++)
        if (list[i] && !jx_is_constant(list[i], depth)) return false;
    return true;
}

static bool args(const jargnodes *a, int depth) {
    if (!a) return true;
    for (uint32_t i = 0; i < a->n_kw; i++)
        if (!jx_is_constant(a->kw[i].value, depth)) return false;
    return !a->star && !a->star2 && all(a->pos, a->n, depth);
}

static bool needs_context(const jnode *n) {
    static const char *const names[] = {"map", "select", "reject", "selectattr", "rejectattr", "random"};
    for (size_t i = 0; n->kind == JN_FILTER && i < sizeof names / sizeof *names; i++)
        if (j_str_eq(n->value.s, am_str_of(names[i]))) return true;
    return !n->what;
}

bool jx_is_constant(const jnode *n, int depth) {
    if (++depth > MAX_DEPTH) return false;
    switch (n->kind) {
    case JN_CONST: return true;
    case JN_TUPLE: case JN_LIST: case JN_AND: case JN_OR: case JN_COMPARE: case JN_ARITH: case JN_CONCAT: return all(n->list, n->n, depth);
    case JN_DICT: return all(n->list, n->n, depth) && all(n->list2, n->n, depth);
    case JN_NOT: case JN_NEG: case JN_POS: case JN_ATTR: return jx_is_constant(n->a, depth);
    case JN_ITEM: return jx_is_constant(n->a, depth) && jx_is_constant(n->b, depth);
    case JN_SLICE: return jx_is_constant(n->a, depth) && all(n->list, 3, depth);
    case JN_COND: return jx_is_constant(n->a, depth) && jx_is_constant(n->b, depth) && n->c && jx_is_constant(n->c, depth);
    case JN_FILTER: case JN_TEST: return n->escape != JE_ASK && n->a && !needs_context(n) && jx_is_constant(n->a, depth) && args(n->args, depth);
    default: return false;
    }
}

/* Marks the slices of a constant expression; as deep as jx_is_constant looked. */
void jx_mark_constant(jnode *n) {
    if (n->kind == JN_SLICE) n->flag = true;
    jnode *const one[] = {n->a, n->b, n->c};
    for (int i = 0; i < 3; i++)
        if (one[i]) jx_mark_constant(one[i]);
    uint32_t count = n->kind == JN_SLICE ? 3 : n->n;
    for (uint32_t i = 0; n->list && i < count; i++)
        if (n->list[i]) jx_mark_constant(n->list[i]);
    for (uint32_t i = 0; n->list2 && i < n->n; i++) jx_mark_constant(n->list2[i]);
    for (uint32_t i = 0; n->args && i < n->args->n; i++) jx_mark_constant(n->args->pos[i]);
    for (uint32_t i = 0; n->args && i < n->args->n_kw; i++) jx_mark_constant(n->args->kw[i].value);
}

static bool bad_key(const jnode *n, const char **type) {
    if (n->kind != JN_DICT || !n->flag) return false;
    for (uint32_t i = 0; i < n->n; i++) {
        if (n->list[i]->kind != JN_LIST && n->list[i]->kind != JN_DICT) continue;
        *type = n->list[i]->kind == JN_LIST ? "list" : "dict";
        return true;
    }
    return false;
}

/* jinja2 folds below operators, filters, tests, members, conditions and calls; a dict, list or tuple on its own it builds when it runs. */
static bool folds(uint8_t kind) {
    switch (kind) {
    case JN_COND: case JN_AND: case JN_OR: case JN_NOT: case JN_COMPARE: case JN_ARITH: case JN_CONCAT: case JN_NEG: case JN_POS: case JN_ATTR: case JN_ITEM:
    case JN_SLICE: case JN_CALL: case JN_FILTER: case JN_TEST: return true;
    default: return false;
    }
}

typedef bool visit_fn(jnode *n, void *arg); /* true: that is all */

static bool in_list(jnode *const *list, uint32_t n, visit_fn *visit, void *arg) {
    for (uint32_t i = 0; list && i < n; i++)
        if (list[i] && visit(list[i], arg)) return true;
    return false;
}

static bool in_body(const jbody *body, visit_fn *visit, void *arg) { return in_list(body->node, body->n, visit, arg); }

static bool in_args(const jargnodes *a, visit_fn *visit, void *arg) {
    jnode *const stars[] = {a->star, a->star2};
    for (uint32_t i = 0; i < a->n_kw; i++)
        if (visit(a->kw[i].value, arg)) return true;
    return in_list(a->pos, a->n, visit, arg) || in_list(stars, 2, visit, arg);
}

/* Every node right below n, of expressions and statements. */
static bool each_below(const jnode *n, visit_fn *visit, void *arg) {
    jnode *const one[] = {n->a, n->b, n->c};
    if (in_list(one, 3, visit, arg) || in_list(n->list, n->kind == JN_SLICE ? 3 : n->n, visit, arg) || in_list(n->list2, n->n, visit, arg)) return true;
    if (n->args && in_args(n->args, visit, arg)) return true;
    for (uint32_t i = 0; n->arms && i < n->n; i++)
        if (in_body(&n->arms[i], visit, arg)) return true;
    return (n->sig && in_list(n->sig->dflt, n->sig->n_dflt, visit, arg)) || in_body(&n->body, visit, arg) || in_body(&n->other, visit, arg);
}

typedef struct search {
    bool folded; /* within what jinja2 folds */
    int depth;
    const char *type;
} search;

static bool find_bad_key(jnode *n, void *arg) {
    search *s = arg, below = {s->folded || folds(n->kind), s->depth + 1, NULL};
    bool found = below.depth < MAX_WALK && ((below.folded && bad_key(n, &below.type)) || each_below(n, find_bad_key, &below));
    if (found) s->type = below.type;
    return found;
}

const char *jx_bad_key(const jbody *body) {
    search s = {false, 0, NULL};
    in_body(body, find_bad_key, &s);
    return s.type;
}

static bool mark_folded(jnode *n, void *arg) {
    int below = *(int *)arg + 1;
    if (folds(n->kind) && n->kind != JN_SLICE && jx_is_constant(n, 0)) jx_mark_constant(n);
    else if (below < MAX_WALK) each_below(n, mark_folded, &below);
    return false;
}

void jx_mark_folded(const jbody *body) {
    int depth = 0;
    in_body(body, mark_folded, &depth);
}
