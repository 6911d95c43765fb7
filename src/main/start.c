/* Owns how settings become the options of a runtime. */
#include "main/start.h"

#include "main/progress.h"

enum { LOCK_WAIT_MS = 5000 };

am_status am_start_cpus(const am_settings *settings, am_cpus *out, am_error *err) {
    am_cpus allowed;
    out->n = 0;
    if (!settings->cpus) return AM_OK;
    am_cpus_allowed(&allowed);
    if (am_cpus_parse(am_str_of(settings->cpus), &allowed, out, err)) return am_error_prefix(err, "cpus");
    uint64_t most = settings->threads;
    for (size_t i = 0; i < settings->n_entries; i++)
        if (settings->entries[i].n_threads > most) most = settings->entries[i].n_threads;
    if (most > out->n) return am_fail(err, AM_EINVAL, "cpus: '%s' are %u processors, for %llu threads", settings->cpus, out->n, (unsigned long long)most);
    return AM_OK;
}

am_status am_start_runtime(const am_settings *settings, const char *who, am_runtime **out, am_error *err) {
    static am_cpus cpus; /* of the one runtime of the process */
    am_status status = am_start_cpus(settings, &cpus, err);
    if (status) return status;
    am_progress progress = {0};
    am_runtime_options options = {
        .model = settings->model,
        .models = settings->entries,
        .n_models = settings->command == AM_CMD_SERVE ? settings->n_entries : 0,
        .default_model = settings->command == AM_CMD_SERVE ? settings->default_model : NULL,
        .model_memory_bytes = settings->model_memory_bytes,
        .keep_alive_ms = (uint32_t)settings->model_idle_ms,
        .serves = settings->command == AM_CMD_SERVE,
        .data_dir = settings->data_dir,
        .isa = settings->isa,
        .who = who,
        .lock_wait_ms = LOCK_WAIT_MS,
        .packed_least_bytes = settings->packed_least_bytes,
        .n_ctx = (uint32_t)settings->ctx,
        .kv_memory_bytes = settings->kv_memory_bytes,
        .disk_bytes = settings->disk_bytes,
        .n_unnamed = (uint32_t)settings->unnamed_agents,
        .bits_k = (uint32_t)settings->bits_k,
        .bits_v = (uint32_t)settings->bits_v,
        .n_threads = (uint32_t)settings->threads,
        .cpus = cpus.n ? &cpus : NULL,
        .max_parallel = (uint32_t)settings->parallel,
        .drain_ms = (uint32_t)settings->drain_ms,
        .max_queue = (uint32_t)settings->queue,
        .chunk_tokens = (uint32_t)settings->chunk_tokens,
        .step_ms = (uint32_t)settings->step_ms,
        .lookup = (am_lookup_mode)settings->lookup,
        .durability = (am_durability)settings->durability,
        .seed = settings->seed,
        .progress = am_progress_update,
        .progress_arg = &progress,
    };
    status = am_runtime_start(&options, out, err);
    am_progress_end(&progress);
    return status;
}
