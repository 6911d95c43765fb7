/* Lookup decoding: tokens a second with drafts and without, in one run: medians, and the median of the pairs' ratios with the middle half of them (whose turn
 * is first changes from pair to pair, so what the machine does meanwhile cancels out). The answers are a script's (it puts the wanted token on top of the logits), so a
 * model of random weights serves: the passes cost what they cost whatever is said.
 *
 *   copy      the prompt's second half comes back, one token in forty changed, one in eighty new: a file returned with small edits
 *   phrases   tokens of a vocabulary of 64, at random: pairs that were there before are everywhere, and what followed them says nothing
 *   new       tokens that never come twice
 *
 *   build/bench/bench_lookup [MODEL [TOKENS [RUNS]]]      default: the embedded model, 256, 5 */
#include "engine_bench.h"

enum { PROMPT = 256, MAX_RUNS = 32 };

typedef struct script {
    int32_t ids[PROMPT + BENCH_MAX_TOKENS]; /* prompt and answer */
    uint32_t n_vocab;
} script;

static void say(void *arg, const char *request, uint32_t position, float *logits) {
    const script *s = arg;
    (void)request;
    logits[s->ids[position]] = 1e9f;
}

static int32_t new_token(const script *s, uint32_t i) { return (int32_t)(64 + i * 7919u % (s->n_vocab - 64)); }

static void write_script(script *s, const char *kind, uint32_t n) {
    uint64_t seed = 7;
    uint32_t from = PROMPT / 2;
    for (uint32_t i = 0; i < PROMPT + n; i++) {
        bool phrases = strcmp(kind, "phrases") == 0;
        s->ids[i] = phrases ? (int32_t)bench_dice(&seed, 64) : new_token(s, i);
        if (strcmp(kind, "copy") || i < PROMPT) continue;
        uint32_t edit = bench_dice(&seed, 80);
        if (from >= PROMPT) from = PROMPT / 2;
        if (edit > 1) s->ids[i] = s->ids[from];
        if (edit > 0) from++;
    }
}

/* One engine of each kind for the whole run: they learn what passes cost, and what guesses are worth. */
static am_status start(bench_engine *b, am_engine *engines[2], am_error *err) {
    char dirs[2][80];
    for (int with = 0; with < 2; with++) {
        snprintf(dirs[with], sizeof dirs[with], "%s/%d", b->dir, with);
        b->options.cache.dir = dirs[with];
        b->options.lookup = with ? AM_LOOKUP_AUTO : AM_LOOKUP_OFF;
        am_status status = am_engine_start(&b->options, &engines[with], err);
        if (status) return status;
    }
    return AM_OK;
}

static double run(bench_engine *b, script *s, uint32_t n, bench_answer *out) {
    bench_answer *a = bench_send(b, NULL, s->ids, PROMPT, n, NULL);
    if (!a) return 0;
    bench_wait(a, UINT32_MAX);
    double rate = a->failed ? 0 : (a->n_generated - 1) / (a->decode_ms * 1e-3);
    *out = *a;
    free(a);
    return rate;
}

int main(int argc, char **argv) {
    static const char *const kinds[] = {"copy", "phrases", "new"};
    static script s;
    static bench_answer last, plain;
    bench_engine b;
    am_engine *engines[2] = {NULL, NULL};
    am_error err = {0};
    uint32_t n = argc > 2 ? (uint32_t)atoi(argv[2]) : 256;
    int runs = argc > 3 ? atoi(argv[3]) : 5;
    if (runs < 1 || runs > MAX_RUNS) runs = 5;
    am_status status = bench_load(&b, argc > 1 && *argv[1] ? argv[1] : NULL, &err);
    if (!status && (n < 2 || n + PROMPT > b.options.n_ctx)) status = am_fail(&err, AM_EINVAL, "TOKENS must be 2 to %u", b.options.n_ctx - PROMPT);
    b.options.on_logits = say;
    b.options.on_logits_arg = &s;
    if (!status) s.n_vocab = am_model_info_of(b.model)->n_vocab;
    if (!status) status = start(&b, engines, &err);
    for (size_t k = 0; !status && k < sizeof kinds / sizeof *kinds; k++) {
        double rate[2][MAX_RUNS], ratio[MAX_RUNS];
        write_script(&s, kinds[k], n);
        for (int i = -1; !status && i < runs; i++) /* the first warms up */
            for (int turn = 0; !status && turn < 2; turn++) {
                int with = (turn + i) & 1;
                b.engine = engines[with];
                double r = run(&b, &s, n, with ? &last : &plain);
                if (r <= 0) status = am_fail(&err, AM_EIO, "no answer");
                if (i >= 0) rate[with][i] = r;
            }
        if (status) break;
        for (int i = 0; i < runs; i++) ratio[i] = rate[1][i] / rate[0][i];
        double off = bench_median(rate[0], runs), on = bench_median(rate[1], runs), pairs = bench_median(ratio, runs);
        printf("%-8s %8.1f tok/s without, %8.1f with drafts; pairs %5.3fx (%.3f to %.3f)   (%u of %u drafted tokens were right, %u tokens)\n", kinds[k], off, on,
               pairs, ratio[runs / 4], ratio[runs - 1 - runs / 4], last.n_accepted, last.n_drafted, last.n_generated);
    }
    if (status) fprintf(stderr, "bench_lookup: %s\n", err.message);
    for (int with = 0; with < 2; with++) {
        b.engine = engines[with];
        bench_stop(&b);
    }
    bench_free(&b);
    return status != AM_OK;
}
