/* Owns the admin's endpoints: models come, go and change places, and what an operator does with the engines. What takes long runs on the registry's
 * thread, one thing after the other; the exchange waits for it without a thread and is answered from there with what was done. The client may
 * leave meanwhile: what it asked for is done all the same.
 *
 * Beside our own names there are those of the system whose operators' page we follow: models/current, models/available, models/offload, DELETE
 * caches, model_id and timeout_seconds in bodies. */
#include "server/models.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {"load", "unload", "swap", "drain", "persist", "evict", "clear", "clear_pool"};

static bool fail_op(am_exchange *x, am_status status, const char *message) {
    am_api_error e;
    const char *code = status == AM_ENOTFOUND ? "model_not_found" : status == AM_ELIMIT ? "does_not_fit" : status == AM_EIO ? "not_written" : "operation_failed";
    am_api_fail(&e, status == AM_ELIMIT ? 409 : am_status_http(status), code, NULL, "%s", message[0] ? message : am_status_text(status));
    am_reply_error(x, &e);
    return false;
}

static json_t *result_json(const am_op *op, const am_op_result *r) {
    json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:f}", "status", "success", "operation", kinds[op->kind], "models", (int)r->n_models,
                          "requests_finished", (int)r->n_finished, "requests_canceled", (int)r->n_canceled, "agents", (int)r->n_agents, "busy", (int)r->n_busy,
                          "blocks", (json_int_t)r->n_blocks, "bytes", (json_int_t)r->bytes, "ms", r->ms);
    if (op->kind == AM_OP_CLEAR) json_object_set_new(o, "refused", json_integer(r->n_refused));
    if (op->kind == AM_OP_SWAP) json_object_update_new(o, json_pack("{s:s, s:s}", "old_model_id", r->from, "new_model_id", r->model));
    if (r->model[0]) json_object_update_new(o, json_pack("{s:s, s:s}", "model", r->model, "model_id", r->model));
    return o;
}

typedef struct pending {
    am_exchange *x;
    am_op op;
} pending;

/* On the registry's thread. */
static void on_done(void *arg, const am_op_result *result) {
    pending *p = arg;
    char text[600];
    snprintf(text, sizeof text, "%s%s", result->message, result->rolled_back ? "; what had left for it is back" : "");
    if (result->status) fail_op(p->x, result->status, text);
    else am_reply_json(p->x, 200, result_json(&p->op, result));
    am_exchange_unref(p->x);
    free(p);
}

static void submit(am_exchange *x, const am_op *op) {
    am_error err = {0};
    pending *p = am_calloc(1, sizeof *p);
    if (!p) {
        am_reply_refuse(x, 503, "out_of_memory", "out of memory");
        return;
    }
    *p = (pending){x, *op};
    am_exchange_ref(x);
    am_op own = *op;
    own.done = on_done;
    own.arg = p;
    am_status status = am_registry_submit(am_models_of(x->server), &own, &err);
    if (!status) return;
    fail_op(x, status, err.message);
    am_exchange_unref(x);
    free(p);
}

/* A string member under one of two names into out; absent: stays empty. */
static bool text_of(const json_t *body, const char *name, const char *other, char *out, size_t cap, am_api_error *e) {
    am_error err = {0};
    am_str value;
    am_status status = am_json_str(body, name, &value, &err);
    if (status == AM_ENOTFOUND && other) status = am_json_str(body, other, &value, &err);
    if (status == AM_ENOTFOUND) return true;
    if (status) return am_api_fail(e, 400, "invalid_body", name, "%s", err.message);
    if (value.n >= cap) return am_api_fail(e, 400, "invalid_body", name, "'%s' has more than %zu bytes", name, cap - 1);
    if (memchr(value.p, 0, value.n)) return am_api_fail(e, 400, "invalid_body", name, "'%s' has a zero byte, which no name has", name); /* "a\0b" is not "a" */
    memcpy(out, value.p, value.n);
    out[value.n] = 0;
    return true;
}

static bool tenant_of(am_exchange *x, const json_t *body, am_op *op, am_api_error *e) {
    char name[sizeof op->tenant.name] = "";
    if (!text_of(body, "tenant", NULL, name, sizeof name, e)) return false;
    bool named = json_is_string(json_object_get(body, "tenant")); /* null is nobody's name */
    op->any_tenant = !named && !op->agent[0];
    if (am_auth_tenant_named(x->server->auth, name, &op->tenant)) return true;
    return am_api_fail(e, 404, "tenant_not_found", "tenant", "there is no tenant '%s'", name);
}

static bool timeout_of(const json_t *body, am_op *op, am_api_error *e) {
    am_error err = {0};
    double seconds;
    am_status status = am_json_f64(body, "timeout_seconds", &seconds, &err);
    if (status == AM_ENOTFOUND) return true;
    if (status || !(seconds >= 0 && seconds <= 86400))
        return am_api_fail(e, 400, "invalid_body", "timeout_seconds", "%s", status ? err.message : "'timeout_seconds' is 0 to 86400");
    op->timeout_ms = (uint32_t)(seconds * 1000);
    return true;
}

/* A word that is misspelt must not widen what is done: clearing one agent would clear them all. */
static bool members_known(const json_t *body, const char *known, am_api_error *e) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)body, key, value) {
        const char *at = strstr(known, key);
        size_t n = strlen(key);
        bool whole = n && at && (at == known || at[-1] == ' ') && (at[n] == 0 || at[n] == ' ');
        if (!whole) return am_api_fail(e, 400, "invalid_body", "", "'%.60s' is nothing that this takes; it takes: %s", key, *known ? known : "nothing");
    }
    return true;
}

/* What each operation reads from its body. */
static const char *const members[] = {[AM_OP_LOAD] = "model model_id timeout_seconds", [AM_OP_UNLOAD] = "model model_id timeout_seconds",
                                      [AM_OP_SWAP] = "model model_id from timeout_seconds", [AM_OP_DRAIN] = "timeout_seconds", [AM_OP_PERSIST] = "model model_id",
                                      [AM_OP_EVICT] = "agent tenant model model_id", [AM_OP_CLEAR] = "agent tenant model model_id all",
                                      [AM_OP_CLEAR_POOL] = "model model_id"};

static bool fill_op(am_exchange *x, const json_t *body, am_op *op, am_api_error *e) {
    return members_known(body, members[op->kind], e) && text_of(body, "model", "model_id", op->model, sizeof op->model, e) &&
           text_of(body, "from", NULL, op->from, sizeof op->from, e) && text_of(body, "agent", NULL, op->agent, sizeof op->agent, e) &&
           tenant_of(x, body, op, e) && timeout_of(body, op, e);
}

/* The body: an object, or nothing. NULL: replied. */
static json_t *body_of(am_exchange *x) {
    am_api_error e;
    am_error err = {0};
    json_t *body = NULL;
    bool ok = x->body.n == 0 ? (body = json_object()) != NULL : am_json_parse(am_buf_str(&x->body), true, &body, &err) == AM_OK;
    if (ok && json_is_object(body)) return body;
    am_api_fail(&e, 400, "invalid_body", NULL, "%s", err.message[0] ? err.message : "the body must be an object");
    am_reply_error(x, &e);
    json_decref(body);
    return NULL;
}

/* wants: the member without which it is refused, or NULL. */
static void operate(am_exchange *x, am_op_kind kind, const char *wants) {
    am_op op = {.kind = kind, .timeout_ms = UINT32_MAX};
    am_api_error e;
    json_t *body = body_of(x);
    if (!body) return;
    bool ok = fill_op(x, body, &op, &e), named = op.agent[0] || json_is_string(json_object_get(body, "tenant"));
    if (ok && wants && strcmp(wants, "model") == 0 && !op.model[0]) ok = am_api_fail(&e, 400, "invalid_body", "model", "'model' is missing");
    if (ok && wants && strcmp(wants, "all") == 0 && named == json_is_true(json_object_get(body, "all")))
        ok = am_api_fail(&e, 400, "invalid_body", "all", "this forgets for good: name an 'agent' or a 'tenant', or say 'all': true");
    if (ok) submit(x, &op);
    else am_reply_error(x, &e);
    json_decref(body);
}

void am_handle_admin_load(am_exchange *x) { operate(x, AM_OP_LOAD, "model"); }
void am_handle_admin_unload(am_exchange *x) { operate(x, AM_OP_UNLOAD, NULL); }
void am_handle_admin_swap(am_exchange *x) { operate(x, AM_OP_SWAP, "model"); }
void am_handle_admin_drain(am_exchange *x) { operate(x, AM_OP_DRAIN, NULL); }
void am_handle_admin_persist(am_exchange *x) { operate(x, AM_OP_PERSIST, NULL); }
void am_handle_admin_evict(am_exchange *x) { operate(x, AM_OP_EVICT, NULL); }
void am_handle_admin_clear(am_exchange *x) { operate(x, AM_OP_CLEAR, "all"); }
void am_handle_admin_clear_caches(am_exchange *x) { operate(x, AM_OP_CLEAR, NULL); }
void am_handle_admin_clear_pool(am_exchange *x) { operate(x, AM_OP_CLEAR_POOL, NULL); }

void am_handle_admin_seed(am_exchange *x) {
    am_api_error e;
    am_error err = {0};
    uint64_t seed = 0;
    json_t *body = body_of(x);
    if (!body) return;
    bool ok = members_known(body, "seed", &e);
    if (ok && am_json_u64(body, "seed", INT64_MAX, &seed, &err)) ok = am_api_fail(&e, 400, "invalid_body", "seed", "%s", err.message);
    json_decref(body);
    if (!ok) {
        am_reply_error(x, &e);
        return;
    }
    am_registry_seed(am_models_of(x->server), seed);
    am_log(AM_LOG_INFO, "seeded", AM_LU("seed", seed));
    am_reply_json(x, 200, json_pack("{s:s, s:I}", "status", "ok", "seed", (json_int_t)seed));
}

static void reply_gate(am_exchange *x, am_gate_state before) {
    am_reply_json(x, 200, json_pack("{s:s, s:s, s:s}", "status", "success", "before", am_gate_state_name(before), "state",
                                    am_gate_state_name(am_registry_gate(am_models_of(x->server)))));
}

void am_handle_admin_pause(am_exchange *x) { reply_gate(x, am_registry_pause(am_models_of(x->server))); }
void am_handle_admin_resume(am_exchange *x) { reply_gate(x, am_registry_resume(am_models_of(x->server))); }

typedef struct status_call {
    const am_server *server;
    json_t *models;
    uint64_t bytes;
} status_call;

static void add_status(void *arg, const am_model_view *v) {
    status_call *call = arg;
    json_t *o = am_model_json(call->server, v);
    json_object_update_new(o, json_pack("{s:I, s:I, s:I, s:f, s:I, s:I, s:i, s:i, s:i, s:i}", "bytes", (json_int_t)v->bytes, "loaded_at",
                                        (json_int_t)v->loaded_s, "loads", (json_int_t)v->n_loads, "load_ms", v->load_ms, "last_used", (json_int_t)v->used_s,
                                        "agents", (json_int_t)v->stats.cache.n_heads, "leases", (int)v->n_leases, "waiting", (int)v->n_waiting, "running",
                                        (int)v->stats.n_running, "queued", (int)v->stats.n_queued));
    if (v->entry->path) json_object_set_new(o, "path", json_string(v->entry->path)); /* the admin's to know; rm compares it */
    call->bytes += v->bytes;
    json_array_append_new(call->models, o);
}

void am_handle_admin_status(am_exchange *x) {
    am_registry *registry = am_models_of(x->server);
    status_call call = {x->server, json_array(), 0};
    am_registry_each(registry, add_status, &call);
    am_reply_json(x, 200, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "state", am_gate_state_name(am_registry_gate(registry)), "default",
                                    am_registry_default(registry), "model_bytes", (json_int_t)call.bytes, "model_memory_limit",
                                    (json_int_t)am_registry_memory_limit(registry), "disk_bytes", (json_int_t)am_registry_disk_bytes(registry), "absent_agents",
                                    (json_int_t)am_registry_absent(registry, NULL, (am_str){0}).n_agents, "models", call.models));
}

/* Of the model in the default's place; null when it is not in memory. */
void am_handle_admin_current(am_exchange *x) {
    am_model_view v;
    am_registry_find(am_models_of(x->server), (am_str){0}, &v);
    if (v.state != AM_MODEL_READY) {
        am_reply_json(x, 200, json_pack("{s:n, s:n, s:n, s:n, s:n}", "model_id", "n_layers", "n_kv_heads", "head_dim", "block_tokens"));
        return;
    }
    am_reply_json(x, 200, json_pack("{s:s, s:I, s:I, s:I, s:i}", "model_id", v.entry->name, "n_layers", (json_int_t)v.facts.n_layer, "n_kv_heads",
                                    (json_int_t)v.facts.n_kv_head, "head_dim", (json_int_t)v.facts.head_dim, "block_tokens", AM_BLOCK_TOKENS));
}

static void add_name(void *arg, const am_model_view *v) { json_array_append_new(arg, json_string(v->entry->name)); }

void am_handle_admin_available(am_exchange *x) {
    json_t *names = json_array();
    am_registry_each(am_models_of(x->server), add_name, names);
    am_reply_json(x, 200, json_pack("{s:o}", "models", names));
}
