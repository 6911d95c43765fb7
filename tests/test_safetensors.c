/* The safetensors reader: each rule broken alone by a minimal file, every single-byte change of a valid one survived, and what the writer
 * builds read back. */
#include "model/safetensors.h"

#include "base/fs.h"
#include "model/tensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* length and header, then n_data zero bytes; a length of -1: the true one. */
static am_buf make_file(const char *header, size_t n_header, int64_t length, size_t n_data) {
    am_buf file;
    am_buf_init(&file, 1 << 20);
    uint64_t n = length == -1 ? n_header : (uint64_t)length;
    for (int i = 0; i < 8; i++) assert_int_equal(am_buf_putc(&file, (char)(uint8_t)(n >> (8 * i))), AM_OK);
    assert_int_equal(am_buf_append(&file, header, n_header), AM_OK);
    for (size_t i = 0; i < n_data; i++) assert_int_equal(am_buf_putc(&file, 0), AM_OK);
    return file;
}

/* From a block of exactly the file's size, so that the address sanitiser sees a byte read too many. */
static am_status parse(const void *p, size_t n, am_st **st, am_error *err) {
    uint8_t *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    memcpy(exact, p, n);
    am_st_limits limits = {64 << 10, 100, 1000};
    am_status status = am_st_parse(exact, n, n, &limits, st, err);
    free(exact);
    return status;
}

#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

typedef struct bad_file {
    const char *what, *header;
    int64_t length;
    size_t n_data;
    const char *reason; /* part of the message */
} bad_file;

static const bad_file bad_files[] = {
    {"length beyond the file", "{}", 3, 0, "header length"},
    {"length of 2^63", "{}", INT64_MIN, 0, "header length"},
    {"length of 2^64 - 2", "{}", -2, 0, "header length"},
    {"length over the limit", "{}", 70000, 100000, "more than the"},
    {"empty header", "", 0, 0, "header length"},
    {"no JSON", "{\"a\":", -1, 0, "JSON"},
    {"not '{' first", " {}", -1, 0, "begin with"},
    {"an array", "[]", -1, 0, "begin with"},
    {"rubbish behind the object", "{}x", -1, 0, "JSON"},
    {"not UTF-8", "{\"a\xff\":" T("U8", "[1]", "[0,1]") "}", -1, 1, "JSON"},
    {"overlong UTF-8", "{\"a\xc0\xaf\":" T("U8", "[1]", "[0,1]") "}", -1, 1, "JSON"},
    {"NUL in a name", "{\"a\\u0000b\":" T("U8", "[1]", "[0,1]") "}", -1, 1, "JSON"},
    {"duplicate name", "{\"a\":" T("U8", "[1]", "[0,1]") ",\"a\":" T("U8", "[1]", "[1,2]") "}", -1, 2, "duplicate"},
    {"empty name", "{\"\":" T("U8", "[1]", "[0,1]") "}", -1, 1, "name is empty"},
    {"tensor is no object", "{\"a\":[]}", -1, 0, "not an object"},
    {"unknown field", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}}", -1, 1, "fields"},
    {"dtype missing", "{\"a\":{\"x\":0,\"shape\":[1],\"data_offsets\":[0,1]}}", -1, 1, "dtype"},
    {"dtype unknown", "{\"a\":" T("F33", "[1]", "[0,1]") "}", -1, 1, "F33"},
    {"dtype a number", "{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}", -1, 1, "dtype"},
    {"shape missing", "{\"a\":{\"dtype\":\"U8\",\"x\":0,\"data_offsets\":[0,1]}}", -1, 1, "shape"},
    {"shape negative", "{\"a\":" T("U8", "[-1]", "[0,1]") "}", -1, 1, "shape[0]"},
    {"shape real", "{\"a\":" T("U8", "[1.0]", "[0,1]") "}", -1, 1, "shape[0]"},
    {"shape zero", "{\"a\":" T("U8", "[0]", "[0,0]") "}", -1, 0, "shape[0] is 0"},
    {"shape overflows", "{\"a\":" T("U8", "[4294967296,4294967296]", "[0,0]") "}", -1, 0, "overflows"},
    {"shape times dtype overflows", "{\"a\":" T("F64", "[4611686018427387904]", "[0,0]") "}", -1, 0, "overflows"},
    {"shape over 2^63", "{\"a\":" T("U8", "[9223372036854775808]", "[0,0]") "}", -1, 0, "JSON"},
    {"nine dimensions", "{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", -1, 1, "dimensions"},
    {"offsets missing", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"x\":0}}", -1, 1, "data_offsets"},
    {"one offset", "{\"a\":" T("U8", "[1]", "[0]") "}", -1, 1, "data_offsets"},
    {"offsets reversed", "{\"a\":" T("U8", "[1]", "[1,0]") "}", -1, 1, "data_offsets"},
    {"offset negative", "{\"a\":" T("U8", "[1]", "[-1,0]") "}", -1, 1, "data_offsets"},
    {"offset beyond the file", "{\"a\":" T("U8", "[2]", "[0,2]") "}", -1, 1, "data_offsets"},
    {"span too long", "{\"a\":" T("U8", "[1]", "[0,2]") "}", -1, 2, "span 2"},
    {"span too short", "{\"a\":" T("F32", "[1]", "[0,3]") "}", -1, 3, "span 3"},
    {"hole at the start", "{\"a\":" T("U8", "[1]", "[1,2]") "}", -1, 2, "after"},
    {"hole between", "{\"a\":" T("U8", "[1]", "[0,1]") ",\"b\":" T("U8", "[1]", "[2,3]") "}", -1, 3, "after"},
    {"overlap", "{\"a\":" T("U8", "[2]", "[0,2]") ",\"b\":" T("U8", "[2]", "[1,3]") "}", -1, 3, "before"},
    {"two at one place", "{\"a\":" T("U8", "[1]", "[0,1]") ",\"b\":" T("U8", "[1]", "[0,1]") "}", -1, 1, "before"},
    {"bytes left over", "{\"a\":" T("U8", "[1]", "[0,1]") "}", -1, 2, "belong to no tensor"},
    {"data without tensors", "{}", -1, 1, "belong to no tensor"},
    {"metadata no object", "{\"__metadata__\":1}", -1, 0, "__metadata__"},
    {"metadata value no string", "{\"__metadata__\":{\"a\":1}}", -1, 0, "__metadata__"},
};

static void test_rules(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        const bad_file *b = &bad_files[i];
        am_buf file = make_file(b->header, strlen(b->header), b->length, b->n_data);
        am_st *st;
        am_error err = {0};
        am_status status = parse(file.p, file.n, &st, &err);
        if (status != AM_EFORMAT && status != AM_ELIMIT) fail_msg("%s: %s", b->what, am_status_text(status));
        if (!strstr(err.message, b->reason)) fail_msg("%s: the reason is '%s'", b->what, err.message);
        assert_null(st);
        am_buf_free(&file);
    }
}

static void test_limits(void **state) {
    (void)state;
    am_buf header;
    am_error err;
    am_st *st;
    am_buf_init(&header, 1 << 20);
    for (int i = 0; i <= 100; i++)
        assert_int_equal(am_buf_printf(&header, "%c\"%d\":" T("U8", "[1]", "[%d,%d]"), i ? ',' : '{', i, i, i + 1), AM_OK);
    assert_int_equal(am_buf_putc(&header, '}'), AM_OK);
    am_buf file = make_file(header.p, header.n, -1, 101);
    assert_int_equal(parse(file.p, file.n, &st, &err), AM_ELIMIT);
    am_buf_free(&file);
    am_buf_clear(&header);
    assert_int_equal(am_buf_printf(&header, "{\"__metadata__\":{\"a\":\"%01000d\"}}", 0), AM_OK);
    file = make_file(header.p, header.n, -1, 0);
    assert_int_equal(parse(file.p, file.n, &st, &err), AM_ELIMIT);
    am_buf_free(&file);
    am_buf_clear(&header);
    for (int i = 0; i < 30000; i++) assert_int_equal(am_buf_add(&header, AM_STR("{\"")), AM_OK);
    file = make_file(header.p, header.n, -1, 0);
    assert_int_equal(parse(file.p, file.n, &st, &err), AM_EFORMAT);
    am_buf_free(&file);
    am_buf_free(&header);
    for (size_t n = 0; n < 8; n++) assert_int_equal(parse("\2\0\0\0\0\0\0", n, &st, &err), AM_EFORMAT);
}

static const am_st_entry entries[] = {
    {"layer.0.\"quoted\" \xc3\xa9", AM_ST_BF16, 2, {3, 5}},
    {"scalar", AM_ST_F32, 0, {0}},
    {"codes", AM_ST_U8, 3, {2, 2, 2}},
};

static am_buf build(size_t align) {
    am_buf file;
    uint64_t n_data;
    am_error err;
    am_buf_init(&file, 1 << 20);
    am_st_pair pairs[] = {{"format", AM_STR("pt")}, {"note", AM_STR("two\nlines")}};
    assert_int_equal(am_st_header_build(&(am_st_layout){entries, 3, pairs, 2, align}, &file, &n_data, &err), AM_OK);
    assert_int_equal(file.n % align, 0);
    assert_int_equal(n_data, 30 + 4 + 8);
    for (uint64_t i = 0; i < n_data; i++) assert_int_equal(am_buf_putc(&file, (char)i), AM_OK);
    return file;
}

static void test_round_trip(void **state) {
    (void)state;
    for (size_t align = 8; align <= 64; align *= 2) {
        am_buf file = build(align);
        am_st *st;
        am_error err = {0};
        am_str value;
        assert_int_equal(parse(file.p, file.n, &st, &err), AM_OK);
        assert_int_equal(am_st_count(st), 3);
        assert_int_equal(am_st_metadata_count(st), 2);
        assert_true(am_st_metadata(st, "note", &value) && am_str_eq(value, AM_STR("two\nlines")));
        assert_false(am_st_metadata(st, "absent", &value));
        assert_null(am_st_find(st, AM_STR("absent")));
        uint64_t at = file.n - 42;
        for (size_t i = 0; i < 3; i++) {
            const am_st_tensor *t = am_st_find(st, am_str_of(entries[i].name));
            assert_ptr_equal(t, am_st_at(st, i));
            assert_int_equal(t->at, at);
            assert_int_equal(t->dtype, entries[i].dtype);
            assert_int_equal(t->n_dim, entries[i].n_dim);
            for (uint32_t d = 0; d < t->n_dim; d++) assert_int_equal(t->shape[d], entries[i].shape[d]);
            at += t->n_bytes;
        }
        am_st_free(st);
        am_buf_free(&file);
    }
    am_buf out;
    am_error err;
    am_buf_init(&out, 100);
    am_st_entry empty = {"a", AM_ST_U8, 1, {0}}, huge = {"a", AM_ST_F64, 2, {1ull << 62, 4}};
    assert_int_equal(am_st_header_build(&(am_st_layout){&empty, 1, NULL, 0, 8}, &out, NULL, &err), AM_EINVAL);
    assert_int_equal(am_st_header_build(&(am_st_layout){&huge, 1, NULL, 0, 8}, &out, NULL, &err), AM_EINVAL);
    assert_int_equal(am_st_header_build(&(am_st_layout){entries, 3, NULL, 0, 8}, &out, NULL, &err), AM_ELIMIT);
    am_buf_free(&out);
}

/* No change of one byte, and no cut, may crash; what is still accepted must lie inside the file, without holes. */
static void test_mutations(void **state) {
    (void)state;
    am_buf file = build(8);
    size_t accepted = 0, tried = 0;
    for (size_t i = 0; i < file.n - 42; i++) {
        char was = file.p[i];
        for (int k = 0; k < 12; k++) {
            static const char other[] = "\"{}[],:09-a";
            file.p[i] = k < 11 ? other[k] : (char)(was ^ (1 << (i % 8)));
            am_st *st;
            am_error err;
            tried++;
            if (parse(file.p, file.n, &st, &err) == AM_OK) {
                accepted++;
                uint64_t at = am_st_count(st) ? am_st_at(st, 0)->at : 0;
                for (size_t t = 0; t < am_st_count(st); t++) {
                    assert_int_equal(am_st_at(st, t)->at, at);
                    at += am_st_at(st, t)->n_bytes;
                }
                assert_int_equal(at, file.n);
                am_st_free(st);
            }
        }
        file.p[i] = was;
    }
    assert_true(accepted < tried); /* letters in names and texts may change */
    for (size_t n = 0; n < file.n; n++) {
        am_st *st;
        am_error err;
        assert_int_not_equal(parse(file.p, n, &st, &err), AM_OK);
    }
    am_buf_free(&file);
}

static void write_text(const char *dir, const char *name, am_str text) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    fclose(f);
}

static void write_one(const char *dir, const char *file_name, const char *tensor) {
    am_buf file;
    am_error err;
    am_buf_init(&file, 1 << 16);
    am_st_entry entry = {tensor, AM_ST_U8, 1, {1}};
    assert_int_equal(am_st_header_build(&(am_st_layout){&entry, 1, NULL, 0, 8}, &file, NULL, &err), AM_OK);
    assert_int_equal(am_buf_putc(&file, 7), AM_OK);
    write_text(dir, file_name, am_buf_str(&file));
    am_buf_free(&file);
}

static bool ignore_none(void *arg, am_str name) { return (void)arg, (void)name, false; }

static void test_shards(void **state) {
    (void)state;
    static const struct {
        const char *map, *reason;
    } bad[] = {{"{\"a\":\"1.safetensors\",\"b\":\"3.safetensors\"}", "missing"}, {"{\"a\":\"2.safetensors\"}", "is not in"},
               {"{\"a\":\"../1.safetensors\"}", "plain file name"}, {"{\"a\":1}", "plain file name"}, {"{}", "empty"}, {"[]", "weight_map"},
               {"{\"a\":\"1.safetensors\",\"c\":\"4.safetensors\"}", "in both"}};
    char dir[] = "/tmp/am-test-shards-XXXXXX", text[256], path[4096];
    assert_non_null(mkdtemp(dir));
    write_one(dir, "1.safetensors", "a");
    write_one(dir, "2.safetensors", "b");
    am_st_entry two[] = {{"a", AM_ST_U8, 1, {1}}, {"c", AM_ST_U8, 1, {1}}};
    am_buf file;
    am_error err = {0};
    am_tensors *tensors;
    am_tensor t;
    am_buf_init(&file, 1 << 16);
    assert_int_equal(am_st_header_build(&(am_st_layout){two, 2, NULL, 0, 8}, &file, NULL, &err), AM_OK);
    assert_int_equal(am_buf_append(&file, "xy", 2), AM_OK);
    write_text(dir, "4.safetensors", am_buf_str(&file));
    am_buf_free(&file);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "{\"weight_map\":%s}", bad[i].map);
        write_text(dir, "model.safetensors.index.json", am_str_of(text));
        assert_int_equal(am_tensors_open_dir(dir, &tensors, &err), AM_EFORMAT);
        if (!strstr(err.message, bad[i].reason)) fail_msg("%s: the reason is '%s'", bad[i].map, err.message);
    }
    write_text(dir, "model.safetensors.index.json", AM_STR("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}"));
    assert_int_equal(am_tensors_open_dir(dir, &tensors, &err), AM_OK);
    assert_true(am_tensors_find(tensors, "b", &t) && t.p[0] == 7);
    assert_false(am_tensors_find(tensors, "c", &t));
    assert_int_equal(am_tensors_all_used(tensors, ignore_none, NULL, &err), AM_EUNSUPPORTED);
    assert_true(am_tensors_find(tensors, "a", &t));
    assert_int_equal(am_tensors_all_used(tensors, ignore_none, NULL, &err), AM_OK);
    am_tensors_free(tensors);
    static const char *const names[] = {"1.safetensors", "2.safetensors", "4.safetensors", "model.safetensors.index.json"};
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    assert_int_equal(am_tensors_open_dir(dir, &tensors, &err), AM_ENOTFOUND);
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),     cmocka_unit_test(test_limits), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_mutations), cmocka_unit_test(test_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
