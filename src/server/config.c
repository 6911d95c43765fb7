/* Owns the part of the server's settings that may change while it runs: one immutable snapshot at a time, so that no reader on any thread needs a
 * lock or can see half of a change. A snapshot is small and reloads are rare, so old ones are kept until the server ends. */
#include "server/internal.h"

#include <stdlib.h>

static void set_defaults(am_server_options *o) {
    if (!o->max_body_bytes) o->max_body_bytes = 32u << 20;
    if (!o->max_messages) o->max_messages = 10000;
    if (!o->max_connections) o->max_connections = 4096;
    if (!o->keepalive_ms) o->keepalive_ms = 5000;
    if (!o->head_timeout_ms) o->head_timeout_ms = 10000;
    if (!o->idle_timeout_ms) o->idle_timeout_ms = 75000;
    if (!o->max_outbox_bytes) o->max_outbox_bytes = 8u << 20;
}

static am_status copy_list(am_server_config *config, const char *const *from, size_t n, const char *const **out) {
    const char **to = am_arena_alloc(config->arena, (n + 1) * sizeof *to);
    for (size_t i = 0; to && i < n; i++)
        if (!(to[i] = am_arena_strdup(config->arena, am_str_of(from[i])))) return AM_ENOMEM;
    *out = to;
    return to ? AM_OK : AM_ENOMEM;
}

am_status am_server_config_make(const am_server_options *options, const char *host, bool closed, am_server_config **out, am_error *err) {
    for (size_t i = 0; i < options->n_cors_origins; i++)
        if (am_gate_origin_check(options->cors_origins[i], err)) return am_error_prefix(err, "cors-origin");
    am_server_config *config = *out = am_calloc(1, sizeof *config);
    if (config) config->arena = am_arena_create(16 << 20);
    if (!config || !config->arena) goto no_memory;
    am_server_options *o = &config->options;
    *o = *options;
    set_defaults(o);
    o->host = host;
    o->api_key = o->admin_key = o->keys_dir = NULL; /* the keyring has taken what it wants of them */
    if (copy_list(config, options->cors_origins, options->n_cors_origins, &o->cors_origins)) goto no_memory;
    if (copy_list(config, options->allow_hosts, options->n_allow_hosts, &o->allow_hosts)) goto no_memory;
    am_gate *gate = &config->gate;
    am_gate_init(gate, host);
    gate->origins = o->cors_origins;
    gate->n_origins = o->n_cors_origins;
    gate->hosts = o->allow_hosts;
    gate->n_hosts = o->n_allow_hosts;
    gate->named_only = gate->loopback || !closed || gate->n_hosts;
    return AM_OK;
no_memory:
    am_server_config_free(config);
    *out = NULL;
    return am_fail(err, AM_ENOMEM, "no memory for the server's settings");
}

void am_server_config_free(am_server_config *config) {
    while (config) {
        am_server_config *older = config->older;
        am_arena_free(config->arena);
        free(config);
        config = older;
    }
}
