/* Owns vocabularies that come as lists of tokens with types and scores: GGUF metadata and SentencePiece models.
 *
 * Control, unknown and byte entries are never found by the model in plain text, only as added tokens or by byte fallback: so text can
 * never spell a control token. SentencePiece's BPE has no merges, only scores; the table of merges is made from them here. */
#include "text/vocab_int.h"
#include "text/hf_int.h"
#include "text/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\xE2\x96\x81"
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

/* ---- stages */

am_status am_stage_norm(am_tokenizer *t, am_norm_kind kind, am_str find, am_str content, am_error *err) {
    am_norm norm = {.kind = kind};
    if (t->n_norm == AM_MAX_STAGES) return am_fail(err, AM_ELIMIT, "too many normalizers");
    norm.content = am_str_own(content);
    am_status status = norm.content.p ? AM_OK : am_fail(err, AM_ENOMEM, "no memory for a normalizer");
    if (!status && find.n) status = am_regex_literal(find, &norm.regex, err);
    if (status) am_norm_free(&norm);
    else t->norm[t->n_norm++] = norm;
    return status;
}

am_status am_stage_dec(am_tokenizer *t, am_dec_kind kind, am_str find, am_str content, am_error *err) {
    am_dec dec = {.kind = kind, .start = kind == AM_DEC_STRIP};
    if (t->n_dec == AM_MAX_STAGES) return am_fail(err, AM_ELIMIT, "too many decoders");
    dec.find = am_str_own(find);
    dec.content = am_str_own(content);
    if (!dec.find.p || !dec.content.p) {
        am_dec_free(&dec);
        return am_fail(err, AM_ENOMEM, "no memory for a decoder");
    }
    t->dec[t->n_dec++] = dec;
    return AM_OK;
}

am_status am_stage_patterns(am_tokenizer *t, const am_pre_name *name, am_error *err) {
    am_status status = AM_OK;
    for (size_t i = 0; i < 8 && name->pattern[i] && !status; i++) status = am_pre_add_split(t, am_str_of(name->pattern[i]), AM_REGEX_ONIGURUMA, err);
    return status;
}

/* Text with marks for spaces: what SentencePiece models see and give back. */
static am_status mark_stages(am_tokenizer *t, const am_vocab *v, bool prefix, am_error *err) {
    am_status status = AM_OK;
    if (v->precompiled_charsmap.n) {
        status = am_charsmap_check(v->precompiled_charsmap, err);
        if (!status) status = am_stage_norm(t, AM_NORM_CHARSMAP, (am_str){0}, v->precompiled_charsmap, err);
    }
    if (!status && v->remove_extra_whitespaces > 0) status = am_stage_norm(t, AM_NORM_SPACES, (am_str){0}, (am_str){"", 0}, err);
    if (!status && prefix) status = am_stage_norm(t, AM_NORM_PREPEND, (am_str){0}, AM_STR(" "), err);
    if (!status) status = am_stage_norm(t, AM_NORM_REPLACE, AM_STR(" "), AM_STR(MARK), err);
    if (!status) status = am_stage_dec(t, AM_DEC_REPLACE, AM_STR(MARK), AM_STR(" "), err);
    if (!status) status = am_stage_dec(t, AM_DEC_FALLBACK, (am_str){"", 0}, (am_str){"", 0}, err);
    if (!status) status = am_stage_dec(t, AM_DEC_FUSE, (am_str){"", 0}, (am_str){"", 0}, err);
    if (!status && prefix) status = am_stage_dec(t, AM_DEC_STRIP, (am_str){"", 0}, AM_STR(" "), err);
    return status;
}

/* ---- entries */

static int type_of(const am_vocab *v, size_t id) { return v->types ? v->types[id] : NORMAL; }

static am_status words_read(am_tokenizer *t, const am_vocab *v, am_error *err) {
    am_status status = AM_OK;
    for (int b = 0; b < 256; b++) t->bpe.fallback_id[b] = -1;
    t->bpe.has_fallback = true;
    for (size_t id = 0; id < v->n_tokens && !status; id++) {
        if (am_utf8_check(v->tokens[id]) != v->tokens[id].n) return am_fail(err, AM_EFORMAT, "token %zu is not UTF-8", id);
        status = am_words_add(&t->words, id, v->tokens[id], err);
        int byte = type_of(v, id) == BYTE ? am_byte_token(v->tokens[id]) : -1;
        if (byte >= 0) t->bpe.fallback_id[byte] = (int32_t)id;
    }
    if (status) return status;
    for (size_t id = 0; id < v->n_tokens; id++) {
        int type = type_of(v, id);
        bool found = v->tokens[id].n && type != CONTROL && type != UNKNOWN && type != BYTE && !(t->bpe.byte_level && type == USER_DEFINED);
        if (!found) t->words.flags[id] &= (uint8_t)~AM_WORD_FINDABLE;
    }
    if (t->bpe.byte_level) am_words_undo_bytes(&t->words);
    return am_words_seal(&t->words, err);
}

static am_status specials_read(am_tokenizer *t, const am_vocab *v, am_error *err) {
    am_status status = AM_OK;
    for (size_t id = 0; id < v->n_tokens && !status; id++) {
        int type = type_of(v, id);
        if ((type != CONTROL && type != USER_DEFINED && type != UNKNOWN) || v->tokens[id].n == 0) continue;
        am_added a = {.content = v->tokens[id], .special = type == CONTROL || type == UNKNOWN};
        a.rstrip = v->rstrip && v->rstrip[id];
        status = am_added_put_at(t, &a, (int32_t)id, err);
    }
    return status;
}

/* ---- merges */

static am_status merges_read(am_tokenizer *t, const am_vocab *v, am_error *err) {
    am_buf text;
    am_buf_init(&text, 1 << 24);
    am_status status = am_bpe_reserve(&t->bpe, v->n_merges, err);
    for (size_t i = 0; i < v->n_merges && !status; i++) {
        am_str m = v->merges[i];
        const char *space = m.n > 1 ? memchr(m.p + 1, ' ', m.n - 1) : NULL;
        if (!space || am_utf8_check(m) != m.n) status = am_fail(err, AM_EFORMAT, "merge %zu is not two tokens with a space between", i);
        if (status) break;
        am_buf_clear(&text);
        size_t left_n = 0;
        bool spelled = am_half_put(t, (am_str){m.p, (size_t)(space - m.p)}, &text);
        left_n = text.n;
        spelled = am_half_put(t, (am_str){space + 1, m.n - (size_t)(space + 1 - m.p)}, &text) && spelled;
        int32_t l = spelled ? am_words_find(&t->words, (am_str){text.p, left_n}) : -1;
        int32_t r = spelled ? am_words_find(&t->words, (am_str){text.p + left_n, text.n - left_n}) : -1;
        int32_t id = spelled ? am_words_find(&t->words, am_buf_str(&text)) : -1;
        /* what names an entry that text cannot reach merges nothing; files of real models have some */
        if (l >= 0 && r >= 0 && id >= 0) status = am_bpe_merge(&t->bpe, l, r, (uint32_t)i, id, err);
    }
    am_buf_free(&text);
    return status;
}

typedef struct scored {
    float score;
    uint32_t id;
} scored;

static int score_order(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Entries in the order of their scores, equal scores with equal rank. */
static am_status merges_by_score(am_tokenizer *t, const am_vocab *v, am_error *err) {
    scored *order = am_calloc(v->n_tokens, sizeof *order);
    uint32_t *rank = am_calloc(v->n_tokens, sizeof *rank);
    am_status status = AM_OK;
    if (!order || !rank) status = am_fail(err, AM_ENOMEM, "no memory for the merges");
    if (!status) {
        for (size_t i = 0; i < v->n_tokens; i++) order[i] = (scored){isnan(v->scores[i]) ? -INFINITY : v->scores[i], (uint32_t)i};
        qsort(order, v->n_tokens, sizeof *order, score_order);
        uint32_t r = 0;
        for (size_t i = 0; i < v->n_tokens; i++) {
            r += i && order[i].score != order[i - 1].score;
            rank[order[i].id] = r;
        }
        status = am_bpe_merges_from_words(t, rank, err);
    }
    free(order);
    free(rank);
    return status;
}

/* ---- the models */

static am_status read_bpe(am_tokenizer *t, const am_vocab *v, bool *add_bos, am_error *err) {
    am_str name = am_str_eq(v->model, AM_STR("gemma4")) ? AM_STR("gemma4") : v->pre.n ? v->pre : AM_STR("default");
    const am_pre_name *pre = am_pre_name_find(name);
    if (!pre) return am_fail(err, AM_EUNSUPPORTED, "pre-tokenizer '%.*s' is not supported", (int)(name.n < 100 ? name.n : 100), name.p);
    t->kind = AM_MODEL_BPE;
    bool marks = pre->flags & AM_PRE_MARKS;
    t->bpe.byte_level = !marks;
    t->bpe.byte_fallback = marks;
    t->bpe.whole_lines = pre->flags & AM_PRE_WHOLE_LINES;
    t->bpe.ignore_merges = pre->flags & AM_PRE_IGNORE_MERGES;
    *add_bos = pre->flags & AM_PRE_ADD_BOS;
    if (!v->merges && !(pre->flags & AM_PRE_NO_MERGES)) return am_fail(err, AM_EFORMAT, "a BPE vocabulary without merges");
    am_status status = marks ? mark_stages(t, v, v->add_space_prefix > 0, err) : am_stage_dec(t, AM_DEC_BYTES, (am_str){"", 0}, (am_str){"", 0}, err);
    if (!status) status = am_stage_patterns(t, pre, err);
    if (!status) status = words_read(t, v, err);
    return status ? status : merges_read(t, v, err);
}

static am_status read_spm(am_tokenizer *t, const am_vocab *v, am_error *err) {
    t->kind = AM_MODEL_BPE;
    t->bpe.byte_fallback = t->bpe.fuse_unk = true;
    if (!v->scores) return am_fail(err, AM_EFORMAT, "a SentencePiece vocabulary without scores");
    am_status status = mark_stages(t, v, v->add_space_prefix != 0, err);
    if (!status) status = words_read(t, v, err);
    return status ? status : merges_by_score(t, v, err);
}

static am_status read_unigram(am_tokenizer *t, const am_vocab *v, am_error *err) {
    t->kind = AM_MODEL_UNIGRAM;
    if (!v->scores) return am_fail(err, AM_EFORMAT, "a Unigram vocabulary without scores");
    am_status status = mark_stages(t, v, v->add_space_prefix != 0, err);
    if (!status) status = words_read(t, v, err);
    if (status) return status;
    t->unigram.score = am_calloc(v->n_tokens, sizeof *t->unigram.score);
    if (!t->unigram.score) return am_fail(err, AM_ENOMEM, "no memory for scores");
    bool any = false;
    for (size_t id = 0; id < v->n_tokens; id++) {
        int type = type_of(v, id);
        t->unigram.score[id] = type == USER_DEFINED ? 0 : (double)v->scores[id];
        if (type == NORMAL && (!any || v->scores[id] < t->unigram.least)) t->unigram.least = v->scores[id], any = true;
    }
    for (int b = 0; b < 256; b++) t->unigram.byte_fallback |= t->bpe.fallback_id[b] >= 0;
    return AM_OK;
}

/* BERT's words as GGUF spells them: U+2581 begins a word, nothing continues one. */
static am_status read_bert(am_tokenizer *t, const am_vocab *v, am_error *err) {
    static const am_norm_kind kinds[] = {AM_NORM_CLEAN, AM_NORM_CHINESE, AM_NORM_UNICODE, AM_NORM_STRIP_MN, AM_NORM_LOWERCASE};
    am_status status = AM_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !status; i++) status = am_stage_norm(t, kinds[i], (am_str){0}, (am_str){"", 0}, err);
    t->kind = AM_MODEL_WORDPIECE;
    t->wordpiece.max_chars = SIZE_MAX;
    t->wordpiece.first = am_str_own(AM_STR(MARK));
    if (!status && !t->wordpiece.first.p) status = am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    t->pre[t->n_pre++] = (am_pre){.kind = AM_PRE_BERT};
    if (!status) status = am_stage_dec(t, AM_DEC_REPLACE, AM_STR(MARK), AM_STR(" "), err);
    if (!status) status = am_stage_dec(t, AM_DEC_FUSE, (am_str){"", 0}, (am_str){"", 0}, err);
    if (!status) status = am_stage_dec(t, AM_DEC_STRIP, (am_str){"", 0}, AM_STR(" "), err);
    return status ? status : words_read(t, v, err);
}

static am_status end_put(int32_t **ids, size_t *n, int32_t id, bool wanted, am_error *err) {
    size_t cap = 0;
    if (!wanted || id < 0) return AM_OK;
    if (!am_grow(ids, &cap, 1, sizeof **ids)) return am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    (*ids)[(*n)++] = id;
    return AM_OK;
}

am_status am_vocab_read(am_tokenizer *t, const am_vocab *v, am_error *err) {
    bool add_bos = false, add_eos = false;
    int32_t top = (int32_t)v->n_tokens;
    if (v->n_tokens == 0 || v->n_tokens > INT32_MAX) return am_fail(err, AM_EFORMAT, "a vocabulary of %zu tokens", v->n_tokens);
    if (v->bos >= top || v->eos >= top || v->unk >= top || v->pad >= top) return am_fail(err, AM_EFORMAT, "a special token's id is beyond the vocabulary");
    t->unk = v->unk;
    t->bos = v->bos;
    t->eos = v->eos;
    am_status status;
    if (am_str_eq(v->model, AM_STR("gpt2")) || am_str_eq(v->model, AM_STR("gemma4"))) status = read_bpe(t, v, &add_bos, err);
    else if (am_str_eq(v->model, AM_STR("llama"))) add_bos = true, status = read_spm(t, v, err);
    else if (am_str_eq(v->model, AM_STR("t5"))) add_eos = true, status = read_unigram(t, v, err);
    else if (am_str_eq(v->model, AM_STR("bert"))) add_bos = add_eos = true, status = read_bert(t, v, err);
    else status = am_fail(err, AM_EUNSUPPORTED, "tokenizer model '%.*s' is not supported", (int)(v->model.n < 100 ? v->model.n : 100), v->model.p ? v->model.p : "");
    if (!status) status = specials_read(t, v, err);
    if (!status) status = end_put(&t->head, &t->n_head, t->bos, v->add_bos < 0 ? add_bos : v->add_bos > 0, err);
    if (!status) status = end_put(&t->tail, &t->n_tail, t->eos, v->add_eos < 0 ? add_eos : v->add_eos > 0, err);
    return status;
}

/* What the fingerprint is made of, since there is no file: everything that decides ids. */
static am_status vocab_print(const am_vocab *v, am_buf *out) {
    am_buf_init(out, SIZE_MAX - 1);
    am_status status = am_buf_printf(out, "%.*s %.*s %d %d %d %d %d %d %d\n", (int)v->model.n, v->model.p ? v->model.p : "", (int)v->pre.n, v->pre.p ? v->pre.p : "",
                                     v->bos, v->eos, v->unk, v->add_bos, v->add_eos, v->add_space_prefix, v->remove_extra_whitespaces);
    for (size_t i = 0; i < v->n_tokens && !status; i++) {
        uint64_t n = v->tokens[i].n;
        status = am_buf_append(out, &n, sizeof n);
        if (!status) status = am_buf_add(out, v->tokens[i]);
    }
    for (size_t i = 0; i < v->n_merges && !status; i++) {
        uint64_t n = v->merges[i].n;
        status = am_buf_append(out, &n, sizeof n);
        if (!status) status = am_buf_add(out, v->merges[i]);
    }
    if (!status && v->scores) status = am_buf_append(out, v->scores, v->n_tokens * sizeof *v->scores);
    if (!status && v->types) status = am_buf_append(out, v->types, v->n_tokens * sizeof *v->types);
    if (!status && v->rstrip) status = am_buf_append(out, v->rstrip, v->n_tokens * sizeof *v->rstrip);
    return status ? status : am_buf_add(out, v->precompiled_charsmap);
}

/* What GGUF readers take where a file is silent. */
static void ids_complete(am_vocab *v) {
    bool spm = am_str_eq(v->model, AM_STR("llama")), unigram = am_str_eq(v->model, AM_STR("t5"));
    int32_t bos = spm ? 1 : -1, eos = spm ? 2 : unigram ? 1 : -1, unk = spm ? 0 : unigram ? 2 : -1, top = (int32_t)v->n_tokens;
    if (v->bos < 0 && bos < top) v->bos = bos;
    if (v->eos < 0 && eos < top) v->eos = eos;
    if (v->unk < 0 && unk < top) v->unk = unk;
}

am_status am_tokenizer_load_vocab(const am_vocab *vocab, am_tokenizer **out, am_error *err) {
    am_vocab whole = *vocab, *v = &whole;
    *out = NULL;
    ids_complete(v);
    am_tokenizer *t = am_tokenizer_create();
    if (!t) return am_fail(err, AM_ENOMEM, "no memory for the tokenizer");
    am_buf print = {0};
    am_status status = am_vocab_read(t, v, err);
    if (!status && vocab_print(v, &print)) status = am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    if (!status) status = am_tokenizer_seal(t, (am_str[]){am_buf_str(&print)}, 1, err);
    am_buf_free(&print);
    if (status) am_tokenizer_free(t);
    else *out = t;
    return status;
}
