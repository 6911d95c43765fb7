/* Compiled vocabularies: the same tokenizer as from JSON, and no file, however damaged, that is believed or crashes. */
#include "tok_support.h"

#include "base/fs.h"
#include "base/fault.h"
#include "text/compiled.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A folder with a tokenizer.json of a megabyte, and one for what is compiled of it. */
typedef struct place {
    char model[64], compiled[96], file[160];
} place;

/* Entries "a".."z", then all pairs and triples of some of them, each by a merge; and an added token. */
static void json_write(const char *path) {
    am_buf vocab, merges;
    am_buf_init(&vocab, 1 << 26);
    am_buf_init(&merges, 1 << 26);
    int id = 0;
    for (int i = 0; i < 26; i++) am_buf_printf(&vocab, "\"%c\":%d,", 'a' + i, id++);
    for (int i = 0; i < 26; i++)
        for (int k = 0; k < 26; k++) {
            am_buf_printf(&vocab, "\"%c%c\":%d,", 'a' + i, 'a' + k, id++);
            am_buf_printf(&merges, "%s\"%c %c\"", merges.n ? "," : "", 'a' + i, 'a' + k);
        }
    for (int i = 0; i < 26; i++)
        for (int k = 0; k < 26 * 26 * 2; k++) {
            am_buf_printf(&vocab, "\"%c%c%c%c\":%d,", 'a' + i, 'a' + k % 26, 'a' + k / 26 % 26, 'a' + (k >= 676), id++);
            am_buf_printf(&merges, ",\"%c%c %c%c\"", 'a' + i, 'a' + k % 26, 'a' + k / 26 % 26, 'a' + (k >= 676));
        }
    am_buf_printf(&vocab, "\"\xC4\xA0\":%d", id++);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "{\"added_tokens\":[{\"id\":%d,\"content\":\"<|end|>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
               "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{%.*s},\"merges\":[%.*s]}}%*s", id, (int)vocab.n, vocab.p, (int)merges.n, merges.p, 1 << 20, "");
    assert_int_equal(fclose(f), 0);
    am_buf_free(&vocab);
    am_buf_free(&merges);
}

static int place_make(void **state) {
    place *p = calloc(1, sizeof *p);
    strcpy(p->model, "/tmp/am-vocab-XXXXXX");
    assert_non_null(mkdtemp(p->model));
    snprintf(p->compiled, sizeof p->compiled, "%s/compiled", p->model);
    char path[128];
    snprintf(path, sizeof path, "%s/tokenizer.json", p->model);
    json_write(path);
    *state = p;
    return 0;
}

static am_status name_found(void *arg, const char *name) {
    place *p = arg;
    snprintf(p->file, sizeof p->file, "%.60s/%.60s", p->compiled, name);
    return AM_OK;
}

static int place_clear(void **state) {
    place *p = *state;
    char path[128];
    if (p->file[0]) unlink(p->file);
    rmdir(p->compiled);
    snprintf(path, sizeof path, "%s/tokenizer.json", p->model);
    unlink(path);
    rmdir(p->model);
    free(p);
    return 0;
}

static am_tokenizer *load(const place *p) {
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_tokenizer_load_dir_compiled(p->model, p->compiled, &t, &err)) fail_msg("%s", err.message);
    return t;
}

static void check(am_tokenizer *t) {
    char ids[256];
    snprintf(ids, sizeof ids, "%s", tok_ids(t, "abab zz<|end|>qabc"));
    assert_string_equal(ids, "1379 35854 701 35855 16 27 2");
    am_tokenizer_free(t);
}

static void compiled_once_then_read(void **state) {
    place *p = *state;
    am_tokenizer *t = load(p);
    uint8_t first[16], second[16];
    am_tokenizer_fingerprint(t, first);
    check(t);
    assert_int_equal(am_fs_list(p->compiled, name_found, p, NULL), AM_OK);
    assert_int_equal(access(p->file, R_OK), 0);
    t = load(p);
    am_tokenizer_fingerprint(t, second);
    assert_memory_equal(first, second, 16);
    check(t);
    /* removed: made again */
    assert_int_equal(unlink(p->file), 0);
    check(load(p));
    assert_int_equal(access(p->file, R_OK), 0);
}

static void put(const char *path, const char *bytes, size_t n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* Bits turned anywhere, cut anywhere: refused, parsed anew and mended; with a checksum made to fit, refused or harmless. */
static void damage_is_refused(void **state) {
    place *p = *state;
    am_buf whole;
    tok_read(p->file, &whole);
    am_sum key;
    memcpy(&key, whole.p + 8, sizeof key);
    char *bytes = malloc(whole.n);
    uint64_t seed = 7;
    for (int i = 0; i < 300; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t at = (seed >> 20) % (i % 3 ? whole.n : 256), n = i % 10 == 9 ? at : whole.n;
        bool forged = i % 2;
        memcpy(bytes, whole.p, whole.n);
        bytes[at] ^= (char)(1 << (seed >> 60 & 7));
        if (forged && n >= 128) {
            am_sum_state *sum = am_sum_begin();
            am_sum_add(sum, bytes, 112);
            am_sum_add(sum, bytes + 128, n - 128);
            am_sum made = am_sum_end(sum);
            memcpy(bytes + 112, &made, sizeof made);
        }
        put(p->file, bytes, n);
        am_compiled c;
        am_error err = {0};
        am_status status = am_compiled_read(p->compiled, key, &c, &err);
        if (!forged) assert_int_equal(status, AM_EFORMAT);
        if (status) assert_true(err.message[0]);
        else am_compiled_free(&c);
    }
    bytes[200] ^= 1;
    put(p->file, bytes, whole.n);
    check(load(p)); /* parsed, and the file written anew */
    am_compiled c;
    am_error err = {0};
    assert_int_equal(am_compiled_read(p->compiled, key, &c, &err), AM_OK);
    am_compiled_free(&c);
    free(bytes);
    am_buf_free(&whole);
}

/* A file of another tokenizer.json under this one's name. */
static void another_key_is_refused(void **state) {
    place *p = *state;
    am_sum key = {{1, 2, 3}};
    am_compiled c;
    am_error err = {0};
    assert_int_equal(am_compiled_read(p->compiled, key, &c, &err), AM_ENOTFOUND);
    char hex[33], path[160];
    am_sum_hex(&key, hex);
    snprintf(path, sizeof path, "%s/%s.vocab", p->compiled, hex);
    assert_int_equal(link(p->file, path), 0);
    assert_int_equal(am_compiled_read(p->compiled, key, &c, &err), AM_EFORMAT);
    unlink(path);
}

static void failing_allocations_are_errors(void **state) {
    place *p = *state;
    size_t n_failed = 0, n_loaded = 0;
    for (long n = 1; n < 3000; n += 1 + n / 16) {
        am_tokenizer *t = NULL;
        am_error err = {0};
        am_fault_alloc_at(n);
        am_status status = am_tokenizer_load_dir_compiled(p->model, p->compiled, &t, &err);
        am_fault_alloc_at(0);
        if (status) assert_true(!t && err.message[0]), n_failed++;
        else check(t), n_loaded++;
    }
    assert_true(n_failed && n_loaded);
}

/* A folder that cannot be made: the tokenizer is there all the same. */
static void nowhere_to_write(void **state) {
    place p = *(place *)*state;
    strcpy(p.compiled, "/proc/nowhere");
    check(load(&p));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compiled_once_then_read), cmocka_unit_test(damage_is_refused), cmocka_unit_test(another_key_is_refused),
        cmocka_unit_test(failing_allocations_are_errors), cmocka_unit_test(nowhere_to_write),
    };
    return cmocka_run_group_tests_name("compiled", tests, place_make, place_clear);
}
