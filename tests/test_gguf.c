/* model/gguf.c and ggml_blocks.c: real files, block formats against ggml's own dequantisation, and headers broken one field at a time. */
#include "base/fs.h"
#include "base/json.h"
#include "kernels/kernels.h"
#include "model/gguf.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *shared(const char *name) {
    static char path[4096];
    const char *root = getenv("AM_SHARED");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared", name);
    am_map map;
    if (am_map_open(path, &map, NULL)) {
        print_message("no %s\n", path);
        skip();
    }
    am_map_close(&map);
    return path;
}

static size_t decode_base64(const char *text, uint8_t *out) {
    size_t n = 0;
    unsigned bits = 0, n_bits = 0;
    for (; *text && *text != '='; text++) {
        const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        bits = bits << 6 | (unsigned)(strchr(digits, *text) - digits);
        if ((n_bits += 6) >= 8) out[n++] = (uint8_t)(bits >> (n_bits -= 8));
    }
    return n;
}

/* The unpacked form gives ggml's values: exactly, or one rounding apart where the sum of products is not exact in float32. */
static int compare_with_ggml(const char *path) {
    json_t *root;
    am_error err;
    assert_int_equal(am_json_read(path, 1 << 20, &root, &err), AM_OK);
    const char *name;
    json_t *entry;
    int n_checked = 0;
    json_object_foreach(json_object_get(root, "types"), name, entry) {
        const am_ggml_format *format = am_ggml_format_of((uint32_t)json_integer_value(json_object_get(entry, "ggml_type")));
        assert_non_null(format);
        assert_int_equal(format->block, json_integer_value(json_object_get(entry, "block")));
        assert_int_equal(format->block_bytes, json_integer_value(json_object_get(entry, "bytes")));
        if (!format->unpack) continue;
        uint8_t data[4096], codes[256];
        float expected[1536], scale[16], bias[16];
        size_t n = decode_base64(json_string_value(json_object_get(entry, "data_b64")), data);
        assert_int_equal(decode_base64(json_string_value(json_object_get(entry, "dequant_f32_b64")), (uint8_t *)expected), 1536 * 4);
        assert_int_equal(n, 1536 / format->block * format->block_bytes);
        float most = 0, worst = 0;
        for (size_t b = 0; b < 1536 / format->block; b++) {
            format->unpack(data + b * format->block_bytes, codes, scale, bias);
            for (size_t i = 0; i < format->block; i++) {
                float value = scale[i / format->group] * (float)codes[i] + bias[i / format->group];
                float wanted = expected[b * format->block + i];
                assert_true(codes[i] <= format->max_code);
                worst = fmaxf(worst, fabsf(value - wanted));
                most = fmaxf(most, fabsf(wanted));
            }
        }
        if (worst > most * 0x1p-22f) fail_msg("%s: off by %g of %g", name, (double)worst, (double)most);
        n_checked++;
    }
    json_decref(root);
    return n_checked;
}

static void every_block_format_gives_ggmls_values(void **state) {
    (void)state;
    assert_true(compare_with_ggml(shared("testdata/expected/ggml_quant_vectors.json")) >= 13);
}

/* Random blocks, with the values that the gguf package gives them. */
static void grids_and_trits_give_ggmls_values(void **state) {
    (void)state;
    if (access("tests/data/ggml_iq_vectors.json", R_OK) != 0) skip();
    assert_int_equal(compare_with_ggml("tests/data/ggml_iq_vectors.json"), 9);
}

static void a_real_vocabulary_is_read(void **state) {
    (void)state;
    am_gguf *g;
    am_error err = {0};
    assert_int_equal(am_gguf_open(shared("testdata/tokenizers/gguf-vocab/ggml-vocab-llama-bpe.gguf"), &g, &err), AM_OK);
    am_vocab v;
    assert_int_equal(am_gguf_vocab(g, &v, &err), AM_OK);
    assert_true(am_str_eq(v.model, AM_STR("gpt2")));
    assert_true(am_str_eq(v.pre, AM_STR("llama-bpe")));
    assert_int_equal(v.n_tokens, 128256);
    assert_int_equal(v.n_merges, 280147);
    assert_int_equal(v.bos, 128000);
    assert_true(am_str_eq(v.tokens[128000], AM_STR("<|begin_of_text|>")));
    am_gguf_vocab_free(&v);
    am_gguf_free(g);
}

static void real_tensors_are_found(void **state) {
    (void)state;
    am_gguf *g;
    am_error err = {0};
    assert_int_equal(am_gguf_open(shared("testdata/weights/TinyStories-656K-gguf/TinyStories-656K-Q4_0.gguf"), &g, &err), AM_OK);
    uint32_t n;
    am_str architecture;
    assert_int_equal(am_gguf_string(g, "general.architecture", &architecture, &err), AM_OK);
    assert_true(am_str_eq(architecture, AM_STR("llama")));
    assert_int_equal(am_gguf_u32(g, "llama.block_count", &n, &err), AM_OK);
    for (uint32_t i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.attn_q.weight", i);
        const am_gguf_tensor *t = am_gguf_find(g, name);
        assert_non_null(t);
        assert_int_equal(t->n_dim, 2);
    }
    assert_null(am_gguf_find(g, "blk.0.nothing"));
    assert_int_equal(am_gguf_u32(g, "general.architecture", &n, &err), AM_EFORMAT);
    assert_int_equal(am_gguf_u32(g, "no.such.key", &n, &err), AM_ENOTFOUND);
    am_gguf_free(g);
}

static void version_1_is_refused_with_its_reason(void **state) {
    (void)state;
    char head[24] = "GGUF\1";
    am_gguf *g;
    am_error err = {0};
    assert_int_equal(am_gguf_open_bytes((const uint8_t *)head, sizeof head, "old.gguf", &g, &err), AM_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "old.gguf: GGUF version 1"));
}

/* A small valid file: two keys, two tensors. */
static size_t valid_file(uint8_t *p) {
    am_buf b;
    am_buf_init(&b, 4096);
#define U32(v) am_buf_append(&b, &(uint32_t){v}, 4)
#define U64(v) am_buf_append(&b, &(uint64_t){v}, 8)
#define TEXT(s) (U64(sizeof s - 1), am_buf_append(&b, s, sizeof s - 1))
    am_buf_add(&b, AM_STR("GGUF")), U32(3), U64(2), U64(2);
    TEXT("a.number"), U32(AM_GGUF_U32), U32(7);
    TEXT("b.list"), U32(AM_GGUF_ARRAY), U32(AM_GGUF_STRING), U64(2), TEXT("x"), TEXT("yz");
    TEXT("one"), U32(2), U64(32), U64(2), U32(AM_GGML_Q4_0), U64(0);
    TEXT("two"), U32(1), U64(8), U32(AM_GGML_F32), U64(64);
    while (b.n % 32) am_buf_putc(&b, 0);
    for (int i = 0; i < 96; i++) am_buf_putc(&b, (char)i);
    memcpy(p, b.p, b.n);
    size_t n = b.n;
    am_buf_free(&b);
    return n;
}

static am_status open_copy(const uint8_t *p, size_t n) {
    uint8_t *copy = malloc(n ? n : 1); /* exactly n bytes, so that a sanitiser sees a read past the end */
    memcpy(copy, p, n);
    am_gguf *g;
    am_error err = {0};
    am_status status = am_gguf_open_bytes(copy, n, "file", &g, &err);
    if (status)
        assert_non_null(strstr(err.message, "file"));
    else
        am_gguf_free(g);
    free(copy);
    return status;
}

static void broken_headers_are_refused(void **state) {
    (void)state;
    uint8_t good[4096], bad[4096];
    size_t n = valid_file(good);
    assert_int_equal(open_copy(good, n), AM_OK);
    for (size_t cut = 0; cut < n; cut++) assert_int_not_equal(open_copy(good, cut), AM_OK);
    const uint64_t lengths[] = {1ull << 63, UINT64_MAX, 1ull << 32, 1ull << 60, (uint64_t)n};
    for (size_t at = 8; at + 8 <= n - 96; at++) /* every field, and every place that is none, as a huge number */
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            memcpy(bad, good, n);
            memcpy(bad + at, &lengths[i], 8);
            open_copy(bad, n);
        }
    for (size_t at = 0; at < n - 96; at++) /* every bit: an error or a harmless other file, never a read outside */
        for (int bit = 0; bit < 8; bit++) {
            memcpy(bad, good, n);
            bad[at] ^= (uint8_t)(1 << bit);
            open_copy(bad, n);
        }
}

static void twins_and_overlaps_are_refused(void **state) {
    (void)state;
    uint8_t good[4096];
    size_t n = valid_file(good);
    uint8_t *name = memmem(good, n, "two", 3);
    memcpy(name, "one", 3);
    assert_int_equal(open_copy(good, n), AM_EFORMAT);
    memcpy(name, "two", 3);
    name[3 + 4 + 8 + 4] = 32; /* its offset: into the first tensor */
    assert_int_equal(open_copy(good, n), AM_EFORMAT);
    name[3 + 4 + 8 + 4] = 63; /* not aligned */
    assert_int_equal(open_copy(good, n), AM_EFORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_format_gives_ggmls_values),
        cmocka_unit_test(grids_and_trits_give_ggmls_values),
        cmocka_unit_test(a_real_vocabulary_is_read),
        cmocka_unit_test(real_tensors_are_found),
        cmocka_unit_test(version_1_is_refused_with_its_reason),
        cmocka_unit_test(broken_headers_are_refused),
        cmocka_unit_test(twins_and_overlaps_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
