/* Owns a completion's beginning: body -> prompt -> the engine (one request a choice).
 *
 * Choice 0 is the agent's turn; further choices are ephemeral, with seeds of their own. Each submitted choice holds a reference to the
 * exchange until its last event, so a client that leaves frees nothing under the engine's feet: its requests are cancelled and end as
 * any others. */
#include "server/admit.h"
#include "server/dialect.h"
#include "server/identity.h"
#include "server/models.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void completion_free(void *state) {
    am_completion *c = state;
    for (uint32_t i = 0; i < AM_MAX_CHOICES; i++) {
        am_answer_free(&c->choices[i].answer);
        am_buf_free(&c->choices[i].text);
        am_buf_free(&c->choices[i].reasoning);
        am_buf_free(&c->choices[i].parts);
        am_buf_free(&c->choices[i].logprobs);
        am_buf_free(&c->choices[i].stop);
    }
    am_buf_free(&c->line);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static am_completion *completion_create(am_exchange *x, const am_completion_request *r) {
    am_completion *c = am_calloc(1, sizeof *c);
    if (!c) return NULL;
    c->x = x;
    c->dialect = x->dialect;
    c->model = am_instance_model(x->instance);
    c->about = am_instance_info(x->instance);
    c->engine = am_instance_engine(x->instance);
    c->stream = r->stream;
    c->include_usage = r->include_usage;
    c->logprobs = r->logprobs;
    memcpy(c->unforced, r->unforced, sizeof c->unforced);
    c->n_unforced = r->n_unforced;
    c->created_s = (long long)(am_wall_ns() / 1000000000u);
    c->n_choices = (uint32_t)r->n;
    am_random_id(c->dialect->id_prefix, c->id, sizeof c->id);
    pthread_mutex_init(&c->lock, NULL);
    am_buf_init(&c->line, SIZE_MAX / 2);
    for (uint32_t i = 0; i < AM_MAX_CHOICES; i++) {
        am_choice *choice = &c->choices[i];
        choice->completion = c;
        choice->index = i;
        am_buf_init(&choice->text, SIZE_MAX / 2);
        am_buf_init(&choice->reasoning, SIZE_MAX / 2);
        am_buf_init(&choice->parts, SIZE_MAX / 2);
        am_buf_init(&choice->logprobs, SIZE_MAX / 2);
        am_buf_init(&choice->stop, AM_MAX_STOP_BYTES + 1);
    }
    return c;
}

/* Once the last choice ended there is no instance, and perhaps no engine any more. */
static void cancel_all(am_completion *c) {
    uint64_t ids[AM_MAX_CHOICES];
    pthread_mutex_lock(&c->lock);
    pthread_mutex_lock(&c->x->lock);
    uint32_t n = c->n_submitted;
    memcpy(ids, c->engine_ids, sizeof ids);
    pthread_mutex_unlock(&c->x->lock);
    for (uint32_t i = 0; c->x->instance && i < n; i++) am_engine_cancel(c->engine, ids[i]);
    pthread_mutex_unlock(&c->lock);
}

static void on_gone(am_exchange *x) { cancel_all(x->state); }

static void submit_error(am_status status, const am_error *err, am_api_error *e) {
    bool full = status == AM_ELIMIT;
    am_api_fail(e, am_status_http(status), full ? "queue_full" : status == AM_ESHUTDOWN ? "shutting_down" : NULL, NULL, "%s",
                err->message[0] ? err->message : am_status_text(status));
    e->retry_after_s = full ? 2 : 0;
}

/* Gives the choices to the engine, one by one; when one is refused the others are taken back and the reply is the refusal. */
static void submit(am_completion *c, am_request *request) {
    am_exchange *x = c->x;
    uint64_t seed = request->sampling.seed;
    bool refused = false, unkept = request->ephemeral, gone;
    pthread_mutex_lock(&x->lock);
    gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    for (uint32_t i = 0; i < c->n_choices; i++) {
        am_error err = {0};
        uint64_t id;
        request->arg = &c->choices[i];
        request->ephemeral = i > 0 || unkept;
        request->sampling.seed = seed + i;
        am_exchange_ref(x); /* the engine's, until this choice's last event */
        am_status status = refused || gone ? AM_ECANCELED : am_engine_submit(c->engine, request, &id, &err);
        if (status) {
            am_api_error e;
            submit_error(status, &err, &e);
            refused = true;
            pthread_mutex_lock(&c->lock);
            am_choice_ended(&c->choices[i], &e);
            pthread_mutex_unlock(&c->lock);
            am_exchange_unref(x);
            continue;
        }
        pthread_mutex_lock(&x->lock);
        c->engine_ids[c->n_submitted++] = id;
        gone = x->gone;
        pthread_mutex_unlock(&x->lock);
    }
    if (refused || gone) cancel_all(c);
}

/* max_tokens as the engine takes it; the rest of the context when nothing, or more than fits, was asked for. */
static bool fit_context(const am_completion *c, const am_completion_request *r, const am_prompt *prompt, uint32_t n_ctx, uint32_t *max_tokens, am_api_error *e) {
    size_t n_prompt = prompt->tokens.n;
    if (n_prompt + 1 > n_ctx) return c->dialect->too_long(n_ctx, n_prompt, prompt->cut, e);
    uint32_t room = n_ctx - (uint32_t)n_prompt;
    *max_tokens = r->max_tokens < 1 || r->max_tokens > room ? room : (uint32_t)r->max_tokens;
    return true;
}

/* A text of so many contexts is not read to its end to say how many tokens it would be: clients that cut theirs to fit are nearer. */
enum { HOPELESS_CONTEXTS = 4 };

static bool make_prompt(const am_exchange *x, const am_completion_request *r, uint32_t n_ctx, am_prompt *prompt, am_api_error *e) {
    json_t *messages = x->dialect->messages(r, am_options_of(x->server)->max_messages, e);
    if (!messages) return false;
    am_chat_request chat = {.messages = messages, .tools = r->tools, .documents = r->documents, .kwargs = r->kwargs, .add_generation_prompt = r->add_generation_prompt,
                            .continue_final = r->continue_final_message, .now_s = (int64_t)(am_wall_ns() / 1000000000u)};
    am_error err = {0};
    am_status status = am_prompt_make(am_instance_model(x->instance), &chat, (size_t)n_ctx * HOPELESS_CONTEXTS, prompt, &err);
    json_decref(messages);
    if (!status) return true;
    am_prompt_free(prompt);
    int http = status == AM_ENOMEM ? 503 : status == AM_EINVAL || status == AM_ELIMIT || status == AM_EFORMAT ? 400 : am_status_http(status);
    return am_api_fail(e, http, "template_error", "messages", "%s", err.message[0] ? err.message : am_status_text(status));
}

/* A prediction that cannot be read as tokens is none: it changes nothing but the time. */
static void read_prediction(const am_completion *c, const am_completion_request *r, am_tokens *out) {
    const am_tokenizer *tokenizer = am_model_tokenizer(c->model);
    const am_span all = {0, r->prediction.n};
    if (r->prediction.n && tokenizer && am_tokenizer_encode(tokenizer, am_buf_str(&r->prediction), &all, 1, 0, out, NULL)) out->n = 0;
}

static bool start(am_completion *c, const am_completion_request *r, am_str agent, am_api_error *e) {
    am_exchange *x = c->x;
    am_engine_stats stats;
    am_prompt prompt = {0};
    am_tokens prediction = {0};
    am_engine_stats_get(c->engine, &stats);
    if (!make_prompt(x, r, stats.n_ctx, &prompt, e)) return false;
    am_request request = {.tenant = *am_account_tenant(x->account), .agent = agent, .tokens = prompt.tokens, .text = am_buf_str(&prompt.rendered.text), .input = prompt.rendered.input,
                          .n_input = prompt.rendered.n_input, .sampling = am_completion_sampling(r, c->about), .stops = r->stops,
                          .n_stops = r->n_stops, .n_stop_tokens = r->n_stop_tokens, .ignore_eos = r->ignore_eos,
                          .keep_special = !r->skip_special_tokens, .no_reuse = !r->cache_prompt, .on_event = am_choice_on_event};
    memcpy(request.stop_tokens, r->stop_tokens, sizeof request.stop_tokens);
    memcpy(request.kept, prompt.kept, sizeof request.kept);
    request.n_kept = prompt.n_kept;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        am_answer_init(&c->choices[i].answer, &prompt.form, r->tools, request.text);
        c->choices[i].answer.plain = r->plain_reasoning;
    }
    read_prediction(c, r, &prediction);
    request.prediction = prediction.ids;
    request.n_prediction = (uint32_t)prediction.n;
    snprintf(request.id, sizeof request.id, "%.63s", x->id);
    bool ok = fit_context(c, r, &prompt, stats.n_ctx, &request.max_tokens, e) && am_admit_agent(x, agent, &prompt.tokens, &request.ephemeral, e);
    c->bounded = r->max_tokens < 1 || r->max_tokens > request.max_tokens;
    c->unkept = request.ephemeral;
    if (ok) {
        if (am_options_of(x->server)->log_content) am_log(AM_LOG_INFO, "prompt", AM_LS("request_id", x->id), AM_LV("text", request.text));
        if (c->n_choices > 1 && !request.sampling.has_seed) {
            request.sampling.has_seed = true; /* choices without seeds of their own would be one answer n times */
            am_random_bytes(&request.sampling.seed, sizeof request.sampling.seed);
        }
        if (c->stream) am_stream_open(x, "text/event-stream; charset=utf-8");
        pthread_mutex_lock(&x->lock);
        x->on_gone = on_gone;
        x->may_pad = !c->stream;
        pthread_mutex_unlock(&x->lock);
        submit(c, &request);
    }
    am_prompt_free(&prompt);
    am_tokens_free(&prediction);
    return ok;
}

/* The request, its agent and its model. AM_AGAIN: the model is being loaded, and the handler will be run again. Else false: *e. */
static am_status take(am_exchange *x, am_parse_fn *parse, am_completion_request *r, char agent[AM_NAME_MAX + 1], am_api_error *e) {
    if (!parse(am_buf_str(&x->body), r, e) || !am_identity_find(&x->head, r->root, agent, e)) return AM_EINVAL;
    am_status status = am_models_lease(x, r->model, r->stream, e);
    if (status == AM_AGAIN) return status;
    am_exchange_drop_body(x);
    if (status) return status;
    return am_completion_request_fits(r, am_instance_info(x->instance)->n_vocab, e) ? AM_OK : AM_EINVAL;
}

static bool begin(am_exchange *x, const am_completion_request *r, const char agent[AM_NAME_MAX + 1], am_api_error *e) {
    am_completion *c = completion_create(x, r);
    if (!c) return am_completion_no_memory(e);
    x->state = c;
    x->state_free = completion_free;
    pthread_mutex_lock(&x->lock);
    memcpy(x->agent, agent, sizeof x->agent);
    pthread_mutex_unlock(&x->lock);
    return start(c, r, am_str_of(agent), e);
}

static void fail(am_exchange *x, const am_api_error *e) {
    am_models_release(x);
    am_stream_fail(x, e);
}

void am_handle_completion(am_exchange *x) {
    am_completion_request r;
    am_api_error e;
    char agent[AM_NAME_MAX + 1];
    am_status status = take(x, x->dialect->parse, &r, agent, &e);
    if (status != AM_AGAIN && (status || !begin(x, &r, agent, &e))) fail(x, &e);
    am_completion_request_free(&r);
}

/* The same prompt as the completion's would be, and nothing of it computed. */
void am_handle_count_tokens(am_exchange *x) {
    am_completion_request r;
    am_api_error e;
    char agent[AM_NAME_MAX + 1];
    am_status status = take(x, x->dialect->parse_count, &r, agent, &e);
    if (status != AM_AGAIN) {
        am_engine_stats stats = {0};
        am_prompt prompt = {0};
        if (!status) am_engine_stats_get(am_instance_engine(x->instance), &stats);
        bool ok = !status && make_prompt(x, &r, stats.n_ctx, &prompt, &e);
        size_t n = prompt.tokens.n;
        if (ok && prompt.cut) ok = x->dialect->too_long(stats.n_ctx, n, true, &e);
        am_prompt_free(&prompt);
        am_models_release(x);
        if (ok) am_reply_json(x, 200, json_pack("{s:I}", "input_tokens", (json_int_t)n));
        else am_stream_fail(x, &e);
    }
    am_completion_request_free(&r);
}
