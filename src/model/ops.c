/* Owns the operations that work row by row or panel by panel, as named in the papers' formulas. */
#include "model/internal.h"

#include <math.h>
#include <string.h>

enum {
    ROWS_PER_ROUND_TASK = 16,
    LEAST_PANELS = 4,         /* of a task: what a tile of few rows takes at once */
    TASK_BYTES = 512 << 10,   /* at most, of weights that many rows read: half of a second cache */
    MANY_ROWS = 8,
    ACTIVATE_PIECE = 256,
};

static void embed_rows(const am_row_job *job, size_t r0, size_t r1) {
    const am_model *m = job->pass->model;
    for (size_t r = r0; r < r1; r++) {
        float *x = job->y + r * job->n;
        job->pass->kernels->mat_row(x, &m->embed.w, job->pass->ws->token[r]);
        for (size_t i = 0; m->embed_scale != 1 && i < job->n; i++) x[i] *= m->embed_scale;
    }
}

void am_op_embed(const am_pass *pass, float *x) {
    am_pass_rows(&(am_row_job){.pass = pass, .rows = embed_rows, .y = x, .n = pass->model->config.n_embd, .n_rows = pass->n_rows});
}

static void rmsnorm_rows(const am_row_job *job, size_t r0, size_t r1) {
    for (size_t r = r0; r < r1; r++)
        job->pass->kernels->rmsnorm(job->y + r * job->n, job->x + r * job->n, job->weight, job->n, job->pass->model->config.norm_eps);
}

void am_op_rmsnorm(const am_pass *pass, float *y, const float *x, const float *weight) {
    am_pass_rows(&(am_row_job){pass, rmsnorm_rows, y, x, weight, pass->model->config.n_embd, pass->n_rows});
}

/* Rows of q or k: heads back to back, in the room that they take in the cache's dimensions. */
static void norm_head_rows(const am_row_job *job, size_t r0, size_t r1) {
    const am_model *m = job->pass->model;
    size_t n_head = job->n / m->cache_dim_k, dim = m->config.head_dim;
    if (m->qk_norm_all_heads) dim *= n_head, n_head = 1;
    for (size_t r = r0; r < r1; r++)
        for (size_t h = 0; h < n_head; h++) {
            float *x = job->y + r * job->n + h * dim;
            job->pass->kernels->rmsnorm(x, x, job->weight, dim, m->config.norm_eps);
        }
}

/* q and k of n_head heads each, normalised head by head, or all heads of a token together. */
static void norm_heads(const am_pass *pass, float *x, const float *weight, size_t n_head) {
    am_pass_rows(&(am_row_job){.pass = pass, .rows = norm_head_rows, .y = x, .weight = weight, .n = n_head * pass->model->cache_dim_k, .n_rows = pass->n_rows});
}

static void silu_rows(const am_row_job *job, size_t r0, size_t r1) {
    float *gate = job->y + r0 * job->n;
    job->pass->kernels->silu_mul(gate, gate, job->x + r0 * job->n, (r1 - r0) * job->n);
}

/* act(gate) up as silu_mul has it, x sigmoid(x) y, whose exp goes by vectors: for a piece of the values x and y are made of gate and up. */
static void by_silu(const am_row_job *job, size_t r0, size_t r1, void (*make)(const am_model *m, float *gate, float *up)) {
    for (size_t i = r0 * job->n, n; i < r1 * job->n; i += n) {
        float x[ACTIVATE_PIECE] = {0}, y[ACTIVATE_PIECE] = {0};
        n = r1 * job->n - i < ACTIVATE_PIECE ? r1 * job->n - i : ACTIVATE_PIECE;
        memcpy(x, job->y + i, n * sizeof *x);
        memcpy(y, job->x + i, n * sizeof *y);
        make(job->pass->model, x, y);
        job->pass->kernels->silu_mul(job->y + i, x, y, n);
    }
}

/* (1 + tanh z) / 2 = sigmoid(2z), z = sqrt(2 / pi) (g + 0.044715 g^3). */
static void gelu_tanh(const am_model *m, float *gate, float *up) {
    const float twice = 2 * 0.7978845608028654f, most = 1e6f; /* where g^2 need not grow any more */
    (void)m;
    for (int i = 0; i < ACTIVATE_PIECE; i++) {
        float g = gate[i] < most ? gate[i] : most;
        g = g > -most ? g : -most;
        float factor = twice * (1 + 0.044715f * g * g);
        gate[i] *= factor;
        up[i] /= factor;
    }
}

static void gelu_tanh_rows(const am_row_job *job, size_t r0, size_t r1) { by_silu(job, r0, r1, gelu_tanh); }

/* gpt-oss: the gate is clamped above only. */
static void swiglu_clamp(const am_model *m, float *gate, float *up) {
    const float limit = m->activation_limit, alpha = m->activation_alpha, inverse = 1 / alpha;
    for (int i = 0; i < ACTIVATE_PIECE; i++) {
        float u = up[i] > -limit ? up[i] : -limit;
        gate[i] = alpha * (gate[i] < limit ? gate[i] : limit);
        up[i] = ((u < limit ? u : limit) + 1) * inverse;
    }
}

static void swiglu_clamp_rows(const am_row_job *job, size_t r0, size_t r1) { by_silu(job, r0, r1, swiglu_clamp); }

void am_op_activate(const am_pass *pass, float *gate, const float *up, size_t n, size_t n_rows) {
    am_row_job job = {.pass = pass, .y = gate, .x = up, .n = n, .n_rows = n_rows};
    switch (pass->model->activation) {
    case AM_ACT_SILU: job.rows = silu_rows; break;
    case AM_ACT_GELU_TANH: job.rows = gelu_tanh_rows; break;
    case AM_ACT_SWIGLU_CLAMP: job.rows = swiglu_clamp_rows; break;
    }
    am_pass_rows(&job);
}

static void add_rows(const am_row_job *job, size_t r0, size_t r1) {
    for (size_t i = r0 * job->n; i < r1 * job->n; i++) job->y[i] += job->x[i];
}

void am_op_add(const am_pass *pass, float *x, const float *y) {
    am_pass_rows(&(am_row_job){.pass = pass, .rows = add_rows, .y = x, .x = y, .n = pass->model->config.n_embd, .n_rows = pass->n_rows});
}

static void copy_rows(const am_row_job *job, size_t r0, size_t r1) {
    memcpy(job->y + r0 * job->n, job->x + r0 * job->n, (r1 - r0) * job->n * sizeof(float));
}

void am_op_copy(const am_pass *pass, float *y, const float *x) {
    am_pass_rows(&(am_row_job){.pass = pass, .rows = copy_rows, .y = y, .x = x, .n = pass->model->config.n_embd, .n_rows = pass->n_rows});
}

typedef struct linear_job {
    const am_pass *pass;
    const am_projection *projections;
    size_t n_projections;
    uint32_t n_panels; /* of all projections, one behind the other */
    uint32_t most;     /* panels a task, at most */
    uint32_t share;    /* a task takes one share-th of the panels that are left */
} linear_job;

/* What the rows of a projection become before they are multiplied: nothing else, 8-bit codes, bf16. */
typedef enum row_form { AS_FLOATS, AS_CODES, AS_HALVES, N_ROW_FORMS } row_form;

static row_form form_of(const am_kernels *kernels, const am_projection *p) {
    if (am_dtype_quantised(p->linear->w.dtype)) return kernels->matmul_int8 ? AS_CODES : AS_FLOATS;
    return p->linear->w.dtype == AM_BF16 && kernels->matmul_bf16 ? AS_HALVES : AS_FLOATS;
}

/* The way along projections whose rows are rounded: those of each lie behind those of the one before it, or are the same as the last of their form. */
typedef struct row_walk {
    const am_projection *last[N_ROW_FORMS];
    uint8_t *rows[N_ROW_FORMS], *end;
    size_t row_bytes;
    size_t first_row, end_row; /* counted over all */
} row_walk;

static row_walk walk_begin(const am_pass *pass) { return (row_walk){.end = pass->ws->rounded}; }

/* Whether p reads other rows than the last of its form. */
static bool walk_to(row_walk *walk, const am_projection *p, row_form form) {
    const am_projection *last = walk->last[form];
    walk->last[form] = p;
    walk->row_bytes = form == AS_CODES ? am_int8_row_bytes(p->linear->w.n_in) : am_bf16_row_bytes(p->linear->w.n_in);
    if (last && last->x == p->x && last->ldx == p->ldx && last->n_rows == p->n_rows && last->linear->w.n_in == p->linear->w.n_in) return false;
    walk->rows[form] = walk->end;
    walk->end += p->n_rows * walk->row_bytes;
    walk->first_row = walk->end_row;
    walk->end_row += p->n_rows;
    return true;
}

static void round_task(void *arg, size_t task, size_t worker) {
    const linear_job *job = arg;
    const am_kernels *kernels = job->pass->kernels;
    (void)worker;
    size_t r0 = task * ROWS_PER_ROUND_TASK, r1 = r0 + ROWS_PER_ROUND_TASK;
    row_walk walk = walk_begin(job->pass);
    for (size_t i = 0; i < job->n_projections && walk.end_row < r1; i++) {
        const am_projection *p = &job->projections[i];
        row_form form = form_of(kernels, p);
        if (form == AS_FLOATS || !walk_to(&walk, p, form)) continue;
        size_t n_in = p->linear->w.n_in, ldx = p->ldx ? p->ldx : n_in;
        size_t from = r0 > walk.first_row ? r0 - walk.first_row : 0, to = r1 < walk.end_row ? r1 - walk.first_row : p->n_rows;
        void (*row)(void *dst, const float *x, size_t n_in) = form == AS_CODES ? kernels->row_int8 : kernels->row_bf16;
        for (size_t r = from; r < to; r++) row(walk.rows[form] + r * walk.row_bytes, p->x + r * ldx, n_in);
    }
}

/* Tasks take a share of what is left, so that the first read long runs of weights and the last end together. */
static uint32_t task_panels(const linear_job *job, uint32_t at) {
    uint32_t left = job->n_panels - at, n = (left / job->share + LEAST_PANELS - 1) / LEAST_PANELS * LEAST_PANELS;
    if (n > job->most) n = job->most;
    if (n < LEAST_PANELS) n = LEAST_PANELS;
    return n < left ? n : left;
}

/* The tasks that take `most` panels come first. */
static uint32_t full_tasks(const linear_job *job) {
    uint32_t rest = job->most * job->share;
    return job->n_panels > rest ? (job->n_panels - rest) / job->most : 0;
}

static size_t count_tasks(const linear_job *job) {
    size_t n = full_tasks(job);
    for (uint32_t at = (uint32_t)n * job->most; at < job->n_panels; at += task_panels(job, at)) n++;
    return n;
}

static void add_bias(float *restrict y, const float *restrict bias, uint32_t o, uint32_t end) {
    for (; o + AM_PANEL <= end; o += AM_PANEL)
        for (uint32_t j = 0; j < AM_PANEL; j++) y[o + j] += bias[o + j];
    for (; o < end; o++) y[o] += bias[o];
}

/* rows: in their form; as floats they are the projection's */
static void project(const am_pass *pass, const am_projection *p, row_form form, const uint8_t *rows, uint32_t p0, uint32_t p1) {
    const am_mat *w = &p->linear->w;
    size_t ldy = p->ldy ? p->ldy : w->n_out, ldx = p->ldx ? p->ldx : w->n_in;
    if (form == AS_CODES)
        pass->kernels->matmul_int8(p->y, ldy, rows, p->n_rows, w, p0, p1);
    else if (form == AS_HALVES)
        pass->kernels->matmul_bf16(p->y, ldy, rows, p->n_rows, w, p0, p1);
    else
        pass->kernels->matmul(p->y, ldy, p->x, ldx, p->n_rows, w, p0, p1);
    for (size_t r = 0; p->linear->bias && r < p->n_rows; r++) add_bias(p->y + r * ldy, p->linear->bias, p0 * AM_PANEL, p1 * AM_PANEL < w->n_out ? p1 * AM_PANEL : w->n_out);
}

static void linear_task(void *arg, size_t task, size_t worker) {
    const linear_job *job = arg;
    (void)worker;
    size_t full = full_tasks(job), i = task < full ? task : full;
    uint32_t at = (uint32_t)i * job->most, end;
    for (; i < task; i++) at += task_panels(job, at);
    end = at + task_panels(job, at);
    row_walk walk = walk_begin(job->pass);
    for (const am_projection *p = job->projections; at < end; p++) { /* those that the task's panels are of */
        uint32_t n = am_mat_panels(&p->linear->w);
        row_form form = form_of(job->pass->kernels, p);
        if (form != AS_FLOATS) walk_to(&walk, p, form);
        if (at < n) project(job->pass, p, form, walk.rows[form], at, end < n ? end : n);
        at = at < n ? 0 : at - n;
        end = end < n ? 0 : end - n;
    }
}

void am_op_linear(const am_pass *pass, const am_projection *projections, size_t n) {
    linear_job job = {.pass = pass, .projections = projections, .n_projections = n};
    size_t n_workers = pass->ws->workers ? am_workers_count(pass->ws->workers) : 1, n_rows = 0, widest = 1;
    row_walk walk = walk_begin(pass);
    if (pass->n_rows == 0) return; /* all have left */
    for (size_t i = 0; i < n; i++) {
        row_form form = form_of(pass->kernels, &projections[i]);
        if (form != AS_FLOATS) walk_to(&walk, &projections[i], form);
        uint32_t n_panels = am_mat_panels(&projections[i].linear->w);
        size_t bytes = am_mat_bytes(&projections[i].linear->w) / n_panels;
        job.n_panels += n_panels;
        if (projections[i].n_rows > n_rows) n_rows = projections[i].n_rows;
        if (bytes > widest) widest = bytes;
    }
    size_t fit = TASK_BYTES / widest / LEAST_PANELS * LEAST_PANELS;
    job.most = n_rows < MANY_ROWS || fit == 0 ? job.n_panels : (uint32_t)fit;
    job.share = (uint32_t)(2 * n_workers);
    am_pass_run(pass, (walk.end_row + ROWS_PER_ROUND_TASK - 1) / ROWS_PER_ROUND_TASK, round_task, &job);
    am_pass_run(pass, count_tasks(&job), linear_task, &job);
}

void am_op_attention(am_pass *pass, uint32_t i) {
    const am_layer *layer = &pass->model->layers[i];
    const am_config *c = &pass->model->config;
    am_workspace *ws = pass->ws;
    size_t n = pass->n_rows;
    if (layer->mla) {
        am_op_mla(pass, i);
        return;
    }
    size_t dim = pass->model->cache_dim_k, ldq = c->n_head * dim, ldk = c->n_kv_head * dim;
    am_op_linear(pass, (am_projection[]){{ws->q, ws->h, &layer->q, n, ldq, 0}, {ws->k, ws->h, &layer->k, n, ldk, 0}, {ws->v, ws->h, &layer->v, n, ldk, 0}}, 3);
    if (layer->q_norm) norm_heads(pass, ws->q, layer->q_norm, c->n_head);
    if (layer->k_norm) norm_heads(pass, ws->k, layer->k_norm, c->n_kv_head);
    am_op_cache(pass, i);
    am_op_attend(pass, i);
    am_op_linear(pass, &(am_projection){ws->h, ws->att, &layer->o, pass->n_rows, 0, 0}, 1);
}

void am_op_mlp(const am_pass *pass, uint32_t i) {
    const am_layer *layer = &pass->model->layers[i];
    am_workspace *ws = pass->ws;
    size_t n = pass->n_rows;
    if (layer->moe) {
        am_op_moe(pass, layer->moe);
        return;
    }
    am_op_linear(pass, (am_projection[]){{ws->gate, ws->h, &layer->gate, n, 0, 0}, {ws->up, ws->h, &layer->up, n, 0, 0}}, 2);
    am_op_activate(pass, ws->gate, ws->up, pass->model->config.n_ff, n);
    am_op_linear(pass, &(am_projection){ws->h, ws->gate, &layer->down, n, 0, 0}, 1);
}

static void softcap_rows(const am_row_job *job, size_t r0, size_t r1) {
    float cap = job->pass->model->logit_softcap;
    for (size_t i = r0 * job->n; i < r1 * job->n; i++) job->y[i] = cap * tanhf(job->y[i] / cap);
}

void am_op_logits(const am_pass *pass) {
    const am_model *model = pass->model;
    am_workspace *ws = pass->ws;
    size_t n_embd = model->config.n_embd, n_vocab = model->config.n_vocab, n = 0;
    for (size_t i = 0; i < pass->n_segments; i++)
        for (uint32_t j = pass->segments[i].n_logits; j > 0; j--)
            pass->kernels->rmsnorm(ws->last + n++ * n_embd, ws->x + (ws->first_row[i + 1] - j) * n_embd, model->final_norm, n_embd,
                                   model->config.norm_eps);
    if (n == 0) return;
    am_op_linear(pass, &(am_projection){ws->logits, ws->last, &model->head, n, 0, 0}, 1);
    if (model->logit_softcap > 0)
        am_pass_rows(&(am_row_job){.pass = pass, .rows = softcap_rows, .y = ws->logits, .n = n_vocab, .n_rows = n});
    const float *row = ws->logits;
    for (size_t i = 0; i < pass->n_segments; i++) {
        size_t count = pass->segments[i].n_logits * n_vocab;
        if (count) memcpy(pass->segments[i].logits, row, count * sizeof *row);
        row += count;
    }
}
