/* Owns the decision on Host, Origin and Sec-Fetch-Site.
 *
 * A server on 127.0.0.1 is within reach of every page in the user's browser. Three doors are shut: a foreign name that resolves to
 * 127.0.0.1 (the Host must be a name of this machine), a script or form of another site (its Origin is not ours), and requests
 * without Origin that the browser itself calls cross-site, except following a link to a page. Programs send none of these headers. No
 * wildcard, no reflection of an unchecked Origin. On a public address any Host is taken (names of the machine are not known here), but an
 * Origin must then be the Host itself. */
#include "server/gate.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* Splits "host:port", "[v6]:port", "host"; *host in lower case without brackets. false when malformed. */
static bool split_host(am_str s, char host[256], am_str *port) {
    am_str name = s;
    *port = (am_str){0};
    const char *colon;
    if (s.n && s.p[0] == '[') {
        const char *end = memchr(s.p, ']', s.n);
        if (!end) return false;
        name = (am_str){s.p + 1, (size_t)(end - s.p) - 1};
        colon = end + 1 < s.p + s.n ? end + 1 : NULL;
        if (colon && *colon != ':') return false;
    } else {
        colon = memchr(s.p, ':', s.n);
        if (colon) name.n = (size_t)(colon - s.p);
    }
    if (colon) {
        *port = (am_str){colon + 1, (size_t)(s.p + s.n - colon - 1)};
        if (port->n == 0 || port->n > 5) return false;
        for (size_t i = 0; i < port->n; i++)
            if (port->p[i] < '0' || port->p[i] > '9') return false;
    }
    if (name.n == 0 || name.n > 255) return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        host[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    host[name.n] = 0;
    return true;
}

static bool is_loopback(const char *host) {
    struct in_addr v4;
    if (strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0) return true;
    return inet_pton(AF_INET, host, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

void am_gate_init(am_gate *gate, const char *host) {
    am_str port, s = am_str_of(host);
    struct in6_addr v6;
    *gate = (am_gate){0};
    if (inet_pton(AF_INET6, host, &v6) == 1) snprintf(gate->host, sizeof gate->host, "%s", host);
    else split_host(s, gate->host, &port);
    gate->loopback = is_loopback(gate->host);
}

/* localhost, 127.0.0.1, ::1 and the bound address, with any port (tunnels and containers change it). */
static bool is_own_name(const am_gate *gate, const char *host) {
    return strcmp(host, "localhost") == 0 || strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0 ||
           (gate->loopback && strcmp(host, gate->host) == 0);
}

static bool origin_ok(const am_gate *gate, am_str origin, am_str host_field) {
    size_t scheme = am_str_starts(origin, AM_STR("http://")) ? 7 : am_str_starts(origin, AM_STR("https://")) ? 8 : 0;
    if (scheme == 0) return false; /* "null", file:, extensions */
    am_str rest = {origin.p + scheme, origin.n - scheme}, port;
    char host[256];
    if (!split_host(rest, host, &port)) return false;
    if (gate->loopback) return is_own_name(gate, host);
    return am_str_eq(rest, host_field);
}

const char *am_gate_check(const am_gate *gate, const am_http_head *head, am_str *cors) {
    char host[256];
    am_str port, origin = am_http_field_of(head, "origin"), site = am_http_field_of(head, "sec-fetch-site");
    *cors = (am_str){0};
    if (head->host.p && gate->loopback && (!split_host(head->host, host, &port) || !is_own_name(gate, host)))
        return "the Host header names another machine; this server listens on a loopback address and answers to localhost and 127.0.0.1";
    if (origin.p) {
        if (!origin_ok(gate, origin, head->host)) return "requests from pages of another origin are refused";
        *cors = origin;
    } else if (site.p && am_http_name_is(site, "cross-site")) {
        bool reads = am_str_eq(head->method, AM_STR("GET")) || am_str_eq(head->method, AM_STR("HEAD"));
        am_str mode = am_http_field_of(head, "sec-fetch-mode"), dest = am_http_field_of(head, "sec-fetch-dest");
        if (!reads || !am_http_name_is(mode, "navigate") || !am_http_name_is(dest, "document"))
            return "requests from pages of another site are refused";
    }
    return NULL;
}
