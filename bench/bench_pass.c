/* How fast a model's forward pass is, without server or scheduler: prefill of 512 and 2048 tokens, of 512 behind 4096, decoding of one stream
 * at two depths, and of 4 and 16 streams together. One line each: tokens a second, the median of the runs, with the share of the
 * time that reading the weights once a pass takes at the memory rate measured first (decoding), or the products' rate (prefill).
 *
 *   build/bench/bench_pass [MODEL [TABLE [RUNS]]]      default: the embedded model, the best table, 5 */
#include "base/clock.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEEP = 4096, MAX_STREAMS = 16, MAX_RUNS = 64, MEMORY_BYTES = 256 << 20 };

typedef struct bench {
    am_workers *workers;
    const am_kernels *kernels;
    am_model *model;
    am_kv_layout layout;
    am_workspace *ws;
    void *sealed, **units; /* one block, made from a first prefill, and its table */
    const void *const *past[(DEEP + 2048) / AM_BLOCK_TOKENS + 1]; /* that block again and again */
    void *open[MAX_STREAMS];
    float *logits;
    int runs;
    double memory_rate; /* bytes a second */
} bench;

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static void sum_task(void *arg, size_t task, size_t worker) {
    const uint64_t *p = (const uint64_t *)arg + task * (1 << 17);
    volatile uint64_t sink;
    uint64_t sum[8] = {0};
    (void)worker;
    for (size_t i = 0; i < 1 << 17; i += 8)
        for (size_t l = 0; l < 8; l++) sum[l] += p[i + l];
    sink = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
    (void)sink;
}

static double memory_rate(am_workers *workers) {
    void *p = am_alloc_aligned(MEMORY_BYTES);
    double best = 0;
    if (!p) return 0;
    memset(p, 1, MEMORY_BYTES);
    for (int i = 0; i < 8; i++) {
        uint64_t start = am_now_ns();
        am_workers_run(workers, MEMORY_BYTES >> 20, sum_task, p);
        best = fmax(best, MEMORY_BYTES / ((double)(am_now_ns() - start) * 1e-9));
    }
    free(p);
    return best;
}

/* n tokens behind n_past, block by block; each full block is sealed, into a place where it may lie. */
static am_status prefill(bench *b, uint32_t n_past, uint32_t n, am_error *err) {
    int32_t tokens[AM_BLOCK_TOKENS];
    uint32_t n_vocab = am_model_info_of(b->model)->n_vocab;
    for (uint32_t at = n_past, count; at < n_past + n; at += count) {
        count = AM_BLOCK_TOKENS - at % AM_BLOCK_TOKENS;
        if (count > n_past + n - at) count = n_past + n - at;
        for (uint32_t i = 0; i < count; i++) tokens[i] = (int32_t)((at + i) * 7919 % n_vocab);
        bool last = at + count == n_past + n;
        am_segment segment = {.tokens = tokens, .n_tokens = count, .n_past = at, .sealed = b->past, .open = b->open[0],
                              .logits = last ? b->logits : NULL, .n_logits = last};
        am_status status = am_model_forward(b->model, b->ws, &segment, 1, err);
        if (status) return status;
        if ((at + count) % AM_BLOCK_TOKENS) continue;
        for (uint32_t l = 0; l < b->layout.spec.n_layer; l++) am_kv_seal(b->kernels, &b->layout, b->open[0], b->units, l);
    }
    return AM_OK;
}

static am_status decode(bench *b, uint32_t n_past, uint32_t n_streams, uint32_t n_steps, am_error *err) {
    am_segment segments[MAX_STREAMS];
    int32_t tokens[MAX_STREAMS];
    uint32_t n_vocab = am_model_info_of(b->model)->n_vocab;
    for (uint32_t step = 0; step < n_steps; step++) {
        for (uint32_t s = 0; s < n_streams; s++) {
            tokens[s] = (int32_t)((step * 31 + s * 17 + 5) % n_vocab);
            segments[s] = (am_segment){.tokens = &tokens[s], .n_tokens = 1, .n_past = n_past + step, .sealed = b->past,
                                       .open = b->open[s], .logits = b->logits + (size_t)s * n_vocab, .n_logits = 1};
        }
        am_status status = am_model_forward(b->model, b->ws, segments, n_streams, err);
        if (status) return status;
    }
    return AM_OK;
}

typedef struct row {
    const char *name;
    uint32_t n_past, n_tokens, n_streams; /* n_streams 0: prefill */
} row;

static am_status run(bench *b, const row *r, am_error *err) {
    double seconds[MAX_RUNS];
    for (int i = -1; i < b->runs; i++) { /* the first warms up */
        uint64_t start = am_now_ns();
        am_status status = r->n_streams ? decode(b, r->n_past, r->n_streams, r->n_tokens, err) : prefill(b, r->n_past, r->n_tokens, err);
        if (status) return status;
        if (i >= 0) seconds[i] = (double)(am_now_ns() - start) * 1e-9;
    }
    qsort(seconds, (size_t)b->runs, sizeof *seconds, by_value);
    const am_model_info *info = am_model_info_of(b->model);
    double s = seconds[b->runs / 2], rate = r->n_tokens * (r->n_streams ? r->n_streams : 1) / s;
    printf("%-28s %9.1f tok/s", r->name, rate);
    if (r->n_streams)
        printf("   weights read at %5.1f GB/s, %3.0f%% of the memory's %.1f\n", (double)info->weight_bytes * r->n_tokens / s * 1e-9,
               100 * (double)info->weight_bytes * r->n_tokens / s / b->memory_rate, b->memory_rate * 1e-9);
    else
        printf("   %6.0f GFLOP/s in products with weights\n", 2 * (double)info->n_params * rate * 1e-9);
    return AM_OK;
}

static am_status open_model(bench *b, const char *path, am_error *err) {
    am_kv_spec spec;
    am_model_options options = {.kernels = b->kernels, .workers = b->workers};
    am_status status = am_model_load(path, &options, &b->model, err);
    if (!status) status = am_model_kv_spec(b->model, AM_KV_BITS_K, AM_KV_BITS_V, &spec, err);
    if (!status) status = am_kv_layout_init(&b->layout, &spec, err);
    if (!status) status = am_workspace_create(b->model, &b->layout, b->workers, AM_BLOCK_TOKENS, MAX_STREAMS, &b->ws, err);
    if (status) return status;
    b->logits = am_calloc((size_t)MAX_STREAMS * am_model_info_of(b->model)->n_vocab, sizeof *b->logits);
    b->sealed = am_alloc_aligned(b->layout.sealed_bytes);
    b->units = am_calloc(b->layout.n_units, sizeof *b->units);
    bool ok = b->logits && b->sealed && b->units;
    for (int i = 0; i < MAX_STREAMS && ok; i++) {
        ok = (b->open[i] = am_alloc_aligned(b->layout.open_bytes)) != NULL;
        if (ok) memset(b->open[i], 0, b->layout.open_bytes);
    }
    if (ok) am_kv_units_of(&b->layout, b->sealed, b->units);
    for (size_t i = 0; i < sizeof b->past / sizeof b->past[0]; i++) b->past[i] = (const void *const *)b->units;
    return ok ? prefill(b, 0, AM_BLOCK_TOKENS, err) : am_fail(err, AM_ENOMEM, "no memory for the streams");
}

static void close_model(bench *b) {
    for (int i = 0; i < MAX_STREAMS; i++) free(b->open[i]);
    free(b->sealed);
    free(b->units);
    free(b->logits);
    am_workspace_free(b->ws);
    am_model_free(b->model);
    am_workers_free(b->workers);
}

int main(int argc, char **argv) {
    static const row rows[] = {{"prefill 512", 0, 512, 0},           {"prefill 2048", 0, 2048, 0},
                               {"prefill 512 behind 4096", DEEP, 512, 0}, {"decode behind 128", 128, 16, 1},
                               {"decode behind 4096", DEEP, 16, 1},      {"4 streams behind 128", 128, 16, 4},
                               {"4 streams behind 2048", 2048, 16, 4},   {"16 streams behind 128", 128, 16, 16}};
    bench b = {.runs = argc > 3 ? atoi(argv[3]) : 5};
    am_error err = {0};
    if (b.runs < 1 || b.runs > MAX_RUNS) b.runs = 5;
    const char *path = argc > 1 && *argv[1] ? argv[1] : NULL;
    am_status status = am_kernels_pick(argc > 2 ? argv[2] : NULL, &b.kernels, &err);
    if (!status) status = am_workers_create((size_t)sysconf(_SC_NPROCESSORS_ONLN), &b.workers, &err);
    if (!status) b.memory_rate = memory_rate(b.workers);
    if (!status) status = open_model(&b, path, &err);
    if (!status) {
        const am_model_info *info = am_model_info_of(b.model);
        printf("%s, %s, %.2f G parameters, %.2f GB packed, table %s, %zu threads\n", info->name, info->format, (double)info->n_params * 1e-9,
               (double)info->weight_bytes * 1e-9, b.kernels->name, am_workers_count(b.workers));
    }
    for (size_t i = 0; !status && i < sizeof rows / sizeof rows[0]; i++) status = run(&b, &rows[i], &err);
    if (status) fprintf(stderr, "bench_pass: %s\n", err.message);
    close_model(&b);
    return status != AM_OK;
}
