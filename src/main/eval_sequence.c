/* Owns the blocks of a measured sequence and the loop around the model's pass: no prefix, no disk, no neighbours, else as in the engine. */
#include "main/eval.h"

#include <stdlib.h>

am_status am_eval_sequence_open(am_eval_sequence *s, const am_kv_spec *spec, uint32_t max_tokens, am_error *err) {
    s->n_tokens = 0;
    am_status status = am_kv_layout_init(&s->layout, spec, err);
    if (!status) status = am_workspace_create(s->model, &s->layout, s->workers, AM_BLOCK_TOKENS, AM_BLOCK_TOKENS, &s->ws, err);
    if (status) return status;
    s->max_blocks = max_tokens / AM_BLOCK_TOKENS + 1;
    s->open = am_alloc_aligned(s->layout.open_bytes);
    s->sealed = am_calloc(s->max_blocks, sizeof *s->sealed);
    s->units = am_calloc(s->max_blocks, sizeof *s->units);
    for (uint32_t i = 0; s->sealed && s->units && i < s->max_blocks; i++) {
        s->sealed[i] = am_alloc_aligned(s->layout.sealed_bytes);
        s->units[i] = am_calloc(s->layout.n_units, sizeof *s->units[i]);
        if (!s->sealed[i] || !s->units[i]) return am_fail(err, AM_ENOMEM, "no memory for %u tokens", max_tokens);
        am_kv_units_of(&s->layout, s->sealed[i], s->units[i]);
    }
    return s->open && s->sealed && s->units ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for %u tokens", max_tokens);
}

void am_eval_sequence_close(am_eval_sequence *s) {
    for (uint32_t i = 0; s->sealed && i < s->max_blocks; i++) free(s->sealed[i]);
    for (uint32_t i = 0; s->units && i < s->max_blocks; i++) free(s->units[i]);
    free(s->sealed);
    free(s->units);
    free(s->open);
    am_workspace_free(s->ws);
    s->sealed = NULL;
    s->units = NULL;
    s->open = NULL;
    s->ws = NULL;
}

static void seal_task(void *arg, size_t layer, size_t worker) {
    const am_eval_sequence *s = arg;
    (void)worker;
    am_kv_seal(s->kernels, &s->layout, s->open, s->units[s->n_tokens / AM_BLOCK_TOKENS - 1], (uint32_t)layer);
}

am_status am_eval_sequence_push(am_eval_sequence *s, const int32_t *ids, uint32_t n, float *logits, uint32_t n_logits, am_error *err) {
    for (uint32_t i = 0, count; i < n; i += count) {
        uint32_t room = AM_BLOCK_TOKENS - s->n_tokens % AM_BLOCK_TOKENS;
        count = n - i < room ? n - i : room;
        am_segment segment = {.tokens = ids + i, .n_tokens = count, .n_past = s->n_tokens, .sealed = (const void *const *const *)s->units, .open = s->open};
        if (i + count == n) segment.logits = logits, segment.n_logits = n_logits;
        am_status status = am_model_forward(s->model, s->ws, &segment, 1, err);
        if (status) return status;
        s->n_tokens += count;
        if (s->n_tokens % AM_BLOCK_TOKENS == 0) am_workers_run(s->workers, s->layout.spec.n_layer, seal_task, s);
    }
    return AM_OK;
}
