/* Owns attention over a paged cache: the sealed blocks of a sequence in ascending order, then its open block.
 *
 * One task is (segment, KV head, tile of at most AM_TILE_ROWS query rows); the rows of a tile are the query heads that share the KV head, position
 * by position, and each task writes only its own rows of `att`. Within a block the scores are one matmul, because keys lie in panels
 * like weights do; then one step of online softmax; then the values are added.
 *
 * Invariant 1: what a row computes must not depend on the tile it shares. Each row has its own range [from, to) of keys in a block. Scores are
 * taken for whole panels and thus for keys some rows may not see, but those are only masked, never used; values are added with each row's
 * own range, so that a row not yet written (whatever bytes lie there) is never touched. Rows with equal ranges go in one call. */
#include "model/internal.h"

#include <math.h>
#include <string.h>

static uint32_t group_of(const am_pass *pass) { return pass->model->config.n_head / pass->model->cache_heads; }


enum { LEAST_ROWS = 8 }; /* of a tile: what the kernels take at once */

static uint32_t cache_tasks(const am_pass *pass, const am_segment *segment) {
    uint32_t row = segment->n_past % AM_BLOCK_TOKENS;
    (void)pass;
    return (row + segment->n_tokens - 1) / AM_PANEL - row / AM_PANEL + 1;
}

static void turn_pairs(float *x, size_t n_head, uint32_t dim, const am_rope *rope, const float *c, const float *s) {
    uint32_t half = rope->dims / 2;
    x += rope->first;
    for (size_t h = 0; h < n_head; h++, x += dim)
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a * c[i] - b * s[i];
            x[i + half] = b * c[i] + a * s[i];
        }
}

/* Heads that are narrower than their place in the cache move apart in their row; zeros behind them change no score and no value. */
static void spread(float *x, size_t n_head, uint32_t dim, uint32_t to) {
    for (size_t h = n_head; dim < to && h-- > 0;) {
        memmove(x + h * to, x + h * dim, dim * sizeof *x);
        memset(x + h * to + dim, 0, (to - dim) * sizeof *x);
    }
}

typedef struct layer_job {
    const am_pass *pass;
    const am_layer *layer;
    uint32_t i; /* which */
} layer_job;

static void cache_task(void *arg, size_t task, size_t worker) {
    const layer_job *job = arg;
    const am_pass *pass = job->pass;
    const am_workspace *ws = pass->ws;
    const am_kv_layout *layout = &ws->layout;
    const am_kv_spec *spec = &layout->spec;
    size_t n_head = pass->model->config.n_head;
    (void)worker;
    size_t n = am_pass_segment_of(pass, (uint32_t)task);
    const am_segment *segment = &pass->segments[n];
    uint32_t first = segment->n_past % AM_BLOCK_TOKENS, last = first + segment->n_tokens;
    uint32_t begin = (first / AM_PANEL + (uint32_t)task - ws->first_task[n]) * AM_PANEL, end = begin + AM_PANEL;
    if (begin < first) begin = first;
    if (end > last) end = last;
    for (uint32_t row = begin; row < end; row++) {
        size_t r = ws->first_row[n] + row - first;
        float *q = ws->q + r * n_head * spec->head_dim_k;
        float *k = ws->k + r * spec->n_kv_head * spec->head_dim_k, *v = ws->v + r * spec->n_kv_head * spec->head_dim_v;
        if (!spec->shared) {
            uint32_t dim = pass->model->config.head_dim;
            spread(q, n_head, dim, spec->head_dim_k);
            spread(k, spec->n_kv_head, dim, spec->head_dim_k);
            spread(v, spec->n_kv_head, dim, spec->head_dim_v);
        }
        if (job->layer->rope >= 0) {
            const am_rope *rope = &pass->model->ropes[job->layer->rope];
            const float *c = ws->rope_cos[job->layer->rope] + r * (rope->dims / 2), *t = ws->rope_sin[job->layer->rope] + r * (rope->dims / 2);
            turn_pairs(q, n_head, spec->head_dim_k, rope, c, t);
            turn_pairs(k, spec->n_kv_head, spec->head_dim_k, rope, c, t);
        }
        am_kv_rotate_k(layout, q, n_head);
        am_kv_rotate_k(layout, k, spec->n_kv_head);
        if (!spec->shared) am_kv_rotate_v(layout, v, spec->n_kv_head);
        am_kv_put(pass->kernels, layout, segment->open, job->i, row, k, v);
    }
}

/* What the last layer makes of a token goes nowhere but into its logits. Where nobody wants those, its key and value were the last of it: segments
 * without logits at the end of the pass (a prompt's chunk comes last) leave it here, and of the last one that has some the tokens before those. */
static void drop_finished(am_pass *pass) {
    am_workspace *ws = pass->ws;
    while (pass->n_segments > 0 && pass->segments[pass->n_segments - 1].n_logits == 0) pass->n_segments--;
    pass->n_rows = ws->first_row[pass->n_segments];
    am_segment *last = pass->n_segments ? &pass->segments[pass->n_segments - 1] : NULL;
    if (!last || last->n_logits == last->n_tokens) return;
    size_t n_embd = pass->model->config.n_embd, n_q = (size_t)pass->model->config.n_head * ws->layout.spec.head_dim_k;
    size_t to = ws->first_row[pass->n_segments - 1], n = last->n_logits;
    pass->n_left = last->n_tokens - last->n_logits;
    memmove(ws->x + to * n_embd, ws->x + (to + pass->n_left) * n_embd, n * n_embd * sizeof *ws->x);
    memmove(ws->q + to * n_q, ws->q + (to + pass->n_left) * n_q, n * n_q * sizeof *ws->q);
    last->n_past += pass->n_left;
    last->n_tokens -= pass->n_left;
    pass->n_rows = ws->first_row[pass->n_segments] = (uint32_t)(to + n);
}

/* The last segment's owner may have no more time for all of it: rows behind those that it keeps go no further. No row before them ever looked at them. */
static void drop_late(am_pass *pass, uint32_t layer) {
    am_segment *last = &pass->segments[pass->n_segments - 1];
    uint32_t n = last->keep ? last->keep(last->keep_arg, layer, last->n_tokens) : last->n_tokens, n_less = last->n_tokens - n;
    if (n == 0 || n >= last->n_tokens) return;
    last->n_tokens = n;
    last->n_logits = last->n_logits > n_less ? last->n_logits - n_less : 0;
    pass->n_rows = pass->ws->first_row[pass->n_segments] = pass->ws->first_row[pass->n_segments - 1] + n;
}

void am_op_cache(am_pass *pass, uint32_t i) {
    drop_late(pass, i);
    layer_job job = {pass, &pass->model->layers[i], i};
    am_pass_run(pass, am_pass_share(pass, cache_tasks), cache_task, &job);
    if (i + 1 == pass->model->config.n_layer) drop_finished(pass);
}

/* Query rows of a tile. One cache head that many query heads share is one tile when decoding, which leaves all workers but one without: it is cut,
 * though each part opens the keys' codes anew. Rows do not know of each other, so no bit depends on the cut. */
static uint32_t tile_rows_of(const am_pass *pass, const am_segment *segment) {
    uint32_t n = segment->n_tokens * group_of(pass), n_workers = pass->ws->workers ? (uint32_t)am_workers_count(pass->ws->workers) : 1;
    uint32_t others = pass->model->cache_heads * (uint32_t)pass->n_segments, parts = (n_workers + others - 1) / others;
    uint32_t rows = ((n + parts - 1) / parts + LEAST_ROWS - 1) / LEAST_ROWS * LEAST_ROWS;
    return rows < AM_TILE_ROWS ? rows : AM_TILE_ROWS;
}

static uint32_t tiles_of(const am_pass *pass, const am_segment *segment) {
    uint32_t rows = tile_rows_of(pass, segment);
    return (segment->n_tokens * group_of(pass) + rows - 1) / rows;
}

static uint32_t attend_tasks(const am_pass *pass, const am_segment *segment) {
    return pass->model->cache_heads * tiles_of(pass, segment);
}

/* Where the tile's n rows come from: row i is query head `head + i' % group` of token i' / group, i' = first + i. */
typedef struct tile_rows {
    const am_segment *segment;
    uint32_t first, n, group, head, kv_head;
    size_t first_row; /* of the segment in the pass */
} tile_rows;

static size_t row_at(const tile_rows *rows, uint32_t i, uint32_t n_head) {
    uint32_t r = rows->first + i;
    return (rows->first_row + r / rows->group) * n_head + rows->head + r % rows->group;
}

/* The keys of the block that begins at `base` each row may see: [from, to), empty ranges as 0, 0. */
static void see(am_tile *tile, uint32_t n, uint32_t base, uint32_t window) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t end = tile->position[i] + 1, begin = window && end > window ? end - window : 0;
        uint32_t to = end - base < AM_BLOCK_TOKENS ? end - base : AM_BLOCK_TOKENS; /* base <= position */
        uint32_t from = begin > base ? begin - base : 0;
        tile->from[i] = from < to ? from : 0;
        tile->to[i] = from < to ? to : 0;
    }
}

/* The keys and values of one block: `layer` is where this layer's bytes of it begin. */
static void attend_block(const layer_job *job, am_tile *tile, const tile_rows *rows, const void *layer, bool sealed) {
    const am_kernels *kernels = job->pass->kernels;
    const am_kv_layout *layout = &job->pass->ws->layout;
    uint32_t dim_k = layout->spec.head_dim_k, dim_v = layout->spec.head_dim_v, n_keys = 0;
    for (uint32_t i = 0; i < rows->n; i++)
        if (tile->to[i] > n_keys) n_keys = tile->to[i];
    if (n_keys == 0) return;
    uint32_t n_panels = (n_keys + AM_PANEL - 1) / AM_PANEL;
    am_mat k = am_kv_k(layout, layer, sealed, rows->kv_head);
    am_rows v = {0};
    if (!layout->spec.shared) v = am_kv_v(layout, layer, sealed, rows->kv_head);
    kernels->matmul(tile->s, AM_BLOCK_TOKENS, tile->q, dim_k, rows->n, &k, 0, n_panels);
    am_softmax step = {.s = tile->s,
                       .ld = AM_BLOCK_TOKENS,
                       .n_q = rows->n,
                       .n_keys = n_panels * AM_PANEL,
                       .from = tile->from,
                       .to = tile->to,
                       .scale = job->pass->model->attention_scale,
                       .softcap = job->pass->model->attention_softcap,
                       .m = tile->m,
                       .l = tile->l,
                       .acc = tile->acc,
                       .ld_acc = dim_v,
                       .dim = dim_v};
    kernels->softmax_step(&step);
    for (uint32_t i = 0, n; i < rows->n; i += n) {
        for (n = 1; i + n < rows->n && tile->from[i + n] == tile->from[i] && tile->to[i + n] == tile->to[i];) n++;
        float *acc = tile->acc + i * dim_v, *p = tile->s + i * AM_BLOCK_TOKENS;
        uint32_t from = tile->from[i], to = tile->to[i];
        if (to <= from) continue;
        if (layout->spec.shared)
            kernels->mat_accumulate(acc, dim_v, p, AM_BLOCK_TOKENS, n, &k, dim_v, from, to);
        else
            kernels->rows_accumulate(acc, dim_v, p, AM_BLOCK_TOKENS, n, &v, from, to);
    }
}

static void attend_task(void *arg, size_t task, size_t worker) {
    const layer_job *job = arg;
    const am_pass *pass = job->pass;
    const am_workspace *ws = pass->ws;
    const am_kv_spec *spec = &ws->layout.spec;
    uint32_t n_head = pass->model->config.n_head, window = job->layer->window, dim_out = spec->shared ? spec->head_dim_v : pass->model->config.head_dim;
    const float *sinks = job->layer->sinks;
    am_tile *tile = &ws->tiles[worker];
    size_t s = am_pass_segment_of(pass, (uint32_t)task);
    const am_segment *segment = &pass->segments[s];
    tile_rows rows = {.segment = segment, .group = group_of(pass), .first_row = ws->first_row[s]};
    uint32_t index = (uint32_t)task - ws->first_task[s], n_tiles = tiles_of(pass, segment);
    rows.kv_head = index / n_tiles;
    rows.head = rows.kv_head * rows.group;
    uint32_t most = tile_rows_of(pass, segment);
    rows.first = index % n_tiles * most;
    rows.n = segment->n_tokens * rows.group - rows.first;
    if (rows.n > most) rows.n = most;
    for (uint32_t i = 0; i < rows.n; i++) {
        memcpy(tile->q + i * spec->head_dim_k, ws->q + row_at(&rows, i, n_head) * spec->head_dim_k, spec->head_dim_k * sizeof(float));
        tile->position[i] = segment->n_past + (rows.first + i) / rows.group;
        /* a sink is a score that was seen before all keys and has no value */
        tile->m[i] = sinks ? sinks[rows.head + (rows.first + i) % rows.group] : -INFINITY;
        tile->l[i] = sinks ? 1 : 0;
    }
    memset(tile->acc, 0, (size_t)rows.n * spec->head_dim_v * sizeof(float));
    uint32_t n_sealed = segment->n_past / AM_BLOCK_TOKENS, oldest = tile->position[0] + 1;
    for (uint32_t b = window && oldest > window ? (oldest - window) / AM_BLOCK_TOKENS : 0; b < n_sealed; b++) {
        see(tile, rows.n, b * AM_BLOCK_TOKENS, window);
        attend_block(job, tile, &rows, am_kv_sealed_layer(&ws->layout, segment->sealed[b], job->i), true);
    }
    see(tile, rows.n, n_sealed * AM_BLOCK_TOKENS, window);
    attend_block(job, tile, &rows, am_kv_open_layer(&ws->layout, segment->open, job->i), false);
    for (uint32_t i = 0; i < rows.n; i++) {
        float *out = tile->acc + i * spec->head_dim_v;
        for (uint32_t d = 0; d < spec->head_dim_v; d++) out[d] /= tile->l[i];
        am_kv_rotate_v(&ws->layout, out, 1);
        memcpy(ws->att + row_at(&rows, i, n_head) * dim_out, out, dim_out * sizeof *out);
    }
}

void am_op_attend(const am_pass *pass, uint32_t i) {
    layer_job job = {pass, &pass->model->layers[i], i};
    am_pass_run(pass, am_pass_share(pass, attend_tasks), attend_task, &job);
}
