/* Owns a connection's writing side: the head of a reply, its framing, and the keep-alive comments that a wall clock asks for.
 *
 * Only so much of a stream is moved to the socket's buffer as it takes soon (OUT_BYTES); the rest waits in the exchange's outbox, where its
 * limit is watched. A reply that takes long before its first byte (a long prefill, asked for without streaming) begins early with status
 * 200 and blanks, which JSON allows, because proxies and clients give up on a silent connection; should it fail later, the error object
 * is its body. */
#include "server/conn.h"
#include "server/dialect.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { OUT_BYTES = 256 << 10, LINGER_MS = 2000, PAD_AFTER_MS = 10000 };

static void write_head(am_conn *conn, am_exchange *x, bool length_known) {
    char date[64];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    struct evbuffer *out = conn->out;
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\ndate: %s\r\nx-request-id: %s\r\n", x->status, am_http_reason(x->status), date, x->id);
    if (x->dialect->id_header) evbuffer_add_printf(out, "%s: %s\r\n", x->dialect->id_header, x->id);
    if (x->trace.id[0]) evbuffer_add_printf(out, "traceresponse: 00-%s-%s-%s\r\n", x->trace.id, x->trace.span, x->trace.flags);
    if (x->status != 204) evbuffer_add_printf(out, "content-type: %s\r\n", x->content_type);
    if (length_known && x->status != 204) evbuffer_add_printf(out, "content-length: %zu\r\n", x->out.n);
    x->chunking = !length_known && !x->head.http_1_0;
    if (x->chunking) evbuffer_add_printf(out, "transfer-encoding: chunked\r\n");
    if (!length_known) {
        evbuffer_add_printf(out, "cache-control: no-cache\r\nx-accel-buffering: no\r\n");
        if (x->head.http_1_0) conn->close_after = true; /* the end of the connection is the end of the body */
    }
    if (x->cors[0])
        evbuffer_add_printf(out, "access-control-allow-origin: %s\r\naccess-control-expose-headers: x-request-id, request-id, traceresponse, retry-after, "
                            "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests\r\nvary: origin\r\n", x->cors);
    if (x->headers.n) evbuffer_add(out, x->headers.p, x->headers.n);
    evbuffer_add_printf(out, "x-content-type-options: nosniff\r\n");
    if (conn->close_after) evbuffer_add_printf(out, "connection: close\r\n");
    else if (x->head.http_1_0) evbuffer_add_printf(out, "connection: keep-alive\r\n");
    evbuffer_add(out, "\r\n", 2);
    x->begun = true;
}

static void add_body(am_conn *conn, am_exchange *x, const char *p, size_t n) {
    if (n == 0 || x->head_only) return;
    if (x->chunking) evbuffer_add_printf(conn->out, "%zx\r\n", n);
    evbuffer_add(conn->out, p, n);
    if (x->chunking) evbuffer_add(conn->out, "\r\n", 2);
    x->n_sent += n;
    x->last_sent_ns = am_now_ns();
}

/* The reply is in `out`, the connection is free for the next request or about to close. */
static void finish_exchange(am_conn *conn) {
    am_exchange *x = conn->x;
    if (x->chunking && !x->head_only) evbuffer_add(conn->out, "0\r\n\r\n", 5);
    am_exchange_log(x, "done");
    x->conn = NULL;
    conn->x = NULL;
    am_exchange_unref(x);
    conn->scan = (am_http_scan){0};
    if (conn->close_after || atomic_load(&conn->server->closing)) {
        conn->state = AM_CONN_CLOSING;
    } else {
        conn->state = AM_CONN_HEAD;
        conn->deadline_ns = am_now_ns() + am_options_of(conn->server)->idle_timeout_ms * 1000000ull;
    }
}

/* Moves what the exchange has to say to `out`. true: it was all. */
static bool move_reply(am_conn *conn, am_exchange *x) {
    bool done = false;
    pthread_mutex_lock(&x->lock);
    if (x->too_slow) {
        conn->dead = true;
    } else if (x->mode != AM_REPLY_NONE) {
        if (!x->begun && (x->out.n || x->finished)) write_head(conn, x, x->mode == AM_REPLY_WHOLE);
        if (x->mode == AM_REPLY_WHOLE || evbuffer_get_length(conn->out) < OUT_BYTES) {
            add_body(conn, x, x->out.p, x->out.n);
            am_buf_clear(&x->out);
        }
        done = x->finished && x->out.n == 0;
    }
    pthread_mutex_unlock(&x->lock);
    return done;
}

void am_conn_flush(am_conn *conn) {
    if (conn->state != AM_CONN_BUSY) return;
    if (evbuffer_get_length(conn->out) == 0) conn->write_progress_ns = am_now_ns();
    bool done = move_reply(conn, conn->x);
    if (done && !conn->dead) finish_exchange(conn);
    if (!conn->dead) am_conn_write(conn);
    if (done && !conn->dead) am_conn_process(conn);
    am_conn_settle(conn);
}

void am_conn_write(am_conn *conn) {
    while (evbuffer_get_length(conn->out)) {
        int n = evbuffer_write(conn->out, conn->fd);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) {
            conn->dead = true;
            return;
        }
        if (n <= 0) break;
        conn->write_progress_ns = am_now_ns();
    }
    if (evbuffer_get_length(conn->out)) {
        event_add(conn->writable, NULL);
        return;
    }
    event_del(conn->writable);
    if (conn->state != AM_CONN_CLOSING) return;
    shutdown(conn->fd, SHUT_WR);
    conn->state = AM_CONN_LINGER;
    conn->deadline_ns = am_now_ns() + LINGER_MS * 1000000ull;
    if (conn->eof) conn->dead = true;
}

void am_conn_on_writable(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    am_conn *conn = arg;
    am_conn_write(conn);
    if (!conn->dead && conn->state == AM_CONN_BUSY) am_conn_flush(conn);
    else am_conn_settle(conn);
}

void am_conn_keep_alive(am_conn *conn, uint64_t now_ns) {
    am_exchange *x = conn->x;
    uint64_t silent_ms = (now_ns - x->last_sent_ns) / 1000000u;
    if (now_ns < x->last_sent_ns || silent_ms < am_options_of(conn->server)->keepalive_ms || evbuffer_get_length(conn->out)) return;
    conn->write_progress_ns = now_ns;
    pthread_mutex_lock(&x->lock);
    if (x->mode == AM_REPLY_STREAM && !x->finished) {
        if (!x->begun) write_head(conn, x, false);
        add_body(conn, x, x->dialect->keep_alive.p, x->dialect->keep_alive.n);
    } else if (x->mode == AM_REPLY_NONE && x->may_pad && silent_ms + (x->begun ? PAD_AFTER_MS : 0) >= PAD_AFTER_MS) {
        if (!x->begun) {
            x->status = 200;
            x->content_type = "application/json";
            write_head(conn, x, false);
        }
        add_body(conn, x, "\n", 1);
    }
    pthread_mutex_unlock(&x->lock);
    am_conn_write(conn);
}
