/* Owns the request threads and their queue. First come, first served; its length is bounded by the number of connections, since each has at
 * most one exchange in work. */
#include "server/pool.h"

#include "base/inhand.h"
#include "server/internal.h"

#include <signal.h>
#include <stdlib.h>

typedef struct job {
    struct job *next;
    am_handler *fn;
    am_exchange *x;
} job;

struct am_pool {
    pthread_mutex_t lock; /* protects first, last, stop */
    pthread_cond_t more;
    job *first, *last;
    bool stop;
    size_t n_threads;
    pthread_t threads[];
};

static void *pool_main(void *arg) {
    am_pool *pool = arg;
    am_thread_begin("am-request");
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->first && !pool->stop) pthread_cond_wait(&pool->more, &pool->lock);
        job *j = pool->first;
        if (!j) break;
        pool->first = j->next;
        pthread_mutex_unlock(&pool->lock);
        am_inhand_thread(j->x->id, j->x->agent);
        j->fn(j->x);
        am_inhand_thread(NULL, NULL);
        am_exchange_unref(j->x);
        free(j);
        pthread_mutex_lock(&pool->lock);
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
    *j = (job){.fn = fn, .x = x};
    am_exchange_ref(x);
    pthread_mutex_lock(&pool->lock);
    if (pool->first) pool->last->next = j;
    else pool->first = j;
    pool->last = j;
    pthread_cond_signal(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    return AM_OK;
}
