/* Owns how Anthropic's system and messages become what templates expect: blocks of one role are one message, results of tools are messages of their
 * own, thoughts are reasoning_content. What is no text is refused by its place: a model that reads text only would answer as if it had seen it.
 *
 * Consecutive messages of one role are one turn, as at Anthropic's; a system message in mid conversation stays where it is. */
#include "server/anthropic.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef char place[80]; /* "messages[2].content[0]"; cut where it is longer */

__attribute__((format(printf, 2, 3))) static void place_name(place out, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(out, sizeof(place), format, args);
    va_end(args);
}

/* The messages of one role that are being joined. */
typedef struct turn {
    const char *role; /* NULL: none */
    am_buf text, thoughts;
    json_t *calls;
    bool has_results; /* which went out before it */
} turn;

typedef struct reader {
    json_t *out;
    turn turn;
    am_api_error *e;
} reader;

static bool wrong(reader *r, const char *at, const char *member, const char *wanted, const json_t *v) {
    place full;
    place_name(full, "%s%s%s", at, member[0] ? "." : "", member);
    return am_field_wrong_type(r->e, full, wanted, v);
}

static bool add_text(reader *r, am_buf *to, const json_t *text) {
    bool failed = (to->n && am_buf_putc(to, '\n')) || am_buf_append(to, json_string_value(text), json_string_length(text));
    return !failed || am_completion_no_memory(r->e);
}

static bool add_member(reader *r, const json_t *block, const char *member, bool required, const char *at, am_buf *to) {
    const json_t *v = json_object_get(block, member);
    if (json_is_string(v)) return add_text(r, to, v);
    return (!required && (!v || json_is_null(v))) || wrong(r, at, member, "a string", v);
}

static const char *type_of(const json_t *block) {
    const char *type = json_string_value(json_object_get(block, "type"));
    return type ? type : "";
}

static bool refuse_block(reader *r, const json_t *block, const char *at) {
    if (!json_is_object(block)) return wrong(r, at, "", "an object", block);
    const json_t *type = json_object_get(block, "type");
    if (!json_is_string(type)) return wrong(r, at, "type", "a string", type);
    return am_api_fail(r->e, 400, "invalid_value", at, "'%s' is of type '%.40s', which is not read here: this model reads text only", at, json_string_value(type));
}

static bool add_blocks(reader *r, const json_t *content, const char *at, am_buf *to);

/* A document that is text: its title, its context, its text. */
static bool add_document(reader *r, const json_t *block, const char *at, am_buf *to) {
    const json_t *source = json_object_get(block, "source");
    const char *type = type_of(source);
    place inner;
    if (!json_is_object(source)) return wrong(r, at, "source", "an object", source);
    if (!add_member(r, block, "title", false, at, to) || !add_member(r, block, "context", false, at, to)) return false;
    place_name(inner, "%s.source", at);
    if (strcmp(type, "text") == 0) return add_member(r, source, "data", true, inner, to);
    if (strcmp(type, "content") == 0) return add_blocks(r, json_object_get(source, "content"), inner, to);
    return am_api_fail(r->e, 400, "invalid_value", inner, "'%s' is of type '%.40s': of documents only text is read", inner, type);
}

/* One block of text, in whatever wrapping. */
static bool add_block(reader *r, const json_t *block, const char *at, am_buf *to) {
    const char *type = type_of(block);
    place inner;
    if (strcmp(type, "text") == 0) return add_member(r, block, "text", true, at, to);
    if (strcmp(type, "document") == 0) return add_document(r, block, at, to);
    if (strcmp(type, "tool_reference") == 0) return add_member(r, block, "tool_name", true, at, to);
    if (strcmp(type, "search_result")) return refuse_block(r, block, at);
    place_name(inner, "%s.content", at);
    return add_member(r, block, "title", true, at, to) && add_member(r, block, "source", true, at, to) && add_blocks(r, json_object_get(block, "content"), inner, to);
}

/* A string, or a list of blocks of text. */
static bool add_blocks(reader *r, const json_t *content, const char *at, am_buf *to) {
    size_t i;
    json_t *block;
    if (json_is_string(content)) return add_text(r, to, content);
    if (!json_is_array(content)) return wrong(r, at, "", "a string or a list of blocks", content);
    json_array_foreach((json_t *)content, i, block) {
        place inner;
        place_name(inner, "%s[%zu]", at, i);
        if (!add_block(r, block, inner, to)) return false;
    }
    return true;
}

static json_t *string_of(const am_buf *text) { return json_stringn(text->n ? text->p : "", text->n); }

/* {"role","content"}, and one member more if there is a value; takes its reference. */
static bool put(reader *r, const char *role, const am_buf *text, const char *member, json_t *value) {
    json_t *message = json_pack("{s:s, s:o}", "role", role, "content", string_of(text));
    bool failed = !message || (value && json_object_set(message, member, value));
    json_decref(value);
    if (failed) json_decref(message);
    return (!failed && json_array_append_new(r->out, message) == 0) || am_completion_no_memory(r->e);
}

static bool end_turn(reader *r, bool last) {
    turn *t = &r->turn;
    bool ok = true, nothing = t->text.n == 0 && t->thoughts.n == 0 && !t->calls;
    if (t->role && strcmp(t->role, "assistant") == 0) {
        json_t *message = NULL;
        if (!(nothing && last)) { /* an answer that goes on from nothing is one that begins */
            ok = put(r, "assistant", &t->text, "reasoning_content", t->thoughts.n ? string_of(&t->thoughts) : NULL);
            message = ok ? json_array_get(r->out, json_array_size(r->out) - 1) : NULL;
        }
        if (message && t->calls && json_object_set(message, "tool_calls", t->calls)) ok = am_completion_no_memory(r->e);
    } else if (t->role && !(nothing && t->has_results)) {
        ok = put(r, t->role, &t->text, "", NULL);
    }
    json_decref(t->calls);
    t->calls = NULL;
    t->role = NULL;
    t->has_results = false;
    am_buf_clear(&t->text);
    am_buf_clear(&t->thoughts);
    return ok;
}

/* A tool's result is a message of its own, before what the user says beside it. */
static bool add_result(reader *r, const json_t *block, const char *at) {
    json_t *id = json_object_get(block, "tool_use_id"), *content = json_object_get(block, "content"), *is_error = json_object_get(block, "is_error");
    place inner;
    if (!json_is_string(id)) return wrong(r, at, "tool_use_id", "a string", id);
    if (is_error && !json_is_null(is_error) && !json_is_boolean(is_error)) return wrong(r, at, "is_error", "true or false", is_error);
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    place_name(inner, "%s.content", at);
    bool ok = !content || json_is_null(content) || add_blocks(r, content, inner, &text);
    if (ok && json_is_true(is_error)) { /* templates have no place for it */
        am_buf said;
        am_buf_init(&said, SIZE_MAX / 2);
        ok = !(am_buf_add(&said, AM_STR("Error: ")) || am_buf_add(&said, am_buf_str(&text))) || am_completion_no_memory(r->e);
        am_buf_free(&text);
        text = said;
    }
    ok = ok && put(r, "tool", &text, "tool_call_id", json_incref(id));
    r->turn.has_results = true;
    am_buf_free(&text);
    return ok;
}

static bool add_call(reader *r, const json_t *block, const char *at) {
    json_t *id = json_object_get(block, "id"), *name = json_object_get(block, "name"), *input = json_object_get(block, "input");
    if (!json_is_string(id)) return wrong(r, at, "id", "a string", id);
    if (!json_is_string(name)) return wrong(r, at, "name", "a string", name);
    if (!json_is_object(input)) return wrong(r, at, "input", "an object", input);
    if (!r->turn.calls) r->turn.calls = json_array();
    json_t *call = json_pack("{s:s, s:{s:O, s:O}, s:O}", "type", "function", "function", "name", name, "arguments", input, "id", id);
    return json_array_append_new(r->turn.calls, call) == 0 || am_completion_no_memory(r->e);
}

static bool add_user_block(reader *r, const json_t *block, const char *at) {
    return strcmp(type_of(block), "tool_result") == 0 ? add_result(r, block, at) : add_block(r, block, at, &r->turn.text);
}

/* A thought counts whatever its signature says: it is only text to the model that reads it. One that is redacted nobody here can read. */
static bool add_assistant_block(reader *r, const json_t *block, const char *at) {
    const char *type = type_of(block);
    if (strcmp(type, "text") == 0) return add_member(r, block, "text", true, at, &r->turn.text);
    if (strcmp(type, "thinking") == 0) return add_member(r, block, "thinking", true, at, &r->turn.thoughts);
    if (strcmp(type, "redacted_thinking") == 0) return true;
    return strcmp(type, "tool_use") == 0 ? add_call(r, block, at) : refuse_block(r, block, at);
}

static bool add_message(reader *r, const json_t *message, size_t index) {
    static const char *const roles[] = {"user", "assistant", "system"};
    place at;
    size_t i = 0;
    place_name(at, "messages[%zu]", index);
    if (!json_is_object(message)) return wrong(r, at, "", "an object", message);
    const json_t *said = json_object_get(message, "role"), *content = json_object_get(message, "content");
    while (i < 3 && !(json_is_string(said) && strcmp(json_string_value(said), roles[i]) == 0)) i++;
    if (i == 3) {
        place_name(at, "messages[%zu].role", index);
        return am_api_fail(r->e, 400, "invalid_value", at, "'%s' must be user, assistant or system; results of tools are blocks of the user's", at);
    }
    bool goes_on = r->turn.role && strcmp(r->turn.role, roles[i]) == 0 && i != 2;
    if (!goes_on && !end_turn(r, false)) return false;
    r->turn.role = roles[i];
    place_name(at, "messages[%zu].content", index);
    if (i == 2 || !json_is_array(content)) return add_blocks(r, content, at, &r->turn.text);
    for (size_t k = 0; k < json_array_size(content); k++) {
        place_name(at, "messages[%zu].content[%zu]", index, k);
        const json_t *block = json_array_get(content, k);
        if (!(i ? add_assistant_block(r, block, at) : add_user_block(r, block, at))) return false;
    }
    return true;
}

/* Claude Code begins its system text with a line of its own that differs from request to request: no part of what is said to the model. */
static am_str without_billing(const json_t *text) {
    am_str s = {json_string_value(text), json_string_length(text)};
    if (!am_str_starts(s, AM_STR("x-anthropic-billing-header:"))) return s;
    const char *end = memchr(s.p, '\n', s.n);
    return end ? (am_str){end + 1, (size_t)(s.p + s.n - end - 1)} : (am_str){0};
}

/* The system's blocks are one message, a blank line between them. */
static bool add_system(reader *r, const json_t *system) {
    am_buf *text = &r->turn.text;
    size_t n = json_is_array(system) ? json_array_size(system) : json_is_string(system);
    bool failed = false;
    for (size_t i = 0; i < n && !failed; i++) {
        const json_t *block = json_is_array(system) ? json_array_get(system, i) : NULL, *said = block ? json_object_get(block, "text") : system;
        place at;
        place_name(at, "system[%zu]", i);
        if (block && strcmp(type_of(block), "text")) return refuse_block(r, block, at);
        if (!json_is_string(said)) return wrong(r, at, "text", "a string", said);
        am_str piece = without_billing(said);
        if (piece.n) failed = (text->n && am_buf_add(text, AM_STR("\n\n"))) || am_buf_add(text, piece);
    }
    if (failed) return am_completion_no_memory(r->e);
    if (text->n) r->turn.role = "system";
    return end_turn(r, false);
}

json_t *am_anthropic_messages(const am_completion_request *request, uint32_t max_messages, am_api_error *e) {
    size_t n = json_array_size(request->messages);
    reader r = {.out = json_array(), .e = e};
    am_buf_init(&r.turn.text, SIZE_MAX / 2);
    am_buf_init(&r.turn.thoughts, SIZE_MAX / 2);
    bool ok = r.out || am_completion_no_memory(e);
    if (ok && n == 0) ok = am_api_fail(e, 400, "invalid_value", "messages", "'messages' must not be empty");
    if (ok && n > max_messages)
        ok = am_api_fail(e, 400, "too_many_messages", "messages", "'messages' has %zu entries; at most %u are taken", n, max_messages);
    ok = ok && add_system(&r, json_object_get(request->root, "system"));
    for (size_t i = 0; ok && i < n; i++) ok = add_message(&r, json_array_get(request->messages, i), i);
    ok = ok && end_turn(&r, true);
    json_decref(r.turn.calls);
    am_buf_free(&r.turn.text);
    am_buf_free(&r.turn.thoughts);
    if (ok) return r.out;
    json_decref(r.out);
    return NULL;
}
