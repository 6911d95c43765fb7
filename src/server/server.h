/* The HTTP server: one network thread with libevent, an HTTP/1.1 reader of our own (strict, limits first), one file per dialect.
 *
 * Why not evhttp: its own error pages cannot be replaced for heads and bodies it refuses (413, 400, 431 must have their dialect's shape and a request
 * id), it reads a whole body before anybody may say no, and it takes several request smuggling shapes. Buffers, sockets and timers are libevent's. */
#ifndef AM_SERVER_SERVER_H
#define AM_SERVER_SERVER_H

#include "agents/runtime.h"

typedef struct am_server am_server;

typedef struct am_server_options {
    const char *host;          /* "127.0.0.1" */
    uint16_t port;             /* 0: any free one */
    size_t max_body_bytes;     /* 32 MiB */
    uint32_t max_messages;     /* 10000 */
    uint32_t max_connections;  /* 4096 */
    uint32_t keepalive_ms;     /* comment on silent streams, from a wall clock: 5000 */
    uint32_t head_timeout_ms;  /* whole head: 10000 */
    uint32_t idle_timeout_ms;  /* kept-alive connection: 75000 */
    size_t max_outbox_bytes;   /* unread output of one stream before its request is cancelled: 8 MiB */
    bool unknown_model_ok;     /* true: any model name gets the loaded model (default); false: 404 */
    bool log_content;          /* write prompts and answers to the log; never by default */
    const char *const *cors_origins; /* further origins whose pages may use this server */
    size_t n_cors_origins;
    const char *const *allow_hosts;  /* further names the Host header may have */
    size_t n_allow_hosts;
    const char *api_key, *admin_key; /* NULL: none; hashed at once */
    const char *keys_dir;            /* the data folder, for its keys.json; NULL: none is read */
    bool admin_remote;               /* admin endpoints also from other machines, with the admin key */
    bool allow_no_auth;              /* listen on a public address without keys */
} am_server_options;

/* Binds and starts to listen; /health/live answers and everything else says 503 with retry-after until a runtime is attached. Port in use:
 * AM_EBUSY with a line that says who (pid and command when it can be known), how to find it and how to choose another. A public address without
 * keys: AM_EPERM, unless allow_no_auth. Nothing on disk is touched. */
am_status am_server_start(const am_server_options *options, am_server **out, am_error *err);
uint16_t am_server_port(const am_server *server);
/* Keys and everything in options but host, port and max_connections' file limit, from now on; running requests end as they began. On failure all stays. */
am_status am_server_reload(am_server *server, const am_server_options *options, am_error *err);
bool am_server_moves(const am_server *server); /* its thread ticks, and the engine steps when there is something to do */
size_t am_server_n_keys(const am_server *server); /* tenants' keys; 0: anybody who reaches the port may use it */
void am_server_attach(am_server *server, am_runtime *runtime);
/* New requests get 503 with retry-after from now on; running ones go on. */
void am_server_stop_accepting(am_server *server);
/* Sends what is left (at most grace_ms), closes every connection, ends the thread, frees everything. */
void am_server_stop(am_server *server, uint32_t grace_ms);

#endif
