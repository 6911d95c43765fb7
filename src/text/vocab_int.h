/* What the loaders without a tokenizer.json share: vocabularies with types and scores, and named split patterns. */
#ifndef AM_TEXT_VOCAB_INT_H
#define AM_TEXT_VOCAB_INT_H

#include "text/tokenizer_int.h"

enum {
    AM_PRE_IGNORE_MERGES = 1,
    AM_PRE_ADD_BOS = 2,
    AM_PRE_MARKS = 4,       /* text with U+2581 for spaces, not bytes */
    AM_PRE_WHOLE_LINES = 8, /* see am_bpe.whole_lines */
    AM_PRE_NO_MERGES = 16,  /* a file need not have merges: then every text is bytes */
};
typedef struct am_pre_name {
    const char *names; /* separated by spaces */
    const char *pattern[8];
    unsigned flags;
} am_pre_name;
const am_pre_name *am_pre_name_find(am_str name); /* NULL when it is not known */
const am_pre_name *am_pre_name_at(size_t i);      /* NULL behind the last */

/* Fills t from a vocabulary, without sealing it. */
am_status am_vocab_read(am_tokenizer *t, const am_vocab *vocab, am_error *err);
/* Small building blocks of stages. */
am_status am_stage_norm(am_tokenizer *t, am_norm_kind kind, am_str find, am_str content, am_error *err);
am_status am_stage_dec(am_tokenizer *t, am_dec_kind kind, am_str find, am_str content, am_error *err);
am_status am_stage_patterns(am_tokenizer *t, const am_pre_name *name, am_error *err);

/* sentencepiece.c, tiktoken.c: from a file's bytes; config: tokenizer_config.json or empty. */
am_status am_sentencepiece_load(am_str file, am_str config, am_tokenizer **out, am_error *err);
/* path: what the file is called, or NULL: some say their split pattern by their name. */
am_status am_tiktoken_load(am_str file, am_str config, const char *path, am_tokenizer **out, am_error *err);

#endif
