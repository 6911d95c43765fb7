/* Owns finding a tokenizer in a folder: tokenizer.json, else tokenizer.model (SentencePiece, or a tiktoken rank file under that name),
 * else a file named *.tiktoken or tiktoken.model; with tokenizer_config.json beside it, and special_tokens_map.json and added_tokens.json
 * of older folders, which are taken into the config where it is silent. */
#include "text/hf_int.h"
#include "text/vocab_int.h"

#include "base/fs.h"

#include <stdio.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 28 };

static am_status read_from(const char *dir, const char *name, am_buf *out, am_error *err) {
    char path[4096];
    am_status status = am_fs_join(path, sizeof path, dir, name, err);
    return status ? status : am_fs_read_file(path, out, MAX_FILE_BYTES, err);
}

/* SentencePiece files begin with a message field, rank files with base64 text. */
static bool is_rank_file(am_str s) {
    size_t i = 0;
    while (i < s.n && i < 4096 && s.p[i] != ' ' && s.p[i] > 0x20 && s.p[i] < 0x7F) i++;
    return i > 0 && i + 1 < s.n && s.p[i] == ' ' && s.p[i + 1] >= '0' && s.p[i + 1] <= '9';
}

static am_status load_bytes(am_str text, am_str config, const char *path, const char *compiled_dir, am_tokenizer **out, am_error *err) {
    size_t i = 0;
    while (i < text.n && memchr(" \t\r\n", text.p[i], 4)) i++;
    if (i < text.n && text.p[i] == '{') return am_hf_load(text, config, compiled_dir, out, err);
    return is_rank_file(text) ? am_tiktoken_load(text, config, path, out, err) : am_sentencepiece_load(text, config, out, err);
}

static am_status json_from(const char *dir, const char *name, json_t **out, am_error *err) {
    char path[4096];
    am_status status = am_fs_join(path, sizeof path, dir, name, err);
    if (!status) status = am_json_read(path, MAX_FILE_BYTES, out, err);
    if (!status && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        status = am_fail(err, AM_EFORMAT, "%s: not an object", path);
    }
    return status == AM_ENOTFOUND ? AM_OK : status;
}

static bool is_special(const json_t *specials, const char *token) {
    const char *key;
    json_t *value, *one;
    size_t i;
    json_object_foreach((json_t *)specials, key, value) {
        if (am_str_eq(am_hf_content(value), am_str_of(token))) return true;
        json_array_foreach(value, i, one)
            if (am_str_eq(am_hf_content(one), am_str_of(token))) return true;
    }
    return false;
}

/* {"token": id} as tokenizer_config.json would have it; NULL when out of memory. */
static json_t *added_decoder(const json_t *added, const json_t *specials) {
    json_t *decoder = json_object(), *id;
    const char *token;
    json_object_foreach((json_t *)added, token, id) {
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)json_integer_value(id));
        bool special = is_special(specials, token);
        if (json_is_integer(id)) json_object_set_new(decoder, key, json_pack("{s:s, s:b, s:b}", "content", token, "special", special, "normalized", !special));
    }
    return decoder;
}

/* What older folders keep beside the config. */
static am_status config_complete(const char *dir, am_buf *config, am_error *err) {
    json_t *specials = NULL, *added = NULL, *whole = NULL, *value;
    const char *key;
    am_status status = json_from(dir, "special_tokens_map.json", &specials, err);
    if (!status) status = json_from(dir, AM_HF_ADDED_FILE, &added, err);
    if (status || (!specials && !added)) goto out;
    if (config->n) status = am_json_parse(am_buf_str(config), false, &whole, err);
    else whole = json_object();
    if (status) am_error_prefix(err, "tokenizer_config.json");
    if (!status && !json_is_object(whole)) status = am_fail(err, whole ? AM_EFORMAT : AM_ENOMEM, "tokenizer_config.json: not an object");
    if (status) goto out;
    json_object_foreach(specials, key, value)
        if (!json_object_get(whole, key)) json_object_set(whole, key, value);
    if (added && !json_object_get(whole, "added_tokens_decoder")) json_object_set_new(whole, AM_HF_ADDED_FILE, added_decoder(added, specials));
    am_buf_clear(config);
    if ((status = am_json_dump(whole, config))) am_fail(err, status, "no memory for tokenizer_config.json");
out:
    json_decref(specials);
    json_decref(added);
    json_decref(whole);
    return status;
}

typedef struct search {
    char name[256];
} search;

static am_status rank_name(void *arg, const char *name) {
    search *s = arg;
    size_t n = strlen(name);
    if (n < sizeof s->name && n > 9 && strcmp(name + n - 9, ".tiktoken") == 0) memcpy(s->name, name, n + 1);
    return AM_OK;
}

am_status am_tokenizer_load_dir_compiled(const char *dir, const char *compiled_dir, am_tokenizer **out, am_error *err) {
    *out = NULL;
    search found = {"tiktoken.model"};
    am_buf text, config;
    am_buf_init(&text, MAX_FILE_BYTES + 1);
    am_buf_init(&config, MAX_FILE_BYTES + 1);
    am_status status = read_from(dir, "tokenizer_config.json", &config, err);
    if (status == AM_ENOTFOUND) status = AM_OK;
    const char *name = "tokenizer.json";
    if (!status) status = read_from(dir, name, &text, err);
    if (status == AM_ENOTFOUND) status = read_from(dir, name = "tokenizer.model", &text, err);
    if (status == AM_ENOTFOUND && am_fs_list(dir, rank_name, &found, NULL) == AM_OK) status = read_from(dir, name = found.name, &text, err);
    if (status == AM_ENOTFOUND) am_fail(err, status, "%s has no tokenizer.json, tokenizer.model or rank file", dir);
    else if (!status) {
        status = config_complete(dir, &config, err);
        if (!status) status = load_bytes(am_buf_str(&text), am_buf_str(&config), name, compiled_dir, out, err);
        if (status) am_error_prefix(err, "%s/%s", dir, name);
    }
    am_buf_free(&text);
    am_buf_free(&config);
    return status;
}

am_status am_tokenizer_load_dir(const char *dir, am_tokenizer **out, am_error *err) { return am_tokenizer_load_dir_compiled(dir, NULL, out, err); }

am_status am_tokenizer_load_file(const char *path, am_tokenizer **out, am_error *err) {
    *out = NULL;
    am_buf text, config;
    am_buf_init(&text, MAX_FILE_BYTES + 1);
    am_buf_init(&config, MAX_FILE_BYTES + 1);
    const char *slash = strrchr(path, '/');
    char dir[4096];
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    am_status status = read_from(dir, "tokenizer_config.json", &config, err);
    if (status == AM_ENOTFOUND) status = AM_OK;
    if (!status) status = am_fs_read_file(path, &text, MAX_FILE_BYTES, err);
    if (!status) status = config_complete(dir, &config, err);
    if (!status) status = load_bytes(am_buf_str(&text), am_buf_str(&config), path, NULL, out, err);
    if (status && status != AM_ENOTFOUND) am_error_prefix(err, "%s", path);
    am_buf_free(&text);
    am_buf_free(&config);
    return status;
}
