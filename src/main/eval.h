/* What the files of `eval` share: a sequence with the cache of one form, driven through the model's own pass. */
#ifndef AM_MAIN_EVAL_H
#define AM_MAIN_EVAL_H

#include "main/commands.h"
#include "model/model.h"

enum { AM_EVAL_MAX_FORMS = 32 };

/* Blocks of one sequence: its own block open, earlier ones sealed, as the engine keeps them. */
typedef struct am_eval_sequence {
    const am_kernels *kernels;
    const am_model *model;
    am_workers *workers;
    am_workspace *ws;
    am_kv_layout layout;
    uint32_t n_tokens, max_blocks;
    void **sealed;  /* [max_blocks], each in one piece */
    void ***units;  /* their tables */
    void *open;
} am_eval_sequence;

/* For up to max_tokens tokens. am_eval_sequence_close in every case. */
am_status am_eval_sequence_open(am_eval_sequence *s, const am_kv_spec *spec, uint32_t max_tokens, am_error *err);
void am_eval_sequence_close(am_eval_sequence *s);
/* Appends n tokens; the last n_logits (at most AM_BLOCK_TOKENS, in one block) get rows of logits. */
am_status am_eval_sequence_push(am_eval_sequence *s, const int32_t *ids, uint32_t n, float *logits, uint32_t n_logits, am_error *err);

/* A form of cache to measure, and what was found. */
typedef struct am_eval_form {
    char name[48];
    am_kv_spec spec;
    am_eval_sequence sequence;
    double nll, kld, same; /* sums over rows */
} am_eval_form;

typedef struct am_eval {
    am_settings *settings;
    const am_kernels *kernels;
    am_workers *workers;
    am_model *model;
    am_tokens text;
    am_eval_form forms[AM_EVAL_MAX_FORMS]; /* the first is the exact one */
    size_t n_forms;
    float *exact, *logits; /* [AM_BLOCK_TOKENS][n_vocab] */
} am_eval;

/* Recall of facts told before a long text, for every form; prints as it goes. */
am_status am_eval_needle(am_eval *e, am_error *err);

#endif
