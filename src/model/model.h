/* A loaded model: weights packed for the kernels, tokenizer, chat template, and the forward pass.
 *
 * A model is immutable after loading; several workspaces may share it, one thread runs a workspace at a time. */
#ifndef AM_MODEL_MODEL_H
#define AM_MODEL_MODEL_H

#include "base/workers.h"
#include "kernels/kv.h"
#include "text/chat.h"
#include "text/tokenizer.h"

typedef struct am_model am_model;

/* A weight as the architecture asks for it: a whole tensor, some rows of one, or one of a stack. */
typedef struct am_weight {
    const char *name;           /* of the tensor; matrices without ".weight" */
    uint32_t n_rows, n_in;      /* of the tensor, or of one of the stack; vectors: n_in is 0 */
    uint32_t expert, n_expert;  /* which of how many in a stack; n_expert 0: no stack */
    uint32_t n_out;             /* rows of this part; am_weight_row says which they are */
    const am_mat *mat;          /* matrices; without data in a survey */
    const float *vector;        /* as stored; NULL in a survey */
    const char *form;           /* matrices: what it is stored as, as am_model_info.forms calls it */
    const void *part;
} am_weight;
size_t am_weight_row(const am_weight *weight, uint32_t o);

typedef struct am_model_options {
    const am_kernels *kernels;
    am_workers *workers; /* used for packing; may be NULL (one thread) */
    /* Called now and then while loading, done <= total bytes; may be NULL. */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void *progress_arg;
    /* The context to be served; 0: the model's own. Where a model has two sets of rotary frequencies (longrope), it decides which. */
    uint32_t n_ctx;
    /* Headers alone: the model can be described (am_model_info_of, am_model_kv_spec), not run; it has no tokenizer, template and fingerprint. The
     * path may be a config.json then, of a model that is not there. */
    bool survey;
    /* Called for every weight, which is then let go: such a model cannot be run either. */
    am_status (*weight)(void *arg, const am_weight *weight, am_error *err);
    void *weight_arg;
    const char *vocab_dir; /* where large vocabularies are kept compiled (am_tokenizer_load_dir_compiled); NULL: nowhere */
    const char *packed_dir;     /* where packed weights are kept for the next start (packed.h); NULL: nowhere */
    uint64_t packed_least_bytes; /* of models that take so much memory */
    const char *template_path; /* a chat template instead of the model's own; NULL: its own */
} am_model_options;

enum { AM_MAX_EOS = 8 };

typedef struct am_model_info {
    const char *name;         /* folder's name, or "memo-28m" for the embedded one */
    const char *architecture; /* "llama" */
    const char *format;       /* that most parameters have: "bf16", "mlx 4-bit g64" ... */
    const char *forms;        /* all of them, with the number of their matrices: "gguf Q4_K 145, gguf Q6_K 24" */
    uint64_t n_params;
    uint64_t weight_bytes; /* as packed */
    uint64_t mapped_bytes; /* of them, in a file of packed weights: the kernel's page cache, not our memory */
    uint64_t file_bytes;   /* of all weight files; 0: from a config alone */
    uint32_t n_layer, n_vocab, n_embd, n_head, n_kv_head, head_dim_k, head_dim_v;
    uint32_t n_ctx; /* longest context the model was made for */
    uint32_t n_window_layers, window; /* layers that see no more than `window` tokens back */
    uint32_t n_ctx_short; /* longrope: up to here the model is another one when it is loaded for no more (options.n_ctx); else 0 */
    int32_t eos[AM_MAX_EOS];
    uint32_t n_eos;
    uint8_t fingerprint[16]; /* of weights, tokenizer and everything in config that changes logits */
    /* generation_config.json; negative where it is silent */
    float temperature, top_p, min_p, repetition_penalty;
    int32_t top_k;
} am_model_info;

/* path: a model folder or a .gguf file; NULL: the model inside the binary. Bad files: AM_EFORMAT, naming file, field and reason. What config.json asks for
 * and we do not implement: AM_EUNSUPPORTED, naming key and value. */
am_status am_model_load(const char *path, const am_model_options *options, am_model **out, am_error *err);
void am_model_free(am_model *model);
/* What can be known of a model without loading it. */
typedef struct am_model_facts {
    char architecture[48], format[48], forms[256];
    uint64_t n_params;
    uint64_t weight_bytes; /* as packed */
    uint32_t n_layer, n_vocab, n_embd, n_head, n_kv_head, head_dim, n_ctx;
} am_model_facts;
/* Reads config and the headers of all weight files: they are there, of an architecture that is known, and as long as their headers say. Errors as
 * am_model_load's. */
am_status am_model_probe(const char *path, am_model_facts *out, am_error *err);
void am_model_facts_of(const am_model_info *info, am_model_facts *out);
const am_model_info *am_model_info_of(const am_model *model);
uint64_t am_model_untouched_bytes(const am_model *model); /* handed out for weights by the allocator, but not used and without pages */
const am_tokenizer *am_model_tokenizer(const am_model *model); /* NULL when the folder has none (test models) */
const am_chat *am_model_chat(const am_model *model);           /* NULL when the folder has none */
/* The cache geometry of this model at the given bits; latent attention has one vector a token, of bits_k. A window that is not narrower than the
 * model's context is none. */
am_status am_model_kv_spec(const am_model *model, uint32_t bits_k, uint32_t bits_v, am_kv_spec *out, am_error *err);

/* A run of new tokens of one sequence. The sequence has n_past tokens before it: n_sealed full blocks, then n_past % AM_BLOCK_TOKENS rows in
 * the open block. A segment never crosses a block border: n_past % AM_BLOCK_TOKENS + n_tokens <= AM_BLOCK_TOKENS. The forward pass writes
 * the new rows into the open block; sealing a block that became full is the caller's (after the pass). */
typedef struct am_segment {
    const int32_t *tokens;
    uint32_t n_tokens;
    uint32_t n_past;
    /* [n_past / AM_BLOCK_TOKENS][layout's n_units]. Units of window parts below am_kv_reach(n_past) are never looked at. */
    const void *const *const *sealed;
    void *open;
    float *logits;     /* [n_logits][n_vocab], or NULL */
    uint32_t n_logits; /* the last n_logits tokens of the segment get logits */
    /* Asked in each layer of the pass's last segment: how many of its n_tokens go on, 1 to n_tokens; NULL: all. What the others have left in the open block is nobody's. */
    uint32_t (*keep)(void *arg, uint32_t layer, uint32_t n_tokens);
    void *keep_arg;
} am_segment;

typedef struct am_workspace am_workspace;
/* Scratch for passes of up to max_tokens tokens in all, of which up to max_logits rows get logits. All memory is taken here. */
am_status am_workspace_create(const am_model *model, const am_kv_layout *layout, am_workers *workers, uint32_t max_tokens,
                              uint32_t max_logits, am_workspace **out, am_error *err);
void am_workspace_free(am_workspace *workspace);
size_t am_workspace_bytes(const am_workspace *workspace);

/* One pass over a batch: segments of different sequences (decode: one token each; prefill: up to a block). Each token's logits depend on
 * its sequence's tokens, the weights and the layout alone. Token ids out of range: AM_EINVAL, nothing written. Where the last segment kept fewer tokens, its
 * n_tokens and n_logits say so afterwards. */
am_status am_model_forward(const am_model *model, am_workspace *workspace, am_segment *segments, size_t n_segments, am_error *err);

#endif
