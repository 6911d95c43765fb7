/* What the files of the registry share: its slots, who waits, and what is in line. */
#ifndef AM_AGENTS_REGISTRY_INT_H
#define AM_AGENTS_REGISTRY_INT_H

#include "agents/registry.h"

#include <pthread.h>

/* One configured model. Made once, never freed before the registry. */
typedef struct am_slot {
    am_model_entry entry; /* strings in the registry's arena; the name is set */
    am_model_state state; /* from here on under the registry's lock; only its thread changes state and instance */
    am_instance *instance; /* READY and DRAINING */
    bool has_facts;
    am_model_facts facts;
    uint32_t n_leases;
    uint64_t bytes;        /* of the instance; kept when it leaves: what it will take again */
    uint64_t loaded_s, used_s, used_ns, failed_ns, n_loads, n_failures;
    double load_ms;
    am_status failed;      /* of the last failure */
    char error[512];
    am_engine_stats past;  /* counters of the times that it was in memory before */
    am_engine_meter meter; /* without the lock */
} am_slot;

typedef struct am_waiting {
    struct am_waiting *next;
    am_slot *slot; /* NULL: the default, whichever that is by then */
    am_acquired_fn *fn;
    void *arg;
} am_waiting;

typedef struct am_op_item {
    struct am_op_item *next;
    am_op op;
} am_op_item;

struct am_registry {
    am_registry_options options;
    am_arena *arena;
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock; /* protects all below, and the slots */
    pthread_cond_t changed; /* a lease ended, something was asked for, the end begins */
    am_slot **slots;
    size_t n_slots;
    am_slot *preferred; /* the default */
    am_waiting *waiting, **waiting_tail;
    uint32_t n_waiting;
    am_op_item *ops, **ops_tail;
    uint32_t n_ops;
    am_gate_state gate;
    bool paused, ending;
};

enum { AM_DRAIN_POLL_MS = 20, AM_MAX_GONE = 16 };

/* registry.c; under the lock unless said. */
am_slot *am_registry_slot(const am_registry *r, am_str name); /* empty: the default; NULL: none */
bool am_registry_wait(am_registry *r, uint32_t ms);           /* for `changed`; false: the time is over */
void am_registry_count_past(am_slot *slot, const am_engine_stats *stats);
uint64_t am_registry_kv_bytes(const am_registry *r, const am_slot *slot); /* pool it will ask for; no lock */

/* registry_load.c; on the registry's thread, without the lock. */
typedef struct am_change {
    am_slot *gone[AM_MAX_GONE]; /* what had to leave, and comes back on failure */
    size_t n_gone;
    uint32_t n_finished, n_canceled;
    uint64_t bytes;
    uint32_t timeout_ms;
    bool rolled_back;
} am_change;
/* Loads slot; others leave when it needs their room. */
am_status am_registry_ensure(am_registry *r, am_slot *slot, am_change *change, am_error *err);
/* The default's change of place: `from` leaves, before `to` is loaded when both do not fit. */
am_status am_registry_swap(am_registry *r, am_slot *from, am_slot *to, am_change *change, am_error *err);
/* Drains, persists, frees. AM_EIO: agents could not be written; then it stays. AM_OK as well when it is not in memory. */
am_status am_registry_drop(am_registry *r, am_slot *slot, am_change *change, const char *why, am_error *err);
/* Waits until nobody holds a lease on slot, cancels after timeout_ms. AM_ESHUTDOWN: the end begins, or (while_closed) the gate was opened. */
am_status am_registry_quiet(am_registry *r, am_slot *slot, am_change *change, bool while_closed);
void am_registry_deliver(am_registry *r, am_slot *slot); /* tells who waited for it */

/* registry_ops.c; on the registry's thread, without the lock. */
void am_registry_run(am_registry *r, const am_op *op);

#endif
