/* Owns `agents verify`: the data folder read file by file, beside a running server or without one. Only --repair wants
 * the folder for itself. */
#include "main/commands.h"

#include "base/fs.h"
#include "base/json.h"
#include "cache/verify.h"
#include "main/progress.h"
#include "server/keyring.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct verifier {
    const am_settings *settings;
    char dir[4096];
    int lock_fd;
    am_progress progress;
    am_workers *workers;
    am_model *model;
    am_keyring ring; /* the tenants' salts */
    am_tenant *tenants;
    json_t *findings; /* NULL: they are printed */
} verifier;

static void show(void *arg, const am_finding *f) {
    verifier *v = arg;
    bool wrong = am_finding_is_wrong(f->kind);
    am_progress_end(&v->progress);
    if (v->findings)
        json_array_append_new(v->findings,
                              json_pack("{s:s, s:s, s:s, s:b, s:b}", "reason", am_finding_name(f->kind), "file",
                                        f->file, "text", f->text, "wrong", wrong, "repaired", f->repaired));
    else
        printf("%-8s %-14s %s%s%s\n",
               f->repaired ? "repaired"
               : wrong     ? "wrong"
                           : "note",
               am_finding_name(f->kind), f->file, *f->file ? ": " : "", f->text);
}

static am_status load_model(verifier *v, am_verify_options *o, am_error *err) {
    const am_settings *s = v->settings;
    am_kv_spec spec;
    am_status status = am_workers_create(s->threads ? s->threads : am_cpus_threads(), &v->workers, err);
    if (!status) status = am_kernels_pick(s->isa, &o->kernels, err);
    am_model_options options = {
        .kernels = o->kernels, .workers = v->workers, .progress = am_progress_update, .progress_arg = &v->progress};
    if (!status) status = am_model_load(s->model, &options, &v->model, err);
    am_progress_end(&v->progress);
    if (!status) status = am_model_kv_spec(v->model, (uint32_t)s->bits_k, (uint32_t)s->bits_v, &spec, err);
    if (!status) status = am_kv_layout_init(&o->layout, &spec, err);
    o->workers = v->workers;
    o->model = v->model;
    return status;
}

static void print_json(const verifier *v, const am_verify_result *r) {
    json_t *counts = json_object();
    for (int i = 0; i < AM_N_FINDINGS; i++)
        if (r->n[i])
            json_object_set_new(counts, am_finding_name((am_finding_kind)i), json_integer((json_int_t)r->n[i]));
    json_t *all =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:O}", "dir", v->dir, "agents", (json_int_t)r->n_heads, "blocks",
                  (json_int_t)r->n_blocks, "bytes", (json_int_t)r->n_bytes, "wrong", (json_int_t)r->n_wrong, "repaired",
                  (json_int_t)r->n_repaired, "reasons", counts, "findings", v->findings);
    if (all && v->model)
        json_object_set_new(all, "deep",
                            json_pack("{s:s, s:I, s:I, s:I}", "model", am_model_info_of(v->model)->name, "agents",
                                      (json_int_t)r->n_deep_heads, "blocks", (json_int_t)r->n_deep_blocks, "rows",
                                      (json_int_t)r->n_deep_rows));
    json_dumpf(all, stdout, JSON_INDENT(1));
    puts("");
    json_decref(all);
}

static void print_text(const verifier *v, const am_verify_result *r) {
    printf("%s: %llu agents and %llu blocks, %.1f MiB read; ", v->dir, (unsigned long long)r->n_heads,
           (unsigned long long)r->n_blocks, (double)r->n_bytes / (1 << 20));
    if (v->model)
        printf("%llu agents, %llu blocks and %llu open rows computed again with %s; ",
               (unsigned long long)r->n_deep_heads, (unsigned long long)r->n_deep_blocks,
               (unsigned long long)r->n_deep_rows, am_model_info_of(v->model)->name);
    printf("%llu wrong, %llu repaired\n", (unsigned long long)r->n_wrong, (unsigned long long)r->n_repaired);
}

static am_status open_dir(verifier *v, am_error *err) {
    const char *data = v->settings->data_dir ? v->settings->data_dir : am_settings_home();
    if (!*data) return am_fail(err, AM_EINVAL, "no data folder: $HOME is not set, name one with --data-dir");
    am_status status = am_fs_join(v->dir, sizeof v->dir, data, "caches", err);
    if (!status && access(v->dir, F_OK) != 0) return am_fail(err, AM_ENOTFOUND, "%s: is not there", v->dir);
    if (!status && v->settings->repair &&
        (status = am_cache_lock_dir(v->dir, "agents verify --repair", 0, &v->lock_fd, err)))
        return am_error_prefix(err, "--repair wants the folder for itself");
    return status;
}

/* The salts, so that tenants' names can be checked too. A file of keys that cannot be read leaves them unchecked, and
 * says so. */
static void load_tenants(verifier *v, am_verify_options *o) {
    am_error err = {0};
    const char *data = v->settings->data_dir ? v->settings->data_dir : am_settings_home();
    if (am_keyring_read(data, &v->ring, &err)) fprintf(stderr, "agent-memory: %s\n", err.message);
    v->tenants = am_calloc(v->ring.n_tenants + 1, sizeof *v->tenants);
    for (size_t i = 0; v->tenants && i < v->ring.n_tenants; i++) v->tenants[i] = v->ring.tenants[i].tenant;
    o->tenants = v->tenants;
    o->n_tenants = v->tenants ? v->ring.n_tenants : 0;
}

int am_command_agents_verify(am_settings *settings) {
    verifier v = {.settings = settings, .lock_fd = -1};
    am_error err = {0};
    am_verify_result result = {0};
    am_verify_options options = {.dir = v.dir, .repair = settings->repair, .on_finding = show, .arg = &v};
    if (settings->json && !(v.findings = json_array())) return AM_EXIT_FAILED;
    am_status status = open_dir(&v, &err);
    char who[512];
    if (!status && !settings->repair) options.served = am_cache_lock_held(v.dir, who);
    if (!status) load_tenants(&v, &options);
    if (!status && settings->deep) status = load_model(&v, &options, &err);
    if (!status) status = am_verify(&options, &result, &err);
    if (status)
        fprintf(stderr, "agent-memory: %s\n", err.message);
    else if (v.findings)
        print_json(&v, &result);
    else
        print_text(&v, &result);
    json_decref(v.findings);
    am_model_free(v.model);
    am_workers_free(v.workers);
    am_cache_lock_release(v.lock_fd);
    am_keyring_free(&v.ring);
    free(v.tenants);
    return status ? AM_EXIT_FAILED : result.n_wrong > result.n_repaired ? AM_EXIT_FOUND : 0;
}
