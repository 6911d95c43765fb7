/* Owns GET /metrics: every metric of every room below as Prometheus' text, and those that are looked up when asked for (engine, pool, disk, process).
 *
 * Names, labels and their values are fixed here and in the rooms; nothing that a client sends becomes part of a series. docs/observability has the
 * dashboard and the alerts that use them. */
#include "server/internal.h"

#include "base/inhand.h"
#include "base/metrics.h"
#include "cache/metrics.h"
#include "engine/metrics.h"
#include "model/metrics.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum { MAX_BYTES = 4 << 20 };

static const char *const reasons[] = {"origin", "key", "rate", "parallel", "quota"}; /* as am_refused */
static _Atomic uint64_t refused[5];
static am_metric metric_refused = {.name = "agent_memory_http_refused_total", .help = "Requests that were refused before any work, by why.",
                                   .kind = AM_METRIC_COUNTER, .label = "reason", .values = reasons, .n_values = 5, .cells = refused};

void am_metrics_refused(am_refused why) { am_metric_add(&metric_refused, why, 1); }

static const am_metric *const kept[] = {
    &metric_refused,           &am_metric_queue_time,    &am_metric_first_token,       &am_metric_between_tokens, &am_metric_turns,
    &am_metric_turns_of_tier,  &am_metric_prompt_tokens, &am_metric_generated_tokens,  &am_metric_drafted_tokens, &am_metric_accepted_tokens, &am_metric_cached_tokens,  &am_metric_misses,
    &am_metric_restore_time,   &am_metric_read_time,     &am_metric_save_time,         &am_metric_model_loads,    &am_metric_model_load_time,
};

typedef struct looked_up {
    const char *name, *help;
    am_metric_kind kind;
    double value;
} looked_up;

static void write_list(const looked_up *list, size_t n, am_buf *out) {
    for (size_t i = 0; i < n; i++) {
        am_metric_write_head(list[i].name, list[i].help, list[i].kind, out);
        am_metric_write_line(list[i].name, NULL, NULL, list[i].value, out);
    }
}
#define WRITE_LIST(list, out) write_list(list, sizeof list / sizeof list[0], out)

static void write_engine(const am_engine_stats *s, am_buf *out) {
    const am_cache_stats *c = &s->cache;
    const am_metric_kind gauge = AM_METRIC_GAUGE, counter = AM_METRIC_COUNTER;
    const looked_up list[] = {
        {"agent_memory_requests_queued", "Requests that wait for admission.", gauge, s->n_queued},
        {"agent_memory_requests_running", "Requests that are being answered.", gauge, s->n_running},
        {"agent_memory_requests_queued_limit", "Requests that may wait; one more gets 429.", gauge, s->max_queue},
        {"agent_memory_requests_running_limit", "Requests that may be answered at once.", gauge, s->max_parallel},
        {"agent_memory_context_tokens", "Longest conversation.", gauge, s->n_ctx},
        {"agent_memory_steps_total", "Forward passes.", counter, (double)s->n_steps},
        {"agent_memory_prefill_tokens_per_second", "Speed of prompts, moving average.", gauge, s->prefill_tokens_per_s},
        {"agent_memory_decode_tokens_per_second", "Speed of answers of all requests together, moving average.", gauge, s->decode_tokens_per_s},
        {"agent_memory_agents", "Agents that are kept.", gauge, c->n_heads},
        {"agent_memory_pool_bytes", "Memory for attention state.", gauge, (double)c->memory_bytes},
        {"agent_memory_pool_sealed_slots", "Places for sealed blocks in memory.", gauge, c->n_sealed_slots},
        {"agent_memory_pool_sealed_slots_used", "Places for sealed blocks that are taken.", gauge, c->n_sealed_used},
        {"agent_memory_pool_open_slots", "Places for open blocks in memory.", gauge, c->n_open_slots},
        {"agent_memory_pool_open_slots_used", "Places for open blocks that are taken.", gauge, c->n_open_used},
        {"agent_memory_blocks", "Sealed blocks in memory or on disk.", gauge, c->n_blocks},
        {"agent_memory_disk_blocks", "Sealed blocks on disk.", gauge, c->n_blocks_disk},
        {"agent_memory_disk_bytes", "Bytes of agents' files on disk.", gauge, (double)c->disk_bytes},
        {"agent_memory_dirty", "Heads and blocks that are not on disk yet.", gauge, c->n_dirty},
        {"agent_memory_save_bytes_total", "Bytes of agents' files written.", counter, (double)c->bytes_written},
        {"agent_memory_save_failures_total", "Writes that failed; each is tried again.", counter, (double)c->n_write_failures},
        {"agent_memory_restore_bytes_total", "Bytes of agents' files read for turns.", counter, (double)c->bytes_read},
        {"agent_memory_restored_blocks_total", "Sealed blocks read for turns.", counter, (double)c->n_restored_blocks},
        {"agent_memory_evictions_total", "Sealed blocks that left memory for others.", counter, (double)c->n_evictions},
        {"agent_memory_refused_files_total", "Files that were wrong and moved aside.", counter, (double)c->n_refused},
        {"agent_memory_orphans_total", "Leftovers of an interrupted write that were removed.", counter, (double)c->n_orphans},
    };
    WRITE_LIST(list, out);
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
        {"agent_memory_ready", "1 when requests are taken.", AM_METRIC_GAUGE, atomic_load(&server->runtime) && !atomic_load(&server->stopping)},
        {"agent_memory_http_connections", "Open connections.", AM_METRIC_GAUGE, server->n_conns},
        {"agent_memory_http_exchanges", "Requests that are being read, answered or finished.", AM_METRIC_GAUGE, atomic_load(&server->n_exchanges)},
        {"agent_memory_http_body_bytes", "Memory that request bodies hold.", AM_METRIC_GAUGE, (double)atomic_load(&server->body_bytes)},
        {"process_resident_memory_bytes", "Resident memory.", AM_METRIC_GAUGE, resident_bytes()},
        {"process_cpu_seconds_total", "Processor time.", AM_METRIC_COUNTER, cpu},
        {"process_start_time_seconds", "When the server started, in seconds since 1970.", AM_METRIC_GAUGE, (double)server->started_s},
    };
    WRITE_LIST(list, out);
    am_metric_write_head("agent_memory_build_info", "1, with the version.", AM_METRIC_GAUGE, out);
    am_metric_write_line("agent_memory_build_info", "version", AM_VERSION, 1, out);
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
        am_metric_write_line("agent_memory_kernels_info", "table", hand->kernels, 1, out);
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
        am_engine_stats stats;
        am_registry_stats(am_runtime_registry(runtime), &stats);
        write_engine(&stats, &out);
        write_kernels(&out);
    }
    am_reply_send(x, 200, "text/plain; version=0.0.4; charset=utf-8", am_buf_str(&out));
    am_buf_free(&out);
}
