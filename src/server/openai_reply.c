/* Owns the bytes of the OpenAI dialect's answers.
 *
 * A stream ends in one chunk that carries usage and agent_memory: the trailer with empty choices when include_usage was asked for, else the
 * chunk with the last finish_reason. So nobody counts twice, and everybody can see what was reused. */
#include "server/openai.h"

#include <stdio.h>

static void put_str(am_buf *out, am_str s) { am_json_quote(s, out); }

/* "id":...,"object":...,"created":...,"model":...,"system_fingerprint":... */
static void put_header(const am_completion *c, const char *object, am_buf *out) {
    const am_model_info *info = c->about;
    am_buf_printf(out, "\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", c->id, object, c->created_s);
    put_str(out, am_str_of(info->name));
    am_buf_printf(out, ",\"system_fingerprint\":\"fp_%02x%02x%02x%02x%02x\"", info->fingerprint[0], info->fingerprint[1], info->fingerprint[2],
                  info->fingerprint[3], info->fingerprint[4]);
}

static void put_token(const am_completion *c, int32_t token, float logprob, am_buf *out) {
    const am_tokenizer *tokenizer = am_model_tokenizer(c->model);
    am_str piece = tokenizer ? am_tokenizer_piece(tokenizer, token) : (am_str){0};
    am_buf_printf(out, "\"token\":");
    put_str(out, piece);
    am_buf_printf(out, ",\"logprob\":%.9g,\"bytes\":[", logprob > -9999 ? (double)logprob : -9999.0);
    for (size_t i = 0; i < piece.n; i++) am_buf_printf(out, "%s%u", i ? "," : "", (unsigned char)piece.p[i]);
    am_buf_printf(out, "]");
}

void am_openai_logprob(const am_completion *c, const am_event *event, am_buf *out) {
    am_buf_printf(out, "%s{", out->n ? "," : "");
    put_token(c, event->token, event->logprob, out);
    am_buf_printf(out, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < event->n_top; i++) {
        am_buf_printf(out, "%s{", i ? "," : "");
        put_token(c, event->top[i].token, event->top[i].logprob, out);
        am_buf_printf(out, "}");
    }
    am_buf_printf(out, "]}");
}

static void put_logprobs(const am_completion *c, const am_choice *choice, am_buf *out) {
    if (!c->logprobs) am_buf_printf(out, "null");
    else if (choice->logprobs.failed) out->failed = choice->logprobs.failed;
    else am_buf_printf(out, "{\"content\":[%.*s],\"refusal\":null}", (int)choice->logprobs.n, choice->logprobs.n ? choice->logprobs.p : "");
}

static const char *finish_name(const am_choice *choice) {
    if (choice->finish == AM_FINISH_LENGTH) return "length";
    return choice->answer.n_calls ? "tool_calls" : "stop";
}

/* "usage":{...},"agent_memory":{...} */
static void put_usage(const am_completion *c, am_buf *out) {
    uint32_t n_generated = 0, n_drafted = 0, n_accepted = 0, n_thought = 0;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        n_generated += c->choices[i].n_generated;
        n_drafted += c->choices[i].n_drafted;
        n_accepted += c->choices[i].n_accepted;
        n_thought += c->choices[i].n_thought;
    }
    am_buf_printf(out, "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,\"prompt_tokens_details\":{\"cached_tokens\":%u},"
                       "\"completion_tokens_details\":{\"reasoning_tokens\":%u,\"accepted_prediction_tokens\":%u,\"rejected_prediction_tokens\":%u}},",
                  c->info.n_prompt, n_generated, c->info.n_prompt + n_generated, c->info.n_cached, n_thought, n_accepted, n_drafted - n_accepted);
    am_completion_memory_json(c, out);
}

static void begin_chunk(am_completion *c) {
    am_buf_clear(&c->line);
    am_buf_printf(&c->line, "data: {");
    put_header(c, "chat.completion.chunk", &c->line);
    am_buf_printf(&c->line, ",\"choices\":[");
}

/* totals: this chunk carries usage and agent_memory. */
static void end_chunk(am_completion *c, bool totals) {
    am_buf_printf(&c->line, "]");
    if (totals) {
        am_buf_putc(&c->line, ',');
        put_usage(c, &c->line);
    } else if (c->include_usage) {
        am_buf_printf(&c->line, ",\"usage\":null");
    }
    if (am_buf_printf(&c->line, "}\n\n")) am_completion_out_of_memory(c);
    else am_stream_write(c->x, am_buf_str(&c->line));
}

void am_openai_role_chunk(am_completion *c, uint32_t index) {
    begin_chunk(c);
    am_buf_printf(&c->line, "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}", index);
    end_chunk(c, false);
}

void am_openai_text_chunk(am_completion *c, am_choice *choice, const char *member, am_str text) {
    begin_chunk(c);
    am_buf_printf(&c->line, "{\"index\":%u,\"delta\":{\"%s\":", choice->index, member);
    put_str(&c->line, text);
    am_buf_printf(&c->line, "},\"logprobs\":");
    put_logprobs(c, choice, &c->line);
    am_buf_clear(&choice->logprobs);
    am_buf_printf(&c->line, ",\"finish_reason\":null}");
    end_chunk(c, false);
}

void am_openai_tool_call(const char *id, am_str name, am_str arguments, am_buf *out) {
    am_buf_printf(out, "\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", id);
    put_str(out, name);
    am_buf_printf(out, ",\"arguments\":");
    put_str(out, arguments);
    am_buf_printf(out, "}");
}

void am_openai_tool_chunk(am_completion *c, uint32_t index, uint32_t call, const char *id, am_str name, am_str arguments) {
    begin_chunk(c);
    am_buf_printf(&c->line, "{\"index\":%u,\"delta\":{\"tool_calls\":[{\"index\":%u,", index, call);
    am_openai_tool_call(id, name, arguments, &c->line);
    am_buf_printf(&c->line, "}]},\"logprobs\":null,\"finish_reason\":null}");
    end_chunk(c, false);
}

void am_openai_finish_chunk(am_completion *c, const am_choice *choice, bool last) {
    begin_chunk(c);
    am_buf_printf(&c->line, "{\"index\":%u,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"%s\"}", choice->index, finish_name(choice));
    end_chunk(c, last && !c->include_usage);
}

void am_openai_usage_chunk(am_completion *c) {
    begin_chunk(c);
    end_chunk(c, true);
}

am_status am_openai_whole(am_completion *c, am_buf *out) {
    am_buf_putc(out, '{');
    put_header(c, "chat.completion", out);
    am_buf_printf(out, ",\"choices\":[");
    for (uint32_t i = 0; i < c->n_choices; i++) {
        const am_choice *choice = &c->choices[i];
        am_buf_printf(out, "%s{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":", i ? "," : "", i);
        if (choice->parts.n && !choice->text.n) am_buf_printf(out, "null");
        else put_str(out, am_buf_str(&choice->text));
        am_buf_printf(out, ",\"refusal\":null");
        if (choice->reasoning.n) {
            am_buf_printf(out, ",\"reasoning_content\":");
            put_str(out, am_buf_str(&choice->reasoning));
        }
        if (choice->parts.n) am_buf_printf(out, ",\"tool_calls\":[%s]", choice->parts.p);
        am_buf_printf(out, "},\"logprobs\":");
        put_logprobs(c, choice, out);
        am_buf_printf(out, ",\"finish_reason\":\"%s\"}", finish_name(choice));
    }
    am_buf_printf(out, "],");
    put_usage(c, out);
    return am_buf_printf(out, "}\n");
}

/* OpenAI's names for classes of errors. */
static const char *error_type(int status) {
    if (status == 429) return "rate_limit_error";
    if (status == 403) return "permission_error";
    if (status == 404) return "not_found_error";
    if (status == 503) return "service_unavailable_error";
    return status < 500 ? "invalid_request_error" : "server_error";
}

void am_openai_error(const am_exchange *x, const am_api_error *e, am_buf *out) {
    (void)x;
    am_buf_printf(out, "{\"error\":{\"message\":");
    am_json_quote(am_str_of(e->message), out);
    am_buf_printf(out, ",\"type\":\"%s\",\"param\":", error_type(e->status));
    if (e->param[0]) am_json_quote(am_str_of(e->param), out);
    else am_buf_printf(out, "null");
    am_buf_printf(out, ",\"code\":");
    if (e->code) am_json_quote(am_str_of(e->code), out);
    else am_buf_printf(out, "null");
    am_buf_printf(out, "}}");
}
