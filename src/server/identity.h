/* Which agent a request is of. */
#ifndef AM_SERVER_IDENTITY_H
#define AM_SERVER_IDENTITY_H

#include "server/internal.h"

/* Writes the agent's name, empty when the request names none. false: an explicit name is not allowed (*e says why). body: the request's JSON
 * object, or NULL. */
bool am_identity_find(const am_http_head *head, const json_t *body, char agent[AM_NAME_MAX + 1], am_api_error *e);

#endif
