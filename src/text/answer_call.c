/* Owns the reading of one call, from behind its opening mark. Arguments are given on as the model spelled them, but for blanks, so that no number changes. */
#include "text/answer_int.h"

#include <string.h>

enum { MAX_GAP = 96 };

void am_cursor_blanks(am_cursor *c) {
    while (c->at < c->s.n && am_is_blank(c->s.p[c->at])) c->at++;
}

bool am_cursor_take(am_cursor *c, const char *mark) {
    size_t from = c->at;
    am_cursor_blanks(c);
    for (; *mark; mark++) {
        if (am_is_blank(*mark)) {
            am_cursor_blanks(c);
            continue;
        }
        bool end = c->at == c->s.n;
        if (!end && c->s.p[c->at] == *mark) {
            c->at++;
            continue;
        }
        c->more |= end && !c->last;
        c->at = from;
        return false;
    }
    return true;
}

/* Past one JSON value; its own rules are checked later, when all of it is there. */
static bool json_value(am_cursor *c, am_str *out) {
    am_cursor_blanks(c);
    size_t from = c->at, depth = 0;
    bool string = false;
    for (size_t i = from; i < c->s.n; i++) {
        char ch = c->s.p[i];
        if (string) {
            if (ch == '\\') i++;
            else if (ch == '"') string = false;
        } else if (ch == '"') {
            string = true;
        } else if (ch == '{' || ch == '[') {
            depth++;
        } else if (ch == '}' || ch == ']') {
            if (depth == 0) break; /* behind a number */
            depth--;
        } else if (depth || !strchr(",:", ch)) {
            continue;
        } else {
            break;
        }
        if (depth == 0 && !string) {
            c->at = i + 1;
            *out = (am_str){c->s.p + from, c->at - from};
            return true;
        }
    }
    c->more |= !c->last;
    return false;
}

/* The text of a member of the JSON object s, which has been parsed; numbers and the like end where their text does. */
static bool raw_member(am_str s, const char *key, am_str *out) {
    am_cursor c = {.s = s, .last = true};
    am_str name;
    if (!am_cursor_take(&c, "{")) return false;
    while (json_value(&c, &name) && am_cursor_take(&c, ":")) {
        am_cursor_blanks(&c);
        size_t from = c.at;
        bool open = c.at < s.n && strchr("{[\"", s.p[c.at]);
        if (open && !json_value(&c, out)) return false;
        while (!open && c.at < s.n && !strchr(",} \n\t\r", s.p[c.at])) c.at++;
        *out = (am_str){s.p + from, c.at - from};
        if (name.n == strlen(key) + 2 && memcmp(name.p + 1, key, name.n - 2) == 0) return true;
        if (!am_cursor_take(&c, ",")) return false;
    }
    return false;
}

const char *am_answer_tool(const json_t *tools, am_str name) {
    size_t i;
    const json_t *tool;
    json_array_foreach(tools, i, tool) {
        const json_t *listed = json_object_get(json_object_get(tool, "function"), "name");
        if (json_string_length(listed) == name.n && name.n && memcmp(json_string_value(listed), name.p, name.n) == 0) return json_string_value(listed);
    }
    return NULL;
}

bool am_answer_give_call(am_answer *a, const char *name, am_str arguments, const am_answer_sink *sink) {
    bool string = false;
    am_buf_clear(&a->scratch);
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < arguments.n; i++) {
        char c = arguments.p[i];
        if (!string && am_is_blank(c)) continue;
        size_t n = string && c == '\\' && i + 1 < arguments.n ? 2 : 1;
        if (n == 1 && c == '"') string = !string;
        status = am_buf_append(&a->scratch, arguments.p + i, n);
        i += n - 1;
    }
    if (status) return false;
    sink->call(sink->arg, a->n_calls++, am_str_of(name), am_buf_str(&a->scratch));
    return true;
}

/* ---- a JSON object that is a call */

typedef struct spoken {
    const char *name;
    am_str arguments;
    const json_t *text; /* arguments as a string */
} spoken;

static const json_t *first_member(const json_t *o, const char *const *keys, const char **key) {
    const json_t *v = NULL;
    for (; *keys && !v; keys++) v = json_object_get(o, *key = *keys);
    return v;
}

/* {"name": ..., "arguments": {...}} under any of the names that models use for these, {"function": {that}}, or {"name": {arguments}}. */
static bool call_of(const json_t *tools, const json_t *o, am_str raw, spoken *out) {
    static const char *const names[] = {"name", "tool_name", "function", "function_name", NULL}, *const arguments[] = {"arguments", "parameters", "args", "input", NULL};
    const char *key;
    const json_t *name = first_member(o, names, &key);
    am_str inner;
    if (json_is_object(name)) return raw_member(raw, key, &inner) && call_of(tools, name, inner, out);
    if (json_is_string(name)) {
        out->name = am_answer_tool(tools, (am_str){json_string_value(name), json_string_length(name)});
        const json_t *v = first_member(o, arguments, &key);
        out->arguments = AM_STR("{}");
        if (json_is_string(v)) out->text = v;
        return out->name && (!v || json_is_null(v) || json_is_string(v) || (json_is_object(v) && raw_member(raw, key, &out->arguments)));
    }
    void *only = json_object_size(o) == 1 ? json_object_iter((json_t *)o) : NULL;
    if (!only || !json_is_object(json_object_iter_value(only))) return false;
    key = json_object_iter_key(only);
    out->name = am_answer_tool(tools, am_str_of(key));
    return out->name && raw_member(raw, key, &out->arguments);
}

static bool give_spoken(am_answer *a, const spoken *s, const am_answer_sink *sink) {
    if (!s->text) return am_answer_give_call(a, s->name, s->arguments, sink);
    sink->call(sink->arg, a->n_calls++, am_str_of(s->name), (am_str){json_string_value(s->text), json_string_length(s->text)});
    return true;
}

/* The elements of a parsed array, one after the other: `give` false looks whether all are calls. */
static bool each_call(am_answer *a, const json_t *list, am_str raw, bool give, const am_answer_sink *sink) {
    am_cursor c = {.s = raw, .last = true};
    size_t i;
    json_t *one;
    am_cursor_take(&c, "[");
    json_array_foreach((json_t *)list, i, one) {
        am_str text;
        spoken s = {0};
        if (!json_is_object(one) || !json_value(&c, &text) || !call_of(a->tools, one, text, &s)) return false;
        if (give && !give_spoken(a, &s, sink)) return false;
        am_cursor_take(&c, ",");
    }
    return json_array_size(list) > 0;
}

/* Whether what is there of an object can still be a call: its first member has one of the names that calls have, or is a function. */
static bool may_be_call(const am_answer *a, am_cursor c) {
    static const char *const keys[] = {"name", "tool_name", "function", "function_name", "arguments", "parameters", "args", "input", "type", "id", "tool_call_id", "call_id", NULL};
    for (const char *mark = "[{"; *mark; mark++) {
        am_cursor_blanks(&c);
        if (c.at < c.s.n && c.s.p[c.at] == *mark) c.at++;
        else if (*mark == '{' && c.at < c.s.n) return false;
    }
    am_cursor_blanks(&c);
    if (c.at == c.s.n) return true;
    const char *key = c.s.p + c.at + 1, *end = memchr(key, '"', c.s.n - c.at - 1);
    if (key[-1] != '"') return false;
    size_t n = end ? (size_t)(end - key) : 0;
    if (!end) return c.s.n - c.at < 128;
    for (size_t i = 0; keys[i]; i++)
        if (am_str_eq((am_str){key, n}, am_str_of(keys[i]))) return true;
    return am_answer_tool(a->tools, (am_str){key, n}) != NULL;
}

static am_found read_json(am_answer *a, am_cursor *c, const am_answer_sink *sink) {
    am_str raw;
    json_t *v = NULL;
    am_cursor_blanks(c);
    if (c->at == c->s.n) return c->last ? AM_NO_CALL : AM_CALL_MORE;
    if (!strchr("{[", c->s.p[c->at]) || !may_be_call(a, *c)) return AM_NO_CALL;
    if (!json_value(c, &raw)) return c->last ? AM_NO_CALL : AM_CALL_MORE;
    if (am_json_parse(raw, false, &v, NULL)) return AM_NO_CALL;
    spoken s = {0};
    bool ok;
    if (json_is_array(v)) ok = each_call(a, v, raw, false, sink) && each_call(a, v, raw, true, sink);
    else ok = call_of(a->tools, v, raw, &s) && give_spoken(a, &s, sink);
    json_decref(v);
    return ok ? AM_CALL_READ : AM_NO_CALL;
}

/* ---- a name, and arguments behind it */

/* The longest name of a tool that stands at c. */
const json_t *am_answer_take_name(const am_answer *a, am_cursor *c) {
    const json_t *best = NULL, *tool;
    size_t i, n_best = 0;
    am_cursor_blanks(c);
    am_str rest = {c->s.p + c->at, c->s.n - c->at};
    json_array_foreach(a->tools, i, tool) {
        const json_t *name = json_object_get(json_object_get(tool, "function"), "name");
        size_t n = json_string_length(name), common = n < rest.n ? n : rest.n;
        if (n == 0 || memcmp(rest.p, json_string_value(name), common) != 0) continue;
        if (n > rest.n) c->more |= !c->last;
        else if (n > n_best) best = tool, n_best = n;
    }
    c->at += n_best;
    return best;
}

static const char *name_of(const json_t *tool) { return json_string_value(json_object_get(json_object_get(tool, "function"), "name")); }

static am_found unfinished(const am_cursor *c) { return c->more ? AM_CALL_MORE : AM_NO_CALL; }

/* args: what stands right before the arguments, behind something that is other in each call (an id, a number). */
static bool take_gap(am_cursor *c, const char *args) {
    if (!args[0]) return true;
    for (size_t from = c->at; c->at < from + MAX_GAP; c->at++) {
        if (am_cursor_take(c, args)) return true;
        if (c->at >= c->s.n || c->s.p[c->at] == '{') break;
    }
    return false;
}

static am_found read_named(am_answer *a, const am_answer_form *f, am_cursor *c, const am_answer_sink *sink) {
    const json_t *tool = am_answer_take_name(a, c);
    am_str raw;
    json_t *v = NULL;
    if (!tool || !am_cursor_take(c, f->after_name) || !take_gap(c, f->args)) return unfinished(c);
    am_cursor_blanks(c);
    if (c->at == c->s.n) return c->last ? AM_NO_CALL : AM_CALL_MORE;
    if (c->s.p[c->at] != '{') return AM_NO_CALL;
    if (!json_value(c, &raw)) return unfinished(c);
    if (am_json_parse(raw, false, &v, NULL)) return AM_NO_CALL;
    json_decref(v);
    return am_answer_give_call(a, name_of(tool), raw, sink) ? AM_CALL_READ : AM_NO_CALL;
}

/* The place of `mark` (without the blanks around it) from c on; *end behind it. */
static bool find_mark(am_cursor *c, const char *mark, size_t *begin, size_t *end) {
    size_t n = strlen(mark);
    while (n && am_is_blank(*mark)) mark++, n--;
    while (n && am_is_blank(mark[n - 1])) n--;
    const char *at = memmem(c->s.p + c->at, c->s.n - c->at, mark, n);
    if (!at) {
        c->more |= !c->last;
        return false;
    }
    *begin = (size_t)(at - c->s.p);
    *end = *begin + n;
    return true;
}

/* Blanks that the marks have beside a value belong to them, others to it. */
static am_str inside(am_str v, const char *before, const char *after) {
    size_t n = strlen(before), m = 0;
    while (n && am_is_blank(before[n - 1])) n--;
    for (; before[n] && v.n && v.p[0] == before[n]; n++) v.p++, v.n--;
    while (am_is_blank(after[m])) m++;
    while (m && v.n && v.p[v.n - 1] == after[m - 1]) m--, v.n--;
    return v;
}

const json_t *am_answer_type(const json_t *tool, am_str key) {
    const json_t *properties = json_object_get(json_object_get(json_object_get(tool, "function"), "parameters"), "properties");
    return json_object_get(json_object_getn(properties, key.p, key.n), "type");
}

/* Whether a parameter takes text, so that a value like 12 is not read as a number: as its schema says; without one, what is no JSON is text. */
bool am_answer_takes_text(const json_t *type) {
    const json_t *one;
    size_t i;
    bool text = json_is_string(type) && strcmp(json_string_value(type), "string") == 0;
    json_array_foreach(type, i, one) text |= json_is_string(one) && strcmp(json_string_value(one), "string") == 0;
    return text;
}

static am_status put_value(const json_t *tool, am_str key, am_str value, bool text, bool json, am_buf *out) {
    json_t *v = NULL;
    am_status status = am_buf_printf(out, out->n > 1 ? "," : "");
    if (!status) status = am_json_quote(key, out);
    if (!status) status = am_buf_putc(out, ':');
    bool read = !text && (json || !am_answer_takes_text(am_answer_type(tool, key))) && am_json_parse(value, false, &v, NULL) == AM_OK;
    json_decref(v);
    if (status) return status;
    if (read) return am_buf_add(out, value);
    bool literal = !text && !am_answer_takes_text(am_answer_type(tool, key)) && value.n && !strchr("\"'", value.p[0]);
    return literal && am_answer_put_python(value, out) ? AM_OK : am_json_quote(value, out); /* what templates without tojson write */
}

/* One parameter; AM_NO_CALL: there is none at c. */
static am_found read_parameter(const am_answer_form *f, const json_t *tool, am_cursor *c, am_buf *out) {
    if (!am_cursor_take(c, f->param)) return AM_NO_CALL;
    am_cursor rest = *c, other = *c;
    size_t key_end = 0, value = 0, other_end = SIZE_MAX, other_value = 0, end, after;
    bool text = false, json = false, plain = find_mark(&rest, f->value, &key_end, &value);
    if (f->json_value[0] && find_mark(&other, f->json_value, &other_end, &other_value)) json = !plain || other_end < key_end;
    if (!plain && !json) {
        c->more |= rest.more;
        return AM_NO_CALL;
    }
    text = f->json_value[0] && !json;
    if (json) key_end = other_end, value = other_value;
    am_str key = {c->s.p + c->at, key_end - c->at};
    while (key.n && am_is_blank(key.p[key.n - 1])) key.n--;
    rest.at = value;
    /* the mark may stand in the value too: the end is where another parameter or the call's end follows */
    for (;;) {
        if (!find_mark(&rest, f->param_end, &end, &after)) {
            c->more |= rest.more;
            return AM_NO_CALL;
        }
        am_cursor next = {.s = c->s, .at = after, .last = c->last};
        if (am_cursor_take(&next, f->param) || am_cursor_take(&next, f->close)) break;
        if (next.more) {
            c->more = true;
            return AM_NO_CALL;
        }
        if (c->last && next.at + 1 >= c->s.n) break;
        rest.at = after;
    }
    c->at = after;
    am_str v = inside((am_str){c->s.p + value, end - value}, json ? f->json_value : f->value, f->param_end);
    return put_value(tool, key, v, text, json, out) ? AM_NO_CALL : AM_CALL_READ;
}

static am_found read_tagged(am_answer *a, const am_answer_form *f, am_cursor *c, const am_answer_sink *sink) {
    const json_t *tool = am_answer_take_name(a, c);
    if (!tool || !am_cursor_take(c, f->after_name)) return unfinished(c);
    am_buf out;
    am_buf_init(&out, 16 << 20);
    am_status status = am_buf_putc(&out, '{');
    while (!status && read_parameter(f, tool, c, &out) == AM_CALL_READ) {}
    bool ended = !c->more && am_cursor_take(c, f->close);
    am_found found = ended || (c->last && c->at == c->s.n) ? AM_CALL_READ : unfinished(c);
    if (found == AM_CALL_READ && (status || am_buf_putc(&out, '}') || !am_answer_give_call(a, name_of(tool), am_buf_str(&out), sink))) found = AM_NO_CALL;
    am_buf_free(&out);
    return found;
}

/* ---- {key:value,list:[1,2],text:<|"|>...<|"|>}: JSON without its quotes */

static bool relaxed_value(const am_answer_form *f, am_cursor *c, am_buf *out, int depth);

static bool relaxed_members(const am_answer_form *f, am_cursor *c, am_buf *out, int depth, bool object) {
    const char *end = object ? "}" : "]";
    if (am_buf_putc(out, object ? '{' : '[')) return false;
    for (bool first = true; !am_cursor_take(c, end); first = false) {
        if (c->more || (!first && (!am_cursor_take(c, ",") || am_buf_putc(out, ',')))) return false;
        if (object) {
            am_cursor_blanks(c);
            size_t from = c->at;
            while (c->at < c->s.n && !strchr(":{}[],", c->s.p[c->at])) c->at++;
            if (am_json_quote((am_str){c->s.p + from, c->at - from}, out) || !am_cursor_take(c, ":") || am_buf_putc(out, ':')) return false;
        }
        if (!relaxed_value(f, c, out, depth + 1)) return false;
    }
    return am_buf_putc(out, *end) == AM_OK;
}

static bool relaxed_value(const am_answer_form *f, am_cursor *c, am_buf *out, int depth) {
    size_t begin, end;
    if (depth > 64) return false;
    if (am_cursor_take(c, f->value)) {
        size_t from = c->at;
        if (!find_mark(c, f->value, &begin, &end)) return false;
        c->at = end;
        return am_json_quote((am_str){c->s.p + from, begin - from}, out) == AM_OK;
    }
    if (am_cursor_take(c, "{")) return relaxed_members(f, c, out, depth, true);
    if (am_cursor_take(c, "[")) return relaxed_members(f, c, out, depth, false);
    am_cursor_blanks(c);
    size_t from = c->at;
    json_t *v = NULL;
    while (c->at < c->s.n && !strchr(",}]", c->s.p[c->at])) c->at++;
    if (c->at == c->s.n) {
        c->more |= !c->last;
        return false;
    }
    am_str text = {c->s.p + from, c->at - from};
    bool json = am_json_parse(text, false, &v, NULL) == AM_OK;
    json_decref(v);
    return (json ? am_buf_add(out, text) : am_json_quote(text, out)) == AM_OK;
}

static am_found read_relaxed(am_answer *a, const am_answer_form *f, am_cursor *c, const am_answer_sink *sink) {
    const json_t *tool = am_answer_take_name(a, c);
    if (!tool || !am_cursor_take(c, "{")) return unfinished(c);
    am_buf out;
    am_buf_init(&out, 16 << 20);
    am_found found = relaxed_members(f, c, &out, 0, true) ? AM_CALL_READ : unfinished(c);
    if (found == AM_CALL_READ && !am_answer_give_call(a, name_of(tool), am_buf_str(&out), sink)) found = AM_NO_CALL;
    am_buf_free(&out);
    return found;
}

/* Models that were shown the one form answer in the other at times; each is told by how it begins. */
static am_found json_or_python(am_answer *a, const am_answer_form *f, am_cursor *c, const am_answer_sink *sink) {
    am_cursor at = *c;
    am_found found = read_json(a, c, sink);
    return found == AM_NO_CALL ? am_answer_read_python(a, f->bare, (*c = at, c), sink) : found;
}

am_found am_answer_read_call(am_answer *a, const am_answer_form *f, am_cursor *c, const am_answer_sink *sink) {
    switch (f->kind) {
    case AM_CALL_JSON: case AM_CALL_PYTHON: return json_or_python(a, f, c, sink);
    case AM_CALL_NAMED: return read_named(a, f, c, sink);
    case AM_CALL_TAGGED: return read_tagged(a, f, c, sink);
    case AM_CALL_RELAXED: return read_relaxed(a, f, c, sink);
    case AM_CALL_HARMONY: break;
    }
    return AM_NO_CALL;
}
