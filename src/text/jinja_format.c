/* Owns how values read: str() and repr() as Python prints them, floats in their shortest form, and JSON as json.dumps writes it
 * (which is what transformers' tojson calls: no HTML escaping). Text that holds input stays marked: the whole content of a quoted
 * string counts as input when any of it does. */
#include "text/jinja_int.h"

#include <stdio.h>

enum { MAX_VALUE_DEPTH = 256 };

size_t j_format_float(double f, char out[40]) {
    if (isnan(f)) return (size_t)snprintf(out, 40, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 40, f < 0 ? "-inf" : "inf");
    char e[40];
    int precision = 0;
    do {
        snprintf(e, sizeof e, "%.*e", precision, f);
    } while (strtod(e, NULL) != f && ++precision < 17);
    int exponent = atoi(strchr(e, 'e') + 1);
    if (exponent >= 16 || exponent < -4) {
        char *mark = strchr(e, 'e');
        return (size_t)snprintf(out, 40, "%.*se%c%02d", (int)(mark - e), e, exponent < 0 ? '-' : '+', abs(exponent));
    }
    int decimals = precision - exponent;
    return (size_t)snprintf(out, 40, "%.*f", decimals > 0 ? decimals : 1, f);
}

static bool write_float(jrender *r, jout *out, double f) {
    char text[40];
    return j_out_bytes(r, out, text, j_format_float(f, text), false);
}

static bool write_int(jrender *r, jout *out, int64_t i) {
    char text[24];
    return j_out_bytes(r, out, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)i), false);
}

static bool repr_str(jrender *r, jout *out, const jstr *s) {
    if (s->number) return j_out_str(r, out, s);
    bool input = j_str_is_input(s);
    char quote = memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    if (!j_out_bytes(r, out, &quote, 1, false)) return false;
    size_t done = 0;
    for (size_t i = 0, used; i < s->n; i += used) {
        int32_t c = j_decode(s->p + i, s->n - i, &used);
        if (c != quote && c != '\\' && j_is_printable(c)) continue;
        char text[16];
        int n;
        if (c == quote || c == '\\')
            n = snprintf(text, sizeof text, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            n = snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else
            n = snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        if (!j_out_bytes(r, out, s->p + done, i - done, input) || !j_out_bytes(r, out, text, (size_t)n, input)) return false;
        done = i + used;
    }
    return j_out_bytes(r, out, s->p + done, s->n - done, input) && j_out_bytes(r, out, &quote, 1, false);
}

static bool repr_list(jrender *r, jout *out, jv v, int depth) {
    bool tuple = v.t == J_TUPLE;
    if (!j_out_c(r, out, tuple ? "(" : "[")) return false;
    for (size_t i = 0; i < v.l->n; i++)
        if ((i && !j_out_c(r, out, ", ")) || !j_write_repr(r, out, v.l->v[i], depth + 1)) return false;
    return j_out_c(r, out, !tuple ? "]" : v.l->n == 1 ? ",)" : ")");
}

static bool repr_dict(jrender *r, jout *out, const jdict *d, int depth) {
    if (!j_out_c(r, out, "{")) return false;
    for (size_t i = 0; i < d->n; i++) {
        if ((i && !j_out_c(r, out, ", ")) || !j_write_repr(r, out, d->e[i].key, depth + 1) || !j_out_c(r, out, ": ") ||
            !j_write_repr(r, out, d->e[i].value, depth + 1))
            return false;
    }
    return j_out_c(r, out, "}");
}

static bool repr_view(jrender *r, jout *out, const jview *view, int depth) {
    static const char *const name[] = {"dict_keys([", "dict_values([", "dict_items(["};
    if (!j_out_c(r, out, name[view->kind])) return false;
    jiter it = {.src = {.t = J_VIEW, .view = (jview *)view}};
    jv item;
    int got;
    bool first = true;
    while ((got = j_next(r, &it, &item)) > 0) {
        if ((!first && !j_out_c(r, out, ", ")) || !j_write_repr(r, out, item, depth + 1)) return false;
        first = false;
    }
    return got == 0 && j_out_c(r, out, "])");
}

static bool repr_range(jrender *r, jout *out, const jrange *range) {
    char text[100];
    if (range->step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)range->start, (long long)range->stop);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)range->start, (long long)range->stop, (long long)range->step);
    return j_out_c(r, out, text);
}

/* Things whose repr in Python is a type and an address: ours has no address, so that equal prompts stay equal. */
static bool repr_object(jrender *r, jout *out, jv v, int depth) {
    switch (v.t) {
    case J_NAMESPACE: return j_out_c(r, out, "<Namespace ") && repr_dict(r, out, v.d, depth + 1) && j_out_c(r, out, ">");
    case J_MACRO:
        if (!v.macro->name) return j_out_c(r, out, "<Macro anonymous>");
        return j_out_c(r, out, "<Macro ") && repr_str(r, out, v.macro->name) && j_out_c(r, out, ">");
    case J_LOOP: {
        int64_t n;
        char text[60];
        if (!jv_length(r, v, &n)) return false;
        snprintf(text, sizeof text, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1, (long long)n);
        return j_out_c(r, out, text);
    }
    case J_SELF: return j_out_c(r, out, "<TemplateReference None>");
    default: return j_out_c(r, out, "<") && j_out_c(r, out, j_type_name(v)) && j_out_c(r, out, " object>");
    }
}

bool j_write_repr(jrender *r, jout *out, jv v, int depth) {
    if (depth > MAX_VALUE_DEPTH) return j_limit(r, "prints a value nested more than %d levels deep", MAX_VALUE_DEPTH);
    if (!j_charge(r, 1)) return false;
    switch (v.t) {
    case J_MISSING: case J_UNDEF: return j_out_c(r, out, "Undefined");
    case J_NONE: return j_out_c(r, out, "None");
    case J_BOOL: return j_out_c(r, out, v.b ? "True" : "False");
    case J_INT: return write_int(r, out, v.i);
    case J_FLOAT: return write_float(r, out, v.f);
    case J_STR:
        if (!v.s->markup) return repr_str(r, out, v.s);
        return j_out_c(r, out, "Markup(") && repr_str(r, out, v.s) && j_out_c(r, out, ")");
    case J_LIST: case J_TUPLE: return repr_list(r, out, v, depth);
    case J_DICT: return repr_dict(r, out, v.d, depth);
    case J_VIEW: return repr_view(r, out, v.view, depth);
    case J_RANGE: return repr_range(r, out, v.range);
    default: return repr_object(r, out, v, depth);
    }
}

bool j_write_str(jrender *r, jout *out, jv v) {
    if (v.t == J_STR) return j_out_str(r, out, v.s);
    if (v.t == J_UNDEF) return true;
    return j_write_repr(r, out, v, 0);
}

bool j_str_of(jrender *r, jv v, const jstr **s) {
    if (v.t == J_STR) {
        *s = v.s;
        return true;
    }
    jout out;
    j_out_init(r, &out);
    if (!j_write_str(r, &out, v)) {
        j_out_free(&out);
        return false;
    }
    *s = j_out_finish(r, &out);
    return *s != NULL;
}

static bool json_str(jrender *r, jout *out, const jstr *s, const jdump *how) {
    bool input = j_str_is_input(s);
    if (!j_out_c(r, out, "\"")) return false;
    size_t done = 0;
    for (size_t i = 0, used; i < s->n; i += used) {
        unsigned char b = (unsigned char)s->p[i];
        used = 1;
        if (b >= 0x20 && b < 0x80 && b != '"' && b != '\\' && (b != 0x7f || !how->ensure_ascii)) continue;
        if (b >= 0x7f && !how->ensure_ascii) continue;
        int32_t c = j_decode(s->p + i, s->n - i, &used);
        static const char from[] = "\"\\\n\r\t\f\b", into[] = "\"\\nrtfb";
        const char *k = c && c < 0x80 ? strchr(from, c) : NULL;
        char text[16];
        int n;
        if (k)
            n = snprintf(text, sizeof text, "\\%c", into[k - from]);
        else if (c < 0x10000)
            n = snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        else
            n = snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd7c0u + ((unsigned)c >> 10), 0xdc00u + ((unsigned)c & 0x3ff));
        if (!j_out_bytes(r, out, s->p + done, i - done, input) || !j_out_bytes(r, out, text, (size_t)n, input)) return false;
        done = i + used;
    }
    return j_out_bytes(r, out, s->p + done, s->n - done, input) && j_out_c(r, out, "\"");
}

static bool json_float(jrender *r, jout *out, double f) {
    if (isnan(f)) return j_out_c(r, out, "NaN");
    if (isinf(f)) return j_out_c(r, out, f < 0 ? "-Infinity" : "Infinity");
    return write_float(r, out, f);
}

static bool new_line(jrender *r, jout *out, const jdump *how, int depth) {
    return !how->indent || (j_out_c(r, out, "\n") && j_out_repeat(r, out, how->indent, depth));
}

static bool json_key(jrender *r, jout *out, jv key, const jdump *how) {
    if (key.t == J_STR) return json_str(r, out, key.s, how);
    if (key.t != J_NONE && !jv_is_number(key))
        return j_fail(r, "TypeError", "keys must be str, int, float, bool or None, not %s", j_type_name(key));
    return j_out_c(r, out, "\"") && j_write_json(r, out, key, how, 0) && j_out_c(r, out, "\"");
}

static bool json_list(jrender *r, jout *out, const jlist *l, const jdump *how, int depth) {
    if (l->n == 0) return j_out_c(r, out, "[]");
    if (!j_out_c(r, out, "[")) return false;
    for (size_t i = 0; i < l->n; i++) {
        if (i && !j_out_str(r, out, how->item_sep)) return false;
        if (!new_line(r, out, how, depth + 1) || !j_write_json(r, out, l->v[i], how, depth + 1)) return false;
    }
    return new_line(r, out, how, depth) && j_out_c(r, out, "]");
}

static bool sorted_entries(jrender *r, const jdict *d, jlist *keys, jlist *values) {
    for (size_t i = 0; i < d->n; i++)
        if (!j_list_add(r, keys, d->e[i].key) || !j_list_add(r, values, d->e[i].value)) return false;
    jlist *by = j_list(r, d->n);
    if (!by) return false;
    for (size_t i = 0; i < d->n; i++) by->v[by->n++] = keys->v[i];
    return j_sort(r, by, values, false) && j_sort(r, by, keys, false);
}

static bool json_dict(jrender *r, jout *out, const jdict *d, const jdump *how, int depth) {
    if (d->n == 0) return j_out_c(r, out, "{}");
    jlist *keys = NULL, *values = NULL;
    if (how->sort_keys) {
        if (!(keys = j_list(r, d->n)) || !(values = j_list(r, d->n)) || !sorted_entries(r, d, keys, values)) return false;
    }
    if (!j_out_c(r, out, "{")) return false;
    for (size_t i = 0; i < d->n; i++) {
        if (i && !j_out_str(r, out, how->item_sep)) return false;
        if (!new_line(r, out, how, depth + 1) || !json_key(r, out, keys ? keys->v[i] : d->e[i].key, how) ||
            !j_out_str(r, out, how->key_sep) || !j_write_json(r, out, values ? values->v[i] : d->e[i].value, how, depth + 1))
            return false;
    }
    return new_line(r, out, how, depth) && j_out_c(r, out, "}");
}

bool j_write_json(jrender *r, jout *out, jv v, const jdump *how, int depth) {
    if (depth > MAX_VALUE_DEPTH) return j_limit(r, "writes JSON nested more than %d levels deep", MAX_VALUE_DEPTH);
    if (!j_charge(r, 1)) return false;
    switch (v.t) {
    case J_NONE: return j_out_c(r, out, "null");
    case J_BOOL: return j_out_c(r, out, v.b ? "true" : "false");
    case J_INT: return write_int(r, out, v.i);
    case J_FLOAT: return json_float(r, out, v.f);
    case J_STR: return v.s->number ? j_out_str(r, out, v.s) : json_str(r, out, v.s, how);
    case J_LIST: case J_TUPLE: return json_list(r, out, v.l, how, depth);
    case J_DICT: return json_dict(r, out, v.d, how, depth);
    default: return j_fail(r, "TypeError", "Object of type %s is not JSON serializable", j_type_name(v));
    }
}
