/* Settings of a running server, read anew. */
#ifndef AM_MAIN_RELOAD_H
#define AM_MAIN_RELOAD_H

#include "main/settings.h"
#include "server/server.h"

am_server_options am_server_options_of(const am_settings *settings); /* views into settings */

/* Looks at keys.json; one that is not as at the look before is taken up. Called about every second, and once, with NULL, before the server
 * reads it for the first time: what changes while a model is loaded must not be missed. */
void am_reload_keys(const am_settings *settings, am_server *server);

/* All three sources again. What can change does, and the log says what did and what waits for a restart; what is wrong changes nothing. *settings is
 * what the server runs with, and stays the caller's. */
void am_reload_settings(am_settings *settings, am_server *server);

#endif
