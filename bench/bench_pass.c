/* How fast a model's forward pass is, without server or scheduler: prefill of 512 and 2048 tokens, of 512 behind 4096, decoding of one stream
 * at two depths, and of 4 and 16 streams together. One line each: tokens a second, the median of the runs, with the share of the
 * time that reading the weights once a pass takes at the memory rate measured first (decoding), or the products' rate (prefill).
 *
 *   build/bench/bench_pass [MODEL [TABLE [RUNS]]]      default: the embedded model, the best table, 5
 *   build/bench/bench_pass MODEL TABLE - [THREADS]     reads "N_PAST N_TOKENS N_STREAMS" lines (N_STREAMS 0: prefill), answers each with its seconds
 *
 * Every sequence has blocks of its own, as agents have: a cache that is read again and again from the processor's caches would flatter. */
#include "base/clock.h"
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEEP = 4096, MAX_STREAMS = 16, MAX_RUNS = 64, MEMORY_BYTES = 256 << 20, MAX_SEALED = (DEEP + 2048) / AM_BLOCK_TOKENS };

typedef struct bench {
    am_workers *workers;
    const am_kernels *kernels;
    am_model *model;
    am_kv_layout layout;
    am_workspace *ws;
    void *sealed[MAX_STREAMS][MAX_SEALED]; /* made when a row needs them: all are copies of a first prefill's block */
    const void *const *units[MAX_STREAMS][MAX_SEALED]; /* their tables */
    void *open[MAX_STREAMS];
    float *logits;
    int runs;
    double memory_rate;  /* bytes a second */
    double n_multiplied; /* weights, by a token of a prompt */
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
    void *p = am_alloc_room(MEMORY_BYTES); /* as weights lie */
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

static am_status make_sealed(bench *b, uint32_t n_streams, uint32_t n_blocks, am_error *err) {
    if (n_streams > MAX_STREAMS || n_blocks > MAX_SEALED) return am_fail(err, AM_EINVAL, "at most %d streams of %d blocks", MAX_STREAMS, MAX_SEALED);
    for (uint32_t s = 0; s < n_streams; s++)
        for (uint32_t i = 0; i < n_blocks; i++) {
            if (b->sealed[s][i]) continue;
            void **units = am_calloc(b->layout.n_units, sizeof *units);
            b->units[s][i] = (const void *const *)units;
            b->sealed[s][i] = am_alloc_aligned(b->layout.sealed_bytes);
            if (!units || !b->sealed[s][i]) return am_fail(err, AM_ENOMEM, "no memory for a sealed block");
            am_kv_units_of(&b->layout, b->sealed[s][i], units);
            if (s || i) memcpy(b->sealed[s][i], b->sealed[0][0], b->layout.sealed_bytes);
        }
    return AM_OK;
}

typedef struct seal_job {
    const bench *b;
    void *const *units;
} seal_job;

static void seal_layer(void *arg, size_t layer, size_t worker) {
    const seal_job *job = arg;
    (void)worker;
    am_kv_seal(job->b->kernels, &job->b->layout, job->b->open[0], job->units, (uint32_t)layer);
}

/* n tokens behind n_past, block by block; each full block is sealed, its layers shared out as in use. */
static am_status prefill(bench *b, uint32_t n_past, uint32_t n, am_error *err) {
    int32_t tokens[AM_BLOCK_TOKENS];
    uint32_t n_vocab = am_model_info_of(b->model)->n_vocab;
    for (uint32_t at = n_past, count; at < n_past + n; at += count) {
        count = AM_BLOCK_TOKENS - at % AM_BLOCK_TOKENS;
        if (count > n_past + n - at) count = n_past + n - at;
        for (uint32_t i = 0; i < count; i++) tokens[i] = (int32_t)((at + i) * 7919 % n_vocab);
        bool last = at + count == n_past + n;
        am_segment segment = {.tokens = tokens, .n_tokens = count, .n_past = at, .sealed = b->units[0], .open = b->open[0],
                              .logits = last ? b->logits : NULL, .n_logits = last};
        am_status status = am_model_forward(b->model, b->ws, &segment, 1, err);
        if (status) return status;
        if ((at + count) % AM_BLOCK_TOKENS) continue;
        seal_job job = {b, (void *const *)(uintptr_t)b->units[0][at / AM_BLOCK_TOKENS]};
        am_workers_run(b->workers, b->layout.spec.n_layer, seal_layer, &job);
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
            segments[s] = (am_segment){.tokens = &tokens[s], .n_tokens = 1, .n_past = n_past + step, .sealed = b->units[s],
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

static am_status once(bench *b, const row *r, double *seconds, am_error *err) {
    am_status status = make_sealed(b, r->n_streams ? r->n_streams : 1, (r->n_past + r->n_tokens) / AM_BLOCK_TOKENS, err);
    if (status) return status;
    uint64_t start = am_now_ns();
    status = r->n_streams ? decode(b, r->n_past, r->n_streams, r->n_tokens, err) : prefill(b, r->n_past, r->n_tokens, err);
    *seconds = (double)(am_now_ns() - start) * 1e-9;
    return status;
}

static am_status run(bench *b, const row *r, am_error *err) {
    double seconds[MAX_RUNS], warm_up;
    uint64_t waits = am_workers_runs(b->workers);
    am_status status = once(b, r, &warm_up, err);
    waits = (am_workers_runs(b->workers) - waits) / (r->n_streams ? r->n_tokens : (r->n_tokens + AM_BLOCK_TOKENS - 1) / AM_BLOCK_TOKENS);
    for (int i = 0; !status && i < b->runs; i++) status = once(b, r, &seconds[i], err);
    if (status) return status;
    qsort(seconds, (size_t)b->runs, sizeof *seconds, by_value);
    const am_model_info *info = am_model_info_of(b->model);
    double s = seconds[b->runs / 2], rate = r->n_tokens * (r->n_streams ? r->n_streams : 1) / s;
    printf("%-28s %9.1f tok/s", r->name, rate);
    if (r->n_streams)
        printf("   weights read at %5.1f GB/s, %3.0f%% of the memory's %.1f", (double)info->weight_bytes * r->n_tokens / s * 1e-9,
               100 * (double)info->weight_bytes * r->n_tokens / s / b->memory_rate, b->memory_rate * 1e-9);
    else
        printf("   %6.0f GFLOP/s in products with weights", 2 * b->n_multiplied * rate * 1e-9);
    printf("; %" PRIu64 " waits for all threads a pass\n", waits);
    return AM_OK;
}

/* Weights that a prompt's tokens are multiplied with: all matrices but those at the ends, of which one is looked up in and the other is for logits. Of experts all are
 * counted, though a token meets few. */
static am_status count_multiplied(void *arg, const am_weight *w, am_error *err) {
    bench *b = arg;
    (void)err;
    if (w->n_in && !strstr(w->name, "embed_tokens") && !strstr(w->name, "lm_head")) b->n_multiplied += (double)w->n_out * w->n_in;
    return AM_OK;
}

static am_status open_model(bench *b, const char *path, am_error *err) {
    am_kv_spec spec;
    am_model *survey = NULL;
    am_model_options options = {.kernels = b->kernels, .workers = b->workers};
    am_status status = am_model_load(path, &(am_model_options){.kernels = b->kernels, .survey = true, .weight = count_multiplied, .weight_arg = b}, &survey, err);
    am_model_free(survey);
    if (!status) status = am_model_load(path, &options, &b->model, err);
    if (!status) status = am_model_kv_spec(b->model, AM_KV_BITS_K, AM_KV_BITS_V, &spec, err);
    if (!status) status = am_kv_layout_init(&b->layout, &spec, err);
    if (!status) status = am_workspace_create(b->model, &b->layout, b->workers, AM_BLOCK_TOKENS, MAX_STREAMS, &b->ws, err);
    if (status) return status;
    b->logits = am_calloc((size_t)MAX_STREAMS * am_model_info_of(b->model)->n_vocab, sizeof *b->logits);
    bool ok = b->logits != NULL;
    for (int i = 0; i < MAX_STREAMS && ok; i++) {
        ok = (b->open[i] = am_alloc_aligned(b->layout.open_bytes)) != NULL;
        if (ok) memset(b->open[i], 0, b->layout.open_bytes);
    }
    if (!ok) return am_fail(err, AM_ENOMEM, "no memory for the streams");
    if ((status = make_sealed(b, 1, 1, err))) return status;
    return prefill(b, 0, AM_BLOCK_TOKENS, err);
}

static void close_model(bench *b) {
    for (int i = 0; i < MAX_STREAMS; i++) free(b->open[i]);
    for (int s = 0; s < MAX_STREAMS; s++)
        for (int i = 0; i < MAX_SEALED; i++) {
            free(b->sealed[s][i]);
            free((void *)(uintptr_t)b->units[s][i]);
        }
    free(b->logits);
    am_workspace_free(b->ws);
    am_model_free(b->model);
    am_workers_free(b->workers);
}

/* First what limits can be worked out from, as JSON; then one row a line of input, its seconds a line of output, until the input ends. */
static am_status serve(bench *b, am_error *err) {
    const am_model_info *info = am_model_info_of(b->model);
    row r = {0};
    double seconds;
    am_status status = AM_OK;
    printf("{\"multiplied\": %.0f, \"weight_bytes\": %" PRIu64 ", \"memory_rate\": %.0f, \"block_bytes\": %zu, \"table\": \"%s\"}\n", b->n_multiplied,
           info->weight_bytes, b->memory_rate, b->layout.sealed_bytes, b->kernels->name);
    fflush(stdout);
    while (!status && scanf("%u %u %u", &r.n_past, &r.n_tokens, &r.n_streams) == 3) {
        if ((status = once(b, &r, &seconds, err))) break;
        printf("%.9f\n", seconds);
        fflush(stdout);
    }
    return status;
}

int main(int argc, char **argv) {
    static const row rows[] = {{"prefill 512", 0, 512, 0},           {"prefill 2048", 0, 2048, 0},
                               {"prefill 512 behind 4096", DEEP, 512, 0}, {"decode behind 128", 128, 16, 1},
                               {"decode behind 4096", DEEP, 16, 1},      {"4 streams behind 128", 128, 16, 4},
                               {"4 streams behind 2048", 2048, 16, 4},   {"16 streams behind 128", 128, 16, 16}};
    bool serving = argc > 3 && strcmp(argv[3], "-") == 0;
    bench b = {.runs = argc > 3 ? atoi(argv[3]) : 5};
    am_error err = {0};
    if (b.runs < 1 || b.runs > MAX_RUNS) b.runs = 5;
    const char *path = argc > 1 && *argv[1] ? argv[1] : NULL;
    am_status status = am_kernels_pick(argc > 2 ? argv[2] : NULL, &b.kernels, &err);
    if (!status) status = am_workers_create(argc > 4 ? strtoul(argv[4], NULL, 10) : am_cpus_threads(), &b.workers, &err);
    if (!status) b.memory_rate = memory_rate(b.workers);
    if (!status) status = open_model(&b, path, &err);
    if (!status && !serving) {
        const am_model_info *info = am_model_info_of(b.model);
        printf("%s, %s, %.2f G parameters, %.2f GB packed, table %s, %zu threads, memory %.1f GB/s\n", info->name, info->format, (double)info->n_params * 1e-9,
               (double)info->weight_bytes * 1e-9, b.kernels->name, am_workers_count(b.workers),
               b.memory_rate * 1e-9);
    }
    if (!status && serving) status = serve(&b, &err);
    for (size_t i = 0; !serving && !status && i < sizeof rows / sizeof rows[0]; i++) status = run(&b, &rows[i], &err);
    if (status) fprintf(stderr, "bench_pass: %s\n", err.message);
    close_model(&b);
    return status != AM_OK;
}
