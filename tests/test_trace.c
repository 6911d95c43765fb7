/* server/trace: which traceparent counts. The cases are those that the W3C's test suite for Trace Context names (test.py of w3c/trace-context). */
#include "server/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define ID "12345678901234567890123456789012"
#define SPAN "1234567890123456"

static const struct {
    const char *fields; /* header lines */
    bool counts;
} cases[] = {
    {"traceparent: 00-" ID "-" SPAN "-01\r\n", true},
    {"TraceParent: 00-" ID "-" SPAN "-00\r\n", true}, /* names have no case */
    {"traceparent:\t00-" ID "-" SPAN "-01 \t\r\n", true}, /* blanks around the value */
    {"x: y\r\n", false},
    {"traceparent: \r\n", false},
    {"trace-parent: 00-" ID "-" SPAN "-01\r\n", false},
    {"trace.parent: 00-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-01\r\ntraceparent: 00-" ID "-1234567890123457-01\r\n", false}, /* two */
    {"traceparent: 00-" ID "-" SPAN "-01\r\ntraceparent: nonsense\r\n", false},
    /* versions */
    {"traceparent: 00-" ID "-" SPAN "-01.\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-01-what-the-future-will-be-like\r\n", false},
    {"traceparent: cc-" ID "-" SPAN "-01\r\n", true},
    {"traceparent: cc-" ID "-" SPAN "-01-what-the-future-will-be-like\r\n", true},
    {"traceparent: cc-" ID "-" SPAN "-01.what-the-future-will-not-be-like\r\n", false},
    {"traceparent: ff-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: .0-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 0.-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 000-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 0000-" ID "-" SPAN "-01\r\n", false},
    {"traceparent: 0-" ID "-" SPAN "-01\r\n", false},
    /* trace ids */
    {"traceparent: 00-00000000000000000000000000000000-" SPAN "-01\r\n", false},
    {"traceparent: 00-.2345678901234567890123456789012-" SPAN "-01\r\n", false},
    {"traceparent: 00-1234567890123456789012345678901.-" SPAN "-01\r\n", false},
    {"traceparent: 00-1234567890ABCDEF7890123456789012-" SPAN "-01\r\n", false},
    {"traceparent: 00-" ID "3-" SPAN "-01\r\n", false},
    {"traceparent: 00-1234567890123456789012345678901-" SPAN "-01\r\n", false},
    /* spans */
    {"traceparent: 00-" ID "-0000000000000000-01\r\n", false},
    {"traceparent: 00-" ID "-.234567890123456-01\r\n", false},
    {"traceparent: 00-" ID "-123456789012345.-01\r\n", false},
    {"traceparent: 00-" ID "-12345678901234567-01\r\n", false},
    {"traceparent: 00-" ID "-123456789012345-01\r\n", false},
    /* flags */
    {"traceparent: 00-" ID "-" SPAN "-.0\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-0.\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-001\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "-1\r\n", false},
    {"traceparent: 00-" ID "-" SPAN "\r\n", false},
    {"traceparent: 00_" ID "_" SPAN "_01\r\n", false},
};

static void take(const char *fields, am_trace *out) {
    char bytes[1024];
    am_http_head head;
    am_http_refusal refusal;
    int n = snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nhost: a\r\n%s\r\n", fields);
    assert_int_equal(am_http_parse_head((am_str){bytes, (size_t)n}, &head, &refusal), AM_OK);
    am_trace_take(&head, out);
}

static void what_counts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        am_trace trace;
        take(cases[i].fields, &trace);
        if ((trace.id[0] != 0) != cases[i].counts) fail_msg("%s: %s", cases[i].fields, cases[i].counts ? "must count" : "must not count");
        if (cases[i].counts) assert_string_equal(trace.id, ID);
        assert_int_equal(strlen(trace.span), cases[i].counts ? 16 : 0);
    }
}

static void a_span_is_new_each_time(void **state) {
    (void)state;
    am_trace first, second;
    take(cases[0].fields, &first);
    take(cases[0].fields, &second);
    assert_string_equal(first.flags, "01");
    assert_string_not_equal(first.span, second.span);
    assert_string_not_equal(first.span, SPAN);
    assert_int_equal(strspn(first.span, "0123456789abcdef"), 16);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_counts), cmocka_unit_test(a_span_is_new_each_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
