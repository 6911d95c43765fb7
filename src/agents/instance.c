/* Owns the life of one loaded model: workers -> model -> cache geometry -> engine (which opens the cache, warms up and starts its thread). Every
 * step that fails gives back what the earlier ones took; the end is the same way backwards, in steps that the registry logs one by one. */
#include "agents/instance.h"

#include "base/footprint.h"
#include "base/fs.h"
#include "base/log.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct am_instance {
    char name[256];
    am_workers *workers;
    am_model *model;
    am_engine *engine;
    am_model_info info;
    uint64_t bytes;
};

void am_model_entry_name(const am_model_entry *entry, char out[256]) {
    const char *from = entry->name && *entry->name ? entry->name : entry->path ? entry->path : "memo-28m";
    size_t end = strlen(from), begin;
    if (from == entry->path) {
        while (end > 1 && from[end - 1] == '/') end--;
        for (begin = end; begin > 0 && from[begin - 1] != '/'; begin--) continue;
        from += begin;
        end -= begin;
    }
    snprintf(out, 256, "%.*s", (int)(end < 255 ? end : 255), from);
}

/* A quarter of the machine, but never less than one sequence of full length with an open block for everybody who may run. */
static size_t default_kv_memory(const am_kv_layout *layout, uint32_t n_ctx, uint32_t max_parallel) {
    size_t quarter = (size_t)(am_memory_total() / 4);
    size_t least = am_cache_least_bytes(layout, n_ctx) + layout->sealed_bytes + (size_t)(max_parallel + 1) * layout->open_bytes;
    return quarter > least ? quarter : least;
}

static uint32_t choose(uint32_t own, uint32_t general, uint32_t otherwise) { return own ? own : general ? general : otherwise; }

static am_status load_model(am_instance *in, const am_instance_options *o, const am_model_entry *entry, am_error *err) {
    char vocab_dir[4096], packed_dir[4096];
    am_status status = am_workers_create(choose(entry->n_threads, o->n_threads, o->cpus ? o->cpus->n : am_cpus_threads()), &in->workers, err);
    if (!status && o->cpus) status = am_workers_pin(in->workers, o->cpus, err);
    if (!status) status = am_fs_join(vocab_dir, sizeof vocab_dir, o->data_dir, "vocabularies", err);
    if (!status) status = am_fs_join(packed_dir, sizeof packed_dir, o->data_dir, "packed", err);
    if (status) return status;
    am_model_options model = {.kernels = o->kernels, .workers = in->workers, .progress = o->progress, .progress_arg = o->progress_arg,
                              .n_ctx = entry->n_ctx ? entry->n_ctx : o->n_ctx, .vocab_dir = vocab_dir, .template_path = entry->template_path,
                              .packed_dir = o->packed_least_bytes ? packed_dir : NULL, .packed_least_bytes = o->packed_least_bytes};
    return am_model_load(entry->path, &model, &in->model, err);
}

static void fill_info(am_instance *in, const am_model_entry *entry) {
    in->info = *am_model_info_of(in->model);
    am_model_entry_name(entry, in->name);
    in->info.name = in->name;
    if (entry->temperature >= 0) in->info.temperature = entry->temperature;
    if (entry->top_p >= 0) in->info.top_p = entry->top_p;
    if (entry->min_p >= 0) in->info.min_p = entry->min_p;
    if (entry->repetition_penalty >= 0) in->info.repetition_penalty = entry->repetition_penalty;
    if (entry->top_k >= 0) in->info.top_k = entry->top_k;
}

static am_status start_engine(am_instance *in, const am_instance_options *o, const am_model_entry *entry, struct am_engine_meter *meter, am_error *err) {
    const am_model_info *info = am_model_info_of(in->model);
    am_kv_spec spec;
    am_engine_options e = {.model = in->model, .workers = in->workers, .meter = meter};
    am_status status = am_model_kv_spec(in->model, choose(entry->bits_k, o->bits_k, AM_KV_BITS_K), choose(entry->bits_v, o->bits_v, AM_KV_BITS_V), &spec, err);
    if (!status) status = am_kv_layout_init(&e.cache.layout, &spec, err);
    if (status) return status;
    e.n_ctx = choose(entry->n_ctx, o->n_ctx, info->n_ctx);
    e.max_parallel = o->max_parallel ? o->max_parallel : 16;
    e.max_queue = o->max_queue;
    e.chunk_tokens = o->chunk_tokens;
    e.step_ms = o->step_ms;
    e.lookup = o->lookup;
    e.seed = o->seed;
    e.cache.dir = o->cache_dir;
    e.cache.folder = o->folder;
    e.cache.model_name = info->name;
    memcpy(e.cache.model_fingerprint, info->fingerprint, sizeof info->fingerprint);
    e.cache.kernels = o->kernels;
    e.cache.workers = in->workers;
    e.cache.memory_bytes = entry->kv_memory_bytes ? entry->kv_memory_bytes : o->kv_memory_bytes;
    if (!e.cache.memory_bytes) e.cache.memory_bytes = default_kv_memory(&e.cache.layout, e.n_ctx, e.max_parallel);
    e.cache.disk_bytes = o->disk_bytes;
    e.cache.n_unnamed = o->n_unnamed;
    e.cache.durability = o->durability;
    return am_engine_start(&e, &in->engine, err);
}

/* What the cache and the clients have to live with: one line at every load. */
static void log_template(const am_model *model) {
    const am_chat *chat = am_model_chat(model);
    if (!chat) {
        am_log(AM_LOG_WARN, "chat_template_missing", AM_LS("model", am_model_info_of(model)->name));
        return;
    }
    const am_chat_traits *t = am_chat_traits_of(chat);
    const am_chat_history *plain = &t->history[AM_HISTORY_plain], *system = &t->history[AM_HISTORY_system];
    const am_chat_history *worst = plain->appends ? system : plain;
    char lacks[512];
    size_t n = 0;
#define LACKS(name)                                                                                                    \
    if (!t->name) n += (size_t)snprintf(lacks + n, sizeof lacks - n, " " #name);
    AM_CHAT_TRAITS(LACKS)
    am_log(worst->appends ? AM_LOG_INFO : AM_LOG_WARN, "chat_template", AM_LS("adapted", n ? lacks + 1 : "nothing"),
           AM_LS("reasoning", am_chat_reasoning_name(t->reasoning)),
           AM_LS("history", !plain->appends ? "rewritten" : !system->appends ? "rewritten with a system message"
                            : t->history[AM_HISTORY_reasoning].appends ? "appends" : "appends, but not after reasoning"),
           AM_LU("leaves_at", worst->leaves_at));
}

am_status am_instance_load(const am_instance_options *options, const am_model_entry *entry, struct am_engine_meter *meter, am_instance **out, am_error *err) {
    *out = NULL;
    am_instance *in = am_calloc(1, sizeof *in);
    if (!in) return am_fail(err, AM_ENOMEM, "no memory to load a model");
    am_status status = load_model(in, options, entry, err);
    if (!status) status = start_engine(in, options, entry, meter, err);
    if (status) {
        am_instance_free(in);
        return status;
    }
    am_engine_stats stats;
    fill_info(in, entry);
    am_engine_stats_get(in->engine, &stats);
    in->bytes = in->info.weight_bytes + stats.cache.memory_bytes + stats.workspace_bytes;
    log_template(in->model);
    *out = in;
    return AM_OK;
}

am_engine *am_instance_engine(const am_instance *instance) { return instance->engine; }
const am_model *am_instance_model(const am_instance *instance) { return instance->model; }
const am_model_info *am_instance_info(const am_instance *instance) { return &instance->info; }
uint64_t am_instance_bytes(const am_instance *instance) { return instance->bytes; }

void am_instance_stop_engine(am_instance *instance) {
    am_engine_stop(instance->engine);
    instance->engine = NULL;
}

void am_instance_unload_model(am_instance *instance) {
    am_model_free(instance->model);
    instance->model = NULL;
}

void am_instance_free(am_instance *instance) {
    if (!instance) return;
    am_instance_stop_engine(instance);
    am_instance_unload_model(instance);
    am_workers_free(instance->workers);
    free(instance);
    malloc_trim(0); /* what a model leaves behind in the allocator's free lists is the next one's memory, or the system's */
}

am_sampling am_sampling_of(const am_model_info *info) {
    am_sampling s = AM_SAMPLING;
    if (info->temperature >= 0) s.temperature = info->temperature;
    if (info->top_p >= 0) s.top_p = info->top_p;
    if (info->min_p >= 0) s.min_p = info->min_p;
    if (info->top_k >= 0) s.top_k = info->top_k;
    if (info->repetition_penalty > 0) s.repetition_penalty = info->repetition_penalty;
    return s;
}
