/* Owns how the form of a model's answers is found: its template is given calls and thoughts of marker words, and what it writes around them is the form.
 *
 * Two calls in one message tell what belongs to each call and what stands around all of them; a plain answer tells how a turn ends. A template that
 * shows no calls leaves the form that chat_adapt.c tells a model in words. */
#include "text/chat_traits.h"

#include <stdio.h>
#include <string.h>

#define ID1 "abcdef121"
#define ID2 "uvwxyz989"
#define NAME1 "zcall1z"
#define NAME2 "zcall2z"
#define NUMBER "7351"
#define CALL(id, name, v) \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":{\"zkey1z\":\"" v "\",\"zkey2z\":" NUMBER "}}}"
#define USER "{\"role\":\"user\",\"content\":\"zuserz\"}"
#define CALLS(calls) "[" USER ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[" calls "]}]"
#define TOOL(name)                                                                                                                                        \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":"                  \
    "{\"zkey1z\":{\"type\":\"string\",\"description\":\"d\"},\"zkey2z\":{\"type\":\"integer\",\"description\":\"d\"}},\"required\":[\"zkey1z\"]}}}"
#define TOOLS "[" TOOL(NAME1) "," TOOL(NAME2) "]"
#define ANSWER "{\"role\":\"assistant\",\"content\":\"zanswerz\"}"
#define THOUGHT "{\"role\":\"assistant\",\"content\":\"zanswerz\",\"reasoning_content\":\"zthoughtz\"}"

static const char *find(am_str s, const char *word) { return s.n ? memmem(s.p, s.n, word, strlen(word)) : NULL; }
static am_str between(const char *a, const char *b) { return (am_str){a, a < b ? (size_t)(b - a) : 0}; }
static am_str behind(am_str s, const char *p) { return between(p, s.p + s.n); }
static bool blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static am_str trim(am_str s) {
    while (s.n && blank(s.p[0])) s.p++, s.n--;
    while (s.n && blank(s.p[s.n - 1])) s.n--;
    return s;
}

/* false: it is too long to be a mark. keep: with the blanks around it. */
static bool put(am_mark mark, am_str s, bool keep) {
    if (!keep) s = trim(s);
    if (s.n >= sizeof(am_mark)) return false;
    if (s.n) memcpy(mark, s.p, s.n);
    mark[s.n] = 0;
    return true;
}

/* What both begin with, cut before a tag that only one of them goes on with. */
static am_str common_start(am_str a, am_str b) {
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n]) n++;
    for (size_t i = n; (n < a.n || n < b.n) && i-- > 0;) {
        if (a.p[i] == '>' || a.p[i] == ']') break;
        if (a.p[i] == '<' || a.p[i] == '[') n = i;
    }
    while (n && ((unsigned char)a.p[n - 1] & 0x80) && n < a.n && ((unsigned char)a.p[n] & 0xc0) == 0x80) n--;
    return (am_str){a.p, n};
}

/* What both end with, without the rest of a tag that began differently. */
static am_str common_end(am_str a, am_str b) {
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[a.n - 1 - n] == b.p[b.n - 1 - n]) n++;
    if (n < a.n || n < b.n) {
        for (size_t i = a.n - n; i < a.n; i++) {
            if (a.p[i] == '<' || a.p[i] == '[') break;
            if (a.p[i] == '>' || a.p[i] == ']') n = a.n - 1 - i;
        }
    }
    while (n && ((unsigned char)a.p[a.n - n] & 0xc0) == 0x80) n--;
    return (am_str){a.p + a.n - n, n};
}

/* Of several tags in a row, which open a turn as well, the last: the one that begins calls. Words before it, and their tag, belong to it. */
static am_str last_tag(am_str s) {
    s = trim(s);
    if (!s.n || s.p[0] != '<' || s.p[s.n - 1] != '>') return s;
    for (size_t i = s.n - 1; i > 0; i--) {
        if (s.p[i] != '<') continue;
        am_str before = trim((am_str){s.p, i});
        bool words = before.p[before.n - 1] != '>';
        if (!words) return trim((am_str){s.p + i, s.n - i});
    }
    return s;
}

/* Two tags and nothing between them before the first mark of calls are a thought that is empty. */
static bool empty_thought(am_answer_form *f, am_str s) {
    s = trim(s);
    const char *first = s.n ? memchr(s.p, '>', s.n) : NULL;
    if (!first || s.p[0] != '<' || s.p[s.n - 1] != '>') return true;
    am_str second = behind(s, first + 1);
    if (!second.n || second.p[0] != '<' || memchr(second.p, '>', second.n) != second.p + second.n - 1) return true;
    return put(f->think, between(s.p, first + 1), false) && put(f->think_end, second, false);
}

/* The JSON value that begins leftmost and holds both words. */
static am_str json_around(am_str s, const char *first, const char *last) {
    for (size_t i = 0; s.p + i < first; i++) {
        json_error_t e;
        if (s.p[i] != '{' && s.p[i] != '[') continue;
        json_t *v = json_loadb(s.p + i, s.n - i, JSON_DISABLE_EOF_CHECK, &e);
        size_t n = v ? (size_t)e.position : 0;
        json_decref(v);
        if (n && s.p + i + n > last) return (am_str){s.p + i, n};
    }
    return (am_str){0};
}

/* One rendered call: where its parts lie. */
typedef struct call {
    am_str all;                  /* the text the template wrote for the assistant's turn */
    const char *name, *name_end; /* the name, or all of the call where that is JSON */
    const char *key1, *value1, *key2, *value2, *end;
    bool json;
} call;

static bool locate(am_str s, const char *name, const char *value, call *c) {
    *c = (call){.all = s, .name = find(s, name)};
    if (!c->name) return false;
    c->name_end = c->name + strlen(name);
    am_str rest = behind(s, c->name_end);
    if (!(c->key1 = find(rest, "zkey1z")) || !(c->value1 = find(rest, value)) || !(c->key2 = find(rest, "zkey2z"))) return false;
    if (!(c->value2 = find(behind(s, c->key2), NUMBER)) || c->key1 > c->value1 || c->value1 > c->key2) return false;
    c->end = c->value2 + strlen(NUMBER);
    am_str whole = json_around(s, c->name, c->value2);
    c->json = whole.n > 0;
    if (!c->json) return true;
    c->name = whole.p;
    c->name_end = c->end = whole.p + whole.n;
    return true;
}

/* c's arguments as JSON behind its name, which then is one value. */
static am_str arguments_of(const call *c) {
    am_str rest = behind(c->all, c->name_end);
    return json_around(rest, c->key1, c->value2);
}

static bool named(am_answer_form *f, const call *one, const call *two) {
    am_str a = arguments_of(one), b = two ? arguments_of(two) : (am_str){0};
    am_str gap = between(one->name_end, a.p), other = two ? between(two->name_end, b.p) : gap;
    f->kind = AM_CALL_NAMED;
    if (gap.n == other.n && memcmp(gap.p, other.p, gap.n) == 0) return put(f->after_name, gap, false);
    return put(f->after_name, common_start(gap, other), false) && put(f->args, common_end(gap, other), false);
}

static bool tagged(am_answer_form *f, const call *c, const char **end) {
    am_str a = between(c->name_end, c->key1), b = between(c->key1 + 6, c->value1), next = between(c->value1 + 6, c->key2), number = between(c->key2 + 6, c->value2);
    am_str param = common_end(a, next), rest = behind(c->all, c->end), param_end = common_start(next, rest);
    f->kind = AM_CALL_TAGGED;
    if (param.n && param.p[0] == '>') param.p++, param.n--;
    bool differ = trim(b).n != trim(number).n || memcmp(trim(b).p, trim(number).p, trim(b).n) != 0;
    if (trim(a).n == 1 && trim(a).p[0] == '{' && trim(b).n && trim(b).p[0] == ':') {
        f->kind = AM_CALL_RELAXED;
        am_str quote = trim(b);
        *end = c->end + strcspn(c->end, "}") + 1;
        return c->end[strcspn(c->end, "}")] == '}' && put(f->value, (am_str){quote.p + 1, quote.n - 1}, false) && f->value[0];
    }
    *end = c->end + param_end.n;
    return trim(param).n && trim(param_end).n && trim(b).n && put(f->param, param, false) && put(f->value, b, true) && (!differ || put(f->json_value, number, true)) &&
           put(f->param_end, param_end, true) && put(f->after_name, (am_str){a.p, a.n - param.n}, false);
}

/* name(key=value, ...), alone or within [ ]: *c then is all of that. */
static bool python(am_answer_form *f, call *c, const char **end) {
    am_str open = trim(between(c->name_end, c->key1)), equals = trim(between(c->key1 + 6, c->value1)), before = trim(between(c->all.p, c->name));
    const char *p = c->end, *stop = c->all.p + c->all.n;
    while (p < stop && (*p == '"' || *p == '\'' || blank(*p))) p++;
    if (open.n != 1 || open.p[0] != '(' || !equals.n || equals.p[0] != '=' || p == stop || *p++ != ')') return false;
    f->kind = AM_CALL_PYTHON;
    *end = p;
    while (p < stop && blank(*p)) p++;
    if (p == stop || *p != ']' || !before.n || before.p[before.n - 1] != '[') return true;
    c->name = before.p + before.n - 1;
    *end = p + 1;
    return true;
}

/* The text of the assistant's turn: what is behind both a thought's end and what begins every answer. */
static am_str turn_of(am_str rendered, am_str prompt, am_str plain, const am_answer_form *f) {
    const char *user = find(rendered, "zuserz"), *name = user ? find(behind(rendered, user), NAME1) : NULL, *from = user ? user + 6 : NULL, *end;
    if (!name) return (am_str){0};
    size_t n = common_start(rendered, prompt).n, n_plain = common_start(rendered, plain).n;
    if (n_plain > n) n = n_plain;
    if (rendered.p + n > from) from = rendered.p + n;
    while ((end = find(between(from, name), f->think_end)) && f->think_end[0]) from = end + strlen(f->think_end);
    return behind(rendered, from);
}

/* Forms the marks of calls; false: nothing that could be read again. two and plain may be empty. */
static bool derive(am_answer_form *f, am_str one_text, am_str two_text, am_str plain) {
    call one, first, second;
    if (!locate(one_text, NAME1, "zval1z", &one)) return false;
    bool both = two_text.n && locate(two_text, NAME1, "zval1z", &first) && locate(two_text, NAME2, "zval2z", &second);
    if (find(one_text, "<|channel|>") && find(one_text, "<|message|>")) return f->kind = AM_CALL_HARMONY, true;
    const char *end = one.end;
    bool list = both && first.json && first.name == second.name; /* one JSON value for both */
    if (one.json) {
        f->kind = AM_CALL_JSON;
    } else if (arguments_of(&one).n) {
        am_str a = arguments_of(&one);
        if (!named(f, &one, both ? &second : NULL)) return false;
        end = a.p + a.n;
    } else if (python(f, &one, &end)) {
        list = true;
    } else if (!tagged(f, &one, &end)) {
        return false;
    }
    am_str before = between(one_text.p, one.name), after = behind(one_text, end), turn_end = common_end(after, plain);
    if (turn_end.n <= after.n) after.n -= turn_end.n;
    if (both && !list) {
        size_t n_body = (size_t)(end - one.name);
        if (second.name + n_body > two_text.p + two_text.n) return false;
        am_str mid = between(first.name + n_body, second.name), tail = behind(two_text, second.name + n_body);
        tail.n -= common_end(tail, plain).n;
        am_str open = common_end(before, mid), close = common_start(mid, tail);
        am_str section = last_tag((am_str){before.p, before.n - open.n});
        if (section.n && !empty_thought(f, between(before.p, section.p))) return false;
        return put(f->section, last_tag((am_str){before.p, before.n - open.n}), false) && put(f->open, open, false) && put(f->close, close, false) &&
               put(f->section_end, (am_str){tail.p + close.n, tail.n - close.n}, false);
    }
    if (am_str_eq(trim(before), AM_STR("<|python_start|><|python_end|>"))) before.n = 0; /* Llama 4: what it writes between these is the text beside calls */
    f->bare = (f->kind == AM_CALL_JSON || f->kind == AM_CALL_PYTHON) && trim(before).n == 0;
    if (f->bare) before = f->kind == AM_CALL_JSON ? AM_STR("<|python_tag|>") : AM_STR("");
    if (!f->bare && !empty_thought(f, between(before.p, last_tag(before).p))) return false;
    return (trim(before).n || f->bare) && put(f->open, last_tag(before), false) && put(f->close, after, false);
}

/* Some templates write JSON by hand and escape it as HTML by accident; their models do not. */
static void unescape(am_buf *text) {
    static const char *const from[] = {"&#34;", "&#39;", "&lt;", "&gt;", "&amp;"}, to[] = "\"'<>&";
    size_t n = 0;
    for (size_t i = 0; i < text->n; n++) {
        size_t k = 0;
        while (k < 5 && (text->n - i < strlen(from[k]) || memcmp(text->p + i, from[k], strlen(from[k])) != 0)) k++;
        text->p[n] = k < 5 ? to[k] : text->p[i];
        i += k < 5 ? strlen(from[k]) : 1;
    }
    text->n = n;
}

static am_str view(am_rendered *r) {
    if (r->text.n && find(am_buf_str(&r->text), "&#34;" NAME1)) unescape(&r->text);
    return r->text.n ? am_buf_str(&r->text) : AM_STR("");
}

/* The tags right around a thought. */
static void derive_thought(am_answer_form *f, am_str s) {
    const char *thought = find(s, "zthoughtz"), *p = thought;
    if (!thought) return;
    while (p > s.p && p[-1] != '<' && p[-1] != '[' && p[-1] != '\n') p--;
    if (p > s.p && p[-1] == '\n')
        for (p--; p > s.p && p[-1] != '<' && p[-1] != '[';) p--;
    am_str after = trim(behind(s, thought + 9));
    size_t n = 0;
    while (n < after.n && after.p[n] != '>' && after.p[n] != ']' && after.p[n] != '\n') n++;
    if (p == s.p || n == after.n || !strchr("<[", after.p[0]) || !strchr(">]", after.p[n])) return;
    am_mark open, close;
    if (!put(open, between(p - 1, thought), false) || !put(close, (am_str){after.p, n + 1}, false)) return;
    memcpy(f->think, open, sizeof open);
    memcpy(f->think_end, close, sizeof close);
}

/* A mark that stands before an answer without a thought too begins the turn. What the prompt goes on with then begins the thought. */
static void check_thought(am_answer_form *f, am_str prompt, am_str plain) {
    const char *turn = find(plain, f->think), *answer = find(plain, "zanswerz"), *user = find(plain, "zuserz");
    if (!turn || !answer || !user || turn < user || turn > answer || find(between(turn, answer), f->think_end)) return;
    am_str rest = trim(behind(prompt, prompt.p + common_start(prompt, plain).n));
    const char *line = rest.n ? memrchr(rest.p, '\n', rest.n) : NULL;
    if (line) rest = behind(rest, line + 1);
    f->think[0] = 0;
    if (!rest.n || !put(f->think, rest, false)) f->think_end[0] = 0;
}

void am_chat_form_probe(am_chat_probe_fn *render, void *arg, am_answer_form *out) {
    am_rendered prompt = {0}, one = {0}, two = {0}, plain = {0}, thought = {0};
    am_answer_form f;
    am_answer_form_default(out);
    if (render(arg, "[" USER "," THOUGHT "]", NULL, false, &thought) && !find(view(&thought), "<|channel|>analysis")) derive_thought(out, view(&thought));
    f = *out;
    f.open[0] = f.close[0] = 0;
    f.told = false;
    bool ok = render(arg, "[" USER "]", TOOLS, true, &prompt) && render(arg, CALLS(CALL(ID1, NAME1, "zval1z")), TOOLS, false, &one);
    ok = ok && render(arg, "[" USER "," ANSWER "]", TOOLS, false, &plain);
    if (ok) {
        render(arg, CALLS(CALL(ID1, NAME1, "zval1z") "," CALL(ID2, NAME2, "zval2z")), TOOLS, false, &two);
        const char *answer = find(view(&plain), "zanswerz");
        am_str end = answer ? behind(view(&plain), answer + 8) : AM_STR("");
        am_str begin = view(&prompt), whole = view(&plain);
        check_thought(out, begin, whole);
        memcpy(f.think, out->think, sizeof f.think);
        memcpy(f.think_end, out->think_end, sizeof f.think_end);
        if (derive(&f, turn_of(view(&one), begin, whole, &f), turn_of(view(&two), begin, whole, &f), end)) *out = f;
    }
    am_rendered *const all[] = {&prompt, &one, &two, &plain, &thought};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) am_rendered_free(all[i]);
}
