/* Owns `list`: the models that could be served (the embedded one, those of `models:` or --model, those that were pulled), from their headers alone. */
#include "main/commands.h"

#include "base/json.h"
#include "main/served.h"
#include "agents/instance.h"
#include "model/model.h"
#include "pull/shelf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef struct row {
    char name[480], path[4096]; /* path empty: the embedded model */
    const char *from; /* "built in", "configured", "pulled" */
    uint64_t bytes, modified_s;
    am_model_facts facts;
    char error[300];
} row;

typedef struct table {
    row *rows;
    size_t n, cap;
} table;

static row *add_row(table *t, const char *name, const char *path, const char *from) {
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 16;
        row *rows = realloc(t->rows, cap * sizeof *rows);
        if (!rows) return NULL;
        t->rows = rows;
        t->cap = cap;
    }
    row *r = &t->rows[t->n++];
    *r = (row){.from = from};
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->path, sizeof r->path, "%s", path ? path : "");
    return r;
}

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static am_status add_pulled(void *arg, const am_shelf_model *m) {
    table *t = arg;
    for (size_t i = 0; i < t->n; i++) { /* configured by its own name: one row */
        if (!same_file(t->rows[i].path, m->path)) continue;
        t->rows[i].bytes = m->bytes;
        t->rows[i].modified_s = m->modified_s;
        if (strcmp(t->rows[i].name, m->name) == 0) return AM_OK;
    }
    row *r = add_row(t, m->name, m->path, "pulled");
    if (!r) return AM_ENOMEM;
    r->bytes = m->bytes;
    r->modified_s = m->modified_s;
    return AM_OK;
}

static void look_at(row *r) {
    am_error err = {0};
    am_model *model;
    struct stat st;
    if (am_model_load(*r->path ? r->path : NULL, &(am_model_options){.survey = true}, &model, &err)) {
        snprintf(r->error, sizeof r->error, "%.290s", err.message);
        return;
    }
    am_model_facts_of(am_model_info_of(model), &r->facts);
    if (!r->bytes) r->bytes = am_model_info_of(model)->file_bytes;
    if (!r->bytes) r->bytes = r->facts.weight_bytes;
    if (!r->modified_s && *r->path && stat(r->path, &st) == 0) r->modified_s = (uint64_t)st.st_mtime;
    am_model_free(model);
}

static int by_name(const void *a, const void *b) {
    const row *x = a, *y = b;
    int order = strcmp(x->from, "pulled") == 0, other = strcmp(y->from, "pulled") == 0;
    return order != other ? order - other : strcmp(x->name, y->name);
}

static am_status gather(am_settings *settings, table *t, am_error *err) {
    char name[256], dir[4096];
    am_model_entry one = AM_MODEL_ENTRY;
    size_t n = settings->n_entries ? settings->n_entries : 1;
    const am_model_entry *entries = settings->n_entries ? settings->entries : &one;
    for (size_t i = 0; i < n; i++) {
        am_model_entry_name(&entries[i], name);
        if (!add_row(t, name, entries[i].path, entries[i].path ? "configured" : "built in")) return am_fail(err, AM_ENOMEM, "no memory for a list of models");
    }
    am_status status = am_models_dir(settings, dir, err);
    if (!status) status = am_shelf_each(dir, add_pulled, t, err);
    for (size_t i = 0; i < t->n; i++) look_at(&t->rows[i]);
    qsort(t->rows, t->n, sizeof *t->rows, by_name);
    return status;
}

static void print_table(const table *t) {
    printf("%-44s %-10s %10s %10s  %-24s %s\n", "NAME", "FROM", "MiB", "PARAMETERS", "FORMAT", "MODIFIED");
    for (size_t i = 0; i < t->n; i++) {
        const row *r = &t->rows[i];
        char day[32] = "-", parameters[32] = "-";
        time_t when = (time_t)r->modified_s;
        struct tm tm;
        if (when && localtime_r(&when, &tm)) strftime(day, sizeof day, "%Y-%m-%d %H:%M", &tm);
        if (r->facts.n_params) snprintf(parameters, sizeof parameters, "%.1f M", (double)r->facts.n_params / 1e6);
        printf("%-44s %-10s %10.1f %10s  %-24s %s\n", r->name, r->from, (double)r->bytes / (1 << 20), parameters, r->error[0] ? "cannot be loaded" : r->facts.format, day);
        if (r->error[0]) printf("    %s\n", r->error);
    }
}

static void print_json(const table *t) {
    json_t *all = json_array();
    for (size_t i = 0; i < t->n; i++) {
        const row *r = &t->rows[i];
        json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:I}", "name", r->name, "from", r->from, "path", r->path, "bytes", (json_int_t)r->bytes, "parameters",
                              (json_int_t)r->facts.n_params, "format", r->facts.format, "architecture", r->facts.architecture, "modified", (json_int_t)r->modified_s);
        if (r->error[0]) json_object_set_new(o, "error", json_string(r->error));
        json_array_append_new(all, o);
    }
    json_dumpf(all, stdout, JSON_INDENT(1));
    puts("");
    json_decref(all);
}

int am_command_list(am_settings *settings) {
    table t = {0};
    am_error err = {0};
    am_status status = gather(settings, &t, &err);
    if (status) fprintf(stderr, "agent-memory: %s\n", err.message);
    else if (settings->json) print_json(&t);
    else print_table(&t);
    free(t.rows);
    return status ? AM_EXIT_FAILED : 0;
}
