/* Metrics: many threads add and one reads; what is written can be read and adds up. */
#include "base/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const values[] = {"plain", "quote\" and \\ and\nline"};
static _Atomic uint64_t count_cells[2], time_cells[2 * AM_METRIC_HISTOGRAM_CELLS], level_cell;
static am_metric counts = {.name = "t_counts_total", .help = "Counts.", .kind = AM_METRIC_COUNTER, .label = "kind", .values = values, .n_values = 2,
                           .cells = count_cells};
static am_metric times = {.name = "t_times_seconds", .help = "Times.", .kind = AM_METRIC_HISTOGRAM, .label = "kind", .values = values, .n_values = 2,
                          .cells = time_cells};
static am_metric level = {.name = "t_level", .help = "Level.", .kind = AM_METRIC_GAUGE, .cells = &level_cell};

enum { N_THREADS = 4, N_ADDS = 20000 };

static void *add_many(void *arg) {
    uint32_t series = (uint32_t)(uintptr_t)arg % 2;
    for (uint64_t i = 0; i < N_ADDS; i++) {
        am_metric_add(&counts, series, 1);
        am_metric_observe(&times, series, i % 20 * 1000000u * 100);
        am_metric_set(&level, 0, i);
    }
    return NULL;
}

static void no_addition_is_lost(void **state) {
    (void)state;
    pthread_t threads[N_THREADS];
    am_buf out;
    am_buf_init(&out, 1 << 20);
    for (uintptr_t i = 0; i < N_THREADS; i++) pthread_create(&threads[i], NULL, add_many, (void *)i);
    for (int i = 0; i < 100; i++) {
        am_buf_clear(&out);
        assert_int_equal(am_metric_write(&times, &out), AM_OK);
    }
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(am_metric_value(&counts, 0) + am_metric_value(&counts, 1), N_THREADS * N_ADDS);
    assert_int_equal(am_metric_value(&times, 0), N_THREADS / 2 * N_ADDS);
    assert_int_equal(am_metric_value(&level, 0), N_ADDS - 1);
    am_buf_free(&out);
}

static void text(void **state) {
    (void)state;
    am_buf out;
    am_buf_init(&out, 1 << 20);
    assert_int_equal(am_metric_write(&counts, &out), AM_OK);
    assert_string_equal(out.p, "# HELP t_counts_total Counts.\n# TYPE t_counts_total counter\nt_counts_total{kind=\"plain\"} 40000\n"
                               "t_counts_total{kind=\"quote\\\" and \\\\ and\\nline\"} 40000\n");
    am_buf_clear(&out);
    assert_int_equal(am_metric_write(&times, &out), AM_OK);
    /* 0, 0.1, 0.2 ... 1.9 s, each twentieth: a bound takes what equals it */
    assert_non_null(strstr(out.p, "t_times_seconds_bucket{kind=\"plain\",le=\"0.001\"} 2000\n"));
    assert_non_null(strstr(out.p, "t_times_seconds_bucket{kind=\"plain\",le=\"0.1\"} 4000\n"));
    assert_non_null(strstr(out.p, "t_times_seconds_bucket{kind=\"plain\",le=\"1\"} 22000\n"));
    assert_non_null(strstr(out.p, "t_times_seconds_bucket{kind=\"plain\",le=\"+Inf\"} 40000\n"));
    assert_non_null(strstr(out.p, "t_times_seconds_sum{kind=\"plain\"} 38000\nt_times_seconds_count{kind=\"plain\"} 40000\n"));
    am_buf_clear(&out);
    am_metric_write(&level, &out);
    assert_string_equal(out.p, "# HELP t_level Level.\n# TYPE t_level gauge\nt_level 19999\n");
    am_buf_free(&out);
}

/* Two owners count into blocks of their own; an owner's name is the operator's and may hold anything. */
static void blocks_of_two_owners(void **state) {
    (void)state;
    enum { TURNS_AT = 3, TIMES_AT = 5, N_CELLS = TIMES_AT + AM_METRIC_HISTOGRAM_CELLS };
    static _Atomic uint64_t first[N_CELLS], second[N_CELLS];
    const am_metric turns = {.name = "t_turns_total", .help = "Turns.", .kind = AM_METRIC_COUNTER, .label = "kind", .values = values, .n_values = 2, .at = TURNS_AT};
    const am_metric waits = {.name = "t_waits_seconds", .help = "Waits.", .kind = AM_METRIC_HISTOGRAM, .at = TIMES_AT};
    am_buf out;
    am_buf_init(&out, 1 << 20);
    am_metric_add_in(&turns, first, 0, 2);
    am_metric_add_in(&turns, second, 1, 3);
    am_metric_observe_in(&waits, second, 0, 500000000);
    assert_int_equal(am_metric_value_in(&turns, first, 0), 2);
    assert_int_equal(am_metric_value_in(&turns, first, 1), 0);
    assert_int_equal(am_metric_value_in(&waits, first, 0), 0);
    assert_int_equal(am_metric_value_in(&waits, second, 0), 1);
    assert_int_equal(am_metric_write_block(&turns, first, (am_metric_label){"model", "a\"b"}, &out), AM_OK);
    assert_string_equal(out.p, "t_turns_total{model=\"a\\\"b\",kind=\"plain\"} 2\n"
                               "t_turns_total{model=\"a\\\"b\",kind=\"quote\\\" and \\\\ and\\nline\"} 0\n");
    am_buf_clear(&out);
    assert_int_equal(am_metric_write_block(&waits, second, (am_metric_label){"model", "b"}, &out), AM_OK);
    assert_non_null(strstr(out.p, "t_waits_seconds_bucket{model=\"b\",le=\"0.25\"} 0\nt_waits_seconds_bucket{model=\"b\",le=\"0.5\"} 1\n"));
    assert_non_null(strstr(out.p, "t_waits_seconds_sum{model=\"b\"} 0.5\nt_waits_seconds_count{model=\"b\"} 1\n"));
    am_buf_free(&out);
}

static void a_series_that_is_not_is_the_last(void **state) {
    (void)state;
    uint64_t before = am_metric_value(&counts, 1);
    am_metric_add(&counts, 77, 1); /* never beyond the cells */
    assert_int_equal(am_metric_value(&counts, 1), before + 1);
    am_buf small;
    am_buf_init(&small, 10);
    assert_int_equal(am_metric_write(&level, &small), AM_ELIMIT);
    am_buf_free(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_addition_is_lost), cmocka_unit_test(text), cmocka_unit_test(blocks_of_two_owners),
                                       cmocka_unit_test(a_series_that_is_not_is_the_last)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
