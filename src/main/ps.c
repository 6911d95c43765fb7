/* Owns `ps`: what a running server has in memory, as GET /debug/memory tells it: the parts that make up its resident
 * memory, the pool, and the agents. */
#include "main/commands.h"

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

static void show_agents(const json_t *all) {
    size_t i;
    json_t *a;
    printf("%-32s %-5s %12s %10s\n", "AGENT", "TIER", "MEMORY MiB", "DISK MiB");
    json_array_foreach(json_object_get(all, "agents"), i, a)
        printf("%-32s %-5s %12.2f %10.2f\n", json_string_value(json_object_get(a, "agent")),
               json_string_value(json_object_get(a, "tier")), mib(a, "memory_bytes"), mib(a, "disk_bytes"));
    json_array_foreach(json_object_get(all, "turns"), i, a)
        printf("running: %-23s       %12.2f            (%.2f MiB reserved)\n",
               json_string_value(json_object_get(a, "agent")), mib(a, "pinned_bytes"), mib(a, "reserved_bytes"));
}

int am_command_ps(am_settings *settings) {
    am_client_call call = {.host = settings->host,
                           .port = (uint16_t)settings->port,
                           .method = "GET",
                           .path = "/debug/memory",
                           .key = settings->admin_key};
    json_t *all;
    am_error err = {0};
    if (am_client_json(&call, &all, &err)) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        return AM_EXIT_FAILED;
    }
    if (settings->json) {
        json_dumpf(all, stdout, JSON_INDENT(1));
        puts("");
    } else {
        if (settings->memory) show_parts(all);
        show_agents(all);
    }
    json_decref(all);
    return 0;
}
