/* The engine, runtime, model and cache that the tests of the server put behind the server: every function of theirs that the server calls, played as the
 * prompt says. Included through server_rig.h; the link of its tests lets these win over the library's. */
#ifndef AM_TESTS_FAKE_ENGINE_H
#define AM_TESTS_FAKE_ENGINE_H

#include "base/clock.h"
#include "server/server.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* The engine: each request is a thread that plays the words of its prompt. */
enum { MAX_PLAYS = 4096, N_CTX = 30000 };
typedef struct play {
    uint64_t id;
    char text[2048];
    am_request request;
    char agent[AM_NAME_MAX + 1];
    pthread_t thread;
    atomic_bool cancel;
} play;
static play *plays[MAX_PLAYS];
static atomic_uint n_plays, n_running, n_canceled, n_active_max;
static pthread_mutex_t engine_lock = PTHREAD_MUTEX_INITIALIZER; /* events come one at a time, as from one thread */
static pthread_mutex_t plays_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool engine_stands; /* something runs, and no step has been taken for half a minute */
static am_request last_request; /* of the latest submission; its views are stale */
static char last_agent[AM_NAME_MAX + 1];
static const am_model_info model_info = {.name = "fake-1", .architecture = "llama", .format = "bf16", .n_vocab = 1000, .temperature = 0.7f,
                                         .top_p = 0.9f, .top_k = 20, .min_p = -1, .repetition_penalty = -1, .n_ctx = N_CTX};

static void emit(play *p, const am_event *event) {
    pthread_mutex_lock(&engine_lock);
    p->request.on_event(p->request.arg, event);
    pthread_mutex_unlock(&engine_lock);
}

static void say(play *p, const char *text, size_t n) {
    am_logprob top[2] = {{1, -0.5f}, {2, -1.5f}};
    emit(p, &(am_event){.kind = AM_EVENT_TOKEN, .token = 1, .text = {text, n}, .logprob = -0.5f, .top = top,
                        .n_top = p->request.sampling.top_logprobs > 0 ? 2 : 0});
}

/* broken: fails in the middle; halt: ended by the stop string END. say:TEXT in pieces of 3 bytes; slow: until cancelled; wait:MS then "ok"; flood:KIB; fail; lengthy: ends by length. */
static uint32_t perform(play *p) {
    uint32_t n = 0;
    if (strncmp(p->text, "say:", 4) == 0) {
        for (const char *t = p->text + 4; *t && !p->cancel; n++) {
            size_t k = strlen(t) < 3 ? strlen(t) : 3;
            say(p, t, k);
            t += k;
        }
    } else if (strcmp(p->text, "slow") == 0) {
        for (; !p->cancel && n < 4000; n++, usleep(5000)) say(p, "w ", 2);
    } else if (strncmp(p->text, "wait:", 5) == 0) {
        uint64_t start = am_now_ns();
        while (!p->cancel && am_ms_since(start) < atof(p->text + 5)) usleep(1000);
        say(p, "ok", 2);
    } else if (strncmp(p->text, "flood:", 6) == 0) {
        char kib[1024];
        memset(kib, 'x', sizeof kib);
        for (int i = atoi(p->text + 6); i > 0 && !p->cancel; i--, n++) say(p, kib, sizeof kib);
    }
    return n;
}

static void *play_main(void *arg) {
    play *p = arg;
    am_turn_info info = {.tier = AM_HOT, .n_prompt = (uint32_t)p->request.tokens.n, .n_cached = 7, .miss = AM_MISS_TOKENS_DIFFER, .miss_at = 7};
    snprintf(info.agent, sizeof info.agent, "%s", p->agent[0] ? p->agent : "agent-000000000001");
    if (strcmp(p->text, "broken") == 0) {
        emit(p, &(am_event){.kind = AM_EVENT_STARTED, .info = &info});
        say(p, "so", 2);
    }
    if (strcmp(p->text, "fail") == 0 || strcmp(p->text, "broken") == 0) {
        emit(p, &(am_event){.kind = AM_EVENT_ERROR, .status = AM_EIO, .message = "a disk broke"});
    } else {
        if (strncmp(p->text, "late", 4) != 0) emit(p, &(am_event){.kind = AM_EVENT_STARTED, .info = &info});
        uint32_t n = perform(p);
        emit(p, &(am_event){.kind = AM_EVENT_DONE, .info = &info, .n_generated = n, .not_durable = strcmp(p->text, "full disk") == 0,
                            .stop = strcmp(p->text, "halt") == 0 ? AM_STR("END") : (am_str){0},
                            .finish = p->cancel ? AM_FINISH_CANCELED : strcmp(p->text, "lengthy") == 0 ? AM_FINISH_LENGTH : AM_FINISH_STOP});
    }
    if (p->cancel) atomic_fetch_add(&n_canceled, 1);
    atomic_fetch_sub(&n_running, 1);
    return NULL;
}

am_status am_engine_submit(am_engine *engine, const am_request *request, uint64_t *id, am_error *err) {
    (void)engine;
    if (request->text.n == 4 && memcmp(request->text.p, "full", 4) == 0) return am_fail(err, AM_ELIMIT, "256 requests wait already");
    play *p = calloc(1, sizeof *p);
    p->request = *request;
    snprintf(p->text, sizeof p->text, "%.*s", (int)(request->text.n < 2000 ? request->text.n : 2000), request->text.p);
    snprintf(p->agent, sizeof p->agent, "%.*s", (int)request->agent.n, request->agent.n ? request->agent.p : "");
    pthread_mutex_lock(&plays_lock);
    last_request = *request;
    memcpy(last_agent, p->agent, sizeof last_agent);
    uint32_t at = atomic_fetch_add(&n_plays, 1);
    assert_true(at < MAX_PLAYS);
    *id = p->id = at + 1;
    plays[at] = p;
    uint32_t active = atomic_fetch_add(&n_running, 1) + 1;
    if (active > n_active_max) n_active_max = active;
    pthread_mutex_unlock(&plays_lock);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10); /* what each thread keeps for kernels and crashes is of it */
    if (pthread_create(&p->thread, &small, play_main, p)) abort();
    return AM_OK;
}

void am_engine_cancel(am_engine *engine, uint64_t id) {
    (void)engine;
    pthread_mutex_lock(&plays_lock);
    plays[id - 1]->cancel = true;
    pthread_mutex_unlock(&plays_lock);
}

am_status am_engine_call(am_engine *engine, void (*fn)(void *, am_cache *), void *arg) {
    (void)engine;
    fn(arg, NULL);
    return AM_OK;
}
void am_engine_stats_get(const am_engine *engine, am_engine_stats *out) {
    (void)engine;
    *out = (am_engine_stats){.n_ctx = N_CTX, .last_step_ns = am_now_ns(), .n_running = engine_stands};
    if (engine_stands) out->last_step_ns -= 31ull * 1000000000u;
}

/* The registry: one model, always there. Its pointers are never followed. */
static const am_model_entry entry = {.name = "fake-1"};
static am_instance *const instance = (am_instance *)(uintptr_t)&model_info;
am_registry *am_runtime_registry(const am_runtime *runtime) { return (am_registry *)(uintptr_t)runtime; }
am_engine *am_instance_engine(const am_instance *in) { return (am_engine *)(uintptr_t)in; }
const am_model *am_instance_model(const am_instance *in) { return (const am_model *)in; }
const am_model_info *am_instance_info(const am_instance *in) {
    (void)in;
    return &model_info;
}
const char *am_registry_default(am_registry *registry) {
    (void)registry;
    return entry.name;
}
bool am_registry_has(am_registry *registry, am_str name) {
    (void)registry;
    return name.n == 0 || am_str_eq(name, am_str_of(entry.name));
}
void am_registry_unknown(am_registry *registry, am_str name, am_error *err) {
    (void)registry;
    am_fail(err, AM_ENOTFOUND, "there is no model '%.*s' here; there is '%s'", (int)name.n, name.p, entry.name);
}
static atomic_int n_leases;
am_status am_registry_acquire(am_registry *registry, am_str name, am_acquired_fn *fn, void *arg, am_instance **out, am_error *err) {
    (void)fn;
    (void)arg;
    if (!am_registry_has(registry, name)) {
        am_registry_unknown(registry, name, err);
        return AM_ENOTFOUND;
    }
    atomic_fetch_add(&n_leases, 1);
    *out = instance;
    return AM_OK;
}
void am_registry_release(am_registry *registry, am_instance *in) {
    (void)registry;
    assert_ptr_equal(in, instance);
    atomic_fetch_sub(&n_leases, 1);
}
size_t am_registry_peek_all(am_registry *registry, am_instance **out, size_t cap) {
    (void)registry;
    assert_true(cap > 0);
    atomic_fetch_add(&n_leases, 1);
    out[0] = instance;
    return 1;
}
bool am_registry_find(am_registry *registry, am_str name, am_model_view *out) {
    *out = (am_model_view){.entry = &entry, .state = AM_MODEL_READY, .is_default = true, .stats.n_ctx = N_CTX};
    return am_registry_has(registry, name);
}
void am_registry_each(am_registry *registry, void (*fn)(void *, const am_model_view *), void *arg) {
    am_model_view view;
    am_registry_find(registry, (am_str){0}, &view);
    fn(arg, &view);
}
void am_registry_stats(am_registry *registry, am_engine_stats *out) {
    (void)registry;
    am_engine_stats_get(NULL, out);
}
am_gate_state am_registry_pause(am_registry *registry) { return am_registry_gate(registry); }
am_gate_state am_registry_resume(am_registry *registry) { return am_registry_gate(registry); }
uint64_t am_registry_memory_limit(const am_registry *registry) {
    (void)registry;
    return 1;
}
uint64_t am_registry_disk_bytes(const am_registry *registry) {
    (void)registry;
    return 0;
}
am_absent_usage am_registry_absent(const am_registry *registry, const am_tenant *tenant, am_str agent) {
    (void)registry, (void)tenant, (void)agent;
    return (am_absent_usage){0};
}
/* Done at once, with what was asked for as the answer. */
am_status am_registry_submit(am_registry *registry, const am_op *op, am_error *err) {
    if (!am_registry_has(registry, am_str_of(op->model))) {
        am_registry_unknown(registry, am_str_of(op->model), err);
        return AM_ENOTFOUND;
    }
    am_op_result result = {.n_models = 1};
    snprintf(result.model, sizeof result.model, "%s", op->model);
    op->done(op->arg, &result);
    return AM_OK;
}
am_gate_state am_registry_gate(am_registry *registry) {
    (void)registry;
    return AM_GATE_OPEN;
}
const am_model_info *am_model_info_of(const am_model *model) {
    (void)model;
    return &model_info;
}
const am_tokenizer *am_model_tokenizer(const am_model *model) { return (const am_tokenizer *)model; }
am_str am_tokenizer_piece(const am_tokenizer *tokenizer, int32_t id) {
    (void)tokenizer;
    return id == 1 ? AM_STR("one") : AM_STR("\xff");
}

/* The prompt is the last message's content, a token a byte. */
/* How many prompts are being made that stand still until let_go, or 10 s long. */
static _Atomic int n_held;
static _Atomic bool let_go;

/* What the latest prompt was made with. */
static char last_kwargs[256], last_tools[1024];
static bool last_continues;

am_status am_prompt_make(const am_model *model, const am_chat_request *chat, size_t n_most, am_prompt *out, am_error *err) {
    (void)model;
    const json_t *last = json_array_get(chat->messages, json_array_size(chat->messages) - 1);
    const char *text = json_string_value(json_object_get(last, "content"));
    *out = (am_prompt){.rendered.text.max = SIZE_MAX / 2};
    if (strncmp(text, "hold", 4) == 0) {
        n_held++;
        for (uint64_t start = am_now_ns(); !let_go && am_ms_since(start) < 10000; usleep(1000)) {}
        n_held--;
    }
    char *kwargs = chat->kwargs ? json_dumps(chat->kwargs, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    snprintf(last_kwargs, sizeof last_kwargs, "%s", kwargs ? kwargs : "");
    free(kwargs);
    last_continues = chat->continue_final;
    am_answer_form_default(&out->form);
    if (strcmp(text, "refuse me") == 0) return am_fail(err, AM_EINVAL, "Conversation roles must alternate");
    if (strcmp(text, "dump") == 0) {
        char *all = json_dumps(chat->messages, JSON_COMPACT);
        char *tools = chat->tools ? json_dumps(chat->tools, JSON_COMPACT) : NULL;
        am_buf_printf(&out->rendered.text, "say:%s%s", all, tools ? " with tools" : "");
        snprintf(last_tools, sizeof last_tools, "%s", tools ? tools : "");
        free(tools);
        free(all);
    } else {
        am_buf_append(&out->rendered.text, text, strlen(text));
    }
    out->tokens.n = out->rendered.text.n;
    if (n_most && (out->cut = out->tokens.n > n_most)) out->tokens.n = n_most;
    return AM_OK;
}
void am_prompt_free(am_prompt *prompt) { am_buf_free(&prompt->rendered.text); }

static const am_agent_info known = {.agent = "alice", .tier = AM_WARM, .n_tokens = 42, .n_rows = 41, .n_turns = 3};
const char *am_tier_name(am_tier tier) { return tier == AM_HOT ? "hot" : tier == AM_WARM ? "warm" : "cold"; }
void am_miss_text(const am_turn_info *info, char out[64]) { snprintf(out, 64, "tokens_differ_at:%u", info->miss_at); }
am_status am_agent_name_check(am_str agent, am_error *err) {
    for (size_t i = 0; i < agent.n; i++)
        if ((unsigned char)agent.p[i] < ' ') return am_fail(err, AM_EINVAL, "an agent's name has no control characters");
    return agent.n >= 1 && agent.n <= AM_NAME_MAX ? AM_OK : am_fail(err, AM_EINVAL, "an agent's name has 1 to 200 bytes");
}
am_status am_cache_agents(am_cache *cache, const am_tenant *tenant, am_status (*fn)(void *, const am_agent_info *), void *arg) {
    (void)cache;
    (void)tenant;
    return fn(arg, &known);
}
am_status am_cache_agent(am_cache *cache, const am_tenant *tenant, am_str agent, am_agent_info *out) {
    (void)cache;
    (void)tenant;
    *out = known;
    snprintf(out->agent, sizeof out->agent, "%.*s", (int)agent.n, agent.p);
    return am_str_eq(agent, AM_STR("nobody")) ? AM_ENOTFOUND : AM_OK;
}
am_status am_cache_rm(am_cache *cache, const am_tenant *tenant, am_str agent, am_error *err) {
    (void)cache;
    (void)tenant;
    return am_str_eq(agent, AM_STR("busy")) ? am_fail(err, AM_EBUSY, "a turn of 'busy' is running") : AM_OK;
}
am_status am_cache_fork(am_cache *cache, const am_tenant *tenant, am_str from, am_str to, am_error *err) {
    (void)cache;
    (void)tenant;
    (void)from;
    return am_str_eq(to, AM_STR("alice")) ? am_fail(err, AM_EEXIST, "there is an agent 'alice' already") : AM_OK;
}

#endif
