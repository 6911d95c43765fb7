/* Owns the choice among the files of a repository. Repositories hold the same weights several times: as safetensors, as pickles (which are programs and
 * are never fetched), for other frameworks, in other sizes. Only what a model is loaded from is taken, and nothing out of sub-folders but GGUF. */
#include "pull/plan.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool ends_in(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcasecmp(s + n - m, end) == 0;
}

static bool is_model_gguf(const am_repo_file *f) {
    const char *base = base_of(f->path);
    return ends_in(base, ".gguf") && strncasecmp(base, "mmproj", 6) != 0; /* those are eyes for a model, not one */
}

static bool is_weights(const am_repo_file *f) {
    return !strchr(f->path, '/') && ends_in(f->path, ".safetensors") && strncmp(f->path, "consolidated", 12) != 0 && strncmp(f->path, "adapter_", 8) != 0;
}

bool am_choose_is_folder(const am_repo_file *files, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (is_weights(&files[i])) return true;
    return false;
}

static am_repo_file *find(am_repo_file *files, size_t n, const char *path) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(files[i].path, path) == 0) return &files[i];
    return NULL;
}

static am_status choose_indexed(am_repo_file *files, size_t n, const json_t *index, am_error *err) {
    const char *tensor;
    json_t *shard;
    size_t n_shards = 0;
    json_object_foreach(json_object_get(index, "weight_map"), tensor, shard) {
        const char *path = json_string_value(shard);
        if (!path || json_string_length(shard) != strlen(path) || !am_source_file_ok(am_str_of(path)) || !ends_in(path, ".safetensors"))
            return am_fail(err, AM_EFORMAT, "model.safetensors.index.json: what it says of %.80s is no name of a file beside it", tensor);
        am_repo_file *f = find(files, n, path);
        if (!f) return am_fail(err, AM_EFORMAT, "model.safetensors.index.json names %s, which the repository does not have", path);
        f->wanted = true;
        n_shards++;
    }
    return n_shards ? AM_OK : am_fail(err, AM_EFORMAT, "model.safetensors.index.json names no files");
}

am_status am_choose_folder(am_repo_file *files, size_t n, const json_t *index, am_error *err) {
    static const char *const kept[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
                                       "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.tiktoken", "tiktoken.model", "tekken.json", "quantize_config.json",
                                       "quant_config.json", "chat_template.json", "chat_template.jinja", "*.jinja"};
    if (!find(files, n, "config.json")) return am_fail(err, AM_EFORMAT, "the repository has no config.json");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof kept / sizeof kept[0]; k++)
            if (fnmatch(kept[k], files[i].path, FNM_PATHNAME | FNM_PERIOD) == 0) files[i].wanted = true;
    if (index) {
        find(files, n, "model.safetensors.index.json")->wanted = true;
        return choose_indexed(files, n, index, err);
    }
    am_repo_file *one = find(files, n, "model.safetensors");
    for (size_t i = 0; i < n; i++)
        if (is_weights(&files[i]) && (!one || one == &files[i])) files[i].wanted = true;
    return AM_OK;
}

static am_status list_choices(const am_repo_file *files, size_t n, const am_source *source, const char *why, am_error *err) {
    char list[360] = "";
    size_t at = 0;
    for (size_t i = 0; i < n && at < sizeof list - 1; i++) {
        char first[200];
        const char *base = base_of(files[i].path);
        if (!is_model_gguf(&files[i])) continue;
        unsigned parts = am_source_parts(base, first);
        if (parts > 1 && strcmp(base, first) != 0) continue;
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", base);
    }
    return am_fail(err, AM_EINVAL, "%s/%s%s: there is %s", source->org, source->name, why, list);
}

static bool same_model(const char *a, const char *b) {
    char first_a[200], first_b[200];
    return am_source_parts(base_of(a), first_a) == am_source_parts(base_of(b), first_b) && strcmp(first_a, first_b) == 0 &&
           base_of(a) - a == base_of(b) - b && strncmp(a, b, (size_t)(base_of(a) - a)) == 0;
}

/* Of several models that a tag fits, the one with the shortest path: "x-Q4_0.gguf" before "x-imatrix-Q4_0.gguf". */
static const am_repo_file *pick(const am_repo_file *files, size_t n, const char *choice, unsigned *n_fit) {
    const am_repo_file *best = NULL;
    *n_fit = 0;
    for (size_t i = 0; i < n; i++) {
        const char *base = base_of(files[i].path);
        char first[200];
        if (!is_model_gguf(&files[i]) || (*choice && !am_source_chooses(choice, base))) continue;
        unsigned parts = am_source_parts(base, first);
        if (parts > 1 && strcmp(base, first) != 0) continue;
        ++*n_fit;
        if (!best || strlen(files[i].path) < strlen(best->path)) best = &files[i];
    }
    return best;
}

am_status am_choose_gguf(am_repo_file *files, size_t n, const am_source *source, am_error *err) {
    unsigned n_fit;
    char why[300], first[200];
    const am_repo_file *best = pick(files, n, source->choice, &n_fit);
    if (!best && *source->choice) {
        snprintf(why, sizeof why, " has no GGUF file '%s'", source->choice);
        return list_choices(files, n, source, why, err);
    }
    if (!best) return am_fail(err, AM_EUNSUPPORTED, "%s/%s has neither safetensors nor GGUF files (pickles like pytorch_model.bin are programs, and are not fetched)", source->org, source->name);
    if (n_fit > 1 && !*source->choice) {
        best = pick(files, n, "Q4_K_M", &n_fit); /* what most people mean by it */
        if (!best) return list_choices(files, n, source, " has several models, name one (ORG/NAME:Q8_0)", err);
    }
    unsigned parts = am_source_parts(base_of(best->path), first), n_parts = 0;
    for (size_t i = 0; i < n; i++)
        if (is_model_gguf(&files[i]) && same_model(files[i].path, best->path)) files[i].wanted = true, n_parts++;
    return n_parts == parts ? AM_OK : am_fail(err, AM_EFORMAT, "%s/%s: %s has %u parts, %u are there", source->org, source->name, first, parts, n_parts);
}
