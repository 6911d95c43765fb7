/* Owns `config check|show|default`: the settings of serve as text, and what can be known to be wrong with them before a server starts. */
#include "main/commands.h"

#include "base/fs.h"
#include "base/json.h"
#include "agents/instance.h"
#include "main/setting.h"
#include "main/start.h"
#include "server/gate.h"
#include "server/keyring.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_of_the_file(const am_setting *s) { return (s->commands & AM_CMD_SERVE) && strcmp(s->name, "config") != 0 && strcmp(s->name, "data-dir") != 0; }

/* What YAML would read as something else stands in quotes. */
static void print_scalar(am_str text) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/,";
    bool quote = text.n == 0;
    for (size_t i = 0; i < text.n; i++) quote = quote || !strchr(plain, text.p[i]);
    if (!quote) {
        printf("%.*s", (int)text.n, text.p);
        return;
    }
    am_buf quoted;
    am_buf_init(&quoted, 1 << 20);
    am_json_quote(text, &quoted);
    fputs(quoted.p ? quoted.p : "\"\"", stdout);
    am_buf_free(&quoted);
}

static void print_value(const am_setting *s, const am_settings *settings) {
    if (s->kind == AM_SET_LIST || s->kind == AM_SET_PATHS) {
        const am_setting_list *list = (const am_setting_list *)(const void *)((const char *)settings + s->offset);
        putchar('[');
        for (size_t i = 0; i < list->n; i++) {
            if (i) fputs(", ", stdout);
            print_scalar(am_str_of(list->items[i]));
        }
        putchar(']');
        return;
    }
    am_buf text;
    am_buf_init(&text, 1 << 20);
    am_setting_print(s, settings, &text);
    print_scalar(am_buf_str(&text));
    am_buf_free(&text);
}

static int show(const am_settings *settings) {
    static const char *const origins[] = {"default", "config file", "environment", "command line"};
    for (size_t i = 0; i < am_n_settings; i++) {
        const am_setting *s = &am_setting_table[i];
        if (!(s->commands & AM_CMD_SERVE)) continue;
        bool secret = s->kind == AM_SET_SECRET && *(const char *const *)((const char *)settings + s->offset);
        printf("%s%s: ", secret || !is_of_the_file(s) ? "# " : "", s->name); /* a secret is not printed, so its line must not be read back */
        print_value(s, settings);
        printf("  # %s\n", origins[settings->origin[i]]);
    }
    return 0;
}

static int print_defaults(void) {
    am_settings settings;
    am_error err = {0};
    char *none[] = {NULL};
    /* version's settings: the table's defaults, whatever file and environment say */
    if (am_settings_load(&settings, 0, 0, none, &err)) return AM_EXIT_FAILED;
    puts("# Settings of agent-memory, each at its default. Take the # of a line away to change it; the environment (AGENT_MEMORY_NAME)\n"
         "# and the command line (--name) win over this file. Those with (reload) are read again on SIGHUP.");
    for (size_t i = 0; i < am_n_settings; i++) {
        const am_setting *s = &am_setting_table[i];
        if (!is_of_the_file(s)) continue;
        printf("\n# %s%s\n#%s: ", s->help, s->commands & AM_RELOADS ? " (reload)" : "", s->name);
        print_value(s, &settings);
        puts("");
    }
    am_settings_free(&settings);
    return 0;
}

static am_status check_values(const am_settings *settings, am_error *err) {
    const char *dir = settings->data_dir ? settings->data_dir : am_settings_home();
    am_keyring ring = {0};
    for (size_t i = 0; i < settings->cors_origins.n; i++)
        if (am_gate_origin_check(settings->cors_origins.items[i], err)) return am_error_prefix(err, "cors-origin");
    am_status status = *dir ? am_keyring_read(dir, &ring, err) : AM_OK;
    size_t n_keys = 0;
    for (size_t i = 0; i < ring.n_keys; i++) n_keys += !ring.keys[i].admin;
    am_keyring_free(&ring);
    if (status) return status;
    if (!am_gate_is_loopback(settings->host) && !n_keys && !settings->api_key && !settings->allow_no_auth)
        return am_fail(err, AM_EPERM, "host: %s is a public address and there are no keys: serve would refuse to start", settings->host);
    if (settings->admin_remote && !settings->admin_key)
        printf("note: admin-remote without admin-key: an admin key of keys.json is wanted\n");
    am_cpus cpus;
    if ((status = am_start_cpus(settings, &cpus, err))) return status;
    for (size_t i = 0; i < settings->n_entries; i++) {
        const char *path = settings->entries[i].path;
        if (path && access(path, R_OK)) return am_fail(err, AM_ENOTFOUND, "model: %s cannot be read", path);
    }
    return AM_OK;
}

/* A key in a file that others may read is known to them. */
static void say_open_secrets(const am_settings *settings) {
    char own[4096];
    const char *dir = settings->data_dir ? settings->data_dir : am_settings_home(), *path = settings->config;
    struct stat st;
    if (!path && am_fs_join(own, sizeof own, dir, "config.yaml", NULL) == AM_OK) path = own;
    if (!path || stat(path, &st) || !(st.st_mode & 077)) return;
    for (size_t i = 0; i < am_n_settings; i++)
        if (am_setting_table[i].kind == AM_SET_SECRET && settings->origin[i] == AM_ORIGIN_FILE)
            printf("note: %s has %s and may be read by others: chmod 600 %s\n", path, am_setting_table[i].name, path);
}

static int check(const am_settings *settings) {
    am_error err = {0};
    if (check_values(settings, &err)) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        return AM_EXIT_FAILED;
    }
    say_open_secrets(settings);
    unsigned n[4] = {0};
    for (size_t i = 0; i < am_n_settings; i++)
        if (am_setting_table[i].commands & AM_CMD_SERVE) n[settings->origin[i]]++;
    printf("nothing is wrong: %u from the config file, %u from the environment, %u from the command line, %u at their defaults\n", n[AM_ORIGIN_FILE],
           n[AM_ORIGIN_ENV], n[AM_ORIGIN_FLAG], n[AM_ORIGIN_DEFAULT]);
    return 0;
}

int am_command_config(am_settings *settings) {
    static const char *const verbs[] = {"check", "show", "default"};
    const char *verb = settings->n_args ? settings->args[0] : "show";
    if (strcmp(verb, "check") == 0) return check(settings);
    if (strcmp(verb, "show") == 0) return show(settings);
    if (strcmp(verb, "default") == 0) return print_defaults();
    const char *close = am_suggest(verb, verbs, 3);
    fprintf(stderr, "agent-memory: unknown command 'config %s'", verb);
    if (close) fprintf(stderr, " (did you mean '%s'?)", close);
    fputs("\nusage: agent-memory config check | show | default\n", stderr);
    return AM_EXIT_USAGE;
}
