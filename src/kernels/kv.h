/* The geometry of a model's cache and the byte layout of its blocks, as attention reads them and as they lie on disk.
 *
 * A block is AM_BLOCK_TOKENS tokens across all layers. An open block is being filled: exact rows (f16; f32 when bits are 32). A sealed
 * block is quantised once and never changes. Which of the two a query sees is decided by position alone (rows of its own block exact,
 * rows of earlier blocks sealed). When K (V) has 8 or 4 bits, K and Q (V) are rotated by am_hadamard before they get here, so open and
 * sealed rows live in one space and attention needs no special case; the output is rotated back once.
 *
 * Both kinds of block: for each layer, for each KV head: keys, then values, each 64-byte aligned (am_kv_k, am_kv_v).
 *   K part: an am_mat of AM_BLOCK_TOKENS outputs x head_dim_k inputs (so scores are a matmul)
 *   V part: am_rows of AM_BLOCK_TOKENS x head_dim_v
 *
 * Latent attention keeps one vector a token that serves as key and, its first head_dim_v dimensions, as value: a shared spec has no V part.
 * The two pieces of such a key (latent, turned part) are rotated apart.
 *
 * A sealed part of 8, 5 or 4 bits has one scale and one bias a channel (a dimension of the rotated head) for each run of group_k
 * (group_v) tokens: a block is quantised whole, so scales can run along tokens, where a channel's mean costs nothing (it is in the bias)
 * and channels of different size do not share a step. docs/CACHE_QUALITY.md has the measurements behind this form. */
#ifndef AM_KERNELS_KV_H
#define AM_KERNELS_KV_H

#include "kernels/kernels.h"

enum { AM_BLOCK_TOKENS = 256, AM_KV_MAX_DIM = 4096, AM_KV_MAX_LAYERS = 1024, AM_KV_GROUP = 128, AM_KV_BITS_K = 5, AM_KV_BITS_V = 4 };

/* The two parts of a sealed block, which live and die apart: layers that see everything, and layers with a window, whose bytes are of use only
 * while a window still reaches the block. A part is a whole number of units of memory, all of one size and anywhere in memory; a block has a table
 * of them, global part first. Without windows a block is one part of one unit. An open block is one piece, layers in order. */
typedef enum am_kv_part { AM_KV_GLOBAL, AM_KV_WINDOW, AM_KV_PARTS } am_kv_part;

typedef struct am_kv_spec {
    uint32_t n_layer, n_kv_head, head_dim_k, head_dim_v;
    uint32_t bits_k, bits_v;   /* 32 (tests), 16, 8, 5 or 4 */
    uint32_t group_k, group_v; /* tokens that share a scale: 32, 64, 128 or 256; 0: AM_KV_GROUP */
    uint32_t unrotated;        /* 1: keys and values stay as they are (for comparisons) */
    uint32_t shared;           /* 1: values are the first head_dim_v dimensions of keys; bits_v and group_v are K's */
    uint32_t window;           /* keys that the widest window of a layer shows a query, its own with them, at least 2; 0: none has */
    uint64_t windowed[AM_KV_MAX_LAYERS / 64]; /* bit i % 64 of word i / 64: layer i has a window */
} am_kv_spec;

typedef struct am_kv_layout {
    am_kv_spec spec;
    size_t open_k_bytes, open_v_bytes, sealed_k_bytes, sealed_v_bytes; /* of one head's part: multiples of 64 */
    size_t open_layer_bytes, sealed_layer_bytes;
    size_t open_bytes, sealed_bytes; /* whole block */
    size_t unit_bytes;
    uint32_t n_units;                    /* of a whole block */
    uint32_t part_units[AM_KV_PARTS];    /* 0: the model has no such part */
    uint32_t part_layers[AM_KV_PARTS];
    struct {
        uint16_t unit, layer; /* which layer of the unit */
    } place[AM_KV_MAX_LAYERS];
    uint32_t reach; /* blocks before a position that windows see, at most: ceil((window - 1) / AM_BLOCK_TOKENS) */
    bool rotate_k, rotate_v;
} am_kv_layout;

/* Checks the spec (bits, groups, dims multiples of 16, products without overflow), fills in the groups and the sizes. */
am_status am_kv_layout_init(am_kv_layout *layout, const am_kv_spec *spec, am_error *err);

am_kv_part am_kv_part_of(const am_kv_layout *layout, uint32_t layer);
/* The first block that a pass of tokens behind n_past others may look at in layers with a window; the blocks before it need no window part. */
uint32_t am_kv_reach(const am_kv_layout *layout, uint32_t n_past);

/* Where a layer's bytes begin, of an open block and of a sealed one ([n_units]). */
const void *am_kv_open_layer(const am_kv_layout *layout, const void *open, uint32_t layer);
const void *am_kv_sealed_layer(const am_kv_layout *layout, const void *const *units, uint32_t layer);
/* The table of a sealed block that lies in one piece of sealed_bytes. */
void am_kv_units_of(const am_kv_layout *layout, void *sealed, void **units);
/* A head's keys and values within a layer. */
am_mat am_kv_k(const am_kv_layout *layout, const void *layer, bool sealed, uint32_t head);
am_rows am_kv_v(const am_kv_layout *layout, const void *layer, bool sealed, uint32_t head); /* not of a shared spec */

/* The rotation of n heads of keys or queries, and of values, where the layout asks for it; each is its own inverse. */
void am_kv_rotate_k(const am_kv_layout *layout, float *x, size_t n_heads);
void am_kv_rotate_v(const am_kv_layout *layout, float *x, size_t n_heads);

/* Writes the rows of one token (already rotated where the layout says so): k [n_kv_head][head_dim_k], v [n_kv_head][head_dim_v] (ignored
 * by a shared spec), into row `row` of one layer of an open block. */
void am_kv_put(const am_kernels *kernels, const am_kv_layout *layout, void *open, uint32_t layer, uint32_t row, const float *k,
               const float *v);
/* Seals one layer of a full open block into a sealed one ([n_units]); layers are independent, so workers can share them. */
void am_kv_seal(const am_kernels *kernels, const am_kv_layout *layout, const void *open, void *const *units, uint32_t layer);

/* The first n_rows rows of an open block as a compact byte string for disk, and back. Order: layer, head, then K rows
 * [n_rows][head_dim_k], V rows [n_rows][head_dim_v], in the open block's element type, little endian. Each head of each layer is a piece, all of one size,
 * which can be loaded by itself: src is where that piece is. */
size_t am_kv_rows_bytes(const am_kv_layout *layout, uint32_t n_rows);
void am_kv_rows_save(const am_kv_layout *layout, const void *open, uint32_t n_rows, void *dst);
uint32_t am_kv_rows_pieces(const am_kv_layout *layout);
void am_kv_rows_load(const am_kv_layout *layout, void *open, uint32_t n_rows, uint32_t piece, const void *src);

#endif
