/* Owns calls: evaluating arguments, fitting them to a built-in's parameters as Python does, and running the three kinds of
 * callable things: built-ins, macros (with the bodies of call blocks) and captures of what a body prints. */
#include "text/jinja_int.h"

#include <stdio.h>

static bool star_args(jrender *r, jv v, jargs *out) {
    jlist *all;
    if (!j_to_list(r, v, &all)) return false;
    jv *pos = j_alloc(r, (out->n + all->n) * sizeof *pos);
    if (!pos) return false;
    if (out->n) memcpy(pos, out->pos, out->n * sizeof *pos);
    if (all->n) memcpy(pos + out->n, all->v, all->n * sizeof *pos);
    out->pos = pos;
    out->n += all->n;
    return true;
}

static bool star2_args(jrender *r, jv v, jargs *out) {
    if (v.t != J_DICT) return j_fail(r, "TypeError", "argument after ** must be a mapping, not %s", j_type_name(v));
    jkw *kw = j_alloc(r, (out->n_kw + v.d->n) * sizeof *kw);
    if (!kw) return false;
    if (out->n_kw) memcpy(kw, out->kw, out->n_kw * sizeof *kw);
    out->kw = kw;
    for (size_t i = 0; i < v.d->n; i++) {
        if (v.d->e[i].key.t != J_STR) return j_fail(r, "TypeError", "keywords must be strings");
        kw[out->n_kw++] = (jkw){v.d->e[i].key.s, v.d->e[i].value};
    }
    return true;
}

bool j_eval_args(jrender *r, const jargnodes *n, jargs *out) {
    *out = (jargs){0};
    if (!n) return true;
    jv v;
    if (n->n && !(out->pos = j_alloc(r, n->n * sizeof *out->pos))) return false;
    for (; out->n < n->n; out->n++)
        if (!j_eval(r, n->pos[out->n], &out->pos[out->n])) return false;
    if (n->n_kw && !(out->kw = j_alloc(r, n->n_kw * sizeof *out->kw))) return false;
    for (; out->n_kw < n->n_kw; out->n_kw++) {
        out->kw[out->n_kw].name = n->kw[out->n_kw].name;
        if (!j_eval(r, n->kw[out->n_kw].value, &out->kw[out->n_kw].v)) return false;
    }
    if (n->star && (!j_eval(r, n->star, &v) || !star_args(r, v, out))) return false;
    return !n->star2 || (j_eval(r, n->star2, &v) && star2_args(r, v, out));
}

/* The number of the parameter called `name` in "one two three", -1 when there is none; *count: how many there are. */
static int parameter(const char *params, am_str name, int *count) {
    int found = -1;
    *count = 0;
    for (const char *p = params; p && *p; (*count)++) {
        size_t n = strcspn(p, " ");
        if (name.n == n && memcmp(p, name.p, n) == 0) found = *count;
        p += n + (p[n] == ' ');
    }
    return found;
}

/* Whether it is a function written in Python, not a method of a C type. */
static bool is_python(const jfunc *f) {
    static const char *const begins[] = {"do_", "sync_do_", "test_", "escape", "soft_str", "raise_exception", "strftime_now"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (strncmp(f->pyname, begins[i], strlen(begins[i])) == 0) return true;
    return false;
}

/* Python's words for a wrong number of arguments: its own functions count the subject in, methods of C types do not. */
static bool wrong_count(jrender *r, const jfunc *f, int count, size_t n) {
    bool python = is_python(f);
    int more = f->is_global ? 0 : 1 + f->hidden, least = f->n_required + more, most = count + more, got = (int)n + more;
    if (python && least == most)
        return j_fail(r, "TypeError", "%s() takes %d positional argument%s but %d were given", f->pyname, most, most == 1 ? "" : "s", got);
    if (python) return j_fail(r, "TypeError", "%s() takes from %d to %d positional arguments but %d were given", f->pyname, least, most, got);
    const char *dot = strrchr(f->pyname, '.');
    if (count == 0) return j_fail(r, "TypeError", "%s() takes no arguments (%zu given)", f->pyname, n);
    if (count == 1 && f->n_required == 1 && dot)
        return j_fail(r, "TypeError", "%s() takes exactly one argument (%zu given)", f->pyname, n);
    int bound = n > (size_t)count ? count : f->n_required;
    if (!dot && f->no_keywords) return j_fail(r, "TypeError", "%s expected %d arguments, got %zu", f->pyname, count + 1, n + 1);
    return j_fail(r, "TypeError", "%s expected at %s %d argument%s, got %zu", dot ? dot + 1 : f->pyname, n > (size_t)count ? "most" : "least",
                  bound, bound == 1 ? "" : "s", n);
}

/* "missing 2 required positional arguments: 'old' and 'new'" */
static bool missing(jrender *r, const jfunc *f, const jv arg[JP_MAX]) {
    char names[100] = "";
    size_t used = 0;
    int n = 0;
    const char *p = f->params;
    for (int i = 0; i < f->n_required; i++) {
        size_t len = strcspn(p, " ");
        if (arg[i].t == J_MISSING && used < 60) used += (size_t)snprintf(names + used, 100 - used, "%s'%.*s'", n++ ? " and " : "", (int)len, p);
        p += len + (p[len] == ' ');
    }
    return j_fail(r, "TypeError", "%s() missing %d required positional argument%s: %s", f->pyname, n, n == 1 ? "" : "s", names);
}

bool j_bind(jrender *r, const jfunc *f, const jargs *args, jv arg[JP_MAX]) {
    int count, n_given = 0;
    bool python = is_python(f);
    parameter(f->params, AM_STR("-"), &count);
    for (int i = 0; i < JP_MAX; i++) arg[i] = (jv){.t = J_MISSING};
    for (size_t i = 0; python && i < args->n_kw; i++)
        if (parameter(f->params, (am_str){args->kw[i].name->p, args->kw[i].name->n}, &count) < 0)
            return j_fail(r, "TypeError", "%s() got an unexpected keyword argument %s", f->pyname, j_repr_c(r, jv_str(args->kw[i].name)));
    if (args->n > (size_t)count) return wrong_count(r, f, count, args->n);
    for (size_t i = 0; i < args->n; i++) arg[i] = args->pos[i];
    if (f->no_keywords && args->n_kw) return j_fail(r, "TypeError", "%s() takes no keyword arguments", f->pyname);
    for (size_t i = 0; i < args->n_kw; i++) {
        am_str name = {args->kw[i].name->p, args->kw[i].name->n};
        int at = parameter(f->params, name, &count);
        if (at < 0)
            return j_fail(r, "TypeError", "%s() got an unexpected keyword argument %s", f->pyname, j_repr_c(r, jv_str(args->kw[i].name)));
        if (arg[at].t != J_MISSING)
            return j_fail(r, "TypeError", "%s() got multiple values for argument %s", f->pyname, j_repr_c(r, jv_str(args->kw[i].name)));
        arg[at] = args->kw[i].v;
    }
    for (int i = 0; i < f->n_required; i++) n_given += arg[i].t != J_MISSING;
    if (n_given == f->n_required) return true;
    return python ? missing(r, f, arg) : wrong_count(r, f, count, args->n);
}

bool j_call_func(jrender *r, const jfunc *f, jv self, const jargs *args, jv *out) {
    jv arg[JP_MAX];
    if (f->raw) return f->raw(r, self, args, out);
    return j_bind(r, f, args, arg) && f->fn(r, self, arg, out);
}

static bool call_joiner(jrender *r, jjoiner *j, jv *out) {
    const jstr *empty = j_str_c(r, "");
    *out = j->used ? j->sep : jv_str(empty);
    j->used = true;
    return empty != NULL;
}

static bool call_method(jrender *r, const jmethod *m, const jargs *args, jv *out) {
    return j_call_func(r, m->def, m->self, args, out) && (m->self.t != J_STR || !m->self.s->markup || m->def->plain || j_mark_up(r, out));
}

bool j_call(jrender *r, jv f, const jargs *args, jv *out) {
    switch (f.t) {
    case J_FUNC: return j_call_func(r, f.func, jv_none, args, out);
    case J_METHOD: return call_method(r, f.method, args, out);
    case J_MACRO: return j_macro_call(r, f.macro, args, out);
    case J_LOOP:
        if (args->n != 1) return j_fail(r, "TypeError", "LoopContext.__call__() takes 2 positional arguments but %zu were given", args->n + 1);
        return j_loop_call(r, f.loop, args->pos[0], out);
    case J_JOINER: return call_joiner(r, f.joiner, out);
    case J_BLOCK:
        if (args->n || args->n_kw) return j_fail(r, "TypeError", "BlockReference.__call__() takes 1 positional argument but %zu were given", args->n + args->n_kw + 1);
        return j_call_block(r, f.block, out);
    case J_UNDEF: return j_undefined_error(r, f);
    default: return j_fail(r, "TypeError", "'%s' object is not callable", j_type_name(f));
    }
}

bool j_capture(jrender *r, const jbody *body, jframe *frame, jv *out) {
    jout text, *outer = r->out;
    jframe *outer_frame = r->frame;
    j_out_init(r, &text);
    r->out = &text;
    r->frame = frame;
    bool ok = j_run(r, body);
    r->frame = outer_frame;
    r->out = outer;
    if (ok) return j_out_value(r, &text, out);
    j_out_free(&text);
    return false;
}
