/* Owns the endpoints about agents: list, show, fork, forget. The cache belongs to the engine's thread, so each asks it between two steps. */
#include "server/admit.h"
#include "server/models.h"

#include <stdio.h>
#include <string.h>

typedef struct agents_call {
    am_exchange *x;
    am_str to;     /* fork */
    json_t *found; /* list: array; show, fork: object */
    bool all;      /* of every model, not of the first that knows */
    uint32_t n;    /* forget, evict: models under which it was there */
    const char *model; /* the one that is asked */
    am_status status;
    am_error err;
} agents_call;

static const am_tenant *tenant_of(const agents_call *call) { return am_account_tenant(call->x->account); }

static json_t *agent_json(const agents_call *call, const am_agent_info *a) {
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b}", "id", a->agent, "object", "agent", "agent", a->agent, "model", call->model, "tier",
                     am_tier_name(a->tier), "tokens", (json_int_t)a->n_tokens, "reusable_tokens", (json_int_t)a->n_rows, "turns",
                     (json_int_t)a->n_turns, "created", (json_int_t)(a->created_ns / 1000000000u), "last_used",
                     (json_int_t)(a->used_ns / 1000000000u), "disk_bytes", (json_int_t)a->disk_bytes, "running", (int)a->running, "dirty",
                     (int)a->dirty, "named", (int)!a->unnamed);
}

static am_status add_agent(void *arg, const am_agent_info *info) {
    agents_call *call = arg;
    return json_array_append_new(call->found, agent_json(call, info)) ? AM_ENOMEM : AM_OK;
}

static void list(void *arg, am_cache *cache) {
    agents_call *call = arg;
    if (!call->found) call->found = json_array();
    call->status = am_cache_agents(cache, tenant_of(call), add_agent, call);
}

static void show_one(agents_call *call, am_cache *cache, am_str name) {
    am_agent_info info;
    call->status = am_cache_agent(cache, tenant_of(call), name, &info);
    if (call->status) am_fail(&call->err, call->status, "there is no agent '%.*s'", (int)name.n, name.p);
    else call->found = agent_json(call, &info);
}

static void show(void *arg, am_cache *cache) {
    agents_call *call = arg;
    show_one(call, cache, am_buf_str(&call->x->param));
}

/* What one model says of an agent that may have state under several. */
static void count(agents_call *call, am_status status) {
    call->n += status == AM_OK;
    call->status = status == AM_ENOTFOUND && call->n ? AM_OK : status;
}

static void forget(void *arg, am_cache *cache) {
    agents_call *call = arg;
    count(call, am_cache_rm(cache, tenant_of(call), am_buf_str(&call->x->param), &call->err));
}

static void evict(void *arg, am_cache *cache) {
    agents_call *call = arg;
    am_str name = am_buf_str(&call->x->param);
    am_status status = am_cache_evict(cache, tenant_of(call), name, &call->err);
    if (!status && !call->found) show_one(call, cache, name);
    count(call, status);
}

static void fork_one(void *arg, am_cache *cache) {
    agents_call *call = arg;
    call->status = am_cache_fork(cache, tenant_of(call), am_buf_str(&call->x->param), call->to, &call->err);
    if (!call->status) show_one(call, cache, call->to);
}

static void refuse(am_exchange *x, am_status status, const char *message) {
    am_api_error e;
    const char *code = status == AM_ENOTFOUND ? "agent_not_found" : status == AM_EEXIST ? "agent_exists" : status == AM_EBUSY ? "agent_busy" : NULL;
    am_api_fail(&e, am_status_http(status), code, NULL, "%s", message[0] ? message : am_status_text(status));
    am_reply_error(x, &e);
}

static void ask_one(agents_call *call, am_instance *instance, void (*fn)(void *, am_cache *)) {
    call->status = AM_OK;
    call->err = (am_error){0};
    call->model = am_instance_info(instance)->name;
    am_status status = am_engine_call(am_instance_engine(instance), fn, call);
    if (status) am_fail(&call->err, call->status = status, "the server is shutting down");
}

/* fn on the model that ?model= names (loaded when it must be), else on those in memory, most recently used first: all of them for a list, for one
 * agent until one has it. Without any in memory the default is loaded. false: replied, or the handler will be run again. */
static bool ask(agents_call *call, void (*fn)(void *, am_cache *)) {
    am_exchange *x = call->x;
    am_registry *registry = am_models_of(x->server);
    am_instance *all[AM_MAX_RESIDENT];
    am_api_error e;
    am_buf named;
    bool malformed = am_query_value(x, "model", &named) != AM_OK;
    am_str name = am_buf_str(&named);
    size_t n = malformed || named.n ? 0 : am_registry_peek_all(registry, all, AM_MAX_RESIDENT);
    am_status status = n ? AM_OK : malformed ? am_api_fail(&e, 400, "invalid_value", "model", "a malformed %%-escape in ?model="), AM_EINVAL
                                             : am_models_lease(x, name.n ? name : (am_str){0}, false, &e);
    am_buf_free(&named);
    if (status == AM_AGAIN) return false;
    if (status) {
        am_stream_fail(x, &e);
        return false;
    }
    if (n == 0) ask_one(call, x->instance, fn);
    bool over = n == 0;
    for (size_t i = 0; i < n; i++) {
        if (!over) ask_one(call, all[i], fn);
        over = over || (call->status ? call->status != AM_ENOTFOUND : !call->all);
        am_registry_release(registry, all[i]);
    }
    am_models_release(x);
    if (!call->status) return true;
    refuse(x, call->status, call->err.message);
    json_decref(call->found);
    return false;
}

static void remember_agent(am_exchange *x, am_str name) {
    pthread_mutex_lock(&x->lock);
    snprintf(x->agent, sizeof x->agent, "%.*s", (int)name.n, name.p);
    pthread_mutex_unlock(&x->lock);
}

/* {id} must be a name an agent could have. */
static bool name_ok(am_exchange *x, am_str name, const char *param) {
    am_error err;
    am_api_error e;
    if (am_agent_name_check(name, &err) == AM_OK) {
        remember_agent(x, name);
        return true;
    }
    am_api_fail(&e, 400, "invalid_agent_name", param, "%s", err.message);
    am_reply_error(x, &e);
    return false;
}

void am_handle_agents(am_exchange *x) {
    agents_call call = {.x = x, .all = true};
    if (ask(&call, list)) am_reply_json(x, 200, json_pack("{s:s, s:o}", "object", "list", "data", call.found));
}

void am_handle_agent(am_exchange *x) {
    agents_call call = {.x = x};
    if (name_ok(x, am_buf_str(&x->param), "id") && ask(&call, show)) am_reply_json(x, 200, call.found);
}

/* ?evict_only=: a word that cannot be read must not end in forgetting. */
static bool evict_only(am_exchange *x, bool *only) {
    static const char *const words[] = {"false", "0", "no", "true", "1", "yes"};
    am_buf value;
    am_api_error e;
    bool found = false;
    *only = false;
    if (!memmem(x->head.query.p, x->head.query.n, "evict_only", 10)) return true;
    if (am_query_value(x, "evict_only", &value) == AM_OK)
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (am_http_name_is(am_buf_str(&value), words[i])) *only = i >= 3, found = true;
    am_buf_free(&value);
    if (found) return true;
    am_api_fail(&e, 400, "invalid_value", "evict_only", "evict_only is true or false");
    am_reply_error(x, &e);
    return false;
}

static void reply_forgotten(am_exchange *x) {
    am_reply_json(x, 200, json_pack("{s:s, s:s, s:b}", "id", x->param.p, "object", "agent.deleted", "deleted", 1));
}

/* On the registry's thread. */
static void on_cleared(void *arg, const am_op_result *result) {
    am_exchange *x = arg;
    am_status status = result->status ? result->status : result->n_busy ? AM_EBUSY : result->n_agents ? AM_OK : AM_ENOTFOUND;
    if (status) refuse(x, status, result->n_busy ? "a turn of this agent is running" : result->message);
    else reply_forgotten(x);
    am_exchange_unref(x);
}

/* Models that are not in memory have state of it too: only the registry's thread may look for that. */
static void forget_everywhere(am_exchange *x) {
    am_op op = {.kind = AM_OP_CLEAR, .timeout_ms = UINT32_MAX, .tenant = *am_account_tenant(x->account), .done = on_cleared, .arg = x};
    am_error err = {0};
    snprintf(op.agent, sizeof op.agent, "%s", x->param.p);
    am_exchange_ref(x);
    am_status status = am_registry_submit(am_models_of(x->server), &op, &err);
    if (!status) return;
    refuse(x, status, err.message);
    am_exchange_unref(x);
}

static bool is_absent_too(am_exchange *x) {
    am_buf model;
    bool all = am_query_value(x, "model", &model) == AM_OK && model.n == 0;
    am_buf_free(&model);
    return all && am_registry_absent(am_models_of(x->server), am_account_tenant(x->account), am_buf_str(&x->param)).known;
}

void am_handle_agent_delete(am_exchange *x) {
    agents_call call = {.x = x, .all = true};
    bool only;
    if (!name_ok(x, am_buf_str(&x->param), "id") || !evict_only(x, &only)) return;
    if (only) {
        if (ask(&call, evict)) am_reply_json(x, 200, call.found);
    } else if (is_absent_too(x))
        forget_everywhere(x);
    else if (ask(&call, forget))
        reply_forgotten(x);
}

void am_handle_agent_fork(am_exchange *x) {
    agents_call call = {.x = x};
    am_error err;
    am_api_error e;
    json_t *body = NULL;
    if (am_json_parse(am_buf_str(&x->body), false, &body, &err) || am_json_str(body, "to", &call.to, &err)) {
        am_api_fail(&e, 400, "invalid_body", body ? "to" : NULL, "%s", err.message);
        am_reply_error(x, &e);
    } else if (name_ok(x, call.to, "to") && name_ok(x, am_buf_str(&x->param), "id")) {
        if (!am_admit_agent(x, call.to, NULL, NULL, &e)) am_reply_error(x, &e);
        else if (ask(&call, fork_one)) am_reply_json(x, 201, call.found);
    }
    json_decref(body);
}
