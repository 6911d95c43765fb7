/* Owns which fields of a request mean something here, their types and ranges, in one table. Unknown fields are ignored, since clients send
 * whatever their other servers understand; a known field of the wrong type or out of range is refused by its name. null is "not said". */
#include "server/openai.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { NUMBER, INTEGER, BOOLEAN, STRING, CUSTOM } kind;

typedef bool custom_fn(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e);

typedef struct field {
    const char *name;
    kind kind;
    size_t offset;   /* in am_openai_request: double, int64_t, bool, am_str */
    double min, max; /* NUMBER, INTEGER */
    custom_fn *custom;
} field;

static const char *kind_of(const json_t *v) {
    static const char *const name[] = {"an object", "an array", "a string", "an integer", "a number", "true", "false", "null"};
    return name[json_typeof(v)];
}

static bool wrong_type(am_api_error *e, const char *name, const char *wanted, const json_t *v) {
    return am_api_fail(e, 400, "invalid_type", name, "'%s' must be %s, not %s", name, wanted, kind_of(v));
}

static bool parse_messages(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    r->messages = v;
    return json_is_array(v) || wrong_type(e, "messages", "an array", v);
}

static bool add_stop(am_openai_request *r, const json_t *v, am_api_error *e) {
    if (json_is_null(v)) return true;
    if (!json_is_string(v)) return wrong_type(e, "stop", "a string or a list of strings", v);
    am_str s = {json_string_value(v), json_string_length(v)};
    if (s.n == 0) return true; /* an empty stop string stops nothing */
    if (s.n > AM_MAX_STOP_BYTES)
        return am_api_fail(e, 400, "invalid_value", "stop", "a stop string has %zu bytes; at most %d are taken", s.n, AM_MAX_STOP_BYTES);
    if (r->n_stops == AM_MAX_STOPS) return am_api_fail(e, 400, "invalid_value", "stop", "more than %d stop strings", AM_MAX_STOPS);
    r->stops[r->n_stops++] = s;
    return true;
}

static bool parse_stop(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    size_t i;
    json_t *one;
    (void)n_vocab;
    if (!json_is_array(v)) return add_stop(r, v, e);
    json_array_foreach(v, i, one) if (!add_stop(r, one, e)) return false;
    return true;
}

static bool parse_stop_tokens(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    size_t i;
    json_t *one;
    if (!json_is_array(v)) return wrong_type(e, "stop_token_ids", "a list of token ids", v);
    json_array_foreach(v, i, one) {
        json_int_t id = json_is_integer(one) ? json_integer_value(one) : -1;
        if (id < 0 || id >= n_vocab || i == AM_MAX_STOP_TOKENS)
            return am_api_fail(e, 400, "invalid_value", "stop_token_ids", "'stop_token_ids' takes at most %d ids from 0 to %u", AM_MAX_STOP_TOKENS, n_vocab - 1);
        r->stop_tokens[r->n_stop_tokens++] = (int32_t)id;
    }
    return true;
}

static bool parse_bias(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    if (!json_is_object(v)) return wrong_type(e, "logit_bias", "an object", v);
    size_t n = json_object_size(v);
    if (n > AM_MAX_BIAS) return am_api_fail(e, 400, "invalid_value", "logit_bias", "'logit_bias' has %zu entries; at most %d are taken", n, AM_MAX_BIAS);
    if (!(r->bias = am_calloc(n, sizeof *r->bias))) return am_api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    const char *key;
    json_t *one;
    json_object_foreach((json_t *)v, key, one) {
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end || id >= n_vocab)
            return am_api_fail(e, 400, "invalid_value", "logit_bias", "'%.32s' in 'logit_bias' is no token id (0 to %u)", key, n_vocab - 1);
        double bias = json_is_number(one) ? json_number_value(one) : NAN;
        if (!(bias >= -100 && bias <= 100))
            return am_api_fail(e, 400, "invalid_value", "logit_bias", "the bias of token %lu must be a number from -100 to 100", id);
        r->bias[r->n_bias++] = (am_logit_bias){.token = (int32_t)id, .bias = (float)bias};
    }
    return true;
}

static bool parse_stream_options(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    if (!json_is_object(v)) return wrong_type(e, "stream_options", "an object", v);
    const json_t *usage = json_object_get(v, "include_usage");
    if (usage && !json_is_boolean(usage) && !json_is_null(usage)) return wrong_type(e, "stream_options.include_usage", "true or false", usage);
    r->include_usage = json_is_true(usage);
    return true;
}

static bool parse_tools(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    char param[AM_CHAT_PARAM_BYTES];
    am_error err = {0};
    (void)n_vocab;
    json_decref(r->tools);
    am_status status = am_chat_tools(v, &r->tools, param, &err);
    if (status == AM_ENOMEM) return am_api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    return !status || am_api_fail(e, 400, "invalid_value", param, "%s", err.message);
}

static bool is_offered(const json_t *tools, const char *name) {
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool) {
        const char *offered = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (strcmp(offered, name) == 0) return true;
    }
    return false;
}

/* none takes the tools away. Whether the model calls one is otherwise its own choice: what asks for more is said to be not enforced. */
static bool parse_tool_choice(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    if (!json_is_string(v) && !json_is_object(v)) return wrong_type(e, "tool_choice", "a string or an object", v);
    const char *word = json_string_value(v), *type = json_string_value(json_object_get(v, "type"));
    const json_t *function = json_object_get(v, "function");
    if (word && strcmp(word, "none") == 0) {
        json_decref(r->tools); /* the table has tools before tool_choice */
        r->tools = NULL;
        return true;
    }
    if (word && strcmp(word, "auto") == 0) return true;
    r->choice_unforced = true;
    if (word) {
        if (strcmp(word, "required") == 0 || strcmp(word, "any") == 0) return true;
        return am_api_fail(e, 400, "invalid_value", "tool_choice", "'tool_choice' must be none, auto, required or a function, not '%.32s'", word);
    }
    if (!function && type && strcmp(type, "function")) return true; /* allowed_tools, custom */
    const char *name = json_string_value(json_object_get(function, "name"));
    if (!name) return am_api_fail(e, 400, "invalid_value", "tool_choice", "'tool_choice.function.name' must be a string");
    return is_offered(r->tools, name) || am_api_fail(e, 400, "invalid_value", "tool_choice", "'tool_choice' names the function '%.64s', which is not in 'tools'", name);
}

/* OpenAI's predicted outputs: {"type": "content", "content": a string or a list of text parts}. */
static bool parse_prediction(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    if (!json_is_object(v)) return wrong_type(e, "prediction", "an object", v);
    const json_t *content = json_object_get(v, "content");
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type || strcmp(type, "content")) return am_api_fail(e, 400, "invalid_value", "prediction", "'prediction.type' must be content");
    if (!json_is_string(content) && !json_is_array(content)) return wrong_type(e, "prediction.content", "a string or a list of text parts", content);
    size_t n = json_is_array(content) ? json_array_size(content) : 1;
    am_buf_init(&r->prediction, SIZE_MAX / 2);
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_is_array(content) ? json_object_get(json_array_get(content, i), "text") : content;
        if (!json_is_string(text)) return am_api_fail(e, 400, "invalid_value", "prediction", "'prediction.content[%zu]' is no text part", i);
        if (am_buf_append(&r->prediction, json_string_value(text), json_string_length(text)))
            return am_api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    return true;
}

static bool parse_kwargs(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    if (!json_is_object(v)) return wrong_type(e, "chat_template_kwargs", "an object", v);
    if (json_object_get(v, "chat_template"))
        return am_api_fail(e, 400, "invalid_value", "chat_template_kwargs", "a request cannot bring its own chat template");
    r->kwargs = json_deep_copy(v);
    return r->kwargs || am_api_fail(e, 503, "out_of_memory", NULL, "out of memory");
}

static bool refuse_template(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)r;
    (void)v;
    (void)n_vocab;
    return am_api_fail(e, 400, "invalid_value", "chat_template", "a request cannot bring its own chat template");
}

static bool parse_thinking(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    r->has_thinking = true;
    r->enable_thinking = json_is_true(v);
    return json_is_boolean(v) || wrong_type(e, "enable_thinking", "true or false", v);
}

/* llama.cpp's name for where thoughts go: apart, or left in the text as the model writes them. */
static bool parse_reasoning_format(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    const char *s = json_string_value(v);
    r->plain_reasoning = s && strcmp(s, "none") == 0;
    return (s && (r->plain_reasoning || strcmp(s, "auto") == 0 || strcmp(s, "deepseek") == 0)) ||
           am_api_fail(e, 400, "invalid_value", "reasoning_format", "'reasoning_format' must be auto, deepseek or none");
}

static bool parse_documents(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    size_t i;
    json_t *one;
    (void)n_vocab;
    r->documents = v;
    if (!json_is_array(v)) return wrong_type(e, "documents", "an array", v);
    json_array_foreach((json_t *)v, i, one)
        if (!json_is_object(one)) return am_api_fail(e, 400, "invalid_type", "documents", "'documents[%zu]' must be an object with a title and a text", i);
    return true;
}

static bool refuse_functions(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)r;
    (void)n_vocab;
    if (json_is_array(v) && json_array_size(v) == 0) return true;
    return am_api_fail(e, 400, "unsupported_parameter", "functions", "'functions' was replaced by 'tools': each as {\"type\": \"function\", \"function\": {...}}");
}

/* Any form is taken: text is what a model gives, and JSON forms are not forced on it, which the answer says. */
static bool parse_format(am_openai_request *r, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    (void)n_vocab;
    if (!json_is_object(v)) return wrong_type(e, "response_format", "an object", v);
    const char *type = json_string_value(json_object_get(v, "type"));
    r->format_unforced = type && (strcmp(type, "json_object") == 0 || strcmp(type, "json_schema") == 0);
    if (r->format_unforced || (type && strcmp(type, "text") == 0)) return true;
    return am_api_fail(e, 400, "invalid_value", "response_format", "'response_format.type' must be text, json_object or json_schema");
}

/* a field whose member has its name, with its range; one without; one with a function */
#define RANGED(name, kind, min, max) {#name, kind, offsetof(am_openai_request, name), min, max, NULL}
#define PLAIN(name, kind) {#name, kind, offsetof(am_openai_request, name), 0, 0, NULL}
#define WITH(name, fn) {#name, CUSTOM, 0, 0, 0, fn}
static const field fields[] = {
    WITH(messages, parse_messages),
    PLAIN(model, STRING),
    PLAIN(agent_id, STRING), /* read by identity.c; here for its type */
    PLAIN(stream, BOOLEAN),
    WITH(stream_options, parse_stream_options),
    RANGED(max_tokens, INTEGER, -1, INT32_MAX), /* -1: as many as fit, as llama.cpp's clients say it */
    RANGED(max_completion_tokens, INTEGER, -1, INT32_MAX),
    RANGED(temperature, NUMBER, 0, 10),
    RANGED(top_p, NUMBER, 0, 1),
    RANGED(top_k, INTEGER, -1, INT32_MAX),
    RANGED(min_p, NUMBER, 0, 1),
    RANGED(typical_p, NUMBER, 0, 1),
    RANGED(repetition_penalty, NUMBER, 0.01, 10),
    RANGED(frequency_penalty, NUMBER, -2, 2),
    RANGED(presence_penalty, NUMBER, -2, 2),
    RANGED(seed, INTEGER, -0x1p63, 0x1p63),
    RANGED(n, INTEGER, 1, AM_MAX_CHOICES),
    WITH(stop, parse_stop),
    WITH(stop_token_ids, parse_stop_tokens),
    PLAIN(ignore_eos, BOOLEAN),
    PLAIN(skip_special_tokens, BOOLEAN),
    PLAIN(logprobs, BOOLEAN),
    RANGED(top_logprobs, INTEGER, 0, AM_MAX_TOP_LOGPROBS),
    WITH(logit_bias, parse_bias),
    WITH(tools, parse_tools),
    WITH(tool_choice, parse_tool_choice),
    WITH(functions, refuse_functions),
    WITH(documents, parse_documents),
    WITH(reasoning_format, parse_reasoning_format),
    WITH(response_format, parse_format),
    WITH(prediction, parse_prediction),
    WITH(chat_template, refuse_template),
    WITH(chat_template_kwargs, parse_kwargs),
    WITH(enable_thinking, parse_thinking),
    PLAIN(reasoning_effort, STRING),
    PLAIN(cache_prompt, BOOLEAN),
    PLAIN(add_generation_prompt, BOOLEAN),
    PLAIN(continue_final_message, BOOLEAN),
};
#undef RANGED
#undef PLAIN
#undef WITH

static bool parse_field(am_openai_request *r, const field *f, const json_t *v, uint32_t n_vocab, am_api_error *e) {
    void *at = (char *)r + f->offset;
    switch (f->kind) {
    case NUMBER: {
        double x = json_number_value(v);
        if (!json_is_number(v)) return wrong_type(e, f->name, "a number", v);
        if (!(x >= f->min && x <= f->max))
            return am_api_fail(e, 400, "invalid_value", f->name, "'%s' is %g; it must be from %g to %g", f->name, x, f->min, f->max);
        *(double *)at = x;
        return true;
    }
    case INTEGER: {
        json_int_t i = json_integer_value(v);
        if (!json_is_integer(v)) return wrong_type(e, f->name, "an integer", v);
        if ((double)i < f->min || (double)i > f->max)
            return am_api_fail(e, 400, "invalid_value", f->name, "'%s' is %lld; it must be from %.0f to %.0f", f->name, (long long)i, f->min, f->max);
        *(int64_t *)at = i;
        return true;
    }
    case BOOLEAN:
        *(bool *)at = json_is_true(v);
        return json_is_boolean(v) || wrong_type(e, f->name, "true or false", v);
    case STRING:
        if (!json_is_string(v)) return wrong_type(e, f->name, "a string", v);
        *(am_str *)at = (am_str){json_string_value(v), json_string_length(v)};
        return true;
    case CUSTOM: return f->custom(r, v, n_vocab, e);
    }
    return true;
}

/* Other names for the same wish become template variables, unless the variables were given outright. */
static bool merge_kwargs(am_openai_request *r, am_api_error *e) {
    if (!r->has_thinking && !r->reasoning_effort.n) return true;
    if (!r->kwargs) r->kwargs = json_object();
    if (!r->kwargs) return am_api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    if (r->has_thinking && !json_object_get(r->kwargs, "enable_thinking"))
        json_object_set_new(r->kwargs, "enable_thinking", json_boolean(r->enable_thinking));
    if (r->reasoning_effort.n && !json_object_get(r->kwargs, "reasoning_effort"))
        json_object_set_new(r->kwargs, "reasoning_effort", json_stringn(r->reasoning_effort.p, r->reasoning_effort.n));
    return true;
}

bool am_openai_request_parse(am_str body, uint32_t n_vocab, am_openai_request *r, am_api_error *e) {
    *r = (am_openai_request){.temperature = NAN, .top_p = NAN, .min_p = NAN, .typical_p = NAN, .repetition_penalty = NAN,
                             .frequency_penalty = NAN, .presence_penalty = NAN, .top_k = INT64_MIN, .max_tokens = INT64_MIN,
                             .max_completion_tokens = INT64_MIN, .n = 1, .top_logprobs = 0, .seed = INT64_MIN, .skip_special_tokens = true,
                             .cache_prompt = true, .add_generation_prompt = true};
    am_error err;
    if (body.n == 0) return am_api_fail(e, 400, "invalid_json", NULL, "the body is empty; it must be a JSON object");
    if (am_str_starts(body, AM_STR("\xef\xbb\xbf"))) return am_api_fail(e, 400, "invalid_json", NULL, "the body begins with a byte order mark; JSON has none");
    if (am_json_parse(body, false, &r->root, &err)) return am_api_fail(e, 400, "invalid_json", NULL, "%s", err.message);
    if (!json_is_object(r->root)) return am_api_fail(e, 400, "invalid_json", NULL, "the body must be a JSON object, not %s", kind_of(r->root));
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const json_t *v = json_object_get(r->root, fields[i].name);
        if (v && !json_is_null(v) && !parse_field(r, &fields[i], v, n_vocab, e)) return false;
    }
    if (r->max_tokens == 0 || r->max_completion_tokens == 0)
        return am_api_fail(e, 400, "invalid_value", r->max_tokens ? "max_completion_tokens" : "max_tokens", "an answer has at least one token");
    if (json_array_size(r->tools) == 0) {
        json_decref(r->tools);
        r->tools = NULL;
    }
    const json_t *seed = json_object_get(r->root, "seed");
    r->has_seed = seed && !json_is_null(seed);
    if (!r->messages) return am_api_fail(e, 400, "missing_required_parameter", "messages", "'messages' is missing");
    return merge_kwargs(r, e);
}

bool am_openai_request_fits(const am_openai_request *r, uint32_t n_vocab, am_api_error *e) {
    for (uint32_t i = 0; i < r->n_stop_tokens; i++)
        if ((uint32_t)r->stop_tokens[i] >= n_vocab)
            return am_api_fail(e, 400, "invalid_value", "stop_token_ids", "'stop_token_ids' takes at most %d ids from 0 to %u", AM_MAX_STOP_TOKENS, n_vocab - 1);
    for (uint32_t i = 0; i < r->n_bias; i++)
        if ((uint32_t)r->bias[i].token >= n_vocab)
            return am_api_fail(e, 400, "invalid_value", "logit_bias", "'%d' in 'logit_bias' is no token id (0 to %u)", r->bias[i].token, n_vocab - 1);
    return true;
}

void am_openai_request_free(am_openai_request *r) {
    json_decref(r->tools);
    json_decref(r->kwargs);
    json_decref(r->root);
    free(r->bias);
    am_buf_free(&r->prediction);
    *r = (am_openai_request){0};
}

/* What the request says, else the model's generation_config, else the neutral value. */
static float choose(double asked, float model, float neutral) { return !isnan(asked) ? (float)asked : model >= 0 ? model : neutral; }

am_sampling am_openai_sampling(const am_openai_request *r, const am_model_info *info) {
    am_sampling s = AM_SAMPLING;
    s.temperature = choose(r->temperature, info->temperature, 1);
    s.top_p = choose(r->top_p, info->top_p, 1);
    s.min_p = choose(r->min_p, info->min_p, 0);
    s.typical_p = choose(r->typical_p, -1, 1);
    s.repetition_penalty = choose(r->repetition_penalty, info->repetition_penalty, 1);
    s.frequency_penalty = choose(r->frequency_penalty, -1, 0);
    s.presence_penalty = choose(r->presence_penalty, -1, 0);
    int64_t top_k = r->top_k != INT64_MIN ? r->top_k : info->top_k;
    s.top_k = top_k > 0 ? (int32_t)top_k : 0;
    s.has_seed = r->has_seed;
    s.seed = (uint64_t)r->seed;
    s.bias = r->bias;
    s.n_bias = r->n_bias;
    s.top_logprobs = r->logprobs ? (int32_t)r->top_logprobs : -1;
    return s;
}
