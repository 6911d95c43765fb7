/* A loaded model with everything that lives and dies with it: weights, worker team, engine, the cache of its agents. What a process has once (data
 * folder, its lock, kernels) is handed in; several instances share it. */
#ifndef AM_AGENTS_INSTANCE_H
#define AM_AGENTS_INSTANCE_H

#include "engine/engine.h"

/* A model as it is configured. Zero, NULL or (where a zero means something) a negative number: what holds for every model. */
typedef struct am_model_entry {
    const char *name;           /* NULL: the last part of the path, or memo-28m */
    const char *path;           /* folder or .gguf file; NULL: the embedded model */
    const char *const *aliases; /* further names, with * for any run of characters: claude-* */
    size_t n_aliases;
    uint32_t n_ctx, bits_k, bits_v, n_threads;
    uint64_t kv_memory_bytes;
    float temperature, top_p, min_p, repetition_penalty; /* negative: the model's own */
    int32_t top_k;
    const char *template_path;  /* chat template instead of the model's own */
    bool pin;                   /* loaded at start, never dropped to make room or for idleness */
    int64_t keep_alive_ms;      /* idle for so long: dropped from memory; 0: never; negative: what holds for every model */
} am_model_entry;
#define AM_MODEL_ENTRY ((am_model_entry){.temperature = -1, .top_p = -1, .min_p = -1, .repetition_penalty = -1, .top_k = -1, .keep_alive_ms = -1})

/* What instances share, and what an entry that is silent gets. */
typedef struct am_instance_options {
    const char *data_dir, *cache_dir;
    am_cache_folder *folder; /* accounts of cache_dir */
    const am_kernels *kernels;
    uint32_t n_ctx;           /* 0: the model's */
    uint64_t kv_memory_bytes; /* 0: a quarter of the machine's memory, at least one full context */
    uint32_t bits_k, bits_v;  /* 0: 5 and 4 */
    uint32_t n_threads;       /* 0: one for each of cpus, or of the cores there are (am_cpus_threads) */
    const am_cpus *cpus;      /* where workers stay; NULL: where the system puts them */
    uint64_t disk_bytes;
    uint64_t packed_least_bytes; /* models that take so much are kept packed in the data folder; 0: none */
    uint32_t n_unnamed;
    uint32_t max_parallel, max_queue, chunk_tokens, step_ms;
    am_lookup_mode lookup;
    am_durability durability;
    uint64_t seed;
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
} am_instance_options;

typedef struct am_instance am_instance;

/* Loads weights, opens the cache, warms up. On failure everything is given back. entry is only read while it loads; meter (engine/metrics.h)
 * outlives the instance. */
am_status am_instance_load(const am_instance_options *options, const am_model_entry *entry, struct am_engine_meter *meter, am_instance **out, am_error *err);
am_engine *am_instance_engine(const am_instance *instance);
const am_model *am_instance_model(const am_instance *instance);
/* The model's, under the entry's name and with its sampling defaults over the model's. */
const am_model_info *am_instance_info(const am_instance *instance);
uint64_t am_instance_bytes(const am_instance *instance); /* weights, pool and workspace, used or not */
/* The last three stages of an end, each possible alone and in this order; nobody may use the instance any more. What was not persisted is lost. */
void am_instance_stop_engine(am_instance *instance);
void am_instance_unload_model(am_instance *instance);
void am_instance_free(am_instance *instance); /* does what of the two was not done; NULL is fine */

/* The name an entry goes by. */
void am_model_entry_name(const am_model_entry *entry, char out[256]);

/* Sampling as the model's generation_config (or the entry) wants it, AM_SAMPLING where that is silent. */
am_sampling am_sampling_of(const am_model_info *info);

#endif
