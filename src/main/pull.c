/* Owns `pull`: a model from a hub or an address into the folder of models, with a bar on a terminal, lines elsewhere, or events as JSON. */
#include "main/commands.h"

#include "base/clock.h"
#include "main/progress.h"
#include "main/served.h"
#include "model/model.h"
#include "pull/pull.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EVENT_MS = 500, LINE_MS = 5000 };

static volatile sig_atomic_t stopped; /* the signal's number */

static void on_signal(int number) { stopped = number; }

typedef struct showing {
    const am_settings *settings;
    am_progress bar;
    uint64_t shown_ns, start_ns, start_bytes;
    bool begun;
} showing;

static void say_event(json_t *event) {
    json_dumpf(event, stdout, JSON_COMPACT);
    puts("");
    fflush(stdout);
    json_decref(event);
}

static void on_progress(void *arg, const am_pull_progress *p) {
    showing *s = arg;
    bool terminal = isatty(STDERR_FILENO), json = s->settings->json;
    if (!s->begun) {
        s->start_bytes = p->done;
        s->start_ns = s->shown_ns = am_now_ns();
        s->begun = true;
    }
    if (!json && terminal) {
        am_progress_update(&s->bar, s->settings->args[0], p->done, p->total);
        return;
    }
    if (am_ms_since(s->shown_ns) < (json ? EVENT_MS : LINE_MS)) return;
    s->shown_ns = am_now_ns();
    if (json) {
        say_event(json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "event", "progress", "file", p->file, "done", (json_int_t)p->done, "total", (json_int_t)p->total, "files",
                            (json_int_t)p->n_files, "whole", (json_int_t)p->n_whole));
        return;
    }
    double seconds = am_ms_since(s->start_ns) / 1000;
    fprintf(stderr, "%s: %.1f of %.1f MiB, %.1f MiB/s\n", p->file, (double)p->done / (1 << 20), (double)p->total / (1 << 20),
            seconds > 0 ? (double)(p->done - s->start_bytes) / (1 << 20) / seconds : 0);
}

/* Headers alone are read. A config is of weights that are still to come. */
static am_status can_be_loaded(void *arg, const char *path, am_error *err) {
    const showing *s = arg;
    am_model *model;
    am_error own = {0};
    am_status status = am_model_load(path, &(am_model_options){.survey = true}, &model, &own);
    if (!status) am_model_free(model);
    if (!status || (s->settings->force && status == AM_EUNSUPPORTED)) return AM_OK;
    if (status != AM_EUNSUPPORTED) return am_fail(err, status, "what was pulled is no model: %.400s", own.message);
    return am_fail(err, status, "this program cannot run it: %.380s (--force pulls it all the same)", own.message);
}

/* As the hub's own tools look for it. */
static const char *find_token(char out[1024]) {
    const char *names[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}, *path = getenv("HF_TOKEN_PATH"), *hf = getenv("HF_HOME"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char file[4096];
    for (size_t i = 0; i < 2; i++) {
        const char *value = getenv(names[i]);
        if (value && *value) return value;
    }
    if (path && *path) snprintf(file, sizeof file, "%s", path);
    else if (hf && *hf) snprintf(file, sizeof file, "%s/token", hf);
    else if (cache && *cache) snprintf(file, sizeof file, "%s/huggingface/token", cache);
    else snprintf(file, sizeof file, "%s/.cache/huggingface/token", home ? home : "");
    FILE *f = fopen(file, "re");
    bool has = f && fgets(out, 1024, f);
    if (f) fclose(f);
    if (!has) return NULL;
    out[strcspn(out, "\r\n \t")] = 0;
    return *out ? out : NULL;
}

static int exit_code(am_status status) {
    switch (status) {
    case AM_OK: return 0;
    case AM_ECANCELED: return 128 + (stopped ? (int)stopped : SIGINT);
    case AM_EINVAL: return AM_EXIT_USAGE;
    case AM_ECORRUPT:
    case AM_EFORMAT: return AM_EXIT_FOUND;
    default: return AM_EXIT_FAILED;
    }
}

static void say_done(const am_settings *settings, const am_pull_result *r) {
    if (settings->json) {
        say_event(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:b}", "event", "done", "name", r->name, "path", r->path, "revision", r->revision, "files", (json_int_t)r->n_files,
                            "bytes", (json_int_t)r->bytes, "fetched_bytes", (json_int_t)r->fetched_bytes, "was_there", (int)r->was_there));
        return;
    }
    if (r->was_there) printf("%s is there, and nothing has changed\n", r->name);
    else printf("%s: %zu file%s, %.1f MiB, of which %.1f came now\n", r->name, r->n_files, r->n_files == 1 ? "" : "s", (double)r->bytes / (1 << 20), (double)r->fetched_bytes / (1 << 20));
    printf("  %s\n  agent-memory serve --model %s\n", r->path, r->name);
}

static void say_failed(const am_settings *settings, am_status status, const am_error *err) {
    if (settings->json) say_event(json_pack("{s:s, s:s, s:s}", "event", "error", "status", am_status_text(status), "message", err->message));
    else if (status == AM_ECANCELED) fprintf(stderr, "agent-memory: interrupted; the same command goes on from here\n");
    else fprintf(stderr, "agent-memory: %s\n", err->message);
}

int am_command_pull(am_settings *settings) {
    char dir[4096], token[1024];
    const char *mirror = getenv("HF_ENDPOINT");
    showing s = {.settings = settings};
    am_error err = {0};
    am_pull_result done;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    am_pull_options options = {.models_dir = dir,
                               .hub = settings->hub ? settings->hub : mirror && *mirror ? mirror : "https://huggingface.co",
                               .token = find_token(token),
                               .sha256 = settings->sha256,
                               .n_connections = (unsigned)settings->connections,
                               .n_retries = (unsigned)settings->retries,
                               .silence_ms = (uint32_t)settings->silence_ms,
                               .cancel = &stopped,
                               .check = can_be_loaded,
                               .progress = on_progress,
                               .arg = &s};
    am_status status = am_models_dir(settings, dir, &err);
    if (!status) status = am_pull(&options, settings->args[0], &done, &err);
    am_progress_end(&s.bar);
    if (status) say_failed(settings, status, &err);
    else say_done(settings, &done);
    return exit_code(status);
}
