/* Owns GET /: the page for browsers, name, version and endpoints as JSON for programs. The page's bytes are web/index.html, linked in. */
#include "server/models.h"

#include <string.h>

extern const char am_page_begin[], am_page_end[];

/* The page runs its own inline script and style and talks to this server; nothing else is allowed to it. */
static const char policy[] = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
                             "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static bool wants_html(const am_http_head *head) {
    am_str accept = am_http_field_of(head, "accept");
    return accept.n && memmem(accept.p, accept.n, "text/html", 9);
}

void am_handle_root(am_exchange *x) {
    am_reply_header(x, "vary", "accept");
    if (wants_html(&x->head)) {
        am_reply_header(x, "content-security-policy", policy);
        am_reply_header(x, "referrer-policy", "no-referrer");
        am_reply_header(x, "cache-control", "no-cache");
        am_reply_send(x, 200, "text/html; charset=utf-8", (am_str){am_page_begin, (size_t)(am_page_end - am_page_begin)});
        return;
    }
    json_t *endpoints = json_array();
    am_route_list(endpoints);
    const char *model = am_registry_default(am_models_of(x->server));
    am_reply_json(x, 200, json_pack("{s:s, s:s, s:s, s:o}", "name", "agent-memory", "version", AM_VERSION, "model", model, "endpoints", endpoints));
}
