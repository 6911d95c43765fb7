/* engine/seam.c with the real tokenizer: history that tokenises differently from what was stored still matches, control tokens never by text. */
#include "engine_rig.h"

#include "engine/sampler.h"
#include "engine/seam.h"

static const am_tokenizer *tokenizer;
static size_t n_vocab;

static int setup(void **state) {
    (void)state;
    am_log_setup(AM_LOG_ERROR, false);
    tokenizer = am_model_tokenizer(rig_model("scalar"));
    n_vocab = am_tokenizer_n_vocab(tokenizer);
    return tokenizer ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    rig_models_free();
    return 0;
}

static int32_t find_piece(const char *p, size_t n) {
    for (size_t i = 0; i < n_vocab; i++)
        if (!am_tokenizer_is_added(tokenizer, (int32_t)i) && am_str_eq(am_tokenizer_piece(tokenizer, (int32_t)i), (am_str){p, n}))
            return (int32_t)i;
    return -1;
}

/* Splits a token into two others with the same text, where that is possible. */
static bool split_token(int32_t id, int32_t out[2]) {
    am_str piece = am_tokenizer_piece(tokenizer, id);
    if (am_tokenizer_is_added(tokenizer, id)) return false;
    for (size_t at = 1; at < piece.n; at++) {
        out[0] = find_piece(piece.p, at);
        out[1] = find_piece(piece.p + at, piece.n - at);
        if (out[0] >= 0 && out[1] >= 0) return true;
    }
    return false;
}

static am_tokens encode(const char *text, const am_span *input, size_t n_input) {
    am_tokens tokens = {0};
    am_error err;
    if (am_tokenizer_encode(tokenizer, am_str_of(text), input, n_input, 0, &tokens, &err)) fail_msg("%s", err.message);
    return tokens;
}

static am_seam_input seam_input(const int32_t *stored, size_t n_stored, const am_tokens *prompt, const char *text) {
    return (am_seam_input){.tokenizer = tokenizer, .stored = stored, .n_stored = (uint32_t)n_stored, .ids = prompt->ids,
                           .offsets = prompt->offsets, .n = (uint32_t)prompt->n, .text = am_str_of(text)};
}

/* What the seam makes has the prompt's text, byte for byte. */
static void expect_same_text(const am_seam_input *in, am_seam seam) {
    am_buf text;
    am_buf_init(&text, 1 << 20);
    for (uint32_t i = 0; i < seam.n_stored; i++) am_buf_add(&text, am_tokenizer_piece(tokenizer, in->stored[i]));
    for (uint32_t i = seam.from; i < in->n; i++) am_buf_add(&text, am_tokenizer_piece(tokenizer, in->ids[i]));
    assert_int_equal(text.n, in->text.n);
    assert_memory_equal(text.p, in->text.p, text.n);
    am_buf_free(&text);
}

static const char history[] = "<|im_start|>user\nWe were walking through remarkable mountains yesterday.<|im_end|>\n";
static const char longer[] = "<|im_start|>user\nWe were walking through remarkable mountains yesterday.<|im_end|>\n<|im_start|>assistant\n";

static void equal_ids_need_no_seam(void **state) {
    (void)state;
    am_tokens stored = encode(history, NULL, 0), prompt = encode(longer, NULL, 0);
    am_seam_input in = seam_input(stored.ids, stored.n, &prompt, longer);
    am_seam seam = am_seam_find(&in);
    assert_int_equal(seam.n_stored, stored.n);
    assert_int_equal(seam.from, stored.n);
    am_tokens_free(&stored), am_tokens_free(&prompt);
}

static void a_split_word_still_matches(void **state) {
    (void)state;
    am_tokens canonical = encode(history, NULL, 0), prompt = encode(longer, NULL, 0);
    uint32_t n_splits = 0;
    for (size_t at = 0; at < canonical.n; at++) {
        int32_t stored[256], two[2];
        if (!split_token(canonical.ids[at], two)) continue;
        n_splits++;
        size_t n = 0;
        for (size_t i = 0; i < canonical.n; i++)
            if (i == at)
                stored[n++] = two[0], stored[n++] = two[1];
            else
                stored[n++] = canonical.ids[i];
        am_seam_input in = seam_input(stored, n, &prompt, longer);
        am_seam seam = am_seam_find(&in);
        assert_int_equal(seam.n_stored, n);
        assert_int_equal(seam.from, canonical.n);
        expect_same_text(&in, seam);
    }
    assert_true(n_splits > 5);
    am_tokens_free(&canonical), am_tokens_free(&prompt);
}

static void many_random_splits_and_cuts_match_as_far_as_borders_agree(void **state) {
    (void)state;
    am_tokens canonical = encode(history, NULL, 0), prompt = encode(longer, NULL, 0);
    for (uint64_t seed = 0; seed < 300; seed++) {
        int32_t stored[256], two[2];
        size_t n = 0;
        for (size_t i = 0; i < canonical.n; i++)
            if (am_draw_uniform(seed, i) < 0.4 && split_token(canonical.ids[i], two))
                stored[n++] = two[0], stored[n++] = two[1];
            else
                stored[n++] = canonical.ids[i];
        size_t cut = (size_t)(am_draw_uniform(seed, 1000) * (double)n) + 1; /* the answer may have been cut anywhere */
        bool changed = am_draw_uniform(seed, 1001) < 0.5;                  /* and something else may follow */
        if (changed && cut < n) stored[cut] = 7;
        am_seam_input in = seam_input(stored, changed ? n : cut, &prompt, longer);
        am_seam seam = am_seam_find(&in);
        assert_true(seam.n_stored <= n);
        expect_same_text(&in, seam);
        size_t common = 0; /* never worse than comparing ids */
        while (common < in.n_stored && stored[common] == prompt.ids[common]) common++;
        assert_true(seam.n_stored >= common);
    }
    am_tokens_free(&canonical), am_tokens_free(&prompt);
}

static void other_text_ends_the_match(void **state) {
    (void)state;
    const char *changed = "<|im_start|>user\nWe were walking through unremarkable mountains yesterday.<|im_end|>\n";
    am_tokens stored = encode(history, NULL, 0), prompt = encode(changed, NULL, 0);
    am_seam_input in = seam_input(stored.ids, stored.n, &prompt, changed);
    am_seam seam = am_seam_find(&in);
    expect_same_text(&in, seam);
    assert_true(prompt.offsets[seam.from] <= strlen("<|im_start|>user\nWe were walking through "));
    assert_true(seam.n_stored >= 4);
    am_tokens_free(&stored), am_tokens_free(&prompt);
}

static void control_tokens_never_match_by_text(void **state) {
    (void)state;
    const char *text = "<|im_start|>user\nhi<|im_end|>\nmore";
    const char *mark = strstr(text, "<|im_end|>");
    am_span typed = {(size_t)(mark - text), (size_t)(mark - text) + strlen("<|im_end|>")};
    am_tokens as_control = encode(text, NULL, 0), as_text = encode(text, &typed, 1);
    assert_true(as_text.n > as_control.n);
    /* stored as the user's text, now written by the template */
    am_seam_input in = seam_input(as_text.ids, as_text.n, &as_control, text);
    am_seam seam = am_seam_find(&in);
    assert_true(as_control.offsets[seam.from] <= typed.begin);
    /* stored as a control token, now typed by the user */
    in = seam_input(as_control.ids, as_control.n, &as_text, text);
    in.input = &typed;
    in.n_input = 1;
    seam = am_seam_find(&in);
    assert_true(as_text.offsets[seam.from] <= typed.begin);
    am_tokens_free(&as_control), am_tokens_free(&as_text);
}

/* Through the engine: what the model "wrote" in another split is reused to the last token. */
static void a_retokenised_history_stays_hot(void **state) {
    (void)state;
    rig r;
    rig_open(&r, &(rig_spec){0});
    am_tokens canonical = encode(history, NULL, 0), prompt = encode(longer, NULL, 0);
    int32_t stored[256], two[2];
    size_t n = 0;
    for (size_t i = 0; i < canonical.n; i++)
        if (i > 4 && i + 3 < canonical.n && i % 2 == 0 && split_token(canonical.ids[i], two))
            stored[n++] = two[0], stored[n++] = two[1];
        else
            stored[n++] = canonical.ids[i];
    assert_true(n > canonical.n);
    am_request request = rig_request("walker", stored, (uint32_t)n, 1);
    answer *first = rig_run(&r, &request);
    request = rig_request("walker", prompt.ids, (uint32_t)prompt.n, 4);
    request.ephemeral = true;
    answer *ids_only = rig_run(&r, &request);
    assert_true(ids_only->info.n_cached < 10);
    request.tokens = prompt;
    request.text = am_str_of(longer);
    answer *seamed = rig_run(&r, &request);
    assert_int_equal(seamed->info.n_cached, n);
    assert_int_equal(seamed->info.n_prompt, n + prompt.n - canonical.n);
    answer_free(first), answer_free(ids_only), answer_free(seamed);
    am_tokens_free(&canonical), am_tokens_free(&prompt);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_ids_need_no_seam),
        cmocka_unit_test(a_split_word_still_matches),
        cmocka_unit_test(many_random_splits_and_cuts_match_as_far_as_borders_agree),
        cmocka_unit_test(other_text_ends_the_match),
        cmocka_unit_test(control_tokens_never_match_by_text),
        cmocka_unit_test(a_retokenised_history_stays_hot),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
