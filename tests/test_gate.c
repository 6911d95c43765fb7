/* tests/data/browser_attacks.json over the gate alone. */
#include "server/gate.h"

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const origins[] = {"https://app.example", "http://tool.example:8080"}, *const hosts[] = {"ai.home.example"};

static am_gate gate_of(const char *kind) {
    am_gate gate;
    bool public = strncmp(kind, "public", 6) == 0;
    am_gate_init(&gate, public ? "0.0.0.0" : "127.0.0.1");
    assert_int_equal(gate.loopback, !public);
    gate.named_only = strcmp(kind, "public-keyed") != 0;
    gate.origins = origins;
    gate.n_origins = strcmp(kind, "listed") == 0 ? 2 : strcmp(kind, "keyed") == 0 ? 1 : 0;
    gate.hosts = hosts;
    gate.n_hosts = strcmp(kind, "listed") == 0;
    return gate;
}

static const char *text(const json_t *row, const char *name) { return json_string_value(json_object_get(row, name)); }

static void check(const json_t *row) {
    am_buf head;
    am_http_head parsed;
    am_http_refusal refusal;
    const char *name;
    json_t *value;
    am_str cors = {0};
    int64_t wanted = json_integer_value(json_object_get(row, "status"));
    am_buf_init(&head, 65536);
    am_buf_printf(&head, "%s %s HTTP/1.1\r\n", text(row, "method"), text(row, "path"));
    json_object_foreach(json_object_get(row, "headers"), name, value) am_buf_printf(&head, "%s: %s\r\n", name, json_string_value(value));
    am_buf_printf(&head, "\r\n");
    for (char *p; (p = strstr(head.p, "$PORT"));) memcpy(p, "08000", 5);
    am_gate gate = gate_of(text(row, "server"));
    bool well = am_http_parse_head(am_buf_str(&head), &parsed, &refusal) == AM_OK;
    if (wanted == 400) {
        if (well) fail_msg("%s: the reader takes it", text(row, "what"));
    } else if (!well) {
        fail_msg("%s: the reader refuses it: %s", text(row, "what"), refusal.why);
    } else {
        bool refused = am_gate_check(&gate, &parsed, &cors) != NULL;
        const char *code = text(row, "code"); /* of what the keys refuse, the gate knows nothing */
        bool shut = wanted == 403 && (!code || strcmp(code, "forbidden_origin") == 0);
        if (refused != shut) fail_msg("%s: %s", text(row, "what"), refused ? "refused" : "let in");
        if ((cors.n > 0) != (text(row, "allow_origin") != NULL)) fail_msg("%s: allowed origin '%.*s'", text(row, "what"), (int)cors.n, cors.p);
    }
    am_buf_free(&head);
}

static void every_row(void **state) {
    (void)state;
    json_t *rows, *row;
    size_t i;
    assert_int_equal(am_json_read("tests/data/browser_attacks.json", 1 << 20, &rows, NULL), AM_OK);
    assert_in_range(json_array_size(rows), 60, 1000);
    json_array_foreach(rows, i, row) check(row);
    json_decref(rows);
}

static void origins_that_may_be_listed(void **state) {
    (void)state;
    static const char *const good[] = {"https://app.example", "http://localhost:3000", "http://[::1]:80", "https://1.2.3.4"};
    static const char *const bad[] = {"*", "null", "", "app.example", "https://", "https://app.example/", "https://a b", "https://*.example", "ftp://x",
                                      "https://app.example:", "https://app.example:x", "https://u@app.example", "https://app.example?x"};
    am_error err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_int_equal(am_gate_origin_check(good[i], &err), AM_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (am_gate_origin_check(bad[i], &err) != AM_EINVAL) fail_msg("'%s' may be listed", bad[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row), cmocka_unit_test(origins_that_may_be_listed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
