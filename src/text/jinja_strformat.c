/* Owns '%s' % values and '{}'.format(values): the format languages of Python, as far as templates can reach them. Padding and
 * signs are the template's; the text of a value keeps its marks. */
#include "text/jinja_int.h"

#include <stdio.h>

typedef struct spec {
    const jstr *fill;
    char align, sign, type; /* align: < > ^ = or 0 */
    bool alt, zero;
    bool escape; /* the format is Markup */
    char comma; /* , or _ between thousands */
    int64_t width, precision; /* -1: absent */
} spec;

static bool fail_out(jout *out) {
    j_out_free(out);
    return false;
}

static bool pad_to(jrender *r, jout *out, const spec *f, const jstr *body, size_t n_prefix, char dflt) {
    int64_t n = (int64_t)j_str_chars(body), pad = f->width > n ? f->width - n : 0;
    char align = f->align ? f->align : dflt;
    const jstr *blank = j_str_c(r, " "), *fill = f->fill ? f->fill : blank;
    if (!fill) return false;
    if (align == '=') return j_out_part(r, out, body, 0, n_prefix) && j_out_repeat(r, out, fill, pad) && j_out_part(r, out, body, n_prefix, body->n);
    int64_t left = align == '<' ? 0 : align == '>' ? pad : pad / 2;
    return j_out_repeat(r, out, fill, left) && j_out_str(r, out, body) && j_out_repeat(r, out, fill, pad - left);
}

/* The number with a separator between groups, and zeros before it, which are grouped too, until it is `width` long or one longer: no number begins with a separator. */
static bool group_digits(jrender *r, const char *number, const spec *f, int64_t width, jout *out) {
    int64_t group = f->type && strchr("xXob", f->type) ? 4 : 3, n = (int64_t)strlen(number), digits = (int64_t)strspn(number, "0123456789");
    if (f->type == 'x' || f->type == 'X') digits = (int64_t)strspn(number, "0123456789abcdefABCDEF"); /* elsewhere an e is the exponent's */
    int64_t least = width - (n - digits), all = digits;
    if (digits && least > digits) all = least - (least - 1) / (group + 1);
    if (all < digits) all = digits;
    for (int64_t i = 0; i < all; i++) {
        const char *c = i < all - digits ? "0" : number + (i - (all - digits));
        if ((i && (all - i) % group == 0 && !j_out_bytes(r, out, &f->comma, 1, false)) || !j_out_bytes(r, out, c, 1, false) || !j_charge(r, 1)) return false;
    }
    return j_out_bytes(r, out, number + digits, (size_t)(n - digits), false);
}

static size_t binary(uint64_t v, char *out) {
    char tmp[65];
    size_t n = 0;
    do tmp[n++] = (char)('0' + (v & 1));
    while (v >>= 1);
    for (size_t i = 0; i < n; i++) out[i] = tmp[n - 1 - i];
    out[n] = 0;
    return n;
}

/* digits of an integer in the spec's base, with "0x" and the like when asked for */
static void int_digits(uint64_t v, const spec *f, char prefix[4], char *out, size_t cap) {
    prefix[0] = 0;
    switch (f->type) {
    case 'x': snprintf(out, cap, "%llx", (unsigned long long)v); break;
    case 'X': snprintf(out, cap, "%llX", (unsigned long long)v); break;
    case 'o': snprintf(out, cap, "%llo", (unsigned long long)v); break;
    case 'b': binary(v, out); break;
    default: snprintf(out, cap, "%llu", (unsigned long long)v); return;
    }
    if (f->alt) snprintf(prefix, 4, "0%c", f->type);
}

static void float_digits(double v, const spec *f, char *out, size_t cap) {
    int precision = f->precision < 0 ? 6 : f->precision > 300 ? 300 : (int)f->precision;
    switch (f->type) {
    case 'e': snprintf(out, cap, f->alt ? "%#.*e" : "%.*e", precision, v); break;
    case 'E': snprintf(out, cap, f->alt ? "%#.*E" : "%.*E", precision, v); break;
    case 'g': snprintf(out, cap, f->alt ? "%#.*g" : "%.*g", precision ? precision : 1, v); break;
    case 'G': snprintf(out, cap, f->alt ? "%#.*G" : "%.*G", precision ? precision : 1, v); break;
    case '%': snprintf(out, cap, f->alt ? "%#.*f%%" : "%.*f%%", precision, v * 100); break;
    case 'd': snprintf(out, cap, "%.0f", trunc(v)); break; /* '%d' of a float */
    case 0: {
        char text[40];
        if (f->precision < 0) {
            j_format_float(v, text);
            snprintf(out, cap, "%s", text);
        } else {
            snprintf(out, cap, f->alt ? "%#.*g" : "%.*g", precision ? precision : 1, v);
            if (!strpbrk(out, ".eni")) strncat(out, ".0", cap - strlen(out) - 1);
        }
        break;
    }
    default: snprintf(out, cap, f->alt ? "%#.*f" : "%.*f", precision, v); break;
    }
}

static void least_digits(char *digits, const spec *f) {
    size_t n = strlen(digits), least = f->precision > 300 ? 300 : f->precision > 0 ? (size_t)f->precision : 0;
    if (n >= least) return;
    memmove(digits + least - n, digits, n + 1);
    memset(digits, '0', least - n);
}

static bool format_number(jrender *r, jout *out, jv v, const spec *f) {
    char digits[720], prefix[4] = "", head[8];
    bool negative, is_float = v.t == J_FLOAT || (f->type && strchr("eEfFgG%", f->type));
    if (is_float) {
        double d = jv_to_float(v);
        negative = signbit(d) && !isnan(d);
        float_digits(fabs(d), f, digits, sizeof digits);
    } else {
        int64_t i = jv_to_int(v);
        negative = i < 0;
        int_digits(negative ? 0 - (uint64_t)i : (uint64_t)i, f, prefix, digits, sizeof digits);
    }
    if (!is_float || f->type == 'd') least_digits(digits, f);
    const char *sign = negative ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
    spec with_zero = *f;
    if (f->zero) {
        if (!f->align) with_zero.align = '=';
        if (!f->fill && !(with_zero.fill = j_str_c(r, "0"))) return false;
    }
    bool zeros = with_zero.align == '=' && with_zero.fill && j_str_eq(with_zero.fill, AM_STR("0"));
    size_t n_head = (size_t)snprintf(head, sizeof head, "%s%s", sign, prefix);
    jout text;
    j_out_init(r, &text);
    bool ok = j_out_bytes(r, &text, head, n_head, false);
    if (ok && f->comma) ok = group_digits(r, digits, f, zeros ? f->width - (int64_t)n_head : 0, &text);
    else if (ok) ok = j_out_bytes(r, &text, digits, strlen(digits), false);
    if (!ok) return fail_out(&text);
    const jstr *s = j_out_finish(r, &text);
    return s && pad_to(r, out, &with_zero, s, n_head, '>');
}

static bool format_str(jrender *r, jout *out, const jstr *s, const spec *f, char dflt) {
    if (f->precision >= 0 && (size_t)f->precision < j_str_chars(s)) {
        s = j_str_slice(r, s, 0, j_str_offset(s, (size_t)f->precision));
        if (!s) return false;
    }
    return pad_to(r, out, f, s, 0, dflt);
}

static bool number_at(jrender *r, const jstr *s, size_t *at, int64_t *out) {
    *out = 0;
    for (; *at < s->n && s->p[*at] >= '0' && s->p[*at] <= '9'; ++*at) {
        *out = *out * 10 + s->p[*at] - '0';
        if (*out > 1000 * 1000 * 1000) return j_fail(r, "ValueError", "Too many decimal digits in format string");
    }
    return true;
}

/* The values of '%': one after another from a tuple, by name from a dict, or the one value. */
typedef struct values {
    jv all;
    size_t taken;
} values;

static bool next_value(jrender *r, values *v, jv *out) {
    if (v->all.t == J_TUPLE ? v->taken < v->all.l->n : v->taken == 0) {
        *out = v->all.t == J_TUPLE ? v->all.l->v[v->taken] : v->all;
        v->taken++;
        return true;
    }
    return j_fail(r, "TypeError", "not enough arguments for format string");
}

static bool percent_head(jrender *r, const jstr *s, size_t *at, values *v, spec *f, jv *named) {
    named->t = J_MISSING;
    if (*at < s->n && s->p[*at] == '(') {
        if (v->all.t == J_UNDEF) return j_undefined_error(r, v->all);
        if (v->all.t == J_LIST) return j_fail(r, "TypeError", "list indices must be integers or slices, not str");
        if (v->all.t != J_DICT) return j_fail(r, "TypeError", "format requires a mapping");
        size_t begin = ++*at, depth = 1;
        for (; *at < s->n; ++*at) {
            depth += s->p[*at] == '(';
            if (s->p[*at] == ')' && --depth == 0) break;
        }
        if (*at >= s->n) return j_fail(r, "ValueError", "incomplete format key");
        const jstr *key = j_str_slice(r, s, begin, *at);
        if (!key || !j_dict_get(r, v->all.d, jv_str(key), named)) return false;
        if (named->t == J_MISSING) return j_fail(r, "KeyError", "%s", j_repr_c(r, jv_str(key)));
        v->taken = 1;
        ++*at;
    }
    for (; *at < s->n && strchr("-+ #0", s->p[*at]) && s->p[*at]; ++*at) {
        char c = s->p[*at];
        if (c == '-') f->align = '<';
        else if (c == '+' || (c == ' ' && !f->sign)) f->sign = c;
        else if (c == '#') f->alt = true;
        else if (c == '0') f->zero = true;
    }
    jv star;
    for (int i = 0; i < 2; i++) {
        int64_t *n = i ? &f->precision : &f->width;
        if (i && !(*at < s->n && s->p[*at] == '.')) break;
        if (i) ++*at;
        if (*at < s->n && s->p[*at] == '*') {
            ++*at;
            if (!next_value(r, v, &star) || !j_arg_int(r, star, n)) return false;
            if (*n > 1000 * 1000 * 1000) return j_limit(r, "pads a text to %lld characters", (long long)*n);
            if (!i && *n < 0) {
                f->align = '<';
                *n = -*n;
            }
        } else if (!number_at(r, s, at, n)) {
            return false;
        }
    }
    while (*at < s->n && strchr("hlL", s->p[*at]) && s->p[*at]) ++*at;
    return true;
}

/* A repr as ascii() has it. */
static bool ascii(jrender *r, const jstr *s, jv *out) {
    jout text;
    size_t done = 0;
    bool input = j_str_is_input(s);
    j_out_init(r, &text);
    for (size_t i = 0, used; i < s->n; i += used) {
        int32_t c = j_decode(s->p + i, s->n - i, &used);
        char code[12];
        if (c < 0x80) continue;
        int n = snprintf(code, sizeof code, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        if (!j_out_part(r, &text, s, done, i) || !j_out_bytes(r, &text, code, (size_t)n, input)) return fail_out(&text);
        done = i + used;
    }
    return j_out_part(r, &text, s, done, s->n) ? j_out_value(r, &text, out) : fail_out(&text);
}

/* Markup wraps what it formats. The wrapper is a number for those that ask int() or float() of it, which text may be too, and none for the rest. */
static bool wrapped_number(jrender *r, char type, jv *v) {
    if (type == 'c') return j_fail(r, "TypeError", "%%c requires int or char");
    if (strchr("oxX", type)) return j_fail(r, "TypeError", "%%%c format: an integer is required, not _MarkupEscapeHelper", type);
    return j_python_number(r, !strchr("diu", type), *v, v);
}

static bool percent_value(jrender *r, jout *out, char type, jv v, spec *f) {
    f->type = type;
    if (f->escape && !strchr("sra", type) && !wrapped_number(r, type, &v)) return false;
    if (type == 's' || type == 'r' || type == 'a') {
        jout text;
        const jstr *s;
        if (type == 's') {
            if (!j_str_of(r, v, &s)) return false;
        } else {
            j_out_init(r, &text);
            if (!j_write_repr(r, &text, v, 0)) return fail_out(&text);
            if (!(s = j_out_finish(r, &text)) || (type == 'a' && (!ascii(r, s, &v) || !(s = v.s)))) return false;
        }
        if (f->escape && (!j_escape(r, s, &v) || !(s = v.s))) return false;
        return format_str(r, out, s, f, '>');
    }
    if (type == 'c') {
        const jstr *s = v.t == J_STR ? v.s : NULL;
        char bytes[4];
        if (jv_is_int(v) && jv_to_int(v) >= 0 && jv_to_int(v) < 0x110000)
            s = j_str_new(r, (am_str){bytes, j_encode((int32_t)jv_to_int(v), bytes)}, true);
        if (!s && jv_is_int(v)) return j_fail(r, "OverflowError", "%%c arg not in range(0x110000)");
        if (!s || j_str_chars(s) != 1) return j_fail(r, "TypeError", "%%c requires int or char");
        f->precision = -1;
        return format_str(r, out, s, f, '>');
    }
    bool integer = strchr("diuoxX", type) != NULL;
    if (v.t == J_UNDEF && !strchr("oxX", type)) return j_undefined_error(r, v);
    if (!jv_is_number(v) && !integer) return j_fail(r, "TypeError", "must be real number, not %s", j_type_name(v));
    if (!jv_is_number(v) || (v.t == J_FLOAT && strchr("oxX", type)))
        return j_fail(r, "TypeError", "%%%c format: %s is required, not %s", type, strchr("oxX", type) ? "an integer" : "a real number",
                      j_type_name(v));
    if (integer && v.t == J_FLOAT && !isfinite(v.f))
        return j_fail(r, isnan(v.f) ? "ValueError" : "OverflowError", "cannot convert float %s to integer", isnan(v.f) ? "NaN" : "infinity");
    if (integer && v.t == J_FLOAT && fabs(v.f) < 0x1p63) v = jv_int((int64_t)v.f);
    if (f->align == '<') f->zero = false; /* '-' */
    if (strchr("diu", type)) f->type = 'd';
    return format_number(r, out, v, f);
}

bool j_percent_format(jrender *r, const jstr *s, jv args, jv *out) {
    values v = {args, 0};
    jout text;
    j_out_init(r, &text);
    for (size_t at = 0; at < s->n;) {
        const char *p = memchr(s->p + at, '%', s->n - at);
        size_t stop = p ? (size_t)(p - s->p) : s->n;
        if (!j_charge(r, 1) || !j_out_part(r, &text, s, at, stop)) return fail_out(&text);
        if (!p) break;
        at = stop + 1;
        spec f = {.width = -1, .precision = -1, .escape = s->markup};
        jv value;
        if (!percent_head(r, s, &at, &v, &f, &value)) return fail_out(&text);
        if (at >= s->n) {
            j_fail(r, "ValueError", "incomplete format");
            return fail_out(&text);
        }
        char type = s->p[at++];
        if (type == '%') {
            if (!j_out_part(r, &text, s, at - 1, at)) return fail_out(&text);
            continue;
        }
        if (!strchr("diuoxXeEfFgGcrsa", type) || !type) {
            j_fail(r, "ValueError", "unsupported format character '%c' (0x%x) at index %zu", type >= 32 ? type : '?', (unsigned char)type, at - 1);
            return fail_out(&text);
        }
        if ((value.t == J_MISSING && !next_value(r, &v, &value)) || !percent_value(r, &text, type, value, &f)) return fail_out(&text);
    }
    bool all_taken = args.t == J_TUPLE ? v.taken == args.l->n : v.taken > 0 || args.t == J_DICT || args.t == J_LIST || args.t == J_RANGE || args.t == J_UNDEF;
    if (!all_taken) {
        j_fail(r, "TypeError", "not all arguments converted during string formatting");
        return fail_out(&text);
    }
    return j_out_value(r, &text, out) && j_markup(r, out->s, s->markup, out);
}

static bool parse_spec(jrender *r, const jstr *s, spec *f) {
    size_t at = 0, used = 0;
    *f = (spec){.width = -1, .precision = -1};
    if (s->n) {
        j_decode(s->p, s->n, &used);
        if (used < s->n && strchr("<>=^", s->p[used])) {
            f->align = s->p[used];
            if (!(f->fill = j_str_slice(r, s, 0, used))) return false;
            at = used + 1;
        } else if (strchr("<>=^", s->p[0])) {
            f->align = s->p[at++];
        }
    }
    if (at < s->n && strchr("+- ", s->p[at])) f->sign = s->p[at++];
    if (at < s->n && s->p[at] == '#') f->alt = true, at++;
    if (at < s->n && s->p[at] == '0') f->zero = true, at++;
    if (at < s->n && s->p[at] >= '0' && s->p[at] <= '9' && !number_at(r, s, &at, &f->width)) return false;
    if (at < s->n && (s->p[at] == ',' || s->p[at] == '_')) f->comma = s->p[at++];
    if (at < s->n && s->p[at] == '.') {
        size_t from = ++at;
        if (!number_at(r, s, &at, &f->precision)) return false;
        if (at == from) return j_fail(r, "ValueError", "Format specifier missing precision");
    }
    if (at < s->n) f->type = s->p[at++];
    return at == s->n || j_fail(r, "ValueError", "Invalid format specifier");
}

static bool format_value(jrender *r, jout *out, jv v, const jstr *spec_text) {
    spec f;
    if (!parse_spec(r, spec_text, &f)) return false;
    if (v.t == J_STR) {
        const jstr *s;
        if (f.type && f.type != 's')
            return j_fail(r, "ValueError", "Unknown format code '%c' for object of type 'str'", f.type);
        if (f.comma) return j_fail(r, "ValueError", "Cannot specify '%c' with 's'.", f.comma);
        if (f.align == '=') return j_fail(r, "ValueError", "'=' alignment not allowed in string format specifier");
        if (f.zero && !f.fill && !(f.fill = j_str_c(r, "0"))) return false;
        return j_str_of(r, v, &s) && format_str(r, out, s, &f, '<');
    }
    if (jv_is_number(v)) {
        if (v.t == J_BOOL && spec_text->n == 0) return j_write_str(r, out, v);
        bool known = !f.type || strchr(v.t == J_FLOAT ? "eEfFgG%n" : "bcdoxXneEfFgG%", f.type);
        if (!known) return j_fail(r, "ValueError", "Unknown format code '%c' for object of type '%s'", f.type, j_type_name(v));
        bool whole = v.t != J_FLOAT && (!f.type || strchr("bcdoxXn", f.type));
        if (whole && f.precision >= 0) return j_fail(r, "ValueError", "Precision not allowed in integer format specifier");
        if (f.comma && f.type && (strchr("cn", f.type) || (f.comma == ',' && strchr("boxX", f.type))))
            return j_fail(r, "ValueError", "Cannot specify '%c' with '%c'.", f.comma, f.type);
        if (f.type == 'c' && f.sign) return j_fail(r, "ValueError", "Sign not allowed with integer format specifier 'c'");
        if (f.type == 'c' && f.zero && !f.fill && !(f.fill = j_str_c(r, "0"))) return false;
        if (f.type == 'c') return percent_value(r, out, 'c', v, &f);
        if (f.type == 'n') f.type = v.t == J_FLOAT ? 'g' : 'd';
        return format_number(r, out, v, &f);
    }
    if (spec_text->n) return j_fail(r, "TypeError", "unsupported format string passed to %s.__format__", j_type_name(v));
    return j_write_str(r, out, v);
}

/* What a replacement field names: "0", "name", "", then .attr and [item] any number of times. */
static bool field(jrender *r, const jstr *s, size_t begin, size_t end, const jargs *args, int64_t *next, jv *out) {
    size_t at = begin;
    while (at < end && s->p[at] != '.' && s->p[at] != '[') at++;
    bool digits = at > begin && at - begin < 10;
    int64_t index = 0;
    for (size_t i = begin; digits && i < at; i++) {
        digits = s->p[i] >= '0' && s->p[i] <= '9';
        index = index * 10 + s->p[i] - '0';
    }
    bool next_one = begin == end;
    if (next_one ? *next < 0 : digits && at == end && *next > 0)
        return j_fail(r, "ValueError", "cannot switch from manual field specification to automatic field numbering");
    if (next_one) index = (*next)++;
    else if (digits && at == end) *next = -1; /* numbered by hand from here on */
    if (digits || next_one) {
        if ((size_t)index >= args->n) return j_fail(r, "IndexError", "tuple index out of range");
        *out = args->pos[index];
    } else {
        out->t = J_MISSING;
        for (size_t i = 0; i < args->n_kw; i++)
            if (j_str_eq(args->kw[i].name, (am_str){s->p + begin, at - begin})) *out = args->kw[i].v;
        if (out->t == J_MISSING) {
            const jstr *key = j_str_slice(r, s, begin, at);
            return key && j_fail(r, "KeyError", "%s", j_repr_c(r, jv_str(key)));
        }
    }
    while (at < end) {
        char open = s->p[at++];
        size_t from = at;
        while (at < end && (open == '[' ? s->p[at] != ']' : s->p[at] != '.' && s->p[at] != '[')) at++;
        if (open != '.' && open != '[') return j_fail(r, "ValueError", "Only '.' or '[' may follow ']' in format field specifier");
        if (open == '[' && at == end) return j_fail(r, "ValueError", "expected '}' before end of string");
        const jstr *key = j_str_slice(r, s, from, at);
        if (!key || key->n == 0) return key && j_fail(r, "ValueError", "Empty attribute in format string");
        bool number = key->n < 18 && strspn(key->p, "0123456789") >= key->n;
        if (open == '.' ? !j_getattr(r, *out, key, out) : !j_getitem(r, *out, number ? jv_int(atoll(key->p)) : jv_str(key), out)) return false;
        if (open == '[') at++;
    }
    return true;
}

static bool replace_fields(jrender *r, jout *out, const jstr *s, const jargs *args, int64_t *next, int depth);

/* One field: s[begin, end) is what stands between the braces. */
static bool one_field(jrender *r, jout *out, const jstr *s, size_t span[2], const jargs *args, int64_t *next, int depth) {
    size_t name_end = span[0], brackets = 0;
    for (; name_end < span[1]; name_end++) {
        if (s->p[name_end] == '[') brackets = 1;
        if (s->p[name_end] == ']') brackets = 0;
        if (!brackets && (s->p[name_end] == ':' || s->p[name_end] == '!')) break;
    }
    jv v;
    if (!field(r, s, span[0], name_end, args, next, &v)) return false;
    size_t at = name_end;
    jout text;
    if (at < span[1] && s->p[at] == '!') {
        char kind = at + 1 < span[1] ? s->p[at + 1] : 0;
        if (!kind) return j_fail(r, "ValueError", "unmatched '{' in format spec");
        if (kind != 's' && kind != 'r' && kind != 'a') return j_fail(r, "ValueError", "Unknown conversion specifier %c", kind);
        j_out_init(r, &text);
        if (!(kind == 's' ? j_write_str(r, &text, v) : j_write_repr(r, &text, v, 0))) return fail_out(&text);
        if (!j_out_value(r, &text, &v) || (kind == 'a' && !ascii(r, v.s, &v))) return false;
        at += 2;
        if (at < span[1] && s->p[at] != ':') return j_fail(r, "ValueError", "expected ':' after conversion specifier");
    }
    const jstr *spec_text = j_str_slice(r, s, at < span[1] ? at + 1 : span[1], span[1]);
    if (!spec_text) return false;
    j_out_init(r, &text);
    if (!replace_fields(r, &text, spec_text, args, next, depth + 1)) return fail_out(&text);
    if (!(spec_text = j_out_finish(r, &text))) return false;
    if (!s->markup) return format_value(r, out, v, spec_text);
    if (v.t == J_STR && v.s->markup) {
        if (spec_text->n) return j_fail(r, "ValueError", "Unsupported format specification for Markup.");
        return j_out_str(r, out, v.s);
    }
    j_out_init(r, &text);
    if (!format_value(r, &text, v, spec_text)) return fail_out(&text);
    return j_out_value(r, &text, &v) && j_write_escaped(r, out, v);
}

static bool replace_fields(jrender *r, jout *out, const jstr *s, const jargs *args, int64_t *next, int depth) {
    if (depth > 2) return j_fail(r, "ValueError", "Max string recursion exceeded");
    for (size_t at = 0; at < s->n;) {
        size_t stop = at;
        while (stop < s->n && s->p[stop] != '{' && s->p[stop] != '}') stop++;
        if (!j_charge(r, 1) || !j_out_part(r, out, s, at, stop)) return false;
        if (stop == s->n) break;
        char c = s->p[stop];
        if (stop + 1 < s->n && s->p[stop + 1] == c) {
            if (!j_out_part(r, out, s, stop, stop + 1)) return false;
            at = stop + 2;
            continue;
        }
        if (c == '}') return j_fail(r, "ValueError", "Single '}' encountered in format string");
        size_t end = stop + 1, nested = 1;
        for (; end < s->n; end++) {
            nested += s->p[end] == '{';
            if (s->p[end] == '}' && --nested == 0) break;
        }
        if (end == s->n) return j_fail(r, "ValueError", stop + 1 == s->n ? "Single '{' encountered in format string" : "expected '}' before end of string");
        if (!one_field(r, out, s, (size_t[2]){stop + 1, end}, args, next, depth)) return false;
        at = end + 1;
    }
    return true;
}

bool j_brace_format(jrender *r, const jstr *format, const jargs *args, jv *out) {
    jout text;
    int64_t next = 0;
    j_out_init(r, &text);
    if (!replace_fields(r, &text, format, args, &next, 0)) return fail_out(&text);
    return j_out_value(r, &text, out);
}
