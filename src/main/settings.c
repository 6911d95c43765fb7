/* Owns where settings come from and which wins: default, config file, AGENT_MEMORY_* variables, command line.
 *
 * The data folder decides which config file is read, so variables and flags are read before the file; a value is taken only when it comes
 * from a source at least as strong as the one that set it, so the order of reading does not matter. */
#include "main/served.h"

#include "base/fs.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

extern char **environ;
enum { MAX_CONFIG_BYTES = 1 << 20 };
static const char env_prefix[] = "AGENT_MEMORY_";

static size_t distance(const char *a, const char *b) {
    size_t row[64], n = strlen(a), m = strlen(b);
    if (n >= 64 || m >= 64) return 64;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

const char *am_suggest(const char *wrong, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t best_distance = 1 + strlen(wrong) / 3;
    if (best_distance > 3) best_distance = 3;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(wrong, names[i]);
        if (strlen(wrong) >= 3 && strstr(names[i], wrong)) d = d < 2 ? d : 2;
        if (d <= best_distance && (!best || d < best_distance)) best = names[i], best_distance = d;
    }
    return best;
}

/* " (did you mean '--port'?)" or nothing; command 0: settings of every command. */
static const char *hint(const char *wrong, unsigned command, const char *dashes, char out[96]) {
    const char *names[AM_MAX_SETTINGS];
    size_t n = 0;
    for (size_t i = 0; i < am_n_settings; i++)
        if (!command || (am_setting_table[i].commands & command)) names[n++] = am_setting_table[i].name;
    const char *close = am_suggest(wrong, names, n);
    out[0] = 0;
    if (close) snprintf(out, 96, " (did you mean '%s%s'?)", dashes, close);
    return out;
}

static am_status set(am_settings *settings, const am_setting *setting, am_str value, am_origin origin, am_error *err) {
    am_origin *now = &settings->origin[setting - am_setting_table];
    if (*now > origin) {
        am_settings scratch = *settings; /* checked all the same: a wrong value is a mistake even where a stronger one wins */
        return am_setting_parse(setting, &scratch, value, err);
    }
    if ((setting->kind == AM_SET_LIST || setting->kind == AM_SET_PATHS) && *now < origin) *(am_setting_list *)((char *)settings + setting->offset) = (am_setting_list){0};
    am_status status = am_setting_parse(setting, settings, value, err);
    if (!status) *now = origin;
    return status;
}

static am_status load_env(am_settings *settings, am_error *err) {
    for (char **e = environ; *e; e++) {
        if (strncmp(*e, env_prefix, sizeof env_prefix - 1) != 0) continue;
        const char *equals = strchr(*e, '=');
        if (!equals) continue;
        char name[64] = "", near[96];
        size_t n = (size_t)(equals - *e) - (sizeof env_prefix - 1);
        for (size_t i = 0; i < n && i < sizeof name - 1; i++) {
            char c = (*e)[sizeof env_prefix - 1 + i];
            name[i] = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        }
        const am_setting *setting = am_setting_find(name, strlen(name));
        /* A variable may belong to something else on the machine, so an unknown one is said, not refused. */
        if (!setting) fprintf(stderr, "warning: %.*s is not a setting%s\n", (int)(equals - *e), *e, hint(name, 0, "", near));
        else if (set(settings, setting, am_str_of(equals + 1), AM_ORIGIN_ENV, err))
            return am_error_prefix(err, "%.*s", (int)(equals - *e), *e);
    }
    return AM_OK;
}

static am_status load_flag(am_settings *settings, unsigned command, int argc, char **argv, int *at, am_error *err) {
    const char *flag = argv[*at] + 2, *equals = strchr(flag, '=');
    size_t n = equals ? (size_t)(equals - flag) : strlen(flag);
    const am_setting *setting = am_setting_find(flag, n);
    bool negated = !setting && n > 3 && strncmp(flag, "no-", 3) == 0;
    if (negated) setting = am_setting_find(flag + 3, n - 3);
    char name[64], near[96];
    snprintf(name, sizeof name, "%.*s", (int)n, flag);
    if (!setting || (negated && setting->kind != AM_SET_FLAG))
        return am_fail(err, AM_EINVAL, "unknown option --%s%s", name, hint(name, command, "--", near));
    if (!(setting->commands & command)) return am_fail(err, AM_EINVAL, "--%s is not an option of this command", setting->name);
    am_str value;
    if (setting->kind == AM_SET_FLAG && !equals) value = am_str_of(negated ? "no" : "yes");
    else if (equals) value = am_str_of(equals + 1);
    else if (*at + 1 < argc) value = am_str_of(argv[++*at]);
    else return am_fail(err, AM_EINVAL, "--%s wants a value: %s", setting->name, setting->arg);
    if (set(settings, setting, value, AM_ORIGIN_FLAG, err)) return am_error_prefix(err, "--%s", setting->name);
    return AM_OK;
}

static am_status load_args(am_settings *settings, unsigned command, int argc, char **argv, am_error *err) {
    bool flags = true;
    char **own = am_arena_alloc(settings->arena, 2 * ((size_t)argc + 1) * sizeof *own);
    if (!own) return am_fail(err, AM_ENOMEM, "no memory for settings");
    for (int i = 0; i < argc; i++)
        if (!(own[i] = am_arena_strdup(settings->arena, am_str_of(argv[i])))) return am_fail(err, AM_ENOMEM, "no memory for settings");
    settings->argv = own;
    settings->n_argv = argc;
    settings->args = own + argc + 1;
    argv = own;
    for (int i = 0; i < argc; i++) {
        if (flags && strcmp(argv[i], "--") == 0) flags = false;
        else if (flags && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) settings->want_help = true;
        else if (flags && strncmp(argv[i], "--", 2) == 0) {
            if (load_flag(settings, command, argc, argv, &i, err)) return err->code;
        } else if (flags && argv[i][0] == '-' && argv[i][1]) {
            return am_fail(err, AM_EINVAL, "unknown option %s: options have two dashes and a word", argv[i]);
        } else settings->args[settings->n_args++] = argv[i];
    }
    return AM_OK;
}

static am_status config_list(am_settings *settings, const char *path, yaml_document_t *doc, yaml_node_t *list, const am_setting *setting,
                             am_error *err) {
    bool empty = list->data.sequence.items.start == list->data.sequence.items.top;
    if (empty) return set(settings, setting, AM_STR(""), AM_ORIGIN_FILE, err);
    for (yaml_node_item_t *i = list->data.sequence.items.start; i < list->data.sequence.items.top; i++) {
        yaml_node_t *item = yaml_document_get_node(doc, *i);
        size_t line = item->start_mark.line + 1;
        if (item->type != YAML_SCALAR_NODE) return am_fail(err, AM_EFORMAT, "%s:%zu: %s must be a list of words", path, line, setting->name);
        am_str text = {(const char *)item->data.scalar.value, item->data.scalar.length};
        if (set(settings, setting, text, AM_ORIGIN_FILE, err)) return am_error_prefix(err, "%s:%zu: %s", path, line, setting->name);
    }
    return AM_OK;
}

static am_status config_pair(am_settings *settings, const char *path, yaml_document_t *doc, yaml_node_pair_t *pair, am_error *err) {
    yaml_node_t *key = yaml_document_get_node(doc, pair->key), *value = yaml_document_get_node(doc, pair->value);
    size_t line = key->start_mark.line + 1;
    if (key->type != YAML_SCALAR_NODE) return am_fail(err, AM_EFORMAT, "%s:%zu: a setting's name must be a word", path, line);
    const char *name = (const char *)key->data.scalar.value;
    char near[96];
    if (strcmp(name, "models") == 0) return am_served_parse(settings, path, doc, value, err);
    const am_setting *setting = am_setting_find(name, key->data.scalar.length);
    if (!setting) return am_fail(err, AM_EFORMAT, "%s:%zu: '%.60s' is not a setting%s", path, line, name, hint(name, 0, "", near));
    if (value->type == YAML_SEQUENCE_NODE && (setting->kind == AM_SET_LIST || setting->kind == AM_SET_PATHS)) return config_list(settings, path, doc, value, setting, err);
    if (value->type != YAML_SCALAR_NODE) return am_fail(err, AM_EFORMAT, "%s:%zu: %s must be one value", path, line, setting->name);
    if (strcmp(setting->name, "config") == 0 || (strcmp(setting->name, "data-dir") == 0 && !settings->config))
        return am_fail(err, AM_EFORMAT, "%s:%zu: %s cannot be set in this file", path, line, setting->name);
    am_str text = {(const char *)value->data.scalar.value, value->data.scalar.length};
    if (set(settings, setting, text, AM_ORIGIN_FILE, err)) return am_error_prefix(err, "%s:%zu: %s", path, line, setting->name);
    return AM_OK;
}

static am_status config_text(am_settings *settings, const char *path, am_str text, am_error *err) {
    yaml_parser_t parser;
    yaml_document_t doc;
    am_status status = AM_OK;
    if (!yaml_parser_initialize(&parser)) return am_fail(err, AM_ENOMEM, "no memory for %s", path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.n);
    if (!yaml_parser_load(&parser, &doc)) {
        status = am_fail(err, AM_EFORMAT, "%s:%zu: not YAML: %s", path, parser.problem_mark.line + 1,
                         parser.problem ? parser.problem : "out of memory");
        goto out;
    }
    yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (root && root->type != YAML_MAPPING_NODE)
        status = am_fail(err, AM_EFORMAT, "%s: must be lines of 'name: value'", path);
    else if (root)
        for (yaml_node_pair_t *pair = root->data.mapping.pairs.start; !status && pair < root->data.mapping.pairs.top; pair++)
            status = config_pair(settings, path, &doc, pair, err);
    yaml_document_delete(&doc);
out:
    yaml_parser_delete(&parser);
    return status;
}

static am_status load_file(am_settings *settings, am_error *err) {
    char own[4096];
    const char *path = settings->config;
    if (!path) {
        const char *dir = settings->data_dir ? settings->data_dir : am_settings_home();
        if (!*dir || am_fs_join(own, sizeof own, dir, "config.yaml", NULL)) return AM_OK;
        path = own;
    }
    am_buf text;
    am_buf_init(&text, MAX_CONFIG_BYTES + 1);
    am_status status = am_fs_read_file(path, &text, MAX_CONFIG_BYTES, err);
    if (status == AM_ENOTFOUND && !settings->config) status = AM_OK; /* the data folder need not have one */
    else if (!status) status = config_text(settings, path, text.n ? am_buf_str(&text) : AM_STR(""), err);
    am_buf_free(&text);
    return status;
}

am_status am_settings_load(am_settings *settings, unsigned command, int argc, char **argv, am_error *err) {
    *settings = (am_settings){0};
    settings->command = command;
    settings->arena = am_arena_create(16 << 20);
    if (!settings->arena) return am_fail(err, AM_ENOMEM, "no memory for settings");
    am_status status = AM_OK;
    for (size_t i = 0; !status && i < am_n_settings; i++)
        status = set(settings, &am_setting_table[i], am_str_of(am_setting_table[i].value), AM_ORIGIN_DEFAULT, err);
    if (command != AM_CMD_SERVE) settings->log_level = AM_LOG_WARN; /* a terminal is for the answer */
    if (!status) status = load_args(settings, command, argc, argv, err);
    if (!command || command == AM_CMD_HELP || settings->want_help) return status; /* version and help work with a broken config file too */
    if (!status) status = load_env(settings, err);
    bool other_config = (command == AM_CMD_SHOW && settings->config) || command == AM_CMD_CONVERT; /* show's --config is a model's; convert has nothing of an operator's */
    if (!status && !other_config) status = load_file(settings, err);
    return status ? status : am_served_choose(settings, err);
}

void am_settings_hide(int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--", 2) != 0) continue;
        char *equals = strchr(argv[i], '=');
        size_t n = equals ? (size_t)(equals - argv[i]) - 2 : strlen(argv[i]) - 2;
        const am_setting *setting = am_setting_find(argv[i] + 2, n);
        if (!setting || setting->kind != AM_SET_SECRET) continue;
        char *value = equals ? equals + 1 : i + 1 < argc ? argv[++i] : NULL;
        if (value) memset(value, '*', strlen(value));
    }
}

static am_status take_field(const am_setting *setting, am_settings *settings, const am_settings *from) {
    char *to = (char *)settings + setting->offset;
    const char *source = (const char *)from + setting->offset;
    switch (setting->kind) {
    case AM_SET_FLAG: *(bool *)to = *(const bool *)source; return AM_OK;
    case AM_SET_NUMBER: *(double *)to = *(const double *)source; return AM_OK;
    case AM_SET_COUNT:
    case AM_SET_SIZE:
    case AM_SET_TIME:
    case AM_SET_CHOICE: *(uint64_t *)to = *(const uint64_t *)source; return AM_OK;
    case AM_SET_BITS: memcpy(to, source, 2 * sizeof(uint64_t)); return AM_OK;
    case AM_SET_TEXT:
    case AM_SET_SECRET: {
        const char *text = *(const char *const *)source;
        const char *copy = text ? am_arena_strdup(settings->arena, am_str_of(text)) : NULL;
        if (text && !copy) return AM_ENOMEM;
        *(const char **)to = copy;
        return AM_OK;
    }
    case AM_SET_PATHS:
    case AM_SET_LIST: {
        const am_setting_list *list = (const am_setting_list *)(const void *)source;
        am_setting_list copy = {am_arena_alloc(settings->arena, (list->n + 1) * sizeof(char *)), list->n};
        if (!copy.items) return AM_ENOMEM;
        for (size_t i = 0; i < list->n; i++)
            if (!(copy.items[i] = am_arena_strdup(settings->arena, am_str_of(list->items[i])))) return AM_ENOMEM;
        *(am_setting_list *)(void *)to = copy;
        return AM_OK;
    }
    }
    return AM_EINVAL;
}

am_status am_settings_take(am_settings *settings, const am_settings *from) {
    am_status status = AM_OK;
    for (size_t i = 0; i < am_n_settings && !status; i++) {
        if (!(am_setting_table[i].commands & AM_RELOADS)) continue;
        status = take_field(&am_setting_table[i], settings, from);
        if (!status) settings->origin[i] = from->origin[i];
    }
    return status;
}

void am_settings_free(am_settings *settings) {
    am_arena_free(settings->arena);
    settings->arena = NULL;
}

const char *am_settings_home(void) {
    static char path[4096]; /* one value for the life of the process, filled before there are threads */
    const char *home = getenv("HOME");
    if (!home || !*home) return "";
    return snprintf(path, sizeof path, "%s/.agent_memory", home) < (int)sizeof path ? path : "";
}

am_origin am_settings_origin(const am_settings *settings, const char *name) {
    const am_setting *setting = am_setting_find(name, strlen(name));
    return setting ? settings->origin[setting - am_setting_table] : AM_ORIGIN_DEFAULT;
}

void am_settings_help(FILE *to, unsigned command) {
    fputs("options (also in the environment as AGENT_MEMORY_NAME, and in a config file as name: value):\n", to);
    for (size_t i = 0; i < am_n_settings; i++) {
        const am_setting *setting = &am_setting_table[i];
        if (!(setting->commands & command)) continue;
        char flag[96];
        snprintf(flag, sizeof flag, "--%s%s%s", setting->name, setting->arg ? " " : "", setting->arg ? setting->arg : "");
        fprintf(to, "  %-34s %s", flag, setting->help);
        bool plain = setting->kind != AM_SET_FLAG && *setting->value && strcmp(setting->value, "0") != 0 && strcmp(setting->value, "-1") != 0;
        if (plain) fprintf(to, " (%s)", setting->value);
        fputc('\n', to);
    }
}

void am_settings_log(const am_settings *settings, unsigned command) {
    static const char *const origin[] = {"", " (config file)", " (environment)", " (flag)"};
    am_log_field fields[AM_MAX_SETTINGS];
    am_buf text[AM_MAX_SETTINGS];
    size_t n = 0;
    for (size_t i = 0; i < am_n_settings; i++) {
        if (!(am_setting_table[i].commands & command)) continue;
        am_buf_init(&text[n], 8192);
        am_setting_print(&am_setting_table[i], settings, &text[n]);
        am_buf_add(&text[n], am_str_of(origin[settings->origin[i]]));
        fields[n] = AM_LV(am_setting_table[i].name, am_buf_str(&text[n]));
        n++;
    }
    if (AM_LOG_INFO >= am_log_threshold()) am_log_write(AM_LOG_INFO, "settings", fields, n);
    for (size_t i = 0; i < n; i++) am_buf_free(&text[i]);
}
