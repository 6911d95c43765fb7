/* Owns the two tables, blocks by chain hash and heads by tenant and name, and the lists by use that eviction walks. The tables grow when they
 * are full; a block sealed in the middle of decoding is added without an allocation. */
#include "cache/internal.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

am_hash am_block_name(const am_tenant *tenant, const am_hash *tag, const am_hash *parent, const int32_t *tokens) {
    uint8_t bytes[AM_BLOCK_TOKENS * 4];
    for (size_t i = 0; i < AM_BLOCK_TOKENS; i++)
        for (size_t j = 0; j < 4; j++) bytes[4 * i + j] = (uint8_t)((uint32_t)tokens[i] >> (8 * j));
    am_hash_part parts[] = {{tag->b, sizeof tag->b}, {parent->b, sizeof parent->b}, {bytes, sizeof bytes}};
    return am_hash_parts(tenant->salt, parts, 3);
}

static size_t bucket_of(const am_hash *hash, size_t n_buckets) {
    uint64_t h;
    memcpy(&h, hash->b, sizeof h); /* already uniform */
    return (size_t)h & (n_buckets - 1);
}

am_block *am_index_block(am_cache *c, const am_hash *hash) {
    am_block *b = c->block_buckets[bucket_of(hash, c->n_block_buckets)];
    while (b && !am_hash_eq(&b->hash, hash)) b = b->next;
    return b;
}

/* Twice the buckets, when memory allows; else chains grow longer, which is only slower. */
static void grow_blocks(am_cache *c) {
    size_t n = c->n_block_buckets * 2;
    am_block **buckets = am_calloc(n, sizeof *buckets);
    if (!buckets) return;
    for (size_t i = 0; i < c->n_block_buckets; i++)
        for (am_block *b = c->block_buckets[i], *next; b; b = next) {
            next = b->next;
            am_block **to = &buckets[bucket_of(&b->hash, n)];
            b->next = *to;
            *to = b;
        }
    free(c->block_buckets);
    c->block_buckets = buckets;
    c->n_block_buckets = n;
}

static void unlink_block(am_block *b) {
    b->newer->older = b->older;
    b->older->newer = b->newer;
}

static void link_block(am_cache *c, am_block *b) {
    b->newer = &c->block_ring;
    b->older = c->block_ring.older;
    b->older->newer = b;
    c->block_ring.older = b;
}

void am_index_touch(am_cache *c, am_block *b) {
    unlink_block(b);
    link_block(c, b);
}

am_status am_index_add_block(am_cache *c, am_block *b) {
    am_block **to = &c->block_buckets[bucket_of(&b->hash, c->n_block_buckets)];
    b->next = *to;
    *to = b;
    link_block(c, b);
    c->stats.n_blocks++;
    return AM_OK;
}

am_block *am_index_name_block(am_cache *c, const am_hash *hash) {
    am_block *b = am_index_block(c, hash);
    if (b) return b;
    if (c->stats.n_blocks >= c->n_block_buckets) grow_blocks(c);
    b = am_calloc(1, sizeof *b);
    if (!b) return NULL;
    b->hash = *hash;
    b->lost = AM_MISS_EVICTED;
    am_index_add_block(c, b);
    return b;
}

void am_index_drop_block(am_cache *c, am_block *b) {
    if (b->slot || b->on_disk || b->n_heads || b->n_pins || b->busy) return;
    am_block **at = &c->block_buckets[bucket_of(&b->hash, c->n_block_buckets)];
    while (*at != b) at = &(*at)->next;
    *at = b->next;
    unlink_block(b);
    c->stats.n_blocks--;
    free(b->tokens);
    free(b);
}

static am_hash head_key(const char *tenant, am_str agent) {
    am_hash_part parts[] = {{tenant, strlen(tenant)}, {agent.p, agent.n}};
    return am_hash_parts(NULL, parts, 2);
}

static am_head **head_bucket(const am_cache *c, const char *tenant, am_str agent) {
    am_hash key = head_key(tenant, agent);
    return &c->head_buckets[bucket_of(&key, c->n_head_buckets)];
}

static am_head *find_head(const am_cache *c, const char *tenant, am_str agent) {
    am_head *h = *head_bucket(c, tenant, agent);
    while (h && (strcmp(h->tenant.name, tenant) != 0 || !am_str_eq(am_str_of(h->agent), agent))) h = h->next;
    return h;
}

am_head *am_index_head(am_cache *c, const am_tenant *tenant, am_str agent) {
    am_head *h = find_head(c, tenant->name, agent);
    return h && !h->removed ? h : NULL;
}

static void link_head(am_cache *c, am_head *h) {
    h->newer = &c->head_ring;
    h->older = c->head_ring.older;
    h->older->newer = h;
    c->head_ring.older = h;
}

static void unlink_head(am_head *h) {
    h->newer->older = h->older;
    h->older->newer = h->newer;
}

void am_index_touch_head(am_cache *c, am_head *h) {
    unlink_head(h);
    link_head(c, h);
}

am_head *am_index_make_head(am_cache *c, const am_tenant *tenant, am_str agent, am_error *err) {
    am_head *h = find_head(c, tenant->name, agent);
    if (h) { /* one that was removed while its file was being written lives again */
        h->removed = false;
        return h;
    }
    h = am_calloc(1, sizeof *h);
    if (h) h->file = am_head_file_name(tenant->name, agent, c->tag_hex);
    if (!h || !h->file) {
        free(h);
        am_fail(err, AM_ENOMEM, "no memory for agent '%.*s'", (int)agent.n, agent.p);
        return NULL;
    }
    h->tenant = *tenant;
    memcpy(h->agent, agent.p, agent.n);
    h->created_ns = h->used_ns = am_wall_ns();
    am_head **bucket = head_bucket(c, tenant->name, agent);
    h->next = *bucket;
    *bucket = h;
    link_head(c, h);
    c->stats.n_heads++;
    return h;
}

void am_index_free_head(am_cache *c, am_head *h) {
    am_head **at = head_bucket(c, h->tenant.name, am_str_of(h->agent));
    while (*at != h) at = &(*at)->next;
    *at = h->next;
    unlink_head(h);
    c->stats.n_heads--;
    free(h->file);
    free(h->tokens);
    free(h->chain);
    free(h->image.bytes);
    free(h);
}

bool am_index_is_foreign(const am_cache *c, const am_tenant *tenant, am_str agent) {
    am_hash key = head_key(tenant->name, agent);
    for (size_t i = 0; i < c->n_foreign; i++)
        if (am_hash_eq(&c->foreign[i].key, &key)) return true;
    return false;
}

/* Its blocks are somebody's: the quota must not take them for left over. */
am_status am_index_add_foreign(am_cache *c, const am_head_view *view, const char *file) {
    uint64_t block_bytes = 0;
    if (c->n_foreign == c->cap_foreign) {
        size_t cap = c->cap_foreign ? 2 * c->cap_foreign : 64;
        am_foreign *more = realloc(c->foreign, cap * sizeof *more);
        if (!more) return AM_ENOMEM;
        c->foreign = more;
        c->cap_foreign = cap;
    }
    am_foreign *f = &c->foreign[c->n_foreign];
    *f = (am_foreign){.key = head_key(view->tenant, view->agent), .used_ns = view->used_ns};
    if (view->n_chain && !(f->chain = am_calloc((size_t)view->n_chain, sizeof *f->chain))) return AM_ENOMEM;
    for (uint64_t i = 0; i < view->n_chain; i++) {
        am_hash hash;
        memcpy(hash.b, view->chain + 32 * i, 32);
        am_block *b = am_index_block(c, &hash);
        if (!b) continue;
        b->foreign = true;
        block_bytes += b->file_bytes;
        f->chain[f->n_chain++] = b;
    }
    c->n_foreign++;
    return c->alone && c->folder != &c->own_folder ? am_dormant_add_view(c->folder, view, file, block_bytes) : AM_OK;
}
