/* A runtime as the settings want it, for every command that runs the engine itself. */
#ifndef AM_MAIN_START_H
#define AM_MAIN_START_H

#include "agents/runtime.h"
#include "main/settings.h"

/* The processors of --cpus; n is 0 where there are none. AM_EINVAL: no list of such as this process may use, or fewer than --threads. */
am_status am_start_cpus(const am_settings *settings, am_cpus *out, am_error *err);
/* who: told to another process that wants the folder. Shows progress. The runtime ends with am_runtime_shutdown. */
am_status am_start_runtime(const am_settings *settings, const char *who, am_runtime **out, am_error *err);

#endif
