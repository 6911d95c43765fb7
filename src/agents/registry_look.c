/* Owns what others may see of the registry: views of its models and the counters of all of them together. */
#include "agents/registry_int.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

static void add_counters(am_engine_stats *to, const am_engine_stats *from) {
    to->n_steps += from->n_steps;
    to->n_requests += from->n_requests;
    to->n_prompt_tokens += from->n_prompt_tokens;
    to->n_cached_tokens += from->n_cached_tokens;
    to->n_generated_tokens += from->n_generated_tokens;
    to->n_canceled += from->n_canceled;
    to->n_failed += from->n_failed;
    to->cache.bytes_written += from->cache.bytes_written;
    to->cache.bytes_read += from->cache.bytes_read;
    to->cache.n_evictions += from->cache.n_evictions;
    to->cache.n_refused += from->cache.n_refused;
    to->cache.n_write_failures += from->cache.n_write_failures;
    to->cache.n_restored_blocks += from->cache.n_restored_blocks;
    to->cache.n_orphans += from->cache.n_orphans;
    to->cache.n_shed += from->cache.n_shed;
}

static void fill_view(const am_registry *r, const am_slot *slot, am_model_view *out) {
    *out = (am_model_view){.entry = &slot->entry, .state = slot->state, .is_default = slot == r->preferred, .has_facts = slot->has_facts,
                           .facts = slot->facts, .n_leases = slot->n_leases, .loaded_s = slot->loaded_s,
                           .used_s = slot->used_s, .n_loads = slot->n_loads, .n_failures = slot->n_failures, .load_ms = slot->load_ms,
                           .stats = slot->past, .meter = &slot->meter};
    for (const am_waiting *w = r->waiting; w; w = w->next) out->n_waiting += (w->slot ? w->slot : r->preferred) == slot;
    snprintf(out->error, sizeof out->error, "%s", slot->error);
    if (!slot->instance) return;
    out->bytes = slot->bytes;
    am_engine_stats_get(am_instance_engine(slot->instance), &out->stats);
    add_counters(&out->stats, &slot->past);
}

/* Facts of a model that was never loaded are looked up when somebody wants to see them: reading headers takes milliseconds, but not none. */
static void look_up(am_registry *r, am_slot *slot) {
    am_model_facts facts;
    am_error err = {0};
    am_status status = am_model_probe(slot->entry.path, &facts, &err);
    pthread_mutex_lock(&r->lock);
    if (!slot->has_facts && !status) {
        slot->facts = facts;
        slot->has_facts = true;
    }
    if (status && !slot->instance && slot->state == AM_MODEL_ABSENT) snprintf(slot->error, sizeof slot->error, "%s", err.message);
    pthread_mutex_unlock(&r->lock);
}

void am_registry_each(am_registry *r, void (*fn)(void *arg, const am_model_view *view), void *arg) {
    for (size_t i = 0;; i++) {
        am_model_view view;
        pthread_mutex_lock(&r->lock);
        am_slot *slot = i < r->n_slots ? r->slots[i] : NULL;
        bool unknown = slot && !slot->has_facts && !slot->error[0];
        pthread_mutex_unlock(&r->lock);
        if (!slot) return;
        if (unknown) look_up(r, slot);
        pthread_mutex_lock(&r->lock);
        fill_view(r, slot, &view);
        pthread_mutex_unlock(&r->lock);
        fn(arg, &view);
    }
}

bool am_registry_find(am_registry *r, am_str name, am_model_view *out) {
    pthread_mutex_lock(&r->lock);
    am_slot *slot = am_registry_slot(r, name);
    bool unknown = slot && !slot->has_facts && !slot->error[0];
    pthread_mutex_unlock(&r->lock);
    if (!slot) return false;
    if (unknown) look_up(r, slot);
    pthread_mutex_lock(&r->lock);
    fill_view(r, slot, out);
    pthread_mutex_unlock(&r->lock);
    return true;
}

static void add_gauges(am_engine_stats *to, const am_engine_stats *from) {
    to->n_queued += from->n_queued;
    to->n_running += from->n_running;
    to->max_queue += from->max_queue;
    to->max_parallel += from->max_parallel;
    if (from->n_ctx > to->n_ctx) to->n_ctx = from->n_ctx;
    to->prefill_tokens_per_s += from->prefill_tokens_per_s;
    to->decode_tokens_per_s += from->decode_tokens_per_s;
    to->workspace_bytes += from->workspace_bytes;
    if (from->n_running && from->last_step_ns < to->last_step_ns) to->last_step_ns = from->last_step_ns; /* the one that stands longest */
    to->cache.memory_bytes += from->cache.memory_bytes;
    to->cache.n_sealed_slots += from->cache.n_sealed_slots;
    to->cache.n_sealed_used += from->cache.n_sealed_used;
    to->cache.n_open_slots += from->cache.n_open_slots;
    to->cache.n_open_used += from->cache.n_open_used;
    to->cache.n_heads += from->cache.n_heads;
    to->cache.n_unnamed += from->cache.n_unnamed;
    to->cache.n_blocks += from->cache.n_blocks;
    to->cache.n_blocks_disk += from->cache.n_blocks_disk;
    to->cache.n_dirty += from->cache.n_dirty;
}

void am_registry_count_past(am_slot *slot, const am_engine_stats *stats) { add_counters(&slot->past, stats); }

void am_registry_stats(am_registry *r, am_engine_stats *out) {
    pthread_mutex_lock(&r->lock);
    *out = (am_engine_stats){.last_step_ns = am_now_ns()};
    for (size_t i = 0; i < r->n_slots; i++) {
        am_engine_stats stats;
        add_counters(out, &r->slots[i]->past);
        if (!r->slots[i]->instance) continue;
        am_engine_stats_get(am_instance_engine(r->slots[i]->instance), &stats);
        add_counters(out, &stats);
        add_gauges(out, &stats);
    }
    out->cache.disk_bytes = am_registry_disk_bytes(r);
    pthread_mutex_unlock(&r->lock);
}
