/* Owns admission: which key a request brings, whose it is, and whether its tenant's limits leave room.
 *
 * Requests a minute and parallel requests are counted before the body is read, so that who is over a limit costs next to nothing. Agents and
 * disk are looked up in the cache only for tenants that have such a quota. */
#include "server/admit.h"

#include "server/models.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static bool address_is_loopback(const struct sockaddr_storage *a) {
    if (a->ss_family == AF_INET) return (ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24) == 127;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)a)->sin6_addr;
    return a->ss_family == AF_INET6 && (IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127));
}

/* A proxy on this machine speaks for others: what says so is not from here. */
static bool is_local(const am_exchange *x, int fd) {
    static const char *const proxied[] = {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"};
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    for (size_t i = 0; i < sizeof proxied / sizeof proxied[0]; i++)
        if (am_http_field_of(&x->head, proxied[i]).p) return false;
    return getpeername(fd, (struct sockaddr *)&peer, &n) == 0 && address_is_loopback(&peer);
}

/* authorization: Bearer KEY; empty for another scheme. */
static am_str bearer(const am_http_head *head) {
    am_str v = am_http_field_of(head, "authorization");
    if (v.n < 8 || !am_http_name_is((am_str){v.p, 6}, "bearer") || v.p[6] != ' ') return (am_str){0};
    for (v.p += 7, v.n -= 7; v.n && v.p[0] == ' '; v.n--) v.p++;
    return v;
}

static void refuse(am_exchange *x, const am_api_error *e) {
    if (e->status == 401) am_reply_header(x, "www-authenticate", "Bearer realm=\"agent-memory\"");
    am_reply_error(x, e);
}

static bool refuse_key(am_exchange *x, am_auth_verdict verdict) {
    am_api_error e;
    bool unknown = verdict == AM_AUTH_MISSING || verdict == AM_AUTH_WRONG;
    am_api_fail(&e, unknown ? 401 : 403, verdict == AM_AUTH_MISSING ? "missing_api_key" : unknown ? "invalid_api_key" : "wrong_kind_of_key", NULL, "%s",
                am_auth_text(verdict));
    if (verdict == AM_AUTH_REMOTE) e.code = "admin_is_local";
    refuse(x, &e);
    am_metrics_refused(AM_REFUSED_KEY);
    return false;
}

/* As OpenAI writes durations in headers: 0s, 120ms, 7.4s, 1m2s. */
static void duration_text(uint64_t ms, char out[32]) {
    if (ms == 0) snprintf(out, 32, "0s");
    else if (ms < 1000) snprintf(out, 32, "%llums", (unsigned long long)ms);
    else if (ms < 60000) snprintf(out, 32, "%.3gs", (double)ms / 1000);
    else snprintf(out, 32, "%llum%llus", (unsigned long long)(ms / 60000), (unsigned long long)(ms % 60000 / 1000));
}

static bool within_rate(am_exchange *x) {
    am_rate rate;
    char text[32];
    bool ok = am_account_rate(x->server->auth, x->account, am_now_ns(), &rate);
    if (rate.limit == 0) return true;
    snprintf(text, sizeof text, "%llu", (unsigned long long)rate.limit);
    am_reply_header(x, "x-ratelimit-limit-requests", text);
    snprintf(text, sizeof text, "%llu", (unsigned long long)rate.remaining);
    am_reply_header(x, "x-ratelimit-remaining-requests", text);
    duration_text(rate.reset_ms, text);
    am_reply_header(x, "x-ratelimit-reset-requests", text);
    if (ok) return true;
    am_api_error e;
    duration_text(rate.retry_ms, text);
    am_api_fail(&e, 429, "rate_limit_exceeded", NULL, "Rate limit reached: %llu requests a minute. Please try again in %s.",
                (unsigned long long)rate.limit, text);
    e.retry_after_s = (unsigned)((rate.retry_ms + 999) / 1000);
    refuse(x, &e);
    am_metrics_refused(AM_REFUSED_RATE);
    return false;
}

static bool within_parallel(am_exchange *x) {
    uint64_t limit;
    if (x->route->on_network || am_account_begin(x->server->auth, x->account, &limit)) {
        x->counted = !x->route->on_network;
        return true;
    }
    am_api_error e;
    am_api_fail(&e, 429, "too_many_parallel_requests", NULL, "%llu requests of this key's tenant are running, which is all that may; wait for one to end",
                (unsigned long long)limit);
    e.retry_after_s = 1;
    refuse(x, &e);
    am_metrics_refused(AM_REFUSED_PARALLEL);
    return false;
}

bool am_admit(am_exchange *x, int fd) {
    am_auth *auth = x->server->auth;
    am_str key = bearer(&x->head), other = am_http_field_of(&x->head, "x-api-key");
    am_auth_verdict verdict = am_auth_tenant(auth, key.n ? key : other, &x->account);
    if (verdict == AM_AUTH_WRONG && key.n && other.n) verdict = am_auth_tenant(auth, other, &x->account);
    x->known = verdict == AM_AUTH_OK;
    if (x->route->open) return true;
    if (x->route->admin || x->route->scrape) {
        bool local = is_local(x, fd);
        am_str own = am_http_field_of(&x->head, "x-admin-key");
        if (own.n) key = own;
        if (x->route->scrape && local) return true;
        verdict = am_auth_admin(auth, key.n ? key : other, local);
        if (verdict == AM_AUTH_REMOTE && x->route->scrape) verdict = am_auth_admin(auth, key.n ? key : other, true); /* with the key, from anywhere */
        return verdict == AM_AUTH_OK || refuse_key(x, verdict);
    }
    return (x->known || refuse_key(x, verdict)) && within_rate(x) && within_parallel(x);
}

typedef struct usage {
    const am_tenant *tenant;
    am_str agent;
    bool known; /* the named agent is there already */
    uint64_t n_agents, disk_bytes;
    am_status status;
} usage;

static am_status add_usage(void *arg, const am_agent_info *info) {
    usage *u = arg;
    u->n_agents++;
    u->disk_bytes += info->disk_bytes;
    if (am_str_eq(am_str_of(info->agent), u->agent)) u->known = true;
    return AM_OK;
}

static void look(void *arg, am_cache *cache) {
    usage *u = arg;
    u->status = am_cache_agents(cache, u->tenant, add_usage, u);
}

/* Of every model that is in memory, the request's own at least. */
static am_status on_caches(am_exchange *x, void (*fn)(void *arg, am_cache *cache), void *arg) {
    am_registry *registry = am_models_of(x->server);
    am_instance *all[AM_MAX_RESIDENT];
    size_t n = am_registry_peek_all(registry, all, AM_MAX_RESIDENT);
    am_status status = n ? AM_OK : !x->instance ? AM_ESHUTDOWN : am_engine_call(am_instance_engine(x->instance), fn, arg);
    for (size_t i = 0; i < n; i++) {
        if (!status) status = am_engine_call(am_instance_engine(all[i]), fn, arg);
        am_registry_release(registry, all[i]);
    }
    return status;
}

/* The same agent may have state under several models. */
static bool measure(am_exchange *x, usage *u) {
    u->known = false;
    u->n_agents = u->disk_bytes = 0;
    am_status status = on_caches(x, look, u);
    am_absent_usage absent = am_registry_absent(am_models_of(x->server), u->tenant, u->agent); /* and under some that are not in memory */
    u->n_agents += absent.n_agents;
    u->disk_bytes += absent.disk_bytes;
    u->known = u->known || absent.known;
    return !status && !u->status;
}

typedef struct going_on {
    const am_tenant *tenant;
    const am_tokens *prompt;
    char agent[AM_NAME_MAX + 1];
} going_on;

static void find_continued(void *arg, am_cache *cache) {
    going_on *g = arg;
    am_str agent = am_cache_continues(cache, g->tenant, g->prompt->ids, (uint32_t)g->prompt->n);
    snprintf(g->agent, sizeof g->agent, "%.*s", (int)agent.n, agent.p);
}

static void shed(void *arg, am_cache *cache) { am_cache_shed(cache, arg); }

bool am_admit_agent(am_exchange *x, am_str agent, const am_tokens *prompt, bool *ephemeral, am_api_error *e) {
    am_quota quota = am_account_quota(x->server->auth, x->account);
    going_on g = {.tenant = am_account_tenant(x->account), .prompt = prompt};
    if (ephemeral) *ephemeral = false;
    if (quota.agents == 0 && quota.disk_bytes == 0) return true;
    am_status status = agent.n || !prompt ? AM_OK : am_engine_call(am_instance_engine(x->instance), find_continued, &g);
    usage u = {.tenant = g.tenant, .agent = agent.n ? agent : am_str_of(g.agent)};
    if (status || !measure(x, &u)) return am_api_fail(e, 503, "shutting_down", NULL, "the server is shutting down");
    bool many = quota.agents && u.n_agents >= quota.agents && !u.known, large = quota.disk_bytes && u.disk_bytes >= quota.disk_bytes;
    if (many || large) { /* agents without a name make room, but for the one that is wanted: to go on with, or to copy */
        am_shed s = {.tenant = u.tenant, .except = x->param.n ? am_buf_str(&x->param) : u.agent, .n_agents = many ? u.n_agents - quota.agents + 1 : 0,
                     .disk_bytes = large ? u.disk_bytes - quota.disk_bytes + 1 : 0};
        if (on_caches(x, shed, &s) || !measure(x, &u)) return am_api_fail(e, 503, "shutting_down", NULL, "the server is shutting down");
        many = many && u.n_agents >= quota.agents;
        large = large && u.disk_bytes >= quota.disk_bytes;
    }
    if (!many && !large) return true;
    if (agent.n == 0 && ephemeral) return *ephemeral = true;
    if (many)
        am_api_fail(e, 429, "agent_quota_exceeded", NULL, "this key's tenant has %llu agents, which is all it may have; delete one (DELETE /v1/agents/NAME)",
                    (unsigned long long)u.n_agents);
    else
        am_api_fail(e, 429, "disk_quota_exceeded", NULL, "the agents of this key's tenant take %llu bytes of the %llu they may take on disk; delete one "
                    "(DELETE /v1/agents/NAME)", (unsigned long long)u.disk_bytes, (unsigned long long)quota.disk_bytes);
    am_metrics_refused(AM_REFUSED_QUOTA);
    e->retry_after_s = 60; /* time alone does not help, but clients that retry should do so slowly */
    return false;
}
