/* Owns the methods of str, list, tuple and dict that the sandbox lets templates call. What changes a list or dict in place is
 * refused when the member is looked up (jinja_ops.c); list.pop is not on jinja2's list of such methods, so it works here too. */
#include "text/jinja_int.h"

#include <stdio.h>

static bool given(jv v) { return v.t != J_MISSING && v.t != J_NONE; }

static bool str_arg(jrender *r, const char *what, jv v, const jstr **out) {
    if (v.t != J_STR) return j_fail(r, "TypeError", "%s must be str, not %s", what, j_type_name(v));
    *out = v.s;
    return true;
}

static bool substring_arg(jrender *r, jv v, const jstr **out) {
    if (v.t != J_STR) return j_fail(r, "TypeError", "must be str, not %s", j_type_name(v));
    *out = v.s;
    return true;
}

static bool give_str(const jstr *s, jv *out) {
    if (s) *out = jv_str(s);
    return s != NULL;
}

static bool give_list(jlist *l, jv *out) {
    *out = (jv){.t = J_LIST, .l = l};
    return l != NULL;
}

static bool m_upper(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, j_map_case(r, self.s, j_to_upper, out); }
static bool m_lower(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, j_map_case(r, self.s, j_to_lower, out); }
static bool m_casefold(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, j_map_case(r, self.s, j_casefold, out); }
static bool m_encode(jrender *r, jv self, jv *arg, jv *out) {
    (void)self, (void)arg, (void)out;
    return j_fail(r, "TypeError", "bytes are not supported in templates");
}
static bool m_strip(jrender *r, jv self, jv *arg, jv *out) { return j_strip(r, self.s, arg[0], 3, out); }
static bool m_lstrip(jrender *r, jv self, jv *arg, jv *out) { return j_strip(r, self.s, arg[0], 1, out); }
static bool m_rstrip(jrender *r, jv self, jv *arg, jv *out) { return j_strip(r, self.s, arg[0], 2, out); }

static bool m_capitalize(jrender *r, jv self, jv *arg, jv *out) {
    (void)arg;
    const jfunc *f = j_text_filter(AM_STR("capitalize"));
    return f->fn(r, self, arg, out);
}

/* str.title and str.swapcase, which look at the character before */
static bool recase(jrender *r, const jstr *s, bool title, jv *out) {
    jout text;
    bool after_cased = false;
    size_t part = 0;
    j_out_init(r, &text);
    for (size_t i = 0, used; i < s->n; i += used) {
        int32_t c = j_decode(s->p + i, s->n - i, &used), to[3];
        bool lower = title ? after_cased : j_is_upper(c);
        size_t n = lower ? j_lower_at((am_str){s->p, s->n}, i, to) : title ? j_to_title(c, to) : j_is_lower(c) ? j_to_upper(c, to) : (to[0] = c, (size_t)1);
        after_cased = j_is_cased(c);
        while (part < s->n_in && s->in[part].end <= i) part++;
        bool input = part < s->n_in && s->in[part].begin <= i;
        for (size_t k = 0; k < n; k++) {
            char bytes[4];
            if (j_out_bytes(r, &text, bytes, j_encode(to[k], bytes), input)) continue;
            j_out_free(&text);
            return false;
        }
    }
    return j_charge(r, s->n / 8) ? j_out_value(r, &text, out) : (j_out_free(&text), false);
}
static bool m_title(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, recase(r, self.s, true, out); }
static bool m_swapcase(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, recase(r, self.s, false, out); }

/* The byte range of self[start:end], for methods that take them. false with *empty: start lies behind the end. */
static bool range_of(jrender *r, const jstr *s, const jv *arg, size_t *begin, size_t *end, bool *outside) {
    int64_t n = (int64_t)j_str_chars(s), a = 0, b = n;
    if (given(arg[0]) && !j_arg_int(r, arg[0], &a)) return false;
    if (given(arg[1]) && !j_arg_int(r, arg[1], &b)) return false;
    if (a < 0) a = a < -n ? 0 : a + n;
    if (b < 0) b = b < -n ? 0 : b + n;
    if (b > n) b = n;
    *outside = a > n || a > b;
    *begin = j_str_offset(s, (size_t)(a > n ? n : a));
    *end = j_str_offset(s, (size_t)b);
    return j_charge(r, s->n / 32);
}

static bool affix(jrender *r, jv self, jv *arg, bool at_end, jv *out) {
    size_t begin, end;
    bool outside;
    if (!range_of(r, self.s, arg + 1, &begin, &end, &outside)) return false;
    jlist one = {.v = &arg[0], .n = 1};
    const jlist *all = arg[0].t == J_TUPLE ? arg[0].l : &one;
    *out = jv_false;
    for (size_t i = 0; i < all->n; i++) {
        if (all->v[i].t != J_STR)
            return j_fail(r, "TypeError", arg[0].t == J_TUPLE ? "tuple for %s must only contain str, not %s" : "%s first arg must be str or a tuple of str, not %s",
                          at_end ? "endswith" : "startswith", j_type_name(all->v[i]));
        const jstr *x = all->v[i].s;
        if (outside || x->n > end - begin) continue;
        if (memcmp(self.s->p + (at_end ? end - x->n : begin), x->p, x->n) == 0) *out = jv_true;
    }
    return true;
}
static bool m_startswith(jrender *r, jv self, jv *arg, jv *out) { return affix(r, self, arg, false, out); }
static bool m_endswith(jrender *r, jv self, jv *arg, jv *out) { return affix(r, self, arg, true, out); }

static size_t chars_between(const jstr *s, size_t begin, size_t end) {
    size_t n = 0;
    for (size_t i = begin; i < end; i++) n += (s->p[i] & 0xc0) != 0x80;
    return n;
}

/* The last place of `what` in p[0, n), NULL when there is none or the steps ran out. Comparing costs steps, so that a text made
 * for it ("aaa...ab" in "aaa...") cannot make this quadratic. */
static const char *find_last(jrender *r, const char *p, size_t n, const jstr *what) {
    if (what->n > n) return NULL;
    if (what->n == 0) return p + n;
    for (const char *at = p + n - what->n + 1; (at = memrchr(p, what->p[0], (size_t)(at - p)));)
        if (!j_charge(r, 1 + what->n / 32) || memcmp(at, what->p, what->n) == 0) return r->status ? NULL : at;
    return NULL;
}

static bool search(jrender *r, jv self, jv *arg, bool last, bool must, jv *out) {
    const jstr *what = NULL;
    size_t begin, end;
    bool outside;
    if (!substring_arg(r, arg[0], &what) || !range_of(r, self.s, arg + 1, &begin, &end, &outside)) return false;
    const char *p = self.s->p + begin, *at = NULL;
    if (!outside && what->n <= end - begin)
        at = last ? find_last(r, p, end - begin, what) : what->n ? memmem(p, end - begin, what->p, what->n) : p;
    if (r->status) return false;
    if (!at && must) return j_fail(r, "ValueError", "substring not found");
    *out = jv_int(at ? (int64_t)chars_between(self.s, 0, (size_t)(at - self.s->p)) : -1);
    return j_charge(r, outside ? 1 : (end - begin) / 32);
}
static bool m_find(jrender *r, jv self, jv *arg, jv *out) { return search(r, self, arg, false, false, out); }
static bool m_rfind(jrender *r, jv self, jv *arg, jv *out) { return search(r, self, arg, true, false, out); }
static bool m_index(jrender *r, jv self, jv *arg, jv *out) { return search(r, self, arg, false, true, out); }
static bool m_rindex(jrender *r, jv self, jv *arg, jv *out) { return search(r, self, arg, true, true, out); }

static bool m_count(jrender *r, jv self, jv *arg, jv *out) {
    const jstr *what = NULL;
    size_t begin, end;
    bool outside;
    int64_t n = 0;
    if (!substring_arg(r, arg[0], &what) || !range_of(r, self.s, arg + 1, &begin, &end, &outside)) return false;
    if (!outside && what->n == 0) n = (int64_t)chars_between(self.s, begin, end) + 1;
    while (!outside && what->n && what->n <= end - begin) {
        const char *p = memmem(self.s->p + begin, end - begin, what->p, what->n);
        if (!p || !j_charge(r, 1)) break;
        begin = (size_t)(p - self.s->p) + what->n;
        n++;
    }
    *out = jv_int(n);
    return !r->status;
}

static bool m_replace(jrender *r, jv self, jv *arg, jv *out) {
    const jstr *old = NULL, *new_ = NULL;
    int64_t count = -1;
    if (self.s->markup && !j_escape_value(r, arg[1], &arg[1])) return false;
    if (!str_arg(r, "replace() argument 1", arg[0], &old) || !str_arg(r, "replace() argument 2", arg[1], &new_)) return false;
    if (arg[2].t != J_MISSING && !j_arg_int(r, arg[2], &count)) return false;
    return j_replace(r, self.s, old, new_, count, out) && j_markup(r, out->s, self.s->markup, out);
}

/* split() at white space */
static bool split_words(jrender *r, const jstr *s, int64_t max, bool right, jlist *l) {
    size_t begin = 0, end = s->n, used;
    jv rest;
    if (!j_charge(r, s->n / 16)) return false;
    while (begin < end && !right) {
        while (begin < end && j_is_space(j_decode(s->p + begin, end - begin, &used))) begin += used;
        if (begin == end) break;
        size_t stop = begin;
        if (max >= 0 && (int64_t)l->n == max) {
            if (!j_strip(r, j_str_slice(r, s, begin, end), (jv){.t = J_MISSING}, 0, &rest)) return false;
            return j_list_add(r, l, rest);
        }
        while (stop < end && !j_is_space(j_decode(s->p + stop, end - stop, &used))) stop += used;
        const jstr *word = j_str_slice(r, s, begin, stop);
        if (!word || !j_list_add(r, l, jv_str(word))) return false;
        begin = stop;
    }
    while (right && end > 0) {
        if (!j_strip(r, j_str_slice(r, s, 0, end), (jv){.t = J_MISSING}, 2, &rest)) return false;
        if (!(end = rest.s->n)) break;
        if (max >= 0 && (int64_t)l->n == max) return j_list_add(r, l, rest);
        size_t start = end;
        while (start > 0) {
            size_t c = start - 1;
            while (c > 0 && (s->p[c] & 0xc0) == 0x80) c--;
            if (j_is_space(j_decode(s->p + c, start - c, &used))) break;
            start = c;
        }
        const jstr *word = j_str_slice(r, s, start, end);
        if (!word || !j_list_add(r, l, jv_str(word))) return false;
        end = start;
    }
    return true;
}

static bool split_at(jrender *r, const jstr *s, const jstr *sep, int64_t max, bool right, jlist *l) {
    size_t begin = 0, end = s->n;
    for (int64_t n = 0; max < 0 || n < max; n++) {
        const char *p = right ? find_last(r, s->p + begin, end - begin, sep)
                              : end - begin >= sep->n ? memmem(s->p + begin, end - begin, sep->p, sep->n) : NULL;
        if (!p) break; /* also when the steps ran out: the charge below fails then */
        size_t at = (size_t)(p - s->p);
        const jstr *part = right ? j_str_slice(r, s, at + sep->n, end) : j_str_slice(r, s, begin, at);
        if (!part || !j_list_add(r, l, jv_str(part)) || !j_charge(r, 1)) return false;
        if (right) end = at;
        else begin = at + sep->n;
    }
    const jstr *part = j_str_slice(r, s, begin, end);
    return part && j_list_add(r, l, jv_str(part)) && j_charge(r, s->n / 16);
}

static bool split(jrender *r, jv self, jv *arg, bool right, jv *out) {
    int64_t max = -1;
    jlist *l = j_list(r, 0);
    if (!l || (arg[1].t != J_MISSING && !j_arg_int(r, arg[1], &max))) return false;
    bool ok;
    if (!given(arg[0])) {
        ok = split_words(r, self.s, max, right, l);
    } else {
        const jstr *sep = NULL;
        if (arg[0].t != J_STR) return j_fail(r, "TypeError", "must be str or None, not %s", j_type_name(arg[0]));
        sep = arg[0].s;
        if (sep->n == 0) return j_fail(r, "ValueError", "empty separator");
        ok = split_at(r, self.s, sep, max, right, l);
    }
    for (size_t i = 0; ok && right && i < l->n / 2; i++) {
        jv x = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = x;
    }
    return give_list(l, out) && ok;
}
static bool m_split(jrender *r, jv self, jv *arg, jv *out) { return split(r, self, arg, false, out); }
static bool m_rsplit(jrender *r, jv self, jv *arg, jv *out) { return split(r, self, arg, true, out); }

static bool m_splitlines(jrender *r, jv self, jv *arg, jv *out) {
    jlist *l;
    int64_t keep;
    if (arg[0].t != J_MISSING && !j_arg_int(r, arg[0], &keep)) return false;
    return j_splitlines(r, self.s, arg[0].t != J_MISSING && jv_truth(arg[0]), &l) && give_list(l, out);
}

static bool m_join(jrender *r, jv self, jv *arg, jv *out) {
    jiter it;
    jv item;
    jout text;
    int got;
    if (arg[0].t == J_NONE || jv_is_number(arg[0])) return j_fail(r, "TypeError", "can only join an iterable");
    if (!j_iter(r, arg[0], &it)) return false;
    j_out_init(r, &text);
    for (size_t i = 0; (got = j_next(r, &it, &item)) > 0; i++) {
        if (item.t != J_STR && !self.s->markup) {
            j_fail(r, "TypeError", "sequence item %zu: expected str instance, %s found", i, j_type_name(item));
            break;
        }
        if ((i && !j_out_str(r, &text, self.s)) || !(self.s->markup ? j_write_escaped(r, &text, item) : j_out_str(r, &text, item.s))) break;
    }
    if (got == 0) return j_out_value(r, &text, out);
    j_out_free(&text);
    return false;
}

static bool pad(jrender *r, jv self, jv *arg, int side, jv *out) {
    int64_t width;
    const jstr *fill = j_str_c(r, " ");
    if (!fill || !j_arg_int(r, arg[0], &width)) return false;
    if (arg[1].t != J_MISSING) {
        if (!str_arg(r, "The fill character", arg[1], &fill)) return false;
        if (self.s->markup && (!j_escape(r, fill, out) || !(fill = out->s))) return false;
        if (j_str_chars(fill) != 1) return j_fail(r, "TypeError", "The fill character must be exactly one character long");
    }
    return j_pad(r, self.s, width, fill, side, out);
}
static bool m_center(jrender *r, jv self, jv *arg, jv *out) { return pad(r, self, arg, 0, out); }
static bool m_ljust(jrender *r, jv self, jv *arg, jv *out) { return pad(r, self, arg, 1, out); }
static bool m_rjust(jrender *r, jv self, jv *arg, jv *out) { return pad(r, self, arg, 2, out); }

static bool m_zfill(jrender *r, jv self, jv *arg, jv *out) {
    int64_t width, n = (int64_t)j_str_chars(self.s);
    const jstr *zero = j_str_c(r, "0");
    if (!zero || !j_arg_int(r, arg[0], &width)) return false;
    size_t sign = self.s->n && (self.s->p[0] == '+' || self.s->p[0] == '-');
    jout text;
    j_out_init(r, &text);
    if (j_out_part(r, &text, self.s, 0, sign) && j_out_repeat(r, &text, zero, width - n) && j_out_part(r, &text, self.s, sign, self.s->n))
        return j_out_value(r, &text, out);
    j_out_free(&text);
    return false;
}

static bool m_expandtabs(jrender *r, jv self, jv *arg, jv *out) {
    int64_t size = 8, column = 0;
    const jstr *space = j_str_c(r, " ");
    if (!space || (arg[0].t != J_MISSING && !j_arg_int(r, arg[0], &size))) return false;
    jout text;
    j_out_init(r, &text);
    for (size_t i = 0; i < self.s->n; i++) {
        char c = self.s->p[i];
        int64_t n = c == '\t' ? (size > 0 ? size - column % size : 0) : 0;
        if (!(c == '\t' ? j_out_repeat(r, &text, space, n) : j_out_part(r, &text, self.s, i, i + 1))) {
            j_out_free(&text);
            return false;
        }
        column = c == '\n' || c == '\r' ? 0 : column + (c == '\t' ? n : (c & 0xc0) != 0x80);
    }
    return j_out_value(r, &text, out);
}

static bool remove_affix(jrender *r, jv self, jv *arg, bool suffix, jv *out) {
    const jstr *x = NULL, *s = self.s;
    if (!str_arg(r, suffix ? "removesuffix() argument" : "removeprefix() argument", arg[0], &x)) return false;
    bool has = x->n <= s->n && memcmp(s->p + (suffix ? s->n - x->n : 0), x->p, x->n) == 0;
    return give_str(!has ? s : suffix ? j_str_slice(r, s, 0, s->n - x->n) : j_str_slice(r, s, x->n, s->n), out);
}
static bool m_removeprefix(jrender *r, jv self, jv *arg, jv *out) { return remove_affix(r, self, arg, false, out); }
static bool m_removesuffix(jrender *r, jv self, jv *arg, jv *out) { return remove_affix(r, self, arg, true, out); }

static bool partition(jrender *r, jv self, jv *arg, bool last, jv *out) {
    const jstr *sep = NULL, *s = self.s;
    if (!str_arg(r, "separator", arg[0], &sep)) return false;
    if (sep->n == 0) return j_fail(r, "ValueError", "empty separator");
    const char *p = sep->n > s->n ? NULL : last ? find_last(r, s->p, s->n, sep) : memmem(s->p, s->n, sep->p, sep->n);
    size_t at = p ? (size_t)(p - s->p) : last ? 0 : s->n, after = p ? at + sep->n : at;
    jlist *l = j_list(r, 3);
    const jstr *empty = j_str_c(r, ""), *a = j_str_slice(r, s, 0, at), *b = j_str_slice(r, s, after, s->n);
    if (!l || !empty || !a || !b) return false;
    l->v[0] = jv_str(a);
    l->v[1] = jv_str(p ? sep : empty);
    l->v[2] = jv_str(b);
    l->n = 3;
    *out = (jv){.t = J_TUPLE, .l = l};
    return j_charge(r, s->n / 16);
}
static bool m_partition(jrender *r, jv self, jv *arg, jv *out) { return partition(r, self, arg, false, out); }
static bool m_rpartition(jrender *r, jv self, jv *arg, jv *out) { return partition(r, self, arg, true, out); }

static bool all_are(const jstr *s, bool (*is)(int32_t), bool empty, jv *out) {
    bool yes = s->n > 0 || empty;
    for (size_t i = 0, used; yes && i < s->n; i += used) yes = is(j_decode(s->p + i, s->n - i, &used));
    *out = jv_bool(yes);
    return true;
}
static bool is_ascii(int32_t c) { return c < 0x80; }
static bool is_alnum(int32_t c) { return c != '_' && j_is_word(c); }
static bool m_isspace(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, j_is_space, false, out); }
static bool m_isalpha(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, j_is_alpha, false, out); }
static bool m_isalnum(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, is_alnum, false, out); }
static bool m_isdigit(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, j_is_digit, false, out); }
static bool m_isdecimal(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, j_is_decimal, false, out); }
static bool m_isnumeric(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, j_is_numeric, false, out); }
static bool m_isascii(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, is_ascii, true, out); }
static bool m_isprintable(jrender *r, jv self, jv *arg, jv *out) { return (void)r, (void)arg, all_are(self.s, j_is_printable, true, out); }
static bool m_islower(jrender *r, jv self, jv *arg, jv *out) { return j_test_find(AM_STR("lower"))->fn(r, self, arg, out); }
static bool m_isupper(jrender *r, jv self, jv *arg, jv *out) { return j_test_find(AM_STR("upper"))->fn(r, self, arg, out); }

static bool m_isidentifier(jrender *r, jv self, jv *arg, jv *out) {
    size_t used = 1;
    (void)r, (void)arg;
    bool first = self.s->n && (self.s->p[0] == '_' || j_is_alpha(j_decode(self.s->p, self.s->n, &used)));
    return first ? all_are(self.s, j_is_word, false, out) : (*out = jv_false, true);
}

static bool m_istitle(jrender *r, jv self, jv *arg, jv *out) {
    bool any = false, before = false, yes = true;
    (void)r, (void)arg;
    for (size_t i = 0, used; yes && i < self.s->n; i += used) {
        int32_t c = j_decode(self.s->p + i, self.s->n - i, &used);
        bool upper = j_is_upper(c) || j_is_title(c);
        if (upper || j_is_lower(c)) yes = upper != before;
        any |= upper || j_is_lower(c);
        before = upper || j_is_lower(c);
    }
    *out = jv_bool(any && yes);
    return true;
}

static bool m_format(jrender *r, jv self, const jargs *args, jv *out) { return j_brace_format(r, self.s, args, out); }

static bool m_format_map(jrender *r, jv self, jv *arg, jv *out) {
    jargs args = {0};
    if (arg[0].t != J_DICT) {
        char why[80]; /* a name is looked up in whatever it is */
        snprintf(why, sizeof why, arg[0].t == J_STR ? "string indices must be integers, not 'str'" : jv_has_list(arg[0]) ? "%s indices must be integers or slices, not str"
                                                                                                    : "'%s' object is not subscriptable", j_type_name(arg[0]));
        return j_brace_format(r, self.s, &args, out) || j_fail_instead(r, "KeyError", "TypeError", why);
    }
    if (!(args.kw = j_alloc(r, (arg[0].d->n + 1) * sizeof *args.kw))) return false;
    for (size_t i = 0; i < arg[0].d->n; i++)
        if (arg[0].d->e[i].key.t == J_STR) args.kw[args.n_kw++] = (jkw){arg[0].d->e[i].key.s, arg[0].d->e[i].value};
    return j_brace_format(r, self.s, &args, out);
}

/* What str.translate puts in place of one character: nothing, a character by its number, or a string. */
static bool translated(jrender *r, jv to, jout *out, bool input) {
    char bytes[4];
    if (to.t == J_NONE) return true;
    if (to.t == J_STR) return j_out_str(r, out, to.s);
    if (!jv_is_int(to)) return j_fail(r, "TypeError", "character mapping must return integer, None or str");
    int64_t c = jv_to_int(to);
    if (c < 0 || c > 0x10ffff) return j_fail(r, "ValueError", "character mapping must be in range(0x110000)");
    return j_out_bytes(r, out, bytes, j_encode((int32_t)c, bytes), input);
}

static bool m_translate(jrender *r, jv self, jv *arg, jv *out) {
    jout text;
    jv to;
    size_t part = 0;
    if (arg[0].t == J_UNDEF) return self.s->n ? j_undefined_error(r, arg[0]) : give_str(self.s, out);
    if (arg[0].t != J_DICT && arg[0].t != J_STR && arg[0].t != J_RANGE && !jv_has_list(arg[0]))
        return self.s->n ? j_fail(r, "TypeError", "'%s' object is not subscriptable", j_type_name(arg[0])) : give_str(self.s, out);
    j_out_init(r, &text);
    for (size_t i = 0, used; i < self.s->n; i += used) {
        int32_t c = j_decode(self.s->p + i, self.s->n - i, &used);
        while (part < self.s->n_in && self.s->in[part].end <= i) part++;
        bool input = part < self.s->n_in && self.s->in[part].begin <= i;
        bool ok = arg[0].t == J_DICT ? j_dict_get(r, arg[0].d, jv_int(c), &to) : j_getitem(r, arg[0], jv_int(c), &to);
        if (ok) ok = to.t == J_MISSING || to.t == J_UNDEF ? j_out_part(r, &text, self.s, i, i + used) : translated(r, to, &text, input);
        if (ok && j_charge(r, 1)) continue;
        j_out_free(&text);
        return false;
    }
    return j_out_value(r, &text, out);
}

/* str.maketrans(dict), (from, to), (from, to, without): numbers of characters to what translate puts there. */
static bool m_maketrans(jrender *r, jv self, jv *arg, jv *out) {
    jdict *d = j_dict(r);
    (void)self;
    *out = (jv){.t = J_DICT, .d = d};
    if (!d) return false;
    if (!given(arg[1])) {
        if (arg[0].t != J_DICT) return j_fail(r, "TypeError", "if you give only one argument to maketrans it must be a dict");
        for (size_t i = 0; i < arg[0].d->n; i++) {
            jv key = arg[0].d->e[i].key;
            size_t used;
            if (key.t == J_STR && j_str_chars(key.s) != 1) return j_fail(r, "ValueError", "string keys in translate table must be of length 1");
            if (key.t == J_STR) key = jv_int(j_decode(key.s->p, key.s->n, &used));
            else if (!jv_is_int(key)) return j_fail(r, "TypeError", "keys in translate table must be strings or integers");
            if (!j_dict_set(r, d, key, arg[0].d->e[i].value)) return false;
        }
        return true;
    }
    if (arg[0].t != J_STR) return j_fail(r, "TypeError", "first maketrans argument must be a string if there is a second argument");
    for (int i = 1; i < 3; i++)
        if (arg[i].t != J_MISSING && arg[i].t != J_STR) return j_fail(r, "TypeError", "maketrans() argument %d must be str, not %s", i + 1, j_type_name(arg[i]));
    if (j_str_chars(arg[0].s) != j_str_chars(arg[1].s)) return j_fail(r, "ValueError", "the first two maketrans arguments must have equal length");
    const jstr *from = arg[0].s, *to = arg[1].s, *without = arg[2].t == J_STR ? arg[2].s : NULL;
    for (size_t i = 0, k = 0, n, m; i < from->n; i += n, k += m) {
        int32_t c = j_decode(from->p + i, from->n - i, &n), into = j_decode(to->p + k, to->n - k, &m);
        if (!j_dict_set(r, d, jv_int(c), jv_int(into))) return false;
    }
    for (size_t i = 0, n; without && i < without->n; i += n)
        if (!j_dict_set(r, d, jv_int(j_decode(without->p + i, without->n - i, &n)), jv_none)) return false;
    return true;
}

#define NONE(n, f) {.name = n, .pyname = "str." n, .fn = f}
#define POS(n, f, p, required) {.name = n, .pyname = "str." n, .fn = f, .params = p, .n_required = required, .no_keywords = true}
#define KEYS(n, f, p) {.name = n, .pyname = "str." n, .fn = f, .params = p}

static const jfunc str_methods[] = {
    POS("strip", m_strip, "chars", 0), POS("lstrip", m_lstrip, "chars", 0), POS("rstrip", m_rstrip, "chars", 0),
    KEYS("split", m_split, "sep maxsplit"), KEYS("rsplit", m_rsplit, "sep maxsplit"), KEYS("splitlines", m_splitlines, "keepends"),
    POS("replace", m_replace, "old new count", 2), POS("startswith", m_startswith, "prefix start end", 1),
    POS("endswith", m_endswith, "suffix start end", 1), NONE("upper", m_upper), NONE("lower", m_lower), NONE("title", m_title),
    NONE("capitalize", m_capitalize), NONE("swapcase", m_swapcase), NONE("casefold", m_casefold), KEYS("encode", m_encode, "encoding errors"), POS("join", m_join, "iterable", 1),
    POS("find", m_find, "sub start end", 1), POS("rfind", m_rfind, "sub start end", 1), POS("index", m_index, "sub start end", 1),
    POS("rindex", m_rindex, "sub start end", 1), POS("count", m_count, "sub start end", 1),
    POS("center", m_center, "width fillchar", 1), POS("ljust", m_ljust, "width fillchar", 1), POS("rjust", m_rjust, "width fillchar", 1),
    POS("zfill", m_zfill, "width", 1), KEYS("expandtabs", m_expandtabs, "tabsize"), POS("removeprefix", m_removeprefix, "prefix", 1),
    POS("removesuffix", m_removesuffix, "suffix", 1), POS("partition", m_partition, "sep", 1), POS("rpartition", m_rpartition, "sep", 1),
    NONE("isspace", m_isspace), NONE("isalpha", m_isalpha), NONE("isalnum", m_isalnum), NONE("isdigit", m_isdigit),
    NONE("isdecimal", m_isdecimal), NONE("isnumeric", m_isnumeric), NONE("isascii", m_isascii), NONE("isprintable", m_isprintable),
    NONE("islower", m_islower), NONE("isupper", m_isupper), NONE("istitle", m_istitle), NONE("isidentifier", m_isidentifier),
    POS("translate", m_translate, "table", 1), {.name = "maketrans", .pyname = "maketrans", .fn = m_maketrans, .params = "x y z", .n_required = 1, .no_keywords = true, .plain = true},
    {.name = "format", .pyname = "str.format", .raw = m_format}, POS("format_map", m_format_map, "mapping", 1)};

const jfunc *j_str_method(am_str name) { return j_find(str_methods, sizeof str_methods / sizeof *str_methods, name); }

static bool l_index(jrender *r, jv self, jv *arg, jv *out) {
    int64_t n = (int64_t)self.l->n, begin = 0, end = n;
    if (arg[1].t != J_MISSING && !j_arg_int(r, arg[1], &begin)) return false;
    if (arg[2].t != J_MISSING && !j_arg_int(r, arg[2], &end)) return false;
    if (begin < 0) begin = begin < -n ? 0 : begin + n;
    if (end < 0) end = end < -n ? 0 : end + n;
    for (int64_t i = begin; i < end && i < n; i++) {
        bool same;
        if (!j_charge(r, 1) || !jv_equal(r, self.l->v[i], arg[0], &same)) return false;
        if (!same) continue;
        *out = jv_int(i);
        return true;
    }
    if (self.t == J_TUPLE) return j_fail(r, "ValueError", "tuple.index(x): x not in tuple");
    return j_fail(r, "ValueError", "%s is not in list", j_repr_c(r, arg[0]));
}

static bool l_count(jrender *r, jv self, jv *arg, jv *out) {
    int64_t n = 0;
    for (size_t i = 0; i < self.l->n; i++) {
        bool same;
        if (!j_charge(r, 1) || !jv_equal(r, self.l->v[i], arg[0], &same)) return false;
        n += same;
    }
    *out = jv_int(n);
    return true;
}

/* Only whole numbers can be in a range. */
static bool range_find(jv self, jv item, int64_t *at) {
    const jrange *range = self.range;
    double f = jv_is_number(item) ? jv_to_float(item) : NAN;
    if (!(f == floor(f) && fabs(f) < 0x1p63)) return false;
    __int128 off = (__int128)(item.t == J_FLOAT ? (int64_t)f : jv_to_int(item)) - range->start;
    *at = off % range->step == 0 ? (int64_t)(off / range->step) : -1;
    return *at >= 0 && *at < range->n;
}

static bool r_index(jrender *r, jv self, jv *arg, jv *out) {
    int64_t at;
    if (!range_find(self, arg[0], &at))
        return jv_is_int(arg[0]) ? j_fail(r, "ValueError", "%s is not in range", j_repr_c(r, arg[0]))
                                 : j_fail(r, "ValueError", "sequence.index(x): x not in sequence");
    *out = jv_int(at);
    return true;
}

static bool r_count(jrender *r, jv self, jv *arg, jv *out) {
    int64_t at;
    (void)r;
    *out = jv_int(range_find(self, arg[0], &at));
    return true;
}

static const jfunc range_methods[] = {
    {.name = "index", .pyname = "range.index", .fn = r_index, .params = "value", .n_required = 1, .no_keywords = true},
    {.name = "count", .pyname = "range.count", .fn = r_count, .params = "value", .n_required = 1, .no_keywords = true}};

const jfunc *j_range_method(am_str name) { return j_find(range_methods, sizeof range_methods / sizeof *range_methods, name); }

static bool l_copy(jrender *r, jv self, jv *arg, jv *out) {
    jlist *l;
    (void)arg;
    return j_to_list(r, self, &l) && give_list(l, out);
}

static bool l_pop(jrender *r, jv self, jv *arg, jv *out) {
    int64_t n = (int64_t)self.l->n, i = -1;
    if (arg[0].t != J_MISSING && !j_arg_int(r, arg[0], &i)) return false;
    if (n == 0) return j_fail(r, "IndexError", "pop from empty list");
    if (i < 0) i += n;
    if (i < 0 || i >= n) return j_fail(r, "IndexError", "pop index out of range");
    *out = self.l->v[i];
    memmove(self.l->v + i, self.l->v + i + 1, (size_t)(n - i - 1) * sizeof(jv));
    self.l->n--;
    return j_charge(r, (uint64_t)(n - i) / 16);
}

static bool l_clear(jrender *r, jv self, jv *arg, jv *out) {
    (void)r, (void)arg;
    self.l->n = 0;
    *out = jv_none;
    return true;
}

static const jfunc list_methods[] = {
    {.name = "index", .pyname = "list.index", .fn = l_index, .params = "value start stop", .n_required = 1, .no_keywords = true},
    {.name = "count", .pyname = "list.count", .fn = l_count, .params = "value", .n_required = 1, .no_keywords = true},
    {.name = "copy", .pyname = "list.copy", .fn = l_copy},
    {.name = "pop", .pyname = "list.pop", .fn = l_pop, .params = "index", .no_keywords = true},
    {.name = "clear", .pyname = "list.clear", .fn = l_clear}};

const jfunc *j_list_method(am_str name, bool tuple) {
    return j_find(list_methods, tuple ? 2 : sizeof list_methods / sizeof *list_methods, name);
}

static bool view(jrender *r, jv self, int kind, jv *out) {
    jview *v = j_alloc(r, sizeof *v);
    if (!v) return false;
    v->d = self.d;
    v->kind = kind == 0 ? JV_KEYS : kind == 1 ? JV_VALUES : JV_ITEMS;
    *out = (jv){.t = J_VIEW, .view = v};
    return true;
}
static bool d_keys(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, view(r, self, 0, out); }
static bool d_values(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, view(r, self, 1, out); }
static bool d_items(jrender *r, jv self, jv *arg, jv *out) { return (void)arg, view(r, self, 2, out); }

static bool d_get(jrender *r, jv self, jv *arg, jv *out) {
    if (!j_dict_get(r, self.d, arg[0], out)) return false;
    if (out->t == J_MISSING) *out = arg[1].t == J_MISSING ? jv_none : arg[1];
    return true;
}

static bool d_fromkeys(jrender *r, jv self, jv *arg, jv *out) {
    jdict *d = j_dict(r);
    jiter it;
    jv key;
    int got = -1;
    (void)self;
    if (!d || !j_iter(r, arg[0], &it)) return false;
    while ((got = j_next(r, &it, &key)) > 0)
        if (!j_dict_set(r, d, key, arg[1].t == J_MISSING ? jv_none : arg[1])) return false;
    *out = (jv){.t = J_DICT, .d = d};
    return got == 0;
}

static bool d_copy(jrender *r, jv self, jv *arg, jv *out) {
    jdict *d = j_dict(r);
    (void)arg;
    for (size_t i = 0; d && i < self.d->n; i++)
        if (!j_dict_set(r, d, self.d->e[i].key, self.d->e[i].value)) return false;
    *out = (jv){.t = J_DICT, .d = d};
    return d != NULL;
}

static const jfunc dict_methods[] = {
    {.name = "get", .pyname = "dict.get", .fn = d_get, .params = "key default", .n_required = 1, .no_keywords = true},
    {.name = "items", .pyname = "dict.items", .fn = d_items},
    {.name = "keys", .pyname = "dict.keys", .fn = d_keys},
    {.name = "values", .pyname = "dict.values", .fn = d_values},
    {.name = "fromkeys", .pyname = "dict.fromkeys", .fn = d_fromkeys, .params = "iterable value", .n_required = 1, .no_keywords = true},
    {.name = "copy", .pyname = "dict.copy", .fn = d_copy}};

const jfunc *j_dict_method(am_str name) { return j_find(dict_methods, sizeof dict_methods / sizeof *dict_methods, name); }

static bool n_bit_length(jrender *r, jv self, jv *arg, jv *out) {
    int64_t i = jv_to_int(self);
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    (void)r, (void)arg;
    *out = jv_int(u ? 64 - __builtin_clzll(u) : 0);
    return true;
}

static bool n_is_integer(jrender *r, jv self, jv *arg, jv *out) {
    (void)r, (void)arg;
    *out = jv_bool(isfinite(self.f) && self.f == floor(self.f));
    return true;
}

static bool n_conjugate(jrender *r, jv self, jv *arg, jv *out) {
    (void)r, (void)arg;
    *out = self.t == J_BOOL ? jv_int(self.b) : self;
    return true;
}

static const jfunc number_methods[] = {{.name = "conjugate", .pyname = "int.conjugate", .fn = n_conjugate},
                                       {.name = "bit_length", .pyname = "int.bit_length", .fn = n_bit_length},
                                       {.name = "is_integer", .pyname = "float.is_integer", .fn = n_is_integer}};

const jfunc *j_number_method(am_str name, bool is_float) {
    const jfunc *f = j_find(number_methods, 3, name);
    return f && f != &number_methods[is_float ? 1 : 2] ? f : NULL;
}
