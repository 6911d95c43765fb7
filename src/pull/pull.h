/* Fetching models from a hub (Hugging Face's API) or a plain address into a folder of models.
 *
 * A pull can be broken off at any time and goes on where it was. The model appears under its name when all of it is there and checked:
 *
 *     MODELS/ORG/NAME/        files of a model, or GGUF files
 *     MODELS/ORG/NAME/.pulled.json   what was pulled: source, revision, sizes and sums
 *     MODELS/.part/...        pulls under way or broken off */
#ifndef AM_PULL_PULL_H
#define AM_PULL_PULL_H

#include "base/buf.h"

#include <signal.h>

typedef struct am_pull_progress {
    const char *file;      /* the first that is not whole */
    uint64_t done, total;  /* bytes of all files; total 0: not known */
    size_t n_files, n_whole;
} am_pull_progress;

typedef struct am_pull_options {
    const char *models_dir;
    const char *hub;    /* https://huggingface.co, or a mirror */
    const char *token;  /* for the hub; NULL: none */
    const char *sha256; /* that the one file must have; NULL: what the hub says */
    unsigned n_connections, n_retries;
    uint32_t silence_ms;
    const volatile sig_atomic_t *cancel; /* nonzero: stop; may be NULL */
    /* Looks at config.json before anything large is fetched, and at the whole (a folder, or a GGUF file) before it gets its place; its error ends the pull,
     * and but for AM_EUNSUPPORTED nothing is kept. May be NULL. */
    am_status (*check)(void *arg, const char *path, am_error *err);
    void (*progress)(void *arg, const am_pull_progress *progress); /* may be NULL */
    void *arg;
} am_pull_options;

typedef struct am_pull_result {
    char name[480];        /* what it goes by: ORG/NAME, or ORG/NAME:VARIANT */
    char path[4096], revision[200];
    size_t n_files;
    uint64_t bytes, fetched_bytes; /* of all files; that came over the network now */
    bool was_there;        /* nothing had to be done */
} am_pull_result;

/* what: see source.h. AM_EINVAL: no such name or choice; AM_ELIMIT: no room; AM_EBUSY: somebody else pulls it; AM_ECORRUPT: wrong bytes, not kept;
 * AM_ECANCELED. Blocks until it is done. */
am_status am_pull(const am_pull_options *options, const char *what, am_pull_result *out, am_error *err);

#endif
