/* Owns the request threads and their queues. First come, first served, but long bodies (templates and tokenizers take seconds for tens of MiB)
 * are given half of the threads at most: a few of them would keep everybody else waiting. The queues' length is bounded by the number of
 * connections, since each has at most one exchange in work. */
#include "server/pool.h"

#include "base/inhand.h"
#include "server/internal.h"

#include <signal.h>
#include <stdlib.h>

enum { LONG_BODY_BYTES = 256 << 10 };

typedef struct job {
    struct job *next;
    am_handler *fn;
    am_exchange *x;
    uint64_t number;
    bool is_long;
} job;

typedef struct queue {
    job *first, *last;
} queue;

struct am_pool {
    pthread_mutex_t lock; /* protects all up to stop */
    pthread_cond_t more;
    queue queues[2]; /* short bodies, long ones */
    uint64_t n_jobs;
    size_t n_long; /* in work */
    bool stop;
    size_t n_threads;
    pthread_t threads[];
};

/* The job that came first of those that may begin, out of its queue; NULL: there is none. */
static job *next_job(am_pool *pool) {
    job *little = pool->queues[0].first, *big = 2 * pool->n_long < pool->n_threads ? pool->queues[1].first : NULL;
    job *j = big && (!little || big->number < little->number) ? big : little;
    if (!j) return NULL;
    pool->queues[j->is_long].first = j->next;
    pool->n_long += j->is_long;
    return j;
}

static void *pool_main(void *arg) {
    am_pool *pool = arg;
    am_thread_begin("am-request");
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        job *j;
        while (!(j = next_job(pool)) && !pool->stop) pthread_cond_wait(&pool->more, &pool->lock);
        if (!j) break; /* a long one that waits is for the threads that have long ones in work */
        bool was_long = j->is_long;
        pthread_mutex_unlock(&pool->lock);
        am_inhand_thread(j->x->id, j->x->agent);
        j->fn(j->x);
        am_inhand_thread(NULL, NULL);
        am_exchange_unref(j->x);
        free(j);
        pthread_mutex_lock(&pool->lock);
        pool->n_long -= was_long;
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

am_status am_pool_start(size_t n_threads, am_pool **out, am_error *err) {
    am_pool *pool = am_calloc(1, sizeof *pool + n_threads * sizeof *pool->threads);
    *out = NULL;
    if (!pool) return am_fail(err, AM_ENOMEM, "no memory for the request threads");
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    while (pool->n_threads < n_threads && pthread_create(&pool->threads[pool->n_threads], NULL, pool_main, pool) == 0)
        pool->n_threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->n_threads == 0) {
        am_pool_stop(pool);
        return am_fail(err, AM_ENOMEM, "cannot start a request thread");
    }
    *out = pool;
    return AM_OK;
}

void am_pool_stop(am_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->n_threads; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

am_status am_pool_push(am_pool *pool, am_handler *fn, am_exchange *x) {
    job *j = am_calloc(1, sizeof *j);
    if (!j) return AM_ENOMEM;
    *j = (job){.fn = fn, .x = x, .is_long = x->body.n > LONG_BODY_BYTES};
    am_exchange_ref(x);
    pthread_mutex_lock(&pool->lock);
    queue *q = &pool->queues[j->is_long];
    j->number = pool->n_jobs++;
    if (q->first) q->last->next = j;
    else q->first = j;
    q->last = j;
    pthread_cond_signal(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    return AM_OK;
}
