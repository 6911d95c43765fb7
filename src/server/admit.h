/* What a request must show before its body is read: a key, and room in its tenant's limits. */
#ifndef AM_SERVER_ADMIT_H
#define AM_SERVER_ADMIT_H

#include "server/internal.h"

/* Network thread, after the route was found. Sets x->account. false: replied with 401, 403 or 429. fd: the client's socket. */
bool am_admit(am_exchange *x, int fd);

/* Request threads: may this tenant have `agent` (empty: not named, then prompt says which one it goes on with) after this request? Within its quotas:
 * true; agents without a name are forgotten to make room. A request without a name that would be kept beyond them all the same is answered, but not
 * kept: *ephemeral. false: 429 in *e. */
bool am_admit_agent(am_exchange *x, am_str agent, const am_tokens *prompt, bool *ephemeral, am_api_error *e);

#endif
