/* Owns the registry's end, in the stages that shutdown logs. Between them nobody may ask for a model any more; leases that are still out belong to
 * requests that the engines end. */
#include "agents/registry_int.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

static void refuse_all(am_registry *r) {
    pthread_mutex_lock(&r->lock);
    am_waiting *waiting = r->waiting;
    am_op_item *ops = r->ops;
    r->waiting = NULL;
    r->ops = NULL;
    pthread_mutex_unlock(&r->lock);
    for (am_waiting *w = waiting, *next; w; w = next) {
        next = w->next;
        w->fn(w->arg, NULL, AM_ESHUTDOWN, "the server is shutting down");
        free(w);
    }
    am_op_result result = {.status = AM_ESHUTDOWN, .message = "the server is shutting down"};
    for (am_op_item *item = ops, *next; item; item = next) {
        next = item->next;
        if (item->op.done) item->op.done(item->op.arg, &result);
        free(item);
    }
}

void am_registry_begin_end(am_registry *r) {
    pthread_mutex_lock(&r->lock);
    r->ending = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (r->has_thread) pthread_join(r->thread, NULL);
    r->has_thread = false;
    refuse_all(r);
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i]->instance) {
            am_engine_pause(am_instance_engine(r->slots[i]->instance), false);
            am_engine_stop_admitting(am_instance_engine(r->slots[i]->instance));
        }
}

void am_registry_drain(am_registry *r, uint32_t timeout_ms, const volatile int *hurry) {
    uint64_t start = am_now_ns();
    for (size_t i = 0; i < r->n_slots; i++) {
        double gone_ms = am_ms_since(start);
        uint32_t left_ms = gone_ms < timeout_ms ? timeout_ms - (uint32_t)gone_ms : 0;
        if (r->slots[i]->instance) am_engine_drain(am_instance_engine(r->slots[i]->instance), left_ms, hurry);
    }
}

static am_status count_dirty(void *arg, const am_agent_info *info) {
    if (info->dirty) ++*(unsigned *)arg;
    return AM_OK;
}
static void count_dirty_heads(void *arg, am_cache *cache) { am_cache_agents(cache, NULL, count_dirty, arg); }

unsigned am_registry_persist(am_registry *r) {
    unsigned n_dirty = 0;
    for (size_t i = 0; i < r->n_slots; i++) {
        am_error err = {0};
        if (!r->slots[i]->instance) continue;
        am_engine *engine = am_instance_engine(r->slots[i]->instance);
        if (am_engine_persist(engine, &err)) am_log(AM_LOG_ERROR, "persist_failed", AM_LS("reason", err.message));
        am_engine_call(engine, count_dirty_heads, &n_dirty);
    }
    return n_dirty;
}

void am_registry_stop_engines(am_registry *r) {
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i]->instance) am_instance_stop_engine(r->slots[i]->instance);
}

void am_registry_unload_models(am_registry *r) {
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i]->instance) am_instance_unload_model(r->slots[i]->instance);
}

void am_registry_free(am_registry *r) {
    if (!r) return;
    if (r->has_thread) am_registry_begin_end(r);
    for (size_t i = 0; i < r->n_slots; i++) {
        am_instance_free(r->slots[i]->instance);
        free(r->slots[i]);
    }
    free(r->slots);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    am_arena_free(r->arena);
    free(r);
}
