/* Owns which fields of an Anthropic request mean something here, in one table, and what its tools become. cache_control may stand anywhere and
 * changes nothing: everything is kept. What the blocks of system and messages hold is anthropic_messages.c's. */
#include "server/anthropic.h"

#include <stdio.h>
#include <string.h>

static bool parse_system(am_completion_request *r, const json_t *v, am_api_error *e) {
    (void)r;
    return json_is_string(v) || json_is_array(v) || am_field_wrong_type(e, "system", "a string or a list of text blocks", v);
}

static bool parse_metadata(am_completion_request *r, const json_t *v, am_api_error *e) {
    (void)r;
    if (!json_is_object(v)) return am_field_wrong_type(e, "metadata", "an object", v);
    const json_t *id = json_object_get(v, "user_id"); /* read by identity.c; here for its type */
    return !id || json_is_null(id) || json_is_string(id) || am_field_wrong_type(e, "metadata.user_id", "a string", id);
}

static bool parse_stops(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_array(v)) return am_field_wrong_type(e, "stop_sequences", "a list of strings", v);
    return am_completion_request_stops(r, "stop_sequences", v, e);
}

/* An Anthropic tool as am_chat_tools gives them, members in the order in which OpenAI's clients send them: the same tools are the same prompt. */
static json_t *function_of(const json_t *tool) {
    json_t *description = json_object_get(tool, "description"), *function = json_object();
    int failed = !function || json_object_set(function, "name", json_object_get(tool, "name"));
    if (!failed && json_is_string(description)) failed = json_object_set(function, "description", description);
    if (!failed) failed = json_object_set(function, "parameters", json_object_get(tool, "input_schema"));
    if (!failed) return json_pack("{s:s, s:o}", "type", "function", "function", function);
    json_decref(function);
    return NULL;
}

/* member: "" or ".name" */
static bool wrong_tool(am_api_error *e, size_t i, const char *member, const char *wanted, const json_t *v) {
    char at[48];
    snprintf(at, sizeof at, "tools[%zu]%s", i, member);
    return am_field_wrong_type(e, at, wanted, v);
}

static bool is_no_string(const json_t *v) { return v && !json_is_null(v) && !json_is_string(v); }

static bool add_tool(am_completion_request *r, const json_t *tool, size_t i, am_api_error *e) {
    if (!json_is_object(tool)) return wrong_tool(e, i, "", "an object", tool);
    const json_t *type = json_object_get(tool, "type"), *name = json_object_get(tool, "name");
    const json_t *description = json_object_get(tool, "description"), *schema = json_object_get(tool, "input_schema");
    if (is_no_string(type)) return wrong_tool(e, i, ".type", "a string", type);
    if (json_is_string(type) && strcmp(json_string_value(type), "custom")) return true; /* a service's own (web_search_...): nothing here would run it */
    if (!json_is_string(name)) return wrong_tool(e, i, ".name", "a string", name);
    if (!json_is_object(schema)) return wrong_tool(e, i, ".input_schema", "an object", schema);
    if (is_no_string(description)) return wrong_tool(e, i, ".description", "a string", description);
    return json_array_append_new(r->tools, function_of(tool)) == 0 || am_completion_no_memory(e);
}

static bool parse_tools(am_completion_request *r, const json_t *v, am_api_error *e) {
    size_t i;
    json_t *tool;
    if (!json_is_array(v)) return am_field_wrong_type(e, "tools", "a list", v);
    if (!(r->tools = json_array())) return am_completion_no_memory(e);
    json_array_foreach((json_t *)v, i, tool) if (!add_tool(r, tool, i, e)) return false;
    if (json_array_size(r->tools) < json_array_size(v)) am_completion_request_unforced(r, "tools");
    return true;
}

/* none takes the tools away. Whether the model calls one is otherwise its own choice: what asks for more is said to be not enforced. */
static bool parse_tool_choice(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, "tool_choice", "an object", v);
    const char *type = json_string_value(json_object_get(v, "type")), *name = json_string_value(json_object_get(v, "name"));
    if (!type) return am_field_wrong_type(e, "tool_choice.type", "a string", json_object_get(v, "type"));
    if (strcmp(type, "none") == 0) {
        json_decref(r->tools); /* the table has tools before tool_choice */
        r->tools = NULL;
        return true;
    }
    if (json_is_true(json_object_get(v, "disable_parallel_tool_use"))) am_completion_request_unforced(r, "tool_choice.disable_parallel_tool_use");
    if (strcmp(type, "auto") == 0) return true;
    am_completion_request_unforced(r, "tool_choice");
    if (strcmp(type, "any") == 0) return true;
    if (strcmp(type, "tool")) return am_api_fail(e, 400, "invalid_value", "tool_choice.type", "'tool_choice.type' must be auto, any, tool or none, not '%.32s'", type);
    if (!name) return am_field_wrong_type(e, "tool_choice.name", "a string", json_object_get(v, "name"));
    return am_tools_offer(r->tools, name) || am_api_fail(e, 400, "invalid_value", "tool_choice.name", "'tool_choice' names the tool '%.64s', which is not in 'tools'", name);
}

/* Not said: as the model's template has it. */
static bool parse_thinking(am_completion_request *r, const json_t *v, am_api_error *e) {
    static const char *const types[] = {"disabled", "enabled", "adaptive", "between_tools"};
    size_t i = 0;
    if (!json_is_object(v)) return am_field_wrong_type(e, "thinking", "an object", v);
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *budget = json_object_get(v, "budget_tokens");
    while (i < 4 && !(type && strcmp(type, types[i]) == 0)) i++;
    if (i == 4) return am_api_fail(e, 400, "invalid_value", "thinking.type", "'thinking.type' must be enabled, adaptive, between_tools or disabled");
    r->has_thinking = true;
    r->enable_thinking = i > 0;
    if (!budget || json_is_null(budget)) return true;
    if (!json_is_integer(budget)) return am_field_wrong_type(e, "thinking.budget_tokens", "an integer", budget);
    if (r->enable_thinking) am_completion_request_unforced(r, "thinking.budget_tokens"); /* the model thinks as long as it thinks */
    return true;
}

static bool parse_format(am_completion_request *r, const json_t *v, const char *name, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, name, "an object", v);
    am_completion_request_unforced(r, name);
    return true;
}

static bool parse_output_config(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, "output_config", "an object", v);
    const json_t *effort = json_object_get(v, "effort"), *format = json_object_get(v, "format");
    if (effort && !json_is_null(effort)) {
        if (!json_is_string(effort)) return am_field_wrong_type(e, "output_config.effort", "a string", effort);
        r->reasoning_effort = (am_str){json_string_value(effort), json_string_length(effort)};
    }
    return !format || json_is_null(format) || parse_format(r, format, "output_config.format", e);
}

static bool parse_output_format(am_completion_request *r, const json_t *v, am_api_error *e) { return parse_format(r, v, "output_format", e); }

static const am_field fields[] = {
    AM_FIELD_WITH(messages, am_completion_request_messages),
    AM_FIELD_WITH(system, parse_system),
    AM_FIELD_PLAIN(model, STRING),
    AM_FIELD_PLAIN(agent_id, STRING), /* read by identity.c; here for its type */
    AM_FIELD_WITH(metadata, parse_metadata),
    AM_FIELD_PLAIN(stream, BOOLEAN),
    AM_FIELD_RANGED(max_tokens, INTEGER, 1, INT32_MAX),
    AM_FIELD_RANGED(temperature, NUMBER, 0, 10),
    AM_FIELD_RANGED(top_p, NUMBER, 0, 1),
    AM_FIELD_RANGED(top_k, INTEGER, -1, INT32_MAX),
    AM_FIELD_WITH(stop_sequences, parse_stops),
    AM_FIELD_WITH(tools, parse_tools),
    AM_FIELD_WITH(tool_choice, parse_tool_choice),
    AM_FIELD_WITH(thinking, parse_thinking),
    AM_FIELD_WITH(output_config, parse_output_config),
    AM_FIELD_WITH(output_format, parse_output_format),
    AM_FIELD_PLAIN(cache_prompt, BOOLEAN),
};

/* An assistant's last message that ends in text is the beginning of the answer. */
static bool is_prefill(const json_t *messages) {
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1), *content = json_object_get(last, "content");
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!role || strcmp(role, "assistant")) return false;
    if (json_is_array(content)) content = json_object_get(json_array_get(content, json_array_size(content) - 1), "text");
    return json_string_length(content) > 0;
}

static bool parse(am_str body, am_completion_request *r, am_api_error *e) {
    *r = AM_COMPLETION_REQUEST;
    if (!am_completion_request_parse(body, fields, sizeof fields / sizeof *fields, r, e)) return false;
    r->continue_final_message = is_prefill(r->messages);
    return true;
}

bool am_anthropic_parse_count(am_str body, am_completion_request *r, am_api_error *e) {
    bool ok = parse(body, r, e);
    r->stream = false; /* a count is one reply */
    return ok;
}

bool am_anthropic_parse(am_str body, am_completion_request *r, am_api_error *e) {
    if (!parse(body, r, e)) return false;
    return r->max_tokens != INT64_MIN || am_api_fail(e, 400, "missing_required_parameter", "max_tokens", "'max_tokens' is missing");
}
