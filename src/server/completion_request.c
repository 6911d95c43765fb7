/* Owns what a request for a completion can say in any dialect, and how a dialect's table of fields is read: unknown fields are ignored, since clients
 * send whatever their other servers understand; a known field of the wrong type or out of range is refused by its name. null is "not said". */
#include "server/completion.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *kind_of(const json_t *v) {
    static const char *const name[] = {"an object", "an array", "a string", "an integer", "a number", "true", "false", "null"};
    return v ? name[json_typeof(v)] : "absent";
}

bool am_field_wrong_type(am_api_error *e, const char *name, const char *wanted, const json_t *v) {
    return am_api_fail(e, 400, "invalid_type", name, "'%s' must be %s, not %s", name, wanted, kind_of(v));
}

bool am_completion_no_memory(am_api_error *e) { return am_api_fail(e, 503, "out_of_memory", NULL, "out of memory"); }

bool am_completion_request_messages(am_completion_request *r, const json_t *v, am_api_error *e) {
    r->messages = v;
    return json_is_array(v) || am_field_wrong_type(e, "messages", "an array", v);
}

static bool add_stop(am_completion_request *r, const char *field, const json_t *v, am_api_error *e) {
    if (json_is_null(v)) return true;
    if (!json_is_string(v)) return am_field_wrong_type(e, field, "a string or a list of strings", v);
    am_str s = {json_string_value(v), json_string_length(v)};
    if (s.n == 0) return true; /* an empty stop string stops nothing */
    if (s.n > AM_MAX_STOP_BYTES)
        return am_api_fail(e, 400, "invalid_value", field, "a stop string has %zu bytes; at most %d are taken", s.n, AM_MAX_STOP_BYTES);
    if (r->n_stops == AM_MAX_STOPS) return am_api_fail(e, 400, "invalid_value", field, "more than %d stop strings", AM_MAX_STOPS);
    r->stops[r->n_stops++] = s;
    return true;
}

bool am_completion_request_stops(am_completion_request *r, const char *field, const json_t *v, am_api_error *e) {
    size_t i;
    json_t *one;
    if (!json_is_array(v)) return add_stop(r, field, v, e);
    json_array_foreach(v, i, one) if (!add_stop(r, field, one, e)) return false;
    return true;
}

bool am_tools_offer(const json_t *tools, const char *name) {
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool) {
        const char *offered = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (strcmp(offered, name) == 0) return true;
    }
    return false;
}

void am_completion_request_unforced(am_completion_request *r, const char *field) {
    if (r->n_unforced < AM_MAX_UNFORCED) r->unforced[r->n_unforced++] = field;
}

static bool parse_field(am_completion_request *r, const am_field *f, const json_t *v, am_api_error *e) {
    void *at = (char *)r + f->offset;
    switch (f->kind) {
    case AM_FIELD_NUMBER: {
        double x = json_number_value(v);
        if (!json_is_number(v)) return am_field_wrong_type(e, f->name, "a number", v);
        if (!(x >= f->min && x <= f->max))
            return am_api_fail(e, 400, "invalid_value", f->name, "'%s' is %g; it must be from %g to %g", f->name, x, f->min, f->max);
        *(double *)at = x;
        return true;
    }
    case AM_FIELD_INTEGER: {
        json_int_t i = json_integer_value(v);
        if (!json_is_integer(v)) return am_field_wrong_type(e, f->name, "an integer", v);
        if ((double)i < f->min || (double)i > f->max)
            return am_api_fail(e, 400, "invalid_value", f->name, "'%s' is %lld; it must be from %.0f to %.0f", f->name, (long long)i, f->min, f->max);
        *(int64_t *)at = i;
        return true;
    }
    case AM_FIELD_BOOLEAN:
        *(bool *)at = json_is_true(v);
        return json_is_boolean(v) || am_field_wrong_type(e, f->name, "true or false", v);
    case AM_FIELD_STRING:
        if (!json_is_string(v)) return am_field_wrong_type(e, f->name, "a string", v);
        *(am_str *)at = (am_str){json_string_value(v), json_string_length(v)};
        return true;
    case AM_FIELD_CUSTOM: return f->custom(r, v, e);
    }
    return true;
}

/* Other names for the same wish become template variables, unless the variables were given outright. */
static bool merge_kwargs(am_completion_request *r, am_api_error *e) {
    if (!r->has_thinking && !r->reasoning_effort.n) return true;
    if (!r->kwargs) r->kwargs = json_object();
    if (!r->kwargs) return am_completion_no_memory(e);
    if (r->has_thinking && !json_object_get(r->kwargs, "enable_thinking"))
        json_object_set_new(r->kwargs, "enable_thinking", json_boolean(r->enable_thinking));
    if (r->reasoning_effort.n && !json_object_get(r->kwargs, "reasoning_effort"))
        json_object_set_new(r->kwargs, "reasoning_effort", json_stringn(r->reasoning_effort.p, r->reasoning_effort.n));
    return true;
}

bool am_completion_request_parse(am_str body, const am_field *fields, size_t n_fields, am_completion_request *r, am_api_error *e) {
    am_error err;
    if (body.n == 0) return am_api_fail(e, 400, "invalid_json", NULL, "the body is empty; it must be a JSON object");
    if (am_str_starts(body, AM_STR("\xef\xbb\xbf"))) return am_api_fail(e, 400, "invalid_json", NULL, "the body begins with a byte order mark; JSON has none");
    if (am_json_parse_exact(body, &r->root, &err)) return am_api_fail(e, 400, "invalid_json", NULL, "%s", err.message);
    if (!json_is_object(r->root)) return am_api_fail(e, 400, "invalid_json", NULL, "the body must be a JSON object, not %s", kind_of(r->root));
    for (size_t i = 0; i < n_fields; i++) {
        const json_t *v = json_object_get(r->root, fields[i].name);
        if (v && !json_is_null(v) && !parse_field(r, &fields[i], v, e)) return false;
    }
    if (json_array_size(r->tools) == 0) {
        json_decref(r->tools);
        r->tools = NULL;
    }
    if (!r->messages) return am_api_fail(e, 400, "missing_required_parameter", "messages", "'messages' is missing");
    return merge_kwargs(r, e);
}

bool am_completion_request_fits(const am_completion_request *r, uint32_t n_vocab, am_api_error *e) {
    for (uint32_t i = 0; i < r->n_stop_tokens; i++)
        if ((uint32_t)r->stop_tokens[i] >= n_vocab)
            return am_api_fail(e, 400, "invalid_value", "stop_token_ids", "'stop_token_ids' takes at most %d ids from 0 to %u", AM_MAX_STOP_TOKENS, n_vocab - 1);
    for (uint32_t i = 0; i < r->n_bias; i++)
        if ((uint32_t)r->bias[i].token >= n_vocab)
            return am_api_fail(e, 400, "invalid_value", "logit_bias", "'%d' in 'logit_bias' is no token id (0 to %u)", r->bias[i].token, n_vocab - 1);
    return true;
}

void am_completion_request_free(am_completion_request *r) {
    json_decref(r->tools);
    json_decref(r->kwargs);
    json_decref(r->root);
    free(r->bias);
    am_buf_free(&r->prediction);
    *r = (am_completion_request){0};
}

/* What the request says, else the model's generation_config, else the neutral value. */
static float choose(double asked, float model, float neutral) { return !isnan(asked) ? (float)asked : model >= 0 ? model : neutral; }

am_sampling am_completion_sampling(const am_completion_request *r, const am_model_info *info) {
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
