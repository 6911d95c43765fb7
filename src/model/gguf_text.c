/* Owns the vocabulary and the template of a folder as GGUF keys. Where no lists of GGUF mean what the folder's tokenizer does (text/vocab_of.c), there is no
 * vocabulary in the file, and a word in the log. */
#include "model/convert_int.h"
#include "model/internal.h"

#include "base/log.h"
#include "text/chat.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 1 << 30, U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

static void put_str(am_buf *b, am_str s) {
    uint64_t n = s.n;
    am_buf_append(b, &n, 8);
    if (n) am_buf_append(b, s.p, s.n);
}

static void put_key(am_buf *b, const char *key, uint32_t kind) {
    put_str(b, am_str_of(key));
    am_buf_append(b, &kind, 4);
}

void am_gguf_put_u32(am_buf *b, const char *key, uint32_t v) {
    put_key(b, key, U32);
    am_buf_append(b, &v, 4);
}

void am_gguf_put_f32(am_buf *b, const char *key, float v) {
    put_key(b, key, F32);
    am_buf_append(b, &v, 4);
}

void am_gguf_put_text(am_buf *b, const char *key, am_str v) {
    put_key(b, key, STRING);
    put_str(b, v);
}

static void put_array(am_buf *b, const char *key, uint32_t kind, uint64_t n) {
    put_key(b, key, ARRAY);
    am_buf_append(b, &kind, 4);
    am_buf_append(b, &n, 8);
}

void am_gguf_put_bool(am_buf *b, const char *key, bool v) {
    put_key(b, key, BOOL);
    am_buf_putc(b, v);
}

static void put_strings(am_buf *b, const char *key, const am_str *list, size_t n) {
    put_array(b, key, STRING, n);
    for (size_t i = 0; i < n; i++) put_str(b, list[i]);
}

static void put_rstrip(am_buf *b, const am_vocab *v) {
    uint64_t n = 0;
    for (size_t i = 0; i < v->n_tokens; i++) n += v->rstrip[i];
    put_array(b, AM_GGUF_RSTRIP, I32, n);
    for (uint32_t i = 0; i < v->n_tokens; i++)
        if (v->rstrip[i]) am_buf_append(b, &i, 4);
}

static void put_lists(am_buf *b, const am_vocab *v, uint64_t *n) {
    am_gguf_put_text(b, "tokenizer.ggml.model", v->model);
    put_strings(b, "tokenizer.ggml.tokens", v->tokens, v->n_tokens);
    put_array(b, "tokenizer.ggml.token_type", I32, v->n_tokens);
    am_buf_append(b, v->types, v->n_tokens * sizeof *v->types);
    am_gguf_put_bool(b, "tokenizer.ggml.add_bos_token", v->add_bos > 0);
    am_gguf_put_bool(b, "tokenizer.ggml.add_eos_token", v->add_eos > 0);
    *n += 5;
    if (v->unk >= 0) am_gguf_put_u32(b, "tokenizer.ggml.unknown_token_id", (uint32_t)v->unk), ++*n;
    if (v->rstrip) put_rstrip(b, v), ++*n;
    if (v->scores) {
        put_array(b, "tokenizer.ggml.scores", F32, v->n_tokens);
        am_buf_append(b, v->scores, v->n_tokens * sizeof *v->scores);
        am_gguf_put_bool(b, "tokenizer.ggml.add_space_prefix", v->add_space_prefix > 0);
    } else {
        am_gguf_put_text(b, "tokenizer.ggml.pre", v->pre);
        put_strings(b, "tokenizer.ggml.merges", v->merges, v->n_merges);
    }
    *n += 2;
}

typedef struct templates {
    am_buf *b;
    uint64_t *n; /* keys */
} templates;

/* The default under the bare key, others under their name, as gguf's own writer does. */
static am_status put_template(void *arg, am_str name, am_str source, am_error *err) {
    const templates *t = arg;
    char key[256];
    (void)err;
    snprintf(key, sizeof key, "tokenizer.chat_template%s%.*s", am_str_eq(name, AM_STR("default")) ? "" : ".",
             am_str_eq(name, AM_STR("default")) ? 0 : (int)(name.n < 200 ? name.n : 200), name.p);
    am_gguf_put_text(t->b, key, source);
    ++*t->n;
    return AM_OK;
}

static am_status put_vocabulary(am_buf *b, const char *dir, const am_model *m, uint64_t *n, int32_t *bos, am_error *err) {
    am_tokenizer *tokenizer = NULL;
    am_vocab v;
    am_arena *memory = am_arena_create(MAX_TEXT_BYTES);
    am_status status = memory ? am_tokenizer_load_dir(dir, &tokenizer, err) : am_fail(err, AM_ENOMEM, "no memory for a vocabulary");
    if (!status) status = am_vocab_of(tokenizer, m->config.n_vocab, memory, &v, err);
    if (!status) {
        put_lists(b, &v, n);
        if (v.bos >= 0) *bos = v.bos;
    }
    am_tokenizer_free(tokenizer);
    am_arena_free(memory);
    return status;
}

am_status am_gguf_put_text_keys(am_buf *b, const char *dir, const am_model *m, uint64_t *n, am_error *err) {
    const json_t *config_bos = json_object_get(m->config.json, "bos_token_id");
    int32_t bos = json_is_integer(config_bos) ? (int32_t)json_integer_value(config_bos) : -1;
    am_status status = put_vocabulary(b, dir, m, n, &bos, err);
    if (status == AM_ENOTFOUND || status == AM_EUNSUPPORTED) {
        if (status == AM_EUNSUPPORTED) am_log(AM_LOG_WARN, "this tokenizer does not become GGUF: the file has no vocabulary", AM_LS("model", dir), AM_LS("why", err->message));
        am_gguf_put_text(b, "tokenizer.ggml.model", AM_STR("none")); /* llama.cpp wants the key in any case */
        ++*n;
        status = AM_OK;
    } else if (!status) {
        templates t = {b, n};
        status = am_chat_sources_of_dir(dir, put_template, &t, err);
        if (status == AM_ENOTFOUND) status = AM_OK;
    }
    if (!status && bos >= 0) am_gguf_put_u32(b, "tokenizer.ggml.bos_token_id", (uint32_t)bos), ++*n;
    return status;
}
