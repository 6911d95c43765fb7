/* Real tokenizer.json files against what Hugging Face tokenizers makes of 6,463 strings and 300 id lists each. */
#include "tok_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct golden {
    am_buf file;
    json_t *header;
    size_t data;
} golden;

static void golden_open(const char *path, golden *g) {
    tok_read(path, &g->file);
    uint64_t n;
    memcpy(&n, g->file.p, 8);
    am_error err = {0};
    assert_int_equal(am_json_parse((am_str){g->file.p + 8, n}, true, &g->header, &err), AM_OK);
    g->data = 8 + n;
}

static const uint32_t *golden_u32(const golden *g, const char *name, size_t *n) {
    const json_t *at = json_object_get(json_object_get(g->header, name), "data_offsets");
    size_t b = (size_t)json_integer_value(json_array_get(at, 0)), e = (size_t)json_integer_value(json_array_get(at, 1));
    uint32_t *copy = malloc(e - b + 1);
    memcpy(copy, g->file.p + g->data + b, e - b);
    *n = (e - b) / 4;
    return copy;
}

static void compare_lines(const am_tokenizer *t, const json_t *lines, const golden *g, const char *ids_name, const char *ends_name, unsigned flags) {
    size_t n_ids, n_ends, wrong = 0, begin = 0;
    const uint32_t *ids = golden_u32(g, ids_name, &n_ids), *ends = golden_u32(g, ends_name, &n_ends);
    am_tokens tokens = {0};
    for (size_t i = 0; i < n_ends; i++) {
        const json_t *line = json_array_get(lines, i);
        am_error err = {0};
        if (am_tokenizer_encode(t, (am_str){json_string_value(line), json_string_length(line)}, NULL, 0, flags, &tokens, &err))
            fail_msg("line %zu: %s", i, err.message);
        bool same = tokens.n == ends[i] - begin && (tokens.n == 0 || memcmp(tokens.ids, ids + begin, tokens.n * 4) == 0);
        if (!same && wrong++ < 10) {
            print_message("line %zu: %.300s\n  want", i, json_string_value(line));
            for (size_t k = begin; k < ends[i] && k < begin + 60; k++) print_message(" %u", ids[k]);
            print_message("\n  got ");
            for (size_t k = 0; k < tokens.n && k < 60; k++) print_message(" %d", tokens.ids[k]);
            print_message("\n");
        }
        begin = ends[i];
    }
    am_tokens_free(&tokens);
    free((void *)ids);
    free((void *)ends);
    print_message("%s: %zu of %zu lines, %zu ids\n", ids_name, n_ends - wrong, n_ends, n_ids);
    assert_true(n_ends >= 500);
    if (wrong) fail_msg("%zu of %zu lines differ (%s)", wrong, n_ends, ids_name);
}

static void compare_decodings(const am_tokenizer *t, const json_t *cases) {
    size_t i, wrong = 0;
    json_t *c;
    json_array_foreach(cases, i, c) {
        const json_t *list = json_object_get(c, "ids");
        size_t n = json_array_size(list);
        int32_t *ids = malloc((n + 1) * sizeof *ids);
        for (size_t k = 0; k < n; k++) ids[k] = (int32_t)json_integer_value(json_array_get(list, k));
        for (int skip_special = 0; skip_special < 2; skip_special++) {
            const json_t *want = json_object_get(c, skip_special ? "text_skip" : "text");
            am_buf got;
            tok_decode(t, ids, n, skip_special, &got);
            bool same = got.n == json_string_length(want) && (got.n == 0 || memcmp(got.p, json_string_value(want), got.n) == 0);
            if (!same && wrong++ < 5) print_message("case %zu skip %d\n  want %.200s\n  got  %.200s\n", i, skip_special, json_string_value(want), got.p ? got.p : "");
            am_buf_free(&got);
        }
        free(ids);
    }
    print_message("decodings: %zu of %zu, special tokens kept and skipped\n", i * 2 - wrong, i * 2);
    assert_int_equal(i, 300);
    if (wrong) fail_msg("%zu decodings differ", wrong);
}

static void compare(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "testdata/tokenizers/hf/%s", name);
    am_tokenizer *t = tok_load(path);
    snprintf(path, sizeof path, "golden/tokenizers/%s.safetensors", name);
    const char *truth = tok_truth(path);
    if (!t || !truth) {
        am_tokenizer_free(t);
        skip();
    }
    assert_true((am_tokenizer_least(t, 1 << 20) > 1000) == (strcmp(name, "phi-3-mini") != 0 && strcmp(name, "t5-small") != 0)); /* those two drop white space */
    golden g;
    golden_open(truth, &g);
    json_t *lines = tok_json(tok_truth("golden/tokenizers/lines.json")), *decodings = tok_json(tok_truth("golden/tokenizers/decode.json"));
    compare_lines(t, lines, &g, "ids", "ends", 0);
    compare_lines(t, lines, &g, "sp_ids", "sp_ends", AM_ENCODE_BOS_EOS);
    compare_decodings(t, json_object_get(decodings, name));
    json_decref(lines);
    json_decref(decodings);
    json_decref(g.header);
    am_buf_free(&g.file);
    am_tokenizer_free(t);
}

static void llama3(void **state) { (void)state, compare("llama3"); }
static void minimind(void **state) { (void)state, compare("minimind"); }
static void phi_3_mini(void **state) { (void)state, compare("phi-3-mini"); }
static void qwen2_5(void **state) { (void)state, compare("qwen2.5"); }
static void t5_small(void **state) { (void)state, compare("t5-small"); }

static void malformed_merges_of_llama2_are_refused(void **state) {
    (void)state;
    const char *dir = tok_truth("testdata/tokenizers/hf/llama2");
    if (!dir) skip();
    am_tokenizer *t = NULL;
    am_error err = {0};
    assert_int_equal(am_tokenizer_load_dir(dir, &t, &err), AM_EFORMAT);
    assert_null(t);
    assert_non_null(strstr(err.message, "merge 18918"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama3),   cmocka_unit_test(minimind), cmocka_unit_test(phi_3_mini),
        cmocka_unit_test(qwen2_5),  cmocka_unit_test(t5_small), cmocka_unit_test(malformed_merges_of_llama2_are_refused),
    };
    return cmocka_run_group_tests_name("tokenizer_golden", tests, NULL, NULL);
}
