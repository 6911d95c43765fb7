/* Owns the reading of SentencePiece's tokenizer.model, a protobuf message (sentencepiece_model.proto):
 *
 *   ModelProto:     1 repeated SentencePiece, 2 TrainerSpec, 3 NormalizerSpec
 *   SentencePiece:  1 piece (bytes), 2 score (float), 3 type (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte)
 *   TrainerSpec:    3 model type (1 Unigram, 2 BPE, 3 word, 4 char), 24 treat whitespace as suffix, 40 unk, 41 bos, 42 eos, 43 pad
 *   NormalizerSpec: 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces (all default true)
 *
 * A message becomes an am_vocab, which vocab.c turns into a tokenizer. Unknown fields are skipped, as protobuf asks. */
#include "text/vocab_int.h"
#include "text/hf_int.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

typedef struct proto {
    const uint8_t *p, *end;
} proto;
typedef struct field {
    uint32_t number;
    uint64_t value; /* varint, or the bits of fixed */
    am_str bytes;   /* length-delimited */
} field;

static bool varint(proto *m, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && m->p < m->end; shift += 7) {
        uint8_t byte = *m->p++;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

/* The next field; false at the end, and then *bad says whether the message was cut or malformed. */
static bool field_next(proto *m, field *f, bool *bad) {
    uint64_t key;
    *f = (field){0};
    if (m->p >= m->end) return false;
    *bad = true;
    if (!varint(m, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX) return false;
    f->number = (uint32_t)(key >> 3);
    size_t left = (size_t)(m->end - m->p), fixed = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : 0;
    if (fixed) {
        if (left < fixed) return false;
        memcpy(&f->value, m->p, fixed);
        m->p += fixed;
    } else if ((key & 7) == 2) {
        if (!varint(m, &f->value) || f->value > (size_t)(m->end - m->p)) return false;
        f->bytes = (am_str){(const char *)m->p, f->value};
        m->p += f->value;
    } else if ((key & 7) != 0 || !varint(m, &f->value)) return false;
    *bad = false;
    return true;
}

static proto inside(am_str s) { return (proto){(const uint8_t *)s.p, (const uint8_t *)s.p + s.n}; }

typedef struct model {
    am_vocab vocab;
    am_str *tokens;
    float *scores;
    int32_t *types;
    size_t cap[3];
    uint64_t kind; /* TrainerSpec.model_type */
    bool suffix, escape;
} model;

static am_status piece_read(model *m, am_str bytes, am_error *err) {
    proto p = inside(bytes);
    field f;
    bool bad = false;
    size_t n = m->vocab.n_tokens;
    if (!am_grow(&m->tokens, &m->cap[0], n + 1, sizeof *m->tokens) || !am_grow(&m->scores, &m->cap[1], n + 1, sizeof *m->scores) ||
        !am_grow(&m->types, &m->cap[2], n + 1, sizeof *m->types))
        return am_fail(err, AM_ENOMEM, "no memory for the vocabulary");
    m->tokens[n] = (am_str){"", 0};
    m->scores[n] = 0;
    m->types[n] = 1;
    while (field_next(&p, &f, &bad)) {
        uint32_t bits = (uint32_t)f.value;
        if (f.number == 1 && f.bytes.p) m->tokens[n] = f.bytes;
        if (f.number == 2) memcpy(&m->scores[n], &bits, 4);
        if (f.number == 3) m->types[n] = (int32_t)bits;
    }
    if (bad) return am_fail(err, AM_EFORMAT, "piece %zu is malformed", n);
    m->vocab.n_tokens++;
    return AM_OK;
}

static bool trainer_read(model *m, am_str bytes) {
    proto p = inside(bytes);
    field f;
    bool bad = false;
    while (field_next(&p, &f, &bad)) {
        int32_t id = f.value > INT32_MAX ? -1 : (int32_t)f.value; /* -1 is written as a large varint */
        if (f.number == 3) m->kind = f.value;
        if (f.number == 24) m->suffix = f.value != 0;
        if (f.number == 40) m->vocab.unk = id;
        if (f.number == 41) m->vocab.bos = id;
        if (f.number == 42) m->vocab.eos = id;
        if (f.number == 43) m->vocab.pad = id;
    }
    return !bad;
}

static bool normalizer_read(model *m, am_str bytes) {
    proto p = inside(bytes);
    field f;
    bool bad = false;
    while (field_next(&p, &f, &bad)) {
        if (f.number == 2 && f.bytes.p) m->vocab.precompiled_charsmap = f.bytes;
        if (f.number == 3) m->vocab.add_space_prefix = f.value != 0;
        if (f.number == 4) m->vocab.remove_extra_whitespaces = f.value != 0;
        if (f.number == 5) m->escape = f.value != 0;
    }
    return !bad;
}

static am_status model_read(model *m, am_str file, am_error *err) {
    proto p = inside(file);
    field f;
    bool bad = false;
    am_status status = AM_OK;
    while (!status && field_next(&p, &f, &bad)) {
        if (f.number == 1 && f.bytes.p) status = piece_read(m, f.bytes, err);
        if (f.number == 2 && f.bytes.p && !trainer_read(m, f.bytes)) status = am_fail(err, AM_EFORMAT, "the trainer spec is malformed");
        if (f.number == 3 && f.bytes.p && !normalizer_read(m, f.bytes)) status = am_fail(err, AM_EFORMAT, "the normalizer spec is malformed");
    }
    if (status) return status;
    if (bad) return am_fail(err, AM_EFORMAT, "not a SentencePiece model: malformed at byte %zu", (size_t)((const char *)p.p - file.p));
    if (m->suffix || !m->escape) return am_fail(err, AM_EUNSUPPORTED, "SentencePiece with treat_whitespace_as_suffix or without escape_whitespaces is not supported");
    if (m->kind != 1 && m->kind != 2) return am_fail(err, AM_EUNSUPPORTED, "SentencePiece model type %llu is not supported", (unsigned long long)m->kind);
    int32_t top = (int32_t)m->vocab.n_tokens;
    int32_t *const ids[] = {&m->vocab.unk, &m->vocab.bos, &m->vocab.eos, &m->vocab.pad};
    for (size_t i = 0; i < 4; i++)
        if (*ids[i] >= top) *ids[i] = -1;
    m->vocab.model = m->kind == 2 ? AM_STR("llama") : AM_STR("t5");
    m->vocab.tokens = m->tokens;
    m->vocab.scores = m->scores;
    m->vocab.types = m->types;
    return AM_OK;
}

/* Where SentencePiece itself and what GGUF readers make of it differ: the file's own library is the reference here. */
static am_status stages_adapt(am_tokenizer *t, const am_vocab *v, am_error *err) {
    bool tidy = v->remove_extra_whitespaces > 0;
    t->unigram.single = true;
    t->joined_tidy = tidy;
    for (size_t i = 0; i < t->n_norm; i++) {
        if (t->norm[i].kind == AM_NORM_SPACES) t->norm[i].right = true;
        if (t->norm[i].kind == AM_NORM_PREPEND) t->norm[i].left = !tidy;
    }
    if (tidy && v->add_space_prefix == 0) {
        am_status status = am_stage_dec(t, AM_DEC_STRIP, (am_str){"", 0}, AM_STR(" "), err);
        if (status) return status;
    }
    for (size_t i = 0; i < t->n_dec; i++) {
        t->dec[i].loose = t->dec[i].kind == AM_DEC_FALLBACK;
        if (t->dec[i].kind == AM_DEC_STRIP && tidy) t->dec[i].start = UINT32_MAX - 1, t->dec[i].each = true;
    }
    for (size_t i = 0; i < t->n_added; i++) t->added[i].joined = !t->added[i].special;
    for (size_t i = 0; t->unigram.score && i < v->n_tokens; i++) {
        if (v->types[i] == 4) t->unigram.score[i] = (double)(float)((double)v->tokens[i].n * 0.1 - 0.1); /* more than any way around it */
        if (v->types[i] == 5) t->words.flags[i] &= (uint8_t)~AM_WORD_FINDABLE; /* paths avoid what is unused */
    }
    bool bytes = false;
    for (size_t b = 0; b < 256; b++) bytes |= t->bpe.fallback_id[b] >= 0;
    for (size_t i = 0; i < t->n_dec && !bytes; i++) /* without pieces for bytes, "<0x41>" is text */
        if (t->dec[i].kind == AM_DEC_FALLBACK) t->dec[i].kind = AM_DEC_FUSE;
    return AM_OK;
}

am_status am_sentencepiece_load(am_str file, am_str config, am_tokenizer **out, am_error *err) {
    *out = NULL;
    /* proto defaults; whether BOS and EOS are added is the config's, not the model's */
    model m = {.kind = 1, .escape = true, .vocab = {.unk = 0, .bos = 1, .eos = 2, .pad = -1, .add_space_prefix = 1, .remove_extra_whitespaces = 1}};
    am_tokenizer *t = am_tokenizer_create();
    am_status status = t ? model_read(&m, file, err) : am_fail(err, AM_ENOMEM, "no memory for the tokenizer");
    if (!status) status = am_vocab_read(t, &m.vocab, err);
    if (!status) status = stages_adapt(t, &m.vocab, err);
    if (!status) status = am_hf_config(t, config, true, err);
    if (!status) status = am_tokenizer_seal(t, (am_str[]){file, config}, 2, err);
    free(m.tokens);
    free(m.scores);
    free(m.types);
    if (status) am_tokenizer_free(t);
    else *out = t;
    return status;
}
