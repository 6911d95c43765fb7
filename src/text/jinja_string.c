/* Owns how strings of a rendering are made, with the ranges of their bytes that came from the context.
 *
 * A string is a view of bytes in the arena (or in the caller's JSON) plus a sorted list of marked ranges. Two ways to make one:
 * j_str_concat for `a + b`, and an output (jout): a growing text with marks that becomes a string when finished. Templates
 * build a prompt by ns.text = ns.text + part; copying would take quadratic memory in an arena that frees nothing, so a
 * concatenation leaves room behind it and the next one that starts with it is written there. That is safe because a string
 * only ever looks at its own first n bytes, and room is given out once (`used`). */
#include "text/jinja_int.h"

#include "base/hash.h"

typedef struct jgrow {
    char *p;
    size_t used, cap;
    am_span *in; /* the same for the ranges; NULL: none yet */
    size_t n_in, cap_in;
} jgrow;

/* A string with room for the one range that most strings have. */
typedef struct one_range {
    jstr s;
    am_span range;
} one_range;

static jstr *str_alloc(jrender *r, const char *p, size_t n, bool input) {
    if (!input || n == 0) {
        jstr *s = j_alloc(r, sizeof *s);
        if (s) *s = (jstr){.p = p, .n = n, .n_chars = SIZE_MAX};
        return s;
    }
    one_range *o = j_alloc(r, sizeof *o);
    if (!o) return NULL;
    o->range = (am_span){0, n};
    o->s = (jstr){.p = p, .n = n, .n_chars = SIZE_MAX, .in = &o->range, .n_in = 1};
    return &o->s;
}

uint64_t j_hash_str(const jstr *s) { return am_hash64(s->p, s->n); }
bool j_str_eq(const jstr *a, am_str b) { return a->n == b.n && memcmp(a->p, b.p, b.n) == 0; }
const jstr *j_str_view(jrender *r, am_str s, bool input) { return str_alloc(r, s.n ? s.p : "", s.n, input); }
const jstr *j_str_number(jrender *r, am_str digits, bool input) {
    jstr *s = (jstr *)str_alloc(r, digits.p, digits.n, input);
    if (s) s->number = true;
    return s;
}
const jstr *j_str_c(jrender *r, const char *s) { return str_alloc(r, s, strlen(s), false); }
bool j_str_is_input(const jstr *s) { return s->n_in > 0; }

const jstr *j_str_new(jrender *r, am_str s, bool input) {
    char *p = j_alloc(r, s.n + 1);
    if (!p || !j_charge(r, s.n / 32)) return NULL;
    if (s.n) memcpy(p, s.p, s.n);
    return str_alloc(r, p, s.n, input);
}

/* Counting is cached in the string; constants of a template are counted at compile time, so this never writes to shared memory. */
size_t j_str_chars(const jstr *s) {
    if (s->n_chars != SIZE_MAX) return s->n_chars;
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) n += (s->p[i] & 0xc0) != 0x80;
    ((jstr *)s)->n_chars = n;
    return n;
}

size_t j_str_offset(const jstr *s, size_t chars) {
    if (j_str_chars(s) == s->n) return chars < s->n ? chars : s->n;
    size_t at = 0;
    for (; chars > 0 && at < s->n; chars--)
        for (at++; at < s->n && (s->p[at] & 0xc0) == 0x80;) at++;
    return at;
}

/* The first range of s that ends after `begin`. */
static size_t range_after(const jstr *s, size_t begin) {
    size_t lo = 0, hi = s->n_in;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->in[mid].end <= begin)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const jstr *j_str_slice(jrender *r, const jstr *s, size_t begin, size_t end) {
    if (begin == 0 && end == s->n) return s;
    size_t first = range_after(s, begin), n = 0;
    while (first + n < s->n_in && s->in[first + n].begin < end) n++;
    if (n == 1 && s->in[first].begin <= begin && s->in[first].end >= end) return str_alloc(r, s->p + begin, end - begin, true);
    jstr *part = str_alloc(r, s->p + begin, end - begin, false);
    if (!part || n == 0) return part;
    am_span *in = j_alloc(r, n * sizeof *in);
    if (!in) return NULL;
    for (size_t i = 0; i < n; i++) {
        am_span x = s->in[first + i];
        in[i] = (am_span){(x.begin > begin ? x.begin : begin) - begin, (x.end < end ? x.end : end) - begin};
    }
    part->in = in;
    part->n_in = n;
    return part;
}

/* The ranges of a, then those of b moved behind it. Ranges that touch are merged only when the text is written out: a's own
 * last one must not change. */
static bool concat_marks(jrender *r, const jstr *a, const jstr *b, jstr *out) {
    jgrow *g = out->grow;
    out->in = a->in;
    out->n_in = a->n_in;
    if (b->n_in == 0) return true;
    am_span *in;
    if (g && g->in && g->in == a->in && g->n_in == a->n_in && g->cap_in - g->n_in >= b->n_in) {
        in = g->in;
    } else {
        size_t cap = (a->n_in + b->n_in) * (g ? 2 : 1);
        if (!(in = j_alloc(r, cap * sizeof *in))) return false;
        if (a->n_in) memcpy(in, a->in, a->n_in * sizeof *in);
        if (g) {
            g->in = in;
            g->cap_in = cap;
        }
    }
    for (size_t i = 0; i < b->n_in; i++) in[a->n_in + i] = (am_span){b->in[i].begin + a->n, b->in[i].end + a->n};
    out->in = in;
    out->n_in = a->n_in + b->n_in;
    if (g) g->n_in = out->n_in;
    return true;
}

const jstr *j_str_concat(jrender *r, const jstr *a, const jstr *b) {
    if (b->n == 0) return a;
    if (a->n == 0) return b;
    jstr *s = j_alloc(r, sizeof *s);
    if (!s || !j_charge(r, b->n / 32)) return NULL;
    jgrow *g = a->grow;
    if (g && a->p == g->p && g->used == a->n && g->cap - g->used >= b->n) {
        memcpy(g->p + g->used, b->p, b->n);
        g->used += b->n;
    } else {
        size_t n = a->n + b->n, room = n > 256 ? n * 2 : n;
        char *p = j_alloc(r, room);
        if (!p || !j_charge(r, a->n / 32)) return NULL;
        memcpy(p, a->p, a->n);
        memcpy(p + a->n, b->p, b->n);
        g = NULL;
        if (room > n) {
            if (!(g = j_alloc(r, sizeof *g))) return NULL;
            *g = (jgrow){.p = p, .used = n, .cap = room};
        }
        s->p = p;
    }
    if (g) s->p = g->p;
    s->n = a->n + b->n;
    s->n_chars = a->n_chars == SIZE_MAX || b->n_chars == SIZE_MAX ? SIZE_MAX : a->n_chars + b->n_chars;
    s->grow = g;
    return concat_marks(r, a, b, s) ? s : NULL;
}

void j_out_init(jrender *r, jout *out) {
    am_buf_init(&out->text, r->limits.max_output_bytes);
    am_buf_init(&out->marks, r->limits.max_memory_bytes);
    out->live = &r->live_bytes;
}

void j_out_free(jout *out) {
    *out->live -= out->text.n + out->marks.n;
    am_buf_free(&out->text);
    am_buf_free(&out->marks);
}

static bool out_failed(jrender *r, am_status status, size_t max) {
    return status == AM_ELIMIT ? j_limit(r, "makes more than %zu bytes of text", max) : j_no_memory(r);
}

/* Outputs nest as macros do: what counts is what they hold together. */
static bool account(jrender *r, size_t n) {
    if (n > r->limits.max_output_bytes - r->live_bytes) return out_failed(r, AM_ELIMIT, r->limits.max_output_bytes);
    r->live_bytes += n;
    return true;
}

static bool mark(jrender *r, jout *out, size_t begin, size_t end) {
    if (begin == end) return true;
    if (out->marks.n) {
        am_span *last = (am_span *)(void *)(out->marks.p + out->marks.n) - 1;
        if (last->end == begin) {
            last->end = end;
            return true;
        }
    }
    am_span x = {begin, end};
    if (!account(r, sizeof x)) return false;
    am_status status = am_buf_append(&out->marks, &x, sizeof x);
    if (!status) return true;
    r->live_bytes -= sizeof x;
    return out_failed(r, status, out->marks.max);
}

bool j_out_bytes(jrender *r, jout *out, const char *p, size_t n, bool input) {
    if (!j_charge(r, n / 32) || !account(r, n)) return false;
    am_status status = am_buf_append(&out->text, p, n);
    if (status) {
        r->live_bytes -= n;
        return out_failed(r, status, out->text.max);
    }
    return !input || mark(r, out, out->text.n - n, out->text.n);
}

bool j_out_c(jrender *r, jout *out, const char *s) { return j_out_bytes(r, out, s, strlen(s), false); }
bool j_out_str(jrender *r, jout *out, const jstr *s) { return j_out_part(r, out, s, 0, s->n); }

bool j_out_part(jrender *r, jout *out, const jstr *s, size_t begin, size_t end) {
    size_t at = out->text.n;
    if (begin == end) return true;
    if (!j_out_bytes(r, out, s->p + begin, end - begin, false)) return false;
    for (size_t i = range_after(s, begin); i < s->n_in && s->in[i].begin < end; i++) {
        size_t from = s->in[i].begin > begin ? s->in[i].begin : begin, to = s->in[i].end < end ? s->in[i].end : end;
        if (!mark(r, out, at + from - begin, at + to - begin)) return false;
    }
    return true;
}

bool j_out_repeat(jrender *r, jout *out, const jstr *s, int64_t times) {
    if (s->n == 0 || times <= 0) return true;
    size_t room = r->limits.max_output_bytes - r->live_bytes;
    if ((uint64_t)times > room / s->n) return out_failed(r, AM_ELIMIT, out->text.max);
    char block[1024];
    size_t per_block = s->n_in == 0 ? sizeof block / s->n : 0;
    for (size_t i = 0; i < per_block && (int64_t)i < times; i++) memcpy(block + i * s->n, s->p, s->n);
    while (times > 0) {
        int64_t n = per_block == 0 ? 1 : (int64_t)per_block < times ? (int64_t)per_block : times;
        if (!j_charge(r, 1) || !(per_block ? j_out_bytes(r, out, block, (size_t)n * s->n, false) : j_out_str(r, out, s))) return false;
        times -= n;
    }
    return true;
}

const jstr *j_out_finish(jrender *r, jout *out) {
    jstr *s = r->status ? NULL : str_alloc(r, "", 0, false);
    char *p = s ? j_alloc(r, out->text.n + 1) : NULL;
    am_span *in = p && out->marks.n ? j_alloc(r, out->marks.n) : NULL;
    if (p && (in || !out->marks.n)) {
        if (out->text.n) memcpy(p, out->text.p, out->text.n);
        if (in) memcpy(in, out->marks.p, out->marks.n);
        *s = (jstr){.p = p, .n = out->text.n, .n_chars = SIZE_MAX, .in = in, .n_in = out->marks.n / sizeof *in};
    } else {
        s = NULL;
    }
    j_out_free(out);
    return s;
}

bool j_out_value(jrender *r, jout *out, jv *v) {
    const jstr *s = j_out_finish(r, out);
    if (!s) return false;
    *v = jv_str(s);
    return true;
}
