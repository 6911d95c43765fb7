/* Owns `rm`: takes a pulled model's files away. It asks first, and a running server that has the model in memory keeps it unless --force unloads it
 * there. What its agents have said stays on disk, for when the model is back, unless --agents forgets it. */
#include "main/commands.h"

#include "main/client.h"
#include "main/served.h"
#include "pull/shelf.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static am_status ask_server(const am_settings *settings, const char *method, const char *path, json_t *body, json_t **out, am_error *err) {
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    am_client_call call = {.host = settings->host, .port = (uint16_t)settings->port, .method = method, .path = path, .body = text, .key = settings->admin_key};
    am_status status = am_client_json(&call, out, err);
    json_decref(body);
    free(text);
    return status;
}

/* The model of the running server that has these files; NULL: none, or no server. *loaded: it is in memory, or about to be. */
static json_t *served_one(const json_t *status, const char *path, bool *loaded) {
    size_t i;
    json_t *m;
    json_array_foreach(json_object_get(status, "models"), i, m) {
        const char *own = json_string_value(json_object_get(m, "path")), *state = json_string_value(json_object_get(m, "state"));
        if (!own || !state || strcmp(own, path) != 0) continue;
        *loaded = strcmp(state, "absent") != 0 && strcmp(state, "failed") != 0;
        return m;
    }
    return NULL;
}

static am_status leave_server(const am_settings *settings, const char *path, am_error *err) {
    json_t *status = NULL, *answer = NULL;
    bool loaded = false;
    am_status found = ask_server(settings, "GET", "/v1/admin/status", NULL, &status, err);
    if (found == AM_ENOTFOUND) return AM_OK; /* nobody listens there */
    if (found) return found;
    const json_t *model = served_one(status, path, &loaded);
    const char *id = json_string_value(json_object_get(model, "id"));
    if (loaded && !settings->force)
        found = am_fail(err, AM_EBUSY, "the server on port %llu has it in memory: agent-memory unload %s, or --force", (unsigned long long)settings->port, id);
    else if (loaded) found = ask_server(settings, "POST", "/v1/admin/models/unload", json_pack("{s:s}", "model", id), &answer, err);
    json_decref(status);
    json_decref(answer);
    return found;
}

static bool agreed(const am_settings *settings, const char *name, double mib) {
    char line[16];
    if (settings->yes) return true;
    if (!isatty(STDIN_FILENO)) {
        fprintf(stderr, "agent-memory: rm removes %s for good: say --yes\n", name);
        return false;
    }
    printf("Remove %s (%.1f MiB)%s? [y/N] ", name, mib, settings->agents_too ? " and its agents" : "");
    fflush(stdout);
    return fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y');
}

int am_command_rm(am_settings *settings) {
    char dir[4096];
    const char *name = settings->args[0];
    am_shelf_model model = {.bytes = 0};
    uint64_t bytes;
    am_error err = {0};
    am_status status = am_models_dir(settings, dir, &err), found = status ? status : am_shelf_find(dir, name, &model, &err);
    if (!status && found == AM_EINVAL) status = found;
    if (!status && !agreed(settings, found ? name : model.name, (double)model.bytes / (1 << 20))) return AM_EXIT_USAGE;
    if (!status && !found) status = leave_server(settings, model.path, &err);
    if (!status) status = am_shelf_remove(dir, found ? name : model.name, &bytes, &err);
    if (status) {
        fprintf(stderr, "agent-memory: %s\n", err.message);
        return AM_EXIT_FAILED;
    }
    if (settings->json) printf("{\"name\": \"%s\", \"bytes\": %llu}\n", found ? name : model.name, (unsigned long long)bytes);
    else printf("%s: removed, %.1f MiB\n", found ? name : model.name, (double)bytes / (1 << 20));
    return 0;
}
