/* Owns the scratch memory of a forward pass: one allocation, sized once, carved in the order below, each part 64-byte aligned.
 *
 *   x h                [T][n_embd]            residual stream; result of a norm or of a projection back to it
 *   q att              [T][n_head*dim_k, _v]  queries; what attention returns; dimensions are the cache's
 *   k v                [T][n_kv_head*dim_k, _v]
 *   gate up            [T][n_ff]              or [T*U][n_ff_expert] and [T][n_ff_shared], if that is more
 *   cos sin            [T][dims/2]            of each row's position, computed once a pass, for each rope of the model
 *   int8               bytes                  what goes into the projections of one am_op_linear, as rows of 8-bit codes
 *   last               [L][n_embd]            normed rows that get logits
 *   logits             [L][n_vocab]
 *   latent_q           [T][q_lora]            for latent attention only, as the next two
 *   heads              [T][n_head][nope+turned, or value_dim if that is more]
 *   latent_kv          [T][kv_lora+turned]
 *   projections        [2E + 2, or n_head if that is more] am_projection
 *   shared             [T][n_embd]            from here on only for models with experts
 *   router             [T][E]
 *   expert_weight      [T][U]
 *   expert slot        u32 [T][U]
 *   slots              [T*U][n_embd]
 *   expert_first       u32 [E+1]
 *   token position     u32 [T]
 *   first_row/task     u32 [T+1] each
 *   tiles              [workers] am_tile, then for each its q, s, acc
 *
 * The same function measures (with no memory) and carves, so the two cannot disagree. */
#include "model/internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct carver {
    char *base; /* NULL while measuring */
    size_t n;
    bool overflow;
} carver;

static void *carve(carver *c, size_t rows, size_t cols, size_t element) {
    size_t bytes, end;
    if (!am_size_mul(rows, cols, &bytes) || !am_size_mul(bytes, element, &bytes) || !am_size_add(bytes, 63, &bytes) ||
        !am_size_add(c->n, bytes & ~(size_t)63, &end)) {
        c->overflow = true;
        return NULL;
    }
    void *p = c->base ? c->base + c->n : NULL;
    c->n = end;
    return p;
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static void carve_experts(am_workspace *ws, carver *c) {
    size_t t = ws->max_tokens, n = ws->model->n_expert, used = ws->model->n_expert_used;
    ws->projections = carve(c, most(2 * n + 2, ws->model->config.n_head), 1, sizeof *ws->projections);
    if (n == 0) return;
    if (ws->model->n_ff_shared) ws->shared = carve(c, t, ws->model->config.n_embd, sizeof *ws->shared);
    ws->router = carve(c, t, n, sizeof *ws->router);
    ws->expert_weight = carve(c, t, used, sizeof *ws->expert_weight);
    ws->expert = carve(c, t, used, sizeof *ws->expert);
    ws->slot = carve(c, t, used, sizeof *ws->slot);
    ws->slots = carve(c, t * used, ws->model->config.n_embd, sizeof *ws->slots);
    ws->expert_first = carve(c, n + 1, 1, sizeof *ws->expert_first);
}

static void carve_mla(am_workspace *ws, carver *c) {
    const am_model *m = ws->model;
    size_t t = ws->max_tokens, dim = m->nope_dim + m->turned_dim > m->value_dim ? m->nope_dim + m->turned_dim : m->value_dim;
    if (m->kv_lora == 0) return;
    ws->latent_q = carve(c, t, m->q_lora, sizeof *ws->latent_q);
    ws->heads = carve(c, t * m->config.n_head, dim, sizeof *ws->heads);
    ws->latent_kv = carve(c, t, m->kv_lora + m->turned_dim, sizeof *ws->latent_kv);
}

/* A row in every form that the table rounds it to: projections of one row may be of several types. */
static size_t rounded_bytes(const am_model *m, size_t n_in) {
    return (m->kernels->matmul_int8 ? am_int8_row_bytes(n_in) : 0) + (m->kernels->matmul_bf16 ? am_bf16_row_bytes(n_in) : 0);
}

/* Of a token, in one am_op_linear: what goes into attention and a dense MLP; heads' parts; experts, beside what is common to all rows. */
static size_t rounded_token_bytes(const am_model *m) {
    size_t embd = rounded_bytes(m, m->config.n_embd), n_head = m->config.n_head, heads = n_head * most(m->cache_dim_v, m->value_dim);
    size_t n = most(most(embd, rounded_bytes(m, m->config.n_ff)), rounded_bytes(m, heads));
    if (m->kv_lora) {
        n = most(n, rounded_bytes(m, m->q_lora) + embd);
        n = most(n, n_head * most(rounded_bytes(m, m->nope_dim), rounded_bytes(m, m->kv_lora)));
    }
    if (!m->n_expert) return n;
    n = most(n, m->n_expert_used * embd);
    return most(n, m->n_expert_used * rounded_bytes(m, m->n_ff_expert) + rounded_bytes(m, m->n_ff_shared));
}

static void carve_rounded(am_workspace *ws, carver *c) {
    size_t row = rounded_token_bytes(ws->model), last = rounded_bytes(ws->model, ws->model->config.n_embd);
    if (row) ws->rounded = carve(c, most(ws->max_tokens, (ws->max_logits * last + row - 1) / row), row, 1);
}

static void carve_all(am_workspace *ws, carver *c) {
    const am_config *m = &ws->model->config;
    const am_kv_spec *spec = &ws->layout.spec;
    size_t t = ws->max_tokens, l = ws->max_logits, f = sizeof(float);
    size_t n_workers = ws->workers ? am_workers_count(ws->workers) : 1;
    ws->x = carve(c, t, m->n_embd, f);
    ws->h = carve(c, t, m->n_embd, f);
    ws->q = carve(c, t, (size_t)m->n_head * spec->head_dim_k, f);
    ws->att = carve(c, t, (size_t)m->n_head * spec->head_dim_v, f);
    ws->k = carve(c, t, (size_t)spec->n_kv_head * spec->head_dim_k, f);
    ws->v = carve(c, t, spec->shared ? 0 : (size_t)spec->n_kv_head * spec->head_dim_v, f);
    size_t n_ff = most(m->n_ff, (size_t)ws->model->n_expert_used * ws->model->n_ff_expert + ws->model->n_ff_shared);
    ws->gate = carve(c, t, n_ff, f);
    ws->up = carve(c, t, n_ff, f);
    for (uint32_t i = 0; i < ws->model->n_ropes; i++) {
        ws->rope_cos[i] = carve(c, t, ws->model->ropes[i].dims / 2, f);
        ws->rope_sin[i] = carve(c, t, ws->model->ropes[i].dims / 2, f);
    }
    carve_rounded(ws, c);
    ws->last = carve(c, l, m->n_embd, f);
    ws->logits = carve(c, l, m->n_vocab, f);
    carve_mla(ws, c);
    carve_experts(ws, c);
    ws->token = carve(c, t, 1, sizeof *ws->token);
    ws->position = carve(c, t, 1, sizeof *ws->position);
    ws->first_row = carve(c, t + 1, 1, sizeof *ws->first_row);
    ws->first_task = carve(c, t + 1, 1, sizeof *ws->first_task);
    ws->tiles = carve(c, n_workers, 1, sizeof *ws->tiles);
    for (size_t i = 0; i < n_workers; i++) {
        am_tile tile = {0};
        tile.q = carve(c, AM_TILE_ROWS, spec->head_dim_k, f);
        tile.s = carve(c, AM_TILE_ROWS, AM_BLOCK_TOKENS, f);
        tile.acc = carve(c, AM_TILE_ROWS, spec->head_dim_v, f);
        if (c->base && !c->overflow) ws->tiles[i] = tile;
    }
}

static am_status check_layout(const am_model *model, const am_kv_layout *layout, am_error *err) {
    am_kv_spec own;
    am_status status = am_model_kv_spec(model, layout->spec.bits_k, layout->spec.bits_v, &own, err);
    if (status) return status;
    const am_kv_spec *s = &layout->spec;
    if (s->n_layer != own.n_layer || s->n_kv_head != own.n_kv_head || s->head_dim_k != own.head_dim_k || s->head_dim_v != own.head_dim_v ||
        s->window != own.window || memcmp(s->windowed, own.windowed, sizeof s->windowed) != 0)
        return am_fail(err, AM_EINVAL, "the cache layout is not this model's");
    return AM_OK;
}

am_status am_workspace_create(const am_model *model, const am_kv_layout *layout, am_workers *workers, uint32_t max_tokens,
                              uint32_t max_logits, am_workspace **out, am_error *err) {
    *out = NULL;
    if (max_tokens == 0) return am_fail(err, AM_EINVAL, "a workspace for 0 tokens");
    am_status status = check_layout(model, layout, err);
    if (status) return status;
    am_workspace *ws = am_calloc(1, sizeof *ws);
    if (!ws) return am_fail(err, AM_ENOMEM, "no memory for a workspace");
    ws->model = model;
    ws->layout = *layout;
    ws->workers = workers;
    ws->max_tokens = max_tokens;
    ws->max_logits = max_logits;
    carver measure = {0};
    carve_all(ws, &measure);
    ws->memory = measure.overflow ? NULL : am_alloc_aligned(measure.n);
    if (!ws->memory) {
        am_workspace_free(ws);
        return am_fail(err, AM_ENOMEM, "no memory for the work space of %u tokens (%zu bytes)", max_tokens, measure.n);
    }
    carver carving = {.base = ws->memory};
    carve_all(ws, &carving);
    ws->n_bytes = carving.n;
    *out = ws;
    return AM_OK;
}

void am_workspace_free(am_workspace *ws) {
    if (!ws) return;
    free(ws->memory);
    free(ws);
}

size_t am_workspace_bytes(const am_workspace *ws) { return ws->n_bytes; }
