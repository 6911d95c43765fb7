/* What the two files of the verification share. The room's own. */
#ifndef AM_CACHE_VERIFY_INTERNAL_H
#define AM_CACHE_VERIFY_INTERNAL_H

#include "cache/internal.h"
#include "cache/verify.h"

/* A block's file (of one of its parts) that is good by itself. */
typedef struct am_verify_block {
    am_hash hash;
    am_kv_part part; /* sorted by hash, then part */
    am_hash parent, tag;
    int32_t tokens[AM_BLOCK_TOKENS];
    bool named; /* its name follows from its content, with a salt that is known */
    bool used;  /* a head names it */
    bool same;  /* deep: the model computes these very bytes */
    bool gone;  /* moved aside */
} am_verify_block;

typedef struct am_verify_state {
    const am_verify_options *options;
    am_verify_result *result;
    am_cache cache;          /* only dir: what the functions for files look at */
    am_verify_block *blocks; /* sorted by hash once all are known */
    size_t n_blocks, cap_blocks;
    char **heads; /* names of files */
    size_t n_heads, cap_heads;
    bool unkeyed; /* there are heads of tenants whose salt is not known */
} am_verify_state;

am_verify_block *am_verify_find(const am_verify_state *state, am_kv_part part, const am_hash *hash); /* NULL */
/* Reports; when the folder is to be repaired, moves a file that is wrong aside or removes an orphan. */
void am_verify_report(am_verify_state *state, am_finding_kind kind, const char *file, const char *text);
/* The open rows of a head with their two sums, checked; the caller frees *out, which stays NULL when it has none. Rows
 * begin after 16 bytes. */
am_status am_verify_rows(const am_verify_state *state, const char *file, const am_head_view *view, uint8_t **out,
                         am_error *err);

/* verify_deep.c */
am_status am_verify_deep(am_verify_state *state, am_error *err);

#endif
