/* What operators ask of a running server, as commands. */
#ifndef AM_MAIN_OPERATE_H
#define AM_MAIN_OPERATE_H

#include "main/commands.h"

int am_command_load(am_settings *settings);
int am_command_unload(am_settings *settings);
int am_command_swap(am_settings *settings);
int am_command_drain(am_settings *settings);
int am_command_evict(am_settings *settings);
int am_command_clear(am_settings *settings);
int am_command_clear_pool(am_settings *settings);
int am_command_pause(am_settings *settings);
int am_command_resume(am_settings *settings);
int am_command_status(am_settings *settings);

#endif
