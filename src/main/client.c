/* Owns the client side of HTTP: libevent's evhttp, which the server's build brings along already, so no further library comes in for it
 * (libcurl would add some twenty to a binary that mostly serves). It reads chunked bodies, watches silence and lets a signal end a call. */
#include "main/client.h"

#include "base/clock.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SILENCE_MS = 60000, LOOK_MS = 50, MAX_JSON_BYTES = 64 << 20, PROBE_MS = 1000 };

typedef struct talk {
    const am_client_call *call;
    struct event_base *base;
    struct evhttp_request *request; /* until it is done */
    am_buf *body;
    int status;
    bool done, canceled, failed, too_long;
} talk;

static void take_bytes(struct evhttp_request *request, void *arg) {
    talk *t = arg;
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    size_t n = evbuffer_get_length(input);
    const char *p = n ? (const char *)evbuffer_pullup(input, -1) : NULL;
    if (!p) return;
    t->status = evhttp_request_get_response_code(request);
    if (t->call->on_bytes && t->status == 200) t->call->on_bytes(t->call->arg, (am_str){p, n});
    else if (am_buf_append(t->body, p, n)) t->too_long = true;
    evbuffer_drain(input, n);
}

static void take_end(struct evhttp_request *request, void *arg) {
    talk *t = arg;
    t->done = true;
    if (request && evhttp_request_get_response_code(request)) {
        t->status = evhttp_request_get_response_code(request);
        take_bytes(request, t);
    }
    event_base_loopbreak(t->base);
}

static void take_error(enum evhttp_request_error error, void *arg) {
    (void)error; /* all of them read the same to a person: no answer, or not a whole one */
    ((talk *)arg)->failed = true;
}

static void look_for_cancel(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    talk *t = arg;
    if (!t->call->cancel || !*t->call->cancel) return;
    t->canceled = true;
    event_base_loopbreak(t->base);
}

static am_status begin(talk *t, struct evhttp_connection *connection, am_error *err) {
    const am_client_call *call = t->call;
    struct evhttp_request *request = evhttp_request_new(take_end, t);
    if (!request) return am_fail(err, AM_ENOMEM, "no memory for a request");
    evhttp_request_set_chunked_cb(request, take_bytes);
    evhttp_request_set_error_cb(request, take_error);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    char host[300];
    snprintf(host, sizeof host, strchr(call->host, ':') ? "[%s]:%u" : "%s:%u", call->host, call->port);
    evhttp_add_header(headers, "Host", host);
    evhttp_add_header(headers, "Accept", "application/json");
    evhttp_add_header(headers, "Connection", "close");
    if (call->agent && evhttp_add_header(headers, "X-Agent-Id", call->agent)) {
        evhttp_request_free(request);
        return am_fail(err, AM_EINVAL, "an agent's name must be one line");
    }
    char authorization[600];
    if (call->key && snprintf(authorization, sizeof authorization, "Bearer %s", call->key) < (int)sizeof authorization &&
        evhttp_add_header(headers, "Authorization", authorization)) {
        evhttp_request_free(request);
        return am_fail(err, AM_EINVAL, "an API key must be one line");
    }
    if (call->body) {
        evhttp_add_header(headers, "Content-Type", "application/json");
        evbuffer_add(evhttp_request_get_output_buffer(request), call->body, strlen(call->body));
    }
    enum evhttp_cmd_type method = strcmp(call->method, "POST") == 0     ? EVHTTP_REQ_POST
                                  : strcmp(call->method, "DELETE") == 0 ? EVHTTP_REQ_DELETE
                                                                        : EVHTTP_REQ_GET;
    t->request = request;
    if (evhttp_make_request(connection, request, method, call->path)) return am_fail(err, AM_ENOTFOUND, "no server at %s", host);
    return AM_OK;
}

static am_status verdict(const talk *t, am_error *err) {
    const am_client_call *call = t->call;
    if (t->canceled) return am_fail(err, AM_ECANCELED, "stopped");
    if (t->too_long) return am_fail(err, AM_ELIMIT, "the server's answer is too long");
    if (t->status == 0) return am_fail(err, AM_ENOTFOUND, "no answer from %s port %u", call->host, call->port);
    if (t->failed || !t->done) return am_fail(err, AM_EIO, "the connection to %s port %u broke", call->host, call->port);
    return AM_OK;
}

am_status am_client_request(const am_client_call *call, int *status, am_buf *body, am_error *err) {
    uint32_t silence_ms = call->timeout_ms ? call->timeout_ms : SILENCE_MS;
    struct timeval silence = {silence_ms / 1000, silence_ms % 1000 * 1000}, look = {0, LOOK_MS * 1000};
    talk t = {.call = call, .body = body};
    struct evhttp_connection *connection = NULL;
    struct event *timer = NULL;
    am_status result = AM_ENOMEM;
    t.base = event_base_new();
    if (t.base) connection = evhttp_connection_base_new(t.base, NULL, call->host, call->port);
    if (connection) timer = event_new(t.base, -1, EV_PERSIST, look_for_cancel, &t);
    if (!timer || event_add(timer, &look)) {
        am_fail(err, AM_ENOMEM, "no memory for a connection");
        goto out;
    }
    evhttp_connection_set_timeout_tv(connection, &silence);
    evhttp_connection_set_max_headers_size(connection, 65536);
    if ((result = begin(&t, connection, err))) goto out;
    event_base_dispatch(t.base);
    *status = t.status;
    result = verdict(&t, err);
out:
    if (timer) event_free(timer);
    if (connection) evhttp_connection_free(connection); /* with the request, when it is not done */
    if (t.base) event_base_free(t.base);
    return result;
}

am_status am_client_json(const am_client_call *call, json_t **out, am_error *err) {
    am_buf body;
    int http = 0;
    json_t *answer = NULL;
    am_buf_init(&body, MAX_JSON_BYTES);
    *out = NULL;
    am_status status = am_client_request(call, &http, &body, err);
    if (!status) status = am_json_parse(am_buf_str(&body), false, &answer, err);
    if (!status && (http < 200 || http > 299)) {
        const char *message = json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
        status = am_fail(err, http == 404 ? AM_ENOTFOUND : http == 409 ? AM_EEXIST : AM_EINVAL, "%s", message ? message : "the server refused");
        json_decref(answer);
    } else if (!status) {
        *out = answer;
    }
    am_buf_free(&body);
    return status;
}

bool am_client_find(const char *host, uint16_t port, uint32_t wait_ms) {
    am_client_call call = {.host = host, .port = port, .method = "GET", .path = "/health", .timeout_ms = PROBE_MS};
    uint64_t start = am_now_ns();
    for (;;) {
        am_buf body;
        json_t *health = NULL;
        int http = 0;
        am_buf_init(&body, 65536);
        am_status status = am_client_request(&call, &http, &body, NULL);
        if (!status) status = am_json_parse(am_buf_str(&body), false, &health, NULL);
        const char *state = status ? NULL : json_string_value(json_object_get(health, "status"));
        bool ours = state && json_object_get(health, "version"), loading = ours && strcmp(state, "loading") == 0;
        json_decref(health);
        am_buf_free(&body);
        if (!loading || am_ms_since(start) > wait_ms) return ours && http == 200;
        nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000}, NULL);
    }
}

am_status am_client_path(am_buf *out, const char *prefix, const char *name, const char *suffix) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    am_status status = am_buf_add(out, am_str_of(prefix));
    for (const unsigned char *p = (const unsigned char *)name; !status && *p; p++)
        status = strchr(plain, *p) ? am_buf_putc(out, (char)*p) : am_buf_printf(out, "%%%02X", *p);
    return status ? status : am_buf_add(out, am_str_of(suffix));
}
