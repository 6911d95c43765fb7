/* Owns how a pass is cut into tasks, and the checks before one begins.
 *
 * A task writes only its own rows or its own outputs, so how many there are and who runs them cannot be seen in the result. */
#include "model/internal.h"

#include <math.h>

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

static void row_task(void *arg, size_t task, size_t worker) {
    const am_row_job *job = arg;
    (void)worker;
    size_t r0 = task * ROWS_PER_TASK, r1 = r0 + ROWS_PER_TASK;
    job->rows(job, r0, r1 < job->n_rows ? r1 : job->n_rows);
}

void am_pass_rows(const am_row_job *job) {
    am_pass_run(job->pass, (job->n_rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, row_task, (void *)job);
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

static void angle_rows(const am_row_job *job, size_t r0, size_t r1) {
    const am_workspace *ws = job->pass->ws;
    for (uint32_t k = 0; k < job->pass->model->n_ropes; k++) {
        const am_rope *rope = &job->pass->model->ropes[k];
        size_t half = rope->dims / 2;
        for (size_t r = r0; r < r1; r++)
            for (size_t i = 0; i < half; i++) {
                float angle = (float)ws->position[r] * rope->freq[i];
                ws->rope_cos[k][r * half + i] = cosf(angle) * rope->scale;
                ws->rope_sin[k][r * half + i] = sinf(angle) * rope->scale;
            }
    }
}

am_status am_model_forward(const am_model *model, am_workspace *ws, am_segment *segments, size_t n_segments, am_error *err) {
    am_pass pass = {.model = model, .kernels = model->kernels, .ws = ws, .segments = segments, .n_segments = n_segments};
    if (ws->model != model) return am_fail(err, AM_EINVAL, "the work space belongs to another model");
    am_status status = begin(&pass, err);
    if (status) return status;
    am_pass_rows(&(am_row_job){.pass = &pass, .rows = angle_rows, .n_rows = pass.n_rows});
    model->arch->forward(&pass);
    if (pass.n_left) { /* as its owner knows it */
        segments[pass.n_segments - 1].n_past -= pass.n_left;
        segments[pass.n_segments - 1].n_tokens += pass.n_left;
    }
    return AM_OK;
}
