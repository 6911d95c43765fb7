/* Owns keys.json: its form, its checks, its atomic replacement.
 *
 *     {"version": 1,
 *      "tenants": [{"name": "default" | NAME, "salt": 64 hex digits, "quota": {"agents": N, "disk_bytes": N, "requests_per_minute": N, "parallel": N}}],
 *      "keys": [{"hash": 64 hex digits, "tenant": NAME} or {"hash": ..., "admin": true}, each with "created": seconds since 1970, "note": TEXT}]}
 *
 * A tenant stays when its last key is removed: its salt is what its agents' blocks are named by. */
#include "server/keyring.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"

#include <fcntl.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 16 << 20, KEY_BYTES = 32 };
static const char key_prefix[] = "sk-am-";

am_hash am_key_hash(am_str key) {
    am_hash_part parts[] = {{"agent-memory key", 16}, {key.p, key.n}};
    return am_hash_parts(NULL, parts, 2);
}

am_status am_keyring_path(const char *data_dir, char *out, size_t cap, am_error *err) {
    return am_fs_join(out, cap, data_dir, "keys.json", err);
}

void am_keyring_free(am_keyring *ring) {
    if (ring->tenants) sodium_memzero(ring->tenants, ring->n_tenants * sizeof *ring->tenants); /* salts */
    free(ring->tenants);
    free(ring->keys);
    *ring = (am_keyring){0};
}

am_status am_tenant_name_parse(const char *text, char name[64], am_error *err) {
    size_t n = strlen(text);
    bool ok = n >= 1 && n <= 63 && text[0] != '.' && text[0] != '-';
    for (size_t i = 0; ok && i < n; i++)
        ok = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= '0' && text[i] <= '9') ||
             strchr("._-", text[i]);
    if (!ok) return am_fail(err, AM_EINVAL, "a tenant's name has 1 to 63 letters, digits, '.', '_' or '-', not '%.80s'", text);
    snprintf(name, 64, "%s", strcmp(text, AM_TENANT_DEFAULT) == 0 ? "" : text);
    return AM_OK;
}

am_keyring_tenant *am_keyring_tenant_of(am_keyring *ring, const char *name, bool make) {
    for (size_t i = 0; i < ring->n_tenants; i++)
        if (strcmp(ring->tenants[i].tenant.name, name) == 0) return &ring->tenants[i];
    if (!make) return NULL;
    am_keyring_tenant *tenants = realloc(ring->tenants, (ring->n_tenants + 1) * sizeof *tenants);
    if (!tenants) return NULL;
    ring->tenants = tenants;
    am_keyring_tenant *t = &tenants[ring->n_tenants++];
    *t = (am_keyring_tenant){0};
    snprintf(t->tenant.name, sizeof t->tenant.name, "%s", name);
    if (*name) am_random_bytes(t->tenant.salt, sizeof t->tenant.salt);
    return t;
}

static am_key *append_key(am_keyring *ring, const am_hash *hash) {
    am_key *keys = realloc(ring->keys, (ring->n_keys + 1) * sizeof *keys);
    if (!keys) return NULL;
    ring->keys = keys;
    am_key *key = &keys[ring->n_keys++];
    char hex[65];
    *key = (am_key){.hash = *hash};
    am_hash_hex(hash, hex);
    memcpy(key->id, hex, 16);
    return key;
}

am_status am_keyring_add(am_keyring *ring, const char *tenant, bool admin, const char *note, char text[64], am_error *err) {
    uint8_t random[KEY_BYTES];
    char encoded[sodium_base64_ENCODED_LEN(KEY_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
    am_random_bytes(random, sizeof random);
    sodium_bin2base64(encoded, sizeof encoded, random, sizeof random, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    snprintf(text, 64, "%s%s", key_prefix, encoded);
    sodium_memzero(random, sizeof random);
    sodium_memzero(encoded, sizeof encoded);
    am_hash hash = am_key_hash(am_str_of(text));
    am_key *key = append_key(ring, &hash);
    if (!key) return am_fail(err, AM_ENOMEM, "no memory for a key");
    key->admin = admin;
    key->created_s = am_wall_ns() / 1000000000u;
    snprintf(key->tenant, sizeof key->tenant, "%s", admin ? "" : tenant);
    snprintf(key->note, sizeof key->note, "%s", note ? note : "");
    return AM_OK;
}

static am_status read_quota(const json_t *o, am_quota *quota, am_error *err) {
    const struct {
        const char *name;
        uint64_t *to;
    } members[] = {{"agents", &quota->agents}, {"disk_bytes", &quota->disk_bytes}, {"requests_per_minute", &quota->requests_per_minute},
                   {"parallel", &quota->parallel}};
    am_status status = AM_OK;
    for (size_t i = 0; i < sizeof members / sizeof members[0] && !status; i++) {
        status = am_json_u64(o, members[i].name, INT64_MAX, members[i].to, err);
        if (status == AM_ENOTFOUND) status = AM_OK;
    }
    return status;
}

static am_status read_tenant(const json_t *o, am_keyring *ring, am_error *err) {
    am_str name, salt;
    am_hash bytes;
    char own[64], copy[128];
    am_status status = am_json_str(o, "name", &name, err);
    if (!status) status = am_json_str(o, "salt", &salt, err);
    if (status) return status;
    snprintf(copy, sizeof copy, "%.*s", (int)(name.n < 100 ? name.n : 100), name.p);
    if ((status = am_tenant_name_parse(copy, own, err))) return status;
    if (!am_hash_parse(salt.p, salt.n, &bytes)) return am_fail(err, AM_EFORMAT, "the salt of tenant '%s' is not 64 hex digits", copy);
    if (am_keyring_tenant_of(ring, own, false)) return am_fail(err, AM_EFORMAT, "tenant '%s' is there twice", copy);
    am_keyring_tenant *t = am_keyring_tenant_of(ring, own, true);
    if (!t) return am_fail(err, AM_ENOMEM, "no memory for keys");
    memcpy(t->tenant.salt, bytes.b, sizeof bytes.b);
    const json_t *quota = json_object_get(o, "quota");
    return quota ? read_quota(quota, &t->quota, err) : AM_OK;
}

static am_status read_key(const json_t *o, am_keyring *ring, am_error *err) {
    am_str hex, tenant = {0}, note = {0};
    am_hash hash;
    bool admin = false;
    char own[64] = "", copy[128];
    am_status status = am_json_str(o, "hash", &hex, err);
    if (status) return status;
    if (!am_hash_parse(hex.p, hex.n, &hash)) return am_fail(err, AM_EFORMAT, "a key's hash is not 64 hex digits");
    status = am_json_bool(o, "admin", &admin, err);
    if (status && status != AM_ENOTFOUND) return status;
    if (!admin) {
        if ((status = am_json_str(o, "tenant", &tenant, err))) return status;
        snprintf(copy, sizeof copy, "%.*s", (int)(tenant.n < 100 ? tenant.n : 100), tenant.p);
        if ((status = am_tenant_name_parse(copy, own, err))) return status;
        if (!am_keyring_tenant_of(ring, own, false)) return am_fail(err, AM_EFORMAT, "a key names tenant '%s', which is not in the file", copy);
    }
    am_key *key = append_key(ring, &hash);
    if (!key) return am_fail(err, AM_ENOMEM, "no memory for keys");
    key->admin = admin;
    memcpy(key->tenant, own, sizeof own);
    if (am_json_str(o, "note", &note, NULL) == AM_OK)
        snprintf(key->note, sizeof key->note, "%.*s", (int)(note.n < AM_KEY_NOTE_MAX ? note.n : AM_KEY_NOTE_MAX), note.p);
    status = am_json_u64(o, "created", INT64_MAX, &key->created_s, err);
    return status == AM_ENOTFOUND ? AM_OK : status;
}

static am_status read_root(const json_t *root, am_keyring *ring, am_error *err) {
    uint64_t version = 0;
    am_status status = am_json_u64(root, "version", INT64_MAX, &version, err);
    if (status) return status;
    if (version != 1) return am_fail(err, AM_EUNSUPPORTED, "version %llu of the file is not known here", (unsigned long long)version);
    const json_t *tenants = json_object_get(root, "tenants"), *keys = json_object_get(root, "keys");
    if (!json_is_array(tenants) || !json_is_array(keys)) return am_fail(err, AM_EFORMAT, "it must have arrays 'tenants' and 'keys'");
    for (size_t i = 0; !status && i < json_array_size(tenants); i++) status = read_tenant(json_array_get(tenants, i), ring, err);
    for (size_t i = 0; !status && i < json_array_size(keys); i++) status = read_key(json_array_get(keys, i), ring, err);
    return status == AM_ENOTFOUND ? AM_EFORMAT : status; /* a member that must be there is not */
}

am_status am_keyring_read(const char *data_dir, am_keyring *ring, am_error *err) {
    char path[4096];
    struct stat st;
    json_t *root = NULL;
    am_error why = {0};
    *ring = (am_keyring){0};
    am_status status = am_keyring_path(data_dir, path, sizeof path, err);
    if (status) return status;
    int failed = am_io->lstat(path, &st);
    if (failed == -ENOENT || failed == -ENOTDIR) return AM_OK;
    if (failed) return am_fail(err, AM_EIO, "%s: %s", path, strerror(-failed));
    if (st.st_mode & 077) return am_fail(err, AM_EPERM, "%s may be read by others; chmod 600 %s", path, path);
    status = am_json_read(path, MAX_FILE_BYTES, &root, &why);
    if (status) return am_fail(err, status, "%s", why.message);
    status = read_root(root, ring, &why);
    json_decref(root);
    if (!status) return AM_OK;
    am_keyring_free(ring);
    return am_fail(err, status, "%s: %s", path, why.message);
}

static json_t *tenant_json(const am_keyring_tenant *t) {
    am_hash salt;
    char hex[65];
    memcpy(salt.b, t->tenant.salt, sizeof salt.b);
    am_hash_hex(&salt, hex);
    return json_pack("{s:s, s:s, s:{s:I, s:I, s:I, s:I}}", "name", t->tenant.name[0] ? t->tenant.name : AM_TENANT_DEFAULT, "salt", hex, "quota",
                     "agents", (json_int_t)t->quota.agents, "disk_bytes", (json_int_t)t->quota.disk_bytes, "requests_per_minute",
                     (json_int_t)t->quota.requests_per_minute, "parallel", (json_int_t)t->quota.parallel);
}

static json_t *key_json(const am_key *key) {
    char hex[65];
    am_hash_hex(&key->hash, hex);
    json_t *o = json_pack("{s:s, s:I, s:s}", "hash", hex, "created", (json_int_t)key->created_s, "note", key->note);
    if (!o) return NULL;
    if (key->admin) json_object_set_new(o, "admin", json_true());
    else json_object_set_new(o, "tenant", json_string(key->tenant[0] ? key->tenant : AM_TENANT_DEFAULT));
    return o;
}

am_status am_keyring_write(const char *data_dir, const am_keyring *ring, am_error *err) {
    json_t *tenants = json_array(), *keys = json_array();
    bool failed = !tenants || !keys;
    for (size_t i = 0; !failed && i < ring->n_tenants; i++) failed = json_array_append_new(tenants, tenant_json(&ring->tenants[i])) != 0;
    for (size_t i = 0; !failed && i < ring->n_keys; i++) failed = json_array_append_new(keys, key_json(&ring->keys[i])) != 0;
    json_t *root = json_pack("{s:i, s:o, s:o}", "version", 1, "tenants", tenants, "keys", keys); /* takes both, also when it fails */
    char *text = failed || !root ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    if (!text) return am_fail(err, AM_ENOMEM, "no memory to write the keys");
    am_str parts[] = {am_str_of(text), AM_STR("\n")};
    am_status status = am_fs_write_atomic(data_dir, "keys.json.tmp", "keys.json", parts, 2, true, err);
    sodium_memzero(text, parts[0].n);
    free(text);
    return status;
}

am_status am_keyring_lock(const char *data_dir, int *fd, am_error *err) {
    *fd = -1;
    am_status status = am_fs_mkdirs(data_dir, err);
    if (status) return status;
    *fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 || flock(*fd, LOCK_EX)) {
        status = am_fail(err, AM_EIO, "%s: %s", data_dir, strerror(errno));
        if (*fd >= 0) close(*fd);
        *fd = -1;
    }
    return status;
}
