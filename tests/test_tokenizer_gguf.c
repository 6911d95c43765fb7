/* Vocabularies from GGUF metadata against what llama.cpp makes of the strings beside them. */
#include "tok_gguf.h"
#include "tok_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATOR "\n__ggml_vocab_test__\n"

static am_tokenizer *load(const char *name, char *path, size_t n_path) {
    char relative[256];
    snprintf(relative, sizeof relative, "testdata/tokenizers/gguf-vocab/ggml-vocab-%s.gguf", name);
    const char *found = tok_truth(relative);
    if (!found) return NULL;
    snprintf(path, n_path, "%s", found);
    tok_gguf g;
    tok_gguf_open(path, &g);
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_tokenizer_load_vocab(&g.vocab, &t, &err)) fail_msg("%s: %s", name, err.message);
    tok_gguf_close(&g);
    return t;
}

/* One string and one line of ids; true when equal. */
static bool same(const am_tokenizer *t, am_str text, const char *line, am_tokens *tokens) {
    tok_encode(t, text, NULL, 0, tokens);
    char *end = (char *)line;
    size_t i = 0;
    for (;; i++) {
        while (*end == ' ') end++;
        if (*end == '\n' || !*end) break;
        long id = strtol(end, &end, 10);
        if (i >= tokens->n || tokens->ids[i] != id) return false;
    }
    return i == tokens->n;
}

static void compare(const char *name) {
    char path[4096], beside[4200];
    am_tokenizer *t = load(name, path, sizeof path);
    if (!t) skip();
    am_buf inputs, outputs;
    snprintf(beside, sizeof beside, "%s.inp", path);
    tok_read(beside, &inputs);
    snprintf(beside, sizeof beside, "%s.out", path);
    tok_read(beside, &outputs);
    am_tokens tokens = {0};
    const char *p = inputs.p, *end = inputs.p + inputs.n, *line = outputs.p;
    size_t n = 0, wrong = 0;
    while (p < end && line && *line) {
        const char *stop = memmem(p, (size_t)(end - p), SEPARATOR, strlen(SEPARATOR));
        am_str text = {p, (size_t)((stop ? stop : end) - p)};
        if (!same(t, text, line, &tokens)) {
            wrong++;
            print_message("%s: '%.*s'\n  want %.*s\n  got ", name, (int)text.n, text.p, (int)strcspn(line, "\n"), line);
            for (size_t i = 0; i < tokens.n; i++) print_message(" %d", tokens.ids[i]);
            print_message("\n");
        }
        n++;
        line = strchr(line, '\n');
        if (line) line++;
        if (!stop) break;
        p = stop + strlen(SEPARATOR);
    }
    assert_true(n > 40);
    print_message("%s: %zu of %zu lines\n", name, n - wrong, n);
    am_tokens_free(&tokens);
    am_buf_free(&inputs);
    am_buf_free(&outputs);
    am_tokenizer_free(t);
    if (wrong) fail_msg("%s: %zu of %zu strings differ", name, wrong, n);
}

static void deepseek_coder(void **state) { (void)state, compare("deepseek-coder"); }
static void deepseek_llm(void **state) { (void)state, compare("deepseek-llm"); }
static void gemma_4(void **state) { (void)state, compare("gemma-4"); }
static void gpt_2(void **state) { (void)state, compare("gpt-2"); }
static void llama_bpe(void **state) { (void)state, compare("llama-bpe"); }
static void llama_spm(void **state) { (void)state, compare("llama-spm"); }
static void phi_3(void **state) { (void)state, compare("phi-3"); }
static void qwen2(void **state) { (void)state, compare("qwen2"); }

/* Every name that the table of split patterns knows loads; others are refused by name. */
static void named_patterns(void **state) {
    (void)state;
    static const char *const names[] = {"default", "llama-bpe", "qwen2", "gpt-4o", "o200k", "gemma", "deepseek-llm", "deepseek-coder", "deepseek-v3",
                                        "smollm", "tekken", "phi", "phi-2", "command-r", "falcon", "starcoder", "gpt-2", "mpt", "refact", "olmo", "bloom",
                                        "viking", "bailingmoe", "seed-coder", "superbpe", "qwen35", "chatglm-bpe", "dbrx", "deepseek-r1-qwen",
                                        "falcon3", "stablelm2", "poro-chat", "exaone", "exaone4", "exaone-moe", "minerva-7b", "megrez", "roberta-bpe", "hunyuan",
                                        "hunyuan-dense", "kimi-k2", "trillion", "lfm2", "jais", "jais-2", "codeshell", "glm4", "smaug-bpe", "llama4", "gigachat",
                                        "granite-docling", "granite-embed-multi-97m", "granite-embed-multi-311m", "tiny_aya", "cohere2moe", "spark2_5", "youtu",
                                        "minicpm5", "ufakzeka", "laguna", "chameleon", "sarvam-moe", "talkie", "f2llmv2", "hy_v4", "jina-v5-nano", "pixtral", "mellum2",
                                        "joyai-llm", "solar-open", "minimax-m2", "grok-2", "kormo", "kanana2", "midm-2.0", "falcon-h1", "modern-bert", "gpt3-finnish", "a.x-4.0"};
    const am_str tokens[] = {AM_STR("a"), AM_STR("b"), AM_STR("ab"), AM_STR("\xC4\xA0"), AM_STR("\xC4\x8A"), AM_STR("1"), AM_STR("\xE2\x96\x81")};
    const am_str merges[] = {AM_STR("a b")};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        am_vocab v = {.model = AM_STR("gpt2"), .pre = am_str_of(names[i]), .tokens = tokens, .n_tokens = 7, .merges = merges, .n_merges = 1,
                      .bos = -1, .eos = -1, .unk = -1, .pad = -1, .add_bos = -1, .add_eos = -1, .add_space_prefix = -1, .remove_extra_whitespaces = -1};
        am_tokenizer *t = NULL;
        am_error err = {0};
        if (am_tokenizer_load_vocab(&v, &t, &err)) fail_msg("%s: %s", names[i], err.message);
        const char *ids = tok_ids(t, "ab ba\nb 11");
        assert_true(strncmp(ids, "2 ", 2) == 0);
        am_tokenizer_free(t);
        v.pre = AM_STR("no-such-thing");
        assert_int_equal(am_tokenizer_load_vocab(&v, &t, &err), AM_EUNSUPPORTED);
        assert_non_null(strstr(err.message, "no-such-thing"));
        v.pre = am_str_of(names[i]);
        v.merges = NULL, v.n_merges = 0; /* only where the reader of reference does without */
        bool may = strcmp(names[i], "kimi-k2") == 0;
        assert_int_equal(am_tokenizer_load_vocab(&v, &t, &err), may ? AM_OK : AM_EFORMAT);
        am_tokenizer_free(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_coder), cmocka_unit_test(deepseek_llm), cmocka_unit_test(gemma_4), cmocka_unit_test(gpt_2),
        cmocka_unit_test(llama_bpe),      cmocka_unit_test(llama_spm),    cmocka_unit_test(phi_3),   cmocka_unit_test(qwen2),
        cmocka_unit_test(named_patterns),
    };
    return cmocka_run_group_tests_name("tokenizer_gguf", tests, NULL, NULL);
}
