/* Owns a request's copy, its text path (token -> decoder -> stop strings -> event) and the words said about it in events and log.
 *
 * Everything a request points to is copied into one arena by the thread that submits it, so the engine thread never waits for a copy of a
 * long prompt. What decoding needs (decoder, text buffers, penalty counts) is taken when the request is admitted. */
#include "engine/sequence.h"

#include "base/clock.h"
#include "base/log.h"
#include "engine/seam.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STOP_BYTES = 4096 };

static void *copy_bytes(am_arena *arena, const void *p, size_t n, size_t size, bool *ok) {
    size_t n_bytes;
    if (!p || n == 0) return NULL;
    void *copy = am_size_mul(n, size, &n_bytes) ? am_arena_alloc(arena, n_bytes) : NULL;
    if (copy)
        memcpy(copy, p, n_bytes);
    else
        *ok = false;
    return copy;
}

static am_status check_request(const am_request *request, const am_seq_limits *limits, am_error *err) {
    const am_tokens *tokens = &request->tokens;
    if (tokens->n == 0) return am_fail(err, AM_EINVAL, "the prompt is empty");
    if (tokens->n >= limits->n_ctx)
        return am_fail(err, AM_EINVAL, "prompt has %zu tokens, context is %u", tokens->n, limits->n_ctx);
    for (size_t i = 0; i < tokens->n; i++)
        if (tokens->ids[i] < 0 || (uint32_t)tokens->ids[i] >= limits->n_vocab)
            return am_fail(err, AM_EINVAL, "token %zu of the prompt is %d, the model has 0 to %u", i, tokens->ids[i], limits->n_vocab - 1);
    for (uint32_t i = 0; i < request->n_prediction; i++)
        if (request->prediction[i] < 0 || (uint32_t)request->prediction[i] >= limits->n_vocab)
            return am_fail(err, AM_EINVAL, "token %u of the prediction is %d, the model has 0 to %u", i, request->prediction[i], limits->n_vocab - 1);
    if (request->n_stops > AM_MAX_STOPS)
        return am_fail(err, AM_EINVAL, "%u stop strings, at most %d are possible", request->n_stops, AM_MAX_STOPS);
    for (uint32_t i = 0; i < request->n_stops; i++)
        if (request->stops[i].n > MAX_STOP_BYTES)
            return am_fail(err, AM_EINVAL, "a stop string has %zu bytes, at most %d are possible", request->stops[i].n, MAX_STOP_BYTES);
    if (request->n_stop_tokens > AM_MAX_STOP_TOKENS)
        return am_fail(err, AM_EINVAL, "%u stop tokens, at most %d are possible", request->n_stop_tokens, AM_MAX_STOP_TOKENS);
    if (request->agent.n > 0) {
        am_status status = am_agent_name_check(request->agent, err);
        if (status) return status;
    }
    return am_sampling_check(&request->sampling, limits->n_vocab, err);
}

/* Empty stop strings mean nothing and are left out. */
static bool copy_stops(am_seq *seq, const am_request *request) {
    am_str *stops = am_arena_alloc(seq->arena, sizeof *stops * AM_MAX_STOPS);
    if (!stops) return false;
    uint32_t n = 0;
    for (uint32_t i = 0; i < request->n_stops; i++) {
        if (request->stops[i].n == 0) continue;
        char *text = am_arena_strdup(seq->arena, request->stops[i]);
        if (!text) return false;
        stops[n++] = (am_str){text, request->stops[i].n};
    }
    seq->request.stops = stops;
    seq->request.n_stops = n;
    return true;
}

static bool copy_request(am_seq *seq, const am_request *request) {
    bool ok = true;
    am_arena *arena = seq->arena;
    am_request *r = &seq->request;
    *r = *request;
    r->id[sizeof r->id - 1] = 0;
    r->tokens.ids = copy_bytes(arena, request->tokens.ids, request->tokens.n, sizeof *request->tokens.ids, &ok);
    bool has_text = request->text.n > 0 && request->tokens.offsets;
    r->tokens.offsets =
        has_text ? copy_bytes(arena, request->tokens.offsets, request->tokens.n + 1, sizeof *request->tokens.offsets, &ok) : NULL;
    r->text = has_text ? (am_str){copy_bytes(arena, request->text.p, request->text.n, 1, &ok), request->text.n} : (am_str){0};
    r->n_input = has_text ? request->n_input : 0;
    r->input = copy_bytes(arena, request->input, r->n_input, sizeof *request->input, &ok);
    r->n_prediction = r->n_prediction < AM_MAX_PREDICTION ? r->n_prediction : AM_MAX_PREDICTION;
    r->prediction = copy_bytes(arena, request->prediction, r->n_prediction, sizeof *request->prediction, &ok);
    r->agent.p = copy_bytes(arena, request->agent.p, request->agent.n, 1, &ok);
    r->sampling.bias = copy_bytes(arena, request->sampling.bias, request->sampling.n_bias, sizeof *request->sampling.bias, &ok);
    return ok && copy_stops(seq, request);
}

am_status am_seq_create(const am_request *request, const am_seq_limits *limits, am_seq **out, am_error *err) {
    *out = NULL;
    am_status status = check_request(request, limits, err);
    if (status) return status;
    am_seq *seq = am_calloc(1, sizeof *seq);
    if (!seq) return am_fail(err, AM_ENOMEM, "no memory for a request");
    seq->model = limits->model;
    seq->meter = limits->meter;
    seq->stop = -1;
    seq->finish = AM_FINISH_ERROR;
    seq->submitted_ns = am_now_ns();
    seq->arena = am_arena_create(SIZE_MAX / 2);
    if (!seq->arena || !copy_request(seq, request)) goto out_of_memory;
    seq->prompt = seq->request.tokens.ids;
    seq->n_prompt = (uint32_t)seq->request.tokens.n;
    am_buf_init(&seq->text, SIZE_MAX / 2);
    const am_tokenizer *tokenizer = am_model_tokenizer(limits->model);
    if (tokenizer) { /* a piece can grow: each byte that never becomes UTF-8 comes out as U+FFFD */
        size_t room = 3 * (limits->max_piece + 4);
        seq->detok = am_detok_create(tokenizer, !request->keep_special);
        if (seq->detok) am_detok_keep(seq->detok, seq->request.kept, seq->request.n_kept);
        if (!seq->detok || am_buf_reserve(&seq->text, room)) goto out_of_memory;
        if (am_stops_init(&seq->stops, seq->request.stops, seq->request.n_stops, room, err)) goto out_of_memory;
    }
    *out = seq;
    return AM_OK;
out_of_memory:
    am_seq_free(seq);
    return am_fail(err, AM_ENOMEM, "no memory for a request of %zu tokens", request->tokens.n);
}

void am_seq_free(am_seq *seq) {
    if (!seq) return;
    if (seq->turn) am_turn_abort(seq->turn);
    am_history_free(&seq->history);
    am_lookup_free(&seq->lookup);
    am_stops_free(&seq->stops);
    am_buf_free(&seq->text);
    am_detok_free(seq->detok);
    free(seq->spliced);
    am_arena_free(seq->arena);
    free(seq);
}

am_status am_seq_splice(am_seq *seq, const int32_t *stored, uint32_t n_stored, uint32_t n_ctx, am_error *err) {
    const am_request *r = &seq->request;
    free(seq->spliced);
    seq->spliced = NULL;
    seq->prompt = r->tokens.ids;
    seq->n_prompt = (uint32_t)r->tokens.n;
    am_seam_input in = {am_model_tokenizer(seq->model), stored, n_stored, r->tokens.ids, r->tokens.offsets, seq->n_prompt,
                        r->text, r->input, r->n_input};
    if (!in.offsets || !in.tokenizer) return AM_OK;
    am_seam seam = am_seam_find(&in);
    size_t n_rest = r->tokens.n - seam.from, n = seam.n_stored + n_rest;
    if (seam.n_stored == seam.from && memcmp(stored, r->tokens.ids, seam.from * sizeof *stored) == 0)
        return AM_OK; /* the ids agree as they are */
    if (n >= n_ctx) return AM_OK; /* the model's own split can be longer; then the prompt's is used */
    seq->spliced = am_calloc(n, sizeof *seq->spliced);
    if (!seq->spliced) return am_fail(err, AM_ENOMEM, "no memory for a prompt of %zu tokens", n);
    memcpy(seq->spliced, stored, seam.n_stored * sizeof *stored);
    memcpy(seq->spliced + seam.n_stored, r->tokens.ids + seam.from, n_rest * sizeof *stored);
    seq->prompt = seq->spliced;
    seq->n_prompt = (uint32_t)n;
    am_log(AM_LOG_DEBUG, "request_seam", AM_LS("id", r->id), AM_LU("stored", seam.n_stored), AM_LU("own_from", seam.from));
    return AM_OK;
}

static am_status prepare_lookup(am_seq *seq, am_error *err) {
    const am_request *r = &seq->request;
    am_status status = am_lookup_init(&seq->lookup, r->n_prediction + seq->n_prompt + seq->n_max_new, err);
    if (status) return status;
    am_lookup_fill(&seq->lookup, r->prediction, r->n_prediction);
    am_lookup_fill(&seq->lookup, seq->prompt, seq->n_prompt);
    am_lookup_begin(&seq->lookup, r->n_prediction > 0);
    return AM_OK;
}

am_status am_seq_prepare(am_seq *seq, uint32_t n_vocab, bool lookup, am_error *err) {
    am_status status = lookup ? prepare_lookup(seq, err) : AM_OK;
    if (status || !am_sampling_wants_history(&seq->request.sampling)) return status;
    status = am_history_init(&seq->history, n_vocab, err);
    if (status) return status;
    for (uint32_t i = 0; i < seq->n_prompt; i++) am_history_add(&seq->history, seq->prompt[i], false);
    return AM_OK;
}

void am_seq_send(am_seq *seq, const am_event *event) {
    if (seq->request.on_event) seq->request.on_event(seq->request.arg, event);
}

void am_seq_send_prefill(am_seq *seq, uint32_t n_done) {
    am_seq_send(seq, &(am_event){.kind = AM_EVENT_PREFILL, .n_done = n_done, .n_total = seq->n_prompt});
}

static bool ends_answer(const am_seq *seq, int32_t token) {
    const am_request *r = &seq->request;
    const am_model_info *info = am_model_info_of(seq->model);
    for (uint32_t i = 0; !r->ignore_eos && i < info->n_eos; i++)
        if (info->eos[i] == token) return true;
    for (uint32_t i = 0; i < r->n_stop_tokens; i++)
        if (r->stop_tokens[i] == token) return true;
    return false;
}

/* Sends what the decoder and the stop strings still hold back. The decoder's rest may complete a stop string. */
static am_status release_text(am_seq *seq) {
    if (!seq->detok) return AM_OK;
    am_str text;
    am_buf_clear(&seq->text);
    am_status status = am_detok_finish(seq->detok, &seq->text);
    if (status) return status;
    status = am_stops_push(&seq->stops, am_buf_str(&seq->text), &text, &seq->stop);
    if (status) return status;
    if (text.n) am_seq_send(seq, &(am_event){.kind = AM_EVENT_TOKEN, .token = -1, .text = text});
    text = seq->stop < 0 ? am_stops_finish(&seq->stops) : (am_str){0};
    if (text.n) am_seq_send(seq, &(am_event){.kind = AM_EVENT_TOKEN, .token = -1, .text = text});
    return AM_OK;
}

am_status am_seq_accept(am_seq *seq, const am_sample *sample) {
    uint64_t now = am_now_ns();
    if (seq->n_generated++ == 0) {
        seq->first_ns = now;
        am_metric_observe_in(&am_metric_first_token, seq->meter->cells, seq->info.tier, now - seq->submitted_ns);
    } else {
        am_metric_observe_in(&am_metric_between_tokens, seq->meter->cells, 0, now - seq->token_ns);
    }
    seq->token_ns = now;
    am_metric_add_in(&am_metric_generated_tokens, seq->meter->cells, 0, 1);
    seq->last = sample->token;
    am_history_add(&seq->history, sample->token, true);
    seq->finish = AM_FINISH_STOP;
    if (ends_answer(seq, sample->token)) return release_text(seq);

    am_str text = {0};
    if (seq->detok) {
        am_buf_clear(&seq->text);
        am_status status = am_detok_push(seq->detok, sample->token, &seq->text);
        if (!status) status = am_stops_push(&seq->stops, am_buf_str(&seq->text), &text, &seq->stop);
        if (status) return status;
    }
    am_seq_send(seq, &(am_event){.kind = AM_EVENT_TOKEN, .token = sample->token, .text = text, .logprob = sample->logprob,
                                 .top = sample->top, .n_top = sample->n_top});
    if (seq->stop >= 0) return AM_OK;
    if (seq->n_generated < seq->n_max_new) return AM_AGAIN;
    am_status status = release_text(seq);
    if (seq->stop < 0) seq->finish = AM_FINISH_LENGTH;
    return status;
}

static double span_ms(uint64_t from_ns, uint64_t to_ns) { return from_ns && to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0; }

static void log_done(const am_seq *seq, am_log_level level, const char *reason) {
    static const char *const finish[] = {"stop", "length", "canceled", "error"};
    const am_request *r = &seq->request;
    am_str agent = seq->has_info ? am_str_of(seq->info.agent) : r->agent;
    char miss[64] = "";
    if (seq->has_info) am_miss_text(&seq->info, miss);
    uint32_t n_cached = seq->has_info ? seq->info.n_cached : 0;
    am_log(level, "request_done", AM_LS("id", r->id), AM_LV("agent", agent),
           AM_LS("tier", seq->has_info ? am_tier_name(seq->info.tier) : "none"), AM_LS("miss", miss), AM_LU("cached", n_cached),
           AM_LU("computed", seq->has_info ? seq->n_prompt - n_cached : 0), AM_LU("generated", seq->n_generated),
           AM_LU("drafted", seq->n_drafted), AM_LU("accepted", seq->n_accepted),
           AM_LF("ttft_ms", span_ms(seq->submitted_ns, seq->first_ns)), AM_LF("total_ms", am_ms_since(seq->submitted_ns)),
           AM_LS("finish", finish[seq->finish]), AM_LS("reason", reason));
}

void am_seq_send_done(am_seq *seq) {
    uint64_t end = seq->ended_ns;
    uint64_t prefilled = seq->first_ns ? seq->first_ns : end;
    am_event event = {
        .kind = AM_EVENT_DONE,
        .info = seq->has_info ? &seq->info : NULL,
        .finish = seq->finish,
        .stop = seq->stop >= 0 ? seq->request.stops[seq->stop] : (am_str){0},
        .n_generated = seq->n_generated,
        .not_durable = seq->not_durable,
        .n_drafted = seq->n_drafted,
        .n_accepted = seq->n_accepted,
        .queue_ms = span_ms(seq->submitted_ns, seq->started_ns ? seq->started_ns : end),
        .prefill_ms = span_ms(seq->started_ns, prefilled),
        .decode_ms = span_ms(seq->first_ns, end),
    };
    log_done(seq, AM_LOG_INFO, "");
    am_metric_add_in(&am_metric_turns, seq->meter->cells, seq->finish, 1);
    am_seq_send(seq, &event);
}

void am_seq_send_error(am_seq *seq, am_status status, const char *message) {
    seq->finish = AM_FINISH_ERROR;
    log_done(seq, AM_LOG_WARN, message);
    am_metric_add_in(&am_metric_turns, seq->meter->cells, AM_FINISH_ERROR, 1);
    am_seq_send(seq, &(am_event){.kind = AM_EVENT_ERROR, .status = status, .message = message});
}
