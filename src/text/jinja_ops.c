/* Owns arithmetic and comparison as Python does them, and access to members (obj.name, obj[key], slices) as the sandbox allows
 * it. Integers have 64 bits: a result beyond them is an error that says so, never a wrong number. */
#include "text/jinja_int.h"

#include <stdio.h>

static const char *const symbol[] = {[JO_ADD] = "+", [JO_SUB] = "-", [JO_MUL] = "*", [JO_DIV] = "/", [JO_FLOORDIV] = "//",
                                     [JO_MOD] = "%", [JO_POW] = "** or pow()"};

static bool unsupported(jrender *r, jop op, jv a, jv b) {
    return j_fail(r, "TypeError", "unsupported operand type(s) for %s: '%s' and '%s'", symbol[op], j_type_name(a), j_type_name(b));
}

static bool too_large(jrender *r) { return j_fail(r, "OverflowError", "integer result does not fit 64 bits"); }

static bool int_pow(jrender *r, int64_t a, int64_t n, jv *out) {
    if (n < 0) {
        if (a == 0) return j_fail(r, "ZeroDivisionError", "0.0 cannot be raised to a negative power");
        *out = jv_float(pow((double)a, (double)n));
        return true;
    }
    int64_t result = 1;
    for (; n; n >>= 1) {
        if ((n & 1) && __builtin_mul_overflow(result, a, &result)) return too_large(r);
        if (n > 1 && __builtin_mul_overflow(a, a, &a)) return too_large(r);
    }
    *out = jv_int(result);
    return true;
}

static bool int_arith(jrender *r, jop op, int64_t a, int64_t b, jv *out) {
    int64_t i = 0;
    switch (op) {
    case JO_ADD:
        if (__builtin_add_overflow(a, b, &i)) return too_large(r);
        break;
    case JO_SUB:
        if (__builtin_sub_overflow(a, b, &i)) return too_large(r);
        break;
    case JO_MUL:
        if (__builtin_mul_overflow(a, b, &i)) return too_large(r);
        break;
    case JO_DIV:
        if (b == 0) return j_fail(r, "ZeroDivisionError", "division by zero");
        *out = jv_float((double)a / (double)b);
        return true;
    case JO_FLOORDIV: case JO_MOD:
        if (b == 0)
            return j_fail(r, "ZeroDivisionError", op == JO_MOD ? "integer modulo by zero" : "integer division or modulo by zero");
        if (b == -1) { /* INT64_MIN / -1 traps */
            if (op == JO_FLOORDIV && __builtin_sub_overflow(0, a, &i)) return too_large(r);
            break;
        }
        i = op == JO_MOD ? a % b : a / b;
        if (a % b != 0 && (a % b < 0) != (b < 0)) i += op == JO_MOD ? b : -1;
        break;
    default: return int_pow(r, a, b, out);
    }
    *out = jv_int(i);
    return true;
}

static bool float_arith(jrender *r, jop op, double a, double b, jv *out) {
    double f = 0;
    switch (op) {
    case JO_ADD: f = a + b; break;
    case JO_SUB: f = a - b; break;
    case JO_MUL: f = a * b; break;
    case JO_DIV:
        if (b == 0) return j_fail(r, "ZeroDivisionError", "float division by zero");
        f = a / b;
        break;
    case JO_FLOORDIV: case JO_MOD: {
        if (b == 0) return j_fail(r, "ZeroDivisionError", op == JO_MOD ? "float modulo" : "float floor division by zero");
        double mod = fmod(a, b), div = (a - mod) / b;
        if (mod != 0) {
            if ((b < 0) != (mod < 0)) {
                mod += b;
                div -= 1;
            }
        } else {
            mod = copysign(0, b);
        }
        double whole = div != 0 ? floor(div) : copysign(0, a / b);
        if (div != 0 && div - whole > 0.5) whole += 1;
        f = op == JO_MOD ? mod : whole;
        break;
    }
    default:
        if (a == 0 && b < 0) return j_fail(r, "ZeroDivisionError", "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b) && isfinite(b)) return j_fail(r, "ValueError", "complex numbers are not supported");
        f = pow(a, b);
        if (isinf(f) && isfinite(a) && isfinite(b)) return j_fail(r, "OverflowError", "(34, 'Numerical result out of range')");
    }
    *out = jv_float(f);
    return true;
}

static bool concat_lists(jrender *r, jv a, jv b, jv *out) {
    jlist *l = j_list(r, a.l->n + b.l->n);
    if (!l || !j_charge(r, a.l->n + b.l->n)) return false;
    if (a.l->n) memcpy(l->v, a.l->v, a.l->n * sizeof *l->v);
    if (b.l->n) memcpy(l->v + a.l->n, b.l->v, b.l->n * sizeof *l->v);
    l->n = a.l->n + b.l->n;
    *out = (jv){.t = a.t, .l = l};
    return true;
}

static bool add_strings(jrender *r, const jstr *a, const jstr *b, jv *out) {
    bool markup = a->markup || b->markup;
    jv v;
    if (markup && !a->markup) {
        if (!j_escape(r, a, &v)) return false;
        a = v.s;
    }
    if (markup && !b->markup) {
        if (!j_escape(r, b, &v)) return false;
        b = v.s;
    }
    const jstr *s = j_str_concat(r, a, b);
    return s && j_markup(r, s, markup, out);
}

static bool add(jrender *r, jv a, jv b, jv *out) {
    if (a.t == J_STR && b.t == J_STR) return add_strings(r, a.s, b.s, out);
    if (jv_has_list(a) && a.t == b.t) return concat_lists(r, a, b, out);
    if ((a.t == J_STR && !a.s->markup) || jv_has_list(a))
        return j_fail(r, "TypeError", "can only concatenate %s (not \"%s\") to %s", j_type_name(a), j_type_name(b), j_type_name(a));
    return unsupported(r, JO_ADD, a, b);
}

static bool repeat(jrender *r, jv seq, int64_t times, jv *out) {
    if (times < 0) times = 0;
    if (seq.t == J_STR) {
        jout text;
        j_out_init(r, &text);
        if (j_out_repeat(r, &text, seq.s, times)) return j_out_value(r, &text, out) && j_markup(r, out->s, seq.s->markup, out);
        j_out_free(&text);
        return false;
    }
    size_t n = seq.l->n;
    if (n && (uint64_t)times > r->limits.max_memory_bytes / (n * sizeof(jv))) return j_limit(r, "repeats a list too often");
    jlist *l = j_list(r, n * (size_t)times);
    if (!l || !j_charge(r, n * (size_t)times)) return false;
    for (int64_t i = 0; n && i < times; i++, l->n += n) memcpy(l->v + l->n, seq.l->v, n * sizeof *l->v);
    *out = (jv){.t = seq.t, .l = l};
    return true;
}

static bool multiply(jrender *r, jv a, jv b, jv *out) {
    bool seq_a = a.t == J_STR || jv_has_list(a), seq_b = b.t == J_STR || jv_has_list(b);
    if (seq_a && jv_is_int(b)) return repeat(r, a, jv_to_int(b), out);
    if (seq_b && jv_is_int(a)) return repeat(r, b, jv_to_int(a), out);
    if (seq_a || seq_b) return j_fail(r, "TypeError", "can't multiply sequence by non-int of type '%s'", j_type_name(seq_a ? b : a));
    return unsupported(r, JO_MUL, a, b);
}

bool j_arith(jrender *r, jop op, jv a, jv b, jv *out) {
    if (jv_is_int(a) && jv_is_int(b)) return int_arith(r, op, jv_to_int(a), jv_to_int(b), out);
    if (jv_is_number(a) && jv_is_number(b)) return float_arith(r, op, jv_to_float(a), jv_to_float(b), out);
    if (a.t == J_UNDEF) return j_undefined_error(r, a);
    if (op == JO_MOD && a.t == J_STR) return j_percent_format(r, a.s, b, out);
    if (op == JO_MUL && a.t == J_STR && a.s->markup && !jv_is_int(b)) return j_fail(r, "TypeError", "'%s' object cannot be interpreted as an integer", j_type_name(b));
    if (op == JO_ADD && a.t == J_STR && b.t == J_STR) return add(r, a, b, out);
    if (b.t == J_UNDEF) return j_undefined_error(r, b);
    if (op == JO_ADD) return add(r, a, b, out);
    if (op == JO_MUL) return multiply(r, a, b, out);
    return unsupported(r, op, a, b);
}

bool j_negate(jrender *r, jv v, bool minus, jv *out) {
    if (v.t == J_FLOAT) {
        *out = jv_float(minus ? -v.f : v.f);
        return true;
    }
    if (jv_is_int(v)) {
        int64_t i = jv_to_int(v);
        if (minus && __builtin_sub_overflow(0, i, &i)) return too_large(r);
        *out = jv_int(i);
        return true;
    }
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    return j_fail(r, "TypeError", "bad operand type for unary %s: '%s'", minus ? "-" : "+", j_type_name(v));
}

bool j_compare(jrender *r, jop op, jv a, jv b, bool *out) {
    switch (op) {
    case JO_EQ: case JO_NE:
        if (!jv_equal(r, a, b, out)) return false;
        *out ^= op == JO_NE;
        return true;
    case JO_IN: case JO_NOTIN:
        if (!jv_contains(r, a, b, out)) return false;
        *out ^= op == JO_NOTIN;
        return true;
    default: return jv_less(r, a, b, op, out);
    }
}

static bool bound(jrender *r, jv self, const jfunc *def, jv *out) {
    jmethod *m = j_alloc(r, sizeof *m);
    if (!m) return false;
    *m = (jmethod){self, def};
    *out = (jv){.t = J_METHOD, .method = m};
    return true;
}

static bool is_one_of(am_str name, const char *list) {
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, " ");
        if (n == name.n && memcmp(p, name.p, n) == 0) return true;
        p += n + (p[n] == ' ');
    }
    return false;
}

static bool macro_attr(jrender *r, const jmacro *m, am_str name, jv *out) {
    const jsig *sig = m->node->sig;
    if (am_str_eq(name, AM_STR("name"))) *out = m->name ? jv_str(m->name) : jv_none;
    else if (am_str_eq(name, AM_STR("catch_kwargs"))) *out = jv_bool(sig->uses_kwargs);
    else if (am_str_eq(name, AM_STR("catch_varargs"))) *out = jv_bool(sig->uses_varargs);
    else if (am_str_eq(name, AM_STR("caller"))) *out = jv_bool(sig->uses_caller || sig->explicit_caller);
    else if (am_str_eq(name, AM_STR("arguments"))) {
        jlist *l = j_list(r, sig->n);
        if (!l) return false;
        for (uint32_t i = 0; i < sig->n; i++) l->v[l->n++] = jv_str(r->t->atom[sig->param[i]]);
        *out = (jv){.t = J_TUPLE, .l = l};
    }
    return true;
}

static bool cycler_attr(jrender *r, jv v, am_str name, jv *out) {
    static const char *const names[] = {"next", "reset"};
    if (am_str_eq(name, AM_STR("current"))) *out = v.cycler->items->v[v.cycler->pos];
    else if (am_str_eq(name, AM_STR("pos"))) *out = jv_int((int64_t)v.cycler->pos);
    else if (am_str_eq(name, AM_STR("items"))) *out = (jv){.t = J_TUPLE, .l = v.cycler->items};
    for (int i = 0; i < 2; i++)
        if (am_str_eq(name, am_str_of(names[i]))) return bound(r, v, &j_cycler_methods[i], out);
    return true;
}

static void joiner_attr(const jjoiner *j, am_str name, jv *out) {
    if (am_str_eq(name, AM_STR("sep"))) *out = j->sep;
    else if (am_str_eq(name, AM_STR("used"))) *out = jv_bool(j->used);
}

static bool number_attr(jv v, am_str name, jv *out) {
    if (am_str_eq(name, AM_STR("real"))) *out = v.t == J_BOOL ? jv_int(v.b) : v;
    else if (am_str_eq(name, AM_STR("imag"))) *out = v.t == J_FLOAT ? jv_float(0) : jv_int(0);
    else if (v.t != J_FLOAT && am_str_eq(name, AM_STR("numerator"))) *out = jv_int(jv_to_int(v));
    else if (v.t != J_FLOAT && am_str_eq(name, AM_STR("denominator"))) *out = jv_int(1);
    return true;
}

/* Names every Python object answers to; the sandbox refuses them all. */
static const char object_attrs[] =
    "__class__ __delattr__ __dir__ __doc__ __eq__ __format__ __ge__ __getattribute__ __getstate__ __gt__ __hash__ __init__ "
    "__init_subclass__ __le__ __lt__ __ne__ __new__ __reduce__ __reduce_ex__ __repr__ __setattr__ __sizeof__ __str__ "
    "__subclasshook__";
static const char function_attrs[] = "__globals__ __code__ __closure__ __defaults__ __dict__ __name__ __qualname__ __module__ __call__ "
                                     "__get__ __kwdefaults__ __annotations__ __self__ __wrapped__ __func__";
static const char container_attrs[] = "__len__ __getitem__ __iter__ __contains__ __add__ __mul__ __rmul__ __mod__ __class_getitem__ "
                                      "__reversed__ __setitem__ __delitem__ __iadd__ __imul__ __or__ __ior__";
static const char undefined_attrs[] = "__len__ __iter__ __bool__ __getitem__ __call__ __add__ __radd__ __sub__ __mul__ __mod__ __pos__ __neg__ "
                                      "__int__ __float__ __pow__ __slots__ __aiter__ __getattr__ __truediv__ __floordiv__ __complex__";
/* What jinja2's own objects keep to themselves. */
static const char private_attrs[] = "_iterable _iterator _undefined _recurse _length _after _current _before _last_changed_value _peek_next _to_iterator _environment _func "
                                    "_argument_count _default_autoescape _invoke _async_invoke _context _stack _depth _async_call _TemplateReference__context";
static const char list_mutators[] = "append reverse insert sort extend remove";
static const char dict_mutators[] = "clear pop popitem setdefault update";

static bool is_unsafe(jv obj, am_str name) {
    if (obj.t == J_NAMESPACE) return am_str_eq(name, AM_STR("__class__"));
    if (name.n && name.p[0] == '_') {
        if (is_one_of(name, object_attrs)) return true;
        if (obj.t == J_STR || jv_has_list(obj) || obj.t == J_DICT || obj.t == J_RANGE) return is_one_of(name, container_attrs);
        if (obj.t == J_UNDEF) return is_one_of(name, undefined_attrs);
        return obj.t >= J_MACRO && (is_one_of(name, function_attrs) || is_one_of(name, private_attrs));
    }
    if (obj.t == J_DICT && !memchr("cpsu", name.n ? name.p[0] : 0, 4)) return false; /* none begins with another letter */
    return (obj.t == J_LIST && is_one_of(name, list_mutators)) || (obj.t == J_DICT && is_one_of(name, dict_mutators)) ||
           (obj.t == J_GEN && is_one_of(name, "gi_frame gi_code"));
}

bool j_python_getattr(jrender *r, jv obj, const jstr *name_, jv *out) {
    am_str name = {name_->p, name_->n};
    *out = (jv){.t = J_MISSING};
    if (obj.t == J_UNDEF && !am_str_starts(name, AM_STR("__"))) return j_undefined_error(r, obj);
    if (is_unsafe(obj, name)) return jv_undef_unsafe(r, obj, name_, out);
    const jfunc *def = NULL;
    switch (obj.t) {
    case J_STR: def = j_str_method(name); break;
    case J_LIST: def = j_list_method(name, false); break;
    case J_TUPLE:
        if (obj.l->group && am_str_eq(name, AM_STR("grouper"))) *out = obj.l->v[0];
        else if (obj.l->group && am_str_eq(name, AM_STR("list"))) *out = obj.l->v[1];
        else def = j_list_method(name, true);
        break;
    case J_DICT: def = j_dict_method(name); break;
    case J_NAMESPACE: return j_dict_get(r, obj.d, jv_str(name_), out);
    case J_MACRO: return macro_attr(r, obj.macro, name, out);
    case J_LOOP: return j_loop_attr(r, obj.loop, name_, out);
    case J_CYCLER: return cycler_attr(r, obj, name, out);
    case J_SELF: return j_self_attr(r, obj.block, name_, out);
    case J_BLOCK: return j_block_attr(r, obj.block, name, out);
    case J_JOINER: joiner_attr(obj.joiner, name, out); break;
    case J_BOOL: case J_INT: case J_FLOAT:
        def = j_number_method(name, obj.t == J_FLOAT);
        if (!def) return number_attr(obj, name, out);
        break;
    case J_RANGE:
        if (am_str_eq(name, AM_STR("start"))) *out = jv_int(obj.range->start);
        else if (am_str_eq(name, AM_STR("stop"))) *out = jv_int(obj.range->stop);
        else if (am_str_eq(name, AM_STR("step"))) *out = jv_int(obj.range->step);
        else def = j_range_method(name);
        break;
    default: break;
    }
    return !def || bound(r, obj, def, out);
}

static bool hashable(jv v, int depth) {
    if (v.t != J_TUPLE) return v.t != J_LIST && v.t != J_DICT;
    for (size_t i = 0; i < v.l->n; i++)
        if (depth > 100 || !hashable(v.l->v[i], depth + 1)) return false;
    return true;
}

/* obj[key] alone: J_MISSING where Python raises TypeError or LookupError. */
static bool python_getitem(jrender *r, jv obj, jv key, jv *out) {
    *out = (jv){.t = J_MISSING};
    if (obj.t == J_UNDEF) return j_undefined_error(r, obj);
    if (obj.t == J_DICT) return !hashable(key, 0) || j_dict_get(r, obj.d, key, out);
    if (!jv_is_int(key)) return true;
    int64_t i = jv_to_int(key), n;
    if (obj.t != J_STR && obj.t != J_RANGE && !jv_has_list(obj)) return true;
    if (!jv_length(r, obj, &n)) return false;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return true;
    if (jv_has_list(obj)) {
        *out = obj.l->v[i];
    } else if (obj.t == J_RANGE) {
        *out = jv_int(obj.range->start + i * obj.range->step);
    } else {
        size_t at = j_str_offset(obj.s, (size_t)i);
        jiter it = {.src = obj, .i = at};
        return j_charge(r, j_str_chars(obj.s) == obj.s->n ? 0 : at / 32) && j_next(r, &it, out) > 0 && j_markup(r, out->s, obj.s->markup, out);
    }
    return true;
}

bool j_getattr(jrender *r, jv obj, const jstr *name, jv *out) {
    /* the common case first: a member of a dict that no method hides */
    if (!j_python_getattr(r, obj, name, out)) return false;
    if (out->t == J_MISSING && !python_getitem(r, obj, jv_str(name), out)) return false;
    return out->t != J_MISSING || jv_undef_member(r, obj, jv_str(name), out);
}

bool j_getitem(jrender *r, jv obj, jv key, jv *out) {
    if (!python_getitem(r, obj, key, out)) return false;
    if (out->t == J_MISSING && key.t == J_STR && !j_python_getattr(r, obj, key.s, out)) return false;
    return out->t != J_MISSING || jv_undef_member(r, obj, key, out);
}

static bool slice_index(jrender *r, jv v, int64_t dflt, int64_t *out) {
    *out = dflt;
    if (v.t == J_MISSING || v.t == J_NONE) return true;
    if (!jv_is_int(v)) return j_fail(r, "TypeError", "slice indices must be integers or None or have an __index__ method");
    *out = jv_to_int(v);
    return true;
}

/* Python's slice.indices: start, stop and step made to lie within n items, and how many there are. */
typedef struct bounds {
    int64_t start, stop, step, count;
} bounds;

static bool slice_bounds(jrender *r, const jv part[3], int64_t n, bounds *b) {
    if (!slice_index(r, part[2], 1, &b->step)) return false;
    if (b->step == 0) return j_fail(r, "ValueError", "slice step cannot be zero");
    if (b->step < -INT64_MAX) b->step = -INT64_MAX;
    int64_t low = b->step < 0 ? -1 : 0, high = b->step < 0 ? n - 1 : n;
    if (!slice_index(r, part[0], b->step < 0 ? INT64_MAX : 0, &b->start) || !slice_index(r, part[1], b->step < 0 ? INT64_MIN : INT64_MAX, &b->stop))
        return false;
    bool no_stop = part[1].t == J_MISSING || part[1].t == J_NONE;
    if (b->start < 0) b->start = b->start < -n ? low : b->start + n;
    if (b->start > high) b->start = high;
    if (no_stop) {
        b->stop = b->step < 0 ? -1 : n;
    } else {
        if (b->stop < 0) b->stop = b->stop < -n ? low : b->stop + n;
        if (b->stop > high) b->stop = high;
    }
    b->count = 0;
    if (b->step > 0 && b->start < b->stop) b->count = (b->stop - b->start - 1) / b->step + 1;
    if (b->step < 0 && b->stop < b->start) b->count = (b->start - b->stop - 1) / -b->step + 1;
    return true;
}

static bool slice_str(jrender *r, const jstr *s, int64_t start, int64_t step, int64_t count, jv *out) {
    const jstr *part = NULL;
    if (!j_charge(r, s->n / 32)) return false;
    if (step == 1 || count <= 1) {
        size_t begin = j_str_offset(s, (size_t)(count ? start : 0));
        size_t end = count ? j_str_offset(s, (size_t)(start + count)) : begin;
        part = j_str_slice(r, s, begin, end);
    } else {
        bool ascii = j_str_chars(s) == s->n;
        size_t *at = ascii ? NULL : j_alloc(r, (j_str_chars(s) + 1) * sizeof *at); /* byte offset of each character */
        if (!ascii && !at) return false;
        for (size_t i = 0, c = 0; !ascii && i <= s->n; i++)
            if (i == s->n || (s->p[i] & 0xc0) != 0x80) at[c++] = i;
        jout text;
        j_out_init(r, &text);
        for (int64_t i = 0; i < count; i++) {
            size_t c = (size_t)(start + i * step);
            if (j_out_part(r, &text, s, ascii ? c : at[c], ascii ? c + 1 : at[c + 1]) && j_charge(r, 1)) continue;
            j_out_free(&text);
            return false;
        }
        part = j_out_finish(r, &text);
    }
    if (part) *out = jv_str(part);
    return part != NULL;
}

/* A slice in an expression of constants alone: jinja2 computes that at compile time with the rules of obj[key], where what
 * cannot be sliced gives undefined. */
bool j_const_slice(jrender *r, jv obj, const jv part[3], jv *out) {
    bool indices = part[2].t == J_INT && part[2].i == 0; /* an error before any other */
    if (indices && (obj.t == J_STR || obj.t == J_RANGE || jv_has_list(obj))) return j_slice(r, obj, part, out);
    indices = true;
    for (int i = 0; i < 3; i++) indices &= part[i].t == J_MISSING || part[i].t == J_NONE || jv_is_int(part[i]);
    if (indices && (obj.t == J_STR || obj.t == J_RANGE || jv_has_list(obj))) return j_slice(r, obj, part, out);
    const jstr *key = j_str_c(r, "slice");
    if (!key || !jv_undef_member(r, obj, jv_str(key), out)) return false;
    char *text = j_alloc(r, 80);
    bool sliced = obj.t == J_STR || obj.t == J_RANGE || jv_has_list(obj);
    if (text && obj.t == J_DICT) snprintf(text, 80, "unhashable type: 'slice'");
    else if (text) snprintf(text, 80, sliced ? "slice indices must be integers or None or have an __index__ method" : "'%s' object is not subscriptable", j_type_name(obj));
    out->undef->instead = text;
    return text != NULL;
}

bool j_slice(jrender *r, jv obj, const jv part[3], jv *out) {
    int64_t n;
    bounds b = {0};
    if (obj.t == J_UNDEF) return j_undefined_error(r, obj);
    if (obj.t == J_DICT) return j_fail(r, "TypeError", "unhashable type: 'slice'");
    if (obj.t != J_STR && obj.t != J_RANGE && !jv_has_list(obj))
        return j_fail(r, "TypeError", "'%s' object is not subscriptable", j_type_name(obj));
    if (!jv_length(r, obj, &n) || !slice_bounds(r, part, n, &b)) return false;
    if (obj.t == J_STR) return slice_str(r, obj.s, b.start, b.step, b.count, out) && j_markup(r, out->s, obj.s->markup, out);
    if (obj.t == J_RANGE) {
        jrange *range = j_alloc(r, sizeof *range);
        if (!range) return false;
        const jrange *o = obj.range;
        *range = (jrange){o->start + b.start * o->step, o->start + b.stop * o->step, o->step * b.step, b.count};
        *out = (jv){.t = J_RANGE, .range = range};
        return true;
    }
    jlist *l = j_list(r, (size_t)b.count);
    if (!l || !j_charge(r, (uint64_t)b.count)) return false;
    for (int64_t i = 0; i < b.count; i++) l->v[l->n++] = obj.l->v[b.start + i * b.step];
    *out = (jv){.t = obj.t, .l = l};
    return true;
}
