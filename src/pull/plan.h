/* What a pull has to fetch: the files that a model needs, where each comes from, and what is known of it beforehand. */
#ifndef AM_PULL_PLAN_H
#define AM_PULL_PLAN_H

#include "base/json.h"
#include "pull/call.h"
#include "pull/source.h"

#define AM_SIZE_UNKNOWN UINT64_MAX

typedef struct am_plan_file {
    const char *name; /* as it is kept, without folders */
    const char *url;
    uint64_t size;         /* AM_SIZE_UNKNOWN: the server did not say */
    const char *sha256;    /* 64 hex digits; NULL: nobody knows */
    const char *identity;  /* what else tells one content from another (hash of a hub, ETag of a server); NULL: nothing */
    bool no_ranges;        /* the server is known to send files only from their beginning */
} am_plan_file;

typedef struct am_plan {
    am_arena *arena; /* owns all texts */
    am_plan_file *files;
    size_t n_files;
    bool gguf;              /* one model in one file, or in the parts of one; the first is files[0] */
    const char *revision;   /* the commit; of a plain URL: empty */
} am_plan;

typedef struct am_plan_request {
    const am_site *site;
    const am_source *source;
    const char *hub;    /* https://huggingface.co */
    const char *sha256; /* what the operator says that a plain URL's file has; NULL */
    unsigned retries;
} am_plan_request;

/* AM_EINVAL: the choice is missing, or fits several or none: the message lists what there is. */
am_status am_plan_make(const am_plan_request *request, am_plan *out, am_error *err);
void am_plan_free(am_plan *plan);
const char *am_plan_identity(const am_plan_file *file); /* tells one content from another; empty: nothing does */

/* choose.c: from all files of a repository to those a model needs. index: model.safetensors.index.json, or NULL. */
typedef struct am_repo_file {
    const char *path;
    uint64_t size;
    const char *sha256, *blob;
    bool wanted;
} am_repo_file;
am_status am_choose_folder(am_repo_file *files, size_t n, const json_t *index, am_error *err);
am_status am_choose_gguf(am_repo_file *files, size_t n, const am_source *source, am_error *err);
bool am_choose_is_folder(const am_repo_file *files, size_t n); /* it has weights as safetensors */

#endif
