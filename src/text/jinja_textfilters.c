/* Owns the filters on text, and the operations they share with str's methods. Each keeps the marks of the bytes it keeps; what
 * it makes of a piece that holds input (another case, an escape) is input. */
#include "text/jinja_int.h"

#include <stdio.h>

static bool given(jv v) { return v.t != J_MISSING; }
static bool flag(jv v) { return given(v) && jv_truth(v); }

static bool fail_out(jout *out) {
    j_out_free(out);
    return false;
}

/* Runs of text that are wholly input or wholly not: end of the run that begins at `at`. */
static size_t run_end(const jstr *s, size_t at, size_t *range, bool *input) {
    while (*range < s->n_in && s->in[*range].end <= at) ++*range;
    *input = *range < s->n_in && s->in[*range].begin <= at;
    if (*input) return s->in[*range].end;
    return *range < s->n_in ? s->in[*range].begin : s->n;
}

typedef size_t case_fn(int32_t c, int32_t out[3]);

static bool put_mapped(jrender *r, jout *out, int32_t c, case_fn *map, bool input) {
    int32_t to[3];
    char bytes[12];
    size_t n = map(c, to), len = 0;
    for (size_t i = 0; i < n; i++) len += j_encode(to[i], bytes + len);
    return j_out_bytes(r, out, bytes, len, input);
}

/* Each character from begin to end through map(); the first one through first() when that is given. */
static bool map_part(jrender *r, jout *out, const jstr *s, size_t span[2], case_fn *first, case_fn *map) {
    size_t range = 0, run = 0;
    bool input = false;
    for (size_t i = span[0], used; i < span[1]; i += used) {
        if (i >= run || i == span[0]) run = run_end(s, i, &range, &input);
        int32_t c = j_decode(s->p + i, s->n - i, &used);
        case_fn *f = first && i == span[0] ? first : map;
        if (c == 0x3a3 && f == j_to_lower) {
            int32_t small[3];
            char bytes[4];
            j_lower_at((am_str){s->p + span[0], span[1] - span[0]}, i - span[0], small);
            if (!j_out_bytes(r, out, bytes, j_encode(small[0], bytes), input)) return false;
            continue;
        }
        if (!put_mapped(r, out, c, f, input) || !j_charge(r, i % 16 == 0)) return false;
    }
    return true;
}

bool j_map_case(jrender *r, const jstr *s, case_fn *map, jv *out) {
    jout text;
    j_out_init(r, &text);
    if (!map_part(r, &text, s, (size_t[2]){0, s->n}, NULL, map)) return fail_out(&text);
    return j_out_value(r, &text, out);
}

bool j_lower_str(jrender *r, const jstr *s, const jstr **out) {
    jv v;
    if (!j_map_case(r, s, j_to_lower, &v)) return false;
    *out = v.s;
    return true;
}

bool j_ignore_case(jrender *r, jv v, jv *out) {
    *out = v;
    return v.t != J_STR || j_map_case(r, v.s, j_to_lower, out);
}

static bool in_chars(const jstr *chars, int32_t c) {
    if (!chars) return j_is_space(c);
    for (size_t i = 0, used; i < chars->n; i += used)
        if (j_decode(chars->p + i, chars->n - i, &used) == c) return true;
    return false;
}

bool j_strip(jrender *r, const jstr *s, jv chars, int sides, jv *out) {
    const jstr *set = NULL;
    if (given(chars) && chars.t != J_NONE) {
        if (chars.t != J_STR) return j_fail(r, "TypeError", "strip arg must be None or str");
        set = chars.s;
    }
    size_t begin = 0, end = s->n, used, cost = set ? set->n / 16 : 0;
    while ((sides & 1) && begin < end && j_charge(r, cost) && in_chars(set, j_decode(s->p + begin, end - begin, &used))) begin += used;
    while ((sides & 2) && end > begin && j_charge(r, cost)) {
        size_t c = end - 1;
        while (c > begin && (s->p[c] & 0xc0) == 0x80) c--;
        if (!in_chars(set, j_decode(s->p + c, end - c, &used))) break;
        end = c;
    }
    const jstr *part = j_charge(r, (s->n - (end - begin)) / 16) ? j_str_slice(r, s, begin, end) : NULL;
    if (!part) return false;
    *out = jv_str(part);
    return true;
}

bool j_replace(jrender *r, const jstr *s, const jstr *old, const jstr *new_, int64_t count, jv *out) {
    jout text;
    size_t at = 0;
    int64_t done = 0;
    j_out_init(r, &text);
    for (; count < 0 || done < count; done++) {
        size_t begin = at, end;
        if (old->n == 0) {
            /* an empty string stands before every character and at the end */
            if (done > 0 && at >= s->n) break;
            end = at;
            if (done > 0) {
                for (end = at + 1; end < s->n && (s->p[end] & 0xc0) == 0x80;) end++;
                begin = end;
            }
        } else {
            const char *p = s->n - at >= old->n ? memmem(s->p + at, s->n - at, old->p, old->n) : NULL;
            if (!p) break;
            begin = (size_t)(p - s->p);
            end = begin + old->n;
        }
        if (!j_charge(r, 1) || !j_out_part(r, &text, s, at, begin) || !j_out_str(r, &text, new_)) return fail_out(&text);
        at = end;
    }
    if (done == 0) {
        j_out_free(&text);
        *out = jv_str(s);
        return j_charge(r, s->n / 32);
    }
    if (!j_out_part(r, &text, s, at, s->n)) return fail_out(&text);
    return j_out_value(r, &text, out);
}

bool j_splitlines(jrender *r, const jstr *s, bool keep, jlist **out) {
    jlist *l = j_list(r, 0);
    if (!l || !j_charge(r, s->n / 16)) return false;
    for (size_t begin = 0, i = 0; begin < s->n;) {
        size_t used = 0, end;
        while (i < s->n && !j_is_linebreak(j_decode(s->p + i, s->n - i, &used))) i += used;
        end = i;
        if (i < s->n) i += s->p[i] == '\r' && i + 1 < s->n && s->p[i + 1] == '\n' ? 2 : used;
        const jstr *line = j_str_slice(r, s, begin, keep ? i : end);
        if (!line || !j_list_add(r, l, jv_str(line))) return false;
        begin = i;
    }
    *out = l;
    return true;
}

bool j_pad(jrender *r, const jstr *s, int64_t width, const jstr *fill, int side, jv *out) {
    int64_t n = (int64_t)j_str_chars(s), pad = width > n ? width - n : 0;
    int64_t left = side == 1 ? 0 : side == 2 ? pad : pad / 2 + (pad & width & 1);
    jout text;
    j_out_init(r, &text);
    if (!j_out_repeat(r, &text, fill, left) || !j_out_str(r, &text, s) || !j_out_repeat(r, &text, fill, pad - left)) return fail_out(&text);
    return j_out_value(r, &text, out);
}

bool j_escape(jrender *r, const jstr *s, jv *out) {
    static const char from[] = "&<>'\"";
    static const char *const into[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    jout text;
    *out = jv_str(s);
    if (s->markup) return true;
    j_out_init(r, &text);
    size_t done = 0, range = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *k = s->p[i] ? strchr(from, s->p[i]) : NULL;
        if (!k) continue;
        bool input;
        run_end(s, i, &range, &input);
        if (!j_out_part(r, &text, s, done, i) || !j_out_bytes(r, &text, into[k - from], strlen(into[k - from]), input)) return fail_out(&text);
        done = i + 1;
    }
    if (!j_out_part(r, &text, s, done, s->n)) return fail_out(&text);
    return j_out_value(r, &text, out) && j_mark_up(r, out);
}

/* A filter that calls str's own method: Markup gives Markup. */
static bool as_was(jrender *r, const jstr *s, jv *out) { return !s->markup || j_mark_up(r, out); }

static bool f_upper(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    (void)arg;
    return j_str_of(r, v, &s) && j_map_case(r, s, j_to_upper, out) && as_was(r, s, out);
}
static bool f_lower(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    (void)arg;
    return j_str_of(r, v, &s) && j_map_case(r, s, j_to_lower, out) && as_was(r, s, out);
}

static bool f_capitalize(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    jout text;
    (void)arg;
    if (!j_str_of(r, v, &s)) return false;
    j_out_init(r, &text);
    if (!map_part(r, &text, s, (size_t[2]){0, s->n}, j_to_title, j_to_lower)) return fail_out(&text);
    return j_out_value(r, &text, out) && as_was(r, s, out);
}

/* jinja2's title: words are what lies between blanks, dashes and opening brackets. */
static bool f_title(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    jout text;
    (void)arg;
    if (!j_str_of(r, v, &s)) return false;
    j_out_init(r, &text);
    for (size_t i = 0, used; i < s->n;) {
        size_t end = i;
        bool breaks = false;
        while (end < s->n) {
            int32_t c = j_decode(s->p + end, s->n - end, &used);
            bool b = c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || j_is_space(c);
            if (end == i) breaks = b;
            if (b != breaks) break;
            end += used;
        }
        size_t rest = i;
        if (!breaks) j_decode(s->p + i, end - i, &rest), rest += i;
        if (!(breaks ? j_out_part(r, &text, s, i, end)
                     : map_part(r, &text, s, (size_t[2]){i, rest}, NULL, j_to_upper) && map_part(r, &text, s, (size_t[2]){rest, end}, NULL, j_to_lower)))
            return fail_out(&text);
        i = end;
    }
    return j_out_value(r, &text, out);
}

static bool f_trim(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    return j_str_of(r, v, &s) && j_strip(r, s, arg[0], 3, out) && as_was(r, s, out);
}

static bool f_replace(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s, *old, *new_;
    int64_t count = -1;
    if (!j_str_of(r, v, &s) || !j_str_of(r, arg[0], &old) || !j_str_of(r, arg[1], &new_)) return false;
    if (given(arg[2]) && arg[2].t != J_NONE && !j_arg_int(r, arg[2], &count)) return false;
    if (!r->autoescape) return j_replace(r, s, old, new_, count, out) && j_markup(r, out->s, false, out);
    if ((old->markup || new_->markup) && (!j_escape(r, s, out) || !(s = out->s))) return false;
    if (s->markup && (!j_escape(r, new_, out) || !(new_ = out->s))) return false;
    return j_replace(r, s, old, new_, count, out) && j_markup(r, out->s, s->markup, out);
}

static bool f_center(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s, *space = j_str_c(r, " ");
    int64_t width = 80;
    if (!space || !j_str_of(r, v, &s) || (given(arg[0]) && !j_arg_int(r, arg[0], &width))) return false;
    return j_pad(r, s, width, space, 0, out) && as_was(r, s, out);
}

static bool f_escape(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    (void)arg;
    return j_str_of(r, v, &s) && j_escape(r, s, out);
}

static bool f_forceescape(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    (void)arg;
    return j_str_of(r, v, &s) && j_markup(r, s, false, out) && j_escape(r, out->s, out);
}

static bool f_safe(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    (void)arg;
    return j_str_of(r, v, &s) && j_markup(r, s, true, out);
}

static bool f_indent(jrender *r, jv v, jv *arg, jv *out) {
    int64_t width = 4;
    const jstr *indent = NULL, *space = j_str_c(r, " "), *newline = j_str_c(r, "\n"), *s;
    jlist *lines;
    if (!space || !newline) return false;
    if (given(arg[0]) && arg[0].t == J_STR) indent = arg[0].s;
    else if (given(arg[0]) && !j_times(r, arg[0], &width)) return false;
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    if (v.t == J_LIST) return j_fail(r, "AttributeError", "'list' object has no attribute 'splitlines'");
    if (v.t == J_TUPLE) return j_fail(r, "TypeError", "can only concatenate tuple (not \"str\") to tuple");
    if (v.t != J_STR) return j_fail(r, "TypeError", "unsupported operand type(s) for +=: '%s' and 'str'", j_type_name(v));
    bool first = flag(arg[1]), blank = flag(arg[2]);
    if (!(s = j_str_concat(r, v.s, newline)) || !j_splitlines(r, s, false, &lines)) return false;
    jout text;
    j_out_init(r, &text);
    for (size_t i = 0; i < lines->n; i++) {
        const jstr *line = lines->v[i].s;
        bool pad = i == 0 ? first : blank || line->n > 0;
        if (i && !j_out_str(r, &text, newline)) return fail_out(&text);
        if (pad && !(indent ? j_out_str(r, &text, indent) : j_out_repeat(r, &text, space, width))) return fail_out(&text);
        if (!j_out_str(r, &text, line)) return fail_out(&text);
    }
    return j_out_value(r, &text, out) && as_was(r, v.s, out);
}

/* What truncate cannot do with a list and the like, worded as the operation that Python fails in. */
static bool cut_of_no_text(jrender *r, jv v, bool kill_words) {
    const char *type = j_type_name(v);
    if (v.t == J_DICT) return j_fail(r, "TypeError", "unhashable type: 'slice'");
    if (!jv_has_list(v) && v.t != J_RANGE) return j_fail(r, "TypeError", "'%s' object is not subscriptable", type);
    if (!kill_words) return j_fail(r, "AttributeError", "'%s' object has no attribute 'rsplit'", type);
    if (v.t == J_RANGE) return j_fail(r, "TypeError", "unsupported operand type(s) for +: 'range' and 'str'");
    return j_fail(r, "TypeError", "can only concatenate %s (not \"str\") to %s", type, type);
}

static bool f_truncate(jrender *r, jv v, jv *arg, jv *out) {
    int64_t length = 255, leeway = 5, n;
    const jstr *dots = j_str_c(r, "..."), *s;
    bool whole = !given(arg[0]) || arg[0].t != J_FLOAT; /* a float will do where nothing is cut */
    int64_t n_dots = 3;
    if (!dots || (given(arg[2]) && !jv_length(r, arg[2], &n_dots)) || (whole && given(arg[0]) && !j_operand_int(r, arg[0], &length))) return false;
    if (given(arg[2]) && arg[2].t == J_STR) dots = arg[2].s;
    if (!whole) length = arg[0].f < 1e9 ? (int64_t)floor(arg[0].f) : 1000 * 1000 * 1000;
    if (given(arg[3]) && arg[3].t != J_NONE && !j_operand_int(r, arg[3], &leeway)) return false;
    if (length < n_dots) return j_fail(r, "AssertionError", "expected length >= %lld, got %s", (long long)n_dots, j_repr_c(r, arg[0]));
    if (leeway < 0) return j_fail(r, "AssertionError", "expected leeway >= 0, got %lld", (long long)leeway);
    if (!jv_length(r, v, &n)) return false;
    *out = v;
    if (n <= length + leeway) return true;
    if (!whole && (v.t == J_STR || v.t == J_RANGE || jv_has_list(v))) return j_fail(r, "TypeError", "slice indices must be integers or None or have an __index__ method");
    if (v.t != J_STR) return cut_of_no_text(r, v, flag(arg[1]));
    if (given(arg[2]) && arg[2].t == J_UNDEF) return j_undefined_error(r, arg[2]);
    if (given(arg[2]) && arg[2].t != J_STR) return j_fail(r, "TypeError", "can only concatenate str (not \"%s\") to str", j_type_name(arg[2]));
    size_t end = j_str_offset(v.s, (size_t)(length - n_dots));
    if (!flag(arg[1])) {
        const char *space = memrchr(v.s->p, ' ', end);
        if (space) end = (size_t)(space - v.s->p);
    }
    if (!(s = j_str_slice(r, v.s, 0, end)) || (v.s->markup && (!j_escape(r, dots, out) || !(dots = out->s)))) return false;
    if (!(s = j_str_concat(r, s, dots))) return false;
    *out = jv_str(s);
    return as_was(r, v.s, out);
}

static bool f_wordcount(jrender *r, jv v, jv *arg, jv *out) {
    const jstr *s;
    int64_t words = 0;
    bool inside = false;
    (void)arg;
    if (!j_str_of(r, v, &s) || !j_charge(r, s->n / 16)) return false;
    for (size_t i = 0, used; i < s->n; i += used) {
        bool word = j_is_word(j_decode(s->p + i, s->n - i, &used));
        words += word && !inside;
        inside = word;
    }
    *out = jv_int(words);
    return true;
}

static bool url_quote(jrender *r, jout *out, jv v, bool query) {
    const jstr *s;
    if (!j_str_of(r, v, &s)) return false;
    bool input = j_str_is_input(s);
    for (size_t i = 0; i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        char text[4];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~", c)) || (c == '/' && !query);
        if (plain || (c == ' ' && query))
            snprintf(text, sizeof text, "%c", c == ' ' ? '+' : c);
        else
            snprintf(text, sizeof text, "%%%02X", c);
        if (!j_out_bytes(r, out, text, strlen(text), input)) return false;
    }
    return true;
}

static bool url_pairs(jrender *r, jout *out, jv v) {
    jiter it, pair;
    jv item, kv[2];
    int got;
    if (v.t == J_DICT) {
        jview *view = j_alloc(r, sizeof *view);
        if (!view) return false;
        *view = (jview){v.d, JV_ITEMS};
        v = (jv){.t = J_VIEW, .view = view};
    }
    if (!j_iter(r, v, &it)) return false;
    for (bool first = true; (got = j_next(r, &it, &item)) > 0; first = false) {
        if (item.t == J_NONE || jv_is_number(item)) return j_fail(r, "TypeError", "cannot unpack non-iterable %s object", j_type_name(item));
        if (!j_iter(r, item, &pair)) return false;
        for (int i = 0; i < 2; i++) {
            if ((got = j_next(r, &pair, &kv[i])) < 0) return false;
            if (!got) return j_fail(r, "ValueError", "not enough values to unpack (expected 2, got %d)", i);
        }
        jv third;
        if ((got = j_next(r, &pair, &third)) < 0) return false;
        if (got) return j_fail(r, "ValueError", "too many values to unpack (expected 2)");
        if ((!first && !j_out_c(r, out, "&")) || !url_quote(r, out, kv[0], true) || !j_out_c(r, out, "=") || !url_quote(r, out, kv[1], true))
            return false;
    }
    return got == 0;
}

static bool f_urlencode(jrender *r, jv v, jv *arg, jv *out) {
    jout text;
    (void)arg;
    j_out_init(r, &text);
    bool single = v.t == J_STR || jv_is_number(v) || v.t == J_NONE;
    if (!(single ? url_quote(r, &text, v, false) : url_pairs(r, &text, v))) return fail_out(&text);
    return j_out_value(r, &text, out);
}

/* Markup.striptags: comments and tags go, white space runs become one blank; then entities of escape() are undone. */
static bool f_striptags(jrender *r, jv v, jv *arg, jv *out) {
    static const struct {
        const char *name, *text;
    } entities[] = {{"&lt;", "<"}, {"&gt;", ">"}, {"&#39;", "'"}, {"&#34;", "\""}, {"&quot;", "\""}, {"&amp;", "&"}};
    const jstr *s;
    jout text;
    (void)arg;
    if (!j_str_of(r, v, &s)) return false;
    bool input = j_str_is_input(s), space = false;
    j_out_init(r, &text);
    for (size_t i = 0, used; i < s->n; i += used) {
        int32_t c = j_decode(s->p + i, s->n - i, &used);
        const char *close = NULL;
        bool comment = s->n - i >= 4 && memcmp(s->p + i, "<!--", 4) == 0;
        if (c == '<' && j_charge(r, (s->n - i) / 32))
            close = comment ? memmem(s->p + i, s->n - i, "-->", 3) : memchr(s->p + i, '>', s->n - i);
        if (close) {
            used = (size_t)(close - s->p) - i + (comment ? 3 : 1);
            continue;
        }
        if (j_is_space(c)) {
            space = text.text.n > 0;
            continue;
        }
        if (space && !j_out_bytes(r, &text, " ", 1, input)) return fail_out(&text);
        space = false;
        const char *put = s->p + i;
        size_t n = used;
        for (size_t k = 0; c == '&' && k < sizeof entities / sizeof *entities; k++) {
            size_t len = strlen(entities[k].name);
            if (s->n - i < len || memcmp(s->p + i, entities[k].name, len) != 0) continue;
            put = entities[k].text;
            n = 1;
            used = len;
            break;
        }
        if (!j_out_bytes(r, &text, put, n, input)) return fail_out(&text);
    }
    return j_out_value(r, &text, out);
}

static bool f_xmlattr(jrender *r, jv v, jv *arg, jv *out) {
    jout text;
    const jstr *s;
    jv e;
    if (v.t == J_UNDEF) return j_undefined_error(r, v);
    if (v.t != J_DICT) return j_fail(r, "AttributeError", "'%s' object has no attribute 'items'", j_type_name(v));
    bool space = !given(arg[0]) || jv_truth(arg[0]);
    j_out_init(r, &text);
    for (size_t i = 0; i < v.d->n; i++) {
        if (v.d->e[i].value.t == J_NONE || v.d->e[i].value.t == J_UNDEF) continue;
        if (((space || text.text.n) && !j_out_c(r, &text, " ")) || !j_str_of(r, v.d->e[i].key, &s) || !j_escape(r, s, &e) ||
            !j_out_str(r, &text, e.s) || !j_out_c(r, &text, "=\"") || !j_str_of(r, v.d->e[i].value, &s) || !j_escape(r, s, &e) ||
            !j_out_str(r, &text, e.s) || !j_out_c(r, &text, "\""))
            return fail_out(&text);
    }
    return j_out_value(r, &text, out) && (!r->autoescape || j_mark_up(r, out));
}

static const jfunc filters[] = {
    {.name = "upper", .pyname = "do_upper", .fn = f_upper},
    {.name = "lower", .pyname = "do_lower", .fn = f_lower},
    {.name = "capitalize", .pyname = "do_capitalize", .fn = f_capitalize},
    {.name = "title", .pyname = "do_title", .fn = f_title},
    {.name = "trim", .pyname = "do_trim", .fn = f_trim, .params = "chars"},
    {.name = "replace", .pyname = "do_replace", .fn = f_replace, .params = "old new count", .n_required = 2, .hidden = true},
    {.name = "center", .pyname = "do_center", .fn = f_center, .params = "width"},
    {.name = "escape", .pyname = "escape", .fn = f_escape},
    {.name = "e", .pyname = "escape", .fn = f_escape},
    {.name = "forceescape", .pyname = "do_forceescape", .fn = f_forceescape},
    {.name = "safe", .pyname = "do_mark_safe", .fn = f_safe},
    {.name = "indent", .pyname = "do_indent", .fn = f_indent, .params = "width first blank"},
    {.name = "truncate", .pyname = "do_truncate", .fn = f_truncate, .params = "length killwords end leeway", .hidden = true},
    {.name = "wordwrap", .pyname = "do_wordwrap", .fn = j_wordwrap, .params = "width break_long_words wrapstring break_on_hyphens", .hidden = true},
    {.name = "urlize", .pyname = "do_urlize", .fn = j_urlize, .params = "trim_url_limit nofollow target rel extra_schemes", .hidden = true},
    {.name = "wordcount", .pyname = "do_wordcount", .fn = f_wordcount},
    {.name = "urlencode", .pyname = "do_urlencode", .fn = f_urlencode},
    {.name = "striptags", .pyname = "do_striptags", .fn = f_striptags},
    {.name = "xmlattr", .pyname = "do_xmlattr", .fn = f_xmlattr, .params = "autospace", .hidden = true},
};

const jfunc *j_text_filter(am_str name) { return j_find(filters, sizeof filters / sizeof *filters, name); }
