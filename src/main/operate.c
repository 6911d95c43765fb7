/* Owns the operators' commands on a running server (load, unload, swap, drain, evict, clear, clear-pool, pause, resume, status): one request to an
 * admin endpoint each, and what the server did as a line for people. */
#include "main/operate.h"

#include "main/client.h"

#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 24 * 3600 * 1000 }; /* a server that was asked answers or breaks the connection; loading and draining may take long */

static int ask(const am_settings *settings, const char *method, const char *path, json_t *body, json_t **out) {
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    am_client_call call = {.host = settings->host, .port = (uint16_t)settings->port, .method = method, .path = path, .body = text, .key = settings->admin_key,
                           .timeout_ms = PATIENCE_MS};
    am_error err = {0};
    am_status status = body && !text ? am_fail(&err, AM_ENOMEM, "out of memory") : am_client_json(&call, out, &err);
    json_decref(body);
    free(text);
    if (!status) return 0;
    fprintf(stderr, "agent-memory: %s\n", err.message);
    return AM_EXIT_FAILED;
}

static long long count(const json_t *o, const char *key) { return (long long)json_integer_value(json_object_get(o, key)); }
static const char *text(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void say_done(const json_t *o) {
    const char *from = text(o, "old_model_id"), *model = text(o, "model");
    printf("%s", text(o, "operation"));
    if (*from) printf(" %s ->", from);
    if (*model) printf(" %s", model);
    printf(": done in %.0f ms", json_real_value(json_object_get(o, "ms")));
    bool of_agents = strcmp(text(o, "operation"), "evict") == 0 || strcmp(text(o, "operation"), "clear") == 0; /* none is an answer, too */
    static const struct {
        const char *key, *says;
    } counts[] = {{"models", "models"}, {"requests_finished", "requests finished"}, {"requests_canceled", "requests cancelled"}, {"agents", "agents"},
                  {"busy", "busy and left alone"}, {"blocks", "blocks"}, {"refused", "refused files"}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (count(o, counts[i].key) || (of_agents && strcmp(counts[i].key, "agents") == 0)) printf(", %lld %s", count(o, counts[i].key), counts[i].says);
    if (count(o, "bytes")) printf(", %.1f MiB", (double)count(o, "bytes") / (1 << 20));
    puts("");
}

static int operate(const am_settings *settings, const char *path, json_t *body) {
    json_t *answer;
    if (am_settings_origin(settings, "wait") != AM_ORIGIN_DEFAULT) json_object_set_new(body, "timeout_seconds", json_real((double)settings->wait_ms / 1000));
    int code = ask(settings, "POST", path, body, &answer);
    if (code) return code;
    if (settings->json) json_dumpf(answer, stdout, JSON_INDENT(1)), puts("");
    else say_done(answer);
    json_decref(answer);
    return 0;
}

/* {"first": args[0], "second": args[1]}, as far as they are given. */
static json_t *body_of(const am_settings *settings, const char *first, const char *second) {
    json_t *body = json_object();
    if (settings->n_args > 0) json_object_set_new(body, first, json_string(settings->args[0]));
    if (settings->n_args > 1) json_object_set_new(body, second, json_string(settings->args[1]));
    if (settings->tenant) json_object_set_new(body, "tenant", json_string(settings->tenant));
    return body;
}

int am_command_load(am_settings *settings) { return operate(settings, "/v1/admin/models/load", body_of(settings, "model", "")); }
int am_command_unload(am_settings *settings) { return operate(settings, "/v1/admin/models/unload", body_of(settings, "model", "")); }
int am_command_swap(am_settings *settings) { return operate(settings, "/v1/admin/models/swap", body_of(settings, "model", "from")); }
int am_command_drain(am_settings *settings) { return operate(settings, "/v1/admin/drain", body_of(settings, "", "")); }
int am_command_evict(am_settings *settings) { return operate(settings, "/v1/admin/evict", body_of(settings, "agent", "")); }
int am_command_clear_pool(am_settings *settings) { return operate(settings, "/v1/admin/clear-pool", body_of(settings, "", "")); }

int am_command_clear(am_settings *settings) {
    bool named = settings->n_args > 0 || settings->tenant;
    if (named == settings->all) {
        fprintf(stderr, "agent-memory: %s\n", named ? "--all and a name contradict each other" : "clear forgets for good: name an agent or --tenant, or say --all");
        return AM_EXIT_USAGE;
    }
    json_t *body = body_of(settings, "agent", "");
    if (settings->all) json_object_set_new(body, "all", json_true());
    return operate(settings, "/v1/admin/clear", body);
}

static int gate(const am_settings *settings, const char *path) {
    json_t *answer;
    int code = ask(settings, "POST", path, json_object(), &answer);
    if (code) return code;
    printf("%s (was %s)\n", text(answer, "state"), text(answer, "before"));
    json_decref(answer);
    return 0;
}

int am_command_pause(am_settings *settings) { return gate(settings, "/v1/admin/pause"); }
int am_command_resume(am_settings *settings) { return gate(settings, "/v1/admin/resume"); }

static void say_status(const json_t *all) {
    size_t i;
    json_t *m;
    printf("%s; models take %.1f of at most %.1f MiB, agents' files %.1f MiB\n", text(all, "state"), (double)count(all, "model_bytes") / (1 << 20),
           (double)count(all, "model_memory_limit") / (1 << 20), (double)count(all, "disk_bytes") / (1 << 20));
    printf("%-28s %-9s %10s %7s %8s %7s %6s\n", "MODEL", "STATE", "MiB", "AGENTS", "RUNNING", "QUEUED", "LOADS");
    json_array_foreach(json_object_get(all, "models"), i, m) {
        printf("%-28s %-9s %10.1f %7lld %8lld %7lld %6lld%s\n", text(m, "id"), text(m, "state"), (double)count(m, "bytes") / (1 << 20), count(m, "agents"),
               count(m, "running"), count(m, "queued") + count(m, "waiting"), count(m, "loads"), json_is_true(json_object_get(m, "default")) ? "  default" : "");
        if (*text(m, "error")) printf("    %s\n", text(m, "error"));
    }
    if (count(all, "absent_agents")) printf("%lld agents on disk are of models that are not in memory\n", count(all, "absent_agents"));
}

int am_command_status(am_settings *settings) {
    json_t *all;
    int code = ask(settings, "GET", "/v1/admin/status", NULL, &all);
    if (code) return code;
    if (settings->json) json_dumpf(all, stdout, JSON_INDENT(1)), puts("");
    else say_status(all);
    json_decref(all);
    return 0;
}
