/* A sequence for tests: its blocks, sealed as they fill, and the loops that push tokens through a model in chunks or greedily. */
#ifndef AM_TESTS_SEQUENCE_H
#define AM_TESTS_SEQUENCE_H

#include "model/model.h"

typedef struct test_sequence {
    const am_kernels *kernels;
    const am_model *model;
    am_workspace *ws; /* may be changed between calls */
    const am_kv_layout *layout;
    uint32_t n;     /* tokens so far */
    void **sealed;  /* [n / AM_BLOCK_TOKENS] in use, room for max_blocks; each in one piece */
    void ***units;  /* their tables */
    uint32_t max_blocks;
    void *open;
} test_sequence;

void test_sequence_init(test_sequence *s, const am_kernels *kernels, const am_model *model, am_workspace *ws, const am_kv_layout *layout,
                        uint32_t max_tokens);
void test_sequence_free(test_sequence *s);
void test_sequence_clear(test_sequence *s); /* back to no tokens; the memory keeps its old bytes, as a pool's slots do */

/* How many of n tokens fit into the open block. */
uint32_t test_sequence_room(const test_sequence *s, uint32_t n);
am_segment test_sequence_segment(const test_sequence *s, const int32_t *tokens, uint32_t n, float *logits, uint32_t n_logits);
/* After the pass of a segment of n tokens: counts them, and seals the block when it is full. */
void test_sequence_advance(test_sequence *s, uint32_t n);

/* Pushes tokens in chunks of at most `chunk`; logits [n][n_vocab], or NULL. Fails the test on an error. */
void test_sequence_push(test_sequence *s, const int32_t *tokens, uint32_t n, uint32_t chunk, float *logits);
/* Appends n greedy tokens after the row of logits given (which is overwritten), one a pass. */
void test_sequence_greedy(test_sequence *s, float *logits, uint32_t n, int32_t *out);

int32_t test_argmax(const float *x, size_t n);

#endif
