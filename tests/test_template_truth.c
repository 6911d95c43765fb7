/* text/template.h and chat.h against what Python's jinja2 made of the same templates: 444 renderings of public models' chat
 * templates, 157 small programs of the language, and the prompts of the model that this project ships. */
#include "text_truth.h"

#include "base/fs.h"
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

/* 2025-07-10 12:00:00 UTC, where the truth stopped its clock */
static const int64_t now_s = 1752148800;

/* Does the error say what Python said? Python: "Type: text"; ours: "line N: Type: text", raise_exception's: the text alone. */
static bool same_error(const char *python, am_status status, const char *message) {
    if (status == AM_EINVAL) return strncmp(python, "TemplateError: ", 15) == 0 && strcmp(python + 15, message) == 0;
    const char *colon = strstr(message, ": ");
    return strncmp(message, "line ", 5) == 0 && colon && strcmp(colon + 2, python) == 0;
}

/* One case: 1 when it is as Python has it; prints the difference otherwise. */
static int check(const char *name, const char *source, size_t n_source, const json_t *context, const json_t *output, const json_t *error) {
    am_template *t = NULL;
    am_rendered r = {0};
    am_error err = {0};
    am_status status = am_template_compile((am_str){source, n_source}, &t, &err);
    if (!status) status = am_template_render(t, context, NULL, now_s, &r, &err);
    bool ok;
    if (output) {
        ok = !status && r.text.n == json_string_length(output) && memcmp(r.text.p, json_string_value(output), r.text.n) == 0;
    } else {
        ok = status && same_error(json_string_value(error), status, err.message);
    }
    if (!ok) {
        printf("---- %s\n", name);
        if (output) printf("wanted: %s\n", json_string_value(output));
        else printf("wanted error: %s\n", json_string_value(error));
        if (status) printf("error: %s\n", err.message);
        else printf("got: %s\n", r.text.p);
    }
    for (size_t i = 0; ok && !status && i < r.n_input; i++) {
        assert_true(r.input[i].begin < r.input[i].end && r.input[i].end <= r.text.n);
        assert_true(i == 0 || r.input[i - 1].end < r.input[i].begin);
    }
    am_rendered_free(&r);
    am_template_free(t);
    return ok;
}

static void real_templates_render_as_in_python(void **state) {
    (void)state;
    json_t *truth = truth_json("testdata/templates/goldens.json"), *test;
    size_t i, ok = 0, n = json_array_size(json_object_get(truth, "cases"));
    json_array_foreach(json_object_get(truth, "cases"), i, test) {
        const char *sha = json_string_value(json_object_get(test, "sha256")), *which = json_string_value(json_object_get(test, "context"));
        json_t *entry = json_object_get(json_object_get(truth, "templates"), sha), *source = json_object_get(entry, "template");
        json_t *context = json_copy(json_object_get(json_object_get(truth, "contexts"), which));
        json_object_update(context, json_object_get(test, "tokens"));
        json_object_set(context, "add_generation_prompt", json_object_get(test, "add_generation_prompt"));
        char name[300];
        snprintf(name, sizeof name, "%s, %s, %s", json_string_value(json_object_get(entry, "name")), which,
                 json_is_true(json_object_get(test, "add_generation_prompt")) ? "generation" : "no generation");
        ok += (size_t)check(name, json_string_value(source), json_string_length(source), context, json_object_get(test, "output"),
                            json_object_get(test, "error"));
        json_decref(context);
    }
    json_decref(truth);
    printf("%zu of %zu renderings as in Python\n", ok, n);
    assert_int_equal(ok, n);
}

/* jansson does not read keys with a NUL in them, which one case has: such keys are read with \1 instead, and then put right. */
static json_t *read_with_nul_keys(const char *name) {
    char path[4096];
    am_buf text;
    json_t *truth = NULL, *test;
    am_error err;
    size_t i;
    if (!truth_path(path, sizeof path, name)) return truth_json(name); /* skips */
    am_buf_init(&text, 1 << 20);
    if (am_fs_read_file(path, &text, 1 << 20, &err)) fail_msg("%s", err.message);
    for (char *p = text.p; (p = strstr(p, "\n\"\\u0000")); p++) p[7] = '1';
    if (am_json_parse(am_buf_str(&text), true, &truth, &err)) fail_msg("%s", err.message);
    am_buf_free(&text);
    json_array_foreach(truth, i, test) {
        json_t *obj = json_object_get(json_object_get(test, "context"), "obj"), *fixed = json_object(), *value;
        const char *key;
        json_object_foreach(obj, key, value) {
            char copy[100];
            size_t n = strlen(key);
            snprintf(copy, sizeof copy, "%s", key);
            if (copy[0] == 1) copy[0] = 0;
            json_object_setn(fixed, copy, n, value);
        }
        if (json_is_object(obj)) json_object_set(json_object_get(test, "context"), "obj", fixed);
        json_decref(fixed);
    }
    return truth;
}

static void language_is_pythons(void **state) {
    (void)state;
    json_t *truth = read_with_nul_keys("testdata/templates/language_cases.json"), *test;
    size_t i, ok = 0, n = json_array_size(truth);
    json_array_foreach(truth, i, test) {
        json_t *source = json_object_get(test, "template");
        ok += (size_t)check(json_string_value(json_object_get(test, "name")), json_string_value(source), json_string_length(source),
                            json_object_get(test, "context"), json_object_get(test, "python"), json_object_get(test, "python_error"));
    }
    json_decref(truth);
    printf("%zu of %zu programs as in Python\n", ok, n);
    assert_int_equal(ok, n);
}

static void shipped_model_gets_its_prompts(void **state) {
    (void)state;
    json_t *truth = truth_json("models/memo-28m/expected.json"), *test;
    char dir[4096];
    am_chat *chat = NULL;
    am_error err;
    size_t i;
    truth_path(dir, sizeof dir, "models/memo-28m/hf");
    if (am_chat_load_dir(dir, &chat, &err)) fail_msg("%s", err.message);
    json_array_foreach(json_object_get(truth, "prompts"), i, test) {
        am_chat_request request = {.messages = json_object_get(test, "messages"), .tools = json_object_get(test, "tools"), .add_generation_prompt = true, .now_s = now_s};
        am_rendered r;
        if (am_chat_render(chat, &request, &r, &err)) fail_msg("%s", err.message);
        assert_string_equal(r.text.p, json_string_value(json_object_get(test, "prompt")));
        am_rendered_free(&r);
    }
    am_chat_free(chat);
    json_decref(truth);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(shipped_model_gets_its_prompts), cmocka_unit_test(real_templates_render_as_in_python),
                                       cmocka_unit_test(language_is_pythons)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
