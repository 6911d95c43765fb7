/* Owns the comparison with the model: every head of the loaded model is computed again from its tokens, block by block
 * as a prefill would, and what comes out is compared with the files bit for bit (invariant 1 says that it must be
 * equal). A block that many heads share is computed once; the files of blocks found equal then serve as the past of
 * what follows, as they would in service. */
#include "cache/verify_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct deep {
    am_verify_state *v;
    am_workspace *workspace;
    char *open;     /* one open block */
    char **sealed;  /* [n_cap], each in one piece */
    void ***units;  /* [n_cap]: their tables */
    size_t n_cap;
    am_hash tag;
} deep;

static int32_t token_at(const am_head_view *h, uint64_t i) {
    const uint8_t *t = h->tokens + 4 * i;
    return (int32_t)((uint32_t)t[0] | (uint32_t)t[1] << 8 | (uint32_t)t[2] << 16 | (uint32_t)t[3] << 24);
}

static am_status hold(deep *d, size_t n, am_error *err) {
    if (n <= d->n_cap) return AM_OK;
    const am_kv_layout *l = &d->v->options->layout;
    char **more = realloc(d->sealed, n * sizeof *more);
    if (more) d->sealed = more;
    void ***tables = realloc(d->units, n * sizeof *tables);
    if (tables) d->units = tables;
    if (!more || !tables) return am_fail(err, AM_ENOMEM, "no memory for %zu blocks", n);
    for (; d->n_cap < n; d->n_cap++) {
        char *sealed = am_alloc_aligned(l->sealed_bytes);
        void **units = am_calloc(l->n_units, sizeof *units);
        if (!sealed || !units) {
            free(sealed);
            free(units);
            return am_fail(err, AM_ENOMEM, "no memory for %zu blocks", n);
        }
        am_kv_units_of(l, sealed, units);
        d->sealed[d->n_cap] = sealed;
        d->units[d->n_cap] = units;
    }
    return AM_OK;
}

/* Computes the n tokens after block i into the open block. */
static am_status compute(deep *d, const am_head_view *h, uint64_t i, uint32_t n, am_error *err) {
    int32_t tokens[AM_BLOCK_TOKENS];
    for (uint32_t j = 0; j < n; j++) tokens[j] = token_at(h, i * AM_BLOCK_TOKENS + j);
    memset(d->open, 0, d->v->options->layout.open_bytes);
    am_segment segment = {.tokens = tokens,
                          .n_tokens = n,
                          .n_past = (uint32_t)i * AM_BLOCK_TOKENS,
                          .sealed = (const void *const *const *)d->units,
                          .open = d->open};
    return am_model_forward(d->v->options->model, d->workspace, &segment, 1, err);
}

static void differs(deep *d, const char *file, const char *what, size_t at) {
    char text[160];
    snprintf(text, sizeof text,
             "the model computes other bytes from %zu of its %s on (state made by another kernel table differs without "
             "being wrong)",
             at, what);
    am_verify_report(d->v, AM_FINDING_DIFFERS, file, text);
}

static size_t first_difference(const char *a, const char *b, size_t n) {
    size_t i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

/* A part's file as it is on disk; its place within the block in one piece. */
typedef struct part_file {
    am_verify_block *block; /* NULL: there is none */
    am_block_view view;
    char name[96];
    size_t at, n;
} part_file;

static void read_part(deep *d, am_kv_part part, const am_hash *hash, part_file *f) {
    const am_kv_layout *l = &d->v->options->layout;
    *f = (part_file){.block = am_verify_find(d->v, part, hash), .n = l->part_units[part] * l->unit_bytes};
    if (part == AM_KV_WINDOW) f->at = l->part_units[AM_KV_GLOBAL] * l->unit_bytes;
    am_block_file_name(part, hash, f->name);
    if (f->n == 0) f->block = NULL;
    if (f->block && am_block_file_view(d->v->options->dir, f->name, &f->view, NULL)) {
        am_buf_free(&f->view.bytes);
        f->block = NULL;
    }
    if (f->block && f->view.kv_bytes != f->n) {
        am_verify_report(d->v, AM_FINDING_FORMAT, f->name, "tensor 'kv' has not the length of this model's blocks");
        am_buf_free(&f->view.bytes);
        f->block = NULL;
    }
}

static void compare_part(deep *d, const char *sealed, part_file *f) {
    if (!f->block) return;
    size_t at = first_difference(sealed + f->at, f->view.bytes.p + f->view.kv_at, f->n);
    d->v->result->n_deep_blocks++;
    f->block->same = at == f->n;
    if (f->block->same) return;
    f->block->gone = d->v->options->repair;
    differs(d, f->name, "state", at);
}

/* Block i of the chain: sealed[i] is filled from the files when they are known to be true, else by the model, and the
 * files are compared. */
static am_status compare_block(deep *d, const am_head_view *h, uint64_t i, am_error *err) {
    const am_verify_options *o = d->v->options;
    am_hash hash;
    part_file files[AM_KV_PARTS];
    am_status status = AM_OK;
    bool known = true;
    memcpy(hash.b, h->chain + 32 * i, 32);
    for (int part = 0; part < AM_KV_PARTS; part++) {
        read_part(d, (am_kv_part)part, &hash, &files[part]);
        known = known && (files[part].n == 0 || (files[part].block && files[part].block->same));
    }
    for (int part = 0; known && part < AM_KV_PARTS; part++)
        if (files[part].n) memcpy(d->sealed[i] + files[part].at, files[part].view.bytes.p + files[part].view.kv_at, files[part].n);
    if (!known && !(status = compute(d, h, i, AM_BLOCK_TOKENS, err))) {
        memset(d->sealed[i], 0, o->layout.sealed_bytes);
        for (uint32_t layer = 0; layer < o->layout.spec.n_layer; layer++)
            am_kv_seal(o->kernels, &o->layout, d->open, d->units[i], layer);
        for (int part = 0; part < AM_KV_PARTS; part++) compare_part(d, d->sealed[i], &files[part]);
    }
    for (int part = 0; part < AM_KV_PARTS; part++)
        if (files[part].block) am_buf_free(&files[part].view.bytes);
    return status;
}

static am_status compare_rows(deep *d, const char *name, const am_head_view *h, const uint8_t *rows, am_error *err) {
    const am_kv_layout *layout = &d->v->options->layout;
    uint32_t n_open = (uint32_t)(h->n_rows % AM_BLOCK_TOKENS);
    if (!rows || !n_open || am_kv_rows_bytes(layout, n_open) != h->rows_bytes) return AM_OK;
    am_status status = compute(d, h, h->n_chain, n_open, err);
    char *own = status ? NULL : malloc((size_t)h->rows_bytes);
    if (!status && !own) status = am_fail(err, AM_ENOMEM, "no memory for rows");
    if (!status) {
        am_kv_rows_save(layout, d->open, n_open, own);
        size_t at = first_difference(own, (const char *)rows, (size_t)h->rows_bytes);
        d->v->result->n_deep_rows += n_open;
        if (at < h->rows_bytes) differs(d, name, "open rows", at);
    }
    free(own);
    return status;
}

static am_status compare_head(deep *d, const char *name, am_error *err) {
    am_head_view h;
    am_error why = {0};
    uint8_t *rows = NULL;
    am_hash tag;
    am_status status = am_head_file_view(&d->v->cache, name, &h, &why);
    if (status)
        return status == AM_ENOMEM ? am_fail(err, status, "%s", why.message)
                                   : AM_OK; /* replaced or removed meanwhile */
    bool ours = am_hash_parse(h.tag.p, 64, &tag) && am_hash_eq(&tag, &d->tag);
    if (ours) status = am_verify_rows(d->v, name, &h, &rows, &why);
    if (ours && !status && !(status = hold(d, (size_t)h.n_chain + 1, &why))) {
        d->v->result->n_deep_heads++;
        for (uint64_t i = 0; !status && i < h.n_chain; i++) status = compare_block(d, &h, i, &why);
        if (!status) status = compare_rows(d, name, &h, rows, &why);
    }
    if (status == AM_EINVAL) am_verify_report(d->v, AM_FINDING_TOKENS, name, why.message);
    free(rows);
    am_head_view_free(&h);
    return status == AM_ENOMEM ? am_fail(err, status, "%s", why.message) : AM_OK;
}

am_status am_verify_deep(am_verify_state *v, am_error *err) {
    const am_verify_options *o = v->options;
    deep d = {.v = v, .tag = am_model_tag(&o->layout.spec, am_model_info_of(o->model)->fingerprint)};
    am_status status = am_workspace_create(o->model, &o->layout, o->workers, AM_BLOCK_TOKENS, 1, &d.workspace, err);
    if (!status && !(d.open = am_alloc_aligned(o->layout.open_bytes)))
        status = am_fail(err, AM_ENOMEM, "no memory for a block");
    for (size_t i = 0; !status && i < v->n_heads; i++)
        if (v->heads[i]) status = compare_head(&d, v->heads[i], err);
    for (size_t i = 0; i < d.n_cap; i++) {
        free(d.sealed[i]);
        free(d.units[i]);
    }
    free(d.sealed);
    free(d.units);
    free(d.open);
    am_workspace_free(d.workspace);
    return status;
}
