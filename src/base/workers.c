/* Owns the team's start and finish. A run publishes (fn, arg, n_tasks) and bumps `epoch`; threads that see a new epoch pull
 * tasks from `next` and count themselves out in `n_busy`. Forward passes issue many short loops, so waiters spin for
 * a moment before they sleep on the condition variable; on a machine with fewer cores than threads the spin is left out.
 *
 * While all spin, a run takes no lock. Who goes to sleep says so first (n_asleep, caller_asleep) and then looks once more at what it waits for; who ends the
 * wait changes that first and then looks for sleepers. Both in one order of all (seq_cst), so one of them sees the other. */
#include "base/workers.h"

#include "base/inhand.h"

#include "base/buf.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

struct am_workers {
    size_t n_threads;
    pthread_t *threads; /* n_threads - 1 */
    am_workers_fn *fn;  /* fn, arg, n_tasks: written by run before epoch is bumped */
    void *arg;
    size_t n_tasks;
    _Atomic size_t next;
    _Atomic unsigned epoch;
    _Atomic size_t n_busy;
    _Atomic size_t n_asleep; /* threads that wait for an epoch on `wake` */
    _Atomic bool caller_asleep; /* run waits for n_busy on `done` */
    _Atomic bool stop;
    int n_spins;
    uint64_t n_runs; /* the running thread's */
    bool pinned;
    cpu_set_t seat; /* worker 0's processor, when pinned */
    pthread_mutex_t lock; /* protects sleeping on wake and done; the fields above are atomics */
    pthread_cond_t wake;
    pthread_cond_t done;
};

typedef struct thread_arg {
    am_workers *workers;
    size_t worker;
} thread_arg;

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void pull_tasks(am_workers *w, size_t worker) {
    for (;;) {
        size_t task = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed);
        if (task >= w->n_tasks) return;
        w->fn(w->arg, task, worker);
    }
}

static unsigned wait_for_epoch(am_workers *w, unsigned seen) {
    for (int i = 0; i < w->n_spins; i++) {
        unsigned epoch = atomic_load_explicit(&w->epoch, memory_order_acquire);
        if (epoch != seen) return epoch;
        pause_briefly();
    }
    pthread_mutex_lock(&w->lock);
    atomic_fetch_add(&w->n_asleep, 1);
    while (atomic_load(&w->epoch) == seen) pthread_cond_wait(&w->wake, &w->lock);
    atomic_fetch_sub(&w->n_asleep, 1);
    pthread_mutex_unlock(&w->lock);
    return atomic_load_explicit(&w->epoch, memory_order_acquire);
}

static void *thread_main(void *p) {
    thread_arg self = *(thread_arg *)p;
    free(p);
    am_thread_begin("am-worker");
    am_workers *w = self.workers;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_epoch(w, seen);
        if (atomic_load(&w->stop)) return NULL;
        pull_tasks(w, self.worker);
        if (atomic_fetch_sub(&w->n_busy, 1) == 1 && atomic_load(&w->caller_asleep)) {
            pthread_mutex_lock(&w->lock);
            pthread_cond_signal(&w->done);
            pthread_mutex_unlock(&w->lock);
        }
    }
}

static void bump_epoch(am_workers *w) {
    atomic_fetch_add(&w->epoch, 1);
    if (atomic_load(&w->n_asleep) == 0) return;
    pthread_mutex_lock(&w->lock);
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

am_status am_workers_create(size_t n_threads, am_workers **out, am_error *err) {
    *out = NULL;
    if (n_threads < 1 || n_threads > 1024) return am_fail(err, AM_EINVAL, "threads must be 1..1024, not %zu", n_threads);
    am_workers *w = am_calloc(1, sizeof *w);
    if (!w) return am_fail(err, AM_ENOMEM, "no memory for the worker team");
    am_cpus allowed;
    am_cpus_allowed(&allowed);
    w->n_spins = allowed.n >= n_threads ? 4000 : 0;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    pthread_cond_init(&w->done, NULL);
    w->n_threads = 1;
    w->threads = am_calloc(n_threads, sizeof *w->threads);
    if (!w->threads) goto out_of_memory;
    for (size_t i = 1; i < n_threads; i++) {
        thread_arg *arg = am_calloc(1, sizeof *arg);
        if (!arg) goto out_of_memory;
        *arg = (thread_arg){w, i};
        if (pthread_create(&w->threads[i - 1], NULL, thread_main, arg) != 0) {
            free(arg);
            am_workers_free(w);
            return am_fail(err, AM_ELIMIT, "cannot start thread %zu of %zu", i + 1, n_threads);
        }
        w->n_threads = i + 1;
    }
    *out = w;
    return AM_OK;
out_of_memory:
    am_workers_free(w);
    return am_fail(err, AM_ENOMEM, "no memory for the worker team");
}

void am_workers_free(am_workers *w) {
    if (!w) return;
    atomic_store(&w->stop, true);
    bump_epoch(w);
    for (size_t i = 1; i < w->n_threads; i++) pthread_join(w->threads[i - 1], NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    pthread_cond_destroy(&w->done);
    free(w->threads);
    free(w);
}

am_status am_workers_pin(am_workers *w, const am_cpus *cpus, am_error *err) {
    for (size_t i = 0; i < w->n_threads; i++) {
        cpu_set_t seat;
        uint16_t id = cpus->id[i % cpus->n];
        CPU_ZERO(&seat);
        CPU_SET(id, &seat);
        if (i == 0) w->seat = seat;
        else if (pthread_setaffinity_np(w->threads[i - 1], sizeof seat, &seat)) return am_fail(err, AM_EINVAL, "worker %zu cannot stay on processor %u", i, id);
    }
    w->pinned = true;
    return AM_OK;
}

void am_workers_pin_self(const am_workers *w) {
    if (w && w->pinned) pthread_setaffinity_np(pthread_self(), sizeof w->seat, &w->seat);
}

uint64_t am_workers_runs(const am_workers *w) { return w->n_runs; }

size_t am_workers_count(const am_workers *w) { return w->n_threads; }

void am_workers_run(am_workers *w, size_t n_tasks, am_workers_fn *fn, void *arg) {
    if (w->n_threads == 1 || n_tasks <= 1) {
        for (size_t task = 0; task < n_tasks; task++) fn(arg, task, 0);
        return;
    }
    w->n_runs++;
    w->fn = fn;
    w->arg = arg;
    w->n_tasks = n_tasks;
    atomic_store_explicit(&w->next, 0, memory_order_relaxed);
    atomic_store_explicit(&w->n_busy, w->n_threads - 1, memory_order_relaxed);
    bump_epoch(w);
    pull_tasks(w, 0);
    for (int i = 0; i < w->n_spins; i++) {
        if (atomic_load_explicit(&w->n_busy, memory_order_acquire) == 0) return;
        pause_briefly();
    }
    pthread_mutex_lock(&w->lock);
    atomic_store(&w->caller_asleep, true);
    while (atomic_load(&w->n_busy) > 0) pthread_cond_wait(&w->done, &w->lock);
    atomic_store(&w->caller_asleep, false);
    pthread_mutex_unlock(&w->lock);
}
