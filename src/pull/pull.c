/* Owns a pull from its name to the finished model: plan, what is there already, room, transfer, and the one moment in which it appears. */
#include "pull/pull.h"

#include "base/fs.h"
#include "pull/record.h"
#include "pull/shelf.h"
#include "pull/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { SPARE_BYTES = 64 << 20 };

typedef struct pulling {
    const am_pull_options *o;
    am_source source;
    am_site site;
    am_plan plan;
    char stage[4096], place[4096];
    json_t *record; /* of place */
    int lock_fd;
    am_part *parts; /* [plan.n_files] */
    size_t n_open;
    char (*sums)[65];
} pulling;

static am_status make_plan(pulling *p, const char *what, am_error *err) {
    const am_pull_options *o = p->o;
    am_status status = am_source_parse(what, &p->source, err);
    if (!status) status = am_curl_open(&p->site.curl, err);
    if (!status) status = am_shelf_stage(o->models_dir, &p->source, p->stage, err);
    if (!status) status = am_shelf_place(o->models_dir, &p->source, p->place, err);
    if (status) return status;
    p->site.token = o->token;
    p->site.token_url = o->hub;
    p->site.silence_ms = o->silence_ms;
    p->site.cancel = o->cancel;
    status = am_plan_make(&(am_plan_request){.site = &p->site, .source = &p->source, .hub = o->hub, .sha256 = o->sha256, .retries = o->n_retries}, &p->plan, err);
    if (status) return status;
    p->record = am_record_read(p->place);
    p->parts = am_calloc(p->plan.n_files, sizeof *p->parts);
    p->sums = am_calloc(p->plan.n_files, sizeof *p->sums);
    return p->record && p->parts && p->sums ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for a list of files");
}

static bool is_there(const pulling *p) {
    for (size_t i = 0; i < p->plan.n_files; i++)
        if (!am_record_has(p->record, p->place, &p->plan.files[i])) return false;
    return true;
}

static am_status lock(pulling *p, am_error *err) {
    char path[4096];
    am_status status = am_fs_mkdirs(p->stage, err);
    if (!status) status = am_fs_join(path, sizeof path, p->stage, ".lock", err);
    if (status) return status;
    p->lock_fd = am_io->open(path, O_RDWR | O_CREAT, 0600);
    if (p->lock_fd < 0) return am_fail(err, AM_EIO, "%s: %s", path, strerror(-p->lock_fd));
    if (flock(p->lock_fd, LOCK_EX | LOCK_NB) == 0) return AM_OK;
    return am_fail(err, AM_EBUSY, "%s/%s is being pulled by another process", p->source.org, p->source.name);
}

static am_status open_parts(pulling *p, am_error *err) {
    char path[4096];
    am_status status = AM_OK;
    for (size_t i = 0; i < p->plan.n_files && !status; i++) {
        const am_plan_file *file = &p->plan.files[i];
        status = am_part_open(p->stage, file, p->o->n_connections, &p->parts[i], err);
        p->n_open = i + 1;
        if (status || p->parts[i].whole || !am_record_has(p->record, p->place, file)) continue;
        status = am_fs_join(path, sizeof path, p->place, file->name, err);
        if (!status) status = am_part_adopt(&p->parts[i], path, err);
    }
    return status;
}

static am_status check_room(const pulling *p, am_error *err) {
    struct statvfs fs;
    uint64_t need = 0;
    for (size_t i = 0; i < p->plan.n_files; i++) {
        const am_part *part = &p->parts[i];
        if (part->size != AM_SIZE_UNKNOWN && !am_size_add(need, part->size - am_part_done(part), &need)) need = UINT64_MAX - SPARE_BYTES;
    }
    if (need == 0 || statvfs(p->stage, &fs)) return AM_OK;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (need + SPARE_BYTES <= free_bytes) return AM_OK;
    return am_fail(err, AM_ELIMIT, "%s: %llu MiB are to be fetched, %llu MiB are free there", p->o->models_dir, (unsigned long long)(need >> 20), (unsigned long long)(free_bytes >> 20));
}

static am_status transfer(pulling *p, size_t first, size_t n, am_error *err) {
    am_transfer_options options = {.site = &p->site, .n_connections = p->o->n_connections, .n_retries = p->o->n_retries, .progress = p->o->progress, .arg = p->o->arg};
    return am_transfer_run(&options, p->parts + first, n, p->sums + first, err);
}

/* A model that cannot be loaded is better refused before its weights come than after. */
static am_status transfer_all(pulling *p, am_error *err) {
    char path[4096];
    for (size_t i = 0; i < p->plan.n_files && p->o->check; i++) {
        if (strcmp(p->plan.files[i].name, "config.json") != 0) continue;
        am_status status = transfer(p, i, 1, err);
        if (!status) status = am_fs_join(path, sizeof path, p->stage, "config.json", err);
        if (!status) status = p->o->check(p->o->arg, path, err);
        if (status) return status;
    }
    return transfer(p, 0, p->plan.n_files, err);
}

static const char *sum_of(const pulling *p, size_t i) {
    const char *known = p->plan.files[i].sha256 ? p->plan.files[i].sha256 : am_record_sum(p->record, p->plan.files[i].name);
    return p->sums[i][0] ? p->sums[i] : known ? known : "";
}

static am_status note(pulling *p, const char *dir, am_error *err) {
    char source[300];
    snprintf(source, sizeof source, "hf:%s/%s", p->source.org, p->source.name);
    am_status status = AM_OK;
    for (size_t i = 0; i < p->plan.n_files && !status; i++) status = am_record_add(p->record, &p->plan.files[i], p->parts[i].size, sum_of(p, i), err);
    json_object_set_new(p->record, "source", json_string(p->source.url ? p->source.url : source));
    json_object_set_new(p->record, "revision", json_string(p->plan.revision));
    return status ? status : am_record_write(dir, p->record, err);
}

static am_status move_into(const pulling *p, const char *name, am_error *err) {
    char from[4096], to[4096];
    am_status status = am_fs_join(from, sizeof from, p->stage, name, err);
    if (!status) status = am_fs_join(to, sizeof to, p->place, name, err);
    int failed = status ? 0 : am_io->rename(from, to);
    return failed < 0 ? am_fail(err, AM_EIO, "%s: %s", to, strerror(-failed)) : status;
}

static am_status keep_gguf(void *arg, const char *name) {
    const pulling *p = arg;
    char from[4096], to[4096];
    size_t n = strlen(name);
    if (n < 5 || strcmp(name + n - 5, ".gguf") != 0 || am_fs_join(from, sizeof from, p->place, name, NULL) || am_fs_join(to, sizeof to, p->stage, name, NULL)) return AM_OK;
    return link(from, to) && errno != EEXIST ? AM_EIO : AM_OK;
}

static am_status drop_journal(void *arg, const char *name) {
    char path[4096];
    size_t n = strlen(name);
    bool ours = (n > 10 && strcmp(name + n - 10, ".part.json") == 0) || strcmp(name, ".lock") == 0;
    if (ours && am_fs_join(path, sizeof path, arg, name, NULL) == AM_OK) am_io->unlink(path);
    return AM_OK;
}

/* The new folder takes the old one's place in one step; GGUF files that lay beside the old one lie beside the new one. */
static am_status place_folder(pulling *p, am_error *err) {
    uint64_t bytes = 0;
    int failed = 0;
    am_status status = note(p, p->stage, err);
    bool there = access(p->place, F_OK) == 0;
    if (!status && there && am_fs_list(p->place, keep_gguf, p, NULL)) status = am_fail(err, AM_EIO, "%s: its GGUF files cannot be kept", p->place);
    if (status) return status;
    if (there) failed = renameat2(AT_FDCWD, p->stage, AT_FDCWD, p->place, RENAME_EXCHANGE) ? -errno : 0;
    else failed = am_io->rename(p->stage, p->place);
    if (failed < 0) return am_fail(err, AM_EIO, "%s: %s", p->place, strerror(-failed));
    am_fs_list(p->place, drop_journal, p->place, NULL);
    return there ? am_remove_tree(p->stage, &bytes, err) : AM_OK;
}

/* The first of several parts comes last: without it there is no model. */
static am_status place_files(pulling *p, am_error *err) {
    uint64_t bytes = 0;
    am_status status = am_fs_mkdirs(p->place, err);
    for (size_t i = p->plan.n_files; i-- > 0 && !status;) status = move_into(p, p->plan.files[i].name, err);
    if (!status) status = note(p, p->place, err);
    return status ? status : am_remove_tree(p->stage, &bytes, err);
}

static am_status place(pulling *p, am_error *err) {
    char *slash = strrchr(p->place, '/');
    *slash = 0;
    am_status status = am_fs_mkdirs(p->place, err);
    *slash = '/';
    if (!status) status = p->plan.gguf ? place_files(p, err) : place_folder(p, err);
    *slash = 0;
    if (!status) status = am_fs_sync_dir(p->place, err);
    *slash = '/';
    return status;
}

/* Sums say that the bytes came as they were sent, not that they are a model; and a file without a length may have been cut. */
static am_status check_whole(const pulling *p, am_error *err) {
    char path[4096];
    uint64_t bytes = 0;
    am_status status = am_fs_join(path, sizeof path, p->stage, p->plan.files[0].name, err);
    if (status || !p->o->check) return status;
    status = p->o->check(p->o->arg, p->plan.gguf ? path : p->stage, err);
    if (status && status != AM_EUNSUPPORTED) am_remove_tree(p->stage, &bytes, NULL);
    return status;
}

static am_status run(pulling *p, am_error *err) {
    am_status status = lock(p, err);
    if (!status) status = open_parts(p, err);
    if (!status) status = check_room(p, err);
    if (!status) status = transfer_all(p, err);
    if (!status) status = check_whole(p, err);
    return status ? status : place(p, err);
}

static am_status fill(const pulling *p, am_pull_result *out, am_error *err) {
    char name[512];
    am_shelf_model model;
    snprintf(name, sizeof name, "%s/%s%s%s", p->source.org, p->source.name, p->plan.gguf ? ":" : "", p->plan.gguf ? p->plan.files[0].name : "");
    am_status status = am_shelf_find(p->o->models_dir, name, &model, err);
    if (status) return status;
    snprintf(out->name, sizeof out->name, "%s", model.name);
    snprintf(out->path, sizeof out->path, "%s", model.path);
    snprintf(out->revision, sizeof out->revision, "%s", p->plan.revision);
    out->n_files = p->plan.n_files;
    for (size_t i = 0; i < p->plan.n_files; i++) {
        out->bytes += out->was_there ? p->plan.files[i].size : p->parts[i].size;
        out->fetched_bytes += p->parts[i].n_fetched;
    }
    return AM_OK;
}

am_status am_pull(const am_pull_options *options, const char *what, am_pull_result *out, am_error *err) {
    pulling *p = am_calloc(1, sizeof *p);
    *out = (am_pull_result){.n_files = 0};
    if (!p) return am_fail(err, AM_ENOMEM, "no memory for a pull");
    p->o = options;
    p->lock_fd = -1;
    am_status status = make_plan(p, what, err);
    if (!status) out->was_there = is_there(p);
    if (!status && !out->was_there) status = run(p, err);
    if (!status) status = fill(p, out, err);
    for (size_t i = 0; i < p->n_open; i++) am_part_close(&p->parts[i]);
    if (p->lock_fd >= 0) am_io->close(p->lock_fd);
    json_decref(p->record);
    am_plan_free(&p->plan);
    free(p->parts);
    free(p->sums);
    free(p);
    return status;
}
