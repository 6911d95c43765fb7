/* See tok_support.h. */
#include "tok_support.h"

#include "base/fs.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *tok_truth(const char *name) {
    static char path[4096];
    const char *root = getenv("AM_SHARED");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared", name);
    if (access(path, R_OK) == 0) return path;
    print_message("no %s: set AM_SHARED to the folder that has it\n", path);
    return NULL;
}

am_tokenizer *tok_load(const char *name) {
    const char *dir = tok_truth(name);
    if (!dir) return NULL;
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_tokenizer_load_dir(dir, &t, &err)) fail_msg("%s: %s", dir, err.message);
    return t;
}

am_tokenizer *tok_from_json(const char *json) {
    am_tokenizer *t = NULL;
    am_error err = {0};
    if (am_tokenizer_load_json(am_str_of(json), (am_str){"", 0}, &t, &err)) fail_msg("%s", err.message);
    return t;
}

json_t *tok_json(const char *path) {
    json_t *j = NULL;
    am_error err = {0};
    if (am_json_read(path, (size_t)1 << 28, &j, &err)) fail_msg("%s", err.message);
    return j;
}

void tok_read(const char *path, am_buf *buf) {
    am_error err = {0};
    am_buf_init(buf, (size_t)1 << 30);
    if (am_fs_read_file(path, buf, (size_t)1 << 29, &err)) fail_msg("%s", err.message);
}

void tok_encode(const am_tokenizer *t, am_str text, const am_span *input, size_t n_input, am_tokens *out) {
    am_error err = {0};
    if (am_tokenizer_encode(t, text, input, n_input, 0, out, &err)) fail_msg("%s", err.message);
    assert_int_equal(out->offsets[out->n], text.n);
    assert_true(am_tokenizer_least(t, text.n) <= out->n);
    for (size_t i = 0; i < out->n; i++) assert_true(out->offsets[i] <= out->offsets[i + 1]);
}

const char *tok_ids(const am_tokenizer *t, const char *text) {
    static char line[8192];
    am_tokens tokens = {0};
    tok_encode(t, am_str_of(text), NULL, 0, &tokens);
    size_t n = 0;
    line[0] = 0;
    for (size_t i = 0; i < tokens.n; i++) n += (size_t)snprintf(line + n, sizeof line - n, i ? " %d" : "%d", tokens.ids[i]);
    am_tokens_free(&tokens);
    return line;
}

void tok_decode(const am_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, am_buf *out) {
    am_buf stream;
    am_buf_init(&stream, (size_t)1 << 30);
    am_buf_init(out, (size_t)1 << 30);
    assert_int_equal(am_tokenizer_decode(t, ids, n, skip_special, out), AM_OK);
    am_detok *d = am_detok_create(t, skip_special);
    assert_non_null(d);
    for (size_t i = 0; i <= n; i++) {
        size_t before = stream.n;
        assert_int_equal(i < n ? am_detok_push(d, ids[i], &stream) : am_detok_finish(d, &stream), AM_OK);
        am_str piece = {stream.p ? stream.p + before : "", stream.n - before};
        assert_int_equal(am_utf8_check(piece), piece.n);
    }
    assert_int_equal(stream.n, out->n);
    if (out->n) assert_memory_equal(stream.p, out->p, out->n);
    am_detok_free(d);
    am_buf_free(&stream);
}
