/* Owns `keys add|limit|list|show|rm`: changes of keys.json, one at a time under the data folder's lock. */
#include "main/commands.h"

#include "server/keyring.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct keys_call {
    const am_settings *settings;
    const char *data_dir;
    char **args; /* after the verb */
    int n_args;
    am_keyring ring;
    bool changed;
} keys_call;

static const char *tenant_text(const char *name) { return *name ? name : AM_TENANT_DEFAULT; }

static void time_text(uint64_t seconds, char out[32]) {
    time_t t = (time_t)seconds;
    struct tm tm;
    out[0] = 0;
    if (seconds && localtime_r(&t, &tm)) strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm);
}

/* Limits that were said; a limit of 0 takes one away. */
static void take_limits(keys_call *k, am_quota *quota) {
    const am_settings *s = k->settings;
    const struct {
        const char *name;
        uint64_t value, *to;
    } list[] = {{"max-agents", s->max_agents, &quota->agents}, {"max-disk", s->max_disk_bytes, &quota->disk_bytes},
                {"max-rate", s->max_rate, &quota->requests_per_minute}, {"max-parallel", s->max_parallel, &quota->parallel}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (am_settings_origin(s, list[i].name) == AM_ORIGIN_DEFAULT) continue;
        *list[i].to = list[i].value;
        k->changed = true;
    }
}

static am_status add(keys_call *k, am_error *err) {
    char name[64] = "", key[64];
    const char *note = k->settings->note;
    am_status status = k->n_args ? am_tenant_name_parse(k->args[0], name, err) : AM_OK;
    if (status) return status;
    if (k->settings->admin && k->n_args) return am_fail(err, AM_EINVAL, "an admin key is of no tenant");
    if (note && strlen(note) > AM_KEY_NOTE_MAX) return am_fail(err, AM_EINVAL, "a note has at most %d bytes", AM_KEY_NOTE_MAX);
    if (note && (status = am_agent_name_check(am_str_of(note), NULL))) return am_fail(err, AM_EINVAL, "a note is one line of UTF-8");
    am_keyring_tenant *tenant = k->settings->admin ? NULL : am_keyring_tenant_of(&k->ring, name, true);
    if (!tenant && !k->settings->admin) return am_fail(err, AM_ENOMEM, "no memory for a tenant");
    if (tenant) take_limits(k, &tenant->quota);
    status = am_keyring_add(&k->ring, name, k->settings->admin, note, key, err);
    if (!status) status = am_keyring_write(k->data_dir, &k->ring, err);
    if (status) return status;
    puts(key);
    fprintf(stderr, "key of %s %s; it is not shown again\n", tenant ? "tenant" : "the", tenant ? tenant_text(name) : "admin");
    k->changed = false; /* written already: a key that was not saved must not be shown */
    return AM_OK;
}

static am_status limit(keys_call *k, am_error *err) {
    char name[64];
    am_status status = am_tenant_name_parse(k->args[0], name, err);
    if (status) return status;
    am_keyring_tenant *tenant = am_keyring_tenant_of(&k->ring, name, false);
    if (!tenant) return am_fail(err, AM_ENOTFOUND, "there is no tenant '%s'", k->args[0]);
    take_limits(k, &tenant->quota);
    return k->changed ? AM_OK : am_fail(err, AM_EINVAL, "say which: --max-agents, --max-disk, --max-rate, --max-parallel (0: no limit)");
}

static am_status list(keys_call *k, am_error *err) {
    (void)err;
    printf("%-16s  %-20s %-19s  %s\n", "ID", "TENANT", "CREATED", "NOTE");
    for (size_t i = 0; i < k->ring.n_keys; i++) {
        const am_key *key = &k->ring.keys[i];
        char when[32];
        time_text(key->created_s, when);
        printf("%-16s  %-20s %-19s  %s\n", key->id, key->admin ? "(admin)" : tenant_text(key->tenant), when, key->note);
    }
    return AM_OK;
}

static void print_limit(const char *what, uint64_t value) {
    if (value) printf("%-22s %llu\n", what, (unsigned long long)value);
    else printf("%-22s no limit\n", what);
}

static void show_tenant(const keys_call *k, const am_keyring_tenant *t) {
    printf("%-22s %s\n", "tenant", tenant_text(t->tenant.name));
    print_limit("agents", t->quota.agents);
    print_limit("bytes on disk", t->quota.disk_bytes);
    print_limit("requests a minute", t->quota.requests_per_minute);
    print_limit("requests at once", t->quota.parallel);
    for (size_t i = 0; i < k->ring.n_keys; i++)
        if (!k->ring.keys[i].admin && strcmp(k->ring.keys[i].tenant, t->tenant.name) == 0) printf("%-22s %s\n", "key", k->ring.keys[i].id);
}

static am_status show(keys_call *k, am_error *err) {
    char name[64];
    for (size_t i = 0; i < k->ring.n_keys; i++) {
        const am_key *key = &k->ring.keys[i];
        if (strcmp(key->id, k->args[0]) != 0) continue;
        char when[32];
        time_text(key->created_s, when);
        printf("%-22s %s\n%-22s %s\n%-22s %s\n%-22s %s\n", "id", key->id, "created", when, "note", key->note, "of", key->admin ? "the admin" : tenant_text(key->tenant));
        return AM_OK;
    }
    const am_keyring_tenant *t = am_tenant_name_parse(k->args[0], name, err) ? NULL : am_keyring_tenant_of(&k->ring, name, false);
    if (!t) return am_fail(err, AM_ENOTFOUND, "there is no key and no tenant '%.80s'", k->args[0]);
    show_tenant(k, t);
    return AM_OK;
}

static am_status rm(keys_call *k, am_error *err) {
    for (int i = 0; i < k->n_args; i++) {
        size_t at = 0;
        while (at < k->ring.n_keys && strcmp(k->ring.keys[at].id, k->args[i]) != 0) at++;
        if (at == k->ring.n_keys) return am_fail(err, AM_ENOTFOUND, "there is no key '%.80s'; nothing was removed", k->args[i]);
        memmove(&k->ring.keys[at], &k->ring.keys[at + 1], (k->ring.n_keys - at - 1) * sizeof *k->ring.keys);
        k->ring.n_keys--;
    }
    k->changed = true;
    return AM_OK;
}

static const struct {
    const char *name;
    int min_args, max_args;
    am_status (*run)(keys_call *k, am_error *err);
} verbs[] = {{"add", 0, 1, add}, {"limit", 1, 1, limit}, {"list", 0, 0, list}, {"show", 1, 1, show}, {"rm", 1, 1000000, rm}};
enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

static int wrong_verb(const char *verb) {
    const char *names[N_VERBS];
    for (size_t i = 0; i < N_VERBS; i++) names[i] = verbs[i].name;
    const char *close = am_suggest(verb, names, N_VERBS);
    if (*verb) fprintf(stderr, "agent-memory: unknown command 'keys %s'", verb);
    if (close) fprintf(stderr, " (did you mean '%s'?)", close);
    fprintf(stderr, "%susage: agent-memory keys add [TENANT] | limit TENANT | list | show ID|TENANT | rm ID...\n", *verb ? "\n" : "");
    return AM_EXIT_USAGE;
}

int am_command_keys(am_settings *settings) {
    const char *verb = settings->n_args ? settings->args[0] : "list";
    keys_call k = {.settings = settings, .args = settings->args + 1, .n_args = settings->n_args ? settings->n_args - 1 : 0};
    size_t v = 0;
    while (v < N_VERBS && strcmp(verbs[v].name, verb) != 0) v++;
    if (v == N_VERBS) return wrong_verb(verb);
    if (k.n_args < verbs[v].min_args || k.n_args > verbs[v].max_args) return wrong_verb("");

    am_error err = {0};
    int lock = -1;
    k.data_dir = settings->data_dir ? settings->data_dir : am_settings_home();
    am_status status = *k.data_dir ? am_keyring_lock(k.data_dir, &lock, &err) : am_fail(&err, AM_EINVAL, "no home folder: say --data-dir");
    if (!status) status = am_keyring_read(k.data_dir, &k.ring, &err);
    if (!status) status = verbs[v].run(&k, &err);
    if (!status && k.changed) status = am_keyring_write(k.data_dir, &k.ring, &err);
    if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    am_keyring_free(&k.ring);
    if (lock >= 0) close(lock);
    return status ? AM_EXIT_FAILED : 0;
}
