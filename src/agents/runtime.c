/* Owns the order of start and end. Start: lock on the data folder -> kernels -> registry -> the default model and those that are pinned. Every step
 * that fails gives back what the earlier ones took, the lock last. The end is the same way backwards, as the six stages of docs/DESIGN.md,
 * each with a line in the log. */
#include "agents/runtime.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct am_runtime {
    char *data_dir, *cache_dir;
    int lock_fd; /* -1: not held */
    am_cache_folder folder;
    const am_kernels *kernels;
    am_registry *registry;
    am_instance *own; /* leased for good, unless it serves */
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

static am_status make_registry(am_runtime *rt, const am_runtime_options *o, am_error *err) {
    am_model_entry one = AM_MODEL_ENTRY;
    one.path = o->model;
    one.pin = !o->serves;
    am_registry_options options = {
        .instance = {.data_dir = rt->data_dir, .cache_dir = rt->cache_dir, .folder = &rt->folder, .kernels = rt->kernels, .n_ctx = o->n_ctx,
                     .kv_memory_bytes = o->kv_memory_bytes, .bits_k = o->bits_k, .bits_v = o->bits_v, .n_threads = o->n_threads, .cpus = o->cpus,
                     .disk_bytes = o->disk_bytes,
                     .n_unnamed = o->n_unnamed, .packed_least_bytes = o->packed_least_bytes, .max_parallel = o->max_parallel, .max_queue = o->max_queue, .chunk_tokens = o->chunk_tokens,
                     .step_ms = o->step_ms, .lookup = o->lookup, .durability = o->durability, .seed = o->seed, .progress = o->progress, .progress_arg = o->progress_arg},
        .entries = o->n_models ? o->models : &one,
        .n_entries = o->n_models ? o->n_models : 1,
        .default_name = o->default_model,
        .memory_bytes = o->model_memory_bytes,
        .keep_alive_ms = o->keep_alive_ms,
        .drain_ms = o->drain_ms,
    };
    return am_registry_create(&options, &rt->registry, err);
}

static am_status load(am_runtime *rt, const char *name, am_error *err) {
    am_op op = {.kind = AM_OP_LOAD, .timeout_ms = UINT32_MAX};
    am_op_result result;
    snprintf(op.model, sizeof op.model, "%s", name);
    am_status status = am_registry_do(rt->registry, &op, &result);
    return status ? am_fail(err, status, "%s", result.message) : AM_OK;
}

static void look_at(void *arg, const am_model_view *view) {
    (void)arg;
    if (view->error[0]) am_log(AM_LOG_WARN, "model_unusable", AM_LS("model", view->entry->name), AM_LS("reason", view->error));
}

static am_status load_first(am_runtime *rt, const am_runtime_options *o, am_error *err) {
    char name[256];
    am_status status = load(rt, "", err);
    for (size_t i = 0; !status && i < o->n_models; i++) {
        if (!o->models[i].pin) continue;
        am_model_entry_name(&o->models[i], name);
        status = load(rt, name, err);
    }
    if (!status && o->n_models > 1) am_registry_each(rt->registry, look_at, NULL); /* headers are read now, not on the network's thread */
    if (!status && !o->serves) rt->own = am_registry_peek(rt->registry, (am_str){0});
    return status;
}

static void runtime_free(am_runtime *rt) {
    am_registry_free(rt->registry);
    am_cache_folder_free(&rt->folder);
    if (rt->lock_fd >= 0) am_cache_lock_release(rt->lock_fd);
    free(rt->data_dir);
    free(rt->cache_dir);
    free(rt);
}

am_status am_runtime_start(const am_runtime_options *options, am_runtime **out, am_error *err) {
    *out = NULL;
    uint64_t start = am_now_ns();
    am_runtime *rt = am_calloc(1, sizeof *rt);
    if (!rt) return am_fail(err, AM_ENOMEM, "no memory to start");
    rt->lock_fd = -1;
    am_status status = choose_dirs(rt, options->data_dir, err);
    if (!status) status = am_cache_lock_dir(rt->cache_dir, options->who ? options->who : "", options->lock_wait_ms, &rt->lock_fd, err);
    if (!status) status = am_kernels_pick(options->isa, &rt->kernels, err);
    if (!status) status = make_registry(rt, options, err);
    if (!status) status = load_first(rt, options, err);
    if (status) {
        runtime_free(rt);
        return status;
    }
    am_registry_started(rt->registry);
    am_model_view view;
    am_registry_find(rt->registry, (am_str){0}, &view);
    am_log(AM_LOG_INFO, "runtime_started", AM_LS("model", view.entry->name), AM_LS("format", view.facts.format),
           AM_LU("weights_mb", view.facts.weight_bytes >> 20), AM_LS("kernels", rt->kernels->name), AM_LU("ctx", view.stats.n_ctx),
           AM_LU("kv_mb", view.stats.cache.memory_bytes >> 20), AM_LU("agents", view.stats.cache.n_heads),
           AM_LU("models", options->n_models ? options->n_models : 1), AM_LS("data_dir", rt->data_dir), AM_LF("ms", am_ms_since(start)));
    *out = rt;
    return AM_OK;
}

am_registry *am_runtime_registry(const am_runtime *runtime) { return runtime->registry; }
am_engine *am_runtime_engine(am_runtime *runtime) { return am_instance_engine(runtime->own); }
const am_model *am_runtime_model(const am_runtime *runtime) { return am_instance_model(runtime->own); }
const am_model_info *am_runtime_info(const am_runtime *runtime) { return am_instance_info(runtime->own); }
const char *am_runtime_data_dir(const am_runtime *runtime) { return runtime->data_dir; }

static void log_stage(unsigned number, const char *name, uint64_t *start) {
    am_log(AM_LOG_INFO, "shutdown_stage", AM_LU("stage", number), AM_LS("name", name), AM_LF("ms", am_ms_since(*start)));
    *start = am_now_ns();
}

unsigned am_runtime_shutdown(am_runtime *rt, uint32_t drain_ms, const volatile int *hurry, void (*between)(void *arg), void *arg) {
    uint64_t begin = am_now_ns(), start = begin;
    am_registry_begin_end(rt->registry);
    log_stage(1, "stop_admitting", &start);
    am_registry_drain(rt->registry, drain_ms, hurry);
    log_stage(2, "drain", &start);
    if (between) between(arg);
    start = am_now_ns();
    unsigned n_dirty = am_registry_persist(rt->registry);
    log_stage(3, "persist", &start);
    am_registry_stop_engines(rt->registry);
    log_stage(4, "stop_engine", &start);
    am_registry_unload_models(rt->registry);
    log_stage(5, "unload_model", &start);
    runtime_free(rt);
    log_stage(6, "free_memory", &start);
    am_log(AM_LOG_INFO, "server_shutdown_complete", AM_LU("not_durable", n_dirty), AM_LF("ms", am_ms_since(begin)));
    return n_dirty;
}

/* The control tokens among the marks of an answer; of calls only where there are functions to call. */
static am_status find_kept(const am_tokenizer *tokenizer, bool with_calls, am_prompt *p, am_error *err) {
    am_buf marks;
    am_tokens tokens = {0};
    am_buf_init(&marks, 1 << 16);
    am_status status = am_answer_marks(&p->form, with_calls, &marks);
    if (!status && marks.n) status = am_tokenizer_encode(tokenizer, am_buf_str(&marks), NULL, 0, 0, &tokens, err);
    for (size_t i = 0; i < tokens.n && p->n_kept < AM_MAX_KEPT; i++)
        if (am_tokenizer_is_special(tokenizer, tokens.ids[i])) p->kept[p->n_kept++] = tokens.ids[i];
    am_tokens_free(&tokens);
    am_buf_free(&marks);
    return status;
}

am_status am_prompt_make(const am_model *model, const am_chat_request *chat, size_t n_most, am_prompt *out, am_error *err) {
    memset(out, 0, sizeof *out);
    out->tokens.max = n_most;
    const am_tokenizer *tokenizer = am_model_tokenizer(model);
    if (!tokenizer || !am_model_chat(model))
        return am_fail(err, AM_EUNSUPPORTED, "model %s has no %s", am_model_info_of(model)->name,
                       tokenizer ? "chat template" : "tokenizer");
    am_status status = am_chat_render(am_model_chat(model), chat, &out->rendered, err);
    out->cut = !status && n_most && am_tokenizer_least(tokenizer, out->rendered.text.n) > n_most;
    if (out->cut) out->tokens.n = n_most;
    else if (!status) {
        status = am_tokenizer_encode(tokenizer, am_buf_str(&out->rendered.text), out->rendered.input, out->rendered.n_input, 0, &out->tokens, err);
        out->cut = status == AM_ELIMIT && n_most && out->tokens.n == n_most;
        if (out->cut) status = AM_OK;
    }
    out->form = am_chat_traits_of(am_model_chat(model))->form;
    if (!status) status = find_kept(tokenizer, json_array_size(chat->tools) > 0, out, err);
    if (status) am_prompt_free(out);
    return status;
}

void am_prompt_free(am_prompt *prompt) {
    am_rendered_free(&prompt->rendered);
    am_tokens_free(&prompt->tokens);
    memset(prompt, 0, sizeof *prompt);
}
