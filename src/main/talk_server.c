/* Owns the turn that a running server answers: a streamed request, its events read line by line as they arrive. */
#include "main/talk_server.h"

#include "main/client.h"

#include <stdlib.h>
#include <string.h>

typedef struct served_turn {
    am_talk_turn *turn;
    uint64_t start_ns;
    am_buf line; /* of the event stream, as far as it has come */
    am_error error; /* sent in the middle of the stream */
} served_turn;

static uint32_t count_of(const json_t *object, const char *key) { return (uint32_t)json_integer_value(json_object_get(object, key)); }

static void take_chunk(served_turn *served, const json_t *chunk) {
    am_talk_turn *turn = served->turn;
    const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0), *content = json_object_get(json_object_get(choice, "delta"), "content");
    if (json_is_string(content)) am_talk_text(turn, (am_str){json_string_value(content), json_string_length(content)}, served->start_ns);
    const json_t *usage = json_object_get(chunk, "usage"), *own = json_object_get(chunk, "agent_memory"), *error = json_object_get(chunk, "error");
    if (json_is_object(usage)) {
        turn->n_prompt = count_of(usage, "prompt_tokens");
        turn->n_answer = count_of(usage, "completion_tokens");
        turn->n_cached = count_of(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    }
    const char *agent = json_string_value(json_object_get(own, "agent")), *tier = json_string_value(json_object_get(own, "tier"));
    if (agent) snprintf(turn->agent_used, sizeof turn->agent_used, "%s", agent);
    if (tier) snprintf(turn->tier, sizeof turn->tier, "%s", tier);
    const char *message = json_string_value(json_object_get(error, "message"));
    if (error) am_fail(&served->error, AM_EIO, "%s", message ? message : "the server failed");
}

static void take_line(served_turn *served, am_str line) {
    unsigned n_done, n_total;
    if (am_str_starts(line, AM_STR("data: {"))) {
        json_t *chunk = NULL;
        if (am_json_parse((am_str){line.p + 6, line.n - 6}, false, &chunk, NULL) == AM_OK) take_chunk(served, chunk);
        json_decref(chunk);
    } else if (am_str_starts(line, AM_STR(": prefill ")) && sscanf(line.p, ": prefill %u/%u", &n_done, &n_total) == 2) {
        served->turn->on_prefill(served->turn->arg, n_done, n_total);
    }
}

static void take_bytes(void *arg, am_str bytes) {
    served_turn *served = arg;
    for (size_t i = 0; i < bytes.n; i++) {
        if (bytes.p[i] != '\n') {
            am_buf_putc(&served->line, bytes.p[i]);
            continue;
        }
        if (served->line.n) take_line(served, am_buf_str(&served->line));
        am_buf_clear(&served->line);
    }
}

static char *request_body(const am_talk_turn *turn) {
    json_t *body = json_pack("{s:b, s:{s:b}, s:s, s:O}", "stream", 1, "stream_options", "include_usage", 1, "reasoning_format", "none", "messages", turn->messages);
    if (body && turn->temperature >= 0) json_object_set_new(body, "temperature", json_real(turn->temperature));
    if (body && turn->max_tokens) json_object_set_new(body, "max_tokens", json_integer(turn->max_tokens));
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}

am_status am_talk_run_server(am_talk *talk, am_talk_turn *turn, uint64_t start_ns, am_error *err) {
    served_turn served = {.turn = turn, .start_ns = start_ns};
    am_buf refusal;
    int http = 0;
    char *body = request_body(turn);
    if (!body) return am_fail(err, AM_ENOMEM, "no memory for the conversation");
    am_buf_init(&refusal, 1 << 20);
    am_buf_init(&served.line, AM_MAX_ANSWER_BYTES);
    am_client_call call = {
        .host = talk->settings->host,
        .port = (uint16_t)talk->settings->port,
        .method = "POST",
        .path = "/v1/chat/completions",
        .body = body,
        .agent = turn->agent,
        .key = talk->settings->api_key,
        .on_bytes = take_bytes,
        .arg = &served,
        .cancel = turn->stop,
    };
    am_status status = am_client_request(&call, &http, &refusal, err);
    if (!status && http != 200) {
        json_t *answer = NULL;
        am_json_parse(am_buf_str(&refusal), false, &answer, NULL);
        const char *message = json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
        status = am_fail(err, AM_EINVAL, "%s", message ? message : "the server refused");
        json_decref(answer);
    }
    if (!status && served.error.code) status = am_fail(err, served.error.code, "%s", served.error.message);
    am_buf_free(&served.line);
    am_buf_free(&refusal);
    free(body);
    return status;
}
