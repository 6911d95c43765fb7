/* Owns a connection's reading side: heads and bodies within their limits and deadlines, one exchange after the other.
 *
 * A hang-up is noticed at once because the socket is read even while a request runs: end of file, a reset, or (when reading is
 * paused, since too much came in early) a poll in the tick. A whole head must come within one deadline, a body at no less than 1 KiB/s. What
 * is refused before its body was read is answered first and then read a little further (LINGER), or the client would see a reset
 * instead of the reason. */
#include "server/conn.h"

#include "server/admit.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 65536, MAX_PIPELINED = 256 << 10, MIN_BODY_RATE = 1024, STALL_MS = 60000 };
enum { MAX_BODIES = 16 }; /* request bodies of full length that may be held at once, of all connections */

static uint64_t ms_from(uint64_t now_ns, uint64_t ms) { return now_ns + ms * 1000000u; }

static void refuse(am_conn *conn, int status, const char *code, const char *why) {
    conn->state = AM_CONN_BUSY;
    am_reply_refuse(conn->x, status, code, why);
}

static void dispatch(am_conn *conn) {
    am_exchange *x = conn->x;
    conn->state = AM_CONN_BUSY;
    if (x->route->on_network) x->route->handler(x);
    else if (am_pool_push(conn->server->pool, x->route->handler, x)) am_reply_refuse(x, 503, "out_of_memory", "out of memory");
}

/* Absent, or something that says JSON. A form or plain text is what a page of another site can send without being asked first. */
static bool content_type_ok(const am_http_head *head) {
    am_str type = am_http_field_of(head, "content-type");
    if (type.n == 0) return true;
    for (size_t i = 0; i + 4 <= type.n && type.p[i] != ';'; i++)
        if (am_http_name_is((am_str){type.p + i, 4}, "json")) return true;
    return false;
}

/* Bodies are read as they come: a compressed one would be taken for bad JSON. */
static bool content_coding_ok(const am_http_head *head) {
    am_str coding = am_http_field_of(head, "content-encoding");
    return coding.n == 0 || am_http_name_is(coding, "identity");
}

/* The head is there and well formed: everything that can be said before the body. */
static void begin_exchange(am_conn *conn) {
    am_exchange *x = conn->x;
    am_server *server = conn->server;
    bool has_body = x->head.chunked || x->head.content_length > 0;
    bool keep = !conn->close_after && x->head.keep_alive && !atomic_load(&server->closing);
    conn->close_after = !keep || has_body; /* until the body has been read */
    x->head_only = am_str_eq(x->head.method, AM_STR("HEAD"));
    am_str cors;
    const char *why = am_gate_check(&atomic_load(&server->config)->gate, &x->head, &cors);
    if (why) {
        am_metrics_refused(AM_REFUSED_ORIGIN);
        refuse(conn, 403, "forbidden_origin", why);
        return;
    }
    if (cors.n < sizeof x->cors) memcpy(x->cors, cors.p ? cors.p : "", cors.n);
    conn->state = AM_CONN_BUSY;
    if (!am_route_find(x) || !am_admit(x, conn->fd)) return;
    if (!x->route->always && atomic_load(&server->stopping)) {
        refuse(conn, 503, "shutting_down", "the server is shutting down");
    } else if (!x->route->always && !atomic_load(&server->runtime)) {
        refuse(conn, 503, "loading", "the model is still being loaded; ask again in a moment");
    } else if (has_body && !content_type_ok(&x->head)) {
        refuse(conn, 415, "unsupported_media_type", "the body must be JSON; send the header content-type: application/json");
    } else if (has_body && !content_coding_ok(&x->head)) {
        refuse(conn, 415, "unsupported_media_type", "a body is taken as it is, without content-encoding");
    } else if (x->head.content_length > (int64_t)am_options_of(server)->max_body_bytes) {
        refuse(conn, 413, "body_too_large", "the request body is longer than this server takes");
    } else if (has_body) {
        conn->close_after = !keep;
        conn->state = AM_CONN_BODY;
        conn->chunked = (am_http_chunked){0};
        conn->body_left = x->head.chunked ? 0 : (uint64_t)x->head.content_length;
        conn->body_start_ns = am_now_ns();
        if (x->head.expect_continue && evbuffer_get_length(conn->in) == 0)
            evbuffer_add(conn->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    } else {
        dispatch(conn);
    }
}

/* false: nothing more can be done with what is there. */
static bool read_head(am_conn *conn) {
    size_t n = evbuffer_get_length(conn->in);
    if (n == 0) return false;
    if (conn->scan.n == 0 && conn->deadline_ns != 0) {
        uint64_t deadline = ms_from(am_now_ns(), am_options_of(conn->server)->head_timeout_ms);
        if (deadline < conn->deadline_ns) conn->deadline_ns = deadline;
    }
    if (n > AM_HTTP_MAX_HEAD + 1) n = AM_HTTP_MAX_HEAD + 1;
    const char *p = (const char *)evbuffer_pullup(conn->in, (ev_ssize_t)n);
    am_http_refusal unscannable = {0}, refusal;
    am_status status = p ? am_http_scan_head(&conn->scan, p, n, &unscannable) : AM_ENOMEM;
    if (status == AM_AGAIN) return false;
    am_str head = {p ? p + conn->scan.skip : NULL, status ? 0 : conn->scan.n - conn->scan.skip};
    conn->x = status == AM_ENOMEM ? NULL : am_exchange_create(conn->server, head, &refusal);
    if (!conn->x) {
        conn->dead = true;
        return false;
    }
    conn->x->conn = conn;
    evbuffer_drain(conn->in, conn->scan.n);
    if (status) refusal = unscannable;
    if (refusal.status) {
        conn->close_after = true; /* where the next request would begin is not known */
        refuse(conn, refusal.status, NULL, refusal.why);
    } else {
        begin_exchange(conn);
    }
    return true;
}

static void refuse_body(am_conn *conn, int status, const char *code, const char *why) {
    conn->close_after = true;
    refuse(conn, status, code, why);
}

static am_status take_body(am_conn *conn, size_t n, am_http_refusal *refusal) {
    am_exchange *x = conn->x;
    if (x->head.chunked) {
        const char *p = (const char *)evbuffer_pullup(conn->in, (ev_ssize_t)n);
        size_t used = 0;
        am_status status = p ? am_http_chunked_feed(&conn->chunked, (am_str){p, n}, &used, &x->body, refusal) : AM_ENOMEM;
        evbuffer_drain(conn->in, used);
        return status;
    }
    if (n > conn->body_left) n = (size_t)conn->body_left;
    if (am_buf_reserve(&x->body, n)) return AM_ENOMEM;
    evbuffer_remove(conn->in, x->body.p + x->body.n, n);
    x->body.n += n;
    x->body.p[x->body.n] = 0;
    conn->body_left -= n;
    return conn->body_left ? AM_AGAIN : AM_OK;
}

static bool read_body(am_conn *conn) {
    am_server *server = conn->server;
    size_t n = evbuffer_get_length(conn->in), before = conn->x->body.n;
    if (n == 0) return false;
    if (n > READ_BYTES) n = READ_BYTES;
    am_http_refusal refusal;
    am_status status = take_body(conn, n, &refusal);
    size_t grown = conn->x->body.n - before;
    size_t all = atomic_fetch_add(&server->body_bytes, grown) + grown;
    if (status == AM_EFORMAT) refuse_body(conn, refusal.status, NULL, refusal.why);
    else if (status == AM_ENOMEM || all / MAX_BODIES > am_options_of(server)->max_body_bytes)
        refuse_body(conn, 503, "out_of_memory", "too many large requests at once; ask again in a moment");
    else if (status == AM_OK) dispatch(conn);
    return true;
}

void am_conn_process(am_conn *conn) {
    bool more = true;
    while (more && !conn->dead) {
        more = conn->state == AM_CONN_HEAD ? read_head(conn) : conn->state == AM_CONN_BODY ? read_body(conn) : false;
    }
    if (conn->dead) return;
    bool pause = conn->state == AM_CONN_BUSY && evbuffer_get_length(conn->in) > MAX_PIPELINED;
    if (pause != conn->paused && !conn->eof) {
        conn->paused = pause;
        if (pause) event_del(conn->readable);
        else event_add(conn->readable, NULL);
    }
    if (conn->eof && (conn->state == AM_CONN_HEAD || conn->state == AM_CONN_BODY)) conn->state = AM_CONN_CLOSING;
    if (evbuffer_get_length(conn->out) || conn->state == AM_CONN_CLOSING) am_conn_write(conn);
}

/* No more will come. Who has asked for something that runs long is gone; who gets an answer that is on its way may have it. */
static void read_ended(am_conn *conn, bool failed) {
    am_exchange *x = conn->x;
    bool answered = conn->state == AM_CONN_CLOSING;
    if (x && conn->state == AM_CONN_BUSY) {
        pthread_mutex_lock(&x->lock);
        answered = x->finished || !x->route || x->route->on_network;
        pthread_mutex_unlock(&x->lock);
    }
    conn->eof = true;
    if (failed || !answered) conn->dead = true;
    else event_del(conn->readable);
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
    (void)what;
    am_conn *conn = arg;
    int n = evbuffer_read(conn->in, fd, READ_BYTES);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) read_ended(conn, n < 0);
    } else if (conn->state == AM_CONN_LINGER || conn->state == AM_CONN_CLOSING) {
        conn->n_lingered += (uint64_t)n;
        evbuffer_drain(conn->in, (size_t)n);
        if (conn->n_lingered > 2 * am_options_of(conn->server)->max_body_bytes) conn->dead = true;
    } else {
        am_conn_process(conn);
    }
    am_conn_settle(conn);
}

void am_conn_accept(am_server *server, int fd) {
    am_conn *conn = am_calloc(1, sizeof *conn);
    if (!conn) {
        close(fd);
        return;
    }
    conn->server = server;
    conn->fd = fd;
    conn->in = evbuffer_new();
    conn->out = evbuffer_new();
    conn->readable = event_new(server->base, fd, EV_READ | EV_PERSIST, on_readable, conn);
    conn->writable = event_new(server->base, fd, EV_WRITE | EV_PERSIST, am_conn_on_writable, conn);
    conn->deadline_ns = ms_from(am_now_ns(), am_options_of(server)->head_timeout_ms);
    conn->next = server->conns;
    if (conn->next) conn->next->prev = conn;
    server->conns = conn;
    server->n_conns++;
    conn->dead = !conn->in || !conn->out || !conn->readable || !conn->writable || event_add(conn->readable, NULL);
    am_conn_settle(conn);
}

void am_conn_close(am_conn *conn) {
    am_server *server = conn->server;
    if (conn->x) {
        am_exchange_gone(conn->x);
        am_exchange_log(conn->x, "client_gone");
        conn->x->conn = NULL;
        am_exchange_unref(conn->x);
    }
    if (conn->readable) event_free(conn->readable);
    if (conn->writable) event_free(conn->writable);
    if (conn->in) evbuffer_free(conn->in);
    if (conn->out) evbuffer_free(conn->out);
    close(conn->fd);
    if (conn->prev) conn->prev->next = conn->next;
    else server->conns = conn->next;
    if (conn->next) conn->next->prev = conn->prev;
    server->n_conns--;
    free(conn);
}

void am_conn_settle(am_conn *conn) {
    if (conn->dead) am_conn_close(conn);
}

bool am_conn_is_idle(const am_conn *conn) {
    return (conn->state == AM_CONN_HEAD && conn->scan.n == 0) || conn->state == AM_CONN_LINGER;
}
am_conn *am_conn_next(const am_conn *conn) { return conn->next; }

static bool hung_up(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* Nobody waits for what never comes: 408 where a request was begun, silence where none was. */
static void check_deadline(am_conn *conn, uint64_t now) {
    if (conn->state == AM_CONN_LINGER && now > conn->deadline_ns) {
        conn->dead = true;
    } else if (conn->state == AM_CONN_HEAD && now > conn->deadline_ns) {
        am_http_refusal refusal;
        if (conn->scan.n == 0 || !(conn->x = am_exchange_create(conn->server, (am_str){0}, &refusal))) {
            conn->dead = true;
            return;
        }
        conn->x->conn = conn;
        refuse_body(conn, 408, NULL, "the request head did not arrive in time");
    } else if (conn->state == AM_CONN_BODY) {
        uint64_t allowed_ms = am_options_of(conn->server)->head_timeout_ms + conn->x->body.n * 1000 / MIN_BODY_RATE;
        if (now > ms_from(conn->body_start_ns, allowed_ms)) refuse_body(conn, 408, NULL, "the request body came too slowly");
    }
    bool unread = evbuffer_get_length(conn->out) > 0;
    if (unread && now > ms_from(conn->write_progress_ns, STALL_MS)) conn->dead = true;
}

size_t am_conn_waiting(const am_conn *conn) {
    size_t n = evbuffer_get_length(conn->out) + evbuffer_get_length(conn->in);
    if (!conn->x) return n;
    pthread_mutex_lock(&conn->x->lock);
    n += conn->x->out.n;
    pthread_mutex_unlock(&conn->x->lock);
    return n;
}

void am_conn_tick(am_conn *conn, uint64_t now_ns) {
    check_deadline(conn, now_ns);
    if (!conn->dead && conn->paused && hung_up(conn->fd)) conn->dead = true;
    if (!conn->dead && conn->state == AM_CONN_BUSY) am_conn_keep_alive(conn, now_ns);
    am_conn_settle(conn);
}
