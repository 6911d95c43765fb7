/* Request threads: they run handlers that take long, so that neither the network nor running streams wait for a big prompt. */
#ifndef AM_SERVER_POOL_H
#define AM_SERVER_POOL_H

#include "base/status.h"

#include <stddef.h>

typedef struct am_exchange am_exchange;
typedef void am_handler(am_exchange *x);
typedef struct am_pool am_pool;

am_status am_pool_start(size_t n_threads, am_pool **out, am_error *err);
void am_pool_stop(am_pool *pool); /* runs what is queued, joins, frees; NULL is fine */
/* Runs fn(x) on a request thread; x is kept alive until it returns. AM_ENOMEM: not queued. */
am_status am_pool_push(am_pool *pool, am_handler *fn, am_exchange *x);

#endif
