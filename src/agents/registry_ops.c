/* Owns what operators ask for, one function each. They run on the registry's thread one after the other, so none meets another's half-done work. */
#include "agents/registry_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RESIDENT = 256 };
static const char *const names[] = {"load", "unload", "swap", "drain", "persist", "evict", "clear", "clear_pool"};

static void say(am_op_result *result, am_status status, const am_error *err) {
    result->status = status;
    if (status) snprintf(result->message, sizeof result->message, "%s", err->message[0] ? err->message : am_status_text(status));
}

static am_slot *slot_of(am_registry *r, const char *name) {
    pthread_mutex_lock(&r->lock);
    am_slot *slot = am_registry_slot(r, am_str_of(name));
    pthread_mutex_unlock(&r->lock);
    return slot;
}

static void take_change(am_op_result *result, const am_change *change) {
    result->n_finished += change->n_finished;
    result->n_canceled += change->n_canceled;
    result->bytes += change->bytes;
    result->rolled_back = change->rolled_back;
}

static void load(am_registry *r, const am_op *op, am_change *change, am_op_result *result) {
    am_slot *slot = slot_of(r, op->model);
    am_error err = {0};
    snprintf(result->model, sizeof result->model, "%s", slot->entry.name);
    say(result, am_registry_ensure(r, slot, change, &err), &err);
    am_registry_deliver(r, slot);
}

static void swap(am_registry *r, const am_op *op, am_change *change, am_op_result *result) {
    am_slot *to = slot_of(r, op->model), *from = slot_of(r, op->from);
    am_error err = {0};
    snprintf(result->model, sizeof result->model, "%s", to->entry.name);
    snprintf(result->from, sizeof result->from, "%s", from->entry.name);
    say(result, am_registry_swap(r, from, to, change, &err), &err);
    am_registry_deliver(r, to);
}

/* Those that are meant and in memory. */
static size_t resident(am_registry *r, const char *model, am_slot **out, size_t cap) {
    size_t n = 0;
    pthread_mutex_lock(&r->lock);
    am_slot *only = *model ? am_registry_slot(r, am_str_of(model)) : NULL;
    for (size_t i = 0; i < r->n_slots && n < cap; i++)
        if (r->slots[i]->state == AM_MODEL_READY && (!only || only == r->slots[i])) out[n++] = r->slots[i];
    pthread_mutex_unlock(&r->lock);
    return n;
}

static void unload(am_registry *r, const am_op *op, am_change *change, am_op_result *result) {
    am_slot *slots[MAX_RESIDENT];
    size_t n = resident(r, op->model, slots, MAX_RESIDENT);
    am_error err = {0};
    if (*op->model) snprintf(result->model, sizeof result->model, "%s", slot_of(r, op->model)->entry.name);
    for (size_t i = 0; i < n && !result->status; i++) {
        say(result, am_registry_drop(r, slots[i], change, "asked", &err), &err);
        result->n_models += !result->status;
    }
}

/* Who waits for a model has no answer begun: it is told to come back. */
static void refuse_waiting(am_registry *r) {
    pthread_mutex_lock(&r->lock);
    am_waiting *all = r->waiting;
    r->waiting = NULL;
    r->waiting_tail = &r->waiting;
    r->n_waiting = 0;
    pthread_mutex_unlock(&r->lock);
    for (am_waiting *w = all, *next; w; w = next) {
        next = w->next;
        w->fn(w->arg, NULL, AM_ESHUTDOWN, "the server was drained by its operator");
        free(w);
    }
}

static bool persist_one(am_instance *instance, am_op_result *result) {
    am_error err = {0};
    am_status status = am_engine_persist(am_instance_engine(instance), &err);
    if (status) say(result, status, &err);
    return status == AM_OK;
}

static void set_gate(am_registry *r, am_gate_state from, am_gate_state to) {
    pthread_mutex_lock(&r->lock);
    if (r->gate == from) r->gate = to;
    pthread_mutex_unlock(&r->lock);
}

static void drain(am_registry *r, am_change *change, am_op_result *result) {
    am_slot *slots[MAX_RESIDENT];
    uint64_t start = am_now_ns();
    uint32_t timeout_ms = change->timeout_ms;
    pthread_mutex_lock(&r->lock);
    r->gate = AM_GATE_DRAINING;
    r->paused = false; /* what stands still would never end */
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i]->instance) am_engine_pause(am_instance_engine(r->slots[i]->instance), false);
    pthread_mutex_unlock(&r->lock);
    refuse_waiting(r);
    size_t n = resident(r, "", slots, MAX_RESIDENT);
    for (size_t i = 0; i < n; i++) { /* one time for all */
        double gone_ms = am_ms_since(start);
        change->timeout_ms = gone_ms < timeout_ms ? timeout_ms - (uint32_t)gone_ms : 0;
        if (am_registry_quiet(r, slots[i], change, true)) {
            am_error err;
            am_fail(&err, AM_ECANCELED, "the server was resumed, or ends, while it was being drained");
            say(result, AM_ECANCELED, &err);
            return;
        }
        persist_one(slots[i]->instance, result);
        result->n_models++;
    }
    set_gate(r, AM_GATE_DRAINING, AM_GATE_DRAINED);
}

typedef struct cache_call {
    const am_op *op;
    am_op_result *result;
} cache_call;

static am_status count_idle(void *arg, const am_agent_info *info) {
    am_op_result *result = arg;
    if (info->running) result->n_busy++;
    else if (info->memory_bytes) result->n_agents++;
    return AM_OK;
}

static void evict(void *arg, am_cache *cache) {
    cache_call *call = arg;
    const am_op *op = call->op;
    const am_tenant *tenant = op->any_tenant ? NULL : &op->tenant;
    am_cache_stats before, after;
    am_agent_info info;
    am_cache_stats_get(cache, &before);
    call->result->n_busy += am_cache_n_coming(cache, tenant, am_str_of(op->agent));
    if (op->agent[0]) {
        if (am_cache_agent(cache, &op->tenant, am_str_of(op->agent), &info)) return;
        count_idle(call->result, &info);
        am_cache_evict(cache, &op->tenant, am_str_of(op->agent), NULL);
    } else {
        am_cache_agents(cache, tenant, count_idle, call->result);
        am_cache_evict(cache, tenant, (am_str){0}, NULL);
        if (!tenant) call->result->bytes += am_cache_trim(cache, false);
    }
    am_cache_stats_get(cache, &after);
    am_cache_memory memory;
    am_cache_memory_get(cache, &memory);
    call->result->n_blocks += before.n_sealed_used - after.n_sealed_used;
    if (tenant || op->agent[0])
        call->result->bytes += (before.n_sealed_used - after.n_sealed_used) * memory.sealed_slot_bytes + (before.n_open_used - after.n_open_used) * memory.open_slot_bytes;
}

static void clear(void *arg, am_cache *cache) {
    cache_call *call = arg;
    const am_op *op = call->op;
    am_cache_stats before, after;
    am_cache_stats_get(cache, &before);
    if (op->agent[0]) {
        am_status status = am_cache_rm(cache, &op->tenant, am_str_of(op->agent), NULL);
        call->result->n_agents += status == AM_OK;
        call->result->n_busy += (status == AM_EBUSY) + am_cache_n_coming(cache, &op->tenant, am_str_of(op->agent));
    } else {
        uint32_t n_busy;
        call->result->n_agents += am_cache_clear(cache, op->any_tenant ? NULL : &op->tenant, &n_busy);
        call->result->n_busy += n_busy;
    }
    am_cache_stats_get(cache, &after);
    call->result->n_blocks += before.n_blocks_disk - after.n_blocks_disk;
    call->result->bytes += before.disk_bytes - after.disk_bytes;
}

static void clear_pool(void *arg, am_cache *cache) {
    cache_call *call = arg;
    am_cache_stats before, after;
    am_cache_stats_get(cache, &before);
    call->result->bytes += am_cache_trim(cache, true);
    am_cache_stats_get(cache, &after);
    call->result->n_blocks += before.n_sealed_used - after.n_sealed_used;
    call->result->n_busy += after.n_sealed_used + after.n_open_used; /* slots that somebody took in between */
}

/* fn on the cache of every model that is meant and in memory. first: what is done before with each. */
static void on_caches(am_registry *r, const am_op *op, void (*fn)(void *, am_cache *), am_op_result *result) {
    am_slot *slots[MAX_RESIDENT];
    cache_call call = {op, result};
    size_t n = resident(r, op->model, slots, MAX_RESIDENT);
    if (*op->model) snprintf(result->model, sizeof result->model, "%s", slot_of(r, op->model)->entry.name);
    for (size_t i = 0; i < n; i++) {
        am_engine *engine = am_instance_engine(slots[i]->instance);
        if (op->kind == AM_OP_CLEAR_POOL) {
            am_engine_stats stats;
            am_engine_stats_get(engine, &stats);
            result->n_canceled += stats.n_running + stats.n_queued;
            am_engine_cancel_all(engine);
        }
        bool persisted = op->kind == AM_OP_CLEAR || persist_one(slots[i]->instance, result);
        if (fn && (persisted || op->kind == AM_OP_CLEAR_POOL)) am_engine_call(engine, fn, &call);
        result->n_models++;
    }
}

typedef struct tags {
    am_hash list[MAX_RESIDENT];
    size_t n;
} tags;

static void add_tag(void *arg, am_cache *cache) {
    tags *t = arg;
    t->list[t->n++] = am_cache_tag(cache);
}

/* Of every model, in memory or not: models come and go on this thread, so that which are open cannot change meanwhile. */
static void clear_all_models(am_registry *r, const am_op *op, am_op_result *result) {
    am_slot *slots[MAX_RESIDENT];
    tags open = {.n = 0};
    am_error err = {0};
    on_caches(r, op, clear, result);
    size_t n = resident(r, "", slots, MAX_RESIDENT);
    for (size_t i = 0; i < n; i++) am_engine_call(am_instance_engine(slots[i]->instance), add_tag, &open);
    const am_instance_options *o = &r->options.instance;
    am_absent which = {.dir = o->cache_dir, .folder = o->folder, .open = open.list, .n_open = open.n, .tenant = op->any_tenant ? NULL : &op->tenant, .agent = am_str_of(op->agent)};
    am_absent_result absent;
    am_status status = am_cache_clear_absent(&which, &absent, &err);
    result->n_agents += absent.n_agents;
    result->n_blocks += absent.n_blocks;
    result->bytes += absent.bytes;
    if (!status && op->any_tenant && !op->agent[0]) status = am_cache_clear_refused(o->cache_dir, &result->n_refused, &err);
    if (!status) status = am_fs_sync_dir(o->cache_dir, &err); /* what was forgotten does not come back with a power cut */
    if (status) say(result, status, &err);
}

/* A model's agents are known by the tag that it has once it is loaded. */
static void clear_one_model(am_registry *r, const am_op *op, am_op_result *result) {
    am_error err = {0};
    on_caches(r, op, clear, result);
    if (!result->n_models) say(result, am_fail(&err, AM_EBUSY, "model '%s' is not in memory: load it first, or clear without naming a model", op->model), &err);
}

static void run(am_registry *r, const am_op *op, am_op_result *result) {
    am_change change = {.timeout_ms = op->timeout_ms == UINT32_MAX ? r->options.drain_ms : op->timeout_ms};
    switch (op->kind) {
    case AM_OP_LOAD: load(r, op, &change, result); break;
    case AM_OP_UNLOAD: unload(r, op, &change, result); break;
    case AM_OP_SWAP: swap(r, op, &change, result); break;
    case AM_OP_DRAIN: drain(r, &change, result); break;
    case AM_OP_PERSIST: on_caches(r, op, NULL, result); break;
    case AM_OP_EVICT: on_caches(r, op, evict, result); break;
    case AM_OP_CLEAR: op->model[0] ? clear_one_model(r, op, result) : clear_all_models(r, op, result); break;
    case AM_OP_CLEAR_POOL: on_caches(r, op, clear_pool, result); break;
    }
    take_change(result, &change);
}

void am_registry_run(am_registry *r, const am_op *op) {
    uint64_t start = am_now_ns();
    am_op_result result = {.status = AM_OK};
    run(r, op, &result);
    result.ms = am_ms_since(start);
    am_log(result.status ? AM_LOG_ERROR : AM_LOG_INFO, "operation", AM_LS("what", names[op->kind]), AM_LS("model", result.model), AM_LS("from", result.from),
           AM_LU("finished", result.n_finished), AM_LU("canceled", result.n_canceled), AM_LU("agents", result.n_agents), AM_LU("busy", result.n_busy),
           AM_LU("blocks", result.n_blocks), AM_LU("bytes", result.bytes), AM_LF("ms", result.ms), AM_LS("error", result.message));
    if (op->done) op->done(op->arg, &result);
}
