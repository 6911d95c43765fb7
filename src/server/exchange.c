/* Owns the life of an exchange: one request and its reply, shared by the network thread, a request thread and the engine, each holding a
 * reference; the last one out frees it. The client may leave at any moment: `gone` is set once, and whoever works for it is told. */
#include "server/dialect.h"
#include "server/models.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/* The client's own id when it is harmless in a log and a header, else a new one. */
static void choose_id(am_exchange *x) {
    am_str given = am_http_field_of(&x->head, "x-request-id");
    bool ok = given.n > 0 && given.n <= 64;
    for (size_t i = 0; ok && i < given.n; i++) {
        char c = given.p[i];
        ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-_.:", c);
    }
    if (ok) {
        memcpy(x->id, given.p, given.n);
        return;
    }
    uint8_t random[12];
    am_random_bytes(random, sizeof random);
    size_t n = (size_t)snprintf(x->id, sizeof x->id, "req_");
    for (size_t i = 0; i < sizeof random; i++) n += (size_t)snprintf(x->id + n, sizeof x->id - n, "%02x", random[i]);
}

am_exchange *am_exchange_create(am_server *server, am_str head, am_http_refusal *refusal) {
    am_exchange *x = am_calloc(1, sizeof *x);
    char *bytes = x ? am_calloc(1, head.n + 1) : NULL;
    *refusal = (am_http_refusal){500, "out of memory"};
    if (!bytes) {
        free(x);
        return NULL;
    }
    if (head.n) memcpy(bytes, head.p, head.n);
    atomic_init(&x->refs, 1);
    x->server = server;
    x->dialect = &am_dialect_openai;
    x->head_bytes = bytes;
    x->start_ns = x->last_sent_ns = am_now_ns();
    pthread_mutex_init(&x->lock, NULL);
    am_buf_init(&x->param, AM_HTTP_MAX_TARGET);
    am_buf_init(&x->body, am_options_of(server)->max_body_bytes);
    am_buf_init(&x->headers, 4096);
    am_buf_init(&x->out, SIZE_MAX / 2);
    atomic_fetch_add(&server->n_exchanges, 1);
    *refusal = (am_http_refusal){0};
    if (head.n) am_http_parse_head((am_str){bytes, head.n}, &x->head, refusal);
    if (refusal->status == 0 && head.n) x->dialect = am_route_dialect(&x->head);
    choose_id(x);
    am_trace_take(&x->head, &x->trace);
    return x;
}

void am_exchange_ref(am_exchange *x) { atomic_fetch_add_explicit(&x->refs, 1, memory_order_relaxed); }

void am_exchange_drop_body(am_exchange *x) {
    atomic_fetch_sub(&x->server->body_bytes, x->body.n);
    am_buf_free(&x->body);
}

void am_exchange_unref(am_exchange *x) {
    if (!x || atomic_fetch_sub(&x->refs, 1) != 1) return;
    am_server *server = x->server;
    am_models_release(x);
    if (x->state_free) x->state_free(x->state);
    if (x->counted) am_account_end(server->auth, x->account);
    am_exchange_drop_body(x);
    am_buf_free(&x->param);
    am_buf_free(&x->headers);
    am_buf_free(&x->out);
    pthread_mutex_destroy(&x->lock);
    free(x->head_bytes);
    free(x);
    atomic_fetch_sub(&server->n_exchanges, 1);
}

void am_exchange_gone(am_exchange *x) {
    pthread_mutex_lock(&x->lock);
    void (*on_gone)(am_exchange *) = x->gone ? NULL : x->on_gone;
    x->gone = true;
    pthread_mutex_unlock(&x->lock);
    if (on_gone) on_gone(x);
}

static void post(am_exchange *x, bool streams) {
    am_server *server = x->server;
    pthread_mutex_lock(&server->ready_lock);
    if (!x->is_ready) {
        am_exchange_ref(x);
        x->is_ready = true;
        x->ready_next = NULL;
        if (!server->ready_first) server->ready_first = x;
        else server->ready_last->ready_next = x;
        server->ready_last = x;
    }
    bool wake = !server->woken && !(streams && server->batching);
    server->woken |= wake;
    server->streamed |= streams;
    pthread_mutex_unlock(&server->ready_lock);
    if (wake) eventfd_write(server->wake_fd, 1);
}

void am_exchange_post(am_exchange *x) { post(x, false); }
void am_exchange_post_stream(am_exchange *x) { post(x, true); }

void am_exchange_log(am_exchange *x, const char *outcome) {
    am_str path = x->head.path;
    if (path.n > 200) path.n = 200;
    pthread_mutex_lock(&x->lock);
    am_route_count(x->route, x->begun || x->finished ? x->status : 0);
    bool quiet = x->route && x->route->quiet && x->status < 400;
    am_log(quiet ? AM_LOG_DEBUG : AM_LOG_INFO, "http_request", AM_LV("method", x->head.method), AM_LV("path", path),
           AM_LI("status", x->status), AM_LU("bytes", x->n_sent), AM_LF("ms", am_ms_since(x->start_ns)), AM_LS("request_id", x->id), AM_LS("trace_id", x->trace.id), AM_LS("span_id", x->trace.span),
          
           AM_LS("tenant", x->account ? am_account_tenant(x->account)->name : ""), AM_LS("agent", x->agent), AM_LS("outcome", outcome));
    pthread_mutex_unlock(&x->lock);
}

am_status am_query_value(const am_exchange *x, const char *key, am_buf *out) {
    am_str q = x->head.query;
    size_t n_key = strlen(key);
    am_buf_init(out, AM_HTTP_MAX_TARGET);
    while (q.n) {
        const char *end = memchr(q.p, '&', q.n);
        am_str one = {q.p, end ? (size_t)(end - q.p) : q.n};
        q.p += one.n + (end != NULL);
        q.n -= one.n + (end != NULL);
        if (one.n > n_key && one.p[n_key] == '=' && memcmp(one.p, key, n_key) == 0) return am_http_unescape((am_str){one.p + n_key + 1, one.n - n_key - 1}, out);
    }
    return AM_OK;
}
