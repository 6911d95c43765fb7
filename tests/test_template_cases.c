/* text/template.h against answers of Python's jinja2 to templates made at random: tests/data/template_cases.json holds those that
 * once told the two apart, and a sample of the rest. AM_TEMPLATE_CASES names another file of the same shape; that is how
 * tests/differential_template.py asks about templates that nobody has seen before. There, an error counts as the same when its
 * type is (the wording of some differs), in the table only when its text is. */
#include "base/json.h"
#include "text/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* "line N: Type: text" without the line; raise_exception's text as Python's TemplateError. */
static void as_python(am_status status, const char *message, char out[700]) {
    const char *colon = strncmp(message, "line ", 5) == 0 ? strstr(message, ": ") : NULL;
    if (status == AM_EINVAL) snprintf(out, 700, "TemplateError: %s", message);
    else snprintf(out, 700, "%s", colon ? colon + 2 : message);
}

static bool same_error(const char *ours, const char *python, bool exact) {
    if (strcmp(ours, python) == 0) return true;
    size_t n = strcspn(python, ":");
    return !exact && strncmp(ours, python, n + 1) == 0;
}

/* "line N: ..." with N as Python's traceback has it; 0: it has none, or ours is an error that has no line. */
static bool same_line(const char *ours, const json_t *line) {
    unsigned n;
    return json_integer_value(line) == 0 || sscanf(ours, "line %u:", &n) != 1 || n == json_integer_value(line);
}

/* What docs/TEMPLATES.md says that we refuse; in a table of our own such a case is none. */
static bool refused_by_name(const char *ours) {
    return strstr(ours, "complex numbers are not supported") || strstr(ours, "integer result does not fit 64 bits");
}

/* Each case: [template, output] or [template, null, error], perhaps with the line. How many differ. */
static size_t differences(const json_t *table, bool exact) {
    const json_t *context = json_object_get(table, "context");
    size_t i, wrong = 0, worded = 0;
    json_t *test;
    json_array_foreach(json_object_get(table, "cases"), i, test) {
        const json_t *source = json_array_get(test, 0), *output = json_array_get(test, 1), *error = json_array_get(test, 2);
        am_template *t = NULL;
        am_rendered r = {0};
        am_error err = {0};
        char ours[700] = "";
        am_status status = am_template_compile((am_str){json_string_value(source), json_string_length(source)}, &t, &err);
        if (!status) status = am_template_render(t, context, NULL, 1752148800, &r, &err);
        if (status) as_python(status, err.message, ours);
        bool ok = error ? status && same_error(ours, json_string_value(error), exact) && same_line(err.message, json_array_get(test, 3))
                        : !status && r.text.n == json_string_length(output) && memcmp(r.text.p, json_string_value(output), r.text.n) == 0;
        ok = ok || (!exact && refused_by_name(ours));
        worded += ok && error && strcmp(ours, json_string_value(error)) != 0;
        if (!ok && wrong++ < 20)
            printf("template: %s\n  python: %s\n  ours:   %s\n", json_string_value(source), json_string_value(error ? error : output), status ? err.message : r.text.p);
        am_rendered_free(&r);
        am_template_free(t);
    }
    printf("%zu cases, %zu differ, %zu errors worded otherwise\n", json_array_size(json_object_get(table, "cases")), wrong, worded);
    return wrong;
}

static void random_templates_render_as_in_python(void **state) {
    (void)state;
    const char *path = getenv("AM_TEMPLATE_CASES");
    json_t *table = NULL;
    am_error err;
    if (am_json_read(path ? path : "tests/data/template_cases.json", 1u << 30, &table, &err)) fail_msg("%s", err.message);
    size_t wrong = differences(table, path == NULL);
    json_decref(table);
    assert_int_equal(wrong, 0);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_templates_render_as_in_python)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
