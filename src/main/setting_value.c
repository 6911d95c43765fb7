/* Owns how a setting's value reads and prints. What is printed can be read back. */
#include "main/setting.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const void *field_of(const am_setting *setting, const am_settings *of) { return (const char *)of + setting->offset; }

const am_setting *am_setting_find(const char *name, size_t n) {
    for (size_t i = 0; i < am_n_settings; i++) {
        const char *own = am_setting_table[i].name;
        size_t k = 0;
        while (k < n && own[k] && (own[k] == name[k] || (own[k] == '-' && name[k] == '_'))) k++;
        if (k == n && !own[k]) return &am_setting_table[i];
    }
    return NULL;
}

void am_setting_env_name(const am_setting *setting, char out[64]) {
    int n = snprintf(out, 64, "AGENT_MEMORY_%s", setting->name);
    for (int i = 0; i < n && i < 63; i++) out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

typedef struct unit {
    const char *name;
    double factor;
} unit;
static const unit size_units[] = {{"", 1},           {"b", 1},           {"k", 1024.0},       {"kib", 1024.0},       {"m", 1048576.0},
                                  {"mib", 1048576.0}, {"g", 1073741824.0}, {"gib", 1073741824.0}, {"t", 1099511627776.0}, {"tib", 1099511627776.0}};
static const unit time_units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}};
static const unit plain_units[] = {{"", 1}};

/* A number and its unit; NAN when it is neither. */
static double quantity(const char *text, const unit *units, size_t n_units) {
    char *end;
    if (!isdigit((unsigned char)text[0]) && !(text[0] == '-' && units == plain_units)) return NAN;
    if (strpbrk(text, "xXnN") && units == plain_units) return NAN; /* no hexadecimal, no nan */
    double number = strtod(text, &end);
    while (*end == ' ') end++;
    for (size_t i = 0; i < n_units; i++)
        if (strcasecmp(end, units[i].name) == 0) return number * units[i].factor;
    return NAN;
}
#define QUANTITY(text, units) quantity(text, units, sizeof units / sizeof units[0])

static am_status parse_bits(const char *text, uint64_t *pair, am_error *err) {
    char *end;
    if (!isdigit((unsigned char)text[0])) goto bad;
    uint64_t k = strtoull(text, &end, 10), v = k;
    if (*end == ',') {
        if (!isdigit((unsigned char)end[1])) goto bad;
        v = strtoull(end + 1, &end, 10);
    }
    if (*end) goto bad;
    for (int i = 0; i < 2; i++) {
        uint64_t bits = i ? v : k;
        if (bits != 4 && bits != 5 && bits != 8 && bits != 16 && bits != 32) goto bad;
    }
    pair[0] = k;
    pair[1] = v;
    return AM_OK;
bad:
    return am_fail(err, AM_EINVAL, "must be K,V with each of 16, 8, 5, 4 (or 32), not '%s'", text);
}

static am_status parse_choice(const am_setting *setting, const char *text, uint64_t *out, am_error *err) {
    uint64_t index = 0;
    for (const char *p = setting->arg;; p++, index++) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && strncmp(p, text, n) == 0) {
            *out = index;
            return AM_OK;
        }
        p += n;
        if (!*p) return am_fail(err, AM_EINVAL, "must be one of %s, not '%s'", setting->arg, text);
    }
}

static am_status parse_flag(const char *text, bool *out, am_error *err) {
    static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0) return *out = true, AM_OK;
        if (strcasecmp(text, no[i]) == 0) return *out = false, AM_OK;
    }
    return am_fail(err, AM_EINVAL, "must be yes or no, not '%s'", text);
}

static am_status parse_quantity(const am_setting *setting, const char *text, double *out, am_error *err) {
    double value = setting->kind == AM_SET_SIZE   ? QUANTITY(text, size_units)
                   : setting->kind == AM_SET_TIME ? QUANTITY(text, time_units)
                                                  : QUANTITY(text, plain_units);
    const char *form = setting->kind == AM_SET_SIZE ? " (like 512M or 4G)" : setting->kind == AM_SET_TIME ? " (like 500ms or 30s)" : "";
    bool whole = setting->kind == AM_SET_COUNT;
    if (!isfinite(value) || (whole && value != floor(value)))
        return am_fail(err, AM_EINVAL, "must be a %s%s, not '%s'", whole ? "whole number" : "number", form, text);
    if (value < setting->min || value > setting->max) {
        const char *unit_text = setting->kind == AM_SET_TIME ? " ms" : setting->kind == AM_SET_SIZE ? " bytes" : "";
        return am_fail(err, AM_EINVAL, "must be %.15g to %.15g%s, not '%s'", setting->min, setting->max, unit_text, text);
    }
    *out = value;
    return AM_OK;
}

static am_status list_add(am_arena *arena, am_setting_list *list, char *item, am_error *err) {
    const char **items = am_arena_alloc(arena, (list->n + 1) * sizeof *items); /* lists are short */
    if (!items) return am_fail(err, AM_ENOMEM, "no memory for settings");
    if (list->n) memcpy(items, list->items, list->n * sizeof *items);
    items[list->n] = item;
    *list = (am_setting_list){items, list->n + 1};
    return AM_OK;
}

/* Appends every item between commas. */
static am_status parse_list(am_arena *arena, am_setting_list *list, char *text, am_error *err) {
    am_status status = AM_OK;
    char *rest = NULL;
    for (char *item = strtok_r(text, ",", &rest); item && !status; item = strtok_r(NULL, ",", &rest)) {
        while (*item == ' ') item++;
        for (size_t n = strlen(item); n && item[n - 1] == ' ';) item[--n] = 0;
        if (*item) status = list_add(arena, list, item, err);
    }
    return status;
}

am_status am_setting_parse(const am_setting *setting, am_settings *to, am_str text, am_error *err) {
    return am_setting_parse_at(setting, to->arena, to, text, err);
}

am_status am_setting_parse_at(const am_setting *setting, am_arena *arena, void *base, am_str text, am_error *err) {
    char *copy = am_arena_strdup(arena, text);
    if (!copy) return am_fail(err, AM_ENOMEM, "no memory for settings");
    if (strlen(copy) != text.n) return am_fail(err, AM_EINVAL, "has a NUL in it");
    void *p = (char *)base + setting->offset;
    double value;
    am_status status;
    switch (setting->kind) {
    case AM_SET_LIST: return parse_list(arena, p, copy, err);
    case AM_SET_PATHS: return *copy ? list_add(arena, p, copy, err) : AM_OK;
    case AM_SET_SECRET:
    case AM_SET_TEXT: *(const char **)p = *copy ? copy : NULL; return AM_OK;
    case AM_SET_FLAG: return parse_flag(copy, p, err);
    case AM_SET_CHOICE: return parse_choice(setting, copy, p, err);
    case AM_SET_BITS: return parse_bits(copy, p, err);
    case AM_SET_NUMBER: return parse_quantity(setting, copy, p, err);
    case AM_SET_COUNT:
    case AM_SET_SIZE:
    case AM_SET_TIME:
        if (!(status = parse_quantity(setting, copy, &value, err))) *(uint64_t *)p = (uint64_t)value;
        return status;
    }
    return AM_EINVAL;
}

static void print_size(uint64_t bytes, am_buf *out) {
    static const char suffix[] = {0, 'K', 'M', 'G', 'T'};
    size_t i = 0;
    while (bytes && bytes % 1024 == 0 && i + 1 < sizeof suffix) bytes /= 1024, i++;
    am_buf_printf(out, "%llu", (unsigned long long)bytes);
    if (suffix[i]) am_buf_putc(out, suffix[i]);
}

void am_setting_print(const am_setting *setting, const am_settings *from, am_buf *out) {
    const void *p = field_of(setting, from);
    const uint64_t *u = p;
    switch (setting->kind) {
    case AM_SET_TEXT: am_buf_add(out, am_str_of(*(const char *const *)p)); break;
    case AM_SET_SECRET: am_buf_add(out, am_str_of(*(const char *const *)p ? "(set)" : "")); break;
    case AM_SET_PATHS:
    case AM_SET_LIST:
        for (size_t i = 0; i < ((const am_setting_list *)p)->n; i++) am_buf_printf(out, "%s%s", i ? "," : "", ((const am_setting_list *)p)->items[i]);
        break;
    case AM_SET_FLAG: am_buf_add(out, am_str_of(*(const bool *)p ? "yes" : "no")); break;
    case AM_SET_BITS: am_buf_printf(out, "%llu,%llu", (unsigned long long)u[0], (unsigned long long)u[1]); break;
    case AM_SET_NUMBER: am_buf_printf(out, "%g", *(const double *)p); break;
    case AM_SET_COUNT: am_buf_printf(out, "%llu", (unsigned long long)*u); break;
    case AM_SET_SIZE: print_size(*u, out); break;
    case AM_SET_TIME:
        if (*u % 1000 == 0) am_buf_printf(out, "%llus", (unsigned long long)(*u / 1000));
        else am_buf_printf(out, "%llums", (unsigned long long)*u);
        break;
    case AM_SET_CHOICE: {
        const char *choice = setting->arg;
        for (uint64_t i = 0; i < *u; i++) choice += strcspn(choice, "|") + 1;
        am_buf_append(out, choice, strcspn(choice, "|"));
        break;
    }
    }
}
