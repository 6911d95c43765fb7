/* Owns how a client's messages become what chat templates were written for; server and library share it. What is no text is refused by its place, not
 * left out: a model that reads text only would answer as if it had seen it. */
#include "text/chat.h"

#include <stdio.h>
#include <string.h>

typedef struct reader {
    char *param; /* AM_CHAT_PARAM_BYTES */
    am_error *err;
    size_t index; /* of the message */
} reader;

/* NULL, with the member that is wrong named in param and in the text. */
static json_t *bad(reader *r, const char *member, const char *why) {
    snprintf(r->param, AM_CHAT_PARAM_BYTES, "messages[%zu]%s%s", r->index, member[0] ? "." : "", member);
    am_fail(r->err, AM_EINVAL, "'%s' %s", r->param, why);
    return NULL;
}

static const char *role_for_template(const char *role) {
    static const char *const known[][2] = {{"system", "system"}, {"developer", "system"}, {"user", "user"},
                                           {"assistant", "assistant"}, {"tool", "tool"}, {"function", "tool"}};
    for (size_t i = 0; role && i < sizeof known / sizeof *known; i++)
        if (strcmp(role, known[i][0]) == 0) return known[i][1];
    return NULL;
}

static bool one_of(const char *s, const char *const *list) {
    while (s && *list && strcmp(s, *list) != 0) list++;
    return s && *list;
}

/* The text of one part, and whether it is reasoning; NULL: it is no text. */
static const json_t *part_text(const json_t *part, bool *reasoning) {
    static const char *const texts[] = {"text", "input_text", "output_text", "refusal", NULL}, *const thoughts[] = {"thinking", "reasoning", NULL};
    *reasoning = false;
    if (json_is_string(part)) return part;
    const char *type = json_string_value(json_object_get(part, "type"));
    *reasoning = one_of(type, thoughts);
    if (!*reasoning && !one_of(type, texts)) return NULL;
    const json_t *own = json_object_get(part, type), *text = json_is_string(own) ? own : json_object_get(part, "text");
    return json_is_string(text) ? text : NULL;
}

static am_status add_line(am_buf *to, const json_t *text) {
    am_status status = to->n ? am_buf_putc(to, '\n') : AM_OK;
    return status ? status : am_buf_append(to, json_string_value(text), json_string_length(text));
}

static json_t *string_of(const am_buf *text) { return json_stringn(text->n ? text->p : "", text->n); }

/* A list of parts: text as content, reasoning apart. */
static json_t *joined_parts(reader *r, const json_t *parts, json_t **reasoning) {
    am_buf text, thoughts;
    am_buf_init(&text, SIZE_MAX / 2);
    am_buf_init(&thoughts, SIZE_MAX / 2);
    json_t *joined = NULL, *part;
    size_t i;
    am_status status = AM_OK;
    json_array_foreach(parts, i, part) {
        bool is_reasoning;
        const json_t *piece = part_text(part, &is_reasoning);
        if (!piece) {
            char why[160];
            const char *type = json_string_value(json_object_get(part, "type"));
            snprintf(why, sizeof why, "has part %zu of type '%.40s' that is no text; this model reads text only", i, type ? type : "unknown");
            bad(r, "content", why);
            goto out;
        }
        if ((status = add_line(is_reasoning ? &thoughts : &text, piece))) goto out;
    }
    if (thoughts.n && !(*reasoning = string_of(&thoughts))) goto out;
    joined = string_of(&text);
out:
    am_buf_free(&text);
    am_buf_free(&thoughts);
    return joined;
}

/* content: a string, parts, null or absent. A new reference. */
static json_t *content_of(reader *r, const json_t *message, json_t **reasoning) {
    json_t *content = json_object_get(message, "content");
    if (json_is_string(content)) return json_incref(content);
    if (!content || json_is_null(content)) return json_string("");
    return json_is_array(content) ? joined_parts(r, content, reasoning) : bad(r, "content", "must be a string, a list of parts or null");
}

static json_t *arguments_of(const json_t *function) {
    json_t *arguments = json_object_get(function, "arguments"), *object = NULL;
    if (json_is_object(arguments)) return json_incref(arguments);
    if (!json_is_string(arguments) || json_string_length(arguments) == 0) return json_object();
    am_str text = {json_string_value(arguments), json_string_length(arguments)};
    if (am_json_parse(text, false, &object, NULL) == AM_OK && json_is_object(object)) return object;
    json_decref(object);
    return json_incref(arguments); /* not JSON: as the model wrote it */
}

/* A call as templates see it: {"id","type":"function","function":{"name","arguments": object}}. NULL without a name, or without memory. */
static json_t *call_of(const json_t *call) {
    const json_t *function = json_object_get(call, "function");
    if (!function) function = call; /* the legacy function_call has name and arguments itself */
    json_t *name = json_object_get(function, "name"), *id = json_object_get(call, "id");
    if (!json_is_string(name)) return NULL;
    json_t *out = json_pack("{s:s, s:{s:O, s:o}}", "type", "function", "function", "name", name, "arguments", arguments_of(function));
    if (!out || !json_is_string(id) || json_object_set(out, "id", id) == 0) return out;
    json_decref(out);
    return NULL;
}

/* false: the error is set, or there is no memory. */
static bool copy_calls(reader *r, const json_t *message, json_t *out) {
    json_t *calls = json_object_get(message, "tool_calls"), *legacy = json_object_get(message, "function_call"), *one;
    if ((!calls || json_is_null(calls)) && (!legacy || json_is_null(legacy))) return true;
    if (calls && !json_is_null(calls) && !json_is_array(calls)) return bad(r, "tool_calls", "must be a list");
    json_t *list = json_array();
    bool ok = list != NULL;
    size_t i;
    if (json_is_array(calls)) {
        json_array_foreach(calls, i, one) {
            if (!ok) break;
            if (!(ok = json_array_append_new(list, call_of(one)) == 0)) bad(r, "tool_calls", "must be a list of {id, type, function: {name, arguments}}");
        }
    } else if (ok && !(ok = json_array_append_new(list, call_of(legacy)) == 0)) {
        bad(r, "function_call", "must have a name");
    }
    if (ok && json_array_size(list)) ok = json_object_set(out, "tool_calls", list) == 0;
    json_decref(list);
    return ok;
}

/* The first of these members of `from` that is a string. */
static json_t *first_string(const json_t *from, const char *const *keys) {
    json_t *v = NULL;
    for (; *keys && !json_is_string(v); keys++) v = json_object_get(from, *keys);
    return json_is_string(v) ? v : NULL;
}

static bool copy_strings(const json_t *message, json_t *reasoning_part, json_t *out) {
    static const char *const name[] = {"name", NULL}, *const id[] = {"tool_call_id", NULL}, *const thoughts[] = {"reasoning_content", "reasoning", "thinking", NULL};
    json_t *reasoning = first_string(message, thoughts), *v;
    if (!reasoning) reasoning = reasoning_part;
    return (!(v = first_string(message, name)) || json_object_set(out, "name", v) == 0) &&
           (!(v = first_string(message, id)) || json_object_set(out, "tool_call_id", v) == 0) &&
           (!reasoning || json_string_length(reasoning) == 0 || json_object_set(out, "reasoning_content", reasoning) == 0);
}

static json_t *message_of(reader *r, const json_t *message) {
    if (!json_is_object(message)) return bad(r, "", "must be an object");
    const char *role = role_for_template(json_string_value(json_object_get(message, "role")));
    if (!role) return bad(r, "role", "must be system, developer, user, assistant, tool or function");
    json_t *reasoning = NULL, *content = content_of(r, message, &reasoning);
    json_t *out = content ? json_pack("{s:s, s:o}", "role", role, "content", content) : NULL;
    if (out && !(copy_strings(message, reasoning, out) && copy_calls(r, message, out))) {
        json_decref(out);
        out = NULL;
    }
    json_decref(reasoning);
    return out;
}

am_status am_chat_messages(const json_t *messages, json_t **out, char param[AM_CHAT_PARAM_BYTES], am_error *err) {
    am_error why = {0};
    reader r = {.param = param, .err = &why};
    param[0] = 0;
    *out = NULL;
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        snprintf(param, AM_CHAT_PARAM_BYTES, "messages");
        return am_fail(err, AM_EINVAL, json_is_array(messages) ? "'messages' must not be empty" : "'messages' must be a JSON array");
    }
    json_t *list = json_array();
    bool ok = list != NULL;
    for (size_t n = json_array_size(messages); ok && r.index < n; r.index++)
        ok = json_array_append_new(list, message_of(&r, json_array_get(messages, r.index))) == 0;
    if (!ok) {
        json_decref(list);
        return why.code ? am_fail(err, why.code, "%s", why.message) : am_fail(err, AM_ENOMEM, "no memory for the messages");
    }
    *out = list;
    return AM_OK;
}

am_status am_chat_tools(const json_t *tools, json_t **out, char param[AM_CHAT_PARAM_BYTES], am_error *err) {
    *out = NULL;
    snprintf(param, AM_CHAT_PARAM_BYTES, "tools");
    if (!json_is_array(tools)) return am_fail(err, AM_EINVAL, "'tools' must be a JSON array");
    json_t *list = json_array(), *tool;
    am_status status = list ? AM_OK : AM_ENOMEM;
    size_t i;
    json_array_foreach((json_t *)tools, i, tool) {
        const char *type = json_string_value(json_object_get(tool, "type"));
        if (status) continue;
        snprintf(param, AM_CHAT_PARAM_BYTES, "tools[%zu]", i);
        if (type && strcmp(type, "function") != 0)
            status = am_fail(err, AM_EINVAL, "'%s' is of type '%.60s': only functions are offered to the model, since nothing here would run another tool", param, type);
        else if (!json_is_object(tool)) status = am_fail(err, AM_EINVAL, "'%s' must be an object", param);
        else if (!json_is_string(json_object_get(json_object_get(tool, "function"), "name"))) status = am_fail(err, AM_EINVAL, "'%s.function.name' must be a string", param);
        json_t *own = status ? NULL : json_copy(tool);
        if (!status && (json_array_append_new(list, own) || (!type && json_object_set_new(own, "type", json_string("function"))))) status = AM_ENOMEM;
    }
    if (!status) {
        *out = list;
        return AM_OK;
    }
    json_decref(list);
    return status == AM_ENOMEM ? am_fail(err, status, "no memory for the tools") : status;
}
