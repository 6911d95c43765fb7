/* Owns what an engine does around a forward pass, at its simplest, so that tests of the model need no engine. */
#include "sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void test_sequence_init(test_sequence *s, const am_kernels *kernels, const am_model *model, am_workspace *ws, const am_kv_layout *layout,
                        uint32_t max_tokens) {
    *s = (test_sequence){.kernels = kernels, .model = model, .ws = ws, .layout = layout, .max_blocks = max_tokens / AM_BLOCK_TOKENS + 1};
    s->sealed = am_calloc(s->max_blocks, sizeof *s->sealed);
    s->units = am_calloc(s->max_blocks, sizeof *s->units);
    assert_non_null(s->sealed);
    assert_non_null(s->units);
    for (uint32_t i = 0; i < s->max_blocks; i++) {
        assert_non_null(s->sealed[i] = am_alloc_aligned(layout->sealed_bytes));
        assert_non_null(s->units[i] = am_calloc(layout->n_units, sizeof *s->units[i]));
        am_kv_units_of(layout, s->sealed[i], s->units[i]);
    }
    assert_non_null(s->open = am_alloc_aligned(layout->open_bytes));
    memset(s->open, 0xff, layout->open_bytes); /* NaN in every type: a row that is read before it was written shows */
}

void test_sequence_free(test_sequence *s) {
    for (uint32_t i = 0; i < s->max_blocks; i++) {
        free(s->sealed[i]);
        free(s->units[i]);
    }
    free(s->sealed);
    free(s->units);
    free(s->open);
}

void test_sequence_clear(test_sequence *s) { s->n = 0; }

uint32_t test_sequence_room(const test_sequence *s, uint32_t n) {
    uint32_t room = AM_BLOCK_TOKENS - s->n % AM_BLOCK_TOKENS;
    return n < room ? n : room;
}

am_segment test_sequence_segment(const test_sequence *s, const int32_t *tokens, uint32_t n, float *logits, uint32_t n_logits) {
    return (am_segment){.tokens = tokens,
                        .n_tokens = n,
                        .n_past = s->n,
                        .sealed = (const void *const *const *)s->units,
                        .open = s->open,
                        .logits = logits,
                        .n_logits = n_logits};
}

void test_sequence_advance(test_sequence *s, uint32_t n) {
    s->n += n;
    if (n == 0 || s->n % AM_BLOCK_TOKENS) return;
    assert_true(s->n / AM_BLOCK_TOKENS <= s->max_blocks);
    for (uint32_t layer = 0; layer < s->layout->spec.n_layer; layer++)
        am_kv_seal(s->kernels, s->layout, s->open, s->units[s->n / AM_BLOCK_TOKENS - 1], layer);
}

void test_sequence_push(test_sequence *s, const int32_t *tokens, uint32_t n, uint32_t chunk, float *logits) {
    size_t n_vocab = am_model_info_of(s->model)->n_vocab;
    for (uint32_t i = 0, count; i < n; i += count) {
        am_error err = {0};
        count = test_sequence_room(s, n - i < chunk ? n - i : chunk);
        am_segment segment = test_sequence_segment(s, tokens + i, count, logits ? logits + i * n_vocab : NULL, logits ? count : 0);
        if (am_model_forward(s->model, s->ws, &segment, 1, &err)) fail_msg("forward: %s", err.message);
        test_sequence_advance(s, count);
    }
}

void test_sequence_greedy(test_sequence *s, float *logits, uint32_t n, int32_t *out) {
    for (uint32_t i = 0; i < n; i++) {
        out[i] = test_argmax(logits, am_model_info_of(s->model)->n_vocab);
        test_sequence_push(s, &out[i], 1, 1, logits);
    }
}

int32_t test_argmax(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}
