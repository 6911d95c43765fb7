/* The engine with the embedded model: right answers, joining, leaving, cancelling in each state, limits, warm agents. */
#include "engine_rig.h"

#include <stdatomic.h>

static json_t *expected; /* shared/models/memo-28m/expected.json, NULL when absent */

static int setup(void **state) {
    (void)state;
    char path[4096];
    const char *shared = getenv("AM_SHARED");
    snprintf(path, sizeof path, "%s/models/memo-28m/expected.json", shared ? shared : "../shared");
    am_json_read(path, 1 << 20, &expected, NULL);
    am_log_setup(AM_LOG_ERROR, false);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    json_decref(expected);
    rig_models_free();
    return 0;
}

static uint32_t ids_of(const json_t *array, int32_t *ids) {
    uint32_t n = (uint32_t)json_array_size(array);
    for (uint32_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return n;
}

static uint32_t prompt_of(size_t which, int32_t *ids) {
    return ids_of(json_object_get(json_array_get(json_object_get(expected, "prompts"), which), "prompt_ids"), ids);
}

/* All prompts at once. Up to the first token whose margin is at most least_margin, ids must be those expected. */
static void expect_answers(const rig_spec *spec, double least_margin) {
    rig r;
    rig_open(&r, spec);
    answer *a[32];
    size_t i, n_all;
    json_t *prompts = json_object_get(expected, "prompts"), *prompt;
    json_array_foreach(prompts, i, prompt) {
        int32_t ids[2048];
        uint32_t n = prompt_of(i, ids);
        char name[32];
        snprintf(name, sizeof name, "agent %zu", i);
        am_request request = rig_request(name, ids, n, (uint32_t)json_array_size(json_object_get(json_object_get(prompt, "mlx-4bit"), "ids")));
        a[i] = rig_send(&r, &request);
    }
    n_all = json_array_size(prompts);
    for (i = 0; i < n_all; i++) {
        json_t *want = json_object_get(json_array_get(prompts, i), "mlx-4bit"), *margins = json_object_get(want, "margins");
        int32_t ids[256];
        uint32_t n = ids_of(json_object_get(want, "ids"), ids);
        rig_wait(a[i]);
        assert_int_equal(a[i]->status, AM_OK);
        bool sure = true;
        for (uint32_t t = 0; sure && t + 1 < n; t++) { /* the last one is the end token */
            sure = json_number_value(json_array_get(margins, t)) > least_margin;
            if (sure) assert_int_equal(a[i]->ids[t], ids[t]);
        }
        if (sure) assert_int_equal(a[i]->n_generated, n);
        if (sure) assert_int_equal(a[i]->finish, AM_FINISH_STOP);
        const char *text = json_string_value(json_object_get(want, "text"));
        if (sure && am_model_tokenizer(r.model)) assert_memory_equal(a[i]->text.p, text, a[i]->text.n);
        answer_free(a[i]);
    }
    rig_close(&r);
}

static void answers_are_those_of_the_reference(void **state) {
    (void)state;
    if (!expected) skip();
    expect_answers(&(rig_spec){.isa = "scalar", .bits = 32, .max_parallel = 5, .n_threads = 2}, 0);
}

static void answers_are_right_with_the_best_table_and_a_4_bit_cache(void **state) {
    (void)state;
    if (!expected) skip();
    expect_answers(&(rig_spec){.n_threads = 2, .max_parallel = 12}, 1.5);
    expect_answers(&(rig_spec){.chunk = 13, .max_parallel = 2}, 1.5);
}

static void same_tokens(const answer *a, const answer *b) {
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->ids, b->ids, a->n_tokens * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, a->n_tokens * sizeof *a->logprobs);
}

/* Sampled, so that also draws are seen to depend on seed and position alone. */
static am_request lively(const char *agent, const int32_t *ids, uint32_t n, uint32_t max_tokens, uint64_t seed) {
    am_request request = rig_request(agent, ids, n, max_tokens);
    request.sampling.temperature = 0.9f;
    request.sampling.top_p = 0.95f;
    request.sampling.repetition_penalty = 1.1f;
    request.sampling.has_seed = true;
    request.sampling.seed = seed;
    request.sampling.top_logprobs = 1;
    request.ignore_eos = true;
    return request;
}

static void requests_join_and_leave_at_any_step(void **state) {
    (void)state;
    enum { N = 12 };
    rig r;
    rig_open(&r, &(rig_spec){.max_parallel = 6});
    static int32_t ids[N][400];
    uint32_t n[N], n_new[N];
    answer *alone[N], *together[N];
    for (uint32_t i = 0; i < N; i++) {
        n[i] = 1 + i * 29;
        n_new[i] = 3 + (i * 7) % 23;
        rig_random_ids(ids[i], n[i], i + 1);
        am_request request = lively(NULL, ids[i], n[i], n_new[i], i);
        request.no_reuse = true;
        alone[i] = rig_run(&r, &request);
        assert_int_equal(alone[i]->finish, AM_FINISH_LENGTH);
        assert_int_equal(alone[i]->n_generated, n_new[i]);
    }
    for (uint32_t i = 0; i < N; i++) {
        am_request request = lively(NULL, ids[i], n[i], n_new[i], i);
        request.no_reuse = true;
        together[i] = rig_send(&r, &request);
        if (i % 3 == 2) rig_wait_tokens(together[i - 1], 2);
    }
    for (uint32_t i = 0; i < N; i++) {
        rig_wait(together[i]);
        same_tokens(alone[i], together[i]);
        answer_free(alone[i]);
        answer_free(together[i]);
    }
    rig_close(&r);
}

static void a_seed_gives_the_same_answer_and_none_gives_others(void **state) {
    (void)state;
    rig r;
    rig_open(&r, &(rig_spec){.seed = 99});
    int32_t ids[20];
    rig_random_ids(ids, 20, 3);
    am_request request = lively(NULL, ids, 20, 20, 5);
    answer *a = rig_run(&r, &request), *b = rig_run(&r, &request);
    same_tokens(a, b);
    request.sampling.has_seed = false;
    answer *c = rig_run(&r, &request), *d = rig_run(&r, &request);
    assert_memory_not_equal(c->ids, d->ids, 20 * sizeof *c->ids);
    answer_free(a), answer_free(b), answer_free(c), answer_free(d);
    rig_close(&r);
}

typedef struct stored {
    const char *agent;
    am_status status;
    uint32_t n;
} stored;

static void read_stored(void *arg, am_cache *cache) {
    stored *s = arg;
    const int32_t *ids;
    s->status = am_cache_tokens(cache, &(am_tenant){0}, am_str_of(s->agent), &ids, &s->n);
}

static am_status stored_tokens(rig *r, const char *agent, uint32_t *n) {
    stored s = {.agent = agent};
    do {
        assert_int_equal(am_engine_call(r->engine, read_stored, &s), AM_OK);
    } while (s.status == AM_AGAIN);
    *n = s.n;
    return s.status;
}

static void cancel_takes_effect_in_each_state(void **state) {
    (void)state;
    rig r;
    rig_open(&r, &(rig_spec){.max_parallel = 1, .chunk = 32});
    int32_t ids[300];
    uint32_t n;
    rig_random_ids(ids, 300, 9);
    /* queued: the one in front decodes */
    am_request long_one = lively("front", ids, 40, 200, 1), queued = lively("queued", ids, 50, 50, 2);
    answer *front = rig_send(&r, &long_one);
    rig_wait_tokens(front, 3);
    answer *a = rig_send(&r, &queued);
    am_engine_cancel(r.engine, a->id);
    rig_wait(a);
    assert_int_equal(a->finish, AM_FINISH_CANCELED);
    assert_int_equal(a->n_started, 0);
    assert_false(front->over);
    answer_free(a);
    /* decode: cancelled from its own event, so not one token more may come */
    pthread_mutex_lock(&front->lock);
    front->cancel_at_token = front->n_tokens + 5;
    uint32_t at = front->cancel_at_token;
    pthread_mutex_unlock(&front->lock);
    rig_wait(front);
    assert_int_equal(front->finish, AM_FINISH_CANCELED);
    assert_int_equal(front->n_tokens, at);
    assert_int_equal(stored_tokens(&r, "front", &n), AM_ENOTFOUND);
    answer_free(front);
    /* prefill */
    am_request reader = lively("reader", ids, 300, 50, 3);
    a = answer_new(&r);
    a->cancel_at_prefill = 2;
    assert_int_equal(rig_submit(a, &reader, NULL), AM_OK);
    rig_wait(a);
    assert_int_equal(a->finish, AM_FINISH_CANCELED);
    assert_int_equal(a->n_prefill, 2);
    assert_int_equal(a->n_tokens, 0);
    assert_int_equal(stored_tokens(&r, "reader", &n), AM_ENOTFOUND);
    answer_free(a);
    /* over: nothing happens */
    am_request small = lively("small", ids, 5, 2, 4);
    a = rig_run(&r, &small);
    assert_int_equal(a->finish, AM_FINISH_LENGTH);
    am_engine_cancel(r.engine, a->id);
    am_engine_cancel(r.engine, 123456789);
    assert_int_equal(stored_tokens(&r, "small", &n), AM_OK);
    assert_int_equal(n, 7);
    answer_free(a);
    rig_close(&r);
}

static atomic_bool gate_closed;
static atomic_uint n_at_gate;

static ssize_t gated_pread(int fd, void *p, size_t n, off_t at) {
    atomic_fetch_add(&n_at_gate, 1);
    while (atomic_load(&gate_closed)) usleep(500);
    return am_io_system.pread(fd, p, n, at);
}

static void restoring_stalls_nobody_and_can_be_cancelled(void **state) {
    (void)state;
    char dir[] = "/tmp/am_engine_XXXXXX", command[64];
    assert_non_null(mkdtemp(dir));
    am_io_ops gated = am_io_system;
    gated.pread = gated_pread;
    am_io = &gated;
    rig r;
    int32_t ids[600];
    rig_random_ids(ids, 600, 21);
    rig_open(&r, &(rig_spec){.dir = dir});
    am_request request = lively("sleeper", ids, 600, 5, 1);
    answer_free(rig_run(&r, &request));
    request.ephemeral = true;
    answer *hot = rig_run(&r, &request);
    rig_close(&r);

    rig_open(&r, &(rig_spec){.dir = dir});
    atomic_store(&gate_closed, true);
    atomic_store(&n_at_gate, 0);
    answer *restoring = rig_send(&r, &request);
    for (int i = 0; atomic_load(&n_at_gate) == 0; i++) {
        assert_true(i < 20000);
        usleep(500);
    }
    am_request other = lively(NULL, ids + 300, 30, 20, 2);
    answer *running = rig_run(&r, &other); /* to its end, while the disk does not answer */
    assert_int_equal(running->finish, AM_FINISH_LENGTH);
    assert_int_equal(restoring->n_started, 0);
    am_engine_cancel(r.engine, restoring->id);
    rig_wait(restoring);
    assert_int_equal(restoring->finish, AM_FINISH_CANCELED);
    atomic_store(&gate_closed, false);
    answer *warm = rig_run(&r, &request);
    assert_true(warm->info.n_cached > 512);
    same_tokens(hot, warm);
    answer_free(hot), answer_free(warm), answer_free(running), answer_free(restoring);
    rig_close(&r);
    am_io = &am_io_system;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

static void a_full_queue_refuses(void **state) {
    (void)state;
    rig r;
    rig_open(&r, &(rig_spec){.max_parallel = 1, .max_queue = 2});
    int32_t ids[10];
    rig_random_ids(ids, 10, 1);
    am_request request = lively(NULL, ids, 10, 500, 1);
    answer *a[3];
    for (int i = 0; i < 3; i++) a[i] = rig_send(&r, &request);
    am_error err;
    assert_int_equal(am_engine_submit(r.engine, &request, NULL, &err), AM_ELIMIT);
    assert_non_null(strstr(err.message, "queue is full"));
    for (int i = 0; i < 3; i++) am_engine_cancel(r.engine, a[i]->id);
    for (int i = 0; i < 3; i++) rig_wait(a[i]), answer_free(a[i]);
    request.max_tokens = 1;
    answer_free(rig_run(&r, &request));
    rig_close(&r);
}

static void context_limits_clamp_or_refuse(void **state) {
    (void)state;
    rig r;
    rig_open(&r, &(rig_spec){.n_ctx = 300});
    int32_t ids[300];
    rig_random_ids(ids, 300, 4);
    am_error err;
    am_request request = lively(NULL, ids, 300, 5, 1);
    assert_int_equal(am_engine_submit(r.engine, &request, NULL, &err), AM_EINVAL);
    assert_string_equal(err.message, "prompt has 300 tokens, context is 300");
    request.tokens.n = 0;
    assert_int_equal(am_engine_submit(r.engine, &request, NULL, &err), AM_EINVAL);
    request = lively(NULL, ids, 290, 500, 1);
    answer *a = rig_run(&r, &request);
    assert_int_equal(a->finish, AM_FINISH_LENGTH);
    assert_int_equal(a->n_generated, 10);
    answer_free(a);
    request = lively(NULL, ids, 299, 0, 1);
    a = rig_run(&r, &request);
    assert_int_equal(a->n_generated, 1);
    answer_free(a);
    ids[3] = 8192;
    assert_int_equal(am_engine_submit(r.engine, &request, NULL, &err), AM_EINVAL);
    ids[3] = -1;
    assert_int_equal(am_engine_submit(r.engine, &request, NULL, &err), AM_EINVAL);
    ids[3] = 1;
    request.sampling.top_p = 2;
    assert_int_equal(am_engine_submit(r.engine, &request, NULL, &err), AM_EINVAL);
    rig_close(&r);
}

static void stop_tokens_and_stop_strings_end_the_answer(void **state) {
    (void)state;
    if (!expected) skip();
    rig r;
    rig_open(&r, &(rig_spec){0});
    int32_t ids[64];
    uint32_t n = prompt_of(0, ids); /* "I am Memo, a small assistant that remembers ..." */
    am_request request = rig_request(NULL, ids, n, 0);
    answer *whole = rig_run(&r, &request);
    assert_true(whole->n_tokens > 5);
    request.n_stop_tokens = 1;
    request.stop_tokens[0] = whole->ids[3];
    answer *a = rig_run(&r, &request);
    assert_int_equal(a->n_tokens, 3);
    assert_int_equal(a->n_generated, 4);
    assert_int_equal(a->finish, AM_FINISH_STOP);
    answer_free(a);
    if (am_model_tokenizer(r.model)) {
        am_str stops[] = {AM_STR("zebra"), AM_STR("mall assis")};
        request = rig_request(NULL, ids, n, 0);
        request.stops = stops;
        request.n_stops = 2;
        a = rig_run(&r, &request);
        assert_string_equal(a->text.p, "I am Memo, a s");
        assert_string_equal(a->stop, "mall assis");
        assert_int_equal(a->finish, AM_FINISH_STOP);
        answer_free(a);
        stops[1] = AM_STR("tell me."); /* the whole end is held back as long as it may be this one */
        stops[0] = AM_STR("tell me.!");
        request.n_stops = 1;
        a = rig_run(&r, &request);
        assert_string_equal(a->text.p, whole->text.p);
        answer_free(a);
    }
    answer_free(whole);
    rig_close(&r);
}

/* A pool for little more than two agents of this size: the others go to disk and come back. */
static void ten_agents_taking_turns_all_stay_warm(void **state) {
    (void)state;
    enum { N = 10, N_PROMPT = 520 };
    rig r;
    rig_open(&r, &(rig_spec){.n_ctx = 1024, .max_parallel = 1, .n_sealed = 6, .n_open = 2});
    static int32_t ids[N][1024];
    uint32_t n[N];
    for (uint32_t i = 0; i < N; i++) rig_random_ids(ids[i], n[i] = N_PROMPT, i + 77);
    for (int turn = 0; turn < 3; turn++)
        for (uint32_t i = 0; i < N; i++) {
            char name[16];
            snprintf(name, sizeof name, "a%u", i);
            am_request request = lively(name, ids[i], n[i], 8, i);
            answer *a = rig_run(&r, &request);
            assert_int_equal(a->status, AM_OK);
            if (turn > 0) {
                assert_int_not_equal(a->info.tier, AM_COLD);
                assert_in_range(a->info.n_cached, n[i] - 12, n[i] - 1); /* only what is new since is computed */
            }
            memcpy(ids[i] + n[i], a->ids, a->n_tokens * sizeof *a->ids);
            n[i] += a->n_tokens;
            ids[i][n[i]++] = 198;
            ids[i][n[i]++] = 311;
            answer_free(a);
        }
    rig_close(&r);
}

static void a_restart_continues_warm(void **state) {
    (void)state;
    char dir[] = "/tmp/am_engine_XXXXXX";
    assert_non_null(mkdtemp(dir));
    rig r;
    int32_t ids[700];
    rig_random_ids(ids, 700, 11);
    rig_open(&r, &(rig_spec){.dir = dir});
    am_request request = lively("keeper", ids, 600, 20, 8);
    answer *a = rig_run(&r, &request);
    memcpy(ids + 600, a->ids, 20 * sizeof *ids);
    request = lively("keeper", ids, 625, 10, 9);
    request.ephemeral = true;
    answer *hot = rig_run(&r, &request);
    assert_int_equal(hot->info.tier, AM_HOT);
    rig_close(&r);
    rig_open(&r, &(rig_spec){.dir = dir});
    answer *warm = rig_run(&r, &request);
    assert_int_equal(warm->info.tier, AM_WARM);
    assert_int_equal(warm->info.n_cached, hot->info.n_cached);
    assert_int_equal(warm->info.n_cached, 619); /* all but the last sampled token, which never had a row */
    same_tokens(hot, warm);
    answer_free(a), answer_free(hot), answer_free(warm);
    rig_close(&r);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

static void a_large_request_is_not_starved_by_small_ones(void **state) {
    (void)state;
    enum { N = 40 };
    rig r;
    rig_open(&r, &(rig_spec){.n_ctx = 1024, .max_parallel = 4, .n_sealed = 4, .n_open = 5});
    int32_t ids[900];
    rig_random_ids(ids, 900, 5);
    am_request small = lively(NULL, ids, 260, 60, 1), large = lively(NULL, ids + 1, 890, 20, 2);
    small.no_reuse = large.no_reuse = true;
    answer *s[N], *l = NULL;
    for (int i = 0; i < N; i++) {
        s[i] = rig_send(&r, &small);
        if (i == 3) l = rig_send(&r, &large);
    }
    rig_wait(l);
    int n_over = 0;
    for (int i = 0; i < N; i++) {
        pthread_mutex_lock(&s[i]->lock);
        n_over += s[i]->over;
        pthread_mutex_unlock(&s[i]->lock);
    }
    assert_int_equal(l->finish, AM_FINISH_LENGTH);
    assert_true(n_over <= 4 + 8 + 4);
    for (int i = 0; i < N; i++) rig_wait(s[i]), assert_int_equal(s[i]->finish, AM_FINISH_LENGTH), answer_free(s[i]);
    answer_free(l);
    rig_close(&r);
}

static void draining_ends_what_waits_and_what_runs(void **state) {
    (void)state;
    rig r;
    rig_open(&r, &(rig_spec){.max_parallel = 1});
    int32_t ids[10];
    rig_random_ids(ids, 10, 1);
    am_request request = lively("d", ids, 10, 900, 1);
    answer *running = rig_send(&r, &request);
    rig_wait_tokens(running, 2);
    answer *waiting = rig_send(&r, &request);
    am_engine_stop_admitting(r.engine);
    rig_wait(waiting);
    assert_int_equal(waiting->status, AM_ESHUTDOWN);
    am_error err;
    assert_int_equal(am_engine_submit(r.engine, &request, NULL, &err), AM_ESHUTDOWN);
    int hurry = 1;
    am_engine_drain(r.engine, 60000, &hurry);
    rig_wait(running);
    assert_int_equal(running->finish, AM_FINISH_CANCELED);
    answer_free(running), answer_free(waiting);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_the_reference),
        cmocka_unit_test(answers_are_right_with_the_best_table_and_a_4_bit_cache),
        cmocka_unit_test(requests_join_and_leave_at_any_step),
        cmocka_unit_test(a_seed_gives_the_same_answer_and_none_gives_others),
        cmocka_unit_test(cancel_takes_effect_in_each_state),
        cmocka_unit_test(restoring_stalls_nobody_and_can_be_cancelled),
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(context_limits_clamp_or_refuse),
        cmocka_unit_test(stop_tokens_and_stop_strings_end_the_answer),
        cmocka_unit_test(ten_agents_taking_turns_all_stay_warm),
        cmocka_unit_test(a_restart_continues_warm),
        cmocka_unit_test(a_large_request_is_not_starved_by_small_ones),
        cmocka_unit_test(draining_ends_what_waits_and_what_runs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
