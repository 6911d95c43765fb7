/* A team of threads that runs one parallel loop at a time.
 *
 * am_workers_run calls fn(arg, task, worker) once for each task in [0, n_tasks), on the calling thread (worker 0) and the
 * team's threads, and returns when all are done. Which worker runs which task is not fixed: a task's result must depend on
 * the task alone (invariant 1). `worker` is below am_workers_count and names the scratch memory a task may use. */
#ifndef AM_BASE_WORKERS_H
#define AM_BASE_WORKERS_H

#include "base/cpus.h"

#include <stddef.h>

typedef struct am_workers am_workers;
typedef void am_workers_fn(void *arg, size_t task, size_t worker);

am_status am_workers_create(size_t n_threads, am_workers **out, am_error *err); /* n_threads >= 1 counts the caller */
void am_workers_free(am_workers *workers);                                     /* joins the threads; NULL is fine */
/* Worker i stays on the i-th of the processors, round and round; worker 0 once the thread that runs the loops has said so itself. */
am_status am_workers_pin(am_workers *workers, const am_cpus *cpus, am_error *err);
void am_workers_pin_self(const am_workers *workers); /* nothing for NULL, or where am_workers_pin was not called */
size_t am_workers_count(const am_workers *workers);
void am_workers_run(am_workers *workers, size_t n_tasks, am_workers_fn *fn, void *arg);
/* Loops run so far: each ends with every thread waiting for the last. */
uint64_t am_workers_runs(const am_workers *workers);

#endif
