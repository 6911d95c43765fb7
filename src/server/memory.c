/* Owns GET /debug/memory: where the process's resident memory is. The parts have different witnesses (files and stacks:
 * the system; the heap: the allocator; the rest: their owners), so `explained` says how much of the RSS the sum
 * accounts for. They cannot be asked all at once: when the RSS moved meanwhile (pages touched for the first time, a model
 * being loaded) they are asked again, a few times. */
#include "server/models.h"

#include "base/footprint.h"

#include <unistd.h>

enum { MAX_LOOKS = 10, BETWEEN_LOOKS_US = 20000 };

/* What one model has; the lists are of all. */
typedef struct look {
    json_t *agents, *turns;
    const char *model;
    am_cache_memory memory;
} look;

/* Of all models together. */
typedef struct sums {
    uint64_t weights, index;
    uint64_t sealed_slot, open_slot; /* of the last one: their sizes differ from model to model */
    uint64_t sealed[3], open[3];     /* bytes used, reserved, free */
    uint32_t n_sealed, n_open;
    uint64_t workspace, rooms; /* rooms: between weights, what has no pages though the allocator handed it out */
    struct {
        const void *p;
        size_t n;
    } pool[2][AM_MAX_RESIDENT], logits[AM_MAX_RESIDENT];
    size_t n_models;
} sums;

/* What one look at the whole process found. */
typedef struct measured {
    am_footprint f;
    uint64_t pool[2], untouched; /* resident; of rows of logits, what has no pages though the allocator handed it out */
    uint64_t moved;              /* by so much the RSS was another afterwards */
} measured;

static am_status add_agent(void *arg, const am_agent_info *a) {
    const look *l = arg;
    json_t *agent =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "agent", a->agent, "model", l->model, "tenant", a->tenant, "tier", am_tier_name(a->tier),
                  "memory_bytes", (json_int_t)a->memory_bytes, "disk_bytes", (json_int_t)a->disk_bytes, "last_used",
                  (json_int_t)(a->used_ns / 1000000000u));
    return json_array_append_new(l->agents, agent) ? AM_ENOMEM : AM_OK;
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
    am_cache_agents(cache, NULL, add_agent, l);
    am_cache_turns(cache, add_turn, l);
}

static json_t *pool_json(uint64_t slot, uint32_t n, const uint64_t bytes[3], uint64_t resident) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "slot_bytes", (json_int_t)slot, "slots", (json_int_t)n, "used_bytes", (json_int_t)bytes[0],
                     "reserved_bytes", (json_int_t)bytes[1], "free_bytes", (json_int_t)bytes[2], "resident_bytes", (json_int_t)resident);
}

static void add_pool(uint64_t to[3], uint64_t slot, uint32_t n, uint32_t used, uint32_t reserved) {
    if (reserved > used) reserved = used;
    to[0] += (used - reserved) * slot;
    to[1] += reserved * slot;
    to[2] += (n - used) * slot;
}

static am_status add_instance(am_instance *instance, look *l, sums *s) {
    l->model = am_instance_info(instance)->name;
    am_status status = am_engine_call(am_instance_engine(instance), look_into, l);
    if (status) return status;
    const am_cache_memory *m = &l->memory;
    am_engine_stats stats;
    am_engine_stats_get(am_instance_engine(instance), &stats);
    s->weights += am_instance_info(instance)->weight_bytes - am_instance_info(instance)->mapped_bytes; /* those are among the mapped files */
    s->rooms += am_model_untouched_bytes(am_instance_model(instance));
    s->workspace += stats.workspace_bytes;
    s->index += m->index_bytes;
    s->pool[0][s->n_models].p = m->sealed, s->pool[0][s->n_models].n = m->sealed_mapped_bytes;
    s->pool[1][s->n_models].p = m->open, s->pool[1][s->n_models].n = m->open_mapped_bytes;
    s->logits[s->n_models].p = stats.logits, s->logits[s->n_models++].n = stats.logits_bytes;
    s->sealed_slot = m->sealed_slot_bytes;
    s->open_slot = m->open_slot_bytes;
    s->n_sealed += stats.cache.n_sealed_slots;
    s->n_open += stats.cache.n_open_slots;
    add_pool(s->sealed, m->sealed_slot_bytes, stats.cache.n_sealed_slots, stats.cache.n_sealed_used, m->n_reserved);
    add_pool(s->open, m->open_slot_bytes, stats.cache.n_open_slots, stats.cache.n_open_used, 0);
    return AM_OK;
}

/* Free pieces of the heap may have pages or not; the allocator does not know. At most so much of them is counted as
 * there are pages that nothing else has, so a sum that falls short, or used memory that was never touched, still shows.
 */
static uint64_t free_resident(const am_footprint *f, uint64_t pool) {
    uint64_t others = f->program + f->libraries + f->mapped + f->data + f->stacks + pool + f->heap_used;
    uint64_t rest = f->rss > others ? f->rss - others : 0;
    return rest < f->heap_free ? rest : f->heap_free;
}

static void measure(const sums *s, measured *out) {
    *out = (measured){.moved = 0};
    uint64_t before = am_footprint_rss(), after;
    am_footprint_read(&out->f);
    for (size_t i = 0; i < s->n_models; i++) {
        for (int k = 0; k < 2; k++) out->pool[k] += am_footprint_resident(s->pool[k][i].p, s->pool[k][i].n);
        out->untouched += s->logits[i].n - am_footprint_resident(s->logits[i].p, s->logits[i].n);
    }
    uint64_t pageless = out->untouched + s->rooms;
    out->f.heap_used -= pageless < out->f.heap_used ? pageless : out->f.heap_used;
    after = am_footprint_rss();
    out->moved = after > before ? after - before : before - after;
}

/* One look at everything, in place of the one before. */
static am_status look_at(am_instance *const *all, size_t n, look *l, sums *s, measured *out) {
    am_status status = AM_OK;
    json_array_clear(l->agents);
    json_array_clear(l->turns);
    *s = (sums){0};
    for (size_t i = 0; i < n && !status; i++) status = add_instance(all[i], l, s);
    if (!status) measure(s, out);
    return status;
}

/* What somebody owns may have been given back before the allocator was asked. */
static bool is_calm(const sums *s, const measured *found) {
    return found->moved <= found->f.rss / 256 && s->weights + s->workspace - found->untouched + s->index <= found->f.heap_used;
}

/* What is added up, in the order of the answer. */
static json_t *parts_json(const measured *found, const am_server *server, const sums *s) {
    const am_footprint *f = &found->f;
    uint64_t workspace = s->workspace - found->untouched;
    uint64_t arenas = am_arena_all_bytes(), outboxes = atomic_load(&server->outbox_bytes), bodies = atomic_load(&server->body_bytes);
    uint64_t known = s->weights + workspace + s->index + arenas + outboxes + bodies;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "program",
                     (json_int_t)f->program, "libraries", (json_int_t)f->libraries, "weights_mapped",
                     (json_int_t)f->mapped, "program_data", (json_int_t)f->data, "stacks", (json_int_t)f->stacks,
                     "weights_packed", (json_int_t)s->weights, "pool_sealed", (json_int_t)found->pool[0],
                     "pool_open", (json_int_t)found->pool[1], "workspace", (json_int_t)workspace, "index",
                     (json_int_t)s->index, "arenas", (json_int_t)arenas, "outboxes", (json_int_t)outboxes,
                     "bodies", (json_int_t)bodies, "heap_other",
                     (json_int_t)(f->heap_used > known ? f->heap_used - known : 0), "heap_free",
                     (json_int_t)free_resident(f, found->pool[0] + found->pool[1]));
}

void am_handle_memory(am_exchange *x) {
    am_registry *registry = am_models_of(x->server);
    am_instance *all[AM_MAX_RESIDENT];
    look l = {.agents = json_array(), .turns = json_array()};
    sums s;
    size_t n = am_registry_peek_all(registry, all, AM_MAX_RESIDENT);
    measured found;
    am_status status = look_at(all, n, &l, &s, &found);
    for (int i = 1; i < MAX_LOOKS && !status && !is_calm(&s, &found); i++) {
        usleep(BETWEEN_LOOKS_US);
        status = look_at(all, n, &l, &s, &found);
    }
    for (size_t i = 0; i < n; i++) am_registry_release(registry, all[i]);
    if (status) {
        json_decref(l.agents);
        json_decref(l.turns);
        am_reply_refuse(x, 503, "shutting_down", "the server is shutting down");
        return;
    }
    const am_footprint *f = &found.f;
    json_t *parts = parts_json(&found, x->server, &s), *part;
    uint64_t sum = 0;
    const char *key;
    json_object_foreach(parts, key, part) sum += (uint64_t)json_integer_value(part);
    am_reply_json(x, 200,
                  json_pack("{s:I, s:I, s:I, s:I, s:o, s:I, s:f, s:{s:o, s:o}, s:o, s:o}", "rss_bytes", (json_int_t)f->rss, "peak_rss_bytes",
                            (json_int_t)f->peak, "swap_bytes", (json_int_t)f->swap, "locked_bytes", (json_int_t)f->locked, "parts", parts, "sum_bytes",
                            (json_int_t)sum, "explained", f->rss ? (double)sum / (double)f->rss : 0.0, "pool", "sealed",
                            pool_json(s.sealed_slot, s.n_sealed, s.sealed, found.pool[0]), "open",
                            pool_json(s.open_slot, s.n_open, s.open, found.pool[1]), "agents", l.agents, "turns", l.turns));
}
