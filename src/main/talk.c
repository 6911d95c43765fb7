/* Owns a terminal chat's turn: finds who answers, and runs the turn in this process when no server does (talk_server.c has the other way). */
#include "main/talk.h"

#include "base/clock.h"
#include "main/client.h"
#include "main/start.h"
#include "main/talk_server.h"

#include <stdlib.h>
#include <string.h>

enum { WAIT_MS = 60000 };

am_status am_talk_open(const am_settings *settings, am_talk *talk, am_error *err) {
    *talk = (am_talk){.settings = settings};
    if (!settings->local && settings->port && am_client_find(settings->host, (uint16_t)settings->port, WAIT_MS)) return AM_OK;
    return am_start_runtime(settings, "chat", &talk->runtime, err);
}

void am_talk_close(am_talk *talk) {
    if (talk->runtime) am_runtime_shutdown(talk->runtime, 0, NULL, NULL, NULL);
    talk->runtime = NULL;
}

void am_talk_text(am_talk_turn *turn, am_str text, uint64_t start_ns) {
    if (text.n == 0) return;
    if (turn->first_ms == 0) turn->first_ms = am_ms_since(start_ns);
    am_buf_add(&turn->text, text);
    turn->on_text(turn->arg, text);
}

typedef struct own_turn {
    am_talk_turn *turn;
    uint64_t start_ns;
} own_turn;

static int own_piece(void *arg, const char *text, size_t n) {
    own_turn *own = arg;
    am_talk_text(own->turn, (am_str){text, n}, own->start_ns);
    return *own->turn->stop != 0;
}

static int own_prefill(void *arg, uint32_t n_done, uint32_t n_total) {
    own_turn *own = arg;
    own->turn->on_prefill(own->turn->arg, n_done, n_total);
    return *own->turn->stop != 0;
}

static am_status run_here(am_talk *talk, am_talk_turn *turn, uint64_t start_ns, am_error *err) {
    own_turn own = {turn, start_ns};
    am_reply reply;
    char *messages = json_dumps(turn->messages, JSON_COMPACT);
    if (!messages) return am_fail(err, AM_ENOMEM, "no memory for the conversation");
    am_turn_params params = {
        .agent = turn->agent,
        .messages = messages,
        .max_tokens = turn->max_tokens,
        .temperature = (float)turn->temperature,
        .on_piece = own_piece,
        .on_prefill = own_prefill,
        .arg = &own,
    };
    char message[sizeof err->message] = "";
    int failed = am_runtime_turn(talk->runtime, &params, &reply, message, sizeof message);
    snprintf(turn->agent_used, sizeof turn->agent_used, "%s", reply.agent);
    snprintf(turn->tier, sizeof turn->tier, "%s", reply.tier);
    turn->n_prompt = reply.prompt_tokens;
    turn->n_cached = reply.cached_tokens;
    turn->n_answer = reply.completion_tokens;
    am_reply_free(&reply);
    free(messages);
    if (*turn->stop) return am_fail(err, AM_ECANCELED, "stopped");
    return failed ? am_fail(err, AM_EINVAL, "%s", message) : AM_OK;
}

am_status am_talk_run(am_talk *talk, am_talk_turn *turn, am_error *err) {
    uint64_t start_ns = am_now_ns();
    am_buf_init(&turn->text, AM_MAX_ANSWER_BYTES);
    am_status status = talk->runtime ? run_here(talk, turn, start_ns, err) : am_talk_run_server(talk, turn, start_ns, err);
    turn->all_ms = am_ms_since(start_ns);
    return status;
}
