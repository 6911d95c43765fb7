/* Owns the decision on Host, Origin and Sec-Fetch-Site.
 *
 * A server on 127.0.0.1 is within reach of every page in the user's browser. Three doors are shut: a foreign name that resolves to
 * 127.0.0.1 (the Host must be a name of this machine, or one the operator listed), a script or form of another site (its Origin is neither
 * ours nor listed), and requests without Origin that the browser itself calls cross-site, except following a link to a page. Programs
 * send none of these headers. No wildcard, no reflection of an unchecked Origin. On a public address with keys any Host is taken: a page
 * under a foreign name has no key. Without keys a Host there must be an address (rebinding needs a name) or one of our names. */
#include "server/gate.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

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
        if (c <= ' ' || c == 0x7f || strchr("/\\@?#", c)) return false;
        host[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    host[name.n] = 0;
    return true;
}

bool am_gate_is_loopback(const char *host) {
    struct in_addr v4;
    if (strcasecmp(host, "localhost") == 0 || strcmp(host, "::1") == 0) return true;
    return inet_pton(AF_INET, host, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

static bool is_address(const char *host) {
    struct in6_addr any;
    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

void am_gate_init(am_gate *gate, const char *host) {
    am_str port, s = am_str_of(host);
    *gate = (am_gate){0};
    if (is_address(host)) snprintf(gate->host, sizeof gate->host, "%s", host);
    else split_host(s, gate->host, &port);
    gate->loopback = gate->named_only = am_gate_is_loopback(gate->host);
    if (gethostname(gate->machine, sizeof gate->machine - 1)) gate->machine[0] = 0;
    for (char *p = gate->machine; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + 32);
}

/* localhost, 127.0.0.1, ::1 and the bound address, with any port (tunnels and containers change it), and what the operator listed. */
static bool is_own_name(const am_gate *gate, const char *host) {
    if (strcmp(host, "localhost") == 0 || strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0) return true;
    if (gate->loopback && strcmp(host, gate->host) == 0) return true;
    if (!gate->loopback && (is_address(host) || (gate->machine[0] && strcmp(host, gate->machine) == 0))) return true;
    for (size_t i = 0; i < gate->n_hosts; i++)
        if (strcasecmp(host, gate->hosts[i]) == 0) return true;
    return false;
}

/* The authority of an http or https origin, checked; false for "null", file:, extensions and anything malformed. */
static bool origin_host(am_str origin, am_str *authority, char host[256]) {
    size_t scheme = am_str_starts(origin, AM_STR("http://")) ? 7 : am_str_starts(origin, AM_STR("https://")) ? 8 : 0;
    am_str port;
    *authority = (am_str){origin.p + scheme, origin.n - scheme};
    return scheme && split_host(*authority, host, &port);
}

am_status am_gate_origin_check(const char *origin, am_error *err) {
    am_str authority;
    char host[256];
    if (strcmp(origin, "*") == 0)
        return am_fail(err, AM_EINVAL, "must name an origin: '*' would let every page on the web use this server");
    if (!origin_host(am_str_of(origin), &authority, host) || strchr(host, '*'))
        return am_fail(err, AM_EINVAL, "must be like https://app.example or http://localhost:3000, not '%.100s'", origin);
    return AM_OK;
}

static bool origin_ok(const am_gate *gate, am_str origin, am_str host_field) {
    char host[256];
    am_str authority;
    for (size_t i = 0; i < gate->n_origins; i++)
        if (am_str_eq(origin, am_str_of(gate->origins[i]))) return true;
    if (!origin_host(origin, &authority, host)) return false;
    if (gate->loopback && (am_gate_is_loopback(host) && is_own_name(gate, host))) return true;
    return host_field.n == authority.n && strncasecmp(host_field.p, authority.p, authority.n) == 0; /* our own page */
}

const char *am_gate_check(const am_gate *gate, const am_http_head *head, am_str *cors) {
    char host[256];
    am_str port, origin = am_http_field_of(head, "origin"), site = am_http_field_of(head, "sec-fetch-site");
    *cors = (am_str){0};
    if (head->host.p && gate->named_only && (!split_host(head->host, host, &port) || !is_own_name(gate, host)))
        return gate->loopback
                   ? "the Host header names another machine; this server listens on a loopback address and answers to localhost and 127.0.0.1"
                   : "the Host header has a name that is not known here; use the address, or list the name with --allow-host";
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
