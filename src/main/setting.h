/* What the files of the settings share: one row of the table, and its value as text. */
#ifndef AM_MAIN_SETTING_H
#define AM_MAIN_SETTING_H

#include "main/settings.h"

typedef enum am_setting_kind {
    AM_SET_TEXT,   /* const char *; empty is NULL */
    AM_SET_COUNT,  /* uint64_t */
    AM_SET_SIZE,   /* uint64_t bytes: 4G, 512M, 1.5G, 64K */
    AM_SET_TIME,   /* uint64_t ms: 30s, 500ms, 2m; a bare number is seconds */
    AM_SET_NUMBER, /* double */
    AM_SET_BITS,   /* two uint64_t: K,V or one for both */
    AM_SET_CHOICE, /* uint64_t: index into choices */
    AM_SET_FLAG,   /* bool */
    AM_SET_PATHS,  /* as LIST, but one item each time: paths may have commas */
    AM_SET_LIST,   /* am_setting_list: a flag may be repeated, a file has a list, a variable has commas */
    AM_SET_SECRET  /* const char *; as TEXT, but never printed */
} am_setting_kind;

typedef struct am_setting {
    const char *name;
    am_setting_kind kind;
    size_t offset;
    double min, max;
    const char *value;    /* default, as text */
    const char *arg;      /* what --help calls the value; CHOICE: the choices, separated by | */
    unsigned commands; /* bits of settings.h */
    const char *help;
} am_setting;

extern const am_setting am_setting_table[];
extern const size_t am_n_settings;

const am_setting *am_setting_find(const char *name, size_t n); /* '_' counts as '-'; NULL */
am_status am_setting_parse(const am_setting *setting, am_settings *to, am_str text, am_error *err);
/* The same for a row of another table: its offset counts from base, texts go into arena. */
am_status am_setting_parse_at(const am_setting *setting, am_arena *arena, void *base, am_str text, am_error *err);
void am_setting_print(const am_setting *setting, const am_settings *from, am_buf *out);
void am_setting_env_name(const am_setting *setting, char out[64]);

#endif
