/* Owns forgetting agents whose model is not in memory. No cache knows them, so the folder itself is read: heads say whose they are and under which
 * tag. Blocks go with the last head that names them; a chain's names contain the tag, so no head of a model that is in memory can be among these. */
#include "cache/internal.h"

#include "base/fs.h"
#include "base/log.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct hashes {
    am_hash *list;
    size_t n, cap;
} hashes;

typedef struct clearing {
    const am_absent *which;
    am_absent_result *result;
    am_cache cache; /* only dir: what reading a head looks at */
    hashes gone, kept; /* blocks by the heads that were removed, and by the others */
    am_status status;
} clearing;

static bool add(hashes *to, const uint8_t *chain, uint64_t n) {
    while (to->cap < to->n + n) {
        size_t cap = to->cap ? 2 * to->cap : 256;
        am_hash *list = realloc(to->list, cap * sizeof *list);
        if (!list) return false;
        to->list = list;
        to->cap = cap;
    }
    if (n) memcpy(to->list + to->n, chain, (size_t)n * sizeof *to->list);
    to->n += n;
    return true;
}

static int by_hash(const void *a, const void *b) { return memcmp(a, b, sizeof(am_hash)); }
static bool has(const hashes *in, const am_hash *hash) { return in->n && bsearch(hash, in->list, in->n, sizeof *hash, by_hash); }

/* Removes a file and takes it off the folder's account; false: it is not there, or stays. */
static bool remove_file(clearing *c, const char *name) {
    char path[4096];
    struct stat st;
    if (am_fs_join(path, sizeof path, c->which->dir, name, NULL) || lstat(path, &st) != 0 || !S_ISREG(st.st_mode) || am_io->unlink(path) < 0) return false;
    uint64_t bytes = (uint64_t)st.st_size, before = atomic_load(&c->which->folder->disk_bytes);
    while (!atomic_compare_exchange_weak(&c->which->folder->disk_bytes, &before, before > bytes ? before - bytes : 0)) continue;
    c->result->bytes += bytes;
    return true;
}

static bool is_open(const am_absent *which, am_str tag) {
    char hex[65];
    for (size_t i = 0; i < which->n_open; i++) {
        am_hash_hex(&which->open[i], hex);
        if (memcmp(hex, tag.p, 64) == 0) return true;
    }
    return false;
}

static bool is_meant(const am_absent *which, const am_head_view *head) {
    if (which->tenant && strcmp(which->tenant->name, head->tenant) != 0) return false;
    return which->agent.n == 0 || am_str_eq(which->agent, head->agent);
}

static am_status look_at_head(void *arg, const char *name) {
    clearing *c = arg;
    am_head_view head;
    if (!strchr(name, '~') || am_head_file_view(&c->cache, name, &head, NULL)) return AM_OK; /* damaged ones are refused by who opens the folder */
    if (!is_open(c->which, head.tag)) {
        bool goes = is_meant(c->which, &head) && remove_file(c, name);
        if (!add(goes ? &c->gone : &c->kept, head.chain, head.n_chain)) c->status = AM_ENOMEM;
        c->result->n_agents += goes;
    }
    am_head_view_free(&head);
    return c->status;
}

am_status am_cache_clear_absent(const am_absent *which, am_absent_result *result, am_error *err) {
    clearing c = {.which = which, .result = result, .cache = {.dir = (char *)which->dir}};
    char name[96];
    *result = (am_absent_result){0};
    am_status status = am_fs_list(which->dir, look_at_head, &c, err);
    if (c.kept.n) qsort(c.kept.list, c.kept.n, sizeof *c.kept.list, by_hash);
    for (size_t i = 0; !status && i < c.gone.n; i++) {
        if (has(&c.kept, &c.gone.list[i])) continue;
        am_block_file_name(&c.gone.list[i], name);
        result->n_blocks += remove_file(&c, name); /* one that two agents shared is there once */
    }
    free(c.gone.list);
    free(c.kept.list);
    return status ? am_fail(err, status, "agents of models that are not in memory could not be removed: %s", am_status_text(status)) : AM_OK;
}
