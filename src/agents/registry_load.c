/* Owns how models come and go: room is made, what leaves is drained and persisted, what comes is looked at first, and when it cannot be loaded
 * all the same, what had left comes back. All of it runs on the registry's thread. */
#include "agents/registry_int.h"

#include "base/clock.h"
#include "base/footprint.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long long mib(uint64_t bytes) { return (unsigned long long)(bytes >> 20); }

static void set_state(am_registry *r, am_slot *slot, am_model_state state) {
    pthread_mutex_lock(&r->lock);
    slot->state = state;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static am_status failed(am_registry *r, am_slot *slot, am_status status, const am_error *err) {
    pthread_mutex_lock(&r->lock);
    slot->state = AM_MODEL_FAILED;
    slot->failed = status;
    slot->n_failures++;
    slot->failed_ns = am_now_ns();
    snprintf(slot->error, sizeof slot->error, "%s", err->message);
    pthread_mutex_unlock(&r->lock);
    am_log(AM_LOG_ERROR, "model_failed", AM_LS("model", slot->entry.name), AM_LS("reason", err->message));
    return status;
}

void am_registry_deliver(am_registry *r, am_slot *slot) {
    am_waiting *mine = NULL, **mine_tail = &mine;
    char why[512];
    pthread_mutex_lock(&r->lock);
    bool ready = slot->state == AM_MODEL_READY;
    for (am_waiting **at = &r->waiting, *w; (w = *at);) {
        if ((w->slot ? w->slot : r->preferred) != slot) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = NULL;
        *mine_tail = w;
        mine_tail = &w->next;
        r->n_waiting--;
        if (ready) slot->n_leases++;
    }
    r->waiting_tail = &r->waiting;
    while (*r->waiting_tail) r->waiting_tail = &(*r->waiting_tail)->next;
    if (ready) slot->used_ns = am_now_ns();
    am_instance *instance = ready ? slot->instance : NULL;
    am_status status = ready ? AM_OK : r->ending ? AM_ESHUTDOWN : slot->failed;
    snprintf(why, sizeof why, "%s", r->ending ? "the server is shutting down" : slot->error);
    pthread_mutex_unlock(&r->lock);
    for (am_waiting *w = mine, *next; w; w = next) {
        next = w->next;
        w->fn(w->arg, instance, status, why);
        free(w);
    }
}

am_status am_registry_quiet(am_registry *r, am_slot *slot, am_change *change, bool while_closed) {
    uint64_t start = am_now_ns();
    bool canceled = false;
    am_status status = AM_OK;
    pthread_mutex_lock(&r->lock);
    uint32_t n_before = slot->n_leases;
    while (slot->n_leases) {
        if (r->ending || (while_closed && r->gate != AM_GATE_DRAINING)) {
            status = AM_ESHUTDOWN;
            break;
        }
        if (am_ms_since(start) < change->timeout_ms) {
            am_registry_wait(r, AM_DRAIN_POLL_MS);
            continue;
        }
        /* again and again: one that was being tokenised comes to the engine only now */
        if (!canceled) change->n_canceled += slot->n_leases;
        canceled = true;
        am_engine_cancel_all(am_instance_engine(slot->instance));
        am_registry_wait(r, AM_DRAIN_POLL_MS);
    }
    if (!status && !canceled) change->n_finished += n_before;
    pthread_mutex_unlock(&r->lock);
    return status;
}

static am_status count_dirty(void *arg, const am_agent_info *info) {
    if (info->dirty) ++*(uint32_t *)arg;
    return AM_OK;
}
static void count_dirty_heads(void *arg, am_cache *cache) { am_cache_agents(cache, NULL, count_dirty, arg); }

am_status am_registry_drop(am_registry *r, am_slot *slot, am_change *change, const char *why, am_error *err) {
    uint64_t start = am_now_ns();
    uint32_t n_dirty = 0;
    pthread_mutex_lock(&r->lock);
    am_instance *instance = slot->state == AM_MODEL_READY ? slot->instance : NULL;
    if (instance) slot->state = AM_MODEL_DRAINING;
    pthread_mutex_unlock(&r->lock);
    if (!instance) return AM_OK;
    am_status status = am_registry_quiet(r, slot, change, false);
    if (status) {
        set_state(r, slot, AM_MODEL_READY);
        return am_fail(err, status, "the server is shutting down");
    }
    status = am_engine_persist(am_instance_engine(instance), err);
    if (!status) am_engine_call(am_instance_engine(instance), count_dirty_heads, &n_dirty);
    if (status || n_dirty) { /* agents are worth more than room */
        set_state(r, slot, AM_MODEL_READY);
        am_log(AM_LOG_ERROR, "model_kept", AM_LS("model", slot->entry.name), AM_LS("reason", err->message));
        return status ? status : am_fail(err, AM_EIO, "%u agents of '%s' could not be written, so it stays", n_dirty, slot->entry.name);
    }
    am_engine_stats stats;
    am_engine_stats_get(am_instance_engine(instance), &stats);
    pthread_mutex_lock(&r->lock);
    slot->instance = NULL;
    am_registry_count_past(slot, &stats);
    change->bytes += slot->bytes;
    pthread_mutex_unlock(&r->lock);
    am_instance_free(instance);
    set_state(r, slot, AM_MODEL_ABSENT);
    am_log(AM_LOG_INFO, "model_unloaded", AM_LS("model", slot->entry.name), AM_LS("why", why), AM_LU("mb", slot->bytes >> 20), AM_LF("ms", am_ms_since(start)));
    return AM_OK;
}

static am_status load_here(am_registry *r, am_slot *slot, am_error *err) {
    uint64_t start = am_now_ns();
    am_instance *instance;
    set_state(r, slot, AM_MODEL_LOADING);
    pthread_mutex_lock(&r->lock);
    am_instance_options options = r->options.instance;
    pthread_mutex_unlock(&r->lock);
    am_log(AM_LOG_INFO, "model_loading", AM_LS("model", slot->entry.name), AM_LS("path", slot->entry.path ? slot->entry.path : "(embedded)"));
    am_status status = am_instance_load(&options, &slot->entry, &slot->meter, &instance, err);
    if (status) return failed(r, slot, status, err);
    const am_model_info *info = am_instance_info(instance);
    am_engine_stats stats;
    am_engine_stats_get(am_instance_engine(instance), &stats);
    pthread_mutex_lock(&r->lock);
    am_engine_pause(am_instance_engine(instance), r->paused);
    if (r->options.instance.seed != options.seed) am_engine_seed(am_instance_engine(instance), r->options.instance.seed); /* said meanwhile */
    slot->instance = instance;
    slot->bytes = am_instance_bytes(instance);
    slot->n_loads++;
    slot->load_ms = am_ms_since(start);
    slot->used_ns = am_now_ns();
    slot->loaded_s = slot->used_s = am_wall_ns() / 1000000000u;
    slot->error[0] = 0;
    am_model_facts_of(info, &slot->facts);
    slot->has_facts = true;
    slot->state = AM_MODEL_READY;
    pthread_mutex_unlock(&r->lock);
    am_log(AM_LOG_INFO, "model_loaded", AM_LS("model", info->name), AM_LS("format", info->format), AM_LU("weights_mb", info->weight_bytes >> 20),
           AM_LU("ctx", stats.n_ctx), AM_LU("kv_mb", stats.cache.memory_bytes >> 20), AM_LU("agents", stats.cache.n_heads), AM_LF("ms", slot->load_ms));
    return AM_OK;
}

/* What had to leave comes back, the last first. */
static void roll_back(am_registry *r, am_change *change) {
    while (change->n_gone) {
        am_slot *slot = change->gone[--change->n_gone];
        am_error err = {0};
        if (load_here(r, slot, &err) == AM_OK) change->rolled_back = true;
        am_registry_deliver(r, slot);
    }
}

/* Two caches of one model on one folder would not see each other's agents. */
static bool same_model(const am_slot *a, const am_slot *b) {
    const char *p = a->entry.path ? a->entry.path : "", *q = b->entry.path ? b->entry.path : "";
    return strcmp(p, q) == 0 && a->entry.bits_k == b->entry.bits_k && a->entry.bits_v == b->entry.bits_v;
}

static bool leaves_first(const am_slot *a, const am_slot *b) {
    if (!a->n_leases != !b->n_leases) return !a->n_leases;
    return a->used_ns < b->used_ns;
}

/* The one of stay[n] whose turn it is; n: nobody may. */
static size_t next_to_leave(am_slot *const *stay, size_t n, const am_slot *slot, const am_slot *first) {
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (same_model(stay[i], slot)) return i;
    for (size_t i = 0; i < n; i++) {
        if (stay[i] == first) return i;
        if (!stay[i]->entry.pin && (best == n || leaves_first(stay[i], stay[best]))) best = i;
    }
    return best;
}

typedef struct room {
    am_slot *leave[AM_MAX_GONE];
    size_t n_leave;
} room;

static uint64_t bytes_to_come(const am_registry *r, const am_slot *slot, const am_model_facts *facts) {
    return slot->bytes ? slot->bytes : facts->weight_bytes + am_registry_kv_bytes(r, slot);
}

static am_status too_large(const am_registry *r, const am_slot *slot, uint64_t need, uint64_t stays, am_error *err) {
    return am_fail(err, AM_ELIMIT, "model '%s' takes about %llu MiB with its cache; %llu MiB of the %llu MiB for models (--model-memory) are taken by what stays",
                   slot->entry.name, mib(need), mib(stays), mib(am_registry_memory_limit(r)));
}

/* Whoever must leave so that slot fits: those that cannot stay beside it, then the least recently used. Nothing is done yet. */
static am_status find_room(am_registry *r, am_slot *slot, am_slot *first, const am_model_facts *facts, room *out, am_error *err) {
    uint64_t limit = am_registry_memory_limit(r), need = bytes_to_come(r, slot, facts), taken = 0;
    am_slot *stay[256];
    size_t n = 0;
    *out = (room){.n_leave = 0};
    if (facts->weight_bytes > am_memory_total())
        return am_fail(err, AM_ELIMIT, "model '%s' has %llu MiB of weights, this machine %llu MiB of memory", slot->entry.name, mib(facts->weight_bytes),
                       mib(am_memory_total()));
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n_slots && n < 256; i++) {
        am_slot *s = r->slots[i];
        if (s == slot || s->state != AM_MODEL_READY) continue;
        taken += s->bytes;
        stay[n++] = s;
    }
    for (size_t i; (i = next_to_leave(stay, n, slot, first)) < n && out->n_leave < AM_MAX_GONE; stay[i] = stay[--n]) {
        if (taken + need <= limit && !same_model(stay[i], slot)) break;
        taken -= stay[i]->bytes;
        out->leave[out->n_leave++] = stay[i];
    }
    pthread_mutex_unlock(&r->lock);
    /* without a limit of the operator's, a model that is alone is let in: it is the machine's choice, not ours */
    bool fits = taken + need <= limit || (!r->options.memory_bytes && taken == 0);
    return fits ? AM_OK : too_large(r, slot, need, taken, err);
}

static am_status look_at(am_registry *r, am_slot *slot, am_model_facts *facts, am_error *err) {
    am_status status = am_model_probe(slot->entry.path, facts, err);
    pthread_mutex_lock(&r->lock);
    if (!status && !slot->n_loads) {
        slot->facts = *facts;
        slot->has_facts = true;
    }
    pthread_mutex_unlock(&r->lock);
    return status;
}

static am_status ensure(am_registry *r, am_slot *slot, am_slot *first, am_change *change, am_error *err) {
    am_model_facts facts;
    room found;
    pthread_mutex_lock(&r->lock);
    bool ready = slot->state == AM_MODEL_READY;
    pthread_mutex_unlock(&r->lock);
    if (ready) return AM_OK;
    am_status status = look_at(r, slot, &facts, err);
    if (!status) status = find_room(r, slot, first, &facts, &found, err);
    if (status) return failed(r, slot, status, err);
    for (size_t i = 0; !status && i < found.n_leave; i++) {
        status = am_registry_drop(r, found.leave[i], change, "room", err);
        if (!status) change->gone[change->n_gone++] = found.leave[i];
    }
    if (status) failed(r, slot, status, err);
    else status = load_here(r, slot, err);
    if (status) roll_back(r, change);
    return status;
}

am_status am_registry_ensure(am_registry *r, am_slot *slot, am_change *change, am_error *err) { return ensure(r, slot, NULL, change, err); }

am_status am_registry_swap(am_registry *r, am_slot *from, am_slot *to, am_change *change, am_error *err) {
    am_status status = ensure(r, to, from, change, err);
    if (status) return status;
    pthread_mutex_lock(&r->lock);
    if (r->preferred == from) r->preferred = to;
    pthread_mutex_unlock(&r->lock);
    am_registry_deliver(r, to);
    return from == to ? AM_OK : am_registry_drop(r, from, change, "swap", err);
}
