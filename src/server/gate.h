/* Who may talk to this server from a browser: a page of another site must not drive it (cross-site requests, DNS rebinding). */
#ifndef AM_SERVER_GATE_H
#define AM_SERVER_GATE_H

#include "server/http_parse.h"

typedef struct am_gate {
    char host[256];    /* the address as configured, in lower case and without brackets */
    char machine[256]; /* this machine's name, in lower case; may be empty */
    bool loopback;     /* bound to loopback only */
    bool named_only;   /* the Host must be one of ours: always on loopback; elsewhere where no key stands between a page and the server */
    const char *const *origins; /* further origins whose pages may talk to us; not ours to free */
    size_t n_origins;
    const char *const *hosts;   /* further names that Host may have */
    size_t n_hosts;
} am_gate;

void am_gate_init(am_gate *gate, const char *host);
bool am_gate_is_loopback(const char *host); /* an address or name that only this machine reaches */

/* "https://name[:port]" with nothing after it; no wildcard, not "null". */
am_status am_gate_origin_check(const char *origin, am_error *err);

/* NULL: let it in; *cors is then the Origin to allow in the reply, or empty. Else why it is refused (403). */
const char *am_gate_check(const am_gate *gate, const am_http_head *head, am_str *cors);

#endif
