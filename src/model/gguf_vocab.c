/* Owns the way from tokenizer.ggml.* keys to the am_vocab that src/text/ builds a tokenizer from. */
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNKNOWN = 2, USER_DEFINED = 4 }; /* types of tokens; control lies between */

/* An optional key: absent leaves *out as it is, of a wrong kind is an error. */
static am_status optional_id(const am_gguf *g, const char *key, int32_t *out, am_error *err) {
    uint32_t id;
    if (!am_gguf_get(g, key)) return AM_OK;
    am_status status = am_gguf_u32(g, key, &id, err);
    if (!status && id > INT32_MAX) id = UINT32_MAX; /* some writers say 2^32 - 1 for "none" */
    if (!status) *out = (int32_t)id;
    return status;
}

static am_status optional_flag(const am_gguf *g, const char *key, int8_t *out, am_error *err) {
    bool flag;
    if (!am_gguf_get(g, key)) return AM_OK;
    am_status status = am_gguf_bool(g, key, &flag, err);
    if (!status) *out = flag;
    return status;
}

static am_status read_lists(const am_gguf *g, am_vocab *v, am_error *err) {
    am_str *tokens = NULL, *merges = NULL;
    float *scores = NULL;
    int32_t *types = NULL;
    size_t n_scores = 0, n_types = 0;
    am_status status = am_gguf_strings(g, "tokenizer.ggml.tokens", &tokens, &v->n_tokens, err);
    if (!status && am_gguf_get(g, "tokenizer.ggml.scores")) status = am_gguf_f32s(g, "tokenizer.ggml.scores", &scores, &n_scores, err);
    if (!status && am_gguf_get(g, "tokenizer.ggml.token_type"))
        status = am_gguf_i32s(g, "tokenizer.ggml.token_type", &types, &n_types, err);
    if (!status && am_gguf_get(g, "tokenizer.ggml.merges"))
        status = am_gguf_strings(g, "tokenizer.ggml.merges", &merges, &v->n_merges, err);
    v->tokens = tokens;
    v->scores = scores;
    v->types = types;
    v->merges = merges;
    if (status) return status;
    if ((scores && n_scores != v->n_tokens) || (types && n_types != v->n_tokens))
        return am_fail(err, AM_EFORMAT, "tokenizer.ggml: %zu tokens, %zu scores, %zu types", v->n_tokens, n_scores, n_types);
    return AM_OK;
}

static bool in_words(am_str s, const char *words) {
    for (const char *w = words; *w; w += strlen(w) + 1)
        if (am_str_eq(s, am_str_of(w))) return true;
    return false;
}

static am_status rstrip_said(const am_gguf *g, const am_vocab *v, bool *rstrip, am_error *err) {
    int32_t *ids;
    size_t n;
    am_status status = am_gguf_i32s(g, AM_GGUF_RSTRIP, &ids, &n, err);
    if (status) return status;
    for (size_t i = 0; !status && i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= v->n_tokens) status = am_fail(err, AM_EFORMAT, AM_GGUF_RSTRIP ": token %d is beyond the vocabulary", ids[i]);
        else rstrip[ids[i]] = true;
    }
    free(ids);
    return status;
}

/* Which tokens take the blanks behind them has no key in GGUF: llama.cpp goes by the model's name. Files of ours say it. */
static am_status read_rstrip(const am_gguf *g, am_vocab *v, am_error *err) {
    am_str name = {0};
    char text[256];
    bool said = am_gguf_get(g, AM_GGUF_RSTRIP);
    if (!said && am_gguf_get(g, "general.name") && am_gguf_string(g, "general.name", &name, err)) return AM_EFORMAT;
    snprintf(text, sizeof text, "%.*s", (int)(name.n < 255 ? name.n : 255), name.n ? name.p : "");
    if (!said && (!v->types || (!strcasestr(text, "phi-3") && !strcasestr(text, "phi3")))) return AM_OK;
    bool *rstrip = am_calloc(v->n_tokens, sizeof *rstrip);
    if (!rstrip) return am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    v->rstrip = rstrip;
    if (said) return rstrip_said(g, v, rstrip, err);
    for (size_t i = 0; i < v->n_tokens; i++) {
        bool mark = v->types[i] >= UNKNOWN && v->types[i] <= USER_DEFINED && !in_words(v->tokens[i], "<unk>\0<s>\0<|endoftext|>\0");
        rstrip[i] = mark || am_str_eq(v->tokens[i], AM_STR("</s>"));
    }
    return AM_OK;
}

am_status am_gguf_vocab(const am_gguf *g, am_vocab *out, am_error *err) {
    *out = (am_vocab){.bos = -1, .eos = -1, .unk = -1, .pad = -1, .add_bos = -1, .add_eos = -1, .add_space_prefix = -1,
                      .remove_extra_whitespaces = -1};
    am_status status = am_gguf_string(g, "tokenizer.ggml.model", &out->model, err);
    if (status) return status;
    if (am_gguf_get(g, "tokenizer.ggml.pre")) status = am_gguf_string(g, "tokenizer.ggml.pre", &out->pre, err);
    if (!status) status = read_lists(g, out, err);
    if (!status) status = read_rstrip(g, out, err);
    if (!status) status = optional_id(g, "tokenizer.ggml.bos_token_id", &out->bos, err);
    if (!status) status = optional_id(g, "tokenizer.ggml.eos_token_id", &out->eos, err);
    if (!status) status = optional_id(g, "tokenizer.ggml.unknown_token_id", &out->unk, err);
    if (!status) status = optional_id(g, "tokenizer.ggml.padding_token_id", &out->pad, err);
    if (!status) status = optional_flag(g, "tokenizer.ggml.add_bos_token", &out->add_bos, err);
    if (!status) status = optional_flag(g, "tokenizer.ggml.add_eos_token", &out->add_eos, err);
    if (!status) status = optional_flag(g, "tokenizer.ggml.add_space_prefix", &out->add_space_prefix, err);
    if (!status) status = optional_flag(g, "tokenizer.ggml.remove_extra_whitespaces", &out->remove_extra_whitespaces, err);
    const am_gguf_value *map = am_gguf_get(g, "tokenizer.ggml.precompiled_charsmap");
    if (!status && map && map->kind == AM_GGUF_ARRAY && (map->element == AM_GGUF_U8 || map->element == AM_GGUF_I8))
        out->precompiled_charsmap = (am_str){(const char *)map->p, (size_t)map->n};
    if (status) am_gguf_vocab_free(out);
    return status;
}

void am_gguf_vocab_free(am_vocab *v) {
    free((void *)v->tokens);
    free((void *)v->scores);
    free((void *)v->types);
    free((void *)v->merges);
    free((void *)v->rstrip);
    *v = (am_vocab){0};
}
