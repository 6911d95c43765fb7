/* What a sealed block costs: sealing one head of it, and attention to it (scores, then values) for tiles of 1, 4, 16 and 32 query rows, by the
 * form of its keys and values. One thread; microseconds, the best of several rounds.
 * usage: build/bench/bench_kv [ISA] */
#include "base/clock.h"
#include "kernels/kv.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 40, MAX_ROWS = 32 };

typedef struct bench {
    const am_kernels *kernels;
    am_kv_layout layout;
    void *open, *sealed;
    float *q, *s, *acc;
} bench;

static float noise(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

static void seal(bench *b, uint32_t n_rows) {
    (void)n_rows;
    am_kv_seal(b->kernels, &b->layout, b->open, &b->sealed, 0);
}

static void attend(bench *b, uint32_t n_rows) {
    const am_kv_spec *s = &b->layout.spec;
    am_mat k = am_kv_k(&b->layout, b->sealed, true, 0);
    am_rows v = {0};
    if (!s->shared) v = am_kv_v(&b->layout, b->sealed, true, 0);
    b->kernels->matmul(b->s, AM_BLOCK_TOKENS, b->q, s->head_dim_k, n_rows, &k, 0, AM_BLOCK_TOKENS / AM_PANEL);
    if (s->shared) b->kernels->mat_accumulate(b->acc, s->head_dim_v, b->s, AM_BLOCK_TOKENS, n_rows, &k, s->head_dim_v, 0, AM_BLOCK_TOKENS);
    else b->kernels->rows_accumulate(b->acc, s->head_dim_v, b->s, AM_BLOCK_TOKENS, n_rows, &v, 0, AM_BLOCK_TOKENS);
}

static double best_us(bench *b, void (*fn)(bench *b, uint32_t n_rows), uint32_t n_rows) {
    double best = 1e30;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = am_now_ns();
        for (int i = 0; i < 8; i++) fn(b, n_rows);
        double us = (double)(am_now_ns() - start) / 8000;
        if (us < best) best = us;
    }
    return best;
}

/* latent: dimensions that are value and key at once, with 64 more in the key. */
static void measure(const am_kernels *kernels, uint32_t dim, uint32_t bits_k, uint32_t bits_v, bool latent) {
    am_kv_spec spec = {.n_layer = 1, .n_kv_head = 1, .head_dim_k = dim + (latent ? 64 : 0), .head_dim_v = dim, .bits_k = bits_k,
                       .bits_v = bits_v, .shared = latent};
    bench b = {.kernels = kernels};
    if (am_kv_layout_init(&b.layout, &spec, NULL)) return;
    b.open = am_alloc_aligned(b.layout.open_bytes);
    b.sealed = am_alloc_aligned(b.layout.sealed_bytes);
    b.q = am_calloc(MAX_ROWS * spec.head_dim_k, sizeof *b.q);
    b.s = am_calloc(MAX_ROWS * AM_BLOCK_TOKENS, sizeof *b.s);
    b.acc = am_calloc(MAX_ROWS * dim, sizeof *b.acc);
    if (b.open && b.sealed && b.q && b.s && b.acc) {
        for (uint32_t i = 0; i < MAX_ROWS * spec.head_dim_k; i++) b.q[i] = noise();
        for (uint32_t row = 0; row < AM_BLOCK_TOKENS; row++) am_kv_put(kernels, &b.layout, b.open, 0, row, b.q + row % 31 * dim, b.q + row % 29 * dim);
        printf("%-7s %4u%s %2u,%-2u   %8.2f   %8.2f %8.2f %8.2f %8.2f\n", kernels->name, dim, latent ? "+64" : "   ", bits_k, bits_v, best_us(&b, seal, 0), best_us(&b, attend, 1),
               best_us(&b, attend, 4), best_us(&b, attend, 16), best_us(&b, attend, 32));
    }
    free(b.open), free(b.sealed), free(b.q), free(b.s), free(b.acc);
}

int main(int argc, char **argv) {
    static const uint32_t forms[][2] = {{16, 16}, {8, 8}, {5, 4}, {4, 4}};
    const am_kernels *kernels;
    am_error err = {0};
    if (am_kernels_pick(argc > 1 ? argv[1] : NULL, &kernels, &err)) return fprintf(stderr, "%s\n", err.message), 1;
    printf("table    dim    K,V    seal us   attend us: 1 row   4 rows  16 rows  32 rows\n");
    for (uint32_t dim = 64; dim <= 256; dim *= 2)
        for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) measure(kernels, dim, forms[i][0], forms[i][1], false);
    measure(kernels, 512, 5, 5, false);
    measure(kernels, 512, 16, 16, true);
    measure(kernels, 512, 5, 5, true);
    return 0;
}
