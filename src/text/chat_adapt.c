/* Owns how a request is said to a template that cannot say it as it is. Nothing is dropped: what has no place of its own becomes text in the nearest
 * message that has one.
 *
 *   documents                    a system text with each as JSON
 *   tools                        a system text that lists them and says how to call one (the form that the server reads calls in)
 *   calls and results            chat_calls.c
 *   further system messages      at the beginning: joined; later: a user's message
 *   a system message             the beginning of the first user message
 *   two messages of one role     joined with a blank line
 *   nothing of the user first    an empty message of the user */
#include "text/chat_traits.h"

#include <string.h>

/* A system message with each of a list as JSON, a line each, between two texts. */
static json_t *list_message(const json_t *list, am_str before, am_str after) {
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    bool failed = am_buf_add(&text, before);
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)list, i, one) {
        failed = failed || am_json_dump_spaced(one, &text) || am_buf_putc(&text, '\n');
    }
    failed = failed || am_buf_add(&text, after);
    json_t *message = failed ? NULL : json_pack("{s:s, s:s%}", "role", "system", "content", text.p, text.n);
    am_buf_free(&text);
    return message;
}

static json_t *tools_message(const json_t *tools) {
    return list_message(tools, AM_STR("You can call functions. These are there, each as JSON:\n<tools>\n"),
                        AM_STR("</tools>\nTo call one, write its name and arguments as JSON:\n<tool_call>\n"
                               "{\"name\": \"...\", \"arguments\": {...}}\n</tool_call>"));
}

static json_t *documents_message(const json_t *documents) {
    return list_message(documents, AM_STR("These documents are there, each as JSON:\n<documents>\n"), AM_STR("</documents>"));
}

/* member of `to` = its text, a blank line, and that of `from`. */
static int join_member(json_t *to, const json_t *from, const char *member) {
    const json_t *a = json_object_get(to, member), *b = json_object_get(from, member);
    if (!json_is_string(b) || json_string_length(b) == 0) return 0;
    am_str first = json_is_string(a) ? (am_str){json_string_value(a), json_string_length(a)} : AM_STR("");
    return json_object_set_new(to, member, am_chat_joined(first, "\n\n", (am_str){json_string_value(b), json_string_length(b)}));
}

/* Puts `message` behind what the last of `to` says. */
static int join_last(json_t *to, const json_t *message) {
    json_t *before = json_array_get(to, json_array_size(to) - 1), *calls = json_object_get(message, "tool_calls");
    if (calls && json_object_set(before, "tool_calls", calls)) return -1;
    return join_member(before, message, "content") || join_member(before, message, "reasoning_content");
}

/* What a request's template can, with or without its tools. */
typedef struct frame {
    const am_chat_traits *can;
    bool system; /* can->system, and in this conversation too */
    json_t *to;
} frame;

static bool joins(const frame *f, const json_t *before, const json_t *message, bool start) {
    if (!before || strcmp(am_chat_role(before), am_chat_role(message)) != 0) return false;
    if (am_chat_is(message, "system")) return start && (!f->can->systems || !f->system);
    if (am_chat_is(message, "tool") || am_chat_has_calls(before)) return false;
    return am_chat_has_calls(message) ? !f->can->text_then_calls : !f->can->same_role;
}

/* Adds one message; takes the reference. start: only system messages are before it. */
static int add(frame *f, json_t *message, bool start) {
    const json_t *before = json_array_get(f->to, json_array_size(f->to) - 1);
    int failed = 0;
    if (!message) return -1;
    if (am_chat_is(message, "system") && !start && !f->can->late_system) failed = json_object_set_new(message, "role", json_string("user"));
    if (failed || !joins(f, before, message, start)) return failed ? json_decref(message), failed : json_array_append_new(f->to, message);
    failed = join_last(f->to, message);
    json_decref(message);
    return failed;
}

/* A system message at the beginning becomes the beginning of the user's first. */
static int move_system(const frame *f) {
    json_t *first = json_array_get(f->to, 0), *second = json_array_get(f->to, 1);
    if (f->system || !am_chat_is(first, "system")) return 0;
    bool user = am_chat_is(second, "user");
    int failed = json_object_set_new(first, "role", json_string("user"));
    if (!failed && user) failed = join_member(first, second, "content");
    json_t *name = json_object_get(second, "name");
    if (!failed && user && name) failed = json_object_set(first, "name", name);
    return failed || (user && json_array_remove(f->to, 1)) ? -1 : 0;
}

/* An empty message of the user before everything but the system's, where the template wants one. */
static int begin_with_user(const frame *f) {
    size_t at = 0, i;
    json_t *message;
    bool user = false;
    while (am_chat_is(json_array_get(f->to, at), "system")) at++;
    json_array_foreach(f->to, i, message) user = user || am_chat_is(message, "user");
    bool assistant = am_chat_is(json_array_get(f->to, at), "assistant");
    if (!(assistant && !f->can->assistant_first) && !(!user && !f->can->no_user)) return 0;
    return json_array_insert_new(f->to, at, json_pack("{s:s, s:s}", "role", "user", "content", ""));
}

am_status am_chat_adapt(const am_chat_traits *traits, const am_chat_request *request, json_t **messages, am_chat_request *adapted, am_error *err) {
    bool has_tools = json_array_size(request->tools) > 0, in_words = has_tools && !traits->tools;
    bool has_documents = json_array_size(request->documents) > 0 && !traits->documents;
    if (in_words) adapted->tools = NULL;
    if (has_documents) adapted->documents = NULL;
    *messages = NULL;
    json_t *said = json_array(), *message;
    bool ends_with_user = am_chat_is(json_array_get(request->messages, json_array_size(request->messages) - 1), "user");
    frame f = {traits, traits->system && (traits->system_tools || !has_tools || in_words) && (traits->system_results || ends_with_user), json_array()};
    int failed = said && f.to ? am_chat_say_calls(traits, request->messages, said) : -1;
    bool start = true;
    size_t i;
    if (!failed && has_documents) failed = add(&f, documents_message(request->documents), start);
    if (!failed && in_words) failed = add(&f, tools_message(request->tools), start);
    json_array_foreach(said, i, message) {
        if (failed) break;
        start = start && am_chat_is(message, "system");
        failed = add(&f, json_incref(message), start);
    }
    json_decref(said);
    if (!failed) failed = move_system(&f);
    if (!failed) failed = begin_with_user(&f);
    if (!failed) failed = am_chat_put(traits, f.to);
    if (!failed) {
        adapted->messages = *messages = f.to;
        return AM_OK;
    }
    json_decref(f.to);
    return am_fail(err, AM_ENOMEM, "no memory for the messages");
}
