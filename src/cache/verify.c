/* Owns the reading of a data folder file by file: blocks first, each by itself, then heads with the blocks they name.
 * What a running server writes or removes meanwhile does no harm: files are replaced whole, and one that is gone when
 * it is opened was removed on purpose. */
#include "cache/verify_internal.h"

#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bool wrong;
} kinds[] = {
#define AM_FINDING_ROW(code, name, wrong) [code] = {name, wrong},
    AM_FINDING_LIST(AM_FINDING_ROW)
#undef AM_FINDING_ROW
};

const char *am_finding_name(am_finding_kind kind) { return kinds[kind].name; }
bool am_finding_is_wrong(am_finding_kind kind) { return kinds[kind].wrong; }

static bool ends_with(const char *name, const char *tail) {
    size_t n = strlen(name), m = strlen(tail);
    return n >= m && strcmp(name + n - m, tail) == 0;
}

static bool repair(am_verify_state *v, am_finding_kind kind, const char *file, const char *text) {
    char path[4096];
    if (!v->options->repair || !am_finding_is_wrong(kind) || !*file || kind == AM_FINDING_IO) return false;
    if (am_fs_join(path, sizeof path, v->options->dir, file, NULL)) return false;
    if (kind == AM_FINDING_ORPHAN) return am_io->unlink(path) >= 0;
    uint64_t before = v->cache.n_refused;
    struct stat st;
    am_refuse_file(&v->cache, file, kind == AM_FINDING_CHECKSUM ? AM_ECORRUPT : AM_EFORMAT, text);
    return v->cache.n_refused > before && am_io->lstat(path, &st) == -ENOENT;
}

void am_verify_report(am_verify_state *v, am_finding_kind kind, const char *file, const char *text) {
    am_finding finding = {kind, file, text, repair(v, kind, file, text)};
    v->result->n[kind]++;
    v->result->n_wrong += am_finding_is_wrong(kind);
    v->result->n_repaired += finding.repaired;
    if (v->options->on_finding) v->options->on_finding(v->options->arg, &finding);
}

/* What a file's reader said, as a finding. Gone is no finding. */
static void report_status(am_verify_state *v, const char *file, am_status status, const char *text) {
    if (status == AM_ENOTFOUND) return;
    am_finding_kind kind = status == AM_ECORRUPT                    ? AM_FINDING_CHECKSUM
                           : status == AM_EIO || status == AM_EPERM ? AM_FINDING_IO
                                                                    : AM_FINDING_FORMAT;
    am_verify_report(v, kind, file, text);
}

static void *grow(void *p, size_t n, size_t *cap, size_t size) {
    if (n < *cap) return p;
    size_t more = *cap ? 2 * *cap : 64;
    void *q = realloc(p, more * size);
    if (q) *cap = more;
    return q;
}

static bool is_named(const am_verify_state *v, const am_block_view *b) {
    am_tenant tenant = {0};
    am_hash name = am_block_name(&tenant, &b->tag, &b->parent, b->tokens);
    for (size_t i = 0; !am_hash_eq(&name, &b->hash) && i < v->options->n_tenants; i++)
        name = am_block_name(&v->options->tenants[i], &b->tag, &b->parent, b->tokens);
    return am_hash_eq(&name, &b->hash);
}

static am_status look_at_block(am_verify_state *v, const char *name, am_kv_part part, const am_hash *hash, am_error *err) {
    am_block_view b;
    am_error why = {0};
    am_status status = am_block_file_view(v->options->dir, name, &b, &why);
    v->result->n_bytes += b.bytes.n;
    am_buf_free(&b.bytes);
    if (status == AM_ENOMEM) return am_fail(err, status, "%s: %s", name, why.message);
    if (status) {
        report_status(v, name, status, why.message);
        return AM_OK;
    }
    if (!am_hash_eq(&b.hash, hash) || b.part != part) {
        am_verify_report(v, AM_FINDING_NAME, name, "is another block under this name");
        return AM_OK;
    }
    am_verify_block *more = grow(v->blocks, v->n_blocks, &v->cap_blocks, sizeof *more);
    if (!more) return am_fail(err, AM_ENOMEM, "no memory for %zu blocks", v->n_blocks + 1);
    v->blocks = more;
    am_verify_block *out = &v->blocks[v->n_blocks++];
    *out = (am_verify_block){.hash = b.hash, .part = part, .parent = b.parent, .tag = b.tag, .named = is_named(v, &b)};
    memcpy(out->tokens, b.tokens, sizeof out->tokens);
    v->result->n_blocks++;
    return AM_OK;
}

static am_status count_refused(void *arg, const char *name) {
    (void)name;
    ++*(size_t *)arg;
    return AM_OK;
}

static void look_at_other(am_verify_state *v, const char *name) {
    char path[4096], text[64];
    size_t n = 0;
    if (strcmp(name, "lock") == 0) return;
    if (strcmp(name, "refused") != 0) {
        am_verify_report(v, AM_FINDING_STRANGER, name, "no file of ours");
    } else if (!am_fs_join(path, sizeof path, v->options->dir, name, NULL) &&
               !am_fs_list(path, count_refused, &n, NULL) && n) {
        snprintf(text, sizeof text, "%zu files were moved aside earlier", n);
        am_verify_report(v, AM_FINDING_REFUSED, name, text);
    }
}

typedef struct scan {
    am_verify_state *v;
    am_error *err;
} scan;

static am_status look_at_name(void *arg, const char *name) {
    scan *s = arg;
    am_verify_state *v = s->v;
    am_hash hash;
    am_kv_part part;
    if (ends_with(name, ".tmp.safetensors") || ends_with(name, ".tmp")) {
        if (v->options->served) am_verify_report(v, AM_FINDING_WRITING, name, "a server is writing it");
        else am_verify_report(v, AM_FINDING_ORPHAN, name, "a write that did not end");
    } else if (am_block_file_parse(name, &part, &hash)) {
        return look_at_block(v, name, part, &hash, s->err);
    } else if (ends_with(name, ".safetensors") && strchr(name, '~')) {
        char **more = grow(v->heads, v->n_heads, &v->cap_heads, sizeof *more);
        if (more) v->heads = more;
        if (!more || !(v->heads[v->n_heads] = strdup(name)))
            return am_fail(s->err, AM_ENOMEM, "no memory for %zu heads", v->n_heads);
        v->n_heads++;
    } else {
        look_at_other(v, name);
    }
    return AM_OK;
}

static int by_hash(const void *a, const void *b) {
    const am_verify_block *x = a, *y = b;
    int order = memcmp(&x->hash, &y->hash, sizeof x->hash);
    return order ? order : (int)x->part - (int)y->part;
}

am_verify_block *am_verify_find(const am_verify_state *v, am_kv_part part, const am_hash *hash) {
    am_verify_block key = {.hash = *hash, .part = part};
    am_verify_block *b = v->n_blocks ? bsearch(&key, v->blocks, v->n_blocks, sizeof *v->blocks, by_hash) : NULL;
    return b && !b->gone ? b : NULL;
}

typedef struct rows_copy {
    uint8_t *to;
    size_t n;
} rows_copy;

static void take_rows(void *arg, uint32_t piece, const uint8_t *bytes) {
    const rows_copy *copy = arg;
    (void)piece; /* the only one */
    memcpy(copy->to, bytes, copy->n);
}

am_status am_verify_rows(const am_verify_state *v, const char *file, const am_head_view *h, uint8_t **out,
                         am_error *err) {
    char path[4096];
    rows_copy copy = {NULL, (size_t)h->rows_bytes};
    am_head_rows rows = {(const uint8_t *)h->bytes.p + h->sum_at, h->sum_at, copy.n, copy.n, take_rows, &copy};
    *out = NULL;
    if (!h->rows_bytes) return AM_OK;
    am_status status = am_fs_join(path, sizeof path, v->options->dir, file, err);
    copy.to = status ? NULL : malloc(copy.n);
    if (!copy.to) return status ? status : am_fail(err, AM_ENOMEM, "no memory for %zu bytes of rows", copy.n);
    int fd = am_io->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        status = am_fail(err, fd == -ENOENT ? AM_ENOTFOUND : AM_EIO, "%s", strerror(-fd));
    else
        status = am_head_rows_read(fd, path, &rows, err);
    if (fd >= 0) am_io->close(fd);
    if (status)
        free(copy.to);
    else
        *out = copy.to;
    return status;
}

static const am_tenant *tenant_of(const am_verify_state *v, const char *name) {
    static const am_tenant nobody;
    if (!*name) return &nobody;
    for (size_t i = 0; i < v->options->n_tenants; i++)
        if (strcmp(v->options->tenants[i].name, name) == 0) return &v->options->tenants[i];
    return NULL;
}

/* Whether all is there of block i of a chain that its agent needs to go on at its end. */
static bool use_parts(am_verify_state *v, const am_head_view *h, uint64_t i, const am_hash *hash) {
    am_verify_block *global = am_verify_find(v, AM_KV_GLOBAL, hash), *window = am_verify_find(v, AM_KV_WINDOW, hash);
    if (global) global->used = true;
    if (window) window->used = true;
    bool in_reach = h->window && (i + 1) * AM_BLOCK_TOKENS + h->window > h->n_chain * AM_BLOCK_TOKENS + 1;
    return (global || !h->has_global) && (window || !in_reach);
}

/* Each name must follow from the one before and the tokens; blocks that are not there are counted. */
static void look_at_chain(am_verify_state *v, const char *file, const am_head_view *h) {
    const am_tenant *tenant = tenant_of(v, h->tenant);
    am_hash tag, parent = {0};
    uint64_t n_missing = 0;
    char text[128];
    if (!am_hash_parse(h->tag.p, 64, &tag)) {
        am_verify_report(v, AM_FINDING_FORMAT, file, "metadata 'model_tag' is no hash");
        return;
    }
    for (uint64_t i = 0; i < h->n_chain; i++) {
        am_hash own;
        int32_t tokens[AM_BLOCK_TOKENS];
        memcpy(own.b, h->chain + 32 * i, 32);
        for (size_t j = 0; j < AM_BLOCK_TOKENS; j++) {
            const uint8_t *t = h->tokens + 4 * (i * AM_BLOCK_TOKENS + j);
            tokens[j] = (int32_t)((uint32_t)t[0] | (uint32_t)t[1] << 8 | (uint32_t)t[2] << 16 | (uint32_t)t[3] << 24);
        }
        am_hash wanted = tenant ? am_block_name(tenant, &tag, &parent, tokens) : own;
        if (!am_hash_eq(&wanted, &own)) {
            snprintf(text, sizeof text, "block %llu of its chain does not follow from its tokens",
                     (unsigned long long)i);
            am_verify_report(v, AM_FINDING_CHAIN, file, text);
            return;
        }
        n_missing += !use_parts(v, h, i, &own);
        parent = own;
    }
    if (!tenant) {
        v->unkeyed = true;
        am_verify_report(v, AM_FINDING_UNKEYED, file, "belongs to a tenant whose salt is not known here");
    }
    if (n_missing) {
        snprintf(text, sizeof text, "%llu of %llu blocks are not there: computed again when they are wanted",
                 (unsigned long long)n_missing, (unsigned long long)h->n_chain);
        am_verify_report(v, AM_FINDING_MISSING, file, text);
    }
}

static void look_at_head(am_verify_state *v, char **name) {
    am_head_view h;
    am_error why = {0};
    uint8_t *rows = NULL;
    am_status status = am_head_file_view(&v->cache, *name, &h, &why);
    bool good = false;
    if (status) {
        report_status(v, *name, status, why.message);
    } else {
        char tag[65] = {0};
        memcpy(tag, h.tag.p, 64);
        char *own = am_head_file_name(h.tenant, h.agent, tag);
        v->result->n_heads++;
        v->result->n_bytes += h.file_bytes;
        if (own && strcmp(own, *name) != 0)
            am_verify_report(v, AM_FINDING_NAME, *name, "is the head of another agent under this name");
        else if (!(status = am_verify_rows(v, *name, &h, &rows, &why)))
            good = true;
        else if (status == AM_ECORRUPT)
            am_verify_report(v, AM_FINDING_ROWS, *name, why.message);
        else
            report_status(v, *name, status, why.message);
        free(own);
        uint64_t before = v->result->n_wrong;
        if (good) look_at_chain(v, *name, &h);
        good = good && v->result->n_wrong == before;
    }
    free(rows);
    am_head_view_free(&h);
    if (good) return;
    free(*name); /* nothing deeper is to be looked for in it */
    *name = NULL;
}

/* Names could not be checked with the salts that are known: wrong, unless a tenant with another one is about. */
static void look_at_names(am_verify_state *v) {
    size_t n_unused = 0, n_unkeyed = 0;
    char file[96], text[96];
    for (size_t i = 0; i < v->n_blocks; i++) {
        am_verify_block *b = &v->blocks[i];
        n_unused += !b->used && b->named;
        if (b->named) continue;
        if (v->unkeyed) {
            n_unkeyed++;
            continue;
        }
        am_block_file_name(b->part, &b->hash, file);
        am_verify_report(v, AM_FINDING_NAME, file, "its name does not follow from its content");
        b->gone = v->options->repair;
    }
    snprintf(text, sizeof text, "%zu blocks that no agent names: kept until the disk quota wants their place",
             n_unused);
    if (n_unused) am_verify_report(v, AM_FINDING_UNUSED, "", text);
    snprintf(text, sizeof text, "%zu blocks of tenants whose salt is not known here", n_unkeyed);
    if (n_unkeyed) am_verify_report(v, AM_FINDING_UNKEYED, "", text);
}

am_status am_verify(const am_verify_options *options, am_verify_result *result, am_error *err) {
    am_verify_state *v = am_calloc(1, sizeof *v);
    *result = (am_verify_result){0};
    if (!v) return am_fail(err, AM_ENOMEM, "no memory to verify");
    v->options = options;
    v->result = result;
    v->cache.dir = (char *)options->dir;
    am_status status = am_fs_list(options->dir, look_at_name, &(scan){v, err}, err);
    if (v->n_blocks) qsort(v->blocks, v->n_blocks, sizeof *v->blocks, by_hash);
    for (size_t i = 0; !status && i < v->n_heads; i++) look_at_head(v, &v->heads[i]);
    if (!status) look_at_names(v);
    if (!status && options->model) status = am_verify_deep(v, err);
    for (size_t i = 0; i < v->n_heads; i++) free(v->heads[i]);
    free(v->heads);
    free(v->blocks);
    free(v);
    return status;
}
