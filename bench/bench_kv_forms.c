/* Forms of a sealed block that the product does not have, compared quickly: keys and values go into a float32 cache, and what a form would
 * make of them is put in their place when a block is full. The tables of docs/CACHE_QUALITY.md come from here; the form that won is in
 * src/kernels/kv.c, and `agent-memory eval` measures that one itself.
 *
 * usage: build/bench/bench_kv_forms MODEL TEXT|- WINDOWS KEYS,VALUES...   (-: random tokens; windows of 2048)
 * A form is words joined by dots, applied in this order (and undone in the opposite one):
 *   x          exact                         b4         bits of a code
 *   t64        groups of 64 channels of a token (the default)
 *   c128       groups of 128 tokens of a channel
 *   unrope     keys as they were before rope
 *   mean       the block's mean of each channel taken out
 *   norm       each token divided by its norm
 *   even50     each channel divided by its size to the power 0.50
 *   had        Hadamard rotation
 *   clip95     range of a group shrunk to 95 %
 *   sink4      the first 4 tokens of the sequence exact
 *   layer3     layer 3 alone */
#include "base/fs.h"
#include "engine/sampler.h"
#include "model/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

enum { WINDOW = 2048, N_BLOCKS = WINDOW / AM_BLOCK_TOKENS, MAX_DIM = 1024, ROWS = AM_BLOCK_TOKENS };

typedef struct form {
    int bits, group, sink, layer; /* layer -1: all */
    bool tokens, unrope, mean, norm, even, had;
    float clip, power;
} form;

static form form_parse(const char *text) {
    form f = {.bits = 16, .group = 64, .tokens = true, .layer = -1, .clip = 1};
    char copy[128], *save;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, ".", &save); w; w = strtok_r(NULL, ".", &save)) {
        int n;
        if (sscanf(w, "b%d", &n) == 1) f.bits = n;
        else if (sscanf(w, "clip%d", &n) == 1) f.clip = (float)n / 100;
        else if (sscanf(w, "c%d", &n) == 1) f.group = n, f.tokens = false;
        else if (sscanf(w, "t%d", &n) == 1) f.group = n;
        else if (sscanf(w, "sink%d", &n) == 1) f.sink = n;
        else if (sscanf(w, "layer%d", &n) == 1) f.layer = n;
        else if (sscanf(w, "even%d", &n) == 1) f.even = true, f.power = (float)n / 100;
        else if (strcmp(w, "unrope") == 0) f.unrope = true;
        else if (strcmp(w, "mean") == 0) f.mean = true;
        else if (strcmp(w, "norm") == 0) f.norm = true;
        else if (strcmp(w, "had") == 0) f.had = true;
        else if (strcmp(w, "x") != 0) fprintf(stderr, "'%s' is not a word of a form\n", w), exit(2);
    }
    return f;
}

static float half(float x) { return am_f16_to_f32(am_f32_to_f16(x)); }

/* n values, `stride` apart, to their codes and back. */
static void group_round(float *x, size_t n, size_t stride, const form *f) {
    float low = INFINITY, high = -INFINITY, top = (float)((1 << f->bits) - 1);
    for (size_t i = 0; i < n; i++) {
        low = fminf(low, x[i * stride]);
        high = fmaxf(high, x[i * stride]);
    }
    float middle = (low + high) / 2, range = (high - low) * f->clip, bias = half(middle - range / 2), scale = half(range / top);
    for (size_t i = 0; i < n; i++) {
        float code = scale == 0 ? 0 : rintf((x[i * stride] - bias) / scale);
        x[i * stride] = fminf(fmaxf(code, 0), top) * scale + bias;
    }
}

static void turn(float *x, uint32_t dim, const am_rope *rope, uint32_t block, float sign) {
    uint32_t n = rope->dims / 2;
    for (uint32_t t = 0; t < ROWS; t++)
        for (uint32_t i = 0; i < n; i++) {
            float angle = (float)(block * ROWS + t) * rope->freq[i], c = cosf(angle), s = sign * sinf(angle);
            float *p = x + (size_t)t * dim + rope->first + i, a = p[0], b = p[n];
            p[0] = a * c - b * s;
            p[n] = b * c + a * s;
        }
}

static float size_of(const float *x, uint32_t n, size_t stride) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)(x[i * stride] * x[i * stride]);
    return sum > 0 ? (float)sqrt(sum / n) : 1;
}

/* One head's part of a block, [ROWS][dim]; returns its bits. */
static double part_round(float *x, uint32_t dim, const form *f, uint32_t block, const am_rope *rope) {
    static float saved[ROWS * MAX_DIM], mean[MAX_DIM], even[MAX_DIM], norm[ROWS];
    size_t n = (size_t)ROWS * dim;
    uint32_t group = f->tokens && (uint32_t)f->group > dim ? dim : (uint32_t)f->group;
    if (f->bits >= 16) return 16.0 * (double)n;
    memcpy(saved, x, n * sizeof *x);
    if (f->unrope && rope) turn(x, dim, rope, block, -1);
    for (uint32_t i = 0; i < dim; i++) {
        double sum = 0;
        for (uint32_t t = 0; f->mean && t < ROWS; t++) sum += (double)x[t * dim + i];
        mean[i] = half((float)(sum / ROWS));
        for (uint32_t t = 0; t < ROWS; t++) x[t * dim + i] -= mean[i];
        even[i] = f->even ? half(powf(size_of(x + i, ROWS, dim), f->power)) : 1;
    }
    for (uint32_t t = 0; t < ROWS; t++) norm[t] = f->norm ? half(size_of(x + t * dim, dim, 1)) : 1;
    for (size_t i = 0; i < n; i++) x[i] /= norm[i / dim] * even[i % dim];
    if (f->had) am_hadamard(x, ROWS, dim);
    for (uint32_t i = 0; i < n / group; i++) {
        if (f->tokens) group_round(x + (size_t)i * group, group, 1, f);
        else group_round(x + i / dim * group * dim + i % dim, group, dim, f);
    }
    if (f->had) am_hadamard(x, ROWS, dim);
    for (size_t i = 0; i < n; i++) x[i] = x[i] * norm[i / dim] * even[i % dim] + mean[i % dim];
    if (f->unrope && rope) turn(x, dim, rope, block, 1);
    if (block == 0) memcpy(x, saved, (size_t)f->sink * dim * sizeof *x);
    return (double)n * (f->bits + 32.0 / group) + 16.0 * dim * (f->mean + f->even) + 16.0 * ROWS * f->norm;
}

typedef struct bench {
    const am_model *model;
    const am_kernels *kernels;
    am_workspace *ws;
    am_kv_layout layout;
    void *open, *sealed[N_BLOCKS], **units[N_BLOCKS];
    size_t n_vocab;
    double bits, values; /* of what was sealed */
} bench;

static void layer_seal(bench *b, uint32_t layer, uint32_t block, const form *k, const form *v) {
    static float part[2][ROWS * MAX_DIM];
    const am_kv_spec *s = &b->layout.spec;
    const am_rope *rope = b->model->layers[layer].rope >= 0 ? &b->model->ropes[b->model->layers[layer].rope] : NULL;
    float *rows_k = am_calloc((size_t)ROWS * s->n_kv_head * s->head_dim_k, sizeof *rows_k);
    float *rows_v = am_calloc((size_t)ROWS * s->n_kv_head * s->head_dim_v, sizeof *rows_v);
    for (uint32_t h = 0; rows_k && rows_v && h < s->n_kv_head; h++) {
        am_mat from = am_kv_k(&b->layout, am_kv_open_layer(&b->layout, b->open, layer), false, h);
        for (uint32_t t = 0; t < ROWS; t++) b->kernels->mat_row(part[0] + t * s->head_dim_k, &from, t);
        memcpy(part[1], am_kv_v(&b->layout, am_kv_open_layer(&b->layout, b->open, layer), false, h).data, sizeof(float) * ROWS * s->head_dim_v);
        if (k->layer < 0 || k->layer == (int)layer) b->bits += part_round(part[0], s->head_dim_k, k, block, rope);
        if (v->layer < 0 || v->layer == (int)layer) b->bits += part_round(part[1], s->head_dim_v, v, block, NULL);
        b->values += (double)ROWS * (s->head_dim_k + s->head_dim_v);
        for (uint32_t t = 0; t < ROWS; t++) {
            memcpy(rows_k + ((size_t)t * s->n_kv_head + h) * s->head_dim_k, part[0] + t * s->head_dim_k, s->head_dim_k * sizeof(float));
            memcpy(rows_v + ((size_t)t * s->n_kv_head + h) * s->head_dim_v, part[1] + t * s->head_dim_v, s->head_dim_v * sizeof(float));
        }
    }
    void *to = (void *)(uintptr_t)am_kv_sealed_layer(&b->layout, (const void *const *)b->units[block], layer); /* exact: as an open block's only layer */
    for (uint32_t t = 0; rows_k && rows_v && t < ROWS; t++)
        am_kv_put(b->kernels, &b->layout, to, 0, t, rows_k + (size_t)t * s->n_kv_head * s->head_dim_k,
                  rows_v + (size_t)t * s->n_kv_head * s->head_dim_v);
    free(rows_k);
    free(rows_v);
}

/* out [WINDOW - ROWS][n_vocab] = log-probabilities of a window from its second block on. */
static void window_run(bench *b, const int32_t *ids, float *out, const form *k, const form *v) {
    am_error err;
    for (uint32_t block = 0; block < N_BLOCKS; block++) {
        am_segment segment = {.tokens = ids + block * ROWS, .n_tokens = ROWS, .n_past = block * ROWS,
                              .sealed = (const void *const *const *)b->units, .open = b->open};
        if (block) segment.logits = out + (size_t)(block - 1) * ROWS * b->n_vocab, segment.n_logits = ROWS;
        if (am_model_forward(b->model, b->ws, &segment, 1, &err)) fprintf(stderr, "%s\n", err.message), exit(1);
        for (uint32_t i = 0; i < b->layout.spec.n_layer; i++) layer_seal(b, i, block, k, v);
    }
    for (size_t r = 0; r < WINDOW - ROWS; r++) {
        float *x = out + r * b->n_vocab, most = -INFINITY;
        double sum = 0;
        for (size_t i = 0; i < b->n_vocab; i++) most = fmaxf(most, x[i]);
        for (size_t i = 0; i < b->n_vocab; i++) sum += (double)expf(x[i] - most);
        for (size_t i = 0; i < b->n_vocab; i++) x[i] -= most + (float)log(sum);
    }
}

typedef struct result {
    double nll, kld, same, bits;
} result;

static void compare(const bench *b, const float *p, const float *q, const int32_t *next, result *out) {
    for (size_t r = 0; r < WINDOW - ROWS; r++, p += b->n_vocab, q += b->n_vocab) {
        size_t best_p = 0, best_q = 0;
        for (size_t i = 0; i < b->n_vocab; i++) {
            if (p[i] > p[best_p]) best_p = i;
            if (q[i] > q[best_q]) best_q = i;
            if (p[i] > -30) out->kld += (double)expf(p[i]) * (double)(p[i] - q[i]);
        }
        out->same += best_p == best_q;
        out->nll -= (double)q[next[r]];
    }
}

static int32_t *text_ids(const bench *b, const char *path, size_t n_windows, size_t *n) {
    am_error err;
    am_tokens tokens = {0};
    am_buf text;
    am_buf_init(&text, 1 << 28);
    *n = n_windows * WINDOW + 1;
    if (strcmp(path, "-") == 0) {
        tokens.ids = am_calloc(*n, sizeof *tokens.ids);
        for (size_t i = 0; tokens.ids && i < *n; i++) tokens.ids[i] = (int32_t)(am_draw_uniform(5, i) * (double)b->n_vocab);
        return tokens.ids;
    }
    if (am_fs_read_file(path, &text, 1 << 28, &err) ||
        am_tokenizer_encode(am_model_tokenizer(b->model), am_buf_str(&text), NULL, 0, 0, &tokens, &err))
        fprintf(stderr, "%s\n", err.message), exit(1);
    *n = tokens.n;
    return tokens.ids;
}

static void bench_open(bench *b, const char *path) {
    am_error err;
    am_workers *workers;
    am_model *model;
    am_kv_spec spec;
    am_status status = am_kernels_pick(NULL, &b->kernels, &err);
    if (!status) status = am_workers_create(am_cpus_threads(), &workers, &err);
    if (!status) status = am_model_load(path, &(am_model_options){.kernels = b->kernels, .workers = workers}, &model, &err);
    if (!status) status = am_model_kv_spec(b->model = model, 32, 32, &spec, &err);
    if (!status) status = am_kv_layout_init(&b->layout, &spec, &err);
    if (!status) status = am_workspace_create(model, &b->layout, workers, ROWS, ROWS, &b->ws, &err);
    if (!status && (spec.head_dim_k > MAX_DIM || spec.head_dim_v > MAX_DIM)) status = am_fail(&err, AM_EUNSUPPORTED, "heads are too wide");
    if (status) fprintf(stderr, "%s\n", err.message), exit(1);
    b->open = am_alloc_aligned(b->layout.open_bytes);
    for (int i = 0; i < N_BLOCKS; i++) {
        b->sealed[i] = am_alloc_aligned(b->layout.sealed_bytes);
        b->units[i] = am_calloc(b->layout.n_units, sizeof *b->units[i]);
        if (b->units[i]) am_kv_units_of(&b->layout, b->sealed[i], b->units[i]);
    }
    b->n_vocab = am_model_info_of(model)->n_vocab;
}

int main(int argc, char **argv) {
    if (argc < 5) return fprintf(stderr, "usage: bench_kv_forms MODEL TEXT|- WINDOWS KEYS,VALUES...\n"), 2;
    static bench b;
    size_t n_ids, n_windows = (size_t)atoi(argv[3]), n_forms = (size_t)argc - 4, n_logits;
    bench_open(&b, argv[1]);
    n_logits = (WINDOW - ROWS) * b.n_vocab;
    int32_t *ids = text_ids(&b, argv[2], n_windows, &n_ids);
    float *exact = am_calloc(n_logits, sizeof *exact), *logits = am_calloc(n_logits, sizeof *logits);
    result none = {0}, *results = am_calloc(n_forms, sizeof *results);
    form x = form_parse("x");
    if (!ids || !exact || !logits || !results) return fprintf(stderr, "no memory\n"), 1;
    size_t n_rows = 0;
    for (size_t w = 0; w < n_windows && (w + 1) * WINDOW < n_ids; w++, n_rows += WINDOW - ROWS) {
        const int32_t *next = ids + w * WINDOW + ROWS + 1;
        window_run(&b, ids + w * WINDOW, exact, &x, &x);
        compare(&b, exact, exact, next, &none);
        for (size_t i = 0; i < n_forms; i++) {
            char copy[256];
            snprintf(copy, sizeof copy, "%s", argv[4 + i]);
            char *values = strchr(copy, ',');
            if (!values) return fprintf(stderr, "'%s' is not KEYS,VALUES\n", copy), 2;
            *values++ = 0;
            form k = form_parse(copy), v = form_parse(values);
            b.bits = b.values = 0;
            window_run(&b, ids + w * WINDOW, logits, &k, &v);
            compare(&b, exact, logits, next, &results[i]);
            results[i].bits = b.bits / b.values;
        }
    }
    double n = (double)n_rows;
    printf("%.0f positions, exact perplexity %.4f\n", n, exp(none.nll / n));
    for (size_t i = 0; i < n_forms; i++)
        printf("%-44s %6.3f bits  perplexity %+6.2f %%  KLD %.5f  same top %.2f %%\n", argv[4 + i], results[i].bits,
               100 * (exp((results[i].nll - none.nll) / n) - 1), results[i].kld / n, 100 * results[i].same / n);
    return 0;
}
