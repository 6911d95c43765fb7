/* Who may talk to this server from a browser: a page of another site must not drive it (cross-site requests, DNS rebinding). */
#ifndef AM_SERVER_GATE_H
#define AM_SERVER_GATE_H

#include "server/http_parse.h"

typedef struct am_gate {
    char host[256]; /* the address as configured, in lower case and without brackets */
    bool loopback;  /* bound to loopback only: the Host must be one of this machine's own names */
} am_gate;

void am_gate_init(am_gate *gate, const char *host);

/* NULL: let it in; *cors is then the Origin to allow in the reply, or empty. Else why it is refused (403). */
const char *am_gate_check(const am_gate *gate, const am_http_head *head, am_str *cors);

#endif
