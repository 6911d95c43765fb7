/* Owns the bytes of the Anthropic dialect's answers: messages, events, usage, errors.
 *
 * usage is disjoint: input_tokens, cache_creation_input_tokens and cache_read_input_tokens make up the prompt. Read is what was reused. Created are the
 * blocks of tokens that were computed and are stored for every agent of the tenant; what is behind the last whole block is input. */
#include "server/anthropic.h"

#include <string.h>

static void put_str(am_buf *out, am_str s) { am_json_quote(s, out); }

/* "input_tokens":..., to "output_tokens":... */
static void put_counts(const am_completion *c, uint32_t n_output, am_buf *out) {
    const am_turn_info *info = &c->info;
    uint32_t n_sealed = info->n_prompt - info->n_prompt % AM_BLOCK_TOKENS;
    uint32_t n_created = c->unkept || n_sealed <= info->n_cached ? 0 : n_sealed - info->n_cached;
    am_buf_printf(out, "\"input_tokens\":%u,\"cache_creation_input_tokens\":%u,\"cache_read_input_tokens\":%u,"
                       "\"cache_creation\":{\"ephemeral_5m_input_tokens\":%u,\"ephemeral_1h_input_tokens\":0},\"output_tokens\":%u",
                  info->n_prompt - info->n_cached - n_created, n_created, info->n_cached, n_created, n_output);
}

static void put_usage(const am_choice *choice, am_buf *out) {
    am_buf_printf(out, "\"usage\":{");
    put_counts(choice->completion, choice->n_generated, out);
    am_buf_printf(out, ",\"output_tokens_details\":{\"thinking_tokens\":%u},\"service_tier\":\"standard\"}", choice->n_thought);
}

/* "stop_reason":...,"stop_sequence":... A call wants its result, whatever else ended the answer. */
static void put_stop(const am_choice *choice, am_buf *out) {
    const char *reason = "end_turn";
    bool stopped = choice->stop.n && !choice->answer.n_calls;
    if (choice->finish == AM_FINISH_LENGTH) reason = choice->completion->bounded ? "model_context_window_exceeded" : "max_tokens";
    else if (choice->answer.n_calls) reason = "tool_use";
    else if (stopped) reason = "stop_sequence";
    am_buf_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", reason);
    if (stopped) put_str(out, am_buf_str(&choice->stop));
    else am_buf_printf(out, "null");
}

static void put_head(const am_completion *c, am_buf *out) {
    am_buf_printf(out, "\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", c->id);
    put_str(out, am_str_of(c->about->name));
}

static am_buf *begin_event(am_completion *c, const char *name) {
    am_buf_clear(&c->line);
    am_buf_printf(&c->line, "event: %s\ndata: {\"type\":\"%s\"", name, name);
    return &c->line;
}

static void end_event(am_completion *c) {
    if (am_buf_printf(&c->line, "}\n\n")) am_completion_out_of_memory(c);
    else am_stream_write(c->x, am_buf_str(&c->line));
}

void am_anthropic_start(am_completion *c) {
    am_buf *out = begin_event(c, "message_start");
    am_buf_printf(out, ",\"message\":{");
    put_head(c, out);
    am_buf_printf(out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{");
    put_counts(c, 0, out);
    am_buf_printf(out, ",\"service_tier\":\"standard\"},");
    am_completion_memory_json(c, out);
    am_buf_putc(out, '}');
    end_event(c);
}

/* {"type":"tool_use","id":...,"name":...,"input":...} */
static void put_call(const char *id, am_str name, am_str input, am_buf *out) {
    am_buf_printf(out, "{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", id);
    put_str(out, name);
    am_buf_printf(out, ",\"input\":");
    am_buf_add(out, input);
    am_buf_putc(out, '}');
}

/* {"type":"text","text":...} or {"type":"thinking","thinking":...,"signature":...} */
static void put_block(am_block_kind kind, am_str text, const char *signature, am_buf *out) {
    const char *name = kind == AM_BLOCK_THINKING ? "thinking" : "text";
    am_buf_printf(out, "{\"type\":\"%s\",\"%s\":", name, name);
    put_str(out, text);
    if (kind == AM_BLOCK_THINKING) am_buf_printf(out, ",\"signature\":\"%s\"", signature);
    am_buf_putc(out, '}');
}

void am_anthropic_block_start(am_choice *choice, const char *id, am_str name) {
    am_completion *c = choice->completion;
    am_buf *out = begin_event(c, "content_block_start");
    am_buf_printf(out, ",\"index\":%u,\"content_block\":", choice->n_blocks);
    if (choice->open_block == AM_BLOCK_CALL) put_call(id, name, AM_STR("{}"), out);
    else put_block(choice->open_block, (am_str){0}, "", out);
    end_event(c);
}

void am_anthropic_delta(am_choice *choice, const char *type, const char *member, am_str text) {
    am_completion *c = choice->completion;
    am_buf *out = begin_event(c, "content_block_delta");
    am_buf_printf(out, ",\"index\":%u,\"delta\":{\"type\":\"%s\",\"%s\":", choice->n_blocks, type, member);
    put_str(out, text);
    am_buf_putc(out, '}');
    end_event(c);
}

void am_anthropic_block_stop(am_choice *choice) {
    am_buf_printf(begin_event(choice->completion, "content_block_stop"), ",\"index\":%u", choice->n_blocks);
    end_event(choice->completion);
}

void am_anthropic_finish(am_choice *choice) {
    am_completion *c = choice->completion;
    am_buf *out = begin_event(c, "message_delta");
    am_buf_printf(out, ",\"delta\":{");
    put_stop(choice, out);
    am_buf_printf(out, "},");
    put_usage(choice, out);
    am_buf_putc(out, ',');
    am_completion_memory_json(c, out);
    end_event(c);
}

void am_anthropic_stop(am_completion *c) {
    begin_event(c, "message_stop");
    end_event(c);
}

static void part(am_choice *choice) {
    if (choice->parts.n) am_buf_putc(&choice->parts, ',');
}

void am_anthropic_block(am_choice *choice, am_str text, const char *signature) {
    part(choice);
    put_block(choice->open_block, text, signature, &choice->parts);
}

void am_anthropic_call(am_choice *choice, const char *id, am_str name, am_str input) {
    part(choice);
    put_call(id, name, input, &choice->parts);
}

am_status am_anthropic_whole(am_completion *c, am_buf *out) {
    const am_choice *choice = &c->choices[0];
    am_buf_putc(out, '{');
    put_head(c, out);
    am_buf_printf(out, ",\"content\":[");
    if (choice->parts.failed) out->failed = choice->parts.failed;
    am_buf_add(out, am_buf_str(&choice->parts));
    am_buf_printf(out, "],");
    put_stop(choice, out);
    am_buf_putc(out, ',');
    put_usage(choice, out);
    am_buf_putc(out, ',');
    am_completion_memory_json(c, out);
    return am_buf_printf(out, "}\n");
}

/* A full queue is what its clients call overloaded: they wait, and come again. */
int am_anthropic_status(const am_api_error *e) { return e->status == 429 && e->code && strcmp(e->code, "queue_full") == 0 ? 529 : e->status; }

static const char *error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: case 529: return "overloaded_error";
    default: return status < 500 ? "invalid_request_error" : "api_error";
    }
}

void am_anthropic_error(const am_exchange *x, const am_api_error *e, am_buf *out) {
    am_buf_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", error_type(am_anthropic_status(e)));
    put_str(out, am_str_of(e->message));
    if (e->code) am_buf_printf(out, ",\"details\":{\"error_code\":\"%s\"}", e->code);
    am_buf_printf(out, "},\"request_id\":\"%s\"}", x->id);
}
