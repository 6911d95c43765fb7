/* What choosing a token costs, in microseconds, over a vocabulary: on logits as language models have them (few tokens hold most of the mass) and on flat
 * ones (a model of random weights: the mass is everywhere).
 *
 *   build/bench/bench_sampler [VOCABULARY [RUNS]]      default: 128256, 201 */
#include "base/clock.h"
#include "engine/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_RUNS = 2001 };

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static void make_logits(float *x, uint32_t n, double spread) {
    for (uint32_t i = 0; i < n; i++) {
        double u = am_draw_uniform(1, i) + 1e-12, v = am_draw_uniform(2, i);
        x[i] = (float)(spread * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
}

typedef struct way {
    const char *name;
    am_sampling sampling;
} way;

static double cost(am_sampler *sampler, const way *w, const float *logits, int runs) {
    static double us[MAX_RUNS];
    am_sample sample;
    for (int i = 0; i < runs; i++) {
        uint64_t start = am_now_ns();
        am_sampler_pick(sampler, &(am_draw){&w->sampling, NULL, 1, (uint64_t)i}, logits, &sample);
        us[i] = (double)(am_now_ns() - start) * 1e-3;
    }
    qsort(us, (size_t)runs, sizeof *us, by_value);
    return us[runs / 2];
}

int main(int argc, char **argv) {
    uint32_t n = argc > 1 ? (uint32_t)atoi(argv[1]) : 128256;
    int runs = argc > 2 ? atoi(argv[2]) : 201;
    way ways[] = {{"greedy", AM_SAMPLING},   {"temperature 1", AM_SAMPLING},        {"top_k 40", AM_SAMPLING},
                  {"top_p 0.95", AM_SAMPLING}, {"min_p 0.05", AM_SAMPLING},         {"typical_p 0.95", AM_SAMPLING},
                  {"top_k 40, top_p 0.95, min_p 0.05", AM_SAMPLING},                {"greedy, 20 logprobs", AM_SAMPLING}};
    ways[0].sampling.temperature = ways[7].sampling.temperature = 0;
    ways[2].sampling.top_k = ways[6].sampling.top_k = 40;
    ways[3].sampling.top_p = ways[6].sampling.top_p = 0.95f;
    ways[4].sampling.min_p = ways[6].sampling.min_p = 0.05f;
    ways[5].sampling.typical_p = 0.95f;
    ways[7].sampling.top_logprobs = 20;
    if (n < 32 || n > 1 << 24 || runs < 1 || runs > MAX_RUNS) return fprintf(stderr, "bench_sampler [VOCABULARY [RUNS]]\n"), 1;
    am_sampler *sampler;
    const am_kernels *kernels;
    if (am_kernels_pick(getenv("AM_ISA"), &kernels, NULL)) return fprintf(stderr, "bench_sampler: no such table\n"), 1;
    float *peaked = am_calloc(n, sizeof *peaked), *flat = am_calloc(n, sizeof *flat);
    if (!peaked || !flat || am_sampler_create(n, kernels, &sampler, NULL)) return fprintf(stderr, "bench_sampler: no memory\n"), 1;
    make_logits(peaked, n, 3);
    make_logits(flat, n, 0.5);
    for (uint32_t i = 0; i < 20; i++) peaked[i * 101 % n] += (float)(20 - i);
    printf("%u tokens, microseconds a token (medians of %d):        peaked     flat\n", n, runs);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        printf("%-50s %10.1f %10.1f\n", ways[i].name, cost(sampler, &ways[i], peaked, runs), cost(sampler, &ways[i], flat, runs));
    am_sampler_free(sampler);
    free(peaked);
    free(flat);
    return 0;
}
