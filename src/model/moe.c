/* Owns mixtures of experts: which experts a token goes to, and their weighted sum.
 *
 * A row's choice depends on its own router scores alone (ties go to the lower number), and its experts' results are added in the order
 * of its choice; so batch mates cannot be seen in it, though each expert runs once over all rows that chose it. */
#include "model/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_EXPERTS = 1 << 18 };

/* The chosen experts of one row, best first. */
static void choose(const float *score, uint32_t n_expert, uint32_t n_used, uint32_t *expert) {
    for (uint32_t u = 0; u < n_used; u++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < n_expert; e++) {
            bool taken = false;
            for (uint32_t j = 0; j < u; j++) taken = taken || expert[j] == e;
            if (!taken && (best == UINT32_MAX || score[e] > score[best])) best = e;
        }
        expert[u] = best;
    }
}

/* Takes the experts of all but the best groups out of the running; a group is as good as its best expert. */
static void limit_groups(const am_model *m, float *score) {
    uint32_t size = m->n_expert / m->n_expert_group;
    for (uint32_t n = m->n_expert_group; n > m->n_group_used; n--) {
        uint32_t worst = UINT32_MAX;
        float least = INFINITY;
        for (uint32_t g = 0; g < m->n_expert_group; g++) {
            float best = -INFINITY;
            for (uint32_t e = g * size; e < (g + 1) * size; e++) best = fmaxf(best, score[e]);
            if (best > -INFINITY && best <= least) { /* of equal groups the later one goes */
                least = best;
                worst = g;
            }
        }
        for (uint32_t e = 0; worst != UINT32_MAX && e < size; e++) score[worst * size + e] = -INFINITY;
    }
}

static void route_rows(const am_row_job *job, size_t r0, size_t r1) {
    const am_model *m = job->pass->model;
    const am_workspace *ws = job->pass->ws;
    for (size_t r = r0; r < r1; r++) {
        float *score = ws->router + r * m->n_expert, *weight = ws->expert_weight + r * m->n_expert_used;
        uint32_t *expert = ws->expert + r * m->n_expert_used;
        float most = -INFINITY, sum = 0, chosen = 0;
        for (uint32_t e = 0; e < m->n_expert; e++) most = fmaxf(most, score[e]);
        for (uint32_t e = 0; e < m->n_expert; e++) sum += expf(score[e] - most);
        if (m->n_expert_group) limit_groups(m, score);
        choose(score, m->n_expert, m->n_expert_used, expert);
        for (uint32_t u = 0; u < m->n_expert_used; u++) chosen += weight[u] = expf(score[expert[u]] - most);
        float scale = m->expert_scale / (m->expert_normalise ? chosen : sum);
        for (uint32_t u = 0; u < m->n_expert_used; u++) weight[u] *= scale;
    }
}

/* Gives each (row, choice) its slot: slots of one expert lie together, in the order of rows. */
static void assign_slots(const am_pass *pass) {
    const am_workspace *ws = pass->ws;
    size_t n = (size_t)pass->n_rows * pass->model->n_expert_used, n_expert = pass->model->n_expert;
    uint32_t *first = ws->expert_first;
    memset(first, 0, (n_expert + 1) * sizeof *first);
    for (size_t i = 0; i < n; i++) first[ws->expert[i] + 1]++;
    for (size_t e = 0; e < n_expert; e++) first[e + 1] += first[e];
    for (size_t i = 0; i < n; i++) ws->slot[i] = first[ws->expert[i]]++;
    for (size_t e = n_expert; e > 0; e--) first[e] = first[e - 1];
    first[0] = 0;
}

static void scatter_rows(const am_row_job *job, size_t r0, size_t r1) {
    uint32_t n_used = job->pass->model->n_expert_used;
    for (size_t r = r0; r < r1; r++)
        for (uint32_t u = 0; u < n_used; u++)
            memcpy(job->y + job->pass->ws->slot[r * n_used + u] * job->n, job->x + r * job->n, job->n * sizeof(float));
}

static void gather_rows(const am_row_job *job, size_t r0, size_t r1) {
    uint32_t n_used = job->pass->model->n_expert_used;
    const am_workspace *ws = job->pass->ws;
    for (size_t r = r0; r < r1; r++) {
        float *y = job->y + r * job->n;
        for (uint32_t u = 0; u < n_used; u++) {
            const float *x = job->x + ws->slot[r * n_used + u] * job->n;
            float weight = ws->expert_weight[r * n_used + u];
            for (size_t i = 0; i < job->n; i++) y[i] = (u ? y[i] : 0) + weight * x[i];
        }
        const float *shared = ws->shared ? ws->shared + r * job->n : NULL;
        for (size_t i = 0; shared && i < job->n; i++) y[i] += shared[i];
    }
}

/* For each expert that was chosen its gate and up, over its slots: as they lie in memory. */
static size_t expert_projections(const am_pass *pass, const am_moe *moe) {
    const am_workspace *ws = pass->ws;
    const uint32_t *first = ws->expert_first;
    size_t n = 0, n_embd = pass->model->config.n_embd, n_ff = pass->model->n_ff_expert;
    for (uint32_t e = 0; e < pass->model->n_expert; e++) {
        size_t at = first[e], n_rows = first[e + 1] - at;
        if (n_rows == 0) continue;
        ws->projections[n++] = (am_projection){ws->gate + at * n_ff, ws->slots + at * n_embd, &moe->gate[e], n_rows, 0, 0};
        ws->projections[n++] = (am_projection){ws->up + at * n_ff, ws->slots + at * n_embd, &moe->up[e], n_rows, 0, 0};
    }
    return n;
}

static size_t down_projections(const am_pass *pass, const am_moe *moe) {
    const am_workspace *ws = pass->ws;
    const uint32_t *first = ws->expert_first;
    size_t n = 0, n_embd = pass->model->config.n_embd, n_ff = pass->model->n_ff_expert;
    for (uint32_t e = 0; e < pass->model->n_expert; e++) {
        size_t at = first[e], n_rows = first[e + 1] - at;
        if (n_rows) ws->projections[n++] = (am_projection){ws->slots + at * n_embd, ws->gate + at * n_ff, &moe->down[e], n_rows, 0, 0};
    }
    return n;
}

void am_op_moe(const am_pass *pass, const am_moe *moe) {
    const am_model *m = pass->model;
    am_workspace *ws = pass->ws;
    am_projection *p = ws->projections;
    size_t n_rows = pass->n_rows, n_slots = n_rows * m->n_expert_used, n_embd = m->config.n_embd;
    bool shared = m->n_ff_shared;
    /* what all rows have in common goes beside the small matrices, and behind the experts' rows */
    float *shared_gate = ws->gate + n_slots * m->n_ff_expert, *shared_up = ws->up + n_slots * m->n_ff_expert;
    p[0] = (am_projection){ws->router, ws->h, &moe->router, n_rows, 0, 0};
    if (shared) p[1] = (am_projection){shared_gate, ws->h, &moe->shared_gate, n_rows, 0, 0}, p[2] = (am_projection){shared_up, ws->h, &moe->shared_up, n_rows, 0, 0};
    am_op_linear(pass, p, shared ? 3 : 1);
    am_pass_rows(&(am_row_job){.pass = pass, .rows = route_rows, .n_rows = n_rows});
    assign_slots(pass);
    am_pass_rows(&(am_row_job){.pass = pass, .rows = scatter_rows, .y = ws->slots, .x = ws->h, .n = n_embd, .n_rows = n_rows});
    am_op_linear(pass, p, expert_projections(pass, moe));
    am_op_activate(pass, ws->gate, ws->up, m->n_ff_expert, n_slots);
    if (shared) am_op_activate(pass, shared_gate, shared_up, m->n_ff_shared, n_rows);
    size_t n = down_projections(pass, moe);
    if (shared) p[n++] = (am_projection){ws->shared, shared_gate, &moe->shared_down, n_rows, 0, 0};
    am_op_linear(pass, p, n);
    am_pass_rows(&(am_row_job){.pass = pass, .rows = gather_rows, .y = ws->h, .x = ws->slots, .n = n_embd, .n_rows = n_rows});
}

am_status am_moe_configure(am_model *m, const char *n_expert_key, const char *n_ff_key, am_error *err) {
    m->expert_scale = 1;
    /* transformers 5 has one name for all architectures */
    if (!json_object_get(m->config.json, n_expert_key) && json_object_get(m->config.json, "num_local_experts")) n_expert_key = "num_local_experts";
    am_status status = am_config_count(&m->config, n_expert_key, 1, 4096, 0, &m->n_expert, err);
    if (!status) status = am_config_count(&m->config, "num_experts_per_tok", 1, m->n_expert, 0, &m->n_expert_used, err);
    if (!status && (uint64_t)m->n_expert * m->config.n_layer > MAX_EXPERTS)
        return am_fail(err, AM_ELIMIT, "'%s' %u in each of %u layers: at most %d experts in all", n_expert_key, m->n_expert, m->config.n_layer, MAX_EXPERTS);
    return status ? status : am_config_count(&m->config, n_ff_key, 2, 1u << 20, 0, &m->n_ff_expert, err);
}

am_status am_moe_create(const am_model *m, am_loader *l, am_layer *layer, am_error *err) {
    am_moe *moe = am_loader_alloc(l, sizeof *moe, err);
    am_linear *all = moe ? am_loader_alloc(l, 3 * m->n_expert * sizeof *all, err) : NULL;
    if (!all) return AM_ENOMEM;
    moe->gate = all;
    moe->up = all + m->n_expert;
    moe->down = all + 2 * m->n_expert;
    layer->moe = moe;
    return AM_OK;
}

/* One tensor an expert (Hugging Face), or all of them stacked (MLX). */
static am_status load_expert(const am_model *m, am_loader *l, const char *part, am_matrix matrix, am_linear *out, am_error *err) {
    char path[96];
    if (am_loader_has(l, "mlp.switch_mlp.gate_proj.weight")) {
        snprintf(path, sizeof path, "mlp.switch_mlp.%s", part);
        matrix.n_expert = m->n_expert;
    } else {
        snprintf(path, sizeof path, "mlp.experts.%u.%s", matrix.expert, part);
        matrix.expert = 0;
    }
    matrix.path = path;
    return am_loader_matrix(l, &matrix, out, err);
}

am_status am_moe_load(const am_model *m, am_loader *l, am_layer *layer, am_error *err) {
    uint32_t n = m->config.n_embd, n_ff = m->n_ff_expert;
    am_status status = am_moe_create(m, l, layer, err);
    if (!status) status = am_loader_linear(l, "mlp.gate", m->n_expert, n, false, &layer->moe->router, err);
    for (uint32_t e = 0; !status && e < m->n_expert; e++) {
        status = load_expert(m, l, "gate_proj", (am_matrix){.n_out = n_ff, .n_in = n, .expert = e}, &layer->moe->gate[e], err);
        if (!status) status = load_expert(m, l, "up_proj", (am_matrix){.n_out = n_ff, .n_in = n, .expert = e}, &layer->moe->up[e], err);
        if (!status) status = load_expert(m, l, "down_proj", (am_matrix){.n_out = n, .n_in = n_ff, .expert = e}, &layer->moe->down[e], err);
    }
    if (status || m->n_ff_shared == 0) return status;
    status = am_loader_linear(l, "mlp.shared_experts.gate_proj", m->n_ff_shared, n, false, &layer->moe->shared_gate, err);
    if (!status) status = am_loader_linear(l, "mlp.shared_experts.up_proj", m->n_ff_shared, n, false, &layer->moe->shared_up, err);
    return status ? status : am_loader_linear(l, "mlp.shared_experts.down_proj", n, m->n_ff_shared, false, &layer->moe->shared_down, err);
}
