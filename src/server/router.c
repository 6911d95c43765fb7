/* Owns the table of endpoints. Each is reached with and without the prefix /v1, as clients differ on whose base URL has it. */
#include "server/dialect.h"

#include "base/metrics.h"

#include <stdio.h>
#include <string.h>

static const am_route routes[] = {
    {.method = "POST", .path = "/chat/completions", .handler = am_handle_completion},
    {.method = "POST", .path = "/messages", .handler = am_handle_completion},
    {.method = "POST", .path = "/messages/count_tokens", .handler = am_handle_count_tokens},
    {.method = "GET", .path = "/models", .handler = am_handle_models, .on_network = true},
    {.method = "GET", .path = "/models/{id}", .handler = am_handle_model, .on_network = true, .rest = true},
    {.method = "GET", .path = "/agents", .handler = am_handle_agents},
    {.method = "GET", .path = "/agents/{id}", .handler = am_handle_agent},
    {.method = "DELETE", .path = "/agents/{id}", .handler = am_handle_agent_delete},
    {.method = "POST", .path = "/agents/{id}/fork", .handler = am_handle_agent_fork},
    {.method = "POST", .path = "/admin/models/load", .handler = am_handle_admin_load, .admin = true},
    {.method = "POST", .path = "/admin/models/unload", .handler = am_handle_admin_unload, .admin = true},
    {.method = "POST", .path = "/admin/models/offload", .handler = am_handle_admin_unload, .admin = true},
    {.method = "POST", .path = "/admin/models/swap", .handler = am_handle_admin_swap, .admin = true},
    {.method = "GET", .path = "/admin/models/current", .handler = am_handle_admin_current, .admin = true},
    {.method = "GET", .path = "/admin/models/available", .handler = am_handle_admin_available, .admin = true},
    {.method = "GET", .path = "/admin/status", .handler = am_handle_admin_status, .admin = true},
    {.method = "POST", .path = "/admin/drain", .handler = am_handle_admin_drain, .admin = true},
    {.method = "POST", .path = "/admin/pause", .handler = am_handle_admin_pause, .admin = true},
    {.method = "POST", .path = "/admin/resume", .handler = am_handle_admin_resume, .admin = true},
    {.method = "POST", .path = "/admin/persist", .handler = am_handle_admin_persist, .admin = true},
    {.method = "POST", .path = "/admin/evict", .handler = am_handle_admin_evict, .admin = true},
    {.method = "POST", .path = "/admin/clear", .handler = am_handle_admin_clear, .admin = true},
    {.method = "DELETE", .path = "/admin/caches", .handler = am_handle_admin_clear_caches, .admin = true},
    {.method = "POST", .path = "/admin/clear-pool", .handler = am_handle_admin_clear_pool, .admin = true},
    {.method = "POST", .path = "/admin/seed", .handler = am_handle_admin_seed, .admin = true},
    {.method = "GET", .path = "/debug/memory", .handler = am_handle_memory, .admin = true},
    {.method = "GET", .path = "/health", .handler = am_handle_health, .on_network = true, .always = true, .quiet = true, .open = true},
    {.method = "GET", .path = "/health/live", .handler = am_handle_live, .on_network = true, .always = true, .quiet = true, .open = true},
    {.method = "GET", .path = "/health/ready", .handler = am_handle_ready, .on_network = true, .always = true, .quiet = true, .open = true},
    {.method = "GET", .path = "/health/startup", .handler = am_handle_startup, .on_network = true, .always = true, .quiet = true, .open = true},
    {.method = "GET", .path = "/metrics", .handler = am_handle_metrics, .on_network = true, .always = true, .quiet = true, .scrape = true},
    {.method = "GET", .path = "/", .handler = am_handle_root, .on_network = true, .open = true},
};
enum { N_ROUTES = sizeof routes / sizeof *routes, MAX_NEAR = 3, MAX_COMPARED = 64 };

static bool is_health(const am_route *route) {
    return am_str_starts(am_str_of(route->path), AM_STR("/health")) || strcmp(route->path, "/metrics") == 0;
}

void am_route_list(json_t *array) {
    for (size_t i = 0; i < N_ROUTES; i++) {
        bool plain = routes[i].path[1] == 0 || is_health(&routes[i]);
        char line[128];
        snprintf(line, sizeof line, "%s %s%s", routes[i].method, plain ? "" : "/v1", routes[i].path);
        json_array_append_new(array, json_string(line));
    }
}

/* The path without /v1 and without a slash at its end. */
static am_str canonical(am_str path) {
    if (am_str_eq(path, AM_STR("/v1"))) return AM_STR("/");
    if (am_str_starts(path, AM_STR("/v1/"))) path.p += 3, path.n -= 3;
    if (path.n > 1 && path.p[path.n - 1] == '/') path.n--;
    return path;
}

/* Whether it is this path, or one below it. */
static bool path_under(am_str path, const char *top) {
    am_str t = am_str_of(top);
    return am_str_starts(path, t) && (path.n == t.n || path.p[t.n] == '/');
}

const am_dialect *am_route_dialect(const am_http_head *head) {
    am_str path = canonical(head->path);
    if (path_under(path, "/messages")) return &am_dialect_anthropic;
    bool shared = !path_under(path, "/chat/completions");
    return shared && am_http_field_of(head, "anthropic-version").p ? &am_dialect_anthropic : &am_dialect_openai;
}

/* {id} takes one segment, as it stands in the path (so %2F may be part of a name), or all that is left. */
static bool path_matches(const am_route *route, am_str path, am_str *id) {
    const char *pattern = route->path, *brace = strchr(pattern, '{');
    *id = (am_str){0};
    if (!brace) return am_str_eq(am_str_of(pattern), path);
    am_str before = {pattern, (size_t)(brace - pattern)}, after = am_str_of(strchr(brace, '}') + 1);
    if (!am_str_starts(path, before) || path.n <= before.n + after.n) return false;
    *id = (am_str){path.p + before.n, path.n - before.n - after.n};
    return am_str_eq((am_str){id->p + id->n, after.n}, after) && (route->rest || !memchr(id->p, '/', id->n));
}

/* Number of single-character changes from a to b (Levenshtein), both short. */
static unsigned edit_distance(am_str a, am_str b) {
    unsigned row[MAX_COMPARED + 1];
    if (a.n > MAX_COMPARED) a.n = MAX_COMPARED;
    if (b.n > MAX_COMPARED) b.n = MAX_COMPARED;
    for (unsigned j = 0; j <= b.n; j++) row[j] = j;
    for (size_t i = 0; i < a.n; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < b.n; j++) {
            unsigned change = diagonal + (a.p[i] != b.p[j]);
            diagonal = row[j + 1];
            unsigned best = row[j] < diagonal ? row[j] + 1 : diagonal + 1;
            row[j + 1] = change < best ? change : best;
        }
    }
    return row[b.n];
}

/* Endpoints that clients know from elsewhere: what they are looking for is not a misspelt one of ours. */
static const struct {
    const char *path, *name;
} elsewhere[] = {{"/responses", "OpenAI's Responses API"}, {"/completions", "OpenAI's text completions"}, {"/embeddings", "OpenAI's embeddings"}};

static void reply_not_found(am_exchange *x, am_str path) {
    am_api_error e;
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++) {
        if (!path_under(path, elsewhere[i].path)) continue;
        am_api_fail(&e, 404, "unknown_url", NULL, "%s (/v1%s) is not served here; POST /v1/chat/completions is", elsewhere[i].name, elsewhere[i].path);
        am_reply_error(x, &e);
        return;
    }
    char near[256] = "";
    bool taken[N_ROUTES] = {false};
    size_t n = 0;
    for (int k = 0; k < MAX_NEAR; k++) {
        unsigned least = UINT32_MAX;
        size_t at = 0;
        for (size_t i = 0; i < N_ROUTES; i++) {
            unsigned d = edit_distance(path, am_str_of(routes[i].path));
            if (!taken[i] && d < least) least = d, at = i;
        }
        taken[at] = true;
        bool plain = routes[at].path[1] == 0 || is_health(&routes[at]);
        n += (size_t)snprintf(near + n, sizeof near - n, "%s%s %s%s", k ? ", " : "", routes[at].method, plain ? "" : "/v1", routes[at].path);
    }
    int shown = x->head.path.n > 100 ? 100 : (int)x->head.path.n;
    am_api_fail(&e, 404, "unknown_url", NULL, "there is no %.*s here; near it are: %s", shown, x->head.path.p, near);
    am_reply_error(x, &e);
}

static void reply_methods(am_exchange *x, const bool allowed[N_ROUTES], bool preflight) {
    char list[64] = "";
    size_t n = 0;
    for (size_t i = 0; i < N_ROUTES; i++)
        if (allowed[i]) n += (size_t)snprintf(list + n, sizeof list - n, "%s%s, ", routes[i].method, strcmp(routes[i].method, "GET") ? "" : ", HEAD");
    snprintf(list + n, sizeof list - n, "OPTIONS");
    am_reply_header(x, "allow", list);
    if (!preflight) {
        am_api_error e;
        am_api_fail(&e, 405, "method_not_allowed", NULL, "this path takes %s, not %.*s", list, (int)x->head.method.n, x->head.method.p);
        am_reply_error(x, &e);
        return;
    }
    if (x->cors[0]) {
        am_reply_header(x, "access-control-allow-methods", list);
        am_reply_header(x, "access-control-allow-headers", "*, authorization");
        am_reply_header(x, "access-control-max-age", "600");
        if (am_http_field_of(&x->head, "access-control-request-private-network").p) am_reply_header(x, "access-control-allow-private-network", "true");
    }
    am_reply_send(x, 204, "", (am_str){0});
}

bool am_route_find(am_exchange *x) {
    am_str path = canonical(x->head.path), id, method = x->head_only ? AM_STR("GET") : x->head.method;
    bool allowed[N_ROUTES] = {false}, known = false;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (!path_matches(&routes[i], path, &id)) continue;
        allowed[i] = known = true;
        if (!am_str_eq(am_str_of(routes[i].method), method)) continue;
        x->route = &routes[i];
        if (am_http_unescape(id, &x->param) == AM_OK) return true;
        am_reply_refuse(x, 400, NULL, "a malformed %-escape in the path");
        return false;
    }
    bool preflight = am_str_eq(method, AM_STR("OPTIONS"));
    if (known || (preflight && am_str_eq(path, AM_STR("*")))) reply_methods(x, allowed, preflight);
    else reply_not_found(x, path);
    return false;
}

/* Requests by route and status. A path that is no route is not shown: clients choose it. */
static _Atomic uint64_t counts[N_ROUTES + 1][AM_HTTP_N_STATUS];

void am_route_count(const am_route *route, int status) {
    atomic_fetch_add_explicit(&counts[route ? (size_t)(route - routes) : N_ROUTES][am_http_status_index(status)], 1, memory_order_relaxed);
}

void am_route_metrics(am_buf *out) {
    am_metric_write_head("agent_memory_http_requests_total", "Requests answered, by endpoint and status; status 0: the client left before.", AM_METRIC_COUNTER, out);
    for (size_t i = 0; i <= N_ROUTES; i++) {
        const am_route *r = i < N_ROUTES ? &routes[i] : NULL;
        bool plain = r && (r->path[1] == 0 || is_health(r));
        for (size_t s = 0; s < AM_HTTP_N_STATUS; s++) {
            uint64_t n = atomic_load_explicit(&counts[i][s], memory_order_relaxed);
            if (n == 0) continue;
            am_buf_printf(out, "agent_memory_http_requests_total{method=\"%s\",route=\"%s%s\",status=\"%d\"} %llu\n", r ? r->method : "", plain || !r ? "" : "/v1",
                          r ? r->path : "other", am_http_status_at(s), (unsigned long long)n);
        }
    }
}
