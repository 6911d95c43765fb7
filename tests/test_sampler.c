/* engine/sampler.c: distributions against an independent computation in double by sorting, each parameter alone and all together. */
#include "engine/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 97, N_DRAWS = 40000 };

static float logits[N];

static void make_logits(uint64_t seed) {
    for (int i = 0; i < N; i++) logits[i] = (float)(8 * am_draw_uniform(seed, (uint64_t)i) - 4);
}

static am_sampler *sampler;
static am_history history;

static int setup(void **state) {
    (void)state;
    make_logits(1);
    am_history_init(&history, N, NULL);
    const am_kernels *kernels;
    assert_int_equal(am_kernels_pick(NULL, &kernels, NULL), AM_OK);
    return am_sampler_create(N, kernels, &sampler, NULL);
}

static int teardown(void **state) {
    (void)state;
    am_sampler_free(sampler);
    am_history_free(&history);
    return 0;
}

static am_sample pick(const am_sampling *s, const am_history *h, uint64_t seed, uint64_t position) {
    am_sample out;
    memset(&out, 0xee, sizeof out);
    am_sampler_pick(sampler, &(am_draw){s, h, seed, position}, logits, &out);
    return out;
}

/* The reference: every step on a fully sorted table, in double. */
typedef struct row {
    double x, p, key;
    int token;
    bool in;
} row;

static int by_key(const void *a, const void *b) {
    const row *x = a, *y = b;
    if (x->in != y->in) return x->in ? -1 : 1;
    return x->key > y->key ? -1 : x->key < y->key ? 1 : x->token - y->token;
}

static void normalise(row *r) {
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < N; i++)
        if (r[i].in && r[i].x > max) max = r[i].x;
    for (int i = 0; i < N; i++) sum += r[i].p = r[i].in ? exp(r[i].x - max) : 0;
    for (int i = 0; i < N; i++) r[i].p /= sum;
}

static void keep_mass(row *r, double mass) {
    qsort(r, N, sizeof *r, by_key);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        bool keep = r[i].in && (i == 0 || sum < mass);
        sum += r[i].p;
        r[i].in = keep;
    }
    normalise(r);
}

static void reference(const am_sampling *s, const uint32_t *in_prompt, const uint32_t *times, double *p) {
    row r[N];
    for (int i = 0; i < N; i++) {
        double x = logits[i];
        for (uint32_t b = 0; b < s->n_bias; b++)
            if (s->bias[b].token == i) x += s->bias[b].bias;
        if (in_prompt[i] || times[i]) x = x > 0 ? x / s->repetition_penalty : x * s->repetition_penalty;
        x -= s->frequency_penalty * times[i] + (times[i] ? s->presence_penalty : 0);
        r[i] = (row){.x = x / s->temperature, .token = i, .in = true};
    }
    normalise(r);
    if (s->top_k > 0) {
        for (int i = 0; i < N; i++) r[i].key = r[i].x;
        qsort(r, N, sizeof *r, by_key);
        for (int i = s->top_k; i < N; i++) r[i].in = false;
        normalise(r);
    }
    if (s->typical_p < 1) {
        double entropy = 0;
        for (int i = 0; i < N; i++)
            if (r[i].p > 0) entropy -= r[i].p * log(r[i].p);
        for (int i = 0; i < N; i++) r[i].key = r[i].in ? -fabs(-log(r[i].p) - entropy) : -INFINITY;
        keep_mass(r, s->typical_p);
    }
    if (s->top_p < 1) {
        for (int i = 0; i < N; i++) r[i].key = r[i].x;
        keep_mass(r, s->top_p);
    }
    double most = 0;
    for (int i = 0; i < N; i++)
        if (r[i].p > most) most = r[i].p;
    for (int i = 0; i < N; i++)
        if (r[i].p < s->min_p * most) r[i].in = false;
    normalise(r);
    for (int i = 0; i < N; i++) p[r[i].token] = r[i].p;
}

/* Draws many times: no token outside the reference's support, every frequency within five standard deviations. */
static void compare(const am_sampling *s) {
    static uint32_t in_prompt[N], times[N];
    memset(in_prompt, 0, sizeof in_prompt);
    memset(times, 0, sizeof times);
    am_history_free(&history);
    am_history_init(&history, N, NULL);
    if (am_sampling_wants_history(s))
        for (int i = 0; i < N; i += 3) {
            am_history_add(&history, i, false);
            in_prompt[i] = 1;
            for (int j = 0; j < i % 4; j++) am_history_add(&history, i + 1, true), times[i + 1]++;
        }
    double p[N];
    reference(s, in_prompt, times, p);
    int count[N] = {0};
    for (uint64_t i = 0; i < N_DRAWS; i++) count[pick(s, &history, 7, i).token]++;
    for (int i = 0; i < N; i++) {
        if (p[i] == 0) assert_int_equal(count[i], 0);
        double expected = p[i] * N_DRAWS, deviation = sqrt(expected * (1 - p[i])) + 1;
        if (fabs(count[i] - expected) > 5 * deviation) fail_msg("token %d: %d draws, expected %g", i, count[i], expected);
    }
}

static void temperature_one_draws_the_softmax(void **state) {
    (void)state;
    compare(&AM_SAMPLING);
}

static void each_parameter_alone_gives_its_distribution(void **state) {
    (void)state;
    am_logit_bias bias[] = {{3, 5}, {4, -100}, {90, 2.5f}};
    am_sampling s[11];
    for (int i = 0; i < 11; i++) s[i] = AM_SAMPLING;
    s[0].temperature = 0.4f;
    s[1].temperature = 2.5f;
    s[2].top_k = 5;
    s[3].top_p = 0.6f;
    s[4].min_p = 0.2f;
    s[5].typical_p = 0.5f;
    s[6].repetition_penalty = 1.7f;
    s[7].frequency_penalty = 0.9f;
    s[8].presence_penalty = 1.5f;
    s[9].bias = bias, s[9].n_bias = 3;
    s[10].top_k = 1;
    for (int i = 0; i < 11; i++) compare(&s[i]);
}

static void all_parameters_together_follow_the_stated_order(void **state) {
    (void)state;
    am_logit_bias bias[] = {{10, 3}, {11, -3}};
    for (uint64_t i = 0; i < 6; i++) {
        make_logits(100 + i);
        am_sampling s = AM_SAMPLING;
        s.temperature = 0.7f + 0.3f * (float)i;
        s.top_k = 40 - 3 * (int)i;
        s.typical_p = 0.95f;
        s.top_p = 0.9f;
        s.min_p = 0.05f;
        s.repetition_penalty = 1.2f;
        s.frequency_penalty = 0.3f;
        s.presence_penalty = -0.4f;
        s.bias = bias;
        s.n_bias = 2;
        compare(&s);
    }
    make_logits(1);
}

static void greedy_takes_the_largest_and_ties_go_to_the_lowest_id(void **state) {
    (void)state;
    am_sampling s = AM_SAMPLING;
    s.temperature = 0;
    logits[20] = logits[60] = logits[61] = 50;
    assert_int_equal(pick(&s, NULL, 1, 1).token, 20);
    s.temperature = 1;
    s.top_k = 1;
    for (uint64_t i = 0; i < 100; i++) assert_int_equal(pick(&s, NULL, 1, i).token, 20);
    s = AM_SAMPLING;
    s.top_p = 0;
    for (uint64_t i = 0; i < 100; i++) assert_int_equal(pick(&s, NULL, 1, i).token, 20);
    s.top_p = 1;
    s.temperature = 1e-30f;
    for (uint64_t i = 0; i < 100; i++) {
        int32_t token = pick(&s, NULL, 1, i).token;
        assert_true(token == 20 || token == 60 || token == 61);
    }
    make_logits(1);
}

static void hostile_logits_never_break_it(void **state) {
    (void)state;
    am_sampling s = AM_SAMPLING;
    s.top_logprobs = 5;
    for (int i = 0; i < N; i++) logits[i] = NAN;
    assert_in_range(pick(&s, NULL, 1, 1).token, 0, N - 1);
    logits[33] = -2;
    assert_int_equal(pick(&s, NULL, 1, 1).token, 33);
    for (int i = 0; i < N; i++) logits[i] = i == 40 ? INFINITY : -INFINITY;
    assert_int_equal(pick(&s, NULL, 1, 1).token, 40);
    for (int i = 0; i < N; i++) logits[i] = i % 2 ? 3e38f : -3e38f;
    s.typical_p = 0.5f, s.top_p = 0.5f, s.min_p = 0.5f, s.top_k = 50;
    assert_int_equal(pick(&s, NULL, 1, 1).token % 2, 1);
    make_logits(1);
}

static void a_seed_and_position_name_one_draw(void **state) {
    (void)state;
    am_sampling s = AM_SAMPLING;
    int32_t first[200];
    int n_same = 0;
    for (uint64_t i = 0; i < 200; i++) first[i] = pick(&s, NULL, 42, i).token;
    for (uint64_t i = 200; i-- > 0;) assert_int_equal(pick(&s, NULL, 42, i).token, first[i]);
    for (uint64_t i = 0; i < 200; i++) n_same += pick(&s, NULL, 43, i).token == first[i];
    assert_true(n_same < 100);
}

static void logprobs_are_of_the_raw_distribution(void **state) {
    (void)state;
    am_sampling s = AM_SAMPLING;
    s.temperature = 0.1f;
    s.top_k = 3;
    s.top_logprobs = 20;
    am_sample sample = pick(&s, NULL, 5, 5);
    double sum = 0, log_sum = 0;
    for (int i = 0; i < N; i++) log_sum += exp(logits[i]);
    log_sum = log(log_sum);
    assert_true(fabs(sample.logprob - (logits[sample.token] - log_sum)) < 1e-5);
    assert_int_equal(sample.n_top, 20);
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(fabs(sample.top[i].logprob - (logits[sample.top[i].token] - log_sum)) < 1e-5);
        if (i) assert_true(sample.top[i].logprob <= sample.top[i - 1].logprob);
        sum += exp(sample.top[i].logprob);
    }
    assert_true(sum <= 1 + 1e-6);
    uint32_t n_above = 0; /* nothing outside the twenty is likelier than the last of them */
    for (int i = 0; i < N; i++) n_above += logits[i] > logits[sample.top[19].token];
    assert_int_equal(n_above, 19);
    sum = 0;
    for (int i = 0; i < N; i++) { /* one at a time they sum to one */
        am_logit_bias bias = {i, 1000};
        s = AM_SAMPLING;
        s.temperature = 0, s.top_logprobs = 0, s.bias = &bias, s.n_bias = 1;
        sample = pick(&s, NULL, 1, 1);
        assert_int_equal(sample.token, i);
        assert_int_equal(sample.n_top, 0);
        sum += exp(sample.logprob);
    }
    assert_true(fabs(sum - 1) < 1e-5);
}

static void parameters_out_of_range_are_named(void **state) {
    (void)state;
    am_error err;
    am_sampling s = AM_SAMPLING;
    assert_int_equal(am_sampling_check(&s, N, &err), AM_OK);
    s.temperature = -1;
    assert_int_equal(am_sampling_check(&s, N, &err), AM_EINVAL);
    assert_non_null(strstr(err.message, "temperature"));
    s = AM_SAMPLING;
    s.top_p = NAN;
    assert_int_equal(am_sampling_check(&s, N, &err), AM_EINVAL);
    assert_non_null(strstr(err.message, "top_p"));
    s = AM_SAMPLING;
    s.bias = &(am_logit_bias){N, 1};
    s.n_bias = 1;
    assert_int_equal(am_sampling_check(&s, N, &err), AM_EINVAL);
    s.bias = &(am_logit_bias){0, INFINITY};
    assert_int_equal(am_sampling_check(&s, N, &err), AM_EINVAL);
}

/* A vocabulary of a real model's size, peaked and flat: what can be drawn is what sorting everything says. */
static void large_vocabularies_are_cut_where_sorting_cuts(void **state) {
    (void)state;
    enum { MANY = 30011 };
    static float many[MANY];
    static row r[MANY];
    const am_kernels *kernels;
    am_sampler *wide;
    assert_int_equal(am_kernels_pick(NULL, &kernels, NULL), AM_OK);
    assert_int_equal(am_sampler_create(MANY, kernels, &wide, NULL), AM_OK);
    for (int trial = 0; trial < 12; trial++) {
        double spread = trial % 2 ? 0.4 : 8, sum = 0, in = 0;
        am_sampling s = AM_SAMPLING;
        s.temperature = trial % 3 ? 1 : 0.6f;
        for (int i = 0; i < MANY; i++) many[i] = (float)(spread * am_draw_uniform((uint64_t)trial, (uint64_t)i));
        for (int i = 0; i < MANY; i++) r[i] = (row){.x = many[i] / s.temperature, .key = many[i], .token = i, .in = true};
        for (int i = 0; i < MANY; i++) sum += r[i].p = exp(r[i].x - spread / s.temperature);
        if (trial / 4 == 0) s.top_p = 0.7f;
        if (trial / 4 == 1) s.top_k = 1000;
        if (trial / 4 == 2) s.top_k = 20000, s.top_p = 0.5f;
        qsort(r, MANY, sizeof *r, by_key);
        if (s.top_k) {
            sum = 0;
            for (int i = 0; i < s.top_k; i++) sum += r[i].p;
        }
        int n_in = 0;
        for (; n_in < (s.top_k ? s.top_k : MANY) && in < s.top_p * sum; n_in++) in += r[n_in].p;
        double low = r[n_in - 1].key, lowest = INFINITY;
        for (uint64_t i = 0; i < 3000; i++) {
            am_sample sample;
            am_sampler_pick(wide, &(am_draw){&s, NULL, 11, i}, many, &sample);
            if (many[sample.token] < lowest) lowest = many[sample.token];
        }
        assert_true(lowest >= low - 1e-5); /* the sums are floats: a token beside the cut may fall to either side */
        assert_true(lowest <= low + spread * 0.02 || s.top_k == 1000);
    }
    am_sampler_free(wide);
}

/* Ties, masked tokens, fewer left than asked for: what top_k can draw is what sorting puts first, and all of it is drawn. */
static void the_first_of_many_are_those_of_a_sorted_list(void **state) {
    (void)state;
    enum { MANY = 10007, MASKED = 23 };
    static const int32_t ks[] = {1, 2, 40, 156, 157, 158, 1000};
    static float many[MANY];
    static row r[MANY];
    static int n_drawn[MANY];
    const am_kernels *kernels;
    am_sampler *wide;
    assert_int_equal(am_kernels_pick(NULL, &kernels, NULL), AM_OK);
    assert_int_equal(am_sampler_create(MANY, kernels, &wide, NULL), AM_OK);
    for (int kind = 0; kind < 4; kind++)
        for (size_t k = 0; k < sizeof ks / sizeof *ks; k++) {
            am_sampling s = AM_SAMPLING;
            s.temperature = 1e4f; /* all about equally likely */
            s.top_k = ks[k];
            for (int i = 0; i < MANY; i++) {
                many[i] = (float)(8 * am_draw_uniform(k, (uint64_t)i));
                if (kind % 2) many[i] = floorf(many[i]);
                if (kind / 2 && i % (MANY / MASKED)) many[i] = i % 2 ? -INFINITY : NAN;
            }
            for (int i = 0; i < MANY; i++) r[i] = (row){.key = many[i], .token = i, .in = many[i] > -INFINITY};
            qsort(r, MANY, sizeof *r, by_key);
            int n_in = 0;
            while (n_in < ks[k] && r[n_in].in) n_in++;
            memset(n_drawn, 0, sizeof n_drawn);
            for (int i = 0; i < 15 * n_in; i++) {
                am_sample sample;
                am_sampler_pick(wide, &(am_draw){&s, NULL, 3, (uint64_t)i}, many, &sample);
                n_drawn[sample.token]++;
            }
            int n_inside = 0, n_seen = 0;
            for (int i = 0; i < n_in; i++) n_inside += n_drawn[r[i].token], n_seen += n_drawn[r[i].token] > 0;
            assert_int_equal(n_inside, 15 * n_in);
            assert_true(n_seen >= n_in - 1); /* one of a thousand may be missed: e^-15 each */
        }
    am_sampler_free(wide);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature_one_draws_the_softmax),
        cmocka_unit_test(each_parameter_alone_gives_its_distribution),
        cmocka_unit_test(all_parameters_together_follow_the_stated_order),
        cmocka_unit_test(greedy_takes_the_largest_and_ties_go_to_the_lowest_id),
        cmocka_unit_test(hostile_logits_never_break_it),
        cmocka_unit_test(a_seed_and_position_name_one_draw),
        cmocka_unit_test(logprobs_are_of_the_raw_distribution),
        cmocka_unit_test(parameters_out_of_range_are_named),
        cmocka_unit_test(large_vocabularies_are_cut_where_sorting_cuts),
        cmocka_unit_test(the_first_of_many_are_those_of_a_sorted_list),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
