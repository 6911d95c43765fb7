/* A server over real sockets with the fake engine behind it, and what its last reply says: for the tests of the server's dialects. */
#ifndef AM_TESTS_SERVER_RIG_H
#define AM_TESTS_SERVER_RIG_H

#include "fake_engine.h"
#include "http_client.h"
#include "server/server.h"

#include "base/log.h"

/* One server for all tests, with short times so that deadlines can be waited for. */
static am_server *server;
static uint16_t port;
static http_reply reply;

static int setup(void **state) {
    (void)state;
    am_log_setup(AM_LOG_OFF, false);
    am_server_options options = {.host = "127.0.0.1", .max_body_bytes = 1 << 20, .max_messages = 50, .keepalive_ms = 100, .head_timeout_ms = 600,
                                 .idle_timeout_ms = 60000, .max_outbox_bytes = 1 << 20, .unknown_model_ok = true};
    assert_int_equal(am_server_start(&options, &server, NULL), AM_OK);
    port = am_server_port(server);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    am_server_stop(server, 500);
    assert_int_equal(n_leases, 0);
    http_reply_free(&reply);
    for (uint32_t i = 0; i < n_plays; i++) {
        pthread_join(plays[i]->thread, NULL);
        free(plays[i]);
    }
    return 0;
}

static const char *member(const char *path) {
    json_t *v = reply.json;
    char copy[128];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *part = strtok(copy, "."); part && v; part = strtok(NULL, "."))
        v = json_is_array(v) ? json_array_get(v, strtoul(part, NULL, 10)) : json_object_get(v, part);
    static char text[2048];
    if (json_is_string(v)) snprintf(text, sizeof text, "%s", json_string_value(v));
    else if (json_is_integer(v)) snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    else snprintf(text, sizeof text, "%s", !v ? "(absent)" : json_is_null(v) ? "null" : json_is_true(v) ? "true" : "(other)");
    return text;
}

#endif
