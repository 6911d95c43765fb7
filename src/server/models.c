/* Owns how a request comes to its model: by name, at once when it is in memory, else by waiting without a thread. The registry calls back when the
 * model is there; the handler is then queued again and finds it. */
#include "server/models.h"

#include "server/anthropic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool fail_lease(am_status status, const char *why, bool closed, am_api_error *e) {
    const char *text = why[0] ? why : am_status_text(status);
    switch (status) {
    case AM_ENOTFOUND: return am_api_fail(e, 404, "model_not_found", "model", "%s", text);
    case AM_ESHUTDOWN: am_api_fail(e, 503, closed ? "drained" : "shutting_down", NULL, "%s", text); break;
    default: am_api_fail(e, 503, "model_unavailable", "model", "%s", text); break;
    }
    e->retry_after_s = 5;
    return false;
}

static void gone_while_waiting(am_exchange *x) {
    if (am_registry_forget(am_models_of(x->server), x)) am_exchange_unref(x);
}

/* On the registry's thread. */
static void on_acquired(void *arg, am_instance *instance, am_status status, const char *why) {
    am_exchange *x = arg;
    pthread_mutex_lock(&x->lock);
    bool gone = x->gone;
    x->instance = instance;
    x->lease_ended = true;
    x->lease_status = status;
    snprintf(x->lease_why, sizeof x->lease_why, "%s", why ? why : "");
    x->on_gone = NULL;
    pthread_mutex_unlock(&x->lock);
    if (gone) am_models_release(x);
    else if (am_pool_push(x->server->pool, x->route->handler, x)) am_stream_fail(x, &(am_api_error){.status = 503, .code = "out_of_memory", .message = "out of memory"});
    am_exchange_unref(x);
}

/* The registry may have called back already: then the handler runs anew, perhaps on another thread, and x is its alone. */
static void wait_openly(am_exchange *x, bool stream) {
    bool gone = false;
    pthread_mutex_lock(&x->lock);
    if (!x->lease_ended) {
        gone = x->gone;
        x->on_gone = gone_while_waiting;
        x->may_pad = !stream;
        if (stream && x->mode == AM_REPLY_NONE) am_stream_begin(x, "text/event-stream; charset=utf-8");
    }
    pthread_mutex_unlock(&x->lock);
    if (gone) gone_while_waiting(x);
}

am_status am_models_lease(am_exchange *x, am_str name, bool stream, am_api_error *e) {
    am_registry *registry = am_models_of(x->server);
    am_error err = {0};
    if (x->instance) return AM_OK;
    if (x->lease_ended) {
        fail_lease(x->lease_status, x->lease_why, am_registry_gate(registry) >= AM_GATE_DRAINING, e);
        return x->lease_status;
    }
    if (name.n && am_options_of(x->server)->unknown_model_ok && !am_registry_has(registry, name)) name = (am_str){0};
    am_exchange_ref(x); /* the registry's, while it waits */
    am_status status = am_registry_acquire(registry, name, on_acquired, x, &x->instance, &err);
    if (status == AM_AGAIN) {
        wait_openly(x, stream);
        return status;
    }
    am_exchange_unref(x);
    if (status == AM_ELIMIT) {
        am_api_fail(e, 429, "queue_full", NULL, "%s", err.message);
        e->retry_after_s = 2;
    } else if (status) {
        fail_lease(status, err.message, am_registry_gate(registry) >= AM_GATE_DRAINING, e);
    }
    return status;
}

void am_models_release(am_exchange *x) {
    am_instance *instance = x->instance;
    x->instance = NULL;
    if (instance) am_registry_release(am_models_of(x->server), instance);
}

uint32_t am_model_context(const am_model_view *v) { return v->stats.n_ctx ? v->stats.n_ctx : v->entry->n_ctx ? v->entry->n_ctx : v->facts.n_ctx; }

/* What programs ask about a model: OpenAI's members, sizes under the names that clients look for, then ours. */
json_t *am_model_json(const am_server *server, const am_model_view *v) {
    const am_model_facts *f = &v->facts;
    uint32_t n_ctx = am_model_context(v);
    json_t *aliases = json_array();
    for (size_t i = 0; i < v->entry->n_aliases; i++) json_array_append_new(aliases, json_string(v->entry->aliases[i]));
    json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:I, s:I, s:s, s:b, s:b, s:o}", "id", v->entry->name, "object", "model", "created",
                          (json_int_t)server->started_s, "owned_by", "local", "context_length", (json_int_t)n_ctx, "max_model_len", (json_int_t)n_ctx,
                          "state", am_model_state_name(v->state), "default", (int)v->is_default, "pin", (int)v->entry->pin, "aliases", aliases);
    if (v->error[0]) json_object_set_new(o, "error", json_string(v->error));
    if (!v->has_facts) return o;
    json_object_set_new(o, "meta", json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "architecture", f->architecture, "format", f->format,
                                             "forms", f->forms, "n_params", (json_int_t)f->n_params, "n_vocab", (json_int_t)f->n_vocab, "n_embd", (json_int_t)f->n_embd, "n_layer",
                                             (json_int_t)f->n_layer, "n_ctx_train", (json_int_t)f->n_ctx, "weight_bytes", (json_int_t)f->weight_bytes));
    json_object_set_new(o, "spec", json_pack("{s:I, s:I, s:I, s:I, s:I}", "n_layers", (json_int_t)f->n_layer, "n_kv_heads", (json_int_t)f->n_kv_head,
                                             "head_dim", (json_int_t)f->head_dim, "block_tokens", (json_int_t)AM_BLOCK_TOKENS, "max_context_length",
                                             (json_int_t)n_ctx));
    return o;
}

typedef struct each {
    am_model_id_fn *fn;
    void *arg;
} each;

/* Aliases without a star are listed too: some clients only offer what they find here. */
static void each_id(void *arg, const am_model_view *view) {
    const each *e = arg;
    e->fn(e->arg, view, view->entry->name);
    for (size_t i = 0; i < view->entry->n_aliases; i++)
        if (!strchr(view->entry->aliases[i], '*')) e->fn(e->arg, view, view->entry->aliases[i]);
}

void am_models_each(const am_server *server, am_model_id_fn *fn, void *arg) { am_registry_each(am_models_of(server), each_id, &(each){fn, arg}); }

typedef struct listing {
    const am_server *server;
    json_t *list;
} listing;

static void add_model(void *arg, const am_model_view *view, const char *id) {
    listing *l = arg;
    json_t *o = am_model_json(l->server, view);
    if (strcmp(id, view->entry->name)) {
        json_object_set_new(o, "id", json_string(id));
        json_object_set_new(o, "root", json_string(view->entry->name));
        json_object_del(o, "aliases");
    }
    json_array_append_new(l->list, o);
}

void am_handle_models(am_exchange *x) {
    if (x->dialect == &am_dialect_anthropic) {
        am_anthropic_models(x);
        return;
    }
    listing l = {x->server, json_array()};
    am_models_each(x->server, add_model, &l);
    am_reply_json(x, 200, json_pack("{s:s, s:o}", "object", "list", "data", l.list));
}

void am_handle_model(am_exchange *x) {
    am_model_view view;
    am_api_error e;
    am_error err = {0};
    bool found = am_registry_find(am_models_of(x->server), am_buf_str(&x->param), &view);
    if (found && x->dialect == &am_dialect_anthropic) {
        am_anthropic_model(x, &view);
        return;
    }
    if (found) {
        json_t *o = am_model_json(x->server, &view);
        json_object_set_new(o, "id", json_string(x->param.p));
        am_reply_json(x, 200, o);
        return;
    }
    am_registry_unknown(am_models_of(x->server), am_buf_str(&x->param), &err);
    am_api_fail(&e, 404, "model_not_found", "model", "%s", err.message);
    am_reply_error(x, &e);
}
