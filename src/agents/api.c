/* Owns include/agent_memory.h: the runtime without a server. Each call of the public API is a request or a call to the engine thread, and
 * waits for it; nothing here touches the cache itself. */
#include "agents/runtime.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_REPLY_BYTES = 64 << 20, DRAIN_MS = 30000 };

static int report(am_status status, const am_error *error, char *err, size_t err_size) {
    if (status && err && err_size > 0)
        snprintf(err, err_size, "%s", error && error->message[0] ? error->message : am_status_text(status));
    return -(int)status;
}

const char *am_version(void) { return AM_VERSION; }

int am_runtime_open(const am_config *config, am_runtime **out, char *err, size_t err_size) {
    am_error error = {0};
    am_runtime_options options = {
        .model = config->model,
        .data_dir = config->data_dir,
        .who = "library",
        .n_ctx = config->n_ctx,
        .kv_memory_bytes = config->kv_memory_bytes,
        .bits_k = config->kv_bits_k,
        .bits_v = config->kv_bits_v,
        .n_threads = config->n_threads,
        .max_parallel = config->max_parallel,
        .seed = config->seed,
    };
    return report(am_runtime_start(&options, out, &error), &error, err, err_size);
}

void am_runtime_close(am_runtime *runtime) {
    if (runtime) am_runtime_shutdown(runtime, DRAIN_MS, NULL, NULL, NULL);
}

void am_reply_free(am_reply *reply) {
    free(reply->text);
    reply->text = NULL;
}

typedef struct turn {
    am_runtime *runtime;
    const am_turn_params *params;
    am_reply *reply;
    am_buf text;
    uint64_t id, start_ns;
    am_error error;
    am_status status;
    bool stopped;         /* on_piece or on_prefill said stop */
    pthread_mutex_t lock; /* protects over */
    pthread_cond_t ended;
    bool over;
} turn;

static void take_info(am_reply *reply, const am_turn_info *info) {
    if (!info) return;
    snprintf(reply->agent, sizeof reply->agent, "%s", info->agent);
    reply->tier = am_tier_name(info->tier);
    reply->prompt_tokens = info->n_prompt;
    reply->cached_tokens = info->n_cached;
}

static void take_piece(turn *t, const am_event *event) {
    if (t->reply->first_token_ms == 0) t->reply->first_token_ms = am_ms_since(t->start_ns);
    if (event->text.n == 0 || t->stopped) return;
    am_status status = am_buf_add(&t->text, event->text);
    if (status && !t->status) t->status = am_fail(&t->error, status, "the answer is longer than %d bytes, or memory is short", MAX_REPLY_BYTES);
    t->stopped = status || (t->params->on_piece && t->params->on_piece(t->params->arg, event->text.p, event->text.n));
    if (t->stopped) am_engine_cancel(am_runtime_engine(t->runtime), t->id);
}

static void take_prefill(turn *t, const am_event *event) {
    if (t->stopped || !t->params->on_prefill) return;
    t->stopped = t->params->on_prefill(t->params->arg, event->n_done, event->n_total) != 0;
    if (t->stopped) am_engine_cancel(am_runtime_engine(t->runtime), t->id);
}

static void on_event(void *arg, const am_event *event) {
    turn *t = arg;
    if (event->kind == AM_EVENT_STARTED || event->kind == AM_EVENT_DONE) take_info(t->reply, event->info);
    if (event->kind == AM_EVENT_PREFILL) take_prefill(t, event);
    if (event->kind == AM_EVENT_TOKEN) take_piece(t, event);
    if (event->kind == AM_EVENT_ERROR) t->status = am_fail(&t->error, event->status, "%s", event->message);
    if (event->kind == AM_EVENT_DONE) {
        t->reply->completion_tokens = event->n_generated;
        t->reply->finish_reason = event->finish == AM_FINISH_LENGTH ? "length" : "stop";
        if (event->finish == AM_FINISH_CANCELED && !t->stopped) t->status = am_fail(&t->error, AM_ECANCELED, "the turn was cancelled");
    }
    if (event->kind != AM_EVENT_DONE && event->kind != AM_EVENT_ERROR) return;
    pthread_mutex_lock(&t->lock);
    t->over = true;
    pthread_cond_signal(&t->ended);
    pthread_mutex_unlock(&t->lock);
}

static am_status submit_and_wait(turn *t, const am_prompt *prompt) {
    const am_turn_params *p = t->params;
    am_request request = {
        .agent = am_str_of(p->agent),
        .tokens = prompt->tokens,
        .text = am_buf_str(&prompt->rendered.text),
        .input = prompt->rendered.input,
        .n_input = prompt->rendered.n_input,
        .sampling = am_sampling_of(am_runtime_info(t->runtime)),
        .max_tokens = p->max_tokens,
        .on_event = on_event,
        .arg = t,
    };
    snprintf(request.id, sizeof request.id, "library");
    if (p->temperature >= 0) request.sampling.temperature = p->temperature;
    request.sampling.has_seed = p->seed != 0;
    request.sampling.seed = p->seed;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->ended, NULL);
    am_status status = am_engine_submit(am_runtime_engine(t->runtime), &request, &t->id, &t->error);
    pthread_mutex_lock(&t->lock);
    while (!status && !t->over) pthread_cond_wait(&t->ended, &t->lock);
    pthread_mutex_unlock(&t->lock);
    pthread_cond_destroy(&t->ended);
    pthread_mutex_destroy(&t->lock);
    return status ? status : t->status;
}

static am_status run_turn(turn *t) {
    const am_turn_params *p = t->params;
    json_t *given = NULL, *messages = NULL, *offered = NULL, *tools = NULL;
    char param[AM_CHAT_PARAM_BYTES];
    am_prompt prompt = {0};
    am_status status = am_json_parse_exact(am_str_of(p->messages), &given, &t->error);
    if (!status) status = am_chat_messages(given, &messages, param, &t->error);
    if (!status && p->tools) status = am_json_parse_exact(am_str_of(p->tools), &offered, &t->error);
    if (!status && p->tools) status = am_chat_tools(offered, &tools, param, &t->error);
    if (status) goto out;
    am_chat_request chat = {.messages = messages, .tools = tools, .add_generation_prompt = true, .now_s = (int64_t)time(NULL)};
    status = am_prompt_make(am_runtime_model(t->runtime), &chat, 0, &prompt, &t->error);
    if (!status) status = submit_and_wait(t, &prompt);
out:
    am_prompt_free(&prompt);
    json_decref(given);
    json_decref(messages);
    json_decref(offered);
    json_decref(tools);
    return status;
}

int am_runtime_turn(am_runtime *runtime, const am_turn_params *params, am_reply *reply, char *err, size_t err_size) {
    *reply = (am_reply){.finish_reason = "stop", .tier = am_tier_name(AM_COLD)};
    turn t = {.runtime = runtime, .params = params, .reply = reply, .start_ns = am_now_ns()};
    am_buf_init(&t.text, MAX_REPLY_BYTES);
    am_status status = run_turn(&t);
    if (!status && am_buf_add(&t.text, (am_str){0})) status = AM_ENOMEM; /* an empty answer is "" */
    if (status)
        am_buf_free(&t.text);
    else
        reply->text = t.text.p;
    return report(status, &t.error, err, err_size);
}

typedef struct agent_call {
    am_str from, to;
    am_tenant tenant;
    am_status status;
    am_error error;
} agent_call;

static void fork_agent(void *arg, am_cache *cache) {
    agent_call *c = arg;
    c->status = am_cache_fork(cache, &c->tenant, c->from, c->to, &c->error);
}

static void rm_agent(void *arg, am_cache *cache) {
    agent_call *c = arg;
    c->status = am_cache_rm(cache, &c->tenant, c->from, &c->error);
}

int am_runtime_fork(am_runtime *runtime, const char *from, const char *to, char *err, size_t err_size) {
    agent_call c = {.from = am_str_of(from), .to = am_str_of(to)};
    am_status status = am_engine_call(am_runtime_engine(runtime), fork_agent, &c);
    return report(status ? status : c.status, &c.error, err, err_size);
}

int am_runtime_rm(am_runtime *runtime, const char *agent, char *err, size_t err_size) {
    agent_call c = {.from = am_str_of(agent)};
    am_status status = am_engine_call(am_runtime_engine(runtime), rm_agent, &c);
    return report(status ? status : c.status, &c.error, err, err_size);
}

typedef struct agent_list {
    am_agent_info *agents;
    size_t n, cap;
    am_tenant tenant;
    am_status status;
} agent_list;

static am_status list_add(void *arg, const am_agent_info *info) {
    agent_list *list = arg;
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 16;
        am_agent_info *agents = realloc(list->agents, cap * sizeof *agents);
        if (!agents) return AM_ENOMEM;
        list->agents = agents;
        list->cap = cap;
    }
    list->agents[list->n++] = *info;
    return AM_OK;
}

static void list_agents(void *arg, am_cache *cache) {
    agent_list *list = arg;
    list->status = am_cache_agents(cache, &list->tenant, list_add, list);
}

/* Collected first, so that the caller's function runs on the caller's thread and may call back into the runtime. */
int am_runtime_list(am_runtime *runtime, int (*fn)(void *arg, const char *agent, uint32_t n_tokens, const char *tier), void *arg) {
    agent_list list = {0};
    am_status status = am_engine_call(am_runtime_engine(runtime), list_agents, &list);
    if (!status) status = list.status;
    for (size_t i = 0; !status && i < list.n; i++)
        if (fn(arg, list.agents[i].agent, list.agents[i].n_tokens, am_tier_name(list.agents[i].tier))) break;
    free(list.agents);
    return -(int)status;
}
