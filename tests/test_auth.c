/* Keys and limits without a server: the file of keys under damage, verdicts, buckets of requests, and reloading while others check. */
#include "server/auth.h"

#include "base/fs.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];
static char key_a[64], key_b[64], key_admin[64];

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/am-auth-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return 0;
}

static int teardown(void **state) {
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s/keys.json", dir);
    unlink(path);
    return rmdir(dir);
}

/* Tenants a and b with a key each, and the admin's; quota is a's. */
static void write_ring(am_quota quota) {
    am_keyring ring = {0};
    am_keyring_tenant_of(&ring, "a", true)->quota = quota;
    assert_non_null(am_keyring_tenant_of(&ring, "b", true));
    assert_int_equal(am_keyring_add(&ring, "a", false, "of a", key_a, NULL), AM_OK);
    assert_int_equal(am_keyring_add(&ring, "b", false, NULL, key_b, NULL), AM_OK);
    assert_int_equal(am_keyring_add(&ring, "", true, NULL, key_admin, NULL), AM_OK);
    assert_int_equal(am_keyring_write(dir, &ring, NULL), AM_OK);
    am_keyring_free(&ring);
}

static am_auth *load(am_auth *auth, const am_auth_options *options) {
    am_error err = {0};
    if (!auth) assert_int_equal(am_auth_create(&auth, &err), AM_OK);
    if (am_auth_load(auth, options, &err)) fail_msg("%s", err.message);
    return auth;
}

static void what_is_written_is_read(void **state) {
    (void)state;
    am_keyring ring;
    write_ring((am_quota){.agents = 1, .disk_bytes = 2, .requests_per_minute = 3, .parallel = 4});
    assert_int_equal(am_keyring_read(dir, &ring, NULL), AM_OK);
    assert_int_equal(ring.n_tenants, 2);
    assert_int_equal(ring.n_keys, 3);
    const am_quota *q = &am_keyring_tenant_of(&ring, "a", false)->quota;
    assert_true(q->agents == 1 && q->disk_bytes == 2 && q->requests_per_minute == 3 && q->parallel == 4);
    assert_string_equal(ring.keys[0].note, "of a");
    assert_memory_not_equal(ring.tenants[0].tenant.salt, ring.tenants[1].tenant.salt, 32);
    am_hash hash = am_key_hash(am_str_of(key_b));
    assert_memory_equal(ring.keys[1].hash.b, hash.b, 32);
    assert_true(ring.keys[2].admin);
    am_keyring_free(&ring);
    assert_int_equal(am_keyring_read("/tmp/am-no-such-folder", &ring, NULL), AM_OK);
    assert_int_equal(ring.n_keys, 0);
}

static void damaged_files_are_refused_with_a_reason(void **state) {
    (void)state;
    char path[128];
    am_buf whole;
    am_error err;
    am_keyring ring;
    write_ring((am_quota){0});
    snprintf(path, sizeof path, "%s/keys.json", dir);
    am_buf_init(&whole, 65536);
    assert_int_equal(am_fs_read_file(path, &whole, 65536, NULL), AM_OK);
    for (size_t n = 0; n + 1 < whole.n; n++) { /* cut anywhere */
        am_str part = {whole.p, n};
        assert_int_equal(am_fs_write_atomic(dir, "k.tmp", "keys.json", &part, 1, false, NULL), AM_OK);
        if (n + 2 < whole.n) assert_int_not_equal(am_keyring_read(dir, &ring, &err), AM_OK);
        am_keyring_free(&ring);
    }
    for (size_t i = 0; i < whole.n; i++) { /* any byte another: read or refused, never a crash */
        char before = whole.p[i];
        whole.p[i] = (char)(before ^ 1);
        am_str part = am_buf_str(&whole);
        assert_int_equal(am_fs_write_atomic(dir, "k.tmp", "keys.json", &part, 1, false, NULL), AM_OK);
        if (am_keyring_read(dir, &ring, &err)) assert_non_null(strstr(err.message, "keys.json"));
        am_keyring_free(&ring);
        whole.p[i] = before;
    }
    am_buf_free(&whole);
    write_ring((am_quota){0});
    chmod(path, 0640);
    assert_int_equal(am_keyring_read(dir, &ring, &err), AM_EPERM);
    write_ring((am_quota){0});
}

static void verdicts(void **state) {
    (void)state;
    am_account *account, *of_a, *of_b;
    write_ring((am_quota){0});
    am_auth *auth = load(NULL, &(am_auth_options){0});
    assert_int_equal(am_auth_tenant(auth, AM_STR("anything"), &account), AM_AUTH_OK); /* no keys: clients' dummies count for nothing */
    assert_string_equal(am_account_tenant(account)->name, "");
    assert_int_equal(am_auth_admin(auth, AM_STR(""), true), AM_AUTH_OK);
    assert_int_equal(am_auth_admin(auth, AM_STR(""), false), AM_AUTH_REMOTE);

    load(auth, &(am_auth_options){.data_dir = dir, .api_key = "simple"});
    assert_int_equal(am_auth_n_keys(auth), 3);
    assert_int_equal(am_auth_tenant(auth, am_str_of(key_a), &of_a), AM_AUTH_OK);
    assert_int_equal(am_auth_tenant(auth, am_str_of(key_b), &of_b), AM_AUTH_OK);
    assert_int_equal(am_auth_tenant(auth, AM_STR("simple"), &account), AM_AUTH_OK);
    assert_string_equal(am_account_tenant(of_a)->name, "a");
    assert_string_equal(am_account_tenant(of_b)->name, "b");
    assert_string_equal(am_account_tenant(account)->name, "");
    static const uint8_t zeros[32];
    assert_memory_equal(am_account_tenant(account)->salt, zeros, 32);
    assert_memory_not_equal(am_account_tenant(of_a)->salt, zeros, 32);
    assert_int_equal(am_auth_tenant(auth, AM_STR(""), &account), AM_AUTH_MISSING);
    assert_int_equal(am_auth_tenant(auth, AM_STR("simpl"), &account), AM_AUTH_WRONG);
    assert_int_equal(am_auth_tenant(auth, (am_str){key_a, 10}, &account), AM_AUTH_WRONG);
    assert_int_equal(am_auth_tenant(auth, am_str_of(key_admin), &account), AM_AUTH_IS_ADMIN);
    assert_int_equal(am_auth_admin(auth, am_str_of(key_admin), true), AM_AUTH_OK);
    assert_int_equal(am_auth_admin(auth, am_str_of(key_a), true), AM_AUTH_IS_TENANT);
    assert_int_equal(am_auth_admin(auth, AM_STR(""), true), AM_AUTH_MISSING);
    assert_int_equal(am_auth_admin(auth, am_str_of(key_admin), false), AM_AUTH_REMOTE);
    load(auth, &(am_auth_options){.data_dir = dir, .admin_remote = true});
    assert_int_equal(am_auth_admin(auth, am_str_of(key_admin), false), AM_AUTH_OK);
    assert_int_equal(am_auth_admin(auth, AM_STR("x"), false), AM_AUTH_WRONG);
    assert_int_equal(am_auth_tenant(auth, AM_STR("simple"), &account), AM_AUTH_WRONG); /* no longer a key */
    assert_int_equal(am_auth_tenant(auth, am_str_of(key_a), &account), AM_AUTH_OK);
    assert_ptr_equal(account, of_a);
    load(auth, &(am_auth_options){0}); /* the file is gone: not open for that */
    assert_int_equal(am_auth_tenant(auth, AM_STR(""), &account), AM_AUTH_MISSING);
    am_auth_free(auth);
    auth = load(NULL, &(am_auth_options){.required = true});
    assert_int_equal(am_auth_tenant(auth, AM_STR(""), &account), AM_AUTH_MISSING);
    am_auth_free(auth);
}

static void a_bucket_fills_evenly(void **state) {
    (void)state;
    am_account *a;
    am_rate rate;
    const uint64_t s = 1000000000u, start = 1000 * s;
    write_ring((am_quota){.requests_per_minute = 6});
    am_auth *auth = load(NULL, &(am_auth_options){.data_dir = dir});
    assert_int_equal(am_auth_tenant(auth, am_str_of(key_a), &a), AM_AUTH_OK);
    for (unsigned i = 0; i < 6; i++) {
        assert_true(am_account_rate(auth, a, start, &rate));
        assert_int_equal(rate.remaining, 5 - i);
    }
    assert_int_equal(rate.reset_ms, 60000);
    assert_false(am_account_rate(auth, a, start + 9 * s, &rate));
    assert_in_range(rate.retry_ms, 999, 1002);
    load(auth, &(am_auth_options){.data_dir = dir}); /* reading the same again gives nobody a fresh bucket */
    assert_false(am_account_rate(auth, a, start + 9 * s, &rate));
    assert_true(am_account_rate(auth, a, start + 10 * s + 1, &rate));
    assert_false(am_account_rate(auth, a, start + 11 * s, &rate));
    assert_false(am_account_rate(auth, a, start, &rate)); /* a clock that goes back adds nothing */
    unsigned n = 0;
    while (am_account_rate(auth, a, start + 3600 * s, &rate)) n++;
    assert_int_equal(n, 6); /* never more than a minute's */
    assert_int_equal(am_auth_tenant(auth, am_str_of(key_b), &a), AM_AUTH_OK);
    for (unsigned i = 0; i < 1000; i++) assert_true(am_account_rate(auth, a, start, &rate));
    assert_int_equal(rate.limit, 0);
    am_auth_free(auth);
}

static void parallel_places_come_back(void **state) {
    (void)state;
    am_account *a;
    uint64_t limit;
    write_ring((am_quota){.parallel = 2});
    am_auth *auth = load(NULL, &(am_auth_options){.data_dir = dir});
    assert_int_equal(am_auth_tenant(auth, am_str_of(key_a), &a), AM_AUTH_OK);
    assert_true(am_account_begin(auth, a, &limit));
    assert_true(am_account_begin(auth, a, &limit));
    assert_false(am_account_begin(auth, a, &limit));
    assert_int_equal(limit, 2);
    load(auth, &(am_auth_options){.data_dir = dir});
    assert_false(am_account_begin(auth, a, &limit)); /* those that run still count */
    am_account_end(auth, a);
    assert_true(am_account_begin(auth, a, &limit));
    am_account_end(auth, a);
    am_account_end(auth, a);
    am_auth_free(auth);
}

static atomic_bool over;
static void *check_for_ever(void *arg) {
    am_auth *auth = arg;
    am_account *account;
    am_rate rate;
    uint64_t limit, n = 0;
    while (!atomic_load(&over)) {
        assert_int_equal(am_auth_tenant(auth, am_str_of(key_a), &account), AM_AUTH_OK);
        assert_int_equal(am_auth_tenant(auth, AM_STR("no"), &account), AM_AUTH_WRONG);
        am_auth_tenant(auth, am_str_of(key_a), &account);
        am_account_rate(auth, account, n += 1000, &rate);
        if (am_account_begin(auth, account, &limit)) am_account_end(auth, account);
        assert_string_equal(am_account_tenant(account)->name, "a");
    }
    return NULL;
}

static void reloads_disturb_nobody(void **state) {
    (void)state;
    pthread_t threads[3];
    write_ring((am_quota){.requests_per_minute = 100, .parallel = 2});
    am_auth *auth = load(NULL, &(am_auth_options){.data_dir = dir});
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, check_for_ever, auth);
    for (int i = 0; i < 200; i++) load(auth, &(am_auth_options){.data_dir = dir, .api_key = i % 2 ? "other" : NULL});
    atomic_store(&over, true);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    am_auth_free(auth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(damaged_files_are_refused_with_a_reason), cmocka_unit_test(verdicts),
        cmocka_unit_test(a_bucket_fills_evenly),   cmocka_unit_test(parallel_places_come_back),               cmocka_unit_test(reloads_disturb_nobody)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
