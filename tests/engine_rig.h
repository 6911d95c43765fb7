/* What the engine's tests share: a model loaded once per kernel table, an engine on a folder of its own, requests that collect what they got. */
#ifndef AM_TESTS_ENGINE_RIG_H
#define AM_TESTS_ENGINE_RIG_H

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "engine/engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define RIG_FN __attribute__((unused)) static

enum { RIG_MODELS = 8 };
static struct {
    const am_kernels *kernels;
    am_model *model;
} rig_models[RIG_MODELS];

/* The embedded model on one kernel table; lives until rig_models_free. */
RIG_FN am_model *rig_model(const char *isa) {
    const am_kernels *kernels;
    am_error err = {0};
    if (am_kernels_pick(isa, &kernels, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < RIG_MODELS; i++) {
        if (rig_models[i].kernels == kernels) return rig_models[i].model;
        if (rig_models[i].kernels) continue;
        am_model_options options = {.kernels = kernels};
        if (am_model_load(NULL, &options, &rig_models[i].model, &err)) fail_msg("%s", err.message);
        rig_models[i].kernels = kernels;
        return rig_models[i].model;
    }
    fail_msg("more kernel tables than expected");
    return NULL;
}

RIG_FN void rig_models_free(void) {
    for (int i = 0; i < RIG_MODELS; i++) am_model_free(rig_models[i].model);
    memset(rig_models, 0, sizeof rig_models);
}

typedef struct rig_spec {
    const char *isa;       /* NULL: the best */
    const char *dir;       /* NULL: a fresh one, removed at the end */
    uint32_t bits;         /* 4 */
    uint32_t n_threads;    /* 1 */
    uint32_t n_ctx;        /* 1024 */
    uint32_t max_parallel; /* 4 */
    uint32_t max_queue;    /* 64 */
    uint32_t chunk;        /* 256 */
    uint32_t step_ms;      /* 100 */
    uint32_t n_sealed, n_open; /* pool size in blocks; 0: ample */
    uint64_t seed;
    am_lookup_mode lookup;
    void (*on_logits)(void *arg, const char *request, uint32_t position, float *logits);
    void *arg;
} rig_spec;

typedef struct rig {
    char dir[256];
    bool own_dir;
    am_workers *workers;
    const am_kernels *kernels;
    am_engine *engine;
    const am_model *model;
    am_kv_layout layout;
} rig;

RIG_FN uint32_t rig_or(uint32_t value, uint32_t otherwise) { return value ? value : otherwise; }

RIG_FN am_status rig_try_open(rig *r, const rig_spec *spec, am_error *err) {
    memset(r, 0, sizeof *r);
    if (spec->dir) {
        snprintf(r->dir, sizeof r->dir, "%s", spec->dir);
    } else {
        snprintf(r->dir, sizeof r->dir, "/tmp/am_engine_XXXXXX");
        assert_non_null(mkdtemp(r->dir));
        r->own_dir = true;
    }
    r->model = rig_model(spec->isa);
    am_kernels_pick(spec->isa, &r->kernels, NULL);
    am_kv_spec kv;
    assert_int_equal(am_model_kv_spec(r->model, rig_or(spec->bits, 4), rig_or(spec->bits, 4), &kv, NULL), AM_OK);
    assert_int_equal(am_kv_layout_init(&r->layout, &kv, NULL), AM_OK);
    assert_int_equal(am_workers_create(rig_or(spec->n_threads, 1), &r->workers, NULL), AM_OK);
    const am_model_info *info = am_model_info_of(r->model);
    am_engine_options o = {
        .model = r->model,
        .workers = r->workers,
        .cache = {.dir = r->dir, .model_name = info->name, .layout = r->layout, .kernels = r->kernels, .workers = r->workers,
                  .durability = AM_DURABLE_NO},
        .n_ctx = rig_or(spec->n_ctx, 1024),
        .max_parallel = rig_or(spec->max_parallel, 4),
        .max_queue = rig_or(spec->max_queue, 64),
        .chunk_tokens = rig_or(spec->chunk, 256),
        .step_ms = spec->step_ms,
        .lookup = spec->lookup,
        .seed = spec->seed,
        .on_logits = spec->on_logits,
        .on_logits_arg = spec->arg,
    };
    memcpy(o.cache.model_fingerprint, info->fingerprint, sizeof info->fingerprint);
    o.cache.memory_bytes = rig_or(spec->n_sealed, 256) * r->layout.sealed_bytes + rig_or(spec->n_open, 40) * r->layout.open_bytes;
    return am_engine_start(&o, &r->engine, err);
}

RIG_FN void rig_open(rig *r, const rig_spec *spec) {
    am_error err = {0};
    if (rig_try_open(r, spec, &err)) fail_msg("%s", err.message);
}

/* Persists what there is and stops. */
RIG_FN void rig_close(rig *r) {
    am_error err = {0};
    if (r->engine) {
        am_engine_stop_admitting(r->engine);
        am_engine_drain(r->engine, 0, NULL);
        if (am_engine_persist(r->engine, &err)) fail_msg("%s", err.message);
        am_engine_stop(r->engine);
    }
    am_workers_free(r->workers);
    if (r->own_dir) {
        char command[300];
        snprintf(command, sizeof command, "rm -rf %s", r->dir);
        assert_int_equal(system(command), 0);
    }
}

typedef struct answer {
    rig *rig;
    uint64_t id;
    pthread_mutex_t lock; /* protects all below while the request lives */
    pthread_cond_t moved;
    bool over;
    uint32_t n_started, n_prefill, n_tokens, n_done, n_total;
    am_status status;     /* of an ERROR event */
    char message[512];
    am_finish finish;
    char stop[64];
    uint32_t n_generated, n_drafted, n_accepted;
    am_turn_info info;
    am_buf text;
    int32_t ids[8192];
    float logprobs[8192];
    am_logprob top[8192];
    uint32_t cancel_at_prefill, cancel_at_token; /* 0: never; from inside the event */
    void (*hook)(struct answer *a, const am_event *event); /* on the engine thread */
    void *arg;
} answer;

RIG_FN void answer_take(answer *a, const am_event *e) {
    assert_false(a->over);
    if (e->kind == AM_EVENT_STARTED) a->n_started++;
    if (e->kind == AM_EVENT_PREFILL) {
        a->n_prefill++;
        assert_true(e->n_done > a->n_done && e->n_done <= e->n_total);
        a->n_done = e->n_done;
        a->n_total = e->n_total;
    }
    if (e->kind == AM_EVENT_TOKEN) {
        assert_int_equal(a->n_started, 1);
        if (e->text.n) memcpy(a->text.p + a->text.n, e->text.p, e->text.n), a->text.n += e->text.n, a->text.p[a->text.n] = 0;
        if (e->token >= 0) {
            a->ids[a->n_tokens] = e->token;
            a->logprobs[a->n_tokens] = e->logprob;
            if (e->n_top) a->top[a->n_tokens] = e->top[0];
            a->n_tokens++;
        }
    }
    if (e->kind == AM_EVENT_ERROR) {
        a->status = e->status;
        snprintf(a->message, sizeof a->message, "%s", e->message);
    }
    if (e->kind == AM_EVENT_DONE) {
        a->finish = e->finish;
        a->n_generated = e->n_generated;
        a->n_drafted = e->n_drafted;
        a->n_accepted = e->n_accepted;
        if (e->info) a->info = *e->info;
        snprintf(a->stop, sizeof a->stop, "%.*s", (int)e->stop.n, e->stop.p ? e->stop.p : "");
    }
    a->over = e->kind == AM_EVENT_ERROR || e->kind == AM_EVENT_DONE;
}

RIG_FN void answer_event(void *arg, const am_event *e) {
    answer *a = arg;
    if (a->hook) a->hook(a, e);
    pthread_mutex_lock(&a->lock);
    answer_take(a, e);
    bool cancel = (e->kind == AM_EVENT_PREFILL && a->cancel_at_prefill == a->n_prefill) ||
                  (e->kind == AM_EVENT_TOKEN && a->cancel_at_token == a->n_tokens);
    if (cancel) am_engine_cancel(a->rig->engine, a->id);
    pthread_cond_broadcast(&a->moved);
    pthread_mutex_unlock(&a->lock);
}

RIG_FN answer *answer_new(rig *r) {
    answer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->rig = r;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->moved, NULL);
    am_buf_init(&a->text, 1 << 20);
    assert_int_equal(am_buf_reserve(&a->text, (1 << 18)), AM_OK);
    a->text.p[0] = 0;
    return a;
}

RIG_FN void answer_free(answer *a) {
    if (!a) return;
    pthread_cond_destroy(&a->moved);
    pthread_mutex_destroy(&a->lock);
    am_buf_free(&a->text);
    free(a);
}

/* A greedy request for `agent` (NULL: an ephemeral one, nothing is kept). */
RIG_FN am_request rig_request(const char *agent, const int32_t *ids, uint32_t n, uint32_t max_tokens) {
    am_request request = {.agent = am_str_of(agent), .sampling = AM_SAMPLING, .max_tokens = max_tokens, .ephemeral = !agent};
    request.tokens = (am_tokens){.ids = (int32_t *)ids, .n = n};
    request.sampling.temperature = 0;
    snprintf(request.id, sizeof request.id, "%s", agent ? agent : "ephemeral");
    return request;
}

RIG_FN am_status rig_submit(answer *a, const am_request *request, am_error *err) {
    am_request copy = *request;
    copy.on_event = answer_event;
    copy.arg = a;
    return am_engine_submit(a->rig->engine, &copy, &a->id, err);
}

RIG_FN answer *rig_send(rig *r, const am_request *request) {
    answer *a = answer_new(r);
    am_error err = {0};
    if (rig_submit(a, request, &err)) fail_msg("%s", err.message);
    return a;
}

/* Until n_tokens tokens have come (or it is over); n_tokens UINT32_MAX: until it is over. */
RIG_FN void rig_wait_tokens(answer *a, uint32_t n_tokens) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 240;
    pthread_mutex_lock(&a->lock);
    while (!a->over && a->n_tokens < n_tokens)
        if (pthread_cond_timedwait(&a->moved, &a->lock, &until)) fail_msg("no end after 240 s");
    pthread_mutex_unlock(&a->lock);
}
RIG_FN void rig_wait(answer *a) { rig_wait_tokens(a, UINT32_MAX); }

RIG_FN answer *rig_run(rig *r, const am_request *request) {
    answer *a = rig_send(r, request);
    rig_wait(a);
    return a;
}

/* Ids without meaning but never a control token: the same for the same seed. */
RIG_FN void rig_random_ids(int32_t *ids, uint32_t n, uint64_t seed) {
    for (uint32_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((seed >> 33) % 8000);
    }
}

#endif
