/* Owns plans: what a hub's API says of a repository (GET /api/models/ORG/NAME/revision/REV?blobs=true gives the commit and each file's size and hash), or what
 * a plain URL's server says of its file. Files are fetched by the commit, so a branch that moves meanwhile changes nothing. */
#include "pull/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_API_BYTES = 64 << 20, MAX_INDEX_BYTES = 64 << 20, MAX_FILES = 100000, MAX_ARENA_BYTES = 256 << 20 };

void am_plan_free(am_plan *plan) {
    am_arena_free(plan->arena);
    *plan = (am_plan){0};
}

const char *am_plan_identity(const am_plan_file *file) { return file->sha256 ? file->sha256 : file->identity ? file->identity : ""; }

/* slashes stay when they separate (path), and do not when they are part of a name (revision). */
static am_status add_escaped(am_buf *out, const char *s, bool slashes) {
    am_status status = AM_OK;
    for (; *s && !status; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~", c) || (slashes && c == '/');
        status = plain ? am_buf_putc(out, (char)c) : am_buf_printf(out, "%%%02X", c);
    }
    return status;
}

static am_status add_hub(am_buf *out, const am_plan_request *r, const char *between) {
    size_t n = strlen(r->hub);
    while (n && r->hub[n - 1] == '/') n--;
    return am_buf_printf(out, "%.*s%s/%s/%s", (int)n, r->hub, between, r->source->org, r->source->name);
}

static char *file_url(am_plan *plan, const am_plan_request *r, const char *path) {
    am_buf url;
    am_buf_init(&url, AM_URL_MAX - 1);
    am_status status = add_hub(&url, r, "");
    if (!status) status = am_buf_add(&url, AM_STR("/resolve/"));
    if (!status) status = add_escaped(&url, plan->revision, false);
    if (!status) status = am_buf_putc(&url, '/');
    if (!status) status = add_escaped(&url, path, true);
    char *copy = status ? NULL : am_arena_strdup(plan->arena, am_buf_str(&url));
    am_buf_free(&url);
    return copy;
}

static bool is_hex(am_str s, size_t n) {
    if (s.n != n) return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr("0123456789abcdef", s.p[i])) return false;
    return true;
}

/* Names of files outside of the model's folder, or with signs that no file should have, make the whole answer a lie. */
static bool path_ok(am_str path) {
    if (path.n == 0 || path.n > 1000 || path.p[0] == '/') return false;
    for (size_t i = 0, start = 0; i <= path.n; i++) {
        if (i < path.n && ((unsigned char)path.p[i] < ' ' || path.p[i] == 127 || path.p[i] == '\\')) return false;
        if (i < path.n && path.p[i] != '/') continue;
        am_str part = {path.p + start, i - start};
        if (part.n == 0 || am_str_eq(part, AM_STR(".")) || am_str_eq(part, AM_STR(".."))) return false;
        start = i + 1;
    }
    return true;
}

static am_status read_sibling(am_plan *plan, const json_t *s, am_repo_file *out, am_error *err) {
    am_str path, text;
    am_status status = am_json_str(s, "rfilename", &path, err);
    if (status) return status;
    if (!path_ok(path)) return am_fail(err, AM_EFORMAT, "the hub names a file '%.100s', which is refused", path.p);
    *out = (am_repo_file){.path = am_arena_strdup(plan->arena, path), .size = AM_SIZE_UNKNOWN};
    if (!out->path) return am_fail(err, AM_ENOMEM, "no memory for a list of files");
    status = am_json_u64(s, "size", (uint64_t)1 << 52, &out->size, err);
    if (status == AM_ENOTFOUND) status = AM_OK;
    if (!status && am_json_str(s, "blobId", &text, NULL) == AM_OK) out->blob = am_arena_strdup(plan->arena, text);
    const json_t *lfs = json_object_get(s, "lfs");
    if (!status && json_is_object(lfs)) {
        bool has = am_json_str(lfs, "sha256", &text, NULL) == AM_OK || am_json_str(lfs, "oid", &text, NULL) == AM_OK;
        if (has && !is_hex(text, 64)) return am_fail(err, AM_EFORMAT, "the hub says a sha256 of %s that is none", out->path);
        if (has) out->sha256 = am_arena_strdup(plan->arena, text);
        status = am_json_u64(lfs, "size", (uint64_t)1 << 52, &out->size, err);
        if (status == AM_ENOTFOUND) status = AM_OK;
    }
    return status;
}

static am_status read_repo(am_plan *plan, const json_t *repo, am_repo_file **out, size_t *n, am_error *err) {
    const json_t *siblings = json_object_get(repo, "siblings");
    am_str sha;
    *n = json_array_size(siblings);
    if (!json_is_array(siblings) || *n > MAX_FILES) return am_fail(err, AM_EFORMAT, "the hub's answer has no list of files");
    am_status status = am_json_str(repo, "sha", &sha, err);
    if (status) return status;
    if (!is_hex(sha, 40)) return am_fail(err, AM_EFORMAT, "the hub's answer has no commit");
    plan->revision = am_arena_strdup(plan->arena, sha);
    am_repo_file *files = *out = am_arena_alloc(plan->arena, (*n + 1) * sizeof *files);
    if (!plan->revision || !files) return am_fail(err, AM_ENOMEM, "no memory for a list of files");
    for (size_t i = 0; i < *n && !status; i++) status = read_sibling(plan, json_array_get(siblings, i), &files[i], err);
    return status;
}

static am_status get_json(const am_plan_request *r, const char *url, size_t max, json_t **out, am_error *err) {
    am_buf body;
    am_status status = am_call_get(r->site, url, r->retries, &body, max, err);
    if (!status) status = am_json_parse(am_buf_str(&body), false, out, err);
    if (!status && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        status = am_fail(err, AM_EFORMAT, "the hub's answer is no object");
    }
    am_buf_free(&body);
    return status;
}

/* The index decides which files are fetched, so it is read before. */
static am_status choose(am_plan *plan, const am_plan_request *r, am_repo_file *files, size_t n, am_error *err) {
    json_t *index = NULL;
    am_status status = AM_OK;
    plan->gguf = *r->source->choice || !am_choose_is_folder(files, n);
    if (plan->gguf) return am_choose_gguf(files, n, r->source, err);
    for (size_t i = 0; i < n && !status; i++) {
        if (strcmp(files[i].path, "model.safetensors.index.json") != 0) continue;
        char *url = file_url(plan, r, files[i].path);
        status = url ? get_json(r, url, MAX_INDEX_BYTES, &index, err) : am_fail(err, AM_ENOMEM, "no memory for an address");
    }
    if (!status) status = am_choose_folder(files, n, index, err);
    json_decref(index);
    return status;
}

/* Small ones first: what is wrong with them is known before the large ones come. */
static int by_size(const void *a, const void *b) {
    const am_plan_file *x = a, *y = b;
    return x->size != y->size ? (x->size > y->size) - (x->size < y->size) : strcmp(x->name, y->name);
}
static int by_name(const void *a, const void *b) { return strcmp(((const am_plan_file *)a)->name, ((const am_plan_file *)b)->name); }

static am_status fill(am_plan *plan, const am_plan_request *r, const am_repo_file *files, size_t n, am_error *err) {
    plan->files = am_arena_alloc(plan->arena, (n + 1) * sizeof *plan->files);
    if (!plan->files) return am_fail(err, AM_ENOMEM, "no memory for a list of files");
    for (size_t i = 0; i < n; i++) {
        if (!files[i].wanted) continue;
        const char *slash = strrchr(files[i].path, '/'), *base = slash ? slash + 1 : files[i].path;
        am_plan_file f = {.name = base, .url = file_url(plan, r, files[i].path), .size = files[i].size, .sha256 = files[i].sha256, .identity = files[i].blob};
        if (!f.url) return am_fail(err, AM_ENOMEM, "no memory for an address");
        if (!am_source_file_ok(am_str_of(base))) return am_fail(err, AM_EFORMAT, "the hub names a file '%.100s', which is refused", files[i].path);
        plan->files[plan->n_files++] = f;
    }
    qsort(plan->files, plan->n_files, sizeof *plan->files, plan->gguf ? by_name : by_size); /* the first part of several is the first file */
    return AM_OK;
}

static am_status plan_repo(const am_plan_request *r, am_plan *plan, am_error *err) {
    am_buf url;
    json_t *repo = NULL;
    am_repo_file *files = NULL;
    size_t n = 0;
    am_buf_init(&url, AM_URL_MAX - 1);
    am_status status = add_hub(&url, r, "/api/models");
    if (!status) status = am_buf_add(&url, AM_STR("/revision/"));
    if (!status) status = add_escaped(&url, r->source->revision, false);
    if (!status) status = am_buf_add(&url, AM_STR("?blobs=true"));
    if (status) status = am_fail(err, status, "the hub's address is too long");
    else status = get_json(r, url.p, MAX_API_BYTES, &repo, err);
    if (!status) status = read_repo(plan, repo, &files, &n, err);
    if (!status) status = choose(plan, r, files, n, err);
    if (!status) status = fill(plan, r, files, n, err);
    json_decref(repo);
    am_buf_free(&url);
    return status ? am_error_prefix(err, "%s/%s@%s", r->source->org, r->source->name, r->source->revision) : AM_OK;
}

/* One byte is asked for: the answer says how long the file is, and whether ranges are understood. */
static bool only_head(void *arg, const char *p, size_t n) {
    am_call *call = arg;
    (void)n;
    call->enough = p != NULL;
    return !call->enough;
}

static am_status probe(const am_plan_request *r, am_plan *plan, am_plan_file *f, am_error *err) {
    am_call call;
    unsigned long long total;
    am_status status = am_call_init(&call, r->site, err);
    if (status) return status;
    call.sink = only_head;
    call.arg = &call;
    status = am_call_set(&call, f->url, 0, 1) ? am_fail(err, AM_ELIMIT, "an address of more than %d bytes", AM_URL_MAX) : am_call_run(&call, r->retries, err);
    if (!status) {
        f->no_ranges = call.answer.status != 206;
        if (f->no_ranges) f->size = call.answer.length;
        else if (sscanf(call.answer.range, "bytes 0-0/%llu", &total) == 1) f->size = total;
        else f->no_ranges = true;
        if (call.answer.etag[0]) f->identity = am_arena_strdup(plan->arena, am_str_of(call.answer.etag));
        am_str linked = am_str_of(call.linked_etag); /* of a hub's file, this is its sha256 */
        if (linked.n == 66 && is_hex((am_str){linked.p + 1, 64}, 64)) f->sha256 = am_arena_strdup(plan->arena, (am_str){linked.p + 1, 64});
    }
    am_call_free(&call);
    return status;
}

static am_status plan_url(const am_plan_request *r, am_plan *plan, am_error *err) {
    plan->gguf = true;
    plan->revision = "";
    plan->n_files = 1;
    plan->files = am_arena_alloc(plan->arena, sizeof *plan->files);
    if (!plan->files) return am_fail(err, AM_ENOMEM, "no memory for a list of files");
    plan->files[0] = (am_plan_file){.name = r->source->file, .url = r->source->url, .size = AM_SIZE_UNKNOWN};
    return AM_OK;
}

am_status am_plan_make(const am_plan_request *r, am_plan *plan, am_error *err) {
    *plan = (am_plan){.arena = am_arena_create(MAX_ARENA_BYTES)};
    if (!plan->arena) return am_fail(err, AM_ENOMEM, "no memory for a list of files");
    am_status status = r->source->url ? plan_url(r, plan, err) : plan_repo(r, plan, err);
    for (size_t i = 0; i < plan->n_files && !status; i++)
        if (plan->files[i].size == AM_SIZE_UNKNOWN) status = probe(r, plan, &plan->files[i], err);
    if (!status && r->sha256) {
        am_plan_file *f = &plan->files[0];
        if (plan->n_files > 1) status = am_fail(err, AM_EINVAL, "--sha256 is for one file; here are %zu", plan->n_files);
        else if (f->sha256 && strcmp(f->sha256, r->sha256) != 0) status = am_fail(err, AM_ECORRUPT, "%s has the sha256 %s there, not the one that is wanted", f->name, f->sha256);
        f->sha256 = r->sha256;
    }
    if (status) am_plan_free(plan);
    return status;
}
