/* What `show` says without reading weights: the published sizes of real models from their shapes alone, and the same facts as a whole load. */
#include "kernels/kernels.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static am_model *survey(const char *path) {
    am_model *model;
    am_error err = {0};
    if (am_model_load(path, &(am_model_options){.survey = true}, &model, &err)) fail_msg("%s: %s", path, err.message);
    return model;
}

/* The numbers of parameters are those on the models' own pages. */
static void shapes_have_the_published_sizes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t n_params, token_bytes_at_16;
    } known[] = {{"smollm2-135m", 134515008, 2 * 30 * 2 * 192},    {"smollm2-1.7b", 1711376384, 2 * 24 * 2 * 2048},
                 {"llama-3.2-1b", 1235814400, 2 * 16 * 2 * 512},   {"llama-3.1-8b", 8030261248, 2 * 32 * 2 * 1024},
                 {"mistral-7b", 7248023552, 2 * 32 * 2 * 1024},    {"qwen2.5-7b", 7615616512, 2 * 28 * 2 * 512},
                 {"qwen3-8b", 8190735360, 2 * 36 * 2 * 1024},      {"gemma-3-4b", 3880263168, 2 * 34 * 2 * 1024},
                 {"gemma-3-12b", 11766034176, 2 * 48 * 2 * 2048},  {"deepseek-v2-lite", 15706484224, 2 * 27 * 576},
                 {"gpt-oss-20b", 20914757184, 2 * 24 * 2 * 512}};
    if (access("tools/shapes", R_OK) != 0) skip();
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char path[128];
        am_kv_spec spec;
        am_kv_layout layout;
        am_error err;
        snprintf(path, sizeof path, "tools/shapes/%s.json", known[i].name);
        am_model *model = survey(path);
        if (am_model_info_of(model)->n_params != known[i].n_params)
            fail_msg("%s: %llu parameters", known[i].name, (unsigned long long)am_model_info_of(model)->n_params);
        assert_int_equal(am_model_kv_spec(model, 16, 16, &spec, &err), AM_OK);
        assert_int_equal(am_kv_layout_init(&layout, &spec, &err), AM_OK);
        assert_int_equal(layout.sealed_bytes, known[i].token_bytes_at_16 * AM_BLOCK_TOKENS);
        am_model_free(model);
    }
}

static void compare(const char *path) {
    const am_kernels *kernels;
    am_model *whole, *headers = survey(path);
    am_error err = {0};
    if (am_kernels_pick(NULL, &kernels, &err) || am_model_load(path, &(am_model_options){.kernels = kernels}, &whole, &err))
        fail_msg("%s", err.message);
    const am_model_info *a = am_model_info_of(headers), *b = am_model_info_of(whole);
    assert_true(a->n_params == b->n_params);
    assert_true(a->file_bytes == b->file_bytes);
    assert_string_equal(a->forms, b->forms);
    assert_string_equal(a->format, b->format);
    assert_int_equal(a->n_window_layers, b->n_window_layers);
    assert_int_equal(a->head_dim_k, b->head_dim_k);
    /* scales that turn out to fit f16 are known only after reading them; the structs of experts are small here but so are the models */
    double ratio = (double)a->weight_bytes / (double)b->weight_bytes;
    if (ratio < 0.95 || ratio > 1.3) fail_msg("%s: %g of the bytes", path, ratio);
    am_model_free(headers);
    am_model_free(whole);
}

static void headers_tell_what_loading_does(void **state) {
    (void)state;
    static const char *const cases[] = {"llama-mlx-q4", "llama-tied-bf16-sharded", "qwen2-mlx-mixed", "qwen3-moe", "phi3-fused", "gemma3-nested",
                                        "gpt-oss-mxfp4", "gpt-oss-bf16", "deepseek2-qlora-groups", "qwen3-gguf-kquants/model.gguf",
                                        "deepseek2-gguf-oldmla/model.gguf"};
    const char *shared = getenv("AM_SHARED") ? getenv("AM_SHARED") : "../shared";
    if (access(shared, R_OK) != 0) {
        print_message("no shared folder: headers not compared\n");
        skip();
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[2048];
        snprintf(path, sizeof path, "%s/golden/%s", shared, cases[i]);
        compare(path);
    }
    compare(NULL);
}

static void what_is_missing_is_said(void **state) {
    (void)state;
    am_model *model;
    am_error err = {0};
    assert_int_equal(am_model_load("/nonexistent/config.json", &(am_model_options){.survey = true}, &model, &err), AM_ENOTFOUND);
    assert_int_equal(am_model_load("/nonexistent", &(am_model_options){.survey = true}, &model, &err), AM_ENOTFOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes_have_the_published_sizes), cmocka_unit_test(headers_tell_what_loading_does),
                                       cmocka_unit_test(what_is_missing_is_said)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
