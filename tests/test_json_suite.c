/* base/json.h against the suite of JSON texts in ../shared (nst/JSONTestSuite): all y_ are read, all n_ are refused; of i_, where readers may differ,
 * what this one does is stated here. */
#include "base/fs.h"
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char dir[512];
static unsigned n_seen[3]; /* y, n, i */

static am_status one_file(void *arg, const char *name) {
    char path[1024];
    am_buf text;
    am_error err = {0};
    json_t *value = NULL;
    (void)arg;
    if (strlen(name) < 6 || strcmp(name + strlen(name) - 5, ".json") != 0) return AM_OK;
    am_buf_init(&text, 1 << 24);
    assert_int_equal(am_fs_join(path, sizeof path, dir, name, &err), AM_OK);
    assert_int_equal(am_fs_read_file(path, &text, 1 << 23, &err), AM_OK);
    am_status status = am_json_parse(text.n ? am_buf_str(&text) : AM_STR(""), false, &value, &err);
    if (name[0] == 'y' && status) fail_msg("%s: %s", name, err.message);
    if (name[0] == 'n' && !status) fail_msg("%s was read", name);
    if (status) assert_true(err.message[0]);
    n_seen[name[0] == 'y' ? 0 : name[0] == 'n' ? 1 : 2]++;
    json_decref(value);
    am_buf_free(&text);
    return AM_OK;
}

static void the_suite(void **state) {
    (void)state;
    const char *shared = getenv("AM_SHARED");
    am_error err = {0};
    snprintf(dir, sizeof dir, "%s/testdata/json/test_parsing", shared ? shared : "../shared");
    am_status status = am_fs_list(dir, one_file, NULL, &err);
    if (status == AM_ENOTFOUND) {
        print_message("%s is not here\n", dir);
        skip();
    }
    if (status) fail_msg("%s", err.message);
    print_message("%u accepted, %u refused, %u as this reader does\n", n_seen[0], n_seen[1], n_seen[2]);
    assert_true(n_seen[0] > 90 && n_seen[1] > 180);
}

static json_t *parse(const char *text, bool strict) {
    json_t *value = NULL;
    am_error err = {0};
    am_json_parse(am_str_of(text), strict, &value, &err);
    return value;
}

static void what_the_standard_leaves_open(void **state) {
    (void)state;
    json_t *v = parse("{\"a\":1,\"a\":2}", false); /* requests: the last one counts */
    assert_int_equal(json_integer_value(json_object_get(v, "a")), 2);
    json_decref(v);
    assert_null(parse("{\"a\":1,\"a\":2}", true)); /* files: refused */
    v = parse("[123456789012345678901234567890, -1, 9223372036854775807]", false); /* beyond 64 bits: a real */
    assert_true(json_is_real(json_array_get(v, 0)) && json_is_integer(json_array_get(v, 1)) && json_is_integer(json_array_get(v, 2)));
    json_decref(v);
    assert_null(parse("\"\\ud800\"", false)); /* a surrogate alone is no character */
    am_error err = {0};
    assert_int_equal(am_json_parse(AM_STR("{\"a\": \"\xC3\xA9 \xff\"}"), false, &v, &err), AM_EFORMAT); /* where it is, in bytes */
    assert_non_null(strstr(err.message, "byte 10"));
    v = parse("{\"a\\u0000b\": \"\\u0000\", \"c\": \"\\\"\\\\u0000\\\":\"}", false); /* a name's NUL is read as U+FFFD, a value's stays */
    assert_int_equal(json_string_length(json_object_get(v, "a\xef\xbf\xbd" "b")), 1);
    assert_string_equal(json_string_value(json_object_get(v, "c")), "\"\\u0000\":");
    json_decref(v);
    char *deep = malloc(200001);
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    deep[200000] = 0;
    assert_null(parse(deep, false));
    free(deep);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_suite), cmocka_unit_test(what_the_standard_leaves_open)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
