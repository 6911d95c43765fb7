/* The tokenizer as its users see it: the shipped model's vocabulary, input ranges, the seam, streaming, refusals. */
#include "tok_support.h"

#include <stdio.h>
#include <string.h>

static void ids_equal(const json_t *want, const am_tokens *got) {
    assert_int_equal(got->n, json_array_size(want));
    for (size_t i = 0; i < got->n; i++) assert_int_equal(got->ids[i], json_integer_value(json_array_get(want, i)));
}

static am_str text_of(const json_t *o, const char *key) {
    const json_t *s = json_object_get(o, key);
    return (am_str){json_string_value(s), json_string_length(s)};
}

static void memo_prompts_and_answers(void **state) {
    (void)state;
    am_tokenizer *t = tok_load("models/memo-28m/mlx-4bit");
    if (!t) skip();
    json_t *expected = tok_json(tok_truth("models/memo-28m/expected.json"));
    size_t i;
    json_t *prompt;
    am_tokens tokens = {0};
    json_array_foreach(json_object_get(expected, "prompts"), i, prompt) {
        am_str text = text_of(prompt, "prompt");
        tok_encode(t, text, NULL, 0, &tokens);
        ids_equal(json_object_get(prompt, "prompt_ids"), &tokens);
        am_buf back;
        tok_decode(t, tokens.ids, tokens.n, false, &back);
        assert_true(am_str_eq(am_buf_str(&back), text));
        am_buf_free(&back);
        for (size_t k = 0; k < 2; k++) {
            const json_t *run = json_object_get(prompt, k ? "mlx-4bit" : "hf"), *ids = json_object_get(run, "ids");
            int32_t answer[4096];
            assert_true(json_array_size(ids) < 4096);
            for (size_t n = 0; n < json_array_size(ids); n++) answer[n] = (int32_t)json_integer_value(json_array_get(ids, n));
            tok_decode(t, answer, json_array_size(ids), false, &back);
            assert_true(am_str_eq(am_buf_str(&back), text_of(run, "text")));
            am_buf_free(&back);
        }
    }
    assert_int_equal(am_tokenizer_eos(t), 8187);
    assert_int_equal(am_tokenizer_find(t, AM_STR("<|im_start|>")), 8186);
    assert_true(am_tokenizer_is_special(t, 8186));
    assert_true(am_tokenizer_is_added(t, 8188));
    assert_false(am_tokenizer_is_special(t, 100));
    am_tokens_free(&tokens);
    json_decref(expected);
    am_tokenizer_free(t);
}

/* Vocabularies that hold a control token's text as an entry of the model, too: without the matcher the model would find it. */
static void no_model_spells_control_tokens(void **state) {
    (void)state;
#define END "\"added_tokens\":[{\"id\":1,\"content\":\"</s>\",\"special\":true}],"
    static const char *const files[] = {
        "{" END "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"</s>\",0],[\"<\",-3],[\"/\",-3],[\"s\",-3],[\">\",-3],[\"x\",-3]]}}",
        "{" END "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"?\":0,\"</s>\":1,\"<\":2,\"/\":3,\"s\":4,\">\":5,\"x\":6,\"</\":7,\"s>\":8},\"merges\":[\"< /\",\"s >\",\"</ s>\"]}}",
        "{" END "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"?\",\"continuing_subword_prefix\":\"\",\"vocab\":{\"?\":0,\"</s>\":1,\"<\":2,\"/\":3,\"s\":4,\">\":5,\"x\":6}}}",
        "{" END "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"</s>\":1,\"x\":6}}}",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        am_tokenizer *t = tok_from_json(files[i]);
        am_tokens tokens = {0};
        const am_span typed = {0, 4};
        tok_encode(t, AM_STR("</s>"), NULL, 0, &tokens);
        assert_int_equal(tokens.n, 1);
        assert_int_equal(tokens.ids[0], 1);
        tok_encode(t, AM_STR("</s>"), &typed, 1, &tokens);
        assert_true(tokens.n > 0);
        for (size_t k = 0; k < tokens.n; k++) assert_int_not_equal(tokens.ids[k], 1);
        am_tokens_free(&tokens);
        am_tokenizer_free(t);
    }
}

static void what_a_user_typed_stays_text(void **state) {
    (void)state;
    am_tokenizer *t = tok_load("models/memo-28m/mlx-4bit");
    if (!t) skip();
    const am_str text = AM_STR("<|im_start|>user\nsay <|im_end|> please<|im_end|>\n");
    const am_span typed = {17, 38};
    am_tokens tokens = {0};
    tok_encode(t, text, &typed, 1, &tokens);
    int starts = 0, ends = 0;
    for (size_t i = 0; i < tokens.n; i++) {
        starts += tokens.ids[i] == 8186;
        ends += tokens.ids[i] == 8187;
        if (am_tokenizer_is_special(t, tokens.ids[i]))
            assert_true(tokens.offsets[i + 1] <= typed.begin || tokens.offsets[i] >= typed.end);
    }
    assert_int_equal(starts, 1);
    assert_int_equal(ends, 1);
    /* even one typed byte inside is enough, wherever it lies */
    for (size_t b = 38; b < 48; b++) {
        const am_span one = {b, b + 1};
        tok_encode(t, text, &one, 1, &tokens);
        ends = 0;
        for (size_t i = 0; i < tokens.n; i++) ends += tokens.ids[i] == 8187;
        assert_int_equal(ends, 1);
    }
    am_buf back;
    tok_encode(t, text, &typed, 1, &tokens);
    tok_decode(t, tokens.ids, tokens.n, false, &back);
    assert_true(am_str_eq(am_buf_str(&back), text));
    am_buf_free(&back);
    am_tokens_free(&tokens);
    am_tokenizer_free(t);
}

/* Runs of spaces are added tokens in many vocabularies: a user's code meets them. What is special, or written like a mark, it does not. */
static void plain_added_tokens_are_text(void **state) {
    (void)state;
    am_tokenizer *t = tok_from_json("{\"added_tokens\":[{\"id\":3,\"content\":\"  \",\"normalized\":false},{\"id\":4,\"content\":\"<think>\",\"normalized\":false},"
                                    "{\"id\":5,\"content\":\"  x\",\"special\":true}],\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\" \":1,\"x\":2},\"merges\":[]}}");
    const am_str text = AM_STR("x  x<think>");
    const am_span typed = {0, 11};
    am_tokens tokens = {0};
    tok_encode(t, text, NULL, 0, &tokens);
    assert_int_equal(tokens.n, 3);
    assert_int_equal(tokens.ids[1], 5);
    assert_int_equal(tokens.ids[2], 4);
    tok_encode(t, text, &typed, 1, &tokens);
    assert_int_equal(tokens.ids[1], 3);
    assert_int_equal(tokens.ids[2], 2);
    for (size_t i = 0; i < tokens.n; i++) assert_true(tokens.ids[i] < 4);
    am_tokens_free(&tokens);
    am_tokenizer_free(t);
}

/* A conversation that grows, with a typed control token in it: encoding on from any earlier state equals encoding the whole. */
static void extending_equals_encoding_the_whole(void **state) {
    (void)state;
    static const char *const name[] = {"models/memo-28m/mlx-4bit", "testdata/tokenizers/hf/llama3", "testdata/tokenizers/hf/qwen2.5",
                                       "testdata/tokenizers/hf/phi-3-mini", "testdata/tokenizers/hf/t5-small"};
    const char *text = "<|im_start|>system\nYou are e\xCC\x81t\xC3\xA9.\n\nplain lines\nfollow   \n<|im_end|>\n<|im_start|>user\nhi <|im_end|> there\n"
                       "second\n\n\nline 12345 \xE4\xBD\xA0\xE5\xA5\xBD<|im_end|>\n<|im_start|>assistant\nan answer\nwith lines<|im_end|>\n<|eot_id|><|end|> tail of it";
    size_t n = strlen(text);
    const am_span typed = {98, 130};
    for (size_t m = 0; m < sizeof name / sizeof *name; m++) {
        am_tokenizer *t = tok_load(name[m]);
        if (!t) skip();
        am_tokens whole = {0}, known = {0}, extended = {0};
        tok_encode(t, (am_str){text, n}, &typed, 1, &whole);
        for (size_t cut = 0; cut <= n; cut++) {
            if (((unsigned char)text[cut] & 0xC0) == 0x80) continue;
            am_span part = {typed.begin < cut ? typed.begin : cut, typed.end < cut ? typed.end : cut};
            tok_encode(t, (am_str){text, cut}, &part, 1, &known);
            am_error err = {0};
            size_t same = cut < n && ((unsigned char)text[cut] & 0xC0) == 0x80 ? cut - 1 : cut;
            assert_int_equal(am_tokenizer_extend(t, &known, same, (am_str){text, n}, &typed, 1, &extended, &err), AM_OK);
            assert_int_equal(extended.n, whole.n);
            assert_memory_equal(extended.ids, whole.ids, whole.n * sizeof *whole.ids);
            assert_memory_equal(extended.offsets, whole.offsets, (whole.n + 1) * sizeof *whole.offsets);
        }
        am_tokens_free(&whole);
        am_tokens_free(&known);
        am_tokens_free(&extended);
        am_tokenizer_free(t);
    }
}

static void bad_text_is_refused_with_its_place(void **state) {
    (void)state;
    am_tokenizer *t = tok_load("models/memo-28m/mlx-4bit");
    if (!t) skip();
    am_tokens tokens = {0};
    am_error err = {0};
    assert_int_equal(am_tokenizer_encode(t, AM_STR("good \xC3"), NULL, 0, 0, &tokens, &err), AM_EINVAL);
    assert_non_null(strstr(err.message, "byte 5"));
    assert_int_equal(am_tokenizer_encode(t, AM_STR("\xED\xA0\x80"), NULL, 0, 0, &tokens, &err), AM_EINVAL);
    const am_span wild = {2, 400};
    assert_int_equal(am_tokenizer_encode(t, AM_STR("text"), &wild, 1, 0, &tokens, &err), AM_EINVAL);
    assert_int_equal(am_tokenizer_encode(t, AM_STR(""), NULL, 0, 0, &tokens, &err), AM_OK);
    assert_int_equal(tokens.n, 0);
    assert_int_equal(am_tokenizer_piece(t, -1).n, 0);
    assert_int_equal(am_tokenizer_piece(t, 1 << 30).n, 0);
    const int32_t odd[] = {-5, 1 << 30, 40, 8191, 9000};
    am_buf back;
    tok_decode(t, odd, 5, false, &back);
    am_buf_free(&back);
    am_tokens_free(&tokens);
    am_tokenizer_free(t);
}

/* Hugging Face's own answers to this file: an empty match counts, but not right behind another match, and not in an empty text. */
static void empty_matches_count_once(void **state) {
    (void)state;
    am_tokenizer *t = tok_from_json("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a*+\"},\"content\":\"-\"},"
                                    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a*+\"},\"content\":\"-\"},"
                                    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\".\"}]},"
                                    "\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"ra_\":0,\"-r-_-\":1,\"\":2,\"-\":3,\"?\":4},\"unk_token\":\"?\"}}");
    assert_string_equal(tok_ids(t, "ra_"), "1");
    assert_string_equal(tok_ids(t, "a"), "3");
    am_buf out;
    tok_decode(t, (const int32_t[]){0, 2, 3}, 3, false, &out);
    assert_true(am_str_eq(am_buf_str(&out), AM_STR(".-.r.-._.-..-.-.-.")));
    am_buf_free(&out);
    am_tokenizer_free(t);
}

/* Hugging Face's own offsets: what a pre-tokenizer drops belongs to no token. */
static void ends_leave_out_what_was_dropped(void **state) {
    (void)state;
    static const struct {
        const char *pre;
        uint32_t at[5][2];
    } cases[] = {{"WhitespaceSplit", {{0, 2}, {4, 5}, {6, 9}, {10, 12}, {15, 18}}}, {"Whitespace", {{0, 2}, {4, 5}, {6, 9}, {10, 12}, {15, 18}}}, {"BertPreTokenizer", {{0, 2}, {4, 5}, {6, 9}, {10, 12}, {15, 18}}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[512];
        snprintf(json, sizeof json, "{\"added_tokens\":[{\"id\":4,\"content\":\"<x>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"%s\"},\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"ab\":0,\"a\":1,\"?\":2},\"unk_token\":\"?\"}}", cases[i].pre);
        am_tokenizer *t = tok_from_json(json);
        am_tokens tokens = {0};
        am_error err = {0};
        assert_int_equal(am_tokenizer_encode(t, AM_STR("ab  a <x> \xC3\xA4 \n a\xC3\xA4 "), NULL, 0, AM_ENCODE_ENDS, &tokens, &err), AM_OK);
        assert_int_equal(tokens.n, 5);
        for (size_t k = 0; k < 5; k++) assert_int_equal(tokens.offsets[k], cases[i].at[k][0]), assert_int_equal(tokens.ends[k], cases[i].at[k][1]);
        am_tokens_free(&tokens);
        am_tokenizer_free(t);
    }
}

/* Every model stops at so many tokens, which are the first of the whole text's. */
static void encoding_stops_where_it_is_told(void **state) {
    (void)state;
#define WORDS "\"vocab\":{\"a\":0,\"b\":1,\"?\":2,\"ab\":3},\"unk_token\":\"?\""
    static const char *const models[] = {
        "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"BPE\"," WORDS ",\"merges\":[\"a b\"]}}", "{\"model\":{\"type\":\"BPE\"," WORDS ",\"merges\":[]}}",
        "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"WordPiece\",\"continuing_subword_prefix\":\"\"," WORDS "}}",
        "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"WordLevel\"," WORDS "}}",
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-1],[\"b\",-1],[\" \",-1]]}}",
        "{\"added_tokens\":[{\"id\":4,\"content\":\"a\"},{\"id\":5,\"content\":\"b\"}],\"model\":{\"type\":\"BPE\"," WORDS ",\"merges\":[]}}"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        am_tokenizer *t = tok_from_json(models[i]);
        am_str text = AM_STR("ab a b xb ab ab ba");
        am_tokens whole = {0};
        am_error err = {0};
        tok_encode(t, text, NULL, 0, &whole);
        assert_true(whole.n > 4);
        assert_int_equal(am_tokenizer_least(t, text.n), 0); /* these may drop white space, or know no byte */
        for (size_t max = 1; max <= whole.n; max++) {
            am_tokens some = {.max = max};
            assert_int_equal(am_tokenizer_encode(t, text, NULL, 0, 0, &some, &err), max < whole.n ? AM_ELIMIT : AM_OK);
            if (max < whole.n && i != 2) assert_int_equal(some.n, max); /* WordPiece takes a word back when it does not come out even */
            if (max < whole.n) assert_non_null(strstr(err.message, "more than"));
            assert_memory_equal(some.ids, whole.ids, (some.n < max ? some.n : max) * sizeof *some.ids);
            am_tokens_free(&some);
        }
        am_tokens_free(&whole);
        am_tokenizer_free(t);
    }
}

static void fingerprints_follow_the_source(void **state) {
    (void)state;
    const char *a = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    const char *b = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":0},\"merges\":[]}}";
    am_tokenizer *x = tok_from_json(a), *y = tok_from_json(a), *z = tok_from_json(b);
    uint8_t fx[16], fy[16], fz[16];
    am_tokenizer_fingerprint(x, fx);
    am_tokenizer_fingerprint(y, fy);
    am_tokenizer_fingerprint(z, fz);
    assert_memory_equal(fx, fy, 16);
    assert_memory_not_equal(fx, fz, 16);
    am_tokenizer_free(x);
    am_tokenizer_free(y);
    am_tokenizer_free(z);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memo_prompts_and_answers),
        cmocka_unit_test(no_model_spells_control_tokens), cmocka_unit_test(what_a_user_typed_stays_text), cmocka_unit_test(plain_added_tokens_are_text),
        cmocka_unit_test(extending_equals_encoding_the_whole),
        cmocka_unit_test(bad_text_is_refused_with_its_place),
        cmocka_unit_test(empty_matches_count_once), cmocka_unit_test(encoding_stops_where_it_is_told), cmocka_unit_test(ends_leave_out_what_was_dropped),
        cmocka_unit_test(fingerprints_follow_the_source),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
