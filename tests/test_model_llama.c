/* The Llama forward pass: the same bits whatever the chunks, batch mates and threads (on every table and at every cache width), the embedded
 * model's answers, and the greedy truths of real trained models. */
#include "base/fs.h"
#include "sequence.h"
#include "tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *shared_dir(void) {
    const char *dir = getenv("AM_SHARED");
    if (!dir) dir = "../shared";
    return access(dir, R_OK) == 0 ? dir : NULL;
}

/* A model with a layout and what a pass needs. */
typedef struct bench {
    am_model *model;
    const am_model_info *info;
    am_kv_layout layout;
    am_workspace *ws;
    test_sequence seq;
} bench;

static void bench_open(bench *b, const char *path, const am_kernels *kernels, uint32_t bits_k, uint32_t bits_v, uint32_t max_tokens) {
    am_error err = {0};
    am_kv_spec spec;
    if (am_model_load(path, &(am_model_options){.kernels = kernels}, &b->model, &err)) fail_msg("%s", err.message);
    b->info = am_model_info_of(b->model);
    if (am_model_kv_spec(b->model, bits_k, bits_v, &spec, &err) || am_kv_layout_init(&b->layout, &spec, &err) ||
        am_workspace_create(b->model, &b->layout, NULL, AM_BLOCK_TOKENS, AM_BLOCK_TOKENS, &b->ws, &err))
        fail_msg("%s", err.message);
    test_sequence_init(&b->seq, kernels, b->model, b->ws, &b->layout, max_tokens);
}

static void bench_close(bench *b) {
    test_sequence_free(&b->seq);
    am_workspace_free(b->ws);
    am_model_free(b->model);
}

enum { N_TOKENS = 600, N_SEQUENCES = 3 };

static int32_t tokens_of[N_SEQUENCES][N_TOKENS];

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static void compare_bits(const float *a, const float *b, size_t n, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0) fail_msg("%s: logit %zu differs: %a, %a", what, i, (double)a[i], (double)b[i]);
}

static void check_chunks(bench *b, const float *wanted) {
    static const uint32_t chunks[] = {1, 2, 3, 7, 16, 31, 64, 100, 255};
    float *logits = am_calloc((size_t)N_TOKENS * b->info->n_vocab, sizeof *logits);
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        test_sequence_clear(&b->seq);
        test_sequence_push(&b->seq, tokens_of[0], N_TOKENS, chunks[i], logits);
        compare_bits(logits, wanted, (size_t)N_TOKENS * b->info->n_vocab, "chunks");
    }
    free(logits);
}

static uint32_t keep_some(void *arg, uint32_t layer, uint32_t n) {
    (void)layer;
    return next_random(arg) % 2 ? n : 1 + (uint32_t)next_random(arg) % n;
}

/* Three sequences in random segments, of which the last may be cut in any layer, random subsets and orders of a batch, with n_threads. */
static void check_batch(const bench *b, const am_kernels *kernels, float *const wanted[N_SEQUENCES], size_t n_threads) {
    am_workers *workers;
    am_workspace *ws;
    am_error err;
    test_sequence seq[N_SEQUENCES];
    uint64_t random = 99 + n_threads;
    size_t n_vocab = b->info->n_vocab;
    float *logits = am_calloc((size_t)N_SEQUENCES * AM_BLOCK_TOKENS * n_vocab, sizeof *logits);
    assert_int_equal(am_workers_create(n_threads, &workers, &err), AM_OK);
    assert_int_equal(am_workspace_create(b->model, &b->layout, workers, 3 * AM_BLOCK_TOKENS, 3 * AM_BLOCK_TOKENS, &ws, &err), AM_OK);
    for (int s = 0; s < N_SEQUENCES; s++) test_sequence_init(&seq[s], kernels, b->model, ws, &b->layout, N_TOKENS);
    while (seq[0].n < N_TOKENS || seq[1].n < N_TOKENS || seq[2].n < N_TOKENS) {
        am_segment segments[N_SEQUENCES];
        int who[N_SEQUENCES], n = 0;
        for (int i = 0, first = (int)(next_random(&random) % 3); i < N_SEQUENCES; i++) {
            int s = (first + i) % 3;
            uint32_t most = next_random(&random) % 2 ? 1 : 1 + next_random(&random) % 120;
            uint32_t count = test_sequence_room(&seq[s], N_TOKENS - seq[s].n < most ? N_TOKENS - seq[s].n : most);
            if (count == 0 || next_random(&random) % 4 == 0) continue;
            who[n] = s;
            segments[n] = test_sequence_segment(&seq[s], tokens_of[s] + seq[s].n, count, logits + (size_t)n * AM_BLOCK_TOKENS * n_vocab,
                                                next_random(&random) % 2 ? count : 1);
            n++;
        }
        if (n == 0) continue;
        segments[n - 1].keep = next_random(&random) % 2 ? keep_some : NULL;
        segments[n - 1].keep_arg = &random;
        if (am_model_forward(b->model, ws, segments, (size_t)n, &err)) fail_msg("%s", err.message);
        for (int i = 0; i < n; i++) {
            uint32_t row = segments[i].n_past + segments[i].n_tokens - segments[i].n_logits;
            compare_bits(segments[i].logits, wanted[who[i]] + row * n_vocab, segments[i].n_logits * n_vocab, "batch");
            test_sequence_advance(&seq[who[i]], segments[i].n_tokens);
        }
    }
    for (int s = 0; s < N_SEQUENCES; s++) test_sequence_free(&seq[s]);
    am_workspace_free(ws);
    am_workers_free(workers);
    free(logits);
}

static void test_same_bits(void **state) {
    static const uint32_t bits[][2] = {{32, 32}, {16, 16}, {8, 8}, {4, 4}, {8, 4}};
    static const test_tiny_model shape = {.n_layer = 2, .n_vocab = 96, .n_embd = 64, .n_ff = 96, .n_head = 6, .n_kv_head = 2, .head_dim = 32};
    char dir[] = "/tmp/am-test-tiny-XXXXXX";
    uint64_t random = 7;
    (void)state;
    assert_non_null(mkdtemp(dir));
    test_tiny_model_write(&shape, dir, 1);
    for (int s = 0; s < N_SEQUENCES; s++)
        for (int i = 0; i < N_TOKENS; i++) tokens_of[s][i] = (int32_t)(next_random(&random) % shape.n_vocab);
    for (const am_kernels *const *k = am_kernels_list(); *k; k++)
        for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
            bench b;
            float *wanted[N_SEQUENCES];
            bench_open(&b, dir, *k, bits[i][0], bits[i][1], N_TOKENS);
            for (int s = 0; s < N_SEQUENCES; s++) {
                wanted[s] = am_calloc((size_t)N_TOKENS * shape.n_vocab, sizeof(float));
                test_sequence_clear(&b.seq);
                test_sequence_push(&b.seq, tokens_of[s], N_TOKENS, AM_BLOCK_TOKENS, wanted[s]);
            }
            for (size_t v = 0; v < (size_t)N_TOKENS * shape.n_vocab; v++) assert_true(isfinite(wanted[0][v]));
            check_chunks(&b, wanted[0]);
            for (size_t n_threads = 1; n_threads <= 4; n_threads++) check_batch(&b, *k, wanted, n_threads);
            for (int s = 0; s < N_SEQUENCES; s++) free(wanted[s]);
            bench_close(&b);
        }
    test_tiny_model_remove(dir);
}

/* "Who are you?" and the answer, from the embedded model's own folder of expected answers. */
static const int32_t who_prompt[] = {8186, 309, 198, 1233, 414, 319, 30, 8187, 198, 8186, 311, 198};
static const int32_t who_answer[] = {40, 532, 2069, 11, 258, 929, 1015, 316, 1638, 485, 319, 573, 337, 13, 8187};

static void test_embedded(void **state) {
    (void)state;
    enum { N = sizeof who_prompt / sizeof *who_prompt, M = sizeof who_answer / sizeof *who_answer };
    for (const am_kernels *const *k = am_kernels_list(); *k; k++)
        for (uint32_t bits = 4; bits <= 32; bits *= 2) {
            bench b;
            int32_t out[M];
            bench_open(&b, NULL, *k, bits, bits, 300);
            assert_string_equal(b.info->name, "memo-28m");
            assert_string_equal(b.info->architecture, "llama");
            assert_string_equal(b.info->format, "mlx 4-bit g64");
            assert_int_equal(b.info->n_vocab, 8192);
            assert_int_equal(b.info->n_ctx, 8192);
            assert_int_equal(b.info->n_eos, 2);
            assert_int_equal(b.info->top_k, 20);
            assert_true(b.info->n_params > 29000000 && b.info->n_params < 30000000);
            assert_non_null(am_model_tokenizer(b.model));
            assert_non_null(am_model_chat(b.model));
            float *logits = am_calloc((size_t)N * b.info->n_vocab, sizeof *logits);
            test_sequence_push(&b.seq, who_prompt, N, N, logits);
            test_sequence_greedy(&b.seq, logits + (size_t)(N - 1) * b.info->n_vocab, M, out);
            assert_memory_equal(out, who_answer, sizeof out);
            free(logits);
            bench_close(&b);
        }
}

static size_t ids_of(const json_t *array, int32_t *out, size_t cap) {
    size_t n = json_array_size(array);
    assert_true(n > 0 && n <= cap);
    for (size_t i = 0; i < n; i++) out[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return n;
}

enum { MAX_PROMPT = 1200 };

/* The prompt, then the expected answer forced token by token: where our choice is another, the true margin must be below `slack`
 * logits (0: never another). Returns how many were. */
static size_t follow(bench *b, const json_t *prompt, const json_t *answer, double slack) {
    static int32_t ids[MAX_PROMPT], wanted[256];
    size_t n = ids_of(json_object_get(prompt, "prompt_ids"), ids, MAX_PROMPT), m = ids_of(json_object_get(answer, "ids"), wanted, 256);
    size_t n_vocab = b->info->n_vocab, n_other = 0;
    float *logits = am_calloc(n_vocab, sizeof *logits);
    test_sequence_clear(&b->seq);
    test_sequence_push(&b->seq, ids, (uint32_t)n - 1, AM_BLOCK_TOKENS, NULL);
    test_sequence_push(&b->seq, ids + n - 1, 1, 1, logits);
    for (size_t i = 0; i < m; i++) {
        int32_t best = test_argmax(logits, n_vocab);
        double margin = json_number_value(json_array_get(json_object_get(answer, "margins"), i));
        if (best != wanted[i] && !(margin < slack))
            fail_msg("%s: token %zu of '%s' is %d, must be %d (margin %.2f)", b->seq.kernels->name, i,
                     json_string_value(json_object_get(prompt, "name")), best, wanted[i], margin);
        n_other += best != wanted[i];
        test_sequence_push(&b->seq, &wanted[i], 1, 1, logits);
    }
    free(logits);
    return n_other;
}

/* The scalar table reads the long prompt only when AM_TEST_ALL is set: it takes half a minute. */
static void check_answers(const char *dir, const char *folder, const am_kernels *kernels, uint32_t bits, double slack) {
    char path[4096];
    am_error err;
    json_t *expected, *prompt;
    size_t i, n_other = 0;
    bench b;
    snprintf(path, sizeof path, "%s/models/memo-28m/expected.json", dir);
    if (am_json_read(path, 4 << 20, &expected, &err)) fail_msg("%s", err.message);
    snprintf(path, sizeof path, "%s/models/memo-28m/%s", dir, folder);
    bench_open(&b, path, kernels, bits, bits, MAX_PROMPT);
    bool all = strcmp(kernels->name, "scalar") != 0 || getenv("AM_TEST_ALL");
    json_array_foreach(json_object_get(expected, "prompts"), i, prompt)
        if (all || json_array_size(json_object_get(prompt, "prompt_ids")) < 500)
            n_other += follow(&b, prompt, json_object_get(prompt, folder), slack);
    print_message("    %s, %s, %u-bit cache: %zu other tokens\n", folder, kernels->name, bits, n_other);
    bench_close(&b);
    json_decref(expected);
}

static void test_expected(void **state) {
    const char *dir = shared_dir();
    (void)state;
    if (!dir) {
        print_message("no shared folder: expected answers of memo-28m not compared\n");
        skip();
    }
    const am_kernels *const *k = am_kernels_list();
    check_answers(dir, "hf", *k, 32, 0);
    for (; *k; k++) {
        check_answers(dir, "mlx-4bit", *k, 32, 0);
        if (k[1]) check_answers(dir, "mlx-4bit", *k, 4, 1); /* the last one, scalar, is too slow to do it all twice */
    }
}

static void check_stories(const char *dir, const char *folder, const json_t *truth, const json_t *prompt, const am_kernels *kernels) {
    char path[4096];
    int32_t ids[64], wanted[256], out[256];
    bench b;
    snprintf(path, sizeof path, "%s/testdata/weights/%s", dir, folder);
    bench_open(&b, path, kernels, 32, 32, 300);
    size_t n = ids_of(prompt, ids, 64), m = ids_of(json_object_get(truth, "greedy"), wanted, 256), n_vocab = b.info->n_vocab;
    float *logits = am_calloc(n * n_vocab, sizeof *logits);
    test_sequence_push(&b.seq, ids, (uint32_t)n, (uint32_t)n, logits);
    float *last = logits + (n - 1) * n_vocab;
    bool rounded = kernels->matmul_int8 && !strstr(b.info->format, "16") && strcmp(b.info->format, "f32"); /* inputs in 8 bits */
    for (size_t i = 0; i < 8; i++)
        assert_true(fabs((double)last[i] - json_number_value(json_array_get(json_object_get(truth, "first_logits8"), i))) < (rounded ? 0.3 : 2e-3));
    test_sequence_greedy(&b.seq, last, (uint32_t)m, out);
    for (size_t i = 0; i < m && !rounded; i++)
        if (out[i] != wanted[i]) fail_msg("%s, %s: token %zu is %d, must be %d", folder, kernels->name, i, out[i], wanted[i]);
    free(logits);
    bench_close(&b);
}

static void test_stories(void **state) {
    static const char *const folders[][2] = {{"TinyStories-656K-hf", "f32"}, {"TinyStories-656K-mlx-4bit-g32", "mlx_4b_g32"},
                                             {"TinyStories-656K-mlx-8bit-g64", "mlx_8b_g64"}};
    const char *dir = shared_dir();
    char path[4096];
    json_t *truth;
    am_error err;
    (void)state;
    if (!dir) {
        print_message("no shared folder: TinyStories not compared\n");
        skip();
    }
    snprintf(path, sizeof path, "%s/testdata/expected/tinystories656k_mlx.json", dir);
    if (am_json_read(path, 1 << 20, &truth, &err)) fail_msg("%s", err.message);
    for (const am_kernels *const *k = am_kernels_list(); *k; k++)
        for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
            check_stories(dir, folders[i][0], json_object_get(truth, folders[i][1]), json_object_get(truth, "prompt_ids"), *k);
    json_decref(truth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_embedded),
        cmocka_unit_test(test_expected),
        cmocka_unit_test(test_stories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
