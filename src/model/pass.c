/* Owns how a pass is cut into tasks, and the operations that work row by row or panel by panel.
 *
 * A task writes only its own rows or its own outputs, so how many there are and who runs them cannot be seen in the result. */
#include "model/internal.h"

#include <math.h>
#include <string.h>

enum { ROWS_PER_TASK = 8 };

void am_pass_run(const am_pass *pass, size_t n_tasks, am_workers_fn *fn, void *arg) {
    if (pass->ws->workers) {
        am_workers_run(pass->ws->workers, n_tasks, fn, arg);
        return;
    }
    for (size_t i = 0; i < n_tasks; i++) fn(arg, i, 0);
}

uint32_t am_pass_share(const am_pass *pass, uint32_t (*n_tasks)(const am_pass *pass, const am_segment *segment)) {
    uint32_t *first = pass->ws->first_task;
    first[0] = 0;
    for (size_t i = 0; i < pass->n_segments; i++) first[i + 1] = first[i] + n_tasks(pass, &pass->segments[i]);
    return first[pass->n_segments];
}

size_t am_pass_segment_of(const am_pass *pass, uint32_t task) {
    const uint32_t *first = pass->ws->first_task;
    size_t low = 0, high = pass->n_segments - 1; /* the last i with first[i] <= task; every segment has a task */
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (first[middle] <= task)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* An operation on rows [r0, r1). */
typedef struct row_job row_job;
struct row_job {
    const am_pass *pass;
    void (*rows)(const row_job *job, size_t r0, size_t r1);
    float *y;
    const float *x, *weight;
    size_t n; /* values a row */
};

static void row_task(void *arg, size_t task, size_t worker) {
    const row_job *job = arg;
    (void)worker;
    size_t r0 = task * ROWS_PER_TASK, r1 = r0 + ROWS_PER_TASK;
    job->rows(job, r0, r1 < job->pass->n_rows ? r1 : job->pass->n_rows);
}

static void run_rows(row_job job) {
    am_pass_run(job.pass, (job.pass->n_rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, row_task, &job);
}

static void embed_rows(const row_job *job, size_t r0, size_t r1) {
    const am_pass *pass = job->pass;
    for (size_t r = r0; r < r1; r++)
        pass->kernels->mat_row(job->y + r * job->n, &pass->model->embed.w, pass->ws->token[r]);
}

void am_op_embed(const am_pass *pass, float *x) {
    run_rows((row_job){.pass = pass, .rows = embed_rows, .y = x, .n = pass->model->config.n_embd});
}

static void rmsnorm_rows(const row_job *job, size_t r0, size_t r1) {
    for (size_t r = r0; r < r1; r++)
        job->pass->kernels->rmsnorm(job->y + r * job->n, job->x + r * job->n, job->weight, job->n, job->pass->model->config.norm_eps);
}

void am_op_rmsnorm(const am_pass *pass, float *y, const float *x, const float *weight) {
    run_rows((row_job){.pass = pass, .rows = rmsnorm_rows, .y = y, .x = x, .weight = weight, .n = pass->model->config.n_embd});
}

static void silu_mul_rows(const row_job *job, size_t r0, size_t r1) {
    float *gate = job->y + r0 * job->n;
    job->pass->kernels->silu_mul(gate, gate, job->x + r0 * job->n, (r1 - r0) * job->n);
}

void am_op_silu_mul(const am_pass *pass, float *gate, const float *up) {
    run_rows((row_job){.pass = pass, .rows = silu_mul_rows, .y = gate, .x = up, .n = pass->model->config.n_ff});
}

static void add_rows(const row_job *job, size_t r0, size_t r1) {
    for (size_t i = r0 * job->n; i < r1 * job->n; i++) job->y[i] += job->x[i];
}

void am_op_add(const am_pass *pass, float *x, const float *y) {
    run_rows((row_job){.pass = pass, .rows = add_rows, .y = x, .x = y, .n = pass->model->config.n_embd});
}

typedef struct linear_job {
    const am_pass *pass;
    const am_projection *projections;
    size_t n_projections, n_rows;
    uint32_t unit; /* panels a task */
} linear_job;

static uint32_t tasks_of(const linear_job *job, size_t i) {
    return (am_mat_panels(&job->projections[i].linear->w) + job->unit - 1) / job->unit;
}

static void linear_task(void *arg, size_t task, size_t worker) {
    const linear_job *job = arg;
    const am_projection *p = job->projections;
    (void)worker;
    for (size_t i = 0; task >= tasks_of(job, i); i++, p++) task -= tasks_of(job, i);
    const am_mat *w = &p->linear->w;
    uint32_t p0 = (uint32_t)task * job->unit, p1 = p0 + job->unit;
    if (p1 > am_mat_panels(w)) p1 = am_mat_panels(w);
    job->pass->kernels->matmul(p->y, w->n_out, p->x, w->n_in, job->n_rows, w, p0, p1);
    if (!p->linear->bias) return;
    uint32_t o0 = p0 * AM_PANEL, o1 = p1 * AM_PANEL < w->n_out ? p1 * AM_PANEL : w->n_out;
    for (size_t r = 0; r < job->n_rows; r++)
        for (uint32_t o = o0; o < o1; o++) p->y[r * w->n_out + o] += p->linear->bias[o];
}

static void run_linear(const am_pass *pass, const am_projection *projections, size_t n, size_t n_rows) {
    linear_job job = {pass, projections, n, n_rows, 1};
    size_t n_panels = 0, n_tasks = 0, n_workers = pass->ws->workers ? am_workers_count(pass->ws->workers) : 1;
    for (size_t i = 0; i < n; i++) n_panels += am_mat_panels(&projections[i].linear->w);
    job.unit = (uint32_t)(n_panels / (4 * n_workers)) + 1; /* a few tasks a worker even out what cores do otherwise */
    for (size_t i = 0; i < n; i++) n_tasks += tasks_of(&job, i);
    am_pass_run(pass, n_tasks, linear_task, &job);
}

void am_op_linear(const am_pass *pass, const am_projection *projections, size_t n) {
    run_linear(pass, projections, n, pass->n_rows);
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
    am_linear head = {.w = model->head};
    run_linear(pass, &(am_projection){ws->logits, ws->last, &head}, 1, n);
    const float *row = ws->logits;
    for (size_t i = 0; i < pass->n_segments; i++) {
        size_t count = pass->segments[i].n_logits * n_vocab;
        if (count) memcpy(pass->segments[i].logits, row, count * sizeof *row);
        row += count;
    }
}

static am_status check_segment(const am_model *model, const am_segment *s, size_t i, am_error *err) {
    uint32_t used = s->n_past % AM_BLOCK_TOKENS;
    if (s->n_tokens == 0 || s->n_tokens > AM_BLOCK_TOKENS - used)
        return am_fail(err, AM_EINVAL, "segment %zu: %u tokens do not fit behind %u in their block", i, s->n_tokens, used);
    if (s->n_logits > s->n_tokens || (s->n_logits && !s->logits))
        return am_fail(err, AM_EINVAL, "segment %zu: logits for %u of %u tokens", i, s->n_logits, s->n_tokens);
    for (uint32_t t = 0; t < s->n_tokens; t++)
        if (s->tokens[t] < 0 || (uint32_t)s->tokens[t] >= model->config.n_vocab)
            return am_fail(err, AM_EINVAL, "token id %d is not in the vocabulary of %u", s->tokens[t], model->config.n_vocab);
    return AM_OK;
}

/* Checks everything before anything is written, and lays the segments' tokens out as rows. */
static am_status begin(am_pass *pass, am_error *err) {
    am_workspace *ws = pass->ws;
    uint64_t n_rows = 0, n_logits = 0;
    if (pass->n_segments == 0) return am_fail(err, AM_EINVAL, "a pass without segments");
    for (size_t i = 0; i < pass->n_segments; i++) {
        const am_segment *s = &pass->segments[i];
        am_status status = check_segment(pass->model, s, i, err);
        if (status) return status;
        n_rows += s->n_tokens;
        n_logits += s->n_logits;
        if (n_rows > ws->max_tokens || n_logits > ws->max_logits)
            return am_fail(err, AM_EINVAL, "the work space holds %u tokens and %u rows of logits, not more", ws->max_tokens, ws->max_logits);
        ws->first_row[i + 1] = (uint32_t)n_rows;
    }
    ws->first_row[0] = 0;
    pass->n_rows = (uint32_t)n_rows;
    for (size_t i = 0; i < pass->n_segments; i++)
        for (uint32_t t = 0; t < pass->segments[i].n_tokens; t++) {
            ws->token[ws->first_row[i] + t] = (uint32_t)pass->segments[i].tokens[t];
            ws->position[ws->first_row[i] + t] = pass->segments[i].n_past + t;
        }
    return AM_OK;
}

static void angle_rows(const row_job *job, size_t r0, size_t r1) {
    const am_workspace *ws = job->pass->ws;
    for (size_t r = r0; r < r1; r++)
        for (size_t i = 0; i < job->n; i++) {
            float angle = (float)ws->position[r] * job->x[i];
            ws->rope_cos[r * job->n + i] = cosf(angle);
            ws->rope_sin[r * job->n + i] = sinf(angle);
        }
}

am_status am_model_forward(const am_model *model, am_workspace *ws, const am_segment *segments, size_t n_segments, am_error *err) {
    am_pass pass = {.model = model, .kernels = model->kernels, .ws = ws, .segments = segments, .n_segments = n_segments};
    if (ws->model != model) return am_fail(err, AM_EINVAL, "the work space belongs to another model");
    am_status status = begin(&pass, err);
    if (status) return status;
    run_rows((row_job){.pass = &pass, .rows = angle_rows, .x = model->rope_freq, .n = model->config.head_dim / 2});
    model->arch->forward(&pass);
    return AM_OK;
}
