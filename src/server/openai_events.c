/* Owns what becomes of the engine's events: text and calls into chunks (or kept for one reply), ends into finish reasons and errors.
 *
 * All of it runs on the engine thread under the completion's lock and does nothing but append to buffers. */
#include "server/models.h"
#include "server/openai.h"

#include "base/hash.h"
#include "base/log.h"

#include <stdio.h>

void am_openai_random_id(const char *prefix, char *out, size_t cap) {
    uint8_t r[12];
    am_random_bytes(r, sizeof r);
    size_t n = (size_t)snprintf(out, cap, "%s", prefix);
    for (size_t i = 0; i < sizeof r && n + 2 < cap; i++) n += (size_t)snprintf(out + n, cap - n, "%02x", r[i]);
}

void am_completion_out_of_memory(am_completion *c) {
    if (!c->error.status) am_api_fail(&c->error, 503, "out_of_memory", NULL, "out of memory");
}

static void on_text(void *arg, am_str text) {
    am_choice *choice = arg;
    am_completion *c = choice->completion;
    if (c->stream) am_openai_text_chunk(c, choice, "content", text);
    else if (am_buf_add(&choice->text, text)) am_completion_out_of_memory(c);
}

static void on_reasoning(void *arg, am_str text) {
    am_choice *choice = arg;
    am_completion *c = choice->completion;
    if (c->stream) am_openai_text_chunk(c, choice, "reasoning_content", text);
    else if (am_buf_add(&choice->reasoning, text)) am_completion_out_of_memory(c);
}

static void on_call(void *arg, uint32_t index, am_str name, am_str arguments) {
    am_choice *choice = arg;
    am_completion *c = choice->completion;
    char id[40];
    am_openai_random_id("call_", id, sizeof id);
    if (c->stream) {
        am_openai_tool_chunk(c, choice->index, index, id, name, arguments);
        return;
    }
    am_buf_printf(&choice->tool_calls, "%s{", index ? "," : "");
    am_openai_tool_call(id, name, arguments, &choice->tool_calls);
    if (am_buf_printf(&choice->tool_calls, "}")) am_completion_out_of_memory(c);
}

static am_answer_sink sink_of(am_choice *choice) { return (am_answer_sink){on_text, on_reasoning, on_call, choice}; }

static void on_token(am_choice *choice, const am_event *event) {
    am_completion *c = choice->completion;
    am_answer_sink sink = sink_of(choice);
    choice->n_thought += choice->answer.thinking;
    if (c->logprobs && event->token >= 0) am_openai_logprob(c, event, &choice->logprobs);
    if (event->text.n) am_answer_push(&choice->answer, event->text, &sink);
    if (c->stream && choice->logprobs.n) am_openai_text_chunk(c, choice, "content", AM_STR("")); /* the token's text is still held back */
}

static void finish_all(am_completion *c) {
    if (c->error.status) {
        am_stream_fail(c->x, &c->error);
    } else if (c->stream) {
        if (c->include_usage) am_openai_usage_chunk(c);
        am_stream_write(c->x, AM_STR("data: [DONE]\n\n"));
        am_stream_end(c->x);
    } else {
        am_buf body;
        am_buf_init(&body, SIZE_MAX / 2);
        if (am_openai_whole(c, &body)) am_reply_refuse(c->x, 503, "out_of_memory", "out of memory");
        else am_reply_send(c->x, 200, "application/json", am_buf_str(&body));
        am_buf_free(&body);
    }
}

void am_choice_ended(am_choice *choice, const am_api_error *error) {
    am_completion *c = choice->completion;
    choice->ended = true;
    bool last = ++c->n_ended == c->n_choices;
    if (error && !c->error.status) c->error = *error;
    if (!error && c->stream && !c->error.status) am_openai_finish_chunk(c, choice, last);
    if (!last) return;
    finish_all(c);
    am_models_release(c->x); /* nothing asks the model any more, and it may have to make room */
}

static void on_done(am_choice *choice, const am_event *event) {
    am_completion *c = choice->completion;
    am_answer_sink sink = sink_of(choice);
    am_api_error e;
    choice->finish = event->finish;
    choice->n_generated = event->n_generated;
    choice->n_drafted = event->n_drafted;
    choice->n_accepted = event->n_accepted;
    c->not_durable |= event->not_durable;
    if (event->finish == AM_FINISH_CANCELED || event->finish == AM_FINISH_ERROR) {
        bool canceled = event->finish == AM_FINISH_CANCELED;
        am_api_fail(&e, canceled ? 503 : 500, canceled ? "canceled" : "engine_error", NULL, "%s",
                    canceled ? "the request was cancelled; the server may be shutting down" : "the answer could not be finished");
        am_choice_ended(choice, &e);
        return;
    }
    am_answer_finish(&choice->answer, &sink);
    am_choice_ended(choice, NULL);
    am_log(AM_LOG_INFO, "turn", AM_LS("request_id", c->x->id), AM_LS("trace_id", c->x->trace.id), AM_LS("span_id", c->x->trace.span),
           AM_LS("agent", c->info.agent), AM_LS("tier", am_tier_name(c->info.tier)), AM_LU("prompt_tokens", c->info.n_prompt),
           AM_LU("cached_tokens", c->info.n_cached), AM_LU("generated_tokens", event->n_generated),
           AM_LF("queue_ms", event->queue_ms), AM_LF("restore_ms", c->info.restore_ms), AM_LF("prefill_ms", event->prefill_ms),
           AM_LF("decode_ms", event->decode_ms));
    if (am_options_of(c->x->server)->log_content && !c->stream) am_log(AM_LOG_INFO, "answer", AM_LS("request_id", c->x->id), AM_LV("text", am_buf_str(&choice->text)));
}

static void take_info(am_choice *choice, const am_turn_info *info) {
    am_completion *c = choice->completion;
    if (!info || choice->index) return;
    c->info = *info;
    pthread_mutex_lock(&c->x->lock);
    snprintf(c->x->agent, sizeof c->x->agent, "%s", info->agent);
    pthread_mutex_unlock(&c->x->lock);
}

void am_choice_on_event(void *arg, const am_event *event) {
    am_choice *choice = arg;
    am_completion *c = choice->completion;
    am_exchange *x = c->x;
    bool last = event->kind == AM_EVENT_DONE || event->kind == AM_EVENT_ERROR;
    pthread_mutex_lock(&c->lock);
    switch (event->kind) {
    case AM_EVENT_STARTED:
        take_info(choice, event->info);
        if (c->stream) am_openai_role_chunk(c, choice->index);
        break;
    case AM_EVENT_PREFILL: break;
    case AM_EVENT_TOKEN: on_token(choice, event); break;
    case AM_EVENT_DONE:
        take_info(choice, event->info);
        on_done(choice, event);
        break;
    case AM_EVENT_ERROR: {
        am_api_error e;
        bool stopping = event->status == AM_ESHUTDOWN;
        am_api_fail(&e, am_status_http(event->status), stopping ? "shutting_down" : "engine_error", NULL, "%s",
                    event->message && event->message[0] ? event->message : am_status_text(event->status));
        am_choice_ended(choice, &e);
        break;
    }
    }
    pthread_mutex_unlock(&c->lock);
    if (last) am_exchange_unref(x);
}
