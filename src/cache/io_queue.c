/* Owns the threads that touch the disk. The engine thread adds jobs and later takes them back finished; it never waits here except in flush.
 * Two lists: reads that a turn waits for go before writes. A turn's reads are added together and told of together: threads that are woken one by one run on the
 * engine's core before it has said what is for the others, and an engine that is woken for each block takes a core from who reads the next. One more thread exists under AM_DURABLE_EVERYSEC: it fsyncs, once a
 * second, the files written since. */
#include "cache/internal.h"

#include "cache/metrics.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/inhand.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_IO_THREADS = 8 };

typedef struct list {
    am_job *first, **last;
} list;

typedef struct late_sync {
    struct late_sync *next;
    char name[];
} late_sync;

struct am_io_queue {
    am_cache *cache;
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t work, finished, sync_stop;
    list reads, normal, done;
    uint64_t last_batch, running[MAX_IO_THREADS]; /* running: the batch of what each thread reads, 0: none */
    uint32_t n_begun; /* threads */
    uint32_t n_under_way; /* queued, running, or done and not taken */
    bool stop;
    late_sync *syncs;
    pthread_t threads[MAX_IO_THREADS], sync_thread;
    uint32_t n_threads;
    bool has_sync_thread;
};

static void list_init(list *l) { *l = (list){NULL, &l->first}; }

static void list_add(list *l, am_job *job) {
    job->next = NULL;
    *l->last = job;
    l->last = &job->next;
}

static am_job *list_pop(list *l) {
    am_job *job = l->first;
    if (job && !(l->first = job->next)) l->last = &l->first;
    return job;
}

/* Whether some of a batch is still to come. Its jobs stand together in the list. */
static bool batch_goes_on(const am_io_queue *q, uint64_t batch) {
    if (q->reads.first && q->reads.first->batch == batch) return true;
    for (uint32_t i = 0; i < q->n_begun; i++)
        if (q->running[i] == batch) return true;
    return false;
}

static void *io_thread(void *arg) {
    am_io_queue *q = arg;
    am_thread_begin("am-io");
    pthread_mutex_lock(&q->lock);
    uint32_t self = q->n_begun++;
    for (;;) {
        am_job *job = list_pop(&q->reads);
        uint64_t batch = job ? job->batch : 0;
        if (!job) job = list_pop(&q->normal);
        if (!job && q->stop) break;
        if (!job) {
            pthread_cond_wait(&q->work, &q->lock);
            continue;
        }
        q->running[self] = batch;
        pthread_mutex_unlock(&q->lock);
        job->err = (am_error){0};
        uint64_t start = am_now_ns();
        job->status = job->run(q->cache, job, &job->err);
        if (job->part || job->turn || job->head) am_metric_observe(batch ? &am_metric_read_time : &am_metric_save_time, 0, am_now_ns() - start);
        pthread_mutex_lock(&q->lock);
        list_add(&q->done, job);
        q->running[self] = 0;
        bool tell = !batch || !batch_goes_on(q, batch);
        pthread_cond_signal(&q->finished);
        pthread_mutex_unlock(&q->lock);
        if (tell && q->cache->options.wake) q->cache->options.wake(q->cache->options.wake_arg);
        pthread_mutex_lock(&q->lock);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

static void sync_file(const char *dir, const char *name) {
    char path[4096];
    am_error err;
    if (am_fs_join(path, sizeof path, dir, name, NULL)) return;
    int fd = am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return; /* replaced or deleted since: nothing to make durable */
    int r = am_io->fsync(fd);
    am_io->close(fd);
    if (r < 0 || am_fs_sync_dir(dir, &err)) am_log(AM_LOG_WARN, "late_fsync_failed", AM_LS("file", name), AM_LS("error", strerror(-r)));
}

/* Takes what has gathered and makes it durable, once a second and a last time at the end. */
static void *sync_thread(void *arg) {
    am_io_queue *q = arg;
    am_thread_begin("am-sync");
    pthread_mutex_lock(&q->lock);
    for (bool stop = false; !stop;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        while (!q->stop && pthread_cond_timedwait(&q->sync_stop, &q->lock, &until) == 0) {}
        stop = q->stop;
        late_sync *syncs = q->syncs;
        q->syncs = NULL;
        pthread_mutex_unlock(&q->lock);
        while (syncs) {
            late_sync *next = syncs->next;
            sync_file(q->cache->dir, syncs->name);
            free(syncs);
            syncs = next;
        }
        pthread_mutex_lock(&q->lock);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

am_status am_io_queue_create(am_cache *cache, uint32_t n_threads, am_io_queue **out, am_error *err) {
    am_io_queue *q = am_calloc(1, sizeof *q);
    if (!q) return am_fail(err, AM_ENOMEM, "no memory for the cache's I/O queue");
    q->cache = cache;
    list_init(&q->reads);
    list_init(&q->normal);
    list_init(&q->done);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->work, NULL);
    pthread_cond_init(&q->finished, NULL);
    pthread_cond_init(&q->sync_stop, NULL);
    bool failed = false;
    for (; q->n_threads < n_threads && q->n_threads < MAX_IO_THREADS && !failed; q->n_threads += !failed)
        failed = pthread_create(&q->threads[q->n_threads], NULL, io_thread, q) != 0;
    if (!failed && cache->options.durability == AM_DURABLE_EVERYSEC)
        failed = !(q->has_sync_thread = pthread_create(&q->sync_thread, NULL, sync_thread, q) == 0);
    if (failed) {
        am_io_queue_free(q);
        return am_fail(err, AM_ELIMIT, "cannot start the cache's I/O threads");
    }
    *out = q;
    return AM_OK;
}

void am_io_queue_free(am_io_queue *q) {
    if (!q) return;
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_cond_broadcast(&q->work);
    pthread_cond_broadcast(&q->sync_stop);
    pthread_mutex_unlock(&q->lock);
    for (uint32_t i = 0; i < q->n_threads; i++) pthread_join(q->threads[i], NULL);
    if (q->has_sync_thread) pthread_join(q->sync_thread, NULL);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->work);
    pthread_cond_destroy(&q->finished);
    pthread_cond_destroy(&q->sync_stop);
    free(q);
}

void am_io_queue_add(am_io_queue *q, am_job *job) {
    pthread_mutex_lock(&q->lock);
    job->batch = 0;
    list_add(&q->normal, job);
    q->n_under_way++;
    pthread_cond_signal(&q->work);
    pthread_mutex_unlock(&q->lock);
}

void am_io_queue_add_reads(am_io_queue *q, am_job *first) {
    if (!first) return;
    pthread_mutex_lock(&q->lock);
    q->last_batch++;
    for (am_job *job = first, *next; job; job = next) {
        next = job->next;
        job->batch = q->last_batch;
        job->ahead = false;
        list_add(&q->reads, job);
        q->n_under_way++;
    }
    pthread_cond_broadcast(&q->work);
    pthread_mutex_unlock(&q->lock);
}

void am_io_queue_look_ahead(am_io_queue *q, uint32_t n, void (*fn)(void *arg, const am_job *job), void *arg) {
    pthread_mutex_lock(&q->lock);
    for (am_job *job = q->reads.first; job && n > 0; job = job->next) {
        if (!job->part) continue;
        n--;
        if (!job->ahead) fn(arg, job);
        job->ahead = true;
    }
    pthread_mutex_unlock(&q->lock);
}

am_job *am_io_queue_take_done(am_io_queue *q) {
    pthread_mutex_lock(&q->lock);
    am_job *first = q->done.first;
    for (am_job *job = first; job; job = job->next) q->n_under_way--;
    list_init(&q->done);
    pthread_mutex_unlock(&q->lock);
    return first;
}

bool am_io_queue_wait(am_io_queue *q, uint32_t timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)timeout_ms * 1000000u;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_mutex_lock(&q->lock);
    int r = 0;
    while (!q->done.first && q->n_under_way > 0 && r == 0) r = pthread_cond_timedwait(&q->finished, &q->lock, &until);
    bool under_way = q->n_under_way > 0;
    pthread_mutex_unlock(&q->lock);
    return under_way;
}

void am_io_queue_sync_later(am_io_queue *q, const char *name) {
    size_t n = strlen(name) + 1;
    late_sync *s = malloc(sizeof *s + n);
    if (!s) {
        sync_file(q->cache->dir, name);
        return;
    }
    memcpy(s->name, name, n);
    pthread_mutex_lock(&q->lock);
    s->next = q->syncs;
    q->syncs = s;
    pthread_mutex_unlock(&q->lock);
}
