/* What benches of the engine share: a model, an engine on a folder of its own, requests that note when their tokens came. */
#ifndef AM_BENCH_ENGINE_BENCH_H
#define AM_BENCH_ENGINE_BENCH_H

#include "base/clock.h"
#include "base/log.h"
#include "engine/engine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BENCH_FN __attribute__((unused)) static

typedef struct bench_engine {
    char dir[64];
    am_workers *workers;
    const am_kernels *kernels;
    am_model *model;
    am_engine_options options;
    am_engine *engine;
} bench_engine;

enum { BENCH_MAX_TOKENS = 16384 };
typedef struct bench_answer {
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t moved;
    uint32_t n_tokens, n_generated, n_drafted, n_accepted;
    uint64_t sent_ns, started_ns, at_ns[BENCH_MAX_TOKENS]; /* at: of each token */
    am_turn_info info;
    double prefill_ms, decode_ms;
    bool over, failed;
} bench_answer;

/* The embedded model when path is NULL; AM_ISA and AM_THREADS choose table and threads. */
BENCH_FN am_status bench_load(bench_engine *b, const char *path, am_error *err) {
    am_kv_spec spec;
    am_log_setup(AM_LOG_ERROR, false);
    *b = (bench_engine){.dir = "/tmp/am_bench_XXXXXX"};
    const char *threads = getenv("AM_THREADS");
    long n = threads ? atol(threads) : (long)am_cpus_threads();
    am_status status = am_kernels_pick(getenv("AM_ISA"), &b->kernels, err);
    if (!status) status = am_workers_create((size_t)(n > 0 ? n : 1), &b->workers, err);
    if (!status) status = am_model_load(path, &(am_model_options){.kernels = b->kernels, .workers = b->workers}, &b->model, err);
    if (!status) status = am_model_kv_spec(b->model, AM_KV_BITS_K, AM_KV_BITS_V, &spec, err);
    if (!status) status = am_kv_layout_init(&b->options.cache.layout, &spec, err);
    if (status) return status;
    if (!mkdtemp(b->dir)) return am_fail(err, AM_EIO, "cannot make %s", b->dir);
    const am_model_info *info = am_model_info_of(b->model);
    am_engine_options *o = &b->options;
    o->model = b->model;
    o->workers = o->cache.workers = b->workers;
    o->cache.dir = b->dir;
    o->cache.model_name = info->name;
    o->cache.kernels = b->kernels;
    o->cache.durability = AM_DURABLE_NO;
    memcpy(o->cache.model_fingerprint, info->fingerprint, sizeof info->fingerprint);
    o->n_ctx = info->n_ctx < 8192 ? info->n_ctx : 8192;
    o->max_parallel = 4;
    o->seed = 1;
    o->cache.memory_bytes = 100 * o->cache.layout.sealed_bytes + 8 * o->cache.layout.open_bytes;
    return AM_OK;
}

BENCH_FN void bench_stop(bench_engine *b) {
    if (b->engine) am_engine_persist(b->engine, NULL);
    am_engine_stop(b->engine);
    b->engine = NULL;
}

BENCH_FN void bench_free(bench_engine *b) {
    char command[96];
    bench_stop(b);
    am_model_free(b->model);
    am_workers_free(b->workers);
    snprintf(command, sizeof command, "rm -rf %s", b->dir);
    if (system(command)) fprintf(stderr, "%s stays\n", b->dir);
}

BENCH_FN void bench_event(void *arg, const am_event *e) {
    bench_answer *a = arg;
    pthread_mutex_lock(&a->lock);
    if (e->kind == AM_EVENT_STARTED) a->started_ns = am_now_ns();
    if (e->kind == AM_EVENT_TOKEN && e->token >= 0 && a->n_tokens < BENCH_MAX_TOKENS) a->at_ns[a->n_tokens++] = am_now_ns();
    if (e->kind == AM_EVENT_DONE) {
        a->n_generated = e->n_generated, a->n_drafted = e->n_drafted, a->n_accepted = e->n_accepted;
        a->prefill_ms = e->prefill_ms, a->decode_ms = e->decode_ms;
        if (e->info) a->info = *e->info;
    }
    if (e->kind == AM_EVENT_ERROR) fprintf(stderr, "bench: %s\n", e->message);
    a->failed = e->kind == AM_EVENT_ERROR;
    a->over = a->failed || e->kind == AM_EVENT_DONE;
    pthread_cond_broadcast(&a->moved);
    pthread_mutex_unlock(&a->lock);
}

/* agent NULL: nothing is kept, and nothing reused. */
BENCH_FN bench_answer *bench_send(bench_engine *b, const char *agent, const int32_t *ids, uint32_t n, uint32_t max_tokens, uint64_t *id) {
    bench_answer *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->moved, NULL);
    am_request r = {.agent = am_str_of(agent), .tokens = {.ids = (int32_t *)ids, .n = n}, .sampling = AM_SAMPLING, .max_tokens = max_tokens,
                    .ignore_eos = true, .ephemeral = !agent, .no_reuse = !agent, .on_event = bench_event, .arg = a};
    r.sampling.temperature = 0;
    snprintf(r.id, sizeof r.id, "%s", agent ? agent : "bench");
    a->sent_ns = am_now_ns();
    am_error err = {0};
    if (am_engine_submit(b->engine, &r, id, &err)) {
        fprintf(stderr, "bench: %s\n", err.message);
        free(a);
        return NULL;
    }
    return a;
}

/* Until n_tokens have come, or it is over. */
BENCH_FN void bench_wait(bench_answer *a, uint32_t n_tokens) {
    pthread_mutex_lock(&a->lock);
    while (!a->over && a->n_tokens < n_tokens) pthread_cond_wait(&a->moved, &a->lock);
    pthread_mutex_unlock(&a->lock);
}

BENCH_FN uint32_t bench_dice(uint64_t *seed, uint32_t sides) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) % sides);
}

BENCH_FN int bench_by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

BENCH_FN double bench_median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, bench_by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

#endif
