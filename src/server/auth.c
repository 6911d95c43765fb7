/* Owns the keys of the running server and the tenants' counts.
 *
 * A presented key is hashed and its hash compared with every stored one in constant time, without stopping at the first that fits, so that
 * nothing is to be learnt from how long it took. A bucket holds a minute's requests and fills evenly: a burst of that size passes, then
 * one request each 60/limit seconds. Accounts are never freed while the server runs, so an exchange may point at one across a reload. */
#include "server/auth.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct am_account {
    am_account *next;
    am_tenant tenant; /* never changes */
    am_quota quota;
    bool bucket_used;
    double bucket; /* requests that may come now */
    uint64_t bucket_ns;
    uint64_t n_running;
};

typedef struct am_keyhole {
    am_hash hash;
    am_account *account; /* NULL: the admin's */
} am_keyhole;

struct am_auth {
    pthread_mutex_t lock; /* protects everything below */
    am_account *accounts; /* the first is the default tenant's */
    am_keyhole *holes;
    size_t n_holes, n_tenant_holes;
    bool admin_remote;
    bool closed; /* requests need a key */
};

static am_account *account_of(am_auth *auth, const am_tenant *tenant) {
    am_account **at = &auth->accounts;
    /* A tenant that was removed and made again has a new salt and is another one. */
    while (*at && (strcmp((*at)->tenant.name, tenant->name) != 0 || memcmp((*at)->tenant.salt, tenant->salt, sizeof tenant->salt) != 0))
        at = &(*at)->next;
    if (!*at && (*at = am_calloc(1, sizeof **at))) (*at)->tenant = *tenant;
    return *at;
}

am_status am_auth_create(am_auth **out, am_error *err) {
    const am_tenant nobody = {0};
    am_auth *auth = am_calloc(1, sizeof *auth);
    *out = NULL;
    if (!auth || !account_of(auth, &nobody)) {
        free(auth);
        return am_fail(err, AM_ENOMEM, "no memory for keys");
    }
    pthread_mutex_init(&auth->lock, NULL);
    *out = auth;
    return AM_OK;
}

void am_auth_free(am_auth *auth) {
    if (!auth) return;
    for (am_account *a = auth->accounts, *next; a; a = next) {
        next = a->next;
        sodium_memzero(&a->tenant, sizeof a->tenant);
        free(a);
    }
    free(auth->holes);
    pthread_mutex_destroy(&auth->lock);
    free(auth);
}

/* Fills holes (room for the ring's keys and two more) under the lock; false: no memory. */
static bool fill(am_auth *auth, const am_auth_options *o, am_keyring *ring, am_keyhole *holes) {
    const am_tenant nobody = {0};
    size_t n = 0, n_tenant = 0;
    for (size_t i = 0; i < ring->n_tenants; i++)
        if (!account_of(auth, &ring->tenants[i].tenant)) return false;
    for (size_t i = 0; i < ring->n_keys; i++) {
        const am_key *key = &ring->keys[i];
        const am_keyring_tenant *t = key->admin ? NULL : am_keyring_tenant_of(ring, key->tenant, false);
        holes[n++] = (am_keyhole){key->hash, t ? account_of(auth, &t->tenant) : NULL};
        n_tenant += t != NULL;
    }
    if (o->api_key) holes[n++] = (am_keyhole){am_key_hash(am_str_of(o->api_key)), account_of(auth, &nobody)}, n_tenant++;
    if (o->admin_key) holes[n++] = (am_keyhole){am_key_hash(am_str_of(o->admin_key)), NULL};
    for (am_account *a = auth->accounts; a; a = a->next) {
        const am_keyring_tenant *t = am_keyring_tenant_of(ring, a->tenant.name, false);
        bool changed = !t || memcmp(&a->quota, &t->quota, sizeof a->quota) != 0;
        a->quota = t ? t->quota : (am_quota){0};
        if (changed) a->bucket_used = false;
    }
    free(auth->holes);
    auth->holes = holes;
    auth->n_holes = n;
    auth->n_tenant_holes = n_tenant;
    auth->admin_remote = o->admin_remote;
    auth->closed = auth->closed || o->required || n_tenant || ring->n_tenants; /* a file that goes away opens nothing */
    return true;
}

am_status am_auth_load(am_auth *auth, const am_auth_options *options, am_error *err) {
    am_keyring ring = {0};
    am_status status = options->data_dir ? am_keyring_read(options->data_dir, &ring, err) : AM_OK;
    if (status) return status;
    am_keyhole *holes = am_calloc(ring.n_keys + 2, sizeof *holes);
    pthread_mutex_lock(&auth->lock);
    bool done = holes && fill(auth, options, &ring, holes);
    pthread_mutex_unlock(&auth->lock);
    if (!done) free(holes);
    am_keyring_free(&ring);
    return done ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for keys");
}

size_t am_auth_n_keys(am_auth *auth) {
    pthread_mutex_lock(&auth->lock);
    size_t n = auth->n_tenant_holes;
    pthread_mutex_unlock(&auth->lock);
    return n;
}

bool am_auth_is_closed(am_auth *auth) {
    pthread_mutex_lock(&auth->lock);
    bool closed = auth->closed;
    pthread_mutex_unlock(&auth->lock);
    return closed;
}

const char *am_auth_text(am_auth_verdict verdict) {
    switch (verdict) {
    case AM_AUTH_OK: return "";
    case AM_AUTH_MISSING: return "this server wants an API key: send the header authorization: Bearer KEY, or x-api-key: KEY";
    case AM_AUTH_WRONG: return "the API key is not one of this server's";
    case AM_AUTH_IS_ADMIN: return "the admin key opens the admin's endpoints only; send a tenant's key";
    case AM_AUTH_IS_TENANT: return "this endpoint is the admin's; a tenant's key does not open it";
    case AM_AUTH_REMOTE: return "the admin's endpoints answer on this machine only (see --admin-remote)";
    }
    return "";
}

/* The keyhole that key fits, or NULL; under the lock. */
static const am_keyhole *find(const am_auth *auth, am_str key) {
    const am_keyhole *found = NULL;
    am_hash hash = am_key_hash(key);
    for (size_t i = 0; i < auth->n_holes; i++)
        if (sodium_memcmp(hash.b, auth->holes[i].hash.b, sizeof hash.b) == 0) found = &auth->holes[i];
    return found;
}

am_auth_verdict am_auth_tenant(am_auth *auth, am_str key, am_account **account) {
    am_auth_verdict verdict = AM_AUTH_OK;
    pthread_mutex_lock(&auth->lock);
    *account = auth->accounts;
    const am_keyhole *hole = key.n && key.n <= AM_KEY_MAX ? find(auth, key) : NULL;
    if (hole && hole->account) *account = hole->account;
    else if (auth->closed) verdict = hole ? AM_AUTH_IS_ADMIN : key.n ? AM_AUTH_WRONG : AM_AUTH_MISSING;
    pthread_mutex_unlock(&auth->lock);
    return verdict;
}

am_auth_verdict am_auth_admin(am_auth *auth, am_str key, bool local) {
    am_auth_verdict verdict = AM_AUTH_OK;
    pthread_mutex_lock(&auth->lock);
    const am_keyhole *hole = key.n && key.n <= AM_KEY_MAX ? find(auth, key) : NULL;
    bool is_admin = hole && !hole->account;
    if (!local && !auth->admin_remote) verdict = AM_AUTH_REMOTE;
    else if (!is_admin && (!local || auth->n_holes || auth->closed)) verdict = hole ? AM_AUTH_IS_TENANT : key.n ? AM_AUTH_WRONG : AM_AUTH_MISSING;
    pthread_mutex_unlock(&auth->lock);
    return verdict;
}

bool am_auth_tenant_named(am_auth *auth, const char *name, am_tenant *out) {
    bool found = false;
    if (strcmp(name, AM_TENANT_DEFAULT) == 0) name = "";
    pthread_mutex_lock(&auth->lock);
    for (const am_account *a = auth->accounts; a; a = a->next)
        if (strcmp(a->tenant.name, name) == 0) {
            *out = a->tenant;
            found = true;
        }
    pthread_mutex_unlock(&auth->lock);
    return found;
}

const am_tenant *am_account_tenant(const am_account *account) { return &account->tenant; }

am_quota am_account_quota(am_auth *auth, const am_account *account) {
    pthread_mutex_lock(&auth->lock);
    am_quota quota = account->quota;
    pthread_mutex_unlock(&auth->lock);
    return quota;
}

bool am_account_rate(am_auth *auth, am_account *a, uint64_t now_ns, am_rate *rate) {
    bool ok = true;
    *rate = (am_rate){0};
    pthread_mutex_lock(&auth->lock);
    double limit = (double)a->quota.requests_per_minute, per_ms = limit / 60000;
    if (limit > 0) {
        if (!a->bucket_used) a->bucket = limit;
        else if (now_ns > a->bucket_ns) a->bucket += (double)(now_ns - a->bucket_ns) / 1e6 * per_ms;
        if (a->bucket > limit) a->bucket = limit;
        a->bucket_used = true;
        a->bucket_ns = now_ns;
        ok = a->bucket >= 1;
        if (ok) a->bucket -= 1;
        else rate->retry_ms = (uint64_t)((1 - a->bucket) / per_ms) + 1;
        rate->limit = a->quota.requests_per_minute;
        rate->remaining = (uint64_t)a->bucket;
        rate->reset_ms = (uint64_t)((limit - a->bucket) / per_ms);
    }
    pthread_mutex_unlock(&auth->lock);
    return ok;
}

bool am_account_begin(am_auth *auth, am_account *a, uint64_t *limit) {
    pthread_mutex_lock(&auth->lock);
    *limit = a->quota.parallel;
    bool ok = a->quota.parallel == 0 || a->n_running < a->quota.parallel;
    if (ok) a->n_running++;
    pthread_mutex_unlock(&auth->lock);
    return ok;
}

void am_account_end(am_auth *auth, am_account *a) {
    pthread_mutex_lock(&auth->lock);
    a->n_running--;
    pthread_mutex_unlock(&auth->lock);
}
