/* Owns the last step before a template: members of messages in the form that it reads.
 *
 * Ids of nine letters and digits, which Mistral's templates demand, are made of the client's ids by a hash: the same id gives the same nine for a call and
 * its result and in every later turn, so the prompt stays the prefix of the next. */
#include "text/chat_traits.h"

#include "base/hash.h"

#include <string.h>

const char *am_chat_role(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role ? role : "";
}

bool am_chat_is(const json_t *message, const char *role) { return strcmp(am_chat_role(message), role) == 0; }

static am_str view(const json_t *string) {
    return json_is_string(string) ? (am_str){json_string_value(string), json_string_length(string)} : AM_STR("");
}

am_str am_chat_content(const json_t *message) { return view(json_object_get(message, "content")); }

bool am_chat_has_calls(const json_t *message) { return json_array_size(json_object_get(message, "tool_calls")) > 0; }

json_t *am_chat_joined(am_str first, const char *between, am_str second) {
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    am_status status = am_buf_add(&text, first);
    if (!status && first.n && second.n) status = am_buf_add(&text, am_str_of(between));
    if (!status) status = am_buf_add(&text, second);
    json_t *joined = status ? NULL : json_stringn(text.n ? text.p : "", text.n);
    am_buf_free(&text);
    return joined;
}

static bool is_nine(am_str id) {
    size_t n = 0;
    while (n < id.n && (((id.p[n] | 32) >= 'a' && (id.p[n] | 32) <= 'z') || (id.p[n] >= '0' && id.p[n] <= '9'))) n++;
    return n == 9 && id.n == 9;
}

static int shorten_id(json_t *object, const char *member) {
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const json_t *value = json_object_get(object, member);
    am_str id = view(value);
    if (!json_is_string(value) || is_nine(id)) return 0;
    char nine[9];
    uint64_t h = am_hash64(id.p, id.n);
    for (size_t i = 0; i < sizeof nine; i++, h /= 62) nine[i] = digits[h % 62];
    return json_object_set_new(object, member, json_stringn(nine, sizeof nine));
}

static int text_arguments(json_t *function) {
    const json_t *arguments = json_object_get(function, "arguments");
    if (!json_is_object(arguments)) return 0;
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    int failed = am_json_dump_spaced(arguments, &text) ? -1 : 0;
    if (!failed) failed = json_object_set_new(function, "arguments", json_stringn(text.p, text.n));
    am_buf_free(&text);
    return failed;
}

/* Some templates show calls only where there is no content at all. */
static int put_content(const am_chat_traits *traits, json_t *message) {
    if (!traits->empty_content && am_chat_has_calls(message) && am_chat_content(message).n == 0) return json_object_set(message, "content", json_null());
    json_t *content = json_object_get(message, "content");
    if (traits->strings || !json_is_string(content)) return 0;
    return json_object_set_new(message, "content", json_pack("[{s:s, s:O}]", "type", "text", "text", content));
}

/* Calls of their own, so that what is changed is not the client's. */
static int put_calls(const am_chat_traits *traits, json_t *message) {
    if (!am_chat_has_calls(message) || (traits->any_id && traits->object_arguments)) return 0;
    json_t *calls = json_deep_copy(json_object_get(message, "tool_calls")), *call;
    int failed = json_object_set_new(message, "tool_calls", calls);
    size_t i;
    json_array_foreach(calls, i, call) {
        if (!failed && !traits->any_id) failed = shorten_id(call, "id");
        if (!failed && !traits->object_arguments) failed = text_arguments(json_object_get(call, "function"));
    }
    return failed;
}

static int put_reasoning(const am_chat_traits *traits, json_t *message) {
    static const char *const member[] = {[AM_REASONING_THINKING] = "thinking", [AM_REASONING_PLAIN] = "reasoning"};
    json_t *reasoning = json_object_get(message, "reasoning_content");
    if (!reasoning || (traits->reasoning != AM_REASONING_THINKING && traits->reasoning != AM_REASONING_PLAIN)) return 0;
    return json_object_set(message, member[traits->reasoning], reasoning) || json_object_del(message, "reasoning_content");
}

int am_chat_put(const am_chat_traits *traits, json_t *messages) {
    size_t i;
    json_t *message;
    int failed = 0;
    json_array_foreach(messages, i, message) {
        if (!failed) failed = put_calls(traits, message);
        if (!failed && !traits->any_id) failed = shorten_id(message, "tool_call_id");
        if (!failed) failed = put_reasoning(traits, message);
        if (!failed) failed = put_content(traits, message);
    }
    return failed;
}
