/* All files of a pull at once: several connections a file, several files, tries again, journals, sums. */
#ifndef AM_PULL_TRANSFER_H
#define AM_PULL_TRANSFER_H

#include "pull/part.h"
#include "pull/pull.h"

typedef struct am_transfer_options {
    const am_site *site;
    unsigned n_connections, n_retries;
    void (*progress)(void *arg, const am_pull_progress *progress); /* may be NULL */
    void *arg;
} am_transfer_options;

/* Returns when every part is whole, or with the first that cannot be; what is there then is kept for the next time. sums: [n][65]. */
am_status am_transfer_run(const am_transfer_options *options, am_part *parts, size_t n, char (*sums)[65], am_error *err);

#endif
