/* Owns `agents list|show|rm|fork`: over a running server when one answers, else on the data folder with a runtime of its own. Both give the same JSON
 * objects, so there is one way to print. */
#include "main/commands.h"

#include "base/clock.h"
#include "main/client.h"
#include "main/start.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAIT_MS = 60000 };

typedef struct keeper {
    const am_settings *settings;
    am_runtime *runtime; /* NULL: a server has the agents */
} keeper;

static am_status ask(const keeper *k, const char *method, const char *name, const char *suffix, const char *body, json_t **out, am_error *err) {
    am_buf path;
    am_buf_init(&path, 4096);
    am_status status = am_client_path(&path, name ? "/v1/agents/" : "/v1/agents", name ? name : "", suffix);
    am_client_call call = {.host = k->settings->host, .port = (uint16_t)k->settings->port, .method = method, .path = path.p, .body = body,
                          .key = k->settings->api_key};
    if (status) am_fail(err, status, "the name is too long");
    else status = am_client_json(&call, out, err);
    am_buf_free(&path);
    return status;
}

typedef struct look {
    const char *name; /* NULL: all */
    json_t *found;    /* array or object */
    am_status status;
} look;

static json_t *agent_object(const am_agent_info *a) {
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", a->agent, "tier", am_tier_name(a->tier), "tokens", (json_int_t)a->n_tokens,
                     "reusable_tokens", (json_int_t)a->n_rows, "turns", (json_int_t)a->n_turns, "created",
                     (json_int_t)(a->created_ns / 1000000000u), "last_used", (json_int_t)(a->used_ns / 1000000000u), "disk_bytes",
                     (json_int_t)a->disk_bytes);
}

static am_status look_one(void *arg, const am_agent_info *info) {
    return json_array_append_new(arg, agent_object(info)) ? AM_ENOMEM : AM_OK;
}

static void look_in(void *arg, am_cache *cache) {
    look *l = arg;
    const am_tenant everybody = {0};
    am_agent_info info;
    if (!l->name) {
        l->found = json_array();
        l->status = am_cache_agents(cache, &everybody, look_one, l->found);
    } else if (!(l->status = am_cache_agent(cache, &everybody, am_str_of(l->name), &info))) {
        l->found = agent_object(&info);
    }
}

/* name NULL: an array of all; else one object. The caller's. */
static am_status find(const keeper *k, const char *name, json_t **out, am_error *err) {
    if (k->runtime) {
        look l = {.name = name};
        am_status status = am_engine_call(am_runtime_engine(k->runtime), look_in, &l);
        if (!status) status = l.status;
        *out = l.found;
        return status ? am_fail(err, status, name ? "there is no agent '%s'" : "the agents cannot be listed", name) : AM_OK;
    }
    json_t *answer;
    am_status status = ask(k, "GET", name, "", NULL, &answer, err);
    if (status || name) return *out = answer, status;
    *out = json_incref(json_object_get(answer, "data"));
    json_decref(answer);
    return json_is_array(*out) ? AM_OK : am_fail(err, AM_EFORMAT, "the server's list of agents is not one");
}

static json_int_t number(const json_t *agent, const char *key) { return json_integer_value(json_object_get(agent, key)); }
static const char *word(const json_t *agent, const char *key) {
    const char *s = json_string_value(json_object_get(agent, key));
    return s ? s : "";
}

static void time_text(json_int_t seconds, char out[32]) {
    time_t t = (time_t)seconds;
    struct tm tm;
    out[0] = 0;
    if (seconds > 0 && localtime_r(&t, &tm)) strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm);
}

static int by_last_used(const void *a, const void *b) {
    json_int_t x = number(*(json_t *const *)a, "last_used"), y = number(*(json_t *const *)b, "last_used");
    return (y > x) - (y < x);
}

static am_status list(keeper *k, am_error *err) {
    json_t *agents = NULL;
    am_status status = find(k, NULL, &agents, err);
    size_t n = json_array_size(agents);
    json_t **sorted = status ? NULL : am_calloc(n + 1, sizeof *sorted);
    if (!status && !sorted) status = am_fail(err, AM_ENOMEM, "no memory for %zu agents", n);
    if (!status) {
        for (size_t i = 0; i < n; i++) sorted[i] = json_array_get(agents, i);
        qsort(sorted, n, sizeof *sorted, by_last_used);
        printf("%-32s %-5s %8s %6s %10s  %s\n", "AGENT", "TIER", "TOKENS", "TURNS", "DISK KiB", "LAST USED");
        for (size_t i = 0; i < n; i++) {
            char when[32];
            time_text(number(sorted[i], "last_used"), when);
            printf("%-32s %-5s %8lld %6lld %10lld  %s\n", word(sorted[i], "id"), word(sorted[i], "tier"), number(sorted[i], "tokens"),
                   number(sorted[i], "turns"), (number(sorted[i], "disk_bytes") + 1023) / 1024, when);
        }
    }
    free(sorted);
    json_decref(agents);
    return status;
}

static am_status show(keeper *k, am_error *err) {
    json_t *agent = NULL;
    am_status status = find(k, k->settings->args[1], &agent, err);
    if (!status) {
        char created[32], used[32];
        time_text(number(agent, "created"), created);
        time_text(number(agent, "last_used"), used);
        printf("agent      %s\ntier       %s\ntokens     %lld, %lld with state that can be reused\nturns      %lld\ndisk       %lld KiB\n"
               "created    %s\nlast used  %s\n",
               word(agent, "id"), word(agent, "tier"), number(agent, "tokens"), number(agent, "reusable_tokens"), number(agent, "turns"),
               (number(agent, "disk_bytes") + 1023) / 1024, created, used);
    }
    json_decref(agent);
    return status;
}

static am_status rm(keeper *k, am_error *err) {
    for (int i = 1; i < k->settings->n_args; i++) {
        const char *name = k->settings->args[i];
        json_t *answer = NULL;
        am_status status = AM_OK;
        if (!k->runtime) status = ask(k, "DELETE", name, "", NULL, &answer, err);
        else if (am_runtime_rm(k->runtime, name, err->message, sizeof err->message)) status = AM_EINVAL;
        json_decref(answer);
        if (status) return status;
        printf("removed %s\n", name);
    }
    return AM_OK;
}

static am_status fork_one(keeper *k, am_error *err) {
    const char *from = k->settings->args[1], *to = k->settings->args[2];
    am_status status = AM_OK;
    if (k->runtime) {
        if (am_runtime_fork(k->runtime, from, to, err->message, sizeof err->message)) status = AM_EINVAL;
    } else {
        json_t *answer = NULL, *body = json_pack("{s:s}", "to", to);
        char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
        status = text ? ask(k, "POST", from, "/fork", text, &answer, err) : am_fail(err, AM_EINVAL, "'%s' is not UTF-8", to);
        free(text);
        json_decref(body);
        json_decref(answer);
    }
    if (!status) printf("%s is a copy of %s\n", to, from);
    return status;
}

static const struct {
    const char *name;
    int min_args, max_args;
    am_status (*run)(keeper *k, am_error *err);
} verbs[] = {{"list", 0, 0, list}, {"show", 1, 1, show}, {"rm", 1, 1000000, rm}, {"fork", 2, 2, fork_one}};
enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

static int wrong_verb(const char *verb) {
    const char *names[N_VERBS + 1] = {"verify"};
    for (size_t i = 0; i < N_VERBS; i++) names[i + 1] = verbs[i].name;
    const char *close = am_suggest(verb, names, N_VERBS + 1);
    if (*verb) fprintf(stderr, "agent-memory: unknown command 'agents %s'", verb);
    if (close) fprintf(stderr, " (did you mean '%s'?)", close);
    fprintf(stderr, "%susage: agent-memory agents list | show NAME | rm NAME... | fork FROM TO | verify\n", *verb ? "\n" : "");
    return AM_EXIT_USAGE;
}

int am_command_agents(am_settings *settings) {
    const char *verb = settings->n_args ? settings->args[0] : "list";
    int n = settings->n_args ? settings->n_args - 1 : 0;
    size_t v = 0;
    while (v < N_VERBS && strcmp(verbs[v].name, verb) != 0) v++;
    if (strcmp(verb, "verify") == 0 && n == 0) return am_command_agents_verify(settings);
    if (v == N_VERBS) return wrong_verb(verb);
    if (n < verbs[v].min_args || n > verbs[v].max_args) return wrong_verb("");

    keeper k = {.settings = settings};
    am_error err = {0};
    bool served = !settings->local && settings->port && am_client_find(settings->host, (uint16_t)settings->port, WAIT_MS);
    am_status status = served ? AM_OK : am_start_runtime(settings, "agents", &k.runtime, &err);
    if (!status) status = verbs[v].run(&k, &err);
    if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    if (k.runtime) am_runtime_shutdown(k.runtime, 0, NULL, NULL, NULL);
    return status ? AM_EXIT_FAILED : 0;
}
