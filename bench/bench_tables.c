/* What a table's roundings add to what the cache's form costs: a text goes through the model on the best table that takes inputs as float32, with an exact
 * cache, and side by side on the tables named, with the forms of cache named. Printed: perplexity against the first, mean Kullback-Leibler
 * divergence of the next token's distribution, share of positions whose likeliest token is the same (docs/CACHE_QUALITY.md).
 *
 *   build/bench/bench_tables MODEL TEXT WINDOWS TABLE:K,V...      windows of 2048 tokens */
#include "base/fs.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 2048, MAX_FORMS = 16 };

/* One way through the model: a table's model, blocks, workspace. */
typedef struct way {
    const char *name;
    const am_kernels *kernels;
    am_model *model;
    am_kv_layout layout;
    am_workspace *ws;
    void *sealed[WINDOW / AM_BLOCK_TOKENS], *open;
    const void *const *units[WINDOW / AM_BLOCK_TOKENS]; /* the blocks' tables */
    float *logits; /* [AM_BLOCK_TOKENS][n_vocab] */
    double nll, kld, same;
} way;

static am_status way_open(way *w, const char *path, const char *table, uint32_t k, uint32_t v, am_workers *workers, am_error *err) {
    am_kv_spec spec;
    am_status status = am_kernels_pick(table, &w->kernels, err);
    am_model_options options = {.kernels = w->kernels, .workers = workers};
    if (!status) status = am_model_load(path, &options, &w->model, err);
    if (!status) status = am_model_kv_spec(w->model, k, v, &spec, err);
    if (!status) status = am_kv_layout_init(&w->layout, &spec, err);
    if (!status) status = am_workspace_create(w->model, &w->layout, workers, AM_BLOCK_TOKENS, AM_BLOCK_TOKENS, &w->ws, err);
    if (status) return status;
    w->open = am_alloc_aligned(w->layout.open_bytes);
    w->logits = am_calloc((size_t)AM_BLOCK_TOKENS * am_model_info_of(w->model)->n_vocab, sizeof *w->logits);
    bool ok = w->open && w->logits;
    for (int i = 0; ok && i < WINDOW / AM_BLOCK_TOKENS; i++) {
        void **units = am_calloc(w->layout.n_units, sizeof *units);
        w->sealed[i] = am_alloc_aligned(w->layout.sealed_bytes);
        ok = units && w->sealed[i];
        if (ok) am_kv_units_of(&w->layout, w->sealed[i], units);
        w->units[i] = (const void *const *)units;
    }
    return ok ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for blocks");
}

static am_status way_block(way *w, const int32_t *ids, uint32_t at, am_error *err) {
    am_segment segment = {.tokens = ids, .n_tokens = AM_BLOCK_TOKENS, .n_past = at, .sealed = w->units, .open = w->open,
                          .logits = w->logits, .n_logits = AM_BLOCK_TOKENS};
    am_status status = am_model_forward(w->model, w->ws, &segment, 1, err);
    for (uint32_t l = 0; !status && l < w->layout.spec.n_layer; l++)
        am_kv_seal(w->kernels, &w->layout, w->open, (void *const *)(uintptr_t)w->units[at / AM_BLOCK_TOKENS], l);
    return status;
}

/* Logits into log probabilities; returns the likeliest. */
static size_t log_softmax(float *x, size_t n) {
    size_t best = 0;
    double sum = 0;
    for (size_t i = 1; i < n; i++) best = x[i] > x[best] ? i : best;
    float most = x[best];
    for (size_t i = 0; i < n; i++) sum += exp((double)(x[i] - most));
    for (size_t i = 0; i < n; i++) x[i] = (float)((double)(x[i] - most) - log(sum));
    return best;
}

static void compare(way *ways, size_t n_ways, const int32_t *next) {
    size_t n_vocab = am_model_info_of(ways[0].model)->n_vocab;
    for (size_t t = 0; t < AM_BLOCK_TOKENS; t++) {
        float *exact = ways[0].logits + t * n_vocab;
        size_t top = log_softmax(exact, n_vocab);
        ways[0].nll -= exact[next[t]];
        for (size_t w = 1; w < n_ways; w++) {
            float *x = ways[w].logits + t * n_vocab;
            ways[w].same += log_softmax(x, n_vocab) == top;
            ways[w].nll -= x[next[t]];
            for (size_t i = 0; i < n_vocab; i++) ways[w].kld += exp(exact[i]) * (double)(exact[i] - x[i]);
        }
    }
}

int main(int argc, char **argv) {
    static way ways[MAX_FORMS];
    size_t n_ways = 1, n_rows = 0;
    am_workers *workers = NULL;
    am_buf text;
    am_tokens ids = {0};
    am_error err = {0};
    if (argc < 5 || argc > 3 + MAX_FORMS) return fprintf(stderr, "usage: bench_tables MODEL TEXT WINDOWS TABLE:K,V...\n"), 2;
    am_buf_init(&text, 1 << 28);
    am_status status = am_workers_create(am_cpus_threads(), &workers, &err);
    const char *exact = "scalar"; /* the first table that takes inputs as they are */
    for (const am_kernels *const *k = am_kernels_list(); *k; k++)
        if (!(*k)->matmul_int8) {
            exact = (*k)->name;
            break;
        }
    ways[0].name = exact;
    if (!status) status = way_open(&ways[0], argv[1], exact, 32, 32, workers, &err);
    for (int i = 4; !status && i < argc; i++) {
        char table[32];
        uint32_t k, v;
        if (sscanf(argv[i], "%31[^:]:%u,%u", table, &k, &v) != 3) return fprintf(stderr, "'%s' is not TABLE:K,V\n", argv[i]), 2;
        ways[n_ways].name = argv[i];
        status = way_open(&ways[n_ways++], argv[1], table, k, v, workers, &err);
    }
    if (!status) status = am_fs_read_file(argv[2], &text, 1 << 28, &err);
    if (!status) status = am_tokenizer_encode(am_model_tokenizer(ways[0].model), am_buf_str(&text), NULL, 0, 0, &ids, &err);
    for (long window = 0; !status && window < atol(argv[3]) && (size_t)(window + 1) * WINDOW < ids.n; window++)
        for (uint32_t at = 0; !status && at < WINDOW; at += AM_BLOCK_TOKENS) {
            const int32_t *block = ids.ids + window * WINDOW + at;
            for (size_t w = 0; !status && w < n_ways; w++) status = way_block(&ways[w], block, at, &err);
            if (status || at == 0) continue; /* nothing is sealed yet */
            compare(ways, n_ways, block + 1);
            n_rows += AM_BLOCK_TOKENS;
        }
    if (status) return fprintf(stderr, "bench_tables: %s\n", err.message), 1;
    double exact_ppl = exp(ways[0].nll / (double)n_rows);
    printf("%s, %zu positions, %s with an exact cache: perplexity %.2f\n", argv[1], n_rows, exact, exact_ppl);
    for (size_t w = 1; w < n_ways; w++)
        printf("%-24s perplexity %+.2f %%  KLD %.5f  same top %.2f %%\n", ways[w].name, 100 * (exp(ways[w].nll / (double)n_rows) / exact_ppl - 1),
               ways[w].kld / (double)n_rows, 100 * ways[w].same / (double)n_rows);
    return 0;
}
