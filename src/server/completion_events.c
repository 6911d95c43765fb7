/* Owns what becomes of the engine's events: tokens are taken apart for the dialect, ends are counted and said, errors too.
 *
 * All of it runs on the engine thread under the completion's lock and does nothing but append to buffers. */
#include "server/dialect.h"
#include "server/models.h"

#include "base/hash.h"
#include "base/log.h"

#include <stdio.h>

void am_random_id(const char *prefix, char *out, size_t cap) {
    uint8_t r[12];
    am_random_bytes(r, sizeof r);
    size_t n = (size_t)snprintf(out, cap, "%s", prefix);
    for (size_t i = 0; i < sizeof r && n + 2 < cap; i++) n += (size_t)snprintf(out + n, cap - n, "%02x", r[i]);
}

void am_completion_out_of_memory(am_completion *c) {
    if (!c->error.status) am_api_fail(&c->error, 503, "out_of_memory", NULL, "out of memory");
}

static am_answer_sink sink_of(am_choice *choice) {
    am_answer_sink sink = choice->completion->dialect->sink;
    sink.arg = choice;
    return sink;
}

static void on_token(am_choice *choice, const am_event *event) {
    const am_dialect *d = choice->completion->dialect;
    am_answer_sink sink = sink_of(choice);
    choice->n_thought += choice->answer.thinking;
    if (d->token) d->token(choice, event);
    if (event->text.n) am_answer_push(&choice->answer, event->text, &sink);
    if (d->token_done) d->token_done(choice);
}

static void begin(am_choice *choice) {
    if (!choice->begun) choice->completion->dialect->begin(choice);
    choice->begun = true;
}

static void finish_all(am_completion *c) {
    if (c->error.status) {
        am_stream_fail(c->x, &c->error);
    } else if (c->stream) {
        c->dialect->end(c);
        am_stream_end(c->x);
    } else {
        am_buf body;
        am_buf_init(&body, SIZE_MAX / 2);
        if (c->dialect->whole(c, &body)) am_reply_refuse(c->x, 503, "out_of_memory", "out of memory");
        else am_reply_send(c->x, 200, "application/json", am_buf_str(&body));
        am_buf_free(&body);
    }
}

void am_choice_ended(am_choice *choice, const am_api_error *error) {
    am_completion *c = choice->completion;
    choice->ended = true;
    bool last = ++c->n_ended == c->n_choices;
    if (error && !c->error.status) c->error = *error;
    if (!error && !c->error.status) c->dialect->finish(choice, last);
    if (!last) return;
    finish_all(c);
    am_models_release(c->x); /* nothing asks the model any more, and it may have to make room */
}

static void on_done(am_choice *choice, const am_event *event) {
    am_completion *c = choice->completion;
    am_answer_sink sink = sink_of(choice);
    am_api_error e;
    choice->finish = event->finish;
    am_buf_add(&choice->stop, event->stop); /* without memory it counts as none */
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
    begin(choice);
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
        begin(choice);
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

void am_completion_memory_json(const am_completion *c, am_buf *out) {
    char miss[64] = "";
    am_miss_text(&c->info, miss);
    am_buf_printf(out, "\"agent_memory\":{\"agent\":");
    am_json_quote(am_str_of(c->info.agent), out);
    am_buf_printf(out, ",\"tier\":\"%s\",\"cached_tokens\":%u,\"computed_tokens\":%u,\"miss_reason\":", am_tier_name(c->info.tier), c->info.n_cached,
                  c->info.n_prompt - c->info.n_cached);
    if (miss[0]) am_json_quote(am_str_of(miss), out);
    else am_buf_printf(out, "null");
    if (c->not_durable) am_buf_printf(out, ",\"durable\":false");
    for (uint32_t i = 0; i < c->n_unforced; i++) am_buf_printf(out, "%s\"%s\"", i ? "," : ",\"not_enforced\":[", c->unforced[i]);
    am_buf_printf(out, c->n_unforced ? "]}" : "}");
}
