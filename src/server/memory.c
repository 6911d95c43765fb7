/* Owns GET /debug/memory: where the process's resident memory is. The parts have different witnesses (files and stacks:
 * the system; the heap: the allocator; the rest: their owners), so `explained` says how much of the RSS the sum
 * accounts for. */
#include "server/internal.h"

#include "base/footprint.h"

typedef struct look {
    json_t *agents, *turns;
    am_cache_memory memory;
} look;

static am_status add_agent(void *arg, const am_agent_info *a) {
    json_t *agent =
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "agent", a->agent, "tenant", a->tenant, "tier", am_tier_name(a->tier),
                  "memory_bytes", (json_int_t)a->memory_bytes, "disk_bytes", (json_int_t)a->disk_bytes);
    return json_array_append_new(arg, agent) ? AM_ENOMEM : AM_OK;
}

static void add_turn(void *arg, const am_turn_memory *t) {
    look *l = arg;
    json_array_append_new(l->turns, json_pack("{s:s, s:I, s:I, s:I}", "agent", t->agent, "pinned_bytes",
                                              (json_int_t)(t->n_pinned * l->memory.sealed_slot_bytes), "reserved_bytes",
                                              (json_int_t)(t->n_reserved * l->memory.sealed_slot_bytes), "open_bytes",
                                              (json_int_t)(t->has_open ? l->memory.open_slot_bytes : 0)));
}

static void look_into(void *arg, am_cache *cache) {
    look *l = arg;
    am_cache_memory_get(cache, &l->memory);
    am_cache_agents(cache, NULL, add_agent, l->agents);
    am_cache_turns(cache, add_turn, l);
}

static json_t *pool_json(uint64_t slot, uint32_t n, uint32_t used, uint32_t reserved, uint64_t resident) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "slot_bytes", (json_int_t)slot, "slots", (json_int_t)n,
                     "used_bytes", (json_int_t)((used - reserved) * slot), "reserved_bytes",
                     (json_int_t)(reserved * slot), "free_bytes", (json_int_t)((n - used) * slot), "resident_bytes",
                     (json_int_t)resident);
}

/* Free pieces of the heap may have pages or not; the allocator does not know. At most so much of them is counted as
 * there are pages that nothing else has, so a sum that falls short, or used memory that was never touched, still shows.
 */
static uint64_t free_resident(const am_footprint *f, uint64_t pool) {
    uint64_t others = f->program + f->libraries + f->mapped + f->data + f->stacks + pool + f->heap_used;
    uint64_t rest = f->rss > others ? f->rss - others : 0;
    return rest < f->heap_free ? rest : f->heap_free;
}

/* What is added up, in the order of the answer. */
static json_t *parts_json(const am_footprint *f, const am_server *server, const am_engine_stats *s,
                          const am_cache_memory *m, uint64_t resident[2]) {
    const am_model_info *model = am_model_info_of(am_runtime_model(atomic_load(&server->runtime)));
    uint64_t arenas = am_arena_all_bytes(), outboxes = atomic_load(&server->outbox_bytes),
             bodies = atomic_load(&server->body_bytes);
    uint64_t known = model->weight_bytes + s->workspace_bytes + m->index_bytes + arenas + outboxes + bodies;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "program",
                     (json_int_t)f->program, "libraries", (json_int_t)f->libraries, "weights_mapped",
                     (json_int_t)f->mapped, "program_data", (json_int_t)f->data, "stacks", (json_int_t)f->stacks,
                     "weights_packed", (json_int_t)model->weight_bytes, "pool_sealed", (json_int_t)resident[0],
                     "pool_open", (json_int_t)resident[1], "workspace", (json_int_t)s->workspace_bytes, "index",
                     (json_int_t)m->index_bytes, "arenas", (json_int_t)arenas, "outboxes", (json_int_t)outboxes,
                     "bodies", (json_int_t)bodies, "heap_other",
                     (json_int_t)(f->heap_used > known ? f->heap_used - known : 0), "heap_free",
                     (json_int_t)free_resident(f, resident[0] + resident[1]));
}

void am_handle_memory(am_exchange *x) {
    am_runtime *runtime = atomic_load(&x->server->runtime);
    look l = {.agents = json_array(), .turns = json_array()};
    if (am_engine_call(am_runtime_engine(runtime), look_into, &l)) {
        json_decref(l.agents);
        json_decref(l.turns);
        am_reply_refuse(x, 503, "shutting_down", "the server is shutting down");
        return;
    }
    am_engine_stats s;
    am_footprint f;
    am_engine_stats_get(am_runtime_engine(runtime), &s);
    uint64_t resident[2] = {am_footprint_resident(l.memory.sealed, l.memory.sealed_mapped_bytes),
                            am_footprint_resident(l.memory.open, l.memory.open_mapped_bytes)};
    am_footprint_read(&f);
    json_t *parts = parts_json(&f, x->server, &s, &l.memory, resident), *part;
    uint64_t sum = 0;
    const char *key;
    json_object_foreach(parts, key, part) sum += (uint64_t)json_integer_value(part);
    uint32_t reserved = l.memory.n_reserved < s.cache.n_sealed_used ? l.memory.n_reserved : s.cache.n_sealed_used;
    am_reply_json(
        x, 200,
        json_pack(
            "{s:I, s:I, s:I, s:I, s:o, s:I, s:f, s:{s:o, s:o}, s:o, s:o}", "rss_bytes", (json_int_t)f.rss,
            "peak_rss_bytes", (json_int_t)f.peak, "swap_bytes", (json_int_t)f.swap, "locked_bytes",
            (json_int_t)f.locked, "parts", parts, "sum_bytes", (json_int_t)sum, "explained",
            f.rss ? (double)sum / (double)f.rss : 0.0, "pool", "sealed",
            pool_json(l.memory.sealed_slot_bytes, s.cache.n_sealed_slots, s.cache.n_sealed_used, reserved, resident[0]),
            "open", pool_json(l.memory.open_slot_bytes, s.cache.n_open_slots, s.cache.n_open_used, 0, resident[1]),
            "agents", l.agents, "turns", l.turns));
}
