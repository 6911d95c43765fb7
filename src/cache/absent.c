/* Owns agents whose model is not in memory: the account of them that the caches of a folder share, for quotas, and forgetting them.
 *
 *     a cache is opened alone: heads of other models come into the account      a cache is opened: those of its model leave it
 *     a cache is closed: its heads that are on disk come into the account       they are forgotten: they leave it
 *
 * To forget, the folder itself is read: heads say whose they are and under which tag. Blocks go with the last head that names them; a chain's names
 * contain the tag, so no head of a model that is in memory can be among these. */
#include "cache/internal.h"

#include "base/fs.h"
#include "base/log.h"

#include <errno.h>
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

struct am_absent_agent {
    am_hash tag, key; /* key: am_index_head_key */
    char tenant[64];
    uint64_t bytes; /* with its blocks, shared ones too */
};

static void add_agent(am_cache_folder *f, const am_absent_agent *agent) {
    pthread_mutex_lock(&f->lock);
    if (f->n_absent == f->cap_absent) {
        size_t cap = f->cap_absent ? 2 * f->cap_absent : 64;
        am_absent_agent *more = realloc(f->absent, cap * sizeof *more);
        if (more) {
            f->absent = more;
            f->cap_absent = cap;
        }
    }
    if (f->n_absent < f->cap_absent) f->absent[f->n_absent++] = *agent; /* no memory: not counted until all is read anew */
    pthread_mutex_unlock(&f->lock);
}

/* With key NULL: all of the tag. */
static void drop_agents(am_cache_folder *f, const am_hash *tag, const am_hash *key) {
    pthread_mutex_lock(&f->lock);
    for (size_t i = f->n_absent; i-- > 0;)
        if (am_hash_eq(&f->absent[i].tag, tag) && (!key || am_hash_eq(&f->absent[i].key, key))) f->absent[i] = f->absent[--f->n_absent];
    pthread_mutex_unlock(&f->lock);
}

void am_absent_forget_all(am_cache_folder *f) {
    pthread_mutex_lock(&f->lock);
    free(f->absent);
    f->absent = NULL;
    f->n_absent = f->cap_absent = 0;
    pthread_mutex_unlock(&f->lock);
}

void am_absent_add_view(const am_cache *c, const am_head_view *view, uint64_t block_bytes) {
    am_absent_agent a = {.key = am_index_head_key(view->tenant, view->agent), .bytes = view->file_bytes + block_bytes};
    memcpy(a.tenant, view->tenant, sizeof a.tenant);
    if (am_hash_parse(view->tag.p, view->tag.n, &a.tag)) add_agent(c->folder, &a);
}

void am_absent_opened(const am_cache *c) { drop_agents(c->folder, &c->tag, NULL); }

static am_status add_closing(void *arg, const am_agent_info *info) {
    am_cache *c = arg;
    am_absent_agent a = {.tag = c->tag, .key = am_index_head_key(info->tenant, am_str_of(info->agent)), .bytes = info->disk_bytes};
    memcpy(a.tenant, info->tenant, sizeof a.tenant);
    if (!info->dirty) add_agent(c->folder, &a);
    return AM_OK;
}

void am_absent_closing(am_cache *c) { am_cache_agents(c, NULL, add_closing, c); }

am_absent_usage am_cache_absent_usage(am_cache_folder *f, const am_tenant *tenant, am_str agent) {
    am_absent_usage u = {0};
    am_hash key = am_index_head_key(tenant ? tenant->name : "", agent);
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->n_absent; i++) {
        const am_absent_agent *a = &f->absent[i];
        if (tenant && strcmp(tenant->name, a->tenant) != 0) continue;
        u.n_agents++;
        u.disk_bytes += a->bytes;
        u.known = u.known || am_hash_eq(&a->key, &key);
    }
    pthread_mutex_unlock(&f->lock);
    return u;
}

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

static void left(const clearing *c, const am_head_view *head) {
    am_hash tag, key = am_index_head_key(head->tenant, head->agent);
    if (am_hash_parse(head->tag.p, head->tag.n, &tag)) drop_agents(c->which->folder, &tag, &key);
}

static am_status look_at_head(void *arg, const char *name) {
    clearing *c = arg;
    am_head_view head;
    if (!strchr(name, '~') || am_head_file_view(&c->cache, name, &head, NULL)) return AM_OK; /* damaged ones are refused by who opens the folder */
    if (!is_open(c->which, head.tag)) {
        bool goes = is_meant(c->which, &head) && remove_file(c, name);
        if (!add(goes ? &c->gone : &c->kept, head.chain, head.n_chain)) c->status = AM_ENOMEM;
        c->result->n_agents += goes;
        if (goes) left(c, &head);
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
        for (int part = 0; part < AM_KV_PARTS; part++) {
            am_block_file_name((am_kv_part)part, &c.gone.list[i], name);
            result->n_blocks += remove_file(&c, name); /* one that two agents shared is there once */
        }
    }
    free(c.gone.list);
    free(c.kept.list);
    return status ? am_fail(err, status, "agents of models that are not in memory could not be removed: %s", am_status_text(status)) : AM_OK;
}

typedef struct refused {
    const char *dir;
    uint32_t n_files;
} refused;

static am_status remove_refused(void *arg, const char *name) {
    refused *r = arg;
    char path[4096];
    int result = am_fs_join(path, sizeof path, r->dir, name, NULL) ? -ENAMETOOLONG : am_io->unlink(path);
    r->n_files += result >= 0;
    return result >= 0 || result == -ENOENT || result == -EISDIR ? AM_OK : AM_EIO; /* a folder that somebody put in a file's place is not ours */
}

am_status am_cache_clear_refused(const char *dir, uint32_t *n_files, am_error *err) {
    char path[4096];
    struct stat st;
    refused r = {.dir = path};
    *n_files = 0;
    am_status status = am_fs_join(path, sizeof path, dir, "refused", err);
    if (status || lstat(path, &st) != 0 || !S_ISDIR(st.st_mode)) return status;
    status = am_fs_list(path, remove_refused, &r, err);
    *n_files = r.n_files;
    return status ? am_fail(err, status, "%s could not be emptied: %s", path, am_status_text(status)) : AM_OK;
}
