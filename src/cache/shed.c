/* Owns making room by forgetting agents without a name: those whose every turn came without one, so that nobody can ask for them but by saying all of
 * it again. The least recently used goes first, never one that a turn uses. Whoever names such an agent once has it kept like any other. */
#include "cache/internal.h"

#include "base/log.h"

#include <string.h>

static bool is_of(const am_head *h, const am_tenant *tenant) { return !tenant || strcmp(h->tenant.name, tenant->name) == 0; }

static am_head *oldest(am_cache *c, const am_tenant *tenant, am_str except) {
    for (am_head *h = c->head_ring.newer; h != &c->head_ring; h = h->newer)
        if (h->unnamed && !h->removed && h->n_tokens && h->n_running == 0 && is_of(h, tenant) && !am_str_eq(am_str_of(h->agent), except)) return h;
    return NULL;
}

static void shed(am_cache *c, am_head *h, const char *why) {
    am_log(AM_LOG_INFO, "agent_shed", AM_LS("agent", h->agent), AM_LS("tenant", h->tenant.name), AM_LS("why", why));
    c->stats.n_shed++;
    am_keep_forget_head(c, h);
}

bool am_shed_one(am_cache *c, const char *why) {
    am_head *h = oldest(c, NULL, (am_str){0});
    if (h) shed(c, h, why);
    return h != NULL;
}

void am_shed_excess(am_cache *c, const am_tenant *tenant) {
    uint32_t n = 0;
    for (const am_head *h = c->head_ring.older; h != &c->head_ring; h = h->older) n += h->unnamed && !h->removed && is_of(h, tenant);
    for (am_head *h; c->options.n_unnamed && n > c->options.n_unnamed && (h = oldest(c, tenant, (am_str){0})); n--) shed(c, h, "unnamed_agents");
}

void am_cache_shed(am_cache *c, am_shed *s) {
    am_agent_info info;
    am_head *h;
    while ((s->n_agents || s->disk_bytes) && (h = oldest(c, s->tenant, s->except))) {
        if (am_cache_agent(c, &h->tenant, am_str_of(h->agent), &info)) return;
        s->n_agents -= s->n_agents > 0;
        s->disk_bytes -= s->disk_bytes < info.disk_bytes ? s->disk_bytes : info.disk_bytes;
        shed(c, h, "tenant_quota");
    }
}
