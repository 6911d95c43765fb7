/* What the files of this room share: the server, its connections, and exchanges (one request and its reply).
 *
 * Threads. The network thread owns sockets, connections and the libevent base. Request threads run handlers that may take long
 * (parsing, templating, tokenising, asking the engine). The engine thread delivers events. An exchange is what they meet at: its reply is
 * written under its lock by whoever has something to say, and moved to the socket by the network thread, which the writer wakes. */
#ifndef AM_SERVER_INTERNAL_H
#define AM_SERVER_INTERNAL_H

#include "server/auth.h"
#include "server/gate.h"
#include "server/http_parse.h"
#include "server/pool.h"
#include "server/server.h"
#include "server/trace.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>

typedef struct am_conn am_conn;
typedef struct am_exchange am_exchange;
typedef struct am_route am_route;
typedef struct am_dialect am_dialect;

/* What may change while the server runs, replaced as a whole: a reader on any thread takes one and it stays as it is. */
typedef struct am_server_config {
    struct am_server_config *older; /* kept until the server is freed */
    am_arena *arena;                /* of the lists */
    am_server_options options;
    am_gate gate;
} am_server_config;

struct am_server {
    _Atomic(am_server_config *) config;
    am_auth *auth;
    char host[256];
    uint16_t port;
    struct event_base *base;
    struct event *listeners[8];
    size_t n_listeners;
    bool listen_paused;
    struct event *wake, *tick, *batch;
    uint64_t streamed_ns; /* when it last looked because of a stream */
    int wake_fd;
    pthread_t thread;
    am_pool *pool;
    _Atomic(am_runtime *) runtime; /* NULL: loading */
    atomic_bool stopping;          /* no new requests */
    atomic_bool closing;           /* am_server_stop was called */
    uint64_t close_deadline_ns;    /* written before closing is set */
    uint64_t started_s;            /* wall clock */
    _Atomic uint64_t tick_ns;      /* when the network thread ticked last */
    atomic_size_t body_bytes;      /* held by request bodies of all connections */
    atomic_size_t outbox_bytes;    /* waiting to be sent, as of the last tick */
    atomic_uint n_exchanges;       /* that are alive anywhere */
    am_conn *conns;                /* network thread */
    uint32_t n_conns;
    pthread_mutex_t ready_lock; /* protects the five below and am_exchange.ready_next, .is_ready */
    am_exchange *ready_first, *ready_last;
    bool woken;    /* wake_fd was written and not yet read */
    bool streamed; /* a stream has written since it was read */
    bool batching; /* a timer looks at streams soon: who writes to one wakes nobody */
};

static inline const am_server_options *am_options_of(const am_server *server) { return &atomic_load(&server->config)->options; }

typedef enum am_reply_mode {
    AM_REPLY_NONE,
    AM_REPLY_WHOLE, /* out is the body, complete */
    AM_REPLY_STREAM /* out is what of the body has not been taken by the network thread yet */
} am_reply_mode;

struct am_exchange {
    atomic_uint refs;
    am_server *server;
    uint64_t start_ns;

    /* Written by the network thread before the handler runs, then only read. */
    char id[72]; /* x-request-id */
    am_trace trace;
    const am_dialect *dialect; /* whose shapes the reply has */
    char *head_bytes;
    am_http_head head;
    const am_route *route;
    am_buf param;  /* the path's {id}, unescaped */
    am_buf body;
    char cors[300];
    am_account *account; /* whose request it is; NULL: not known yet */
    bool known;          /* it came with a key that counts, or none is needed */
    bool counted;        /* among the account's running requests */
    bool head_only; /* a HEAD request: the reply has no body */

    pthread_mutex_t lock; /* protects what follows up to the next comment */
    am_reply_mode mode;
    int status;
    const char *content_type; /* static */
    am_buf headers;           /* further header lines, each with its CRLF */
    am_buf out;
    bool finished;  /* nothing will be appended */
    bool begun;     /* the head of the reply has left: its status stands */
    bool gone;      /* nobody reads any more */
    bool too_slow;  /* the reader left more unread than the limit */
    bool chunking;  /* the body leaves in chunks */
    bool may_pad;   /* whole replies that take long may begin with blanks, so that no proxy gives up */
    void (*on_gone)(am_exchange *x); /* called once, without the lock, when the client is gone; may be NULL */
    char agent[AM_NAME_MAX + 1];     /* for the log */

    am_instance *instance;   /* leased for this request (models.h); NULL: none. Whoever has the exchange in hand; see am_completion.lock */
    bool lease_ended;        /* the wait for a model is over: under lock */
    am_status lease_status;
    char lease_why[512];

    void *state; /* the dialect's; freed with the exchange by state_free */
    void (*state_free)(void *state);

    /* Network thread only. */
    am_conn *conn; /* NULL: closed */
    uint64_t last_sent_ns;
    uint64_t n_sent; /* bytes of the body */

    /* Under server->ready_lock. */
    bool is_ready;
    am_exchange *ready_next;
};

/* exchange.c */
am_exchange *am_exchange_create(am_server *server, am_str head, am_http_refusal *refusal); /* NULL: refusal (500: no memory) */
void am_exchange_ref(am_exchange *x);
void am_exchange_unref(am_exchange *x);
void am_exchange_drop_body(am_exchange *x); /* gives its memory back early */
void am_exchange_gone(am_exchange *x);      /* the client went away */
void am_exchange_post(am_exchange *x);      /* tells the network thread to look at it, */
void am_exchange_post_stream(am_exchange *x); /* now, or together with what other tokens write within a moment */
void am_exchange_log(am_exchange *x, const char *outcome);

/* reply.c: any thread. One of send/json/error/stream_open once per exchange; headers before it. */
void am_reply_header(am_exchange *x, const char *name, const char *value);
void am_reply_send(am_exchange *x, int status, const char *content_type, am_str body);
void am_reply_json(am_exchange *x, int status, json_t *value); /* takes the reference */
/* The value of ?key=, unescaped, in *out (the caller's to free); empty when there is none. */
am_status am_query_value(const am_exchange *x, const char *key, am_buf *out);
typedef struct am_api_error {
    int status;
    const char *code;  /* static; NULL: null */
    char param[80];    /* empty: null */
    char message[640];
    unsigned retry_after_s; /* 0: no header */
} am_api_error;
/* Fills *e and returns false, for `return am_api_fail(...)`. */
bool am_api_fail(am_api_error *e, int status, const char *code, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void am_reply_error(am_exchange *x, const am_api_error *e);
void am_reply_refuse(am_exchange *x, int status, const char *code, const char *message);
int am_status_http(am_status status); /* of an engine's or cache's failure */
const char *am_http_reason(int status);
enum { AM_HTTP_N_STATUS = 25 }; /* that this server sends */
size_t am_http_status_index(int status); /* 0: not one of them */
int am_http_status_at(size_t index);

/* stream.c: any thread. write: AM_ELIMIT when the reader is too slow (the exchange is then given up), AM_ECANCELED when it is gone. */
void am_stream_open(am_exchange *x, const char *content_type);
am_status am_stream_write(am_exchange *x, am_str bytes);
void am_stream_end(am_exchange *x);
void am_stream_begin(am_exchange *x, const char *content_type); /* am_stream_open under x->lock, when there is no reply yet */
/* The reply is this error, in whatever form is still possible: whole, or as the last event of a stream. */
void am_stream_fail(am_exchange *x, const am_api_error *e);
bool am_stream_revoke(am_exchange *x); /* true: nothing has left yet, a whole reply may be sent instead */

/* conn.c: network thread */
void am_conn_accept(am_server *server, int fd);
void am_conn_flush(am_conn *conn);            /* its exchange has something to say */
size_t am_conn_waiting(const am_conn *conn); /* bytes not yet sent, or not yet taken up */
void am_conn_tick(am_conn *conn, uint64_t now_ns); /* deadlines, keep-alive comments; may free it */
void am_conn_close(am_conn *conn);            /* frees it; its request is cancelled */
bool am_conn_is_idle(const am_conn *conn); /* nothing is being asked or answered */
am_conn *am_conn_next(const am_conn *conn); /* in server->conns */

/* health.c */
bool am_server_is_ready(const am_server *server); /* as GET /health/ready */

/* metrics.c */
typedef enum am_refused { AM_REFUSED_ORIGIN, AM_REFUSED_KEY, AM_REFUSED_RATE, AM_REFUSED_PARALLEL, AM_REFUSED_QUOTA } am_refused;
void am_metrics_refused(am_refused why);

/* config.c */
am_status am_server_config_make(const am_server_options *options, const char *host, bool closed, am_server_config **out, am_error *err);
void am_server_config_free(am_server_config *config); /* and the older ones */

/* listen.c */
am_status am_listen(am_server *server, am_error *err);
void am_listen_close(am_server *server);
void am_listen_pause(am_server *server, bool pause); /* network thread: while there are no file descriptors */

/* router.c */
am_handler am_handle_memory; /* memory.c */
am_handler am_handle_admin_load, am_handle_admin_unload, am_handle_admin_swap, am_handle_admin_current, am_handle_admin_available; /* admin.c */
am_handler am_handle_admin_status, am_handle_admin_drain, am_handle_admin_pause, am_handle_admin_resume, am_handle_admin_persist;
am_handler am_handle_admin_evict, am_handle_admin_clear, am_handle_admin_clear_caches, am_handle_admin_clear_pool, am_handle_admin_seed;

struct am_route {
    const char *method;
    const char *path; /* without /v1; {id} stands for one segment */
    am_handler *handler;
    bool rest;        /* {id} has slashes, as models' names do */
    bool on_network;  /* quick enough for the network thread */
    bool always;      /* also while loading and stopping */
    bool quiet;       /* logged at level debug */
    bool open;        /* wants no key */
    bool admin;       /* the admin's: this machine and the admin key (am_auth_admin) */
    bool scrape;      /* this machine without a key, or the admin key from anywhere */
};
const am_dialect *am_route_dialect(const am_http_head *head); /* by the path, or anthropic-version on the paths that dialects share */
/* Finds the route of x (x->route, x->param) or replies (404, 405, 204 for OPTIONS). */
bool am_route_find(am_exchange *x);
void am_route_list(json_t *array); /* "GET /v1/models" ... */
void am_route_count(const am_route *route, int status); /* a reply was sent; NULL: to no route */
void am_route_metrics(am_buf *out);

/* Handlers. */
am_handler am_handle_completion, am_handle_count_tokens;
am_handler am_handle_models, am_handle_model;
am_handler am_handle_health, am_handle_live, am_handle_ready, am_handle_startup;
am_handler am_handle_root, am_handle_metrics;
am_handler am_handle_agents, am_handle_agent, am_handle_agent_delete, am_handle_agent_fork;

#endif
