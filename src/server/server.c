/* Owns the server's start and end, its network thread and the clock tick.
 *
 * Nobody else touches the libevent base: other threads put exchanges on the ready list and write to an eventfd, so libevent needs no locks.
 *
 * Each look at a stream takes a processor from the forward pass for a moment, here and at the client. Where tokens come faster than BATCH_MS, streams are looked at once
 * in that time, by a timer that runs as long as it finds something; slower ones are sent at once. */
#include "server/internal.h"

#include "base/clock.h"
#include "base/inhand.h"
#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { N_REQUEST_THREADS = 4, TICK_MS = 50, BATCH_MS = 2, LAST_WORK_MS = 5000 };

static am_exchange *take_ready(am_server *server) {
    pthread_mutex_lock(&server->ready_lock);
    am_exchange *x = server->ready_first;
    if (x) {
        server->ready_first = x->ready_next;
        x->is_ready = false;
    }
    pthread_mutex_unlock(&server->ready_lock);
    return x;
}

static void flush_ready(am_server *server) {
    am_exchange *x;
    while ((x = take_ready(server))) {
        if (x->conn) am_conn_flush(x->conn);
        am_exchange_unref(x);
    }
}

/* Ends the loop when everything was said, or the time for it is over. */
static void close_idle(am_server *server) {
    bool late = am_now_ns() > server->close_deadline_ns;
    am_listen_close(server);
    for (am_conn *conn = server->conns, *next; conn; conn = next) {
        next = am_conn_next(conn);
        if (late || am_conn_is_idle(conn)) am_conn_close(conn);
    }
    if (!server->conns) event_base_loopbreak(server->base);
}

/* Whether a stream had written. */
static bool look(am_server *server) {
    pthread_mutex_lock(&server->ready_lock);
    bool streamed = server->streamed;
    server->streamed = server->batching = false;
    pthread_mutex_unlock(&server->ready_lock);
    flush_ready(server);
    return streamed;
}

static void look_soon(am_server *server) {
    pthread_mutex_lock(&server->ready_lock);
    server->batching = event_add(server->batch, &(struct timeval){.tv_usec = BATCH_MS * 1000}) == 0;
    pthread_mutex_unlock(&server->ready_lock);
}

static void on_batch(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    if (look(arg)) look_soon(arg);
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
    am_server *server = arg;
    eventfd_t ignored;
    uint64_t now = am_now_ns();
    (void)what;
    eventfd_read(fd, &ignored);
    pthread_mutex_lock(&server->ready_lock);
    server->woken = false; /* who came in between finds it set, and is looked at below */
    pthread_mutex_unlock(&server->ready_lock);
    if (look(server)) {
        if (now - server->streamed_ns < BATCH_MS * 1000000ull) look_soon(server);
        server->streamed_ns = now;
    }
    if (atomic_load(&server->closing)) close_idle(server);
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
    am_server *server = arg;
    uint64_t now = am_now_ns();
    (void)fd;
    (void)what;
    size_t waiting = 0;
    atomic_store(&server->tick_ns, now);
    am_listen_pause(server, false);
    for (am_conn *conn = server->conns, *next; conn; conn = next) {
        next = am_conn_next(conn);
        waiting += am_conn_waiting(conn);
        am_conn_tick(conn, now);
    }
    atomic_store(&server->outbox_bytes, waiting);
    flush_ready(server);
    if (atomic_load(&server->closing)) close_idle(server);
}

static void *network_main(void *arg) {
    am_server *server = arg;
    am_thread_begin("am-network");
    event_base_loop(server->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static void server_free(am_server *server) {
    am_listen_close(server);
    if (server->wake) event_free(server->wake);
    if (server->tick) event_free(server->tick);
    if (server->batch) event_free(server->batch);
    if (server->wake_fd >= 0) close(server->wake_fd);
    if (server->base) event_base_free(server->base);
    pthread_mutex_destroy(&server->ready_lock);
    am_auth_free(server->auth);
    am_server_config_free(atomic_load(&server->config));
    free(server);
}

static am_status make_events(am_server *server, am_error *err) {
    struct timeval tick = {.tv_usec = TICK_MS * 1000};
    server->base = event_base_new();
    server->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!server->base || server->wake_fd < 0) return am_fail(err, AM_ENOMEM, "cannot make an event base");
    server->wake = event_new(server->base, server->wake_fd, EV_READ | EV_PERSIST, on_wake, server);
    server->tick = event_new(server->base, -1, EV_PERSIST, on_tick, server);
    server->batch = evtimer_new(server->base, on_batch, server);
    if (!server->wake || !server->tick || !server->batch || event_add(server->wake, NULL) || event_add(server->tick, &tick))
        return am_fail(err, AM_ENOMEM, "cannot make the server's events");
    return AM_OK;
}

/* Signals are the main thread's; SIGPIPE, blocked too, leaves a write to a closed socket as EPIPE. */
static am_status start_thread(am_server *server, am_error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&server->thread, NULL, network_main, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? am_fail(err, AM_ENOMEM, "cannot start the network thread") : AM_OK;
}

/* Whoever reaches a public address without keys may read every agent: only when the operator said so. */
static am_status check_public(const am_server *server, const am_server_options *options, am_error *err) {
    if (options->allow_no_auth || am_gate_is_loopback(server->host) || am_auth_n_keys(server->auth)) return AM_OK;
    return am_fail(err, AM_EPERM,
                   "without keys this server listens on this machine only, not on %s: make a key with `agent-memory keys add NAME`, or set "
                   "AGENT_MEMORY_API_KEY, or say --allow-no-auth when everybody who reaches the port may use it", server->host);
}

static am_status read_config(am_server *server, const am_server_options *options, am_server_config **out, am_error *err) {
    am_auth_options keys = {.api_key = options->api_key, .admin_key = options->admin_key, .data_dir = options->keys_dir,
                            .admin_remote = options->admin_remote,
                            .required = !options->allow_no_auth && !am_gate_is_loopback(server->host)};
    *out = NULL;
    am_status status = am_auth_load(server->auth, &keys, err);
    if (!status) status = am_server_config_make(options, server->host, am_auth_is_closed(server->auth), out, err);
    return status;
}

am_status am_server_start(const am_server_options *options, am_server **out, am_error *err) {
    am_server *server = am_calloc(1, sizeof *server);
    *out = NULL;
    if (!server) return am_fail(err, AM_ENOMEM, "no memory for the server");
    snprintf(server->host, sizeof server->host, "%s", options->host ? options->host : "127.0.0.1");
    server->wake_fd = -1;
    server->started_s = am_wall_ns() / 1000000000u;
    atomic_store(&server->tick_ns, am_now_ns());
    pthread_mutex_init(&server->ready_lock, NULL);
    am_server_config *config = NULL;
    am_status status = am_auth_create(&server->auth, err);
    if (!status) status = read_config(server, options, &config, err);
    if (!status) status = check_public(server, options, err);
    atomic_store(&server->config, config);
    if (!status) status = make_events(server, err);
    if (!status) status = am_listen(server, err);
    if (!status) status = am_pool_start(N_REQUEST_THREADS, &server->pool, err);
    if (!status) status = start_thread(server, err);
    if (status) {
        am_pool_stop(server->pool);
        server_free(server);
        return status;
    }
    am_log(AM_LOG_INFO, "server_listening", AM_LS("host", server->host), AM_LU("port", server->port));
    *out = server;
    return AM_OK;
}

/* One caller at a time. The limit on connections of this process was raised when it started; a higher one may meet EMFILE, which pauses accepting. */
am_status am_server_reload(am_server *server, const am_server_options *options, am_error *err) {
    am_server_config *config;
    am_status status = read_config(server, options, &config, err);
    if (status) return status;
    config->older = atomic_load(&server->config);
    atomic_store(&server->config, config);
    if (am_auth_is_closed(server->auth) && am_auth_n_keys(server->auth) == 0)
        am_log(AM_LOG_WARN, "no_keys", AM_LS("reason", "the last key is gone: requests are refused until there is one"));
    return AM_OK;
}

size_t am_server_n_keys(const am_server *server) { return am_auth_n_keys(server->auth); }
uint16_t am_server_port(const am_server *server) { return server->port; }
void am_server_attach(am_server *server, am_runtime *runtime) { atomic_store(&server->runtime, runtime); }
void am_server_stop_accepting(am_server *server) { atomic_store(&server->stopping, true); }

void am_server_stop(am_server *server, uint32_t grace_ms) {
    if (!server) return;
    server->close_deadline_ns = am_now_ns() + grace_ms * 1000000ull;
    atomic_store(&server->stopping, true);
    atomic_store(&server->closing, true);
    eventfd_write(server->wake_fd, 1);
    pthread_join(server->thread, NULL);
    am_pool_stop(server->pool);
    /* Connections are closed and their requests cancelled; the engine lets go of each within a step. */
    uint64_t last = am_now_ns() + LAST_WORK_MS * 1000000ull;
    for (;;) {
        am_exchange *x = take_ready(server);
        if (x) am_exchange_unref(x);
        else if (atomic_load(&server->n_exchanges) == 0) break;
        else if (am_now_ns() > last) break;
        else usleep(1000);
    }
    am_log(AM_LOG_INFO, "server_closed", AM_LU("port", server->port));
    if (atomic_load(&server->n_exchanges)) {
        /* Somebody still has a reply to write: what it would write to must outlive us. */
        am_log(AM_LOG_ERROR, "requests_did_not_end", AM_LU("count", atomic_load(&server->n_exchanges)));
        return;
    }
    server_free(server);
}
