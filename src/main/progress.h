/* Progress of what takes longer than a second: a bar on a terminal, a log line now and then elsewhere. */
#ifndef AM_MAIN_PROGRESS_H
#define AM_MAIN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_progress {
    char what[64];
    uint64_t start_ns, shown_ns, start_done; /* what goes on where it was broken off does not begin with nothing */
    bool drawn; /* a bar stands on the terminal */
} am_progress;

/* arg: an am_progress, zeroed before its first use. Fits am_runtime_options.progress. One thread at a time. */
void am_progress_update(void *arg, const char *what, uint64_t done, uint64_t total);
void am_progress_end(am_progress *progress); /* takes the bar away */

#endif
