/* Owns the health endpoints: live (the process answers), startup (the model is loaded), ready (new requests are taken and the engine moves). The words of the
 * last three are those that monitors of the system we follow look for. */
#include "server/models.h"

#include "base/clock.h"

enum { STUCK_MS = 30000, SILENT_MS = 10000 }; /* no step for so long while something runs */

typedef struct health {
    bool loaded, stopping, stuck;
    am_gate_state gate;
    am_engine_stats stats; /* when loaded */
} health;

static health look(const am_server *server) {
    am_runtime *runtime = atomic_load(&server->runtime);
    health h = {.loaded = runtime != NULL, .stopping = atomic_load(&server->stopping)};
    if (!h.loaded || h.stopping) return h; /* a stopping engine is not asked any more */
    am_registry_stats(am_models_of(server), &h.stats);
    uint64_t now = am_now_ns();
    h.gate = am_registry_gate(am_models_of(server));
    h.stuck = h.gate != AM_GATE_PAUSED && h.stats.n_running > 0 && now > h.stats.last_step_ns && now - h.stats.last_step_ns > STUCK_MS * 1000000ull;
    return h;
}

bool am_server_moves(const am_server *server) {
    uint64_t now = am_now_ns(), tick = atomic_load(&server->tick_ns);
    return !look(server).stuck && (now < tick || now - tick < SILENT_MS * 1000000ull);
}

static const char *state_name(const health *h) {
    return h->stopping ? "stopping" : !h->loaded ? "loading" : h->stuck ? "stuck" : h->gate ? am_gate_state_name(h->gate) : "ok";
}

static void reply(am_exchange *x, bool good, json_t *body) {
    if (!good) am_reply_header(x, "retry-after", "1");
    am_reply_json(x, good ? 200 : 503, body);
}

void am_handle_live(am_exchange *x) { am_reply_json(x, 200, json_pack("{s:s}", "status", "alive")); }

void am_handle_startup(am_exchange *x) {
    health h = look(x->server);
    reply(x, h.loaded, h.loaded ? json_pack("{s:s}", "status", "started") : json_pack("{s:s, s:s}", "status", "starting", "reason", "model_loading"));
}

static bool is_ready(const health *h) { return h->loaded && !h->stopping && !h->stuck && !h->gate; }

bool am_server_is_ready(const am_server *server) {
    health h = look(server);
    return is_ready(&h);
}

void am_handle_ready(am_exchange *x) {
    health h = look(x->server);
    const char *reason = h.stopping ? "shutting_down" : !h.loaded ? "model_loading" : state_name(&h);
    bool good = is_ready(&h);
    json_t *body = good ? json_pack("{s:s}", "status", "ready") : json_pack("{s:s, s:s}", "status", "not_ready", "reason", reason);
    if (good && x->known && h.stats.cache.n_sealed_slots)
        json_object_set_new(body, "pool_utilization", json_real(100.0 * h.stats.cache.n_sealed_used / h.stats.cache.n_sealed_slots));
    reply(x, good, body);
}

void am_handle_health(am_exchange *x) {
    health h = look(x->server);
    bool good = is_ready(&h);
    json_t *body = json_pack("{s:s, s:s, s:I}", "status", state_name(&h), "version", AM_VERSION, "uptime_s",
                             (json_int_t)(am_wall_ns() / 1000000000u - x->server->started_s));
    if (good && x->known) { /* how much is going on is not for strangers */
        const am_engine_stats *s = &h.stats;
        json_object_set_new(body, "model", json_string(am_registry_default(am_models_of(x->server))));
        json_object_set_new(body, "requests", json_pack("{s:i, s:i, s:i, s:i}", "running", (int)s->n_running, "queued", (int)s->n_queued,
                                                        "max_parallel", (int)s->max_parallel, "max_queue", (int)s->max_queue));
        json_object_set_new(body, "cache", json_pack("{s:i, s:I, s:I, s:i, s:i}", "agents", (int)s->cache.n_heads, "memory_bytes",
                                                     (json_int_t)s->cache.memory_bytes, "disk_bytes", (json_int_t)s->cache.disk_bytes,
                                                     "blocks_in_memory", (int)s->cache.n_sealed_used, "blocks_total", (int)s->cache.n_sealed_slots));
    }
    reply(x, good, body);
}
