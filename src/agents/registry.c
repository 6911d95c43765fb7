/* Owns the table of models: names, leases, who waits, and the registry's thread, which takes what operators ask for first, then who waits
 * longest, then what is idle for too long. How a model is loaded and dropped is registry_load.c's. */
#include "agents/registry_int.h"

#include "base/clock.h"
#include "base/footprint.h"
#include "base/inhand.h"
#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_OPS = 64, FAILED_FOR_MS = 5000, IDLE_LOOK_MS = 1000 };

static const char *const states[] = {"absent", "loading", "ready", "draining", "failed"};
static const char *const gates[] = {"open", "paused", "draining", "drained"};
const char *am_model_state_name(am_model_state state) { return states[state]; }
const char *am_gate_state_name(am_gate_state state) { return gates[state]; }

uint64_t am_registry_memory_limit(const am_registry *r) { return r->options.memory_bytes ? r->options.memory_bytes : am_memory_total() / 4 * 3; }
am_absent_usage am_registry_absent(const am_registry *r, const am_tenant *tenant, am_str agent) {
    return am_cache_absent_usage(r->options.instance.folder, tenant, agent);
}

uint64_t am_registry_disk_bytes(const am_registry *r) { return atomic_load(&r->options.instance.folder->disk_bytes); }

uint64_t am_registry_kv_bytes(const am_registry *r, const am_slot *slot) {
    uint64_t own = slot->entry.kv_memory_bytes, general = r->options.instance.kv_memory_bytes;
    return own ? own : general ? general : am_memory_total() / 4;
}

/* * stands for any run of characters. */
static bool matches(const char *pattern, am_str name) {
    const char *star = NULL;
    size_t i = 0, back = 0;
    while (i < name.n) {
        if (*pattern == '*') {
            star = ++pattern;
            back = i;
        } else if (*pattern && *pattern == name.p[i]) {
            pattern++;
            i++;
        } else if (star) {
            pattern = star;
            i = ++back;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}

/* A name wins over aliases, an alias over patterns, an earlier entry over a later one. */
am_slot *am_registry_slot(const am_registry *r, am_str name) {
    if (name.n == 0) return r->preferred;
    for (size_t i = 0; i < r->n_slots; i++)
        if (am_str_eq(am_str_of(r->slots[i]->entry.name), name)) return r->slots[i];
    for (int patterns = 0; patterns < 2; patterns++)
        for (size_t i = 0; i < r->n_slots; i++)
            for (size_t k = 0; k < r->slots[i]->entry.n_aliases; k++) {
                const char *alias = r->slots[i]->entry.aliases[k];
                if (patterns ? matches(alias, name) : am_str_eq(am_str_of(alias), name)) return r->slots[i];
            }
    return NULL;
}

static const char *copy(am_registry *r, const char *text) { return text ? am_arena_strdup(r->arena, am_str_of(text)) : NULL; }

static am_status slot_add(am_registry *r, const am_model_entry *entry, am_error *err) {
    char name[256];
    am_model_entry_name(entry, name);
    am_slot *taken = am_registry_slot(r, am_str_of(name));
    if (taken && strcmp(taken->entry.name, name) == 0) return am_fail(err, AM_EEXIST, "two models are called '%s': give one another name (--model NAME=PATH)", name);
    am_slot *slot = am_calloc(1, sizeof *slot), **slots = am_calloc(r->n_slots + 1, sizeof *slots);
    if (!slot || !slots) goto no_memory;
    slot->entry = *entry;
    slot->entry.name = copy(r, name);
    slot->entry.path = copy(r, entry->path);
    slot->entry.template_path = copy(r, entry->template_path);
    const char **aliases = am_arena_alloc(r->arena, (entry->n_aliases + 1) * sizeof *aliases);
    if (!slot->entry.name || !aliases) goto no_memory;
    for (size_t i = 0; i < entry->n_aliases; i++)
        if (!(aliases[i] = copy(r, entry->aliases[i]))) goto no_memory;
    slot->entry.aliases = aliases;
    if (r->n_slots) memcpy(slots, r->slots, r->n_slots * sizeof *slots);
    slots[r->n_slots++] = slot;
    free(r->slots);
    r->slots = slots;
    return AM_OK;
no_memory:
    free(slot);
    free(slots);
    return am_fail(err, AM_ENOMEM, "no memory for model '%s'", name);
}

am_status am_registry_add(am_registry *r, const am_model_entry *entry, am_error *err) {
    pthread_mutex_lock(&r->lock);
    am_status status = slot_add(r, entry, err);
    pthread_mutex_unlock(&r->lock);
    return status;
}

void am_registry_started(am_registry *r) {
    pthread_mutex_lock(&r->lock);
    r->options.instance.progress = NULL;
    r->options.instance.progress_arg = NULL;
    pthread_mutex_unlock(&r->lock);
}

bool am_registry_wait(am_registry *r, uint32_t ms) {
    uint64_t ns = am_now_ns() + (uint64_t)ms * 1000000u;
    struct timespec until = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    return pthread_cond_timedwait(&r->changed, &r->lock, &until) == 0;
}

/* What was idle for longer than it may; NULL: nothing, or nothing yet. */
static am_slot *idle_slot(const am_registry *r) {
    uint64_t now = am_now_ns();
    for (size_t i = 0; i < r->n_slots; i++) {
        const am_slot *s = r->slots[i];
        uint64_t ms = s->entry.keep_alive_ms >= 0 ? (uint64_t)s->entry.keep_alive_ms : r->options.keep_alive_ms;
        if (s->state != AM_MODEL_READY || s->n_leases || s->entry.pin || ms == 0 || r->gate == AM_GATE_PAUSED) continue;
        if (now - s->used_ns > ms * 1000000u) return r->slots[i];
    }
    return NULL;
}

static am_op_item *take_op(am_registry *r) {
    am_op_item *item = r->ops;
    if (!item) return NULL;
    r->ops = item->next;
    if (!r->ops) r->ops_tail = &r->ops;
    r->n_ops--;
    return item;
}

static void load_for_waiting(am_registry *r, am_slot *slot) {
    am_change change = {.timeout_ms = r->options.drain_ms};
    am_error err = {0};
    if (slot->state != AM_MODEL_READY) am_registry_ensure(r, slot, &change, &err);
    am_registry_deliver(r, slot);
}

static void *thread_main(void *arg) {
    am_registry *r = arg;
    am_thread_begin("am-registry");
    pthread_mutex_lock(&r->lock);
    while (!r->ending) {
        am_op_item *item = take_op(r);
        am_slot *wanted = item || !r->waiting ? NULL : r->waiting->slot ? r->waiting->slot : r->preferred;
        am_slot *idle = item || wanted ? NULL : idle_slot(r);
        if (!item && !wanted && !idle) {
            am_registry_wait(r, IDLE_LOOK_MS);
            continue;
        }
        pthread_mutex_unlock(&r->lock);
        if (item) am_registry_run(r, &item->op);
        else if (wanted) load_for_waiting(r, wanted);
        else am_registry_drop(r, idle, &(am_change){0}, "idle", &(am_error){0});
        free(item);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static am_status init_lock(am_registry *r, am_error *err) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int failed = pthread_mutex_init(&r->lock, NULL) || pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    return failed ? am_fail(err, AM_ENOMEM, "no memory for the models' lock") : AM_OK;
}

static am_status start_thread(am_registry *r, am_error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    r->has_thread = pthread_create(&r->thread, NULL, thread_main, r) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r->has_thread ? AM_OK : am_fail(err, AM_ENOMEM, "cannot start the models' thread");
}

am_status am_registry_create(const am_registry_options *options, am_registry **out, am_error *err) {
    *out = NULL;
    am_registry *r = am_calloc(1, sizeof *r);
    if (!r || !(r->arena = am_arena_create(16 << 20))) {
        free(r);
        return am_fail(err, AM_ENOMEM, "no memory for the models");
    }
    r->options = *options;
    r->options.entries = NULL;
    r->waiting_tail = &r->waiting;
    r->ops_tail = &r->ops;
    am_status status = init_lock(r, err);
    for (size_t i = 0; !status && i < options->n_entries; i++) status = slot_add(r, &options->entries[i], err);
    const char *wanted = options->default_name ? options->default_name : "";
    if (!status) r->preferred = *wanted ? am_registry_slot(r, am_str_of(wanted)) : r->slots[0];
    if (!status && !r->preferred) status = am_fail(err, AM_EINVAL, "the default model '%s' is none of those there are", wanted);
    r->options.default_name = NULL;
    if (!status) status = start_thread(r, err);
    if (status) am_registry_free(r);
    else *out = r;
    return status;
}

static am_status no_such_model(const am_registry *r, am_str name, am_error *err) {
    char list[300] = "";
    size_t n = 0;
    for (size_t i = 0; i < r->n_slots && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s'%s'", i ? ", " : "", r->slots[i]->entry.name);
    return am_fail(err, AM_ENOTFOUND, "there is no model '%.*s' here; there is %s", (int)(name.n > 100 ? 100 : name.n), name.p, list);
}

void am_registry_unknown(am_registry *r, am_str name, am_error *err) {
    pthread_mutex_lock(&r->lock);
    no_such_model(r, name, err);
    pthread_mutex_unlock(&r->lock);
}

const char *am_registry_default(am_registry *r) {
    pthread_mutex_lock(&r->lock);
    const char *name = r->preferred->entry.name;
    pthread_mutex_unlock(&r->lock);
    return name;
}

bool am_registry_has(am_registry *r, am_str name) {
    pthread_mutex_lock(&r->lock);
    bool has = am_registry_slot(r, name) != NULL;
    pthread_mutex_unlock(&r->lock);
    return has;
}

static void take_lease(am_slot *slot) {
    slot->n_leases++;
    slot->used_ns = am_now_ns();
    slot->used_s = am_wall_ns() / 1000000000u;
}

static am_status wait_for(am_registry *r, am_slot *slot, am_acquired_fn *fn, void *arg, am_error *err) {
    uint32_t most = r->options.instance.max_queue ? r->options.instance.max_queue : 256;
    if (r->n_waiting >= most) return am_fail(err, AM_ELIMIT, "%u requests wait for a model already", r->n_waiting);
    am_waiting *w = am_calloc(1, sizeof *w);
    if (!w) return am_fail(err, AM_ENOMEM, "no memory for a request that waits");
    *w = (am_waiting){.slot = slot == r->preferred ? NULL : slot, .fn = fn, .arg = arg};
    *r->waiting_tail = w;
    r->waiting_tail = &w->next;
    r->n_waiting++;
    pthread_cond_broadcast(&r->changed);
    return AM_AGAIN;
}

am_status am_registry_acquire(am_registry *r, am_str name, am_acquired_fn *fn, void *arg, am_instance **out, am_error *err) {
    am_status status;
    *out = NULL;
    pthread_mutex_lock(&r->lock);
    am_slot *slot = am_registry_slot(r, name);
    if (r->ending) {
        status = am_fail(err, AM_ESHUTDOWN, "the server is shutting down");
    } else if (r->gate >= AM_GATE_DRAINING) {
        status = am_fail(err, AM_ESHUTDOWN, "the server was drained by its operator and takes requests again when it is resumed");
    } else if (!slot) {
        status = no_such_model(r, name, err);
    } else if (slot->state == AM_MODEL_READY) {
        take_lease(slot);
        *out = slot->instance;
        status = AM_OK;
    } else if (slot->state == AM_MODEL_FAILED && am_ms_since(slot->failed_ns) < FAILED_FOR_MS) {
        status = am_fail(err, slot->failed, "%s", slot->error); /* trying again at once would keep everybody waiting */
    } else {
        status = wait_for(r, slot, fn, arg, err);
    }
    pthread_mutex_unlock(&r->lock);
    return status;
}

bool am_registry_forget(am_registry *r, void *arg) {
    am_waiting *found = NULL;
    pthread_mutex_lock(&r->lock);
    for (am_waiting **at = &r->waiting; *at; at = &(*at)->next) {
        if ((*at)->arg != arg) continue;
        found = *at;
        *at = found->next;
        if (!*at) r->waiting_tail = at;
        r->n_waiting--;
        break;
    }
    pthread_mutex_unlock(&r->lock);
    free(found);
    return found != NULL;
}

void am_registry_release(am_registry *r, am_instance *instance) {
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n_slots; i++) {
        am_slot *slot = r->slots[i];
        if (slot->instance != instance) continue;
        slot->n_leases--;
        slot->used_ns = am_now_ns();
        slot->used_s = am_wall_ns() / 1000000000u;
    }
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

am_instance *am_registry_peek(am_registry *r, am_str name) {
    am_instance *found = NULL;
    pthread_mutex_lock(&r->lock);
    am_slot *slot = am_registry_slot(r, name);
    if (slot && slot->state == AM_MODEL_READY && !r->ending) {
        found = slot->instance;
        slot->n_leases++;
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

size_t am_registry_peek_all(am_registry *r, am_instance **out, size_t cap) {
    am_slot *found[64];
    size_t n = 0;
    if (cap > 64) cap = 64;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n_slots && n < cap && !r->ending; i++) {
        am_slot *slot = r->slots[i];
        if (slot->state != AM_MODEL_READY) continue;
        size_t at = n++;
        for (; at > 0 && found[at - 1]->used_ns < slot->used_ns; at--) found[at] = found[at - 1];
        found[at] = slot;
    }
    for (size_t i = 0; i < n; i++) {
        found[i]->n_leases++;
        out[i] = found[i]->instance;
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}

am_status am_registry_submit(am_registry *r, const am_op *op, am_error *err) {
    am_status status = AM_OK;
    am_op_item *item = am_calloc(1, sizeof *item);
    if (!item) return am_fail(err, AM_ENOMEM, "no memory for what was asked for");
    item->op = *op;
    pthread_mutex_lock(&r->lock);
    const char *unknown = op->model[0] && !am_registry_slot(r, am_str_of(op->model)) ? op->model : op->from[0] && !am_registry_slot(r, am_str_of(op->from)) ? op->from : NULL;
    if (r->ending) status = am_fail(err, AM_ESHUTDOWN, "the server is shutting down");
    else if (unknown) status = no_such_model(r, am_str_of(unknown), err);
    else if (r->n_ops >= MAX_OPS) status = am_fail(err, AM_ELIMIT, "%u operations are in line already", r->n_ops);
    if (!status) {
        *r->ops_tail = item;
        r->ops_tail = &item->next;
        r->n_ops++;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    if (status) free(item);
    return status;
}

typedef struct waited {
    am_op_result *result;
    pthread_mutex_t lock; /* protects over */
    pthread_cond_t ended;
    bool over;
} waited;

static void op_ended(void *arg, const am_op_result *result) {
    waited *w = arg;
    pthread_mutex_lock(&w->lock);
    *w->result = *result;
    w->over = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
}

am_status am_registry_do(am_registry *r, const am_op *op, am_op_result *result) {
    waited w = {.result = result, .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};
    am_op own = *op;
    am_error err = {0};
    own.done = op_ended;
    own.arg = &w;
    *result = (am_op_result){0};
    am_status status = am_registry_submit(r, &own, &err); /* from here on *result is the registry's thread's */
    if (status) {
        result->status = status;
        snprintf(result->message, sizeof result->message, "%s", err.message);
        return status;
    }
    pthread_mutex_lock(&w.lock);
    while (!w.over) pthread_cond_wait(&w.ended, &w.lock);
    pthread_mutex_unlock(&w.lock);
    return result->status;
}

am_gate_state am_registry_gate(am_registry *r) {
    pthread_mutex_lock(&r->lock);
    am_gate_state gate = r->gate;
    pthread_mutex_unlock(&r->lock);
    return gate;
}

static am_gate_state set_pause(am_registry *r, bool pause) {
    pthread_mutex_lock(&r->lock);
    am_gate_state before = r->gate;
    if (!pause || r->gate == AM_GATE_OPEN) r->gate = pause ? AM_GATE_PAUSED : AM_GATE_OPEN;
    r->paused = pause;
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i]->instance) am_engine_pause(am_instance_engine(r->slots[i]->instance), pause);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    am_log(AM_LOG_INFO, pause ? "paused" : "resumed", AM_LS("from", am_gate_state_name(before)));
    return before;
}

void am_registry_seed(am_registry *r, uint64_t seed) {
    pthread_mutex_lock(&r->lock);
    r->options.instance.seed = seed;
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i]->instance) am_engine_seed(am_instance_engine(r->slots[i]->instance), seed);
    pthread_mutex_unlock(&r->lock);
}

am_gate_state am_registry_pause(am_registry *r) { return set_pause(r, true); }
am_gate_state am_registry_resume(am_registry *r) { return set_pause(r, false); }
