/* base/: buffers, arenas, hashes, the worker team, JSON members, atomic file writes. */
#include "base/buf.h"
#include "base/fault.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/workers.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void buf_never_passes_its_maximum(void **state) {
    (void)state;
    am_buf b;
    am_buf_init(&b, 10);
    assert_int_equal(am_buf_append(&b, "0123456789", 10), AM_OK);
    assert_int_equal(am_buf_putc(&b, 'x'), AM_ELIMIT);
    assert_int_equal(b.n, 10);
    assert_string_equal(b.p, "0123456789");
    am_buf_free(&b);
}

static void buf_reports_a_failed_allocation_until_it_is_cleared(void **state) {
    (void)state;
    am_buf b;
    am_buf_init(&b, 1000);
    am_fault_alloc_at(1);
    assert_int_equal(am_buf_putc(&b, 'x'), AM_ENOMEM);
    assert_int_equal(am_buf_putc(&b, 'y'), AM_ENOMEM);
    assert_int_equal(am_buf_printf(&b, "%d", 1), AM_ENOMEM);
    assert_int_equal(b.n, 0);
    am_buf_clear(&b);
    assert_int_equal(am_buf_putc(&b, 'z'), AM_OK);
    assert_string_equal(b.p, "z");
    am_buf_free(&b);
}

static void arena_is_zeroed_aligned_and_bounded(void **state) {
    (void)state;
    am_arena *a = am_arena_create(1 << 20);
    for (int i = 1; i < 200; i++) {
        unsigned char *p = am_arena_alloc(a, (size_t)i);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (int j = 0; j < i; j++) assert_int_equal(p[j], 0);
        memset(p, 0xff, (size_t)i);
    }
    assert_null(am_arena_alloc(a, 1 << 20));
    assert_null(am_arena_alloc(a, SIZE_MAX));
    am_arena_free(a);
}

static void blake2b_and_xxh3_match_published_vectors(void **state) {
    (void)state;
    char hex[65];
    /* BLAKE2b-256 of eight zero bytes followed by nothing: one empty part. Reference: Python hashlib.blake2b(digest_size=32). */
    am_hash h = am_hash_parts(NULL, &(am_hash_part){NULL, 0}, 1);
    am_hash_hex(&h, hex);
    assert_string_equal(hex, "81e47a19e6b29b0a65b9591762ce5143ed30d0261e5d24a3201752506b20f15c");
    am_sum s = am_sum_of("", 0); /* XXH3-128 of nothing, from xxHash's own sanity table */
    char sum[33];
    am_sum_hex(&s, sum);
    assert_string_equal(sum, "99aa06d3014798d86001c324468d497f");
    static uint8_t many[100003]; /* by the processor's vectors; the reference is xxHash's scalar code (XXH_VECTOR 0) */
    for (size_t i = 0; i < sizeof many; i++) many[i] = (uint8_t)(i * 31 + (i >> 8));
    s = am_sum_of(many, sizeof many);
    am_sum_hex(&s, sum);
    assert_string_equal(sum, "d4b21312540b777942a7a0a88ac8b472");
    am_sum_state *pieces = am_sum_begin();
    for (size_t at = 0, n; at < sizeof many; at += n) {
        n = sizeof many - at < 777 ? sizeof many - at : 777;
        am_sum_add(pieces, many + at, n);
    }
    am_sum parts = am_sum_end(pieces);
    assert_memory_equal(parts.b, s.b, sizeof s.b);
    am_hash back;
    assert_true(am_hash_parse(hex, 64, &back));
    assert_true(am_hash_eq(&h, &back));
    assert_false(am_hash_parse("zz", 2, &back));
}

static void count_task(void *arg, size_t task, size_t worker) {
    (void)worker;
    atomic_fetch_add(&((atomic_int *)arg)[task], 1);
}

static void workers_run_every_task_once(void **state) {
    (void)state;
    for (size_t n = 1; n <= 4; n++) {
        am_workers *w;
        assert_int_equal(am_workers_create(n, &w, NULL), AM_OK);
        for (int round = 0; round < 500; round++) {
            atomic_int hits[37] = {0};
            am_workers_run(w, 37, count_task, hits);
            for (int i = 0; i < 37; i++) assert_int_equal(atomic_load(&hits[i]), 1);
        }
        am_workers_free(w);
    }
}

static void json_members_say_what_is_wrong(void **state) {
    (void)state;
    json_t *v;
    am_error err;
    assert_int_equal(am_json_parse(AM_STR("{\"a\":-1,\"b\":\"x\"}"), true, &v, &err), AM_OK);
    uint64_t n;
    assert_int_equal(am_json_u64(v, "a", 10, &n, &err), AM_EFORMAT);
    assert_non_null(strstr(err.message, "'a' is -1"));
    assert_int_equal(am_json_u64(v, "b", 10, &n, &err), AM_EFORMAT);
    assert_int_equal(am_json_u64(v, "c", 10, &n, &err), AM_ENOTFOUND);
    json_decref(v);
    assert_int_equal(am_json_parse(AM_STR("{\"a\":1,\"a\":2}"), true, &v, &err), AM_EFORMAT);
    am_buf exact;
    am_buf_init(&exact, 1 << 16);
    assert_int_equal(am_json_parse_exact(AM_STR("{\"a\": [18446744073709551615, -99999999999999999999, 1.5, 7, \"\\u00017\"], \"\\u000112345678901234567890\": 2}"), &v, &err), AM_OK);
    assert_int_equal(am_json_dump(v, &exact), AM_OK);
    assert_string_equal(exact.p, "{\"a\":[18446744073709551615,-99999999999999999999,1.5,7,\"\\u00017\"],\"\\u000112345678901234567890\":2}");
    json_decref(v);
    am_buf_free(&exact);
    assert_int_equal(am_json_parse(AM_STR("[1000000000000000019884624838656,\"\\\"12345678901234567890\",-0.12345678901234567890]"), true, &v, &err), AM_OK);
    assert_true(json_is_real(json_array_get(v, 0)) && json_real_value(json_array_get(v, 0)) == 1e30);
    assert_string_equal(json_string_value(json_array_get(v, 1)), "\"12345678901234567890");
    json_decref(v);
    char *deep = malloc(100000);
    memset(deep, '[', 100000);
    assert_int_equal(am_json_parse((am_str){deep, 100000}, false, &v, &err), AM_EFORMAT);
    free(deep);
}

static void json_quote_replaces_bytes_that_are_not_utf8(void **state) {
    (void)state;
    am_buf b;
    am_buf_init(&b, 100);
    assert_int_equal(am_json_quote(AM_STR("a\"\n\xc3\xa4\xff"), &b), AM_OK);
    assert_string_equal(b.p, "\"a\\\"\\n\xc3\xa4\xef\xbf\xbd\"");
    am_buf_free(&b);
}

static int failing_rename(const char *from, const char *to) {
    (void)from, (void)to;
    return -EIO;
}

static void atomic_write_leaves_the_old_file_on_failure(void **state) {
    (void)state;
    char dir[] = "/tmp/am_base_XXXXXX";
    assert_non_null(mkdtemp(dir));
    am_error err;
    assert_int_equal(am_fs_write_atomic(dir, "x.tmp", "x", &AM_STR("one"), 1, true, &err), AM_OK);
    am_io_ops broken = am_io_system;
    broken.rename = failing_rename;
    am_io = &broken;
    assert_int_equal(am_fs_write_atomic(dir, "x.tmp", "x", &AM_STR("two"), 1, true, &err), AM_EIO);
    am_io = &am_io_system;
    char path[64];
    snprintf(path, sizeof path, "%s/x", dir);
    am_buf b;
    am_buf_init(&b, 100);
    assert_int_equal(am_fs_read_file(path, &b, 100, &err), AM_OK);
    assert_string_equal(b.p, "one");
    am_buf_free(&b);
    snprintf(path, sizeof path, "%s/x.tmp", dir);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(path, sizeof path, "rm -rf %s", dir);
    assert_int_equal(system(path), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_never_passes_its_maximum),
        cmocka_unit_test(buf_reports_a_failed_allocation_until_it_is_cleared),
        cmocka_unit_test(arena_is_zeroed_aligned_and_bounded),
        cmocka_unit_test(blake2b_and_xxh3_match_published_vectors),
        cmocka_unit_test(workers_run_every_task_once),
        cmocka_unit_test(json_members_say_what_is_wrong),
        cmocka_unit_test(json_quote_replaces_bytes_that_are_not_utf8),
        cmocka_unit_test(atomic_write_leaves_the_old_file_on_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
