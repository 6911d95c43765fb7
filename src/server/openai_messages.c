/* Owns how OpenAI's messages become what chat templates were written for: role names they know, content as one string, the arguments of tool
 * calls as objects. Only members that templates read are carried over, so that what clients add cannot change a prompt. */
#include "server/openai.h"

#include <stdio.h>
#include <string.h>

static const char *role_for_template(const char *role) {
    static const char *const known[][2] = {{"system", "system"}, {"developer", "system"}, {"user", "user"},
                                           {"assistant", "assistant"}, {"tool", "tool"}, {"function", "tool"}};
    for (size_t i = 0; role && i < sizeof known / sizeof *known; i++)
        if (strcmp(role, known[i][0]) == 0) return known[i][1];
    return NULL;
}

static bool bad(am_api_error *e, size_t i, const char *member, const char *why) {
    char name[64];
    snprintf(name, sizeof name, "messages[%zu]%s%s", i, member[0] ? "." : "", member);
    return am_api_fail(e, 400, "invalid_value", name, "'%s' %s", name, why);
}

/* The text of one part, or NULL with *ok: a part that is no text and may be left out. */
static const json_t *part_text(const json_t *part, bool *ok) {
    *ok = true;
    if (json_is_string(part)) return part;
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, type && strcmp(type, "refusal") == 0 ? "refusal" : "text");
    bool is_text = type && (strcmp(type, "text") == 0 || strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0 ||
                            strcmp(type, "refusal") == 0);
    if (is_text && json_is_string(text)) return text;
    *ok = type && (strcmp(type, "thinking") == 0 || strcmp(type, "reasoning") == 0);
    return NULL;
}

/* content: a string, parts, null or absent. A new reference; NULL: *e. */
static json_t *content_of(const json_t *message, size_t index, am_api_error *e) {
    json_t *content = json_object_get(message, "content");
    if (json_is_string(content)) return json_incref(content);
    if (!content || json_is_null(content)) return json_string("");
    if (!json_is_array(content)) {
        bad(e, index, "content", "must be a string, a list of parts or null");
        return NULL;
    }
    am_buf text;
    am_buf_init(&text, SIZE_MAX / 2);
    json_t *joined = NULL, *part;
    size_t i;
    bool ok = true;
    json_array_foreach(content, i, part) {
        const json_t *piece = part_text(part, &ok);
        if (!ok) break;
        if (piece && text.n) ok = am_buf_putc(&text, '\n') == AM_OK;
        if (piece && ok) ok = am_buf_append(&text, json_string_value(piece), json_string_length(piece)) == AM_OK;
    }
    if (ok) {
        joined = json_stringn(text.n ? text.p : "", text.n);
    } else {
        char why[160];
        const char *type = json_string_value(json_object_get(json_array_get(content, i), "type"));
        snprintf(why, sizeof why, "has part %zu of type '%.40s' that is no text; this model reads text only", i, type ? type : "unknown");
        bad(e, index, "content", why);
    }
    am_buf_free(&text);
    return joined;
}

/* A call as templates see it: {"id","type":"function","function":{"name","arguments": object}}. */
static json_t *call_of(const json_t *call) {
    const json_t *function = json_object_get(call, "function");
    if (!function) function = call; /* the legacy function_call has name and arguments itself */
    json_t *name = json_object_get(function, "name"), *arguments = json_object_get(function, "arguments"), *object = NULL;
    if (!json_is_string(name)) return NULL;
    if (json_is_string(arguments)) {
        am_str text = {json_string_value(arguments), json_string_length(arguments)};
        if (text.n == 0) object = json_object();
        else if (am_json_parse(text, false, &object, NULL) || !json_is_object(object)) {
            json_decref(object);
            object = json_incref(arguments); /* not JSON: as the model wrote it */
        }
    } else {
        object = json_is_object(arguments) ? json_incref(arguments) : json_object();
    }
    json_t *out = json_pack("{s:s, s:{s:O, s:o}}", "type", "function", "function", "name", name, "arguments", object);
    json_t *id = json_object_get(call, "id");
    if (out && json_is_string(id)) json_object_set(out, "id", id);
    return out;
}

static bool copy_calls(const json_t *message, json_t *out, size_t index, am_api_error *e) {
    json_t *calls = json_object_get(message, "tool_calls"), *legacy = json_object_get(message, "function_call"), *one;
    if ((!calls || json_is_null(calls)) && (!legacy || json_is_null(legacy))) return true;
    json_t *list = json_array();
    size_t i;
    if (json_is_array(calls)) {
        json_array_foreach(calls, i, one) {
            if (json_array_append_new(list, call_of(one)) == 0) continue;
            json_decref(list);
            return bad(e, index, "tool_calls", "must be a list of {id, type, function: {name, arguments}}");
        }
    } else if (calls && !json_is_null(calls)) {
        json_decref(list);
        return bad(e, index, "tool_calls", "must be a list");
    } else if (json_array_append_new(list, call_of(legacy))) {
        json_decref(list);
        return bad(e, index, "function_call", "must have a name");
    }
    if (json_array_size(list)) json_object_set(out, "tool_calls", list);
    json_decref(list);
    return true;
}

static void copy_string(const json_t *from, const char *key, json_t *to, const char *as) {
    json_t *v = json_object_get(from, key);
    if (json_is_string(v)) json_object_set(to, as, v);
}

static json_t *message_of(const json_t *message, size_t index, am_api_error *e) {
    if (!json_is_object(message)) {
        bad(e, index, "", "must be an object");
        return NULL;
    }
    const char *role = role_for_template(json_string_value(json_object_get(message, "role")));
    if (!role) {
        bad(e, index, "role", "must be system, developer, user, assistant, tool or function");
        return NULL;
    }
    json_t *content = content_of(message, index, e);
    json_t *out = content ? json_pack("{s:s, s:o}", "role", role, "content", content) : NULL;
    if (!out) return NULL;
    copy_string(message, "name", out, "name");
    copy_string(message, "tool_call_id", out, "tool_call_id");
    copy_string(message, "reasoning", out, "reasoning_content");
    copy_string(message, "reasoning_content", out, "reasoning_content");
    if (!copy_calls(message, out, index, e)) {
        json_decref(out);
        return NULL;
    }
    return out;
}

json_t *am_openai_messages(const json_t *messages, uint32_t max_messages, am_api_error *e) {
    size_t n = json_array_size(messages), i;
    am_api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    if (n == 0 || n > max_messages) {
        if (n == 0) am_api_fail(e, 400, "invalid_value", "messages", "'messages' must not be empty");
        else am_api_fail(e, 400, "too_many_messages", "messages", "'messages' has %zu entries; at most %u are taken", n, max_messages);
        return NULL;
    }
    json_t *list = json_array(), *message;
    json_array_foreach(messages, i, message) {
        if (json_array_append_new(list, message_of(message, i, e)) == 0) continue;
        json_decref(list);
        return NULL;
    }
    return list;
}
