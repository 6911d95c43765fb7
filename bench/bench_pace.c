/* What a running stream feels while another agent's long prompt is read: the gaps between its tokens, and what the prompt's reading loses by it.
 * The prompt alone and beside the stream, in turn; medians, and the worst gap of all runs.
 *
 *   build/bench/bench_pace [MODEL [PROMPT_TOKENS [RUNS [STEP_MS]]]]      default: the embedded model, 2048, 5, 100 */
#include "engine_bench.h"

enum { WARM_TOKENS = 12, MAX_RUNS = 32 };

static int32_t prompt[BENCH_MAX_TOKENS];

static double prompt_rate(bench_engine *b, uint32_t n, bench_answer **out) {
    bench_answer *a = bench_send(b, NULL, prompt, n, 1, NULL);
    if (!a) return 0;
    bench_wait(a, UINT32_MAX);
    *out = a;
    return n / (a->prefill_ms * 1e-3);
}

/* Gaps of the stream from the first token before `from` to the first one after `to`, in ms. */
static uint32_t gaps(const bench_answer *a, uint64_t from, uint64_t to, double *out) {
    uint32_t n = 0;
    for (uint32_t i = 1; i < a->n_tokens; i++)
        if (a->at_ns[i] > from && a->at_ns[i - 1] < to) out[n++] = (double)(a->at_ns[i] - a->at_ns[i - 1]) / 1e6;
    return n;
}

int main(int argc, char **argv) {
    static double gap[BENCH_MAX_TOKENS], alone[MAX_RUNS], beside[MAX_RUNS], longest[MAX_RUNS], p99[MAX_RUNS];
    bench_engine b;
    am_error err = {0};
    uint32_t n = argc > 2 ? (uint32_t)atoi(argv[2]) : 2048;
    int runs = argc > 3 ? atoi(argv[3]) : 5;
    if (runs < 1 || runs > MAX_RUNS) runs = 5;
    am_status status = bench_load(&b, argc > 1 && *argv[1] ? argv[1] : NULL, &err);
    if (!status && (n < 16 || n >= b.options.n_ctx)) status = am_fail(&err, AM_EINVAL, "PROMPT_TOKENS must be 16 to %u", b.options.n_ctx - 1);
    b.options.step_ms = argc > 4 ? (uint32_t)atoi(argv[4]) : 100;
    b.options.lookup = AM_LOOKUP_OFF;
    if (!status) status = am_engine_start(&b.options, &b.engine, &err);
    double worst = 0;
    for (int i = -1; !status && i < runs; i++) { /* the first warms up */
        uint64_t seed = (uint64_t)i + 3, id;
        for (uint32_t t = 0; t < n; t++) prompt[t] = (int32_t)bench_dice(&seed, am_model_info_of(b.model)->n_vocab);
        bench_answer *one = NULL, *two = NULL, *stream = NULL;
        double first = prompt_rate(&b, n, &one);
        stream = bench_send(&b, NULL, prompt + n - 16, 16, 4096, &id);
        if (stream) {
            bench_wait(stream, WARM_TOKENS);
            double second = prompt_rate(&b, n, &two);
            bench_wait(stream, stream->n_tokens + 4);
            am_engine_cancel(b.engine, id);
            bench_wait(stream, UINT32_MAX);
            uint32_t n_gaps = two ? gaps(stream, two->started_ns, two->at_ns[0], gap) : 0;
            if (i >= 0 && n_gaps > 0) {
                bench_median(gap, (int)n_gaps); /* sorts */
                alone[i] = first, beside[i] = second, longest[i] = gap[n_gaps - 1], p99[i] = gap[(n_gaps - 1) * 99 / 100];
                if (longest[i] > worst) worst = longest[i];
            }
        }
        if (!one || !two || !stream) status = AM_EIO;
        free(one), free(two), free(stream);
    }
    if (!status) {
        double a = bench_median(alone, runs), s = bench_median(beside, runs);
        printf("prompt of %u tokens alone %.1f tok/s, beside a stream %.1f (%.0f %%); gaps of the stream: longest %.1f ms (worst of %d runs %.1f), 99th of 100 %.1f ms\n",
               n, a, s, 100 * s / a, bench_median(longest, runs), runs, worst, bench_median(p99, runs));
    } else {
        fprintf(stderr, "bench_pace: %s\n", err.message);
    }
    bench_free(&b);
    return status != AM_OK;
}
