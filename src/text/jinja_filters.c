/* Owns the filters on single values (numbers, defaults, tojson, format) and the table's front door; those on text are in
 * jinja_textfilters.c, those on sequences in jinja_seqfilters.c. */
#include "text/jinja_int.h"

#include <errno.h>
#include <stdio.h>

static bool given(jv v) { return v.t != J_MISSING; }
static bool flag(jv v) { return given(v) && jv_truth(v); }

static bool f_default(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *empty = NULL;
    if (v.t != J_UNDEF && !(flag(arg[1]) && !jv_truth(v))) {
        *out = v;
        return true;
    }
    if (!given(arg[0]) && !(empty = j_str_c(r, ""))) return false;
    *out = given(arg[0]) ? arg[0] : jv_str(empty);
    return true;
}

static bool f_length(jrender *r, jv v, jv *arg, jv *out) {
    int64_t n;
    (void)arg;
    if (!jv_length(r, v, &n)) return false;
    *out = jv_int(n);
    return true;
}

static bool f_string(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    (void)arg;
    if (!j_str_of(r, v, &s)) return false;
    *out = jv_str(s);
    return true;
}

static bool f_abs(jrender *r, jv v, jv *arg, jv *out) {
    (void)arg;
    if (v.t == J_UNDEF || !jv_is_number(v)) return j_fail(r, "TypeError", "bad operand type for abs(): '%s'", j_type_name(v));
    return j_negate(r, v, jv_to_float(v) < 0 || (v.t == J_FLOAT && signbit(v.f)), out);
}

/* Text as Python's float() or int() reads it: stripped, '_' between digits dropped. */
static bool number_text(const jstr *s, char out[64]) {
    size_t begin = 0, end = s->n, n = 0, used = 1;
    while (begin < end && j_is_space(j_decode(s->p + begin, end - begin, &used))) begin += used;
    while (end > begin) {
        size_t last = end - 1;
        while (last > begin && (s->p[last] & 0xc0) == 0x80) last--;
        if (!j_is_space(j_decode(s->p + last, end - last, &used))) break;
        end = last;
    }
    for (size_t i = begin; i < end; i += used) {
        int32_t wide = j_decode(s->p + i, end - i, &used);
        if (wide >= 0x80 && !j_is_decimal(wide)) return false;
        char c = wide < 0x80 ? (char)wide : (char)('0' + j_decimal_value(wide));
        if (c == '_') {
            bool before = i > begin && s->p[i - 1] != '_' && s->p[i - 1] != '+' && s->p[i - 1] != '-' && s->p[i - 1] != '.';
            bool after = i + 1 < end && j_is_decimal(j_decode(s->p + i + 1, end - i - 1, &used));
            used = 1;
            if (!before || !after) return false;
            continue;
        }
        if (n == 63 || (unsigned char)c < 0x20) return false;
        out[n++] = c;
    }
    out[n] = 0;
    return n > 0;
}

static bool parse_float(const jstr *s, double *out) {
    char text[64], *end;
    if (!number_text(s, text)) return false;
    const char *p = text + (*text == '+' || *text == '-');
    static const char *const words[] = {"inf", "infinity", "nan"};
    bool word = false;
    for (int i = 0; i < 3; i++) word |= strcasecmp(p, words[i]) == 0;
    if (!word && strspn(p, "0123456789.eE+-") != strlen(p)) return false;
    *out = strtod(text, &end);
    return *end == 0 && end != text;
}

static bool parse_int(jrender *r, const jstr *s, int base, jv *out, bool *ok) {
    char text[64], *end;
    *ok = false;
    if (!number_text(s, text)) return true;
    const char *p = text + (*text == '+' || *text == '-');
    char kind = p[0] == '0' ? (char)(p[1] | 32) : 0;
    int of_prefix = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    bool prefixed = of_prefix && (base == 0 || base == of_prefix);
    if (base == 0 && !prefixed && p[0] == '0' && strspn(p, "0") != strlen(p)) return true;
    char digits[66];
    snprintf(digits, sizeof digits, "%s%s", *text == '-' ? "-" : "", p + (prefixed ? 2 : 0));
    if (digits[*digits == '-'] == '+' || digits[*digits == '-'] == '-' || digits[*digits == '-'] == ' ') return true;
    errno = 0;
    long long i = strtoll(digits, &end, prefixed ? of_prefix : base ? base : 10);
    if (*end || end == digits || !digits[*digits == '-']) return true;
    if (errno) return j_fail(r, "OverflowError", "integer does not fit 64 bits");
    *out = jv_int(i);
    *ok = true;
    return true;
}

static bool float_to_int(jrender *r, double f, jv *out, bool *ok) {
    *ok = false;
    if (isnan(f)) return true;
    if (isinf(f)) return j_fail(r, "OverflowError", "cannot convert float infinity to integer");
    if (f < -0x1p63 || f >= 0x1p63) return j_fail(r, "OverflowError", "integer does not fit 64 bits");
    *out = jv_int((int64_t)f);
    *ok = true;
    return true;
}

bool j_python_number(jrender *r, bool as_float, jv v, jv *out) {
    bool ok = false;
    double f = 0;
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    if (as_float && v.t == J_STR && !parse_float(v.s, &f)) return j_fail(r, "ValueError", "could not convert string to float: %s", j_repr_c(r, v));
    if (!as_float && v.t == J_STR && (!parse_int(r, v.s, 10, out, &ok) || !ok))
        return j_fail(r, "ValueError", "invalid literal for int() with base 10: %s", j_repr_c(r, v));
    if (v.t != J_STR && !jv_is_number(v))
        return j_fail(r, "TypeError", as_float ? "float() argument must be a string or a real number, not '%s'" : "int() argument must be a string, a bytes-like object or a real number, not '%s'",
                      j_type_name(v));
    if (as_float) *out = jv_float(v.t == J_STR ? f : jv_to_float(v));
    else if (jv_is_int(v)) *out = jv_int(jv_to_int(v));
    else if (v.t == J_FLOAT) return float_to_int(r, v.f, out, &ok) && (ok || j_fail(r, "ValueError", "cannot convert float NaN to integer"));
    return true;
}

static bool f_int(jrender *r, jv v, jv *arg, jv *out) {
    int64_t base = 10;
    bool ok = false;
    double f;
    *out = given(arg[0]) ? arg[0] : jv_int(0);
    bool no_base = given(arg[1]) && !jv_is_int(arg[1]); /* a TypeError, which jinja2 catches */
    if (given(arg[1]) && !no_base) base = jv_to_int(arg[1]);
    if (base < 0 || base == 1 || base > 36) base = 10;
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    if (v.t == J_STR) {
        if (!no_base && !parse_int(r, v.s, (int)base, out, &ok)) return false;
        return ok || !parse_float(v.s, &f) || float_to_int(r, f, out, &ok);
    }
    if (v.t == J_FLOAT) return float_to_int(r, v.f, out, &ok);
    if (jv_is_int(v)) *out = jv_int(jv_to_int(v));
    return true;
}

static bool f_float(jrender *r, jv v, jv *arg, jv *out) {
    double f;
    *out = given(arg[0]) ? arg[0] : jv_float(0);
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    if (v.t == J_STR && parse_float(v.s, &f)) *out = jv_float(f);
    if (jv_is_number(v)) *out = jv_float(jv_to_float(v));
    return true;
}

/* round(): to even, on the decimal value that the float shows when rounding to digits. */
static double round_to(double f, int64_t digits) {
    if (!isfinite(f) || digits > 300) return f;
    if (digits < -300) return copysign(0, f);
    if (digits <= 0) {
        double p = pow(10, (double)-digits), x = f / p, whole = nearbyint(x);
        return whole * p;
    }
    char text[400];
    snprintf(text, sizeof text, "%.*f", (int)digits, f);
    return strtod(text, NULL);
}

static bool f_round(jrender *r, jv v, jv *arg, jv *out) {
    int64_t digits = 0;
    am_str method = AM_STR("common");
    uint64_t hash; /* which a set of the three names asks for */
    if (given(arg[1]) && !jv_hash(r, arg[1], &hash)) return false;
    if (given(arg[1])) method = arg[1].t == J_STR ? (am_str){arg[1].s->p, arg[1].s->n} : AM_STR("");
    bool ceil_ = am_str_eq(method, AM_STR("ceil")), floor_ = am_str_eq(method, AM_STR("floor"));
    if (!ceil_ && !floor_ && !am_str_eq(method, AM_STR("common")))
        return j_fail(r, "FilterArgumentError", "method must be common, ceil or floor");
    if (ceil_ || floor_) {
        jv p, x;
        if (!j_arith(r, JO_POW, jv_int(10), given(arg[0]) ? arg[0] : jv_int(0), &p) || !j_arith(r, JO_MUL, v, p, &x)) return false;
        if (!jv_is_number(x)) return j_fail(r, "TypeError", "must be real number, not %s", j_type_name(x));
        double whole = ceil_ ? ceil(jv_to_float(x)) : floor(jv_to_float(x));
        *out = jv_float(whole / jv_to_float(p));
        return true;
    }
    if (!jv_is_number(v)) return j_fail(r, "TypeError", "type %s doesn't define __round__ method", j_type_name(v));
    bool whole = given(arg[0]) && arg[0].t == J_NONE, ok;
    if (given(arg[0]) && !whole && !j_arg_int(r, arg[0], &digits)) return false;
    if (v.t == J_FLOAT && whole) return float_to_int(r, nearbyint(v.f), out, &ok) && (ok || j_fail(r, "ValueError", "cannot convert float NaN to integer"));
    if (v.t == J_FLOAT) {
        *out = jv_float(round_to(v.f, digits));
        return true;
    }
    int64_t i = jv_to_int(v), p = 1;
    *out = jv_int(i);
    if (digits >= 0) return true;
    for (; digits < 0; digits++)
        if (__builtin_mul_overflow(p, 10, &p)) {
            *out = jv_int(0);
            return true;
        }
    int64_t rest = ((i % p) + p) % p, low = i - rest;
    bool up = rest > p - rest || (rest == p - rest && (low / p) % 2 != 0);
    *out = jv_int(up ? low + p : low);
    return true;
}

static bool json_indent(jrender *r, jv v, jdump *how) {
    if (!given(v) || v.t == J_NONE) return true;
    if (v.t == J_STR) {
        how->indent = v.s;
        return true;
    }
    int64_t n;
    jout out;
    if (!j_times(r, v, &n)) return false;
    const jstr *space = j_str_c(r, " ");
    j_out_init(r, &out);
    if (!space || !j_out_repeat(r, &out, space, n)) {
        j_out_free(&out);
        return false;
    }
    return (how->indent = j_out_finish(r, &out)) != NULL;
}

static bool two_strings(jrender *r, jv v, jlist **out) {
    if (v.t == J_NONE || jv_is_number(v)) return j_fail(r, "TypeError", "cannot unpack non-iterable %s object", j_type_name(v));
    if (!j_to_list(r, v, out)) return false;
    if ((*out)->n < 2) return j_fail(r, "ValueError", "not enough values to unpack (expected 2, got %zu)", (*out)->n);
    if ((*out)->n > 2) return j_fail(r, "ValueError", "too many values to unpack (expected 2)");
    for (int i = 0; i < 2; i++)
        if ((*out)->v[i].t != J_STR) return j_fail(r, "TypeError", "separators must be strings, not %s", j_type_name((*out)->v[i]));
    return true;
}

/* transformers' tojson: json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False) */
static bool f_tojson(jrender *r, jv v, jv *arg, jv *out) {
    jdump how = {.ensure_ascii = flag(arg[0]), .sort_keys = flag(arg[3])};
    jout text;
    jlist *separators = NULL;
    if (given(arg[2]) && arg[2].t != J_NONE && !two_strings(r, arg[2], &separators)) return false;
    if (v.t != J_STR && !json_indent(r, arg[1], &how)) return false;
    if (!(how.item_sep = j_str_c(r, how.indent ? "," : ", ")) || !(how.key_sep = j_str_c(r, ": "))) return false;
    if (separators) how.item_sep = separators->v[0].s, how.key_sep = separators->v[1].s;
    j_out_init(r, &text);
    if (j_write_json(r, &text, v, &how, 0)) return j_out_value(r, &text, out);
    j_out_free(&text);
    return false;
}

static bool f_attr(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *name;
    if (!j_str_of(r, arg[0], &name) || !j_python_getattr(r, v, name, out)) return false;
    return out->t != J_MISSING || jv_undef_member(r, v, jv_str(name), out);
}

static bool f_filesizeformat(jrender *r, jv v, jv *arg, jv *out) {
    static const char *const units[2][8] = {{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
                                            {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    jv n;
    char text[80];
    if (!j_python_number(r, true, v, &n)) return false;
    bool binary = flag(arg[0]);
    double base = binary ? 1024 : 1000, unit = base;
    if (n.f == 1) {
        snprintf(text, sizeof text, "1 Byte");
    } else if (n.f < base) {
        snprintf(text, sizeof text, "%lld Bytes", (long long)n.f);
    } else {
        int i = 0;
        for (unit *= base; i < 7 && n.f >= unit; i++) unit *= base;
        snprintf(text, sizeof text, "%.1f %s", base * n.f / unit, units[binary][i]);
    }
    const jstr *s = j_str_new(r, am_str_of(text), false);
    if (!s) return false;
    *out = jv_str(s);
    return true;
}

static bool f_format(jrender *r, jv v, const jargs *args, jv *out) {
    const jstr *s;
    jv values;
    if (args->n && args->n_kw)
        return j_fail(r, "FilterArgumentError", "can't handle positional and keyword arguments at the same time");
    if (!j_str_of(r, v, &s)) return false;
    if (args->n_kw) {
        jdict *d = j_dict(r);
        if (!d) return false;
        for (size_t i = 0; i < args->n_kw; i++)
            if (!j_dict_set(r, d, jv_str(args->kw[i].name), args->kw[i].v)) return false;
        values = (jv){.t = J_DICT, .d = d};
    } else {
        jlist *l = j_list(r, args->n);
        if (!l) return false;
        for (size_t i = 0; i < args->n; i++) l->v[l->n++] = args->pos[i];
        values = (jv){.t = J_TUPLE, .l = l};
    }
    return j_percent_format(r, s, values, out);
}

static const jfunc filters[] = {
    {.name = "default", .pyname = "do_default", .fn = f_default, .params = "default_value boolean"},
    {.name = "d", .pyname = "do_default", .fn = f_default, .params = "default_value boolean"},
    {.name = "length", .pyname = "len", .fn = f_length},
    {.name = "count", .pyname = "len", .fn = f_length},
    {.name = "string", .pyname = "soft_str", .fn = f_string},
    {.name = "abs", .pyname = "abs", .fn = f_abs},
    {.name = "int", .pyname = "do_int", .fn = f_int, .params = "default base"},
    {.name = "float", .pyname = "do_float", .fn = f_float, .params = "default"},
    {.name = "round", .pyname = "do_round", .fn = f_round, .params = "precision method"},
    {.name = "tojson", .pyname = "tojson", .fn = f_tojson, .params = "ensure_ascii indent separators sort_keys"},
    {.name = "attr", .pyname = "do_attr", .fn = f_attr, .params = "name", .n_required = 1, .hidden = true},
    {.name = "filesizeformat", .pyname = "do_filesizeformat", .fn = f_filesizeformat, .params = "binary"},
    {.name = "format", .pyname = "do_format", .raw = f_format},
    {.name = "pprint", .pyname = "do_pprint", .fn = j_pprint},
};

const jfunc *j_filter_find(am_str name) {
    const jfunc *f = j_find(filters, sizeof filters / sizeof *filters, name);
    if (!f) f = j_text_filter(name);
    return f ? f : j_seq_filter(name);
}

bool j_apply_filter(jrender *r, const jnode *n, jv subject, jv *out) {
    jargs args;
    if (!j_eval_args(r, n->args, &args)) return false;
    if (!n->what) return j_fail(r, "TemplateRuntimeError", "No filter named %s found.", j_repr_c(r, n->value));
    return j_call_func(r, n->what, subject, &args, out);
}
