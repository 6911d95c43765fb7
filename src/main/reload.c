/* Owns the change of settings while the server runs.
 *
 * The rows of the table that carry AM_RELOADS are taken over, as a whole or (when anything is wrong) not at all; the others are compared with what
 * the process runs with, so that the log names those that wait for a restart at every reload until there was one. Keys have a file of their own
 * that is looked at each second: a removed key must stop working without anybody remembering to tell the server. */
#include "main/reload.h"

#include "agents/instance.h"
#include "base/log.h"
#include "main/setting.h"
#include "server/keyring.h"

#include <string.h>
#include <sys/stat.h>

static const char *keys_dir(const am_settings *settings) { return settings->data_dir ? settings->data_dir : am_settings_home(); }

/* One model answers to every name, as clients send names of their own; among several a wrong name would get an answer from the wrong one. */
static bool lenient(const am_settings *settings) {
    bool unsaid = am_settings_origin(settings, "strict-model") == AM_ORIGIN_DEFAULT;
    return unsaid ? settings->n_entries < 2 : !settings->strict_model;
}

am_server_options am_server_options_of(const am_settings *settings) {
    return (am_server_options){
        .host = settings->host,
        .port = (uint16_t)settings->port,
        .max_body_bytes = settings->max_body_bytes,
        .max_messages = (uint32_t)settings->max_messages,
        .max_connections = (uint32_t)settings->max_connections,
        .keepalive_ms = (uint32_t)settings->keep_alive_ms,
        .head_timeout_ms = (uint32_t)settings->head_timeout_ms,
        .idle_timeout_ms = (uint32_t)settings->idle_timeout_ms,
        .max_outbox_bytes = settings->max_outbox_bytes,
        .unknown_model_ok = lenient(settings),
        .log_content = settings->log_content,
        .cors_origins = settings->cors_origins.items,
        .n_cors_origins = settings->cors_origins.n,
        .allow_hosts = settings->allow_hosts.items,
        .n_allow_hosts = settings->allow_hosts.n,
        .api_key = settings->api_key,
        .admin_key = settings->admin_key,
        .keys_dir = keys_dir(settings),
        .admin_remote = settings->admin_remote,
        .allow_no_auth = settings->allow_no_auth,
    };
}

/* What tells one keys.json from the one before. */
typedef struct keys_file {
    bool looked;
    struct timespec changed;
    ino_t inode;
    off_t size;
} keys_file;

static keys_file look(const am_settings *settings) {
    char path[4096];
    struct stat st;
    keys_file seen = {.looked = true};
    if (am_keyring_path(keys_dir(settings), path, sizeof path, NULL) || stat(path, &st)) return seen;
    seen.changed = st.st_mtim;
    seen.inode = st.st_ino;
    seen.size = st.st_size;
    return seen;
}

static bool same(const keys_file *a, const keys_file *b) {
    return a->looked == b->looked && a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec && a->inode == b->inode &&
           a->size == b->size;
}

void am_reload_keys(const am_settings *settings, am_server *server) {
    static keys_file seen; /* of the one server of the process; the main thread's */
    keys_file now = look(settings);
    bool changed = !same(&seen, &now);
    am_error err = {0};
    seen = now;
    if (!server || !changed) return;
    am_server_options options = am_server_options_of(settings);
    if (am_server_reload(server, &options, &err)) am_log(AM_LOG_ERROR, "keys_refused", AM_LS("reason", err.message), AM_LS("in_force", "the keys from before"));
    else am_log(AM_LOG_INFO, "keys_read", AM_LU("keys", am_server_n_keys(server)));
}

/* The name of every row whose value differs, with the bit or without it, one after the other. */
static void list_changes(const am_settings *old, const am_settings *now, bool reloads, am_buf *out) {
    am_buf a, b;
    am_buf_init(&a, 65536);
    am_buf_init(&b, 65536);
    for (size_t i = 0; i < am_n_settings; i++) {
        const am_setting *s = &am_setting_table[i];
        if (!(s->commands & AM_CMD_SERVE) || !!(s->commands & AM_RELOADS) != reloads) continue;
        am_buf_clear(&a);
        am_buf_clear(&b);
        bool differs;
        if (s->kind == AM_SET_SECRET) {
            const char *x = *(const char *const *)((const char *)old + s->offset), *y = *(const char *const *)((const char *)now + s->offset);
            differs = strcmp(x ? x : "", y ? y : "") != 0;
        } else {
            am_setting_print(s, old, &a);
            am_setting_print(s, now, &b);
            differs = !am_str_eq(am_buf_str(&a), am_buf_str(&b));
        }
        if (differs) am_buf_printf(out, "%s%s", out->n ? " " : "", s->name);
    }
    am_buf_free(&a);
    am_buf_free(&b);
}

static bool same_text(const char *a, const char *b) { return strcmp(a ? a : "", b ? b : "") == 0; }

static bool same_model(const am_model_entry *a, const am_model_entry *b) {
    bool same = same_text(a->name, b->name) && same_text(a->path, b->path) && same_text(a->template_path, b->template_path) && a->n_aliases == b->n_aliases;
    for (size_t i = 0; same && i < a->n_aliases; i++) same = strcmp(a->aliases[i], b->aliases[i]) == 0;
    return same && a->n_ctx == b->n_ctx && a->bits_k == b->bits_k && a->bits_v == b->bits_v && a->n_threads == b->n_threads &&
           a->kv_memory_bytes == b->kv_memory_bytes && a->temperature == b->temperature && a->top_p == b->top_p && a->min_p == b->min_p &&
           a->repetition_penalty == b->repetition_penalty && a->top_k == b->top_k && a->pin == b->pin && a->keep_alive_ms == b->keep_alive_ms;
}

/* The list of models is no row of the table. */
static void list_models(const am_settings *old, const am_settings *now, am_buf *out) {
    bool same = old->n_entries == now->n_entries;
    for (size_t i = 0; same && i < old->n_entries; i++) same = same_model(&old->entries[i], &now->entries[i]);
    if (!same) am_buf_printf(out, "%smodels", out->n ? " " : "");
}

void am_reload_settings(am_settings *settings, am_server *server) {
    am_settings now;
    am_error err = {0};
    am_buf changed, waiting;
    am_buf_init(&changed, 8192);
    am_buf_init(&waiting, 8192);
    am_status status = am_settings_load(&now, AM_CMD_SERVE, settings->n_argv, settings->argv, &err);
    if (!status) {
        am_server_options options = am_server_options_of(&now);
        status = am_server_reload(server, &options, &err);
    }
    if (status) {
        am_log(AM_LOG_ERROR, "reload_refused", AM_LS("reason", err.message), AM_LS("in_force", "the settings from before"));
        goto out;
    }
    list_changes(settings, &now, true, &changed);
    list_changes(settings, &now, false, &waiting);
    list_models(settings, &now, &waiting);
    if (am_settings_take(settings, &now)) am_log(AM_LOG_ERROR, "out_of_memory", AM_LS("while", "settings are taken over"));
    am_log_setup((am_log_level)settings->log_level, settings->log_format == 1);
    am_log(AM_LOG_INFO, "settings_reloaded", AM_LV("changed", am_buf_str(&changed)), AM_LV("wait_for_restart", am_buf_str(&waiting)),
           AM_LU("keys", am_server_n_keys(server)));
out:
    am_settings_free(&now);
    am_buf_free(&changed);
    am_buf_free(&waiting);
}
