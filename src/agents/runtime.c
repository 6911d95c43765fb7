/* Owns the order of start and end. Start: lock on the data folder -> workers -> kernels -> model -> cache geometry -> engine (which opens the
 * cache, warms up and starts its thread). Every step that fails gives back what the earlier ones took, the lock last. The end is the same
 * way backwards, as the six stages of docs/DESIGN.md, each with a line in the log. */
#include "agents/runtime.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct am_runtime {
    char *data_dir, *cache_dir;
    int lock_fd; /* -1: not held */
    am_workers *workers;
    const am_kernels *kernels;
    am_model *model;
    am_engine *engine;
};

static am_status choose_dirs(am_runtime *rt, const char *wanted, am_error *err) {
    char dir[4096], caches[4096];
    const char *env = getenv("AGENT_MEMORY_DATA_DIR"), *home = getenv("HOME");
    am_status status = AM_OK;
    if (!wanted || !*wanted) wanted = env && *env ? env : NULL;
    if (!wanted && (!home || !*home)) return am_fail(err, AM_EINVAL, "no data folder: $HOME is not set, name one with --data-dir");
    if (!wanted) {
        status = am_fs_join(dir, sizeof dir, home, ".agent_memory", err);
        wanted = dir;
    }
    if (!status) status = am_fs_join(caches, sizeof caches, wanted, "caches", err);
    if (status) return status;
    rt->data_dir = strdup(wanted);
    rt->cache_dir = strdup(caches);
    if (!rt->data_dir || !rt->cache_dir) return am_fail(err, AM_ENOMEM, "no memory to start");
    return am_fs_mkdirs(caches, err);
}

static uint32_t core_count(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : (uint32_t)n;
}

/* A quarter of the machine, but never less than one sequence of full length with an open block for everybody who may run. */
static size_t default_kv_memory(const am_kv_layout *layout, uint32_t n_ctx, uint32_t max_parallel) {
    long n_pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t quarter = n_pages > 0 && page > 0 ? (size_t)n_pages / 4 * (size_t)page : 0;
    size_t least = (size_t)(n_ctx / AM_BLOCK_TOKENS + 2) * layout->sealed_bytes + (size_t)(max_parallel + 2) * layout->open_bytes;
    return quarter > least ? quarter : least;
}

static am_status load_model(am_runtime *rt, const am_runtime_options *o, am_error *err) {
    am_status status = am_workers_create(o->n_threads ? o->n_threads : core_count(), &rt->workers, err);
    if (!status) status = am_kernels_pick(o->isa, &rt->kernels, err);
    if (status) return status;
    char vocab_dir[4096];
    status = am_fs_join(vocab_dir, sizeof vocab_dir, rt->data_dir, "vocabularies", err);
    if (status) return status;
    am_model_options model = {.kernels = rt->kernels, .workers = rt->workers, .progress = o->progress, .progress_arg = o->progress_arg,
                              .n_ctx = o->n_ctx, .vocab_dir = vocab_dir};
    return am_model_load(o->model, &model, &rt->model, err);
}

static am_status start_engine(am_runtime *rt, const am_runtime_options *o, am_error *err) {
    const am_model_info *info = am_model_info_of(rt->model);
    am_kv_spec spec;
    am_engine_options e = {.model = rt->model, .workers = rt->workers};
    uint32_t bits_k = o->bits_k ? o->bits_k : AM_KV_BITS_K, bits_v = o->bits_v ? o->bits_v : AM_KV_BITS_V;
    am_status status = am_model_kv_spec(rt->model, bits_k, bits_v, &spec, err);
    if (!status) status = am_kv_layout_init(&e.cache.layout, &spec, err);
    if (status) return status;
    e.n_ctx = o->n_ctx ? o->n_ctx : info->n_ctx;
    e.max_parallel = o->max_parallel ? o->max_parallel : 16;
    e.max_queue = o->max_queue;
    e.chunk_tokens = o->chunk_tokens;
    e.step_ms = o->step_ms;
    e.seed = o->seed;
    e.cache.dir = rt->cache_dir;
    e.cache.model_name = info->name;
    memcpy(e.cache.model_fingerprint, info->fingerprint, sizeof info->fingerprint);
    e.cache.kernels = rt->kernels;
    e.cache.workers = rt->workers;
    e.cache.memory_bytes = o->kv_memory_bytes ? o->kv_memory_bytes : default_kv_memory(&e.cache.layout, e.n_ctx, e.max_parallel);
    e.cache.disk_bytes = o->disk_bytes;
    e.cache.durability = o->durability;
    return am_engine_start(&e, &rt->engine, err);
}

static void runtime_free(am_runtime *rt) {
    am_engine_stop(rt->engine);
    am_model_free(rt->model);
    am_workers_free(rt->workers);
    if (rt->lock_fd >= 0) am_cache_lock_release(rt->lock_fd);
    free(rt->data_dir);
    free(rt->cache_dir);
    free(rt);
}

/* What the cache and the clients have to live with: one line at every start. */
static void log_template(const am_model *model) {
    const am_chat *chat = am_model_chat(model);
    if (!chat) {
        am_log(AM_LOG_WARN, "chat_template_missing", AM_LS("model", am_model_info_of(model)->name));
        return;
    }
    const am_chat_traits *t = am_chat_traits_of(chat);
    const char *lacks[] = {t->system ? "" : " system", t->systems ? "" : " systems", t->late_system ? "" : " late_system",
                           t->same_role ? "" : " same_role", t->tools ? "" : " tools", t->tool_results ? "" : " tool_results"};
    char text[96];
    size_t n = 0;
    for (size_t i = 0; i < sizeof lacks / sizeof *lacks; i++) n += (size_t)snprintf(text + n, sizeof text - n, "%s", lacks[i]);
    am_log(t->appends ? AM_LOG_INFO : AM_LOG_WARN, "chat_template", AM_LS("adapted", n ? text + 1 : "nothing"),
           AM_LS("history", !t->appends ? "rewritten" : t->appends_reasoning ? "appends" : "appends, but not after reasoning"),
           AM_LU("leaves_at", t->appends ? 0 : t->leaves_at));
}

am_status am_runtime_start(const am_runtime_options *options, am_runtime **out, am_error *err) {
    *out = NULL;
    uint64_t start = am_now_ns();
    am_runtime *rt = am_calloc(1, sizeof *rt);
    if (!rt) return am_fail(err, AM_ENOMEM, "no memory to start");
    rt->lock_fd = -1;
    am_status status = choose_dirs(rt, options->data_dir, err);
    if (!status) status = am_cache_lock_dir(rt->cache_dir, options->who ? options->who : "", options->lock_wait_ms, &rt->lock_fd, err);
    if (!status) status = load_model(rt, options, err);
    if (!status) status = start_engine(rt, options, err);
    if (status) {
        runtime_free(rt);
        return status;
    }
    const am_model_info *info = am_model_info_of(rt->model);
    am_engine_stats stats;
    am_engine_stats_get(rt->engine, &stats);
    log_template(rt->model);
    am_log(AM_LOG_INFO, "runtime_started", AM_LS("model", info->name), AM_LS("format", info->format),
           AM_LU("weights_mb", info->weight_bytes >> 20), AM_LS("kernels", rt->kernels->name),
           AM_LU("threads", am_workers_count(rt->workers)), AM_LU("ctx", stats.n_ctx), AM_LU("kv_mb", stats.cache.memory_bytes >> 20),
           AM_LU("agents", stats.cache.n_heads), AM_LS("data_dir", rt->data_dir), AM_LF("ms", am_ms_since(start)));
    *out = rt;
    return AM_OK;
}

am_engine *am_runtime_engine(am_runtime *runtime) { return runtime->engine; }
const am_model *am_runtime_model(const am_runtime *runtime) { return runtime->model; }
const char *am_runtime_data_dir(const am_runtime *runtime) { return runtime->data_dir; }

static void log_stage(unsigned number, const char *name, uint64_t *start) {
    am_log(AM_LOG_INFO, "shutdown_stage", AM_LU("stage", number), AM_LS("name", name), AM_LF("ms", am_ms_since(*start)));
    *start = am_now_ns();
}

static am_status count_dirty(void *arg, const am_agent_info *info) {
    if (info->dirty) ++*(unsigned *)arg;
    return AM_OK;
}

static void count_dirty_heads(void *arg, am_cache *cache) { am_cache_agents(cache, NULL, count_dirty, arg); }

unsigned am_runtime_shutdown(am_runtime *rt, uint32_t drain_ms, const volatile int *hurry, void (*between)(void *arg), void *arg) {
    uint64_t begin = am_now_ns(), start = begin;
    unsigned n_dirty = 0;
    am_error err = {0};
    am_engine_stop_admitting(rt->engine);
    log_stage(1, "stop_admitting", &start);
    am_engine_drain(rt->engine, drain_ms, hurry);
    log_stage(2, "drain", &start);
    if (between) between(arg);
    start = am_now_ns();
    if (am_engine_persist(rt->engine, &err)) am_log(AM_LOG_ERROR, "persist_failed", AM_LS("reason", err.message));
    am_engine_call(rt->engine, count_dirty_heads, &n_dirty);
    log_stage(3, "persist", &start);
    am_engine_stop(rt->engine);
    rt->engine = NULL;
    log_stage(4, "stop_engine", &start);
    am_model_free(rt->model);
    rt->model = NULL;
    log_stage(5, "unload_model", &start);
    runtime_free(rt);
    log_stage(6, "free_memory", &start);
    am_log(AM_LOG_INFO, "server_shutdown_complete", AM_LU("not_durable", n_dirty), AM_LF("ms", am_ms_since(begin)));
    return n_dirty;
}

am_status am_prompt_make(const am_model *model, const am_chat_request *chat, am_prompt *out, am_error *err) {
    memset(out, 0, sizeof *out);
    const am_tokenizer *tokenizer = am_model_tokenizer(model);
    if (!tokenizer || !am_model_chat(model))
        return am_fail(err, AM_EUNSUPPORTED, "model %s has no %s", am_model_info_of(model)->name,
                       tokenizer ? "chat template" : "tokenizer");
    am_status status = am_chat_render(am_model_chat(model), chat, &out->rendered, err);
    if (!status)
        status = am_tokenizer_encode(tokenizer, am_buf_str(&out->rendered.text), out->rendered.input, out->rendered.n_input, 0,
                                     &out->tokens, err);
    if (status) am_prompt_free(out);
    return status;
}

void am_prompt_free(am_prompt *prompt) {
    am_rendered_free(&prompt->rendered);
    am_tokens_free(&prompt->tokens);
    memset(prompt, 0, sizeof *prompt);
}

am_sampling am_sampling_of_model(const am_model *model) {
    const am_model_info *info = am_model_info_of(model);
    am_sampling s = AM_SAMPLING;
    if (info->temperature >= 0) s.temperature = info->temperature;
    if (info->top_p >= 0) s.top_p = info->top_p;
    if (info->min_p >= 0) s.min_p = info->min_p;
    if (info->top_k >= 0) s.top_k = info->top_k;
    if (info->repetition_penalty > 0) s.repetition_penalty = info->repetition_penalty;
    return s;
}
