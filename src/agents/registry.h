/* The models of one process: which there are, which are in memory, and who may use them.
 *
 *                 acquire, load, swap                      loaded
 *     ABSENT ----------------------> (in line) --> LOADING --------> READY <--acquire, release-- requests
 *        ^                                            |                | unload, swap, idle, room for another
 *        '---------- freed <------ persisted <------- | ----------- DRAINING: no new lease; running ones end, or are cancelled
 *                                                     '--> FAILED: as ABSENT, with a reason; what had to leave for it comes back
 *
 * A lease keeps an instance where it is; a request holds one from admission to its last event. What takes long (loading, draining, persisting)
 * happens on one thread of the registry, one thing after the other, so no two changes can meet. Who asks for a model that is not in memory
 * gets AM_AGAIN and is called back. Nothing is dropped before what replaces it was looked at: its files are there, their headers say what they
 * must, and it fits. All functions are thread-safe. */
#ifndef AM_AGENTS_REGISTRY_H
#define AM_AGENTS_REGISTRY_H

#include "agents/instance.h"
#include "engine/metrics.h"

typedef struct am_registry am_registry;

typedef struct am_registry_options {
    am_instance_options instance;
    const am_model_entry *entries; /* copied; n_entries >= 1 */
    size_t n_entries;
    const char *default_name;  /* NULL: the first entry's */
    uint64_t memory_bytes;     /* most that instances may take together; 0: three quarters of the machine's, but one always may */
    uint32_t keep_alive_ms;    /* 0: an idle instance stays */
    uint32_t drain_ms;         /* what running requests get when their instance must leave */
} am_registry_options;

/* Loads nothing yet. */
am_status am_registry_create(const am_registry_options *options, am_registry **out, am_error *err);
/* Another model; AM_EEXIST: the name or an alias is taken. */
am_status am_registry_add(am_registry *registry, const am_model_entry *entry, am_error *err);

/* The start is over: options.instance.progress is not called any more, and its argument may go. Nothing may be loading. */
void am_registry_started(am_registry *registry);

/* Called once, on a thread of the registry: instance is leased, or NULL and status and why say what happened. */
typedef void am_acquired_fn(void *arg, am_instance *instance, am_status status, const char *why);
/* A lease on the model of that name (name or alias; empty: the default). AM_OK: *out, until am_registry_release. AM_AGAIN: fn will be called.
 * AM_ENOTFOUND names those there are; AM_ESHUTDOWN: nothing is taken any more, or not until am_registry_resume; AM_ELIMIT: too many wait. */
am_status am_registry_acquire(am_registry *registry, am_str name, am_acquired_fn *fn, void *arg, am_instance **out, am_error *err);
bool am_registry_forget(am_registry *registry, void *arg); /* true: fn will not be called any more for this arg */
const char *am_registry_default(am_registry *registry); /* its name; lives as long as the registry */
bool am_registry_has(am_registry *registry, am_str name); /* as a name or alias */
void am_registry_unknown(am_registry *registry, am_str name, am_error *err); /* AM_ENOTFOUND, naming those there are */
void am_registry_release(am_registry *registry, am_instance *instance);
/* A lease without waiting and whatever the gate says: for looking. NULL: not in memory. name empty: the default. */
am_instance *am_registry_peek(am_registry *registry, am_str name);
/* Leases on all that are in memory, at most cap; how many. Those of the most recently used come first. */
size_t am_registry_peek_all(am_registry *registry, am_instance **out, size_t cap);

typedef enum am_model_state { AM_MODEL_ABSENT, AM_MODEL_LOADING, AM_MODEL_READY, AM_MODEL_DRAINING, AM_MODEL_FAILED } am_model_state;
const char *am_model_state_name(am_model_state state);

typedef struct am_model_view {
    const am_model_entry *entry; /* lives as long as the registry; its name is set */
    am_model_state state;
    bool is_default, has_facts;
    am_model_facts facts;        /* as the headers say, or as loaded */
    uint32_t n_leases, n_waiting;
    uint64_t bytes;              /* am_instance_bytes; 0: not in memory */
    uint64_t loaded_s, used_s;   /* wall clock; 0: never */
    uint64_t n_loads, n_failures; /* to load */
    double load_ms;              /* of the last load */
    am_engine_stats stats;       /* gauges: READY and DRAINING; counters: of every time that it was in memory */
    const am_engine_meter *meter; /* lives as long as the registry */
    char error[512];             /* of the last failure; empty: none */
} am_model_view;
/* fn is called without any lock held. */
void am_registry_each(am_registry *registry, void (*fn)(void *arg, const am_model_view *view), void *arg);
/* The entry that answers to a name or alias (empty: the default); false: none. */
bool am_registry_find(am_registry *registry, am_str name, am_model_view *out);
/* Counters of every instance there was and is, gauges of those there are. */
void am_registry_stats(am_registry *registry, am_engine_stats *out);
uint64_t am_registry_memory_limit(const am_registry *registry);
/* What a tenant's (NULL: all) agents of models that are not in memory take. */
am_absent_usage am_registry_absent(const am_registry *registry, const am_tenant *tenant, am_str agent);
uint64_t am_registry_disk_bytes(const am_registry *registry); /* of agents' files of every model */

/* What operators ask for. Each runs after those before it, on the registry's thread. */
typedef enum am_op_kind {
    AM_OP_LOAD,       /* model */
    AM_OP_UNLOAD,     /* model: persisted, then dropped from memory; empty: every one */
    AM_OP_SWAP,       /* model takes the place of `from` (empty: the default), which leaves; the default moves with it */
    AM_OP_DRAIN,      /* nothing new is taken; what runs ends, or is cancelled after the time. Until resume. */
    AM_OP_PERSIST,    /* every dirty head and block */
    AM_OP_EVICT,      /* idle agents: to disk, out of memory; agent empty: all */
    AM_OP_CLEAR,      /* forgets agents, in memory and on disk: one, a tenant's, or all; of every model, in memory or not; all: refused files, too */
    AM_OP_CLEAR_POOL  /* running turns are cancelled, all blocks leave memory and its pages go back to the system; what can be is persisted first */
} am_op_kind;
typedef struct am_op_result {
    am_status status;
    char message[512];
    char model[256], from[256];   /* as far as one is meant */
    bool rolled_back;             /* SWAP, LOAD: what had left is back */
    uint32_t n_finished, n_canceled, n_agents, n_busy, n_models;
    uint32_t n_refused;           /* CLEAR of all: files that had been refused */
    uint64_t n_blocks, bytes;     /* that left memory (CLEAR: and disk) */
    double ms;
} am_op_result;
typedef struct am_op {
    am_op_kind kind;
    char model[256], from[256]; /* empty: as said above; EVICT, CLEAR, ...: every model in memory */
    uint32_t timeout_ms;        /* of draining; UINT32_MAX: the registry's */
    bool any_tenant;            /* EVICT, CLEAR: of every tenant; else of `tenant` */
    am_tenant tenant;
    char agent[AM_NAME_MAX + 1];
    void (*done)(void *arg, const am_op_result *result); /* on the registry's thread */
    void *arg;
} am_op;
am_status am_registry_submit(am_registry *registry, const am_op *op, am_error *err); /* AM_ENOTFOUND, AM_ELIMIT, AM_ESHUTDOWN: done is not called */
am_status am_registry_do(am_registry *registry, const am_op *op, am_op_result *result); /* waits; done and arg are ignored */

typedef enum am_gate_state { AM_GATE_OPEN, AM_GATE_PAUSED, AM_GATE_DRAINING, AM_GATE_DRAINED } am_gate_state;
const char *am_gate_state_name(am_gate_state state);
/* pause: the engines take no step, answers stand still and requests wait. resume: undoes pause and drain. Both at once, whatever else is under way;
 * they return what was before. */
am_gate_state am_registry_pause(am_registry *registry);
am_gate_state am_registry_resume(am_registry *registry);
am_gate_state am_registry_gate(am_registry *registry);
/* am_engine_seed for every model, in memory or to come. */
void am_registry_seed(am_registry *registry, uint64_t seed);

/* The end, in stages (see runtime.c). begin_end: acquire and submit say AM_ESHUTDOWN, who waits is told; what is under way is cut short. */
void am_registry_begin_end(am_registry *registry);
void am_registry_drain(am_registry *registry, uint32_t timeout_ms, const volatile int *hurry);
unsigned am_registry_persist(am_registry *registry); /* heads that could not be made durable */
void am_registry_stop_engines(am_registry *registry);
void am_registry_unload_models(am_registry *registry);
void am_registry_free(am_registry *registry);

#endif
