/* Owns how a request is said to a template that cannot say it as it is. Nothing is dropped: what has no place of its own becomes text in the nearest
 * message that has one.
 *
 *   tools                        a system text that lists them and says how to call one (the form that the server reads calls in)
 *   tool calls and results       text of the assistant, a message of the user, in the same form
 *   further system messages      at the beginning: joined; later: a user's message
 *   a system message             the beginning of the first user message
 *   two messages of one role     joined with a blank line */
#include "text/chat_traits.h"

#include <string.h>

static const char *role_of(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role ? role : "";
}

static bool is(const json_t *message, const char *role) { return strcmp(role_of(message), role) == 0; }

static am_str content_of(const json_t *message) {
    const json_t *content = json_object_get(message, "content");
    return json_is_string(content) ? (am_str){json_string_value(content), json_string_length(content)} : AM_STR("");
}

/* A message with this role and first, between and second as its content. NULL: no memory. */
static json_t *joined(const char *role, am_str first, const char *between, am_str second) {
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    am_status status = am_buf_add(&text, first);
    if (!status && first.n && second.n) status = am_buf_add(&text, am_str_of(between));
    if (!status) status = am_buf_add(&text, second);
    json_t *message = status ? NULL : json_pack("{s:s, s:o}", "role", role, "content", json_stringn(text.n ? text.p : "", text.n));
    am_buf_free(&text);
    return message;
}

static json_t *tools_message(const json_t *tools) {
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    am_buf_printf(&text, "You can call functions. These are there, each as JSON:\n<tools>\n");
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool) {
        am_json_dump(tool, &text);
        am_buf_putc(&text, '\n');
    }
    am_status status = am_buf_printf(&text, "</tools>\nTo call one, write its name and arguments as JSON:\n<tool_call>\n"
                                            "{\"name\": \"...\", \"arguments\": {...}}\n</tool_call>");
    json_t *message = status ? NULL : joined("system", am_buf_str(&text), "", AM_STR(""));
    am_buf_free(&text);
    return message;
}

/* The assistant's message with its calls as text. */
static json_t *calls_in_words(const json_t *message) {
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    am_status status = am_buf_add(&text, content_of(message));
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
        if (text.n) am_buf_putc(&text, '\n');
        json_t *function = json_object_get(call, "function");
        json_t *said = json_pack("{s:O?, s:O?}", "name", json_object_get(function, "name"), "arguments", json_object_get(function, "arguments"));
        am_buf_printf(&text, "<tool_call>\n");
        status = said ? am_json_dump(said, &text) : AM_ENOMEM;
        if (!status) status = am_buf_printf(&text, "\n</tool_call>");
        json_decref(said);
        if (status) break;
    }
    json_t *out = status ? NULL : joined("assistant", text.n ? am_buf_str(&text) : AM_STR(""), "", AM_STR(""));
    am_buf_free(&text);
    return out;
}

static json_t *result_in_words(const json_t *message) {
    json_t *open = joined("user", AM_STR("<tool_response>"), "\n", content_of(message));
    json_t *out = open ? joined("user", content_of(open), "\n", AM_STR("</tool_response>")) : NULL;
    json_decref(open);
    return out;
}

static bool has_calls(const json_t *message) { return json_array_size(json_object_get(message, "tool_calls")) > 0; }

/* Replaces the last message of `to` by itself and `message` together. */
static int join_last(json_t *to, const json_t *message) {
    size_t last = json_array_size(to) - 1;
    const json_t *before = json_array_get(to, last);
    return json_array_set_new(to, last, joined(role_of(before), content_of(before), "\n\n", content_of(message)));
}

static const json_t *last_of(const json_t *list) { return json_array_get(list, json_array_size(list) - 1); }

/* Adds one message; takes the reference. Nonzero: no memory. */
static int add(const am_chat_traits *traits, json_t *to, json_t *message) {
    if (!message) return -1;
    const json_t *before = last_of(to);
    bool start = true;
    for (size_t i = 0; i < json_array_size(to); i++) start = start && is(json_array_get(to, i), "system");
    int failed = is(message, "system") && !start && !traits->late_system ? json_object_set_new(message, "role", json_string("user")) : 0;
    if (!failed && is(message, "system") && start && before && !traits->systems) {
        failed = join_last(to, message);
    } else if (!failed && before && !traits->same_role && strcmp(role_of(before), role_of(message)) == 0 && !has_calls(before) && !has_calls(message) &&
               !is(message, "system") && !is(message, "tool")) {
        failed = join_last(to, message);
    } else if (!failed) {
        return json_array_append_new(to, message);
    }
    json_decref(message);
    return failed;
}

/* A system message at the beginning becomes the beginning of the user's first. */
static int move_system(const am_chat_traits *traits, json_t *messages) {
    const json_t *first = json_array_get(messages, 0), *second = json_array_get(messages, 1);
    if (traits->system || !is(first, "system")) return 0;
    bool user = is(second, "user");
    json_t *message = joined("user", content_of(first), "\n\n", user ? content_of(second) : AM_STR(""));
    if (!message) return -1;
    if (user && json_array_remove(messages, 1)) return -1;
    return json_array_set_new(messages, 0, message);
}

am_status am_chat_adapt(const am_chat_traits *traits, const am_chat_request *request, json_t **messages, const json_t **tools, am_error *err) {
    bool in_words = !traits->tools && json_array_size(request->tools) > 0;
    *tools = in_words ? NULL : request->tools;
    *messages = NULL;
    if (!json_is_array(request->messages) || (traits->system && traits->systems && traits->late_system && traits->same_role && traits->tool_results && !in_words)) {
        *messages = json_incref((json_t *)request->messages);
        return AM_OK;
    }
    json_t *to = json_array();
    int failed = to ? 0 : -1;
    size_t i;
    json_t *message;
    if (!failed && in_words) failed = add(traits, to, tools_message(request->tools));
    json_array_foreach((json_t *)request->messages, i, message) {
        if (failed) break;
        bool calls = !traits->tool_results && is(message, "assistant") && has_calls(message);
        bool result = !traits->tool_results && is(message, "tool");
        failed = add(traits, to, calls ? calls_in_words(message) : result ? result_in_words(message) : json_copy(message));
    }
    if (!failed) failed = move_system(traits, to);
    if (failed) {
        json_decref(to);
        return am_fail(err, AM_ENOMEM, "no memory for the messages");
    }
    *messages = to;
    return AM_OK;
}
