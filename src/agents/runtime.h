/* The runtime behind include/agent_memory.h, as the rooms above see it: the data folder with its lock, the kernels, and the registry of models,
 * started in order and taken down in the six stages of docs/DESIGN.md. */
#ifndef AM_AGENTS_RUNTIME_H
#define AM_AGENTS_RUNTIME_H

#include "agent_memory.h"
#include "agents/registry.h"

typedef struct am_runtime_options {
    const char *model;    /* folder, or NULL for the embedded one; when models is NULL */
    const am_model_entry *models; /* more than one, or one with settings of its own; copied */
    size_t n_models;
    const char *default_model;    /* its name; NULL: the first */
    uint64_t model_memory_bytes;  /* see am_registry_options */
    uint32_t keep_alive_ms, drain_ms;
    bool serves; /* models come and go by request: am_runtime_engine and its kin are not used */
    const char *data_dir; /* NULL: $AGENT_MEMORY_DATA_DIR, else ~/.agent_memory; states lie in <data_dir>/caches */
    const char *isa;      /* NULL: the best this machine has */
    const char *who;      /* said to a second process that wants the folder: "serve 127.0.0.1:8000" */
    uint32_t lock_wait_ms; /* how long another process may still have the folder, e.g. a predecessor that is writing its last bytes */
    uint32_t n_ctx;       /* 0: the model's */
    uint64_t kv_memory_bytes; /* 0: a quarter of the machine's memory, at least one full context */
    uint64_t disk_bytes;  /* 0: no quota */
    uint64_t packed_least_bytes; /* models that take so much are kept packed in the data folder too; 0: none */
    uint32_t n_unnamed;   /* as in am_cache_options */
    uint32_t bits_k, bits_v;  /* 0: 5 and 4 */
    uint32_t n_threads;   /* 0: one for each of cpus, or of the cores there are (am_cpus_threads) */
    const am_cpus *cpus;  /* where workers stay, as long as the runtime lives; NULL: where the system puts them */
    uint32_t max_parallel, max_queue, chunk_tokens, step_ms; /* 0: the engine's defaults */
    am_lookup_mode lookup;
    am_durability durability;
    uint64_t seed;
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
} am_runtime_options;

/* Locks the data folder (AM_EBUSY names the holder), loads the default model and those that are pinned, warms up. On failure everything is given back. */
am_status am_runtime_start(const am_runtime_options *options, am_runtime **out, am_error *err);
am_registry *am_runtime_registry(const am_runtime *runtime);
/* The one model of a runtime that does not serve. */
am_engine *am_runtime_engine(am_runtime *runtime);
const am_model *am_runtime_model(const am_runtime *runtime);
const am_model_info *am_runtime_info(const am_runtime *runtime);
const char *am_runtime_data_dir(const am_runtime *runtime);

/* The six stages; each is logged as shutdown_stage with its number, name and time, the last followed by server_shutdown_complete. between, when
 * not NULL, is called after stage 2 (the server sends what is left and closes). *hurry nonzero cuts the drain short, never the persisting.
 * Returns the number of heads that could not be made durable. Frees the runtime. */
unsigned am_runtime_shutdown(am_runtime *runtime, uint32_t drain_ms, const volatile int *hurry, void (*between)(void *arg), void *arg);

/* From messages to a request's prompt: template, then tokens with their text and input ranges. Thread-safe. *rendered and *tokens are the
 * caller's to free. AM_EINVAL: the template refused the messages (its own words). */
typedef struct am_prompt {
    am_rendered rendered;
    am_tokens tokens;
    bool cut; /* there would be more tokens than these: nothing but a refusal can be made of them */
    am_answer_form form; /* of what the model will write */
    int32_t kept[AM_MAX_KEPT]; /* control tokens that mark parts of it */
    uint32_t n_kept;
} am_prompt;
/* n_most: where there is no use in reading on (see cut); 0: nowhere. */
am_status am_prompt_make(const am_model *model, const am_chat_request *chat, size_t n_most, am_prompt *out, am_error *err);
void am_prompt_free(am_prompt *prompt);

#endif
