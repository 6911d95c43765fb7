/* Owns the list of dormant agents that the caches of one folder share.
 *
 *     cache opened: heads of its own model leave the list (they are in the cache); who opens the folder alone puts all others in
 *     cache closed: its heads that are on disk come into the list
 *
 * Opening, closing and forgetting happen on one thread (the registry's); who asks for usage may be on any, so there is a lock. A file that somebody
 * removed by hand is counted until the next start; when it is to be forgotten it is simply gone already. */
#include "cache/internal.h"

#include "base/fs.h"
#include "cache/dormant.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct am_dormant {
    am_hash tag;
    char tenant[64], agent[AM_NAME_MAX + 1], *model, *file;
    uint64_t bytes, file_bytes; /* bytes: with its blocks, shared ones too */
    bool goes;
};

static void drop(am_cache_folder *f, size_t i) {
    free(f->dormant[i].model);
    free(f->dormant[i].file);
    f->dormant[i] = f->dormant[--f->n_dormant];
}

void am_dormant_clear(am_cache_folder *f) {
    pthread_mutex_lock(&f->lock);
    while (f->n_dormant) drop(f, f->n_dormant - 1);
    free(f->dormant);
    f->dormant = NULL;
    f->cap_dormant = 0;
    pthread_mutex_unlock(&f->lock);
}

void am_dormant_awake(am_cache_folder *f, const am_hash *tag) {
    pthread_mutex_lock(&f->lock);
    for (size_t i = f->n_dormant; i-- > 0;)
        if (am_hash_eq(&f->dormant[i].tag, tag)) drop(f, i);
    pthread_mutex_unlock(&f->lock);
}

static am_status add(am_cache_folder *f, const am_dormant *d, am_str model, const char *file) {
    am_status status = AM_ENOMEM;
    pthread_mutex_lock(&f->lock);
    if (f->n_dormant == f->cap_dormant) {
        size_t cap = f->cap_dormant ? 2 * f->cap_dormant : 64;
        am_dormant *more = realloc(f->dormant, cap * sizeof *more);
        if (more) {
            f->dormant = more;
            f->cap_dormant = cap;
        }
    }
    if (f->n_dormant < f->cap_dormant) {
        am_dormant *new = &f->dormant[f->n_dormant];
        *new = *d;
        new->model = strndup(model.p ? model.p : "", model.n);
        new->file = strdup(file);
        if (new->model && new->file) {
            f->n_dormant++;
            status = AM_OK;
        } else {
            free(new->model);
            free(new->file);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return status;
}

static am_dormant dormant_of(const am_head_view *view) {
    am_dormant d = {.file_bytes = view->file_bytes};
    am_hash_parse(view->tag.p, 64, &d.tag);
    snprintf(d.tenant, sizeof d.tenant, "%s", view->tenant);
    snprintf(d.agent, sizeof d.agent, "%.*s", (int)view->agent.n, view->agent.p);
    return d;
}

am_status am_dormant_add_view(am_cache_folder *f, const am_head_view *view, const char *file, uint64_t block_bytes) {
    am_dormant d = dormant_of(view);
    d.bytes = view->file_bytes + block_bytes;
    return add(f, &d, view->model, file);
}

void am_dormant_add_head(am_cache *c, const am_head *h) {
    if (h->removed || !h->on_disk || c->folder == &c->own_folder) return;
    am_dormant d = {.tag = c->tag, .bytes = h->file_bytes, .file_bytes = h->file_bytes};
    snprintf(d.tenant, sizeof d.tenant, "%s", h->tenant.name);
    snprintf(d.agent, sizeof d.agent, "%s", h->agent);
    for (uint32_t i = 0; i < h->n_chain; i++)
        if (h->chain[i]->on_disk) d.bytes += h->chain[i]->file_bytes;
    add(c->folder, &d, am_str_of(c->model_name), h->file); /* out of memory: it is not counted until the next start */
}

am_dormant_usage am_dormant_usage_of(am_cache_folder *f, const am_tenant *tenant, am_str agent) {
    am_dormant_usage u = {0};
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->n_dormant; i++) {
        const am_dormant *d = &f->dormant[i];
        if (tenant && strcmp(tenant->name, d->tenant) != 0) continue;
        u.n_agents++;
        u.disk_bytes += d->bytes;
        u.known = u.known || am_str_eq(am_str_of(d->agent), agent);
    }
    pthread_mutex_unlock(&f->lock);
    return u;
}

static uint64_t bytes_of(const char *dir, const char *name) {
    char path[4096];
    struct stat st;
    return am_fs_join(path, sizeof path, dir, name, NULL) == AM_OK && am_io->lstat(path, &st) >= 0 ? (uint64_t)st.st_size : 0;
}

typedef struct scan {
    am_cache_folder *folder;
    am_cache bare; /* dir alone: what the functions for files look at */
} scan;

static am_status scan_one(void *arg, const char *name) {
    scan *s = arg;
    am_head_view view;
    uint64_t blocks = 0;
    if (!strchr(name, '~') || strstr(name, ".tmp") || am_head_file_view(&s->bare, name, &view, NULL)) return AM_OK;
    for (uint64_t i = 0; i < view.n_chain; i++) {
        am_hash hash;
        char block[96];
        memcpy(hash.b, view.chain + 32 * i, 32);
        am_block_file_name(&hash, block);
        blocks += bytes_of(s->bare.dir, block);
    }
    am_status status = am_dormant_add_view(s->folder, &view, name, blocks);
    am_head_view_free(&view);
    return status;
}

am_status am_dormant_scan(am_cache_folder *f, const char *dir, am_error *err) {
    scan s = {.folder = f, .bare = {.dir = (char *)(uintptr_t)dir}};
    return am_fs_list(dir, scan_one, &s, err);
}

/* Chain hashes of the files of many heads. */
typedef struct hashes {
    am_hash *all;
    size_t n, cap;
} hashes;

static am_status add_chain(hashes *h, const am_cache *bare, const char *file) {
    am_head_view view;
    am_status status = AM_OK;
    if (am_head_file_view(bare, file, &view, NULL)) return AM_OK; /* gone, or bad: it protects nothing */
    size_t need = h->n + (size_t)view.n_chain;
    if (need > h->cap) {
        am_hash *more = realloc(h->all, 2 * need * sizeof *more);
        if (!more) status = AM_ENOMEM;
        else h->all = more, h->cap = 2 * need;
    }
    for (uint64_t i = 0; i < view.n_chain && !status; i++) memcpy(h->all[h->n++].b, view.chain + 32 * i, 32);
    am_head_view_free(&view);
    return status;
}

static int by_bytes(const void *a, const void *b) { return memcmp(((const am_hash *)a)->b, ((const am_hash *)b)->b, 32); }

static bool chosen(const am_dormant *d, const am_dormant_choice *c) {
    return (!c->tenant || strcmp(c->tenant->name, d->tenant) == 0) && (c->agent.n == 0 || am_str_eq(am_str_of(d->agent), c->agent)) &&
           (!c->model || strcmp(c->model, d->model) == 0);
}

static void remove_file(am_cache_folder *f, const char *dir, const char *name, am_dormant_gone *out) {
    char path[4096];
    uint64_t bytes = bytes_of(dir, name);
    if (!bytes || am_fs_join(path, sizeof path, dir, name, NULL) || am_io->unlink(path) < 0) return;
    out->bytes += bytes;
    uint64_t now = atomic_load(&f->disk_bytes);
    atomic_fetch_sub(&f->disk_bytes, now < bytes ? now : bytes);
}

am_status am_dormant_forget(am_cache_folder *f, const char *dir, const am_dormant_choice *choice, am_dormant_gone *out, am_error *err) {
    am_cache bare = {.dir = (char *)(uintptr_t)dir};
    hashes theirs = {0}, kept = {0};
    am_status status = AM_OK;
    /* only this thread changes the list, so it may be read without the lock, which must not be held while files are read */
    for (size_t i = 0; i < f->n_dormant; i++) f->dormant[i].goes = chosen(&f->dormant[i], choice);
    for (size_t i = 0; i < f->n_dormant && !status; i++) status = add_chain(f->dormant[i].goes ? &theirs : &kept, &bare, f->dormant[i].file);
    if (status) am_fail(err, status, "no memory to forget agents");
    if (theirs.n) qsort(theirs.all, theirs.n, sizeof *theirs.all, by_bytes);
    if (kept.n) qsort(kept.all, kept.n, sizeof *kept.all, by_bytes);
    for (size_t i = f->n_dormant; i-- > 0 && !status;) {
        if (!f->dormant[i].goes) continue;
        remove_file(f, dir, f->dormant[i].file, out);
        out->n_agents++;
        pthread_mutex_lock(&f->lock);
        drop(f, i);
        pthread_mutex_unlock(&f->lock);
    }
    for (size_t i = 0; i < theirs.n && !status; i++) {
        char name[96];
        if (i && by_bytes(&theirs.all[i], &theirs.all[i - 1]) == 0) continue;
        if (kept.n && bsearch(&theirs.all[i], kept.all, kept.n, sizeof *kept.all, by_bytes)) continue;
        am_block_file_name(&theirs.all[i], name);
        uint64_t before = out->bytes;
        remove_file(f, dir, name, out);
        out->n_blocks += out->bytes > before;
    }
    free(theirs.all);
    free(kept.all);
    return status;
}
