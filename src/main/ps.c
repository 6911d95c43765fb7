/* Owns `ps`: what a running server has in memory: its models, as GET /v1/admin/status tells them, and, as GET /debug/memory does, agents, the pool, and the
 * parts that make up its resident memory. */
#include "main/commands.h"

#include "base/clock.h"
#include "main/client.h"

#include <string.h>

static double mib(const json_t *object, const char *key) {
    return (double)json_integer_value(json_object_get(object, key)) / (1 << 20);
}

static void show_parts(const json_t *all) {
    const char *key;
    json_t *part;
    printf("resident %.1f MiB (most so far %.1f), locked %.1f, in swap %.1f; the parts add up to %.1f %% of it\n",
           mib(all, "rss_bytes"), mib(all, "peak_rss_bytes"), mib(all, "locked_bytes"), mib(all, "swap_bytes"),
           100 * json_real_value(json_object_get(all, "explained")));
    json_object_foreach(json_object_get(all, "parts"), key, part)
        printf("  %-16s %10.2f MiB\n", key, (double)json_integer_value(part) / (1 << 20));
    json_object_foreach(json_object_get(all, "pool"), key, part)
        printf("pool of %-6s blocks: %.1f MiB used, %.1f reserved by running turns, %.1f free\n", key,
               mib(part, "used_bytes"), mib(part, "reserved_bytes"), mib(part, "free_bytes"));
}

/* How long ago, as people say it. */
static const char *ago(const json_t *object, char out[32]) {
    json_int_t then = json_integer_value(json_object_get(object, "last_used")), now = (json_int_t)(am_wall_ns() / 1000000000u), s = now > then ? now - then : 0;
    if (then == 0) snprintf(out, 32, "never");
    else if (s < 120) snprintf(out, 32, "%lld s ago", (long long)s);
    else if (s < 7200) snprintf(out, 32, "%lld min ago", (long long)(s / 60));
    else if (s < 172800) snprintf(out, 32, "%lld h ago", (long long)(s / 3600));
    else snprintf(out, 32, "%lld days ago", (long long)(s / 86400));
    return out;
}

static const char *word(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static void show_models(const json_t *models) {
    size_t i;
    json_t *m;
    char when[32];
    printf("%-36s %-9s %10s %7s %8s %12s\n", "MODEL", "STATE", "MiB", "AGENTS", "RUNNING", "LAST USE");
    json_array_foreach(models, i, m)
        printf("%-36s %-9s %10.1f %7lld %8lld %12s\n", word(m, "id"), word(m, "state"), mib(m, "bytes"), (long long)json_integer_value(json_object_get(m, "agents")),
               (long long)json_integer_value(json_object_get(m, "running")), ago(m, when));
}

static void show_agents(const json_t *all) {
    size_t i;
    json_t *a;
    char when[32];
    printf("%-28s %-24s %-5s %12s %10s %12s\n", "AGENT", "MODEL", "TIER", "MEMORY MiB", "DISK MiB", "LAST USE");
    json_array_foreach(json_object_get(all, "agents"), i, a)
        printf("%-28s %-24s %-5s %12.2f %10.2f %12s\n", word(a, "agent"), word(a, "model"), word(a, "tier"), mib(a, "memory_bytes"), mib(a, "disk_bytes"), ago(a, when));
    json_array_foreach(json_object_get(all, "turns"), i, a)
        printf("running: %-50s %12.2f            (%.2f MiB reserved)\n", word(a, "agent"), mib(a, "pinned_bytes"), mib(a, "reserved_bytes"));
}

static am_status ask(const am_settings *settings, const char *path, json_t **out, am_error *err) {
    am_client_call call = {.host = settings->host, .port = (uint16_t)settings->port, .method = "GET", .path = path, .key = settings->admin_key};
    return am_client_json(&call, out, err);
}

/* Models in memory alone: list has those that are not. */
static json_t *in_memory(const json_t *status) {
    json_t *found = json_array(), *m;
    size_t i;
    json_array_foreach(json_object_get(status, "models"), i, m)
        if (json_integer_value(json_object_get(m, "bytes")) > 0 || strcmp(word(m, "state"), "loading") == 0) json_array_append(found, m);
    return found;
}

int am_command_ps(am_settings *settings) {
    json_t *all = NULL, *status = NULL;
    am_error err = {0};
    if (ask(settings, "/v1/admin/status", &status, &err) || ask(settings, "/debug/memory", &all, &err)) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        json_decref(status);
        return AM_EXIT_FAILED;
    }
    json_object_set_new(all, "models", in_memory(status));
    if (settings->json) {
        json_dumpf(all, stdout, JSON_INDENT(1));
        puts("");
    } else {
        if (settings->memory) show_parts(all);
        show_models(json_object_get(all, "models"));
        puts("");
        show_agents(all);
    }
    json_decref(all);
    json_decref(status);
    return 0;
}
