/* Owns the functions every template can call: jinja2's range, dict, namespace, cycler and joiner, and what transformers adds,
 * raise_exception and strftime_now. */
#include "text/jinja_int.h"

#include <stdio.h>
#include <time.h>

const jfunc *j_find(const jfunc *table, size_t n, am_str name) {
    for (size_t i = 0; i < n; i++)
        if (am_str_eq(name, am_str_of(table[i].name))) return &table[i];
    return NULL;
}

bool j_operand_int(jrender *r, jv v, int64_t *out) { return v.t == J_UNDEF ? j_undefined_error(r, v) : j_arg_int(r, v, out); }

bool j_times(jrender *r, jv v, int64_t *out) {
    if (v.t != J_UNDEF && !jv_is_int(v)) return j_fail(r, "TypeError", "can't multiply sequence by non-int of type '%s'", j_type_name(v));
    return j_operand_int(r, v, out);
}

bool j_arg_int(jrender *r, jv v, int64_t *out) {
    if (!jv_is_int(v)) return j_fail(r, "TypeError", "'%s' object cannot be interpreted as an integer", j_type_name(v));
    *out = jv_to_int(v);
    return true;
}

enum { MAX_RANGE = 100000 }; /* the sandbox's */

static bool range(jrender *r, jv self, const jargs *args, jv *out) {
    (void)self;
    int64_t v[3] = {0, 0, 1};
    if (args->n_kw) return j_fail(r, "TypeError", "range() takes no keyword arguments");
    if (args->n == 0 || args->n > 3)
        return j_fail(r, "TypeError", "range expected at %s %d argument%s, got %zu", args->n ? "most" : "least", args->n ? 3 : 1,
                      args->n ? "s" : "", args->n);
    for (size_t i = 0; i < args->n; i++)
        if (!j_arg_int(r, args->pos[i], &v[args->n == 1 ? 1 : i])) return false;
    if (v[2] == 0) return j_fail(r, "ValueError", "range() arg 3 must not be zero");
    __int128 span = v[2] > 0 ? (__int128)v[1] - v[0] : (__int128)v[0] - v[1], step = v[2] > 0 ? v[2] : -(__int128)v[2];
    __int128 n = span > 0 ? (span - 1) / step + 1 : 0;
    if (n > MAX_RANGE)
        return j_fail(r, "OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    jrange *p = j_alloc(r, sizeof *p);
    if (!p) return false;
    *p = (jrange){v[0], v[1], v[2], (int64_t)n};
    *out = (jv){.t = J_RANGE, .range = p};
    return true;
}

/* dict(mapping or pairs, key=value ...) into d */
static bool fill_dict(jrender *r, const jargs *args, jdict *d, const char *name) {
    if (args->n > 1) return j_fail(r, "TypeError", "%s expected at most 1 argument, got %zu", name, args->n);
    jiter it, pair;
    jv item, kv[3];
    int got = 0;
    if (args->n && args->pos[0].t == J_DICT) {
        const jdict *from = args->pos[0].d;
        for (size_t i = 0; i < from->n; i++)
            if (!j_dict_set(r, d, from->e[i].key, from->e[i].value)) return false;
    } else if (args->n) {
        if (!j_iter(r, args->pos[0], &it)) return false;
        for (size_t i = 0; (got = j_next(r, &it, &item)) > 0; i++) {
            int n = 0;
            if (item.t == J_NONE || jv_is_number(item)) return j_fail(r, "TypeError", "cannot convert dictionary update sequence element #%zu to a sequence", i);
            if (!j_iter(r, item, &pair)) return false;
            while (n < 3 && (got = j_next(r, &pair, &kv[n])) > 0) n++;
            if (got < 0) return false;
            if (n != 2)
                return j_fail(r, "ValueError", "dictionary update sequence element #%zu has length %d; 2 is required", i, n);
            if (!j_dict_set(r, d, kv[0], kv[1])) return false;
        }
        if (got < 0) return false;
    }
    for (size_t i = 0; i < args->n_kw; i++)
        if (!j_dict_set(r, d, jv_str(args->kw[i].name), args->kw[i].v)) return false;
    return true;
}

static bool dict(jrender *r, jv self, const jargs *args, jv *out) {
    (void)self;
    jdict *d = j_dict(r);
    *out = (jv){.t = J_DICT, .d = d};
    return d && fill_dict(r, args, d, "dict");
}

static bool namespace_(jrender *r, jv self, const jargs *args, jv *out) {
    (void)self;
    jdict *d = j_dict(r);
    *out = (jv){.t = J_NAMESPACE, .d = d};
    return d && fill_dict(r, args, d, "dict");
}

static bool cycler(jrender *r, jv self, const jargs *args, jv *out) {
    (void)self;
    if (args->n == 0) return j_fail(r, "RuntimeError", "at least one item has to be provided");
    jcycler *c = j_alloc(r, sizeof *c);
    if (!c || !(c->items = j_list(r, args->n))) return false;
    c->pos = 0;
    for (size_t i = 0; i < args->n; i++) c->items->v[c->items->n++] = args->pos[i];
    *out = (jv){.t = J_CYCLER, .cycler = c};
    return true;
}

static bool cycler_next(jrender *r, jv self, jv *arg, jv *out) {
    (void)r, (void)arg;
    *out = self.cycler->items->v[self.cycler->pos];
    self.cycler->pos = (self.cycler->pos + 1) % self.cycler->items->n;
    return true;
}

static bool cycler_reset(jrender *r, jv self, jv *arg, jv *out) {
    (void)r, (void)arg;
    self.cycler->pos = 0;
    *out = jv_none;
    return true;
}

const jfunc j_cycler_methods[2] = {{.name = "next", .pyname = "Cycler.next", .fn = cycler_next},
                                   {.name = "reset", .pyname = "Cycler.reset", .fn = cycler_reset}};

static bool joiner(jrender *r, jv self, jv *arg, jv *out) {
    (void)self;
    jjoiner *j = j_alloc(r, sizeof *j);
    const jstr *comma = j_str_c(r, ", ");
    if (!j || !comma) return false;
    *j = (jjoiner){arg[0].t == J_MISSING ? jv_str(comma) : arg[0], false};
    *out = (jv){.t = J_JOINER, .joiner = j};
    return true;
}

static bool raise_exception(jrender *r, jv self, jv *arg, jv *out) {
    (void)self, (void)out;
    const jstr *s;
    return j_str_of(r, arg[0], &s) && j_raise(r, (am_str){s->p, s->n});
}

static bool lipsum(jrender *r, jv self, const jargs *args, jv *out) {
    (void)self, (void)args, (void)out;
    return j_fail(r, "NotImplementedError", "lipsum makes random text, and equal requests must make equal prompts");
}

static bool strftime_now(jrender *r, jv self, jv *arg, jv *out) {
    (void)self;
    if (arg[0].t != J_STR) return j_fail(r, "TypeError", "strftime() argument 1 must be str, not %s", j_type_name(arg[0]));
    char format[256], text[1024];
    struct tm tm;
    time_t now = (time_t)r->now_s;
    size_t used = 0;
    for (size_t i = 0; i < arg[0].s->n; i++) { /* Python's time has no zone, and counts microseconds */
        char c = arg[0].s->p[i], next = i + 1 < arg[0].s->n ? arg[0].s->p[i + 1] : 0;
        if (used + 8 > sizeof format) return j_limit(r, "formats a date with more than %zu bytes", sizeof format);
        if (c != '%' || !strchr("zZf%", next) || !next) {
            format[used++] = c;
            continue;
        }
        if (next == '%' || next == 'f') used += (size_t)snprintf(format + used, 8, next == '%' ? "%%%%" : "000000");
        i++;
    }
    format[used] = 0;
    size_t n = format[0] && localtime_r(&now, &tm) ? strftime(text, sizeof text, format, &tm) : 0;
    size_t bad;
    if (!j_utf8_valid((am_str){text, n}, &bad)) n = bad;
    const jstr *s = j_str_new(r, (am_str){text, n}, j_str_is_input(arg[0].s));
    if (!s) return false;
    *out = jv_str(s);
    return true;
}

static const jfunc globals[] = {
    {.name = "range", .pyname = "range", .raw = range},
    {.name = "dict", .pyname = "dict", .raw = dict},
    {.name = "namespace", .pyname = "Namespace", .raw = namespace_},
    {.name = "lipsum", .pyname = "generate_lorem_ipsum", .raw = lipsum},
    {.name = "cycler", .pyname = "Cycler", .raw = cycler},
    {.name = "joiner", .pyname = "Joiner.__init__", .fn = joiner, .params = "sep"},
    {.name = "raise_exception", .pyname = "raise_exception", .fn = raise_exception, .params = "message", .n_required = 1, .is_global = true},
    {.name = "strftime_now", .pyname = "strftime_now", .fn = strftime_now, .params = "format", .n_required = 1, .is_global = true},
};

bool j_set_globals(jrender *r) {
    for (uint32_t i = 0; i < r->t->n_atom; i++) {
        if (r->global[i].t != J_MISSING) continue; /* the context comes first */
        const jfunc *f = j_find(globals, sizeof globals / sizeof *globals, (am_str){r->t->atom[i]->p, r->t->atom[i]->n});
        if (f) r->global[i] = (jv){.t = J_FUNC, .func = f};
    }
    return true;
}
