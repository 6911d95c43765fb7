/* A small HTTP client for the program's own commands: one request at a time to a running server, its body handed on as it arrives. */
#ifndef AM_MAIN_CLIENT_H
#define AM_MAIN_CLIENT_H

#include "base/json.h"

#include <signal.h>

typedef struct am_client_call {
    const char *host;
    uint16_t port;
    const char *method; /* GET, POST, DELETE */
    const char *path;
    const char *body;  /* JSON, or NULL */
    const char *agent; /* x-agent-id, or NULL */
    const char *key;   /* sent as a bearer's, or NULL */
    uint32_t timeout_ms; /* of silence; 0: a minute */
    void (*on_bytes)(void *arg, am_str bytes); /* NULL: the body is collected */
    void *arg;
    const volatile sig_atomic_t *cancel; /* looked at now and then; nonzero ends the call. May be NULL. */
} am_client_call;

/* *status: HTTP's. body: when on_bytes is NULL or the answer is not 200; the caller's, initialised with its maximum. AM_ENOTFOUND: nobody listens
 * there. AM_ECANCELED. AM_EIO: the connection broke or was silent for too long. */
am_status am_client_request(const am_client_call *call, int *status, am_buf *body, am_error *err);
/* The same for JSON answers; other statuses than 2xx become an error with the server's own message. */
am_status am_client_json(const am_client_call *call, json_t **out, am_error *err);

/* True when an agent-memory server answers at host:port; waits while it loads, at most wait_ms. */
bool am_client_find(const char *host, uint16_t port, uint32_t wait_ms);

/* A segment of a path: everything but letters, digits and -._~ becomes %XX. */
am_status am_client_path(am_buf *out, const char *prefix, const char *name, const char *suffix);

#endif
