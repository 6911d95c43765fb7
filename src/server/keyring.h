/* The file of keys, <data-dir>/keys.json: tenants with their salts and quotas, and the hashes of the keys that open them.
 *
 * A key is shown once, when it is made; the file has BLAKE2b-256 of it. Keys have 256 random bits, so a hash without stretching cannot be
 * turned back. Mode 0600; a file that others can read is refused, because the salts are secrets too. */
#ifndef AM_SERVER_KEYRING_H
#define AM_SERVER_KEYRING_H

#include "cache/cache.h"

enum { AM_KEY_MAX = 512, AM_KEY_NOTE_MAX = 100 }; /* longest key that is looked at; longest note */
#define AM_TENANT_DEFAULT "default" /* in the file and on the command line; in am_tenant it is the empty name */

typedef struct am_quota {
    uint64_t agents, disk_bytes, requests_per_minute, parallel; /* 0: no limit */
} am_quota;

typedef struct am_keyring_tenant {
    am_tenant tenant;
    am_quota quota;
} am_keyring_tenant;

typedef struct am_key {
    char id[17];     /* the first 16 hex digits of the hash */
    char tenant[64]; /* empty: the default tenant, or an admin key */
    bool admin;
    am_hash hash;
    uint64_t created_s;
    char note[AM_KEY_NOTE_MAX + 1];
} am_key;

typedef struct am_keyring {
    am_keyring_tenant *tenants;
    size_t n_tenants;
    am_key *keys;
    size_t n_keys;
} am_keyring;

/* BLAKE2b-256 of a key as the file has it. */
am_hash am_key_hash(am_str key);

/* A file that is not there is an empty ring. AM_EPERM: others may read it; AM_EFORMAT says what is wrong where. Free it in either case. */
am_status am_keyring_read(const char *data_dir, am_keyring *ring, am_error *err);
am_status am_keyring_write(const char *data_dir, const am_keyring *ring, am_error *err);
void am_keyring_free(am_keyring *ring);
/* The path of the file; AM_ELIMIT when it is too long. */
am_status am_keyring_path(const char *data_dir, char *out, size_t cap, am_error *err);

/* One writer at a time: flock on the data folder (made when missing). Close *fd to let go. */
am_status am_keyring_lock(const char *data_dir, int *fd, am_error *err);

/* 1..63 of [A-Za-z0-9._-]. "default" is given back as the empty name. */
am_status am_tenant_name_parse(const char *text, char name[64], am_error *err);
/* The tenant of that name, made with a fresh salt (zeros for the default one) when it is not there. NULL: no memory. */
am_keyring_tenant *am_keyring_tenant_of(am_keyring *ring, const char *name, bool make);
/* Makes a key and appends its hash; text is the key itself, NUL-terminated. tenant: in am_tenant's form, must be in the ring unless admin. */
am_status am_keyring_add(am_keyring *ring, const char *tenant, bool admin, const char *note, char text[64], am_error *err);

#endif
