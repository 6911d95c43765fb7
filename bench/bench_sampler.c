/* What choosing a token costs, in microseconds, over a vocabulary: on logits as language models have them (few tokens hold most of the mass) and on flat
 * ones (a model of random weights: the mass is everywhere); masked: flat, one token in 97 allowed, the rest minus infinity.
 *
 *   build/bench/bench_sampler [VOCABULARY [RUNS]]      default: 128256, 201 */
#include "base/clock.h"
#include "engine/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_RUNS = 2001, SEEN = 8192, BIASED = 300 };

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
    const am_history *history;
} way;

static double cost(am_sampler *sampler, const way *w, const float *logits, int runs) {
    static double us[MAX_RUNS];
    am_sample sample;
    for (int i = 0; i < runs; i++) {
        uint64_t start = am_now_ns();
        am_sampler_pick(sampler, &(am_draw){&w->sampling, w->history, 1, (uint64_t)i}, logits, &sample);
        us[i] = (double)(am_now_ns() - start) * 1e-3;
    }
    qsort(us, (size_t)runs, sizeof *us, by_value);
    return us[runs / 2];
}

int main(int argc, char **argv) {
    uint32_t n = argc > 1 ? (uint32_t)atoi(argv[1]) : 128256;
    int runs = argc > 2 ? atoi(argv[2]) : 201;
    am_logit_bias bias[BIASED];
    am_history history;
    way ways[] = {{"greedy", AM_SAMPLING, NULL},
                  {"temperature 1", AM_SAMPLING, NULL},
                  {"top_k 40", AM_SAMPLING, NULL},
                  {"top_p 0.95", AM_SAMPLING, NULL},
                  {"min_p 0.05", AM_SAMPLING, NULL},
                  {"typical_p 0.95", AM_SAMPLING, NULL},
                  {"top_k 40, top_p 0.95, min_p 0.05", AM_SAMPLING, NULL},
                  {"greedy, 20 logprobs", AM_SAMPLING, NULL},
                  {"penalties of 8192 tokens", AM_SAMPLING, &history},
                  {"bias of 300 tokens", AM_SAMPLING, NULL},
                  {"typical_p and top_p 0.95, penalties, bias", AM_SAMPLING, &history}};
    ways[0].sampling.temperature = ways[7].sampling.temperature = 0;
    ways[2].sampling.top_k = ways[6].sampling.top_k = 40;
    ways[3].sampling.top_p = ways[6].sampling.top_p = 0.95f;
    ways[4].sampling.min_p = ways[6].sampling.min_p = 0.05f;
    ways[5].sampling.typical_p = 0.95f;
    ways[7].sampling.top_logprobs = 20;
    ways[8].sampling.repetition_penalty = ways[10].sampling.repetition_penalty = 1.1f;
    ways[8].sampling.frequency_penalty = ways[10].sampling.frequency_penalty = 0.1f;
    ways[9].sampling.bias = ways[10].sampling.bias = bias;
    ways[9].sampling.n_bias = ways[10].sampling.n_bias = BIASED;
    ways[10].sampling.top_p = ways[10].sampling.typical_p = 0.95f;
    if (n < 32 || n > 1 << 24 || runs < 1 || runs > MAX_RUNS) return fprintf(stderr, "bench_sampler [VOCABULARY [RUNS]]\n"), 1;
    am_sampler *sampler;
    const am_kernels *kernels;
    if (am_kernels_pick(getenv("AM_ISA"), &kernels, NULL)) return fprintf(stderr, "bench_sampler: no such table\n"), 1;
    float *peaked = am_calloc(n, sizeof *peaked), *flat = am_calloc(n, sizeof *flat), *masked = am_calloc(n, sizeof *masked);
    if (!peaked || !flat || !masked || am_sampler_create(n, kernels, &sampler, NULL)) return fprintf(stderr, "bench_sampler: no memory\n"), 1;
    if (am_history_init(&history, n, NULL)) return fprintf(stderr, "bench_sampler: no memory\n"), 1;
    for (uint32_t i = 0; i < SEEN; i++) am_history_add(&history, (int32_t)(i * 7919u % n), i % 2);
    for (uint32_t i = 0; i < BIASED; i++) bias[i] = (am_logit_bias){(int32_t)(i * 104729u % n), (float)(i % 5) - 2};
    make_logits(peaked, n, 3);
    make_logits(flat, n, 0.5);
    for (uint32_t i = 0; i < 20; i++) peaked[i * 101 % n] += (float)(20 - i);
    for (uint32_t i = 0; i < n; i++) masked[i] = i % 97 ? -INFINITY : flat[i];
    printf("%u tokens, microseconds a token (medians of %d):        peaked     flat   masked\n", n, runs);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        printf("%-50s %10.1f %10.1f %8.1f\n", ways[i].name, cost(sampler, &ways[i], peaked, runs), cost(sampler, &ways[i], flat, runs),
               cost(sampler, &ways[i], masked, runs));
    am_history_free(&history);
    am_sampler_free(sampler);
    free(peaked);
    free(flat);
    free(masked);
    return 0;
}
