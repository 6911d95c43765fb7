/* Owns GET /metrics: every metric of every room below as Prometheus' text, and those that are looked up when asked for (engines, pools, disk, process).
 *
 * Names, labels and their values are fixed here and in the rooms, but for the names of models, which the operator gave; nothing that a client sends
 * becomes part of a series. What a model has counted stays when it leaves memory. docs/observability has the dashboard and the alerts that use them. */
#include "server/models.h"

#include "base/inhand.h"
#include "base/metrics.h"
#include "cache/metrics.h"
#include "model/metrics.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MAX_BYTES = 4 << 20 };

static const char *const reasons[] = {"origin", "key", "rate", "parallel", "quota"}; /* as am_refused */
static _Atomic uint64_t refused[5];
static am_metric metric_refused = {.name = "agent_memory_http_refused_total", .help = "Requests that were refused before any work, by why.",
                                   .kind = AM_METRIC_COUNTER, .label = "reason", .values = reasons, .n_values = 5, .cells = refused};

void am_metrics_refused(am_refused why) { am_metric_add(&metric_refused, why, 1); }

/* Of the process. */
static const am_metric *const kept[] = {&metric_refused, &am_metric_restore_time, &am_metric_read_time, &am_metric_save_time, &am_metric_model_load_time};
/* Of each model. */
static const am_metric *const metered[] = {
    &am_metric_queue_time, &am_metric_first_token,   &am_metric_between_tokens, &am_metric_turns,  &am_metric_turns_of_tier, &am_metric_prompt_tokens,
    &am_metric_generated_tokens, &am_metric_drafted_tokens, &am_metric_accepted_tokens, &am_metric_cached_tokens, &am_metric_misses,
};

typedef struct looked_up {
    const char *name, *help;
    am_metric_kind kind;
    double value;
} looked_up;

static void write_list(const looked_up *list, size_t n, am_buf *out) {
    for (size_t i = 0; i < n; i++) {
        am_metric_write_head(list[i].name, list[i].help, list[i].kind, out);
        am_metric_write_line(list[i].name, NULL, 0, list[i].value, out);
    }
}
#define WRITE_LIST(list, out) write_list(list, sizeof list / sizeof list[0], out)

/* What is looked up for each model: a member of its view. */
typedef struct member {
    const char *name, *help;
    am_metric_kind kind;
    enum { U32, U64, F64 } type;
    size_t at;
} member;
#define OF_TYPE(value) _Generic((value), double: F64, uint32_t: U32, default: U64)
#define OF_VIEW(kind, text, help, path) {"agent_memory_" text, help, AM_METRIC_##kind, OF_TYPE(((am_model_view *)0)->path), offsetof(am_model_view, path)}
#define OF_ENGINE(kind, text, help, path) OF_VIEW(kind, text, help, stats.path)
#define OF_CACHE(kind, text, help, path) OF_VIEW(kind, text, help, stats.cache.path)
_Static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes are read as 64 bits");

static const member of_any[] = {
    OF_VIEW(GAUGE, "model_bytes", "Memory that a model takes with its whole pool; 0: it is not in memory.", bytes),
    OF_VIEW(GAUGE, "model_requests_waiting", "Requests that wait for a model to be loaded.", n_waiting),
};
/* Of models that were in memory at some time. */
static const member of_loaded[] = {
    OF_ENGINE(GAUGE, "requests_queued", "Requests that wait for admission.", n_queued),
    OF_ENGINE(GAUGE, "requests_running", "Requests that are being answered.", n_running),
    OF_ENGINE(GAUGE, "requests_queued_limit", "Requests that may wait; one more gets 429.", max_queue),
    OF_ENGINE(GAUGE, "requests_running_limit", "Requests that may be answered at once.", max_parallel),
    OF_ENGINE(GAUGE, "context_tokens", "Longest conversation.", n_ctx),
    OF_ENGINE(COUNTER, "steps_total", "Forward passes.", n_steps),
    OF_ENGINE(GAUGE, "prefill_tokens_per_second", "Speed of prompts, moving average.", prefill_tokens_per_s),
    OF_ENGINE(GAUGE, "decode_tokens_per_second", "Speed of answers of all requests together, moving average.", decode_tokens_per_s),
    OF_CACHE(GAUGE, "agents", "Agents that are kept; of models in memory.", n_heads),
    OF_CACHE(GAUGE, "agents_unnamed", "Those of them that no request has named.", n_unnamed),
    OF_CACHE(GAUGE, "pool_bytes", "Memory for attention state.", memory_bytes),
    OF_CACHE(GAUGE, "pool_sealed_slots", "Places for sealed blocks in memory.", n_sealed_slots),
    OF_CACHE(GAUGE, "pool_sealed_slots_used", "Places for sealed blocks that are taken.", n_sealed_used),
    OF_CACHE(GAUGE, "pool_open_slots", "Places for open blocks in memory.", n_open_slots),
    OF_CACHE(GAUGE, "pool_open_slots_used", "Places for open blocks that are taken.", n_open_used),
    OF_CACHE(GAUGE, "blocks", "Sealed blocks in memory or on disk.", n_blocks),
    OF_CACHE(GAUGE, "disk_blocks", "Sealed blocks on disk.", n_blocks_disk),
    OF_CACHE(GAUGE, "dirty", "Heads and blocks that are not on disk yet.", n_dirty),
    OF_CACHE(COUNTER, "save_bytes_total", "Bytes of agents' files written.", bytes_written),
    OF_CACHE(COUNTER, "save_failures_total", "Writes that failed; each is tried again.", n_write_failures),
    OF_CACHE(COUNTER, "restore_bytes_total", "Bytes of agents' files read for turns.", bytes_read),
    OF_CACHE(COUNTER, "restored_blocks_total", "Sealed blocks read for turns.", n_restored_blocks),
    OF_CACHE(COUNTER, "evictions_total", "Sealed blocks that left memory for others.", n_evictions),
    OF_CACHE(COUNTER, "agents_shed_total", "Agents without a name that were forgotten to make room.", n_shed),
    OF_CACHE(COUNTER, "refused_files_total", "Files that were wrong and moved aside.", n_refused),
    OF_CACHE(COUNTER, "orphans_total", "Leftovers of an interrupted write that were removed.", n_orphans),
};

typedef struct views {
    am_model_view *list;
    size_t n, cap;
} views;

static void add_view(void *arg, const am_model_view *view) {
    views *v = arg;
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 8;
        am_model_view *list = am_calloc(cap, sizeof *list);
        if (!list) return; /* a scrape without the last models */
        if (v->n) memcpy(list, v->list, v->n * sizeof *list);
        free(v->list);
        v->list = list;
        v->cap = cap;
    }
    v->list[v->n++] = *view;
}

static am_metric_label model_of(const am_model_view *view) { return (am_metric_label){"model", view->entry->name}; }

static double member_of(const am_model_view *view, const member *m) {
    const char *at = (const char *)view + m->at;
    return m->type == F64 ? *(const double *)at : m->type == U32 ? *(const uint32_t *)at : (double)*(const uint64_t *)at;
}

static void write_members(const views *v, const member *list, size_t n, bool loaded, am_buf *out) {
    for (size_t i = 0; i < n; i++) {
        am_metric_write_head(list[i].name, list[i].help, list[i].kind, out);
        for (size_t k = 0; k < v->n; k++)
            if (v->list[k].n_loads || !loaded) am_metric_write_line(list[i].name, (am_metric_label[]){model_of(&v->list[k])}, 1, member_of(&v->list[k], &list[i]), out);
    }
}

/* One series of a choice is 1. */
static void write_state(const char *name, am_metric_label owner, bool is, const char *state, am_buf *out) {
    am_metric_write_line(name, (am_metric_label[]){owner, {"state", state}}, 2, is, out);
}

static void write_models(const views *v, am_buf *out) {
    am_metric_write_head("agent_memory_model_state", "1 for the state that a model is in.", AM_METRIC_GAUGE, out);
    for (size_t k = 0; k < v->n; k++)
        for (int s = AM_MODEL_ABSENT; s <= AM_MODEL_FAILED; s++)
            write_state("agent_memory_model_state", model_of(&v->list[k]), (int)v->list[k].state == s, am_model_state_name((am_model_state)s), out);
    am_metric_write_head("agent_memory_model_loads_total", "Times that a model was to be loaded, by how it ended.", AM_METRIC_COUNTER, out);
    for (size_t k = 0; k < v->n; k++)
        for (int failed = 0; failed < 2; failed++)
            am_metric_write_line("agent_memory_model_loads_total", (am_metric_label[]){model_of(&v->list[k]), {"result", failed ? "failed" : "ok"}}, 2,
                                 (double)(failed ? v->list[k].n_failures : v->list[k].n_loads), out);
    write_members(v, of_any, sizeof of_any / sizeof of_any[0], false, out);
    write_members(v, of_loaded, sizeof of_loaded / sizeof of_loaded[0], true, out);
    for (size_t i = 0; i < sizeof metered / sizeof metered[0]; i++) {
        am_metric_write_head(metered[i]->name, metered[i]->help, metered[i]->kind, out);
        for (size_t k = 0; k < v->n; k++)
            if (v->list[k].n_loads) am_metric_write_block(metered[i], v->list[k].meter->cells, model_of(&v->list[k]), out);
    }
}

static void write_gate(am_registry *registry, am_buf *out) {
    const char *name = "agent_memory_gate";
    am_metric_write_head(name, "1 for what the operator has said: open, paused, draining, drained.", AM_METRIC_GAUGE, out);
    for (int s = AM_GATE_OPEN; s <= AM_GATE_DRAINED; s++)
        write_state(name, (am_metric_label){0}, (int)am_registry_gate(registry) == s, am_gate_state_name((am_gate_state)s), out);
}

static double resident_bytes(void) {
    unsigned long long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%llu %llu", &size, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void write_process(const am_server *server, am_buf *out) {
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    const looked_up list[] = {
        {"agent_memory_ready", "1 when requests are taken and answered, as GET /health/ready says.", AM_METRIC_GAUGE, am_server_is_ready(server)},
        {"agent_memory_http_connections", "Open connections.", AM_METRIC_GAUGE, server->n_conns},
        {"agent_memory_http_exchanges", "Requests that are being read, answered or finished.", AM_METRIC_GAUGE, atomic_load(&server->n_exchanges)},
        {"agent_memory_http_body_bytes", "Memory that request bodies hold.", AM_METRIC_GAUGE, (double)atomic_load(&server->body_bytes)},
        {"process_resident_memory_bytes", "Resident memory.", AM_METRIC_GAUGE, resident_bytes()},
        {"process_cpu_seconds_total", "Processor time.", AM_METRIC_COUNTER, cpu},
        {"process_start_time_seconds", "When the server started, in seconds since 1970.", AM_METRIC_GAUGE, (double)server->started_s},
    };
    WRITE_LIST(list, out);
    am_metric_write_head("agent_memory_build_info", "1, with the version.", AM_METRIC_GAUGE, out);
    am_metric_write_line("agent_memory_build_info", &(am_metric_label){"version", AM_VERSION}, 1, 1, out);
}

/* The kernel table of each loaded model, in model's and kernels' own names. */
static void write_kernels(am_buf *out) {
    am_metric_write_head("agent_memory_kernels_info", "1 for the kernel table that computes.", AM_METRIC_GAUGE, out);
    const char *said[AM_INHAND_ENGINES];
    size_t n_said = 0;
    for (size_t i = 0; i < AM_INHAND_ENGINES; i++) {
        const am_inhand *hand = am_inhand_at(i);
        bool again = false;
        for (size_t k = 0; hand && k < n_said; k++) again = again || am_str_eq(am_str_of(said[k]), am_str_of(hand->kernels));
        if (!hand || again) continue;
        said[n_said++] = hand->kernels;
        am_metric_write_line("agent_memory_kernels_info", &(am_metric_label){"table", hand->kernels}, 1, 1, out);
    }
}

void am_handle_metrics(am_exchange *x) {
    am_runtime *runtime = atomic_load(&x->server->runtime);
    am_buf out;
    am_buf_init(&out, MAX_BYTES);
    write_process(x->server, &out);
    am_route_metrics(&out);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) am_metric_write(kept[i], &out);
    if (runtime && !atomic_load(&x->server->stopping)) { /* a stopping engine is not asked any more */
        am_registry *registry = am_runtime_registry(runtime);
        views v = {0};
        am_registry_each(registry, add_view, &v);
        write_models(&v, &out);
        free(v.list);
        write_gate(registry, &out);
        const looked_up folder[] = {
            {"agent_memory_disk_bytes", "Bytes of agents' files on disk, of every model.", AM_METRIC_GAUGE, (double)am_registry_disk_bytes(registry)},
            {"agent_memory_absent_agents", "Agents on disk of models that are not in memory.", AM_METRIC_GAUGE, am_registry_absent(registry, NULL, (am_str){0}).n_agents},
        };
        WRITE_LIST(folder, &out);
        write_kernels(&out);
    }
    am_reply_send(x, 200, "text/plain; version=0.0.4; charset=utf-8", am_buf_str(&out));
    am_buf_free(&out);
}
