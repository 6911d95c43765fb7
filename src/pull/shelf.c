/* Owns the layout of the folder of models. There is no index: the folders are the list, so what an operator copies or removes is seen at once. */
#include "pull/shelf.h"

#include "base/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { MAX_CHOICES = 64 };

typedef struct gguf_file {
    char name[200];
    unsigned parts;
    uint64_t bytes, modified_s;
} gguf_file;

typedef struct folder {
    const char *path;
    bool has_config, has_weights;
    uint64_t bytes, modified_s; /* of all but GGUF files */
    gguf_file files[MAX_CHOICES]; /* the first of each */
    size_t n_files;
} folder;

static bool ends_in(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcasecmp(s + n - m, end) == 0;
}

static void add_gguf(folder *f, const char *name, const struct stat *st) {
    char first[200];
    unsigned parts = am_source_parts(name, first);
    gguf_file *g = NULL;
    for (size_t i = 0; i < f->n_files; i++)
        if (strcmp(f->files[i].name, first) == 0) g = &f->files[i];
    if (!g && f->n_files == MAX_CHOICES) return;
    if (!g) {
        g = &f->files[f->n_files++];
        *g = (gguf_file){.parts = 0};
        snprintf(g->name, sizeof g->name, "%s", first);
    }
    g->bytes += (uint64_t)st->st_size;
    if ((uint64_t)st->st_mtime > g->modified_s) g->modified_s = (uint64_t)st->st_mtime;
    (void)parts;
    g->parts++;
}

static am_status look(void *arg, const char *name) {
    folder *f = arg;
    char path[4096];
    struct stat st;
    if (name[0] == '.' || am_fs_join(path, sizeof path, f->path, name, NULL) || stat(path, &st) || !S_ISREG(st.st_mode)) return AM_OK;
    if (ends_in(name, ".gguf")) {
        if (strncasecmp(name, "mmproj", 6) != 0 && strlen(name) < 200) add_gguf(f, name, &st);
        return AM_OK;
    }
    f->has_config = f->has_config || strcmp(name, "config.json") == 0;
    f->has_weights = f->has_weights || ends_in(name, ".safetensors");
    f->bytes += (uint64_t)st.st_size;
    if ((uint64_t)st.st_mtime > f->modified_s) f->modified_s = (uint64_t)st.st_mtime;
    return AM_OK;
}

static am_status read_folder(const char *path, folder *out, am_error *err) {
    *out = (folder){.path = path};
    am_status status = am_fs_list(path, look, out, err);
    for (size_t i = 0; i < out->n_files;) { /* a model with a part missing is none */
        char first[200];
        if (out->files[i].parts == am_source_parts(out->files[i].name, first)) i++;
        else out->files[i] = out->files[--out->n_files];
    }
    return status;
}

/* What a file is called among those beside it: the shortest that no other answers to. */
static void choice_of(const folder *f, size_t at, char out[200]) {
    char stem[200];
    snprintf(out, 200, "%s", f->files[at].name);
    snprintf(stem, sizeof stem, "%.*s", (int)(strlen(out) - 5), out);
    char *cut = strstr(stem, "-00001-of-");
    if (cut) *cut = 0;
    for (char *p = stem + strlen(stem); p > stem; p--) {
        if (p[-1] != '-' && p[-1] != '.') continue;
        unsigned n = 0;
        for (size_t i = 0; i < f->n_files; i++) n += am_source_chooses(p, f->files[i].name);
        if (n != 1 || strpbrk(p, "-.") || !(p[0] == 'Q' || p[0] == 'q' || p[0] == 'I' || p[0] == 'F' || p[0] == 'f' || p[0] == 'B' || p[0] == 'b' || p[0] == 'M')) continue;
        snprintf(out, 200, "%s", p);
        return;
    }
}

static void fill_folder(const folder *f, const char *name, am_shelf_model *out) {
    *out = (am_shelf_model){.bytes = f->bytes, .modified_s = f->modified_s};
    snprintf(out->name, sizeof out->name, "%s", name);
    snprintf(out->path, sizeof out->path, "%s", f->path);
}

static void fill_file(const folder *f, size_t at, const char *name, am_shelf_model *out) {
    char choice[200];
    choice_of(f, at, choice);
    *out = (am_shelf_model){.bytes = f->files[at].bytes, .modified_s = f->files[at].modified_s, .gguf = true};
    bool alone = f->n_files == 1 && !(f->has_config && f->has_weights);
    snprintf(out->name, sizeof out->name, "%s%s%s", name, alone ? "" : ":", alone ? "" : choice);
    am_fs_join(out->path, sizeof out->path, f->path, f->files[at].name, NULL);
}

am_status am_shelf_place(const char *models_dir, const am_source *source, char out[4096], am_error *err) {
    char name[300];
    snprintf(name, sizeof name, "%s/%s", source->org, source->name);
    return am_fs_join(out, 4096, models_dir, name, err);
}

am_status am_shelf_stage(const char *models_dir, const am_source *source, char out[4096], am_error *err) {
    char name[480];
    snprintf(name, sizeof name, ".part/%s--%s%s%s", source->org, source->name, *source->choice ? "--" : "", source->choice);
    return am_fs_join(out, 4096, models_dir, name, err);
}

static am_status several(const folder *f, const char *text, am_error *err) {
    char list[400] = "";
    size_t n = 0;
    for (size_t i = 0; i < f->n_files && n < sizeof list - 1; i++) {
        char choice[200];
        choice_of(f, i, choice);
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", choice);
    }
    return am_fail(err, AM_EINVAL, "%s is %zu models, name one (%s:CHOICE): %s", text, f->n_files, text, list);
}

am_status am_shelf_find(const char *models_dir, const char *text, am_shelf_model *out, am_error *err) {
    am_source source;
    folder f;
    char path[4096], name[300];
    if (strncmp(text, "hf:", 3) == 0) text += 3;
    if (am_source_parse(text, &source, NULL) || source.url) return am_fail(err, AM_ENOTFOUND, "'%.200s' is no model that was pulled", text);
    am_status status = am_shelf_place(models_dir, &source, path, err);
    if (status) return status;
    if (access(path, F_OK) || read_folder(path, &f, NULL)) return am_fail(err, AM_ENOTFOUND, "%s/%s was not pulled: agent-memory pull %s", source.org, source.name, text);
    snprintf(name, sizeof name, "%s/%s", source.org, source.name);
    if (!*source.choice && f.has_config && f.has_weights) {
        fill_folder(&f, name, out);
        return AM_OK;
    }
    size_t at = f.n_files, n_fit = 0;
    for (size_t i = 0; i < f.n_files; i++) {
        if (*source.choice && !am_source_chooses(source.choice, f.files[i].name)) continue;
        if (at == f.n_files || strlen(f.files[i].name) < strlen(f.files[at].name)) at = i;
        n_fit++;
    }
    if (!n_fit) return am_fail(err, AM_ENOTFOUND, "%s was not pulled: agent-memory pull %s", text, text);
    if (n_fit > 1 && !*source.choice) return several(&f, name, err);
    fill_file(&f, at, name, out);
    return AM_OK;
}

typedef struct walk {
    const char *models_dir;
    char org[128];
    am_status (*fn)(void *arg, const am_shelf_model *model);
    void *arg;
    folder f; /* large, and one is enough */
} walk;

static am_status walk_model(void *arg, const char *name) {
    walk *w = arg;
    char path[4096], full[400], text[400];
    am_source source;
    am_shelf_model model;
    am_status status = AM_OK;
    snprintf(text, sizeof text, "%s/%s", w->org, name);
    if (am_source_parse(text, &source, NULL) || source.url || *source.choice || strlen(name) > 96) return AM_OK;
    snprintf(full, sizeof full, "%s/%s", w->org, name);
    if (am_fs_join(path, sizeof path, w->models_dir, full, NULL) || read_folder(path, &w->f, NULL)) return AM_OK;
    if (w->f.has_config && w->f.has_weights) {
        fill_folder(&w->f, full, &model);
        status = w->fn(w->arg, &model);
    }
    for (size_t i = 0; i < w->f.n_files && !status; i++) {
        fill_file(&w->f, i, full, &model);
        status = w->fn(w->arg, &model);
    }
    return status;
}

static am_status walk_org(void *arg, const char *name) {
    walk *w = arg;
    char path[4096];
    struct stat st;
    if (name[0] == '.' || strlen(name) > 96 || am_fs_join(path, sizeof path, w->models_dir, name, NULL) || stat(path, &st) || !S_ISDIR(st.st_mode)) return AM_OK;
    snprintf(w->org, sizeof w->org, "%s", name);
    return am_fs_list(path, walk_model, w, NULL);
}

am_status am_shelf_each(const char *models_dir, am_status (*fn)(void *arg, const am_shelf_model *model), void *arg, am_error *err) {
    if (access(models_dir, F_OK)) return AM_OK;
    walk *w = am_calloc(1, sizeof *w);
    if (!w) return am_fail(err, AM_ENOMEM, "no memory for a list of models");
    *w = (walk){.models_dir = models_dir, .fn = fn, .arg = arg};
    am_status status = am_fs_list(models_dir, walk_org, w, err);
    free(w);
    return status;
}

typedef struct removal {
    const char *dir;
    uint64_t *bytes;
    bool spare_gguf;
} removal;

static am_status remove_one(void *arg, const char *name) {
    const removal *r = arg;
    char path[4096];
    struct stat st;
    if (am_fs_join(path, sizeof path, r->dir, name, NULL) || am_io->lstat(path, &st) || (r->spare_gguf && ends_in(name, ".gguf"))) return AM_OK;
    if (S_ISDIR(st.st_mode)) return am_remove_tree(path, r->bytes, NULL);
    if (am_io->unlink(path) == 0 && st.st_nlink == 1) *r->bytes += (uint64_t)st.st_size;
    return AM_OK;
}

am_status am_remove_tree(const char *path, uint64_t *bytes, am_error *err) {
    removal r = {path, bytes, false};
    struct stat st;
    if (am_io->lstat(path, &st)) return AM_OK;
    am_status status = am_fs_list(path, remove_one, &r, err);
    if (!status && rmdir(path)) status = am_fail(err, AM_EIO, "%s cannot be removed", path);
    return status;
}

/* The parts of a split file carry one name but for the number. */
static void remove_parts(const char *dir, const char *name, uint64_t *bytes) {
    char first[200], part[200], path[4096];
    unsigned n = am_source_parts(name, first);
    removal r = {dir, bytes, false};
    if (n == 1) remove_one(&r, name);
    for (unsigned i = 1; n > 1 && i <= n; i++) {
        size_t at = strlen(first) - strlen("-00001-of-00001.gguf");
        snprintf(part, sizeof part, "%.*s-%05u%s", (int)at, first, i, first + at + 6);
        if (am_fs_join(path, sizeof path, dir, part, NULL) == AM_OK) remove_one(&r, part);
    }
}

am_status am_shelf_remove(const char *models_dir, const char *text, uint64_t *bytes, am_error *err) {
    am_source source;
    am_shelf_model model;
    char stage[4096], place[4096];
    struct stat st;
    *bytes = 0;
    am_status status = am_source_parse(strncmp(text, "hf:", 3) == 0 ? text + 3 : text, &source, err);
    if (!status) status = am_shelf_stage(models_dir, &source, stage, err);
    if (!status) status = am_shelf_place(models_dir, &source, place, err);
    if (status) return status;
    bool staged = am_io->lstat(stage, &st) == 0;
    am_status found = am_shelf_find(models_dir, text, &model, err);
    if (found && !(found == AM_ENOTFOUND && staged)) return found;
    if (staged) status = am_remove_tree(stage, bytes, err);
    if (!status && !found) {
        folder f;
        read_folder(place, &f, NULL);
        bool all = f.n_files == (model.gguf ? 1u : 0u) && !(model.gguf && f.has_config && f.has_weights);
        if (all) status = am_remove_tree(place, bytes, err);
        else if (model.gguf) remove_parts(place, strrchr(model.path, '/') + 1, bytes);
        else status = am_fs_list(place, remove_one, &(removal){place, bytes, true}, err);
        char *slash = strrchr(place, '/');
        *slash = 0;
        rmdir(place); /* the last of an organisation takes its folder along */
    }
    return status;
}
