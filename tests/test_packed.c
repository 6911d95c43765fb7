/* model/packed: a model that is mapped from the file of its packed weights is the one that was packed, to the bit, for every golden model; no file that was cut,
 * damaged or made of something else is believed; what has no use any more is swept away. */
#include "base/fs.h"
#include "model/packed.h"
#include "sequence.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_TOKENS = 24 };

typedef struct place {
    char dir[64];
} place;

static void place_open(place *p) {
    strcpy(p->dir, "/tmp/am-packed-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
}

typedef struct names {
    size_t n;
    char last[256];
} names;

static am_status count(void *arg, const char *name) {
    names *n = arg;
    n->n++;
    snprintf(n->last, sizeof n->last, "%s", name);
    return AM_OK;
}

static names files(const place *p) {
    names n = {0};
    assert_int_equal(am_fs_list(p->dir, count, &n, NULL), AM_OK);
    return n;
}

static am_status delete_one(void *arg, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)arg, name);
    assert_int_equal(unlink(path), 0);
    return AM_OK;
}

static void place_clear(place *p) { am_fs_list(p->dir, delete_one, p->dir, NULL); }

static void place_close(place *p) {
    place_clear(p);
    assert_int_equal(rmdir(p->dir), 0);
}

/* The writer works behind the model's back: until its file has its name, or a minute has passed. */
static void wait_written(const place *p) {
    for (int i = 0; i < 6000; i++) {
        names n = files(p);
        if (n.n == 1 && strstr(n.last, ".packed")) return;
        usleep(10000);
    }
    fail_msg("no packed weights were written");
}

static am_model *load(const char *path, const place *p) {
    am_model *m;
    am_error err = {0};
    am_model_options o = {.kernels = am_kernels_list()[0], .packed_dir = p ? p->dir : NULL, .packed_least_bytes = 1};
    if (am_model_load(path, &o, &m, &err)) fail_msg("%s: %s", path, err.message);
    return m;
}

static float *logits_of(const am_model *m) {
    am_kv_spec spec;
    am_kv_layout layout;
    am_workspace *ws;
    test_sequence seq;
    am_error err = {0};
    int32_t ids[N_TOKENS];
    size_t n_vocab = am_model_info_of(m)->n_vocab;
    if (am_model_kv_spec(m, 16, 16, &spec, &err) || am_kv_layout_init(&layout, &spec, &err) || am_workspace_create(m, &layout, NULL, N_TOKENS, N_TOKENS, &ws, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0; i < N_TOKENS; i++) ids[i] = (int32_t)(i * 7 % n_vocab);
    float *logits = am_calloc(N_TOKENS * n_vocab, sizeof *logits);
    test_sequence_init(&seq, am_kernels_list()[0], m, ws, &layout, 256);
    test_sequence_push(&seq, ids, N_TOKENS, N_TOKENS, logits);
    test_sequence_free(&seq);
    am_workspace_free(ws);
    return logits;
}

static void same(const char *path, am_model *a, am_model *b) {
    const am_model_info *x = am_model_info_of(a), *y = am_model_info_of(b);
    assert_memory_equal(x->fingerprint, y->fingerprint, sizeof x->fingerprint);
    assert_string_equal(x->forms, y->forms);
    assert_int_equal(x->n_params, y->n_params);
    assert_int_equal(x->weight_bytes, y->weight_bytes);
    float *p = logits_of(a), *q = logits_of(b);
    if (memcmp(p, q, N_TOKENS * x->n_vocab * sizeof *p) != 0) fail_msg("%s: logits differ", path);
    free(p);
    free(q);
}

static void round_trip(const char *path) {
    place p;
    place_open(&p);
    am_model *first = load(path, &p);
    assert_int_equal(am_model_info_of(first)->mapped_bytes, 0);
    wait_written(&p);
    am_model *again = load(path, &p), *plain = load(path, NULL);
    if (am_model_info_of(again)->mapped_bytes == 0) fail_msg("%s: its packed weights were not taken", path);
    same(path, plain, again);
    same(path, plain, first);
    am_model_free(first);
    am_model_free(again);
    am_model_free(plain);
    assert_int_equal(files(&p).n, 1);
    place_close(&p);
}

static void every_golden_model(void **state) {
    (void)state;
    const char *shared = getenv("AM_SHARED");
    size_t n = 0;
    for (int own = 0; own < 2; own++) {
        char dir[1024], path[2048];
        snprintf(dir, sizeof dir, "%s/golden", own ? "tests/data" : shared ? shared : "../shared");
        DIR *d = opendir(dir);
        for (struct dirent *e; d && (e = readdir(d));) {
            snprintf(path, sizeof path, "%s/%s/golden.json", dir, e->d_name);
            if (access(path, R_OK) != 0) continue;
            snprintf(path, sizeof path, "%s/%s%s", dir, e->d_name, strstr(e->d_name, "gguf") ? "/model.gguf" : "");
            round_trip(path);
            n++;
        }
        if (d) closedir(d);
    }
    assert_true(n > 0); /* those of tests/data at least */
}

static const char model[] = "tests/data/golden/llama-hd20";

static void no_damaged_file_is_believed(void **state) {
    (void)state;
    place p;
    char path[512];
    place_open(&p);
    am_model *plain = load(model, &p);
    wait_written(&p);
    snprintf(path, sizeof path, "%s/%s", p.dir, files(&p).last);
    am_buf whole;
    am_buf_init(&whole, 1 << 28);
    assert_int_equal(am_fs_read_file(path, &whole, 1 << 28, NULL), AM_OK);
    uint64_t data_at;
    memcpy(&data_at, whole.p + 48, sizeof data_at);
    size_t n = whole.n, n_flips = 0;
    for (size_t at = 0; at < n; at += at < data_at ? 37 : 1 + (n - data_at) / 50, n_flips++) {
        for (int cut = 0; cut < 2; cut++) {
            const am_str part = {whole.p, cut ? at : n};
            whole.p[at] ^= 0x10;
            assert_int_equal(am_fs_write_atomic(p.dir, "x.tmp", strrchr(path, '/') + 1, &part, 1, false, NULL), AM_OK);
            whole.p[at] ^= 0x10;
            am_sum key;
            memcpy(&key, whole.p + 8, sizeof key);
            am_packed *packed = NULL;
            am_error err = {0};
            assert_int_equal(am_packed_open(p.dir, key, NULL, &packed, &err), AM_EFORMAT);
            assert_null(packed);
            assert_non_null(strstr(err.message, p.dir));
        }
    }
    assert_true(n_flips > 50);
    am_model *again = load(model, &p); /* refuses what is left of it, packs, and writes it anew */
    assert_int_equal(am_model_info_of(again)->mapped_bytes, 0);
    same(model, plain, again);
    wait_written(&p);
    for (int i = 0; i < 500; i++) { /* the name was there before: until the content is */
        am_map map;
        assert_int_equal(am_map_open(path, &map, NULL), AM_OK);
        bool done = map.n == n;
        am_map_close(&map);
        if (done) break;
        usleep(10000);
    }
    am_model *mapped = load(model, &p);
    assert_true(am_model_info_of(mapped)->mapped_bytes > 0);
    am_model_free(mapped);
    am_model_free(again);
    am_model_free(plain);
    am_buf_free(&whole);
    place_close(&p);
}

static void copy(const char *from_dir, const char *to_dir, const char *name) {
    char path[512];
    am_buf b;
    am_buf_init(&b, 1 << 28);
    snprintf(path, sizeof path, "%s/%s", from_dir, name);
    assert_int_equal(am_fs_read_file(path, &b, 1 << 28, NULL), AM_OK);
    const am_str part = {b.p, b.n};
    assert_int_equal(am_fs_write_atomic(to_dir, "x.tmp", name, &part, 1, false, NULL), AM_OK);
    am_buf_free(&b);
}

static void a_changed_model_is_packed_anew_and_leftovers_go(void **state) {
    (void)state;
    place source, p;
    char path[512];
    place_open(&source);
    place_open(&p);
    copy(model, source.dir, "config.json");
    copy(model, source.dir, "model.safetensors");
    am_model *m = load(source.dir, &p);
    wait_written(&p);
    am_model_free(m);
    names old = files(&p);
    snprintf(path, sizeof path, "%s/%s", p.dir, "0123456789abcdef0123456789abcdef.1.part"); /* of a process that was killed */
    assert_int_equal(fclose(fopen(path, "w")), 0);
    copy(model, source.dir, "model.safetensors"); /* another file, the same bytes: told by its inode alone */
    m = load(source.dir, &p);
    assert_int_equal(am_model_info_of(m)->mapped_bytes, 0);
    for (int i = 0; i < 6000 && (files(&p).n != 1 || strcmp(files(&p).last, old.last) == 0 || !strstr(files(&p).last, ".packed")); i++) usleep(10000);
    assert_int_equal(files(&p).n, 1);
    assert_string_not_equal(files(&p).last, old.last);
    am_model_free(m);
    place_close(&source);
    m = load(model, &p); /* sweeps what a model left that is not there any more */
    wait_written(&p);
    am_model_free(m);
    place_close(&p);
}

static void small_models_are_not_kept(void **state) {
    (void)state;
    place p;
    am_model *m;
    place_open(&p);
    am_model_options o = {.kernels = am_kernels_list()[0], .packed_dir = p.dir, .packed_least_bytes = 1 << 30};
    assert_int_equal(am_model_load(model, &o, &m, NULL), AM_OK);
    am_model_free(m);
    assert_int_equal(files(&p).n, 0);
    place_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_model),
        cmocka_unit_test(no_damaged_file_is_believed),
        cmocka_unit_test(a_changed_model_is_packed_anew_and_leftovers_go),
        cmocka_unit_test(small_models_are_not_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
