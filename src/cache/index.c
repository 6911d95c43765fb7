/* Owns the two tables, blocks by chain hash and heads by tenant and name, and the lists by use that eviction walks (of parts, of heads). The tables grow when they
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

static void unlink_part(am_part *p) {
    p->newer->older = p->older;
    p->older->newer = p->newer;
}

static void link_part(am_part *p, am_part *newer) {
    p->newer = newer;
    p->older = newer->older;
    p->older->newer = p;
    newer->older = p;
}

void am_index_touch(am_cache *c, am_part *p) {
    unlink_part(p);
    link_part(p, &c->part_ring);
}

void am_index_touch_block(am_cache *c, am_block *b) {
    for (int kind = 0; kind < AM_KV_PARTS; kind++)
        if (b->part[kind]) am_index_touch(c, b->part[kind]);
}

void am_index_demote(am_cache *c, am_part *p) {
    unlink_part(p);
    link_part(p, c->part_ring.newer);
}

/* One piece of memory: the entry, its parts, its table of units, and as many places for units that are being read. */
am_block *am_index_new_block(const am_kv_layout *l) {
    size_t n_parts = (l->part_units[AM_KV_GLOBAL] > 0) + (l->part_units[AM_KV_WINDOW] > 0);
    am_block *b = am_calloc(1, sizeof *b + n_parts * sizeof(am_part) + 2 * (size_t)l->n_units * sizeof(void *));
    if (!b) return NULL;
    am_part *next = (am_part *)(b + 1);
    void **units = b->units = (void **)(next + n_parts);
    for (int kind = 0; kind < AM_KV_PARTS; units += l->part_units[kind++]) {
        if (!l->part_units[kind]) continue;
        am_part *p = b->part[kind] = next++;
        *p = (am_part){.block = b, .kind = (am_kv_part)kind, .units = units, .incoming = units + l->n_units, .lost = AM_MISS_EVICTED};
    }
    return b;
}

void am_index_free_block(am_block *b) {
    if (!b) return;
    free(b->tokens);
    free(b->extra);
    free(b);
}

void am_index_add_block(am_cache *c, am_block *b) {
    am_block **to = &c->block_buckets[bucket_of(&b->hash, c->n_block_buckets)];
    b->next = *to;
    *to = b;
    for (int kind = 0; kind < AM_KV_PARTS; kind++)
        if (b->part[kind]) link_part(b->part[kind], &c->part_ring);
    c->stats.n_blocks++;
}

am_block *am_index_name_block(am_cache *c, const am_hash *hash) {
    am_block *b = am_index_block(c, hash);
    if (b) return b;
    if (c->stats.n_blocks >= c->n_block_buckets) grow_blocks(c);
    b = am_index_new_block(&c->options.layout);
    if (!b) return NULL;
    b->hash = *hash;
    am_index_add_block(c, b);
    return b;
}

am_part *am_index_name_part(am_cache *c, am_block *b, am_kv_part kind) {
    if (b->part[kind]) return b->part[kind];
    am_part *p = am_calloc(1, sizeof *p);
    if (!p) return NULL;
    *p = (am_part){.block = b, .kind = kind, .lost = AM_MISS_EVICTED};
    b->part[kind] = b->extra = p;
    link_part(p, &c->part_ring);
    return p;
}

void am_index_drop_block(am_cache *c, am_block *b) {
    if (b->n_heads || b->n_turns) return;
    for (int kind = 0; kind < AM_KV_PARTS; kind++) {
        const am_part *p = b->part[kind];
        if (p && (p->resident || p->on_disk || p->n_pins || p->n_keeps || p->busy)) return;
    }
    am_block **at = &c->block_buckets[bucket_of(&b->hash, c->n_block_buckets)];
    while (*at != b) at = &(*at)->next;
    *at = b->next;
    for (int kind = 0; kind < AM_KV_PARTS; kind++)
        if (b->part[kind]) unlink_part(b->part[kind]);
    c->stats.n_blocks--;
    am_index_free_block(b);
}

am_hash am_index_head_key(const char *tenant, am_str agent) {
    am_hash_part parts[] = {{tenant, strlen(tenant)}, {agent.p, agent.n}};
    return am_hash_parts(NULL, parts, 2);
}

static am_head **head_bucket(const am_cache *c, const char *tenant, am_str agent) {
    am_hash key = am_index_head_key(tenant, agent);
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
    free(h->kept);
    free(h->image.bytes);
    free(h);
}

bool am_index_is_foreign(const am_cache *c, const am_tenant *tenant, am_str agent) {
    am_hash key = am_index_head_key(tenant->name, agent);
    for (size_t i = 0; i < c->n_foreign; i++)
        if (am_hash_eq(&c->foreign[i].key, &key)) return true;
    return false;
}

/* Its blocks are somebody's: the quota must not take them for left over. */
am_status am_index_add_foreign(am_cache *c, const am_head_view *view) {
    uint64_t block_bytes = 0;
    if (c->n_foreign == c->cap_foreign) {
        size_t cap = c->cap_foreign ? 2 * c->cap_foreign : 64;
        am_foreign *more = realloc(c->foreign, cap * sizeof *more);
        if (!more) return AM_ENOMEM;
        c->foreign = more;
        c->cap_foreign = cap;
    }
    am_foreign *f = &c->foreign[c->n_foreign];
    *f = (am_foreign){.key = am_index_head_key(view->tenant, view->agent), .used_ns = view->used_ns};
    if (view->n_chain && !(f->chain = am_calloc((size_t)view->n_chain, sizeof *f->chain))) return AM_ENOMEM;
    for (uint64_t i = 0; i < view->n_chain; i++) {
        am_hash hash;
        memcpy(hash.b, view->chain + 32 * i, 32);
        am_block *b = am_index_block(c, &hash);
        if (!b) continue;
        b->foreign = true;
        f->chain[f->n_chain++] = b;
        for (int kind = 0; kind < AM_KV_PARTS; kind++) block_bytes += b->part[kind] ? b->part[kind]->file_bytes : 0;
    }
    c->n_foreign++;
    if (c->alone) am_absent_add_view(c, view, block_bytes);
    return AM_OK;
}
