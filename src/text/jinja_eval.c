/* Owns the walk over the tree: statements write to r->out, expressions give values. Names live in frames: a loop's body, a
 * macro, a block has one of its own, an if has not; what is set in a frame ends with it, as in jinja2. An error's line is that of the statement,
 * or of the expression that is printed, however many lines these have: jinja2 knows no finer ones. */
#include "text/jinja_int.h"

#include <stdio.h>

bool j_frame_set(jrender *r, jframe *f, uint32_t atom, jv v) {
    for (uint32_t i = 0; i < f->n; i++) {
        if (f->var[i].atom != atom) continue;
        f->var[i].v = v;
        return true;
    }
    if (!j_charge(r, f->n / 16)) return false;
    if (f->n == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 4;
        jvar *var = j_alloc(r, cap * sizeof *var);
        if (!var) return false;
        if (f->n) memcpy(var, f->var, f->n * sizeof *var);
        f->var = var;
        f->cap = cap;
    }
    f->var[f->n++] = (jvar){atom, v};
    return true;
}

bool j_set_var(jrender *r, uint32_t atom, jv v) {
    if (r->frame) return j_frame_set(r, r->frame, atom, v);
    r->top[atom] = v;
    return true;
}

static bool name(jrender *r, uint32_t atom, jv *out) {
    for (const jframe *f = r->frame; f; f = f->up) {
        if (!j_charge(r, f->n / 16)) return false;
        for (uint32_t i = 0; i < f->n; i++) {
            if (f->var[i].atom != atom) continue;
            *out = f->var[i].v;
            return true;
        }
    }
    *out = r->top[atom];
    if (out->t == J_MISSING && atom == JA_SELF) return j_self(r, out);
    if (out->t == J_MISSING && atom == JA_SUPER && r->block) return j_super(r, r->block, out);
    if (out->t == J_MISSING) *out = r->global[atom];
    return out->t != J_MISSING || jv_undef_name(r, r->t->atom[atom], out);
}

static bool unpack(jrender *r, const jnode *target, jv v) {
    jiter it;
    jv item;
    if (v.t != J_STR && v.t != J_LIST && v.t != J_TUPLE && v.t != J_DICT && v.t != J_VIEW && v.t != J_RANGE && v.t != J_GEN && v.t != J_UNDEF)
        return j_fail(r, "TypeError", "cannot unpack non-iterable %s object", j_type_name(v));
    if (!j_iter(r, v, &it)) return false;
    for (uint32_t i = 0; i < target->n; i++) {
        int got = j_next(r, &it, &item);
        if (got < 0) return false;
        if (!got) return j_fail(r, "ValueError", "not enough values to unpack (expected %u, got %u)", target->n, i);
        if (!j_assign(r, target->list[i], item)) return false;
    }
    int got = j_next(r, &it, &item);
    if (got > 0) return j_fail(r, "ValueError", "too many values to unpack (expected %u)", target->n);
    return got == 0;
}

bool j_assign(jrender *r, const jnode *target, jv v) {
    jv ns;
    switch (target->kind) {
    case JN_NAME: return j_set_var(r, target->atom, v);
    case JN_NSREF:
        if (!name(r, target->atom, &ns)) return false;
        if (ns.t != J_NAMESPACE) return j_fail(r, "TemplateRuntimeError", "cannot assign attribute on non-namespace object");
        return j_dict_set(r, ns.d, target->value, v);
    case JN_TUPLE: {
        if (!j_enter(r)) return false;
        bool ok = unpack(r, target, v);
        j_leave(r);
        return ok;
    }
    default: return j_fail(r, "TemplateRuntimeError", "can't assign to an expression");
    }
}

static bool list_of(jrender *r, const jnode *n, jv *out) {
    jlist *l = j_list(r, n->n);
    if (!l) return false;
    for (uint32_t i = 0; i < n->n; i++)
        if (!j_eval(r, n->list[i], &l->v[l->n++])) return false;
    *out = (jv){.t = n->kind == JN_LIST ? J_LIST : J_TUPLE, .l = l};
    return true;
}

static bool dict_of(jrender *r, const jnode *n, jv *out) {
    jdict *d = j_dict(r);
    jlist *all = d ? j_list(r, 2 * (size_t)n->n) : NULL; /* keys meet their hash only when all is evaluated, as in Python */
    if (!all) return false;
    for (uint32_t i = 0; i < n->n; i++)
        if (!j_eval(r, n->list[i], &all->v[2 * i]) || !j_eval(r, n->list2[i], &all->v[2 * i + 1])) return false;
    for (uint32_t i = 0; i < n->n; i++)
        if (!j_dict_set(r, d, all->v[2 * i], all->v[2 * i + 1])) return false;
    *out = (jv){.t = J_DICT, .d = d};
    return true;
}

static bool cond(jrender *r, const jnode *n, jv *out) {
    jv test;
    if (!j_eval(r, n->a, &test)) return false;
    if (jv_truth(test)) return j_eval(r, n->b, out);
    if (n->c) return j_eval(r, n->c, out);
    char *hint = j_alloc(r, 120);
    if (!hint) return false;
    snprintf(hint, 120, "the inline if-expression on line %u evaluated to false and no else section was defined.", n->line);
    return jv_undef_hint(r, hint, out);
}

static bool logic(jrender *r, const jnode *n, jv *out) {
    for (uint32_t i = 0; i < n->n; i++) {
        if (!j_eval(r, n->list[i], out)) return false;
        if (jv_truth(*out) == (n->kind == JN_OR)) return true;
    }
    return true;
}

static bool compare(jrender *r, const jnode *n, jv *out) {
    jv left, right;
    bool yes = true;
    if (!j_eval(r, n->list[0], &left)) return false;
    for (uint32_t i = 1; yes && i < n->n; i++, left = right) {
        if (!j_eval(r, n->list[i], &right)) return false;
        if (!j_compare(r, (jop)n->ops[i - 1], left, right, &yes)) return false;
    }
    *out = jv_bool(yes);
    return true;
}

/* `-1 ** x` with a constant base: jinja2 folds that to the constant -1 and writes Python's `-1 ** x`, in which ** binds tighter than the sign. */
static bool signed_power(jrender *r, jv base, jv exponent, jv *out) {
    return j_negate(r, base, true, &base) && j_arith(r, JO_POW, base, exponent, out) && j_negate(r, *out, true, out);
}

static bool arith(jrender *r, const jnode *n, jv *out) {
    jv right;
    if (!j_eval(r, n->list[0], out)) return false;
    for (uint32_t i = 1; i < n->n; i++) {
        if (!j_eval(r, n->list[i], &right)) return false;
        if (i == 1 && n->flag && (out->t == J_INT || out->t == J_FLOAT) && signbit(jv_to_float(*out))) {
            if (!signed_power(r, *out, right, out)) return false;
            continue;
        }
        if (!j_arith(r, (jop)n->ops[i - 1], *out, right, out)) return false;
    }
    return true;
}

static bool escapes(const jrender *r, const jnode *n) { return n->escape == JE_ON || (n->escape == JE_ASK && r->autoescape); }

static bool concat(jrender *r, const jnode *n, jv *out) {
    const jstr *all = NULL, *s;
    if (n->escape == JE_ON) {
        jlist *parts = j_list(r, n->n);
        if (!parts) return false;
        for (uint32_t i = 0; i < n->n; i++)
            if (!j_eval(r, n->list[i], &parts->v[parts->n++])) return false;
        return j_markup_join(r, parts, out);
    }
    for (uint32_t i = 0; i < n->n; i++) {
        jv v;
        if (!j_eval(r, n->list[i], &v) || !j_str_of(r, v, &s) || !(all = all ? j_str_concat(r, all, s) : s)) return false;
    }
    return j_markup(r, all, false, out);
}

static bool member(jrender *r, const jnode *n, jv *out) {
    jv obj, key;
    if (!j_eval(r, n->a, &obj)) return false;
    if (n->kind == JN_ATTR) {
        return j_getattr(r, obj, n->value.s, out);
    }
    if (n->kind == JN_ITEM) {
        if (!j_eval(r, n->b, &key)) return false;
        return j_getitem(r, obj, key, out);
    }
    jv part[3] = {{.t = J_MISSING}, {.t = J_MISSING}, {.t = J_MISSING}};
    for (int i = 0; i < 3; i++)
        if (n->list[i] && !j_eval(r, n->list[i], &part[i])) return false;
    if (n->flag) return j_const_slice(r, obj, part, out);
    return j_slice(r, obj, part, out);
}

static bool call(jrender *r, const jnode *n, jv *out) {
    jv f;
    jargs args;
    if (!j_eval(r, n->a, &f) || !j_eval_args(r, n->args, &args)) return false;
    return j_call(r, f, &args, out);
}

static bool test(jrender *r, const jnode *n, jv *out) {
    jv subject;
    jargs args;
    bool yes;
    if (!j_eval(r, n->a, &subject) || !j_eval_args(r, n->args, &args)) return false;
    if (!n->what) return j_fail(r, "TemplateRuntimeError", "No test named %s found.", j_repr_c(r, n->value));
    if (!j_apply_test(r, n->what, subject, &args, &yes)) return false;
    *out = jv_bool(yes);
    return true;
}

static bool one_operand(jrender *r, const jnode *n, jv *out) {
    jv v;
    if (!j_eval(r, n->a, &v)) return false;
    if (n->kind == JN_FILTER) return j_apply_filter(r, n, v, out);
    if (n->kind != JN_NOT) return j_negate(r, v, n->kind == JN_NEG, out);
    *out = jv_bool(!jv_truth(v));
    return true;
}

static bool expression(jrender *r, const jnode *n, jv *out) {
    switch (n->kind) {
    case JN_TUPLE: case JN_LIST: return list_of(r, n, out);
    case JN_DICT: return dict_of(r, n, out);
    case JN_COND: return cond(r, n, out);
    case JN_AND: case JN_OR: return logic(r, n, out);
    case JN_COMPARE: return compare(r, n, out);
    case JN_ARITH: return arith(r, n, out);
    case JN_CONCAT: return concat(r, n, out);
    case JN_ATTR: case JN_ITEM: case JN_SLICE: return member(r, n, out);
    case JN_CALL: return call(r, n, out);
    case JN_TEST: return test(r, n, out);
    default: return one_operand(r, n, out);
    }
}

bool j_eval(jrender *r, const jnode *n, jv *out) {
    if (n->kind == JN_CONST) {
        *out = n->value;
        return true;
    }
    if (!j_enter(r)) return false;
    bool ok = n->kind == JN_NAME ? name(r, n->atom, out) : expression(r, n, out);
    j_leave(r);
    return ok;
}

/* ---- statements ---- */

static bool print(jrender *r, const jnode *n) {
    for (uint32_t i = 0; i < n->n; i++) {
        jv v;
        r->line = n->list[i]->line;
        if (!j_eval(r, n->list[i], &v) || !(escapes(r, n) ? j_write_escaped(r, r->out, v) : j_write_str(r, r->out, v))) return false;
    }
    return true;
}

/* The filters of a set or filter block, innermost first; they nest as far as the source does. */
static bool block_filters(jrender *r, const jnode *n, jv *v) {
    if (!j_enter(r)) return false;
    bool ok = (!n->a || block_filters(r, n->a, v)) && j_apply_filter(r, n, *v, v);
    j_leave(r);
    return ok;
}

static bool set(jrender *r, const jnode *n) {
    jv v;
    const jstr *s;
    if (n->kind == JN_SET) return j_eval(r, n->b, &v) && j_assign(r, n->a, v);
    jframe *frame = j_alloc(r, sizeof *frame);
    if (!frame) return false;
    frame->up = r->frame;
    if (!j_capture(r, &n->body, frame, &v)) return false;
    if (r->flow) return true;
    if (n->b && ((escapes(r, n) && !j_mark_up(r, &v)) || !block_filters(r, n->b, &v))) return false;
    if (r->autoescape && (!j_str_of(r, v, &s) || !j_markup(r, s, true, &v))) return false;
    return j_assign(r, n->a, v);
}

static bool filter_block(jrender *r, const jnode *n) {
    jv v;
    jframe *frame = j_alloc(r, sizeof *frame);
    if (!frame) return false;
    frame->up = r->frame;
    if (!j_capture(r, &n->body, frame, &v)) return false;
    if (escapes(r, n) && !j_mark_up(r, &v)) return false;
    return r->flow || (block_filters(r, n->b, &v) && j_write_str(r, r->out, v));
}

static bool branch(jrender *r, const jnode *n) {
    for (uint32_t i = 0; i < n->n; i++) {
        jv v;
        if (i) r->line = n->list[i]->line;
        if (!j_eval(r, n->list[i], &v)) return false;
        if (jv_truth(v)) return j_run(r, &n->arms[i]);
    }
    return j_run(r, &n->other);
}

static bool scope(jrender *r, const jnode *n) {
    jframe *frame = j_alloc(r, sizeof *frame), *outer = r->frame;
    jv v;
    bool escape = r->autoescape;
    if (!frame) return false;
    if (n->kind == JN_SCOPE && n->a) {
        if (!j_eval(r, n->a, &v)) return false;
        r->autoescape = jv_truth(v);
    }
    frame->up = outer;
    for (uint32_t i = 0; n->kind == JN_WITH && i < n->n; i++) {
        bool ok = j_eval(r, n->list2[i], &v);
        r->frame = frame;
        ok = ok && j_assign(r, n->list[i], v);
        r->frame = outer;
        if (!ok) return false;
    }
    r->frame = frame;
    bool ok = j_run(r, &n->body);
    r->frame = outer;
    r->autoescape = escape;
    return ok;
}

static bool macro(jrender *r, const jnode *n) {
    jmacro *m = j_alloc(r, sizeof *m);
    if (!m) return false;
    *m = (jmacro){n, r->frame, r->t->atom[n->atom]};
    return j_set_var(r, n->atom, (jv){.t = J_MACRO, .macro = m});
}

static bool statement(jrender *r, const jnode *n) {
    r->line = n->line;
    switch (n->kind) {
    case JN_PRINT: return print(r, n);
    case JN_SET: case JN_SETBLOCK: return set(r, n);
    case JN_IF: return branch(r, n);
    case JN_FOR: return j_run_for(r, n);
    case JN_MACRO: return macro(r, n);
    case JN_CALLBLOCK: return j_run_callblock(r, n);
    case JN_FILTERBLOCK: return filter_block(r, n);
    case JN_WITH: case JN_SCOPE: return scope(r, n);
    case JN_BLOCK: return j_run_block(r, n);
    case JN_BREAK: r->flow = JF_BREAK; return true;
    case JN_CONTINUE: r->flow = JF_CONTINUE; return true;
    default: return j_fail(r, "TypeError", "no loader for this environment specified");
    }
}

bool j_run(jrender *r, const jbody *body) {
    for (uint32_t i = 0; i < body->n && !r->flow; i++) {
        const jnode *n = body->node[i];
        if (n->kind == JN_DATA) {
            if (!j_charge(r, 1) || !j_out_str(r, r->out, n->value.s)) return false;
            continue;
        }
        if (!j_enter(r)) return false;
        bool ok = statement(r, n);
        j_leave(r);
        if (!ok) return false;
    }
    return true;
}
