/* What the files of this room share: the body of a model, the workspace, and the named operations forward passes are written in. */
#ifndef AM_MODEL_INTERNAL_H
#define AM_MODEL_INTERNAL_H

#include "model/weights.h"

typedef struct am_pass am_pass;

/* One architecture: one file that fills one of these, one line in arch.c's table. */
typedef struct am_arch {
    const char *model_type;  /* as config.json says it */
    const char *text_config; /* the key under which the text model's config lies; NULL: at the top */
    const char *defaults;    /* JSON object: what transformers' configuration class takes for keys that are absent; NULL: nothing more */
    /* Checks the architecture's own config keys, sets what differs from a plain decoder, and loads the weights. */
    am_status (*load)(am_model *model, am_loader *loader, am_error *err);
    void (*forward)(am_pass *pass);
} am_arch;
const am_arch *am_arch_find(const char *model_type);              /* NULL when there is none */
am_status am_arch_unknown(const char *model_type, am_error *err); /* lists those there are */

typedef enum am_activation {
    AM_ACT_SILU,         /* silu(gate) * up */
    AM_ACT_GELU_TANH,    /* gelu(gate) * up, the tanh form */
    AM_ACT_SWIGLU_CLAMP, /* (up + 1) * gate * sigmoid(alpha gate), both clamped */
} am_activation;

/* A mixture of experts in the place of an MLP. */
typedef struct am_moe {
    am_linear router;
    am_linear *gate, *up, *down;                  /* [n_expert] */
    am_linear shared_gate, shared_up, shared_down; /* for every token beside its experts; where the model has n_ff_shared */
} am_moe;

/* Multi-head latent attention in its absorbed form: the cache holds one latent vector a token, which serves all heads as key (with one
 * turned part behind it) and as value. */
typedef struct am_mla {
    am_linear q_a, q_b;   /* q_b(norm(q_a x)), or q_b alone; rows of a head: nope, then turned */
    const float *q_a_norm; /* NULL: no q_a */
    am_linear kv_a;       /* latent, then turned part */
    const float *kv_a_norm;
    am_linear *k_b;       /* [n_head]: nope -> latent */
    am_linear *v_b;       /* [n_head]: latent -> value */
} am_mla;

typedef struct am_layer {
    const float *attn_norm, *mlp_norm;           /* [n_embd]: before attention and MLP */
    const float *attn_post_norm, *mlp_post_norm; /* [n_embd]: on their outputs */
    const float *q_norm, *k_norm;                /* [head_dim], or all heads together; NULL: none */
    const float *sinks;                          /* [n_head]: a score without a value that joins each softmax; NULL: none */
    am_linear q, k, v, o;
    am_linear gate, up, down;
    am_mla *mla;     /* instead of q, k, v; NULL: none */
    am_moe *moe;     /* instead of gate, up, down; NULL: none */
    uint32_t window; /* keys a query sees with itself; 0: all */
    int rope;        /* which of the model's ropes turns q and k; -1: none */
} am_layer;

/* Frequencies of rotary embedding by pair of dimensions i and i + dims / 2. */
typedef struct am_rope {
    uint32_t first, dims; /* the dimensions of a head that turn; the others pass */
    float scale;   /* of cos and sin */
    float *freq;   /* [dims / 2] */
} am_rope;
enum { AM_MAX_ROPES = 2 };

struct am_model {
    const am_arch *arch;
    const am_kernels *kernels;
    am_config config;
    am_model_info info;
    char name[256], format[48], forms[512];
    am_tokenizer *tokenizer;
    am_chat *chat;
    am_blobs blobs; /* owns what the pointers below point to */
    am_packed *packed;               /* or this does; NULL: packed at this start */
    am_packed_writer *packed_writer; /* reads matrices of blobs; NULL: none */

    am_linear embed;
    am_layer *layers;        /* [n_layer] */
    const float *final_norm; /* [n_embd] */
    am_linear head;          /* output projection; embed's when tied */
    am_rope ropes[AM_MAX_ROPES];
    uint32_t n_ropes;

    am_activation activation;
    float activation_limit, activation_alpha; /* AM_ACT_SWIGLU_CLAMP */
    float embed_scale;       /* 1: none */
    float attention_scale;   /* of scores */
    float attention_softcap; /* 0: none */
    float logit_softcap;     /* 0: none */
    bool qk_norm_all_heads;  /* q_norm and k_norm run over all heads of a token together */

    uint32_t cache_heads, cache_dim_k, cache_dim_v; /* of a token in the cache, and so of what attention sees; multiples of 16, heads have zeros up to there */
    uint32_t q_lora, kv_lora, nope_dim, turned_dim, value_dim; /* am_mla; kv_lora 0: none. q_lora 0: no q_a */

    uint32_t n_expert, n_expert_used, n_ff_expert; /* 0: no experts */
    uint32_t n_ff_shared;  /* 0: none */
    uint32_t n_expert_group, n_group_used; /* experts of the best groups alone may be chosen; 0: all */
    float expert_scale;    /* of the weights */
    bool expert_normalise; /* weights are a softmax over the chosen experts; else over all of them */
};

/* Adds a rope to the model, with the config's scaling. */
am_status am_model_add_rope(am_model *model, const am_rope_config *rope, am_error *err);
/* How far pair i of dims / 2 turns a position; n_ctx: what is served (longrope). */
double am_rope_freq(const am_rope_config *rope, uint32_t dims, uint32_t i, double n_ctx);
am_status am_gemma_local_rope(const am_config *config, am_rope_config *out, am_error *err); /* of Gemma 3's layers with a window (gemma.c) */

enum { AM_TILE_ROWS = 48 }; /* query rows of one attention task */

/* Scratch of one worker for one attention task. */
typedef struct am_tile {
    float *q;   /* [AM_TILE_ROWS][head_dim_k] */
    float *s;   /* [AM_TILE_ROWS][AM_BLOCK_TOKENS] */
    float *acc; /* [AM_TILE_ROWS][head_dim_v] */
    float m[AM_TILE_ROWS], l[AM_TILE_ROWS];
    uint32_t position[AM_TILE_ROWS], from[AM_TILE_ROWS], to[AM_TILE_ROWS];
} am_tile;

/* y = W x + b for n_rows rows. */
typedef struct am_projection {
    float *y;       /* [n_rows][w.n_out] */
    const float *x; /* [n_rows][w.n_in] */
    const am_linear *linear;
    size_t n_rows;
    size_t ldy, ldx; /* from row to row; 0: n_out, n_in */
} am_projection;

/* The map of a workspace's one allocation is in workspace.c. T: max_tokens, L: max_logits, E: experts, U: experts used by a token. */
struct am_workspace {
    const am_model *model;
    am_kv_layout layout;
    am_workers *workers; /* may be NULL */
    uint32_t max_tokens, max_logits;
    size_t n_bytes;
    void *memory;

    float *x, *h;                /* [T][n_embd]: residual stream; what goes into and comes out of attention and MLP */
    float *q, *att;              /* [T][n_head * head_dim] */
    float *k, *v;                /* [T][n_kv_head * head_dim] */
    float *gate, *up;            /* [T][n_ff], or [T * U][n_ff_expert] and [T][n_ff_shared], if that is more */
    float *rope_cos[AM_MAX_ROPES], *rope_sin[AM_MAX_ROPES]; /* [T][dims / 2] */
    float *latent_q;             /* [T][q_lora]; this and the next two for am_mla alone */
    float *heads;                /* [T][n_head][nope + turned], later [T][n_head][value_dim] */
    float *latent_kv;            /* [T][kv_lora + turned] */
    float *shared;               /* [T][n_embd]: what shared experts say */
    uint8_t *rounded;            /* rows of am_int8_row_bytes and am_bf16_row_bytes: what goes into projections that take those; NULL: none does */
    float *last;                 /* [L][n_embd]: rows that get logits */
    float *logits;               /* [L][n_vocab] */
    float *router;               /* [T][E] */
    float *expert_weight;        /* [T][U] */
    uint32_t *expert, *slot;     /* [T][U]: the experts a row chose; where its copy lies among the rows of that expert */
    float *slots;                /* [T * U][n_embd]: rows sorted by expert, then their experts' results */
    uint32_t *expert_first;      /* [E + 1]: first slot of each expert */
    am_projection *projections;  /* [2 E + 2], or [n_head] */
    uint32_t *token, *position;  /* [T] */
    uint32_t *first_row;         /* [T + 1]: first row of each segment */
    uint32_t *first_task;        /* [T + 1]: first task of each segment in the loop that runs */
    am_tile *tiles;              /* [workers] */
};

static inline uint32_t am_cache_wide(uint32_t dim) { return (dim + 15) / 16 * 16; } /* what a part of a head takes in the cache */

/* One forward pass while it runs. Its rows are the tokens of all segments, one after the other; those that still go on. */
struct am_pass {
    const am_model *model;
    const am_kernels *kernels;
    am_workspace *ws;
    am_segment *segments;
    size_t n_segments;
    uint32_t n_rows;
    uint32_t n_left; /* first tokens of the last segment that left in the last layer: it seems to begin behind them */
};

/* How a pass is cut into tasks (pass.c). */
void am_pass_run(const am_pass *pass, size_t n_tasks, am_workers_fn *fn, void *arg);
/* Shares out n_tasks(segment) tasks of each segment: fills first_task, returns the sum. */
uint32_t am_pass_share(const am_pass *pass, uint32_t (*n_tasks)(const am_pass *pass, const am_segment *segment));
size_t am_pass_segment_of(const am_pass *pass, uint32_t task); /* the segment a task of am_pass_share belongs to */
/* An operation on rows of n values: rows(job, r0, r1) for all runs of rows in [0, n_rows). */
typedef struct am_row_job am_row_job;
struct am_row_job {
    const am_pass *pass;
    void (*rows)(const am_row_job *job, size_t r0, size_t r1);
    float *y;
    const float *x, *weight;
    size_t n, n_rows;
};
void am_pass_rows(const am_row_job *job);

/* The operations (ops.c, attention.c, moe.c). x, y of different meaning never overlap unless said. */
void am_op_embed(const am_pass *pass, float *x);
void am_op_rmsnorm(const am_pass *pass, float *y, const float *x, const float *weight); /* rows of n_embd; y may be x */
void am_op_copy(const am_pass *pass, float *y, const float *x);
void am_op_linear(const am_pass *pass, const am_projection *projections, size_t n);     /* all of them in one go */
void am_op_activate(const am_pass *pass, float *gate, const float *up, size_t n, size_t n_rows); /* gate = act(gate, up) */
void am_op_add(const am_pass *pass, float *x, const float *y);                                   /* x += y */
void am_op_logits(const am_pass *pass); /* final norm of x and the head, to the segments' logits */
/* h = o(softmax(scale q k) v) of layer i, for the rows in h; writes the new rows of the open blocks. Behind the last layer's rows may be fewer. */
void am_op_attention(am_pass *pass, uint32_t i);
/* h = down(act(gate(h), up(h))) of layer i, or its experts' weighted sum. */
void am_op_mlp(const am_pass *pass, uint32_t i);
void am_op_moe(const am_pass *pass, const am_moe *moe);
void am_op_mla(am_pass *pass, uint32_t i); /* am_op_attention for layers that have am_mla (deepseek.c) */
/* The parts of am_op_attention. */
/* Turns q, k by position, all three into the cache's space, and stores k, v; in the last layer, rows that nobody asks anything of leave the pass. */
void am_op_cache(am_pass *pass, uint32_t i);
void am_op_attend(const am_pass *pass, uint32_t i); /* att = softmax(scale q k) v over everything each row may see */

/* Experts (moe.c). Reads their number, how many a token uses, and their width; room for a layer's; the usual names of their parts. */
am_status am_moe_configure(am_model *model, const char *n_expert_key, const char *n_ff_key, am_error *err);
am_status am_moe_create(const am_model *model, am_loader *loader, am_layer *layer, am_error *err);
am_status am_moe_load(const am_model *model, am_loader *loader, am_layer *layer, am_error *err);

/* What decoders share (decoder.c). */
am_status am_decoder_load(am_model *model, am_loader *loader,
                          am_status (*load_layer)(am_model *model, am_loader *loader, uint32_t i, am_error *err), am_error *err);
am_status am_decoder_load_attention(am_loader *loader, am_layer *layer, bool qkv_bias, bool o_bias, am_error *err);
am_status am_decoder_load_qk_norm(am_loader *loader, am_layer *layer, uint32_t n_q, uint32_t n_k, am_error *err);
am_status am_decoder_load_mlp(am_loader *loader, am_layer *layer, bool bias, am_error *err);
/* input_layernorm and post_attention_layernorm, where they come before attention and MLP. */
am_status am_decoder_load_norms(am_loader *loader, am_layer *layer, am_error *err);
/* The forward pass of every decoder that is Llama's with other parts. */
void am_decoder_forward(am_pass *pass);
/* `sliding_window` (0 when null or absent). */
am_status am_decoder_window(const am_model *model, uint32_t *window, am_error *err);
/* The window that all layers have: transformers takes no notice of this architecture's layer_types, others do, so a list that leaves layers out is refused. */
am_status am_decoder_window_everywhere(const am_model *model, uint32_t i, uint32_t *window, am_error *err);
/* The window of layer i where `use_sliding_window` says that there are any; `fallback`: whether the layer has one, where no layer_types say it. */
am_status am_decoder_optional_window(const am_model *model, uint32_t i, bool fallback, uint32_t *window, am_error *err);
/* Keys that, set to anything but null, false or `same`, would make another model of it; the list ends with a NULL key. */
typedef struct am_refused_key {
    const char *key, *same;
} am_refused_key;
am_status am_decoder_refuse(const am_model *model, const am_refused_key *keys, am_error *err);

#endif
