/* The commands that have a file of their own. Each returns the exit code of the process. */
#ifndef AM_MAIN_COMMANDS_H
#define AM_MAIN_COMMANDS_H

#include "base/log.h"
#include "main/settings.h"

enum { AM_EXIT_FAILED = 1, AM_EXIT_USAGE = 2, AM_EXIT_FOUND = 3 /* looked, and something is wrong */ };

int am_command_serve(am_settings *settings);
int am_command_chat(am_settings *settings);
int am_command_agents(am_settings *settings);
int am_command_agents_verify(am_settings *settings);
int am_command_models(am_settings *settings);
int am_command_keys(am_settings *settings);
int am_command_ps(am_settings *settings);
int am_command_doctor(am_settings *settings);
int am_command_stop(am_settings *settings);
int am_command_eval(am_settings *settings);

#endif
