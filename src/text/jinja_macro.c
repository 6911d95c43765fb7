/* Owns macros and call blocks: how arguments meet parameters (jinja2's Macro.__call__, rule by rule), the frame they run in
 * (above it, the frame where the macro was defined), and the special names caller, varargs and kwargs. */
#include "text/jinja_int.h"

#include <stdio.h>

/* Takes the keyword argument of that name out of args; J_MISSING when there is none. */
static jv take_keyword(jrender *r, jargs *args, const jstr *name) {
    for (size_t i = 0; i < args->n_kw && j_charge(r, i % 4 == 3); i++) {
        if (!j_str_eq(args->kw[i].name, (am_str){name->p, name->n})) continue;
        jv v = args->kw[i].v;
        memmove(args->kw + i, args->kw + i + 1, (args->n_kw - i - 1) * sizeof *args->kw);
        args->n_kw--;
        return v;
    }
    return (jv){.t = J_MISSING};
}

static bool leftover(jrender *r, const jmacro *m, const jargs *args) {
    const char *name = m->name ? j_repr_c(r, jv_str(m->name)) : "None";
    if (args->n_kw) {
        for (size_t i = 0; i < args->n_kw; i++)
            if (j_str_eq(args->kw[i].name, AM_STR("caller")))
                return j_fail(r, "TypeError", "macro %s was invoked with two values for the special caller argument. This is most likely a bug.", name);
        return j_fail(r, "TypeError", "macro %s takes no keyword argument %s", name, j_repr_c(r, jv_str(args->kw[0].name)));
    }
    return j_fail(r, "TypeError", "macro %s takes not more than %u argument(s)", name, m->node->sig->n);
}

static bool bind_rest(jrender *r, jmacro *m, jargs *args, jframe *frame, bool found_caller) {
    const jsig *sig = m->node->sig;
    jv v;
    if (sig->uses_caller && !found_caller) {
        v = take_keyword(r, args, r->t->atom[JA_CALLER]);
        if ((v.t == J_MISSING || v.t == J_NONE) && !jv_undef_hint(r, "No caller defined", &v)) return false;
        if (!j_frame_set(r, frame, JA_CALLER, v)) return false;
    }
    if (sig->uses_kwargs) {
        jdict *d = j_dict(r);
        if (!d) return false;
        for (size_t i = 0; i < args->n_kw; i++)
            if (!j_dict_set(r, d, jv_str(args->kw[i].name), args->kw[i].v)) return false;
        if (!j_frame_set(r, frame, JA_KWARGS, (jv){.t = J_DICT, .d = d})) return false;
    } else if (args->n_kw) {
        return leftover(r, m, args);
    }
    if (sig->uses_varargs) {
        size_t n = args->n > sig->n ? args->n - sig->n : 0;
        jlist *l = j_list(r, n);
        if (!l) return false;
        for (size_t i = 0; i < n; i++) l->v[l->n++] = args->pos[sig->n + i];
        if (!j_frame_set(r, frame, JA_VARARGS, (jv){.t = J_TUPLE, .l = l})) return false;
    } else if (args->n > sig->n) {
        return leftover(r, m, args);
    }
    return true;
}

/* Parameters into the frame, in order; defaults are evaluated inside it and see the parameters before them. */
static bool bind(jrender *r, jmacro *m, const jargs *given, jframe *frame) {
    const jsig *sig = m->node->sig;
    jargs args = *given;
    bool found_caller = args.n >= sig->n && sig->explicit_caller;
    jv *value = j_alloc(r, (sig->n + 1) * sizeof *value);
    if (!value || (args.n_kw && !(args.kw = j_alloc(r, args.n_kw * sizeof *args.kw)))) return false;
    if (args.n_kw) memcpy(args.kw, given->kw, args.n_kw * sizeof *args.kw);
    for (uint32_t i = 0; i < sig->n; i++) {
        value[i] = i < args.n ? args.pos[i] : take_keyword(r, &args, r->t->atom[sig->param[i]]);
        if (i >= args.n && sig->param[i] == JA_CALLER) found_caller = true;
    }
    if (!bind_rest(r, m, &args, frame, found_caller)) return false;
    for (uint32_t i = 0; i < sig->n; i++) { /* a default that names a later parameter sees that one, not a variable outside */
        jv v = value[i];
        if (v.t == J_MISSING && !jv_undef_name(r, r->t->atom[sig->param[i]], &v)) return false;
        if (!j_frame_set(r, frame, sig->param[i], v)) return false;
    }
    for (uint32_t i = 0; i < sig->n; i++) {
        if (value[i].t == J_MISSING && i >= sig->n - sig->n_dflt) {
            r->line = m->node->line;
            if (!j_eval(r, sig->dflt[i - (sig->n - sig->n_dflt)], &value[i])) return false;
        } else if (value[i].t == J_MISSING) {
            const jstr *name = r->t->atom[sig->param[i]];
            size_t n = name->n + 40;
            char *hint = j_alloc(r, n);
            if (!hint) return false;
            snprintf(hint, n, "parameter '%.*s' was not provided", (int)name->n, name->p);
            if (!jv_undef_hint(r, hint, &value[i])) return false;
        }
        if (!j_frame_set(r, frame, sig->param[i], value[i])) return false;
    }
    return true;
}

bool j_macro_call(jrender *r, jmacro *m, const jargs *args, jv *out) {
    if (r->calls >= r->limits.max_depth) return j_limit(r, "calls macros more than %u levels deep", r->limits.max_depth);
    jframe *frame = j_alloc(r, sizeof *frame), *outer = r->frame;
    if (!frame) return false;
    frame->up = m->closure;
    uint32_t line = r->line;
    r->calls++;
    r->frame = frame;
    bool ok = bind(r, m, args, frame) && j_capture(r, &m->node->body, frame, out);
    r->frame = outer;
    r->calls--;
    if (ok) r->line = line;
    return ok && (!r->autoescape || j_mark_up(r, out));
}

bool j_run_callblock(jrender *r, const jnode *n) {
    jv f, result;
    jargs args;
    jmacro *caller = j_alloc(r, sizeof *caller);
    if (!caller) return false;
    *caller = (jmacro){n, r->frame, NULL};
    if (!j_eval(r, n->a->a, &f) || !j_eval_args(r, n->a->args, &args)) return false;
    jkw *kw = j_alloc(r, (args.n_kw + 1) * sizeof *kw);
    if (!kw) return false;
    if (args.n_kw) memcpy(kw, args.kw, args.n_kw * sizeof *kw);
    kw[args.n_kw] = (jkw){r->t->atom[JA_CALLER], {.t = J_MACRO, .macro = caller}};
    args.kw = kw;
    args.n_kw++;
    r->line = n->line;
    return j_call(r, f, &args, &result) && j_write_str(r, r->out, result);
}
