/* Every setting of the program, from one table: flags, AGENT_MEMORY_* variables, config file, --help and the start-up line.
 *
 * Later ones win: default, config file, environment, command line. */
#ifndef AM_MAIN_SETTINGS_H
#define AM_MAIN_SETTINGS_H

#include "base/buf.h"

#include <stdio.h>

/* Commands that take settings, as bits. */
enum { AM_CMD_SERVE = 1, AM_CMD_CHAT = 2, AM_CMD_AGENTS = 4, AM_CMD_LIST = 8, AM_CMD_KEYS = 16, AM_CMD_HELP = 128, AM_CMD_DOCTOR = 1 << 10, AM_CMD_STOP = 1 << 11, AM_CMD_PS = 1 << 12 };
enum { AM_CMD_EVAL = 1 << 13, AM_CMD_TEXT = 1 << 14, AM_CMD_LOGITS = 1 << 15, AM_CMD_SHOW = 1 << 17, AM_CMD_CONVERT = 1 << 18, AM_CMD_OPERATE = 1 << 19 };
enum { AM_CMD_PULL = 1 << 20, AM_CMD_RM = 1 << 21 };
enum { AM_RELOADS = 1 << 16 /* in the same word: a running server takes a new value up on SIGHUP */ };

typedef enum am_origin { AM_ORIGIN_DEFAULT, AM_ORIGIN_FILE, AM_ORIGIN_ENV, AM_ORIGIN_FLAG } am_origin;

enum { AM_MAX_SETTINGS = 96 };

/* In the order given; a stronger source replaces the whole list. */
typedef struct am_setting_list {
    const char **items;
    size_t n;
} am_setting_list;

typedef struct am_settings {
    /* where */
    const char *config, *host, *data_dir;
    uint64_t port;
    /* model and memory */
    am_setting_list models;
    const struct am_model_entry *file_models, *entries; /* see served.h; entries: what serve has, none: the embedded model */
    size_t n_file_models, n_entries;
    const char *model, *isa; /* model: the first one's path, for commands of one */
    const char *models_dir;  /* NULL: see am_models_dir */
    const char *default_model, *cpus;
    uint64_t model_memory_bytes, model_idle_ms, packed_least_bytes;
    uint64_t ctx, kv_memory_bytes, disk_bytes, unnamed_agents, threads, seed;
    uint64_t bits_k, bits_v; /* adjacent: one setting */
    uint64_t durability;     /* am_durability */
    uint64_t lookup;         /* am_lookup_mode */
    /* scheduler */
    uint64_t parallel, queue, chunk_tokens, step_ms;
    /* HTTP */
    uint64_t max_body_bytes, max_messages, max_connections, max_outbox_bytes, keep_alive_ms, head_timeout_ms, idle_timeout_ms, drain_ms;
    bool strict_model;
    /* who may */
    const char *api_key, *admin_key;
    am_setting_list cors_origins, allow_hosts;
    bool admin_remote, allow_no_auth;
    /* keys */
    bool admin;
    const char *note;
    uint64_t max_agents, max_disk_bytes, max_rate, max_parallel;
    /* help */
    bool man;
    uint64_t completion; /* 0 none, 1 bash, 2 zsh, 3 fish */
    /* log */
    uint64_t log_format; /* 0 text, 1 json */
    uint64_t log_level;  /* am_log_level */
    bool log_content;
    uint64_t crash_test; /* am_crash_kind */
    /* chat */
    const char *agent, *system;
    double temperature; /* negative: the model's */
    uint64_t max_tokens;
    bool local;
    /* diagnosis */
    bool all; /* operators' commands */
    const char *tenant;
    bool repair, deep, json, fix, force, memory;
    uint64_t wait_ms;
    /* eval */
    const char *text;
    uint64_t windows, window_tokens, needles;

    /* text */
    const char *tokenizer, *template;
    /* show */
    bool tensors, load;
    /* pull, rm */
    const char *hub, *sha256;
    uint64_t connections, retries, silence_ms;
    bool yes, agents_too;
    /* convert */
    uint64_t to; /* am_convert_form */
    /* logits */
    const char *ids, *out;
    uint64_t greedy, dtype;

    /* The rest is the loader's. */
    am_arena *arena; /* owns every string above */
    am_origin origin[AM_MAX_SETTINGS];
    char **args; /* what is not a flag, in order; the strings are argv's */
    int n_args;
    bool want_help;
    unsigned command;
    char **argv; /* everything after the command's name, as it was given: for reading it again */
    int n_argv;
} am_settings;

/* Fills *settings for one command from all four sources. argv begins after the command's name. AM_EINVAL: a message for the user, with a
 * suggestion where a name is close to one that exists. am_settings_free in every case. */
am_status am_settings_load(am_settings *settings, unsigned command, int argc, char **argv, am_error *err);
void am_settings_free(am_settings *settings);
/* Takes over from `from`, which is of the same command and stays the caller's, what may change in a running server. */
am_status am_settings_take(am_settings *settings, const am_settings *from);
/* Overwrites the secrets on a command line that was loaded: ps shows it to everybody. */
void am_settings_hide(int argc, char **argv);

am_origin am_settings_origin(const am_settings *settings, const char *name); /* where that setting's value is from */
void am_settings_help(FILE *to, unsigned command);
/* One log line with every setting of the command as it stands and, for those not at their default, where it came from. */
void am_settings_log(const am_settings *settings, unsigned command);
/* The folder of the agents when --data-dir is silent: ~/.agent_memory. "" when there is no home either. */
const char *am_settings_home(void);

/* The closest of n names to a mistyped one, or NULL when none is close. */
const char *am_suggest(const char *wrong, const char *const *names, size_t n);

#endif
