/* Which model names a request may ask for. */
#ifndef AM_SERVER_MODELS_H
#define AM_SERVER_MODELS_H

#include "server/internal.h"

/* true: the loaded model answers under this name (any name, or its own alone, as options say); else *e. */
bool am_model_name_ok(const am_server *server, am_str name, am_api_error *e);

#endif
