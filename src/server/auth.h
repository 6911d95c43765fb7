/* Who is asking: keys to tenants, their limits, and what the admin's endpoints want.
 *
 * Three kinds of route: open (health, the page), tenant's (a key, once there are keys), admin's (see am_auth_admin). Without any key everything
 * belongs to the default tenant, and the program listens on loopback only. Thread-safe; checks take a short lock and no system call. */
#ifndef AM_SERVER_AUTH_H
#define AM_SERVER_AUTH_H

#include "server/keyring.h"

typedef struct am_auth am_auth;

/* A tenant as the running server knows it. Lives as long as the am_auth it is of, also when its keys are gone. */
typedef struct am_account am_account;

typedef struct am_auth_options {
    const char *api_key, *admin_key; /* from settings; NULL: none. Only their hashes are kept. */
    const char *data_dir;            /* whose keys.json is read; NULL: none is */
    bool admin_remote;               /* admin endpoints also from elsewhere, with the admin key */
    bool required;                   /* requests need a key even while there is none to have */
} am_auth_options;

am_status am_auth_create(am_auth **out, am_error *err);
void am_auth_free(am_auth *auth);
/* Reads everything anew; on failure what was stays. Buckets and counts of tenants that are still there go on. */
am_status am_auth_load(am_auth *auth, const am_auth_options *options, am_error *err);
/* Keys of tenants. Requests need one as soon as there is one, or a tenant in the file: removing the last
 * one, or the file, does not open a running server. */
size_t am_auth_n_keys(am_auth *auth);
bool am_auth_is_closed(am_auth *auth);

typedef enum am_auth_verdict { AM_AUTH_OK, AM_AUTH_MISSING, AM_AUTH_WRONG, AM_AUTH_IS_ADMIN, AM_AUTH_IS_TENANT, AM_AUTH_REMOTE } am_auth_verdict;
const char *am_auth_text(am_auth_verdict verdict); /* for people; static */

/* key: what the request brought, empty when nothing. */
am_auth_verdict am_auth_tenant(am_auth *auth, am_str key, am_account **account);
/* local: the other end is on this machine and nobody asks on another's behalf. Remote: only when options say so, and with the admin key. Local: the
 * admin key when there is one, or when there are tenants' keys; else anybody on this machine. */
am_auth_verdict am_auth_admin(am_auth *auth, am_str key, bool local);

/* The tenant of that name (empty, or AM_TENANT_DEFAULT: the default); false: there is none. Of one that was made anew, the new one. */
bool am_auth_tenant_named(am_auth *auth, const char *name, am_tenant *out);

const am_tenant *am_account_tenant(const am_account *account);
am_quota am_account_quota(am_auth *auth, const am_account *account);

typedef struct am_rate {
    uint64_t limit;            /* requests a minute; 0: none, and nothing below counts */
    uint64_t remaining;
    uint64_t reset_ms;         /* until the bucket is full again */
    uint64_t retry_ms;         /* refused: until the next request would be let in */
} am_rate;
/* Takes one request out of the tenant's bucket; false: it is empty. */
bool am_account_rate(am_auth *auth, am_account *account, uint64_t now_ns, am_rate *rate);
/* One more request runs; false: as many as may run do. Each true is ended once. */
bool am_account_begin(am_auth *auth, am_account *account, uint64_t *limit);
void am_account_end(am_auth *auth, am_account *account);

#endif
