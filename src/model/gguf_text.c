/* Owns the vocabulary and the template of a folder as GGUF keys. Only byte-level BPE with a pattern that has a name there: other kinds keep
 * scores or pieces that tokenizer.json does not hold, and a guessed pattern would split words wrongly in silence; then there is no vocabulary in the
 * file, and a word in the log. */
#include "model/convert_int.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 256 << 20, U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, NORMAL = 1, CONTROL = 3, USER = 4, UNUSED = 5 };

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

/* The name of the split pattern. */
static const char *pre_of(const json_t *tokenizer) {
    const json_t *pre = json_object_get(tokenizer, "pre_tokenizer"), *list = json_object_get(pre, "pretokenizers");
    const json_t *first = list ? json_array_get(list, 0) : pre;
    const char *type = json_string_value(json_object_get(first, "type"));
    const char *pattern = json_string_value(json_object_get(json_object_get(first, "pattern"), "Regex"));
    static const char words[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
    static const char tail[] = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    char llama[256], qwen[256];
    snprintf(llama, sizeof llama, "%s\\p{N}{1,3}%s", words, tail);
    snprintf(qwen, sizeof qwen, "%s\\p{N}%s", words, tail);
    if (pattern && strcmp(pattern, llama) == 0) return json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges")) ? "llama-bpe" : "dbrx";
    if (pattern && strcmp(pattern, qwen) == 0) return "qwen2";
    if (type && strcmp(type, "Digits") == 0) return "smollm";
    if (type && strcmp(type, "ByteLevel") == 0) return "gpt-2";
    return NULL;
}

typedef struct token {
    const char *text;
    int32_t kind;
} token;

static am_status place(token *list, uint32_t n, const char *text, const json_t *id, int32_t kind, am_error *err) {
    json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || i >= n) return am_fail(err, AM_EFORMAT, "tokenizer.json: token '%.60s' has an id outside the vocabulary of %u", text ? text : "", n);
    if (text) list[i] = (token){text, kind};
    return AM_OK;
}

static am_status put_tokens(am_buf *b, const json_t *tokenizer, uint32_t n, am_error *err) {
    const json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab"), *added = json_object_get(tokenizer, "added_tokens");
    token *list = am_calloc(n, sizeof *list);
    if (!list) return am_fail(err, AM_ENOMEM, "no memory for a vocabulary");
    am_status status = AM_OK;
    const char *text;
    json_t *v;
    size_t i;
    json_object_foreach((json_t *)vocab, text, v) if (!status) status = place(list, n, text, v, NORMAL, err);
    json_array_foreach(added, i, v) if (!status)
        status = place(list, n, json_string_value(json_object_get(v, "content")), json_object_get(v, "id"),
                       json_is_true(json_object_get(v, "special")) ? CONTROL : USER, err);
    put_array(b, "tokenizer.ggml.tokens", STRING, n);
    for (uint32_t k = 0; k < n; k++) {
        char unused[32];
        snprintf(unused, sizeof unused, "[PAD%u]", k);
        put_str(b, am_str_of(list[k].text ? list[k].text : unused));
    }
    put_array(b, "tokenizer.ggml.token_type", I32, n);
    for (uint32_t k = 0; k < n; k++) {
        int32_t kind = list[k].text ? list[k].kind : UNUSED;
        am_buf_append(b, &kind, 4);
    }
    free(list);
    return status;
}

/* A merge is "a b" or ["a", "b"]. */
static void put_merges(am_buf *b, const json_t *merges) {
    size_t i;
    json_t *m;
    put_array(b, "tokenizer.ggml.merges", STRING, json_array_size(merges));
    json_array_foreach(merges, i, m) {
        char text[1024];
        const char *whole = json_string_value(m), *left = json_string_value(json_array_get(m, 0)), *right = json_string_value(json_array_get(m, 1));
        if (!whole) snprintf(text, sizeof text, "%s %s", left ? left : "", right ? right : "");
        put_str(b, am_str_of(whole ? whole : text));
    }
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

/* llama.cpp wants the key in any case. */
static void put_none(am_buf *b, uint64_t *n) {
    am_gguf_put_text(b, "tokenizer.ggml.model", AM_STR("none"));
    ++*n;
}

am_status am_gguf_put_vocabulary(am_buf *b, const char *dir, uint32_t n_vocab, uint64_t *n, am_error *err) {
    char path[4096];
    json_t *tokenizer = NULL;
    am_status status = am_fs_join(path, sizeof path, dir, "tokenizer.json", err);
    if (!status && (status = am_json_read(path, MAX_TEXT_BYTES, &tokenizer, err)) == AM_ENOTFOUND) return put_none(b, n), AM_OK;
    if (status) return status;
    const json_t *model = json_object_get(tokenizer, "model");
    const char *pre = json_is_true(json_object_get(model, "byte_fallback")) ? NULL : pre_of(tokenizer);
    if (pre && json_is_object(json_object_get(model, "vocab")) && json_is_array(json_object_get(model, "merges"))) {
        am_gguf_put_text(b, "tokenizer.ggml.model", AM_STR("gpt2"));
        am_gguf_put_text(b, "tokenizer.ggml.pre", am_str_of(pre));
        status = put_tokens(b, tokenizer, n_vocab, err);
        put_merges(b, json_object_get(model, "merges"));
        *n += 5;
        templates t = {b, n};
        if (!status) status = am_chat_sources_of_dir(dir, put_template, &t, err);
        if (status == AM_ENOTFOUND) status = AM_OK;
    } else {
        put_none(b, n);
        am_log(AM_LOG_WARN, "this tokenizer does not become GGUF: the file has no vocabulary", AM_LS("tokenizer", path));
    }
    json_decref(tokenizer);
    return status;
}
