/* server/http_parse: what is a request head, what is refused and how; every cut of the bytes gives the same result; chunked bodies; who
 * may come through the gate. */
#include "server/gate.h"
#include "server/http_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The outcome of feeding bytes cut at every `step`: 0 while incomplete, 200 for a good head, else the refusal. */
static int read_head(const char *p, size_t n, size_t step, size_t *used, am_http_head *head) {
    am_http_scan scan = {0};
    am_http_refusal refusal = {0};
    *used = 0;
    for (size_t have = step < n ? step : n;; have = have + step < n ? have + step : n) {
        /* a copy of its own, so that a sanitizer sees a read past what has come */
        char *copy = malloc(have ? have : 1);
        memcpy(copy, p, have);
        am_status status = am_http_scan_head(&scan, copy, have, &refusal);
        free(copy);
        if (status == AM_OK) break;
        if (status != AM_AGAIN) return refusal.status;
        if (have == n) return 0;
    }
    *used = scan.n;
    return am_http_parse_head((am_str){p + scan.skip, scan.n - scan.skip}, head, &refusal) ? refusal.status : 200;
}

#define H "Host: a\r\n"
static const struct {
    const char *bytes;
    int status;
} heads[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", 200},
    {"GET / HTTP/1.0\r\n\r\n", 200},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 200},
    {"GET http://a/x?y=1 HTTP/1.1\r\n" H "\r\n", 200},
    {"GET HTTP://A HTTP/1.1\r\n" H "\r\n", 200},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", 200},
    {"POST /v1/x HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n", 200},
    {"POST /v1/x HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n", 200},
    {"GET / HTTP/1.1\r\nHost:\ta \t\r\nX-Y: \xc3\xa4\r\n\r\n", 200},
    {"GET / HTTP/1.1\r\n" H "Expect: 100-continue\r\n\r\n", 200},
    {"GET / HTTP/1.1\r\n" H, 0},
    {"GET / HTTP/1.1\r\n" H "\r", 0},
    {"", 0},
    {"GET /\r\n\r\n", 400},                                                 /* HTTP/0.9 */
    {"GET  / HTTP/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.1 \r\n" H "\r\n", 400},
    {" GET / HTTP/1.1\r\n" H "\r\n", 400},
    {"G\"T / HTTP/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.1\n" H "\r\n", 400},                                     /* bare LF */
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
    {"GET / HTTP/1.1\r" H "\r\n", 400},                                     /* bare CR */
    {"GET / HTTP/1.1\r\nHost: a\r\rX: y\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", 400},                     /* folded */
    {"GET / HTTP/1.1\r\n" H "X : a\r\n\r\n", 400},                          /* blank before the colon */
    {"GET / HTTP/1.1\r\n" H "X\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H ": a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "X: a\x01" "b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n\r\n", 400},                                        /* no Host */
    {"GET / HTTP/1.1\r\n" H H "\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
    {"GET http://b/ HTTP/1.1\r\n" H "\r\n", 400},                           /* authority is not the Host */
    {"GET http:/// HTTP/1.1\r\n" H "\r\n", 400},
    {"GET x HTTP/1.1\r\n" H "\r\n", 400},
    {"GET * HTTP/1.1\r\n" H "\r\n", 400},
    {"CONNECT a:1 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /a#b HTTP/1.1\r\n" H "\r\n", 400},
    {"GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.2\r\n" H "\r\n", 505},
    {"GET / HTTP/2.0\r\n" H "\r\n", 505},
    {"GET / HTTP/1.10\r\n" H "\r\n", 400},
    {"GET / http/1.1\r\n" H "\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n", 413},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n\r\n", 501},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: \x0b" "chunked\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n", 501},
    {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" H "Expect: the best\r\n\r\n", 417},
    {"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400},
};

static void every_cut_gives_the_same_result(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        size_t n = strlen(heads[i].bytes), used, used_whole;
        am_http_head head;
        int whole = read_head(heads[i].bytes, n, n ? n : 1, &used_whole, &head);
        if (whole != heads[i].status) fail_msg("%s: %d, not %d", heads[i].bytes, whole, heads[i].status);
        for (size_t step = 1; step < n; step++) {
            assert_int_equal(read_head(heads[i].bytes, n, step, &used, &head), whole);
            assert_int_equal(used, used_whole);
        }
    }
}

static void nul_bytes_are_refused(void **state) {
    (void)state;
    static const char bytes[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
    am_http_head head;
    size_t used;
    for (size_t step = 1; step < sizeof bytes; step++) assert_int_equal(read_head(bytes, sizeof bytes - 1, step, &used, &head), 400);
}

static void fields_are_found(void **state) {
    (void)state;
    static const char bytes[] = "POST http://Host:80/v1/a%20b?x=y HTTP/1.1\r\nhOST: hOST:80\r\nX-A: \t one two \r\nx-a: second\r\n"
                                "Content-Length: 12\r\nConnection: foo , Close\r\n\r\nnext";
    am_http_head head;
    size_t used;
    assert_int_equal(read_head(bytes, sizeof bytes - 1, 7, &used, &head), 200);
    assert_int_equal(used, sizeof bytes - 1 - 4);
    assert_true(am_str_eq(head.path, AM_STR("/v1/a%20b")));
    assert_true(am_str_eq(head.query, AM_STR("x=y")));
    assert_true(am_str_eq(head.method, AM_STR("POST")));
    assert_true(am_str_eq(am_http_field_of(&head, "x-a"), AM_STR("one two")));
    assert_null(am_http_field_of(&head, "x-b").p);
    assert_int_equal(head.content_length, 12);
    assert_false(head.keep_alive);
}

static void limits_are_exact(void **state) {
    (void)state;
    am_http_head head;
    size_t used;
    char *p = malloc(20000);
    for (int over = 0; over <= 1; over++) { /* 16 KiB of head, and one byte more */
        size_t n = (size_t)sprintf(p, "GET / HTTP/1.1\r\n" H "X: ");
        while (n < AM_HTTP_MAX_HEAD - 4 + (size_t)over) p[n++] = 'x';
        memcpy(p + n, "\r\n\r\n", 4);
        assert_int_equal(read_head(p, n + 4, 1000, &used, &head), over ? 431 : 200);
    }
    for (int over = 0; over <= 1; over++) { /* 64 fields, and one more */
        size_t n = (size_t)sprintf(p, "GET / HTTP/1.1\r\n" H);
        for (int i = 1; i < AM_HTTP_MAX_FIELDS + over; i++) n += (size_t)sprintf(p + n, "X%d: y\r\n", i);
        n += (size_t)sprintf(p + n, "\r\n");
        assert_int_equal(read_head(p, n, 1000, &used, &head), over ? 431 : 200);
    }
    for (int over = 0; over <= 1; over++) {
        size_t n = (size_t)sprintf(p, "GET /");
        while (n < 4 + AM_HTTP_MAX_TARGET + (size_t)over) p[n++] = 'a';
        n += (size_t)sprintf(p + n, " HTTP/1.1\r\n" H "\r\n");
        assert_int_equal(read_head(p, n, 1000, &used, &head), over ? 414 : 200);
    }
    free(p);
}

/* 200 with the body in out, 0 when more must come, else the refusal. */
static int read_chunked(const char *p, size_t n, size_t step, am_buf *out, size_t *used) {
    am_http_chunked decoder = {0};
    am_http_refusal refusal = {0};
    am_buf_clear(out);
    *used = 0;
    while (*used < n) {
        size_t take = n - *used < step ? n - *used : step, taken;
        char *copy = malloc(take);
        memcpy(copy, p + *used, take);
        am_status status = am_http_chunked_feed(&decoder, (am_str){copy, take}, &taken, out, &refusal);
        free(copy);
        *used += taken;
        if (status == AM_OK) return 200;
        if (status != AM_AGAIN) return refusal.status;
    }
    return 0;
}

static const struct {
    const char *bytes;
    int status;
    const char *body;
} bodies[] = {
    {"5\r\nhello\r\n0\r\n\r\n", 200, "hello"},
    {"5\r\nhello\r\n00000006\r\n world\r\n0\r\n\r\n", 200, "hello world"},
    {"A;name=value\r\n0123456789\r\n0;last\r\nTrailer: x\r\nOther:y\r\n\r\n", 200, "0123456789"},
    {"0\r\n\r\n", 200, ""},
    {"5\r\nhello\r\n0\r\n", 0, "hello"},
    {"5\r\nhel", 0, "hel"},
    {"-2\r\nhello\r\n0\r\n\r\n", 400, ""},
    {"+5\r\nhello\r\n0\r\n\r\n", 400, ""},
    {" 5\r\nhello\r\n0\r\n\r\n", 400, ""},
    {"5 \r\nhello\r\n0\r\n\r\n", 400, ""},
    {"0x5\r\nhello\r\n0\r\n\r\n", 400, ""},
    {"\r\nhello\r\n0\r\n\r\n", 400, ""},
    {"5\nhello\r\n0\r\n\r\n", 400, ""},
    {"5\r\nhelloo\r\n0\r\n\r\n", 400, "hello"},
    {"5\r\nhello\n0\r\n\r\n", 400, "hello"},
    {"5\r\nhello\r\r0\r\n\r\n", 400, "hello"},
    {"000000005\r\nhello\r\n0\r\n\r\n", 413, ""},
    {"FFFFFFFF\r\nhello\r\n0\r\n\r\n", 413, ""},
    {"15\r\nhello", 413, ""}, /* 21 bytes: known to be too long from its size alone */
    {"0\r\nno colon\r\n\r\n", 400, ""},
    {"0\r\nnocolon\r\n\r\n", 400, ""},
    {"0\r\n folded: x\r\n\r\n", 400, ""},
};

static void chunked_bodies(void **state) {
    (void)state;
    am_buf out;
    am_buf_init(&out, 20);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        size_t n = strlen(bodies[i].bytes), used;
        for (size_t step = 1; step <= n; step++) {
            int status = read_chunked(bodies[i].bytes, n, step, &out, &used);
            if (status != bodies[i].status) fail_msg("%s by %zu: %d, not %d", bodies[i].bytes, step, status, bodies[i].status);
            assert_true(am_str_eq(am_buf_str(&out), am_str_of(bodies[i].body)));
        }
    }
    size_t used;
    assert_int_equal(read_chunked("1\r\na\r\n0\r\n\r\nGET", 14, 3, &out, &used), 200);
    assert_int_equal(used, 11);
    am_buf_free(&out);
}

static void escapes(void **state) {
    (void)state;
    am_buf out;
    am_buf_init(&out, 100);
    assert_int_equal(am_http_unescape(AM_STR("a%2Fb%c3%A4+"), &out), AM_OK);
    assert_string_equal(out.p, "a/b\xc3\xa4+");
    assert_int_equal(am_http_unescape(AM_STR("%"), &out), AM_EFORMAT);
    assert_int_equal(am_http_unescape(AM_STR("%4"), &out), AM_EFORMAT);
    assert_int_equal(am_http_unescape(AM_STR("%4g"), &out), AM_EFORMAT);
    am_buf_free(&out);
}

static const struct {
    const char *bound, *method, *host, *origin, *site, *mode;
    bool in;
} visitors[] = {
    {"127.0.0.1", "GET", "127.0.0.1:8000", NULL, NULL, NULL, true},
    {"127.0.0.1", "GET", "localhost", NULL, NULL, NULL, true},
    {"127.0.0.1", "GET", "LOCALHOST:1", NULL, NULL, NULL, true},
    {"127.0.0.1", "GET", "[::1]:8000", NULL, NULL, NULL, true},
    {"127.0.0.2", "GET", "127.0.0.2", NULL, NULL, NULL, true},
    {"127.0.0.1", "GET", "127.0.0.2", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "evil.com", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "localhost.evil.com", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "127.0.0.1.nip.io", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "localhost.", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "0.0.0.0:8000", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "[::]", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "localhost:", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "localhost:80x", NULL, NULL, NULL, false},
    {"127.0.0.1", "GET", "[::1", NULL, NULL, NULL, false},
    {"localhost", "GET", "127.0.0.1", NULL, NULL, NULL, true},
    {"::1", "GET", "[::1]:9", NULL, NULL, NULL, true},
    {"::1", "GET", "evil.com", NULL, NULL, NULL, false},
    {"0.0.0.0", "GET", "gpubox.lan:8000", NULL, NULL, NULL, true},
    {"127.0.0.1", "POST", "localhost:8000", "http://localhost:8000", "same-origin", "cors", true},
    {"127.0.0.1", "POST", "localhost:8000", "http://127.0.0.1:3000", "same-site", "cors", true},
    {"127.0.0.1", "POST", "localhost:8000", "https://[::1]:3000", NULL, NULL, true},
    {"127.0.0.1", "POST", "localhost:8000", "null", NULL, NULL, false},
    {"127.0.0.1", "POST", "localhost:8000", "", NULL, NULL, false},
    {"127.0.0.1", "POST", "localhost:8000", "http://evil.com", "cross-site", "no-cors", false},
    {"127.0.0.1", "GET", "localhost:8000", "http://evil.com", "cross-site", "cors", false},
    {"127.0.0.1", "POST", "localhost:8000", "http://localhost.evil.com", NULL, NULL, false},
    {"127.0.0.1", "POST", "localhost:8000", "http://localhost@evil.com", NULL, NULL, false},
    {"127.0.0.1", "POST", "localhost:8000", "file://", NULL, NULL, false},
    {"127.0.0.1", "POST", "localhost:8000", "chrome-extension://localhost", NULL, NULL, false},
    {"127.0.0.1", "OPTIONS", "localhost:8000", "http://evil.com", NULL, NULL, false},
    {"127.0.0.1", "GET", "localhost:8000", NULL, "cross-site", "no-cors", false},
    {"127.0.0.1", "GET", "localhost:8000", NULL, "cross-site", "navigate", true}, /* a link to the page */
    {"127.0.0.1", "POST", "localhost:8000", NULL, "cross-site", "navigate", false},
    {"127.0.0.1", "GET", "localhost:8000", NULL, "none", "navigate", true},
    {"0.0.0.0", "POST", "gpubox:8000", "http://gpubox:8000", NULL, NULL, true},
    {"0.0.0.0", "POST", "gpubox:8000", "http://gpubox:3000", NULL, NULL, false},
    {"0.0.0.0", "POST", "gpubox:8000", "http://evil.com", NULL, NULL, false},
    {"0.0.0.0", "POST", "gpubox:8000", "http://localhost", NULL, NULL, false},
};

static void the_gate(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof visitors / sizeof *visitors; i++) {
        am_gate gate;
        am_http_head head = {.method = am_str_of(visitors[i].method), .host = am_str_of(visitors[i].host)};
        am_gate_init(&gate, visitors[i].bound);
        const char *const values[][2] = {{"Origin", visitors[i].origin}, {"Sec-Fetch-Site", visitors[i].site},
                                         {"sec-fetch-mode", visitors[i].mode}, {"sec-fetch-dest", visitors[i].mode ? "document" : NULL}};
        for (size_t k = 0; k < 4; k++)
            if (values[k][1]) head.fields[head.n_fields++] = (am_http_field){am_str_of(values[k][0]), am_str_of(values[k][1])};
        am_str cors;
        const char *why = am_gate_check(&gate, &head, &cors);
        if ((why == NULL) != visitors[i].in)
            fail_msg("row %zu: host %s origin %s: %s", i, visitors[i].host, visitors[i].origin ? visitors[i].origin : "-", why ? why : "let in");
        if (!why && visitors[i].origin) assert_true(am_str_eq(cors, am_str_of(visitors[i].origin)));
    }
}

/* Random damage to good heads never reads outside, and what is taken has one length under every cut. */
static void damaged_heads(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        char p[256];
        const char *base = heads[(unsigned)round % (sizeof heads / sizeof *heads)].bytes;
        size_t n = strlen(base), used[2];
        memcpy(p, base, n);
        for (int k = 0; k < 3 && n; k++) {
            seed = seed * 1664525 + 1013904223;
            p[(seed >> 8) % n] = (char)"\r\n\0 :,;%A/\t\x80Tc5"[(seed >> 3) % 16];
        }
        am_http_head head;
        int a = read_head(p, n, n ? n : 1, &used[0], &head), b = read_head(p, n, 1 + seed % 5, &used[1], &head);
        assert_int_equal(a, b);
        assert_int_equal(used[0], used[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_gives_the_same_result),
        cmocka_unit_test(nul_bytes_are_refused),
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(chunked_bodies),
        cmocka_unit_test(escapes),
        cmocka_unit_test(the_gate),
        cmocka_unit_test(damaged_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
