/* What the files of this room share: the body of a model, the workspace, and the named operations forward passes are written in. */
#ifndef AM_MODEL_INTERNAL_H
#define AM_MODEL_INTERNAL_H

#include "model/weights.h"

typedef struct am_pass am_pass;

/* One architecture: one file that fills one of these, one line in arch.c's table. */
typedef struct am_arch {
    const char *model_type; /* as config.json says it */
    /* Checks the architecture's own config keys and loads its weights into the model. */
    am_status (*load)(am_model *model, am_loader *loader, am_error *err);
    void (*forward)(am_pass *pass);
} am_arch;
const am_arch *am_arch_find(const char *model_type);              /* NULL when there is none */
am_status am_arch_unknown(const char *model_type, am_error *err); /* lists those there are */
extern const am_arch am_arch_llama;

typedef struct am_layer {
    const float *attn_norm, *mlp_norm; /* [n_embd] */
    am_linear q, k, v, o, gate, up, down;
} am_layer;

struct am_model {
    const am_arch *arch;
    const am_kernels *kernels;
    am_config config;
    am_model_info info;
    char name[256], format[48];
    am_tokenizer *tokenizer;
    am_chat *chat;
    am_blobs blobs; /* owns everything the pointers below point to */

    am_linear embed;
    am_layer *layers;        /* [n_layer] */
    const float *final_norm; /* [n_embd] */
    am_mat head;             /* output projection; embed's when tied */
    float *rope_freq;        /* [head_dim / 2] */
};

/* Frequencies of rotary embedding by dimension pair, with the config's scaling. Source: the paper (arXiv 2104.09864) and transformers'
 * modeling_rope_utils.py for the scaled kinds. */
void am_rope_frequencies(const am_rope_config *rope, uint32_t dim, float *freq /* [dim / 2] */);

enum { AM_TILE_ROWS = 32 }; /* query rows of one attention task */

/* The map of a workspace's one allocation is in workspace.c. T: max_tokens, L: max_logits. */
struct am_workspace {
    const am_model *model;
    am_kv_layout layout;
    am_workers *workers; /* may be NULL */
    uint32_t max_tokens, max_logits;
    size_t n_bytes;
    void *memory;

    float *x, *h;          /* [T][n_embd]: residual stream; a norm's or projection's result */
    float *q, *att;        /* [T][n_head * head_dim] */
    float *k, *v;          /* [T][n_kv_head * head_dim] */
    float *gate, *up;      /* [T][n_ff] */
    float *rope_cos, *rope_sin; /* [T][head_dim / 2] */
    float *last;           /* [L][n_embd]: rows that get logits */
    float *logits;         /* [L][n_vocab] */
    uint32_t *token, *position; /* [T] */
    uint32_t *first_row;   /* [T + 1]: first row of each segment */
    uint32_t *first_task;  /* [T + 1]: first task of each segment in the loop that runs */
    struct am_tile *tiles; /* [workers] */
};

/* Scratch of one worker for one attention task. */
typedef struct am_tile {
    float *q;   /* [AM_TILE_ROWS][head_dim_k] */
    float *s;   /* [AM_TILE_ROWS][AM_BLOCK_TOKENS] */
    float *acc; /* [AM_TILE_ROWS][head_dim_v] */
    float m[AM_TILE_ROWS], l[AM_TILE_ROWS];
    uint32_t position[AM_TILE_ROWS], from[AM_TILE_ROWS], to[AM_TILE_ROWS];
} am_tile;

/* One forward pass while it runs. Its rows are the tokens of all segments, one after the other. */
struct am_pass {
    const am_model *model;
    const am_kernels *kernels;
    am_workspace *ws;
    const am_segment *segments;
    size_t n_segments;
    uint32_t n_rows;
};

void am_pass_run(const am_pass *pass, size_t n_tasks, am_workers_fn *fn, void *arg);
/* Shares out n_tasks(segment) tasks of each segment: fills first_task, returns the sum. */
uint32_t am_pass_share(const am_pass *pass, uint32_t (*n_tasks)(const am_pass *pass, const am_segment *segment));
size_t am_pass_segment_of(const am_pass *pass, uint32_t task); /* the segment a task of am_pass_share belongs to */

/* The operations. Rows are n_rows; x, y of different meaning never overlap unless said. */
typedef struct am_projection {
    float *y;       /* [n_rows][w->w.n_out] */
    const float *x; /* [n_rows][w->w.n_in] */
    const am_linear *linear;
} am_projection;
void am_op_embed(const am_pass *pass, float *x);
void am_op_rmsnorm(const am_pass *pass, float *y, const float *x, const float *weight);
void am_op_linear(const am_pass *pass, const am_projection *projections, size_t n); /* y = W x + b, all of them in one go */
void am_op_silu_mul(const am_pass *pass, float *gate, const float *up);           /* gate = silu(gate) * up */
void am_op_add(const am_pass *pass, float *x, const float *y);                    /* x += y */
void am_op_logits(const am_pass *pass);                                           /* from x, to the segments' logits */

typedef struct am_attention {
    uint32_t layer;
    uint32_t window; /* keys a query sees with itself; 0: all */
    float scale;
    float softcap;   /* 0: none */
} am_attention;
/* Rotates q and k by position, and all three into the cache's space, and writes the new rows of the open blocks. */
void am_op_cache(const am_pass *pass, uint32_t layer);
/* att = softmax(scale q k) v over everything each row may see. */
void am_op_attend(const am_pass *pass, const am_attention *attention);

#endif
