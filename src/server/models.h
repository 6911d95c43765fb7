/* The models behind the server: which one answers a request, and what is said of them. */
#ifndef AM_SERVER_MODELS_H
#define AM_SERVER_MODELS_H

#include "server/internal.h"

enum { AM_MAX_RESIDENT = 64 }; /* models in memory that one request looks at */

static inline am_registry *am_models_of(const am_server *server) { return am_runtime_registry(atomic_load(&server->runtime)); }

/* The instance that answers x under this name (empty: the default), as x->instance: it stays until am_models_release, at the latest until x ends.
 * AM_AGAIN: it is being loaded. The handler then leaves x and its body as they are and returns at once; it is run again, from its beginning, when
 * the model is there (or cannot be loaded), and the client gets keep-alives meanwhile (stream: comments on a stream that is open). Else
 * *e: the name is unknown, or the model cannot be had. */
am_status am_models_lease(am_exchange *x, am_str name, bool stream, am_api_error *e);
void am_models_release(am_exchange *x);

/* Every name that a model is listed under: its own, and its aliases without a star. */
typedef void am_model_id_fn(void *arg, const am_model_view *view, const char *id);
void am_models_each(const am_server *server, am_model_id_fn *fn, void *arg);
uint32_t am_model_context(const am_model_view *view); /* tokens */

json_t *am_model_json(const am_server *server, const am_model_view *view);

#endif
