/* The commands that have a file of their own. Each returns the exit code of the process. */
#ifndef AM_MAIN_COMMANDS_H
#define AM_MAIN_COMMANDS_H

#include "base/log.h"
#include "main/settings.h"

enum { AM_EXIT_FAILED = 1, AM_EXIT_USAGE = 2, AM_EXIT_FOUND = 3 /* looked, and something is wrong */ };

typedef struct am_command {
    const char *name, *args;
    unsigned bit; /* which settings it has; 0: none */
    int min_args, max_args;
    int (*run)(am_settings *settings);
    const char *help, *more;
} am_command;
const am_command *am_command_at(size_t i); /* in the order of the help; NULL: no more */

/* The manual page (troff) and shell completion, from the tables of commands and settings. shell: "bash", "zsh" or "fish". */
void am_manual_write(FILE *to);
void am_completion_write(FILE *to, const char *shell);

int am_command_serve(am_settings *settings);
int am_command_chat(am_settings *settings);
int am_command_agents(am_settings *settings);
int am_command_agents_verify(am_settings *settings);
int am_command_show(am_settings *settings);
int am_command_convert(am_settings *settings);
int am_command_pull(am_settings *settings);
int am_command_list(am_settings *settings);
int am_command_rm(am_settings *settings);
int am_command_text(am_settings *settings);
int am_command_logits(am_settings *settings);
int am_command_keys(am_settings *settings);
int am_command_ps(am_settings *settings);
int am_command_doctor(am_settings *settings);
int am_command_stop(am_settings *settings);
int am_command_eval(am_settings *settings);
int am_command_config(am_settings *settings);

#endif
