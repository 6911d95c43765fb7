/* engine/lookup.c, pace.c, and what drafts may not change: an engine that drafts whenever it can answers as one that never does, to the bit. */
#include "engine_rig.h"

#include "base/hash.h"
#include "engine/lookup.h"
#include "engine/pace.h"

static am_lookup_odds all;

static uint32_t draft_of(const am_lookup *l, uint32_t most, int32_t *draft) {
    float odds[AM_MAX_DRAFT];
    uint32_t n = am_lookup_draft(l, &all, most, draft, odds);
    for (uint32_t i = 0; i < n; i++) assert_true(odds[i] > 0 && odds[i] < 1 && (i == 0 || odds[i] <= odds[i - 1]));
    return n;
}

static void add(am_lookup *l, const int32_t *tokens, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) am_lookup_add(l, tokens[i], &all);
}

static void a_copy_is_followed_through_a_changed_token(void **state) {
    (void)state;
    am_lookup l;
    int32_t text[100], draft[AM_MAX_DRAFT];
    rig_random_ids(text, 100, 1);
    am_lookup_odds_init(&all);
    assert_int_equal(am_lookup_init(&l, 400, NULL), AM_OK);
    am_lookup_fill(&l, text, 100);
    am_lookup_begin(&l, false);
    add(&l, text + 20, 2); /* two tokens name the place */
    assert_int_equal(draft_of(&l, 30, draft), 30);
    assert_memory_equal(draft, text + 22, 30 * sizeof *draft);
    add(&l, text + 22, 8);
    add(&l, &(int32_t){9999}, 1); /* in the place of text[30] */
    assert_int_equal(draft_of(&l, 10, draft), 10);
    assert_memory_equal(draft, text + 31, 10 * sizeof *draft);
    am_lookup_free(&l);
}

static void the_longest_agreement_wins_over_the_latest(void **state) {
    (void)state;
    am_lookup l;
    const int32_t text[] = {1, 2, 3, 4, 50, 7, 7, 9, 3, 4, 60, 8, 8, 1, 2, 3, 4};
    int32_t draft[AM_MAX_DRAFT];
    am_lookup_odds_init(&all);
    assert_int_equal(am_lookup_init(&l, 100, NULL), AM_OK);
    am_lookup_fill(&l, text, sizeof text / sizeof *text);
    am_lookup_begin(&l, false);
    assert_int_equal(draft_of(&l, 3, draft), 3);
    assert_int_equal(draft[0], 50);
    am_lookup_free(&l);
}

static void a_repetition_goes_on_in_itself(void **state) {
    (void)state;
    am_lookup l;
    const int32_t text[] = {5, 1, 2, 3, 1, 2, 3};
    int32_t draft[AM_MAX_DRAFT];
    am_lookup_odds_init(&all);
    assert_int_equal(am_lookup_init(&l, 100, NULL), AM_OK);
    am_lookup_fill(&l, text, 7);
    am_lookup_begin(&l, false);
    assert_int_equal(draft_of(&l, 9, draft), 9);
    for (uint32_t i = 0; i < 9; i++) assert_int_equal(draft[i], 1 + (int32_t)i % 3);
    am_lookup_free(&l);
}

static void a_prediction_is_believed_from_its_first_token(void **state) {
    (void)state;
    am_lookup l;
    int32_t text[60], prompt[40], draft[AM_MAX_DRAFT];
    rig_random_ids(text, 60, 2);
    rig_random_ids(prompt, 40, 3);
    am_lookup_odds_init(&all);
    assert_int_equal(am_lookup_init(&l, 200, NULL), AM_OK);
    am_lookup_fill(&l, text, 60);
    am_lookup_fill(&l, prompt, 40);
    am_lookup_begin(&l, true);
    assert_int_equal(draft_of(&l, 20, draft), 20);
    assert_memory_equal(draft, text, 20 * sizeof *draft);
    am_lookup_free(&l);
}

static void odds_are_what_was_counted(void **state) {
    (void)state;
    am_lookup l;
    int32_t draft[1];
    float odds[1];
    uint64_t seed = 5;
    am_lookup_odds_init(&all);
    assert_int_equal(am_lookup_init(&l, 20000, NULL), AM_OK);
    for (uint32_t i = 0; i < 9000; i++) { /* of four tokens, at random: agreements everywhere, each guess right once in four */
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        am_lookup_add(&l, (int32_t)(seed >> 62), &all);
    }
    double mean = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        am_lookup_add(&l, (int32_t)(seed >> 62), &all);
        if (am_lookup_draft(&l, &all, 1, draft, odds)) mean += odds[0], n++;
    }
    assert_true(n > 900 && mean / n > 0.17 && mean / n < 0.33);
    am_lookup_free(&l);
}

static void what_is_full_or_zeroed_stays_quiet(void **state) {
    (void)state;
    am_lookup l = {0};
    int32_t draft[AM_MAX_DRAFT];
    am_lookup_add(&l, 3, &all);
    assert_int_equal(draft_of(&l, 5, draft), 0);
    assert_int_equal(am_lookup_init(&l, 4, NULL), AM_OK);
    am_lookup_begin(&l, true);
    add(&l, (const int32_t[]){1, 1, 1, 1, 1, 1, 1, 1}, 8);
    assert_int_equal(l.n, 4);
    am_lookup_free(&l);
}

static void a_pace_learns_a_line_and_a_level(void **state) {
    (void)state;
    am_pace pace = {0};
    assert_true(am_pace_ns(&pace, 4) == 0);
    for (int i = 0; i < 200; i++)
        for (uint32_t n = 1; n <= 32; n += 3) am_pace_saw(&pace, n, 1000 + 50 * n);
    for (uint32_t n = 1; n < 32; n++) assert_true(am_pace_ns(&pace, n) > 0.93 * (1000 + 50 * n) && am_pace_ns(&pace, n) < 1.07 * (1000 + 50 * n));
    for (int i = 0; i < 60; i++) am_pace_saw(&pace, 1, 2 * 1050); /* deeper: everything takes twice as long */
    assert_true(am_pace_ns(&pace, 32) > 1.9 * 2600 && am_pace_ns(&pace, 32) < 2.1 * 2600);
    double before = am_pace_ns(&pace, 8);
    am_pace_saw(&pace, 8, 1e9); /* the machine was away */
    assert_true(am_pace_ns(&pace, 8) < 1.01 * before && am_pace_ns(&pace, 8) > 0.99 * before);
    am_pace_saw(&pace, 8, 1e9); /* twice in a row: something has changed, and it is followed, if not all the way at once */
    assert_true(am_pace_ns(&pace, 8) > 1.2 * before && am_pace_ns(&pace, 8) < 1.5 * before);
}

static uint64_t logits_hash[2][2048];
static bool drafting;
static uint32_t n_vocab;

static void see_logits(void *arg, const char *request, uint32_t position, float *logits) {
    (void)arg;
    (void)request;
    logits_hash[drafting][position] = am_hash64(logits, n_vocab * sizeof *logits) | 1;
}

enum { N_WISHES = 10 };
/* Requests of every kind of sampling and ending. */
static am_request wish(uint32_t i, const int32_t *prompt, uint32_t n_prompt, const am_str *stops) {
    static const am_logit_bias bias[] = {{100, 4}, {7, -8}};
    am_request r = rig_request("drafts", prompt, n_prompt, 60);
    am_sampling *s = &r.sampling;
    s->has_seed = true;
    s->seed = 77 + i;
    r.ignore_eos = i % 2 == 0;
    if (i > 1) s->temperature = 0.3f;
    if (i == 3) s->repetition_penalty = 1.2f, s->frequency_penalty = 0.2f, s->presence_penalty = 0.1f;
    if (i == 4) s->top_k = 30, s->min_p = 0.02f, s->bias = bias, s->n_bias = 2;
    if (i == 5) s->top_logprobs = 5, s->top_p = 0.8f;
    if (i == 6) r.stops = stops, r.n_stops = 1;
    if (i == 7) r.stop_tokens[0] = 44, r.n_stop_tokens = 1;
    if (i == 8) s->temperature = 1, s->typical_p = 0.7f;
    if (i == 9) r.max_tokens = 0; /* to the end of the context */
    return r;
}

static void same(const answer *a, const answer *b) {
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->n_generated, b->n_generated);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->ids, b->ids, a->n_tokens * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, a->n_tokens * sizeof *a->logprobs);
    assert_memory_equal(a->top, b->top, a->n_tokens * sizeof *a->top);
    assert_string_equal(a->text.p, b->text.p);
    assert_string_equal(a->stop, b->stop);
}

/* The same turns one after the other, with and without drafts: each goes on from what the one before left, over block borders. Predictions are the plain
 * answers with every sixth token changed. */
static void drafts_change_nothing(void **state) {
    (void)state;
    rig plain, drafts;
    int32_t ids[1024], prediction[1024];
    uint32_t n = 200, n_drafted = 0, n_accepted = 0;
    rig_open(&plain, &(rig_spec){.lookup = AM_LOOKUP_OFF, .on_logits = see_logits});
    rig_open(&drafts, &(rig_spec){.lookup = AM_LOOKUP_ON, .on_logits = see_logits});
    n_vocab = am_model_info_of(plain.model)->n_vocab;
    rig_random_ids(ids, 1024, 12);
    am_str stop = AM_STR("no such text");
    char word[32];
    for (uint32_t i = 0; i < N_WISHES; i++) {
        am_request r = wish(i, ids, n, &stop);
        memset(logits_hash, 0, sizeof logits_hash);
        drafting = false;
        answer *a = rig_run(&plain, &r);
        memcpy(prediction, a->ids, a->n_tokens * sizeof *a->ids);
        for (uint32_t k = 5; k < a->n_tokens; k += 6) prediction[k] = 3;
        r.prediction = prediction;
        r.n_prediction = a->n_tokens;
        drafting = true;
        answer *b = rig_run(&drafts, &r);
        same(a, b);
        assert_memory_equal(logits_hash[0], logits_hash[1], sizeof logits_hash[0]);
        assert_int_equal(a->info.n_cached, b->info.n_cached);
        assert_int_equal(a->n_drafted, 0);
        n_drafted += b->n_drafted;
        n_accepted += b->n_accepted;
        if (i == 5 && a->text.n > 40) { /* a stop string that the next answers may come upon */
            snprintf(word, sizeof word, "%.3s", a->text.p + a->text.n - 5);
            stop = am_str_of(word);
        }
        if (i == 9) assert_int_equal(n + a->n_generated, 1024);
        memcpy(ids + n, a->ids, (i < 9 ? a->n_tokens : 0) * sizeof *ids);
        n += i < 9 ? a->n_tokens + 7 : 0;
        answer_free(a);
        answer_free(b);
    }
    assert_true(n > AM_BLOCK_TOKENS + 100 && n_accepted > 100 && n_drafted > n_accepted + 50);
    rig_close(&plain);
    rig_close(&drafts);
}

/* A cancel from within a token's event ends the answer there, whatever was drafted behind. */
static void a_cancel_takes_no_more_of_a_draft(void **state) {
    (void)state;
    rig r;
    int32_t ids[50];
    rig_random_ids(ids, 50, 4);
    rig_open(&r, &(rig_spec){.lookup = AM_LOOKUP_ON});
    am_request request = rig_request(NULL, ids, 50, 40);
    request.ignore_eos = true;
    answer *first = rig_run(&r, &request);
    request.prediction = first->ids;
    request.n_prediction = first->n_tokens;
    answer *a = answer_new(&r);
    a->cancel_at_token = 9;
    assert_int_equal(rig_submit(a, &request, NULL), AM_OK);
    rig_wait(a);
    assert_int_equal(a->finish, AM_FINISH_CANCELED);
    assert_int_equal(a->n_tokens, 9);
    assert_true(a->n_drafted > 9);
    answer_free(first);
    answer_free(a);
    rig_close(&r);
}

static int teardown(void **state) {
    (void)state;
    rig_models_free();
    return 0;
}

int main(void) {
    am_log_setup(AM_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_followed_through_a_changed_token),
        cmocka_unit_test(the_longest_agreement_wins_over_the_latest),
        cmocka_unit_test(a_repetition_goes_on_in_itself),
        cmocka_unit_test(a_prediction_is_believed_from_its_first_token),
        cmocka_unit_test(odds_are_what_was_counted),
        cmocka_unit_test(what_is_full_or_zeroed_stays_quiet),
        cmocka_unit_test(a_pace_learns_a_line_and_a_level),
        cmocka_unit_test(drafts_change_nothing),
        cmocka_unit_test(a_cancel_takes_no_more_of_a_draft),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
