/* Owns where tokenizer and templates of a model come from, for loading a model and for the `text` command alike. */
#include "model/text_source.h"

#include "base/fs.h"
#include "model/embedded.h"

#include <string.h>
#include <sys/stat.h>

static am_status optional(am_status status) { return status == AM_ENOTFOUND ? AM_OK : status; }

/* The special tokens a template may name. */
static json_t *gguf_tokens(const am_vocab *vocab) {
    const struct {
        const char *key;
        int32_t id;
    } specials[] = {{"bos_token", vocab->bos}, {"eos_token", vocab->eos}, {"unk_token", vocab->unk}, {"pad_token", vocab->pad}};
    json_t *tokens = json_object();
    for (size_t i = 0; tokens && i < sizeof specials / sizeof specials[0]; i++)
        if (specials[i].id >= 0 && (size_t)specials[i].id < vocab->n_tokens) {
            am_str token = vocab->tokens[specials[i].id];
            json_object_set_new(tokens, specials[i].key, json_stringn(token.p, token.n));
        }
    return tokens;
}

/* tokenizer.chat_template and tokenizer.chat_template.NAME, as gguf's own writer puts them for a list of templates. */
static am_status gguf_chat(const am_gguf *gguf, const am_vocab *vocab, am_chat **chat, am_error *err) {
    static const am_str key = {"tokenizer.chat_template", 23};
    enum { MAX_NAMED = 64 };
    am_chat_source list[MAX_NAMED];
    size_t n = 0;
    for (size_t i = 0; i < am_gguf_n_values(gguf); i++) {
        const am_gguf_value *v = am_gguf_value_at(gguf, i);
        if (v->kind != AM_GGUF_STRING || !am_str_starts(v->key, key)) continue;
        bool bare = v->key.n == key.n, named = !bare && v->key.p[key.n] == '.' && v->key.n > key.n + 1;
        if (!bare && !named) continue;
        if (n == MAX_NAMED) return am_fail(err, AM_ELIMIT, "more than %d chat templates", MAX_NAMED);
        list[n++] = (am_chat_source){bare ? AM_STR("default") : (am_str){v->key.p + key.n + 1, v->key.n - key.n - 1}, {(const char *)v->p, v->n}};
    }
    if (n == 0) return AM_OK;
    json_t *tokens = gguf_tokens(vocab);
    am_status status = am_chat_load_sources(list, n, tokens, chat, err);
    json_decref(tokens);
    return status;
}

am_status am_text_source_gguf(const am_gguf *gguf, am_tokenizer **tokenizer, am_chat **chat, am_error *err) {
    am_vocab vocab;
    *tokenizer = NULL;
    *chat = NULL;
    am_status status = am_gguf_vocab(gguf, &vocab, err);
    if (status) return optional(status);
    status = am_tokenizer_load_vocab(&vocab, tokenizer, err);
    if (!status) status = gguf_chat(gguf, &vocab, chat, err);
    am_gguf_vocab_free(&vocab);
    return status;
}

static am_status open_gguf(const char *path, am_tokenizer **tokenizer, am_chat **chat, am_error *err) {
    am_gguf *gguf;
    am_status status = am_gguf_open(path, &gguf, err);
    if (status) return status;
    status = am_text_source_gguf(gguf, tokenizer, chat, err);
    am_gguf_free(gguf);
    return status;
}

static am_status open_embedded(am_tokenizer **tokenizer, am_chat **chat, am_error *err) {
    am_status status = am_tokenizer_load_json(AM_EMBEDDED(tokenizer), AM_EMBEDDED(tokenizer_config), tokenizer, err);
    return status ? status : am_chat_load_json(AM_EMBEDDED(tokenizer_config), chat, err);
}

static am_status open_file(const char *path, am_tokenizer **tokenizer, am_chat **chat, am_error *err) {
    char dir[4096];
    am_status status = am_tokenizer_load_file(path, tokenizer, err);
    if (status) return status;
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return optional(am_chat_load_dir(dir, chat, err));
}

static am_status open_dir(const char *dir, am_tokenizer **tokenizer, am_chat **chat, am_error *err) {
    am_status status = optional(am_tokenizer_load_dir(dir, tokenizer, err));
    return status ? status : optional(am_chat_load_dir(dir, chat, err));
}

am_status am_text_source_open(const char *path, am_tokenizer **tokenizer, am_chat **chat, am_error *err) {
    struct stat st;
    *tokenizer = NULL;
    *chat = NULL;
    if (!path) return open_embedded(tokenizer, chat, err);
    if (stat(path, &st) < 0) return am_fail(err, AM_ENOTFOUND, "%s: no such file or folder", path);
    size_t n = strlen(path);
    am_status status = S_ISDIR(st.st_mode)                                  ? open_dir(path, tokenizer, chat, err)
                       : n > 5 && strcmp(path + n - 5, ".gguf") == 0 ? open_gguf(path, tokenizer, chat, err)
                                                                            : open_file(path, tokenizer, chat, err);
    if (!status && !*tokenizer && !*chat) status = am_fail(err, AM_ENOTFOUND, "%s has neither a tokenizer nor a chat template", path);
    if (!status) return AM_OK;
    am_tokenizer_free(*tokenizer);
    am_chat_free(*chat);
    *tokenizer = NULL;
    *chat = NULL;
    return status;
}
