/* Owns the engine thread and everything other threads share with it: the mailbox, the list of live requests, the published counters.
 *
 * The thread's loop: take the mailbox -> am_cache_poll -> calls -> cancels -> admit -> restore -> one step -> publish. `lock` is held only to
 * take and to publish, never across the cache, a forward pass or a callback. Between steps nothing waits while something can run; otherwise the
 * thread sleeps until a submit, a cancel, a call or the cache's I/O wakes it, at most IDLE_MS, so that last_step_ns also tells that it lives. */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/log.h"
#include "engine/metrics.h"
#include "engine/schedule.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { IDLE_MS = 500, HURRY_POLL_MS = 20 };

typedef struct call {
    struct call *next;
    void (*fn)(void *arg, am_cache *cache);
    void *arg;
    bool done;
} call;

struct am_engine {
    am_schedule schedule; /* the engine thread's alone once it runs */
    am_seq_limits limits;
    am_engine_meter own_meter; /* when no other was given */
    pthread_t thread;
    am_workers *workers;       /* of the options */
    bool has_lock;

    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t wake;  /* the engine thread waits here */
    pthread_cond_t moved; /* others wait here: a request settled or was released, a call was done */
    am_seq *incoming_head, *incoming_tail;
    am_seq *live;         /* every request not yet released */
    uint32_t n_active;    /* of them, those that wait or run */
    call *calls, *calls_tail;
    bool woken, admitting, stopping, paused;
    uint64_t last_number;
    uint64_t base_seed, seeded_at; /* the number of the last request before base_seed was set */
    am_engine_stats stats;
};

static void wake_engine(am_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->woken = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
}

static void cache_woke(void *arg) { wake_engine(arg); }

static void seq_settled(void *arg) {
    am_engine *e = arg;
    pthread_mutex_lock(&e->lock);
    e->n_active--;
    pthread_cond_broadcast(&e->moved);
    pthread_mutex_unlock(&e->lock);
}

static void seq_release(void *arg, am_seq *seq) {
    am_engine *e = arg;
    pthread_mutex_lock(&e->lock);
    *(seq->live_prev ? &seq->live_prev->live_next : &e->live) = seq->live_next;
    if (seq->live_next) seq->live_next->live_prev = seq->live_prev;
    pthread_cond_broadcast(&e->moved);
    pthread_mutex_unlock(&e->lock);
    am_seq_free(seq);
}

static struct timespec deadline_in_ms(uint32_t ms) {
    uint64_t ns = am_now_ns() + (uint64_t)ms * 1000000u;
    return (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

typedef struct mail {
    am_seq *incoming;
    call *calls;
    bool admitting, stopping, paused;
} mail;

/* Sleeps while there is nothing to do, unless something can run; then takes what came. */
static mail take_mail(am_engine *e, bool runnable) {
    pthread_mutex_lock(&e->lock);
    if ((!runnable || e->paused) && !e->woken && !e->incoming_head && !e->calls && !e->stopping) {
        struct timespec until = deadline_in_ms(IDLE_MS);
        pthread_cond_timedwait(&e->wake, &e->lock, &until);
        e->woken = true; /* whatever woke us, try the queue again */
    }
    if (e->woken) e->schedule.retry = true;
    e->woken = false;
    mail m = {e->incoming_head, e->calls, e->admitting, e->stopping, e->paused && !e->stopping};
    e->incoming_head = e->incoming_tail = NULL;
    e->calls = e->calls_tail = NULL;
    pthread_mutex_unlock(&e->lock);
    return m;
}

static void run_calls(am_engine *e, call *calls) {
    for (call *c = calls, *next; c; c = next) {
        next = c->next; /* the caller's stack may go once done is set */
        c->fn(c->arg, e->schedule.cache);
        pthread_mutex_lock(&e->lock);
        c->done = true;
        pthread_cond_broadcast(&e->moved);
        pthread_mutex_unlock(&e->lock);
    }
}

static void publish(am_engine *e) {
    am_schedule *s = &e->schedule;
    s->stats.n_queued = s->queue.n;
    s->stats.n_running = s->n_running;
    s->stats.n_steps = s->n_steps;
    s->stats.last_step_ns = am_now_ns();
    am_cache_stats_get(s->cache, &s->stats.cache);
    pthread_mutex_lock(&e->lock);
    e->stats = s->stats;
    pthread_mutex_unlock(&e->lock);
}

static void cancel_all(am_engine *e) {
    pthread_mutex_lock(&e->lock);
    for (am_seq *seq = e->live; seq; seq = seq->live_next) atomic_store_explicit(&seq->cancel, true, memory_order_release);
    pthread_mutex_unlock(&e->lock);
}

void am_engine_cancel_all(am_engine *e) {
    cancel_all(e);
    wake_engine(e);
}

void am_engine_pause(am_engine *e, bool paused) {
    pthread_mutex_lock(&e->lock);
    e->paused = paused;
    e->woken = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
}

void am_engine_seed(am_engine *e, uint64_t seed) {
    if (!seed) am_random_bytes(&seed, sizeof seed);
    pthread_mutex_lock(&e->lock);
    e->base_seed = seed;
    e->seeded_at = e->last_number;
    pthread_mutex_unlock(&e->lock);
}

static void *thread_main(void *arg) {
    am_engine *e = arg;
    am_schedule *s = &e->schedule;
    am_thread_begin("am-engine");
    am_workers_pin_self(e->workers);
    for (;;) {
        mail m = take_mail(e, am_schedule_runnable(s));
        for (am_seq *seq = m.incoming, *next; seq; seq = next) {
            next = seq->next;
            am_schedule_add(s, seq);
        }
        am_cache_poll(s->cache);
        run_calls(e, m.calls);
        if (m.stopping) cancel_all(e);
        am_schedule_sweep(s);
        if (!m.admitting) am_schedule_reject_queued(s);
        if (!m.paused) {
            am_schedule_admit(s);
            am_schedule_restore(s);
            am_schedule_step(s);
        }
        publish(e);
        if (m.stopping && !s->queue.n && !s->n_running) break;
    }
    if (s->committing.n > 0) { /* stopped without persist: their last events still come */
        am_cache_flush(s->cache, NULL);
        am_cache_poll(s->cache);
    }
    return NULL;
}

static am_status check_options(am_engine_options *o, am_error *err) {
    const am_model_info *info = am_model_info_of(o->model);
    if (o->n_ctx == 0 || o->n_ctx > info->n_ctx) {
        if (o->n_ctx > info->n_ctx)
            return am_fail(err, AM_EINVAL, "a context of %u tokens was asked for, model %s has %u", o->n_ctx, info->name, info->n_ctx);
        o->n_ctx = info->n_ctx;
    }
    if (o->max_parallel == 0) o->max_parallel = 16;
    if (o->max_parallel > 1024) return am_fail(err, AM_EINVAL, "%u parallel requests, at most 1024 are possible", o->max_parallel);
    if (o->max_queue == 0) o->max_queue = 256;
    if (o->chunk_tokens == 0 || o->chunk_tokens > AM_BLOCK_TOKENS) o->chunk_tokens = AM_BLOCK_TOKENS;
    if (o->step_ms == 0) o->step_ms = 100;
    return AM_OK;
}

static size_t longest_piece(const am_model *model) {
    const am_tokenizer *tokenizer = am_model_tokenizer(model);
    size_t n_vocab = tokenizer ? am_tokenizer_n_vocab(tokenizer) : 0, longest = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        size_t n = am_tokenizer_piece(tokenizer, (int32_t)i).n;
        if (n > longest) longest = n;
    }
    return longest;
}

static am_status init_lock(am_engine *e, am_error *err) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int failed = pthread_mutex_init(&e->lock, NULL) || pthread_cond_init(&e->wake, &attr) || pthread_cond_init(&e->moved, &attr);
    pthread_condattr_destroy(&attr);
    if (failed) return am_fail(err, AM_ENOMEM, "no memory for the engine's lock");
    e->has_lock = true;
    return AM_OK;
}

static void engine_free(am_engine *e) {
    if (e->schedule.cache) am_cache_close(e->schedule.cache);
    am_schedule_free(&e->schedule);
    if (e->has_lock) {
        pthread_cond_destroy(&e->moved);
        pthread_cond_destroy(&e->wake);
        pthread_mutex_destroy(&e->lock);
    }
    free(e);
}

am_status am_engine_start(const am_engine_options *options, am_engine **out, am_error *err) {
    *out = NULL;
    am_engine_options o = *options;
    am_status status = check_options(&o, err);
    if (status) return status;
    am_engine *e = am_calloc(1, sizeof *e);
    if (!e) return am_fail(err, AM_ENOMEM, "no memory for the engine");
    o.cache.wake = cache_woke;
    o.cache.wake_arg = e;
    o.cache.n_turns = o.max_parallel;
    o.cache.n_ctx = o.n_ctx;
    e->limits = (am_seq_limits){o.model, o.n_ctx, am_model_info_of(o.model)->n_vocab, longest_piece(o.model), o.meter ? o.meter : &e->own_meter};
    e->workers = o.workers;
    e->admitting = true;
    if ((status = init_lock(e, err))) goto failed;
    am_engine_seed(e, o.seed);
    if ((status = am_schedule_init(&e->schedule, &o, err))) goto failed;
    if ((status = am_cache_open(&o.cache, &e->schedule.cache, err))) goto failed;
    if ((status = am_schedule_warm_up(&e->schedule, err))) goto failed;
    e->schedule.settled = seq_settled;
    e->schedule.release = seq_release;
    e->schedule.arg = e;
    e->schedule.stats = (am_engine_stats){.max_queue = o.max_queue, .max_parallel = o.max_parallel, .n_ctx = o.n_ctx};
    e->schedule.stats.logits = e->schedule.logits;
    e->schedule.stats.logits_bytes = e->schedule.n_logits * (size_t)e->schedule.n_vocab * sizeof(float);
    e->schedule.stats.workspace_bytes = am_workspace_bytes(e->schedule.workspace) + e->schedule.stats.logits_bytes;
    publish(e);
    if (pthread_create(&e->thread, NULL, thread_main, e) != 0) {
        status = am_fail(err, AM_ELIMIT, "cannot start the engine's thread");
        goto failed;
    }
    *out = e;
    return AM_OK;
failed:
    engine_free(e);
    return status;
}

am_status am_engine_submit(am_engine *e, const am_request *request, uint64_t *id, am_error *err) {
    am_seq *seq;
    am_status status = am_seq_create(request, &e->limits, &seq, err);
    if (status) return status;
    pthread_mutex_lock(&e->lock);
    uint32_t most = e->stats.max_queue + e->stats.max_parallel;
    if (!e->admitting) {
        status = am_fail(err, AM_ESHUTDOWN, "the server is shutting down");
    } else if (e->n_active >= most) {
        status = am_fail(err, AM_ELIMIT, "the queue is full: %u requests run or wait, at most %u may", e->n_active, most);
    } else {
        seq->number = ++e->last_number;
        uint64_t own[2] = {e->base_seed, seq->number - e->seeded_at};
        seq->seed = request->sampling.has_seed ? request->sampling.seed : am_hash64(own, sizeof own);
        if (id) *id = seq->number;
        seq->live_next = e->live;
        if (e->live) e->live->live_prev = seq;
        e->live = seq;
        e->n_active++;
        *(e->incoming_tail ? &e->incoming_tail->next : &e->incoming_head) = seq;
        e->incoming_tail = seq;
        pthread_cond_signal(&e->wake);
    }
    pthread_mutex_unlock(&e->lock);
    if (status) am_seq_free(seq);
    return status;
}

void am_engine_cancel(am_engine *e, uint64_t id) {
    pthread_mutex_lock(&e->lock);
    for (am_seq *seq = e->live; seq; seq = seq->live_next)
        if (seq->number == id) atomic_store_explicit(&seq->cancel, true, memory_order_release);
    e->woken = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
}

am_status am_engine_call(am_engine *e, void (*fn)(void *arg, am_cache *cache), void *arg) {
    if (pthread_equal(pthread_self(), e->thread)) return AM_EBUSY;
    call c = {.fn = fn, .arg = arg};
    pthread_mutex_lock(&e->lock);
    if (e->stopping) {
        pthread_mutex_unlock(&e->lock);
        return AM_ESHUTDOWN;
    }
    *(e->calls_tail ? &e->calls_tail->next : &e->calls) = &c;
    e->calls_tail = &c;
    pthread_cond_signal(&e->wake);
    while (!c.done) pthread_cond_wait(&e->moved, &e->lock);
    pthread_mutex_unlock(&e->lock);
    return AM_OK;
}

void am_engine_stats_get(const am_engine *engine, am_engine_stats *out) {
    am_engine *e = (am_engine *)engine; /* the lock is no part of what const promises */
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    pthread_mutex_unlock(&e->lock);
}

void am_engine_stop_admitting(am_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->admitting = false;
    e->woken = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
}

void am_engine_drain(am_engine *e, uint32_t timeout_ms, const volatile int *hurry) {
    uint64_t start = am_now_ns();
    pthread_mutex_lock(&e->lock);
    while (e->live && am_ms_since(start) < timeout_ms && !(hurry && *hurry)) {
        struct timespec until = deadline_in_ms(HURRY_POLL_MS);
        pthread_cond_timedwait(&e->moved, &e->lock, &until);
    }
    uint32_t n_left = e->n_active;
    pthread_mutex_unlock(&e->lock);
    if (n_left == 0) return;
    am_log(AM_LOG_WARN, "drain_cut_short", AM_LU("canceled", n_left), AM_LF("ms", am_ms_since(start)));
    cancel_all(e);
    wake_engine(e);
    pthread_mutex_lock(&e->lock);
    while (e->n_active > 0) pthread_cond_wait(&e->moved, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

typedef struct flush_call {
    am_status status;
    am_error *err;
} flush_call;

static void flush_cache(void *arg, am_cache *cache) {
    flush_call *f = arg;
    f->status = am_cache_flush(cache, f->err);
    am_cache_poll(cache); /* commits that waited for their files end here */
}

am_status am_engine_persist(am_engine *e, am_error *err) {
    flush_call f = {.err = err};
    am_status status = am_engine_call(e, flush_cache, &f);
    return status ? am_fail(err, status, "the engine has stopped") : f.status;
}

void am_engine_stop(am_engine *e) {
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    e->admitting = false;
    e->stopping = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    engine_free(e);
}
