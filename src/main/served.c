/* Owns the list of models that `serve` has: what each entry of the config file may say, and that --model (or its variable) wins over the whole list.
 *
 *     models:
 *       - name: small
 *         path: /models/small
 *         aliases: [gpt-*, claude-*]
 *         pin: yes
 *       - /models/large
 *
 * Values are read by the same code as settings, so 4G and 30s mean what they mean there. */
#include "main/served.h"

#include "agents/instance.h"
#include "base/fs.h"
#include "pull/shelf.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct served {
    const char *name, *path, *template;
    am_setting_list aliases;
    uint64_t ctx, bits[2], threads, kv_memory_bytes, keep_alive_ms;
    double temperature, top_p, top_k, min_p, repetition_penalty;
    bool pin;
} served;

#define AT(field) offsetof(served, field)
static const am_setting rows[] = {
    {"name", AM_SET_TEXT, AT(name), 0, 0, "", NULL, 0, NULL},
    {"path", AM_SET_TEXT, AT(path), 0, 0, "", NULL, 0, NULL},
    {"aliases", AM_SET_LIST, AT(aliases), 0, 0, "", NULL, 0, NULL},
    {"ctx", AM_SET_COUNT, AT(ctx), 0, 16777216, "", NULL, 0, NULL},
    {"kv-bits", AM_SET_BITS, AT(bits), 0, 0, "", NULL, 0, NULL},
    {"kv-memory", AM_SET_SIZE, AT(kv_memory_bytes), 0, 17592186044416.0, "", NULL, 0, NULL},
    {"threads", AM_SET_COUNT, AT(threads), 0, 1024, "", NULL, 0, NULL},
    {"temperature", AM_SET_NUMBER, AT(temperature), 0, 2, "", NULL, 0, NULL},
    {"top-p", AM_SET_NUMBER, AT(top_p), 0, 1, "", NULL, 0, NULL},
    {"top-k", AM_SET_NUMBER, AT(top_k), 0, 1e6, "", NULL, 0, NULL},
    {"min-p", AM_SET_NUMBER, AT(min_p), 0, 1, "", NULL, 0, NULL},
    {"repetition-penalty", AM_SET_NUMBER, AT(repetition_penalty), 0, 10, "", NULL, 0, NULL},
    {"template", AM_SET_TEXT, AT(template), 0, 0, "", NULL, 0, NULL},
    {"pin", AM_SET_FLAG, AT(pin), 0, 0, "", NULL, 0, NULL},
    {"keep-alive", AM_SET_TIME, AT(keep_alive_ms), 0, 31536000000.0, "", NULL, 0, NULL},
};
enum { N_ROWS = sizeof rows / sizeof rows[0], MAX_SERVED = 256 };

static const am_setting *row_find(const char *name) {
    for (size_t i = 0; i < N_ROWS; i++) {
        const char *a = rows[i].name, *b = name;
        while (*a && (*a == *b || (*a == '-' && *b == '_'))) a++, b++;
        if (*a == 0 && *b == 0) return &rows[i];
    }
    return NULL;
}

static am_status parse_pair(am_arena *arena, served *s, yaml_document_t *doc, const yaml_node_pair_t *pair, am_error *err) {
    const yaml_node_t *key = yaml_document_get_node(doc, pair->key), *value = yaml_document_get_node(doc, pair->value);
    const char *names[N_ROWS];
    if (key->type != YAML_SCALAR_NODE) return am_fail(err, AM_EFORMAT, "a name must be a word");
    const char *name = (const char *)key->data.scalar.value;
    const am_setting *row = row_find(name);
    for (size_t i = 0; i < N_ROWS; i++) names[i] = rows[i].name;
    const char *close = row ? NULL : am_suggest(name, names, N_ROWS);
    if (!row) return am_fail(err, AM_EFORMAT, "'%.60s' is nothing a model has%s%s%s", name, close ? " (did you mean '" : "", close ? close : "", close ? "'?)" : "");
    if (value->type == YAML_SEQUENCE_NODE && row->kind == AM_SET_LIST) {
        am_status status = AM_OK;
        for (yaml_node_item_t *i = value->data.sequence.items.start; !status && i < value->data.sequence.items.top; i++) {
            const yaml_node_t *item = yaml_document_get_node(doc, *i);
            if (item->type != YAML_SCALAR_NODE) return am_fail(err, AM_EFORMAT, "%s must be a list of words", row->name);
            status = am_setting_parse_at(row, arena, s, (am_str){(const char *)item->data.scalar.value, item->data.scalar.length}, err);
        }
        return status;
    }
    if (value->type != YAML_SCALAR_NODE) return am_fail(err, AM_EFORMAT, "%s must be one value", row->name);
    if (am_setting_parse_at(row, arena, s, (am_str){(const char *)value->data.scalar.value, value->data.scalar.length}, err)) return am_error_prefix(err, "%s", row->name);
    return AM_OK;
}

static am_model_entry entry_of(const served *s) {
    return (am_model_entry){.name = s->name,
                            .path = s->path,
                            .aliases = s->aliases.items,
                            .n_aliases = s->aliases.n,
                            .n_ctx = (uint32_t)s->ctx,
                            .bits_k = (uint32_t)s->bits[0],
                            .bits_v = (uint32_t)s->bits[1],
                            .n_threads = (uint32_t)s->threads,
                            .kv_memory_bytes = s->kv_memory_bytes,
                            .temperature = (float)s->temperature,
                            .top_p = (float)s->top_p,
                            .min_p = (float)s->min_p,
                            .repetition_penalty = (float)s->repetition_penalty,
                            .top_k = (int32_t)s->top_k,
                            .template_path = s->template,
                            .pin = s->pin,
                            .keep_alive_ms = s->keep_alive_ms == UINT64_MAX ? -1 : (int64_t)s->keep_alive_ms};
}

static am_status parse_one(am_settings *settings, yaml_document_t *doc, const yaml_node_t *node, am_model_entry *out, am_error *err) {
    served s = {.temperature = -1, .top_p = -1, .top_k = -1, .min_p = -1, .repetition_penalty = -1, .keep_alive_ms = UINT64_MAX};
    am_status status = AM_OK;
    if (node->type == YAML_SCALAR_NODE)
        status = am_setting_parse_at(row_find("path"), settings->arena, &s, (am_str){(const char *)node->data.scalar.value, node->data.scalar.length}, err);
    else if (node->type != YAML_MAPPING_NODE)
        return am_fail(err, AM_EFORMAT, "must be a path, or lines of 'name: value'");
    else
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; !status && pair < node->data.mapping.pairs.top; pair++)
            status = parse_pair(settings->arena, &s, doc, pair, err);
    *out = entry_of(&s);
    return status;
}

am_status am_served_parse(am_settings *settings, const char *path, yaml_document_t *doc, yaml_node_t *list, am_error *err) {
    size_t line = list->start_mark.line + 1;
    if (list->type != YAML_SEQUENCE_NODE) return am_fail(err, AM_EFORMAT, "%s:%zu: models must be a list, one line with a dash for each", path, line);
    size_t n = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
    if (n > MAX_SERVED) return am_fail(err, AM_EFORMAT, "%s:%zu: %zu models are more than %d", path, line, n, MAX_SERVED);
    am_model_entry *entries = am_arena_alloc(settings->arena, (n + 1) * sizeof *entries);
    if (!entries) return am_fail(err, AM_ENOMEM, "no memory for settings");
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *node = yaml_document_get_node(doc, list->data.sequence.items.start[i]);
        if (parse_one(settings, doc, node, &entries[i], err)) return am_error_prefix(err, "%s:%zu: models", path, node->start_mark.line + 1);
    }
    settings->file_models = entries;
    settings->n_file_models = n;
    return AM_OK;
}

/* NAME=PATH, unless the whole is a path: one that exists, or with a slash before the sign. */
static am_status entry_of_text(am_settings *settings, const char *text, am_model_entry *out, am_error *err) {
    const char *sign = strchr(text, '=');
    *out = AM_MODEL_ENTRY;
    out->path = text;
    if (!sign || sign == text || memchr(text, '/', (size_t)(sign - text)) || access(text, F_OK) == 0) return AM_OK;
    if (!sign[1]) return am_fail(err, AM_EINVAL, "--model %s: no path after the name", text);
    out->name = am_arena_strdup(settings->arena, (am_str){text, (size_t)(sign - text)});
    out->path = sign + 1;
    return out->name ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for settings");
}

am_status am_models_dir(const am_settings *settings, char out[4096], am_error *err) {
    const char *dir = settings->data_dir ? settings->data_dir : am_settings_home();
    if (settings->models_dir) return snprintf(out, 4096, "%s", settings->models_dir) < 4096 ? AM_OK : am_fail(err, AM_ELIMIT, "--models-dir is too long");
    return *dir ? am_fs_join(out, 4096, dir, "models", err) : am_fail(err, AM_EINVAL, "no folder of models: $HOME is not set, name one with --models-dir");
}

static am_status find_pulled(am_settings *settings, const char *text, const char **path, const char **name, am_error *err) {
    char dir[4096];
    am_shelf_model model;
    am_status status = am_models_dir(settings, dir, err);
    if (!status) status = am_shelf_find(dir, text, &model, err);
    if (status) return status;
    *path = am_arena_strdup(settings->arena, am_str_of(model.path));
    *name = am_arena_strdup(settings->arena, am_str_of(model.name));
    return *path && *name ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for settings");
}

am_status am_served_find(am_settings *settings, const char *text, const char **path, const char **name, am_error *err) {
    *path = text;
    *name = NULL;
    if (access(text, F_OK) == 0) return AM_OK;
    for (size_t i = 0; i < settings->n_entries; i++) {
        const am_model_entry *e = &settings->entries[i];
        char own[256];
        am_model_entry_name(e, own);
        if (strcmp(own, text) != 0) continue;
        *path = e->path;
        *name = e->name;
        return AM_OK;
    }
    am_status status = find_pulled(settings, text, path, name, err);
    return status == AM_ENOTFOUND ? AM_OK : status;
}

/* Names of pulled models become paths. What the command line names must be there: it is what was just asked for. */
static am_status find_entries(am_settings *settings, am_model_entry *entries, size_t n, bool must, am_error *err) {
    am_source source;
    for (size_t i = 0; i < n; i++) {
        const char *path = entries[i].path, *name = NULL;
        if (!path || access(path, F_OK) == 0) continue;
        am_status status = find_pulled(settings, path, &entries[i].path, &name, err);
        if (!entries[i].name) entries[i].name = name;
        if (status && status != AM_ENOTFOUND) return status;
        if (status && must && am_source_parse(path, &source, NULL) == AM_OK && !source.url) return am_error_prefix(err, "there is no %s here, and", path);
    }
    return AM_OK;
}

am_status am_served_choose(am_settings *settings, am_error *err) {
    const am_setting_list *given = &settings->models;
    bool stronger = am_settings_origin(settings, "model") > AM_ORIGIN_FILE;
    if (settings->n_file_models && given->n && !stronger) return am_fail(err, AM_EFORMAT, "the config file has both model and models: put all into models");
    size_t n = given->n ? given->n : settings->n_file_models;
    am_model_entry *entries = am_arena_alloc(settings->arena, (n + 1) * sizeof *entries);
    if (!entries) return am_fail(err, AM_ENOMEM, "no memory for settings");
    if (!given->n && n) memcpy(entries, settings->file_models, n * sizeof *entries);
    for (size_t i = 0; i < given->n; i++)
        if (entry_of_text(settings, given->items[i], &entries[i], err)) return err->code;
    if (find_entries(settings, entries, n, stronger, err)) return err->code;
    settings->entries = entries;
    settings->n_entries = n;
    settings->model = n ? entries[0].path : NULL;
    return AM_OK;
}
