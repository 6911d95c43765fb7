/* Owns which fields of an OpenAI request mean something here, their types and ranges, in one table. */
#include "server/openai.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ANY_VOCAB = INT32_MAX }; /* while the model is not known; am_completion_request_fits looks again */

static bool parse_stop(am_completion_request *r, const json_t *v, am_api_error *e) { return am_completion_request_stops(r, "stop", v, e); }

static bool parse_stop_tokens(am_completion_request *r, const json_t *v, am_api_error *e) {
    size_t i;
    json_t *one;
    if (!json_is_array(v)) return am_field_wrong_type(e, "stop_token_ids", "a list of token ids", v);
    json_array_foreach(v, i, one) {
        json_int_t id = json_is_integer(one) ? json_integer_value(one) : -1;
        if (id < 0 || id >= ANY_VOCAB || i == AM_MAX_STOP_TOKENS)
            return am_api_fail(e, 400, "invalid_value", "stop_token_ids", "'stop_token_ids' takes at most %d ids from 0 to %d", AM_MAX_STOP_TOKENS, ANY_VOCAB - 1);
        r->stop_tokens[r->n_stop_tokens++] = (int32_t)id;
    }
    return true;
}

static bool parse_bias(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, "logit_bias", "an object", v);
    size_t n = json_object_size(v);
    if (n > AM_MAX_BIAS) return am_api_fail(e, 400, "invalid_value", "logit_bias", "'logit_bias' has %zu entries; at most %d are taken", n, AM_MAX_BIAS);
    if (!(r->bias = am_calloc(n, sizeof *r->bias))) return am_completion_no_memory(e);
    const char *key;
    json_t *one;
    json_object_foreach((json_t *)v, key, one) {
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end || id >= ANY_VOCAB)
            return am_api_fail(e, 400, "invalid_value", "logit_bias", "'%.32s' in 'logit_bias' is no token id (0 to %d)", key, ANY_VOCAB - 1);
        double bias = json_is_number(one) ? json_number_value(one) : NAN;
        if (!(bias >= -100 && bias <= 100))
            return am_api_fail(e, 400, "invalid_value", "logit_bias", "the bias of token %lu must be a number from -100 to 100", id);
        r->bias[r->n_bias++] = (am_logit_bias){.token = (int32_t)id, .bias = (float)bias};
    }
    return true;
}

static bool parse_stream_options(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, "stream_options", "an object", v);
    const json_t *usage = json_object_get(v, "include_usage");
    if (usage && !json_is_boolean(usage) && !json_is_null(usage)) return am_field_wrong_type(e, "stream_options.include_usage", "true or false", usage);
    r->include_usage = json_is_true(usage);
    return true;
}

static bool parse_tools(am_completion_request *r, const json_t *v, am_api_error *e) {
    char param[AM_CHAT_PARAM_BYTES];
    am_error err = {0};
    json_decref(r->tools);
    am_status status = am_chat_tools(v, &r->tools, param, &err);
    if (status == AM_ENOMEM) return am_completion_no_memory(e);
    return !status || am_api_fail(e, 400, "invalid_value", param, "%s", err.message);
}

/* none takes the tools away. Whether the model calls one is otherwise its own choice: what asks for more is said to be not enforced. */
static bool parse_tool_choice(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_string(v) && !json_is_object(v)) return am_field_wrong_type(e, "tool_choice", "a string or an object", v);
    const char *word = json_string_value(v), *type = json_string_value(json_object_get(v, "type"));
    const json_t *function = json_object_get(v, "function");
    if (word && strcmp(word, "none") == 0) {
        json_decref(r->tools); /* the table has tools before tool_choice */
        r->tools = NULL;
        return true;
    }
    if (word && strcmp(word, "auto") == 0) return true;
    am_completion_request_unforced(r, "tool_choice");
    if (word) {
        if (strcmp(word, "required") == 0 || strcmp(word, "any") == 0) return true;
        return am_api_fail(e, 400, "invalid_value", "tool_choice", "'tool_choice' must be none, auto, required or a function, not '%.32s'", word);
    }
    if (!function && type && strcmp(type, "function")) return true; /* allowed_tools, custom */
    const char *name = json_string_value(json_object_get(function, "name"));
    if (!name) return am_api_fail(e, 400, "invalid_value", "tool_choice", "'tool_choice.function.name' must be a string");
    return am_tools_offer(r->tools, name) || am_api_fail(e, 400, "invalid_value", "tool_choice", "'tool_choice' names the function '%.64s', which is not in 'tools'", name);
}

/* OpenAI's predicted outputs: {"type": "content", "content": a string or a list of text parts}. */
static bool parse_prediction(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, "prediction", "an object", v);
    const json_t *content = json_object_get(v, "content");
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type || strcmp(type, "content")) return am_api_fail(e, 400, "invalid_value", "prediction", "'prediction.type' must be content");
    if (!json_is_string(content) && !json_is_array(content)) return am_field_wrong_type(e, "prediction.content", "a string or a list of text parts", content);
    size_t n = json_is_array(content) ? json_array_size(content) : 1;
    am_buf_init(&r->prediction, SIZE_MAX / 2);
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_is_array(content) ? json_object_get(json_array_get(content, i), "text") : content;
        if (!json_is_string(text)) return am_api_fail(e, 400, "invalid_value", "prediction", "'prediction.content[%zu]' is no text part", i);
        if (am_buf_append(&r->prediction, json_string_value(text), json_string_length(text)))
            return am_completion_no_memory(e);
    }
    return true;
}

static bool parse_kwargs(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, "chat_template_kwargs", "an object", v);
    if (json_object_get(v, "chat_template"))
        return am_api_fail(e, 400, "invalid_value", "chat_template_kwargs", "a request cannot bring its own chat template");
    r->kwargs = json_deep_copy(v);
    return r->kwargs || am_completion_no_memory(e);
}

static bool refuse_template(am_completion_request *r, const json_t *v, am_api_error *e) {
    (void)r;
    (void)v;
    return am_api_fail(e, 400, "invalid_value", "chat_template", "a request cannot bring its own chat template");
}

static bool parse_thinking(am_completion_request *r, const json_t *v, am_api_error *e) {
    r->has_thinking = true;
    r->enable_thinking = json_is_true(v);
    return json_is_boolean(v) || am_field_wrong_type(e, "enable_thinking", "true or false", v);
}

/* llama.cpp's name for where thoughts go: apart, or left in the text as the model writes them. */
static bool parse_reasoning_format(am_completion_request *r, const json_t *v, am_api_error *e) {
    const char *s = json_string_value(v);
    r->plain_reasoning = s && strcmp(s, "none") == 0;
    return (s && (r->plain_reasoning || strcmp(s, "auto") == 0 || strcmp(s, "deepseek") == 0)) ||
           am_api_fail(e, 400, "invalid_value", "reasoning_format", "'reasoning_format' must be auto, deepseek or none");
}

static bool parse_documents(am_completion_request *r, const json_t *v, am_api_error *e) {
    size_t i;
    json_t *one;
    r->documents = v;
    if (!json_is_array(v)) return am_field_wrong_type(e, "documents", "an array", v);
    json_array_foreach((json_t *)v, i, one)
        if (!json_is_object(one)) return am_api_fail(e, 400, "invalid_type", "documents", "'documents[%zu]' must be an object with a title and a text", i);
    return true;
}

static bool refuse_functions(am_completion_request *r, const json_t *v, am_api_error *e) {
    (void)r;
    if (json_is_array(v) && json_array_size(v) == 0) return true;
    return am_api_fail(e, 400, "unsupported_parameter", "functions", "'functions' was replaced by 'tools': each as {\"type\": \"function\", \"function\": {...}}");
}

/* Any form is taken: text is what a model gives, and JSON forms are not forced on it, which the answer says. */
static bool parse_format(am_completion_request *r, const json_t *v, am_api_error *e) {
    if (!json_is_object(v)) return am_field_wrong_type(e, "response_format", "an object", v);
    const char *type = json_string_value(json_object_get(v, "type"));
    if (type && strcmp(type, "text") == 0) return true;
    am_completion_request_unforced(r, "response_format");
    return (type && (strcmp(type, "json_object") == 0 || strcmp(type, "json_schema") == 0)) ||
           am_api_fail(e, 400, "invalid_value", "response_format", "'response_format.type' must be text, json_object or json_schema");
}

static const am_field fields[] = {
    AM_FIELD_WITH(messages, am_completion_request_messages),
    AM_FIELD_PLAIN(model, STRING),
    AM_FIELD_PLAIN(agent_id, STRING), /* read by identity.c; here for its type */
    AM_FIELD_PLAIN(stream, BOOLEAN),
    AM_FIELD_WITH(stream_options, parse_stream_options),
    AM_FIELD_RANGED(max_tokens, INTEGER, -1, INT32_MAX), /* -1: as many as fit, as llama.cpp's clients say it */
    AM_FIELD_RANGED(max_completion_tokens, INTEGER, -1, INT32_MAX),
    AM_FIELD_RANGED(temperature, NUMBER, 0, 10),
    AM_FIELD_RANGED(top_p, NUMBER, 0, 1),
    AM_FIELD_RANGED(top_k, INTEGER, -1, INT32_MAX),
    AM_FIELD_RANGED(min_p, NUMBER, 0, 1),
    AM_FIELD_RANGED(typical_p, NUMBER, 0, 1),
    AM_FIELD_RANGED(repetition_penalty, NUMBER, 0.01, 10),
    AM_FIELD_RANGED(frequency_penalty, NUMBER, -2, 2),
    AM_FIELD_RANGED(presence_penalty, NUMBER, -2, 2),
    AM_FIELD_RANGED(seed, INTEGER, -0x1p63, 0x1p63),
    AM_FIELD_RANGED(n, INTEGER, 1, AM_MAX_CHOICES),
    AM_FIELD_WITH(stop, parse_stop),
    AM_FIELD_WITH(stop_token_ids, parse_stop_tokens),
    AM_FIELD_PLAIN(ignore_eos, BOOLEAN),
    AM_FIELD_PLAIN(skip_special_tokens, BOOLEAN),
    AM_FIELD_PLAIN(logprobs, BOOLEAN),
    AM_FIELD_RANGED(top_logprobs, INTEGER, 0, AM_MAX_TOP_LOGPROBS),
    AM_FIELD_WITH(logit_bias, parse_bias),
    AM_FIELD_WITH(tools, parse_tools),
    AM_FIELD_WITH(tool_choice, parse_tool_choice),
    AM_FIELD_WITH(functions, refuse_functions),
    AM_FIELD_WITH(documents, parse_documents),
    AM_FIELD_WITH(reasoning_format, parse_reasoning_format),
    AM_FIELD_WITH(response_format, parse_format),
    AM_FIELD_WITH(prediction, parse_prediction),
    AM_FIELD_WITH(chat_template, refuse_template),
    AM_FIELD_WITH(chat_template_kwargs, parse_kwargs),
    AM_FIELD_WITH(enable_thinking, parse_thinking),
    AM_FIELD_PLAIN(reasoning_effort, STRING),
    AM_FIELD_PLAIN(cache_prompt, BOOLEAN),
    AM_FIELD_PLAIN(add_generation_prompt, BOOLEAN),
    AM_FIELD_PLAIN(continue_final_message, BOOLEAN),
};


bool am_openai_parse(am_str body, am_completion_request *r, am_api_error *e) {
    *r = AM_COMPLETION_REQUEST;
    if (!am_completion_request_parse(body, fields, sizeof fields / sizeof *fields, r, e)) return false;
    if (r->max_tokens == 0 || r->max_completion_tokens == 0)
        return am_api_fail(e, 400, "invalid_value", r->max_tokens ? "max_completion_tokens" : "max_tokens", "an answer has at least one token");
    const json_t *seed = json_object_get(r->root, "seed");
    r->has_seed = seed && !json_is_null(seed);
    if (r->max_completion_tokens != INT64_MIN) r->max_tokens = r->max_completion_tokens;
    return true;
}
