/* See tok_gguf.h. Trusts its files: only for those of the test data. */
#include "tok_gguf.h"
#include "tok_support.h"

#include <stdlib.h>
#include <string.h>

static uint64_t number(const char **p, size_t n) {
    uint64_t value = 0;
    memcpy(&value, *p, n);
    *p += n;
    return value;
}

static am_str string(const char **p) {
    size_t n = number(p, 8);
    am_str s = {*p, n};
    *p += n;
    return s;
}

static size_t size_of(uint32_t type) {
    static const size_t size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return size[type];
}

static void array(tok_gguf *g, am_str key, const char **p) {
    uint32_t type = (uint32_t)number(p, 4);
    size_t n = number(p, 8);
    if (type == 8) {
        am_str *list = calloc(n + 1, sizeof *list);
        for (size_t i = 0; i < n; i++) list[i] = string(p);
        if (am_str_eq(key, AM_STR("tokenizer.ggml.tokens"))) g->vocab.tokens = g->tokens = list, g->vocab.n_tokens = n;
        else if (am_str_eq(key, AM_STR("tokenizer.ggml.merges"))) g->vocab.merges = g->merges = list, g->vocab.n_merges = n;
        else free(list);
        return;
    }
    size_t bytes = n * size_of(type);
    if (am_str_eq(key, AM_STR("tokenizer.ggml.scores"))) g->vocab.scores = g->scores = memcpy(malloc(bytes + 1), *p, bytes);
    if (am_str_eq(key, AM_STR("tokenizer.ggml.token_type"))) g->vocab.types = g->types = memcpy(malloc(bytes + 1), *p, bytes);
    if (am_str_eq(key, AM_STR("tokenizer.ggml.precompiled_charsmap"))) g->vocab.precompiled_charsmap = (am_str){*p, bytes};
    *p += bytes;
}

static void scalar(tok_gguf *g, am_str key, uint64_t value) {
    const struct {
        const char *key;
        int32_t *id;
        int8_t *flag;
    } known[] = {
        {"bos_token_id", &g->vocab.bos, NULL}, {"eos_token_id", &g->vocab.eos, NULL},
        {"unknown_token_id", &g->vocab.unk, NULL}, {"padding_token_id", &g->vocab.pad, NULL},
        {"add_bos_token", NULL, &g->vocab.add_bos}, {"add_eos_token", NULL, &g->vocab.add_eos},
        {"add_space_prefix", NULL, &g->vocab.add_space_prefix}, {"remove_extra_whitespaces", NULL, &g->vocab.remove_extra_whitespaces},
    };
    if (!am_str_starts(key, AM_STR("tokenizer.ggml."))) return;
    key.p += 15, key.n -= 15;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!am_str_eq(key, am_str_of(known[i].key))) continue;
        if (known[i].id) *known[i].id = (int32_t)value;
        else *known[i].flag = value != 0;
    }
}

void tok_gguf_open(const char *path, tok_gguf *g) {
    *g = (tok_gguf){.vocab = {.bos = -1, .eos = -1, .unk = -1, .pad = -1, .add_bos = -1, .add_eos = -1, .add_space_prefix = -1, .remove_extra_whitespaces = -1}};
    tok_read(path, &g->file);
    const char *p = g->file.p;
    assert_memory_equal(p, "GGUF", 4);
    p += 16;
    size_t n = number(&p, 8);
    for (size_t i = 0; i < n; i++) {
        am_str key = string(&p);
        uint32_t type = (uint32_t)number(&p, 4);
        if (type == 9) array(g, key, &p);
        else if (type == 8) {
            am_str s = string(&p);
            if (am_str_eq(key, AM_STR("tokenizer.ggml.model"))) g->vocab.model = s;
            if (am_str_eq(key, AM_STR("tokenizer.ggml.pre"))) g->vocab.pre = s;
        } else scalar(g, key, number(&p, size_of(type)));
    }
}

void tok_gguf_close(tok_gguf *g) {
    free(g->tokens);
    free(g->merges);
    free(g->scores);
    free(g->types);
    am_buf_free(&g->file);
}
